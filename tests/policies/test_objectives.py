"""palm.policies.objectives: on a bandit whose optimum is known in closed form, every objective ends where its text says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bandit import KL, PROMPTS, WEIGHT, Bandit, basis
from trained import Killed, bytes_of, killing, texts_of

from palm.artifacts import read_json
from palm.lm.logprobs import response_logprobs
from palm.policies.candidates import TokenisedCandidates
from palm.policies.online import prompt_names
from palm.policies.options import TrainingOptions
from palm.policies.train import Member, train_members

ONLINE = {"max_steps": 70, "per_device_train_batch_size": 128, "num_generations": 64, "learning_rate": 4e-3}
STEPS = {"max_steps": 60, "per_device_train_batch_size": 2, "learning_rate": 4e-3}
RUNS: dict[str, dict[str, Any]] = {
    "dpo-soft": {"group": 32, "dpo": STEPS},
    "gibbs": {"group": 240, "sampled": 240, "dpo": {**STEPS, "max_steps": 80}},
    "rloo": {"online": ONLINE, "max_new_tokens": 2},
    "grpo": {"online": ONLINE, "max_new_tokens": 2},
}


@pytest.fixture(scope="module")
def bandit() -> Bandit:
    return Bandit.make()


@pytest.mark.parametrize("objective", RUNS)
def test_a_member_reaches_the_gibbs_utility(objective: str, bandit: Bandit, tmp_path: Path) -> None:
    """Within 2 % of what the optimum gains over the reference: pi_ref exp(w.phi / kl) / Z, summed over all answers.

    That is far stricter than 2 % of the utility itself, of which the reference has most.
    """
    found = bandit.train(tmp_path, objective=objective, **RUNS[objective])
    assert 0.98 < bandit.share(found) < 1 + 1e-6
    assert bandit.utility(found) > 0.98 * bandit.utility(bandit.gibbs)


def test_the_bandits_optimum_is_one(bandit: Bandit) -> None:
    """No policy near it has more utility; kl log Z is what it has; the reference and the argmax have clearly less."""
    best = bandit.utility(bandit.gibbs)
    log_z = np.logaddexp.reduce(bandit.reference + bandit.phi @ WEIGHT / KL, axis=1)
    assert best == pytest.approx(KL * log_z.mean(), rel=1e-6)
    rng = np.random.default_rng(0)
    for _ in range(20):
        moved = bandit.gibbs + rng.normal(0, 0.1, size=bandit.gibbs.shape)
        assert bandit.utility(moved - np.logaddexp.reduce(moved, axis=1, keepdims=True)) < best
    assert bandit.utility(bandit.reference) < 0.9 * best


def test_hard_labels_go_on_towards_the_best_answer(bandit: Bandit, tmp_path: Path) -> None:
    """DPO on pairs that say only which is better has no minimum: every margin grows until the best answer is certain.

    At the limit the utility is max w.phi - kl log(1 / pi_ref(best)), here far below the reference's: nothing in the labels says
    what a reward is worth in nats. The plan's kl plays no part, so the KL divergence ends at many times the planned one.
    """
    steps = {"max_steps": 120, "per_device_train_batch_size": 512, "learning_rate": 4e-3, "beta": 1.0}
    found = bandit.train(tmp_path, objective="dpo", pairs_per_prompt=400, dpo=steps)
    rows, best = np.arange(len(PROMPTS)), (bandit.phi @ WEIGHT).argmax(axis=1)
    limit = float(((bandit.phi @ WEIGHT)[rows, best] + KL * bandit.reference[rows, best]).mean())
    assert (np.exp(found)[rows, best] > 0.6).all()
    assert (np.exp(bandit.gibbs)[rows, best] < 0.3).all()
    low = bandit.utility(bandit.reference)
    assert (low - bandit.utility(found)) / (low - limit) > 0.6
    divergence = [(np.exp(policy) * (policy - bandit.reference)).sum() for policy in (found, bandit.gibbs)]
    assert divergence[0] > 5 * divergence[1]


def test_pairs_are_trained_on_as_trl_trains_on_them(
    task: Any, fresh_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading each distinct response once changes no number: TRL's own trainer has the same losses and the same policy."""
    dpo = {"max_steps": 6, "per_device_train_batch_size": 8, "beta": 0.5}
    logs, policies = [], []
    for number, ours in enumerate((True, False)):
        model = fresh_model()
        if not ours:
            monkeypatch.setattr("palm.policies.trainer.plain_sigmoid", lambda options: False)
        folder = tmp_path / str(number)
        logs.append([entry["loss"] for entry in task.train(model, folder, {"m": WEIGHT}, objective="dpo", dpo=dpo)["m"]["losses"]])
        from palm.policies.adapters import Members

        members = Members(model, {"m": folder / "m"})
        with members.policy("m") as policy:
            policies.append(response_logprobs(policy, texts_of(task)))
    assert logs[0] == pytest.approx(logs[1], rel=1e-3)
    assert logs[0][-1] < 0.9 * logs[0][0]
    moved = policies[1] - task.candidates.reference[task.rewards.mask]
    assert np.abs(policies[0] - policies[1]).max() < 0.02 * np.abs(moved).max()


def test_other_losses_of_trl_are_trls(task: Any, fresh_model: Any, tmp_path: Path) -> None:
    """IPO's first loss: (0 - 1 / (2 beta))^2."""
    dpo = {"max_steps": 1, "beta": 0.5, "loss_type": ["ipo"]}
    logs = task.train(fresh_model(), tmp_path, {"m": WEIGHT}, objective="dpo", dpo=dpo)
    assert logs["m"]["losses"][0]["loss"] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("group", [2, 3, 6])
def test_distillation_weighs_candidates_by_the_whole_prompt(task: Any, language_model: Any, tmp_path: Path, group: int) -> None:
    """First loss: minus the mean over groups of (groups of the prompt) x sum of Gibbs weight x log pi, whatever the groups' size.

    All groups in one batch: the mean over prompts of the cross-entropy where every prompt has as many groups.
    """
    counts = [len(row) for row in task.candidates.responses]
    dealt = [max(1, min(round(n / group), n // 2)) for n in counts]
    logs = task.train(
        language_model,
        tmp_path,
        {"m": WEIGHT},
        objective="gibbs",
        group=group,
        dpo={"max_steps": 1, "per_device_train_batch_size": sum(dealt)},
    )
    expected = 0.0
    for prompt, count in enumerate(counts):
        likely = np.exp(task.rewards.rewards[prompt, :count] @ WEIGHT / 0.1)
        expected -= dealt[prompt] / sum(dealt) * (likely / likely.sum()) @ task.candidates.reference[prompt, :count]
    assert logs["m"]["losses"][0]["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("objective", ["rloo", "grpo"])
def test_online_training_repeats_and_leaves_the_base_as_it_was(objective: str, bandit: Bandit, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in bandit.model.model.state_dict().items()}
    settings = bandit.model.model.generation_config
    settings.repetition_penalty = 3.0  # a model's own: must not change what is sampled, and must be there afterwards
    online = {**ONLINE, "max_steps": 2, "per_device_train_batch_size": 8, "num_generations": 4}
    bandit.train(tmp_path / "a", objective=objective, max_new_tokens=2, online=online)
    assert bandit.model.model.generation_config is settings
    settings.repetition_penalty = None
    bandit.train(tmp_path / "b", objective=objective, max_new_tokens=2, online=online)
    assert bytes_of(tmp_path / "a" / "m") == bytes_of(tmp_path / "b" / "m")
    after = bandit.model.model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert "forward" not in vars(bandit.model.model)


@pytest.mark.parametrize(("objective", "save", "within"), [("rloo", 3, True), ("rloo", 4, False), ("grpo", 3, True)])
def test_a_killed_online_member_goes_on_from_its_checkpoint(
    objective: str, save: int, within: bool, bandit: Bandit, tmp_path: Path
) -> None:
    """In whatever epoch that is: each has an order of prompts of its own."""
    online = {**ONLINE, "max_steps": 12, "per_device_train_batch_size": 8, "num_generations": 8}
    options: dict[str, Any] = {"objective": objective, "max_new_tokens": 2}
    options["online"] = {**online, "save_strategy": "steps", "save_steps": save}
    last = 11 // save * save
    assert last > len(PROMPTS)
    assert (last % len(PROMPTS) > 0) == within
    totals: list[int | None] = []
    bandit.train(tmp_path / "whole", **options)
    with pytest.raises(Killed):
        bandit.train(tmp_path / "again", track=killing(totals, at=11), **options)
    bandit.train(tmp_path / "again", track=killing(totals, at=None), **options)
    assert totals == [12] * 11 + [12 - last] * (12 - last)
    assert bytes_of(tmp_path / "again" / "m") == bytes_of(tmp_path / "whole" / "m")


@pytest.mark.parametrize(
    "options", [{"generation_batch_size": 32}, {"steps_per_generation": 2}, {"gradient_accumulation_steps": 2}]
)
def test_no_more_prompts_are_answered_together_than_there_are(bandit: Bandit, tmp_path: Path, options: dict[str, Any]) -> None:
    """TRL would make no step and say nothing; as many as there are make the steps that are asked for."""
    online = {**ONLINE, "max_steps": 3, "per_device_train_batch_size": 16, "num_generations": 32 // len(PROMPTS), **options}
    bandit.train(tmp_path / "all", objective="rloo", max_new_tokens=2, online=online)
    assert read_json(tmp_path / "all" / "m.log.json")["steps"] == 3
    fewer = {**online, "num_generations": 32 // len(PROMPTS) // 2}
    with pytest.raises(ValueError, match=rf"expected at most {len(PROMPTS)} prompts to be .* got {2 * len(PROMPTS)}: 32 responses"):
        bandit.train(tmp_path / "more", objective="rloo", max_new_tokens=2, online=fewer)


def test_batches_of_what_is_trained_are_not_counted_again(bandit: Bandit, tmp_path: Path) -> None:
    """Others may have trained it, on more processes; what is left is refused before anything is done."""
    online = {**ONLINE, "max_steps": 2, "per_device_train_batch_size": 8, "num_generations": 4}
    bandit.train(tmp_path, objective="rloo", max_new_tokens=2, online=online)
    trained = bytes_of(tmp_path / "m")
    half = {**online, "per_device_train_batch_size": 2}
    bandit.train(tmp_path, objective="rloo", max_new_tokens=2, online=half)
    assert bytes_of(tmp_path / "m") == trained
    with pytest.raises(ValueError, match=r"online\.num_generations: expected a divisor of 2, .* got 4"):
        bandit.train(tmp_path / "anew", objective="rloo", max_new_tokens=2, shared_steps=1, online=half)
    assert not (tmp_path / "anew").exists()


def test_a_member_that_took_no_step_is_not_trained(bandit: Bandit, tmp_path: Path) -> None:
    dpo = {**STEPS, "per_device_train_batch_size": 4096, "dataloader_drop_last": True}
    with pytest.raises(ValueError, match=r"dpo\.per_device_train_batch_size: expected one that \d+ rows fill, got 4096"):
        bandit.train(tmp_path, dpo=dpo)
    assert not (tmp_path / "m").exists()


def test_online_prompts_of_the_same_words_are_told_apart() -> None:
    assert prompt_names(["a", [{"role": "user", "content": "a"}], "b", "a"]) == ["a", "a #1", "b", "a #3"]


def _train(bandit: Bandit, folder: Path, options: TrainingOptions, **changed: Any) -> None:
    candidates, rewards = bandit.candidates()
    train_members(
        bandit.model,
        [Member("m", WEIGHT)],
        changed.get("candidates", candidates),
        rewards,
        folder,
        kl=KL,
        base_model="b",
        options=options,
        basis=changed.get("basis", basis),
    )


def test_what_online_objectives_need_is_asked_for(bandit: Bandit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = TrainingOptions(objective="rloo")
    with pytest.raises(ValueError, match="basis: expected a function that gives rewards of new texts for objective rloo, got None"):
        _train(bandit, tmp_path, options, basis=None)
    candidates, _ = bandit.candidates()
    without = TokenisedCandidates(candidates.prompts, candidates.responses, candidates.reference)
    with pytest.raises(ValueError, match=r"candidates\.texts: expected 2 prompts as text for objective rloo, got 0"):
        _train(bandit, tmp_path, options, candidates=without)
    with pytest.raises(ValueError, match=r"basis: expected a finite reward for each of 8 texts, got .*nan"):
        _train(bandit, tmp_path, options, basis=lambda texts: np.full((len(texts), 2), np.nan))
    assert not any(parameter.requires_grad for parameter in bandit.model.model.parameters())
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="objective: rloo wants a whole model to write with"):
        _train(bandit, tmp_path, options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "dpo_soft"}, "objective: expected one of .* got 'dpo_soft'; did you mean 'dpo-soft'"),
        ({"objective": "ppo"}, "objective: expected one of .* got 'ppo'; TRL has removed PPO, its documented successor is 'rloo'$"),
        ({"objective": "gibbs", "dpo": {"beta": 0.1}}, r"dpo\.beta: the loss of gibbs is fixed by the plan's kl"),
        ({"objective": "dpo", "dpo": {"precompute_ref_log_probs": True}}, r"dpo\.precompute_ref_log_probs: palm computes"),
        ({"dpo": {"max_length": 20}}, r"dpo\.max_length: the reference's .* of other texts; train\.max_length cuts both alike"),
        ({"objective": "dpo", "dpo": {"truncation_mode": "keep_start"}}, r"dpo\.truncation_mode: the reference's"),
        (
            {"objective": "dpo", "dpo": {"ld_alpha": 0.5}},
            r"dpo\.ld_alpha: the reference's log-probabilities are of whole responses",
        ),
        ({"objective": "rloo", "online": {"beta": 0.1}}, r"online\.beta: palm sets this to the plan's kl; leave it out"),
        ({"objective": "grpo", "online": {"temperature": 0.7}}, r"online\.temperature: palm sets this to 1"),
        ({"objective": "grpo", "online": {"scale_rewards": "group"}}, r"online\.scale_rewards: this changes what is optimised"),
        ({"objective": "grpo", "online": {"loss_type": "grpo"}}, r"online\.loss_type: this changes what is optimised"),
        ({"objective": "rloo", "online": {"normalize_advantages": True}}, r"online\.normalize_advantages: this changes what"),
        ({"objective": "rloo", "online": {"top_p": 0.9}}, r"online\.top_p: this changes what is optimised"),
        (
            {"objective": "rloo", "online": {"max_completion_length": 9}},
            r"online\.max_completion_length: palm sets this to max_new",
        ),
        (
            {"objective": "rloo", "online": {"learning_rte": 1}},
            r"online\.learning_rte: trl\.RLOOConfig has no such option; did you",
        ),
        (
            {"objective": "rloo", "online": {"num_generations": 1}},
            r"online\.num_generations: expected a whole number of at least 2",
        ),
        ({"objective": "grpo", "online": {"num_generations": 3}}, r"online\.num_generations: expected a divisor of 8, .* got 3"),
        (
            {"objective": "rloo", "online": {"num_iterations": 0}},
            r"online\.num_iterations: expected a whole number of at least 1, got 0",
        ),
        (
            {"objective": "grpo", "online": {"steps_per_generation": "2"}},
            r"online\.steps_per_generation: expected a whole .* got '2'",
        ),
        (
            {"objective": "rloo", "online": {"generation_batch_size": "abc"}},
            r"online\.generation_batch_size: expected a whole number",
        ),
        ({"objective": "rloo", "online": {"auto_find_batch_size": True}}, r"online\.auto_find_batch_size: .* leave it out"),
        ({"objective": "rloo", "online": {"pad_to_multiple_of": 0}}, r"online\.pad_to_multiple_of: expected a whole number"),
        (
            {"objective": "rloo", "online": {"generation_batch_size": 12}},
            r"online\.generation_batch_size: .* multiple of 8, .* got 12",
        ),
        (
            {"objective": "rloo", "online": {"generation_batch_size": 16, "steps_per_generation": 2}},
            r"online\.steps_per_generation: expected it or generation_batch_size, got both",
        ),
    ],
)
def test_options_that_would_change_what_is_optimised_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _check(TrainingOptions(**options))


def _check(options: TrainingOptions) -> None:
    options.check()
    options.check_batches(None)
