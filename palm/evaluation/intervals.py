"""Confidence intervals by bootstrap, paired where two things are measured on the same units."""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtrit

_FEW = 10  # units whose resampled means say too little of how far off their mean can be


@dataclass(frozen=True)
class Estimate:
    """A mean and its interval.

    Attributes:
        mean: over the units.
        low, high: 95 % bootstrap interval; equal to the mean for a single unit.
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


def check_level(level: float) -> None:
    """See that the level of an interval is one.

    Raises:
        ValueError: it is not.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number above 0 and below 1, got {level}")


def bootstrap_mean(values: np.ndarray, *, draws: int = 2000, level: float = 0.95, seed: int = 0) -> Estimate:
    """Mean of values over independent units, with an interval.

    The percentiles are those of the bootstrap at a level widened for few units by Student's quantile: plain ones are too near for
    fewer than a hundred (of 20 normal numbers they hold the mean in 92 % of cases, these in 95 %). They cannot leave the range of
    the numbers themselves, though, so for fewer than ten units an interval reaches at least as far as Student's.

    Args:
        values: (n,) finite numbers, one per unit; for a paired comparison, the units' differences.
        draws: bootstrap samples.
        level: of the interval.
        seed: of the draws.

    Raises:
        ValueError: there are no values, or one is not finite.

    Source: T. Hesterberg, "What teachers should know about the bootstrap", The American Statistician 69 (2015).
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
    tail = _tail(len(values), level)
    low, high = np.quantile(means, [tail, 1 - tail])
    mean = values.mean()
    if 1 < len(values) < _FEW:
        half = -stdtrit(len(values) - 1, (1 - level) / 2) * values.std(ddof=1) / np.sqrt(len(values))
        low, high = min(low, mean - half), max(high, mean + half)
    return Estimate(float(mean), float(low), float(high), len(values))


def bounded_mean(values: np.ndarray, least: float, most: float) -> Estimate:
    """Mean of values that lie in a range over independent units, with a 95 % interval that knows of what was not seen.

    Where all of a few units agree their bootstrap says that nothing else can be. So two units at either end of the range are
    added, and the interval is that of a normal number with their mean and standard error, by Student's quantile for the n units
    (for shares it holds in at least 94 % of cases whatever n and the truth; by a normal quantile, as in the source, in 81 % where
    n is 2), cut to the range.

    Args:
        values: (n,) numbers in the range, one per unit.
        least, most: the range.

    Raises:
        ValueError: there are no values, or one is not in the range.

    Source: A. Agresti, B. A. Coull, "Approximate is better than 'exact' for interval estimation of binomial proportions", The
        American Statistician 52 (1998).
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0 or not ((least <= values) & (values <= most)).all():
        raise ValueError(f"values: expected numbers from {least} to {most} in the shape (n,), n at least 1, got {values!r:.60}")
    mean, padded = float(values.mean()), np.concatenate([values, np.repeat([least, most], 2)])
    if len(values) < 2:
        return Estimate(mean, least, most, len(values))
    half = -stdtrit(len(values) - 1, 0.025) * padded.std() / np.sqrt(len(padded))
    low, high = min(padded.mean() - half, mean), max(padded.mean() + half, mean)
    return Estimate(mean, float(max(low, least)), float(min(high, most)), len(values))


def _tail(units: int, level: float) -> float:
    """What to leave out of a bootstrap distribution at either end, so that an interval for a mean of normal numbers holds."""
    if units < 2:
        return (1 - level) / 2
    return float(ndtr(np.sqrt(units / (units - 1)) * stdtrit(units - 1, (1 - level) / 2)))


def resampled_interval(
    estimate: float, samples: np.ndarray, units: int, *, level: float = 0.95, least: float = -np.inf, most: float = np.inf
) -> Estimate:
    """A number and a safe interval around it, from its values on resampled units.

    For numbers that resampling shifts, such as worst cases and entropies: an end is as far away as the farther of the two
    percentiles, at a level widened for few units by Student's quantile, and moves on by the shift: what drawing again adds to the
    number, drawing once has added already. Fewer than ten units have few values on resamples, which percentiles cannot leave: for
    them an end is at least as far away as Student's for a mean.

    Args:
        estimate: on the units themselves.
        samples: (draws,) on units drawn from them with replacement.
        units: how many there are, at least 1; with one nothing is known, and the interval is as wide as the number can be.
        level: of the interval.
        least, most: bounds of what the number can be.

    Source: T. Hesterberg, "What teachers should know about the bootstrap", The American Statistician 69 (2015).
    """
    if units < 2 or not np.isfinite(estimate):
        return Estimate(float(estimate), float(least), float(most), units)
    tail = _tail(units, level)
    with np.errstate(invalid="ignore"):
        above = np.quantile(samples, 1 - tail, method="higher") - estimate
        below = estimate - np.quantile(samples, tail, method="lower")
        shift = float(samples.mean() - estimate)
        error = float(samples.std()) * np.sqrt(units / (units - 1))
    reach = -stdtrit(units - 1, (1 - level) / 2) * error if units < _FEW else 0.0
    half = max(float(above), float(below), 0.0, reach)  # not a number, from infinite samples, is passed over
    low, high = estimate - half - max(shift, 0.0), estimate + half - min(shift, 0.0)
    return Estimate(float(estimate), max(low, least), min(high, most), units)


def jackknife(
    estimate: float, without: np.ndarray, units: int, *, level: float = 0.95, least: float = -np.inf, most: float = np.inf
) -> Estimate:
    """A number and its interval, from its values when one group of units after the other is left out.

    For numbers that drawing a unit twice would spoil, such as the share of different words: the bootstrap repeats texts, leaving
    out does not. The variance is on average no less than the true one.

    Args:
        estimate: on all units.
        without: (g,) without each of g groups of equally many units.
        units: how many there are.
        level: of the interval, by Student's quantile with g - 1 degrees of freedom.
        least, most: bounds of what the number can be.

    Source: B. Efron, C. Stein, "The jackknife estimate of variance", Annals of Statistics 9 (1981).
    """
    groups = len(without)
    if groups < 2:
        return Estimate(float(estimate), float(least), float(most), units)
    error = np.sqrt((groups - 1) / groups * ((without - without.mean()) ** 2).sum())
    half = float(-stdtrit(groups - 1, (1 - level) / 2) * error)
    return Estimate(float(estimate), max(estimate - half, least), min(estimate + half, most), units)
