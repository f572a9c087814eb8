"""The gap that any m policies must leave, whatever they are and whatever weights they are made for.

Let w, w' be weights and u = t w + (1 - t) w' lie between them. If one policy is within a multiplicative gap epsilon at both,
(1 + epsilon) f_w >= OPT(w) and (1 + epsilon) f_w' >= OPT(w'), then, utility being linear in the weight,

    (1 + epsilon) OPT(u) >= (1 + epsilon) f_u = (1 + epsilon) (t f_w + (1 - t) f_w') >= t OPT(w) + (1 - t) OPT(w').

So no policy serves both with less than epsilon(w, w') = max_t (t OPT(w) + (1 - t) OPT(w')) / OPT(u) - 1. The reference serves w
with epsilon(w) = OPT(w) / w.J_ref - 1. Take any m + 1 weights: of m policies and the reference, either the reference serves one of
these weights best, or one policy serves two of them. So the gap of every portfolio of m policies is at least

    min( min_i epsilon(w_i), min_ij epsilon(w_i, w_j) ),

and any m + 1 weights prove it; the ones that prove most are looked for. For m = 0 the bound is the gap of the reference alone: OPT
is convex, so OPT(w) - (1 + epsilon) w.J_ref is largest at a vertex, and the vertices are among the weights looked at. OPT is taken
from below at the weights and from above between them, so an oracle's slack weakens the bound and does not break it.

The value in t is a linear function over a convex one, quasi-concave; any t proves what it gives, so few are tried.
"""

from dataclasses import dataclass

import numpy as np

from palm.portfolio.grid import grid_of_size
from palm.portfolio.oracle import Oracle

_POWER = 12  # of the mean that stands for the least of some numbers while weights are moved: it sees the second least, too
_MARGIN = 1e-9  # keeps rounding from proving too much
_CEILING = 1e6  # of gaps, where their differences or powers are taken
_BLOCK = 4096


@dataclass(frozen=True)
class LeastGap:
    """A bound on the multiplicative gap of every portfolio of one size.

    Attributes:
        size: m; the reference, which is free, is not counted.
        epsilon: no m policies have a smaller one.
        weights: (s, K), s above m: of m policies none serves two of them with less, nor the reference one. Empty if epsilon is 0.
    """

    size: int
    epsilon: float
    weights: np.ndarray


def least_gaps(
    oracle: Oracle, most: int, *, among: np.ndarray | None = None, candidates: int = 100, steps: int = 24
) -> list[LeastGap]:
    """Bounds on the gap of any 0, 1, .., most policies; see this module for the proof.

    Args:
        oracle: `lower_bound` and `upper_bound` are asked, O(candidates^2 + most^2 K^2 steps) weights in all.
        most: largest number of policies, at least 0.
        among: (n, K) more weights to look at, such as a portfolio's own and the worst ones of certificates.
        candidates: weights of the uniform grid that is looked at, besides the vertices.
        steps: rounds in which the weights of each bound are moved.

    Returns:
        most + 1 bounds, falling in m.

    Raises:
        ValueError: `most` is negative.
    """
    if most < 0:
        raise ValueError(f"most: expected at least 0, got {most}")
    rows = [np.eye(oracle.bases), grid_of_size(oracle.bases, candidates)] + ([] if among is None else [among])
    weights = np.unique(np.round(np.vstack(rows), 12), axis=0)
    weights = weights / weights.sum(axis=1, keepdims=True)
    search = _Search(oracle)
    alone = search.alone(weights)
    weights = weights[alone > 0]
    if not len(weights):  # the reference is the best policy everywhere
        return [LeastGap(size, 0.0, np.zeros((0, oracle.bases))) for size in range(most + 1)]
    apart = search.all_pairs(weights)
    sets = _spread(apart, alone[alone > 0], most + 1)
    found: list[LeastGap] = []
    for rows_of in sets:  # from many weights to few: what is proven by more weights holds for fewer policies
        own = weights[rows_of]
        moved = search.moved(own, steps) if len(own) > 1 else own
        found.append(LeastGap(len(own) - 1, search.proven(moved), moved))
    best: list[LeastGap] = []
    for size in range(most, -1, -1):
        options = [one for one in (*best[-1:], *found) if one.epsilon > 0 and len(one.weights) > size]
        top = max(options, key=lambda one: one.epsilon, default=None)
        best.append(LeastGap(size, 0.0, weights[:0]) if top is None else LeastGap(size, top.epsilon, top.weights))
    return best[::-1]


class _Search:
    """Gaps of the reference at weights, and of one policy at two weights."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle

    def alone(self, weights: np.ndarray) -> np.ndarray:
        """(n,) the reference's gap, at least 0."""
        return _epsilon_shown(self._oracle.lower_bound(weights), weights @ self._oracle.reference)

    def pairs(self, one: np.ndarray, other: np.ndarray, at_one: np.ndarray, at_other: np.ndarray) -> np.ndarray:
        """(n,) what a policy leaves at worse of `one` and `other`, (n, K) each, with OPT from below at both: (n,) each.

        Three shares and the top of the parabola through them.
        """
        shares, values = np.array([0.3, 0.5, 0.7]), []
        for share in shares:
            values.append(self._between(one, other, at_one, at_other, np.full(len(one), share)))
        left, middle, right = np.minimum(values, _CEILING)
        bend = np.minimum(left - 2 * middle + right, -1e-15)
        top = np.clip(0.5 - 0.2 * (right - left) / (2 * bend), 0.05, 0.95)
        return np.maximum.reduce([*values, self._between(one, other, at_one, at_other, top)])

    def _between(
        self, one: np.ndarray, other: np.ndarray, at_one: np.ndarray, at_other: np.ndarray, share: np.ndarray
    ) -> np.ndarray:
        between = self._oracle.upper_bound(share[:, None] * one + (1 - share[:, None]) * other)
        return _epsilon_shown(share * at_one + (1 - share) * at_other, between)

    def all_pairs(self, weights: np.ndarray) -> np.ndarray:
        """(n, n) what a policy leaves at two of (n, K) weights, in the middle alone: quick, and enough to choose by."""
        optimum = self._oracle.lower_bound(weights)
        first, second = np.triu_indices(len(weights), k=1)
        apart = np.full((len(weights), len(weights)), np.inf)
        for start in range(0, len(first), _BLOCK):
            one, other = first[start : start + _BLOCK], second[start : start + _BLOCK]
            half = np.full(len(one), 0.5)
            apart[one, other] = self._between(weights[one], weights[other], optimum[one], optimum[other], half)
        return np.minimum(apart, apart.T)

    def matrix(self, weights: np.ndarray) -> np.ndarray:
        """(n, n) of all pairs, with `alone` on the diagonal."""
        optimum = self._oracle.lower_bound(weights)
        first, second = np.triu_indices(len(weights), k=1)
        apart = np.diag(self.alone(weights))
        if len(first):
            apart[first, second] = self.pairs(weights[first], weights[second], optimum[first], optimum[second])
        return np.maximum(apart, apart.T)

    def proven(self, weights: np.ndarray) -> float:
        """What some weights prove: the least of their gaps, less a margin for rounding."""
        least = float(self.matrix(weights).min()) if len(weights) else 0.0
        return max(least - _MARGIN * (1 + least), 0.0) if np.isfinite(least) else least

    def moved(self, weights: np.ndarray, steps: int) -> np.ndarray:
        """Weights that prove more: one after the other takes a step from one basis to another as long as that helps."""
        weights, bases = weights.copy(), weights.shape[1]
        give, take = np.nonzero(~np.eye(bases, dtype=bool))
        apart, step, stuck, mover = self.matrix(weights), 0.12, 0, 0
        for turn in range(steps * len(weights)):
            if stuck == len(weights):
                step, stuck = step / 2.5, 0
                if step < 2e-3:
                    break
            mover = self._weakest(apart, turn) if stuck == 0 else (mover + 1) % len(weights)
            amount = np.minimum(step, weights[mover, give])
            tried = np.repeat(weights[mover][None], len(give), axis=0)
            tried[np.arange(len(give)), give] -= amount
            tried[np.arange(len(give)), take] += amount
            tried = tried[amount > 0]
            others = np.delete(np.arange(len(weights)), mover)
            optimum, known = self._oracle.lower_bound(tried), self._oracle.lower_bound(weights[others])
            row = self.pairs(
                np.repeat(tried, len(others), axis=0),
                np.tile(weights[others], (len(tried), 1)),
                np.repeat(optimum, len(others)),
                np.tile(known, len(tried)),
            ).reshape(len(tried), -1)
            rows = np.column_stack([row, self.alone(tried)])
            now = np.append(apart[mover, others], apart[mover, mover])
            scale = min(max(float(apart.min()), 1e-12), _CEILING)
            gain = _shortage(now[None], scale)[0] - _shortage(rows, scale)
            best = int(gain.argmax())
            if gain[best] <= 1e-9 * _shortage(now[None], scale)[0]:
                stuck += 1
                continue
            weights[mover], stuck = tried[best], 0
            apart[mover, others] = apart[others, mover] = row[best]
            apart[mover, mover] = rows[best, -1]
        return weights

    @staticmethod
    def _weakest(apart: np.ndarray, turn: int) -> int:
        """A weight of the pair that proves least, either of them in turn."""
        place = np.unravel_index(int(apart.argmin()), apart.shape)
        return int(place[turn % 2])


def _epsilon_shown(wanted: np.ndarray, had: np.ndarray) -> np.ndarray:
    """wanted / had - 1, at least 0; infinite where nothing is had of something.

    0 where nothing, or less, is wanted: that shows nothing, though a policy may have still less.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(wanted > 0, np.where(had > 0, wanted / had - 1.0, np.inf), 0.0)
    return np.maximum(ratio, 0.0)


def _shortage(gaps: np.ndarray, scale: float) -> np.ndarray:
    """(n,) how far rows of gaps are from being large: the sum of a negative power, the smallest counting most."""
    return ((scale / np.maximum(gaps, 1e-3 * scale)) ** _POWER).sum(axis=1)


def _spread(apart: np.ndarray, alone: np.ndarray, most: int) -> list[np.ndarray]:
    """For 1 to `most` weights, those whose least gap is largest, as far as adding the farthest from every start and swaps find."""
    count = len(apart)
    starts = np.arange(count)
    chosen, least = starts[:, None], np.minimum(apart, alone[None, :])  # least[s, i]: what i would prove beside start s's set
    least[starts, starts] = -1.0
    value = alone.copy()
    sets = [np.array([int(alone.argmax())])]
    for _ in range(1, min(most, count)):
        pick = least.argmax(axis=1)
        value = np.minimum(value, least[starts, pick])
        chosen = np.column_stack([chosen, pick])
        least = np.minimum(least, apart[pick])
        least[starts, pick] = -1.0
        sets.append(_swapped(chosen[int(value.argmax())], apart, alone))
    return sets


def _swapped(chosen: np.ndarray, apart: np.ndarray, alone: np.ndarray) -> np.ndarray:
    """Swap one of the weights that prove least for another as long as the set proves more."""
    chosen = chosen.copy()

    def least_of(rows: np.ndarray) -> np.ndarray:
        """What each weight would prove beside some rows."""
        return np.minimum(alone, apart[rows].min(axis=0, initial=np.inf))

    for _ in range(50):
        inside = apart[np.ix_(chosen, chosen)]
        now = min(float(inside.min(initial=np.inf)), float(alone[chosen].min()))
        best = (now * (1 + 1e-9), -1, -1)
        for position in np.flatnonzero(np.minimum(inside.min(axis=1), alone[chosen]) <= now):
            others = np.delete(chosen, position)
            between = apart[np.ix_(others, others)]
            value = np.minimum(least_of(others), float(between.min(initial=np.inf)))
            value[others] = -1.0
            if value.max() > best[0]:
                best = float(value.max()), int(position), int(value.argmax())
        if best[1] < 0:
            break
        chosen[best[1]] = best[2]
    return chosen
