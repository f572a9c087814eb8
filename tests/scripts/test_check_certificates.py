"""scripts/check_certificates.py: certificates against brute force, on a part of its tensors."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def certificates():
    sys.path.insert(0, str(SCRIPTS))
    from benchmarks import certificates

    sys.path.remove(str(SCRIPTS))
    return certificates


def test_brute_force_finds_no_counterexample_and_every_worst_weight_attains_its_number(certificates):
    """A third of the 300 tensors, 100,000 random weights and 100 climbs for each statement of each."""
    tried = [certificates.try_certificate(seed, count=100_000, starts=100) for seed in range(0, 300, 3)]
    assert {one.kind for one in tried} == set(certificates.KINDS)
    assert {one.bases for one in tried} == {2, 3, 4, 5, 6}
    assert max(one.excess for one in tried) <= 1e-9
    assert max(one.short for one in tried) <= 1e-9
    assert np.median([one.nearest for one in tried]) < 1e-4  # so that a certificate too small by that much would be seen


@pytest.mark.parametrize("field", ["epsilon", "delta", "captured_gain", "captured_gain_given_delta"])
def test_brute_force_would_see_a_number_that_is_a_thousandth_too_good(certificates, monkeypatch, field):
    whole = certificates.certify

    def too_good(*given, **named):
        found = whole(*given, **named)
        sign = 1 if field.startswith("captured") else -1
        return replace(found, **{field: getattr(found, field) + sign * 1e-3})

    monkeypatch.setattr(certificates, "certify", too_good)
    tried = [certificates.try_certificate(seed, count=20_000, starts=20) for seed in (16, 17, 24)]
    assert all(one.excess > 1e-5 for one in tried)


def test_the_script_prints_a_table_and_a_record():
    command = [sys.executable, str(SCRIPTS / "check_certificates.py"), "--last", "8", "--weights", "1000", "--starts", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    *table, line = done.stdout.splitlines()
    record = json.loads(line)
    assert record["broken"] == []
    assert record["rows"][-1]["tensors"] == 9
    assert len(table) == 2 + len(record["rows"])
    wrong = subprocess.run([*command[:2], "--first", "3", "--last", "2"], capture_output=True, text=True, timeout=60, check=False)
    assert wrong.returncode == 2
    assert "--last: expected at least 3, got 2" in wrong.stderr


def test_coverage_is_of_the_worlds_and_sizes_asked_for():
    command = [sys.executable, str(SCRIPTS / "check_certificates.py"), "--coverage"]
    chosen = ["--worlds", "coarse", "--bases", "2", "--prompts", "20", "30", "--repeats", "3", "--draws", "20"]
    done = subprocess.run([*command, *chosen], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert [(row["world"], row["K"], row["prompts"]) for row in rows] == [("coarse", 2, 20), ("coarse", 2, 30)]
    wrong = subprocess.run([*command, "--bases", "1"], capture_output=True, text=True, timeout=60, check=False)
    assert wrong.returncode == 2
    assert "--bases: expected at least 2, got 1" in wrong.stderr
