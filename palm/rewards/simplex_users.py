"""Who wants what: every user's weight on the simplex from their pairs, all users at once, with its uncertainty.

For one user with pair scores D (n, K), the difference of basis rewards between chosen and rejected in logits, the problem

    minimise over w on the simplex   sum_n log(1 + exp(-D_n.w)) + 1/2 (w - mu)' Lambda (w - mu) + tau KL(mu || w)

is convex. The prior is the population's: mean mu, precision Lambda, and tau pseudo-observations that keep weights inside
the simplex; without pairs the solution is mu exactly. Newton's method along the simplex solves it for all users at once
(palm.rewards.newton), and the inverse Hessian there is the posterior covariance (Laplace's approximation).
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.special import expit

from palm.rewards.mixing import population_moments
from palm.rewards.newton import check_scores, newton, stack_users
from palm.simplex import tangent_basis, uniform_covariance

_LEAST = 1e-300  # weight of a basis
_NO_PRIOR = 1e-3  # pseudo-observations: hardly any


@dataclass(frozen=True)
class Population:
    """What is known of a user before their first pair.

    Attributes:
        mean: (K,) weight of the population, every entry positive.
        precision: (K, K) of the weights around it; zero for no such knowledge.
        concentration: tau, pseudo-observations that keep weights off the simplex's faces; positive.
    """

    mean: np.ndarray
    precision: np.ndarray
    concentration: float

    def __post_init__(self) -> None:
        """Check the shapes.

        Raises:
            ValueError: the mean is not positive, or the precision has another size.
        """
        bases = np.size(self.mean)
        if np.shape(self.mean) != (bases,) or not (np.isfinite(self.mean).all() and (np.asarray(self.mean) > 0).all()):
            raise ValueError(f"mean: expected (K,) positive numbers, got {self.mean!r:.80}")
        if np.shape(self.precision) != (bases, bases) or not np.isfinite(self.precision).all():
            raise ValueError(f"precision: expected ({bases}, {bases}) finite numbers, got {self.precision!r:.80}")

    @classmethod
    def flat(cls, bases: int, concentration: float = 0.1) -> Self:
        """Every weight about as likely as any other."""
        return cls(np.full(bases, 1.0 / bases), np.zeros((bases, bases)), concentration)

    @property
    def covariance(self) -> np.ndarray:
        """(K, K) of a user without pairs, on the simplex's tangent space (Laplace's approximation at the mean)."""
        tangent = tangent_basis(len(self.mean))
        hessian = self.precision + np.diag(self.concentration / self.mean)
        return tangent @ np.linalg.inv(tangent.T @ hessian @ tangent) @ tangent.T if len(self.mean) > 1 else np.zeros((1, 1))


def infer_weights(
    scores: np.ndarray,
    code: np.ndarray,
    users: int,
    prior: Population,
    *,
    start: np.ndarray | None = None,
    tolerance: float = 1e-10,
    steps: int = 100,
) -> tuple[np.ndarray, np.ndarray]:
    """The most probable weight of every user and its covariance.

    Args:
        scores: (n, K) chosen minus rejected basis reward, in logits.
        code: (n,) number of each pair's user, 0 to users - 1; users without pairs get the population's mean.
        users: U.
        prior: of the population.
        start: (U, K) weights to begin near, those of a similar problem, say; the prior's mean unless given. The problem is
            convex: a start changes the time and rounding, not the solution.
        tolerance: on half the squared Newton decrement, in nats.
        steps: most Newton steps.

    Returns:
        mean (U, K) and covariance (U, K, K).

    Raises:
        ValueError: `scores` is not finite or has not the prior's number of bases.
    """
    bases = len(prior.mean)
    check_scores(scores, bases)
    if bases == 1:
        return np.ones((users, 1)), np.zeros((users, 1, 1))
    posterior = _Posterior(prior)
    mean, covariance = np.tile(prior.mean, (users, 1)), np.empty((users, bases, bases))
    covariance[:] = prior.covariance
    for stack in stack_users(scores, code, users):
        begin = np.tile(prior.mean, (len(stack.users), 1))
        if start is not None:  # a little off the faces, where the barrier is steep
            begin = 0.01 * begin + 0.99 * start[stack.users]
        mean[stack.users], inverse = newton(stack, begin, posterior, tolerance=tolerance, steps=steps)
        covariance[stack.users] = posterior.directions @ inverse @ posterior.directions.T
    return mean, covariance


def likeliest(scores: np.ndarray, code: np.ndarray, users: int, otherwise: np.ndarray) -> np.ndarray:
    """(U, K) weights under which each user's own pairs are likeliest; `otherwise` (K,) for users without pairs.

    Where pairs leave that open (they always do with fewer than K of them), hardly any prior decides, the uniform weight's.
    """
    weights = infer_weights(scores, code, users, Population.flat(scores.shape[1], _NO_PRIOR))[0]
    weights[np.bincount(code, minlength=users) == 0] = otherwise
    return weights


def covariance_around(scores: np.ndarray, code: np.ndarray, weights: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Covariances of users' weights that were not found with a prior: their pairs' information, within a population's spread.

    Laplace's approximation with the spread's inverse as the prior's precision. It is never more than the spread.

    Args:
        scores, code: as in `infer_weights`.
        weights: (U, K) where the information is taken.
        spread: (K, K) covariance over the population.

    Returns:
        (U, K, K); the spread itself for users without pairs. O(n K^2).
    """
    users, bases = weights.shape
    tangent = tangent_basis(bases)
    along = scores @ tangent
    margin = (scores * weights[code]).sum(axis=1)
    doubt = expit(margin) * expit(-margin)
    information = np.empty((users, bases - 1, bases - 1))
    for one in range(bases - 1):
        for other in range(one + 1):
            known = np.bincount(code, doubt * along[:, one] * along[:, other], minlength=users)
            information[:, one, other] = information[:, other, one] = known
    prior = tangent.T @ spread @ tangent
    reduced = np.linalg.solve(np.eye(bases - 1) + prior @ information, np.broadcast_to(prior, information.shape))
    return np.asarray(tangent @ (0.5 * (reduced + reduced.transpose(0, 2, 1))) @ tangent.T)


def log_prior(weights: np.ndarray, population: Population) -> np.ndarray:
    """(U,) log density, but for a constant of the population, at (U, K) weights."""
    return -_Posterior(population).value(weights)


class _Posterior:
    """A population's prior, along the simplex."""

    def __init__(self, population: Population) -> None:
        self.population, self.directions = population, tangent_basis(len(population.mean))
        self._pull = population.precision @ self.directions
        self._reduced = self.directions.T @ self._pull
        rows = self.directions
        self._outer = (rows[:, :, None] * rows[:, None, :]).reshape(len(rows), -1)

    def value(self, points: np.ndarray) -> np.ndarray:
        away = points - self.population.mean
        quadratic = 0.5 * ((away @ self.population.precision) * away).sum(axis=1)
        return quadratic - self.population.concentration * (np.log(np.maximum(points, _LEAST)) @ self.population.mean)

    def derivatives(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        barrier = self.population.concentration * self.population.mean / points
        gradient = (points - self.population.mean) @ self._pull - barrier @ self.directions
        hessian = ((barrier / points) @ self._outer).reshape(len(points), *self._reduced.shape) + self._reduced
        return gradient, hessian

    def reach(self, points: np.ndarray, moves: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            to_face = np.where(moves < 0, -points / moves, np.inf).min(axis=1)
        return np.minimum(1.0, 0.95 * to_face)

    def tidy(self, points: np.ndarray) -> np.ndarray:
        points = np.maximum(points, _LEAST)
        return points / points.sum(axis=1, keepdims=True)


def learn_population(
    scores: np.ndarray, code: np.ndarray, users: int, *, concentration: float = 0.1
) -> tuple[Population, np.ndarray, np.ndarray]:
    """Empirical Bayes: the population's mean and precision from the seen users themselves, and their posteriors under it.

    The mean and covariance are those of the nonparametric maximum-likelihood distribution of weights (palm.rewards.mixing). Learned
    from normal posteriors instead, by expectation-maximisation, the covariance came out a third too small for users of 40 pairs
    and two thirds for users of 5.

    Args:
        scores, code, users: as in `infer_weights`.
        concentration: tau.

    Returns:
        the population, and mean (U, K) and covariance (U, K, K) of the users.
    """
    bases = scores.shape[1]
    flat = Population.flat(bases, concentration)
    mean, covariance = infer_weights(scores, code, users, flat)
    if bases == 1:
        return flat, mean, covariance
    population = population_around(*population_moments(scores, code, mean), concentration)
    mean, covariance = infer_weights(scores, code, users, population)
    return population, mean, covariance


def population_of(weights: np.ndarray, concentration: float = _NO_PRIOR) -> Population:
    """The population that (U, K) weights are drawn from, with one user more who may want anything."""
    users, bases = weights.shape
    anything = np.full(bases, 1 / bases)
    mean = (weights.sum(axis=0) + anything) / (users + 1)
    away = weights - mean
    apart = np.outer(anything - mean, anything - mean)
    return population_around(mean, (away.T @ away + uniform_covariance(bases) + apart) / (users + 1), concentration)


def population_around(mean: np.ndarray, covariance: np.ndarray, concentration: float) -> Population:
    """The population of a mean (K,), brought off the faces, whose users without pairs have a covariance (K, K)."""
    centre = np.maximum(mean, 1e-3)
    centre /= centre.sum()
    tangent = tangent_basis(len(centre))
    reduced = tangent.T @ covariance @ tangent
    wanted = np.linalg.inv(reduced + 1e-6 * np.eye(len(reduced)))
    values, vectors = np.linalg.eigh(wanted - tangent.T @ np.diag(concentration / centre) @ tangent)
    precision = (vectors * np.maximum(values, 0.0)) @ vectors.T  # what the pseudo-observations know is not counted twice
    return Population(centre, tangent @ precision @ tangent.T, concentration)


def population_record(population: Population) -> dict[str, Any]:
    """JSON form of a population."""
    return {
        "mean": population.mean.tolist(),
        "precision": population.precision.tolist(),
        "concentration": population.concentration,
    }


def population_from(record: dict[str, Any]) -> Population:
    """Inverse of `population_record`."""
    return Population(np.array(record["mean"]), np.array(record["precision"]), float(record["concentration"]))
