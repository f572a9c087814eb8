"""scripts/evaluate_judge.py on the tiny run, with a judge on loopback."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import by_length

from palm.evaluation.judged_users import user_comparisons
from palm.pipeline.finished import FinishedRun

SCRIPT = Path(__file__).parents[2] / "scripts" / "evaluate_judge.py"


def ask(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def folder(tiny_run: Any, tmp_path: Path) -> Path:
    shutil.copytree(tiny_run.folder, tmp_path / "run")
    return tmp_path / "run"


def test_a_run_is_judged_and_what_was_judged_is_kept(folder: Path, serve: Any) -> None:
    endpoint = serve(by_length)
    run = FinishedRun.read(folder)
    name = run.portfolio.bases[0]
    arguments = [folder, "--url", endpoint.url, "--model", "m", "--comparisons", 6, "--describe", f"{name}=long answers"]
    done = ask(*arguments)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout.splitlines()[-1])["rows"][0]
    assert (row["against"], row["comparisons"], row["failed"], row["position_bias"]["mean"]) == ("reference", 6, 0, 0)
    asked = len(endpoint.asked)
    assert 6 < asked <= 12
    assert all("long answers" in body["messages"][1]["content"] for body in endpoint.asked)
    again = ask(*arguments)
    assert again.stdout == done.stdout
    assert len(endpoint.asked) == asked


def test_a_single_policy_is_known_by_its_name_also_where_a_member_stands_for_it(folder: Path, serve: Any) -> None:
    """And names are looked at before anything is asked."""
    run = FinishedRun.read(folder)
    assert "single-mean" not in run.texts, "in this run a member stands for it"
    endpoint = serve(by_length)
    options = ["--url", endpoint.url, "--model", "m", "--comparisons", 2]
    done = ask(folder, *options, "--against", "reference", "nobody")
    assert (done.returncode, len(endpoint.asked)) == (2, 0)
    names = ["single-mean", "single-worst"]
    served = {
        run.portfolio.ids[place] for place in run.portfolio.utilities(run.users.mean).argmax(axis=1) if place < len(run.portfolio)
    }
    names = [name for name in names if served != {run.policy_for(name)}]
    done = ask(folder, *options, "--against", *names)
    assert done.returncode == 0, done.stderr
    assert [row["against"] for row in json.loads(done.stdout.splitlines()[-1])["rows"]] == names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--against", "nobody"], "against: expected one of"),
        (["--describe", "none=x"], "--describe: expected BASIS=WORDS with a basis out of"),
        (["--comparisons", "0"], "count: expected at least 1, got 0"),
        (["--tries", "1"], "none of 100 comparisons got two verdicts: http://127.0.0.1:9/v1: no answer in 1 tries"),
    ],
)
def test_bad_input_is_told(folder: Path, arguments: list[str], message: str) -> None:
    done = ask(folder, "--url", "http://127.0.0.1:9/v1", "--model", "m", *arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())


def test_users_get_what_they_are_served(tiny_run: Any) -> None:
    """Every comparison is of the user's own best policy, users and prompts take turns, nobody is compared with itself."""
    run = FinishedRun.read(tiny_run.folder)
    prompts = run.candidates.prompts
    texts = {name: [[f"{name} {at}"] for at in range(len(prompts))] for name in ("reference", *run.portfolio.ids)}
    ids = [*run.portfolio.ids, "reference"]
    best = dict(zip(run.users.ids.tolist(), run.portfolio.utilities(run.users.mean).argmax(axis=1).tolist(), strict=True))
    against = next(name for name in ids if any(ids[place] != name for place in best.values()))
    made = user_comparisons(run.portfolio, run.users, prompts, texts, against=against, count=20)
    assert len(made) == 20
    for one in made:
        place = prompts.index(one.prompt)
        assert one.ours == f"{ids[best[one.user]]} {place}"
        assert one.theirs == f"{against} {place}"
        assert one.unit == str(place)
        assert ids[best[one.user]] != against
    counts = np.bincount([int(one.unit) for one in made])
    assert counts.max() - counts.min() <= 1
    only = [name for name in ids if all(ids[place] == name for place in best.values())]
    for name in only:
        with pytest.raises(ValueError, match="against: expected a policy that does not serve every user"):
            user_comparisons(run.portfolio, run.users, prompts, texts, against=name, count=1)
