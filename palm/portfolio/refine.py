"""Move a portfolio's weights so that its worst gap shrinks: the pool that it was chosen from need not hold the best positions.

The worst gap over the simplex is a minimum over policies inside a maximum over weights, smooth in the policies' own weights
between the kinks. So each round linearises what every policy gives at the corner weights where the gap is large, and a linear
program finds the small move of all weights together that lifts the worst of them most. The move is kept only if the gap at
the *new* corners is smaller; otherwise those corners join the program and the next move is smaller. The gap never grows.

For a population the move is known in closed form: utility is linear in the weight, so the best policy for a group of users is
the optimum at the mean of their weights (for welfare, weighted by how much each counts), as in Lloyd's algorithm.

Sources: sequential linear programming for minimax problems: K. Madsen, H. Schjaer-Jacobsen, "Linearly constrained minimax
optimization", Mathematical Programming 14 (1978); S. Lloyd, "Least squares quantization in PCM", IEEE Trans. Inf. Theory 28 (1982).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array

from palm.portfolio.callback import check_cheap
from palm.portfolio.certify import folded, served_utility, worst_gap
from palm.portfolio.corners import corner_weights
from palm.portfolio.oracle import Oracle, Solution
from palm.portfolio.population import Population

_STEP = 1e-4  # towards a vertex, for differences of value and cost
_SMALLEST = 1e-4  # moves that are tried
_HARDEST = 400  # corner weights in one program


@dataclass(frozen=True)
class Refined:
    """Moved weights and the policies that are optimal there.

    Attributes:
        weights: (m, K).
        value: (m, K).
        cost: (m,).
        before: what was made smaller, at the weights given: the certified multiplicative gap, or the loss of a population.
        after: the same at these weights; at most `before`.
        solves: weights at which the oracle was solved on the way.
        rounds: moves that were tried.
    """

    weights: np.ndarray
    value: np.ndarray
    cost: np.ndarray
    before: float
    after: float
    solves: int
    rounds: int


@dataclass(frozen=True)
class _Position:
    """Policies, and the corners of their cells: weights, the bound on OPT there less delta, and the ratio of it to what is had."""

    weights: np.ndarray
    solution: Solution
    corners: np.ndarray
    wanted: np.ndarray
    epsilon: float


def refine_weights(
    oracle: Oracle,
    weights: np.ndarray,
    *,
    delta: float = 0.0,
    rounds: int = 40,
    wanted: float = 0.0,
    advance: Callable[[str], object] | None = None,
) -> Refined:
    """Move (m, K) weights so that the certified multiplicative gap, given `delta`, shrinks.

    Args:
        oracle: must be cheap; m (K + 1) weights are solved a round.
        weights: of the policies, on the simplex.
        delta: additive gap allowed beside it.
        rounds: moves to try at most.
        wanted: gap at which to stop.
        advance: called with a line of text after every round.

    Returns:
        the moved weights; those given where no move helps (m = 0, one basis, a gap of 0 or without bound).

    Raises:
        ValueError: the oracle trains.
    """
    check_cheap(oracle, "refine_weights")
    best = start = _at(oracle, weights, delta)
    solves = len(weights)
    if len(weights) == 0 or oracle.bases == 1 or not np.isfinite(start.epsilon):
        return _refined(start, start, solves, 0)
    tests, needed = start.corners, start.wanted
    reach, slopes, tries = 0.2, None, 0
    while tries < rounds and best.epsilon > wanted and reach >= _SMALLEST:
        tries += 1
        if slopes is None:
            slopes, solves = _slopes(oracle, best), solves + best.weights.size
        moved = _move(oracle, best, slopes, tests, needed, reach)
        if moved is None:
            break
        tried, solves = _at(oracle, moved, delta), solves + len(moved)
        tests, needed = np.vstack([tests, tried.corners]), np.append(needed, tried.wanted)
        if tried.epsilon < best.epsilon * (1 - 1e-9):
            small = tried.epsilon > best.epsilon * (1 - 1e-4)
            best, slopes, reach = tried, None, (reach / 2 if small else min(2 * reach, 0.5))
        else:
            reach /= 3
        if advance is not None:
            advance(f"refined: epsilon {start.epsilon:.4f} to {best.epsilon:.4f}")
    return _refined(start, best, solves, tries)


def refine_for_users(
    oracle: Oracle, weights: np.ndarray, population: Population, *, welfare: float | None = None, rounds: int = 40
) -> Refined:
    """Move (m, K) weights so that a population's mean regret shrinks, or its p-mean welfare grows.

    Args:
        oracle: must be cheap; at most m weights are solved a round.
        weights: of the policies, on the simplex.
        population: the users.
        welfare: p; None for mean regret.
        rounds: moves to try at most.

    Returns:
        the moved weights; `before` and `after` are what is made small: mean regret, or minus W_p.

    Raises:
        ValueError: the oracle trains.
    """
    check_cheap(oracle, "refine_for_users")
    weights, solution = np.array(weights), oracle.solve(weights) if len(weights) else None
    solves, free = len(weights), population.weights @ oracle.reference
    if solution is None:
        loss = population.loss(free, welfare)
        return Refined(weights, np.zeros((0, oracle.bases)), np.zeros(0), loss, loss, 0, 0)
    utility = population.weights @ solution.value.T - solution.cost
    before = loss = population.loss(np.maximum(utility.max(axis=1), free), welfare)
    tries = 0
    while tries < rounds:
        tries += 1
        served, own = np.maximum(utility.max(axis=1), free), utility.argmax(axis=1)
        counts = _importance(population, served, welfare) * (utility.max(axis=1) > free)
        total = np.bincount(own, counts, len(weights))
        moved = weights.copy()
        for policy in np.flatnonzero(total > 0):
            moved[policy] = (counts[own == policy] / total[policy]) @ population.weights[own == policy]
        moved /= moved.sum(axis=1, keepdims=True)
        if np.abs(moved - weights).max() < 1e-9:
            break
        tried, solves = oracle.solve(moved), solves + len(moved)
        utility = population.weights @ tried.value.T - tried.cost
        new = population.loss(np.maximum(utility.max(axis=1), free), welfare)
        if new >= loss - 1e-12 * abs(loss):
            break
        weights, solution, loss = moved, tried, new
    return Refined(weights, solution.value, solution.cost, before, loss, solves, tries)


def _importance(population: Population, served: np.ndarray, welfare: float | None) -> np.ndarray:
    """(U,) by how much a user's loss falls with one more unit of utility, up to a common factor."""
    if welfare is None:
        return np.full(len(served), 1.0)
    optimum = np.maximum(population.optimum, 1e-300)
    ratio = np.maximum(served / optimum, 1e-9)
    logarithm = (welfare - 1) * np.log(ratio)
    return np.exp(logarithm - logarithm.max()) / optimum


def _at(oracle: Oracle, weights: np.ndarray, delta: float) -> _Position:
    bases = oracle.bases
    solution = oracle.solve(weights) if len(weights) else Solution(np.zeros((0, bases)), np.zeros(0), np.zeros(0))
    corners = corner_weights(folded(solution.value, solution.cost, oracle.reference))
    optimum, base = oracle.upper_bound(corners), corners @ oracle.reference
    served = served_utility(corners, solution.value, solution.cost, oracle.reference)
    gap = worst_gap(optimum, served, base, given_delta=delta)
    return _Position(weights, solution, corners, optimum - delta, gap.epsilon)


def _slopes(oracle: Oracle, position: _Position) -> tuple[np.ndarray, np.ndarray]:
    """How value (m, K, K) and cost (m, K) change as each weight moves towards each vertex of the simplex, per unit."""
    size, bases = position.weights.shape
    towards = np.eye(bases)[None] - position.weights[:, None]  # (m, vertex, K)
    near = oracle.solve((position.weights[:, None] + _STEP * towards).reshape(-1, bases))
    value = (near.value.reshape(size, bases, bases) - position.solution.value[:, None]) / _STEP
    return value, (near.cost.reshape(size, bases) - position.solution.cost[:, None]) / _STEP


def _move(
    oracle: Oracle,
    position: _Position,
    slopes: tuple[np.ndarray, np.ndarray],
    tests: np.ndarray,
    wanted: np.ndarray,
    reach: float,
) -> np.ndarray | None:
    """The move within reach that lifts the worst linearised share of what is wanted most; None if there is none."""
    size, bases = position.weights.shape
    utility = tests @ position.solution.value.T - position.solution.cost
    free, own = tests @ oracle.reference, utility.argmax(axis=1)
    best = utility.max(axis=1)
    share = np.maximum(best, free) / np.maximum(wanted, 1e-300)
    # Where the reference serves better than now the worst no policy is needed. Asking for one there would stop all progress.
    short = free <= wanted / (1 + position.epsilon * (1 - 1e-6))
    open_tests = np.flatnonzero((wanted > 0) & ((best >= free) | short))
    open_tests = open_tests[np.argsort(share[open_tests], kind="stable")][:_HARDEST]
    if len(open_tests) == 0:
        return None
    policy, weight = own[open_tests], tests[open_tests]
    gain = np.einsum("tvk,tk->tv", slopes[0][policy], weight) - slopes[1][policy]  # per unit of move towards each vertex
    gain, had = gain / wanted[open_tests, None], utility[open_tests, policy] / wanted[open_tests]  # its tolerances are absolute
    # Variables: moves a_jv >= 0 towards vertex v, then the share s to be lifted: (utility + gain.a) / wanted >= s.
    rows = np.repeat(np.arange(len(open_tests)), bases)
    columns = (policy[:, None] * bases + np.arange(bases)).ravel()
    level = np.column_stack([np.arange(len(open_tests)), np.full(len(open_tests), size * bases)])
    matrix = csr_array(
        (np.append(-gain.ravel(), np.ones(len(open_tests))), (np.append(rows, level[:, 0]), np.append(columns, level[:, 1]))),
        shape=(len(open_tests) + size, size * bases + 1),
    )
    limits = csr_array(
        (np.ones(size * bases), (len(open_tests) + np.repeat(np.arange(size), bases), np.arange(size * bases))),
        shape=matrix.shape,
    )
    found = linprog(
        np.append(np.zeros(size * bases), -1.0),
        A_ub=matrix + limits,
        b_ub=np.append(had, np.full(size, reach)),
        bounds=[*[(0.0, reach)] * (size * bases), (None, None)],
        method="highs",
    )
    if found.x is None or -found.fun <= had.min() * (1 + 1e-9):
        return None
    steps = found.x[:-1].reshape(size, bases)
    moved = position.weights * (1 - steps.sum(axis=1, keepdims=True)) + steps
    return moved / moved.sum(axis=1, keepdims=True)


def _refined(start: _Position, best: _Position, solves: int, rounds: int) -> Refined:
    return Refined(best.weights, best.solution.value, best.solution.cost, start.epsilon, best.epsilon, solves, rounds)
