"""`scripts/bench.py fit` and `rewards`: what they compare is what they say, at tiny sizes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from palm.rewards import METHODS, LoRe
from palm.rewards.logistic import Standardised
from palm.rewards.lore_published import fit_published

SCRIPT = Path(__file__).parents[2] / "scripts/bench.py"
WORLD = {"users": 12, "pairs": 10, "width": 16, "rank": 2}


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)


def _rows(*arguments: str) -> list[dict]:
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    *table, line = done.stdout.splitlines()
    rows = json.loads(line)["rows"]
    assert len(table) == 2 + len(rows)
    return rows


def test_the_world_is_read_as_it_was_written(tmp_path: Path) -> None:
    from benchmarks.fit_world import HELD_OUT, read_world, write_world

    oracle = write_world(str(tmp_path), **WORLD, texts=None)["oracle"]
    pairs, held_out = read_world(str(tmp_path))
    assert (len(pairs), len(held_out), pairs.width) == (120, 12 * HELD_OUT, 16)
    rows = np.concatenate([side for part in (pairs, held_out) for side in (part.chosen_row, part.rejected_row)])
    assert len(np.unique(rows)) == len(rows) == len(pairs.items)  # every pair has texts of its own
    assert 0.7 < oracle < 1
    assert pairs.items._parts[0].dtype == np.float16
    assert isinstance(pairs.items._parts[0], np.memmap)
    assert len(read_world(str(tmp_path), users=5)[0]) == 50


@pytest.mark.parametrize("texts", [None, 15])
def test_the_published_procedure_is_the_preset_step_by_step(tmp_path: Path, texts: int | None) -> None:
    """Pair by pair or text by text, with torch: the same bases as palm's preset makes of the same draws."""
    from benchmarks.fit import published
    from benchmarks.fit_world import read_world, write_world

    write_world(str(tmp_path), **WORLD, texts=texts)
    runs = [published(str(tmp_path), rank=2, steps=30, by_texts=by_texts, seed=3) for by_texts in (False, True)]
    np.testing.assert_allclose(runs[0]["losses"], runs[1]["losses"], rtol=1e-3)
    pairs, _ = read_world(str(tmp_path))
    data = Standardised.of(pairs)
    for steps in (1, 30):
        bases, weights = fit_published(data, 2, "joint", np.ones(16), steps=steps, seed=3)
        margin = (data.scores(bases) * weights[pairs.code]).sum(axis=1)
        assert runs[0]["losses"][steps] == pytest.approx(np.logaddexp(0, -margin).mean(), rel=1e-3)
    assert runs[0]["losses"][-1] < runs[0]["losses"][0]


def test_our_row_states_the_fit_that_it_timed(tmp_path: Path) -> None:
    from benchmarks.fit import ours
    from benchmarks.fit_world import read_world, write_world

    write_world(str(tmp_path), **WORLD, texts=15)
    options = {"rank": 2, "penalty": 3.0, "personal_penalty": 1.0}
    found = ours(str(tmp_path), options)
    pairs, held_out = read_world(str(tmp_path))
    model = LoRe(**options).fit(pairs)
    assert found["held_out"] == pytest.approx((model.margin(held_out, model.users) > 0).mean())
    assert found["train_loss"] < np.logaddexp(0, -model.margin(pairs, model.users)).mean()  # with weights that no prior holds back
    assert found["penalties"] == [3.0, 1.0]


def test_times_until_a_loss() -> None:
    from benchmarks.fit import Opponent

    opponent = Opponent(reading=10.0, step=2.0, losses=np.array([0.7, 0.8, 0.5, 0.6, 0.4]))
    assert opponent.whole == 18
    assert [opponent.until(loss) for loss in (0.7, 0.65, 0.5, 0.4, 0.3)] == [10, 14, 14, 18, 18]


def test_fit() -> None:
    size = ("--users", "12", "--pairs", "10", "--width", "16", "--rank", "2", "--texts", "15", "--steps", "40")
    rows = _rows("fit", *size, "--worlds", "repeated")
    slow, fast, *mine = rows
    assert (slow["way"], fast["way"]) == ("published", "published, by texts")
    assert slow["train_loss"] == fast["train_loss"]
    assert (slow["steps_timed"], fast["steps_timed"]) == (20, 40)
    assert fast["held_out"] <= fast["best_held_out"] < 1
    assert [row["pairs"] for row in mine] == [120, 120, 120, 60, 30]
    for row in mine:
        assert row["us_per_pair"] == pytest.approx(1e6 * row["seconds"] / row["pairs"], rel=0.02)
        assert 0 < row["peak_gib"] < slow["peak_gib"]  # each in a process of its own: only theirs needs torch
        assert ("ratio" in row) == (row["pairs"] == 120)
        if "ratio" in row:
            assert row["whole"] == pytest.approx(slow["seconds"] / row["seconds"], rel=0.03)
            assert row["whole_by_texts"] == pytest.approx(fast["seconds"] / row["seconds"], rel=0.03)
            assert 0 < row["ratio"] <= row["whole"]
    assert mine[0]["train_loss"] <= slow["train_loss"]
    assert mine[0]["ratio"] > 0.9 * mine[0]["whole"] * 39 / 40  # nothing but the end of their way is as good
    assert mine[1]["train_loss"] == mine[2]["train_loss"] > mine[0]["train_loss"]  # penalties chosen, and the same ones given


def test_rewards() -> None:
    rows = _rows(
        "rewards",
        "--users",
        "40",
        "--pairs",
        "16",
        "--width",
        "8",
        "--bases",
        "2",
        "--methods",
        "LoRe",
        "Given",
        "VRF",
        "--steps",
        "5",
    )
    assert [row["method"] for row in rows] == ["LoRe", "Given (true basis)", "VRF", "truth"]
    lore, given, vrf, truth = rows
    for part in ("seen", "unseen@10"):
        assert truth[part]["mean"] > given[part]["mean"] > 0.6
        assert lore[part]["mean"] > vrf[part]["mean"]  # five steps teach nothing
        assert lore[part]["low"] < lore[part]["mean"] < lore[part]["high"]
    assert vrf["peak_gib"] > lore["peak_gib"] + 0.05  # each in a process of its own: only one of them needs torch
    assert lore["fit_s"] > 0
    assert lore["adapt_ms"] > 0


def test_every_method_has_a_row() -> None:
    from benchmarks.rewards import TRAINED, _measure

    assert set(TRAINED) < set(METHODS)
    size = {"users": 12, "pairs": 8, "width": 4, "bases": 2, "seed": 0}
    for name in METHODS:
        row = _measure(name, size, 2)
        assert row["seen"]["count"] == 12
        assert row["unseen@10"]["count"] == 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit", "--pairs", "3"), "argument --pairs: expected at least 4, got 3"),
        (("fit", "--worlds", "both"), "invalid choice: 'both'"),
        (("rewards", "--users", "1"), "argument --users: expected at least 2, got 1"),
        (("rewards", "--methods", "Lore"), "invalid choice: 'Lore'"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[str, ...], message: str) -> None:
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert message in done.stderr
