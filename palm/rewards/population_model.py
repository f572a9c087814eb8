"""A fitted reward that is the same for everyone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from palm.features.pairs import PairFeatures
from palm.features.store import FeatureArray
from palm.rewards.base import Calibration, RewardModel, as_array, pair_items
from palm.rewards.users import UserWeights


@dataclass(frozen=True)
class PopulationModel(RewardModel):
    """One linear reward for everyone.

    Attributes:
        method: name of the method that fitted it.
        direction: (d,) raw features to logits.
        calibration: of h.direction into [0, 1].
        details: how the fit went; JSON values.
    """

    method: str
    direction: np.ndarray
    calibration: Calibration
    details: dict[str, Any]
    geometry: ClassVar[str] = "none"

    def basis(self, features: FeatureArray | np.ndarray) -> np.ndarray:
        """(n, 1) calibrated rewards of (n, d) features, in [0, 1]."""
        return self.calibration.apply(as_array(features, len(self.direction)).project(self.direction[:, None]))

    def margin(self, features: PairFeatures, users: UserWeights) -> np.ndarray:
        """(n,) chosen minus rejected reward in logits, the same for every user; `users` are not looked at."""
        return features.difference(pair_items(features, len(self.direction)).project(self.direction[:, None]))[:, 0]

    def _write(self, folder: Path) -> None:
        arrays = {"direction": self.direction, **self.calibration.arrays()}
        self._write_parts(folder, arrays=arrays, record={"details": self.details})

    @classmethod
    def _assemble(cls, folder: Path, record: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        return cls(record["method"], arrays["direction"], Calibration.from_arrays(arrays), record["details"])
