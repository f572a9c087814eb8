"""From an oracle to a certified portfolio."""

import logging
from dataclasses import replace

import numpy as np

from palm.portfolio.certify import certify
from palm.portfolio.cover import Advance
from palm.portfolio.fixed_size import fixed_size_search
from palm.portfolio.gains import GainOracle, check_captured_gain, check_gain_everywhere
from palm.portfolio.grid import grid_of_size, palm_grid, random_weights
from palm.portfolio.lazy import lazy_search
from palm.portfolio.nearby import nearby_search
from palm.portfolio.oracle import Oracle, trains
from palm.portfolio.plan_checks import (
    check_captured_alone,
    check_most_solves,
    check_names,
    check_pool,
    check_search,
    check_trainings,
    check_users_given,
)
from palm.portfolio.pool import Pool, solve_all
from palm.portfolio.population import Population, keep_for_users
from palm.portfolio.portfolio import Portfolio
from palm.portfolio.refine import refine_for_users, refine_weights
from palm.portfolio.search import cut_search
from palm.rewards.users import UserWeights
from palm.seeds import check_seed

logger = logging.getLogger(__name__)

_MOST_EPSILON = 1e9  # beyond, what is served is rounding
_MOST_AGAIN = 6  # of the fewest policies; for more, choosing them again takes longer than they took, and gains little


def plan_portfolio(
    oracle: Oracle,
    *,
    epsilon: float = 0.02,
    delta: float = 0.0,
    captured_gain: float | None = None,
    size: int | None = None,
    method: str = "cut",
    select: str = "milp",
    users: np.ndarray | UserWeights | None = None,
    welfare: float | None = None,
    refine: bool = False,
    weights: int = 200,
    most_solves: int = 1000,
    seed: int = 0,
    names: tuple[str, ...] = (),
    advance: Advance | None = None,
) -> Portfolio:
    """Choose the policies to train, with a certificate over every weight on the simplex.

    Args:
        oracle: such as `GibbsOracle(reward_tensor, kl=0.1)`.
        epsilon: multiplicative gap wanted, at least 1e-6 (0 with a positive `delta`).
        delta: additive gap allowed beside it, at least 0.
        captured_gain: the share, above 0 and at most 1, of what could be gained over the reference that every weight is to have,
            instead of `epsilon`; with `delta`, every weight may lack as much gain beside it. Where the gain falls to nothing
            at some weight, as between opposed bases, a positive delta is needed.
        size: at most so many policies, with the smallest epsilon they can have beside `delta`, instead of reaching `epsilon`.
            Some seconds for up to ten policies; half a minute for 30 over three bases, and more for more.
        method: where to solve. "cut": cover, certify, cut (for cheap oracles; reaches the gap). "lazy": as few
            weights as a proof takes, `most_solves` at most (for expensive oracles). "grid": PALM's grid, which needs delta > 0.
            "uniform", "random": `weights` weights. "vertices": the K bases alone. All but the first settle for the smallest gap
            that their pool can certify if it exceeds what was asked for, and warn of it in the log.
        select: "milp" keeps the fewest policies of the pool, proven as far as some ten seconds' effort goes: beyond, the log
            warns of what is open; the certificate and its `size_at_least` hold in any case. With "cut" it then looks for as few,
            if that is at most six, that leave a smaller gap than was asked for. "greedy" is faster. "population" keeps
            the `size` policies with the smallest mean regret over `users`, proven as far as the effort goes; the certificate
            still is over every weight. With it, "cut" solves at the users' weights and a uniform grid.
        users: (U, K) weights, (U, S, K) draws from their posteriors, or `UserWeights`; for "population".
        welfare: for "population": p, at most 1; the largest p-mean of the users' ratios of served to optimum, in place of
            the smallest mean regret. 1 is the mean ratio, 0 the geometric mean; the lower, the nearer the worst-served user.
        refine: then move the chosen weights so that the certified gap (for "population": regret, or welfare) gets better
            than any choice from the pool; never worse. Needs a cheap oracle.
        weights: number of weights for "uniform" and "random".
        most_solves: for "lazy": solves to spend, at least K; trainings, if the oracle is a callback.
        seed: for "random".
        names: K names of the bases.
        advance: called with a line of text as the search goes on.

    Returns:
        a portfolio with m policies, its certificate, and in `solves` how many weights were solved. m is 0 if the
        reference alone is good enough.

    Raises:
        ValueError: an argument is out of range.
    """
    check_search(epsilon, delta, size, method, select, weights, captured_gain=captured_gain)
    check_seed(seed)
    check_names(names, oracle.bases)
    check_users_given(select, size, users, welfare)
    check_trainings(oracle, method=method, refine=refine)
    check_most_solves(most_solves, oracle.bases)
    searched, left = oracle, delta
    if captured_gain is not None:
        check_captured_alone(captured_gain, size=size, refine=refine)
        epsilon, left = check_captured_gain(captured_gain, delta)
        searched = GainOracle(oracle)
    population = None if users is None else Population.of(users, oracle)
    solved = _gain_looked_at(oracle, method, most_solves) if captured_gain is not None and delta == 0 else None
    pool: Pool | None = None
    others: list[np.ndarray] = []  # choices from which moving may end better
    if method == "lazy":
        pool = lazy_search(searched, epsilon=epsilon, delta=left, most=most_solves, solved=solved, advance=advance)[0]
    elif method != "cut":
        pool = _pool(searched, epsilon, left, method, weights, seed, size)
    if population is not None and size is not None:
        pool, chosen = _best_for_users(oracle, pool, population, size, welfare)
    elif size is not None:
        pool, chosen, others = _best_of_size(oracle, pool, size, delta, advance)
    else:
        pool, chosen = _fewest_for_gap(searched, pool, epsilon, left, select == "milp", advance)
    if refine:
        return _refined(oracle, pool, [chosen, *others], population, welfare, names, delta, advance)
    if captured_gain is not None:
        return _finish_gains(oracle, pool, chosen, names, delta, captured_gain)
    return finish(oracle, pool, chosen, names, delta)


def _gain_looked_at(oracle: Oracle, method: str, most_solves: int) -> np.ndarray | None:
    """See that a share of the gain can be had; what was trained to see it is used, and counted: (n, K) weights, or None.

    Fixed weights of an oracle that trains settle for what they can certify. Nobody measures a gain of less than a thousandth.
    """
    if not trains(oracle):
        check_gain_everywhere(oracle)
    elif method == "lazy":
        return check_gain_everywhere(oracle, most=most_solves, nothing=1e-3)
    return None


def _finish_gains(
    oracle: Oracle, pool: Pool, chosen: np.ndarray, names: tuple[str, ...], delta: float, captured_gain: float
) -> Portfolio:
    """`finish` for a pool whose values are gains over the reference, with a warning if less is certified than was asked for."""
    whole = replace(pool, value=pool.value + oracle.reference)
    portfolio = finish(oracle, whole, chosen, names, delta, captured_bound=True)
    certified = portfolio.certified.captured_gain_given_delta
    if certified < captured_gain * (1 - 1e-6):
        logger.warning(
            "captured_gain: %g was asked for, %g is certified: fixed weights leave as much, or what can be gained is too little "
            "to be told from the rounding of utilities",
            captured_gain,
            certified,
        )
    return portfolio


def _best_for_users(
    oracle: Oracle, pool: Pool | None, population: Population, size: int, welfare: float | None
) -> tuple[Pool, np.ndarray]:
    """The pool, made where there is none, and positions in it of the `size` policies that are best for a population."""
    pool = pool if pool is not None else _pool_for(oracle, population)
    kept = keep_for_users(population, pool.value, pool.cost, oracle.reference, size=size, welfare=welfare)
    return pool, kept.chosen


def _best_of_size(
    oracle: Oracle, pool: Pool | None, size: int, delta: float, advance: Advance | None
) -> tuple[Pool, np.ndarray, list[np.ndarray]]:
    """The pool, the best `size` policies' positions in it, and other choices: where the pool was made here, what these began as."""
    grow = pool is None
    pool, first = fixed_size_search(oracle, size=size, delta=delta, pool=pool, grow=grow, advance=advance)
    if not grow:
        return pool, first, []
    pool, chosen = nearby_search(oracle, pool, first, size=size, delta=delta, advance=advance)
    return pool, chosen, [] if chosen is first else [first]


def _fewest_for_gap(
    oracle: Oracle, pool: Pool | None, epsilon: float, delta: float, exact: bool, advance: Advance | None
) -> tuple[Pool, np.ndarray]:
    """The pool and positions in it of the fewest policies for a gap, or for the gap of a given pool where that is larger.

    Where pools may grow, of portfolios of that size one whose gap is small, not the first that was small enough.
    """
    if pool is not None:  # other searches may stop short of what was asked for
        proven = _own_epsilon(oracle, pool, delta)
        if proven > epsilon:
            of_gains = " of the gains over the reference" if isinstance(oracle, GainOracle) else ""
            words = "epsilon%s: %g was asked for; the %d policies solved prove %g"
            logger.warning(words, of_gains, epsilon, len(pool), proven)
        epsilon = max(epsilon, proven * (1 + 2e-6))
    grown, chosen = cut_search(oracle, epsilon=epsilon, delta=delta, exact=exact, pool=pool, advance=advance)
    if pool is not None or not exact or len(chosen) > _MOST_AGAIN:
        return grown, chosen
    return nearby_search(oracle, grown, chosen, size=len(chosen), delta=delta, advance=advance)


def _refined(
    oracle: Oracle,
    pool: Pool,
    choices: list[np.ndarray],
    population: Population | None,
    welfare: float | None,
    names: tuple[str, ...],
    delta: float,
    advance: Advance | None,
) -> Portfolio:
    """The portfolio of a pool's policies with their weights moved, for a population or else the gap: the best of all choices."""
    if population is not None:
        every = [refine_for_users(oracle, pool.weights[chosen], population, welfare=welfare) for chosen in choices]
    else:
        every = [refine_weights(oracle, pool.weights[chosen], delta=delta, advance=advance) for chosen in choices]
    best = min(every, key=lambda moved: moved.after)
    refined = Pool(best.weights, best.value, best.cost, (best.weights * best.value).sum(axis=1) - best.cost)
    portfolio = finish(oracle, refined, np.arange(len(refined)), names, delta)
    return replace(portfolio, solves=len(pool) + sum(moved.solves for moved in every))


def _pool_for(oracle: Oracle, population: Population) -> Pool:
    """Solutions at a uniform grid and at users' weights, at most 300 of each (users evenly spaced in their order)."""
    own = population.weights[np.unique(np.linspace(0, len(population) - 1, 300).astype(np.intp))]
    return solve_all(oracle, np.unique(np.vstack([grid_of_size(oracle.bases, 300), own]), axis=0))


def _pool(oracle: Oracle, epsilon: float, delta: float, method: str, weights: int, seed: int, size: int | None) -> Pool:
    """Solutions at the weights that a method fixes beforehand."""
    if method == "grid":
        fixed = palm_grid(oracle.bases, epsilon, delta)
    elif method == "vertices":
        fixed = np.eye(oracle.bases)
    elif method == "uniform":
        fixed = grid_of_size(oracle.bases, weights)
    else:
        fixed = random_weights(oracle.bases, weights, np.random.default_rng(seed))
    check_pool(method, len(fixed), size)
    return solve_all(oracle, fixed)


def _own_epsilon(oracle: Oracle, pool: Pool, delta: float) -> float:
    """The multiplicative gap of all of a pool's policies together."""
    whole = finish(oracle, pool, np.arange(len(pool)), (), delta, search_bound=False).certificate
    if whole is None or not whole.epsilon <= _MOST_EPSILON:
        raise ValueError(
            f"weights, most_solves: the {len(pool)} policies solved leave some weight with utility (or gain) 0; solve more, or use "
            "method 'cut'"
        )
    return whole.epsilon


def finish(
    oracle: Oracle,
    pool: Pool,
    chosen: np.ndarray,
    names: tuple[str, ...],
    delta: float,
    *,
    search_bound: bool = True,
    captured_bound: bool = False,
) -> Portfolio:
    """The chosen policies of a pool as a portfolio with its certificate; see `certify` for what the flags ask of it."""
    chosen = chosen[np.lexsort(pool.weights[chosen].T)[::-1]] if len(chosen) else chosen  # most of basis 1 first
    portfolio = Portfolio(
        weights=pool.weights[chosen],
        value=pool.value[chosen],
        cost=pool.cost[chosen],
        reference=oracle.reference,
        kl=float(getattr(oracle, "kl", 0.0)),  # a pool of policies has none
        ids=tuple(f"policy-{number}" for number in range(len(chosen))),
        solves=len(pool),
        bases=names,
    )
    certificate = certify(portfolio, oracle, delta=delta, search_bound=search_bound, captured_bound=captured_bound)
    return replace(portfolio, certificate=certificate)
