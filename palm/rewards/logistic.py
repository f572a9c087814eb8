"""The Bradley-Terry likelihood of linear rewards, and its minimisation: shared by the linear methods.

For pairs n of users u with weights w_u, the logit of a pair is sum_k w_uk (h_chosen - h_rejected).V_k. Every distinct text
is projected once, so one evaluation of loss and gradient costs O(t d K + n K) for t texts, whatever the number of pairs
each is in.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize

from palm.features.pairs import PairFeatures
from palm.rewards.compact import Compact
from palm.rewards.span import Span

_INSIDE = 6  # steps within a span before its gradient outside is looked at
_CONSTANT = 1e-6  # deviation of a column, relative to its mean or to the usual deviation, that is rounding
_NOTHING = 1e-30  # deviation whose inverse float32 does not hold, nearly
_MISSED = 1e3  # times the tolerance of a step: the share of the value that a span may miss


@dataclass(frozen=True)
class Standardised:
    """Pairs whose features are read as if every column had unit variance over the texts.

    Attributes:
        pairs: the pairs.
        scale: (d,) standard deviations; constant columns have infinity, which takes them out.
        compact: the features in memory; None where they are too large.
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

    @property
    def rows(self) -> int:
        """m, rows that pairs are made of."""
        return len(self.pairs.items) if self.compact is None else len(self.compact.matrix)

    @property
    def first(self) -> np.ndarray:
        """(n,) row of each pair's chosen text, or of its difference."""
        return self.pairs.chosen_row if self.compact is None else self.compact.first

    @property
    def second(self) -> np.ndarray | None:
        """(n,) row of each pair's rejected text; None where rows are differences."""
        return self.pairs.rejected_row if self.compact is None else self.compact.second

    def project(self, directions: np.ndarray) -> np.ndarray:
        """(m, K) rewards of the rows that pairs are made of, for (d, K) directions in standardised features."""
        if self.compact is not None:
            return self.compact.project(directions)
        return self.pairs.items.project(directions / self.scale[:, None])

    def gather(self, coefficients: np.ndarray) -> np.ndarray:
        """(d, K): transpose of `project` applied to (m, K) numbers."""
        if self.compact is not None:
            return self.compact.gather(coefficients)
        return self.pairs.items.gather(coefficients) / self.scale[:, None]

    def scores(self, directions: np.ndarray) -> np.ndarray:
        """(n, K) chosen minus rejected, for (d, K) directions in standardised features."""
        each = self.project(directions)
        return each[self.first] if self.second is None else each[self.first] - each[self.second]

    def gradient(self, per_pair: np.ndarray) -> np.ndarray:
        """(d, K): transpose of `scores` applied to (n, K) numbers."""
        return self.gather(_scatter(per_pair, self.first, self.second, self.rows))

    def largest_moment(self, *, rounds: int = 8) -> float:
        """Largest second moment of the pairs' differences along any direction, by power iteration from a fixed beginning."""
        direction, moment = np.random.default_rng(0).standard_normal((len(self.scale), 1)), 0.0
        for _ in range(rounds if len(self.pairs) else 0):
            direction /= max(float(np.linalg.norm(direction)), 1e-300)
            direction = self.gradient(self.scores(direction)) / len(self.pairs)
            moment = float(np.linalg.norm(direction))
        return moment


def column_scales(pairs: PairFeatures) -> tuple[np.ndarray, np.ndarray]:
    """(d,) mean and standard deviation of every column over the texts; the deviation of a constant column is infinity.

    Raises:
        ValueError: a feature is not finite; the message names its row.
    """
    mean, deviation = pairs.items.moments()
    if not np.isfinite(deviation).all():
        pairs.items.project(np.ones((pairs.width, 1)))  # says which row
        raise ValueError("features: expected finite numbers, some text has others")
    usual = np.quantile(deviation, 0.9, method="lower") if len(deviation) else 0.0  # not the largest: one column decides over none
    floor = np.maximum(_CONSTANT * np.maximum(np.abs(mean), usual), _NOTHING)
    return mean, np.where(deviation > floor, deviation, np.inf)


class _Margins:
    """Logits of pairs as a linear function of rows' K basis rewards, for given users' weights, and its transpose.

    Where users judged most of the texts, through every user's reward of every text, O(U t K + n); else pair by pair, O(n K).
    """

    def __init__(self, data: Standardised, weights: np.ndarray) -> None:
        """Choose the way; `weights` is (U, K), in the order of the pairs' users."""
        self.first, self.second, self.weights, self.rows = data.first, data.second, weights, data.rows
        self.dense = False
        if self.second is not None and len(weights) * data.rows <= 4 * len(data.pairs):
            cell = data.pairs.code * data.rows
            self.dense, self.first, self.second = True, cell + self.first, cell + self.second
        else:
            self.own = weights[data.pairs.code]

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """(n,) logits, given (rows, K) rewards."""
        of_row = (self.weights @ raw.T).reshape(-1, 1) if self.dense else raw
        each = of_row[self.first] if self.second is None else of_row[self.first] - of_row[self.second]
        return each[:, 0] if self.dense else np.asarray(np.einsum("nk,nk->n", each, self.own))

    def transposed(self, per_pair: np.ndarray) -> np.ndarray:
        """(rows, K) out of (n,) numbers."""
        if self.dense:
            total = _scatter(per_pair[:, None], self.first, self.second, len(self.weights) * self.rows)
            return np.asarray(total.reshape(-1, self.rows).T @ self.weights)
        return _scatter(per_pair[:, None] * self.own, self.first, self.second, self.rows)


def _scatter(per_pair: np.ndarray, first: np.ndarray, second: np.ndarray | None, rows: int) -> np.ndarray:
    """(rows, K): every pair's (K,) numbers added to its first row and taken from its second one."""
    result = np.empty((rows, per_pair.shape[1]))
    for k, column in enumerate(per_pair.T):
        result[:, k] = np.bincount(first, column, minlength=rows)
        if second is not None:
            result[:, k] -= np.bincount(second, column, minlength=rows)
    return result


def fit_directions(
    data: Standardised,
    weights: np.ndarray,
    start: np.ndarray,
    *,
    penalty: float,
    centre: np.ndarray,
    steps: int = 100,
    tolerance: float = 1e-6,
) -> tuple[np.ndarray, float]:
    """The directions V that make the pairs most likely, given who weighs what.

    Minimises sum_n log(1 + exp(-logit_n)) + penalty/2 sum_k |V_k - centre|^2 by L-BFGS; where features in memory are large, within
    a subspace that grows as it needs to (palm.rewards.span).

    Args:
        data: n pairs.
        weights: (U, K) of the pairs' users, in the order of `data.pairs.ids`.
        start: (d, K) where to begin.
        penalty: on each basis' difference from `centre`.
        centre: (d,) what bases are drawn to.
        steps: most iterations.
        tolerance: relative change of the loss to stop at.

    Returns:
        (d, K) directions in standardised features, and the loss without penalties, in nats.
    """
    problem = _Problem(_Margins(data, weights), penalty, centre)
    if data.compact is not None and data.compact.span is not None:
        directions = _grow(problem, data, data.compact, data.compact.span, start, steps, tolerance)
    else:
        directions = _descend(problem, data, start, steps, tolerance)
    return directions, float(logistic(problem.margins(data.project(directions))[None])[0][0])


@dataclass(frozen=True)
class _Problem:
    """What `fit_directions` minimises."""

    margins: _Margins
    penalty: float
    centre: np.ndarray

    def at(self, data: Standardised | Compact, directions: np.ndarray) -> tuple[float, np.ndarray]:
        """Value, and gradient (d, K)."""
        loss, wrong = logistic(self.margins(data.project(directions))[None])
        away = directions - self.centre[:, None]
        gradient = data.gather(self.margins.transposed(-wrong[0])) + self.penalty * away
        return float(loss[0] + 0.5 * self.penalty * (away**2).sum()), gradient


def _descend(problem: _Problem, data: Standardised | Compact, start: np.ndarray, steps: int, tolerance: float) -> np.ndarray:
    """(d, K) by L-BFGS."""

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = problem.at(data, flat.reshape(start.shape))
        return value, gradient.ravel()

    result = minimize(
        objective, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": steps, "ftol": tolerance, "gtol": 1e-9}
    )
    return np.asarray(result.x.reshape(start.shape))


def _grow(
    problem: _Problem, data: Standardised, compact: Compact, span: Span, start: np.ndarray, steps: int, tolerance: float
) -> np.ndarray:
    """(d, K) by L-BFGS within a span, which grows by the gradient outside it.

    The objective is strongly convex with the penalty as modulus: a solution within the span misses the least value by at most
    |gradient outside|^2 / (2 penalty), and the span is large enough when that is a small share of the value.
    """
    directions = start
    span.include(np.hstack([problem.centre[:, None], start]))
    for _ in range(max(1, steps // 4)):
        inside = replace(problem, centre=span.basis.T @ problem.centre)
        directions = span.basis @ _descend(inside, compact.inside(), span.basis.T @ directions, min(steps, _INSIDE), tolerance)
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
    ones = np.ones((len(data.pairs.ids), 1))
    directions, _ = fit_directions(data, ones, begin, penalty=penalty, centre=np.zeros(width), steps=200, tolerance=1e-8)
    return directions[:, 0]


def log_loss(margin: np.ndarray) -> np.ndarray:
    """(n,) nats of surprise at the judgements, given (n,) logits."""
    return np.logaddexp(0.0, -margin)


def logistic(margin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B,) sums of log(1 + exp(-margin)) over (B, n) logits, and (B, n) sigmoid(-margin); without overflow."""
    small = np.exp(-np.abs(margin))
    more = 1.0 + small
    if margin.shape[1] <= 1000:  # a product of that many numbers up to 2 is finite, and one logarithm cheaper than many
        loss = np.log(np.multiply.reduce(more, axis=1))
    else:
        loss = np.log(more).sum(axis=1)
    loss -= np.minimum(margin, 0.0).sum(axis=1)
    return loss, np.where(margin >= 0, small, 1.0) / more
