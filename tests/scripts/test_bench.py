"""scripts/bench.py measures what it says and prints it twice: for people and as JSON."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts/bench.py"


def test_steps() -> None:
    command = [sys.executable, SCRIPT, "steps", "--responses", "3", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    *table, line = done.stdout.splitlines()
    rows = json.loads(line)["rows"]
    assert len(rows) == 6
    assert len(table) == 2 + len(rows)
    obvious = next(row for row in rows if row["way"] == "one tensor, fused head")
    for row in rows:
        assert row["responses"] == 3
        assert abs(row["of_obvious"] - row["ms"] / obvious["ms"]) < 0.1


def test_no_group_of_one() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "steps", "--responses", "1"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert "--responses, --rounds: expected at least 2 and 1" in done.stderr
