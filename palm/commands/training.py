"""`palm jobs`, `palm member`, `palm refine`: members trained one by one, by others, or after the measurement."""

import inspect
import shlex
from pathlib import Path
from typing import Annotated

import typer

from palm.commands.arguments import ConfigArgument, SettingsArgument, pipeline_of
from palm.commands.describe import settings_of


def jobs(
    config: ConfigArgument,
    settings: SettingsArgument = None,
    slurm: Annotated[Path | None, typer.Option(help="Also write a Slurm array script here.", show_default=False)] = None,
    sbatch: Annotated[
        list[str] | None, typer.Option(help="An option of sbatch for that script, such as --gpus=1; may be given several times.")
    ] = None,
) -> None:
    """Prepare the training of the members for others to do: a manifest with one command per member, and a Slurm script.

    What members share (the reference's log-probabilities, shared first steps) is made now. RUN/jobs/members.json then lists a
    command for every member that is not trained yet; they are independent, may be run anywhere that sees the run's folder, and
    again. `train.launch.command="accelerate launch --config_file FILE"` lets each of them run on several processes. When they are
    done, `palm train CONFIG` (or `palm run CONFIG`) collects what they made, and trains what is missing, unless that is for
    train.launch.command to do.
    """
    from palm.pipeline.fanout import write_jobs
    from palm.policies.jobs import write_slurm

    made = write_jobs(pipeline_of(config, settings))
    if made is None:
        typer.echo("train: done before, nothing changed; there is nothing to run")
        return
    path, manifest = made
    for job in manifest.jobs:
        typer.echo(f"{job.id}: {shlex.join(job.command)}")
    typer.echo(f"{len(manifest.jobs)} members to train: {path}")
    if slurm is not None and manifest.jobs:
        write_slurm(manifest, slurm, options=sbatch or ())
        typer.echo(f"sbatch {slurm}")


def member(
    config: ConfigArgument,
    policy: Annotated[str, typer.Argument(help="Id of the member, such as policy-0.")],
    settings: SettingsArgument = None,
) -> None:
    """Train one member of a run that `palm jobs`, or a pool, has prepared; one that is trained is left as it is."""
    from palm.pipeline.fanout import train_member
    from palm.ranks import rank

    said = train_member(pipeline_of(config, settings), policy)
    if rank() == 0:
        typer.echo(said)


def refine(config: ConfigArgument, settings: SettingsArgument = None) -> None:
    """Go on training where the measured gap is, until it is as small as wanted or the budget is spent.

    Works on a run whose members are trained and measured (`palm run CONFIG`), such as `palm refine CONFIG refine.epsilon=0.03
    refine.most=2`. Each round certifies what was measured over every weight, trains one more policy at the worst weight, beginning
    with a copy of the nearest trained adapter, and measures it. It trains in this process, whatever train.launch says.

    Held-out prompts are parted: some choose weights and members, the others only certify. The gap in the last line is of those
    others, so it is not flattered by the choice; the target is compared with the first.

    RUN/refine/served/portfolio is what `palm route FOLDER --weight`, `palm show` and Router read; refine.json beside it has every
    round. Members that turn out not to be needed stay in RUN/refine/rounds. Killed, it goes on where it was; with a larger
    refine.most it goes on after the rounds there are.
    """
    from palm.pipeline.refining import refine as go_on

    served = go_on(pipeline_of(config, settings))
    typer.echo(f"portfolio: {served / 'portfolio'}")
    typer.echo(f"record: {served / 'refine.json'}")


refine.__doc__ = inspect.cleandoc(refine.__doc__ or "") + settings_of("refine")
