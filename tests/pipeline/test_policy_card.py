"""palm.pipeline.policy_card: what it says is what was measured, and its examples run as they stand."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from palm.evaluation.intervals import bootstrap_mean
from palm.pipeline.finished import FinishedRun
from palm.pipeline.policy_card import policy_card


@pytest.fixture(scope="module")
def portfolio_folder(tiny_run: Any) -> Path:
    return Path(tiny_run.folder) / "route" / "portfolio"


def test_it_says_what_was_measured(tiny_run: Any, portfolio_folder: Path) -> None:
    run = FinishedRun.read(tiny_run.folder)
    for place, name in enumerate(run.portfolio.ids):
        text = (portfolio_folder / "policies" / name / "README.md").read_text()
        assert text.startswith("---\nlibrary_name: peft\nbase_model: tiny-base\n")
        measured, weight = run.measured(name), run.portfolio.weights[place]
        for k, basis in enumerate(run.portfolio.bases):
            mean = bootstrap_mean(measured.value[:, k]).mean
            assert re.search(rf"\| {basis} \| {weight[k]:.3f} \| {mean:.3f} \[", text)
            assert f"* {basis}: raw {run.portfolio.calibration[k, 0]:.6g} becomes 0" in text
        assert f"utility at its own weight {measured.utility(weight, run.portfolio.kl).mean:.3f} [" in text
        assert f"KL from the base model: {measured.kl.mean():.3f} [" in text
        assert "--max-lora-rank 8" in text
        assert str(tiny_run.folder) not in text


def test_its_examples_run_as_they_stand(portfolio_folder: Path) -> None:
    """In the portfolio's folder, in a process of its own: PEFT writes a text, palm says which policy serves the weight."""
    text = (portfolio_folder / "policies" / "policy-0" / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 2
    said = _output("\n".join(blocks), portfolio_folder)
    assert "How do I boil an egg?" in said
    assert re.search(r"policy-\d|reference", said.splitlines()[-1])


def _output(code: str, folder: Path) -> str:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_its_example_ends_texts_where_measured_ones_end(portfolio_folder: Path, tmp_path: Path) -> None:
    """At the tokenizer's end token as well where the base's generation settings name others only."""
    folder = shutil.copytree(portfolio_folder, tmp_path / "portfolio")
    settings = folder / "base" / "generation_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "eos_token_id": [5]}))
    text = (folder / "policies" / "policy-0" / "README.md").read_text()
    example = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)[0]
    asked = "print(tokenizer.eos_token_id, model.generation_config.eos_token_id)"
    end, ends = _output(f"{example}\n{asked}", folder).splitlines()[-1].split(maxsplit=1)
    assert json.loads(ends) == sorted({5, int(end)})


def test_what_was_only_planned_says_so(tiny_run: Any, portfolio_folder: Path) -> None:
    portfolio = replace(FinishedRun.read(tiny_run.folder).portfolio, calibration=None)
    adapter = portfolio_folder / "policies" / "policy-0"
    text = policy_card(portfolio, "policy-0", adapter, base="base", measured=None)
    assert "Planned, not measured" in text
    assert "calibrated" not in text
    with pytest.raises(ValueError, match=r"name: expected one of policy-0.*, got 'nobody'"):
        policy_card(portfolio, "nobody", adapter, base="base", measured=None)
