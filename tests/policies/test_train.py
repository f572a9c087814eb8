"""palm.policies.train: soft labels lead to the planned policy, the loss is the documented one, and training can be repeated."""

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from palm.lm.generate import sample_encoded, sample_responses
from palm.lm.load import LanguageModel
from palm.lm.logprobs import response_logprobs
from palm.policies.adapters import CONFIG, WEIGHTS, Members
from palm.policies.strength import matched_strength, own_divergence
from palm.policies.train import TokenisedCandidates, TrainingOptions, tokenise_candidates, train_members
from palm.progress import silent

Load = Callable[[], LanguageModel]
WEIGHT = np.array([0.7, 0.3])


def _texts(task: Any) -> list[tuple[list[int], list[int]]]:
    return [(p, r) for p, row in zip(task.candidates.prompts, task.candidates.responses, strict=True) for r in row]


def _bytes(folder: Path) -> tuple[bytes, bytes]:
    return (folder / CONFIG).read_bytes(), (folder / WEIGHTS).read_bytes()


def _pairs_of(values: np.ndarray) -> list[tuple[int, int]]:
    return [(a, b) for a in range(len(values)) for b in range(a + 1, len(values))]


def _loss(targets: list[np.ndarray], ratios: list[np.ndarray], listwise: float) -> float:
    """The documented loss: pair by pair with label sigmoid(t_a - t_b) and logit r_a - r_b, and cross-entropy over each group."""
    total = 0.0
    for target, ratio in zip(targets, ratios, strict=True):
        pairs = _pairs_of(target)
        for a, b in pairs:
            label, logit = 1 / (1 + np.exp(-(target[a] - target[b]))), ratio[a] - ratio[b]
            surprise = label * np.log1p(np.exp(-logit)) + (1 - label) * np.log1p(np.exp(logit))
            total += (1 - listwise) * surprise / len(pairs) / len(targets)
        likely = np.exp(target - target.max()) / np.exp(target - target.max()).sum()
        total -= listwise * (likely @ (ratio - np.log(np.exp(ratio).sum()))) / len(targets)
    return total


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("listwise", "plain"), [(0.0, True), (0.5, True), (0.5, False), (1.0, True)])
def test_loss_equals_an_independent_recount(
    task: Any,
    language_model: LanguageModel,
    tmp_path: Path,
    listwise: float,
    plain: bool,
    packed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reference is shifted at random, so that at the first step log-ratios are those shifts and not zero."""
    if not plain:
        monkeypatch.setattr("palm.policies.trainer._PLAIN_LOGITS", 0)
    if not packed:
        monkeypatch.setattr("palm.policies.groups._PACK", 1)
    shift = np.random.default_rng(1).normal(0, 2, size=task.candidates.reference.shape)
    shifted = TokenisedCandidates(task.candidates.prompts, task.candidates.responses, task.candidates.reference - shift)
    logs = task.train(language_model, tmp_path, {"m": WEIGHT}, candidates=shifted, listwise=listwise, dpo={"max_steps": 1})
    counts = [len(row) for row in task.candidates.responses]
    targets = [task.rewards.rewards[p, :n] @ WEIGHT / 0.1 for p, n in enumerate(counts)]
    expected = _loss(targets, [shift[p, :n] for p, n in enumerate(counts)], listwise)
    assert logs["m"]["losses"][0]["loss"] == pytest.approx(expected, rel=1e-4)
    assert abs(expected - np.log(2)) > 0.1


def test_plain_and_fused_heads_train_the_same(
    task: Any, fresh_model: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dpo = {"max_steps": 6, "learning_rate": 1e-2}
    plain = task.train(fresh_model(), tmp_path / "plain", {"m": WEIGHT}, dpo=dpo)
    monkeypatch.setattr("palm.policies.trainer._PLAIN_LOGITS", 0)
    fused = task.train(fresh_model(), tmp_path / "fused", {"m": WEIGHT}, dpo=dpo)
    losses = [[entry["loss"] for entry in logs["m"]["losses"]] for logs in (plain, fused)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0][-1] < losses[0][0]


def test_accumulated_steps_have_the_loss_of_one_large_batch(task: Any, language_model: LanguageModel, tmp_path: Path) -> None:
    whole = task.train(language_model, tmp_path / "a", {"m": WEIGHT}, dpo={"max_steps": 2})
    parts = {"max_steps": 2, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 3}
    summed = task.train(language_model, tmp_path / "b", {"m": WEIGHT}, dpo=parts)
    for one, other in zip(whole["m"]["losses"], summed["m"]["losses"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)


def test_members_go_on_from_the_steps_that_they_share(task: Any, language_model: LanguageModel, tmp_path: Path) -> None:
    """Shared steps are those of a member at the mean weight; a member's first loss is then the one at that adapter."""
    weights = {"a": np.array([1.0, 0.0]), "b": np.array([0.4, 0.6])}
    centre = task.train(language_model, tmp_path / "centre", {"c": WEIGHT}, dpo={"max_steps": 12})
    fresh = task.train(language_model, tmp_path / "fresh", weights, dpo={"max_steps": 1})
    shared = task.train(language_model, tmp_path / "shared", weights, shared_steps=12, dpo={"max_steps": 1})
    assert _bytes(tmp_path / "shared" / ".writing--shared") == _bytes(tmp_path / "centre" / "c")
    assert sorted(shared) == ["a", "b"]
    assert centre["c"]["losses"][-1]["loss"] < centre["c"]["losses"][0]["loss"]
    counts = [len(row) for row in task.candidates.responses]
    members = Members(language_model, {"c": tmp_path / "centre" / "c"})
    with members.policy("c") as policy:
        logprobs = np.split(response_logprobs(policy, _texts(task)), np.cumsum(counts)[:-1])
    members.close()
    for name, weight in weights.items():
        targets = [task.rewards.rewards[p, :n] @ weight / 0.1 for p, n in enumerate(counts)]
        ratios = [logprobs[p] - task.candidates.reference[p, :n] for p, n in enumerate(counts)]
        assert shared[name]["losses"][0]["loss"] == pytest.approx(_loss(targets, ratios, 0.5), rel=1e-3)
        assert abs(shared[name]["losses"][0]["loss"] - fresh[name]["losses"][0]["loss"]) > 5e-3


def test_members_with_shared_steps_are_the_same_after_a_break(task: Any, language_model: LanguageModel, tmp_path: Path) -> None:
    """Whether another member or the shared adapter was there already changes nothing."""
    weights = {"a": np.array([1.0, 0.0]), "b": np.array([0.4, 0.6])}
    options = {"shared_steps": 3, "dpo": {"max_steps": 2}}
    task.train(language_model, tmp_path, weights, **options)
    whole = _bytes(tmp_path / "b")
    shutil.rmtree(tmp_path / "b")
    task.train(language_model, tmp_path, weights, **options)
    assert _bytes(tmp_path / "b") == whole
    for name in ("b", ".writing--shared"):
        shutil.rmtree(tmp_path / name)
    task.train(language_model, tmp_path, weights, **options)
    assert _bytes(tmp_path / "b") == whole


def test_a_member_that_goes_beyond_the_plan_is_scaled_back(
    task: Any, fresh_model: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is published is what was trained with B scaled down until it diverges as planned; shared steps are not touched."""
    from safetensors.torch import load_file

    monkeypatch.setattr("palm.policies.train.planned_divergence", lambda *_: 1e-4)  # anything trained goes beyond this
    options = {"shared_steps": 4, "dpo": {"max_steps": 6, "learning_rate": 5e-3}}
    logs = {}
    for name, match in (("whole", 0), ("matched", 12)):
        logs[name] = task.train(fresh_model(), tmp_path / name, {"a": WEIGHT}, match_kl=match, **options)["a"]
    assert logs["whole"]["strength"] == 1
    told = logs["matched"]
    assert told["trained_divergence"] > 1e-4
    assert told["divergence"] < min(told["trained_divergence"], 3e-4)
    assert 0 < told["strength"] < 1
    assert told["losses"] == logs["whole"]["losses"]
    assert _bytes(tmp_path / "whole" / ".writing--shared") == _bytes(tmp_path / "matched" / ".writing--shared")
    whole, matched = (load_file(tmp_path / name / "a" / WEIGHTS) for name in ("whole", "matched"))
    assert (tmp_path / "whole" / "a" / CONFIG).read_bytes() == (tmp_path / "matched" / "a" / CONFIG).read_bytes()
    for name, part in whole.items():
        torch.testing.assert_close(matched[name], part * (told["strength"] if "lora_B" in name else 1.0))
    again = task.train(fresh_model(), tmp_path / "again", {"a": WEIGHT}, match_kl=12, **options)["a"]
    assert again == told


def test_own_divergence_is_that_of_text_sampled_apart(task: Any, fresh_model: Load, tmp_path: Path) -> None:
    """An independent estimate: sample by the library's usual way, mean log-ratio of the policy's own text."""
    model = fresh_model()
    task.train(model, tmp_path, {"m": WEIGHT}, dpo={"max_steps": 25, "learning_rate": 1e-2})
    prompts = task.candidates.prompts
    members = Members(model, {"m": tmp_path / "m"})
    with members.policy("m") as policy:
        told = own_divergence(policy, prompts, texts=480, max_new_tokens=12, without_adapter=members.without_adapter)
        written = [
            (prompt, sample.token_ids)
            for prompt, row in zip(prompts, sample_encoded(policy, prompts, count=80, max_new_tokens=12, seed=9), strict=True)
            for sample in row
        ]
        own = response_logprobs(policy, written)
    with members.without_adapter():
        ratio = own - response_logprobs(model, written)
    members.close()
    assert told > 0.05
    assert told == pytest.approx(ratio.mean(), abs=5 * ratio.std() / np.sqrt(len(ratio)))


def test_who_diverges_less_than_planned_is_left_alone() -> None:
    assert matched_strength(2.0, 1.5) == 1
    assert matched_strength(0.5, 2.0) == 0.5
    assert matched_strength(0.0, 0.0) == 1
    assert matched_strength(0.0, 1.0) == 0


def test_shared_steps_of_other_options_are_not_taken(task: Any, language_model: LanguageModel, tmp_path: Path) -> None:
    """Nor does a member called `shared` touch them."""
    weights = {"shared": np.array([1.0, 0.0]), "b": np.array([0.4, 0.6])}
    task.train(language_model, tmp_path / "fresh", weights, shared_steps=4, dpo={"max_steps": 1})
    task.train(language_model, tmp_path / "used", weights, shared_steps=2, dpo={"max_steps": 1})
    shutil.rmtree(tmp_path / "used" / "b")
    task.train(language_model, tmp_path / "used", weights, shared_steps=4, dpo={"max_steps": 1})
    assert _bytes(tmp_path / "used" / "b") == _bytes(tmp_path / "fresh" / "b")


@pytest.mark.parametrize("listwise", [0.0, 0.5])
def test_log_ratios_reach_the_plan(task: Any, fresh_model: Load, tmp_path: Path, listwise: float) -> None:
    """At the optimum log pi/pi_ref = w.phi/kl + constant per prompt, and the loss is the labels' own entropy.

    How much of it is by lists changes the entropy, not where the loss is least. The loss must end within 2 % of the way from
    where it starts: every pair and every list even.
    """
    model = fresh_model()
    steps = {"max_steps": 50, "learning_rate": 1.5e-2, "per_device_train_batch_size": 6}
    logs = task.train(model, tmp_path, {"m": WEIGHT}, listwise=listwise, dpo=steps)
    members = Members(model, {"m": tmp_path / "m"})
    with members.policy("m") as policy:
        logprobs = response_logprobs(policy, _texts(task))
    mask = task.rewards.mask
    ratio = np.zeros(mask.shape)
    ratio[mask] = logprobs
    ratio[mask] -= task.candidates.reference[mask]
    target = task.rewards.rewards @ WEIGHT / 0.1
    rows = [(ratio[p, mask[p]], target[p, mask[p]]) for p in range(len(mask))]
    found = np.concatenate([r - r.mean() for r, _ in rows])
    planned = np.concatenate([t - t.mean() for _, t in rows])
    assert planned.std() > 0.5
    assert np.corrcoef(found, planned)[0, 1] > 0.999
    assert (found @ planned) / (planned @ planned) == pytest.approx(1, abs=0.03)
    losses = [entry["loss"] for entry in logs["m"]["losses"]]
    entropy = _loss([t for _, t in rows], [t for _, t in rows], listwise)
    begin = _loss([t for _, t in rows], [np.zeros_like(t) for _, t in rows], listwise)
    assert losses[0] == pytest.approx(begin, abs=1e-4)
    assert entropy - 1e-4 < losses[-1] < entropy + 0.02 * (begin - entropy)


def test_same_seed_gives_the_same_bytes_alone_or_beside_others(task: Any, fresh_model: Load, tmp_path: Path) -> None:
    """Two members in one process equal each trained alone on a base loaded anew; another seed or weight does not."""
    together = fresh_model()
    task.train(together, tmp_path / "both", {"a": [1.0, 0.0], "b": [0.0, 1.0]}, seed=7)
    torch.manual_seed(99)
    for name, weight in (("b", [0.0, 1.0]), ("a", [1.0, 0.0])):
        task.train(fresh_model(), tmp_path / f"alone-{name}", {name: weight}, seed=7)
        assert _bytes(tmp_path / "both" / name) == _bytes(tmp_path / f"alone-{name}" / name)
    assert _bytes(tmp_path / "both/a")[1] != _bytes(tmp_path / "both/b")[1]
    task.train(together, tmp_path / "seed", {"a": [1.0, 0.0]}, seed=8)
    assert _bytes(tmp_path / "both/a")[1] != _bytes(tmp_path / "seed/a")[1]


def test_base_is_bit_for_bit_what_it_was(task: Any, fresh_model: Load, tmp_path: Path) -> None:
    model = fresh_model()
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    modules = [type(module) for module in model.model.modules()]
    expected = response_logprobs(model, _texts(task))
    for labels in ("soft", "hard"):
        task.train(model, tmp_path / labels, {"m": WEIGHT}, labels=labels)
        after = model.model.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[name], before[name]) for name in before)
        assert [type(module) for module in model.model.modules()] == modules
        assert "forward" not in vars(model.model), "no trainer's wrapper is left on it"
        assert not any(parameter.requires_grad for parameter in model.model.parameters())
        assert not model.model.training
        np.testing.assert_array_equal(response_logprobs(model, _texts(task)), expected)


def test_adapter_loads_in_plain_peft_with_the_same_numbers(task: Any, fresh_model: Load, base_folder: Path, tmp_path: Path) -> None:
    model = fresh_model()
    task.train(model, tmp_path, {"m": WEIGHT})
    members = Members(model, {"m": tmp_path / "m"})
    with members.policy("m") as policy:
        in_palm = response_logprobs(policy, _texts(task))
        generated = sample_responses(policy, task.prompts, count=2, max_new_tokens=5, seed=0)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_folder), tmp_path / "m").eval()
    for (prompt, response), logprob in zip(_texts(task), in_palm, strict=True):
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
    logs = task.train(model, tmp_path, {"m": WEIGHT}, labels="hard", dpo=dpo)
    assert logs["m"]["losses"][0]["loss"] == pytest.approx(np.log(2), abs=1e-4)
    members = Members(model, {"m": tmp_path / "m"})
    with members.policy("m") as policy:
        ratio = response_logprobs(policy, _texts(task)) - task.candidates.reference[task.rewards.mask]
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
    expected = {name: _bytes(tmp_path / name) for name in first}
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
    assert {name: _bytes(tmp_path / name) for name in first} == expected
    assert {name: again[name] for name in first} == first
    assert not list(tmp_path.glob(".writing-*"))


def test_killed_member_goes_on_from_its_checkpoint(task: Any, language_model: LanguageModel, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def track(label: str, total: int | None) -> Any:
        class Bar:
            done = 0

            def __enter__(self) -> Any:
                return self.advance

            def __exit__(self, *_: object) -> None:
                return None

            def advance(self, count: int) -> None:
                self.done += count
                totals.append(total)
                if kill and self.done == 4:
                    raise Killed

        return Bar()

    totals: list[int | None] = []
    dpo = {"max_steps": 6, "per_device_train_batch_size": 2, "save_strategy": "steps", "save_steps": 3}
    task.train(language_model, tmp_path / "whole", {"m": WEIGHT}, dpo=dpo)
    kill = True
    with pytest.raises(Killed):
        task.train(language_model, tmp_path / "again", {"m": WEIGHT}, dpo=dpo, track=track)
    assert not any(parameter.requires_grad for parameter in language_model.model.parameters())
    assert not (tmp_path / "again/m").exists()
    kill = False
    task.train(language_model, tmp_path / "again", {"m": WEIGHT}, dpo=dpo, track=track)
    assert totals == [6] * 4 + [3] * 3, "after the kill only the three steps since the checkpoint are done again"
    assert _bytes(tmp_path / "again/m") == _bytes(tmp_path / "whole/m")


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
    expected[task.rewards.mask] = response_logprobs(language_model, _texts(task))
    np.testing.assert_array_equal(again.reference, expected)
    assert sum(done) == 15
    tokenise_candidates(language_model, task.prompts, task.responses, tmp_path, max_length=96, advance=done.append)
    assert sum(done) == 15
    assert [len(row) for row in again.responses] == [5, 6, 4]
    assert all(len(p) + len(r) <= 96 for p, r in _texts(task))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "medium"}, "labels: expected 'soft' or 'hard', got 'medium'"),
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
            r"dpo\.beta: with soft labels the loss is fixed by the plan's kl; leave it out or use labels: hard",
        ),
        ({"dpo": {"loss_type": "ipo"}}, r"dpo\.loss_type: with soft labels"),
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


def test_log_holds_steps_weight_and_losses(task: Any, language_model: LanguageModel, tmp_path: Path) -> None:
    logs = task.train(language_model, tmp_path, {"m": WEIGHT}, dpo={"max_steps": 3})
    assert logs == {"m": json.loads((tmp_path / "m.log.json").read_text())}
    assert logs["m"]["steps"] == 3
    assert logs["m"]["weight"] == [0.7, 0.3]
    assert [entry["step"] for entry in logs["m"]["losses"]] == [1, 2, 3]
