"""The `palm` command, made of `palm.commands`."""

from collections.abc import Callable
from typing import Annotated

import typer

from palm.commands.evaluation import evaluate
from palm.commands.guarded import guarded
from palm.commands.portfolios import diff, plan_scores, route, show, verify
from palm.commands.recipes import run_reward_training
from palm.commands.stages import run, stage_command, status
from palm.commands.training import jobs, member, refine
from palm.pipeline.summaries import SUMMARIES

__all__ = ["app", "main", "run", "run_reward_training"]

app = typer.Typer(
    name="palm",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="From everyone's pairwise preferences to a few LoRA policies, with a proof of how good that few is.\n\n"
    "`palm run CONFIG.yaml` does it all, stage by stage: data, base, embed, fit, sample, score, plan, train, measure, route, "
    "report. Each stage's result is kept with a manifest: a second run does only what a changed configuration calls for, and a "
    "killed run goes on where it was.\n\n"
    "Settings after the file override it: `palm run CONFIG.yaml seed=1 plan.size=4`.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"palm {version('palm-align')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Options of the command itself."""


def _add(*commands: Callable[..., None]) -> None:
    for command in commands:
        app.command()(command)


_add(run, status, route, jobs, member, refine, show, plan_scores, diff, verify, evaluate)
_add(*(stage_command(name, summary) for name, summary in SUMMARIES.items() if name != "route"))  # route has more to it


def main() -> None:
    """Entry point of the `palm` command."""
    guarded(app)
