"""PAL's users from their pairs: damped Gauss-Newton from several beginnings, all users at once.

In variant "A" where a text lies does not depend on the user: it is read once, and distances are taken once for every user and text,
however many pairs they are in: O(c dim K) an evaluation for c such cells, and O(n K^2) for n pairs. Who has arrived is not
evaluated again.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from scipy.special import softmax

from palm.rewards.networks import Network

_STEPS = 30
_CELLS = 16_384  # whose derivatives are in memory at a time
_SMALL = 1e-9


class Margins(Protocol):
    """Margins of users' pairs as a function of their weights."""

    def __call__(self, weight: np.ndarray, going: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the pairs of users who are (U,) going, at (U, K) weights.

        Returns:
            numbers of these pairs (n',), margins (n',) and their derivatives by the weights (n', K).
        """


class Distances:
    """Variant "A": nearness to the mixture's ideal point."""

    def __init__(
        self,
        text: Network,
        places: np.ndarray,
        scale: float,
        placed: np.ndarray,
        chosen: np.ndarray,
        rejected: np.ndarray,
        code: np.ndarray,
    ) -> None:
        """Number the (user, text) cells that pairs are of.

        Args:
            text: network that places prototypes.
            places: (K, d) prototypes.
            scale: logits per unit of distance.
            placed: (t, dim) where texts lie.
            chosen, rejected: (n,) a pair's texts among these.
            code: (n,) its user.
        """
        self.network, self.places, self.scale, self.placed, self.code = text, places, scale, placed, code
        texts = max(len(placed), 1)
        cell, index = np.unique(np.concatenate([code * texts + chosen, code * texts + rejected]), return_inverse=True)
        self.user, self.text = np.divmod(cell, texts)
        self.chosen, self.rejected = index[: len(code)], index[len(code) :]

    def __call__(self, weight: np.ndarray, going: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `Margins`."""
        ideal, turn = with_slope(self.network, weight @ self.places, self.places)
        live = np.flatnonzero(going[self.user])
        distance, slope = np.zeros(len(self.user)), np.zeros((len(self.user), weight.shape[1]))
        for start in range(0, len(live), _CELLS):
            part = live[start : start + _CELLS]
            away = ideal[self.user[part]] - self.placed[self.text[part]]
            distance[part] = np.linalg.norm(away, axis=1)
            away /= np.maximum(distance[part], _SMALL)[:, None]
            slope[part] = np.einsum("cp,cpk->ck", away, turn[self.user[part]])
        there = np.flatnonzero(going[self.code])
        chosen, rejected = self.chosen[there], self.rejected[there]
        return there, self.scale * (distance[rejected] - distance[chosen]), self.scale * (slope[rejected] - slope[chosen])


class PairByPair:
    """Variant "B", whose ideals depend on a pair's prompt: nothing is had twice."""

    def __init__(self, margins: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]], code: np.ndarray) -> None:
        """Keep how margins of some pairs (numbers, weights) are found, and the (n,) users of all."""
        self.margins, self.code = margins, code

    def __call__(self, weight: np.ndarray, going: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `Margins`."""
        there = np.flatnonzero(going[self.code])
        return there, *self.margins(there, weight[self.code[there]])


def descend(
    measure: Margins, code: np.ndarray, logits: np.ndarray, mean: np.ndarray, precision: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value (U,), logits (U, K) and Hessian (U, K, K) where steps from (U, K) logits no longer help.

    Everyone stops on their own, so that who else is inferred has no part in it.

    Args:
        measure: margins of n pairs.
        code: (n,) each pair's user.
        logits: (U, K) to begin at.
        mean, precision: (K,) and (K, K) of the prior.
    """
    damping, going = np.full(len(logits), 1e-3), np.ones(len(logits), dtype=bool)
    value, gradient, hessian = posterior(measure, code, logits, mean, precision, going)
    for _ in range(_STEPS):  # Levenberg and Marquardt: Gauss-Newton, damped for whom it would not help
        damped = hessian + damping[:, None, None] * np.eye(logits.shape[1])
        step = -np.linalg.solve(damped, gradient[:, :, None])[:, :, 0]
        found = posterior(measure, code, logits + step, mean, precision, going)
        better = going & (found[0] <= value)
        going = going & ~(better & (np.abs(step).max(axis=1) < 1e-6))
        logits = np.where(better[:, None], logits + step, logits)
        value = np.where(better, found[0], value)
        gradient = np.where(better[:, None], found[1], gradient)
        hessian = np.where(better[:, None, None], found[2], hessian)
        damping = np.clip(np.where(better, damping / 5, damping * 10), 1e-6, 1e6)
        if not going.any():
            break
    return value, logits, hessian


def posterior(
    measure: Margins, code: np.ndarray, logits: np.ndarray, mean: np.ndarray, precision: np.ndarray, going: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value (U,), gradient (U, K) and Gauss-Newton Hessian (U, K, K) of the negative log posterior at (U, K) logits.

    Of users who are not (U,) going it is the prior's alone.
    """
    users, bases = logits.shape
    weight = softmax(logits, axis=1)
    there, margin, by_weight = measure(weight, going)
    who = code[there]
    own = weight[who]
    slope = own * (by_weight - (own * by_weight).sum(axis=1, keepdims=True))
    away = logits - mean
    value = np.bincount(who, np.logaddexp(0.0, -margin), minlength=users) + 0.5 * np.einsum("uk,kl,ul->u", away, precision, away)
    gradient, hessian = away @ precision, np.tile(precision, (users, 1, 1))
    wrong = 0.5 * (1 - np.tanh(0.5 * margin))
    for i in range(bases):
        gradient[:, i] -= np.bincount(who, wrong * slope[:, i], minlength=users)
        for j in range(i + 1):
            known = np.bincount(who, wrong * (1 - wrong) * slope[:, i] * slope[:, j], minlength=users)
            hessian[:, i, j] += known
            if j < i:
                hessian[:, j, i] += known
    return value, gradient, hessian


def with_slope(network: Network, inputs: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, out) outputs of a network and (n, out, K) their derivatives along (K, in) directions of the input."""
    hidden = inputs
    turn = np.broadcast_to(directions, (len(inputs), *directions.shape))  # (n, K, width)
    for layer, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        hidden, turn = hidden @ weight + bias, turn @ weight
        if layer < len(network.weights) - 1:
            on = np.where(hidden > 0, 1.0, network.slope)
            hidden, turn = hidden * on, turn * on[:, None, :]
    return hidden, turn.transpose(0, 2, 1)
