"""VRF on a trained backbone: the published loss of palm.rewards.vrf, with features that are trained too."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from palm.backbone.batches import Batch
from palm.backbone.heads import HeadModule
from palm.features.pairs import PairFeatures
from palm.rewards.episodes import standardisation
from palm.rewards.vrf import fitted_model
from palm.rewards.vrf_model import VRFModel
from palm.rewards.vrf_objective import VRFObjective
from palm.seeds import derive_seed, isolated_rng


@dataclass(frozen=True)
class VRFHead(VRFObjective):
    """Gaussians for users and bases; attributes as in `VRFObjective`, every part of the loss a switch."""

    reads_context: ClassVar[bool] = True
    equal_users: ClassVar[bool] = False

    @property
    def noise(self) -> tuple[int, ...] | None:
        """Shape of the noise that a block's loss wants."""
        return (self.samples, self.dim) if self.needs_noise else None

    def begin(self, pairs: PairFeatures, seed: int) -> HeadModule:
        """The head before training."""
        with isolated_rng(derive_seed(seed, "VRF")):
            parts = self.module(pairs.width)
        return VRFModule(*standardisation(pairs), self, parts)

    def finish(self, arrays: Mapping[str, np.ndarray], pairs: PairFeatures, losses: list[float]) -> VRFModel:
        """The fitted model."""
        with isolated_rng(0):  # what is drawn is not kept
            parts = self.module(len(arrays["scale"]))
        parts.load_state_dict(
            {name.removeprefix("parts."): torch.tensor(arrays[name]) for name in arrays if name.startswith("parts.")}
        )
        return fitted_model(self, pairs, parts, arrays["centre"], arrays["scale"], losses)


class VRFModule(HeadModule):
    """The trained part: `parts`, as `VRFObjective.module` makes them."""

    def __init__(self, centre: np.ndarray, scale: np.ndarray, options: VRFObjective, parts: torch.nn.Module) -> None:
        """Keep the networks."""
        super().__init__(centre, scale)
        self.options = options
        self.parts: Any = parts

    def loss(self, features: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The published loss; users are read from their contexts."""
        chosen, rejected = features[batch["context"]]
        context = torch.cat([(chosen + rejected) / 2, chosen - rejected], dim=1)
        users = self.options.users(self.parts, context, batch["context_block"], len(batch["user"]))
        rewards = self.parts.rewards(features)[batch["target"]]
        noise = batch["noise"].transpose(0, 1) if "noise" in batch else None
        return self.options.loss(
            self.parts,
            users,
            rewards[0] - rewards[1],
            batch["target_block"],
            noise,
            pair_share=batch["pair_share"],
            user_share=batch["user_share"],
        )
