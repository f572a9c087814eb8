"""Means over seeds, with intervals that hold for a handful of them."""

import numpy as np
from scipy.stats import t as student


def over_seeds(values: np.ndarray | list[float]) -> dict[str, float]:
    """`mean` and `count` of one number per seed, and the ends `low` and `high` of a 95 % Student interval.

    For a paired comparison, of the seeds' differences. A percentile bootstrap of five numbers is far too narrow. One seed has no
    interval, so no `low` and `high`.

    Raises:
        ValueError: there are no values.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"values: expected one number per seed, got the shape {values.shape}")
    found: dict[str, float] = {"mean": float(values.mean()), "count": len(values)}
    if len(values) > 1:
        half = float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
        found |= {"low": found["mean"] - half, "high": found["mean"] + half}
    return found


def cell(found: dict[str, float], digits: int = 3, *, sign: str = "") -> str:
    """What `over_seeds` found, for people; `sign` "+" for gains."""
    text = f"{found['mean']:{sign}.{digits}f}"
    return text if "low" not in found else f"{text} [{found['low']:{sign}.{digits}f}, {found['high']:{sign}.{digits}f}]"
