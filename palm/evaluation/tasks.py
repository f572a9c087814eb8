"""What reward models are fitted and judged on: seen and unseen users, each with pairs to be known by and others to be tested on.

Nobody is tested on a group, or an item, that they are known by; other users may have judged it in the training.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from palm.data.loaders import load_pairs
from palm.data.ratings import Ratings
from palm.data.splits import split_users
from palm.features.encode import distinct_texts, load_encoder
from palm.features.pairs import PairFeatures
from palm.features.surface import format_features, length_features, tfidf_features

SURFACES: dict[str, Callable[..., np.ndarray]] = {"tfidf": tfidf_features, "length": length_features, "format": format_features}


@dataclass(frozen=True)
class Task:
    """What methods are fitted and judged on.

    Attributes:
        train, seen_test: pairs of the seen users.
        context, unseen_test: pairs of the unseen users.
    """

    train: PairFeatures
    seen_test: PairFeatures
    context: PairFeatures
    unseen_test: PairFeatures


def rating_task(ratings: Ratings, *, users: tuple[int, int], train: int, test: int, seed: int) -> Task:
    """Seen and unseen users of a set of ratings; items are told apart by identity alone.

    A quarter of each user's items is held out before pairs are made, since pairs of the same items follow from each other.

    Args:
        ratings: of any number of users.
        users: how many are seen and how many unseen.
        train: pairs of a seen user, at most.
        test: held-out pairs of a user, at most.
        seed: of users, items and pairs.

    Raises:
        ValueError: there are not as many users.
    """
    ids = np.unique(ratings.user)
    if sum(users) > len(ids):
        raise ValueError(f"users: expected at most {len(ids)} altogether, got {users[0]} and {users[1]}")
    drawn = np.random.default_rng(seed).permutation(ids)
    items = np.unique(ratings.item)
    early, late = ratings.split(0.25, seed=seed)
    identity = np.eye(len(items), dtype=np.float32)

    def made(side: Ratings, part: np.ndarray, most: int | None) -> PairFeatures:
        pairs = side.of(part).pairs(per_user=most, least_gap=1e-9, seed=seed)
        return PairFeatures.from_items(
            pairs["user"], identity, np.searchsorted(items, pairs["chosen"]), np.searchsorted(items, pairs["rejected"])
        )

    seen, unseen = drawn[: users[0]], drawn[users[0] : sum(users)]
    fitted, tested = made(early, seen, train), made(late, seen, test)
    tested = tested.select(np.flatnonzero(np.isin(tested.user, fitted.ids)))  # ties may leave someone nothing to be fitted on
    return Task(fitted, tested, made(early, unseen, None), made(late, unseen, test))


def pair_task(
    path: str,
    columns: Mapping[str, str],
    *,
    features: str,
    min_pairs: int = 20,
    unseen: float = 0.25,
    dim: int = 128,
    until: str = "",
    seed: int = 0,
) -> Task:
    """Seen and unseen users of a file of pairs, groups apart; contexts are all pairs outside the tested groups.

    Args:
        path: as `load_pairs` takes it; pairs that are not valid are left out.
        columns: what ours are called there.
        features: "tfidf", "length", "format", or the folder or Hub id of a model.
        min_pairs: users with fewer are left out.
        unseen: share of the users.
        dim: numbers of TF-IDF features.
        until: groups whose ids agree up to this text are one; "" for none.
        seed: of groups, users and TF-IDF.
    """
    if not 0 < unseen < 1:
        raise ValueError(f"unseen: expected a share between 0 and 1, got {unseen}")
    pairs = load_pairs(path, columns=columns, drop_invalid=True)
    if until:
        pairs = pairs.map(lambda row: {"group": row["group"].split(until)[0]})
    splits = split_users(pairs, unseen=0, shots=0, min_pairs=min_pairs, seed=seed)  # a test side for everyone
    texts = distinct_texts(pairs)
    if features in SURFACES:
        options = {"dim": dim, "seed": seed} if features == "tfidf" else {}
        items = SURFACES[features](texts.texts, **options)
    else:
        items = load_encoder(features, pooling="mean+last", max_length=384).encode(texts.texts)[0]
    user, group = (np.asarray(pairs[name], dtype=object).astype(str) for name in ("user", "group"))
    early, late = splits.rows["seen_train"], splits.rows["seen_test"]
    drawn = np.random.default_rng(seed).permutation(np.unique(user[late]))
    new = drawn[: max(1, round(unseen * len(drawn)))]

    def made(rows: np.ndarray, are_new: bool) -> PairFeatures:
        rows = rows[np.isin(user[rows], new) == are_new]
        return PairFeatures.from_items(user[rows], items, texts.chosen[rows], texts.rejected[rows], group=group[rows])

    return Task(made(early, False), made(late, False), made(early, True), made(late, True))
