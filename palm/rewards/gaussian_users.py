"""Who wants what, where a user enters linearly and without constraints: logit = u.D with a Gaussian prior on u.

For one user with pair scores D (n, K) the problem

    minimise over u     sum_n log(1 + exp(-D_n.u)) + 1/2 (u - m)' P (u - m)

is convex and smooth; without pairs its solution is m. Newton's method with backtracking solves it for all users at once
(palm.rewards.newton), and the inverse Hessian is the posterior covariance (Laplace's approximation).
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from palm.rewards.newton import check_scores, newton, stack_users


@dataclass(frozen=True)
class GaussianPopulation:
    """What is known of a user before their first pair.

    Attributes:
        mean: (K,) m.
        covariance: (K, K) positive definite; its inverse is P.
    """

    mean: np.ndarray
    covariance: np.ndarray

    def __post_init__(self) -> None:
        """Check the covariance.

        Raises:
            ValueError: it is not positive definite or has another size than the mean.
        """
        bases = len(self.mean)
        good = np.shape(self.covariance) == (bases, bases) and np.isfinite(self.covariance).all() and np.isfinite(self.mean).all()
        if not good or np.linalg.eigvalsh(self.covariance).min() <= 0:
            raise ValueError(f"covariance: expected a positive definite ({bases}, {bases}) matrix, got {self.covariance!r:.80}")

    @classmethod
    def ridge(cls, bases: int, penalty: float) -> Self:
        """Mean 0 and the same precision in every direction: an L2 penalty of `penalty` / 2 |u|^2."""
        return cls(np.zeros(bases), np.eye(bases) / penalty)

    def record(self) -> dict[str, Any]:
        """JSON form."""
        return {"mean": self.mean.tolist(), "covariance": self.covariance.tolist()}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        """Inverse of `record`."""
        return cls(np.array(record["mean"]), np.array(record["covariance"]))


def infer_gaussian(
    scores: np.ndarray,
    code: np.ndarray,
    users: int,
    prior: GaussianPopulation,
    *,
    start: np.ndarray | None = None,
    tolerance: float = 1e-10,
    steps: int = 100,
) -> tuple[np.ndarray, np.ndarray]:
    """The most probable vector of every user and its covariance.

    Args:
        scores: (n, K) chosen minus rejected basis reward, in logits per unit of u.
        code: (n,) number of each pair's user, 0 to users - 1; users without pairs get the prior's mean and covariance.
        users: U.
        prior: of the population.
        start: (U, K) vectors to begin at; the prior's mean unless given.
        tolerance: on half the squared Newton decrement, in nats.
        steps: most Newton steps.

    Returns:
        mean (U, K) and covariance (U, K, K).

    Raises:
        ValueError: `scores` is not finite or has not the prior's number of bases.
    """
    bases = len(prior.mean)
    check_scores(scores, bases)
    precision = np.linalg.inv(prior.covariance)
    posterior = _Posterior(prior.mean, 0.5 * (precision + precision.T))
    mean, covariance = np.tile(prior.mean, (users, 1)), np.empty((users, bases, bases))
    covariance[:] = prior.covariance
    for stack in stack_users(scores, code, users):
        begin = np.tile(prior.mean, (len(stack.users), 1)) if start is None else start[stack.users]
        mean[stack.users], covariance[stack.users] = newton(stack, begin, posterior, tolerance=tolerance, steps=steps)
    return mean, covariance


class _Posterior:
    """A Gaussian prior; points may move anywhere."""

    def __init__(self, centre: np.ndarray, precision: np.ndarray) -> None:
        self.centre, self.precision, self.directions = centre, precision, np.eye(len(centre))

    def value(self, points: np.ndarray) -> np.ndarray:
        away = points - self.centre
        return np.asarray(0.5 * ((away @ self.precision) * away).sum(axis=1))

    def derivatives(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (points - self.centre) @ self.precision, np.tile(self.precision, (len(points), 1, 1))

    def reach(self, points: np.ndarray, moves: np.ndarray) -> np.ndarray:
        return np.ones(len(points))

    def tidy(self, points: np.ndarray) -> np.ndarray:
        return points


def learn_gaussian(
    scores: np.ndarray, code: np.ndarray, users: int, prior: GaussianPopulation, *, rounds: int = 20
) -> tuple[GaussianPopulation, np.ndarray, np.ndarray]:
    """Empirical Bayes: the population's mean and covariance from the seen users, and their posteriors under it.

    Expectation-maximisation with Laplace posteriors. `prior` counts as one user whose vector is spread as it says, so that few
    users do not make a population that is surer than they are.

    Returns:
        the population, and mean (U, K) and covariance (U, K, K) of the users.
    """
    population, mean = prior, None
    for _ in range(rounds):
        mean, covariance = infer_gaussian(scores, code, users, population, start=mean)
        centre = (mean.sum(axis=0) + prior.mean) / (users + 1)
        away = np.vstack([mean - centre, prior.mean - centre])
        spread = (covariance.sum(axis=0) + prior.covariance + away.T @ away) / (users + 1)
        moved = np.abs(spread - population.covariance).max() / np.abs(spread).max() + np.abs(centre - population.mean).max()
        population = GaussianPopulation(centre, 0.5 * (spread + spread.T))
        if moved < 1e-4:
            break
    mean, covariance = infer_gaussian(scores, code, users, population)
    return population, mean, covariance
