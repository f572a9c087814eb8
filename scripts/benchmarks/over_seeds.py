"""Means over seeds, with intervals that hold for a handful of them."""

import numpy as np
from scipy.stats import t as student

from palm.evaluation import Estimate


def over_seeds(values: np.ndarray | list[float]) -> Estimate:
    """Mean and 95 % Student interval of one number per seed; for a paired comparison, of the seeds' differences.

    A percentile bootstrap of five numbers is far too narrow. One seed has no interval: low and high are its value.

    Raises:
        ValueError: there are no values.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"values: expected one number per seed, got the shape {values.shape}")
    mean, half = float(values.mean()), 0.0
    if len(values) > 1:
        half = float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Estimate(mean, mean - half, mean + half, len(values))
