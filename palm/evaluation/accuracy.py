"""How often a reward model agrees with each user's held-out judgements."""

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
        pairs: number of pairs.
    """

    overall: Estimate
    loss: Estimate
    ids: np.ndarray
    per_user: np.ndarray
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
    return Accuracy(bootstrap_mean(per_user, seed=seed), bootstrap_mean(losses, seed=seed), features.ids, per_user, len(features))


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
