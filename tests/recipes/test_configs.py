"""recipes/configs: every YAML loads, passes the pipeline's checks, and opens with the command that launches it."""

import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from palm.pipeline import check, load_config
from palm.pipeline.read_config import read_config
from palm.pipeline.reward_config import RewardTraining, check_reward_training
from palm.pipeline.score_plan import ScorePlan

ROOT = Path(__file__).parents[2]
EVERY = sorted((ROOT / "recipes" / "configs").glob("*/*.yaml"))
REWARDS = [path for path in EVERY if path.name == "rewards.yaml"]
PLANS = [path for path in EVERY if path.parent.name == "nlg_multiattr"]
RUNS = [path for path in EVERY if path.parent.name != "accelerate" and path not in REWARDS + PLANS]
ACCELERATE = [path for path in EVERY if path.parent.name == "accelerate"]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _commands(path: Path) -> list[list[str]]:
    """The commands in the comment that opens a file, as words: its lines that name the file itself."""
    comment = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.lstrip("# "))
    return [shlex.split(line) for line in comment if _name(path) in line.split()]


def test_there_are_recipes() -> None:
    assert any(path.parent.name == "planted" for path in RUNS)
    assert any(path.parent.name == "planted" for path in REWARDS)
    assert {path.stem for path in PLANS} == {"topical_chat", "sfres", "sfhot", "bagel"}


@pytest.mark.parametrize("path", EVERY, ids=_name)
def test_opens_with_the_command_that_launches_it(path: Path) -> None:
    """A line of the opening comment is that command, with this very file among its words."""
    commands = _commands(path)
    assert commands, f"expected a comment with the command that launches {_name(path)} at the top"
    assert {words[0] for words in commands} <= {"palm", "accelerate", "torchrun", "python", "sbatch"}


@pytest.mark.parametrize("path", RUNS, ids=_name)
def test_run_loads_and_passes_every_check(path: Path) -> None:
    assert check(load_config(path)) is None
    for words in _commands(path):
        settings = [word for word in words[words.index(_name(path)) + 1 :] if "=" in word and not word.startswith("-")]
        config = load_config(path, settings)
        check(replace(config, train=replace(config.train, start=None)))  # the run that it goes on from is not made here


@pytest.mark.parametrize("path", REWARDS, ids=_name)
def test_reward_training_loads_and_passes_every_check(path: Path) -> None:
    check_reward_training(read_config(path, [], RewardTraining))
    for words in _commands(path):
        assert "recipes/train_rewards.py" in words
        settings = [word for word in words[words.index(_name(path)) + 1 :] if "=" in word and not word.startswith("-")]
        check_reward_training(read_config(path, settings, RewardTraining))


@pytest.mark.parametrize("path", PLANS, ids=_name)
def test_plan_on_scores_loads(path: Path) -> None:
    config = read_config(path, [], ScorePlan)
    assert len(config.scores.attributes) > 1
    assert all("plan-scores" in words for words in _commands(path))


@pytest.mark.parametrize("path", ACCELERATE, ids=_name)
def test_accelerate_reads_it(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.compute_environment is not None
    assert config.num_processes >= 1


def test_two_cpus_are_two_processes(tmp_path: Path) -> None:
    """accelerate starts one alone, and says nothing, for what it calls MULTI_CPU."""
    who = tmp_path / "who.py"
    who.write_text("from palm.ranks import agree, rank, ranks\nprint(rank(), ranks(), agree(rank() == 0))\n", encoding="utf-8")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0"]
    command = [*launch, "--config_file", str(ROOT / "recipes/configs/accelerate/cpu.yaml"), str(who)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert sorted(done.stdout.splitlines()) == ["0 2 True", "1 2 True"], done.stderr
