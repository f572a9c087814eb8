"""The Bradley-Terry likelihood of linear rewards, and its minimisation: shared by the linear methods.

For pairs n of users u with weights w_u, the logit of a pair is sum_k w_uk (h_chosen - h_rejected).V_k. Every distinct text
is projected once, so one evaluation of loss and gradient costs O(t d K + n K) for t texts, whatever the number of pairs
each is in.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from palm.features.pairs import PairFeatures


@dataclass(frozen=True)
class Standardised:
    """Pairs whose features are read as if every column had unit variance over the texts.

    Attributes:
        pairs: the pairs.
        scale: (d,) standard deviations; constant columns have infinity, which takes them out.
    """

    pairs: PairFeatures
    scale: np.ndarray

    @classmethod
    def of(cls, pairs: PairFeatures) -> "Standardised":
        """Measure the columns; refuse features that are not finite."""
        deviation = pairs.items.moments()[1]
        if not np.isfinite(deviation).all():
            pairs.items.project(np.ones((pairs.width, 1)))  # says which row
            raise ValueError("features: expected finite numbers, some text has others")
        floor = 1e-6 * deviation.max(initial=0.0)
        return cls(pairs, np.where(deviation > floor, deviation, np.inf))

    def select(self, rows: np.ndarray) -> "Standardised":
        """Some of the pairs, with the same scale."""
        return Standardised(self.pairs.select(rows), self.scale)

    def scores(self, directions: np.ndarray) -> np.ndarray:
        """(n, K) chosen minus rejected, for (d, K) directions in standardised features."""
        return self.pairs.difference(self.pairs.items.project(directions / self.scale[:, None]))

    def gradient(self, per_pair: np.ndarray) -> np.ndarray:
        """(d, K): transpose of `scores` applied to (n, K) numbers."""
        return self.pairs.items.gather(self.pairs.scatter(per_pair)) / self.scale[:, None]


class _Margins:
    """Logits of pairs as a linear function of texts' K basis rewards, for given users' weights, and its transpose.

    Where users judged most of the texts, through every user's reward of every text, O(U t K + n); else pair by pair, O(n K).
    """

    def __init__(self, data: Standardised, weights: np.ndarray) -> None:
        """Choose the way; `weights` is (U, K), in the order of the pairs' users."""
        pairs = data.pairs
        self.pairs, self.weights, self.texts = pairs, weights, len(pairs.items)
        self.dense = len(weights) * self.texts <= 4 * len(pairs)
        if self.dense:
            self.chosen, self.rejected = (pairs.code * self.texts + side for side in (pairs.chosen_row, pairs.rejected_row))
        else:
            self.own = weights[pairs.code]

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """(n,) logits, given (t, K) rewards."""
        if not self.dense:
            return np.asarray(np.einsum("nk,nk->n", self.pairs.difference(raw), self.own))
        utility = (self.weights @ raw.T).ravel()
        return np.asarray(utility[self.chosen] - utility[self.rejected])

    def transposed(self, per_pair: np.ndarray) -> np.ndarray:
        """(t, K) out of (n,) numbers."""
        if not self.dense:
            return self.pairs.scatter(per_pair[:, None] * self.own)
        cells = len(self.weights) * self.texts
        total = np.bincount(self.chosen, per_pair, minlength=cells) - np.bincount(self.rejected, per_pair, minlength=cells)
        return np.asarray(total.reshape(-1, self.texts).T @ self.weights)


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

    Minimises sum_n log(1 + exp(-logit_n)) + penalty/2 sum_k |V_k - centre|^2 by L-BFGS.

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
    width, bases = start.shape
    margins, scale, items = _Margins(data, weights), data.scale[:, None], data.pairs.items

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        directions = flat.reshape(width, bases)
        loss, wrong = logistic(margins(items.project(directions / scale))[None])
        away = directions - centre[:, None]
        gradient = items.gather(margins.transposed(-wrong[0])) / scale + penalty * away
        return float(loss[0] + 0.5 * penalty * (away**2).sum()), gradient.ravel()

    result = minimize(
        objective, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": steps, "ftol": tolerance, "gtol": 1e-9}
    )
    directions = result.x.reshape(width, bases)
    return directions, float(logistic(margins(items.project(directions / scale))[None])[0][0])


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
