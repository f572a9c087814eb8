"""PReF: a few shared linear basis rewards, and an unconstrained vector for every user.

Model: logit of a pair = u . V'(h_chosen - h_rejected), u in R^K (I. Shenfeld et al., "Language model personalization via
reward factorization", arXiv 2503.06358). As published: (1) a matrix of pairs x users, a judgement that is missing at 0.5,
is completed by ten rounds of truncated singular value decomposition; V is regressed on the pairs' factors; (2) the
likelihood of everything is maximised with an L2 penalty, here by alternating two convex problems (users by Newton's
method in one batch, V by L-BFGS). A new user's vector is a penalised logistic regression.

Beyond the publication, and switched off by `population=False`: the L2 penalty on a user's vector is the prior that the
seen users' own vectors make (mean and covariance by empirical Bayes), so a user without pairs has the population's
reward, and not none.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.linalg import LinearOperator, lsmr

from palm.features.pairs import PairFeatures
from palm.rewards.base import Calibration
from palm.rewards.checks import check_pairs, check_penalties, check_positive, check_switch, check_whole
from palm.rewards.folds import Fold, known_or_prior, search_penalties, split_folds
from palm.rewards.gaussian_users import GaussianPopulation, infer_gaussian, learn_gaussian
from palm.rewards.linear import LinearModel
from palm.rewards.logistic import Standardised, fit_directions, log_loss
from palm.rewards.low_rank import Filled, largest_factors
from palm.rewards.users import UserWeights
from palm.threads import one_scipy_thread

_FOLDS = 3  # of five that are held out in turn to choose the penalty


@dataclass(frozen=True)
class PReF:
    """Estimator of shared bases and users' unconstrained vectors.

    Attributes:
        rank: K, number of bases.
        penalty: ridge on each basis, for features of unit variance; None: chosen on held-out pairs of the seen users.
        user_penalty: ridge on a user's vector while bases are learned, and for new users without `population`.
        population: new users are drawn to the seen users' mean, as strongly as these differ; False: to 0, as published.
        imputations: rounds of singular value decomposition.
        rounds: most alternations between users and bases.
    """

    rank: int = 5
    penalty: float | None = None
    user_penalty: float = 1.0
    population: bool = True
    imputations: int = 10
    rounds: int = 30
    penalties: tuple[float, ...] = field(default=(3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3), repr=False)
    geometry: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        """Check the hyper-parameters.

        Raises:
            ValueError: one is out of range; the message names it.
        """
        check_whole(self, "rank", "imputations", "rounds")
        check_penalties(self, "penalties")
        check_positive(self, "penalty", optional=True)
        check_positive(self, "user_penalty")
        check_switch(self, "population")

    def fit(self, features: PairFeatures, seed: int = 0) -> LinearModel:
        """Learn bases, seen users' vectors and the population's prior.

        Args:
            features: pairs of the seen users.
            seed: of the decomposition's beginning and of folds.

        Raises:
            ValueError: there are no pairs.
        """
        check_pairs(features, seed)
        data = Standardised.of(features)
        with one_scipy_thread():
            penalty = self.penalty
            losses: dict[str, float] = {}
            if penalty is None:
                penalty, losses = self._choose_penalty(data, seed)
            directions, vectors = self._alternate(data, penalty, seed)
        return self._finish(data, directions, vectors, penalty, losses)

    def _choose_penalty(self, data: Standardised, seed: int) -> tuple[float, dict[str, float]]:
        folds = split_folds(data, seed=seed)[:_FOLDS]
        if not folds:
            return 100.0, {}
        held_out = sum(len(fold.test.pairs) for fold in folds)
        return search_penalties(
            self.penalties, lambda penalty: sum(self._held_out_loss(fold, penalty, seed) for fold in folds) / held_out
        )

    def _held_out_loss(self, fold: Fold, penalty: float, seed: int) -> float:
        directions, vectors = self._alternate(fold.train, penalty, seed)
        prior, known = self._prior(fold.train, directions, vectors)
        test, ids = fold.test, fold.train.pairs.ids
        if fold.context is not None:
            ids = fold.context.pairs.ids
            known = infer_gaussian(fold.context.scores(directions), fold.context.pairs.code, len(ids), prior)[0]
        mine = known_or_prior(test.pairs.user, ids, known, prior.mean)
        return float(log_loss(np.einsum("nk,nk->n", test.scores(directions), mine)).sum())

    def _alternate(self, data: Standardised, penalty: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """(d, K) bases and (U, K) vectors of greatest penalised likelihood near the decomposition's."""
        code, users = data.pairs.code, len(data.pairs.ids)
        vectors, directions = self._decompose(data, penalty, seed)
        prior = GaussianPopulation.ridge(self.rank, self.user_penalty)
        nowhere, last = np.zeros(data.pairs.width), np.inf
        for _ in range(self.rounds):
            directions, loss = fit_directions(data, vectors, directions, penalty=penalty, centre=nowhere, steps=15)
            vectors = infer_gaussian(data.scores(directions), code, users, prior, start=vectors, tolerance=1e-6)[0]
            total = loss + 0.5 * penalty * float((directions**2).sum()) + 0.5 * self.user_penalty * float((vectors**2).sum())
            if total > last * (1 - 1e-4):
                break
            last = total
        return directions, vectors

    def _decompose(self, data: Standardised, penalty: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """(U, K) vectors by completing the pairs x users matrix of judgements, and (d, K) bases regressed on the pairs' factors."""
        pairs, users = data.pairs, len(data.pairs.ids)
        low, high = np.minimum(pairs.chosen_row, pairs.rejected_row), np.maximum(pairs.chosen_row, pairs.rejected_row)
        distinct, which = np.unique(np.column_stack([low, high]), axis=0, return_inverse=True)
        side = np.where(pairs.chosen_row == low, 1.0, -1.0)
        seen = coo_array((0.5 * side, (which.ravel(), pairs.code)), shape=(len(distinct), users)).tocsr()
        times = coo_array((np.ones(len(pairs)), (which.ravel(), pairs.code)), shape=seen.shape).tocsr()
        seen.data /= times.data  # both have the same cells in the same order; repeats are averaged
        left, right = _complete(seen, self.rank, self.imputations, np.random.default_rng(seed))
        operator = LinearOperator(
            (len(pairs), pairs.width),
            matvec=lambda direction: data.scores(direction.reshape(-1, 1))[:, 0],
            rmatvec=lambda margin: data.gradient(margin.reshape(-1, 1))[:, 0],
            dtype=np.float64,
        )
        wanted = side[:, None] * left[which.ravel()]
        directions = [lsmr(operator, wanted[:, k], damp=np.sqrt(penalty), maxiter=30)[0] for k in range(self.rank)]
        return right, np.column_stack(directions)

    def _prior(self, data: Standardised, directions: np.ndarray, vectors: np.ndarray) -> tuple[GaussianPopulation, np.ndarray]:
        """The prior of new users, and the seen users' vectors under it."""
        ridge = GaussianPopulation.ridge(self.rank, self.user_penalty)
        if not self.population:
            return ridge, vectors
        population, mean, _ = learn_gaussian(data.scores(directions), data.pairs.code, len(data.pairs.ids), ridge)
        return population, mean

    def _finish(
        self, data: Standardised, directions: np.ndarray, vectors: np.ndarray, penalty: float, losses: dict[str, float]
    ) -> LinearModel:
        raw = directions / data.scale[:, None]
        model = LinearModel(
            method="PReF",
            directions=raw,
            calibration=Calibration.own_width(data.pairs.items.project(raw)),
            population=self._prior(data, directions, vectors)[0],
            seen=UserWeights.none(self.rank, "linear"),
            names=tuple(f"basis-{k}" for k in range(self.rank)),
            details={
                "rank": self.rank,
                "penalty": penalty,
                "user_penalty": self.user_penalty,
                "held_out_loss": losses,
                "pairs": len(data.pairs),
                "users": len(data.pairs.ids),
            },
        )
        return replace(model, seen=model.infer(data.pairs))


def _complete(seen: coo_array, rank: int, rounds: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Factors (rows, K) and (columns, K) of a sparse matrix whose missing cells are filled in by its own best rank-K fit.

    Missing cells begin at 0. The filled matrix is the last fit plus a sparse correction of the cells that are there, so it is
    never made dense: O(cells K) a product.
    """
    rows, columns = seen.shape
    size = min(rank, rows, columns)
    left, right = np.zeros((rows, size)), np.zeros((columns, size))
    cells = seen.tocoo()  # explicit zeros too: someone who judged both ways is known to be undecided, which is not missing
    row, column, given = cells.row, cells.col, cells.data
    for _ in range(rounds if given.any() else 0):  # nothing but undecided judgements: 0 is the fit
        missed = given - np.einsum("nk,nk->n", left[row], right[column])
        filled = Filled(coo_array((missed, (row, column)), shape=(rows, columns)).tocsr(), left, right)
        left, right = largest_factors(filled, size, rng)
    pad = rank - size
    return np.pad(left, ((0, 0), (0, pad))), np.pad(right, ((0, 0), (0, pad)))
