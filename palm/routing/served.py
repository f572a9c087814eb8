"""What users get when they are routed, against what one policy for everyone would give them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from palm.evaluation.intervals import Estimate, bootstrap_mean
from palm.evaluation.measure import Measured
from palm.portfolio.portfolio import Portfolio
from palm.routing.router import REFERENCE, Router

_ROUNDING = 1e-12


@dataclass(frozen=True)
class Served:
    """Utilities of U users, by measured values on prompts that took no part in choosing their policy.

    Attributes:
        routed: (U,) utility with the policy that each user is routed to.
        single: (U,) utility with the one policy that is best for these users on average.
        single_policy: id of that policy (of the first half of the prompts).
        gain: routed minus single, mean over users.
        worse_off: share of users whom routing serves worse than the single policy.
    """

    routed: np.ndarray
    single: np.ndarray
    single_policy: str
    gain: Estimate
    worse_off: float

    def record(self) -> dict[str, object]:
        """JSON form without the users."""
        return {
            "routed": float(self.routed.mean()),
            "single": float(self.single.mean()),
            "single_policy": self.single_policy,
            "gain": self.gain.record(),
            "worse_off": self.worse_off,
            "users": len(self.routed),
        }


@dataclass(frozen=True)
class View:
    """Policies and users as seen through K basis rewards.

    Attributes:
        measured: by policy id, on the same P prompts.
        reference: (P, K) the reference's value on each prompt.
        weights: (U, K) the users' weights.
    """

    measured: Mapping[str, Measured]
    reference: np.ndarray
    weights: np.ndarray

    def means(self, rows: np.ndarray, kl: float) -> dict[str, tuple[np.ndarray, float]]:
        """Value and KL cost of every policy over some of the prompts, the reference among them."""
        means = {name: (policy.value[rows].mean(axis=0), kl * policy.kl[rows].mean()) for name, policy in self.measured.items()}
        return means | {REFERENCE: (self.reference[rows].mean(axis=0), 0.0)}


def serve(planned: Portfolio, chosen: View, *, judged: View | None = None, rule: str = "expected", seed: int = 0) -> Served:
    """Route users on half of the prompts, look at what they get on the other half, and the other way round.

    Choosing and evaluating on the same prompts would flatter the choice; both routing and the single policy are chosen on one
    half and evaluated on the other.

    Args:
        planned: the portfolio's ids, weights and kl.
        chosen: what routes are chosen by: learned rewards and what is inferred of the users.
        judged: what users get is judged by this: in a planted world the true rewards and weights. By default `chosen`.
        rule: of the router.
        seed: of the halves.

    Raises:
        ValueError: there are fewer than two prompts or no users.
    """
    judged = judged or chosen
    prompts, users = len(chosen.reference), len(chosen.weights)
    if prompts < 2 or users == 0:
        raise ValueError(f"chosen: expected at least two prompts and one user, got {prompts} and {users}")
    half = np.random.default_rng(seed).permutation(prompts) < prompts // 2
    routed, single, singles = np.zeros(users), np.zeros(users), []
    for rows in (half, ~half):
        seen, truth = chosen.means(rows, planned.kl), judged.means(~rows, planned.kl)
        portfolio = replace(
            planned,
            value=np.array([seen[name][0] for name in planned.ids]).reshape(len(planned), chosen.reference.shape[1]),
            cost=np.array([seen[name][1] for name in planned.ids]),
            reference=seen[REFERENCE][0],
            certificate=None,
            confidence=None,
        )
        policy_of = Router(portfolio, rule=rule if len(portfolio) else "expected").route(chosen.weights).policy
        best = max(seen, key=lambda name: float((chosen.weights @ seen[name][0]).mean() - seen[name][1]))
        singles.append(best)
        single += 0.5 * (judged.weights @ truth[best][0] - truth[best][1])
        value, cost = np.array([truth[name][0] for name in policy_of]), np.array([truth[name][1] for name in policy_of])
        routed += 0.5 * ((judged.weights * value).sum(axis=1) - cost)
    difference = routed - single
    difference[np.abs(difference) < _ROUNDING] = 0.0  # the same policy, summed in another order
    return Served(routed, single, singles[0], bootstrap_mean(difference, seed=seed), float((difference < 0).mean()))
