"""How many pairs a model needs of a new user: accuracy against the size of the context."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from palm.evaluation.accuracy import Accuracy, accuracy, compare
from palm.evaluation.intervals import Estimate
from palm.features.pairs import PairFeatures
from palm.rewards.base import RewardModel

SHOTS = (0, 1, 3, 5, 10, 20)


@dataclass(frozen=True)
class FewShot:
    """Accuracy on the same held-out pairs after contexts of growing size.

    Attributes:
        shots: (S,) pairs of context per user; a user who has fewer gives all of theirs.
        accuracy: at each size.
        gain: over the first size, paired by user; where that is 0 pairs, over the population's mean weight.
    """

    shots: tuple[int, ...]
    accuracy: tuple[Accuracy, ...]
    gain: tuple[Estimate, ...]

    def record(self) -> list[dict[str, object]]:
        """JSON form."""
        rows = zip(self.shots, self.accuracy, self.gain, strict=True)
        return [{"shots": shots, **found.record(), "gain": gain.record()} for shots, found, gain in rows]


def few_shot(
    model: RewardModel, context: PairFeatures, test: PairFeatures, *, shots: Sequence[int] = SHOTS, seed: int = 0
) -> FewShot:
    """Infer users from more and more of their pairs; a larger context holds the smaller ones.

    Args:
        model: fitted on other users.
        context: pairs to infer from.
        test: held-out pairs of the same users.
        shots: sizes, increasing, each at least 0.
        seed: of the order in which a user's pairs are told, and of the bootstrap.

    Raises:
        ValueError: `shots` is not increasing, or there are no held-out pairs.
    """
    if not shots or list(shots) != sorted(set(shots)) or shots[0] < 0:
        raise ValueError(f"shots: expected increasing numbers of at least 0, got {list(shots)}")
    rank = rank_within_user(context, seed)
    found = []
    for size in shots:
        users = model.infer(context.select(np.flatnonzero(rank < size)), ids=test.ids)
        found.append(accuracy(model, test, users, seed=seed))
    return FewShot(tuple(shots), tuple(found), tuple(compare(each, found[0], seed=seed) for each in found))


def rank_within_user(pairs: PairFeatures, seed: int) -> np.ndarray:
    """(n,) place of each pair in its user's random order; the order they came in has no part in it."""
    canonical = np.lexsort((pairs.rejected_row, pairs.chosen_row, pairs.code))
    chance = np.empty(len(pairs))
    chance[canonical] = np.random.default_rng(seed).random(len(pairs))
    order = np.lexsort((chance, pairs.code))
    counts = np.bincount(pairs.code, minlength=len(pairs.ids))
    rank = np.empty(len(pairs), dtype=np.int64)
    rank[order] = np.arange(len(pairs)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rank
