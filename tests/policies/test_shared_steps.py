"""palm.policies.train: steps that members share are those of the mean weight, taken once."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trained import bytes_of, soft_loss, texts_of

from palm.artifacts import ArtifactError
from palm.lm.load import LanguageModel
from palm.lm.logprobs import response_logprobs
from palm.policies.adapters import Members

WEIGHT = np.array([0.7, 0.3])


def test_members_go_on_from_the_steps_that_they_share(task: Any, language_model: LanguageModel, tmp_path: Path) -> None:
    """Shared steps are those of a member at the mean weight; a member's first loss is then the one at that adapter."""
    weights = {"a": np.array([1.0, 0.0]), "b": np.array([0.4, 0.6])}
    centre = task.train(language_model, tmp_path / "centre", {"c": WEIGHT}, dpo={"max_steps": 12})
    fresh = task.train(language_model, tmp_path / "fresh", weights, dpo={"max_steps": 1})
    shared = task.train(language_model, tmp_path / "shared", weights, shared_steps=12, dpo={"max_steps": 1})
    assert bytes_of(tmp_path / "shared" / ".writing--shared") == bytes_of(tmp_path / "centre" / "c")
    assert sorted(shared) == ["a", "b"]
    assert centre["c"]["losses"][-1]["loss"] < centre["c"]["losses"][0]["loss"]
    counts = [len(row) for row in task.candidates.responses]
    members = Members(language_model, {"c": tmp_path / "centre" / "c"})
    with members.policy("c") as policy:
        logprobs = np.split(response_logprobs(policy, texts_of(task)), np.cumsum(counts)[:-1])
    members.close()
    for name, weight in weights.items():
        targets = [task.rewards.rewards[p, :n] @ weight / 0.1 for p, n in enumerate(counts)]
        ratios = [logprobs[p] - task.candidates.reference[p, :n] for p, n in enumerate(counts)]
        assert shared[name]["losses"][0]["loss"] == pytest.approx(soft_loss(targets, ratios, 0.5), rel=1e-3)
        assert abs(shared[name]["losses"][0]["loss"] - fresh[name]["losses"][0]["loss"]) > 5e-3


def test_members_with_shared_steps_are_the_same_after_a_break(task: Any, language_model: LanguageModel, tmp_path: Path) -> None:
    """Whether another member or the shared adapter was there already changes nothing."""
    weights = {"a": np.array([1.0, 0.0]), "b": np.array([0.4, 0.6])}
    options = {"shared_steps": 3, "dpo": {"max_steps": 2}}
    task.train(language_model, tmp_path, weights, **options)
    whole = bytes_of(tmp_path / "b")
    shutil.rmtree(tmp_path / "b")
    task.train(language_model, tmp_path, weights, **options)
    assert bytes_of(tmp_path / "b") == whole
    for name in ("b", ".writing--shared"):
        shutil.rmtree(tmp_path / name)
    task.train(language_model, tmp_path, weights, **options)
    assert bytes_of(tmp_path / "b") == whole


def test_shared_steps_of_other_options_are_not_taken(task: Any, language_model: LanguageModel, tmp_path: Path) -> None:
    """Nor does a member called `shared` touch them."""
    weights = {"shared": np.array([1.0, 0.0]), "b": np.array([0.4, 0.6])}
    task.train(language_model, tmp_path / "fresh", weights, shared_steps=4, dpo={"max_steps": 1})
    task.train(language_model, tmp_path / "used", weights, shared_steps=2, dpo={"max_steps": 1})
    shutil.rmtree(tmp_path / "used" / "b")
    task.train(language_model, tmp_path / "used", weights, shared_steps=4, dpo={"max_steps": 1})
    assert bytes_of(tmp_path / "used" / "b") == bytes_of(tmp_path / "fresh" / "b")


@pytest.mark.parametrize("damaged", ["b.log.json", ".writing--shared.log.json", ".writing--shared.made-with.json"])
def test_damaged_records_are_made_again(task: Any, language_model: LanguageModel, tmp_path: Path, damaged: str) -> None:
    """As truncated adapters are: what cannot be read counts as not made."""
    weights = {"a": np.array([1.0, 0.0]), "b": np.array([0.4, 0.6])}
    options = {"shared_steps": 3, "dpo": {"max_steps": 2}}
    told = task.train(language_model, tmp_path, weights, **options)
    whole = bytes_of(tmp_path / "b")
    shutil.rmtree(tmp_path / "a")
    record = tmp_path / damaged
    record.write_bytes(record.read_bytes()[:12])
    assert task.train(language_model, tmp_path, weights, **options) == told
    assert bytes_of(tmp_path / "b") == whole


def test_members_go_on_from_an_adapter_that_is_given(task: Any, language_model: LanguageModel, tmp_path: Path) -> None:
    """An exact copy: with a learning rate too small to move anything, the member is that adapter; no steps are shared then."""
    task.train(language_model, tmp_path / "first", {"c": WEIGHT}, dpo={"max_steps": 6})
    still = {"max_steps": 1, "learning_rate": 1e-30}
    start = tmp_path / "first" / "c"
    told = task.train(
        language_model, tmp_path / "next", {"a": np.array([0.2, 0.8])}, starts={"a": start}, shared_steps=3, dpo=still
    )
    assert bytes_of(tmp_path / "next" / "a") == bytes_of(start)
    assert not (tmp_path / "next" / ".writing--shared").exists()
    both = {"a": np.array([0.2, 0.8]), "b": np.array([0.6, 0.4])}
    task.train(language_model, tmp_path / "both", both, starts={"a": start}, shared_steps=3, dpo=still)
    task.train(language_model, tmp_path / "alone", {"b": both["b"]}, shared_steps=3, dpo=still)
    assert bytes_of(tmp_path / "both" / "a") == bytes_of(start)
    assert bytes_of(tmp_path / "both" / "b") == bytes_of(tmp_path / "alone" / "b"), "only b shares steps, with itself"
    fresh = task.train(language_model, tmp_path / "fresh", {"a": np.array([0.2, 0.8])}, dpo=still)
    assert told["a"]["losses"][0]["loss"] != pytest.approx(fresh["a"]["losses"][0]["loss"], rel=1e-3)


def test_an_adapter_of_another_base_or_none_is_no_start(task: Any, language_model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        task.train(language_model, tmp_path, {"a": WEIGHT}, starts={"a": tmp_path / "none"})
    task.train(language_model, tmp_path / "first", {"c": WEIGHT}, dpo={"max_steps": 1})
    config = tmp_path / "first" / "c" / "adapter_config.json"
    config.write_text(config.read_text().replace("tiny-base", "another"))
    with pytest.raises(ArtifactError, match="base_model_name_or_path: expected 'tiny-base'"):
        task.train(language_model, tmp_path, {"a": WEIGHT}, starts={"a": tmp_path / "first" / "c"})
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        ({}, {"lora_alpha": 64}, r"lora_alpha: expected 64, train\.lora\.lora_alpha, got 16"),
        ({}, {"target_modules": ["q_proj"]}, r"expected the modules of train\.lora\.target_modules, but it has also .*lora_A"),
        ({"target_modules": ["q_proj"]}, {}, r"expected the modules of train\.lora\.target_modules, but it lacks .*lora_A"),
    ],
)
def test_an_adapter_of_another_scale_or_other_modules_is_no_start(
    task: Any, language_model: LanguageModel, tmp_path: Path, first: dict[str, Any], then: dict[str, Any], message: str
) -> None:
    """With this run's settings its weights would be another policy than the one that is gone on from."""
    task.train(language_model, tmp_path / "first", {"c": WEIGHT}, lora=first, dpo={"max_steps": 1})
    with pytest.raises(ArtifactError, match=message):
        task.train(language_model, tmp_path / "next", {"a": WEIGHT}, lora=then, starts={"a": tmp_path / "first" / "c"})
    assert not (tmp_path / "next" / "a").exists()
