"""scripts/evaluate_rewards.py: a table and a JSON line for ratings and for pairs, with nothing of a test in the training."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from palm.data.planted import make_world
from palm.evaluation.tasks import judged_texts, pair_task

SCRIPT = Path(__file__).parents[2] / "scripts/evaluate_rewards.py"


def _run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False)


def _rows(*arguments: str | Path) -> tuple[dict, list[dict]]:
    done = _run(*arguments)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout.splitlines()[-1])
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(record["rows"])
    return record, record["rows"]


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 users of two opposite tastes for 24 items."""
    rng = np.random.default_rng(0)
    taste = rng.normal(size=24)
    path = tmp_path_factory.mktemp("ratings") / "ratings.csv"
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["who", "item", "score"])
        for user in range(120):
            sign = 1 if user % 2 else -1
            out.writerows((f"u{user:03d}", f"i{item}", round(sign * taste[item] + rng.normal() * 0.3, 3)) for item in range(24))
    return path


def test_opposite_tastes_are_found_in_ratings(ratings: Path) -> None:
    record, rows = _rows("ratings", ratings, "--columns", "user=who", "--users", "80", "40", "--methods", "LoRe:rank=2")
    assert record["splits"] == [{"seen users": 80, "unseen users": 40, "training pairs": 8000}]
    assert [row["method"] for row in rows] == ["BradleyTerry", "LoRe:rank=2"]
    assert rows[0]["unseen all"]["mean"] == pytest.approx(0.5, abs=0.1)
    assert rows[0]["unseen all gain"]["mean"] == 0
    for part in ("seen", "unseen 10", "unseen 20", "unseen all"):
        assert rows[1][f"{part} gain"]["low"] > 0.2


def test_rated_items_can_be_known_by_their_texts(ratings: Path, tmp_path: Path) -> None:
    """Texts say which of two tastes an item meets; every item needs one."""
    taste, texts = np.random.default_rng(0).normal(size=24), tmp_path / "texts.jsonl"
    options = ["--users", "80", "40", "--columns", "user=who,text=says", "--methods", "LoRe:rank=2", "--texts", texts]
    rows = [{"item": f"i{item}", "says": "sweet and mild" if taste[item] > 0 else "sour and hot"} for item in range(24)]
    texts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    record, found = _rows("ratings", ratings, *options)
    assert record["features"] == "tfidf"
    assert found[1]["unseen all gain"]["low"] > 0.1
    texts.write_text("".join(json.dumps(row) + "\n" for row in rows[1:]), encoding="utf-8")
    done = _run("ratings", ratings, *options)
    assert done.returncode != 0
    assert "texts: expected one for every item, 1 have none; the first is 'i0'" in done.stderr


def test_pairs_are_judged_on_groups_of_their_own(tmp_path: Path) -> None:
    world = make_world(users=30, bases=2, pairs_per_user=40, seed=0)
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps({**row, "group": row["prompt"]}) for row in world.rows))
    record, rows = _rows("pairs", path, "--methods", "LoRe:rank=2", "PReF:rank=2", "--shots", "5", "--dim", "32")
    assert len(rows) == 3
    assert record["splits"][0]["seen users"] + record["splits"][0]["unseen users"] == 30
    for row in rows:
        assert 0.5 < row["seen"]["mean"] < 1
        assert {"unseen 5", "unseen all"} <= set(row)


LEAKS = ["BradleyTerry on length alone", "BradleyTerry on format alone"]


def _leaky_pairs(path: Path, *, longer: bool) -> None:
    """Twenty people who choose at random; the chosen response is the longer one, or as often the shorter one."""
    rng = np.random.default_rng(0)
    words = ["plum", "fig", "pear", "date", "lime", "nut"]
    rows = []
    for number in range(600):
        short = " ".join(rng.choice(words, size=4))
        long = f"{short} {' '.join(rng.choice(words, size=rng.integers(1, 5)))}"
        sides = (long, short) if longer or rng.random() < 0.5 else (short, long)
        names = {"user": f"u{number % 20:02d}", "group": f"g{number % 8}", "prompt": f"p{number % 8}"}
        rows.append({**names, "chosen": sides[0], "rejected": sides[1]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize("longer", [True, False])
def test_leaks_stand_beside_the_methods(tmp_path: Path, longer: bool) -> None:
    """Where the longer side wins length alone says so, on the very same users; where nothing leaks it is chance."""
    path = tmp_path / "pairs.jsonl"
    _leaky_pairs(path, longer=longer)
    arguments = ("pairs", path, "--methods", "LoRe:rank=2", "--shots", "5", "--dim", "8")
    _, rows = _rows(*arguments, "--leaks")
    assert [row["method"] for row in rows] == ["BradleyTerry", "LoRe:rank=2", *LEAKS]
    length = rows[2]
    assert length["unseen all"]["count"] == rows[0]["unseen all"]["count"] == length["unseen all gain"]["count"]
    if longer:
        assert length["seen"]["mean"] == length["unseen all"]["mean"] == 1
    else:
        assert length["unseen all"]["mean"] == pytest.approx(0.5, abs=0.12)
    _, (alone, *_) = _rows(*arguments, "--features", "length")
    assert length["unseen all"] == alone["unseen all"]  # the same splits, fitted as if length had been asked for
    _, without = _rows(*arguments)
    timed = ("fit_seconds", "adapt_ms")
    for row, same in zip(rows[:2], without, strict=True):  # the methods are not touched by what stands beside them
        assert {name: value for name, value in row.items() if name not in timed} == {
            name: value for name, value in same.items() if name not in timed
        }


def test_leaks_of_rated_items_are_those_of_their_texts(ratings: Path, tmp_path: Path) -> None:
    """One of two opposite tastes likes long texts."""
    taste, texts = np.random.default_rng(0).normal(size=24), tmp_path / "texts.jsonl"
    rows = [{"item": f"i{item}", "text": "ha " * (2 + int(10 * np.exp(taste[item])))} for item in range(24)]
    texts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options = ["--users", "80", "40", "--columns", "user=who", "--methods", "LoRe:rank=2", "--texts", texts, "--leaks"]
    record, found = _rows("ratings", ratings, *options, "--features", "length")
    assert record["features"] == "length"
    assert [row["method"] for row in found[2:]] == LEAKS
    assert found[2]["unseen all"] == found[0]["unseen all"]
    assert found[1]["unseen all gain"]["low"] > 0.2  # a taste for length is personal here, which one reward for all cannot say


def test_bases_of_several_seeds_are_compared(ratings: Path) -> None:
    done = _run(
        *("ratings", ratings, "--columns", "user=who", "--users", "70", "30", "--methods", "LoRe:rank=2", "PReF:rank=2"),
        *("--seeds", "3", "--shots", "5"),
    )
    assert done.returncode == 0, done.stderr
    plain, *rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert "basis_angles" not in plain
    for row in rows:
        angles = row["basis_angles"]
        assert [pair["seeds"] for pair in angles] == [[0, 1], [0, 2], [1, 2]]
        assert all(1 <= len(pair["degrees"]) <= 2 for pair in angles)
        assert all(pair["degrees"][-1] < 15 for pair in angles)  # all find the one taste there is
        line = next(line for line in done.stdout.splitlines() if line.startswith(f"{row['method']}: bases of two seeds are "))
        assert f"{np.mean([pair['degrees'][0] for pair in angles]):.1f} by the largest" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "Lore"), "--methods: expected names out of BradleyTerry, LoRe"),
        (("--methods", "LoRe:rnk=2"), "--methods: LoRe has no option 'rnk'; known: rank"),
        (("--users", "0", "10", "--columns", "user=who"), "--users: expected at least 1 seen and 1 unseen, got 0 and 10"),
        (("--users", "-5", "10", "--columns", "user=who"), "--users: expected at least 1 seen and 1 unseen, got -5 and 10"),
        (("--leaks", "--columns", "user=who"), "--leaks: expected --texts, since lengths and formats are those of texts; got none"),
        (("--shots", "-1"), "--shots: expected numbers of at least 0, got -1"),
        (("--columns", "user"), "--columns: expected name=column,name=column, got 'user'"),
        (("--users", "100", "100", "--columns", "user=who"), "users: expected at most 120 altogether, got 100 and 100"),
        ((), "expected a column 'user' for user, got who, item, score"),
    ],
)
def test_bad_arguments_are_refused(ratings: Path, arguments: tuple[str, ...], message: str) -> None:
    done = _run("ratings", ratings, *arguments)
    assert done.returncode != 0
    assert message in done.stderr


def test_users_who_like_everything_alike_give_no_pairs(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text("user,item,score\n" + "".join(f"u{user},i{item},3\n" for user in range(4) for item in range(8)))
    done = _run("ratings", path, "--users", "2", "2")
    assert done.returncode != 0
    assert "train: expected pairs, got none" in done.stderr


def test_groups_that_begin_alike_can_be_held_out_together(tmp_path: Path) -> None:
    """Two stances of one debate: with --group-until nobody's two sides share a debate, so there is less to split."""
    world = make_world(users=12, bases=2, pairs_per_user=40, seed=0)
    path = tmp_path / "pairs.jsonl"
    stances = [f"debate{number % 3}_{number % 2}" for number in range(len(world.rows))]
    rows = [{**row, "group": stance, "prompt": stance} for row, stance in zip(world.rows, stances, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    judged, plain = (judged_texts(str(path), {}, features="length", min_pairs=2, until=until) for until in ("_", ""))
    task = pair_task(judged, apart="user")
    for early, late in ((task.train, task.seen_test), (task.context, task.unseen_test)):
        assert set(np.unique(early.group)) | set(np.unique(late.group)) == {"debate0", "debate1", "debate2"}
        told = set(zip(early.user, early.group, strict=True))
        assert not told & set(zip(late.user, late.group, strict=True))
    assert "debate0_1" in pair_task(plain, apart="user").train.group


def test_groups_are_held_out_of_everyone(tmp_path: Path) -> None:
    """No prompt and no group of a test is in the training, whoever judged it, and users stay apart."""
    world = make_world(users=20, bases=2, pairs_per_user=30, seed=0)
    path = tmp_path / "pairs.jsonl"
    rows = [{**row, "group": f"g{number % 7}", "prompt": f"p{number % 21}"} for number, row in enumerate(world.rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    judged = judged_texts(str(path), {}, features="length", min_pairs=2)
    held_out = set()
    for seed in range(3):
        task = pair_task(judged, seed=seed)
        trained = set(task.train.group) | set(task.context.group)
        tested = set(task.seen_test.group) | set(task.unseen_test.group)
        assert not trained & tested
        assert trained | tested == {f"g{number}" for number in range(7)}
        assert len(tested) == 3  # 30 % of seven groups, just exceeded
        assert not set(task.train.ids) & set(task.context.ids)
        assert set(task.seen_test.ids) <= set(task.train.ids)
        assert set(task.unseen_test.ids) == set(task.context.ids)
        held_out.add(frozenset(tested))
    assert len(held_out) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"apart": "nobody"}, "apart: expected 'everyone' or 'user', got 'nobody'"),
        ({"unseen": 1.0}, "unseen: expected a share between 0 and 1, got 1.0"),
        ({}, "pairs: expected at least two groups that share no prompt, got one"),
    ],
)
def test_groups_that_cannot_be_held_out(tmp_path: Path, options: dict, message: str) -> None:
    world = make_world(users=6, bases=2, pairs_per_user=10, seed=0)
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({**row, "group": "one"}) + "\n" for row in world.rows), encoding="utf-8")
    judged = judged_texts(str(path), {}, features="length", min_pairs=2)
    with pytest.raises(ValueError, match=message):
        pair_task(judged, **options)
    with pytest.raises(ValueError, match="min_pairs: no user has 11 pairs; the most of any user is 10"):
        judged_texts(str(path), {}, features="length", min_pairs=11)
