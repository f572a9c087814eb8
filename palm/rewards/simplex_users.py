"""Who wants what: every user's weight on the simplex from their pairs, all users at once, with its uncertainty.

For one user with pair scores D (n, K), the difference of basis rewards between chosen and rejected in logits, the problem

    minimise over w on the simplex   sum_n log(1 + exp(-D_n.w)) + 1/2 (w - mu)' Lambda (w - mu) + tau KL(mu || w)

is convex. The prior is the population's: mean mu, precision Lambda, and tau pseudo-observations that keep weights inside
the simplex; without pairs the solution is mu exactly. Newton's method in coordinates of the simplex solves it for all users
in one batch, and the inverse Hessian there is the posterior covariance (Laplace's approximation).

Cost: O(n K^2 + U K^3) per Newton step for n pairs of U users; users that have converged drop out.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from palm.rewards.user_blocks import add_pairs, check_scores, user_blocks
from palm.simplex import tangent_basis


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
    mean, covariance = np.empty((users, bases)), np.empty((users, bases, bases))
    for block, rows in user_blocks(code, users, bases):
        begin = np.tile(prior.mean, (block.stop - block.start, 1))
        if start is not None:  # a little off the faces, where the barrier is steep
            begin = 0.01 * begin + 0.99 * start[block]
        mean[block], covariance[block] = _newton(scores[rows], code[rows] - block.start, begin, prior, tolerance, steps)
    return mean, covariance


def _newton(
    scores: np.ndarray, code: np.ndarray, weights: np.ndarray, prior: Population, tolerance: float, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Newton steps on the simplex with backtracking from (U, K) weights, for one block of users whose pairs are in order."""
    tangent = tangent_basis(len(prior.mean))  # (K, K - 1)
    active = np.unique(code)
    idle = np.ones(len(weights), dtype=bool)
    idle[active] = False
    weights[idle] = prior.mean  # the solution for users without pairs
    pairs = np.arange(len(code))
    for _ in range(steps):
        if len(active) == 0:
            break
        local = np.searchsorted(active, code[pairs])
        current = weights[active]
        value, gradient, hessian = _objective(scores[pairs], local, current, prior)
        reduced_gradient, reduced = gradient @ tangent, tangent.T @ hessian @ tangent
        step = -np.linalg.solve(reduced, reduced_gradient[:, :, None])[:, :, 0]
        decrement = -(step * reduced_gradient).sum(axis=1)
        direction = step @ tangent.T
        with np.errstate(divide="ignore", invalid="ignore"):
            to_face = np.where(direction < 0, -current / direction, np.inf).min(axis=1)
        size = np.minimum(1.0, 0.95 * to_face)
        for _ in range(40):
            trial = np.maximum(current + size[:, None] * direction, 1e-300)
            worse = _value(scores[pairs], local, trial, prior) > value - 1e-4 * size * decrement + 1e-12 * np.abs(value)
            if not worse.any():
                break
            size = np.where(worse, size / 2, size)
        current = np.where(worse[:, None], current, trial)  # no progress left within rounding
        weights[active] = current / current.sum(axis=1, keepdims=True)
        going = (decrement / 2 > tolerance) & ~worse
        pairs = pairs[going[local]]
        active = active[going]
    hessian = _objective(scores, code, weights, prior)[2]
    covariance = tangent @ np.linalg.inv(tangent.T @ hessian @ tangent) @ tangent.T
    return weights, covariance


def _value(scores: np.ndarray, code: np.ndarray, weights: np.ndarray, prior: Population) -> np.ndarray:
    margin = np.einsum("nk,nk->n", scores, weights[code])
    loss = np.bincount(code, np.logaddexp(0.0, -margin), minlength=len(weights))
    away = weights - prior.mean
    return loss + 0.5 * ((away @ prior.precision) * away).sum(axis=1) - prior.concentration * (np.log(weights) @ prior.mean)


def _objective(
    scores: np.ndarray, code: np.ndarray, weights: np.ndarray, prior: Population
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value (U,), gradient (U, K) and Hessian (U, K, K)."""
    users, bases = weights.shape
    margin = np.einsum("nk,nk->n", scores, weights[code])
    gradient = -prior.concentration * prior.mean / weights + (weights - prior.mean) @ prior.precision
    hessian = np.zeros((users, bases, bases))
    hessian[:, range(bases), range(bases)] = prior.concentration * prior.mean / weights**2
    hessian += prior.precision
    add_pairs(gradient, hessian, scores, code, margin)
    return _value(scores, code, weights, prior), gradient, hessian


def learn_population(
    scores: np.ndarray, code: np.ndarray, users: int, *, concentration: float = 0.1, rounds: int = 10
) -> tuple[Population, np.ndarray, np.ndarray]:
    """Empirical Bayes: the population's mean and precision from the seen users themselves, and their posteriors under it.

    Expectation-maximisation with Laplace posteriors: the mean becomes the users' mean weight, the covariance their spread
    plus what is unsure of each of them.

    Args:
        scores, code, users: as in `infer_weights`.
        concentration: tau.
        rounds: of expectation-maximisation.

    Returns:
        the population, and mean (U, K) and covariance (U, K, K) of the users.
    """
    bases = scores.shape[1]
    population = Population.flat(bases, concentration)
    tangent = tangent_basis(bases)
    mean = None
    for _ in range(rounds):
        mean, covariance = infer_weights(scores, code, users, population, start=mean)
        if bases == 1:
            break
        centre = np.maximum(mean.mean(axis=0), 1e-3)
        centre /= centre.sum()
        away = mean - centre
        spread = covariance.mean(axis=0) + away.T @ away / users
        reduced = tangent.T @ spread @ tangent
        precision = tangent @ np.linalg.inv(reduced + 1e-6 * np.eye(bases - 1)) @ tangent.T
        moved = np.abs(centre - population.mean).max() + np.abs(precision - population.precision).max() * 1e-3
        population = Population(centre, precision, concentration)
        if moved < 1e-4:
            break
    mean, covariance = infer_weights(scores, code, users, population)  # as whoever infers them anew begins
    return population, mean, covariance


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
