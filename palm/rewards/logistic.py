"""The Bradley-Terry likelihood of linear rewards, and its minimisation: shared by the linear methods.

For pairs n of users u with weights w_u, the logit of a pair is sum_k w_uk (h_chosen - h_rejected).V_k. Every distinct text
is projected once, so one evaluation of loss and gradient costs O(t d K + n K) for t texts, whatever the number of pairs
each is in.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from palm.features.pairs import PairFeatures

PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
"""Ridge penalties that cross-validation chooses among, for features of unit variance, in nats per squared weight."""


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

    Minimises sum_n log(1 + exp(-logit_n)) + penalty/2 sum_k |V_k - centre|^2 + centre_penalty/2 |mean_k V_k|^2 by L-BFGS.

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
    width, bases = start.shape

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        directions = flat.reshape(width, bases)
        margin = np.einsum("nk,nk->n", data.scores(directions), weights)
        wrong = 0.5 * (1.0 - np.tanh(0.5 * margin))
        away, mean = directions - centre[:, None], directions.mean(axis=1)
        value = np.logaddexp(0.0, -margin).sum() + 0.5 * penalty * (away**2).sum() + 0.5 * centre_penalty * (mean**2).sum()
        gradient = data.gradient(-wrong[:, None] * weights) + penalty * away + centre_penalty * mean[:, None] / bases
        return float(value), gradient.ravel()

    result = minimize(
        objective, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": steps, "ftol": tolerance, "gtol": 1e-9}
    )
    directions = result.x.reshape(width, bases)
    return directions, float(log_loss((data.scores(directions) * weights).sum(axis=1)).sum())


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


def choose_penalty(data: Standardised, *, folds: int = 5, seed: int = 0) -> tuple[float, dict[str, float]]:
    """The ridge penalty with the least held-out loss of one reward for everyone.

    Folds keep a group's pairs together (a text's pairs where there are no groups), so repeats cannot leak.

    Returns:
        the penalty, and the mean held-out loss of each penalty tried.
    """
    rng = np.random.default_rng(seed)
    fold = inner_folds(data.pairs, folds, rng)
    if fold.max() == 0:  # a single pair leaves nothing to hold out
        return 100.0, {}
    losses: dict[str, float] = {}
    parts = [(data.select(fold != number), data.select(fold == number)) for number in range(fold.max() + 1)]
    starts: list[np.ndarray | None] = [None] * len(parts)
    best, rising = np.inf, 0
    for penalty in sorted(PENALTIES, reverse=True):  # strong first: its solution is near 0 and starts the next
        total = 0.0
        for number, (train, test) in enumerate(parts):
            starts[number] = fit_population(train, penalty, starts[number])
            total += float(log_loss(test.scores(starts[number][:, None])[:, 0]).sum())  # type: ignore[index]
        losses[str(penalty)] = total / len(data.pairs)
        rising = 0 if losses[str(penalty)] < best else rising + 1
        best = min(best, losses[str(penalty)])
        if rising == 2:
            break
    return float(min(losses, key=lambda name: losses[name])), losses


def inner_folds(pairs: PairFeatures, folds: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) a fold for every pair; pairs of a group share it. Fewer folds where there are fewer groups, two at least."""
    keys = pairs.group if pairs.group is not None else pairs.chosen_row
    code = np.unique(keys, return_inverse=True)[1]
    count = int(code.max()) + 1
    if count < 2:  # one group: there is no clean split, so split pairs
        code, count = np.arange(len(pairs)), len(pairs)
    if count < 2:
        return np.zeros(len(pairs), dtype=np.int64)
    order = rng.permutation(count)
    return np.asarray(np.argsort(order) % min(folds, count))[code]
