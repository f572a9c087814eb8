"""A run shared by two processes, as torchrun starts them: what they split is what one process makes."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from palm.artifacts import read_json, read_manifest
from palm.lm.pretrain import train_from_scratch
from palm.pipeline import STAGES, Pipeline, check, load_config
from palm.policies.adapters import WEIGHTS, check_adapter
from palm.portfolio import Portfolio
from palm.ranks import alone, barrier, rank, ranks

SLOW_READER = """
import sys
import time

from palm.pipeline.config import Config
from palm.pipeline.runner import Pipeline, Stage
from palm.ranks import barrier, rank


def run(context):
    if rank() == 0:
        (context.folder / "note").write_text("here")
    barrier()
    time.sleep(2 * rank())
    assert (context.folder / "note").read_text() == "here"


stage = Stage("slow", "read late", lambda config: (), lambda config: {}, run, parallel=True)
Pipeline([stage], Config(output=sys.argv[1])).run()
"""


MEMBERS_ALONE = ("train.shared_steps=0", "train.baselines=false")


def _untrained(run: Any, folder: Path) -> Path:
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("train"))
    return folder


def _on_two(*arguments: object) -> subprocess.CompletedProcess[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run([*launch, *map(str, arguments)], capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_two_processes_share_embedding_and_training(tiny_run: Any, tmp_path: Path) -> None:
    """Embedding and scoring are taken away and come back bit for bit; members are trained on twice the batch, and measured."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.folder, folder)
    for name in ("embed", "score", "train"):
        shutil.rmtree(folder / name)
    done = _on_two("-m", "palm", "run", tiny_run.config, f"output={folder}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("embed: turn every text into features") == 1, "one of the two speaks"
    for name in ("data", "base", "embed", "fit", "sample", "score", "plan"):
        made, alone_made = read_manifest(folder / name), read_manifest(tiny_run.folder / name)
        assert made is not None
        assert alone_made is not None
        assert made.files == alone_made.files
    trained = {path.parent.name for path in (folder / "train").glob("*/adapter_config.json")}
    assert trained == {path.parent.name for path in (tiny_run.folder / "train").glob("*/adapter_config.json")}
    assert {"policy-0", "policy-1"} <= trained
    for name in trained:
        check_adapter(folder / "train" / name)
    assert Portfolio.from_pretrained(folder / "route" / "portfolio").certificate is not None
    assert not list(folder.rglob(".writing-*"))
    assert all(read_manifest(folder / stage.name) is not None for stage in STAGES)


@pytest.mark.slow
def test_two_ranks_reproduce_the_adapter_of_one_with_the_same_batch(tiny_run: Any, tmp_path: Path) -> None:
    """Two processes of two rows a step and one of four learn the same, up to the order in which numbers are added."""
    trained = []
    for place, batch in enumerate((4, 2)):
        folder = _untrained(tiny_run, tmp_path / f"run-{place}")
        dpo = f"train.dpo={{max_steps: 6, per_device_train_batch_size: {batch}, learning_rate: 1e-3}}"
        command = ["-m", "palm", "train", str(tiny_run.config), f"output={folder}", *MEMBERS_ALONE, dpo]
        done = (
            _on_two(*command) if place else subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=600)
        )
        assert done.returncode == 0, done.stderr
        trained.append([load_file(folder / "train" / name / WEIGHTS) for name in ("policy-0", "policy-1")])
    for one, two in zip(*trained, strict=True):
        assert one.keys() == two.keys()
        size = torch.cat([value.flatten() for value in one.values()]).abs().max()
        apart = max(float((one[name] - two[name]).abs().max()) for name in one)
        assert apart < 1e-4 * size


@pytest.mark.slow
def test_members_learn_online_on_two_processes_each(tiny_run: Any, tmp_path: Path) -> None:
    """What one process would refuse, half a group of a prompt's responses, is a whole one on two."""
    folder = _untrained(tiny_run, tmp_path / "run")
    online = "train.online={max_steps: 2, per_device_train_batch_size: 4, num_generations: 8}"
    launch = f"train.launch.command={sys.executable} -m torch.distributed.run --standalone --nproc-per-node 2"
    settings = ["train.objective=rloo", *MEMBERS_ALONE, online, "train.launch.launcher=pool", launch]
    command = [sys.executable, "-m", "palm", "train", tiny_run.config, f"output={folder}", *settings]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for name in ("policy-0", "policy-1"):
        check_adapter(folder / "train" / name)
        assert read_json(folder / "train" / f"{name}.log.json")["steps"] == 2
    alone = load_config(tiny_run.config, [f"output={folder}", "train.objective=rloo", *MEMBERS_ALONE, online])
    check(alone)
    assert Pipeline(STAGES, alone).run() == ["measure", "route", "report"], "what is trained is not counted again"


def test_a_stage_is_put_in_place_when_all_processes_are_done_with_it(tmp_path: Path) -> None:
    script = tmp_path / "slow_reader.py"
    script.write_text(SLOW_READER)
    done = _on_two(script, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "slow" / "note").read_text() == "here"


def test_model_from_scratch_is_refused_to_several_processes(tmp_path: Path) -> None:
    """torch's own stand-in for a group of two: the refusal comes before anyone waits for the other."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    try:
        with pytest.raises(
            ValueError, match="a model from scratch is trained by one process, this is one of 2; do `palm base` alone first"
        ):
            train_from_scratch([("a", "b")], tmp_path / "model", work=tmp_path / "work")
    finally:
        torch.distributed.destroy_process_group()


def test_work_alone_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert (rank(), ranks()) == (1, 3)
    with alone():
        assert (rank(), ranks()) == (0, 1)
        barrier()
    assert (rank(), ranks()) == (1, 3)
