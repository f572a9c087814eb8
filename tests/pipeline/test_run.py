"""The whole pipeline, small: what it ends with, that it repeats bit for bit, and what a changed setting makes it do again."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palm.artifacts import read_json, read_manifest, write_json
from palm.data.planted import basis_rewards, prompt_texts, write_response
from palm.lm.load import load_language_model
from palm.pipeline import STAGES, Pipeline, check, load_config
from palm.pipeline.data_stages import read_split_features
from palm.pipeline.runner import PipelineError
from palm.policies.adapters import Members, check_adapter
from palm.portfolio import Portfolio, held_out_confidence
from palm.rewards import load_reward_model
from palm.rewards.tensor import RewardTensor
from palm.routing import Router
from palm.seeds import derive_seed

NAMES = [stage.name for stage in STAGES]


def _content(folder: Path) -> dict[str, str]:
    """Digest of every stage's files, which are read again for it."""
    manifests = {name: read_manifest(folder / name, verify=True) for name in NAMES}
    return {name: manifest.content for name, manifest in manifests.items() if manifest is not None}


def _times(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}


def test_run_ends_with_policies_certificate_routes_and_report(tiny_run: Any) -> None:
    assert list(tiny_run.ran) == NAMES
    served = tiny_run.folder / "route" / "portfolio"
    portfolio = Portfolio.from_pretrained(served)
    assert portfolio.ids == ("policy-0", "policy-1")
    assert portfolio.base_model == "tiny-base"
    assert portfolio.certificate is not None
    assert 0 <= portfolio.certificate.captured_gain <= 1
    assert portfolio.certificate.epsilon >= 0
    for name in portfolio.ids:
        check_adapter(served / "policies" / name)
    assert "## Certificate" in (served / "README.md").read_text()
    assert (tiny_run.folder / "report" / "index.html").stat().st_size > 0
    assert not list(tiny_run.folder.rglob(".writing-*"))
    assert not list(tiny_run.folder.glob(".*.partial"))


def test_served_policies_generate_from_the_served_base(tiny_run: Any) -> None:
    served = tiny_run.folder / "route" / "portfolio"
    base = load_language_model(served / "base")
    members = Members(base, {name: served / "policies" / name for name in ("policy-0", "policy-1")})
    with members.policy("policy-1") as policy:
        ids = policy.tokenizer("How do I bake a loaf of bread?\n", return_tensors="pt")
        assert policy.model.generate(**ids, max_new_tokens=3).shape[1] > ids["input_ids"].shape[1]


def test_every_user_is_routed_to_the_policy_that_is_best_for_their_weight(tiny_run: Any) -> None:
    routes = json.loads((tiny_run.folder / "route" / "routes.json").read_text())
    assert len(routes) == 24
    assert sum(row["part"] == "unseen" for row in routes.values()) == 4
    router = Router.from_pretrained(tiny_run.folder / "route" / "portfolio")
    portfolio = router.portfolio
    for row in routes.values():
        weight = np.array(row["weight"])
        utilities = {"reference": float(weight @ portfolio.reference)} | {
            name: float(weight @ portfolio.value[index] - portfolio.cost[index]) for index, name in enumerate(portfolio.ids)
        }
        assert row["utility"] == pytest.approx(max(utilities.values()), abs=1e-5)
        assert utilities[row["policy"]] == pytest.approx(row["utility"], abs=1e-5)


def test_rewards_of_candidates_are_on_their_scale(tiny_run: Any) -> None:
    for part, prompts in (("plan", 6), ("held_out", 4)):
        tensor = RewardTensor.load(tiny_run.folder / "score" / f"{part}.safetensors")
        assert tensor.rewards.shape == (prompts, 6, 2)
        assert tensor.mask.all()
        assert tensor.rewards.min() >= 0
        assert tensor.rewards.max() <= 1


def test_the_plan_states_what_the_held_out_prompts_say_and_what_no_size_can_beat(tiny_run: Any) -> None:
    planned = Portfolio.from_pretrained(tiny_run.folder / "plan")
    tensor = RewardTensor.load(tiny_run.folder / "score" / "held_out.safetensors")
    assert planned.confidence == held_out_confidence(planned, tensor.rewards, tensor.mask, planned.kl, seed=derive_seed(0, "plan"))
    assert planned.confidence == Portfolio.from_pretrained(tiny_run.folder / "plan" / "held_out").confidence
    curve = json.loads((tiny_run.folder / "plan" / "plan.json").read_text())["curve"]
    assert curve[0]["size"] == 0
    assert all(0 <= point["epsilon_at_least"] <= point["epsilon"] + 1e-9 for point in curve if point["epsilon"] is not None)


def test_second_run_does_nothing(tiny_run: Any) -> None:
    before = _times(tiny_run.folder)
    assert Pipeline(STAGES, load_config(tiny_run.config)).run() == []
    assert _times(tiny_run.folder) == before


def test_two_fresh_runs_agree_in_every_stage(tiny_run: Any, tmp_path: Path) -> None:
    np.random.seed(1)  # noqa: NPY002  (whatever the caller's generators stand at)
    Pipeline(STAGES, load_config(tiny_run.config, [f"output={tmp_path / 'again'}"])).run()
    assert _content(tmp_path / "again") == _content(tiny_run.folder)
    assert list(_content(tmp_path / "again")) == NAMES


@pytest.mark.parametrize(
    ("setting", "first"),
    [
        ("report.title=Another", "report"),
        ("route.rule=nearest-l2", "route"),
        ("measure.draws=30", "measure"),
        ("train.dpo.max_steps=2", "train"),
        ("features.batch_tokens=100", None),
        ("plan.curve=1", "plan"),
    ],
)
def test_changed_setting_reruns_its_stage_and_what_depends_on_it(
    tiny_run: Any, tmp_path: Path, setting: str, first: str | None
) -> None:
    """From the plan on, every stage needs the one before it; a stage before the changed one keeps its files."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.folder, folder)
    before = _times(folder)
    config = load_config(tiny_run.config, [f"output={folder}", setting])
    expected = NAMES[NAMES.index(first) :] if first else []
    assert Pipeline(STAGES, config).run() == expected
    kept = {path for path in before if Path(path).relative_to(folder).parts[0] not in expected}
    assert {path: time for path, time in _times(folder).items() if path in kept and path != str(folder)} == {
        path: before[path] for path in kept
    }


def test_damaged_adapter_is_trained_again_and_nothing_else(tiny_run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.folder, folder)
    weights = folder / "train" / "policy-1" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    pipeline = Pipeline(STAGES, load_config(tiny_run.config, [f"output={folder}"]))
    state = pipeline.state("train")
    assert state.state == "damaged"
    assert f"{weights}: changed or truncated since it was written" in state.detail
    assert pipeline.run() == ["train"]
    assert _content(folder) == _content(tiny_run.folder)


SMALL = ["train.baselines=false", "train.dpo.max_steps=1", "measure.samples=2", "plan.curve=0", "data.shots=2"]


def _run(tiny_run: Any, base_folder: Path, folder: Path, *settings: str) -> Path:
    base = [f"base.model={base_folder}", f"output={folder / 'run'}"]
    config = load_config(tiny_run.config, [*base, *SMALL, *settings])
    check(config)
    assert Pipeline(STAGES, config).run() == NAMES
    return folder / "run"


def test_responses_of_the_data_as_candidates(tiny_run: Any, base_folder: Path, tmp_path: Path) -> None:
    """Six prompts with pools of 2 to 6 responses from a file; nothing is sampled, policies reweigh the pool."""
    rng = np.random.default_rng(0)
    rows = []
    for number, prompt in enumerate(prompt_texts()[::110]):
        pool = list(dict.fromkeys(write_response(prompt, rng) for _ in range(number + 2)))[:6]
        values = basis_rewards(pool, ("expert", "friend"))
        for user in range(8):
            for _ in range(2):
                one, other = rng.choice(len(pool), size=2, replace=False)
                better = values[one, user % 2] >= values[other, user % 2]
                chosen, rejected = (one, other) if better else (other, one)
                rows.append({"user": user, "prompt": prompt, "chosen": pool[chosen], "rejected": pool[rejected]})
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = [f"data.source={source}", "candidates.source=pool", "candidates.held_out=2", "data.unseen=2"]
    folder = _run(tiny_run, base_folder, tmp_path, *settings)
    offered = {row[side] for row in rows for side in ("chosen", "rejected")}
    texts = json.loads((folder / "measure" / "texts.json").read_text())
    assert {text for row in texts.values() for responses in row for text in responses} <= offered
    assert not (folder / "route" / "portfolio" / "base").exists(), "a base that exists elsewhere is not copied"


def test_one_basis(tiny_run: Any, base_folder: Path, tmp_path: Path) -> None:
    """K = 1: everyone has the same weight and one policy is enough, proven."""
    folder = _run(tiny_run, base_folder, tmp_path, "data.planted.bases=1", "rewards.options={rank: 1}", "plan.size=null")
    planned = Portfolio.from_pretrained(folder / "plan")
    assert planned.weights.tolist() == [[1.0]]
    routes = json.loads((folder / "route" / "routes.json").read_text())
    assert {tuple(row["weight"]) for row in routes.values()} == {(1.0,)}


def test_one_user(tiny_run: Any, base_folder: Path, tmp_path: Path) -> None:
    folder = _run(tiny_run, base_folder, tmp_path, "data.planted.users=1", "data.planted.pairs_per_user=40", "data.unseen=0")
    routes = json.loads((folder / "route" / "routes.json").read_text())
    assert list(routes) == ["user-0000"]


def test_given_rewards_instead_of_learnt_ones(tiny_run: Any, base_folder: Path, tmp_path: Path) -> None:
    """With the planted rewards as given functions, the scores are those rewards, calibrated."""
    functions = "features.functions=[palm.data.planted:expert, palm.data.planted:friend]"
    folder = _run(tiny_run, base_folder, tmp_path, functions, "rewards.method=Given", "rewards.options={}", "rewards.compare=[]")
    tensor = RewardTensor.load(folder / "score" / "plan.safetensors")
    lines = [json.loads(line) for line in (folder / "sample" / "plan.jsonl").read_text().splitlines()]
    raw = basis_rewards([response for line in lines for response in line["responses"]], ("expert", "friend"))
    low, high = np.array(Portfolio.from_pretrained(folder / "plan").calibration).T
    np.testing.assert_allclose(tensor.rewards.reshape(-1, 2), np.clip((raw - low) / (high - low), 0, 1), atol=1e-5)


def test_a_reward_model_that_was_fitted_before(tiny_run: Any, base_folder: Path, tmp_path: Path) -> None:
    """Bases stay as they are, users are inferred anew; a model of other features or of users unseen here is refused."""
    first = tiny_run.folder / "fit" / "LoRe"
    kept = tmp_path / "run"
    shutil.copytree(tiny_run.folder, kept)
    settings = [f"output={kept}", "rewards.options={}", f"rewards.fitted={first}"]
    config = load_config(tiny_run.config, settings)
    check(config)
    pipeline = Pipeline(STAGES, config)
    pipeline.run(only="fit")
    before, after = load_reward_model(first), load_reward_model(kept / "fit" / "LoRe")
    np.testing.assert_array_equal(after.directions, before.directions)
    assert after.seen.ids.tolist() == before.seen.ids.tolist()
    np.testing.assert_allclose(after.seen.mean, before.seen.mean, atol=1e-6)

    unseen = read_split_features(kept / "data", kept / "embed")["unseen_test"].ids
    leaking = replace(before, seen=replace(before.seen, ids=np.array([*unseen[:1], *before.seen.ids[1:]])))
    narrow = replace(before, directions=before.directions[:-1])
    for model, method, message in (
        (before, "VRF", "rewards.fitted: expected a model of rewards.method 'VRF'"),
        (leaking, "LoRe", f"fitted on 1 users who are unseen here, {str(unseen[0])!r} among them; use the seed"),
        (narrow, "LoRe", f"expected a model of {before.width} features, as features.model gives, got {before.width - 1}"),
    ):
        model.save_pretrained(tmp_path / "other")
        changed = [*settings, f"rewards.fitted={tmp_path / 'other'}", f"rewards.method={method}"]
        with pytest.raises(PipelineError, match=message):
            Pipeline(STAGES, load_config(tiny_run.config, changed)).run(only="fit")


def test_every_policy_is_trained_for_the_weight_that_it_was_planned_for(tiny_run: Any) -> None:
    """Also a member that stands for a single policy, whose own weight would have been another."""
    planned = Portfolio.from_pretrained(tiny_run.folder / "plan")
    weights = dict(zip(planned.ids, planned.weights, strict=True))
    singles = {path.name: Portfolio.from_pretrained(path) for path in (tiny_run.folder / "plan" / "baselines").iterdir()}
    assert set(singles) == {"single-mean", "single-worst"}
    assert singles["single-mean"].ids[0] in planned.ids, "in this run a member stands for it"
    for single in singles.values():
        np.testing.assert_array_equal(weights.setdefault(single.ids[0], single.weights[0]), single.weights[0])
    logs = read_json(tiny_run.folder / "train" / "training.json")
    assert logs.keys() == weights.keys()
    for name, log in logs.items():
        np.testing.assert_array_equal(log["weight"], weights[name])


def test_members_go_on_from_another_runs(tiny_run: Any, tmp_path: Path) -> None:
    """Each from a copy of the adapter whose weight is nearest; what is there decides whether the stage is done."""
    kept, first = tmp_path / "run", tmp_path / "first"
    shutil.copytree(tiny_run.folder, kept)
    shutil.copytree(tiny_run.folder / "route" / "portfolio", first)
    trained = Portfolio.from_pretrained(first)
    still = ["train.dpo.max_steps=1", "train.dpo.learning_rate=1e-30", "train.match_kl=0", "train.shared_steps=2"]
    settings = [f"output={kept}", *still, f"train.start={first}"]
    config = load_config(tiny_run.config, settings)
    check(config)
    assert "start" in Pipeline(STAGES, config).state("train").detail
    Pipeline(STAGES, config).run(only="train")
    plan = Portfolio.from_pretrained(kept / "plan")
    for name, weight in zip(plan.ids, plan.weights, strict=True):
        near = trained.ids[int(np.abs(trained.weights - weight).sum(axis=1).argmin())]
        own, start = (folder / "adapter_model.safetensors" for folder in (kept / "train" / name, first / "policies" / near))
        assert own.read_bytes() == start.read_bytes()
    assert Pipeline(STAGES, config).state("train").state == "done"

    was = read_json(first / "base.json")
    write_json(first / "base.json", {**was, "weights": "0" * 64})
    with pytest.raises(
        PipelineError, match=r"train\.start: expected members of this run's base model, weights .* got .* weights 000"
    ):
        Pipeline(STAGES, config).run(only="train")
    write_json(first / "base.json", was)
    (first / "README.md").write_text("another")
    assert Pipeline(STAGES, config).state("train").detail == "train.start changed"
    replace(trained, bases=tuple("ab")[: len(trained.bases)]).save_pretrained(first)
    with pytest.raises(PipelineError, match=r"train\.start: expected adapters of rank 32, train\.lora\.r, got 8"):
        check(load_config(tiny_run.config, [f"output={kept}", f"train.start={first}", "train.lora.r=32"]))
    scaled = load_config(tiny_run.config, [f"output={kept}", f"train.start={first}", "train.lora.lora_alpha=64"])
    with pytest.raises(PipelineError, match=r"train\.start: .*lora_alpha: expected 64, train\.lora\.lora_alpha, got 16"):
        check(scaled)
    config_of_first = first / "policies" / trained.ids[0] / "adapter_config.json"
    was = read_json(config_of_first)
    write_json(config_of_first, {name: value for name, value in was.items() if name != "r"})
    with pytest.raises(PipelineError, match=r"train\.start: expected adapters of rank 8, train\.lora\.r, got None"):
        check(config)
    write_json(config_of_first, was)
    with pytest.raises(PipelineError, match=r"train\.start: expected members for the basis rewards .* got .* for a, b"):
        Pipeline(STAGES, config).run(only="train")
    (first / "policies" / trained.ids[0] / "adapter_model.safetensors").unlink()
    with pytest.raises(PipelineError, match=r"train\.start: expected a trained portfolio, .*adapter_model.safetensors"):
        check(config)
    with pytest.raises(PipelineError, match=r"train\.start: expected another run's portfolio, got .*, which is made anew in"):
        check(load_config(tiny_run.config, [f"train.start={tiny_run.folder / 'route' / 'portfolio'}", f"output={tiny_run.folder}"]))
