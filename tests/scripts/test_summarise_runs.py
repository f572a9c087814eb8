"""scripts/summarise_runs.py reads finished runs, and says so where one is not."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/summarise_runs.py"


def _run(*folders: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, SCRIPT, *folders], capture_output=True, text=True, timeout=120, check=False)


def test_table_of_a_run_and_its_mean(tiny_run) -> None:
    done = _run(tiny_run.folder, tiny_run.folder)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert [line.count("|") for line in lines] == [13] * 5
    cells = [cell.strip() for cell in lines[2].split("|")[2:-1]]
    assert 0 <= float(cells[0]) <= 1
    assert float(cells[2]) == pytest.approx(float(cells[0]) - float(cells[1]), abs=2e-3)
    assert lines[4].split("|")[2].strip() == f"{cells[0]} ± 0.000"


def test_unfinished_run(tmp_path: Path) -> None:
    done = _run(tmp_path)
    assert done.returncode == 1
    assert "measure.json" in done.stderr
    assert "is the run finished?" in done.stderr
