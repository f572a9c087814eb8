"""kill -9 in every stage, one after the other, and the run ends as if nothing had happened.

One chain: a process works on the run until it is inside the first stage and is killed there; the next takes up the folder and
is killed in the second stage; and so on. The last is `palm run` itself, from the command line. Processes come from Python's
forkserver, which has imported the libraries once, so each start takes a moment only.
"""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from palm import cli
from palm.artifacts import read_manifest
from palm.pipeline import STAGES

NAMES = [stage.name for stage in STAGES]
DEADLINE = 90  # seconds for one process to reach its stage; it takes two or three
INSIDE = {
    # What must be there when the process is killed: work that the next process has to keep.
    "embed": "items/shard-00001.safetensors",
    "sample": ".writing-plan/batch-00001.json",
    "train": "policy-0/adapter_model.safetensors",
    "measure": ".writing-policy-1/batch-00000.json",
}
KEPT = {"embed": ["items/shard-00000.safetensors"], "train": ["policy-0/adapter_model.safetensors", "policy-0.log.json"]}


def _processes() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["palm.cli", "palm.pipeline", "palm.policies.trainer", "peft", "transformers.models.llama"])
    return context


def _kill_inside(process: Any, folder: Path, stage: str) -> bool:
    """Kill the process as soon as it is inside the stage; False if it came through before."""
    inside = f".{stage}.partial/*/{INSIDE.get(stage, '')}"
    deadline = time.monotonic() + DEADLINE
    while not list(folder.glob(inside)):
        if (folder / stage / "manifest.json").exists():
            break
        assert process.is_alive(), f"the process ended with {process.exitcode} before it was inside {stage}"
        assert time.monotonic() < deadline, f"the process was not inside {stage} after {DEADLINE} seconds"
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.join(DEADLINE)
    assert process.exitcode == -signal.SIGKILL
    partial = list(folder.glob(f".{stage}.partial/*"))
    return len(partial) == 1 and not (partial[0] / "manifest.json").exists() and not (folder / stage).exists()


def _finished(folder: Path) -> dict[str, tuple[str, int]]:
    """When each finished stage was made, and its manifest written."""
    made = {}
    for name in NAMES:
        manifest = read_manifest(folder / name)
        if manifest is not None:
            made[name] = (manifest.created, (folder / name / "manifest.json").stat().st_mtime_ns)
    return made


@pytest.mark.slow
def test_killed_in_every_stage_ends_as_if_never_killed(tiny_run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    settings = [f"output={folder}"]
    made: dict[str, tuple[str, int]] = {}
    kept: dict[Path, int] = {}
    for position, stage in enumerate(NAMES):
        for _ in range(5):
            process = _processes().Process(target=cli.run, args=(tiny_run.config, settings))
            process.start()
            try:
                caught = _kill_inside(process, folder, stage)
            finally:
                if process.is_alive():
                    process.kill()
                process.join(DEADLINE)
            if caught:
                break
            # It was through too quickly; what it finished is taken away, and another tries.
            for name in NAMES[position:]:
                shutil.rmtree(folder / name, ignore_errors=True)
                shutil.rmtree(folder / f".{name}.partial", ignore_errors=True)
        assert caught, f"no process was caught inside {stage}"
        now = _finished(folder)
        assert list(now) == NAMES[:position]
        assert {name: now[name] for name in made} == made, f"a stage before {stage} was made again"
        made = now
        (partial,) = folder.glob(f".{stage}.partial/*")
        kept |= {folder / stage / name: (partial / name).stat().st_mtime_ns for name in KEPT.get(stage, [])}

    last = subprocess.run(
        [sys.executable, "-m", "palm", "run", str(tiny_run.config), *settings], capture_output=True, text=True, timeout=DEADLINE
    )
    assert last.returncode == 0, last.stderr
    assert "1 stages run, 10 were done before" in last.stdout
    now = _finished(folder)
    assert list(now) == NAMES
    assert {name: now[name] for name in made} == made
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "work of a killed stage was done again"
    for name in NAMES:
        resumed, uninterrupted = read_manifest(folder / name), read_manifest(tiny_run.folder / name)
        assert resumed is not None
        assert uninterrupted is not None
        assert resumed.files == uninterrupted.files, f"{name} differs from an uninterrupted run's"
    assert not [path for path in folder.iterdir() if path.name.startswith(".") and path.name != ".lock"]
