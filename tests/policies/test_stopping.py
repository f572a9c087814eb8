"""palm.policies.stopping: members stop where they are good enough on prompts that they never saw, and not before."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trained import bytes_of

from palm.data.planted import basis_rewards, prompt_texts, write_response
from palm.lm.load import LanguageModel
from palm.lm.logprobs import response_logprobs
from palm.policies import stopping
from palm.policies.adapters import Members
from palm.policies.candidates import TokenisedCandidates, tokenise_candidates
from palm.policies.options import TrainingOptions
from palm.policies.stopping import Look, Watch, is_enough, keep_back, lack_and_gain
from palm.policies.train import Member, train_members
from palm.rewards.tensor import RewardTensor, reward_tensor

KL = 0.3
WEIGHT = np.array([1.0, 0.0])
STEPS = {"per_device_train_batch_size": 4, "learning_rate": 5e-3, "logging_steps": 1, "max_steps": 20}


@pytest.fixture(scope="module")
def wide(language_model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[TokenisedCandidates, RewardTensor]:
    """Twenty prompts with five or six candidates each."""
    rng = np.random.default_rng(0)
    prompts = prompt_texts()[::30][:20]
    responses = [[write_response(prompt, rng) for _ in range(5 + number % 2)] for number, prompt in enumerate(prompts)]
    basis = basis_rewards([response for row in responses for response in row], ("expert", "friend"))
    folder = tmp_path_factory.mktemp("reference")
    candidates = tokenise_candidates(language_model, prompts, responses, folder, max_length=96)
    return candidates, reward_tensor(basis, [len(row) for row in responses])


@pytest.fixture
def easily(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten prompts of a model that knows little tell little: here a look is believed sooner than it should be."""
    monkeypatch.setattr(stopping, "_ERROR", 1.0)


def _train(model: LanguageModel, wide: Any, folder: Path, **options: Any) -> dict[str, Any]:
    dpo = {**STEPS, **options.pop("dpo", {})}
    made = TrainingOptions(**{"group": 6, "max_length": 96, "stop_every": 5, "stop_prompts": 10, "dpo": dpo, **options})
    return train_members(model, [Member("m", WEIGHT)], *wide, folder, kl=KL, base_model="tiny-base", options=made, seed=3)["m"]


def _ragged(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mask = np.arange(7) < rng.integers(1, 8, size=5)[:, None]
    return rng.normal(size=mask.shape), rng.random(mask.shape), mask


def test_what_is_lacking_is_the_utility_that_the_plan_has_more() -> None:
    """f(p) = sum p w.phi - kl KL(p || uniform over candidates), summed one by one; the plan is its maximum, kl log mean exp."""
    ratio, reward, mask = _ragged(np.random.default_rng(0))
    lack, gain = lack_and_gain(np.where(mask, ratio, 99.0), np.where(mask, reward, -99.0), mask, 0.2)
    for prompt, there in enumerate(mask):
        p = np.exp(ratio[prompt, there]) / np.exp(ratio[prompt, there]).sum()
        utility = p @ reward[prompt, there] - 0.2 * (p @ np.log(len(p) * p))
        optimum = 0.2 * np.log(np.exp(reward[prompt, there] / 0.2).mean())
        assert lack[prompt] == pytest.approx(optimum - utility, abs=1e-12)
        assert gain[prompt] == pytest.approx(optimum - reward[prompt, there].mean(), abs=1e-12)


def test_the_planned_policy_lacks_nothing_and_the_reference_all() -> None:
    _, reward, mask = _ragged(np.random.default_rng(1))
    lack, gain = lack_and_gain(reward / 0.2 + 7.0, reward, mask, 0.2)
    np.testing.assert_allclose(lack, 0, atol=1e-12)
    lack, gain = lack_and_gain(np.zeros(mask.shape), reward, mask, 0.2)
    np.testing.assert_allclose(lack, gain, atol=1e-12)
    sure, _ = lack_and_gain(np.where(reward == reward.max(axis=1, keepdims=True), 1e4, -1e4), reward, mask, 0.2)
    assert np.isfinite(sure).all()


@pytest.mark.parametrize("looks", [1, 8])
def test_a_member_that_lacks_just_too_much_is_seldom_let_go(looks: int) -> None:
    """At the boundary, over all looks together, at most 5 %; well within it, nearly always."""
    rng = np.random.default_rng(2)

    def stopped(mean: float) -> float:
        gain = np.full(12, 1.0)
        draws = [[is_enough(rng.normal(mean, 0.2, 12), gain, within=0.3, looks=looks) for _ in range(looks)] for _ in range(600)]
        return float(np.mean([any(row) for row in draws]))

    assert 0.005 < stopped(0.3) < 0.07
    assert stopped(0.0) > 0.95


def test_what_was_seen_before_a_kill_comes_back_if_it_is_whole(wide: Any, tmp_path: Path) -> None:
    seen = [Look(5, 0.9, False), Look(10, 0.4, True)]
    before, after = (Watch(*wide, WEIGHT, KL, within=0.5, every=5) for _ in range(2))
    before.looks = seen
    before.keep(tmp_path / "looks.json")
    after.recall(tmp_path / "looks.json")
    assert after.looks == seen
    (tmp_path / "looks.json").write_text('[{"step": 5, "la')
    damaged = Watch(*wide, WEIGHT, KL, within=0.5, every=5)
    damaged.recall(tmp_path / "looks.json")
    assert damaged.looks == []


def test_one_prompt_says_nothing() -> None:
    assert not is_enough(np.zeros(1), np.ones(1), within=0.5, looks=1)
    assert is_enough(np.zeros(2), np.ones(2), within=0.5, looks=1)


def test_prompts_are_kept_back_by_seed() -> None:
    own, back = keep_back(20, 6, seed=1)
    assert sorted([*own, *back]) == list(range(20))
    assert len(back) == 6
    assert np.array_equal(keep_back(20, 6, seed=1)[1], back)
    assert not np.array_equal(keep_back(20, 6, seed=2)[1], back)
    with pytest.raises(ValueError, match="stop_prompts: expected fewer than the 4 prompts that there are, got 4"):
        keep_back(4, 4, seed=0)


@pytest.mark.usefixtures("easily")
def test_a_member_stops_where_it_is_good_enough(language_model: Any, fresh_model: Any, wide: Any, tmp_path: Path) -> None:
    """The last look says so, it is the last step, and what it says is what the saved adapter lacks on the prompts kept back."""
    log = _train(fresh_model(), wide, tmp_path, stop_within=0.95)
    looks = log["looks"]
    assert 0 < log["steps"] < STEPS["max_steps"]
    assert [look["step"] for look in looks] == list(range(5, log["steps"] + 1, 5))
    assert [look["enough"] for look in looks] == [False] * (len(looks) - 1) + [True]
    candidates, rewards = (part.select(keep_back(20, 10, seed=3)[1]) for part in wide)
    members = Members(language_model, {"m": tmp_path / "m"})
    with members.policy("m") as policy:
        rows = zip(candidates.prompts, candidates.responses, strict=True)
        ratio = np.zeros(rewards.mask.shape)
        ratio[rewards.mask] = response_logprobs(policy, [(p, r) for p, responses in rows for r in responses])
    members.close()
    lack, gain = lack_and_gain(ratio - candidates.reference, rewards.rewards @ WEIGHT, rewards.mask, KL)
    assert looks[-1]["lack"] == pytest.approx(lack.sum() / gain.sum(), rel=1e-3)
    assert is_enough(lack, gain, within=0.95, looks=4)


def test_prompts_kept_back_are_not_trained_on(fresh_model: Any, wide: Any, tmp_path: Path) -> None:
    """Other rewards on them change nothing that is learnt."""
    candidates, rewards = wide
    back = keep_back(20, 10, seed=3)[1]
    other = rewards.rewards.copy()
    other[back] = np.where(rewards.mask[back][:, :, None], 1 - other[back], 0.0)
    steps = {"dpo": {"max_steps": 6}, "stop_within": 0.001}
    _train(fresh_model(), wide, tmp_path / "one", **steps)
    _train(fresh_model(), (candidates, RewardTensor(other, rewards.mask)), tmp_path / "other", **steps)
    assert bytes_of(tmp_path / "one" / "m") == bytes_of(tmp_path / "other" / "m")


@pytest.mark.parametrize("objective", ["dpo-soft", "dpo", "gibbs"])
def test_a_member_that_is_the_reference_lacks_the_whole_gain(objective: str, fresh_model: Any, wide: Any, tmp_path: Path) -> None:
    """Whatever it is trained for: what it lacks is counted from the reference, which therefore has to be known."""
    still = {"objective": objective, "stop_within": 0.5, "dpo": {"max_steps": 6, "learning_rate": 0.0}}
    log = _train(fresh_model(), wide, tmp_path, **still)
    assert [look["lack"] for look in log["looks"]] == pytest.approx([1.0], abs=1e-4)
    unknown = replace(wide[0], reference=None), wide[1]
    with pytest.raises(ValueError, match="reference: expected log-probabilities for stop_within, got None"):
        _train(fresh_model(), unknown, tmp_path / "unknown", **still)


def test_the_reference_is_asked_for_where_it_is_wanted() -> None:
    wanted = {"dpo-soft": True, "dpo": True, "gibbs": False, "rloo": False, "grpo": False}
    assert {name: TrainingOptions(objective=name).compares for name in wanted} == wanted
    assert TrainingOptions(objective="gibbs", stop_within=0.1).compares


def test_who_is_not_good_enough_takes_all_steps(fresh_model: Any, wide: Any, tmp_path: Path) -> None:
    log = _train(fresh_model(), wide, tmp_path, stop_within=0.001, dpo={"max_steps": 11})
    assert log["steps"] == 11
    assert [look["step"] for look in log["looks"]] == [5, 10]
    assert not any(look["enough"] for look in log["looks"])


@pytest.mark.usefixtures("easily")
def test_a_member_killed_between_its_stop_and_its_end_is_the_same_in_the_end(
    fresh_model: Any, wide: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl import DPOTrainer

    saves = {"stop_within": 0.95, "dpo": {"save_strategy": "steps", "save_steps": 5}}
    whole = _train(fresh_model(), wide, tmp_path / "whole", **saves)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DPOTrainer, "save_model", _only_checkpoints(DPOTrainer.save_model, killed))
        with pytest.raises(KeyboardInterrupt):
            _train(fresh_model(), wide, tmp_path / "killed", **saves)
    again = _train(fresh_model(), wide, tmp_path / "killed", **saves)
    assert again["steps"] == whole["steps"] < STEPS["max_steps"]
    assert again["looks"] == whole["looks"], "those before the kill as well"
    assert bytes_of(tmp_path / "killed" / "m") == bytes_of(tmp_path / "whole" / "m")


def _only_checkpoints(save: Any, killed: Any) -> Any:
    """Saves of checkpoints go through, that of the finished adapter does not."""
    return lambda self, folder=None, _internal_call=False: save(self, folder, _internal_call) if _internal_call else killed()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop_within": 1.0}, "stop_within: expected a share from 0 to below 1, got 1.0"),
        ({"stop_within": float("nan")}, "stop_within: expected a share"),
        ({"stop_within": 0.1, "objective": "rloo"}, "stop_within: expected 0 with objective rloo, got 0.1"),
        ({"stop_every": 0}, "stop_every: expected at least 1, got 0"),
        ({"stop_prompts": 1}, "stop_prompts: expected at least 2, got 1"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingOptions(**options).check()


def test_more_prompts_kept_back_than_there_are(fresh_model: Any, wide: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop_prompts: expected fewer than the 20 prompts that there are, got 20"):
        _train(fresh_model(), wide, tmp_path, stop_within=0.5, stop_prompts=20)
