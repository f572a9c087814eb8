"""Certificates: how far a portfolio is from the optimum at its worst weight, over the whole simplex.

L_S(w) = max_j (w.J_j - C_j) with the reference as a member (it is the base model, served for free). On each cell of L_S
the functions OPT - (1 + epsilon) L_S, OPT - L_S - delta and gamma OPT - L_S + (1 - gamma) w.J_ref are convex, so each is
at most 0 on the whole simplex if and only if it is at the corners. The extreme ratios over corners are therefore the exact
epsilon, delta and captured gain, not samples of them. Where an oracle only knows a convex bound from above on OPT, the bound
takes its place, and the numbers are bounds on the gaps.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from palm.portfolio.corners import corner_weights
from palm.portfolio.gains import GainOracle
from palm.portfolio.incompatible import incompatible_on_grid, incompatible_weights
from palm.portfolio.oracle import Oracle
from palm.portfolio.rounding import NOTHING, size_of

_HARDEST = 48  # corner weights among which incompatible ones are looked for


class Policies(Protocol):
    """What a certificate needs to know of a portfolio; see `palm.portfolio.Portfolio`."""

    @property
    def weights(self) -> np.ndarray:
        """(m, K)."""

    @property
    def value(self) -> np.ndarray:
        """(m, K)."""

    @property
    def cost(self) -> np.ndarray:
        """(m,)."""

    @property
    def reference(self) -> np.ndarray:
        """(K,)."""


@dataclass(frozen=True)
class Certificate:
    """What holds for every weight on the simplex, and the weights where it is tight.

    Attributes:
        epsilon: multiplicative gap: (1 + epsilon) L_S(w) + given_delta >= OPT(w) for every w, with equality at
            `worst_weight` (unless it is 0, or the oracle only bounds OPT). Infinite if some weight is served with utility 0
            and could have more.
        delta: additive gap: (1 + given_epsilon) L_S(w) + delta >= OPT(w) for every w, with equality at
            `worst_weight_delta` (unless it is 0).
        captured_gain: L_S(w) - w.J_ref >= captured_gain (OPT(w) - w.J_ref) for every w: the share of what
            personalisation could gain over the reference, 0 to 1; it does not depend on the rewards' zero or scale. What could
            be gained counts as nothing below 1e-13 of the largest OPT (or of the KL coefficient): that is rounding.
        worst_weight: (K,) weight that attains epsilon.
        worst_weight_delta: (K,) weight that attains delta.
        worst_weight_captured: (K,) weight that attains captured_gain.
        corners: number of corner weights at which the optimum was evaluated.
        given_epsilon, given_delta: see above; both 0 unless asked for.
        size_at_least: no portfolio with this epsilon has fewer policies, whatever they are (0: the reference suffices).
        incompatible: (size_at_least, K) the weights that prove it: no one policy is good enough for two of them.
        assumptions: what a reader must grant.
        captured_gain_given_delta: L_S(w) + given_delta - w.J_ref >= captured_gain_given_delta (OPT(w) - w.J_ref) for every w;
            captured_gain itself where given_delta is 0. A gain smaller than given_delta cannot spoil it.
        worst_weight_captured_given_delta: (K,) weight that attains captured_gain_given_delta.
        captured_size_at_least: no portfolio with this captured_gain_given_delta has fewer policies; 0 if it was not looked for.
        captured_incompatible: (s, K) the weights that prove it.
    """

    epsilon: float
    delta: float
    captured_gain: float
    worst_weight: np.ndarray
    worst_weight_delta: np.ndarray
    worst_weight_captured: np.ndarray
    corners: int
    given_epsilon: float
    given_delta: float
    size_at_least: int
    incompatible: np.ndarray
    assumptions: tuple[str, ...]
    captured_gain_given_delta: float
    worst_weight_captured_given_delta: np.ndarray
    captured_size_at_least: int
    captured_incompatible: np.ndarray


@dataclass(frozen=True)
class Gap:
    """The worst ratios over some weights, and where each is attained (positions among the weights)."""

    epsilon: float
    delta: float
    captured_gain: float
    captured_given_delta: float
    at_epsilon: int
    at_delta: int
    at_captured: int
    at_captured_given_delta: int


def served_utility(weights: np.ndarray, value: np.ndarray, cost: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """L_S at (M, K) weights: (M,) the best utility among the policies and the reference."""
    base = weights @ reference
    if len(value) == 0:
        return base
    return np.maximum((weights @ value.T - cost).max(axis=1), base)


def folded(value: np.ndarray, cost: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(m + 1, K) values with the KL cost subtracted from every entry, the reference last: utility is linear in w."""
    return np.vstack([value - cost[:, None], reference])


def worst_gap(
    optimum: np.ndarray,
    served: np.ndarray,
    base: np.ndarray,
    *,
    given_epsilon: float = 0.0,
    given_delta: float = 0.0,
    size: float | None = None,
) -> Gap:
    """Worst ratios at weights where optimum, L_S and the reference's utility are known, each (M,).

    epsilon is infinite if none makes (1 + epsilon) L_S + given_delta at least OPT at all of them: where nothing is had of
    something, or where utilities are negative, which any epsilon above 0 makes worse. `size` is the oracle's, by default the
    largest OPT; a gain that is less than rounding of it is none.
    """
    excess = optimum - given_delta
    rounding = NOTHING * (float(np.abs(optimum).max()) if size is None else size)
    with np.errstate(divide="ignore", invalid="ignore"):
        epsilon = np.where(served > 0, excess / served - 1.0, 0.0)
        gain = optimum - base
        there = gain > rounding
        captured = np.where(there, (served - base) / gain, 1.0)
        allowed = np.where(there, (served + given_delta - base) / gain, 1.0)
    epsilon[(served <= 0) & (excess > (1 + max(float(epsilon.max()), 0.0)) * served + rounding)] = np.inf
    delta = optimum - (1 + given_epsilon) * served
    worst = int(epsilon.argmax()), int(delta.argmax()), int(captured.argmin()), int(allowed.argmin())
    return Gap(
        max(float(epsilon[worst[0]]), 0.0),
        max(float(delta[worst[1]]), 0.0),
        min(float(captured[worst[2]]), 1.0),
        min(float(allowed[worst[3]]), 1.0),
        *worst,
    )


def certify(
    portfolio: Policies,
    oracle: Oracle,
    *,
    epsilon: float = 0.0,
    delta: float = 0.0,
    incompatible_among: np.ndarray | None = None,
    search_bound: bool = True,
    captured_bound: bool = False,
) -> Certificate:
    """Certify a portfolio over every weight on the simplex.

    The portfolio's values may come from anywhere: planned on the oracle's own prompts, planned on other prompts, or
    measured from trained policies; the optimum is always the oracle's.

    Args:
        portfolio: its `value`, `cost` and `reference` are used.
        oracle: gives its upper bound on the optimum at the corner weights; nothing is solved.
        epsilon: the certificate's `delta` is what this multiplicative gap leaves.
        delta: the certificate's `epsilon` is what this additive gap leaves.
        incompatible_among: (n, K) weights among which to look for mutually incompatible ones; by default the corners
            with the largest gaps and the portfolio's own weights, or a uniform grid if more of that are.
        search_bound: False leaves `size_at_least` at its trivial value and saves the time.
        captured_bound: also look for incompatible weights at the captured gain (given delta), for `captured_size_at_least`.

    Raises:
        ValueError: portfolio and oracle have different numbers of bases, or a given gap is negative or not finite.
    """
    for name, given in (("epsilon", epsilon), ("delta", delta)):
        if not 0 <= given < np.inf:
            raise ValueError(f"{name}: expected a finite number of at least 0, got {given}")
    if portfolio.value.shape[1] != oracle.bases:
        raise ValueError(f"oracle: expected {portfolio.value.shape[1]} bases as in the portfolio, got {oracle.bases}")
    corners = corner_weights(folded(portfolio.value, portfolio.cost, portfolio.reference))
    optimum = oracle.upper_bound(corners)
    served = served_utility(corners, portfolio.value, portfolio.cost, portfolio.reference)
    base = corners @ portfolio.reference
    size = size_of(oracle)
    gap = worst_gap(optimum, served, base, given_epsilon=epsilon, given_delta=delta, size=size)
    witnesses = captured_witnesses = np.zeros((0, oracle.bases))
    if search_bound and np.isfinite(gap.epsilon):
        by_hardness = corners[np.argsort(served / np.maximum(optimum, 1e-300))]
        witnesses = _incompatible(oracle, portfolio, by_hardness, gap.epsilon, delta, among=incompatible_among)
    share = gap.captured_given_delta
    if captured_bound and share > 0:
        by_hardness = corners[np.argsort((served - base) / np.maximum(optimum - base, 1e-300))]
        gains = GainOracle(oracle)
        captured_witnesses = _incompatible(gains, portfolio, by_hardness, 1 / share - 1, delta / share, among=incompatible_among)
    # Measured values may exceed what the oracle holds possible; a portfolio that is good enough refutes any larger bound.
    witnesses, captured_witnesses = witnesses[: len(portfolio.value)], captured_witnesses[: len(portfolio.value)]
    # What the reference lacks is counted from below: an optimum that is only bounded proves no need for a policy.
    reference_suffices = worst_gap(oracle.lower_bound(corners), base, base, given_delta=delta, size=size).epsilon <= gap.epsilon
    return Certificate(
        epsilon=gap.epsilon,
        delta=gap.delta,
        captured_gain=gap.captured_gain,
        worst_weight=corners[gap.at_epsilon],
        worst_weight_delta=corners[gap.at_delta],
        worst_weight_captured=corners[gap.at_captured],
        corners=len(corners),
        given_epsilon=epsilon,
        given_delta=delta,
        size_at_least=max(len(witnesses), int(not reference_suffices)),
        incompatible=witnesses,
        assumptions=_assumptions(oracle),
        captured_gain_given_delta=share,
        worst_weight_captured_given_delta=corners[gap.at_captured_given_delta],
        captured_size_at_least=len(captured_witnesses),
        captured_incompatible=captured_witnesses,
    )


def _incompatible(
    oracle: Oracle, portfolio: Policies, corners: np.ndarray, epsilon: float, delta: float, *, among: np.ndarray | None
) -> np.ndarray:
    """Those among given weights; or the more of those among the portfolio's with the first corners, and of those on a grid."""
    if among is not None:
        return incompatible_weights(oracle, among, epsilon=epsilon, delta=delta)
    own = np.vstack([portfolio.weights, corners[:_HARDEST]])
    witnesses = incompatible_weights(oracle, own, epsilon=epsilon, delta=delta)
    return max(witnesses, incompatible_on_grid(oracle, epsilon=epsilon, delta=delta), key=len)


def _assumptions(oracle: Oracle) -> tuple[str, ...]:
    slack = f"the oracle's policies miss the optimum by at most {oracle.slack:g}, which its bound on the optimum allows for"
    return (
        *oracle.assumptions,
        "the reference policy is served too, at no cost, and is not counted among the policies",
        "a user gets the member that is best for their weight (Router, by expected value)",
        *((slack,) if oracle.slack else ()),
    )
