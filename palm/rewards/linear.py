"""Models in which a user enters linearly and without constraints: reward u.phi, u any vector of K numbers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from palm.artifacts import ArtifactError, read_arrays, write_arrays, write_json
from palm.features.pairs import PairFeatures
from palm.features.store import FeatureArray
from palm.rewards.base import ARRAYS, RECORD, Calibration, RewardModel, as_array, check_users, place_users, read_record
from palm.rewards.gaussian_users import GaussianPopulation, infer_gaussian
from palm.rewards.users import UserWeights


@dataclass(frozen=True)
class LinearModel(RewardModel):
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

    @property
    def users(self) -> UserWeights:
        """The seen users' vectors."""
        return self.seen

    def basis(self, features: FeatureArray | np.ndarray) -> np.ndarray:
        """Calibrated basis rewards of (n, d) features: (n, K) in [0, 1]."""
        return self.calibration.apply(as_array(features, len(self.directions)).project(self.directions))

    def pair_scores(self, features: PairFeatures) -> np.ndarray:
        """(n, K) chosen minus rejected basis rewards in logits per unit of u, not clipped."""
        return features.difference(as_array(features.items, len(self.directions)).project(self.directions))

    def margin(self, features: PairFeatures, users: UserWeights) -> np.ndarray:
        """(n,) chosen minus rejected reward of each pair for its user, in logits."""
        check_users(users, self.geometry, len(self.names))
        return np.asarray(np.einsum("nk,nk->n", self.pair_scores(features), users.mean[users.rows(features.user)]))

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
        write_arrays(folder / ARRAYS, {"directions": self.directions, "low": self.calibration.low, "high": self.calibration.high})
        self.seen.save(folder, "users")
        record = {
            "format": "palm.RewardModel/1",
            "geometry": self.geometry,
            "method": self.method,
            "population": self.population.record(),
            "names": list(self.names),
            "details": self.details,
        }
        write_json(folder / RECORD, record)

    @classmethod
    def _read(cls, folder: Path) -> Self:
        record = read_record(folder, cls.geometry)
        arrays = read_arrays(folder / ARRAYS)
        try:
            return cls(
                method=record["method"],
                directions=arrays["directions"],
                calibration=Calibration(arrays["low"], arrays["high"]),
                population=GaussianPopulation.from_record(record["population"]),
                seen=UserWeights.load(folder, "users"),
                names=tuple(record["names"]),
                details=record["details"],
            )
        except (KeyError, ValueError) as error:
            raise ArtifactError(f"{folder / RECORD}: not a complete reward model: {error!r}") from error
