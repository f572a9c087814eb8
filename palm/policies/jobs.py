"""A portfolio's training as a manifest: one independent, idempotent command per member, for whatever runs commands.

A command may be run anywhere that sees the run's folder, in any order, twice or at the same time: a member that is complete is
left as it is, and of two commands for one member the second waits for the first: on one machine, and on several whose file system
shares locks (flock). Elsewhere a member's command is to be started once at a time.
"""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from palm.artifacts import ArtifactError, read_json, write_json, write_text

FORMAT = "palm.Jobs/1"


@dataclass(frozen=True)
class Job:
    """One member's training.

    Attributes:
        id: of the member.
        weight: K numbers that it is trained for.
        command: what trains it, as a list of arguments.
        log: file that takes what the command says.
    """

    id: str
    weight: tuple[float, ...]
    command: tuple[str, ...]
    log: str


@dataclass(frozen=True)
class JobManifest:
    """All of them.

    Attributes:
        folder: where commands are started.
        jobs: one for each member that is not complete yet.
    """

    folder: str
    jobs: tuple[Job, ...]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_json(path, {"format": FORMAT, "folder": self.folder, "jobs": [asdict(job) for job in self.jobs]})

    @classmethod
    def load(cls, path: Path) -> "JobManifest":
        """Read it.

        Raises:
            ArtifactError: the file is missing, damaged or of another kind.
        """
        record: Any = read_json(path)
        try:
            if record["format"] != FORMAT:
                raise ArtifactError(f"{path}: expected the format {FORMAT!r}, got {record['format']!r}")
            jobs = [Job(job["id"], tuple(job["weight"]), tuple(job["command"]), job["log"]) for job in record["jobs"]]
            return cls(record["folder"], tuple(jobs))
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"{path}: not a complete manifest of jobs: {error!r}") from error


def write_slurm(manifest: JobManifest, path: Path, *, options: Sequence[str] = ()) -> None:
    """Write a Slurm array script with one task per member: `sbatch PATH`.

    Args:
        manifest: what to run.
        path: of the script.
        options: of sbatch, such as "--gpus=1" or "--time=02:00:00", each a line of its own.

    Raises:
        ValueError: there is nothing to run, or an option is not one.
    """
    if not manifest.jobs:
        raise ValueError("jobs: expected a member that is not trained yet, got none")
    for option in options:
        if not option.startswith("-") or "\n" in option:
            raise ValueError(f"options: expected options of sbatch such as '--gpus=1', got {option!r}")
    logs = Path(manifest.jobs[0].log).parent
    lines = [
        "#!/usr/bin/env bash",
        "#SBATCH --job-name=palm-members",
        f"#SBATCH --array=0-{len(manifest.jobs) - 1}",
        f"#SBATCH --output={shlex.quote(f'{logs}/slurm-%A-%a.log')}",
        *(f"#SBATCH {option}" for option in options),
        "# One task per member of the portfolio; finished members are left alone, so the array may be submitted again.",
        "set -euo pipefail",
        f"cd {shlex.quote(manifest.folder)}",
        'case "${SLURM_ARRAY_TASK_ID:?run this with sbatch, or set it to the number of a member}" in',
        *(f"{number}) exec {shlex.join(job.command)} ;; # {job.id}" for number, job in enumerate(manifest.jobs)),
        f'*) echo "SLURM_ARRAY_TASK_ID: expected 0 to {len(manifest.jobs) - 1}, got $SLURM_ARRAY_TASK_ID" >&2; exit 2 ;;',
        "esac",
    ]
    write_text(path, "\n".join(lines) + "\n")
    path.chmod(0o755)
