"""Do fits of other splits find the same basis rewards? Principal angles between what they span."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from palm.evaluation.calibration import basis_angles
from palm.features.store import FeatureArray
from palm.rewards import RewardModel
from palm.rewards.weighted import WeightedModel

_FLAT = 1e-6  # of the largest singular value; float32 features leave rounding above 1e-7


def spanned(model: RewardModel, texts: FeatureArray) -> np.ndarray | None:
    """(t, r) orthonormal span of a model's basis rewards of t texts, constants aside; None if it has none that users weigh.

    r is less than K where bases agree: with nothing personal found it is 1, and 0 if every text is rewarded alike.
    """
    if not isinstance(model, WeightedModel):
        return None
    rewards = model.raw(texts)
    left, size, _ = np.linalg.svd(rewards - rewards.mean(axis=0), full_matrices=False)
    return np.asarray(left[:, size > _FLAT * size[0]])


def angles_between(spans: Sequence[np.ndarray], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """For every two seeds the principal angles between their spans, in degrees, the largest first.

    Args:
        spans: as `spanned` gives them, of the same texts.
        seeds: whose they are.

    Returns:
        JSON values; as many angles as the smaller span has dimensions.
    """
    return [
        {"seeds": [seeds[i], seeds[j]], "degrees": basis_angles(one, other).tolist() if one.size and other.size else []}
        for (i, one), (j, other) in combinations(enumerate(spans), 2)
    ]


def same_texts(first: FeatureArray, second: FeatureArray) -> bool:
    """Whether two arrays of features are the same, number by number."""
    return first.shape == second.shape and all(
        np.array_equal(block, second.rows(np.arange(where.start, where.stop))) for where, block in first.blocks()
    )
