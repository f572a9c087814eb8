"""palm.pipeline.baselines and its script, on the tiny run."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trained import bytes_of

from palm.artifacts import read_json
from palm.evaluation.best_of import best_of
from palm.pipeline.baseline_families import spread_weights
from palm.pipeline.baselines import compare_baselines
from palm.pipeline.finished import FinishedRun
from palm.pipeline.plan_stages import oracle_for
from palm.pipeline.runner import PipelineError
from palm.policies.adapters import check_adapter
from palm.simplex import nearest, sample_simplex

SCRIPT = Path(__file__).parents[2] / "scripts" / "evaluate_baselines.py"


@pytest.fixture(scope="module")
def run(tiny_run: Any, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    folder = tmp_path_factory.mktemp("baselines") / "run"
    shutil.copytree(tiny_run.folder, folder)
    return FinishedRun.read(folder)


@pytest.fixture(scope="module")
def found(run: FinishedRun) -> dict[str, Any]:
    return compare_baselines(run, weights=3, most=4)


def test_every_family_is_measured_on_the_same_weights(run: FinishedRun, found: dict[str, Any]) -> None:
    names = [row["baseline"] for row in found["rows"]]
    assert names[0] == "portfolio"
    assert {"basis members", "rewarded soup", "soup of members", "decoding (MOD)"} <= set(names)
    assert any(name.startswith("best of ") for name in names)
    weights = np.array(found["weights"])
    assert weights.shape == (3, 2)
    np.testing.assert_allclose(weights[0], run.portfolio.certificate.worst_weight)
    np.testing.assert_allclose(found["optimum"], oracle_for(run.tensor, run.portfolio.kl).optimum(weights))
    assert [row["adapters"] for row in found["rows"] if row["baseline"] in ("basis members", "rewarded soup")] == [2, 2]
    assert next(row["adapters"] for row in found["rows"] if row["baseline"] == "soup of members") == len(run.portfolio)


def test_numbers_are_utilities(run: FinishedRun, found: dict[str, Any]) -> None:
    weights = np.array(found["weights"])
    base = np.array(found["reference"])
    rows = {row["baseline"].split(" of ")[0]: row for row in found["rows"]}
    served = run.portfolio.served(weights)
    assert rows["portfolio"]["gain"]["mean"] == pytest.approx((served - base).mean(), abs=1e-9)
    assert rows["portfolio"]["less_than_portfolio"]["mean"] == 0
    n = int(next(row["baseline"] for row in found["rows"] if row["baseline"].startswith("best of")).split()[-1])
    utility = [best_of(run.tensor, weight, n).utility(weight, run.portfolio.kl).mean for weight in weights]
    assert rows["best"]["gain"]["mean"] == pytest.approx((np.array(utility) - base).mean(), abs=1e-9)
    exact = run.portfolio.certificate
    assert rows["portfolio"]["epsilon"]["mean"] == pytest.approx(exact.epsilon, abs=1e-9)
    assert rows["portfolio"]["captured_gain"]["mean"] == pytest.approx(exact.captured_gain, abs=1e-9)
    members = rows["basis members"]
    assert members["captured_gain"]["mean"] <= members["worst_share"] + 1e-4, "no test weight is worse than the worst of all"
    assert members["epsilon"]["low"] <= members["epsilon"]["mean"] <= members["epsilon"]["high"]
    for row in found["rows"]:
        assert ("epsilon" in row) == (row["serving"] in ("1 adapter", "merged")), "a policy for every weight has no certificate"
        less = rows["portfolio"]["gain"]["mean"] - row["gain"]["mean"]
        assert row["less_than_portfolio"]["mean"] == pytest.approx(less, abs=1e-9)
        assert row["share_of_gain"] == pytest.approx(row["gain"]["mean"] / (np.array(found["optimum"]) - base).mean(), abs=1e-4)
        assert row["kl"] >= 0


def test_adapters_are_kept_and_not_trained_again(run: FinishedRun, found: dict[str, Any]) -> None:
    (adapters,) = (run.folder / "evaluation" / "baselines").glob("*/adapters")
    made = sorted(path.name for path in adapters.iterdir() if path.is_dir() and not path.name.startswith("."))
    assert set(made) <= {"basis-0", "basis-1"}
    for name in made:
        check_adapter(adapters / name, base_model="tiny-base")
    stamps = [(adapters / name / "adapter_model.safetensors").stat().st_mtime_ns for name in made]
    again = compare_baselines(FinishedRun.read(run.folder), weights=3, families=["basis"])
    assert stamps == [(adapters / name / "adapter_model.safetensors").stat().st_mtime_ns for name in made]
    expected = next(row for row in found["rows"] if row["baseline"] == "basis members")
    assert again["rows"][1] == expected


def test_other_test_weights_get_soups_and_mixtures_of_their_own(run: FinishedRun, found: dict[str, Any]) -> None:
    families = ["soup", "mod"]
    other, again = (compare_baselines(run, weights=3, families=families, seed=seed) for seed in (1, 0))
    assert other["weights"] != found["weights"] == again["weights"]
    for row, anew in zip(again["rows"], other["rows"], strict=True):
        assert row == next(first for first in found["rows"] if first["baseline"] == row["baseline"])
        assert row["gain"] != anew["gain"]


def test_a_run_measured_anew_with_other_texts(run: FinishedRun, found: dict[str, Any]) -> None:
    """Its adapters are kept, and what the policies wrote before is not taken for what they write now."""
    fewer = replace(run.config, measure=replace(run.config.measure, samples=run.config.measure.samples - 1))
    before = set((run.folder / "evaluation" / "baselines").glob("*"))
    anew = compare_baselines(FinishedRun(run.folder, fewer), weights=3, families=["soup", "mod"])
    assert set((run.folder / "evaluation" / "baselines").glob("*")) == before
    for row in anew["rows"][1:]:
        assert row["gain"] != next(first["gain"] for first in found["rows"] if first["baseline"] == row["baseline"])


def test_weights_that_nothing_was_planned_for(run: FinishedRun) -> None:
    found = compare_baselines(run, weights=3, families=["uniform", "random"])
    assert [row["baseline"] for row in found["rows"]] == ["portfolio", "uniform weights", "random weights"]
    (adapters,) = (run.folder / "evaluation" / "baselines").glob("*/adapters")
    trained = {path.name.removesuffix(".log.json"): np.array(read_json(path)["weight"]) for path in adapters.glob("*-*.log.json")}
    for prefix, row in zip(("spread", "drawn"), found["rows"][1:], strict=True):
        own = [weight for name, weight in trained.items() if name.startswith(prefix)]
        assert len(own) == row["adapters"] == len(run.portfolio)
        np.testing.assert_allclose(np.sum(own, axis=1), 1)
        assert row["epsilon"]["mean"] >= 0


def test_baselines_go_on_from_where_the_members_did(run: FinishedRun) -> None:
    start = run.folder / "route" / "portfolio"
    slow = run.config.train.dpo | {"learning_rate": 1e-30, "max_steps": 1}
    started = FinishedRun(run.folder, replace(run.config, train=replace(run.config.train, start=str(start), match_kl=0, dpo=slow)))
    before = set((run.folder / "evaluation" / "baselines").glob("*"))
    compare_baselines(started, weights=1, families=["random"])
    (made,) = set((run.folder / "evaluation" / "baselines").glob("*")) - before
    for count in range(len(run.portfolio)):
        weight = np.array(read_json(made / "adapters" / f"drawn-{count}.log.json")["weight"])
        near = start / "policies" / run.portfolio.ids[nearest(run.portfolio.weights, weight)]
        assert bytes_of(made / "adapters" / f"drawn-{count}")[1] == bytes_of(near)[1]


@pytest.mark.parametrize(("bases", "count"), [(1, 1), (2, 3), (3, 4), (4, 6), (3, 40)])
def test_spread_weights_leave_no_weight_far_away(bases: int, count: int) -> None:
    spread = spread_weights(bases, count, seed=0)
    assert spread.shape == (count, bases)
    assert (spread >= 0).all()
    np.testing.assert_allclose(spread.sum(axis=1), 1)
    rng = np.random.default_rng(1)
    everyone = sample_simplex(2000, bases, rng)

    def farthest(weights: np.ndarray) -> float:
        return float(np.linalg.norm(everyone[:, None] - weights, axis=2).min(axis=1).max())

    assert farthest(spread) <= np.median([farthest(sample_simplex(count, bases, rng)) for _ in range(21)]) + 1e-12


def test_the_script_prints_a_table_and_a_record(run: FinishedRun) -> None:
    command = [sys.executable, str(SCRIPT), str(run.folder), "--families", "best-of-n", "--weights", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout.splitlines()[-1])
    assert [row["adapters"] for row in record["rows"]] == [len(run.portfolio), 0]
    wrong = subprocess.run([*command, "--families", "magic"], capture_output=True, text=True, timeout=120, check=False)
    assert wrong.returncode == 2
    assert "families: expected names out of singles" in wrong.stderr


def test_what_cannot_be_compared(run: FinishedRun) -> None:
    with pytest.raises(ValueError, match="weights: expected at least 1, got 0"):
        compare_baselines(run, weights=0)
    pool = FinishedRun(run.folder, replace(run.config, candidates=replace(run.config.candidates, source="pool")))
    with pytest.raises(PipelineError, match="expected a run with trained policies and sampled candidates"):
        compare_baselines(pool)
