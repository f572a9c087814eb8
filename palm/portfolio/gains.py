"""Captured gain is a cover like any other, once utilities are counted from the reference's.

gamma (OPT - w.J_ref) <= L_S - w.J_ref + delta for every w is (1 + epsilon) L' + delta' >= OPT' with L' and OPT' the gains over
the reference, epsilon = 1 / gamma - 1 and delta' = delta / gamma. The gain is linear in w for every policy and its optimum convex,
so every search, selection and bound works on `GainOracle` unchanged.
"""

from dataclasses import dataclass
from numbers import Real

import numpy as np
from scipy.optimize import linprog

from palm.portfolio.bounds import curvature_of
from palm.portfolio.oracle import Oracle, Solution, trains
from palm.portfolio.rounding import NOTHING, size_of


class GainOracle:
    """An oracle whose values are gains over the reference; the reference's own is 0.

    A gain that is the rounding of what it is the difference of counts as 0.
    """

    def __init__(self, oracle: Oracle) -> None:
        """Keep the oracle and its reference.

        Args:
            oracle: any.
        """
        self._oracle = oracle
        self._base = oracle.reference

    @property
    def bases(self) -> int:
        """K."""
        return self._oracle.bases

    @property
    def reference(self) -> np.ndarray:
        """(K,) zeros: the reference gains nothing over itself."""
        return np.zeros_like(self._base)

    @property
    def size(self) -> float:
        """The oracle's: gains are rounded like the utilities that they are differences of."""
        return size_of(self._oracle)

    @property
    def trains(self) -> bool:
        """The oracle's."""
        return trains(self._oracle)

    @property
    def slack(self) -> float:
        """The oracle's."""
        return self._oracle.slack

    @property
    def assumptions(self) -> tuple[str, ...]:
        """The oracle's."""
        return self._oracle.assumptions

    @property
    def most_curvature(self) -> np.ndarray | None:
        """The oracle's, if it knows it: what is taken off is linear and bends nothing."""
        return curvature_of(self._oracle)

    def solve(self, weights: np.ndarray) -> Solution:
        """The oracle's solution at (M, K) weights, less the reference's value."""
        solution = self._oracle.solve(weights)
        return Solution(solution.value - self._base, solution.cost, self._gained(solution.optimum, weights))

    def optimum(self, weights: np.ndarray) -> np.ndarray:
        """(M,) what can be gained at (M, K) weights."""
        return self._gained(self._oracle.optimum(weights), weights)

    def upper_bound(self, weights: np.ndarray) -> np.ndarray:
        """(M,) at least what can be gained at (M, K) weights."""
        return self._gained(self._oracle.upper_bound(weights), weights)

    def lower_bound(self, weights: np.ndarray) -> np.ndarray:
        """(M,) at most what can be gained at (M, K) weights."""
        return self._gained(self._oracle.lower_bound(weights), weights)

    def _gained(self, utility: np.ndarray, weights: np.ndarray) -> np.ndarray:
        gain = utility - weights @ self._base
        return np.where(np.abs(gain) <= NOTHING * self.size, 0.0, gain)


@dataclass(frozen=True)
class LeastGain:
    """The least that an optimal policy gains over the reference.

    Attributes:
        gain: a number above 0 that no weight's gain is below, or 0 if it falls to nothing.
        weight: (K,) where it is least, or None if nothing can be gained anywhere.
        solved: (n, K) weights that were solved to find it.
        settled: whether that is known; False if the solves ran out before.
    """

    gain: float
    weight: np.ndarray | None
    solved: np.ndarray
    settled: bool = True


def check_captured_gain(captured_gain: float, delta: float) -> tuple[float, float]:
    """What to ask of `GainOracle(oracle)` for a captured gain.

    Args:
        captured_gain: share of the gain that every weight is to have, above 0 and at most 1.
        delta: gain that any weight may lack beside it.

    Returns:
        epsilon and delta for the gains.

    Raises:
        ValueError: the share is out of range, or it is 1 and delta is 0: no finite portfolio reaches that.
    """
    if isinstance(captured_gain, bool) or not isinstance(captured_gain, Real) or not 0 < captured_gain <= 1:
        raise ValueError(f"captured_gain: expected a share above 0 and at most 1, got {captured_gain!r}")
    if captured_gain == 1 and delta == 0:
        raise ValueError("captured_gain, delta: expected a share below 1 or a positive delta, got 1 and 0")
    return 1 / captured_gain - 1, delta / captured_gain


def check_gain_everywhere(oracle: Oracle, *, most: int | None = None, nothing: float = 1e-7) -> np.ndarray:
    """See that a share of the gain can be had without a delta, as far as the solves go.

    Args:
        oracle: solved.
        most: solves to spend, at least K; by default K + 200.
        nothing: share of the largest gain below which a gain counts as none.

    Returns:
        (n, K) weights that were solved to see it.

    Raises:
        ValueError: the gain vanishes at some weight but not at all: near it no finite portfolio has a share of it.
    """
    least = least_gain(oracle, rounds=200 if most is None else most - oracle.bases, nothing=nothing)
    if (least.settled or most is None) and least.weight is not None and least.gain <= 0:
        raise ValueError(
            f"captured_gain: expected something to gain over the reference at every weight, got none at "
            f"{np.round(least.weight, 6).tolist()}; near it no finite portfolio gains a share of what there is: give a positive "
            "delta, the gain that any weight may lack beside it"
        )
    return least.solved


def least_gain(oracle: Oracle, *, rounds: int = 200, nothing: float = 1e-7) -> LeastGain:
    """The least that an optimal policy gains over the reference, and the weight where it is least.

    The gain is convex in w and every policy's gain is a linear function below it, so each solve adds a cut and the cuts' lowest
    point is the next weight (J. Kelley, "The cutting-plane method for solving convex programs", 1960).

    Args:
        oracle: solved at most K + `rounds` times.
        rounds: of cutting.
        nothing: share of the largest gain below which a gain counts as none.
    """
    gains, bases, solved = GainOracle(oracle), oracle.bases, np.eye(oracle.bases)
    solution = gains.solve(solved)
    largest = float(solution.optimum.max())  # a convex function is largest at a vertex
    if largest <= 0:
        return LeastGain(0.0, None, solved)
    cuts = (solution.value - solution.cost[:, None]) / largest  # the program's tolerances are absolute
    for _ in range(rounds):
        # least t with t >= cut.w for every cut, w on the simplex
        program = linprog(
            np.append(np.zeros(bases), 1.0),
            A_ub=np.column_stack([cuts, -np.ones(len(cuts))]),
            b_ub=np.zeros(len(cuts)),
            A_eq=np.append(np.ones(bases), 0.0)[None, :],
            b_eq=[1.0],
            bounds=[(0, None)] * bases + [(None, None)],
        )
        if program.x is None:
            raise ArithmeticError(f"oracle: expected gains with a least one, got none by linear programming: {program.message}")
        weight = np.maximum(program.x[:-1], 0.0)
        weight /= weight.sum()
        found, solved = gains.solve(weight[None, :]), np.vstack([solved, weight])
        if found.optimum[0] <= nothing * largest:
            return LeastGain(0.0, weight, solved)
        if program.fun > 0.5 * nothing:
            return LeastGain(float(program.fun) * largest, weight, solved)
        cuts = np.vstack([cuts, (found.value - found.cost[:, None]) / largest])
    return LeastGain(0.0, solved[-1], solved, settled=False)
