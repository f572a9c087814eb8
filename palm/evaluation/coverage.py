"""How well a portfolio serves everyone: gaps over the simplex and over actual users."""

from dataclasses import dataclass

import numpy as np

from palm.artifacts import finite_or_none
from palm.evaluation.intervals import Estimate, bootstrap_mean
from palm.portfolio.certify import Certificate, certify
from palm.portfolio.oracle import Oracle
from palm.portfolio.portfolio import Portfolio
from palm.simplex import check_weights, sample_simplex


@dataclass(frozen=True)
class Coverage:
    """Gaps between the optimum and what a portfolio serves.

    Attributes:
        certificate: the worst gaps over the whole simplex.
        mean_epsilon, mean_delta: multiplicative and additive gap, averaged over weights uniform on the simplex.
        users: number of actual users; the rest is None without any.
        user_regret: optimum minus served utility, mean over users.
        user_worst_epsilon: the largest multiplicative gap of a user.
        user_gain: served utility minus the reference's, mean over users.
    """

    certificate: Certificate
    mean_epsilon: float
    mean_delta: float
    users: int
    user_regret: Estimate | None
    user_worst_epsilon: float | None
    user_gain: Estimate | None

    def record(self) -> dict[str, object]:
        """JSON form; the certificate's main numbers only."""
        return {
            "worst_epsilon": finite_or_none(self.certificate.epsilon),
            "worst_delta": self.certificate.delta,
            "captured_gain": self.certificate.captured_gain,
            "mean_epsilon": finite_or_none(self.mean_epsilon),
            "mean_delta": self.mean_delta,
            "users": self.users,
            "user_regret": None if self.user_regret is None else self.user_regret.record(),
            "user_worst_epsilon": finite_or_none(self.user_worst_epsilon),
            "user_gain": None if self.user_gain is None else self.user_gain.record(),
        }


def coverage(
    portfolio: Portfolio, oracle: Oracle, users: np.ndarray | None = None, *, weights: int = 4096, seed: int = 0
) -> Coverage:
    """Certify a portfolio and average its gaps.

    Args:
        portfolio: planned or measured.
        oracle: gives the optimum, on held-out prompts for an honest number.
        users: (U, K) weights of actual users.
        weights: how many weights to average over.
        seed: of the weights.
    """
    drawn = sample_simplex(weights, oracle.bases, np.random.default_rng(seed))
    optimum, served = oracle.optimum(drawn), portfolio.served(drawn)
    epsilon = _epsilon(optimum, served)
    regret = worst = gain = None
    if users is not None and len(users):
        users = check_weights(users, bases=oracle.bases, name="users")
        best, had = oracle.optimum(users), portfolio.served(users)
        regret, gain = bootstrap_mean(best - had, seed=seed), bootstrap_mean(had - users @ portfolio.reference, seed=seed)
        worst = float(_epsilon(best, had).max())
    return Coverage(
        certificate=certify(portfolio, oracle),
        mean_epsilon=float(epsilon.mean()),
        mean_delta=float(np.maximum(optimum - served, 0.0).mean()),
        users=0 if users is None else len(users),
        user_regret=regret,
        user_worst_epsilon=worst,
        user_gain=gain,
    )


def _epsilon(optimum: np.ndarray, served: np.ndarray) -> np.ndarray:
    """OPT / L - 1 of each weight, without bound where nothing or less is served."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(optimum > served, (optimum - served) / np.maximum(served, 0.0), 0.0)
