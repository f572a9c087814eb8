"""Split pairs by user and, within a user, by group, so that nothing judged twice stands on both sides."""

from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from palm.data.schema import text_id


@dataclass(frozen=True)
class Splits:
    """Seen users' pairs to fit and to test on; unseen users' few-shot contexts and tests.

    Attributes:
        seen_train, seen_test: pairs of the users a model is fitted on; no prompt or group of a user is in both.
        unseen_context: exactly `shots` pairs of each unseen user.
        unseen_test: other pairs of the unseen users, without any prompt or group of that user's context.
        rows: for each of the four, the (n,) row numbers in the data set that was split.
    """

    seen_train: Dataset
    seen_test: Dataset
    unseen_context: Dataset
    unseen_test: Dataset
    rows: dict[str, np.ndarray]


def split_users(
    pairs: Dataset,
    *,
    unseen: float | int = 0.2,
    shots: int = 10,
    test: float = 0.3,
    min_pairs: int = 1,
    min_groups: int = 1,
    train_pairs: int | None = None,
    seed: int = 0,
) -> Splits:
    """Split users into seen and unseen, and each user's pairs into two sides that share no prompt and no group.

    Within a user, pairs that share a prompt or a group, directly or through other pairs, stay together. A seen user
    whose pairs all hang together is fitted on and not tested; such a user is never chosen as unseen.

    Args:
        pairs: as `load_pairs` gives them.
        unseen: share of the users (a float below 1) or their number (an int); 0 for none.
        shots: size of each unseen user's context, at least 0.
        test: share of a seen user's pairs to test on, reached or just exceeded where groups allow; 0 for none.
        min_pairs, min_groups: users with fewer pairs, or with pairs of fewer groups, are left out altogether.
        train_pairs: most pairs of a seen user to fit on, drawn at random from those not tested on; all unless given. A smaller
            number gives some of the same pairs, and the same tests.
        seed: the same seed gives the same split.

    Raises:
        ValueError: an argument is out of range, there are no users, or too few users have enough separate groups.
    """
    _check(unseen, shots, test, train_pairs, seed)
    rng, capping = (np.random.default_rng(part) for part in (seed, [seed, 1]))  # who is tested on what does not hang on the cap
    names, user = np.unique(np.asarray(pairs["user"], dtype=object).astype(str), return_inverse=True)
    counts = np.bincount(user, minlength=len(names))
    groups = _groups_of(user, pairs)
    kept_users = np.flatnonzero((counts >= min_pairs) & (groups >= min_groups))
    if len(kept_users) == 0:
        raise ValueError(
            f"min_pairs, min_groups: no user has {min_pairs} pairs of at least {min_groups} groups; the most of any user is "
            f"{counts.max(initial=0)} and {groups.max(initial=0)}"
        )
    cluster = _clusters(user, pairs)
    order = np.argsort(user, kind="stable")
    rows_of = np.split(order, np.cumsum(counts)[:-1])

    contexts = {}
    for index in rng.permutation(kept_users):  # a random order also decides who is unseen
        context = _draw_context(rows_of[index], cluster, shots, rng)
        if context is not None:
            contexts[int(index)] = context
    wanted = unseen if isinstance(unseen, int) else round(unseen * len(kept_users))
    if isinstance(unseen, float) and unseen > 0:
        wanted = max(wanted, 1)
    if wanted > len(contexts) or (wanted >= len(kept_users) and wanted > 0):
        raise ValueError(
            f"unseen: expected {wanted} unseen users beside at least one seen, but of {len(kept_users)} users "
            f"{len(contexts)} have {shots} pairs (shots) and others to test on that share no prompt or group with them"
        )
    held_out = list(contexts)[:wanted]
    sides: dict[str, list[np.ndarray]] = {"seen_train": [], "seen_test": [], "unseen_context": [], "unseen_test": []}
    for index in sorted(held_out):
        sides["unseen_context"].append(contexts[index][0])
        sides["unseen_test"].append(contexts[index][1])
    for index in sorted(set(kept_users.tolist()) - set(held_out)):
        train, tested = _hold_out(rows_of[index], cluster, test, rng)
        if train_pairs is not None:
            train = capping.permutation(train)[:train_pairs]
        sides["seen_train"].append(train)
        sides["seen_test"].append(tested)
    rows = {name: np.sort(np.concatenate(parts)) if parts else np.zeros(0, dtype=np.int64) for name, parts in sides.items()}
    return Splits(**{name: pairs.select(index) for name, index in rows.items()}, rows=rows)


def _check(unseen: float | int, shots: int, test: float, train_pairs: int | None, seed: int) -> None:
    if isinstance(unseen, bool) or not unseen >= 0 or (isinstance(unseen, float) and unseen >= 1):
        raise ValueError(f"unseen: expected a share from 0 to below 1 or a number of users, got {unseen!r}")
    if shots < 0:
        raise ValueError(f"shots: expected at least 0, got {shots}")
    if not 0 <= test < 1:
        raise ValueError(f"test: expected a share from 0 to below 1, got {test}")
    if train_pairs is not None and train_pairs < 1:
        raise ValueError(f"train_pairs: expected at least 1 or None, got {train_pairs}")
    if seed < 0:
        raise ValueError(f"seed: expected at least 0, got {seed}")


def split_groups(pairs: Dataset, *, test: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(train, test) row numbers that share no prompt and no group, whoever judged them.

    Args:
        pairs: as `load_pairs` gives them.
        test: share of the pairs to test on, reached or just exceeded where groups allow.
        seed: the same seed gives the same split.

    Raises:
        ValueError: `test` is out of range, or all pairs hang together through prompts and groups.
    """
    if not 0 < test < 1:
        raise ValueError(f"test: expected a share between 0 and 1, got {test}")
    cluster = _clusters(np.zeros(len(pairs), dtype=np.int64), pairs)
    if len(np.unique(cluster)) < 2:
        raise ValueError("pairs: expected at least two groups that share no prompt, got one")
    return _hold_out(np.arange(len(pairs)), cluster, test, np.random.default_rng(seed))


def _groups_of(user: np.ndarray, pairs: Dataset) -> np.ndarray:
    """(U,) number of each user's different groups."""
    groups = np.unique(np.asarray(pairs["group"], dtype=object).astype(str), return_inverse=True)[1]
    cells = np.unique(np.column_stack([user, groups]), axis=0)
    return np.bincount(cells[:, 0], minlength=int(user.max(initial=-1)) + 1)


def _clusters(user: np.ndarray, pairs: Dataset) -> np.ndarray:
    """(n,) cluster of each pair: pairs of one user are together when prompts or groups connect them."""
    prompts = np.unique([text_id(prompt) for prompt in pairs["prompt"]], return_inverse=True)[1]
    groups = np.unique(np.asarray(pairs["group"], dtype=object).astype(str), return_inverse=True)[1]
    by_prompt = np.unique(np.column_stack([user, prompts]), axis=0, return_inverse=True)[1].ravel()
    by_group = np.unique(np.column_stack([user, groups]), axis=0, return_inverse=True)[1].ravel() + by_prompt.max() + 1
    size = int(by_group.max()) + 1
    graph = coo_array((np.ones(len(user)), (by_prompt, by_group)), shape=(size, size))
    return connected_components(graph, directed=False)[1][by_prompt]


def _draw_context(
    rows: np.ndarray, cluster: np.ndarray, shots: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """(context, test) rows of one user, or None if no split leaves both."""
    ids, sizes = np.unique(cluster[rows], return_counts=True)
    shuffled = rng.permutation(len(ids))
    needed = int(np.searchsorted(np.cumsum(sizes[shuffled]), shots)) + 1 if shots else 0
    if needed >= len(ids) + (shots == 0) or sizes.sum() < shots:
        # Not in this order; smallest clusters last leave the most to test on, which decides whether any split exists.
        shuffled = np.argsort(-sizes, kind="stable")
        needed = int(np.searchsorted(np.cumsum(sizes[shuffled]), shots)) + 1
        if needed >= len(ids):
            return None
    inside = np.isin(cluster[rows], ids[shuffled[:needed]])
    context = rng.choice(rows[inside], size=shots, replace=False) if shots else rows[:0]
    return context, rows[~inside]


def _hold_out(rows: np.ndarray, cluster: np.ndarray, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(train, test) rows out of `rows`, whole clusters; train is never empty."""
    ids, sizes = np.unique(cluster[rows], return_counts=True)
    shuffled = rng.permutation(len(ids))
    reached = np.concatenate([[0], np.cumsum(sizes[shuffled])])
    needed = min(int(np.searchsorted(reached, share * len(rows))), len(ids) - 1)
    tested = np.isin(cluster[rows], ids[shuffled[:needed]])
    return rows[~tested], rows[tested]
