"""Who wants what, where a user enters linearly and without constraints: logit = u.D with a Gaussian prior on u.

For one user with pair scores D (n, K) the problem

    minimise over u     sum_n log(1 + exp(-D_n.u)) + 1/2 (u - m)' P (u - m)

is convex and smooth; without pairs its solution is m. Newton's method with backtracking solves it for all users in one batch,
and the inverse Hessian is the posterior covariance (Laplace's approximation).

Cost: O(n K^2 + U K^3) a Newton step for n pairs of U users; users that have converged drop out.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from palm.rewards.user_blocks import add_pairs, check_scores, user_blocks


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
    precision = 0.5 * (precision + precision.T)
    mean, covariance = np.empty((users, bases)), np.empty((users, bases, bases))
    for block, rows in user_blocks(code, users, bases):
        begin = np.tile(prior.mean, (block.stop - block.start, 1)) if start is None else start[block].copy()
        mean[block], covariance[block] = _newton(
            scores[rows], code[rows] - block.start, begin, prior.mean, precision, tolerance, steps
        )
    return mean, covariance


def _newton(
    scores: np.ndarray,
    code: np.ndarray,
    vectors: np.ndarray,
    centre: np.ndarray,
    precision: np.ndarray,
    tolerance: float,
    steps: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Newton steps with backtracking from (U, K) vectors, for one block of users whose pairs are in order."""
    active = np.unique(code)
    idle = np.ones(len(vectors), dtype=bool)
    idle[active] = False
    vectors[idle] = centre
    pairs = np.arange(len(code))
    for _ in range(steps):
        if len(active) == 0:
            break
        local = np.searchsorted(active, code[pairs])
        current = vectors[active]
        value = _value(scores[pairs], local, current, centre, precision)
        gradient, hessian = _derivatives(scores[pairs], local, current, centre, precision)
        step = -np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        decrement = -np.einsum("uk,uk->u", step, gradient)
        size = np.ones(len(active))
        for _ in range(40):
            trial = current + size[:, None] * step
            enough = value - 1e-4 * size * decrement + 1e-12 * np.abs(value)
            worse = _value(scores[pairs], local, trial, centre, precision) > enough
            if not worse.any():
                break
            size = np.where(worse, size / 2, size)
        vectors[active] = np.where(worse[:, None], current, trial)  # no progress left within rounding
        going = (decrement / 2 > tolerance) & ~worse
        pairs, active = pairs[going[local]], active[going]
    return vectors, np.linalg.inv(_derivatives(scores, code, vectors, centre, precision)[1])


def _value(scores: np.ndarray, code: np.ndarray, vectors: np.ndarray, centre: np.ndarray, precision: np.ndarray) -> np.ndarray:
    margin = np.einsum("nk,nk->n", scores, vectors[code])
    away = vectors - centre
    return np.bincount(code, np.logaddexp(0.0, -margin), minlength=len(vectors)) + 0.5 * np.einsum(
        "uk,kl,ul->u", away, precision, away
    )


def _derivatives(
    scores: np.ndarray, code: np.ndarray, vectors: np.ndarray, centre: np.ndarray, precision: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient (U, K) and Hessian (U, K, K)."""
    gradient = (vectors - centre) @ precision
    hessian = np.tile(precision, (len(vectors), 1, 1))
    add_pairs(gradient, hessian, scores, code, np.einsum("nk,nk->n", scores, vectors[code]))
    return gradient, hessian


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
