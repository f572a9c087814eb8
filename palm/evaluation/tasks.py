"""What reward models are fitted and judged on: seen and unseen users, each with pairs to be known by and others to be tested on.

Nobody is tested on a group, or an item, that they are known by. Whether other users may have judged it in the training is the
caller's choice for groups; items that everyone rates are known to others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from datasets import Dataset

from palm.data.loaders import load_pairs
from palm.data.ratings import Ratings
from palm.data.schema import Text
from palm.data.splits import split_groups, split_users
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


def item_features(ratings: Ratings, texts: Mapping[str, str], features: str, *, dim: int = 128, seed: int = 0) -> np.ndarray:
    """(items, d) features of the rated items' texts, in the order of the sorted ids.

    Raises:
        ValueError: an item has no text.
    """
    items = np.unique(ratings.item)
    lacking = [item for item in items.tolist() if item not in texts]
    if lacking:
        raise ValueError(f"texts: expected one for every item, {len(lacking)} have none; the first is {lacking[0]!r}")
    return _encoded([("", texts[item]) for item in items.tolist()], features, dim, seed)


def rating_task(
    ratings: Ratings, *, users: tuple[int, int], train: int, test: int, seed: int, features: np.ndarray | None = None
) -> Task:
    """Seen and unseen users of a set of ratings.

    A quarter of each user's items is held out before pairs are made, since pairs of the same items follow from each other.

    Args:
        ratings: of any number of users.
        users: how many are seen and how many unseen.
        train: pairs of a seen user, at most.
        test: held-out pairs of a user, at most.
        seed: of users, items and pairs.
        features: (items, d) of the items, in the order of their sorted ids; by default they are told apart by identity alone.

    Raises:
        ValueError: there are not as many users, or features are not of these items.
    """
    ids = np.unique(ratings.user)
    if sum(users) > len(ids):
        raise ValueError(f"users: expected at most {len(ids)} altogether, got {users[0]} and {users[1]}")
    drawn = np.random.default_rng(seed).permutation(ids)
    items = np.unique(ratings.item)
    early, late = ratings.split(0.25, seed=seed)
    if features is not None and len(features) != len(items):
        raise ValueError(f"features: expected a row for each of {len(items)} items, got {len(features)}")
    described = np.eye(len(items), dtype=np.float32) if features is None else features

    def made(side: Ratings, part: np.ndarray, most: int | None) -> PairFeatures:
        pairs = side.of(part).pairs(per_user=most, least_gap=1e-9, seed=seed)
        return PairFeatures.from_items(
            pairs["user"], described, np.searchsorted(items, pairs["chosen"]), np.searchsorted(items, pairs["rejected"])
        )

    seen, unseen = drawn[: users[0]], drawn[users[0] : sum(users)]
    fitted, tested = made(early, seen, train), made(late, seen, test)
    tested = tested.select(np.flatnonzero(np.isin(tested.user, fitted.ids)))  # ties may leave someone nothing to be fitted on
    return Task(fitted, tested, made(early, unseen, None), made(late, unseen, test))


@dataclass(frozen=True)
class JudgedTexts:
    """Pairs of a file with the features of their texts, encoded once however often they are split.

    Attributes:
        pairs: as `load_pairs` gives them, of users with enough of them.
        items: (texts, d) features of the distinct texts.
        chosen, rejected: (n,) rows of `items`.
    """

    pairs: Dataset
    items: np.ndarray
    chosen: np.ndarray
    rejected: np.ndarray


def judged_texts(
    path: str, columns: Mapping[str, str], *, features: str, min_pairs: int = 20, dim: int = 128, until: str = "", seed: int = 0
) -> JudgedTexts:
    """Read a file of pairs and encode its texts.

    Args:
        path: as `load_pairs` takes it; pairs that are not valid are left out.
        columns: what ours are called there.
        features: "tfidf", "length", "format", or the folder or Hub id of a model.
        min_pairs: users with fewer are left out.
        dim: numbers of TF-IDF features.
        until: groups whose ids agree up to this text are one; "" for none.
        seed: of TF-IDF.

    Raises:
        ValueError: no user has as many pairs.
    """
    pairs = load_pairs(path, columns=columns, drop_invalid=True)
    if until:
        pairs = pairs.map(lambda row: {"group": row["group"].split(until)[0]})
    _, code, count = np.unique(np.asarray(pairs["user"], dtype=object).astype(str), return_inverse=True, return_counts=True)
    if count.max(initial=0) < min_pairs:
        raise ValueError(f"min_pairs: no user has {min_pairs} pairs; the most of any user is {count.max(initial=0)}")
    pairs = pairs.select(np.flatnonzero(count[code] >= min_pairs))
    texts = distinct_texts(pairs)
    return JudgedTexts(pairs, _encoded(texts.texts, features, dim, seed), texts.chosen, texts.rejected)


def described_by(judged: JudgedTexts, features: str, *, dim: int = 128, seed: int = 0) -> JudgedTexts:
    """The same pairs with other features, for `judged_texts`' names of them."""
    return replace(judged, items=_encoded(distinct_texts(judged.pairs).texts, features, dim, seed))


def _encoded(texts: Sequence[tuple[Text, Text]], features: str, dim: int, seed: int) -> np.ndarray:
    if features in SURFACES:
        return SURFACES[features](texts, **({"dim": dim, "seed": seed} if features == "tfidf" else {}))
    return load_encoder(features, pooling="mean+last", max_length=384).encode(texts)[0]


def pair_task(judged: JudgedTexts, *, unseen: float = 0.25, apart: str = "everyone", seed: int = 0) -> Task:
    """Seen and unseen users of a file of pairs, groups apart; contexts are all pairs outside the tested groups.

    Args:
        judged: pairs and features.
        unseen: share of the users.
        apart: "everyone" holds the same groups out of everyone's pairs, so nothing tested was judged by anybody in the training;
            "user" holds groups out of each user's pairs, and others may have judged them.
        seed: of groups and users.

    Raises:
        ValueError: an argument is out of range, or groups cannot be told apart.
    """
    if not 0 < unseen < 1:
        raise ValueError(f"unseen: expected a share between 0 and 1, got {unseen}")
    if apart not in ("everyone", "user"):
        raise ValueError(f"apart: expected 'everyone' or 'user', got {apart!r}")
    user, group = (np.asarray(judged.pairs[name], dtype=object).astype(str) for name in ("user", "group"))
    if apart == "everyone":
        early, late = split_groups(judged.pairs, seed=seed)
    else:
        rows = split_users(judged.pairs, unseen=0, shots=0, seed=seed).rows  # a test side for everyone
        early, late = rows["seen_train"], rows["seen_test"]
    both = np.intersect1d(user[early], user[late])
    if len(both) < 2:
        raise ValueError(f"groups: expected at least two users with pairs on either side, got {len(both)}")
    new = np.random.default_rng(seed).permutation(both)[: max(1, round(unseen * len(both)))]

    def made(rows: np.ndarray, are_new: bool) -> PairFeatures:
        who = np.isin(user[rows], new)
        rows = rows[who if are_new else ~who]
        return PairFeatures.from_items(user[rows], judged.items, judged.chosen[rows], judged.rejected[rows], group=group[rows])

    train = made(early, False)
    tested = made(late, False)
    tested = tested.select(np.flatnonzero(np.isin(tested.user, train.ids)))
    return Task(train, tested, made(early, True), made(late, True))
