"""palm.cli: every command has help, errors are one line with status 1, and folders and portfolios can be asked."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers.utils import logging as chatter
from typer.testing import CliRunner

from palm.cli import app, main
from palm.commands.guarded import quiet
from palm.pipeline import STAGES
from palm.portfolio import Portfolio

COMMANDS = ["run", "status", *(stage.name for stage in STAGES)]


def _palm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    """The `palm` command in this process: exit status, output, errors."""
    monkeypatch.setattr(sys, "argv", ["palm", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.fixture
def palm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda *arguments: _palm(capsys, monkeypatch, *map(str, arguments))


@pytest.mark.filterwarnings("ignore:Cannot enable progress bars")
def test_others_are_kept_quiet_even_if_imported_before() -> None:
    """As by scripts, which import what they measure with before they say anything."""
    chatter.enable_progress_bar()
    quiet()
    assert not chatter.is_progress_bar_enabled()


def _help(*arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    assert result.exit_code == 0
    return " ".join(result.output.split())


def test_help_lists_every_command_with_its_summary() -> None:
    text = _help()
    for command in COMMANDS:
        assert f" {command} " in text
    assert "From everyone's pairwise preferences to a few LoRA policies" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    text = _help(command)
    assert f"Usage: palm {command} [OPTIONS]" in text or f"{command} [OPTIONS]" in text
    assert "SETTINGS" in text.upper()


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage.name != "route"], ids=lambda stage: stage.name)
def test_summaries_agree_with_the_pipeline(stage: Any) -> None:
    """The command line repeats them, so that `palm --help` need not import torch."""
    assert f"Run the stage {stage.name} alone: {stage.summary}." in _help(stage.name)


def test_module_is_the_command_and_help_is_light() -> None:
    """In a process of its own: help comes without torch, which takes seconds to import."""
    script = "import sys, runpy; sys.argv = ['palm', '--help']\ntry: runpy.run_module('palm', run_name='__main__')\n"
    script += "except SystemExit as e: print('status', e.code, 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert found.stdout.splitlines()[-1] == "status 0 False", found.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "none.yaml"], "palm: none.yaml: no such file"),
        (["status", "none.yaml"], "palm: none.yaml: no such file"),
        (["run", "TINY", "plan.sise=3"], "TINY: unknown key 'plan.sise'; did you mean plan.size?"),
        (["run", "TINY", "plan.size"], "palm: 'plan.size': expected a setting such as plan.size=4"),
        (["run", "TINY", "seed=x"], "TINY: seed: expected int, got 'x'"),
        (["run", "TINY", "train.dpo.learning_rte=1"], "trl.DPOConfig has no such option; did you mean 'learning_rate'?"),
        (["run", "TINY", "train.lora.r=5"], "palm: train.lora.r: expected one of 8, 16, 32, 64 (what vLLM serves), got 5"),
        (
            ["run", "TINY", "base.sft.max_step=5"],
            "palm: base.sft.max_step: trl.SFTConfig has no such option; did you mean 'max_steps'?",
        ),
        (["run", "TINY", "rewards.method=Lore"], "palm: rewards.method, rewards.compare: expected names out of"),
        (["run", "TINY", "rewards.method=BradleyTerry"], "palm: rewards.method: expected a method with weights on the simplex"),
        (["run", "TINY", "candidates.source=air"], "palm: candidates.source: expected one of 'sample', 'pool', got 'air'"),
        (["run", "TINY", "measure.samples=0"], "palm: measure.samples: expected at least 1, got 0"),
        (["run", "TINY", "base.corpus=web"], "palm: base.corpus: expected one of 'data', 'planted', got 'web'"),
        (["run", "TINY", "output=TINY"], "palm: output: TINY: expected a folder that can be made"),
        (["run", "TINY", "output=NEW", "data.source=none.jsonl"], "palm: none.jsonl: no such file"),
        (
            ["run", "TINY", "output=NEW", "data.planted.bases=9"],
            "palm: data.planted.bases: expected at least 1 and at most 5, got 9",
        ),
        (
            ["plan", "TINY", "output=NEW"],
            "palm: plan: stage score is waiting, `palm score` makes it; `palm run` does it all in order",
        ),
        (["run", "TINY", "output=NEW", "base.model=nobody/nothing"], "palm: model: expected the folder or Hub id of a causal"),
        (["route", "none", "--weight", "0.5,0.5"], "palm: none: no such folder"),
        (["route", "none.yaml"], "palm: none.yaml: no such file"),
    ],
)
def test_errors_are_one_line_and_status_1(palm: Any, tiny_config: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    names = {"TINY": str(tiny_config), "NEW": str(tmp_path / "new")}

    def named(text: str) -> str:
        for name, value in names.items():
            text = text.replace(name, value)
        return text

    status, _, err = palm(*map(named, arguments))
    assert status == 1
    assert named(message) in err
    assert err.startswith("palm: ")
    assert err.count("\n") == 1


def test_debugging_shows_where_an_error_comes_from(palm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALM_DEBUG", "1")
    with pytest.raises(ValueError, match=r"none\.yaml: no such file"):
        palm("run", "none.yaml")


def test_missing_arguments_are_the_users_error(palm: Any) -> None:
    status, _, err = palm("run")
    assert status == 2
    assert "Missing argument" in err
    assert "config" in err.lower()
    assert palm("walk")[0] == 2


def test_run_of_what_is_done_says_so(palm: Any, tiny_run: Any) -> None:
    status, out, err = palm("run", tiny_run.config)
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        *(f"{stage.name}: done before, nothing changed" for stage in STAGES),
        "0 stages run, 11 were done before",
        f"report: {tiny_run.folder / 'report' / 'index.html'}",
        f"portfolio: {tiny_run.folder / 'route' / 'portfolio'}",
    ]


def test_one_stage_runs_by_its_command(palm: Any, tiny_run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.folder, folder)
    before = (folder / "report" / "manifest.json").stat().st_mtime_ns
    status, out, _ = palm("route", tiny_run.config, f"output={folder}", "route.rule=nearest-l1")
    assert status == 0
    assert "(stale: rule changed)" in out
    assert out.splitlines()[-1] == f"route: {folder / 'route'}"
    assert (folder / "report" / "manifest.json").stat().st_mtime_ns == before
    assert palm("data", tiny_run.config, f"output={folder}")[1].startswith("data: done before, nothing changed")


def test_status_tells_every_stages_state(palm: Any, tiny_run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.folder, folder)
    shutil.rmtree(folder / "report")
    (folder / ".report.partial" / "0123").mkdir(parents=True)
    with (folder / "route" / "routes.json").open("a") as file:
        file.write("x")
    status, out, _ = palm("status", tiny_run.config, f"output={folder}")
    states = {line.split()[0]: line.split()[1] for line in out.splitlines()}
    assert status == 0
    assert states == {**dict.fromkeys(COMMANDS[2:-2], "done"), "route": "damaged", "report": "waiting"}
    assert "routes.json: changed or truncated" in out
    shutil.rmtree(folder / "route")
    out = palm("status", tiny_run.config, f"output={folder}", "plan.kl=0.3")[1]
    assert {line.split()[0]: line.split()[1] for line in out.splitlines()}["plan"] == "stale"
    assert "kl changed" in out
    status, out, _ = palm("status", folder)
    states = {line.split()[0]: line.split()[1] for line in out.splitlines()}
    assert states == {**dict.fromkeys(COMMANDS[2:-2], "made"), "route": "missing", "report": "begun"}


def test_status_of_a_folder_tells_damage(palm: Any, tiny_run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.folder, folder)
    (folder / "plan" / "plan.json").unlink()
    (folder / "fit" / "manifest.json").write_text("{")
    out = palm("status", folder)[1]
    assert f"plan     damaged  {folder / 'plan' / 'plan.json'}: missing, but the manifest lists it" in out
    assert f"fit      damaged  {folder / 'fit' / 'manifest.json'}: expected complete JSON" in out


def test_portfolio_is_asked_which_policy_a_weight_goes_to(palm: Any, tiny_run: Any) -> None:
    served = tiny_run.folder / "route" / "portfolio"
    status, out, _ = palm("route", served, "--weight", "1,0", "--weight", "0.25,0.75")
    assert status == 0
    portfolio = Portfolio.from_pretrained(served)
    for line, weight in zip(out.splitlines(), ([1.0, 0.0], [0.25, 0.75]), strict=True):
        utility = max(np.array(weight) @ portfolio.reference, (portfolio.value @ weight - portfolio.cost).max())
        assert f"utility {utility:.4f}, regret at most " in line
        policy = line.split(": ")[1].split(",")[0]
        assert policy in (*portfolio.ids, "reference")


@pytest.mark.parametrize(
    ("weight", "message"),
    [("1;0", "--weight: expected numbers separated by commas, got '1;0'"), ("0.5,0.2,0.3", "weights"), ("0.9,0.9", "weights")],
)
def test_weight_must_be_one_of_the_portfolios(palm: Any, tiny_run: Any, weight: str, message: str) -> None:
    status, _, err = palm("route", tiny_run.folder / "route" / "portfolio", "--weight", weight)
    assert status == 1
    assert message in err
    assert err.count("\n") == 1


def test_summary_of_what_was_read_is_on_disk(tiny_run: Any) -> None:
    summary = json.loads((tiny_run.folder / "data" / "summary.json").read_text())
    assert (summary["pairs"], summary["users"], summary["seen_users"], summary["unseen_users"]) == (288, 24, 20, 4)
    assert summary["unseen_context"] == 16


def test_help_of_a_stage_describes_its_settings() -> None:
    done = subprocess.run([sys.executable, "-m", "palm", "plan", "--help"], capture_output=True, text=True, check=True)
    words = " ".join(done.stdout.split())
    assert "Settings, as plan.NAME=VALUE" in words
    assert "kl: coefficient of the KL cost, in units of reward" in words
    assert "kl=0.1" in words


def test_help_of_a_stage_describes_settings_within_its_settings() -> None:
    done = subprocess.run([sys.executable, "-m", "palm", "data", "--help"], capture_output=True, text=True, check=True)
    words = " ".join(done.stdout.split())
    assert "Settings, as data.planted.NAME=VALUE" in words
    assert "sharpness: a pair whose utilities differ by u is judged that way with probability" in words
    assert "Settings, as data.draw.NAME=VALUE" in words
    assert "alpha=0.1" in words


def test_version() -> None:
    done = subprocess.run([sys.executable, "-m", "palm", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("palm 0.")


@pytest.mark.parametrize("command", ["show", "diff", "verify"])
def test_commands_for_a_portfolio_explain_themselves(command: str) -> None:
    text = _help(command)
    assert f"{command} [OPTIONS]" in text
    assert "portfolio" in text
    assert f" {command} " in _help()


def test_a_runs_plan_is_shown_verified_and_compared(palm: Any, tiny_run: Any) -> None:
    plan, measured, served = (tiny_run.folder / name for name in ("plan", "measure", "route/portfolio"))
    status, out, err = palm("show", plan)
    assert (status, err) == (0, "")
    assert "certificate, for every weight:" in out
    assert "users" in palm("show", served)[1]
    for folder, part in ((plan, "plan"), (plan / "held_out", "held_out"), (measured, "held_out"), (served, "held_out")):
        status, out, err = palm("verify", folder, "--weights", "2000")
        assert (status, err) == (0, ""), out
        assert out.splitlines()[-1].endswith(f"; rewards: {tiny_run.folder.resolve() / 'score' / f'{part}.safetensors'}")
        assert " 0 fail, " in out.splitlines()[-1]
    assert "holds  confidence: the estimate of epsilon" in palm("verify", plan, "--weights", "2000")[1]
    status, out, _ = palm("diff", plan, measured)
    assert status == 0
    assert "origin: planned -> measured" in out
    assert palm("diff", plan, plan)[1] == "nothing changed\n"


def test_a_tampered_portfolio_does_not_verify(palm: Any, tiny_run: Any, tmp_path: Path) -> None:
    record = json.loads((tiny_run.folder / "plan" / "portfolio.json").read_text())
    record["certificate"]["epsilon"] *= 0.9
    (tmp_path / "portfolio.json").write_text(json.dumps(record))
    rewards = tiny_run.folder / "score" / "plan.safetensors"
    status, out, _ = palm("verify", tmp_path, "--rewards", rewards, "--weights", "2000")
    assert status == 1
    assert "FAILS  epsilon" in out
    assert "(SCORE/held_out.safetensors, --held-out)" in out
    held_out = tiny_run.folder / "score" / "held_out.safetensors"
    assert "confidence: the estimate of" in palm("verify", tmp_path, "--held-out", held_out)[1]
    status, out, err = palm("verify", tmp_path / "none")
    assert status == 1
    assert "portfolio.json: no such file" in err
