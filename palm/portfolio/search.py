"""The fewest policies for a gap, where oracles are cheap."""

import logging

import numpy as np

from palm.portfolio.cover import Advance, Certifier, greedy_search
from palm.portfolio.fixed_size import fixed_size_search
from palm.portfolio.incompatible import incompatible_on_grid
from palm.portfolio.oracle import Oracle
from palm.portfolio.pool import Pool, Trials, covers_of
from palm.portfolio.refine import refine_weights
from palm.portfolio.rounding import size_of
from palm.portfolio.select import Effort, smallest_cover
from palm.portfolio.thin import Looks, thinned

logger = logging.getLogger(__name__)

_SPREAD, _SPREAD_BASES = 16, 4  # most policies, and bases, for which they are spread anew: more take longer and hardly ever gain
_SPREAD_EFFORTS = (0.0, 2e4)  # of integer programs, in turn: moving them evens out what swapping alone leaves
_LOOKS = {True: 4e4, False: 1e4}  # weights asked of the oracle to find that fewer policies do: if the fewest are wanted, or few


def cut_search(
    oracle: Oracle,
    *,
    epsilon: float,
    delta: float,
    exact: bool = True,
    pool: Pool | None = None,
    effort: Effort | None = None,
    advance: Advance | None = None,
) -> tuple[Pool, np.ndarray]:
    """Cover, certify, cut: cover finitely many weights with few policies, certify these few, add where they fail, repeat.

    Only the corners of the small cover are enumerated, so the work grows with the portfolio's size and not the pool's.

    Args:
        oracle: solved thousands of times unless a pool is given; must be cheap then.
        epsilon, delta: tolerance, (1 + epsilon) L_S(w) + delta >= OPT(w) for every w.
        exact: the fewest policies out of the pool, by integer programming; otherwise greedily few.
        pool: policies to choose from, which must be good enough together; by default the search makes its own, solves
            wherever a choice fails and moves weights so that fewer will do.
        effort: of all integer programs together, about five seconds unless given; when it is spent, or a program would be too
            large, the fewest found so far are kept, and the log warns of what is proven.
        advance: called with a line of text after every round.

    Returns:
        the pool and the positions of the chosen policies in it (none if the reference suffices). With `exact` and effort
        enough, no smaller part of the pool is good enough everywhere: none is even on the finitely many weights.
    """
    grow = pool is None
    inner = epsilon * (1 - 1e-6)  # so that rounding cannot put the certificate above what was asked for
    pool, tests, chosen = greedy_search(oracle, epsilon=inner, delta=delta, pool=pool, advance=advance)
    if grow:
        looks = Looks(_LOOKS[exact])
        pool, chosen = thinned(oracle, pool, tests, chosen, epsilon=inner, delta=delta, looks=looks, advance=advance)
    certifier, proven = Certifier(oracle, inner, delta), 1
    effort = effort or Effort()
    if exact and len(chosen) > 1:
        proven = len(incompatible_on_grid(oracle, epsilon=inner, delta=delta))  # of no pool whatever fewer will do
        if grow:
            pool, chosen = _spread_anew(oracle, pool, chosen, max(proven, 1), inner, delta, advance)
    if exact and len(chosen) > max(proven, 1):
        tests = _fewer_tests(oracle, pool, tests, inner, delta, effort.most_cells)
    while exact and len(chosen) > max(proven, 1):
        needs, covers = covers_of(pool, tests, oracle.reference, inner, delta, size=size_of(oracle))
        too_large = int(needs.sum()) * len(pool) > effort.most_cells
        if effort.spent or too_large:
            logger.warning(
                "%s: %d policies kept; of this pool no fewer than %d will do, what lies between is open",
                f"{len(pool)} policies on {int(needs.sum())} weights are too many for an integer program"
                if too_large
                else "integer programs took all the effort allowed",
                len(chosen),
                proven,
            )
            break
        if advance is not None:
            advance(f"{len(pool)} solves, {len(chosen)} policies do, at least {proven}: the next integer program begins")
        fewer, bound = smallest_cover(covers[needs], effort=effort)
        proven = max(proven, bound)
        if proven >= len(chosen):
            break  # the weights tried so far already need as many
        failures = certifier.failures(pool, fewer)
        if advance is not None:
            advance(f"{len(pool)} solves, at least {bound} policies, {len(fewer)} tried, {len(failures)} corners open")
        if len(failures) == 0:
            chosen = fewer
            continue
        tests = tests.joined(failures.weights, failures.optimum)
        pool = pool.joined(oracle, failures.weights) if grow else pool
    return pool, chosen


def _spread_anew(
    oracle: Oracle, pool: Pool, chosen: np.ndarray, least: int, epsilon: float, delta: float, advance: Advance | None
) -> tuple[Pool, np.ndarray]:
    """One policy fewer as long as so few, spread for the smallest gap of their number, are good enough.

    Taking a policy away and moving the others keeps the pattern that they were found in; another pattern may need fewer.
    """
    while oracle.bases <= _SPREAD_BASES and least < len(chosen) <= _SPREAD:
        for units in _SPREAD_EFFORTS:
            own, few = fixed_size_search(oracle, size=len(chosen) - 1, delta=delta, effort=Effort(units))
            moved = refine_weights(oracle, own.weights[few], delta=delta, wanted=epsilon)
            if moved.after <= epsilon:
                break
        else:
            break
        pool, chosen = pool.joined(oracle, moved.weights), len(pool) + np.arange(len(moved.weights))
        if advance is not None:
            advance(f"{len(pool)} solves, {len(chosen)} policies do, spread anew")
    return pool, chosen


def _fewer_tests(oracle: Oracle, pool: Pool, tests: Trials, epsilon: float, delta: float, most_cells: int) -> Trials:
    """The tests, or so few of them, evenly spaced, that integer programs over the pool keep room for the corners that fail.

    A choice passes only at all its corners, so fewer tests cost rounds and prove no more than is true.
    """
    needs = np.flatnonzero(covers_of(pool, tests, oracle.reference, epsilon, delta, size=size_of(oracle))[0])
    if len(needs) * len(pool) <= most_cells:
        return tests
    kept = needs[np.linspace(0, len(needs) - 1, max(1, most_cells // (2 * len(pool)))).astype(np.intp)]
    return Trials(tests.weights[kept], tests.optimum[kept])
