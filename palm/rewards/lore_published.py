"""LoRe's published fits: Adam over everything at once, or alternating and anchored to a reference reward.

A. Bose et al., arXiv 2504.14439; written from the paper's description. logit = (h_chosen - h_rejected).V softmax(W_u) / divisor,
V and W begin as draws from N(0, 1), full-batch Adam with learning rate 0.5.

`joint` (TL;DR, PersonalLLM): 1000 steps on the sum over users of the mean loss of their pairs, no penalty. `anchored` (PRISM):
20 000 times a step on W and one on V, the loss averaged over all pairs plus alpha mean_k(1 - cos(V_k, V_ref)), alpha 0 for a fifth
of the steps, then growing linearly to 1e4 at four fifths; bases that no user weighs above 0.01 are dropped.

The published divisor is 100 for hidden states of 4096 numbers; here features have unit variance and it is 100 sqrt(d / 4096).
Published V_ref is a reward model's head; here it is the Bradley-Terry direction, since features may come from anywhere.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from palm.rewards.logistic import Standardised

STEPS = {"joint": 1000, "anchored": 20_000}
"""Published numbers of steps."""

_RATE, _ALPHA, _UNUSED = 0.5, 1e4, 1e-2


@dataclass
class _Adam:
    """Adam (Kingma and Ba, 2015) on one array, in place."""

    values: np.ndarray

    def __post_init__(self) -> None:
        self.first, self.second, self.steps = np.zeros_like(self.values), np.zeros_like(self.values), 0

    def step(self, gradient: np.ndarray) -> None:
        self.steps += 1
        self.first += 0.1 * (gradient - self.first)
        self.second += 0.001 * (gradient**2 - self.second)
        first, second = self.first / (1 - 0.9**self.steps), self.second / (1 - 0.999**self.steps)
        self.values -= _RATE * first / (np.sqrt(second) + 1e-8)


def fit_published(
    data: Standardised, rank: int, preset: str, reference: np.ndarray, *, steps: int | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Fit bases and seen users' weights as published.

    Args:
        data: pairs of the seen users.
        rank: number of bases to begin with.
        preset: "joint" or "anchored".
        reference: (d,) V_ref, in standardised features; its length does not matter.
        steps: other than published.
        seed: of the beginning.

    Returns:
        (d, K) bases in standardised features, in logits, and (U, K) weights; K may be below `rank` after "anchored".
    """
    rng = np.random.default_rng(seed)
    code, users, width = data.pairs.code, len(data.pairs.ids), data.pairs.width
    divisor = 100 * np.sqrt(width / 4096)
    bases, logits = _Adam(rng.standard_normal((width, rank))), _Adam(rng.standard_normal((users, rank)))
    share = 1 / np.bincount(code)[code] if preset == "joint" else np.full(len(code), 1 / len(code))
    total = steps or STEPS[preset]

    def wrong() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Softmax weights, pair scores, and each pair's share times its chance to be wrong."""
        weights, scores = softmax(logits.values, axis=1), data.scores(bases.values) / divisor
        margin = np.einsum("nk,nk->n", scores, weights[code])
        return weights, scores, share * 0.5 * (1 - np.tanh(0.5 * margin))

    def user_gradient(weights: np.ndarray, scores: np.ndarray, missed: np.ndarray) -> np.ndarray:
        pull = np.column_stack([np.bincount(code, missed * column, minlength=users) for column in scores.T])
        return -weights * (pull - (weights * pull).sum(axis=1, keepdims=True))

    def basis_gradient(weights: np.ndarray, missed: np.ndarray) -> np.ndarray:
        return -data.gradient(missed[:, None] * weights[code]) / divisor

    for step in range(total):
        weights, scores, missed = wrong()
        if preset == "joint":
            gradient = basis_gradient(weights, missed)
            logits.step(user_gradient(weights, scores, missed))
            bases.step(gradient)
        else:
            logits.step(user_gradient(weights, scores, missed))
            weights, _, missed = wrong()
            alpha = _ALPHA * float(np.clip((step / total - 0.2) / 0.6, 0.0, 1.0))
            bases.step(basis_gradient(weights, missed) + alpha * _away_from(bases.values, reference))
    weights = softmax(logits.values, axis=1)
    used = weights.max(axis=0) > _UNUSED if preset == "anchored" else np.ones(rank, dtype=bool)
    weights = weights[:, used]
    return bases.values[:, used] / divisor, weights / weights.sum(axis=1, keepdims=True)


def _away_from(bases: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Gradient of mean_k(1 - cos(V_k, V_ref))."""
    length = np.linalg.norm(bases, axis=0)
    target = reference / max(float(np.linalg.norm(reference)), 1e-300)
    cosine = target @ bases / length
    gradient: np.ndarray = -(target[:, None] - bases * (cosine / length)) / length / bases.shape[1]
    return gradient
