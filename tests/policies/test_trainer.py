"""palm.policies.trainer: the loss is the documented one in every layout, and least at the planned policy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trained import soft_loss, texts_of

from palm.lm.load import LanguageModel
from palm.lm.logprobs import response_logprobs
from palm.policies.adapters import Members
from palm.policies.candidates import TokenisedCandidates
from palm.policies.trainer import _ReadingTrainer

Load = Callable[[], LanguageModel]
WEIGHT = np.array([0.7, 0.3])


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
    expected = soft_loss(targets, [shift[p, :n] for p, n in enumerate(counts)], listwise)
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
        logprobs = response_logprobs(policy, texts_of(task))
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
    entropy = soft_loss([t for _, t in rows], [t for _, t in rows], listwise)
    begin = soft_loss([t for _, t in rows], [np.zeros_like(t) for _, t in rows], listwise)
    assert losses[0] == pytest.approx(begin, abs=1e-4)
    assert entropy - 1e-4 < losses[-1] < entropy + 0.02 * (begin - entropy)


def test_a_trainer_without_a_loss_cannot_be_made() -> None:
    class Lossless(_ReadingTrainer):
        pass

    with pytest.raises(TypeError, match=r"abstract.*loss_of"):
        Lossless()
