"""`scripts/bench.py plan`: worlds, the textbook search and the counts are what they say, at tiny sizes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from palm.portfolio import GibbsOracle
from palm.portfolio.grid import random_weights
from palm.portfolio.lazy import lazy_search
from palm.portfolio.pool import solve_all
from palm.portfolio.scheme import proven

SCRIPT = Path(__file__).parents[2] / "scripts/bench.py"


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)


def test_worlds_are_those_of_their_seed_and_differ_in_spread() -> None:
    from benchmarks.plan_world import LEAST_SPREAD, plan_world

    balanced, uneven = (plan_world(name, 1, 3, prompts=50, candidates=20) for name in ("balanced", "uneven"))
    np.testing.assert_array_equal(balanced, plan_world("balanced", 1, 3, prompts=50, candidates=20))
    assert not np.array_equal(balanced, plan_world("balanced", 2, 3, prompts=50, candidates=20))
    spread = uneven.std(axis=(0, 1)) / balanced.std(axis=(0, 1))
    np.testing.assert_allclose(spread, [1, np.sqrt(LEAST_SPREAD), LEAST_SPREAD])
    assert balanced.shape == (50, 20, 3)
    with pytest.raises(ValueError, match="name: expected one of balanced, uneven, got 'flat'"):
        plan_world("flat", 0, 2)


def test_the_textbook_search_takes_the_same_solves_as_ours_without_looking_ahead() -> None:
    from benchmarks.plan_ols import textbook_ols
    from benchmarks.plan_world import plan_world

    oracle = GibbsOracle(plan_world("balanced", 0, 3, prompts=40, candidates=16), 0.1)
    solved, gap = textbook_ols(oracle, 0.04)
    assert gap <= 0.04
    assert abs(solved - len(lazy_search(oracle, epsilon=0.04, delta=0.0, ahead=False)[0])) <= 1


def test_counts_are_the_smallest_that_prove_it() -> None:
    from benchmarks.plan_solves import certified_count, certified_grid
    from benchmarks.plan_world import plan_world

    oracle = GibbsOracle(plan_world("balanced", 0, 2, prompts=40, candidates=16), 0.1)
    draws = random_weights(2, 200, np.random.default_rng(0))
    number = certified_count(oracle, 0.02, lambda n: draws[:n])
    assert number is not None
    assert (
        proven(oracle, solve_all(oracle, draws[:number]), 0.0)[0]
        <= 0.02
        < proven(oracle, solve_all(oracle, draws[: number - 1]), 0.0)[0]
    )
    grid = certified_grid(oracle, 0.02)
    assert grid is not None
    assert grid <= number


def test_an_exhaustive_count_and_the_search_agree_on_the_fewest() -> None:
    from benchmarks.plan_quality import fewest, pool_of

    from palm.portfolio.search import cut_search

    for seed in range(2):
        oracle, pool, epsilon = pool_of(seed)
        assert fewest(oracle, pool, epsilon) == len(cut_search(oracle, epsilon=epsilon, delta=0.0, pool=pool)[1])


def test_ways_of_equal_size_have_that_size() -> None:
    from benchmarks.plan_quality import equal_sizes, spread
    from benchmarks.plan_world import plan_world

    oracle = GibbsOracle(plan_world("balanced", 0, 3, prompts=20, candidates=8), 0.1)
    ways = equal_sizes(oracle, 4, 0)
    assert {len(weights) for name, weights in ways.items() if name != "vertices"} == {4}
    assert len(ways["vertices"]) == 3
    three = spread(3, 4)
    np.testing.assert_allclose(three[0], 1 / 3)
    assert {tuple(row) for row in three[1:]} == {tuple(row) for row in np.eye(3)}


def test_sections_run_and_hold_what_they_say() -> None:
    small = ("--bases", "2", "--epsilons", "0.1", "--tensors", "1", "--prompts", "20", "--candidates", "8")
    sections = ("--sections", "solves", "fewest", "fresh", "bounds")
    done = subprocess.run(
        [sys.executable, SCRIPT, "plan", *small, "--most-bases", "4", *sections],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *table, line = done.stdout.splitlines()
    rows = json.loads(line)["rows"]
    assert len(table) == 2 + len(rows)
    assert {row["section"] for row in rows} == set(sections[1:])
    for row in rows:
        if row["section"] == "solves":
            assert row["K"] <= row["ours"] <= row["palm_grid"]
        if "certified" in row:
            assert row["certified"] <= row["epsilon"] + 1e-5
            assert row["at_least"] <= row["policies"] <= row["solved"]
        if row["section"] == "bounds":
            assert row["equal"] <= row["tensors"]
            assert not row.get("above")
        if row["section"] == "fresh":
            assert row["plan_breaks"] == 0


def test_quality_is_drawn_for_every_number_of_bases(tmp_path: Path) -> None:
    from benchmarks.plan_plots import save_quality

    gaps = {"worst_gap": 0.1, "standard_error": float("nan"), "mean_gap": 0.02, "tensors": 1}
    rows = [
        {"section": "quality", "K": k, "m": m, "way": way, **gaps} for k in (2, 3) for m in (2, 3) for way in ("planned", "random")
    ]
    paths = save_quality([*rows, {"section": "speed"}], tmp_path / "new")
    assert [path.name for path in paths] == ["quality-k2.svg", "quality-k3.svg"]
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert text.startswith("<svg xmlns=")
        assert "planned" in text
        assert "random" in text
    assert save_quality([{"section": "speed"}], tmp_path / "none") == []
    assert not (tmp_path / "none").exists()
