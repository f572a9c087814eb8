"""Models of K basis rewards that every user weighs: what they share, and the one with linear bases and weights on the simplex."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from palm.features.pairs import PairFeatures
from palm.features.store import FeatureArray
from palm.rewards.base import Calibration, RewardModel, as_array, check_bases, check_users, pair_items, part_of, place_users
from palm.rewards.checks import as_switch, positive
from palm.rewards.mixture import Mixture, infer_users, prior_from, prior_record
from palm.rewards.simplex_users import Population, covariance_around, likeliest
from palm.rewards.users import UserWeights


class WeightedModel(RewardModel, ABC):
    """K basis rewards of a text, calibrated, of which every user has a weighted sum.

    Attributes:
        calibration: of the raw rewards into [0, 1].
        seen: posterior weights of the users it was fitted on.
        names: K names of the bases.
        width: d, numbers per text.
    """

    calibration: Calibration
    seen: UserWeights
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check that every part is for the same bases.

        Raises:
            ValueError: one is not; the message names it.
        """
        check_bases(len(self.calibration.low), names=len(self.names), users=self.seen.mean.shape[1])

    @property
    @abstractmethod
    def width(self) -> int:
        """d."""

    @abstractmethod
    def raw(self, items: FeatureArray) -> np.ndarray:
        """(t, K) basis rewards of (t, d) features before calibration."""

    @property
    def users(self) -> UserWeights:
        """The seen users' weights."""
        return self.seen

    def basis(self, features: FeatureArray | np.ndarray) -> np.ndarray:
        """Calibrated basis rewards of (n, d) features: (n, K) in [0, 1]."""
        return self.calibration.apply(self.raw(as_array(features, self.width)))

    def pair_scores(self, features: PairFeatures) -> np.ndarray:
        """(n, K) chosen minus rejected basis rewards, not clipped, in logits per unit of weight."""
        return features.difference(self.raw(pair_items(features, self.width)))

    def margin(self, features: PairFeatures, users: UserWeights) -> np.ndarray:
        """(n,) chosen minus rejected reward of each pair for its user, in logits."""
        check_users(users, self.geometry, len(self.names))
        return np.asarray(np.einsum("nk,nk->n", self.pair_scores(features), users.mean[users.rows(features.user)]))


@dataclass(frozen=True)
class SimplexModel(WeightedModel):
    """Linear bases phi_k(h) = h.V_k, calibrated, and users with a weight on the simplex.

    Attributes:
        method: name of the method that fitted it.
        directions: (d, K) V, in raw features.
        calibration: of h.V into [0, 1]; one width for all bases unless the bases were given.
        sharpness: logits per unit of calibrated utility: a pair's logit is sharpness x w.(phi_chosen - phi_rejected).
        population: prior of a user's weight.
        seen: posterior weights of the users it was fitted on.
        names: K names of the bases.
        details: how the fit went; JSON values.
        shrinks: whether a user is drawn to the population. If not, their mean is the weight that makes their own pairs likeliest;
            users without pairs get the population's, and its spread bounds everyone's covariance.
    """

    method: str
    directions: np.ndarray
    calibration: Calibration
    sharpness: float
    population: Population | Mixture
    seen: UserWeights
    names: tuple[str, ...]
    details: dict[str, Any]
    shrinks: bool = True
    geometry: ClassVar[str] = "simplex"

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

    def pair_scores(self, features: PairFeatures) -> np.ndarray:
        """(n, K) chosen minus rejected basis rewards in logits, not clipped."""
        return super().pair_scores(features) / (self.calibration.high - self.calibration.low) * self.sharpness

    def infer(self, context: PairFeatures, *, ids: np.ndarray | None = None) -> UserWeights:
        """Posterior weights from pairs; users without pairs get the population's mean and spread."""
        wanted, rows, code = place_users(context, ids)
        scores = self.pair_scores(context)[rows] if len(rows) else np.zeros((0, len(self.names)))
        if self.shrinks:
            return UserWeights(wanted, *infer_users(scores, code, len(wanted), self.population))
        return self._around(wanted, scores, code, likeliest(scores, code, len(wanted), self.population.mean))

    def around(self, context: PairFeatures, weights: np.ndarray) -> UserWeights:
        """Users at given weights (U, K), in the order of their ids; covariances are what pairs and the population's spread say."""
        wanted, rows, code = place_users(context, None)
        return self._around(wanted, self.pair_scores(context)[rows], code, weights)

    def _around(self, wanted: np.ndarray, scores: np.ndarray, code: np.ndarray, weights: np.ndarray) -> UserWeights:
        return UserWeights(wanted, weights, covariance_around(scores, code, weights, self.population.covariance))

    def _write(self, folder: Path) -> None:
        arrays = {"directions": self.directions, **self.calibration.arrays()}
        record = {
            "sharpness": self.sharpness,
            "population": prior_record(self.population),
            "names": list(self.names),
            "details": self.details,
            "shrinks": self.shrinks,
        }
        self._write_parts(folder, arrays=arrays, record=record, users=self.seen)

    @classmethod
    def _assemble(cls, folder: Path, record: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        return cls(
            method=record["method"],
            directions=arrays["directions"],
            calibration=Calibration.from_arrays(arrays),
            sharpness=part_of(record, "sharpness", positive),
            population=part_of(record, "population", prior_from),
            seen=UserWeights.load(folder, "users"),
            names=tuple(record["names"]),
            details=record["details"],
            shrinks=part_of({"shrinks": record.get("shrinks", True)}, "shrinks", as_switch),
        )
