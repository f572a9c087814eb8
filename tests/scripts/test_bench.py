"""scripts/bench.py measures what it says and prints it twice: for people and as JSON."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/bench.py"


def _bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=300, check=False)


def _rows(*arguments: str) -> list[dict]:
    done = _bench(*arguments)
    assert done.returncode == 0, done.stderr
    *table, line = done.stdout.splitlines()
    rows = json.loads(line)["rows"]
    assert len(table) == 2 + len(rows)
    return rows


def test_steps() -> None:
    rows = _rows("steps", "--responses", "3", "--rounds", "1")
    assert len(rows) == 6
    obvious = next(row for row in rows if row["way"] == "one tensor, fused head")
    for row in rows:
        assert row["responses"] == 3
        assert abs(row["of_obvious"] - row["ms"] / obvious["ms"]) < 0.1


def test_adapt() -> None:
    rows = _rows("adapt", "--users", "30", "200", "--loop-users", "1", "--bases", "3", "--pairs", "4")
    assert [row["users"] for row in rows] == [1, 30, 200, 200]
    for row in rows[1:]:
        assert row["users_per_s"] == pytest.approx(row["users"] / max(row["seconds"], 5e-4), rel=0.6)
        assert row["ratio"] > 1


def test_the_loop_it_is_compared_with_finds_the_same_weights_where_pairs_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The alternative is the published one, not a bad one: with many pairs both end at the likelihood's maximum."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import numpy as np
    from benchmarks.adapt import judged, published_loop

    from palm.rewards.simplex_users import Population, infer_weights

    scores = judged(3, 400, 3)
    ours = infer_weights(scores.reshape(-1, 3), np.repeat(np.arange(3), 400), 3, Population.flat(3, 1e-3))[0]
    np.testing.assert_allclose(published_loop(scores), ours, atol=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("steps", "--responses", "1"), "argument --responses: expected at least 2, got 1"),
        (("adapt", "--bases", "1"), "argument --bases: expected at least 2, got 1"),
        ((), "the following arguments are required: what"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[str, ...], message: str) -> None:
    done = _bench(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_generate() -> None:
    done = _bench("generate", "--members", "1", "3", "--texts", "4", "--new-tokens", "6", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["parameters"] > 900_000
    assert [(row["k"], row["texts"]) for row in found["rows"]] == [(1, 4), (3, 4)]
    for row in found["rows"]:
        assert row["mixed/after another"] == pytest.approx(row["mixed, tokens/s"] / row["after another, tokens/s"], rel=0.02)


def test_train() -> None:
    done = _bench("train", "--members", "1", "2", "--steps", "10", "--batch", "2", "--separate", "1", "--pieces", "2")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["largest_difference_of_losses"] < 1e-3, "together and separate train the same policies"
    assert found["tokens_per_pair"] > 150
    assert [row["k"] for row in found["rows"]] == [1, 2]
    assert found["together_over_separate_k2"] == pytest.approx(found["rows"][1]["together/separate"])
