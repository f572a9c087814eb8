"""How often a reward model agrees with each user's held-out judgements."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from palm.evaluation.intervals import Estimate, bootstrap_mean
from palm.features.pairs import PairFeatures
from palm.rewards.base import RewardModel
from palm.rewards.logistic import log_loss
from palm.rewards.users import UserWeights


@dataclass(frozen=True)
class Accuracy:
    """Agreement with held-out pairs, every user counted once.

    Attributes:
        overall: mean over users of a user's share of pairs on the right side; a tie counts half.
        loss: mean over users of the mean log-loss in nats.
        ids: (U,) users.
        per_user: (U,) each user's share.
        losses: (U,) each user's mean log-loss.
        pairs: number of pairs.
    """

    overall: Estimate
    loss: Estimate
    ids: np.ndarray
    per_user: np.ndarray
    losses: np.ndarray
    pairs: int

    def record(self) -> dict[str, object]:
        """JSON form without the users."""
        return {"accuracy": self.overall.record(), "log_loss": self.loss.record(), "users": len(self.ids), "pairs": self.pairs}


def accuracy(model: RewardModel, features: PairFeatures, users: UserWeights, *, seed: int = 0) -> Accuracy:
    """Accuracy of a model on held-out pairs, with 95 % intervals over users.

    Args:
        model: fitted on other pairs.
        features: held-out pairs.
        users: the users' weights, inferred from other pairs: `model.users` or `model.infer(context)`.
        seed: of the bootstrap.

    Raises:
        ValueError: there are no pairs, or a user has no weight.
    """
    if len(features) == 0:
        raise ValueError("features: expected at least one held-out pair, got none")
    margin = model.margin(features, users)
    right = (margin > 0) + 0.5 * (margin == 0)
    counts = np.bincount(features.code)
    per_user = np.bincount(features.code, right) / counts
    losses = np.bincount(features.code, log_loss(margin)) / counts
    return _accuracy(features.ids, per_user, losses, len(features), seed)


def pooled(found: Sequence[Accuracy], *, seed: int = 0) -> Accuracy:
    """One accuracy out of several splits of the same data: a user's share and loss are the means over the splits they are in.

    Args:
        found: one of each split, at least one.
        seed: of the bootstrap over users.
    """
    ids, code = np.unique(np.concatenate([each.ids for each in found]), return_inverse=True)
    times = np.bincount(code)
    share, loss = (
        np.bincount(code, np.concatenate([getattr(each, name) for each in found])) / times for name in ("per_user", "losses")
    )
    return _accuracy(ids, share, loss, sum(each.pairs for each in found), seed)


def compare(first: Accuracy, second: Accuracy, *, seed: int = 0) -> Estimate:
    """First minus second, paired by user, with a 95 % interval over users.

    Raises:
        ValueError: the two are not of the same users.
    """
    if first.ids.tolist() != second.ids.tolist():
        both = len(np.intersect1d(first.ids, second.ids))
        sizes = f"{len(first.ids)} and {len(second.ids)}, of which {both} in both"
        raise ValueError(f"first, second: expected accuracies of the same users, got {sizes}")
    return bootstrap_mean(first.per_user - second.per_user, seed=seed)


def _accuracy(ids: np.ndarray, per_user: np.ndarray, losses: np.ndarray, pairs: int, seed: int) -> Accuracy:
    return Accuracy(bootstrap_mean(per_user, seed=seed), bootstrap_mean(losses, seed=seed), ids, per_user, losses, pairs)
