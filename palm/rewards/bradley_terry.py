"""Bradley-Terry: one linear reward for everyone, by regularised logistic regression on feature differences.

R. Bradley, M. Terry, "Rank analysis of incomplete block designs", Biometrika 39 (1952). The baseline that personalised
methods must beat.
"""

from dataclasses import dataclass
from typing import ClassVar

from palm.features.pairs import PairFeatures
from palm.rewards.base import Calibration
from palm.rewards.checks import check_pairs, check_positive
from palm.rewards.folds import choose_penalty, split_folds
from palm.rewards.logistic import Standardised, fit_population
from palm.rewards.population_model import PopulationModel
from palm.threads import one_scipy_thread


@dataclass(frozen=True)
class BradleyTerry:
    """Estimator of one reward for everyone.

    Attributes:
        penalty: ridge, for features of unit variance; None: cross-validated.
    """

    penalty: float | None = None
    geometry: ClassVar[str] = "none"

    def __post_init__(self) -> None:
        """Check the hyper-parameters.

        Raises:
            ValueError: one is out of range; the message names it.
        """
        check_positive(self, "penalty", optional=True)

    def fit(self, features: PairFeatures, seed: int = 0) -> PopulationModel:
        """Learn the reward.

        Args:
            features: pairs of any users.
            seed: of the cross-validation's folds.

        Raises:
            ValueError: there are no pairs.
        """
        check_pairs(features, seed)
        data = Standardised.of(features)
        with one_scipy_thread():
            penalty, losses = (self.penalty, {}) if self.penalty is not None else choose_penalty(split_folds(data, seed=seed))
            direction = fit_population(data, penalty) / data.scale
        calibration = Calibration.common_width(features.items.project(direction[:, None]))
        details = {"penalty": penalty, "held_out_loss": losses, "pairs": len(features)}
        return PopulationModel("BradleyTerry", direction, calibration, details)
