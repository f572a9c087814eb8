"""What is rounding and what is a gap: by the size of the numbers that a gap is the difference of, never an absolute number.

A utility is a sum of products whose rounding is some 1e-16 of the largest that enters, and a KL cost is rounded like the
coefficient it is a multiple of. So an oracle has a *size*: differences below `NOTHING` of it say nothing, be rewards around 1 or
around 1e-8, and a gap is compared with a tolerance that is a share of what the target allows, plus the size's rounding.
"""

import numpy as np

from palm.portfolio.oracle import Oracle

NOTHING = 1e-13  # of the size: a gain below it is none. Sums over ten thousand prompts are rounded by up to a tenth of that
_FLOAT = 1e-15  # of the size, by which the same utility may differ that was computed in two ways
_SHARE = 1e-7  # of what an epsilon allows; searches aim lower by more than twice that


def size_of(oracle: Oracle) -> float:
    """The largest number that enters the oracle's utilities: OPT, which is largest at a vertex, or the KL coefficient.

    An oracle of differences, such as `GainOracle`, says itself how large the numbers were that it took them of.

    Raises:
        ValueError: the oracle cannot bound OPT at the vertices yet.
    """
    own: float | None = getattr(oracle, "size", None)
    if own is not None:
        return own
    return max(float(np.abs(oracle.upper_bound(np.eye(oracle.bases))).max()), float(getattr(oracle, "kl", 0.0)))


def slack_of(optimum: np.ndarray, epsilon: float, size: float) -> np.ndarray:
    """By how much less than OPT / (1 + epsilon) still counts as that, at weights where OPT is `optimum` (any shape)."""
    return np.asarray(_SHARE * epsilon / (1 + epsilon) * np.abs(optimum) + _FLOAT * size)
