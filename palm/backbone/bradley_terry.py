"""Bradley-Terry on a trained backbone: one direction d -> 1 for everyone, logistic loss."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from palm.backbone.batches import Batch
from palm.backbone.heads import HeadModule
from palm.features.pairs import PairFeatures
from palm.rewards.base import Calibration
from palm.rewards.bradley_terry import BradleyTerry
from palm.rewards.episodes import standardisation
from palm.rewards.population_model import PopulationModel


@dataclass(frozen=True)
class BradleyTerryHead:
    """One reward for everyone; begins with the direction that fits the backbone as it is."""

    reads_context: ClassVar[bool] = False
    equal_users: ClassVar[bool] = False
    noise: ClassVar[None] = None

    def check(self) -> None:
        """Nothing can be out of range."""

    def begin(self, pairs: PairFeatures, seed: int) -> HeadModule:
        """The head before training."""
        centre, scale = standardisation(pairs)
        return BradleyTerryModule(centre, scale, in_standardised(BradleyTerry().fit(pairs, seed=seed).direction, scale))

    def finish(self, arrays: Mapping[str, np.ndarray], pairs: PairFeatures, losses: list[float]) -> PopulationModel:
        """The fitted model."""
        direction = arrays["direction"].astype(np.float64) / arrays["scale"]
        calibration = Calibration.common_width(pairs.items.project(direction[:, None]))
        return PopulationModel("BradleyTerry", direction, calibration, {"loss": losses, "pairs": len(pairs)})


class BradleyTerryModule(HeadModule):
    """The trained part: `direction` (d,), logits per standardised feature."""

    def __init__(self, centre: np.ndarray, scale: np.ndarray, direction: np.ndarray) -> None:
        """Begin with a direction."""
        super().__init__(centre, scale)
        self.direction = torch.nn.Parameter(torch.from_numpy(direction.astype(np.float32)))

    def loss(self, features: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Surprise at the targets, weighed by their shares."""
        chosen, rejected = features[batch["target"]] @ self.direction
        return (batch["pair_share"] * torch.nn.functional.softplus(rejected - chosen)).sum()


def in_standardised(directions: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """(d, ...) directions in raw features as those in standardised ones; a constant feature (scale infinity) has none."""
    wide = np.where(np.isfinite(scale), scale, 0.0)
    return np.asarray(directions * wide.reshape(-1, *[1] * (directions.ndim - 1)))
