"""A planted world of pair features: users with weights on the simplex over linear rewards, whose basis and truth are known."""

from dataclasses import dataclass

import numpy as np

from palm.features.pairs import PairFeatures
from palm.rewards.simplex_users import Population, infer_weights, learn_population


@dataclass(frozen=True)
class World:
    """What was planted, and the pairs that users judged.

    Attributes:
        directions: (d, K) V; a text's basis rewards are h.V, in logits.
        weights: (U, K) of all users, in the order of `ids`; seen users come first.
        ids: (U,) user ids, sorted.
        train, seen_test: pairs of the seen users.
        context, unseen_test: pairs of the unseen users; a few of each to infer them from, and the rest.
    """

    directions: np.ndarray
    weights: np.ndarray
    ids: np.ndarray
    train: PairFeatures
    seen_test: PairFeatures
    context: PairFeatures
    unseen_test: PairFeatures

    def scores(self, pairs: PairFeatures) -> np.ndarray:
        """(n, K) chosen minus rejected true basis reward, in logits."""
        return pairs.difference(pairs.items.project(self.directions))

    def truth(self, pairs: PairFeatures) -> np.ndarray:
        """(n,) true logit of each judgement."""
        return np.einsum("nk,nk->n", self.scores(pairs), self.weights[np.searchsorted(self.ids, pairs.user)])

    def oracle(self) -> tuple[np.ndarray, Population]:
        """(n,) logits of `unseen_test` by the true basis and weights inferred from `context`, with the prior of the seen users.

        What is left to be learned where the basis is known: as good as a fit of the basis can make unseen users' predictions.
        """
        prior = learn_population(self.scores(self.train), self.train.code, len(self.train.ids))[0]
        known = infer_weights(self.scores(self.context), self.context.code, len(self.context.ids), prior)[0]
        place = np.searchsorted(self.context.ids, self.unseen_test.user)
        return np.einsum("nk,nk->n", self.scores(self.unseen_test), known[place]), prior


def plant(
    *,
    users: int,
    pairs: int,
    seed: int,
    width: int = 64,
    bases: int = 4,
    unseen: int = 200,
    shots: int = 10,
    tested: int = 30,
    sharpness: float = 4.0,
    alpha: float = 0.3,
    texts: int = 2000,
) -> World:
    """Users with Dirichlet weights over orthogonal tastes judge random pairs of texts as Bradley and Terry say.

    Args:
        users, pairs: seen users, and pairs of each to fit on.
        seed: of everything.
        width, bases: d and K.
        unseen, shots: unseen users, and pairs of each to infer them from.
        tested: held-out pairs of every user.
        sharpness: standard deviation of a text's basis reward, in logits.
        alpha: of the Dirichlet distribution of the weights; small where users want one thing each.
        texts: distinct texts, with standard normal features.
    """
    rng = np.random.default_rng(seed)
    directions = sharpness * np.linalg.qr(rng.standard_normal((width, bases)))[0]
    weights = rng.dirichlet(np.full(bases, alpha), size=users + unseen)
    items = rng.standard_normal((texts, width)).astype(np.float32)
    counts = np.repeat([pairs + tested, shots + tested], [users, unseen])
    user = np.repeat(np.arange(users + unseen), counts)
    rank = np.arange(len(user)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = rng.integers(texts, size=len(user))
    second = (first + rng.integers(1, texts, size=len(user))) % texts
    logit = np.einsum("nk,nk->n", (items[first] - items[second]) @ directions, weights[user])
    wins = rng.random(len(user)) < 1 / (1 + np.exp(-logit))
    ids = np.array([f"u{number:06d}" for number in range(users + unseen)])
    chosen, rejected = np.where(wins, first, second), np.where(wins, second, first)
    everything = PairFeatures.from_items(ids[user], items, chosen, rejected, scores=items @ directions.mean(axis=1))
    new, held_out = user >= users, rank >= np.where(user >= users, shots, pairs)
    parts = [
        everything.select(np.flatnonzero((new == is_new) & (held_out == is_out)))
        for is_new in (False, True)
        for is_out in (False, True)
    ]
    return World(directions, weights, ids, *parts)
