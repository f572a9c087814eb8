"""Reference: the un-personalised score that came with the features, with nothing fitted.

A reward model's own head, or a language model's mean token log-probability; see `palm.features.encode.Encoder.scores`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from palm.artifacts import write_json
from palm.features.pairs import PairFeatures
from palm.rewards.base import RECORD, RewardModel, read_record
from palm.rewards.users import UserWeights


@dataclass(frozen=True)
class Reference:
    """Estimator that fits nothing."""

    geometry: ClassVar[str] = "none"

    def fit(self, features: PairFeatures, seed: int = 0) -> "ReferenceModel":
        """See that the features came with scores.

        Raises:
            ValueError: they did not.
        """
        _scores(features)
        return ReferenceModel()


@dataclass(frozen=True)
class ReferenceModel(RewardModel):
    """The score of every text, the same for every user."""

    method: str = "Reference"
    geometry: ClassVar[str] = "none"

    def margin(self, features: PairFeatures, users: UserWeights) -> np.ndarray:
        """(n,) chosen minus rejected score, the same for every user; `users` are not looked at."""
        return features.difference(_scores(features)[:, None])[:, 0]

    def _write(self, folder: Path) -> None:
        write_json(folder / RECORD, {"format": "palm.RewardModel/1", "geometry": "none", "method": self.method, "details": {}})

    @classmethod
    def _read(cls, folder: Path) -> Self:
        read_record(folder, cls.geometry)
        return cls()


def _scores(features: PairFeatures) -> np.ndarray:
    if features.scores is None:
        raise ValueError("features: expected scores beside the features (embed with scores=True), got none")
    return features.scores
