"""palm.backbone.train: what is trained, saved and fitted belongs together; training stops and goes on without a trace."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForSequenceClassification

from palm.arrays import read_arrays
from palm.artifacts import ArtifactError, read_json
from palm.backbone import BradleyTerryHead, LoReHead, Trained, VRFHead, fitted_reward
from palm.features.encode import Encoder
from palm.features.pairs import PairFeatures
from palm.rewards import RewardModel, load_reward_model

METHODS: dict[str, Any] = {
    "BradleyTerry": BradleyTerryHead(),
    "LoRe": LoReHead(rank=2),
    "VRF": VRFHead(rank=2, dim=4, hidden=16),
}
Load = Callable[[Path], Encoder]


def losses(trained: Trained) -> list[float]:
    return [entry["loss"] for entry in trained.losses]


def same(one: Trained, other: Trained) -> bool:
    """Bit for bit: losses, the head, and every weight of the backbone."""
    weights = [trained.encoder.model.state_dict() for trained in (one, other)]
    return (
        one.losses == other.losses
        and all((one.arrays[name] == other.arrays[name]).all() for name in one.arrays)
        and all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    )


def scores_in_training(method: str, trained: Trained, pairs: PairFeatures) -> np.ndarray:
    """(n, K) rewards of chosen minus rejected as the head has them, from its arrays and the model in memory."""
    arrays = trained.arrays
    standard = [(side - arrays["centre"]) / arrays["scale"] for side in (pairs.chosen, pairs.rejected)]
    if method == "VRF":
        layers = [(arrays[f"parts.rewards.{n}.weight"], arrays[f"parts.rewards.{n}.bias"]) for n in (0, 2)]
        standard = [np.maximum(side @ layers[0][0].T + layers[0][1], 0) @ layers[1][0].T + layers[1][1] for side in standard]
        return standard[0] - standard[1]
    return (standard[0] - standard[1]) @ arrays["directions" if method == "LoRe" else "direction"].reshape(len(arrays["scale"]), -1)


@pytest.mark.parametrize(
    ("method", "lora"), [("BradleyTerry", None), ("LoRe", None), ("VRF", None), ("LoRe", {"r": 4})], ids=[*METHODS, "LoRe-lora"]
)
def test_loss_falls_and_the_saved_model_gives_the_scores_of_training(
    task: Any, loaded: Load, tmp_path: Path, method: str, lora: Any
) -> None:
    head = METHODS[method]
    rates = {"learning_rate": 3e-3, "max_steps": 24, "lr_scheduler_type": "constant"}
    trained = task.train(head, tmp_path / "work", lora=lora, trainer=rates)
    assert np.mean(losses(trained)[-6:]) < np.mean(losses(trained)[:6]) - 0.03
    in_memory = scores_in_training(method, trained, task.features_of(trained.encoder))

    trained.save(tmp_path / "backbone")
    pairs = task.features_of(loaded(tmp_path / "backbone"))
    assert np.abs(pairs.chosen - task.features.chosen).max() > 0.01, "the backbone has changed"
    fitted_reward(head, tmp_path / "backbone", pairs).save_pretrained(tmp_path / "reward")
    model: Any = load_reward_model(tmp_path / "reward")
    assert type(model).from_pretrained(tmp_path / "reward").method == method == model.method
    if method == "BradleyTerry":
        np.testing.assert_allclose(model.margin(pairs, model.infer(pairs))[:, None], in_memory, atol=1e-4)
    else:
        np.testing.assert_allclose(model.pair_scores(pairs), in_memory, atol=1e-4)
        assert model.users.ids.tolist() == pairs.ids.tolist()
        np.testing.assert_allclose(model.infer(pairs).mean, model.users.mean, atol=1e-6)
    surprise = np.logaddexp(0, -model.margin(pairs, model.infer(pairs))).mean()
    assert surprise < np.mean(losses(trained)[:6]), "fitted users are at least as well predicted"


def test_embeddings_and_heads_of_a_language_model_are_saved_whole(task: Any, tmp_path: Path) -> None:
    """The saved folder is a causal language model as before: what was not trained is as it was, what was tied is tied."""
    trained = task.train(METHODS["BradleyTerry"], tmp_path / "work", trainer={"max_steps": 2})
    trained.save(tmp_path / "backbone")
    before, after = (AutoModelForCausalLM.from_pretrained(folder) for folder in (task.folder, tmp_path / "backbone"))
    assert {name: value.shape for name, value in before.state_dict().items()} == {
        name: value.shape for name, value in after.state_dict().items()
    }
    same_object = [model.lm_head.weight is model.model.embed_tokens.weight for model in (before, after)]
    assert same_object[0] == same_object[1]


def test_a_reward_model_is_a_backbone_too(task: Any, loaded: Load, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig.from_pretrained(task.folder, num_labels=1, architectures=None)
    LlamaForSequenceClassification(config).save_pretrained(tmp_path / "given")
    loaded(task.folder).tokenizer.save_pretrained(tmp_path / "given")
    trained = task.train(METHODS["LoRe"], tmp_path / "work", source=tmp_path / "given", trainer={"max_steps": 3})
    trained.save(tmp_path / "backbone")
    encoder = loaded(tmp_path / "backbone")
    assert type(encoder.model).__name__ == "LlamaForSequenceClassification"
    expected = scores_in_training("LoRe", trained, task.features_of(trained.encoder))
    model: Any = fitted_reward(METHODS["LoRe"], tmp_path / "backbone", task.features_of(encoder))
    np.testing.assert_allclose(model.pair_scores(task.features_of(encoder)), expected, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_steps_in_parts_are_steps_at_once(task: Any, tmp_path: Path, method: str) -> None:
    """Four blocks at a time, and twice two, are the same training: losses within rounding."""
    trainer = {"max_steps": 6, "learning_rate": 1e-3}
    one = task.train(METHODS[method], tmp_path / "one", trainer=trainer)
    parts = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    other = task.train(METHODS[method], tmp_path / "other", trainer=trainer | parts)
    np.testing.assert_allclose(losses(one), losses(other), atol=2e-5)
    assert losses(one)[0] != losses(one)[-1]


def test_head_and_users_learn_at_rates_of_their_own(task: Any, tmp_path: Path) -> None:
    """A backbone that hardly moves, a head and users that do; each parameter belongs to one group."""
    begun = LoReHead(rank=2).begin(task.features, 0)
    still = {"learning_rate": 1e-12, "max_steps": 2, "lr_scheduler_type": "constant"}
    trained = task.train(LoReHead(rank=2, user_learning_rate=0.3), tmp_path, head_learning_rate=0.01, trainer=still)
    moved = {name: np.abs(trained.arrays[name] - value.detach().numpy()).max() for name, value in begun.named_parameters()}
    assert 0.005 < moved["directions"] <= 0.021
    assert 0.2 < moved["users"] <= 0.61
    np.testing.assert_allclose(task.features_of(trained.encoder).chosen, task.features.chosen, atol=1e-5)


@pytest.mark.parametrize("stop", [5, 10], ids=["in an epoch", "at the end"])
def test_stopped_and_taken_up_again_ends_the_same_bit_for_bit(task: Any, tmp_path: Path, stop: int) -> None:
    """With dropout, noise and contexts, from checkpoints of which the newest is in pieces."""
    head, options = METHODS["VRF"], {"lora": {"r": 4, "lora_dropout": 0.2}}
    trainer = {"max_steps": 10, "save_steps": 1, "save_total_limit": 20}
    whole = task.train(head, tmp_path / "whole", trainer=trainer, **options)
    work, left = tmp_path / "whole", []
    for path in work.glob("checkpoint-*"):
        if int(path.name.partition("-")[2]) > stop:
            (path / "whole.json").unlink()

    def track(label: str, total: int | None) -> Any:
        left.append(total)
        from palm.progress import silent

        return silent(label, total)

    again = task.train(head, work, trainer=trainer, track=track, **options)
    assert left == ([10 - stop] if stop < 10 else []), "only what was left is done"
    assert same(whole, again)
    assert again.steps == 10


def test_checkpoints_of_another_training_are_refused(task: Any, tmp_path: Path) -> None:
    trainer = {"max_steps": 2, "save_steps": 1}
    task.train(METHODS["LoRe"], tmp_path, trainer=trainer)
    with pytest.raises(ArtifactError, match="expected the weights of this backbone and head, got others"):
        task.train(LoReHead(rank=3), tmp_path, trainer=trainer)
    with pytest.raises(ArtifactError, match="begun with steps of 4 blocks, got 8: start as many processes as before"):
        task.train(METHODS["LoRe"], tmp_path, trainer=trainer | {"gradient_accumulation_steps": 2})


@pytest.mark.parametrize("method", METHODS)
def test_single_users_and_single_pairs_are_trained_on(task: Any, loaded: Load, tmp_path: Path, method: str) -> None:
    """One user; one user with one pair; and everyone with one pair."""
    head, code = METHODS[method], task.features.code
    firsts = np.unique(code, return_index=True)[1]
    for name, rows in (("user", np.flatnonzero(code == 0)), ("pair", [0]), ("pairs", firsts)):
        trained = task.train(head, tmp_path / name / "work", rows=rows, trainer={"max_steps": 2})
        assert np.isfinite(losses(trained)).all()
        trained.save(tmp_path / name / "backbone")
        pairs = task.features_of(loaded(tmp_path / name / "backbone"), rows)
        model: RewardModel = fitted_reward(head, tmp_path / name / "backbone", pairs)
        assert np.isfinite(model.margin(pairs, model.infer(pairs))).all()


def test_epochs_count_every_pair(task: Any, tmp_path: Path) -> None:
    """Two epochs of 8 users with 12 pairs in blocks of 3: 32 blocks, 8 steps each."""
    trained = task.train(METHODS["BradleyTerry"], tmp_path / "work", trainer={"max_steps": -1, "num_train_epochs": 2})
    assert trained.steps == 16
    trained.save(tmp_path / "backbone")
    assert read_json(tmp_path / "backbone" / "training.json")["steps"] == 16
    assert set(read_arrays(tmp_path / "backbone" / "head.safetensors")) == {"centre", "scale", "direction"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trainer": {"learning_rat": 1}}, r"trainer\.learning_rat: transformers\.TrainingArguments has no such option; did you"),
        ({"trainer": {"seed": 1}}, r"trainer\.seed: palm sets this itself"),
        ({"trainer": {"ignore_data_skip": True}}, r"trainer\.ignore_data_skip: expected it to be left out"),
        ({"trainer": {"fsdp": "full_shard"}}, r"trainer\.fsdp: expected it to be left out: the backbone is held whole"),
        ({"lora": {"rr": 4}}, r"lora\.rr: peft\.LoraConfig has no such option; did you mean 'r'\?"),
        ({"lora": {"task_type": "CAUSAL_LM"}}, r"lora\.task_type: palm sets this itself"),
        ({"targets": 0}, "targets: expected a whole number of at least 1, got 0"),
        ({"context": 0}, "context: expected a whole number of at least 1, got 0"),
        ({"head_learning_rate": 0.0}, r"head_learning_rate: expected a positive number, got 0\.0"),
    ],
)
def test_options_that_cannot_be_are_refused(task: Any, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task.train(METHODS["LoRe"], tmp_path, **options)


def test_no_pairs_and_split_models_are_refused(task: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="features: expected at least one pair, got none"):
        task.train(METHODS["LoRe"], tmp_path, rows=slice(0, 0))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match=r"distributed_type: expected MULTI_GPU or MULTI_CPU \(DDP\), got FSDP or DeepSpeed"):
        task.train(METHODS["LoRe"], tmp_path)
