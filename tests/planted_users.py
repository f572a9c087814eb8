"""Users with planted weights over planted linear rewards, for tests of what is fitted to their pairs."""

from dataclasses import dataclass

import numpy as np

from palm.features.pairs import PairFeatures


@dataclass(frozen=True)
class Planted:
    """What was planted: `directions` (d, K) give logits, `weights` (U, K) are the users' in the order of `ids`."""

    directions: np.ndarray
    weights: np.ndarray
    ids: np.ndarray
    seen: PairFeatures
    unseen_context: PairFeatures
    unseen_test: PairFeatures

    def logits(self, pairs):
        weights = self.weights[np.searchsorted(self.ids, pairs.user)]
        return ((pairs.chosen - pairs.rejected) @ self.directions * weights).sum(axis=1)


def plant(*, seed=0, users=60, pairs=40, width=8, bases=2, sharpness=4.0, alpha=0.15, texts=600, shared=0.0):
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.standard_normal((width, bases)))[0]
    directions = sharpness * (directions + shared * directions.mean(axis=1, keepdims=True))
    weights = rng.dirichlet(np.full(bases, alpha), size=users)
    ids = np.array([f"u{n:03d}" for n in range(users)])
    items = rng.standard_normal((texts, width)).astype(np.float32)
    user = np.repeat(np.arange(users), pairs)
    first = rng.integers(texts, size=len(user))
    second = (first + rng.integers(1, texts, size=len(user))) % texts
    logit = ((items[first] - items[second]) @ directions * weights[user]).sum(axis=1)
    wins = rng.random(len(user)) < 1 / (1 + np.exp(-logit))
    everything = PairFeatures.from_items(
        ids[user],
        items,
        np.where(wins, first, second),
        np.where(wins, second, first),
        group=first.astype(str),
        scores=items @ directions.mean(axis=1),
    )
    unseen, late = user >= users * 2 // 3, np.tile(np.arange(pairs) >= pairs // 2, users)
    return Planted(
        directions,
        weights,
        ids,
        everything.select(~unseen),
        everything.select(unseen & ~late),
        everything.select(unseen & late),
    )
