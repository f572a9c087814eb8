import json
from dataclasses import replace

import numpy as np
import pytest

from palm.artifacts import write_json
from palm.data.candidates import Candidates
from palm.evaluation import coverage, diversity
from palm.evaluation.intervals import Estimate
from palm.evaluation.report import write_report
from palm.pipeline.config import Config
from palm.pipeline.report_data import collect
from palm.pipeline.runner import Context
from palm.portfolio import GibbsOracle, certify, plan_portfolio
from palm.progress import silent
from palm.rewards import RewardTensor
from palm.rewards.users import UserWeights

STAGES = ("data", "base", "fit", "sample", "score", "plan", "train", "measure", "route")


def make_context(tmp_path, *, size=2, unseen=2, truth=True):
    """A run's folder as the stages leave it, with numbers but without models."""
    rng = np.random.default_rng(0)
    tensor = RewardTensor(rng.random((6, 8, 3)), np.ones((6, 8), dtype=bool))
    oracle = GibbsOracle(tensor.rewards, 0.1)
    portfolio = plan_portfolio(oracle, size=size) if size else plan_portfolio(oracle, epsilon=9.0)
    portfolio = replace(portfolio, certificate=certify(portfolio, oracle), bases=("a", "b", "c"))
    folders = {name: tmp_path / name for name in STAGES}
    users = {
        part: UserWeights(
            np.array([f"{part}-{user}" for user in range(count)]), rng.dirichlet(np.ones(3), count), np.zeros((count, 3, 3))
        )
        for part, count in (("seen", 4), ("unseen", unseen))
    }
    estimate = Estimate(0.5, 0.4, 0.6, 6).record()
    tensor.save(folders["score"] / "held_out.safetensors")
    portfolio.save_pretrained(folders["plan"])
    portfolio.save_pretrained(folders["plan"] / "held_out")
    replace(portfolio, origin="measured").save_pretrained(folders["measure"])
    for part, posterior in users.items():
        posterior.save(folders["measure"], f"users-{part}")
    everyone = np.vstack([posterior.mean for posterior in users.values()])
    texts = {name: [[f"{name} on {prompt}"] for prompt in range(2)] for name in portfolio.ids}
    members = {
        "weight": [1.0, 0.0, 0.0],
        "reference_utility": 0.4,
        "planned_utility": 0.6,
        "planned_value": [0.6, 0.5, 0.5],
        "planned_cost": 0.05,
        "measured_utility": estimate,
        "measured_value": [0.6, 0.5, 0.5],
        "measured_cost": 0.04,
        "share_of_planned_gain": 0.5,
    }
    results = {
        "gap": dict.fromkeys(("epsilon", "delta", "captured_gain"), estimate),
        "members": [{"id": name, **members} for name in portfolio.ids],
        "singles": {"single-mean": {"epsilon": None, "delta": 0.1, "captured_gain": 0.2}},
        "accuracy": {"LoRe": {"seen": {"accuracy": estimate, "log_loss": estimate, "users": 4, "pairs": 40}}},
        "coverage": coverage(portfolio, oracle, everyone).record(),
        "diversity": diversity(portfolio, {name: [rows[0][0]] for name, rows in texts.items()}, users=everyone).record(),
    }
    if truth:
        planted = {
            str(user): weight[::-1].tolist() for part in users.values() for user, weight in zip(part.ids, part.mean, strict=True)
        }
        values = {name: [0.5, 0.5, 0.5] for name in portfolio.ids}
        results["truth"] = {"bases": ["x", "y", "z"], "reference": [0.4] * 3, "value": values, "cost": {}, "users": planted}
    write_json(folders["measure"] / "measure.json", results)
    write_json(folders["measure"] / "texts.json", texts)
    diagnostics = oracle.diagnostics(portfolio.weights) if size else None
    names = ("effective_samples", "fewest_samples", "bias", "prompt_error")
    checks = None if diagnostics is None else {name: getattr(diagnostics, name).tolist() for name in names}
    point = {"size": 1, "epsilon": 0.2, "captured_gain": 0.3, "size_at_least": 1}
    write_json(folders["plan"] / "plan.json", {"curve": [point], "diagnostics": checks})
    write_json(folders["data"] / "summary.json", {"pairs": 60, "users": 6})
    folders["sample"].mkdir()
    chat = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "<b>well</b>"},
    ]
    Candidates([chat, "plain"], [["first", "second"], ["third"]]).save(folders["sample"] / "held_out.jsonl")
    routes = {
        str(user): {"part": part, "policy": "reference", "confidence": 0.5} for part, rows in users.items() for user in rows.ids
    }
    write_json(folders["route"] / "routes.json", routes)
    served = {"routed": 0.5, "single": 0.4, "single_policy": "single-mean", "gain": estimate, "worse_off": 0.25, "users": 4}
    write_json(folders["route"] / "served.json", {"learned": {"seen": served}})
    return Context(Config(), tmp_path / "report", folders, 0, silent)


def test_collects_what_the_stages_wrote(tmp_path):
    data = collect(make_context(tmp_path))

    assert data.portfolio.origin == "measured"
    assert [row.id for row in data.members] == list(data.planned.ids)
    assert data.routes == {"seen": {"reference": 4}, "unseen": {"reference": 2}}
    assert data.everyone.shape == (6, 3)
    assert data.singles[0].baseline
    assert data.singles[0].epsilon is None
    assert data.served[0].gain.low == 0.4
    assert len(data.checks) == 2
    assert sum(data.simplex_share.values()) == pytest.approx(1)
    assert data.examples[0].prompt == "user: hello\n\nassistant: hi\n\nuser: <b>well</b>"
    assert data.examples[1].responses == (("reference", "third"), ("policy-0", "policy-0 on 1"), ("policy-1", "policy-1 on 1"))


def test_agreement_with_the_planted_weights_is_their_correlation(tmp_path):
    truth = collect(make_context(tmp_path)).truth

    np.testing.assert_allclose(np.fliplr(truth.agreement).diagonal(), 1)  # planted in reverse order
    assert (np.abs(truth.agreement) <= 1 + 1e-12).all()


@pytest.mark.parametrize(("size", "unseen", "truth"), [(2, 2, True), (2, 0, False), (0, 2, True), (0, 0, False)])
def test_report_of_every_kind_of_run(tmp_path, size, unseen, truth):
    context = make_context(tmp_path, size=size, unseen=unseen, truth=truth)

    write_report(collect(context), tmp_path / "index.html", plots=False)

    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert str(tmp_path) not in html
    assert "&lt;b&gt;well" in html
    assert json.loads((tmp_path / "measure" / "texts.json").read_text()).keys() == set(collect(context).portfolio.ids)
