"""Confidence intervals by bootstrap, paired where two things are measured on the same units."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A mean and its interval.

    Attributes:
        mean: over the units.
        low, high: 95 % percentile-bootstrap interval; equal to the mean for a single unit.
        count: number of units (users, prompts).
    """

    mean: float
    low: float
    high: float
    count: int

    def record(self) -> dict[str, float]:
        """JSON form."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "count": self.count}

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap_mean(values: np.ndarray, *, draws: int = 2000, level: float = 0.95, seed: int = 0) -> Estimate:
    """Mean of values over independent units, with an interval.

    Args:
        values: (n,) finite numbers, one per unit; for a paired comparison, the units' differences.
        draws: bootstrap samples.
        level: of the interval.
        seed: of the draws.

    Raises:
        ValueError: there are no values, or one is not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise ValueError(f"values: expected finite numbers in the shape (n,), n at least 1, got {values!r:.60}")
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    step = max(1, 2**22 // len(values))
    for start in range(0, draws, step):
        size = min(step, draws - start)
        means[start : start + size] = values[rng.integers(len(values), size=(size, len(values)))].mean(axis=1)
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return Estimate(float(values.mean()), float(low), float(high), len(values))
