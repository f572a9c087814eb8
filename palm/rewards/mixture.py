"""A population of several kinds of users: a mixture of priors, learned from the seen users.

Where tastes come in kinds, a single mean describes nobody, and a user's first pairs say which kind they are of. Each kind is a
`Population`; a user's posterior under each is Laplace's (palm.rewards.simplex_users), how likely each kind is follows from the
evidence, and what is reported is the mean and the covariance over kinds.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from palm.rewards.logistic import log_loss
from palm.rewards.simplex_users import (
    Population,
    infer_weights,
    learn_population,
    log_prior,
    population_from,
    population_record,
)
from palm.simplex import tangent_basis


@dataclass(frozen=True)
class Mixture:
    """What is known of a user before their first pair, where users are of several kinds.

    Attributes:
        kinds: C populations over the same K bases.
        shares: (C,) of the users, positive, with sum 1.
    """

    kinds: tuple[Population, ...]
    shares: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """(K,) weight of the population."""
        return np.asarray(self.shares @ np.array([kind.mean for kind in self.kinds]))

    @property
    def covariance(self) -> np.ndarray:
        """(K, K) of a user without pairs."""
        means, covariances = (np.array([getattr(kind, name) for kind in self.kinds]) for name in ("mean", "covariance"))
        return _over_kinds(self.shares[None], means[None], covariances[None])[1][0]


def infer_users(scores: np.ndarray, code: np.ndarray, users: int, prior: Population | Mixture) -> tuple[np.ndarray, np.ndarray]:
    """Every user's weight and its covariance, whichever kind of prior there is; see `infer_weights` for arguments and errors."""
    if isinstance(prior, Population):
        return infer_weights(scores, code, users, prior)
    means, covariances, evidence = _by_kind(scores, code, users, prior, None)
    return _over_kinds(_shares(evidence, prior), means, covariances)


def learn_mixture(
    scores: np.ndarray,
    code: np.ndarray,
    users: int,
    kinds: int,
    *,
    concentration: float = 0.1,
    rounds: int = 30,
    seed: int = 0,
) -> Mixture:
    """Empirical Bayes by expectation-maximisation, from kinds around users who are far apart.

    Every kind counts the whole population as one user more, so that a kind of few users is not surer than they are.

    Args:
        scores, code, users, concentration: as in `learn_population`.
        kinds: C, at least 1.
        rounds: most rounds.
        seed: of the users that kinds begin around.

    Raises:
        ValueError: `kinds` is out of range.
    """
    if kinds < 1:
        raise ValueError(f"kinds: expected at least 1, got {kinds}")
    whole, mean, covariance = learn_population(scores, code, users, concentration=concentration)
    if kinds == 1 or len(whole.mean) == 1:
        return Mixture((whole,), np.ones(1))
    means, covariances = np.repeat(mean[:, None], kinds, axis=1), np.repeat(covariance[:, None], kinds, axis=1)
    belongs, last = np.eye(kinds)[_nearest(mean, kinds, np.random.default_rng(seed))], -np.inf
    for _ in range(rounds):
        made = [_kind(belongs[:, c], means[:, c], covariances[:, c], whole) for c in range(kinds)]
        mixture = Mixture(tuple(made), (belongs.sum(axis=0) + 1.0) / (users + kinds))
        means, covariances, evidence = _by_kind(scores, code, users, mixture, means)
        belongs = _shares(evidence, mixture)
        joint = evidence + np.log(mixture.shares)
        total = float(np.logaddexp.reduce(joint, axis=1).sum())
        if total < last + 1e-4 * users:
            break
        last = total
    return mixture


def prior_record(prior: Population | Mixture) -> dict[str, Any]:
    """JSON form of either kind of prior."""
    if isinstance(prior, Population):
        return population_record(prior)
    return {"kinds": [population_record(kind) for kind in prior.kinds], "shares": prior.shares.tolist()}


def prior_from(record: dict[str, Any]) -> Population | Mixture:
    """Inverse of `prior_record`."""
    if "kinds" not in record:
        return population_from(record)
    return Mixture(tuple(population_from(kind) for kind in record["kinds"]), np.array(record["shares"]))


def _by_kind(
    scores: np.ndarray, code: np.ndarray, users: int, mixture: Mixture, start: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means (U, C, K), covariances (U, C, K, K) and log evidence (U, C) of all users under each kind."""
    tangent = tangent_basis(len(mixture.kinds[0].mean))

    def volume(covariance: np.ndarray) -> np.ndarray:
        return np.asarray(0.5 * np.linalg.slogdet(tangent.T @ covariance @ tangent)[1])

    means, covariances, evidence = [], [], []
    for number, kind in enumerate(mixture.kinds):
        mean, covariance = infer_weights(scores, code, users, kind, start=None if start is None else start[:, number])
        loss = np.bincount(code, log_loss(np.einsum("nk,nk->n", scores, mean[code])), minlength=users)
        # Both integrals by Laplace: of likelihood times prior around the posterior's mode, of the prior around its own.
        found = log_prior(mean, kind) - loss + volume(covariance)
        evidence.append(found - log_prior(kind.mean[None], kind) - volume(kind.covariance))
        means.append(mean)
        covariances.append(covariance)
    return np.stack(means, axis=1), np.stack(covariances, axis=1), np.stack(evidence, axis=1)


def _shares(evidence: np.ndarray, mixture: Mixture) -> np.ndarray:
    """(U, C) how likely each user is of each kind."""
    joint = evidence + np.log(mixture.shares)
    return np.asarray(np.exp(joint - np.logaddexp.reduce(joint, axis=1)[:, None]))


def _over_kinds(shares: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(U, K) means and (U, K, K) covariances of mixtures of (U, C) shares."""
    mean = np.einsum("uc,uck->uk", shares, means)
    away = means - mean[:, None]
    spread = np.einsum("uc,uckl->ukl", shares, covariances) + np.einsum("uc,uck,ucl->ukl", shares, away, away)
    return mean / mean.sum(axis=1, keepdims=True), spread


def _kind(belongs: np.ndarray, mean: np.ndarray, covariance: np.ndarray, whole: Population) -> Population:
    """The population that (U,) shares of users, with their posteriors, make, with the whole one as one user more."""
    tangent, total = tangent_basis(len(whole.mean)), belongs.sum() + 1.0
    centre = np.maximum((belongs @ mean + whole.mean) / total, 1e-3)
    centre /= centre.sum()
    away, other = mean - centre, whole.mean - centre
    spread = np.einsum("u,ukl->kl", belongs, covariance) + (belongs[:, None] * away).T @ away
    spread = (spread + whole.covariance + np.outer(other, other)) / total
    reduced = tangent.T @ spread @ tangent + 1e-6 * np.eye(len(whole.mean) - 1)
    return Population(centre, tangent @ np.linalg.inv(reduced) @ tangent.T, whole.concentration)


def _nearest(points: np.ndarray, kinds: int, rng: np.random.Generator) -> np.ndarray:
    """(U,) which of C users, far apart, each is nearest to; the C are drawn as k-means++ draws them."""
    centres = [int(rng.integers(len(points)))]
    for _ in range(1, kinds):
        distance = np.min([((points - points[centre]) ** 2).sum(axis=1) for centre in centres], axis=0)
        chance = distance / distance.sum() if distance.sum() > 0 else np.full(len(points), 1 / len(points))
        centres.append(int(rng.choice(len(points), p=chance)))
    return np.asarray(np.argmin([((points - points[centre]) ** 2).sum(axis=1) for centre in centres], axis=0))
