"""Run the commands of a manifest: in a pool of processes on this machine, or on a Ray cluster."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from palm.policies.jobs import Job, JobManifest
from palm.progress import Track, silent

LAUNCHERS = ("inline", "pool", "ray")
_WAIT = 0.1  # seconds between looks at the running commands
_TAIL = 12  # lines of a failed command's log in the error


class JobError(RuntimeError):
    """A member's command failed; the message has the end of what it said."""


@dataclass(frozen=True)
class Resources:
    """What each command gets.

    Attributes:
        workers: commands at a time (pool).
        gpus: of each command; 0 leaves the choice to the command. A pool hands out this machine's GPUs in turn.
        cpus: threads of each command; 0: the machine's cores, shared by the workers (pool), or 1 (ray).
        retries: how often a command that failed is tried again.
    """

    workers: int = 2
    gpus: int = 0
    cpus: int = 0
    retries: int = 1


def run_pool(manifest: JobManifest, resources: Resources, *, track: Track = silent) -> None:
    """Run commands as processes of this machine, a few at a time; returns when all have ended well.

    When this process is interrupted its commands are stopped. When it is killed they go on, and whoever trains the same members
    next waits for them.

    Args:
        manifest: what to run.
        resources: how many at a time, and what each gets.
        track: for a progress bar of members.

    Raises:
        JobError: this machine has fewer GPUs than a command is to get, or a command failed more often than `retries` allows; the
            others were run to their end before.
    """
    if resources.gpus > (there := len(_devices()) if resources.gpus else 0):
        raise JobError(f"train.launch.gpus: expected at most what this machine has, {there}, got {resources.gpus}")
    waiting, failures = [(job, 0) for job in manifest.jobs], list[str]()
    running: dict[int, tuple[subprocess.Popen[bytes], Job, int]] = {}
    with track("training members", len(manifest.jobs)) as advance:
        try:
            while waiting or running:
                for slot in range(resources.workers):
                    if slot not in running and waiting:
                        job, tried = waiting.pop(0)
                        running[slot] = (_start(job, manifest.folder, _environment(resources, slot)), job, tried)
                for slot, (process, job, tried) in list(running.items()):
                    if (code := process.poll()) is None:
                        continue
                    del running[slot]
                    if code == 0:
                        advance(1)
                    elif tried < resources.retries:
                        waiting.append((job, tried + 1))
                    else:
                        failures.append(failure(job, code))
                time.sleep(_WAIT)
        finally:
            for process, _, _ in running.values():
                _stop(process)
    if failures:
        raise JobError("; ".join(failures))


def run_ray(manifest: JobManifest, resources: Resources, *, address: str | None = None, track: Track = silent) -> None:
    """Run commands as tasks of a Ray cluster; the nodes must see the run's folder under the same path.

    Args:
        manifest: what to run.
        resources: what each command gets.
        address: of the cluster, as for `ray.init`; by default RAY_ADDRESS, else a cluster of this machine alone, for as long as
            this takes.
        track: for a progress bar of members.

    Raises:
        ImportError: Ray is not installed; the extra `ray` brings it.
        JobError: a command failed more often than `retries` allows; the others were run to their end before.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError("train.launch.launcher: 'ray' needs Ray: pip install 'palm-align[ray]'") from error
    ours = not ray.is_initialized()
    if ours:
        address = address or os.environ.get("RAY_ADDRESS")
        ray.init(address=address, log_to_driver=False, include_dashboard=False if address is None else None)
    threads = max(1, resources.cpus)
    # A task that wants more than there is would wait for ever.
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    for name, key, wanted in (("gpus", "GPU", resources.gpus), ("cpus", "CPU", threads)):
        if wanted > there.get(key, 0):
            if ours:
                ray.shutdown()
            raise JobError(f"train.launch.{name}: expected at most what the Ray cluster has, {there.get(key, 0):g}, got {wanted}")

    @ray.remote(num_cpus=threads, num_gpus=resources.gpus, max_retries=resources.retries)
    def work(job: Job, folder: str) -> int:
        for attempt in range(resources.retries + 1):
            code = _start(job, folder, {"OMP_NUM_THREADS": str(threads)}).wait()
            if code == 0 or attempt == resources.retries:
                break
        return code

    failures = []
    try:
        tasks = {work.remote(job, manifest.folder): job for job in manifest.jobs}
        with track("training members", len(tasks)) as advance:
            while tasks:
                for task in ray.wait(list(tasks), num_returns=1)[0]:
                    job = tasks.pop(task)
                    failures += _failed(task, job)
                    advance(1)
    finally:
        if ours:
            ray.shutdown()
    if failures:
        raise JobError("; ".join(failures))


def _failed(task: Any, job: Job) -> list[str]:
    """What to tell of a task of Ray's that has ended, if its command failed, or could not be run at all."""
    import ray

    try:
        code = ray.get(task)
    except ray.exceptions.RayError as error:  # its node went, or has no such program
        return [f"member {job.id}: {str(error).strip().splitlines()[-1]}"]
    return [failure(job, code)] if code else []


def failure(job: Job, code: int) -> str:
    """What to tell of a command that failed."""
    said = f"status {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
    return f"member {job.id}: its command ended with {said}; {job.log} ends: {_tail(Path(job.log))}"


def _start(job: Job, folder: str, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    log = Path(job.log)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            list(job.command),
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that a command's own children can be stopped with it
        )


def _stop(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=5)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _environment(resources: Resources, slot: int) -> dict[str, str]:
    threads = resources.cpus or max(1, (os.cpu_count() or 1) // resources.workers)
    chosen = {"OMP_NUM_THREADS": str(threads)}
    if resources.gpus and (devices := _devices()):
        own = [devices[(slot * resources.gpus + number) % len(devices)] for number in range(resources.gpus)]
        chosen["CUDA_VISIBLE_DEVICES"] = ",".join(dict.fromkeys(own))
    return chosen


def _devices() -> Sequence[str]:
    """This machine's GPUs, or those of them that this process may use: as CUDA reads the variable, those before a negative one."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        names = [name.strip() for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name.strip()]
        return list(takewhile(lambda name: not name.startswith("-"), names))
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return f"({error.strerror})"
    return " / ".join(line.strip() for line in lines[-_TAIL:] if line.strip()) or "(nothing)"
