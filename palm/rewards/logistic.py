"""The Bradley-Terry likelihood of linear rewards, and its minimisation: shared by the linear methods.

For pairs n of users u with weights w_u, the logit of a pair is sum_k w_uk (h_chosen - h_rejected).V_k. Every distinct text
is projected once, so one evaluation of loss and gradient costs O(t d K + n K) for t texts, whatever the number of pairs
each is in.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from scipy.optimize import minimize

from palm.features.pairs import PairFeatures
from palm.rewards.compact import Compact
from palm.rewards.span import Span

_INSIDE = 6  # steps within a span before its gradient outside is looked at
_MISSED = 1e3  # times the tolerance of a step: the share of the value that a span may miss


@dataclass(frozen=True)
class Standardised:
    """Pairs whose features are read as if every column had unit variance over the texts.

    Attributes:
        pairs: the pairs.
        scale: (d,) standard deviations; constant columns have infinity, which takes them out.
        compact: the features in memory; None where they are too large, or not worth it.
    """

    pairs: PairFeatures
    scale: np.ndarray
    compact: Compact | None = None

    @classmethod
    def of(cls, pairs: PairFeatures) -> "Standardised":
        """Measure the columns and read the features into memory, if they fit; refuse features that are not finite."""
        mean, scale = column_scales(pairs)
        return cls(pairs, scale, Compact.of(pairs, mean, scale))

    def select(self, rows: np.ndarray) -> "Standardised":
        """Some of the pairs, with the same scale."""
        return Standardised(self.pairs.select(rows), self.scale, None if self.compact is None else self.compact.select(rows))

    def scores(self, directions: np.ndarray) -> np.ndarray:
        """(n, K) chosen minus rejected, for (d, K) directions in standardised features."""
        if self.compact is not None:
            return self.compact.scores(directions)
        return self.pairs.difference(self.pairs.items.project(directions / self.scale[:, None]))

    def gradient(self, per_pair: np.ndarray) -> np.ndarray:
        """(d, K): transpose of `scores` applied to (n, K) numbers."""
        if self.compact is not None:
            return self.compact.gradient(per_pair)
        return self.pairs.items.gather(self.pairs.scatter(per_pair)) / self.scale[:, None]


def column_scales(pairs: PairFeatures) -> tuple[np.ndarray, np.ndarray]:
    """(d,) mean and standard deviation of every column over the texts; the deviation of a constant column is infinity.

    Raises:
        ValueError: a feature is not finite; the message names its row.
    """
    mean, deviation = pairs.items.moments()
    if not np.isfinite(deviation).all():
        pairs.items.project(np.ones((pairs.width, 1)))  # says which row
        raise ValueError("features: expected finite numbers, some text has others")
    floor = 1e-6 * deviation.max(initial=0.0)
    return mean, np.where(deviation > floor, deviation, np.inf)


def fit_directions(
    data: Standardised,
    weights: np.ndarray,
    start: np.ndarray,
    *,
    penalty: float,
    centre: np.ndarray,
    centre_penalty: float,
    steps: int = 100,
    tolerance: float = 1e-6,
) -> tuple[np.ndarray, float]:
    """The directions V that make the pairs most likely, given who weighs what.

    Minimises sum_n log(1 + exp(-logit_n)) + penalty/2 sum_k |V_k - centre|^2 + centre_penalty/2 |mean_k V_k|^2 by L-BFGS; where
    features in memory are large, within a subspace that grows as it needs to (palm.rewards.span).

    Args:
        data: n pairs.
        weights: (n, K) the weight of each pair's user.
        start: (d, K) where to begin.
        penalty: on each basis' difference from `centre`.
        centre: (d,) what bases are drawn to.
        centre_penalty: on the bases' mean, at least 0.
        steps: most iterations.
        tolerance: relative change of the loss to stop at.

    Returns:
        (d, K) directions in standardised features, and the loss without penalties, in nats.
    """
    problem = _Problem(weights, penalty, centre, centre_penalty)
    if data.compact is not None and data.compact.span is not None:
        directions = _grow(problem, data.compact, data.compact.span, start, steps, tolerance)
    else:
        directions = _descend(problem, data, start, steps, tolerance)
    return directions, float(log_loss((data.scores(directions) * weights).sum(axis=1)).sum())


class _Linear(Protocol):
    """Pairs whose scores are linear in (d, K) directions."""

    def scores(self, directions: np.ndarray) -> np.ndarray: ...

    def gradient(self, per_pair: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class _Problem:
    """What `fit_directions` minimises."""

    weights: np.ndarray
    penalty: float
    centre: np.ndarray
    centre_penalty: float

    def at(self, data: _Linear, directions: np.ndarray) -> tuple[float, np.ndarray]:
        """Value, and gradient (d, K)."""
        margin = np.einsum("nk,nk->n", data.scores(directions), self.weights)
        wrong = 0.5 * (1.0 - np.tanh(0.5 * margin))
        away, mean = directions - self.centre[:, None], directions.mean(axis=1)
        value = np.logaddexp(0.0, -margin).sum()
        value += 0.5 * self.penalty * (away**2).sum() + 0.5 * self.centre_penalty * (mean**2).sum()
        gradient = data.gradient(-wrong[:, None] * self.weights)
        gradient += self.penalty * away + self.centre_penalty * mean[:, None] / directions.shape[1]
        return float(value), gradient


def _descend(problem: _Problem, data: _Linear, start: np.ndarray, steps: int, tolerance: float) -> np.ndarray:
    """(d, K) by L-BFGS."""

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = problem.at(data, flat.reshape(start.shape))
        return value, gradient.ravel()

    result = minimize(
        objective, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": steps, "ftol": tolerance, "gtol": 1e-9}
    )
    return np.asarray(result.x.reshape(start.shape))


def _grow(problem: _Problem, data: Compact, span: Span, start: np.ndarray, steps: int, tolerance: float) -> np.ndarray:
    """(d, K) by L-BFGS within a span, which grows by the gradient outside it.

    The objective is strongly convex with the penalty as modulus: a solution within the span misses the least value by at most
    |gradient outside|^2 / (2 penalty), and the span is large enough when that is a small share of the value.
    """
    directions = start
    span.include(np.hstack([problem.centre[:, None], start]))
    for _ in range(max(1, steps // 4)):
        inside = replace(problem, centre=span.basis.T @ problem.centre)
        directions = span.basis @ _descend(inside, data.inside(), span.basis.T @ directions, min(steps, _INSIDE), tolerance)
        value, gradient = problem.at(data, directions)
        outside = span.outside(gradient)
        if (outside**2).sum() <= 2 * problem.penalty * _MISSED * tolerance * value:
            break
        span.include(np.hstack([problem.centre[:, None], directions, outside]))
    return directions


def fit_population(data: Standardised, penalty: float, start: np.ndarray | None = None) -> np.ndarray:
    """(d,) the one direction that makes the pairs most likely, with a ridge penalty."""
    width = data.pairs.width
    begin = np.zeros((width, 1)) if start is None else start[:, None]
    ones = np.ones((len(data.pairs), 1))
    directions, _ = fit_directions(
        data, ones, begin, penalty=penalty, centre=np.zeros(width), centre_penalty=0.0, steps=200, tolerance=1e-8
    )
    return directions[:, 0]


def log_loss(margin: np.ndarray) -> np.ndarray:
    """(n,) nats of surprise at the judgements, given (n,) logits."""
    return np.logaddexp(0.0, -margin)
