"""Models in which a user enters linearly and without constraints: reward u.phi, u any vector of K numbers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from palm.features.pairs import PairFeatures
from palm.features.store import FeatureArray
from palm.rewards.base import Calibration, check_bases, part_of, place_users
from palm.rewards.gaussian_users import GaussianPopulation, infer_gaussian
from palm.rewards.users import UserWeights
from palm.rewards.weighted import WeightedModel


@dataclass(frozen=True)
class LinearModel(WeightedModel):
    """Linear bases h.V_k and users with an unconstrained vector: the logit of a pair is u.V'(h_chosen - h_rejected).

    Attributes:
        method: name of the method that fitted it.
        directions: (d, K) V, in raw features.
        calibration: of h.V into [0, 1], each basis with its own width.
        population: Gaussian prior of a user's vector.
        seen: posterior vectors of the users it was fitted on.
        names: K names of the bases.
        details: how the fit went; JSON values.
    """

    method: str
    directions: np.ndarray
    calibration: Calibration
    population: GaussianPopulation
    seen: UserWeights
    names: tuple[str, ...]
    details: dict[str, Any]
    geometry: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bases(len(self.names), directions=self.directions.shape[1], population=len(self.population.mean))

    @property
    def width(self) -> int:
        """d."""
        return len(self.directions)

    def raw(self, items: FeatureArray) -> np.ndarray:
        """(t, K) basis rewards of (t, d) features before calibration."""
        return items.project(self.directions)

    def infer(self, context: PairFeatures, *, ids: np.ndarray | None = None) -> UserWeights:
        """Posterior vectors from pairs; users without pairs get the population's mean and covariance."""
        wanted, rows, code = place_users(context, ids)
        scores = self.pair_scores(context)[rows] if len(rows) else np.zeros((0, len(self.names)))
        mean, covariance = infer_gaussian(scores, code, len(wanted), self.population)
        return UserWeights(wanted, mean, covariance, geometry="linear")

    def simplex_basis(self, features: FeatureArray | np.ndarray) -> np.ndarray:
        """(n, 2K) rewards in [0, 1] over which every user has a weight on the simplex: each basis, and 1 minus each."""
        basis = self.basis(features)
        return np.hstack([basis, 1.0 - basis])

    def simplex_weights(self, users: UserWeights) -> tuple[np.ndarray, np.ndarray]:
        """Users' vectors as weights over `simplex_basis`, with the norm apart.

        u.V'h is, but for a constant, sharpness x w.simplex_basis(h): what a vector has of a basis goes to the basis or to its
        opposite, in units of the calibration's width.

        Returns:
            weights: (U, 2K) on the simplex; even for a user whose vector is 0.
            sharpness: (U,) logits per unit of utility; 1 / temperature.
        """
        scaled = users.mean * (self.calibration.high - self.calibration.low)
        parts = np.hstack([np.maximum(scaled, 0.0), np.maximum(-scaled, 0.0)])
        sharpness = parts.sum(axis=1)
        even = np.full(parts.shape[1], 1.0 / parts.shape[1])
        return np.where(sharpness[:, None] > 0, parts / np.where(sharpness > 0, sharpness, 1.0)[:, None], even), sharpness

    def _write(self, folder: Path) -> None:
        arrays = {"directions": self.directions, **self.calibration.arrays()}
        record = {"population": self.population.record(), "names": list(self.names), "details": self.details}
        self._write_parts(folder, arrays=arrays, record=record, users=self.seen)

    @classmethod
    def _assemble(cls, folder: Path, record: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        return cls(
            method=record["method"],
            directions=arrays["directions"],
            calibration=Calibration.from_arrays(arrays),
            population=part_of(record, "population", GaussianPopulation.from_record),
            seen=UserWeights.load(folder, "users"),
            names=tuple(record["names"]),
            details=record["details"],
        )
