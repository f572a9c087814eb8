"""Stage train: in this process, or every member by a command of its own, run by a pool, by Ray, or by whoever reads the manifest.

The run's folder `jobs` has the commands (members.json), the configuration that they read, and what each says.
"""

import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from palm.artifacts import ArtifactError, write_json
from palm.pipeline.config import Config, ConfigError, LaunchConfig, as_record
from palm.pipeline.plan_stages import POOL
from palm.pipeline.policy_stages import read_members, train_in_process, training_options
from palm.pipeline.runner import Context, Pipeline, PipelineError
from palm.policies.jobs import Job, JobManifest
from palm.policies.launchers import LAUNCHERS, JobError, Resources, run_pool, run_ray
from palm.policies.train import Member, is_trained, read_logs
from palm.ranks import agree, rank, ranks

MANIFEST = "members.json"


def check_launch(launch: LaunchConfig) -> None:
    """See that a launcher can be had.

    Raises:
        ConfigError: an option is out of range.
        ImportError: the launcher is not installed.
    """
    if launch.launcher not in LAUNCHERS:
        raise ConfigError(f"train.launch.launcher: expected one of {', '.join(LAUNCHERS)}, got {launch.launcher!r}")
    for name, least in (("workers", 1), ("gpus", 0), ("cpus", 0), ("retries", 0)):
        if getattr(launch, name) < least:
            raise ConfigError(f"train.launch.{name}: expected at least {least}, got {getattr(launch, name)}")
    try:
        command = shlex.split(launch.command)
    except ValueError as error:
        raise ConfigError(
            f"train.launch.command: expected a command as a shell takes it, got {launch.command!r}: {error}"
        ) from error
    if launch.launcher == "pool" and command and shutil.which(command[0]) is None:
        raise ConfigError(f"train.launch.command: expected a program that is there, got {command[0]!r}")
    if launch.launcher == "ray":
        from importlib.util import find_spec

        if find_spec("ray") is None:
            raise ConfigError("train.launch.launcher: 'ray' needs Ray: pip install 'palm-align[ray]'")


def check_train(config: Config) -> None:
    """See that stage train, from its beginning, can do with as many processes as there are.

    Raises:
        PipelineError: online batches are not whole, nothing would run the members' command, or every rank would start members.
    """
    _check_command(config.train.launch)
    _check_alone(config.train.launch)
    _check_first_batches(config)


def _check_first_batches(config: Config) -> None:
    if training_options(config).shared_steps > 0 and config.train.start is None:
        _check_batches(config)
    else:
        _check_own_batches(config)


def _check_own_batches(config: Config) -> None:
    launch = config.train.launch
    if not launch.command or (launch.launcher == "inline" and ranks() > 1):  # the command's own processes see to it themselves
        _check_batches(config)


def _check_batches(config: Config) -> None:
    try:
        training_options(config).check_batches(None if config.candidates.source == POOL else config.candidates.prompts)
    except ValueError as error:
        raise PipelineError(f"train.{error}") from error


def _check_command(launch: LaunchConfig) -> None:
    if launch.command and launch.launcher == "inline" and ranks() == 1:
        raise PipelineError(
            "train.launch.launcher: expected 'pool' or 'ray' with train.launch.command, got 'inline', which trains in this process "
            f"and would not run {launch.command!r}; to run it yourself, make the stages before one by one (`palm data` to "
            "`palm plan`), then `palm jobs`"
        )


def _check_alone(launch: LaunchConfig) -> None:
    if launch.launcher != "inline" and ranks() > 1:
        raise PipelineError(
            f"train.launch.launcher: expected 'inline' in one of {ranks()} processes, got {launch.launcher!r}; "
            "train.launch.command starts several processes for each member"
        )


def run_train(context: Context) -> None:
    """A LoRA policy for every weight of the plan."""
    launch = context.config.train.launch
    if launch.launcher == "inline":
        if _left(context):
            _check_command(launch)
        logs = train_in_process(context)
    else:
        _check_alone(launch)
        manifest = prepare_jobs(context)
        resources = Resources(launch.workers, launch.gpus, launch.cpus, launch.retries)
        try:
            if launch.launcher == "pool":
                run_pool(manifest, resources, track=context.track)
            else:
                run_ray(manifest, resources, track=context.track)
        except JobError as error:
            raise PipelineError(f"train: {error}") from error
        logs = read_logs(read_members(context), context.folder)
    if rank() == 0:
        write_json(context.folder / "training.json", logs)


def prepare_jobs(context: Context) -> JobManifest:
    """Make what members share, and write the manifest of those that are not trained yet."""
    jobs_folder = _jobs_folder(context)
    left = _left(context)
    if left:
        _check_own_batches(context.config)
        train_in_process(context, only=())
    launch = context.config.train.launch
    config = jobs_folder / "config.json"
    inline = replace(context.config, train=replace(context.config.train, launch=LaunchConfig()))
    write_json(config, as_record(inline))
    command = (*(shlex.split(launch.command) or [sys.executable]), "-m", "palm", "member", str(config))
    jobs = [
        Job(member.id, tuple(member.weight.tolist()), (*command, member.id), str((jobs_folder / f"{member.id}.log").resolve()))
        for member in left
    ]
    manifest = JobManifest(str(Path.cwd()), tuple(jobs))
    manifest.save(jobs_folder / MANIFEST)
    return manifest


def _left(context: Context) -> list[Member]:
    return [member for member in read_members(context) if not is_trained(context.folder / member.id)]


def write_jobs(pipeline: Pipeline) -> tuple[Path, JobManifest] | None:
    """Prepare stage train for others to do; the manifest and where it is, or None if the stage is done."""
    with pipeline.alone():
        if not pipeline.is_under_way("train"):
            _check_first_batches(pipeline.config)
        context = pipeline.opened("train", make=True)
        if context is None:
            return None
        return _jobs_folder(context) / MANIFEST, prepare_jobs(context)


def train_member(pipeline: Pipeline, member: str) -> str:
    """Train one member of a prepared stage, with as many processes as there are; returns what to say.

    Raises:
        PipelineError: nothing is prepared for this configuration, or the plan has no such member.
    """
    context = pipeline.opened("train", make=False)
    if context is None:
        return f"{member}: stage train is done"
    known = [each.id for each in read_members(context)]
    if member not in known:
        raise PipelineError(f"member: expected one of {', '.join(known)}, got {member!r}")
    if agree(is_trained(context.folder / member)):
        return f"{member}: done before"
    try:
        steps = train_in_process(context, only=[member])[member]["steps"]
    except ArtifactError:
        if pipeline.opened("train", make=False) is None:  # while this process waited for another that trained the same
            return f"{member}: stage train is done"
        raise
    return f"{member}: {steps} steps, {context.folder / member}"


def _jobs_folder(context: Context) -> Path:
    return Path(context.config.output) / "jobs"
