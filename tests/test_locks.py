"""palm.locks: who holds a lock, who waits, and what becomes of those who wait for a folder that goes."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from palm.artifacts import ArtifactError
from palm.locks import held

WAITS = "import sys; from pathlib import Path; from palm.locks import held\nwith held(Path(sys.argv[1]), what='count'): print('in')"


def waiting_for(lock: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", WAITS, str(lock)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_one_process_at_a_time_and_who_waits_says_so(tmp_path: Path) -> None:
    with held(tmp_path / "lock", what="count"):
        other = waiting_for(tmp_path / "lock")
        assert other.stderr is not None
        assert other.stderr.readline() == "waiting for another process, to count\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(1)
    assert other.communicate(timeout=30)[0] == "in\n"


def test_a_kill_lets_go(tmp_path: Path) -> None:
    code = WAITS + "; import time; sys.stdout.flush(); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "in\n"
    os.kill(other.pid, signal.SIGKILL)
    other.wait(30)
    assert waiting_for(tmp_path / "lock").communicate(timeout=30) == ("in\n", ""), "it does not even wait"


@pytest.mark.parametrize("anew", [False, True])
def test_who_waited_for_a_folder_that_went_is_told(tmp_path: Path, anew: bool) -> None:
    """Also if another folder of the name is there by now: what this process looked at before it waited is gone."""
    folder = tmp_path / "work"
    folder.mkdir()
    with held(folder / "lock", what="count"):
        other = waiting_for(folder / "lock")
        assert other.stderr is not None
        other.stderr.readline()
        shutil.rmtree(folder)
        if anew:
            folder.mkdir()
            (folder / "lock").touch()
    said = other.communicate(timeout=30)[1]
    assert other.returncode == 1
    assert f"{folder}: expected the folder to count in, which went meanwhile" in said


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with (
        pytest.raises(ArtifactError, match="none: expected the folder to count in: No such file or directory"),
        held(tmp_path / "none" / "lock", what="count"),
    ):
        pass
