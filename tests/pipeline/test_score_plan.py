"""palm plan-scores: scored responses to a certified portfolio, on rows of the human scores' schema and on these where at hand."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from palm.artifacts import ArtifactError, digest_tree
from palm.cli import main
from palm.pipeline.read_config import read_config
from palm.pipeline.runner import PipelineError
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
        "size against the smallest gap found:",
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
    assert "1 policy:" in out
    assert "over all prompts: 95 % is nominal" in out
    assert not list((tmp_path / "out" / "plan").glob("*.svg"))


def command(tmp_path, *settings):
    """A command line on scores of six attributes that plans for a while."""
    source = tmp_path / "six.jsonl"
    names = [f"attribute-{number}" for number in range(6)]
    source.write_text("\n".join(json.dumps(row) for row in rows_like(names, prompts=60, candidates=12)), encoding="utf-8")
    attributes = ", ".join(f"scores.{name}" for name in names)
    given = [f"scores.source={source}", f"scores.attributes=[{attributes}]", f"output={tmp_path}/out", "pictures=false"]
    config = str(CONFIGS / "topical_chat.yaml")
    # Tests that run in a shell's background inherit that Ctrl-C is ignored; whoever sits before a terminal does not.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from palm.cli import main; main()"
    return [sys.executable, "-c", heard, "plan-scores", config, *given, "plan.epsilon=0.2", *settings]


def wait_until_planning(process, folder):
    for _ in range(600):
        if list(folder.glob(".out.partial/*/score/held_out.safetensors")) or process.poll() is not None:
            break
        time.sleep(0.1)
    assert process.poll() is None, "it was to be interrupted while it plans"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_folder_is_whole_or_not_there_whenever_it_ends(tmp_path, how):
    old = planned(tmp_path, "sfhot", "plan.size=1", "plan.curve=0", "pictures=false")
    before = digest_tree(tmp_path / "out")
    with subprocess.Popen(command(tmp_path, "plan.curve=10"), stderr=subprocess.PIPE, text=True) as process:
        wait_until_planning(process, tmp_path)
        process.send_signal(how)
        _, said = process.communicate(timeout=60)
    assert ("palm: interrupted" in said) == (how == signal.SIGINT)
    assert digest_tree(tmp_path / "out") == before, "until another is complete, the old one stays"
    assert Portfolio.from_pretrained(tmp_path / "out" / "plan").confidence == old.confidence
    again = subprocess.run(command(tmp_path, "plan.curve=1"), capture_output=True, text=True, timeout=600, check=False)
    assert again.returncode == 0, again.stderr
    assert sound(verify(tmp_path / "out" / "plan", tmp_path / "out" / "score" / "plan.safetensors", weights=1000, starts=5))
    assert len(Portfolio.from_pretrained(tmp_path / "out" / "plan").bases) == 6


def test_two_at_once_do_not_write_the_same_folder(tmp_path):
    with subprocess.Popen(command(tmp_path, "plan.curve=10")) as process:
        wait_until_planning(process, tmp_path)
        second = subprocess.run(command(tmp_path), capture_output=True, text=True, timeout=600, check=False)
        process.kill()
    assert second.returncode == 1
    assert f"palm: {tmp_path}/out: another palm process is working in this folder" in second.stderr


def test_what_is_done_is_not_done_again_unless_something_changed(tmp_path):
    config = ["plan.size=1", "plan.curve=0", "pictures=false"]
    first = planned(tmp_path, "sfhot", *config)
    made = (tmp_path / "out" / "manifest.json").stat().st_mtime_ns
    again = planned(tmp_path, "sfhot", *config)
    assert (tmp_path / "out" / "manifest.json").stat().st_mtime_ns == made
    np.testing.assert_array_equal(first.weights, again.weights)
    assert len(planned(tmp_path, "sfhot", *config, "seed=1")) == 1  # another seed
    assert (tmp_path / "out" / "manifest.json").stat().st_mtime_ns > made
    (tmp_path / "out" / "plan" / "portfolio.json").write_text("cut")
    assert len(planned(tmp_path, "sfhot", *config, "seed=1")) == 1  # damaged
    source = tmp_path / "fewer.jsonl"
    source.write_text("\n".join((tmp_path / "scores.jsonl").read_text().splitlines()[4:]), encoding="utf-8")
    fewer = planned(tmp_path, "sfhot", *config, source=source)  # other scores
    assert not np.array_equal(fewer.reference, first.reference)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    planned(tmp_path, "sfhot", "plan.size=1", "plan.curve=0", "pictures=false")  # an empty one will do
    (tmp_path / "out" / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="out: expected a new folder, or one that palm plan-scores made; other files are"):
        planned(tmp_path, "sfhot", "plan.size=1")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("plan.select=population", "plan.select: expected milp or greedy, as there are no users here, got population"),
        ("plan.curve=-1", "plan.curve: expected at least 0, got -1"),
        ("plan.captured_gain=1.5", "plan.captured_gain: expected a share above 0 and at most 1, got 1.5"),
    ],
)
def test_wishes_are_refused_before_anything_is_read(tmp_path, setting, message):
    with pytest.raises(PipelineError, match=message):
        planned(tmp_path, "sfhot", setting)
    assert not (tmp_path / "out").exists()


def test_rows_without_a_score_may_be_left_out(tmp_path):
    rows = rows_like(("informativeness", "naturalness", "quality"), prompts=10)
    rows[1]["scores"]["quality"] = None
    source = tmp_path / "some.jsonl"
    source.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    config = ["plan.size=1", "plan.curve=0", "pictures=false"]
    with pytest.raises(ValueError, match=r"row 2, column 'scores.quality'.*drop_invalid"):
        planned(tmp_path, "sfhot", *config, source=source)
    planned(tmp_path, "sfhot", *config, "scores.drop_invalid=true", source=source)
    masks = [RewardTensor.load(tmp_path / "out" / "score" / f"{part}.safetensors").mask for part in ("plan", "held_out")]
    assert sum(int(mask.sum()) for mask in masks) == 39


def test_a_single_prompt_cannot_be_planned_on_and_held_out(tmp_path):
    source = tmp_path / "one.jsonl"
    names = ("informativeness", "naturalness", "quality")
    source.write_text("\n".join(json.dumps(row) for row in rows_like(names, prompts=1)), encoding="utf-8")
    with pytest.raises(ValueError, match=r"scores\.held_out: expected at least 2 prompts"):
        planned(tmp_path, "sfhot", source=source)


def test_a_captured_gain_can_be_asked_for_and_weights_moved(tmp_path):
    gains = planned(tmp_path, "sfhot", "plan.captured_gain=0.7", "plan.curve=0", "pictures=false")
    assert gains.certificate.captured_gain >= 0.7
    moved = planned(tmp_path, "sfhot", "plan.size=2", "plan.refine=true", "plan.curve=0", "pictures=false")
    plain = planned(tmp_path, "sfhot", "plan.size=2", "plan.curve=0", "pictures=false")
    assert moved.certificate.epsilon < plain.certificate.epsilon


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
