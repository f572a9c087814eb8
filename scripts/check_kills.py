#!/usr/bin/env python3
r"""Kill training at random moments and see whether anything is lost, half written, or different in the end.

    python scripts/check_kills.py runs/kills recipes/configs/planted/pipeline.yaml \
        plan.size=4 train.shared_steps=30 train.dpo.max_steps=40
    python scripts/check_kills.py runs/kills my.yaml --launchers pool --kills 3

The run is made up to its plan once, and trained once without harm. For every launcher, copies of it are then trained by
`palm train` and stopped by SIGKILL at a random moment, in turn the command alone and the command with every process that it has
started, until there were so many kills; a copy that is finished before makes room for a new one. After every kill each visible
adapter is read as PEFT and vLLM would read it, and what was finished must be there, untouched, in the end. At last every copy
is trained to its end without harm, and its adapters compared with the first ones, byte for byte.

Prints a table and one JSON line; the exit status is 1 where something was lost. Only the folder given first is written to.
"""

import argparse
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from benchmarks.table import print_table

from palm.artifacts import ArtifactError
from palm.commands.guarded import quiet
from palm.pipeline import STAGES, Pipeline, load_config
from palm.policies.adapters import check_adapter

ADAPTER = "adapter_model.safetensors"


@dataclass
class Row:
    """What happened to one launcher's trainings.

    Attributes:
        launcher: which.
        kills: processes that were killed while they trained.
        at: seconds from each one's start to its kill.
        visible: adapters that were seen after kills; each was read.
        broken: of them, those that could not be read.
        lost: finished members that were gone or made anew in the end.
        different: members of finished copies that are not those of a training without harm, byte for byte.
        copies: trainings that came to their end.
        seconds: of one training without harm by this launcher.
    """

    launcher: str
    kills: int = 0
    at: tuple[float, ...] = ()
    visible: int = 0
    broken: int = 0
    lost: int = 0
    different: int = 0
    copies: int = 0
    seconds: float = 0.0


def adapters(folder: Path) -> dict[str, Path]:
    """Visible adapters of a run, by member: those of the finished stage, else of the one that is being made."""
    inside = "train" if (folder / "train").exists() else ".train.partial/*"
    return {path.parent.name: path for path in sorted(folder.glob(f"{inside}/[!.]*/{ADAPTER}"))}


def train(config: Path, output: Path, settings: list[str], launcher: str) -> "subprocess.Popen[bytes]":
    """`palm train`, in a session of its own."""
    command = [
        sys.executable,
        "-m",
        "palm",
        "train",
        str(config),
        *settings,
        f"output={output}",
        f"train.launch.launcher={launcher}",
    ]
    log = (output.parent / f"{output.name}.log").open("ab")
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def descendants(pid: int) -> list[int]:
    """Processes that a process has started, and those that they have started."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue  # ended meanwhile
        children.setdefault(int(text.rsplit(")", 1)[1].split()[1]), []).append(int(path.parent.name))
    found, waiting = list[int](), [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def kill(process: "subprocess.Popen[bytes]", *, everything: bool) -> None:
    """SIGKILL for a command, and for everything it has started if wanted."""
    targets = [process.pid, *(descendants(process.pid) if everything else [])]
    for pid in targets:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def finish(process: "subprocess.Popen[bytes]", output: Path, limit: float) -> None:
    """Wait for a training without harm; raise what it said if it failed."""
    if process.wait(timeout=limit) != 0:
        raise SystemExit(f"{output}: palm train failed: {(output.parent / f'{output.name}.log').read_text()[-2000:]}")


def harm(
    launcher: str,
    config: Path,
    settings: list[str],
    plan: Path,
    wanted: dict[str, bytes],
    kills: int,
    rng: np.random.Generator,
    limit: float,
) -> Row:
    """Train copies of a planned run and kill them, `kills` times."""
    row = Row(launcher)
    copy = plan.parent / f"{launcher}-0"
    shutil.copytree(plan, copy)
    start = time.monotonic()
    finish(train(config, copy, settings, launcher), copy, limit)
    row.seconds = time.monotonic() - start
    row.different += count_different(copy, wanted)
    while row.kills < kills:
        row.copies += 1
        shutil.rmtree(copy)
        copy = plan.parent / f"{launcher}-{row.copies}"
        shutil.copytree(plan, copy)
        made: dict[str, int] = {}
        while row.kills < kills:
            process = train(config, copy, settings, launcher)
            moment = float(rng.uniform(0.1, row.seconds))
            try:
                process.wait(timeout=moment)
            except subprocess.TimeoutExpired:
                kill(process, everything=row.kills % 2 == 1)
                row.kills += 1
                row.at = (*row.at, round(moment, 1))
            row.visible += len(adapters(copy))
            row.broken += sum(unreadable(path.parent) for path in adapters(copy).values())
            row.lost += count_lost(copy, made)
            made = {member: path.stat().st_mtime_ns for member, path in adapters(copy).items()}
            if (copy / "train").exists():
                break
        finish(train(config, copy, settings, launcher), copy, limit)
        row.lost += count_lost(copy, made)
        row.different += count_different(copy, wanted)
    return row


def unreadable(folder: Path) -> bool:
    """Whether what is visible is no whole adapter."""
    try:
        check_adapter(folder)
    except ArtifactError as error:
        print(f"{folder}: {error}", file=sys.stderr)
        return True
    return False


def count_lost(copy: Path, made: dict[str, int]) -> int:
    """Members that were finished and are gone or were made anew."""
    now = {member: path.stat().st_mtime_ns for member, path in adapters(copy).items()}
    return sum(now.get(member) != when for member, when in made.items())


def count_different(copy: Path, wanted: dict[str, bytes]) -> int:
    """Members of a finished run that are missing or not what they should be."""
    found = adapters(copy)
    return sum(member not in found or found[member].read_bytes() != content for member, content in wanted.items())


def main() -> None:
    """Plan, train once, harm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the runs; it must not exist")
    parser.add_argument("config", type=Path, help="of a pipeline")
    parser.add_argument("settings", nargs="*", default=[], help="key=value, as for palm run")
    parser.add_argument("--launchers", nargs="+", default=["inline", "pool", "ray"], help="(default: inline pool ray)")
    parser.add_argument("--kills", type=int, default=10, help="for each launcher (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--limit", type=float, default=1800, help="seconds for any one training (default: 1800)")
    arguments = parser.parse_args()
    if arguments.folder.exists():
        parser.error(f"folder: expected one that does not exist, got {arguments.folder}")
    if arguments.kills < 1:
        parser.error(f"--kills: expected at least 1, got {arguments.kills}")
    quiet()
    arguments.folder.mkdir(parents=True)
    plan = arguments.folder.resolve() / "plan"
    settings = list(arguments.settings)
    pipeline = Pipeline(STAGES, load_config(arguments.config, [*settings, f"output={plan}"]))
    for stage in itertools.takewhile(lambda stage: stage.name != "train", STAGES):
        pipeline.run(only=stage.name)
    first = plan.parent / "unharmed"
    shutil.copytree(plan, first)
    finish(train(arguments.config, first, settings, "inline"), first, arguments.limit)
    wanted = {member: path.read_bytes() for member, path in adapters(first).items()}
    rng = np.random.default_rng(arguments.seed)
    rows = [
        harm(launcher, arguments.config, settings, plan, wanted, arguments.kills, rng, arguments.limit)
        for launcher in arguments.launchers
    ]
    print_table(
        [
            {
                "launcher": row.launcher,
                "members": len(wanted),
                "unharmed, s": f"{row.seconds:.0f}",
                "kills": row.kills,
                "trainings": row.copies,
                "adapters seen": row.visible,
                "broken": row.broken,
                "lost": row.lost,
                "different": row.different,
            }
            for row in rows
        ]
    )
    print(json.dumps([asdict(row) for row in rows]))
    sys.exit(any(row.broken or row.lost or row.different for row in rows))


if __name__ == "__main__":
    main()
