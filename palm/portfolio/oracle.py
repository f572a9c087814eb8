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
    """What a search and a certificate ask of an oracle."""

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
        """Value, cost and optimum at (M, K) weights."""

    def optimum(self, weights: np.ndarray) -> np.ndarray:
        """(M,) what `solve` gives as optimum at (M, K) weights; may be cheaper."""
