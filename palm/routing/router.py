"""Send each user to a policy: the best in expectation, or the one whose weight is nearest.

Utility is linear in the weight, so E[f_w(policy)] = E[w].J - C: the policy that is best in expectation needs the
posterior's mean only. How sure that choice is needs its covariance.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from palm.artifacts import ArtifactError, read_json, write_json
from palm.hub import HubObject
from palm.portfolio.portfolio import Portfolio
from palm.rewards.users import UserWeights
from palm.simplex import check_weights, project_to_simplex

if TYPE_CHECKING:
    from palm.rewards.base import RewardModel

RULES = ("expected", "nearest-l1", "nearest-l2")
REFERENCE = "reference"
FILE = "router.json"
_DRAWS = 256


@dataclass(frozen=True)
class Routes:
    """Where each of n users goes.

    Attributes:
        policy: (n,) ids of policies; "reference" where the base model alone is best.
        utility: (n,) expected utility there.
        regret_bound: (n,) at most so much more utility any policy would have had at that weight, by the portfolio's
            certificate; infinite without one.
        confidence: (n,) probability under the posterior that no other member is better; 1 for weights without a covariance.
    """

    policy: np.ndarray
    utility: np.ndarray
    regret_bound: np.ndarray
    confidence: np.ndarray


class Router(HubObject):
    """Routes weights to a portfolio's policies."""

    def __init__(self, portfolio: Portfolio, *, rule: str = "expected", reward_model: "RewardModel | None" = None) -> None:
        """Keep a portfolio to route to.

        Args:
            portfolio: measured if it has been trained, otherwise planned.
            rule: "expected": best expected utility, the reference included. "nearest-l1", "nearest-l2": the policy whose
                weight is nearest; never the reference.
            reward_model: infers weights from pairs in `infer`.

        Raises:
            ValueError: the rule is unknown, or asks for the nearest of no policies.
        """
        if rule not in RULES:
            raise ValueError(f"rule: expected one of {', '.join(RULES)}, got {rule!r}")
        if rule != "expected" and not len(portfolio):
            raise ValueError(f"portfolio: expected a policy to be nearest to for the rule {rule!r}, got none")
        self.portfolio = portfolio
        self.rule = rule
        self.reward_model = reward_model

    def route(self, weights: np.ndarray | UserWeights) -> Routes:
        """Choose a policy for every weight.

        Args:
            weights: (n, K) or (K,) on the simplex, or `UserWeights` with their uncertainty.

        Raises:
            ValueError: a weight is off the simplex or has not K entries.
        """
        covariance = weights.covariance if isinstance(weights, UserWeights) else None
        mean = weights.mean if isinstance(weights, UserWeights) else weights
        bases = len(self.portfolio.reference)
        mean = check_weights(mean, bases=bases) if np.size(mean) else np.zeros((0, bases))
        utilities = self.portfolio.utilities(mean) if len(mean) else np.zeros((0, len(self.portfolio) + 1))
        if self.rule == "expected":
            choice = utilities.argmax(axis=1)
        else:
            away = mean[:, None, :] - self.portfolio.weights[None, :, :]
            distance = np.abs(away).sum(axis=2) if self.rule == "nearest-l1" else (away**2).sum(axis=2)
            choice = distance.argmin(axis=1)
        chosen = utilities[np.arange(len(mean)), choice]
        ids = np.array([*self.portfolio.ids, REFERENCE], dtype=object).astype(str)
        return Routes(
            policy=ids[choice],
            utility=chosen,
            regret_bound=self._regret_bound(utilities.max(axis=1, initial=-np.inf), chosen),
            confidence=np.ones(len(mean)) if covariance is None else self._confidence(mean, covariance, choice),
        )

    def infer(self, context: object) -> UserWeights:
        """Weights of users from their pairs (`PairFeatures`), by the reward model that came with the portfolio.

        Raises:
            ValueError: the router has no reward model.
        """
        if self.reward_model is None:
            raise ValueError("reward_model: this router has none, so it cannot infer weights from pairs; route weights instead")
        return self.reward_model.infer(context)  # type: ignore[arg-type]

    def _regret_bound(self, served: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """OPT - chosen <= min(epsilon L, delta) + (L - chosen), with L the best member's utility."""
        certificate = self.portfolio.certificate
        if certificate is None:
            return np.full(len(chosen), np.inf)
        if np.isfinite(certificate.epsilon):
            multiplicative = certificate.epsilon * np.maximum(served, 0.0) + certificate.given_delta
        else:
            multiplicative = np.full(len(served), np.inf)
        additive = certificate.delta + certificate.given_epsilon * np.maximum(served, 0.0)
        return np.minimum(multiplicative, additive) + served - chosen

    def _confidence(self, mean: np.ndarray, covariance: np.ndarray, choice: np.ndarray) -> np.ndarray:
        """Share of posterior draws at which the choice is best, by 256 quasi-random normal draws (the same for all users)."""
        from scipy.special import ndtri
        from scipy.stats import qmc

        bases = mean.shape[1]
        uniform = qmc.Sobol(bases, scramble=True, rng=0).random(_DRAWS)
        normal = ndtri(np.clip(uniform, 1e-6, 1 - 1e-6))  # (256, K)
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
        confidence = np.empty(len(mean))
        step = max(1, 2**22 // (_DRAWS * bases))
        for start in range(0, len(mean), step):
            rows = slice(start, start + step)
            drawn = mean[rows, None, :] + np.einsum("nij,sj->nsi", root[rows], normal)
            drawn = project_to_simplex(drawn.reshape(-1, bases)).reshape(drawn.shape)
            utilities = drawn @ self.portfolio.value.T - self.portfolio.cost
            utilities = np.concatenate([utilities, (drawn @ self.portfolio.reference)[:, :, None]], axis=2)
            own = np.take_along_axis(utilities, choice[rows, None, None], axis=2)[:, :, 0]
            confidence[rows] = (own >= utilities.max(axis=2) - 1e-12).mean(axis=1)
        return confidence

    def _write(self, folder: Path) -> None:
        self.portfolio.save_pretrained(folder)
        if self.reward_model is not None:
            self.reward_model.save_pretrained(folder / "rewards")
        write_json(folder / FILE, {"format": "palm.Router/1", "rule": self.rule, "infers": self.reward_model is not None})

    @classmethod
    def _read(cls, folder: Path) -> Self:
        record = read_json(folder / FILE)
        if not isinstance(record, dict) or record.get("format") != "palm.Router/1":
            found = record.get("format") if isinstance(record, dict) else type(record).__name__
            raise ArtifactError(f"{folder / FILE}: expected the format 'palm.Router/1', got {found!r}")
        reward_model = None
        if record.get("infers"):
            from palm.rewards import load_reward_model

            reward_model = load_reward_model(folder / "rewards")
        portfolio = Portfolio.from_pretrained(folder)
        try:
            return cls(portfolio, rule=record["rule"], reward_model=reward_model)
        except (KeyError, ValueError) as error:
            raise ArtifactError(f"{folder / FILE}: not a complete router: {error!r}") from error
