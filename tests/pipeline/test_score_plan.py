"""palm plan-scores: scored responses to a certified portfolio, on rows of the human scores' schema and on these where at hand."""

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from palm.cli import main
from palm.pipeline.read_config import read_config
from palm.pipeline.score_plan import ScorePlan, run_score_plan
from palm.portfolio import Portfolio, certify, held_out_confidence
from palm.portfolio.gibbs import GibbsOracle
from palm.portfolio.verify import sound, verify
from palm.progress import silent
from palm.rewards import RewardTensor

ROOT = Path(__file__).parents[2]
SHARED = ROOT / "../shared/data/nlg_multiattr"
CONFIGS = ROOT / "recipes/configs/nlg_multiattr"


def rows_like(attributes, prompts=30, candidates=4):
    rng = np.random.default_rng(len(attributes))
    return [
        {
            "prompt": f"Say this in plain English: act {prompt}",
            "response": f"sentence {prompt} {number}",
            "doc": str(prompt),
            "scores": {name: round(float(rng.integers(1, 13)) / 2, 1) for name in attributes},
        }
        for prompt in range(prompts)
        for number in range(candidates)
    ]


def planned(tmp_path, name, *settings, source=None):
    config = read_config(CONFIGS / f"{name}.yaml", [f"output={tmp_path}/out", "plan.curve=2", *settings], ScorePlan)
    if source is None:
        source = tmp_path / "scores.jsonl"
        names = [attribute.partition(".")[2] for attribute in config.scores.attributes]
        source.write_text("\n".join(json.dumps(row) for row in rows_like(names)), encoding="utf-8")
    config = read_config(
        CONFIGS / f"{name}.yaml", [f"output={tmp_path}/out", f"scores.source={source}", "plan.curve=2", *settings], ScorePlan
    )
    return run_score_plan(config, track=silent)


@pytest.mark.parametrize(("name", "bases"), [("sfhot", 3), ("topical_chat", 6)])
def test_rows_of_the_schema_become_a_portfolio_that_verifies_with_a_report(tmp_path, name, bases):
    portfolio = planned(tmp_path, name, "plan.epsilon=0.15" if bases == 3 else "plan.epsilon=0.3", "plan.curve=2")
    folder = tmp_path / "out"
    assert Portfolio.from_pretrained(folder / "plan").confidence == portfolio.confidence
    tensors = [RewardTensor.load(folder / "score" / f"{part}.safetensors") for part in ("plan", "held_out")]
    assert [tensor.rewards.shape for tensor in tensors] == [(18, 4, bases), (12, 4, bases)]
    assert (tensors[0].rewards.min(axis=(0, 1)) == 0).all()
    assert (tensors[0].rewards.max(axis=(0, 1)) == 1).all()
    oracle = GibbsOracle(tensors[0].rewards, portfolio.kl, mask=tensors[0].mask)
    assert portfolio.certificate.epsilon == pytest.approx(certify(portfolio, oracle).epsilon)
    assert portfolio.certificate.epsilon <= (0.15 if bases == 3 else 0.3) + 1e-9
    expected = held_out_confidence(portfolio, tensors[1].rewards, tensors[1].mask, portfolio.kl, seed=0)
    assert portfolio.confidence.bootstrap == expected.bootstrap
    assert portfolio.confidence.prompts == 12
    lines = verify(folder / "plan", folder / "score" / "plan.safetensors", weights=2000)
    assert sound(lines)
    curve = json.loads((folder / "plan" / "plan.json").read_text())["curve"]
    assert [point["size"] for point in curve] == [0, 1, 2]
    assert all(0 < point["epsilon_at_least"] <= point["epsilon"] + 1e-9 for point in curve)
    report = (folder / "report.md").read_text(encoding="utf-8")
    for part in (
        "18 prompts to plan on and 12 prompts held out, 120 responses",
        "size against gap:",
        "(any 1: at least",
        "95 % is nominal",
    ):
        assert part in report
    for picture in ("cells", "curve"):
        assert f"plan/{picture}.svg" in report
        assert ElementTree.parse(folder / "plan" / f"{picture}.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_the_command_runs_it_and_says_where_the_result_is(tmp_path, monkeypatch, capsys):
    source = tmp_path / "scores.jsonl"
    names = ("informativeness", "naturalness", "quality")
    source.write_text("\n".join(json.dumps(row) for row in rows_like(names, prompts=8)), encoding="utf-8")
    settings = [f"scores.source={source}", f"output={tmp_path}/out", "plan.size=1", "plan.curve=0", "pictures=false"]
    monkeypatch.setattr(sys, "argv", ["palm", "plan-scores", str(CONFIGS / "bagel.yaml"), *settings])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    out = capsys.readouterr().out
    assert "1 policies:" in out
    assert "over all prompts: 95 % is nominal" in out
    assert not list((tmp_path / "out" / "plan").glob("*.svg"))


def test_pictures_without_matplotlib_name_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("palm.evaluation.plan_pictures.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"palm-align\[plot\]"):
        planned(tmp_path, "sfhot", "plan.size=1", "plan.curve=0")


@pytest.mark.skipif(not SHARED.exists(), reason="human scores are not at hand")
def test_human_scores_are_planned_certified_and_stated_for_all_contexts(tmp_path):
    portfolio = planned(tmp_path, "topical_chat", "pictures=false", source=SHARED / "topical_chat_scores.jsonl.gz")
    assert portfolio.bases[0] == "understandability"
    assert portfolio.certificate.epsilon <= 0.03 + 1e-9
    assert 0 < portfolio.confidence.bootstrap.epsilon < 0.2
