"""scripts/ablate_vrf.py and scripts/planted_curve.py at tiny sizes, and the world and the intervals that they share."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)


def _run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def _record(script: str, *arguments: str) -> dict:
    done = _run(script, *arguments)
    assert done.returncode == 0, done.stderr
    *table, line = done.stdout.splitlines()
    record = json.loads(line)
    assert len(table) == 2 + len(record["rows"])
    return record


@pytest.fixture(scope="module")
def world():
    sys.path.insert(0, str(SCRIPTS))
    from benchmarks.planted import plant

    sys.path.remove(str(SCRIPTS))
    return plant(users=150, pairs=30, seed=0, width=8, bases=2, unseen=100, tested=20)


def test_users_are_on_one_side_and_judge_as_planted(world):
    assert (len(world.train), len(world.seen_test), len(world.context), len(world.unseen_test)) == (4500, 3000, 1000, 2000)
    assert not set(world.train.ids) & set(world.context.ids)
    assert set(world.train.ids) == set(world.seen_test.ids)
    assert set(world.context.ids) == set(world.unseen_test.ids)
    for part in (world.train, world.unseen_test):
        stated = 1 / (1 + np.exp(-np.abs(world.truth(part))))  # the chance of the likelier side
        agreed = world.truth(part) > 0
        assert agreed.mean() == pytest.approx(stated.mean(), abs=4 * 0.5 / np.sqrt(len(part)))
        doubtful = stated < 0.75
        assert agreed[doubtful].mean() == pytest.approx(stated[doubtful].mean(), abs=4 * 0.5 / np.sqrt(doubtful.sum()))


def test_the_oracle_is_between_everyone_alike_and_the_truth(world):
    margin, prior = world.oracle()
    alike = world.scores(world.unseen_test) @ prior.mean
    shares = [(logits > 0).mean() for logits in (alike, margin, world.truth(world.unseen_test))]
    assert shares[0] + 0.05 < shares[1] < shares[2]
    np.testing.assert_allclose(prior.mean, world.weights[:150].mean(axis=0), atol=0.1)


def test_intervals_over_seeds_are_students():
    from benchmarks.over_seeds import cell, over_seeds

    found = over_seeds([1.0, 2.0, 3.0])
    assert (found["mean"], found["count"]) == (2.0, 3)
    assert found["high"] - 2.0 == pytest.approx(4.302653 * 1.0 / np.sqrt(3), rel=1e-5)  # t of 2 degrees of freedom
    assert 2.0 - found["low"] == pytest.approx(found["high"] - 2.0)
    assert cell(found, 1, sign="+") == "+2.0 [-0.5, +4.5]"
    with pytest.raises(ValueError, match="values: expected one number per seed"):
        over_seeds([])
    rng = np.random.default_rng(0)
    covered = [abs(found["mean"]) <= found["high"] - found["mean"] for found in map(over_seeds, rng.normal(size=(400, 5)))]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.035)


def test_one_seed_has_no_interval():
    from benchmarks.over_seeds import cell, over_seeds

    assert over_seeds([0.7]) == {"mean": 0.7, "count": 1}
    assert cell(over_seeds([0.7])) == "0.700"
    done = _run("evaluate_regions.py", "--users", "40", "--seeds", "1", "--shots", "5", "--methods")
    assert done.returncode == 0, done.stderr
    *table, line = done.stdout.splitlines()
    assert not any("[" in row for row in table)
    assert set(json.loads(line)["rows"][0]["weights"]) == {"mean", "count"}


def test_estimates_and_gaps_are_printed(capsys):
    from benchmarks.table import print_table

    print_table([{"a": 1, "b": {"mean": 0.5, "low": 0.25, "high": 0.75, "count": 3}}, {"a": 2, "c": "x"}])
    assert capsys.readouterr().out.splitlines() == [
        "| a | b | c |",
        "|---|---|---|",
        "| 1 | 0.500 [0.250, 0.750] |  |",
        "| 2 |  | x |",
    ]


def test_a_process_that_dies_is_said_to_have():
    import os

    from benchmarks.apart import apart

    with pytest.raises(RuntimeError, match="_exit: its process ended with 3 and no result"):
        apart(os._exit, 3)  # type: ignore[arg-type]


def test_every_ablation_switches_one_part_off():
    from ablate_vrf import VARIANTS

    from palm.rewards import VRF

    changes = [change for change in VARIANTS.values() if change]
    assert VARIANTS["full"] == {}
    assert all(len(change) == 1 and getattr(VRF(), name) and not value for change in changes for name, value in change.items())
    assert {name for change in changes for name in change} == {"uncertain", "separation", "regulariser", "mixture", "product"}


def test_ablations_are_paired_with_the_full_model():
    from ablate_vrf import VARIANTS

    size = ("--users", "24", "--pairs", "12", "--width", "6", "--bases", "2", "--rank", "2", "--steps", "15", "--seeds", "2")
    rows = _record("ablate_vrf.py", *size)["rows"]
    assert [row["variant"] for row in rows] == list(VARIANTS)
    full = rows[0]
    for part in ("seen", "unseen"):
        assert full[f"{part} gain"] == {"mean": 0, "low": 0, "high": 0, "count": 2}
        for row in rows[1:]:
            assert row[part]["count"] == 2
            assert row[f"{part} gain"]["mean"] == pytest.approx(row[part]["mean"] - full[part]["mean"])
        assert any(row[f"{part} gain"]["mean"] != 0 for row in rows[1:])


def test_more_users_bring_the_basis_nearer_to_the_planted_one():
    size = ("--pairs", "--at-pairs", "20", "--width", "10", "--bases", "2", "--unseen", "80", "--seeds", "2")
    few, many = _record("planted_curve.py", "--users", "10", "120", *size)["rows"]
    assert (few["users"], many["users"], many["pairs"]) == (10, 120, 20)
    assert many["angle"]["mean"] < few["angle"]["mean"] - 5
    assert many["angle"]["mean"] < 20
    assert many["gap"]["mean"] < few["gap"]["mean"]
    for row in (few, many):
        assert row["ours"]["mean"] < row["truth"]["mean"]
        assert row["gap"]["mean"] == pytest.approx(100 * (row["oracle"]["mean"] - row["ours"]["mean"]))


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("ablate_vrf.py", ("--seeds", "0"), "--seeds: expected at least 1, got 0"),
        ("ablate_vrf.py", ("--bases", "9", "--width", "8"), "--bases: expected at most --width 8, got 9"),
        ("planted_curve.py", ("--users", "50", "1"), "--users: expected at least 2, got 1"),
        ("planted_curve.py", ("--users", "--pairs"), "--users, --pairs: expected at least one number, got none"),
    ],
)
def test_bad_arguments_are_refused(script, arguments, message):
    done = _run(script, *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_regions_hold_about_what_they_say_where_bases_are_known() -> None:
    record = _record("evaluate_regions.py", "--users", "150", "--seeds", "2", "--shots", "5", "20", "--methods", "LoRe:rank=4")
    assert [row["pairs"] for row in record["rows"]] == [5, 20]
    for row in record["rows"]:
        assert 0.7 < row["logits, bases known"]["mean"] <= 1
        assert row["logits, LoRe:rank=4"]["mean"] < row["logits, bases known"]["mean"]  # what is unsure of the bases is not in it


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "VPL"), "--methods: expected names out of LoRe, PReF, VRF, got 'VPL'"),
        (("--shots", "-1"), "--shots: expected numbers of at least 0, got -1"),
        (("--level", "1"), "--level: expected a number between 0 and 1, got 1.0"),
        (("--seeds", "0"), "--seeds: expected at least 1, got 0"),
    ],
)
def test_bad_arguments_of_regions_are_refused(arguments: tuple[str, ...], message: str) -> None:
    done = _run("evaluate_regions.py", *arguments)
    assert done.returncode != 0
    assert message in done.stderr
