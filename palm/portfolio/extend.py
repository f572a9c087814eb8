"""A portfolio for one more basis: what is there stays, what is missing is added."""

from dataclasses import replace

import numpy as np

from palm.portfolio.callback import check_cheap
from palm.portfolio.certify import certify, folded, served_utility
from palm.portfolio.corners import corner_weights
from palm.portfolio.gibbs import GibbsOracle
from palm.portfolio.grid import grid_of_size
from palm.portfolio.oracle import Oracle
from palm.portfolio.portfolio import Portfolio
from palm.portfolio.rounding import size_of, slack_of
from palm.portfolio.select import Effort, greedy_cover, smallest_cover

_CUTS = 16
_GRID = 300
_ROUNDS = 60
_EFFORT = 2e5
_SHARES = (0.9, 0.8, 0.7, 0.5)


def extend(
    portfolio: Portfolio,
    oracle: Oracle,
    *,
    name: str | None = None,
    calibration: tuple[float, float] | None = None,
    epsilon: float = 0.02,
    delta: float = 0.0,
) -> Portfolio:
    """Add a basis reward: the members keep their policies, with no weight on the new basis, and only what is missing is added.

    Members are valued and certified with the new oracle. Where that fails, policies are solved at the corners that fail until
    none does; then as few of these as cover every corner met so far are kept beside the members, by integer programming, as
    long as they hold everywhere.

    Args:
        portfolio: with K bases.
        oracle: with K + 1 bases, the K first as before; cheap, since it is solved at many corners.
        name: of the new basis.
        calibration: of the new basis: raw rewards that became 0 and 1; needed if the portfolio has them for the others.
        epsilon, delta: wanted, (1 + epsilon) L_S(w) + delta >= OPT(w) for every weight over K + 1 bases; not both 0.

    Returns:
        a planned portfolio whose first members are the given ones, in order, with their ids; certified. Nothing is proven about
        the number added but the certificate's own `size_at_least`.

    Raises:
        ValueError: the oracle has not one basis more, trains, or differs in kl or the reference's value from the one that the
            portfolio was planned with; or an argument is out of range.
    """
    check_cheap(oracle, "extend")
    size, bases = portfolio.weights.shape
    if oracle.bases != bases + 1:
        raise ValueError(f"oracle: expected {bases + 1} bases, one more than the portfolio's, got {oracle.bases}")
    if portfolio.origin == "planned":
        _check_as_before(portfolio, oracle)
    if not (np.isfinite([epsilon, delta]).all() and epsilon >= 0 and delta >= 0 and epsilon + delta > 0):
        raise ValueError(f"epsilon, delta: expected numbers of at least 0 and one of them positive, got {epsilon} and {delta}")
    if (portfolio.calibration is None) != (calibration is None):
        raise ValueError(
            f"calibration: expected {'none, as' if calibration else 'two numbers, since'} the portfolio's other bases "
            f"have {'none' if calibration else 'theirs'}, got {calibration}"
        )
    new_name = name if name is not None else f"basis-{bases}"
    if new_name in portfolio.bases:
        raise ValueError(f"name: expected another name than the portfolio's bases {list(portfolio.bases)}, got {new_name!r}")
    grown = replace(
        portfolio,
        weights=np.column_stack([portfolio.weights, np.zeros(size)]),
        value=np.column_stack([portfolio.value, np.zeros(size)]),
        reference=oracle.reference,
        bases=(*portfolio.bases, new_name),
        calibration=None if portfolio.calibration is None else np.vstack([portfolio.calibration, np.array([calibration])]),
        kl=oracle.kl if isinstance(oracle, GibbsOracle) else portfolio.kl,
        origin="planned",
        certificate=None,
        confidence=None,
    ).revalued(oracle)
    added, solves = _missing(grown, oracle, epsilon * (1 - 1e-6), delta)
    whole = _with(grown, oracle, added)
    return replace(whole, solves=portfolio.solves + size + solves, certificate=certify(whole, oracle, delta=delta))


def _check_as_before(portfolio: Portfolio, oracle: Oracle) -> None:
    """See that an oracle's first bases are those that a portfolio was planned with: measured ones may differ, plans may not."""
    kl = getattr(oracle, "kl", portfolio.kl)
    if not np.isclose(kl, portfolio.kl, rtol=1e-9, atol=0):
        raise ValueError(f"oracle: expected kl = {portfolio.kl:g} as the portfolio was planned with, got {kl:g}")
    before, now = portfolio.reference, oracle.reference[:-1]
    if np.abs(now - before).max() > 1e-6 * np.abs(before).max():
        raise ValueError(
            f"oracle: expected the portfolio's bases first, in order and on the same prompts, with the reference's value "
            f"{np.round(before, 6).tolist()}, got {np.round(now, 6).tolist()}; for other prompts see `Portfolio.revalued`"
        )


def _with(portfolio: Portfolio, oracle: Oracle, weights: np.ndarray) -> Portfolio:
    """The portfolio and the policies that are optimal at (n, K) more weights, under ids that are not taken."""
    if len(weights) == 0:
        return portfolio
    solution = oracle.solve(weights)
    free = (name for number in range(10**9) if (name := f"policy-{number}") not in portfolio.ids)
    return replace(
        portfolio,
        weights=np.vstack([portfolio.weights, weights]),
        value=np.vstack([portfolio.value, solution.value]),
        cost=np.append(portfolio.cost, solution.cost),
        ids=(*portfolio.ids, *(next(free) for _ in weights)),
    )


def _missing(portfolio: Portfolio, oracle: Oracle, epsilon: float, delta: float) -> tuple[np.ndarray, int]:
    """(n, K) weights whose policies close the gap beside the portfolio's, and how many weights were solved to find them."""
    tried = np.zeros((0, oracle.bases))
    while len(fails := _failures(_with(portfolio, oracle, tried), oracle, epsilon, delta)):
        if len(tried) and np.abs(tried - fails[0]).max(axis=1).min() < 1e-9:
            break  # its own policy does not do, so the oracle's slack is above the tolerance: the certificate says what is left
        tried = np.vstack([tried, fails[:1]])  # the worst: it needs a policy, and its own will do
    best, pool = tried, np.vstack([tried, grid_of_size(oracle.bases, _GRID)])
    tests = np.vstack([tried, _lacking(portfolio, oracle, pool, epsilon, delta)])
    effort = Effort(_EFFORT)
    for attempt in range(_ROUNDS):
        if len(best) <= 1 or effort.spent:
            break
        # Greedy covers of less than the whole tolerance first: they hold between the tests, too. Then the fewest for the tests.
        greedy = attempt < 2 * len(_SHARES)
        share = _SHARES[attempt // 2] if greedy else 1.0
        pooled = oracle.solve(pool)
        optimum = oracle.optimum(tests)[:, None]
        target = optimum - slack_of(optimum, epsilon, size_of(oracle))
        covers = (1 + share * epsilon) * (tests @ pooled.value.T - pooled.cost) + share * delta >= target
        chosen, least = (greedy_cover(covers), 0) if greedy else smallest_cover(covers, effort=effort)
        if least >= len(best):
            break
        fails = _failures(_with(portfolio, oracle, pool[chosen]), oracle, epsilon, delta)
        if len(fails) == 0 and len(chosen) < len(best):
            best = pool[chosen]
        if len(fails) == 0 and not greedy:
            break
        tests, pool = np.vstack([tests, fails[:_CUTS]]), np.vstack([pool, fails[:_CUTS]])
    return best, len(pool)


def _lacking(portfolio: Portfolio, oracle: Oracle, weights: np.ndarray, epsilon: float, delta: float) -> np.ndarray:
    """Those of some weights that the portfolio does not serve well enough."""
    return weights[oracle.optimum(weights) > (1 + epsilon) * portfolio.served(weights) + delta]


def _failures(portfolio: Portfolio, oracle: Oracle, epsilon: float, delta: float) -> np.ndarray:
    """Corners at which a portfolio is not good enough, the worst first."""
    corners = corner_weights(folded(portfolio.value, portfolio.cost, portfolio.reference))
    optimum = oracle.optimum(corners) + oracle.slack
    served = served_utility(corners, portfolio.value, portfolio.cost, portfolio.reference)
    lack = optimum - (1 + epsilon) * served - delta
    fails = np.flatnonzero(lack > 2 * slack_of(optimum, epsilon, size_of(oracle)))
    return corners[fails[np.argsort(-lack[fails], kind="stable")]]
