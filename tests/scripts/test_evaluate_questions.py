"""scripts/evaluate_questions.py: chosen questions against random ones, on planted worlds and on ratings."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from palm.evaluation.asking import question_curve
from palm.evaluation.tasks import Task

SCRIPT = Path(__file__).parents[2] / "scripts/evaluate_questions.py"


def _run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 users of two opposite tastes for 8 items that tell much, and none for 16 that tell nothing."""
    rng = np.random.default_rng(0)
    taste = np.concatenate([3 * rng.choice([-1.0, 1.0], size=8), np.zeros(16)])
    path = tmp_path_factory.mktemp("ratings") / "ratings.csv"
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["user", "item", "score"])
        for user in range(100):
            sign = 1 if user % 2 else -1
            out.writerows((f"u{user:03d}", f"i{item}", round(sign * taste[item] + rng.normal(), 3)) for item in range(24))
    return path


def test_a_chosen_question_tells_more_than_a_random_one(ratings: Path) -> None:
    done = _run("ratings", ratings, "--users", "60", "40", "--method", "LoRe:rank=2", "--questions", "0", "1", "2")
    assert done.returncode == 0, done.stderr
    *table, line = done.stdout.splitlines()
    record = json.loads(line)
    rows = record["rows"]
    assert record["features"] == "identity"  # as scripts/evaluate_rewards.py says it
    assert len(table) == 2 + len(rows)
    assert [row["questions"] for row in rows] == [0, 1, 2]
    nobody, one, two = rows
    assert nobody["information"] == nobody["random"] == nobody["design"]  # nothing asked, nothing known
    assert one["information - random"]["low"] > 0.02
    assert one["information - random of twice as many"]["mean"] == pytest.approx(one["information"]["mean"] - two["random"]["mean"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ratings",), "file: expected one for 'ratings', got none"),
        (("planted", "--questions", "-1"), "--questions: expected numbers of at least 0, got [-1]"),
        (("ratings", "none.csv", "--users", "5", "-1"), "--users: expected at least 1 seen and 1 unseen, got 5 and -1"),
        (("planted", "--seeds", "0"), "--seeds: expected at least 1, got 0"),
        (("planted", "--method", "Lore"), "expected names out of BradleyTerry, LoRe"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[str, ...], message: str) -> None:
    done = _run(*arguments)
    assert done.returncode != 0
    assert message in done.stderr


def test_a_method_without_scores_of_pairs_cannot_ask(make_pairs_task: Task) -> None:
    with pytest.raises(TypeError, match="model: expected one with pair_scores"):
        question_curve(lambda seed: make_pairs_task, "BradleyTerry", budgets=[1], seeds=[0])


@pytest.fixture
def make_pairs_task() -> Task:
    from palm.features.pairs import PairFeatures

    rng = np.random.default_rng(0)

    def pairs(ids: list[str]) -> PairFeatures:
        user = np.repeat(ids, 6)
        return PairFeatures(user=user, chosen=rng.normal(size=(len(user), 3)), rejected=rng.normal(size=(len(user), 3)))

    return Task(pairs(["a", "b"]), pairs(["a", "b"]), pairs(["c", "d"]), pairs(["c", "d"]))
