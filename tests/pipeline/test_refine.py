"""`palm refine` in a world whose plan is poor: one policy, planned on four candidates of each prompt, for three kinds of users."""

import multiprocessing
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour_world import write_config
from typer.testing import CliRunner

from palm import cli
from palm.arrays import read_arrays
from palm.artifacts import read_json
from palm.evaluation.measure import Measured
from palm.pipeline import STAGES, Pipeline, PipelineError, load_config
from palm.pipeline.plan_stages import read_tensor
from palm.pipeline.refine_rounds import Part, Policy
from palm.pipeline.refining import refine
from palm.policies.adapters import check_adapter
from palm.portfolio import GibbsOracle, Portfolio
from palm.portfolio.on_prompts import optimal_on
from palm.rewards import reward_tensor
from palm.routing import Router

TARGET = ["refine.epsilon=0.05", "refine.most=3"]


def pipeline_of(config: Path, folder: Path, *settings: str, said: list[str] | None = None) -> Pipeline:
    say = said.append if said is not None else lambda line: None
    return Pipeline(STAGES, load_config(config, [f"output={folder}", *TARGET, *settings]), say=say)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of the colour world, measured but not refined: its configuration and folder."""
    folder = tmp_path_factory.mktemp("colours")
    config = write_config(folder)
    pipeline_of(config, folder / "run").run()
    return config, folder / "run"


@pytest.fixture(scope="module")
def refined(colours: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """A copy of it, refined: configuration, folder and what was said."""
    folder, said = tmp_path_factory.mktemp("refined") / "run", list[str]()
    shutil.copytree(colours[1], folder)
    assert refine(pipeline_of(colours[0], folder, said=said)) == folder / "refine" / "served"
    return colours[0], folder, said


def record_of(folder: Path) -> dict[str, Any]:
    return dict(read_json(folder / "refine" / "served" / "refine.json"))


def test_the_gap_shrinks_on_prompts_that_no_decision_saw(refined: Any) -> None:
    _, folder, said = refined
    record = record_of(folder)
    gap = record["certifying"]
    assert gap["after"]["mean"] < 0.6 * gap["before"]["mean"]
    assert gap["fall"]["mean"] == pytest.approx(gap["before"]["mean"] - gap["after"]["mean"])
    unpaired = gap["before"]["low"] - gap["after"]["high"]
    assert unpaired < gap["fall"]["low"] < gap["fall"]["mean"], "prompts that are hard for one portfolio are hard for the other"
    assert gap["after_at_most"] is None or gap["after_at_most"] > gap["after"]["mean"]
    assert record["stopped"] == "budget spent"
    assert len(record["rounds"]) == 3
    for row in record["rounds"]:
        for part in row["gap"].values():
            assert part["after"]["mean"] <= part["before"]["mean"] + 1e-12, "one more policy never makes the gap larger"
            assert part["before"]["low"] <= part["before"]["high"]
        assert row["seconds"]["training"] > 0
        assert row["steps"] == 25
    rows = record["prompts"]
    assert sorted(rows["choosing"] + rows["certifying"]) == list(range(56))
    assert "28 held-out prompts choose, 28 others certify" in said[0]
    assert any(line.startswith("refine: round 3: refined-3 from ") for line in said)


def test_the_result_is_counted_from_the_certifying_prompts_alone(refined: Any) -> None:
    """Values, KL costs, reference and worst gap once more, from the files of measure and of the rounds; the gap on a grid."""
    _, folder, _ = refined
    record = record_of(folder)
    portfolio = Portfolio.from_pretrained(folder / "refine" / "served" / "portfolio")
    rows = np.array(record["prompts"]["certifying"])
    tensor = read_tensor(folder / "score", "held_out").select(rows)
    oracle = GibbsOracle(tensor.rewards, portfolio.kl, mask=tensor.mask)
    files = {"policy-0": folder / "measure"} | {
        row["id"]: folder / "refine" / "rounds" / str(row["round"]) for row in record["rounds"]
    }
    assert list(portfolio.ids) == record["served"]
    for place, name in enumerate(portfolio.ids):
        arrays = read_arrays(files[name] / f"values-{name}.safetensors")
        np.testing.assert_allclose(portfolio.value[place], arrays["value"][rows].mean(axis=0))
        np.testing.assert_allclose(portfolio.cost[place], 0.2 * arrays["kl"][rows].mean())
    np.testing.assert_allclose(portfolio.reference, oracle.reference)
    steps = 40
    grid = np.array([[a, b, steps - a - b] for a in range(steps + 1) for b in range(steps + 1 - a)]) / steps
    worst = (oracle.optimum(grid) / portfolio.served(grid) - 1).max()
    assert portfolio.certificate is not None
    assert worst <= portfolio.certificate.epsilon + 1e-12
    assert worst == pytest.approx(portfolio.certificate.epsilon, rel=0.1)
    assert record["certifying"]["after"]["mean"] == pytest.approx(portfolio.certificate.epsilon)
    assert portfolio.confidence is not None
    assert portfolio.confidence.prompts == 28


def test_intervals_of_few_prompts_hold_the_truth() -> None:
    """Resampling pushes a worst case upwards: plain percentiles of 20 prompts hold it in 75 % of such worlds."""
    rng = np.random.default_rng(0)
    weights = np.array([[0.7, 0.3], [0.3, 0.7]])

    def world(prompts: int) -> tuple[Part, list[Policy]]:
        tensor = reward_tensor(rng.beta(0.5, 0.8, size=(prompts * 6, 2)), [6] * prompts)
        oracle = GibbsOracle(tensor.rewards, 0.1, mask=tensor.mask)
        best = optimal_on(weights, tensor.rewards, tensor.mask, 0.1)
        value = best.value - 0.03 + 0.05 * rng.normal(size=best.value.shape)
        made = [Measured(value[number], best.cost[number] / 0.1) for number in range(2)]
        names = [f"policy-{number}" for number in range(2)]
        policies = [Policy(name, *parts) for name, *parts in zip(names, weights, [Path()] * 2, made, strict=True)]
        return Part(np.arange(prompts), tensor, oracle), policies

    part, policies = world(20_000)
    truth = part.gap(policies, delta=0.0, draws=2, seed=0).mean
    found = []
    for seed in range(150):
        part, policies = world(20)
        found.append(part.gap(policies, delta=0.0, draws=120, seed=seed))
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.9


def test_each_round_trains_at_the_worst_weight_of_the_prompts_that_choose(refined: Any) -> None:
    _, folder, _ = refined
    record = record_of(folder)
    rows = np.array(record["prompts"]["choosing"])
    tensor = read_tensor(folder / "score", "held_out").select(rows)
    oracle = GibbsOracle(tensor.rewards, 0.2, mask=tensor.mask)
    arrays = [read_arrays(folder / "measure" / "values-policy-0.safetensors")]
    steps = 40
    grid = np.array([[a, b, steps - a - b] for a in range(steps + 1) for b in range(steps + 1 - a)]) / steps
    spent: list[np.ndarray] = []
    for row in record["rounds"]:
        folded = np.array([each["value"][rows].mean(axis=0) - 0.2 * each["kl"][rows].mean() for each in arrays])
        vectors = np.vstack([folded, oracle.reference])

        def gap(weights: np.ndarray, vectors: np.ndarray = vectors) -> np.ndarray:
            return oracle.optimum(weights) / (weights @ vectors.T).max(axis=1) - 1

        own = np.array(row["weight"])
        if not spent:
            assert gap(own[None, :])[0] >= gap(grid).max() - 1e-12
            assert row["gap"]["choosing"]["before"]["mean"] == pytest.approx(gap(own[None, :])[0])
        if not row["helped"]:
            spent.append(own)
        name = row["id"]
        arrays.append(read_arrays(folder / "refine" / "rounds" / str(row["round"]) / f"values-{name}.safetensors"))


def test_training_begins_at_the_nearest_adapter(refined: Any) -> None:
    """In L1 distance, among all that were trained before; the plan's single policy is the only one for round 1."""
    _, folder, _ = refined
    known = {"policy-0": Portfolio.from_pretrained(folder / "plan").weights[0]}
    for row in record_of(folder)["rounds"]:
        distance = {name: np.abs(weight - np.array(row["weight"])).sum() for name, weight in known.items()}
        assert distance[row["start"]] == pytest.approx(min(distance.values()))
        known[row["id"]] = np.array(row["weight"])


def test_commands_read_what_it_leaves(refined: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _, folder, _ = refined
    served = folder / "refine" / "served" / "portfolio"
    portfolio = Portfolio.from_pretrained(served)
    assert {path.name for path in (served / "policies").iterdir()} == set(portfolio.ids)
    for name in portfolio.ids:
        check_adapter(served / "policies" / name, base_model="colours")
    weights = np.eye(3)
    assert set(Router.from_pretrained(served).route(weights).policy) <= {*portfolio.ids, "reference"}
    said = {}
    for command in (["show", served], ["route", served, "--weight", "0,1,0"], ["verify", served, "--weights", "2000"]):
        monkeypatch.setattr(sys, "argv", ["palm", *map(str, command)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said[command[0]] = capsys.readouterr().out
        assert ended.value.code == 0, said[command[0]]
    assert "over all prompts drawn like 28 on which nothing was chosen" in said["show"]
    assert "score/held_out.safetensors" in said["verify"]
    assert "0 fail" in said["verify"]


def times(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_again_it_does_nothing_and_with_a_larger_budget_it_goes_on(refined: Any, tmp_path: Path) -> None:
    config, before, _ = refined
    folder, said = tmp_path / "run", list[str]()
    shutil.copytree(before, folder)
    rounds = folder / "refine" / "rounds"
    kept = times(rounds)
    refine(pipeline_of(config, folder, "refine.most=1", said=said))
    assert "refine: round 1 done before, nothing changed" in said
    assert times(rounds) == kept, "rounds beyond a smaller budget stay"
    assert len(record_of(folder)["rounds"]) == 1
    refine(pipeline_of(config, folder, "refine.epsilon=5", said=said))
    assert record_of(folder)["stopped"] == "target reached"
    assert record_of(folder)["served"] == ["policy-0"]
    (rounds / "3" / "refined-3" / "adapter_model.safetensors").write_bytes(b"damaged")
    refine(pipeline_of(config, folder, "refine.most=4"))
    assert {name: time for name, time in times(rounds).items() if name[0] in "12"} == {
        name: time for name, time in kept.items() if name[0] in "12"
    }
    again, first = record_of(folder)["rounds"], record_of(before)["rounds"]
    assert len(again) >= 3
    for row, same in zip(again, first, strict=False):
        assert {**row, "seconds": None} == {**same, "seconds": None}


@pytest.mark.slow
def test_killed_within_a_round_it_goes_on_and_ends_the_same(colours: Any, refined: Any, tmp_path: Path) -> None:
    """Killed when round 2 has its adapter and no values: round 1 and that adapter stay, and nothing unfinished is in place."""
    config, uninterrupted, _ = refined
    folder = tmp_path / "run"
    shutil.copytree(colours[1], folder)
    rounds = folder / "refine" / "rounds"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["palm.cli", "palm.pipeline.refining", "palm.policies.trainer", "peft"])
    process = context.Process(target=work, args=(config, folder))
    process.start()
    deadline = time.monotonic() + 90
    while not (inside := list(rounds.glob(".2.partial/*/refined-2/adapter_model.safetensors"))):
        assert process.is_alive(), "the process ended before it was where it is to be killed"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.join(90)
    assert process.exitcode == -signal.SIGKILL
    assert sorted(path.name for path in rounds.iterdir() if not path.name.startswith(".")) == ["1"]
    assert not (folder / "refine" / "served").exists()
    kept = {name: time for name, time in times(rounds).items() if name.startswith("1/")}
    kept["2/refined-2/adapter_model.safetensors"] = inside[0].stat().st_mtime_ns
    refine(pipeline_of(config, folder))
    now = times(rounds)
    assert kept.items() <= now.items(), "what was finished was made again"
    for number in ("1", "2", "3"):
        name = f"{number}/refined-{number}/adapter_model.safetensors"
        assert (rounds / name).read_bytes() == (uninterrupted / "refine" / "rounds" / name).read_bytes()
    assert record_of(folder)["certifying"] == record_of(uninterrupted)["certifying"]
    assert not [path for path in (folder / "refine").iterdir() if path.name.startswith(".")]


def work(config: Path, folder: Path) -> None:
    refine(pipeline_of(config, folder))


def test_bad_input_is_told_before_work_begins(colours: Any, tmp_path: Path) -> None:
    config, folder = colours
    with pytest.raises(PipelineError, match="refine: expected stage measure to be done, it is waiting; `palm run` does it all"):
        refine(pipeline_of(config, tmp_path / "none"))
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    with pytest.raises(PipelineError, match=r"refine.share, candidates.held_out: expected at least 2 .* got 1 and 55"):
        refine(pipeline_of(config, copy, "refine.share=0.02"))
    with pytest.raises(PipelineError, match="refine: expected stage measure to be done, it is stale"):
        refine(pipeline_of(config, copy, "measure.samples=3"))
    assert not (copy / "refine").exists()


def test_several_processes_are_refused(colours: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(PipelineError, match="refine: expected one process, got 2"):
        refine(pipeline_of(*colours))


def test_help_teaches() -> None:
    result = CliRunner().invoke(cli.app, ["refine", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    text = " ".join(result.output.split())
    assert "trains one more policy at the worst weight" in text
    assert "some choose weights and members, the others only certify" in text
    assert "most: further members, at most" in text
    assert "epsilon=0.05" in text
