"""palm.pipeline.finished and evaluate, `palm evaluate`, and the scripts, on the tiny run and on plain files made from it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from palm.artifacts import ArtifactError, read_json, write_json
from palm.cli import main
from palm.pipeline import STAGES, load_config
from palm.pipeline.evaluate import coverage_of_run, diversity_of_run
from palm.pipeline.finished import FinishedRun
from palm.pipeline.plan_stages import oracle_for
from palm.portfolio import certify

SCRIPTS = Path(__file__).parents[2] / "scripts"


def script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def run(tiny_run: Any) -> FinishedRun:
    return FinishedRun.read(tiny_run.folder)


def test_a_run_is_read_without_its_configuration_file(run: FinishedRun, tiny_run: Any) -> None:
    written = load_config(tiny_run.config)
    assert (run.config.base, run.config.train, run.config.plan) == (written.base, written.train, written.plan)
    assert (run.config.candidates, run.config.measure, run.config.rewards) == (written.candidates, written.measure, written.rewards)
    assert run.config.seed == written.seed
    assert run.config.features.pooling == "mean+last"
    assert len(run.users) == 24
    assert set(run.texts) >= set(run.portfolio.ids)


def test_a_run_that_was_trained_online_is_read(tiny_run: Any, tmp_path: Path) -> None:
    """What new texts were scored by stands beside the settings of the training."""
    folder = shutil.copytree(tiny_run.folder, tmp_path / "run")
    config = load_config(tiny_run.config, ["train.objective=rloo", "train.online={max_steps: 2}"])
    stage = next(stage for stage in STAGES if stage.name == "train")
    manifest = read_json(folder / "train" / "manifest.json")
    write_json(folder / "train" / "manifest.json", manifest | {"config": stage.settings(config)})
    assert FinishedRun.read(folder).config.train == config.train


def test_coverage_is_the_certificate_of_what_was_measured(run: FinishedRun) -> None:
    found = coverage_of_run(run, draws=20)
    exact = certify(run.portfolio, oracle_for(run.tensor, run.portfolio.kl))
    worst = found["rows"][0]
    for name in ("epsilon", "delta", "captured_gain"):
        assert worst[name]["mean"] == pytest.approx(getattr(exact, name), abs=1e-9)
    assert found["users"] == 24
    assert found["candidate_bias"] < 0


def test_texts_of_as_many_prompts_as_are_asked_for(run: FinishedRun) -> None:
    """Of those that were measured, too."""
    for prompts in (2, 3):
        found = diversity_of_run(run, draws=20, samples=0, prompts=prompts)["writing"]["policies"]
        assert {row["policy"]: row["texts"] for row in found} == dict.fromkeys(
            (*run.portfolio.ids, "reference"), sum(len(row) for row in run.texts[run.portfolio.ids[0]][:prompts])
        )


@pytest.mark.parametrize("damage", ["nothing there", "stage missing", "file changed", "trained anew"])
def test_what_is_no_finished_run(tiny_run: Any, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "run"
    if damage != "nothing there":
        shutil.copytree(tiny_run.folder, folder)
    if damage == "stage missing":
        shutil.rmtree(folder / "measure")
    elif damage == "file changed":
        (folder / "measure" / "texts.json").write_text("{}")
    elif damage == "trained anew":
        manifest = read_json(folder / "measure" / "manifest.json")
        write_json(folder / "measure" / "manifest.json", manifest | {"inputs": manifest["inputs"] | {"train": "0" * 64}})
    message = {
        "trained anew": "stages that belong together, but measure was made from another train than is there; `palm run` makes it",
        "nothing there": "no such folder",
        "stage missing": "the stage measure is not there; `palm run` makes it",
        "file changed": r"texts\.json: changed or truncated",
    }[damage]
    with pytest.raises(ArtifactError, match=message):
        FinishedRun.read(folder)


def test_the_command_writes_what_it_prints(
    tiny_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.folder, folder)
    options = ["--samples", "2", "--prompts", "3", "--draws", "20", "--no-plots"]
    monkeypatch.setattr(sys, "argv", ["palm", "evaluate", str(folder), *options])
    with pytest.raises(SystemExit) as ended:
        main()
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 0
    record = json.loads(lines[-1])
    assert record == read_json(folder / "evaluation" / "evaluation.json")
    assert (folder / "evaluation" / "evaluation.md").read_text().splitlines() == lines[:-3]
    ids = FinishedRun.read(folder).portfolio.ids
    apart = record["diversity"]["divergence"]
    assert apart["ids"] == ["reference", *ids]
    assert all(apart["kl"][row][column] > 0 for row in range(len(ids)) for column in range(len(ids)) if row != column)
    assert [row["policy"] for row in record["diversity"]["writing"]["policies"]] == ["reference", *ids]
    assert record["diversity"]["independent"]


def test_pictures_are_drawn_from_the_record(tiny_run: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = script("evaluate_diversity.py", tiny_run.folder, "--samples", "1", "--prompts", "2", "--plots", tmp_path, "--draws", "5")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["divergence.svg", "serving.svg"]
    assert "KL(row || column)" in (tmp_path / "divergence.svg").read_text()


@pytest.fixture
def files(run: FinishedRun, tmp_path: Path) -> dict[str, Path]:
    """The run's measured values as plain files: one response a prompt that has the prompt's mean rewards."""

    def lines(rows: list[dict[str, Any]]) -> str:
        return "".join(json.dumps(row) + "\n" for row in rows)

    paths = {}
    tensor, prompts = run.tensor, run.candidates.prompts
    rows = [
        {"prompt": prompt, "responses": texts, "rewards": tensor.rewards[at][tensor.mask[at]].tolist()}
        for at, (prompt, texts) in enumerate(zip(prompts, run.candidates.responses, strict=True))
    ]
    (paths := {"reference": tmp_path / "reference.jsonl"})["reference"].write_text(lines(rows))
    for name in run.portfolio.ids:
        measured = run.measured(name)
        rows = [
            {"prompt": prompt, "responses": run.texts[name][at][:1], "rewards": [value.tolist()], "kl": [kl]}
            for at, (prompt, value, kl) in enumerate(zip(prompts, measured.value, measured.kl.tolist(), strict=True))
        ]
        (tmp_path / f"{name}.jsonl").write_text(lines(rows))
        paths[name] = tmp_path / f"{name}.jsonl"
    paths["users"] = tmp_path / "users.jsonl"
    paths["users"].write_text(lines([{"user": str(i), "weight": w} for i, w in enumerate(run.users.mean.tolist())]))
    return paths


def test_plain_files_give_the_same_coverage(run: FinishedRun, files: dict[str, Path]) -> None:
    policies = [f"--policy={name}={files[name]}" for name in run.portfolio.ids]
    done = script(
        "evaluate_coverage.py",
        *policies,
        "--reference",
        files["reference"],
        "--users",
        files["users"],
        "--kl",
        "0.1",
        "--draws",
        "20",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])["rows"]
    expected = coverage_of_run(run, draws=20)["rows"]
    for row, right in zip(found, expected, strict=True):
        for name in ("epsilon", "delta", "captured_gain"):
            assert [row[name][end] for end in ("mean", "low", "high")] == pytest.approx(
                [right[name][end] for end in ("mean", "low", "high")], abs=1e-9
            )


def test_plain_files_can_be_compared_as_texts(run: FinishedRun, files: dict[str, Path]) -> None:
    done = script("evaluate_diversity.py", *(f"--policy={name}={files[name]}" for name in run.portfolio.ids))
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["writing"]["policies"]
    assert [(row["policy"], row["texts"]) for row in rows] == [(name, 4) for name in run.portfolio.ids]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("coverage", ["RUN", "--kl", ".5"], "--kl: expected it not to be given with a run, which it says nothing of; got 0.5"),
        ("coverage", ["RUN", "--users", "us.jsonl"], "--users: expected it not to be given with a run"),
        ("diversity", ["RUN", "--reference", "ref.jsonl"], "--reference: expected it not to be given with a run"),
        ("diversity", ["--policy", "a=POLICY", "--samples", "2"], "--samples: expected it not to be given with files"),
        ("diversity", ["--policy", "a=POLICY", "--level", "2"], "level: expected a number above 0 and below 1, got 2"),
    ],
)
def test_options_that_would_not_be_heeded(
    run: FinishedRun, files: dict[str, Path], name: str, arguments: list[str], message: str
) -> None:
    where = {"RUN": str(run.folder), "a=POLICY": f"a={files[run.portfolio.ids[0]]}"}
    done = script(f"evaluate_{name}.py", *(where.get(part, part) for part in arguments))
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "RUN, --policy: expected the folder of a run or policies' files, got neither"),
        (["none"], "no such folder"),
        (["--policy", "a"], "--reference, --kl: expected both with --policy"),
        (["--policy", "a", "--reference", "REF", "--kl", "1"], "--policy: expected different names, each as NAME=FILE"),
        (["--policy", "a=BAD", "--reference", "REF", "--kl", "0.1"], "BAD, line 1: not complete JSON"),
        (["--policy", "a=REF", "--reference", "REF", "--kl", "0.1"], "a: expected rewards and kl on every line, got no kl"),
        (["--policy", "a=POLICY", "--reference", "REF", "--kl", "0"], "kl: expected a positive number, got 0.0"),
        (["--policy", "a=POLICY", "--reference", "REF", "--kl", "inf"], "kl: expected a positive number, got inf"),
        (["--policy", "a=SIGN", "--reference", "REF", "--kl", "0.1"], "a: kl: expected estimates of a KL divergence"),
        (["--policy", "a=NULL", "--reference", "REF", "--kl", "0.1"], "NULL, line 1: expected prompt and responses as text or"),
        (["--policy", "a=WORDS", "--reference", "REF", "--kl", "0.1"], "WORDS, line 1: kl: expected 1 finite numbers, got ['0.1']"),
        (
            ["--policy", "a=SCALE", "--reference", "REF", "--kl", "0.1"],
            "a: rewards: expected numbers from 0 to 1, on one scale",
        ),
        (
            ["--policy", "a=POLICY", "--reference", "ABOVE", "--kl", "0.1"],
            "reference: rewards: expected numbers from 0 to 1, on one",
        ),
        (
            ["--policy", "a=POLICY", "--reference", "REF", "--kl", "1", "--users", "USERS"],
            "USERS: expected a user's weight on every",
        ),
        (["--policy", "a=POLICY", "--reference", "REF", "--kl", "1", "--users", "EMPTY"], "as [0.2, 0.8]: got an empty file"),
        (["--policy", "a=OTHER", "--reference", "REF", "--kl", "0.1"], "a: expected the same prompts in the same order"),
        (["--policy", "a=POLICY", "--reference", "NAN", "--kl", "0.1"], "rewards: expected 1 x K finite numbers"),
        (["--policy", "a=POLICY", "--reference", "EMPTY", "--kl", "0.1"], "expected a line for every prompt, got an empty file"),
    ],
)
def test_bad_input_is_told(run: FinishedRun, files: dict[str, Path], tmp_path: Path, arguments: list[str], message: str) -> None:
    made = {
        "REF": files["reference"],
        "POLICY": files[run.portfolio.ids[0]],
        "BAD": tmp_path / "BAD",
        "NAN": tmp_path / "NAN",
        "EMPTY": tmp_path / "EMPTY",
        "OTHER": tmp_path / "OTHER",
        "NULL": tmp_path / "NULL",
        "SIGN": tmp_path / "SIGN",
        "WORDS": tmp_path / "WORDS",
        "SCALE": tmp_path / "SCALE",
        "ABOVE": tmp_path / "ABOVE",
        "USERS": tmp_path / "USERS",
    }
    made["BAD"].write_text("{\n")
    made["EMPTY"].write_text("\n")
    made["NAN"].write_text('{"prompt": "p", "responses": ["r"], "rewards": [[NaN, 1]]}\n')
    made["OTHER"].write_text('{"prompt": "p", "responses": ["r"], "rewards": [[0, 1]], "kl": [0.1]}\n')
    made["NULL"].write_text('{"prompt": "p", "responses": [null, "r"]}\n')
    made["WORDS"].write_text('{"prompt": "p", "responses": ["r"], "rewards": [[0, 1]], "kl": ["0.1"]}\n')
    made["USERS"].write_text('["0.2", "0.8"]\n')
    rows = [json.loads(line) for line in made["POLICY"].read_text().splitlines()]
    made["SCALE"].write_text("".join(json.dumps({**row, "rewards": [[10.0, 0.5]]}) + "\n" for row in rows))
    given = [json.loads(line) for line in made["REF"].read_text().splitlines()]
    above = [{**row, "rewards": [[value + 0.2 for value in values] for values in row["rewards"]]} for row in given]
    made["ABOVE"].write_text("".join(json.dumps(row) + "\n" for row in above))
    made["SIGN"].write_text("".join(json.dumps({**row, "kl": [-5.0]}) + "\n" for row in rows))
    for name, path in made.items():
        arguments = [part.replace(name, str(path)) if part.split("=")[-1] == name else part for part in arguments]
    done = script("evaluate_coverage.py", *arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split()).replace(str(tmp_path) + "/", "")


def test_help_says_what_the_numbers_are() -> None:
    for name, word in (("evaluate_coverage.py", "captured_gain"), ("evaluate_diversity.py", "vendi")):
        done = script(name, "--help")
        assert done.returncode == 0
        assert word in done.stdout
        assert "runs/planted" in done.stdout
