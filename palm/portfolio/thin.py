"""Fewer policies than any choice from a pool: take one away, and move the others to make up for it.

A pool holds a policy's best position only by chance. Of a portfolio that is good enough, the policy is taken away that its
neighbours make up for best, and the rest is refined until it is good enough again or no longer gets better. What succeeds is
taken further; when the likeliest policies were tried in vain, or the effort is spent, the last success is kept.
"""

from dataclasses import dataclass, replace

import numpy as np

from palm.portfolio.certify import folded
from palm.portfolio.corners import corner_weights
from palm.portfolio.cover import Advance
from palm.portfolio.oracle import Oracle
from palm.portfolio.pool import Pool, Trials
from palm.portfolio.refine import refine_weights

_ROUNDS = 25
_TRIED = 8  # policies whose neighbours make up for them best
_FEWEST_ROUNDS = 8  # fewer would show nothing
_PROGRAM = 100  # what a round's linear program costs, in weights asked of an oracle


@dataclass(frozen=True)
class _Found:
    """Policies, their gap once it was computed, and whether moving them further is known not to shrink it."""

    weights: np.ndarray
    value: np.ndarray
    cost: np.ndarray
    gap: float = np.inf
    settled: bool = False


@dataclass
class Looks:
    """Weights at which an oracle may still be asked.

    Attributes:
        left: so many.
    """

    left: float


def thinned(
    oracle: Oracle,
    pool: Pool,
    trials: Trials,
    chosen: np.ndarray,
    *,
    epsilon: float,
    delta: float,
    looks: Looks,
    advance: Advance | None = None,
) -> tuple[Pool, np.ndarray]:
    """The pool with policies that do with fewer, and the positions of these; what was given if it cannot be thinned.

    Args:
        oracle: must be cheap.
        pool, chosen: policies that are good enough everywhere.
        trials: weights by which neighbours are judged.
        epsilon, delta: what is good enough.
        looks: bounds the work, and is charged.
        advance: called with a line of text whenever a policy fewer is found to do.
    """
    best = _Found(pool.weights[chosen], pool.value[chosen], pool.cost[chosen])
    while len(best.weights) > 1:
        shorter = _shorter(oracle, trials, best, epsilon, delta, looks)
        if shorter is None and not best.settled:  # it was good enough and no more: with room to spare another may go
            best = _refined(oracle, best, delta, 0.0, looks) or replace(best, settled=True)
        elif shorter is None:
            break
        else:
            best = shorter
            if advance is not None:
                advance(f"{len(best.weights)} policies do, with their weights moved")
    weights, value, cost = best.weights, best.value, best.cost
    if len(weights) == len(chosen):
        return pool, chosen
    optimum = (weights * value).sum(axis=1) - cost
    joined = Pool(
        np.vstack([pool.weights, weights]),
        np.vstack([pool.value, value]),
        np.append(pool.cost, cost),
        np.append(pool.optimum, optimum),
    )
    return joined, len(pool) + np.arange(len(weights))


def _shorter(oracle: Oracle, trials: Trials, found: _Found, epsilon: float, delta: float, looks: Looks) -> _Found | None:
    """One policy fewer, still good enough; None if there is none to be found."""
    for policy in _sparest(oracle, trials, found, delta)[:_TRIED]:
        left = np.delete(np.arange(len(found.weights)), policy)
        moved = _refined(oracle, _Found(found.weights[left], found.value[left], found.cost[left]), delta, epsilon, looks)
        if moved is None or moved.gap <= epsilon:
            return moved
    return None


def _refined(oracle: Oracle, found: _Found, delta: float, wanted: float, looks: Looks) -> _Found | None:
    """The same policies, moved until the gap is the one wanted or the smallest; None if there is no effort left for that."""
    corners = corner_weights(folded(found.value, found.cost, oracle.reference))
    a_round = len(corners) + found.weights.size + len(found.weights) + _PROGRAM
    rounds = min(_ROUNDS, int(looks.left / a_round))
    if rounds < _FEWEST_ROUNDS:
        return None
    moved = refine_weights(oracle, found.weights, delta=delta, rounds=rounds, wanted=wanted)
    looks.left -= moved.rounds * a_round
    return _Found(moved.weights, moved.value, moved.cost, moved.after, settled=wanted == 0)


def _sparest(oracle: Oracle, trials: Trials, found: _Found, delta: float) -> np.ndarray:
    """The policies by the gap that the others leave on the trials, the smallest first."""
    utility = np.column_stack([trials.weights @ found.value.T - found.cost, trials.weights @ oracle.reference])
    rows = np.arange(len(utility))
    own = utility.argmax(axis=1)
    utility[rows, own] = -np.inf
    second = utility.max(axis=1)
    gap = np.where(second > 0, (trials.optimum - delta) / np.maximum(second, 1e-300) - 1, np.inf)
    left = np.zeros(len(found.value) + 1)
    np.maximum.at(left, own, gap)
    return np.argsort(left[:-1], kind="stable")
