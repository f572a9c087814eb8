"""Which policies to keep for a known population: smallest mean regret, or largest p-mean welfare, over its users.

A user is served the policy that is best for the mean of the posterior over their weight. Utility is linear in the weight, so its
expectation under the posterior is the utility at the posterior's mean: policies are chosen by means alone, exactly. The
optimum is convex in the weight, so what personalisation could give a user whose weight is uncertain is E OPT(w) >= OPT(E w).

Welfare is the p-mean of the ratios r_i = served_i / optimum_i, W_p = (mean_i r_i^p)^(1/p), for p at most 1: 1 is the mean
ratio, 0 the geometric mean (the limit), and below that the worst-served users count ever more: towards minus infinity W_p
becomes the worst ratio. All of these are sums over users of a decreasing function of what each is served, hence p-median problems.

Source of the p-mean as the family of welfare functions: H. Moulin, "Fair division and collective welfare", MIT Press 2003.
"""

from dataclasses import dataclass

import numpy as np

from palm.portfolio.median import least_cost
from palm.portfolio.oracle import Oracle
from palm.portfolio.select import Effort
from palm.rewards.users import UserWeights
from palm.simplex import check_weights

_LOWEST_RATIO = 1e-9  # a user served next to nothing still has a ratio that powers and logarithms can be taken of
_STEEP = -8.0  # the power from which on a choice is looked for where one is known that is good for a milder power


@dataclass(frozen=True)
class Population:
    """Users whose policies are chosen.

    Attributes:
        weights: (U, K) mean of each user's posterior.
        optimum: (U,) E OPT(w) under each user's posterior; OPT at the mean if only that is known.
    """

    weights: np.ndarray
    optimum: np.ndarray

    @classmethod
    def of(cls, users: np.ndarray | UserWeights, oracle: Oracle) -> "Population":
        """Users and what each could have.

        Args:
            users: (U, K) weights; or (U, S, K) draws from each user's posterior; or fitted `UserWeights`, of which the means
                are used.
            oracle: gives the optimum.

        Raises:
            ValueError: no users, or weights off the simplex.
        """
        if isinstance(users, UserWeights):
            if users.geometry != "simplex":
                raise ValueError(f"users: expected weights on the simplex, got those of a {users.geometry!r} model")
            users = users.mean
        array = np.asarray(users)
        if array.ndim not in (2, 3) or 0 in array.shape:
            raise ValueError(f"users: expected the shape (U, K) or (U, S, K), none of them 0, got {array.shape}")
        draws = check_weights(array.reshape(-1, array.shape[-1]), bases=oracle.bases, name="users")
        optimum = oracle.optimum(draws).reshape(array.shape[:-1])
        if array.ndim == 2:
            return cls(draws, optimum)
        return cls(check_weights(draws.reshape(array.shape).mean(axis=1), name="users"), optimum.mean(axis=1))

    def __len__(self) -> int:
        return len(self.weights)

    def regret(self, served: np.ndarray) -> float:
        """Mean over users of the optimum minus (U,) served utility."""
        return float((self.optimum - served).mean())

    def welfare(self, served: np.ndarray, power: float) -> float:
        """W_p at (U,) served utility; see the module. Ratios below 1e-9 count as that."""
        ratio = np.log(self._served_ratio(served))
        if power == 0:
            return float(np.exp(ratio.mean()))
        largest = (power * ratio).max()  # taken out, so that no power overflows
        return float(np.exp((largest + np.log(np.exp(power * ratio - largest).mean())) / power))

    def loss(self, served: np.ndarray, power: float | None) -> float:
        """What is to be small at (U,) served utility: mean regret (None), or minus W_p."""
        return self.regret(served) if power is None else -self.welfare(served, power)

    def losses(self, utility: np.ndarray, power: float | None, *, scale: np.ndarray | None = None) -> np.ndarray:
        """What (U, ...) utility costs each user, as least mean cost makes mean regret least (None) or W_p largest.

        Powers are taken of ratios relative to the lowest of the users' ratios at (U,) `scale`, by default at each user's most
        utility here. That changes no choice, and negative powers of what serves no user worse than that are at most 1.
        """
        optimum = self.optimum.reshape(-1, *[1] * (utility.ndim - 1))
        if power is None:
            return (optimum - utility) / len(self)
        ratio = np.log(self._served_ratio(utility))
        if power == 0:
            return -ratio / len(self)
        lowest = ratio.reshape(len(self), -1).max(axis=1).min() if scale is None else np.log(self._served_ratio(scale)).min()
        with np.errstate(over="ignore", under="ignore"):  # what overflows is infinite
            return -np.sign(power) * np.exp(power * (ratio - lowest)) / len(self)

    def _served_ratio(self, utility: np.ndarray) -> np.ndarray:
        optimum = self.optimum.reshape(-1, *[1] * (utility.ndim - 1))
        ratio = np.where(optimum > 0, utility / np.where(optimum > 0, optimum, 1.0), 1.0)  # who can have nothing misses nothing
        return np.maximum(ratio, _LOWEST_RATIO)


@dataclass(frozen=True)
class UserChoice:
    """The policies kept for a population.

    Attributes:
        chosen: (s,) positions in the pool, s at most the size asked for.
        regret: mean regret over users.
        welfare: W_p over users, with the p asked for (1 if mean regret was).
        proven: whether no other choice from the pool is better, up to a millionth.
    """

    chosen: np.ndarray
    regret: float
    welfare: float
    proven: bool


def keep_for_users(
    population: Population,
    value: np.ndarray,
    cost: np.ndarray,
    reference: np.ndarray,
    *,
    size: int,
    welfare: float | None = None,
    exact: bool = True,
    effort: Effort | None = None,
) -> UserChoice:
    """At most `size` policies of a pool with the smallest mean regret, or the largest p-mean welfare, over users.

    Args:
        population: the users.
        value: (n, K) J of the pool's policies.
        cost: (n,) their KL costs.
        reference: (K,) J of the reference, which everyone may be served for free.
        size: policies to keep, at least 1.
        welfare: p, finite and at most 1. None: regret.
        exact: by integer programming; otherwise greedy choice and swaps.
        effort: of all integer programs together.

    Raises:
        ValueError: `welfare` is above 1 or not finite.
    """
    check_welfare(welfare)
    effort = effort or Effort()
    served_for = np.column_stack([population.weights @ value.T - cost, population.weights @ reference])  # the last for free
    mild = None if welfare is None else max(welfare, _STEEP)
    chosen, proven = _least(population.losses(served_for, mild), size, exact, effort)
    if welfare is not None and welfare < _STEEP:
        chosen, proven = _steeper(population, served_for, chosen, proven, size=size, welfare=welfare, exact=exact, effort=effort)
    served = _served(served_for, chosen)
    return UserChoice(chosen, population.regret(served), population.welfare(served, 1.0 if welfare is None else welfare), proven)


def _steeper(
    population: Population,
    served_for: np.ndarray,
    chosen: np.ndarray,
    proven: bool,
    *,
    size: int,
    welfare: float,
    exact: bool,
    effort: Effort,
) -> tuple[np.ndarray, bool]:
    """From the choice for a mild power to that for a steep one, in steps so small that not all powers are rounded to 0."""
    power, better = _STEEP, False
    while better or power > welfare:
        power = power if better else max(welfare, 4 * power)
        before = _served(served_for, chosen)
        # Who is served worse than anybody is now costs more than all now do: nothing else of such choices counts.
        losses = np.minimum(population.losses(served_for, power, scale=before), 2.0)
        found, proven = _least(losses, size, exact, effort)
        better = population.loss(_served(served_for, found), power) < population.loss(before, power)
        chosen = found if better else chosen
    return chosen, proven


def _served(served_for: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(U,) utility of the best of the chosen columns and the last one."""
    best: np.ndarray = served_for[:, [*chosen, -1]].max(axis=1)
    return best


def _least(losses: np.ndarray, size: int, exact: bool, effort: Effort) -> tuple[np.ndarray, bool]:
    """The columns at which rows lose least in all, the last one being free, and whether that is proven."""
    found = least_cost(losses[:, :-1], losses[:, -1], size, exact=exact, effort=effort)
    above = found.cost - float(losses.min(axis=1).sum())
    return found.chosen, found.cost - found.at_least <= 2e-6 * max(above, 1e-12)


def check_welfare(welfare: float | None) -> None:
    """Refuse a p that is above 1 or not finite.

    Raises:
        ValueError: it is.
    """
    if welfare is not None and (isinstance(welfare, bool) or not (np.isfinite(welfare) and welfare <= 1)):
        raise ValueError(
            f"welfare: expected a finite power of at most 1 (1: the mean; the lower, the nearer the worst), got {welfare}"
        )
