"""Newton's method for many small convex problems at once: one a user, all of one form.

    minimise over points x in a flat     sum_n log(1 + exp(-D_n.x)) + prior(x)

Users with about as many pairs are stacked into one dense array, short ones filled up with pairs of score 0, which say nothing;
then everything is products of stacked small matrices. O(n K^2 + U K^3) a step for n pairs of U users; users that have
converged drop out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from palm.rewards.logistic import logistic

_CHUNK = 2**18  # numbers of a stack of scores: about what a processor's cache holds
_LARGEST = 1e6  # size of a logit; beyond it a Hessian of pairs and prior loses the prior to rounding
_FILLED = 1.25  # times as many pairs as a user has, at most, counting those filled up with


class Prior(Protocol):
    """What is known of users before their pairs.

    Attributes:
        directions: (K, R) columns that span the ways in which a point may move.
    """

    directions: np.ndarray

    def value(self, points: np.ndarray) -> np.ndarray:
        """(U,) nats at (U, K) points."""

    def derivatives(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(U, R) gradient and (U, R, R) Hessian along `directions`."""

    def reach(self, points: np.ndarray, moves: np.ndarray) -> np.ndarray:
        """(U,) how much of (U, K) moves, 1 at most, stays where the prior is finite."""

    def tidy(self, points: np.ndarray) -> np.ndarray:
        """(U, K) points without what rounding has added."""


@dataclass(frozen=True)
class Stack:
    """Users with about as many pairs.

    Attributes:
        users: (B,) their numbers.
        scores: (B, n, K); a user's missing pairs are 0.
    """

    users: np.ndarray
    scores: np.ndarray


def check_scores(scores: np.ndarray, bases: int) -> None:
    """Refuse pair scores that are not (n, K) finite numbers of a size that can be told from its square.

    Raises:
        ValueError: they are not; the message names the shape or the pair.
    """
    if scores.ndim != 2 or scores.shape[1] != bases:
        raise ValueError(f"scores: expected the shape (n, {bases}), got {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError(f"scores: expected finite numbers, pair {int((~np.isfinite(scores).all(axis=1)).argmax())} has others")
    if len(scores) and np.abs(scores).max() > _LARGEST:
        pair = int(np.abs(scores).max(axis=1).argmax())
        raise ValueError(
            f"scores: expected logits of at most {_LARGEST:g} in size, pair {pair} has {np.abs(scores[pair]).max():g}; "
            "divide rewards by their spread"
        )


def stack_users(scores: np.ndarray, code: np.ndarray, users: int) -> Iterator[Stack]:
    """Every user who has pairs, once, in stacks that fit in memory.

    Args:
        scores: (n, K) of pairs.
        code: (n,) number of each pair's user.
        users: U.
    """
    bases = scores.shape[1]
    counts = np.bincount(code, minlength=users)
    order = np.argsort(code, kind="stable")
    starts = np.cumsum(counts) - counts
    by_count = np.argsort(counts, kind="stable")
    sizes = counts[by_count]
    first = int(np.searchsorted(sizes, 1))
    while first < users:
        widest = int(np.searchsorted(sizes, int(sizes[first] * _FILLED), side="right"))
        # As many users as the chunk holds at the size of the largest of them, found by halving what is left.
        last = widest
        while last - first > 1 and (last - first) * sizes[last - 1] * bases > _CHUNK:
            last = first + max(1, min((last - first) // 2, _CHUNK // int(sizes[first] * bases)))
        chosen, most = by_count[first:last], int(sizes[last - 1])
        place = np.arange(most)
        there = place < counts[chosen, None]
        rows = order[np.minimum(starts[chosen, None] + place, len(order) - 1)]
        yield Stack(chosen, np.where(there[:, :, None], scores[rows], 0.0))
        first = last


def newton(stack: Stack, points: np.ndarray, prior: Prior, *, tolerance: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The most probable point of every user of a stack.

    Args:
        stack: B users.
        points: (B, K) to begin at, where the prior is finite.
        prior: of all users.
        tolerance: on half the squared Newton decrement, in nats.
        steps: most Newton steps.

    Returns:
        points (B, K), and the inverse Hessian there along the prior's directions, (B, R, R): Laplace's approximation.
    """
    points = points.copy()
    slopes = stack.scores @ prior.directions
    active, margin = np.arange(len(points)), (stack.scores @ points[:, :, None])[:, :, 0]
    here, scores, current = slopes, stack.scores, points
    loss, wrong = logistic(margin)
    for _ in range(steps):
        if len(active) == 0:
            break
        value = loss + prior.value(current)
        gradient, hessian = _derivatives(here, wrong, current, prior)
        step = -np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        decrement = -(step * gradient).sum(axis=1)
        move = step @ prior.directions.T
        slope = (here @ step[:, :, None])[:, :, 0]
        size = prior.reach(current, move)
        for _ in range(40):
            trial = current + size[:, None] * move
            loss, wrong = logistic(margin + size[:, None] * slope)
            worse = loss + prior.value(trial) > value - 1e-4 * size * decrement + 1e-12 * np.abs(value)
            if not worse.any():
                break
            size = np.where(worse, size / 2, size)
        current = prior.tidy(np.where(worse[:, None], current, trial))  # no progress left within rounding
        points[active] = current
        going = (decrement / 2 > tolerance) & ~worse
        if not going.all():
            active, current, here, scores, loss, wrong = (part[going] for part in (active, current, here, scores, loss, wrong))
        margin = (scores @ current[:, :, None])[:, :, 0]
    wrong = logistic((stack.scores @ points[:, :, None])[:, :, 0])[1]
    return points, np.linalg.inv(_derivatives(slopes, wrong, points, prior)[1])


def _derivatives(slopes: np.ndarray, wrong: np.ndarray, points: np.ndarray, prior: Prior) -> tuple[np.ndarray, np.ndarray]:
    """(B, R) gradient and (B, R, R) Hessian of pairs and prior."""
    gradient, hessian = prior.derivatives(points)
    gradient -= (wrong[:, None, :] @ slopes)[:, 0]
    hessian += (slopes * (wrong * (1.0 - wrong))[:, :, None]).transpose(0, 2, 1) @ slopes
    return gradient, hessian
