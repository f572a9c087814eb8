"""LoRe: a few shared linear basis rewards, and a weight on the simplex for every user.

Model: logit of a pair = w_u . V'(h_chosen - h_rejected), V in R^{d x K}, w_u on the simplex (A. Bose et al., "LoRe:
Personalizing LLMs via low-rank reward modeling", arXiv 2504.14439). The published fit is one Adam over everything. This one
alternates two convex problems: all users' weights by Newton's method in one batch (palm.rewards.simplex_users), and V by L-BFGS on
pair scores of distinct texts (palm.rewards.logistic), O(t d K + n K) an evaluation for n pairs of t texts; where penalties are weak
and features wide, it begins with mini-batch passes (palm.rewards.passes).

The published fits are offered as presets ("joint", "anchored"), to compare with: see palm.rewards.lore_published. What is personal
is shrunk in ours: V_k is drawn to the population's reward, as strongly as held-out pairs of the seen users ask
for. Where they show nothing personal, all bases are the population's reward and the model is Bradley-Terry's.
"""

import logging
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from palm.features.pairs import PairFeatures
from palm.rewards.base import Calibration
from palm.rewards.checks import check_pairs, check_penalties, check_positive, check_whole
from palm.rewards.folds import Fold, choose_penalty, known_or_prior, search_penalties, split_folds
from palm.rewards.logistic import Standardised, fit_directions, fit_population, log_loss
from palm.rewards.lore_published import STEPS, fit_published
from palm.rewards.mixture import Mixture, learn_mixture
from palm.rewards.passes import descend_by_passes, weakly_penalised
from palm.rewards.simplex_users import Population, infer_weights, learn_population, population_around, population_of
from palm.rewards.users import UserWeights
from palm.rewards.weighted import SimplexModel
from palm.threads import one_scipy_thread

logger = logging.getLogger(__name__)


_USUAL_MOMENT = 3.0  # of pairs of items by identity, or of TF-IDF features, for which the penalties are made
_SHARES = (1.0, 0.5, 0.25, 0.1)  # of the population's spread that a prior may have
_FOLDS = 3  # of five are held out in turn to choose the personal penalty


@dataclass(frozen=True)
class LoRe:
    """Estimator of shared bases and users' weights.

    Attributes:
        rank: K, number of bases.
        penalty: ridge on the population's reward, for features of unit variance; None: cross-validated.
        personal_penalty: ridge on each basis' difference from it; None: chosen on held-out pairs of the seen users,
            infinity included.
        concentration: pseudo-observations that keep weights off the simplex's faces.
        kinds: of users, for the prior that the seen users make: more than one where tastes come in kinds.
        rounds: most alternations between weights and bases.
        restarts: random beginnings tried beside the spectral one in the last fit.
        preset: "convex" for this fit; "joint" or "anchored" for the published ones, of which new users are fitted without a prior.
        steps: of a published fit, other than published.
    """

    rank: int = 5
    penalty: float | None = None
    personal_penalty: float | None = None
    concentration: float = 0.1
    kinds: int = 1
    rounds: int = 30
    restarts: int = 2
    preset: str = "convex"
    steps: int | None = None
    personal_penalties: tuple[float, ...] = field(default=(1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4), repr=False)
    geometry: ClassVar[str] = "simplex"

    def __post_init__(self) -> None:
        """Check the hyper-parameters.

        Raises:
            ValueError: one is out of range; the message names it.
        """
        check_whole(self, "rank", "kinds", "rounds")
        check_whole(self, "restarts", least=0)
        check_penalties(self, "personal_penalties")
        check_whole(self, "steps", optional=True)
        check_positive(self, "penalty", optional=True)
        check_positive(self, "personal_penalty", optional=True, infinite=True)
        check_positive(self, "concentration")
        if self.preset not in ("convex", *STEPS):
            raise ValueError(f"preset: expected 'convex', {', '.join(map(repr, STEPS))}, got {self.preset!r}")
        if self.preset == "convex" and self.steps is not None:
            raise ValueError(f"steps: expected with a published preset only, {', '.join(map(repr, STEPS))}; got {self.steps}")
        if self.preset != "convex" and self.kinds > 1:
            raise ValueError(f"kinds: expected 1 with the preset {self.preset!r}, which has no prior, got {self.kinds}")

    def fit(self, features: PairFeatures, seed: int = 0) -> SimplexModel:
        """Learn bases, seen users' weights and the population's prior.

        Args:
            features: pairs of the seen users.
            seed: of folds and random beginnings.

        Raises:
            ValueError: there are no pairs.
        """
        check_pairs(features, seed)
        data = Standardised.of(features)
        if self.preset != "convex":
            return self._fit_published(data, seed)
        with one_scipy_thread():
            folds = split_folds(data, seed=seed) if self.penalty is None or self.personal_penalty is None else []
            penalty = self.penalty if self.penalty is not None else choose_penalty(folds)[0]
            population = fit_population(data, penalty)
            personal = self.personal_penalty
            losses: dict[str, float] = {}
            share = 1.0
            if personal is None:
                personal, share, losses = self._choose_personal(folds[:_FOLDS], len(data.pairs.ids), penalty, seed)
            directions = self._alternate(data, population, personal, seed)
        details = {"penalty": penalty, "personal_penalty": None if not np.isfinite(personal) else personal, "held_out_loss": losses}
        prior: Population | Mixture = _narrowed(self._population(data, directions)[0], share)
        details["prior_spread"] = share
        if self.kinds > 1:
            scores, pairs = data.scores(directions), data.pairs
            prior = learn_mixture(scores, pairs.code, len(pairs.ids), self.kinds, concentration=self.concentration, seed=seed)
        model = self._finish(data, directions, prior, details)
        return replace(model, seen=model.infer(data.pairs))

    def _fit_published(self, data: Standardised, seed: int) -> SimplexModel:
        """Bases and weights as published; new users by maximum likelihood, which the published Adam on each user approaches.

        Nothing is published on how sure a user is known: the spread of the seen users' weights is what is known without pairs.
        """
        with one_scipy_thread():
            reference = fit_population(data, self.penalty or 100.0)
            directions, weights = fit_published(data, self.rank, self.preset, reference, steps=self.steps, seed=seed)
            model = self._finish(data, directions, population_of(weights), {"preset": self.preset}, shrinks=False)
        return replace(model, seen=model.around(data.pairs, weights))

    def _choose_personal(self, folds: list[Fold], users: int, penalty: float, seed: int) -> tuple[float, float, dict[str, float]]:
        """The personal penalty with the least loss on held-out pairs, infinity if none helps, and the prior's share of the spread.

        Bases were fitted to the very pairs that the population's spread is learned from, and pairs of the same texts repeat each
        other: both make users look more different than they are to the bases. What share of that spread serves held-out pairs best
        is chosen with the penalty.

        Each penalty's fit begins where the last, stronger one's ended, the first at the spectral beginning: on planted worlds and
        on Jester that chose the penalty that the best of several beginnings chose.
        """
        if self.rank == 1 or users < 2 or not folds:
            return np.inf, 1.0, {}
        populations = [fit_population(fold.train, penalty) for fold in folds]
        held_out = sum(len(fold.test.pairs) for fold in folds)
        found: list[tuple[np.ndarray, np.ndarray] | None] = [None] * len(folds)  # bases and weights at the last penalty
        share = {np.inf: 1.0}

        def loss(personal: float) -> float:
            if not np.isfinite(personal):
                plain = zip(folds, populations, strict=True)
                return sum(float(log_loss(fold.test.scores(one[:, None])[:, 0]).sum()) for fold, one in plain) / held_out
            totals = np.zeros(len(_SHARES))
            for number, (fold, population) in enumerate(zip(folds, populations, strict=True)):
                begin = found[number] or self._begin(fold.train, population, np.random.default_rng(seed))
                directions, weights, _ = self._descend(fold.train, *begin, population, personal, rounds=self.rounds, tolerance=1e-3)
                found[number] = directions, weights
                totals += self._held_out_losses(fold, directions)
            share[personal] = _SHARES[int((totals <= totals.min() * (1 + 1e-9)).argmax())]  # the largest of those that serve alike
            return float(totals.min()) / held_out

        best, losses = search_penalties((np.inf, *self._stronger(folds[0].train), *self.personal_penalties), loss)
        return best, share[best], losses

    def _stronger(self, data: Standardised) -> list[float]:
        """Ten, a hundred times the strongest penalty, where columns move together so much that it would hardly shrink anything.

        A ridge shrinks a direction by how its penalty compares with the pairs' second moment along it: about 3 in every direction
        for items by identity or TF-IDF, tens and hundreds along the first directions of hidden states.
        """
        strongest, factor = max(self.personal_penalties), 10.0
        most = data.largest_moment() / _USUAL_MOMENT
        stronger = []
        while factor <= most:
            stronger.append(strongest * factor)
            factor *= 10.0
        return stronger

    def _held_out_losses(self, fold: Fold, directions: np.ndarray) -> np.ndarray:
        """Log-loss, summed over test pairs, of bases that the training pairs gave, by the prior's share of the spread.

        Weights are from the training pairs or, where users are held out, from the context.
        """
        whole = self._population(fold.train, directions)[0]
        source = fold.train if fold.context is None else fold.context
        ids, scores, tested = source.pairs.ids, source.scores(directions), fold.test.scores(directions)
        losses = []
        known = None
        for share in _SHARES:
            prior = _narrowed(whole, share)
            known = infer_weights(scores, source.pairs.code, len(ids), prior, start=known, tolerance=1e-6)[0]
            weights = known_or_prior(fold.test.pairs.user, ids, known, prior.mean)
            losses.append(float(log_loss((tested * weights).sum(axis=1)).sum()))
        return np.array(losses)

    def _population(self, data: Standardised, directions: np.ndarray) -> tuple[Population, np.ndarray]:
        """The prior of a user's weight, and the users' own weights under it."""
        scores, pairs = data.scores(directions), data.pairs
        return learn_population(scores, pairs.code, len(pairs.ids), concentration=self.concentration)[:2]

    def _alternate(self, data: Standardised, population: np.ndarray, personal: float, seed: int) -> np.ndarray:
        """(d, K) bases for one personal penalty, from the best of several beginnings."""
        if not np.isfinite(personal) or self.rank == 1:
            return np.repeat(population[:, None], self.rank, axis=1)
        rng = np.random.default_rng(seed)
        same, spectral = self._begin(data, population, rng)
        beginnings = [spectral, *(rng.dirichlet(np.full(self.rank, 0.3), size=len(spectral)) for _ in range(self.restarts))]
        if weakly_penalised(data, personal):
            prior = Population.flat(self.rank, self.concentration)
            tried = [
                descend_by_passes(data, same, weights, penalty=personal, centre=population, prior=prior, rng=rng)
                for weights in beginnings
            ]
        else:
            tried = [self._descend(data, same, weights, population, personal, rounds=3) for weights in beginnings]
        directions, weights, _ = min(tried, key=lambda result: result[2])
        return self._descend(data, directions, weights, population, personal, rounds=self.rounds)[0]

    def _begin(self, data: Standardised, population: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The population's reward K times, and the spectral weights."""
        return np.repeat(population[:, None], self.rank, axis=1), _spectral_weights(data, population, self.rank, rng)

    def _descend(
        self,
        data: Standardised,
        directions: np.ndarray,
        weights: np.ndarray,
        population: np.ndarray,
        personal: float,
        *,
        rounds: int,
        tolerance: float = 1e-4,
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Alternate bases and weights until a round lowers the penalised loss by less than the tolerance, relative to it."""
        prior = Population.flat(self.rank, self.concentration)
        code, users, last = data.pairs.code, len(data.pairs.ids), np.inf
        for _ in range(rounds):
            directions, loss = fit_directions(data, weights, directions, penalty=personal, centre=population, steps=15)
            weights = infer_weights(data.scores(directions), code, users, prior, start=weights, tolerance=1e-6)[0]
            total = loss + 0.5 * personal * float(((directions - population[:, None]) ** 2).sum())
            if total > last * (1 - tolerance):
                break
            last = total
        return directions, weights, min(total, last)

    def _finish(
        self,
        data: Standardised,
        directions: np.ndarray,
        prior: Population | Mixture,
        details: dict[str, Any],
        *,
        shrinks: bool = True,
    ) -> SimplexModel:
        """The model, without users yet."""
        raw_directions, bases = directions / data.scale[:, None], directions.shape[1]
        calibration = Calibration.common_width(data.pairs.items.project(raw_directions))
        return SimplexModel(
            method="LoRe",
            directions=raw_directions,
            calibration=calibration,
            sharpness=float(calibration.high[0] - calibration.low[0]),
            population=prior,
            seen=UserWeights.none(bases),
            names=tuple(f"basis-{k}" for k in range(bases)),
            details={"rank": bases, **details, "pairs": len(data.pairs), "users": len(data.pairs.ids)},
            shrinks=shrinks,
        )


def _narrowed(population: Population, share: float) -> Population:
    """The population with a share of its covariance."""
    if share == 1.0 or len(population.mean) == 1:
        return population
    return population_around(population.mean, population.covariance * share, population.concentration)


def _spectral_weights(data: Standardised, population: np.ndarray, rank: int, rng: np.random.Generator) -> np.ndarray:
    """(U, K) first guess of the weights: users placed by how their judgements depart from the population's reward.

    The gradient of a user's loss at the population's reward says which way the user differs. Its leading directions over
    users (randomised subspace iteration, O(n d r)) span the disagreement; users farthest apart there stand for the bases,
    and every user leans to those nearby.
    """
    code, users = data.pairs.code, len(data.pairs.ids)
    wrong = 0.5 * (1.0 - np.tanh(0.5 * data.scores(population[:, None])[:, 0]))
    share = wrong / np.sqrt(np.bincount(code, minlength=users))[code]
    size = min(rank + 3, data.pairs.width, users)
    basis = np.linalg.qr(rng.standard_normal((data.pairs.width, size)))[0]
    for _ in range(4):
        placed = _sum_by_user(share[:, None] * data.scores(basis), code, users)
        placed -= placed.mean(axis=0)
        basis = np.linalg.qr(data.gradient(share[:, None] * placed[code]))[0]
    placed = _sum_by_user(share[:, None] * data.scores(basis), code, users)
    placed -= placed.mean(axis=0)
    placed = placed @ np.linalg.svd(placed, full_matrices=False)[2].T[:, : max(1, rank - 1)]
    corners = [int((placed**2).sum(axis=1).argmax())]
    while len(corners) < rank:
        distance = np.min([((placed - placed[corner]) ** 2).sum(axis=1) for corner in corners], axis=0)
        corners.append(int(distance.argmax()))
    distance = np.array([((placed - placed[corner]) ** 2).sum(axis=1) for corner in corners]).T
    lean = np.exp(-4.0 * distance / max(float(distance.mean()), 1e-12))
    lean += 1e-3
    return lean / lean.sum(axis=1, keepdims=True)


def _sum_by_user(per_pair: np.ndarray, code: np.ndarray, users: int) -> np.ndarray:
    return np.column_stack([np.bincount(code, column, minlength=users) for column in per_pair.T])
