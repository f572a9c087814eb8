"""palm.data.splits: users apart, prompts and groups of a user apart, sizes as asked; recounted without the module's graph."""

from collections import Counter

import numpy as np
import pytest
from datasets import Dataset

from palm.data.loaders import load_pairs
from palm.data.splits import Splits, split_users

NAMES = ("seen_train", "seen_test", "unseen_context", "unseen_test")


def _pairs(rng: np.random.Generator, *, users: int = 30, prompts: int = 40, groups: int = 12) -> Dataset:
    """Judgements in which prompts and groups cross: a prompt is in several groups, a group has several prompts."""
    rows = []
    for user in range(users):
        for number in range(int(rng.integers(4, 25))):
            prompt, group = int(rng.integers(prompts)), int(rng.integers(groups))
            if rng.random() < 0.6:
                group = 1000 + 100 * user + number  # a group of its own, or everything would hang together
            rows.append({"user": f"u{user}", "prompt": f"p{prompt}", "chosen": f"c{number}", "rejected": "r", "group": f"g{group}"})
    return load_pairs([rows[index] for index in rng.permutation(len(rows))])


def _keys(pairs: Dataset, column: str) -> set[tuple[str, str]]:
    return set(zip(pairs["user"], pairs[column], strict=True))


def _hang_together(prompts: list[str], groups: list[str]) -> list[set[int]]:
    """Rows of one user's pairs, joined while any two share a prompt or a group: the slow, plain way."""
    clusters: list[set[int]] = []
    for row in range(len(prompts)):
        touched = [c for c in clusters if any(prompts[row] == prompts[other] or groups[row] == groups[other] for other in c)]
        clusters = [c for c in clusters if c not in touched] + [set().union({row}, *touched)]
    return clusters


@pytest.mark.parametrize("seed", range(5))
def test_users_prompts_and_groups_are_apart(seed: int) -> None:
    pairs = _pairs(np.random.default_rng(seed))
    splits = split_users(pairs, unseen=0.3, shots=3, test=0.3, seed=seed)
    seen = set(splits.seen_train["user"]) | set(splits.seen_test["user"])
    unseen = set(splits.unseen_context["user"])
    assert unseen == set(splits.unseen_test["user"])
    assert len(unseen) == 9
    assert not seen & unseen
    assert seen | unseen == set(pairs["user"])
    for column in ("prompt", "group"):
        assert not _keys(splits.seen_train, column) & _keys(splits.seen_test, column)
        assert not _keys(splits.unseen_context, column) & _keys(splits.unseen_test, column)
    assert set(Counter(splits.unseen_context["user"]).values()) == {3}


@pytest.mark.parametrize("seed", range(5))
def test_rows_say_where_each_pair_came_from(seed: int) -> None:
    pairs = _pairs(np.random.default_rng(seed))
    splits = split_users(pairs, unseen=5, shots=3, seed=seed)
    for name in NAMES:
        assert getattr(splits, name).to_list() == pairs.select(splits.rows[name]).to_list()
    everything = np.concatenate([splits.rows[name] for name in NAMES])
    assert len(np.unique(everything)) == len(everything)
    seen_rows = np.concatenate([splits.rows["seen_train"], splits.rows["seen_test"]])
    seen = set(splits.seen_train["user"])
    assert len(seen_rows) == sum(user in seen for user in pairs["user"]), "every pair of a seen user is fitted or tested on"


def test_test_share_is_reached_by_whole_clusters_and_barely() -> None:
    """Clusters stand on one side whole; the share is reached unless one cluster is left to fit on; one fewer would miss it."""
    pairs = _pairs(np.random.default_rng(7))
    splits = split_users(pairs, unseen=0, shots=0, test=0.3, seed=1)
    tested_rows = set(splits.rows["seen_test"].tolist())
    users, prompts, groups = (list(pairs[column]) for column in ("user", "prompt", "group"))
    reached = 0
    for user in sorted(set(users)):
        own = [row for row, name in enumerate(users) if name == user]
        clusters = _hang_together([prompts[row] for row in own], [groups[row] for row in own])
        tested = [cluster for cluster in clusters if own[min(cluster)] in tested_rows]
        assert {own[row] for cluster in tested for row in cluster} == tested_rows & set(own)
        sizes = [len(cluster) for cluster in tested]
        assert sum(sizes) >= 0.3 * len(own) or len(clusters) - len(tested) == 1
        assert sum(sizes) - max(sizes, default=0) < 0.3 * len(own)
        reached += sum(sizes) >= 0.3 * len(own)
    assert reached > 15, "too few users have separate clusters for this to test anything"


def test_chain_of_prompts_and_groups_stays_together() -> None:
    """p1-g1, p1-g2, p2-g2, p2-g3: neighbours share something, the ends share nothing; p9-g9 stands alone."""
    chain = [("p1", "g1"), ("p1", "g2"), ("p2", "g2"), ("p2", "g3"), ("p9", "g9")]
    rows = [{"user": "u", "prompt": p, "chosen": str(n), "rejected": "r", "group": g} for n, (p, g) in enumerate(chain)]
    sides = set()
    for seed in range(8):
        splits = split_users(load_pairs(rows), unseen=0, test=0.1, seed=seed)
        sides.add((tuple(splits.rows["seen_train"]), tuple(splits.rows["seen_test"])))
    assert sides == {((0, 1, 2, 3), (4,)), ((4,), (0, 1, 2, 3))}


def test_same_prompt_of_two_users_does_not_tie_them() -> None:
    rows = [{"user": u, "prompt": p, "chosen": "a", "rejected": "b", "group": "all"} for u in "xy" for p in ("1", "2")]
    for row in rows:
        row["group"] = row["prompt"]
    splits = split_users(load_pairs(rows), unseen=1, shots=1, test=0.5, seed=0)
    assert [len(getattr(splits, name)) for name in NAMES] == [1, 1, 1, 1]


def test_user_whose_pairs_hang_together_is_never_unseen_and_never_tested() -> None:
    tied = [{"user": "tied", "prompt": "p", "chosen": str(n), "rejected": "r"} for n in range(6)]
    free = [{"user": f"u{u}", "prompt": f"p{n}", "chosen": "c", "rejected": "r"} for u in range(3) for n in range(6)]
    for seed in range(6):
        splits = split_users(load_pairs(tied + free), unseen=3, shots=2, test=0.5, seed=seed)
        assert set(splits.seen_train["user"]) == {"tied"}
        assert len(splits.seen_test) == 0


def test_context_is_found_wherever_one_exists() -> None:
    """Clusters of 5, 1, 1 pairs and 5 shots: only contexts that hold the large cluster leave something to test on."""
    sizes = {"a": 5, "b": 1, "c": 1}
    large = [{"user": "u", "prompt": p, "chosen": str(n), "rejected": "r"} for p, size in sizes.items() for n in range(size)]
    other = [{"user": "v", "prompt": "p", "chosen": "1", "rejected": "r"}]
    for seed in range(10):
        splits = split_users(load_pairs(large + other), unseen=1, shots=5, seed=seed)
        assert len(splits.unseen_context) == 5
        assert len(splits.unseen_test) >= 1
    with pytest.raises(ValueError, match="unseen: expected 1 unseen users beside at least one seen, but of 2 users 0 have 7 pairs"):
        split_users(load_pairs(large + other), unseen=1, shots=7)


def test_no_shots_leave_everything_to_test_on() -> None:
    pairs = _pairs(np.random.default_rng(0))
    splits = split_users(pairs, unseen=4, shots=0, seed=0)
    assert len(splits.unseen_context) == 0
    assert len(set(splits.unseen_test["user"])) == 4
    unseen = set(splits.unseen_test["user"])
    assert len(splits.unseen_test) == sum(user in unseen for user in pairs["user"])


def test_no_unseen_users_and_no_test() -> None:
    pairs = _pairs(np.random.default_rng(0))
    splits = split_users(pairs, unseen=0, test=0, seed=0)
    assert [len(getattr(splits, name)) for name in NAMES] == [len(pairs), 0, 0, 0]


def test_users_with_few_pairs_are_left_out() -> None:
    pairs = _pairs(np.random.default_rng(3))
    splits = split_users(pairs, unseen=0.2, shots=2, min_pairs=15, seed=0)
    counts = Counter(pairs["user"])
    used = set().union(*(set(getattr(splits, name)["user"]) for name in NAMES))
    assert used == {user for user, count in counts.items() if count >= 15}


def test_users_with_few_groups_are_left_out() -> None:
    pairs = _pairs(np.random.default_rng(3))
    splits = split_users(pairs, unseen=0.2, shots=2, min_groups=10, seed=0)
    groups = {user: {group for owner, group in _keys(pairs, "group") if owner == user} for user in set(pairs["user"])}
    used = set().union(*(set(getattr(splits, name)["user"]) for name in NAMES))
    assert used == {user for user, own in groups.items() if len(own) >= 10}
    assert used < set(pairs["user"])


def test_pairs_to_fit_on_are_capped_and_nothing_else_is() -> None:
    pairs = _pairs(np.random.default_rng(3))
    whole, some, few = (split_users(pairs, unseen=5, shots=2, train_pairs=most, seed=0) for most in (None, 6, 4))
    counts = Counter(whole.seen_train["user"])
    assert max(counts.values()) > 6 > 4 > min(counts.values()), "or nothing is tested"
    assert Counter(some.seen_train["user"]) == {user: min(count, 6) for user, count in counts.items()}
    assert Counter(few.seen_train["user"]) == {user: min(count, 4) for user, count in counts.items()}
    assert set(few.rows["seen_train"]) < set(some.rows["seen_train"]) < set(whole.rows["seen_train"])
    for name in NAMES[1:]:
        assert few.rows[name].tolist() == some.rows[name].tolist() == whole.rows[name].tolist()


def _rows(splits: Splits) -> list[list[int]]:
    return [splits.rows[name].tolist() for name in NAMES]


def test_seed_decides_the_split() -> None:
    pairs = _pairs(np.random.default_rng(0))
    assert _rows(split_users(pairs, seed=3, shots=2)) == _rows(split_users(pairs, seed=3, shots=2))
    assert _rows(split_users(pairs, seed=3, shots=2)) != _rows(split_users(pairs, seed=4, shots=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unseen": 1.0}, r"unseen: expected a share from 0 to below 1 or a number of users, got 1\.0"),
        ({"unseen": -1}, "unseen: expected a share from 0 to below 1 or a number of users, got -1"),
        ({"unseen": np.nan}, "unseen: expected a share from 0 to below 1 or a number of users, got nan"),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
        ({"unseen": True}, "unseen: expected a share from 0 to below 1 or a number of users, got True"),
        ({"unseen": 30}, "unseen: expected 30 unseen users beside at least one seen, but of 30 users"),
        ({"shots": -1}, "shots: expected at least 0, got -1"),
        ({"shots": 500}, "but of 30 users 0 have 500 pairs"),
        ({"test": 1.0}, r"test: expected a share from 0 to below 1, got 1\.0"),
        ({"min_pairs": 500}, "min_pairs, min_groups: no user has 500 pairs of at least 1 groups; the most of any user is 24 "),
        ({"min_groups": 30}, "min_pairs, min_groups: no user has 1 pairs of at least 30 groups; the most of any user is 24 and 22"),
        ({"train_pairs": 0}, "train_pairs: expected at least 1 or None, got 0"),
    ],
)
def test_options_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_users(_pairs(np.random.default_rng(0)), **options)
