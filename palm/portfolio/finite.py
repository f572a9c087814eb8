"""Pool oracle: finitely many policies whose values and KL costs are known, say from measuring those that exist already."""

import numpy as np

from palm.portfolio.oracle import Solution
from palm.simplex import check_weights

_FREE = 1e-12


class PoolOracle:
    """The best of a finite pool of policies, exactly: OPT(w) = max_j w.J_j - C_j.

    A weight costs O(n K) operations.
    """

    def __init__(self, value: np.ndarray, cost: np.ndarray, *, reference: np.ndarray | None = None) -> None:
        """Check and keep the policies.

        Args:
            value: (n, K) finite numbers, at least 0; J of each policy. Ratios of negative utilities say nothing, so shift them.
            cost: (n,) finite numbers, at least 0; KL cost of each policy, in units of reward.
            reference: (K,) finite numbers, at least 0; J of the reference policy, which is served for free; by default of the one
                policy that costs 0.

        Raises:
            ValueError: a shape is wrong, a size is 0, a number is not finite or negative, or no reference is given and
                not exactly one policy costs 0.
        """
        try:
            value, cost = np.array(value, dtype=np.float64), np.array(cost, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"value, cost: expected numbers in the shapes (n, K) and (n,): {error}") from error
        if value.ndim != 2 or 0 in value.shape:
            raise ValueError(f"value: expected the shape (n policies, K bases), none of them 0, got {value.shape}")
        if cost.shape != value.shape[:1]:
            raise ValueError(f"cost: expected the shape {value.shape[:1]}, one per policy, got {cost.shape}")
        for name, array in (("value", value), ("cost", cost)):
            if not np.isfinite(array).all():
                place = np.argwhere(~np.isfinite(array))[0]
                raise ValueError(f"{name}: expected finite numbers, got {array[tuple(place)]} of policy {int(place[0])}")
        for name, array, least in (("value", value, value.min(axis=1)), ("cost", cost, cost)):
            if array.min() < 0:
                raise ValueError(f"{name}: expected at least 0, got {array.min():g} of policy {int(least.argmin())}")
        if reference is None:
            free = np.flatnonzero(cost <= _FREE)
            if len(free) != 1:
                raise ValueError(f"reference: expected its value (K,), as {len(free)} policies of the pool, not one, cost 0")
            reference = value[free[0]]
        reference = np.array(reference, dtype=np.float64)
        if reference.shape != value.shape[1:] or not np.isfinite(reference).all():
            raise ValueError(f"reference: expected {value.shape[1]} finite numbers, got {reference.tolist()}")
        if reference.min() < 0:
            raise ValueError(f"reference: expected at least 0, got {reference.min():g} for basis {int(reference.argmin())}")
        self.value, self.cost, self.reference = value, cost, reference

    def __len__(self) -> int:
        return len(self.value)

    @property
    def bases(self) -> int:
        """K."""
        return self.value.shape[1]

    @property
    def slack(self) -> float:
        """0: the best of the pool is found."""
        return 0.0

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What a reader must grant for its numbers to hold."""
        return (f"optima are over the {len(self)} given policies, whose values and KL costs are taken as exact",)

    def best(self, weights: np.ndarray) -> np.ndarray:
        """(M,) positions in the pool of the policies that are best at (M, K) weights; ties go to the lowest."""
        return self._utility(weights).argmax(axis=1)

    def solve(self, weights: np.ndarray) -> Solution:
        """The pool's best policy at each of (M, K) weights: value (M, K), cost (M,), optimum (M,)."""
        utility = self._utility(weights)
        best = utility.argmax(axis=1)
        return Solution(self.value[best], self.cost[best], utility.max(axis=1))

    def optimum(self, weights: np.ndarray) -> np.ndarray:
        """OPT at each of (M, K) weights: (M,) float."""
        return self._utility(weights).max(axis=1)

    def upper_bound(self, weights: np.ndarray) -> np.ndarray:
        """OPT itself at each of (M, K) weights: (M,) float."""
        return self.optimum(weights)

    def lower_bound(self, weights: np.ndarray) -> np.ndarray:
        """OPT itself at each of (M, K) weights: (M,) float."""
        return self.optimum(weights)

    def _utility(self, weights: np.ndarray) -> np.ndarray:
        return check_weights(weights, bases=self.bases) @ self.value.T - self.cost
