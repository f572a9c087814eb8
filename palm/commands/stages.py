"""`palm run`, `palm status`, and a command for every stage."""

from collections.abc import Callable
from pathlib import Path

import typer

from palm.commands.arguments import ConfigArgument, SettingsArgument, pipeline_of
from palm.commands.describe import settings_of


def run(config: ConfigArgument, settings: SettingsArgument = None) -> None:
    """Run every stage that is not done, in order, and end with the report."""
    pipeline = pipeline_of(config, settings)
    ran = pipeline.run()
    typer.echo(f"{len(ran)} stages run, {len(pipeline.stages) - len(ran)} were done before")
    typer.echo(f"report: {pipeline.result('report') / 'index.html'}")
    typer.echo(f"portfolio: {pipeline.result('route') / 'portfolio'}")


def status(config: ConfigArgument, settings: SettingsArgument = None) -> None:
    """Say what is there: for every stage whether it is done, begun, stale or damaged, and why.

    CONFIG is the run's YAML file, or the folder of a run (then stages are shown as their manifests have them).
    """
    if config.is_dir():
        _status_of_folder(config)
        return
    pipeline = pipeline_of(config, settings, checked=False)
    for name, stage in pipeline.stages.items():
        state = pipeline.state(name)
        made = f"{state.manifest.created}, {state.manifest.seconds:.1f} s" if state.manifest else ""
        typer.echo(f"{name:8s} {state.state:8s} {made or stage.summary}{'; ' + state.detail if state.detail else ''}")


def _status_of_folder(folder: Path) -> None:
    from palm.artifacts import ArtifactError, is_begun, read_manifest
    from palm.pipeline import STAGES

    for stage in STAGES:
        try:
            manifest = read_manifest(folder / stage.name)
        except ArtifactError as error:
            typer.echo(f"{stage.name:8s} damaged  {error}")
            continue
        if manifest is None:
            typer.echo(f"{stage.name:8s} {'begun' if is_begun(folder / stage.name) else 'missing':8s} {stage.summary}")
        else:
            size = sum(entry["bytes"] for entry in manifest.files.values())
            facts = f"{manifest.created}, {manifest.seconds:.1f} s, {len(manifest.files)} files, {size:,} bytes"
            typer.echo(f"{stage.name:8s} made     {facts}")


def stage_command(name: str, summary: str) -> Callable[..., None]:
    """The command that runs one stage alone."""

    def command(config: ConfigArgument, settings: SettingsArgument = None) -> None:
        pipeline = pipeline_of(config, settings)
        pipeline.run(only=name)
        typer.echo(f"{name}: {pipeline.result(name)}")

    command.__name__ = name
    command.__doc__ = (
        f"Run the stage {name} alone: {summary}.\n\nThe stages it needs must be done; its message says which are not. "
        f"A stage that is done, with nothing changed, is left as it is.{settings_of(name)}"
    )
    return command
