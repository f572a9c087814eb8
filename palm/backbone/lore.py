"""LoRe on a trained backbone: K directions d -> K and a weight on the simplex for every seen user, trained together.

Loss as published (arXiv 2504.14439, "joint"): every user's mean of log(1 + exp(-w_u . V'(h+ - h-))), w_u = softmax(W_u). The
published divisor of the logit is not there: features are standardised, and a learning rate of V does the same. Added, if asked
for, is the shrinking of palm.rewards.lore: personal_penalty / (2 n) sum_k |V_k - mean_k V_k|^2 for n pairs.

Training begins with bases and weights that palm.rewards.lore finds on the backbone as it is. When it is over, W has done its work:
the weights of seen and new users, with their covariances, come from the convex problem of palm.rewards.simplex_users.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from palm.backbone.batches import Batch
from palm.backbone.bradley_terry import in_standardised
from palm.backbone.heads import HeadModule
from palm.features.pairs import PairFeatures
from palm.rewards.base import Calibration
from palm.rewards.episodes import standardisation
from palm.rewards.lore import LoRe
from palm.rewards.simplex_users import learn_population
from palm.rewards.users import UserWeights
from palm.rewards.weighted import SimplexModel

_START_PENALTY = 30.0  # on personal differences where training begins, if none is asked for later
_LEAST = 1e-3  # weight of a basis where training begins


@dataclass(frozen=True)
class LoReHead:
    """Shared bases and users' weights.

    Attributes:
        rank: K, number of bases.
        personal_penalty: draws the bases to their mean, as in `palm.rewards.lore.LoRe`; 0: as published.
        concentration: as in `palm.rewards.lore.LoRe`, for the users' weights after training.
        user_learning_rate: of W.
    """

    rank: int = 5
    personal_penalty: float = 0.0
    concentration: float = 0.1
    user_learning_rate: float = 0.05
    reads_context: ClassVar[bool] = False
    equal_users: ClassVar[bool] = True
    noise: ClassVar[None] = None

    def check(self) -> None:
        """See that every number is in its range.

        Raises:
            ValueError: one is not.
        """
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise ValueError(f"rank: expected a whole number of at least 1, got {self.rank!r}")
        if not 0 <= self.personal_penalty < np.inf:
            raise ValueError(f"personal_penalty: expected at least 0, got {self.personal_penalty}")
        for name in ("concentration", "user_learning_rate"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)}")

    def begin(self, pairs: PairFeatures, seed: int) -> HeadModule:
        """The head before training."""
        centre, scale = standardisation(pairs)
        estimator = LoRe(self.rank, personal_penalty=self.personal_penalty or _START_PENALTY, restarts=0, rounds=10)
        model = estimator.fit(pairs, seed=seed)
        penalty = self.personal_penalty / len(pairs)
        return LoReModule(
            centre, scale, in_standardised(model.directions, scale), model.seen.mean, penalty, self.user_learning_rate
        )

    def finish(self, arrays: Mapping[str, np.ndarray], pairs: PairFeatures, losses: list[float]) -> SimplexModel:
        """The fitted model; users' weights are solved for anew."""
        directions = arrays["directions"].astype(np.float64) / arrays["scale"][:, None]
        raw = pairs.items.project(directions)
        calibration = Calibration.common_width(raw)
        population, _, _ = learn_population(pairs.difference(raw), pairs.code, len(pairs.ids), concentration=self.concentration)
        model = SimplexModel(
            method="LoRe",
            directions=directions,
            calibration=calibration,
            sharpness=float(calibration.high[0] - calibration.low[0]),
            population=population,
            seen=UserWeights.none(self.rank),
            names=tuple(f"basis-{k}" for k in range(self.rank)),
            details={"rank": self.rank, "loss": losses, "pairs": len(pairs), "users": len(pairs.ids)},
        )
        return replace(model, seen=model.infer(pairs))


class LoReModule(HeadModule):
    """The trained part: `directions` V (d, K), logits per standardised feature, and `users` W (U, K)."""

    def __init__(
        self,
        centre: np.ndarray,
        scale: np.ndarray,
        directions: np.ndarray,
        weights: np.ndarray,
        penalty: float,
        user_learning_rate: float,
    ) -> None:
        """Begin with directions and weights on the simplex."""
        super().__init__(centre, scale)
        self.directions = torch.nn.Parameter(torch.from_numpy(directions.astype(np.float32)))
        self.users = torch.nn.Parameter(torch.from_numpy(np.log(np.maximum(weights, _LEAST)).astype(np.float32)))
        self.penalty, self.user_learning_rate = penalty, user_learning_rate

    def loss(self, features: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Surprise at the targets, weighed by their shares, and what shrinks the bases."""
        chosen, rejected = features[batch["target"]] @ self.directions
        weight = torch.softmax(self.users[batch["user"]], dim=1)[batch["target_block"]]
        margin = (weight * (chosen - rejected)).sum(dim=1)
        loss = (batch["pair_share"] * torch.nn.functional.softplus(-margin)).sum()
        if self.penalty:
            away = self.directions - self.directions.mean(dim=1, keepdim=True)
            loss = loss + 0.5 * self.penalty * away.square().sum()
        return loss

    def own_rates(self) -> dict[str, float]:
        """Users' weights learn faster: each is in few steps."""
        return {"users": self.user_learning_rate}
