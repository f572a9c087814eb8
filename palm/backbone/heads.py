"""What a method puts on top of a backbone: the contract of heads."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Protocol

import numpy as np
import torch

from palm.backbone.batches import Batch
from palm.features.pairs import PairFeatures
from palm.rewards.base import RewardModel


class HeadModule(torch.nn.Module, ABC):
    """What is trained beside the backbone; reads standardised features.

    Attributes:
        centre, scale: (d,) buffers; mean and deviation of the features before training. They stay as they are.
    """

    centre: torch.Tensor
    scale: torch.Tensor

    def __init__(self, centre: np.ndarray, scale: np.ndarray) -> None:
        """Keep the standardisation; a feature of deviation infinity has no part."""
        super().__init__()
        self.register_buffer("centre", torch.from_numpy(centre.astype(np.float32)))
        self.register_buffer("scale", torch.from_numpy(scale.astype(np.float32)))

    def standardised(self, features: torch.Tensor) -> torch.Tensor:
        """(t, d) features as heads read them."""
        return (features - self.centre) / self.scale

    @abstractmethod
    def loss(self, features: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The loss of a part (`palm.backbone.batches`) given (t, d) standardised features of its texts."""

    def own_rates(self) -> dict[str, float]:
        """Learning rates of parameters, by name, that have one of their own."""
        return {}


class Head(Protocol):
    """A method's hyper-parameters.

    Attributes:
        reads_context: whether users are read from contexts.
        equal_users: whether every user weighs the same in the loss, however many pairs they have.
    """

    reads_context: ClassVar[bool]
    equal_users: ClassVar[bool]

    @property
    def noise(self) -> tuple[int, ...] | None:
        """Shape of the noise that a block's loss wants."""

    def check(self) -> None:
        """See that every number is in its range.

        Raises:
            ValueError: one is not.
        """

    def begin(self, pairs: PairFeatures, seed: int) -> HeadModule:
        """The head before training, from features of the backbone as it is."""

    def finish(self, arrays: Mapping[str, np.ndarray], pairs: PairFeatures, losses: list[float]) -> RewardModel:
        """The fitted model.

        Args:
            arrays: parameters and buffers of the trained head, by name.
            pairs: of the seen users, with features of the trained backbone.
            losses: to record.
        """
