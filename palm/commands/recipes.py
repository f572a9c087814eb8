"""What the scripts in recipes/ do; several processes may do it together."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from palm.commands.arguments import pipeline_of
from palm.commands.guarded import guarded


def run_stage(name: str, config: str | Path, settings: Sequence[str] = ()) -> None:
    """Run one stage as its command does; several processes may do it together (`accelerate launch`).

    Args:
        name: of the stage.
        config: the run's YAML file.
        settings: that override it.
    """

    def work() -> None:
        from palm.ranks import rank

        pipeline = pipeline_of(Path(config), settings)
        pipeline.run(only=name)
        if rank() == 0:
            typer.echo(f"{name}: {pipeline.result(name)}")

    guarded(work)


def run_reward_training(config: str | Path, settings: Sequence[str] = ()) -> None:
    """Train a reward backbone end to end (recipes/train_rewards.py); several processes may do it together.

    Args:
        config: the run's YAML file.
        settings: that override it.
    """

    def work() -> None:
        from palm.pipeline.read_config import read_config
        from palm.pipeline.reward_config import RewardTraining, check_reward_training
        from palm.pipeline.reward_stages import accuracy_lines, reward_pipeline
        from palm.progress import bars, silent
        from palm.ranks import rank

        run = read_config(config, settings, RewardTraining)
        check_reward_training(run)
        first = rank() == 0
        pipeline = reward_pipeline(run, track=bars if first else silent, say=typer.echo if first else lambda line: None)
        pipeline.run()
        if first:
            for line in accuracy_lines(pipeline.folder, run.data.shots):
                typer.echo(line)
            typer.echo(f"backbone: {pipeline.result('backbone')}, reward model: {pipeline.result('reward')}")

    guarded(work)


def run_writing_recipe(*, model: str | None, portfolio: Path | None, policies: str | None, **options: Any) -> None:
    """Write texts (recipes/sample.py, recipes/generate.py); several processes may do it together.

    Args:
        model: the base; a portfolio's own unless given.
        portfolio: whose members write; None for the reference alone.
        policies: their ids, with commas; all of them unless given.
        options: other attributes of `palm.pipeline.writing.Writing`.
    """

    def work() -> None:
        from palm.pipeline.writing import Writing, run_writing, served_members
        from palm.progress import bars, silent
        from palm.ranks import rank

        key = os.environ.get("OPENAI_API_KEY") if options["server"] is not None else None
        wanted: tuple[str, ...] = ("reference",)
        who: dict[str, Any] = {"model": model or "", "adapters": {}}
        if portfolio is not None:
            who = served_members(portfolio, model, server=options["server"] is not None)
            wanted = tuple(who["adapters"]) if policies is None else tuple(name.strip() for name in policies.split(","))
        writing = Writing(**who, policies=wanted, key=key, **options)
        written = run_writing(writing, track=bars if rank() == 0 else silent)
        if rank() == 0:
            typer.echo(f"{options['output']}: {written} responses written now by this process")

    guarded(work)


def run_scoring_recipe(**options: Any) -> None:
    """Score responses by given rewards (recipes/score.py).

    Args:
        options: attributes of `palm.pipeline.scoring.Scoring`.
    """

    def work() -> None:
        from palm.pipeline.scoring import Scoring, run_scoring

        prompts, count, left_out = run_scoring(Scoring(**options))
        without = f"; {left_out} prompts left out: a response to them is empty" if left_out else ""
        typer.echo(f"{options['output']}: {count} responses to each of {prompts} prompts{without}")

    guarded(work)
