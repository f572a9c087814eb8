"""What searches and certificates ask of an oracle: from a weight to a policy's value and KL cost, and to a bound on OPT."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Solution:
    """What an oracle says of M weights.

    Attributes:
        value: (M, K) float; J of the policy that is optimal for each weight.
        cost: (M,) float; its KL cost, kl times its KL divergence from the reference.
        optimum: (M,) float; w.value - cost, what that policy reaches; OPT(w) is at most the oracle's slack more.
    """

    value: np.ndarray
    cost: np.ndarray
    optimum: np.ndarray


class Oracle(Protocol):
    """What a search and a certificate ask of an oracle.

    OPT(w) is the best utility w.J - C in the oracle's class of policies. `lower_bound` <= OPT <= `upper_bound` everywhere, and
    the upper bound is convex in w: a certificate that uses it at the corners of a portfolio's cells holds in between.
    """

    @property
    def bases(self) -> int:
        """K."""

    @property
    def reference(self) -> np.ndarray:
        """(K,) value of the reference policy, whose KL cost is 0."""

    @property
    def slack(self) -> float:
        """Most by which `solve`'s policies miss the optimum of the policy class."""

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What a reader must grant for its numbers to hold."""

    def solve(self, weights: np.ndarray) -> Solution:
        """Value, cost and optimum at (M, K) weights; may train a policy for each."""

    def optimum(self, weights: np.ndarray) -> np.ndarray:
        """(M,) the oracle's best guess of OPT at (M, K) weights: what `solve` gives where it is known. Trains nothing."""

    def upper_bound(self, weights: np.ndarray) -> np.ndarray:
        """(M,) at least OPT at (M, K) weights, and convex in the weight. Trains nothing."""

    def lower_bound(self, weights: np.ndarray) -> np.ndarray:
        """(M,) what some policy of the class is known to reach at (M, K) weights. Trains nothing."""


def trains(oracle: Oracle) -> bool:
    """Whether every solve is a training: an oracle says so by an attribute `trains`; without one it is cheap to solve."""
    return bool(getattr(oracle, "trains", False))
