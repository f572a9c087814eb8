"""What a search has solved so far, and the weights on which it tries its choices."""

from dataclasses import dataclass

import numpy as np

from palm.portfolio.oracle import Oracle
from palm.portfolio.rounding import slack_of


@dataclass(frozen=True)
class Pool:
    """Weights that were solved, and the policies that are optimal there.

    Attributes:
        weights: (n, K).
        value: (n, K).
        cost: (n,).
        optimum: (n,) OPT at the weights.
    """

    weights: np.ndarray
    value: np.ndarray
    cost: np.ndarray
    optimum: np.ndarray

    def __len__(self) -> int:
        return len(self.weights)

    def joined(self, oracle: Oracle, weights: np.ndarray) -> "Pool":
        """This pool and the solutions at (M, K) more weights."""
        return self.and_of(solve_all(oracle, weights))

    def and_of(self, other: "Pool") -> "Pool":
        """This pool and another's policies, which come last."""
        return Pool(
            np.vstack([self.weights, other.weights]),
            np.vstack([self.value, other.value]),
            np.append(self.cost, other.cost),
            np.append(self.optimum, other.optimum),
        )


@dataclass(frozen=True)
class Trials:
    """Finitely many weights that a choice of policies is tried on.

    Attributes:
        weights: (t, K).
        optimum: (t,) OPT there.
    """

    weights: np.ndarray
    optimum: np.ndarray

    def __len__(self) -> int:
        return len(self.weights)

    def joined(self, weights: np.ndarray, optimum: np.ndarray) -> "Trials":
        """These and more weights."""
        return Trials(np.vstack([self.weights, weights]), np.append(self.optimum, optimum))


def solve_all(oracle: Oracle, weights: np.ndarray) -> Pool:
    """A pool of the solutions at (n, K) weights."""
    solution = oracle.solve(weights)
    return Pool(weights, solution.value, solution.cost, solution.optimum)


def served_by(pool: Pool, chosen: np.ndarray, weights: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(M,) utility of the best of the chosen policies and the reference at (M, K) weights."""
    utility = weights @ reference
    if len(chosen):
        utility = np.maximum(utility, (weights @ pool.value[chosen].T - pool.cost[chosen]).max(axis=1))
    return utility


def covers_of(
    pool: Pool, tests: Trials, reference: np.ndarray, epsilon: float, delta: float, *, size: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(t,) whether a test needs a policy (the reference is not good enough), and (t, n) which policies are good enough.

    `size` is the oracle's, see `palm.portfolio.rounding`; by default the largest OPT among the tests.
    """
    size = float(np.abs(tests.optimum).max(initial=0.0)) if size is None else size
    target = tests.optimum - slack_of(tests.optimum, epsilon, size)
    needs = (1 + epsilon) * (tests.weights @ reference) + delta < target
    return needs, (1 + epsilon) * (tests.weights @ pool.value.T - pool.cost) + delta >= target[:, None]
