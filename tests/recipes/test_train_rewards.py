"""recipes/train_rewards.py: two processes do what one does, a killed run ends like an uninterrupted one, nothing is done twice."""

import json
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palm import cli
from palm.artifacts import read_json, read_manifest
from palm.features.encode import embed, load_encoder
from palm.pipeline.config import ConfigError
from palm.pipeline.data_stages import read_pairs
from palm.pipeline.read_config import read_config
from palm.pipeline.reward_config import RewardTraining, check_reward_training
from palm.pipeline.reward_stages import reward_pipeline
from palm.progress import silent
from palm.rewards import load_reward_model

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "train_rewards.py"
STAGES = ["data", "frozen", "backbone", "features", "reward", "accuracy"]
DEADLINE = 100  # seconds for a process that takes ten

CONFIG = """\
output: {output}
data: {{source: planted, planted: {{users: 10, bases: 2, pairs_per_user: 12}}, unseen: 3, shots: 4}}
backbone: {{model: {model}, pooling: mean+last, max_length: 96, batch_tokens: 1024, shard_size: 64, targets: 2, context: 3}}
rewards: {{method: VRF, options: {{rank: 2, dim: 4, hidden: 16}}}}
trainer: {{num_train_epochs: 3, per_device_train_batch_size: 4, learning_rate: 1e-3}}
"""


@pytest.fixture(scope="module")
def config(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YAML file with which the recipe takes seconds."""
    folder = tmp_path_factory.mktemp("train-rewards")
    path = folder / "rewards.yaml"
    path.write_text(CONFIG.format(output=folder / "run", model=base_folder), encoding="utf-8")
    return path


def run(config: Path, *settings: str, said: list[str] | None = None) -> Path:
    """Run in this process; the run's folder."""
    loaded = read_config(config, settings, RewardTraining)
    check_reward_training(loaded)
    reward_pipeline(loaded, track=silent, say=(said if said is not None else []).append).run()
    return Path(loaded.output)


@pytest.fixture(scope="module")
def finished(config: Path) -> Path:
    """`config`, run by one process."""
    return run(config)


def losses(folder: Path) -> list[float]:
    return [entry["loss"] for entry in read_json(folder / "backbone" / "training.json")["losses"]]


def files(folder: Path, stage: str) -> dict[str, Any]:
    manifest = read_manifest(folder / stage)
    assert manifest is not None
    return manifest.files


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_with_the_same_batch(config: Path, finished: Path, tmp_path: Path) -> None:
    """Each takes half of the blocks of every step, with contexts and noise; in an epoch's last step one has nothing to do."""
    settings = [f"output={tmp_path / 'run'}", "trainer.per_device_train_batch_size=2"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(RECIPE)]
    done = subprocess.run([*launch, "--config", str(config), *settings], capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("backbone: train the backbone (VRF)") == 1, "one of the two speaks"
    assert "accuracy of VRF end to end: seen users 0." in done.stdout
    assert "unseen users after 4 pairs 0." in done.stdout
    assert "accuracy of BradleyTerry on the features before: seen users 0." in done.stdout
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(finished), atol=1e-4)
    assert len(losses(finished)) == 3 * 6, "21 blocks are five steps of four and one of one"
    assert max(losses(finished)) - min(losses(finished)) > 0.1
    one, two = (load_reward_model(folder / "reward") for folder in (finished, tmp_path / "run"))
    assert one.users is not None
    assert two.users is not None
    np.testing.assert_allclose(one.users.mean, two.users.mean, atol=1e-3)
    assert not list((tmp_path / "run").rglob("*checkpoint-*"))


@pytest.mark.slow
def test_killed_run_goes_on_and_ends_like_one_that_was_not(config: Path, tmp_path: Path) -> None:
    """kill -9 in the middle of training; with LoRA and dropout, whose noise has to go on, too. Every file is the same."""
    settings = ["trainer.save_steps=3", "trainer.num_train_epochs=6", "lora={r: 4, lora_dropout: 0.1}"]
    whole = run(config, f"output={tmp_path / 'whole'}", *settings)
    folder = tmp_path / "killed"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["palm.cli", "palm.pipeline.reward_stages", "palm.backbone", "transformers.models.llama", "peft"]
    )
    process = context.Process(target=cli.run_reward_training, args=(config, [f"output={folder}", *settings]))
    process.start()
    deadline = time.monotonic() + DEADLINE
    while not list(folder.glob(".backbone.partial/*/.writing-work/checkpoint-6/whole.json")):
        assert process.is_alive(), f"the process ended with {process.exitcode} before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(DEADLINE)
    assert process.exitcode == -signal.SIGKILL
    assert not (folder / "backbone").exists()
    embedded = (folder / "frozen" / "manifest.json").stat().st_mtime_ns

    said: list[str] = []
    run(config, f"output={folder}", *settings, said=said)
    assert said[:2] == ["data: done before, nothing changed", "frozen: done before, nothing changed"]
    assert said[2] == "backbone: train the backbone (VRF)"
    assert (folder / "frozen" / "manifest.json").stat().st_mtime_ns == embedded
    assert losses(folder) == losses(whole)
    for stage in STAGES:
        assert files(folder, stage) == files(whole, stage), stage


def test_what_is_left_is_a_model_and_a_reward_model_that_belong_together(finished: Path) -> None:
    """Features of the saved backbone, made anew as anyone would, give the rewards and users that were saved."""
    model: Any = load_reward_model(finished / "reward")
    told = model.details["backbone"]
    encoder = load_encoder(finished / "backbone", pooling=told["pooling"], layer=told["layer"], max_length=told["max_length"])
    pairs = embed(read_pairs(finished / "data"), encoder)
    known = pairs.select(np.isin(pairs.user, model.users.ids))
    assert model.infer(known).mean.shape == model.users.mean.shape == (7, 2)
    assert ((model.basis(pairs.items) >= 0) & (model.basis(pairs.items) <= 1)).all()
    accuracies = {row["method"]: row for row in json.loads((finished / "accuracy" / "accuracy.json").read_text())}
    assert set(accuracies) == {"VRF", "BradleyTerry"}
    assert accuracies["VRF"]["seen"]["users"] == 7
    assert accuracies["VRF"]["unseen"]["users"] == 3


def test_finished_run_does_nothing_twice(config: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = {stage: (finished / stage / "manifest.json").stat().st_mtime_ns for stage in STAGES}
    arguments = sys.argv
    try:
        sys.argv = [str(RECIPE), "--config", str(config)]
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(RECIPE), run_name="__main__")
    finally:
        sys.argv = arguments
    assert stopped.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:6] == [f"{stage}: done before, nothing changed" for stage in STAGES]
    assert lines[6].startswith("accuracy of VRF end to end: ")
    assert lines[-1] == f"backbone: {finished / 'backbone'}, reward model: {finished / 'reward'}"
    assert made == {stage: (finished / stage / "manifest.json").stat().st_mtime_ns for stage in STAGES}


def test_without_unseen_users_or_tests_there_is_nothing_to_say(config: Path, tmp_path: Path) -> None:
    from palm.pipeline.reward_stages import accuracy_lines

    settings = ["data.unseen=0", "data.test=0.0", "rewards.method=BradleyTerry", "rewards.options={}", "trainer.max_steps=1"]
    folder = run(config, f"output={tmp_path / 'run'}", *settings)
    assert accuracy_lines(folder, 4) == [
        "accuracy of BradleyTerry end to end: no held-out pairs",
        "accuracy of BradleyTerry on the features before: no held-out pairs",
    ]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rewards.metod=LoRe", r"unknown key 'rewards\.metod'; did you mean rewards\.method\?"),
        ("backbones.model=x", r"unknown key 'backbones'; did you mean backbone\?"),
        ("rewards.method=PAL", r"rewards\.method: expected one of 'BradleyTerry', 'LoRe', 'VRF', got 'PAL'"),
        ("rewards.options={rnk: 3}", r"rewards\.options\.rnk: VRF has no such option; did you mean 'rank'\?"),
        ("rewards.options={steps: 3}", r"rewards\.options\.steps: VRF has no such option"),
        ("rewards.options={rank: 0}", r"rewards\.options\.rank: expected a whole number of at least 1, got 0"),
        ("rewards.compare=[Given]", r"rewards\.compare: expected one of .*, got 'Given'"),
        ("trainer.learning_rat=1", r"trainer\.learning_rat: transformers\.TrainingArguments has no such option; did you mean"),
        ("trainer.deepspeed=x.json", r"trainer\.deepspeed: expected it to be left out"),
        ("lora.alpha=1", r"lora\.alpha: peft\.LoraConfig has no such option; did you mean 'lora_alpha'\?"),
        ("backbone.model=", r"backbone\.model: expected str, got None"),
        ("backbone.model=base", r"backbone\.model: expected the folder or Hub id of a model, got 'base'"),
        ("backbone.pooling=first", r"backbone\.pooling: expected one of 'last', 'mean', 'mean\+last', got 'first'"),
        ("backbone.dtype=float16", "dtype: expected float32 or bfloat16 where every weight is trained, got 'float16'"),
        ("backbone.targets=0", "targets: expected a whole number of at least 1, got 0"),
        ("data.shots=-1", r"data\.shots: expected at least 0, got -1"),
    ],
)
def test_keys_and_values_that_cannot_be_are_refused(config: Path, setting: str, message: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=message):
        check_reward_training(read_config(config, [setting], RewardTraining))


def test_help_names_every_setting() -> None:
    done = subprocess.run(
        [sys.executable, str(RECIPE), "--help"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == 0
    for name in ("head_learning_rate", "targets", "context", "pooling", "lora", "trainer", "min_pairs", "shots", "compare"):
        assert name in done.stdout
