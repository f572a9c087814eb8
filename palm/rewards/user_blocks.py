"""What the solvers for users share: blocks of whole users that fit in memory, and what pairs add to users' derivatives."""

from collections.abc import Iterator

import numpy as np

_CHUNK = 2**22  # pairs x K^2 numbers per block of users


def check_scores(scores: np.ndarray, bases: int) -> None:
    """Refuse pair scores that are not (n, K) finite numbers.

    Raises:
        ValueError: they are not; the message names the shape or the pair.
    """
    if scores.ndim != 2 or scores.shape[1] != bases:
        raise ValueError(f"scores: expected the shape (n, {bases}), got {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError(f"scores: expected finite numbers, pair {int((~np.isfinite(scores).all(axis=1)).argmax())} has others")


def user_blocks(code: np.ndarray, users: int, bases: int) -> Iterator[tuple[slice, np.ndarray]]:
    """All users, some at a time, each with all of their pairs; a user with more pairs than a block holds is one of their own.

    Args:
        code: (n,) number of each pair's user.
        users: U.
        bases: K.

    Yields:
        the numbers of the block's users, and the row numbers of their pairs, user by user.
    """
    order = np.argsort(code, kind="stable")
    ends = np.concatenate([[0], np.cumsum(np.bincount(code, minlength=users))])
    most, first = max(1, _CHUNK // bases**2), 0
    while first < users:
        end = int(np.searchsorted(ends, ends[first] + most, side="right")) - 1
        end = min(max(first + 1, end), first + most, users)
        yield slice(first, end), order[ends[first] : ends[end]]
        first = end


def add_pairs(gradient: np.ndarray, hessian: np.ndarray, slopes: np.ndarray, code: np.ndarray, margin: np.ndarray) -> None:
    """Add every pair's logistic loss to its user's derivatives, in place. O(n K^2).

    Args:
        gradient, hessian: (U, K) and (U, K, K).
        slopes: (n, K) derivative of each pair's logit.
        code: (n,) number of each pair's user.
        margin: (n,) logits.
    """
    users, bases = gradient.shape
    wrong = 0.5 * (1.0 - np.tanh(0.5 * margin))  # sigmoid(-margin), without overflow
    curvature = wrong * (1.0 - wrong)
    for i in range(bases):
        gradient[:, i] -= np.bincount(code, wrong * slopes[:, i], minlength=users)
        for j in range(i, bases):
            entry = np.bincount(code, curvature * slopes[:, i] * slopes[:, j], minlength=users)
            hessian[:, i, j] += entry
            if i != j:
                hessian[:, j, i] += entry
