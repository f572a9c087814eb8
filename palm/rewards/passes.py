"""Mini-batch passes over wide features: most of the way to a maximum of the likelihood in a few readings of them.

Where penalties are weak and every pair has texts of its own, bases go on growing until the pairs are known by heart, and L-BFGS
reads all features hundreds of times on the way. Adam on mini-batches (D. P. Kingma, J. Ba, "Adam: a method for stochastic
optimization", arXiv 1412.6980) takes n / 512 steps a reading, at a rate that falls linearly to 0. Users' weights are solved for
after each pass, from the scores that the pairs had as it came to them. Strong penalties are left to L-BFGS, which takes as long
from where 24 passes end as from anywhere (1,000 users, 45,000 pairs, d 4096, penalties of 30 to 1,000).
"""

import numpy as np

from palm.rewards.logistic import Standardised, log_loss
from palm.rewards.simplex_users import Population, infer_weights

_WEAK = 1e-4  # of the pairs: the largest penalty that hardly holds bases
_BATCH = 512  # pairs a step
_PASSES = 26
_REACH = 80.0  # first rate times d: what one step can move a logit by, for features of unit variance
_LARGEST = 1e5  # logit that weights are solved for: beyond it a judgement is certain, and Newton's method may not converge
_MEAN, _SQUARE = 0.9, 0.999  # what Adam's averages keep


def weakly_penalised(data: Standardised, penalty: float) -> bool:
    """Whether passes are worth it: features are wide or many, in memory, of a text to each pair, and the penalty is weak."""
    compact = data.compact
    return compact is not None and compact.span is not None and compact.second is None and penalty <= _WEAK * len(data.pairs)


def descend_by_passes(
    data: Standardised,
    directions: np.ndarray,
    weights: np.ndarray,
    *,
    penalty: float,
    centre: np.ndarray,
    prior: Population,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Bases and weights after 26 passes, O(n d K) each, or those given where the loss with penalties has not fallen.

    Args:
        data: n pairs, with differences of features in memory.
        directions: (d, K) where bases begin.
        weights: (U, K) where weights begin.
        penalty: on each basis' difference from `centre`.
        centre: (d,) what bases are drawn to.
        prior: of the weights.
        rng: of the order of pairs.

    Returns:
        (d, K) bases, (U, K) weights, and the loss with penalties, in nats.
    """
    code = data.pairs.code

    def solved(bases: np.ndarray, begin: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        scores = np.clip(data.scores(bases), -_LARGEST, _LARGEST)
        found = infer_weights(scores, code, len(begin), prior, start=begin, tolerance=1e-6)[0]
        loss = float(log_loss(np.einsum("nk,nk->n", scores, found[code])).sum())
        return bases, found, loss + 0.5 * penalty * float(((bases - centre[:, None]) ** 2).sum())

    adam = _Adam(data, directions, penalty, centre)
    own = weights
    for _ in range(_PASSES):
        scores = adam.run(own, rng.permutation(len(code)))
        own = infer_weights(np.clip(scores, -_LARGEST, _LARGEST), code, len(own), prior, start=own, tolerance=1e-3)[0]
    return min(solved(adam.bases.astype(np.float64), own), solved(directions, weights), key=lambda result: result[2])


class _Adam:
    """Bases on their way, in float32."""

    def __init__(self, data: Standardised, directions: np.ndarray, penalty: float, centre: np.ndarray) -> None:
        """Begin at (d, K) directions."""
        assert data.compact is not None
        self.matrix, self.rows, self.code = data.compact.matrix, data.compact.first, data.pairs.code
        self.ridge, self.centre = np.float32(penalty / len(self.code)), centre.astype(np.float32)[:, None]
        self.bases = directions.astype(np.float32)
        self.mean, self.square = np.zeros_like(self.bases), np.zeros_like(self.bases)
        self.steps = 0
        self.most = _PASSES * -(-len(self.code) // _BATCH)

    def run(self, weights: np.ndarray, order: np.ndarray) -> np.ndarray:
        """One pass over the (n,) pairs in an order; (n, K) scores that they had just before their own step."""
        scores = np.empty((len(order), weights.shape[1]))
        own = weights.astype(np.float32)[self.code]
        for start in range(0, len(order), _BATCH):
            batch = np.sort(order[start : start + _BATCH])
            features, weight = self.matrix[self.rows[batch]], own[batch]
            score = features @ self.bases
            scores[batch] = score
            wrong = 0.5 - 0.5 * np.tanh(0.5 * (score * weight).sum(axis=1))
            self._step(self.ridge * (self.bases - self.centre) - ((wrong[:, None] * weight).T @ features).T / len(batch))
        return scores

    def _step(self, gradient: np.ndarray) -> None:
        self.steps += 1
        self.mean += np.float32(1 - _MEAN) * (gradient - self.mean)
        self.square += np.float32(1 - _SQUARE) * (gradient**2 - self.square)
        length = np.sqrt(self.square / np.float32(1 - _SQUARE**self.steps)) + np.float32(1e-12)
        rate = _REACH / len(self.centre) * (1 - self.steps / (self.most + 1))
        self.bases -= np.float32(rate / (1 - _MEAN**self.steps)) * self.mean / length
