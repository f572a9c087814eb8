"""recipes/score.py: scored responses that a pipeline draws users over."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from palm.data.drawn import load_drawn
from palm.data.schema import PairError
from palm.pipeline.scoring import Scoring, run_scoring

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["palm.rewards.traits:length", "palm.rewards.traits:cheer"]
TEXTS = {"Es war einmal": ["Ein Bär.", "A happy bear, a very happy bear."], "Once": ["sad", "A day in the park with Tom."]}


def table(path: Path, texts: dict[str, list[str]]) -> Path:
    rows = [{"prompt": prompt, "policy": "reference", "text": text} for prompt, each in texts.items() for text in each]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_users_can_be_drawn_over_what_is_written(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "recipes/score.py"), "--responses", str(table(tmp_path / "t.jsonl", TEXTS))]
    command += ["--output", str(tmp_path / "scored.jsonl")] + [part for name in NAMES for part in ("--functions", name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "2 responses to each of 2 prompts" in done.stdout
    rows = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["prompt"] for row in rows] == list(TEXTS)
    assert rows[0]["response_2"] == TEXTS["Es war einmal"][1]
    assert rows[1]["response_1_length"] == pytest.approx(1 / 120)
    assert rows[1]["response_1_cheer"] == 0
    pairs, weights = load_drawn(tmp_path / "scored.jsonl", users=6, alpha=0.5, pairs_per_user=2)
    assert weights.shape == (6, 2)
    longer = int(np.argmax(weights[:, 1]))  # columns in the names' order: cheer, length
    mine = [pair for pair in pairs if pair["user"] == f"user-{longer:05d}"]
    assert {pair["chosen"] for pair in mine} <= {TEXTS["Es war einmal"][1], TEXTS["Once"][1]}


def test_prompts_with_an_empty_response_are_left_out(tmp_path: Path) -> None:
    texts = TEXTS | {"Twice": ["", "not nothing"]}
    wanted = Scoring(table(tmp_path / "t.jsonl", texts), tmp_path / "scored.jsonl", NAMES)
    assert run_scoring(wanted) == (2, 2, 1)


@pytest.mark.parametrize(
    ("texts", "names", "error", "message"),
    [
        (TEXTS, [], ValueError, "--functions, --reward-models: expected at least one reward, got none"),
        (TEXTS, [NAMES[0]] * 2, ValueError, "expected names that differ, got length, length"),
        (TEXTS, ["palm.rewards.traits:width"], ValueError, "'palm.rewards.traits:width' could not be imported"),
        ({}, NAMES, PairError, "expected at least one row, got none"),
        ({"p": [""]}, NAMES, PairError, "expected a prompt without empty responses, got none among 1"),
        (TEXTS | {"more": ["a"]}, NAMES, PairError, "expected 2 responses to every prompt, as the first has, got 1 to 'more'"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    texts: dict[str, list[str]], names: list[str], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        run_scoring(Scoring(table(tmp_path / "t.jsonl", texts), tmp_path / "scored.jsonl", names))
    assert not (tmp_path / "scored.jsonl").exists()


def test_a_row_without_its_columns_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"prompt": "a", "text": "b"}\n{"prompt": "a"}\n', encoding="utf-8")
    with pytest.raises(PairError, match="row 2, column 'text': expected text"):
        run_scoring(Scoring(path, tmp_path / "scored.jsonl", NAMES))
