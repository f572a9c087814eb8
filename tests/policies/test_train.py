"""palm.policies.train: training can be repeated, taken up again, and leaves plain adapters."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from trained import Killed, bytes_of, killing, texts_of
from transformers import AutoModelForCausalLM

from palm.artifacts import ArtifactError
from palm.lm.generate import sample_responses
from palm.lm.load import LanguageModel
from palm.lm.logprobs import response_logprobs
from palm.lm.sampling import load_token_ids, save_token_ids
from palm.policies.adapters import WEIGHTS, Members
from palm.policies.candidates import TokenisedCandidates, tokenise_candidates
from palm.policies.options import TrainingOptions
from palm.policies.train import train_members
from palm.progress import silent

Load = Callable[[], LanguageModel]
WEIGHT = np.array([0.7, 0.3])


def test_same_seed_gives_the_same_bytes_alone_or_beside_others(task: Any, fresh_model: Load, tmp_path: Path) -> None:
    """Two members in one process equal each trained alone on a base loaded anew; another seed or weight does not."""
    together = fresh_model()
    task.train(together, tmp_path / "both", {"a": [1.0, 0.0], "b": [0.0, 1.0]}, seed=7)
    torch.manual_seed(99)
    for name, weight in (("b", [0.0, 1.0]), ("a", [1.0, 0.0])):
        task.train(fresh_model(), tmp_path / f"alone-{name}", {name: weight}, seed=7)
        assert bytes_of(tmp_path / "both" / name) == bytes_of(tmp_path / f"alone-{name}" / name)
    assert bytes_of(tmp_path / "both/a")[1] != bytes_of(tmp_path / "both/b")[1]
    task.train(together, tmp_path / "seed", {"a": [1.0, 0.0]}, seed=8)
    assert bytes_of(tmp_path / "both/a")[1] != bytes_of(tmp_path / "seed/a")[1]


def test_base_is_bit_for_bit_what_it_was(task: Any, fresh_model: Load, tmp_path: Path) -> None:
    model = fresh_model()
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    modules = [type(module) for module in model.model.modules()]
    expected = response_logprobs(model, texts_of(task))
    for objective in ("dpo-soft", "dpo", "gibbs"):
        task.train(model, tmp_path / objective, {"m": WEIGHT}, objective=objective)
        after = model.model.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[name], before[name]) for name in before)
        assert [type(module) for module in model.model.modules()] == modules
        assert "forward" not in vars(model.model), "no trainer's wrapper is left on it"
        assert not any(parameter.requires_grad for parameter in model.model.parameters())
        assert not model.model.training
        np.testing.assert_array_equal(response_logprobs(model, texts_of(task)), expected)


def test_adapter_loads_in_plain_peft_with_the_same_numbers(task: Any, fresh_model: Load, base_folder: Path, tmp_path: Path) -> None:
    model = fresh_model()
    task.train(model, tmp_path, {"m": WEIGHT})
    members = Members(model, {"m": tmp_path / "m"})
    with members.policy("m") as policy:
        in_palm = response_logprobs(policy, texts_of(task))
        generated = sample_responses(policy, task.prompts, count=2, max_new_tokens=5, seed=0)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_folder), tmp_path / "m").eval()
    for (prompt, response), logprob in zip(texts_of(task), in_palm, strict=True):
        with torch.inference_mode():
            logits = plain(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        found = logits.double().log_softmax(dim=1)[range(len(response)), response].sum().item()
        assert found == pytest.approx(logprob, rel=1e-5)
    loaded = LanguageModel(plain, model.tokenizer, "plain")
    assert sample_responses(loaded, task.prompts, count=2, max_new_tokens=5, seed=0) == generated
    assert np.abs(in_palm - task.candidates.reference[task.rewards.mask]).max() > 0.1


def test_hard_labels_prefer_what_the_weight_prefers(task: Any, fresh_model: Load, tmp_path: Path) -> None:
    """Each pair's margin grows, and the first loss is log 2: at the start policy and reference are one."""
    model = fresh_model()
    dpo = {"max_steps": 12, "per_device_train_batch_size": 8, "beta": 0.5}
    logs = task.train(model, tmp_path, {"m": WEIGHT}, objective="dpo", dpo=dpo)
    assert logs["m"]["losses"][0]["loss"] == pytest.approx(np.log(2), abs=1e-4)
    members = Members(model, {"m": tmp_path / "m"})
    with members.policy("m") as policy:
        ratio = response_logprobs(policy, texts_of(task)) - task.candidates.reference[task.rewards.mask]
    utility = (task.rewards.rewards @ WEIGHT)[task.rewards.mask]
    ends = np.cumsum([0, *(len(row) for row in task.candidates.responses)])
    signs = [
        (ratio[a] - ratio[b]) * (utility[a] - utility[b]) > 0
        for start, end in pairwise(ends)
        for a in range(start, end)
        for b in range(a + 1, end)
    ]
    assert np.mean(signs) > 0.85


def test_finished_members_are_not_trained_again(task: Any, language_model: LanguageModel, tmp_path: Path) -> None:
    """One member is whole, one has lost half of its weights, one its log, one was never there: only the first is kept."""
    weights = {name: [number / 4, 1 - number / 4] for number, name in enumerate(("whole", "cut", "unlogged", "new"))}
    first = task.train(language_model, tmp_path, {name: weights[name] for name in ("whole", "cut", "unlogged")})
    expected = {name: bytes_of(tmp_path / name) for name in first}
    kept = (tmp_path / "whole" / WEIGHTS).stat().st_mtime_ns
    (tmp_path / "cut" / WEIGHTS).write_bytes(expected["cut"][1][:100])
    (tmp_path / "unlogged.log.json").unlink()
    labels: list[str] = []

    def track(label: str, total: int | None) -> Any:
        labels.append(label)
        return silent(label, total)

    again = task.train(language_model, tmp_path, weights, track=track)
    assert labels == ["training cut", "training unlogged", "training new"]
    assert (tmp_path / "whole" / WEIGHTS).stat().st_mtime_ns == kept
    assert {name: bytes_of(tmp_path / name) for name in first} == expected
    assert {name: again[name] for name in first} == first
    assert not list(tmp_path.glob(".writing-*"))


def test_killed_member_goes_on_from_its_checkpoint(task: Any, language_model: LanguageModel, tmp_path: Path) -> None:
    totals: list[int | None] = []
    dpo = {"max_steps": 6, "per_device_train_batch_size": 2, "save_strategy": "steps", "save_steps": 3}
    task.train(language_model, tmp_path / "whole", {"m": WEIGHT}, dpo=dpo)
    with pytest.raises(Killed):
        task.train(language_model, tmp_path / "again", {"m": WEIGHT}, dpo=dpo, track=killing(totals, at=4))
    assert not any(parameter.requires_grad for parameter in language_model.model.parameters())
    assert not (tmp_path / "again/m").exists()
    task.train(language_model, tmp_path / "again", {"m": WEIGHT}, dpo=dpo, track=killing(totals, at=None))
    assert totals == [6] * 4 + [3] * 3, "after the kill only the three steps since the checkpoint are done again"
    assert bytes_of(tmp_path / "again/m") == bytes_of(tmp_path / "whole/m")


def test_every_candidate_is_learnt_from_whatever_the_groups_size(task: Any, language_model: LanguageModel, tmp_path: Path) -> None:
    """With groups of 2, three candidates must not become a pair and one left over.

    One that is in no group would not matter to the loss; shifting any single one's reference must change it.
    """
    losses = set()
    for shift in (None, 0, 1, 2):
        reference = task.candidates.reference[:1, :3].copy()
        if shift is not None:
            reference[0, shift] += 3.0
        candidates = TokenisedCandidates(task.candidates.prompts[:1], [task.candidates.responses[0][:3]], reference)
        logs = task.train(
            language_model, tmp_path / str(shift), {"m": WEIGHT}, candidates=candidates, group=2, dpo={"max_steps": 1}
        )
        losses.add(round(logs["m"]["losses"][0]["loss"], 6))
    assert len(losses) == 4


def test_reference_is_computed_once_and_taken_up(task: Any, language_model: LanguageModel, tmp_path: Path) -> None:
    done: list[int] = []
    again = tokenise_candidates(language_model, task.prompts, task.responses, tmp_path, max_length=96, advance=done.append)
    expected = np.zeros(task.rewards.mask.shape)
    expected[task.rewards.mask] = response_logprobs(language_model, texts_of(task))
    np.testing.assert_array_equal(again.reference, expected)
    assert sum(done) == 15
    tokenise_candidates(language_model, task.prompts, task.responses, tmp_path, max_length=96, advance=done.append)
    assert sum(done) == 15
    assert [len(row) for row in again.responses] == [5, 6, 4]
    assert all(len(p) + len(r) <= 96 for p, r in texts_of(task))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "ppo"}, "objective: expected one of dpo-soft, dpo, gibbs, rloo, grpo, got 'ppo'"),
        ({"group": 1}, "group: expected at least 2, got 1"),
        ({"shared_steps": -1}, "shared_steps: expected at least 0, got -1"),
        ({"max_new_tokens": 0}, "max_new_tokens: expected at least 1 or None, got 0"),
        ({"match_kl": -1}, "match_kl: expected at least 0, got -1"),
        ({"listwise": 1.1}, r"listwise: expected a number from 0 to 1, got 1\.1"),
        ({"pairs_per_prompt": 0}, "pairs_per_prompt: expected at least 1, got 0"),
        ({"max_length": 1}, "max_length: expected at least 2, got 1"),
        ({"dpo": {"learning_rte": 1e-4}}, r"dpo\.learning_rte: trl\.DPOConfig has no such option; did you mean 'learning_rate'"),
        (
            {"dpo": {"beta": 0.1}},
            r"dpo\.beta: the loss of dpo-soft is fixed by the plan's kl; leave it out or use objective: dpo",
        ),
        ({"dpo": {"loss_type": "ipo"}}, r"dpo\.loss_type: the loss of dpo-soft"),
        ({"lora": {"rnak": 8}}, r"lora\.rnak: peft\.LoraConfig has no such option"),
    ],
)
def test_options_are_checked_before_any_work(task: Any, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_members(None, [], task.candidates, task.rewards, tmp_path, kl=0.1, base_model="b", options=TrainingOptions(**options))  # type: ignore[arg-type]


def test_nothing_to_compare_is_said(task: Any, language_model: LanguageModel, tmp_path: Path) -> None:
    single = TokenisedCandidates(task.candidates.prompts, [row[:1] for row in task.candidates.responses], task.candidates.reference)
    with pytest.raises(ValueError, match="candidates: expected a prompt with two candidates to compare, found none"):
        task.train(language_model, tmp_path, {"m": WEIGHT}, candidates=single)


def test_a_member_that_diverged_is_no_member(task: Any, fresh_model: Load, tmp_path: Path) -> None:
    """Its name and learning rate are told, also where the policy would write afterwards; who was trained before stays."""
    task.train(fresh_model(), tmp_path, {"fine": WEIGHT})
    before = bytes_of(tmp_path / "fine")
    model = fresh_model()
    for more in ({}, {"match_kl": 4, "max_new_tokens": 4}):
        with pytest.raises(
            ValueError, match=r"dpo\.learning_rate: expected one at which .* got 1e\+30: after 4 steps the adapter of m"
        ):
            task.train(model, tmp_path, {"fine": WEIGHT, "m": WEIGHT}, dpo={"learning_rate": 1e30}, **more)
        assert not (tmp_path / "m").exists()
        assert not (tmp_path / "m.log.json").exists()
    assert bytes_of(tmp_path / "fine") == before
    logs = task.train(model, tmp_path, {"m": WEIGHT})
    assert logs["m"]["steps"] == 4
    assert bytes_of(tmp_path / "m")[1] == before[1], "the base is as it was"


def test_what_was_sampled_is_trained_on_token_for_token(language_model: LanguageModel, tmp_path: Path) -> None:
    """A response that was cut does not end, one that ended ends as it did; tokens are those that were drawn."""
    prompts = ["How do I boil an egg?", "Why?", "Which plants grow in the shade?"]
    samples = sample_responses(language_model, prompts, count=12, max_new_tokens=9, seed=1)
    save_token_ids(samples, tmp_path / "tokens.safetensors")
    counts = [len(row) for row in samples]
    sampled = load_token_ids(tmp_path / "tokens.safetensors", counts)
    texts = [[sample.text for sample in row] for row in samples]
    kept = tokenise_candidates(language_model, prompts, texts, tmp_path / "own", max_length=96, sampled=sampled)
    assert kept.responses == [[sample.token_ids for sample in row] for row in samples]
    flat = [response for row in kept.responses for response in row]
    ended = [response[-1] in language_model.end_ids for response in flat]
    assert 0 < sum(ended) < len(ended), "some were cut and some ended"
    assert all(len(response) == 9 for response, end in zip(flat, ended, strict=True) if not end)
    whole = tokenise_candidates(language_model, prompts, texts, tmp_path / "whole", max_length=96)
    assert all(response[-1] in language_model.end_ids for row in whole.responses for response in row), "given texts are whole"
    by_hand = response_logprobs(language_model, [(p, r) for p, row in zip(kept.prompts, sampled, strict=True) for r in row])
    np.testing.assert_allclose(kept.reference.ravel(), by_hand, rtol=1e-5)
    with pytest.raises(ArtifactError, match=r"tokens\.safetensors: expected token ids of 35 samples, got those of 36"):
        load_token_ids(tmp_path / "tokens.safetensors", [12, 12, 11])


def test_the_reference_follows_the_prompt_that_is_trained_on(
    language_model: LanguageModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where texts are longer than max_length, a prompt is cut once, and its candidates' log-probabilities are given that prompt."""
    prompts, responses = ["Which plants grow in the shade?" * 2, "Why?"], [["Ferns do. " * 6, "Ivy."], ["So.", "No."]]
    cut = tokenise_candidates(language_model, prompts, responses, tmp_path, max_length=40)
    texts = [(prompt, text) for prompt, row in zip(cut.prompts, cut.responses, strict=True) for text in row]
    assert max(len(prompt) + len(text) for prompt, text in texts) == 40
    np.testing.assert_allclose(cut.reference.ravel(), response_logprobs(language_model, texts), rtol=1e-5)
    assert [record.getMessage() for record in caplog.records] == [
        "train.max_length: 40 tokens cut 1 of 2 prompts at their beginning",
        "train.max_length: 40 tokens cut 1 of 4 responses at their end",
    ]


def test_log_holds_steps_weight_and_losses(task: Any, language_model: LanguageModel, tmp_path: Path) -> None:
    logs = task.train(language_model, tmp_path, {"m": WEIGHT}, dpo={"max_steps": 3})
    assert logs == {"m": json.loads((tmp_path / "m.log.json").read_text())}
    assert logs["m"]["steps"] == 3
    assert logs["m"]["weight"] == [0.7, 0.3]
    assert [entry["step"] for entry in logs["m"]["losses"]] == [1, 2, 3]
