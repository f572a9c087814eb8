"""palm.lm.pretrain: the same seed makes the same model, bit for bit, and the model has learnt something."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from palm.data.planted import write_corpus
from palm.lm.load import load_language_model
from palm.lm.logprobs import response_logprobs
from palm.lm.pretrain import train_from_scratch, train_tokenizer
from palm.lm.tokens import encode
from palm.progress import Track, silent

ARCHITECTURE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXTS = write_corpus(60, np.random.default_rng(0))


def _train(folder: Path, *, steps: int = 6, seed: int = 0, track: Track = silent, **options: Any) -> dict[str, float]:
    return train_from_scratch(
        TEXTS,
        folder / "model",
        work=folder / "work",
        vocabulary=300,
        architecture=ARCHITECTURE,
        sft={"max_steps": steps, "per_device_train_batch_size": 4, "learning_rate": 5e-3, **options},
        max_length=64,
        seed=seed,
        track=track,
    )


def test_same_seed_gives_the_same_files_whatever_the_callers_generator(tmp_path: Path) -> None:
    facts = []
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        torch.manual_seed(len(facts))
        facts.append(_train(tmp_path / name, seed=seed))
    assert facts[0] == facts[1] != facts[2]
    for file in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (tmp_path / "one/model" / file).read_bytes() == (tmp_path / "same/model" / file).read_bytes()
    assert (tmp_path / "one/model/model.safetensors").read_bytes() != (tmp_path / "other/model/model.safetensors").read_bytes()


def test_caller_draws_as_if_nothing_had_been_trained(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    _train(tmp_path, steps=1)
    assert torch.equal(torch.rand(3), expected)


def test_training_taken_up_from_a_checkpoint_ends_where_it_would_have(tmp_path: Path) -> None:
    """As after a kill: the work folder holds a checkpoint from the middle and nothing later."""
    _train(tmp_path / "whole", save_strategy="steps", save_steps=3)
    assert sorted(path.name for path in (tmp_path / "whole/work").glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-6"]
    (tmp_path / "again/work").mkdir(parents=True)
    (tmp_path / "whole/work/checkpoint-3").rename(tmp_path / "again/work/checkpoint-3")
    totals: list[int | None] = []

    def track(label: str, total: int | None) -> Any:
        totals.append(total)
        return silent(label, total)

    _train(tmp_path / "again", save_strategy="steps", save_steps=3, track=track)
    assert totals == [3], "only what came after the checkpoint is done again"
    weights = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("whole", "again")]
    assert weights[0] == weights[1]


def test_facts_are_recounted_and_the_loss_is_on_responses(tmp_path: Path) -> None:
    """With a learning rate of 0 the logged loss is the untrained model's mean surprise at a response token: near log 300."""
    facts = _train(tmp_path, steps=2, learning_rate=0.0, logging_steps=1, per_device_train_batch_size=60)
    model = load_language_model(tmp_path / "model")
    encoded = [encode(model.tokenizer, prompt, response, max_length=64) for prompt, response in TEXTS]
    assert facts["parameters"] == sum(parameter.numel() for parameter in model.model.parameters())
    assert facts["tokens"] == sum(len(prompt) + len(response) for prompt, response in encoded)
    surprise = -response_logprobs(model, encoded).sum() / sum(len(response) for _, response in encoded)
    assert facts["loss"] == pytest.approx(surprise, rel=1e-3)
    assert surprise == pytest.approx(np.log(300), rel=0.05)


def test_training_lowers_the_surprise_at_responses(base_folder: Path) -> None:
    model = load_language_model(base_folder)
    texts = [encode(model.tokenizer, *text, max_length=128) for text in write_corpus(40, np.random.default_rng(9))]
    surprise = -response_logprobs(model, texts).sum() / sum(len(response) for _, response in texts)
    assert surprise < 0.8 * np.log(len(model.tokenizer))


def test_tokenizer_has_the_size_asked_for_and_knows_every_byte() -> None:
    tokenizer = train_tokenizer((response for _, response in TEXTS), 300)
    assert len(tokenizer) == 300
    everything = "".join(map(chr, range(32, 800)))
    assert tokenizer.decode(tokenizer(everything, add_special_tokens=False)["input_ids"]) == everything


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"texts": []}, "texts: expected at least one text to train on, got none"),
        ({"vocabulary": 259}, "vocabulary: expected at least 260 tokens, got 259"),
        (
            {"architecture": {"hidden_sise": 8}},
            r"architecture\.hidden_sise: transformers\.LlamaConfig has no such option; did you mean 'hidden_size'",
        ),
        ({"architecture": {"vocab_size": 8}}, r"architecture\.vocab_size: palm sets this itself; leave it out"),
        ({"sft": {"learningrate": 1}}, r"SFTConfig\.learningrate: trl\.SFTConfig has no such option; did you mean 'learning_rate'"),
        ({"sft": {"output_dir": "x"}}, r"SFTConfig\.output_dir: palm sets this itself; leave it out"),
    ],
)
def test_options_are_checked(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    options: dict[str, Any] = {"texts": TEXTS[:4], "vocabulary": 300, "architecture": ARCHITECTURE, **change}
    with pytest.raises(ValueError, match=message):
        train_from_scratch(options.pop("texts"), tmp_path / "model", work=tmp_path / "work", **options)
    assert not (tmp_path / "model").exists()
