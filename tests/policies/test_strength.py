"""palm.policies.strength: a member that goes further than the plan is scaled back to it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trained import bytes_of

from palm.lm.generate import sample_encoded
from palm.lm.load import LanguageModel
from palm.lm.logprobs import response_logprobs
from palm.policies.adapters import CONFIG, WEIGHTS, Members
from palm.policies.strength import next_strength, own_divergence

Load = Callable[[], LanguageModel]
WEIGHT = np.array([0.7, 0.3])


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
    assert bytes_of(tmp_path / "whole" / ".writing--shared") == bytes_of(tmp_path / "matched" / ".writing--shared")
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
    assert next_strength(2.0, [(1.0, 1.5)]) == 1
    assert next_strength(0.5, [(1.0, 2.0)]) == 0.5
    assert next_strength(0.0, [(1.0, 0.0)]) == 1
    assert next_strength(0.0, [(1.0, 1.0)]) == 0


@pytest.mark.parametrize("planned", [0.01, 0.3, 2.0])
@pytest.mark.parametrize(
    "divergence",
    [
        lambda s: 9 * s**2,
        lambda s: 9 * s**7,
        lambda s: 9 * s**1.1,
        lambda s: 9 / (1 + np.exp(-20 * (s - 0.8))) * s,
        lambda s: 9 * (s > 0.4) * s,
    ],
)
def test_the_strength_that_diverges_as_planned_is_found(divergence: Callable[[float], float], planned: float) -> None:
    seen = [(1.0, float(divergence(1.0)))]
    for _ in range(6):
        seen.append(((strength := next_strength(planned, seen)), float(divergence(strength))))
    below = max((point for point in seen if point[1] <= planned), default=(0.0, 0.0))
    above = min(point for point in seen if point[1] > planned)
    assert below[0] < above[0]
    nearest = min(abs(np.log(max(own, 1e-9) / planned)) for _, own in seen)
    assert nearest < 0.16 or above[0] - below[0] < 0.1, "near, or it jumps there"


def test_a_member_far_beyond_the_plan_ends_at_it_and_not_below(
    task: Any, fresh_model: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the divergence is no square of the strength the first guess goes far too low."""
    monkeypatch.setattr("palm.policies.train.planned_divergence", lambda *_: 0.1)
    told = task.train(fresh_model(), tmp_path, {"m": WEIGHT}, match_kl=60, dpo={"max_steps": 40, "learning_rate": 2e-2})["m"]
    assert told["trained_divergence"] > 1
    assert 0.085 <= told["divergence"] <= 0.105


def test_no_divergence_at_all(task: Any, fresh_model: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palm.policies.train.planned_divergence", lambda *_: 0.0)
    told = task.train(fresh_model(), tmp_path, {"m": WEIGHT}, match_kl=12)["m"]
    assert told["divergence"] < 1e-6 < told["trained_divergence"]


def test_a_member_killed_while_it_is_matched_takes_no_further_step(
    task: Any, fresh_model: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last checkpoint is that of a trained member, in the midst of an epoch; what goes on from it must not train on."""
    monkeypatch.setattr("palm.policies.train.planned_divergence", lambda *_: 1e-4)
    dpo = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 1}
    options = {"dpo": dpo, "match_kl": 8}
    whole = task.train(fresh_model(), tmp_path / "whole", {"m": WEIGHT}, **options)["m"]

    def killed(*_: Any, **__: Any) -> dict[str, float]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("palm.policies.train.match_divergence", killed)
        with pytest.raises(KeyboardInterrupt):
            task.train(fresh_model(), tmp_path / "again", {"m": WEIGHT}, **options)
    assert (tmp_path / "again/.writing-work-m/checkpoint-4/trainer_state.json").exists()
    assert task.train(fresh_model(), tmp_path / "again", {"m": WEIGHT}, **options)["m"] == whole
    assert bytes_of(tmp_path / "again/m") == bytes_of(tmp_path / "whole/m")
