"""palm.features.encode: batched and padded equals one by one; shards survive kills, ranks share them, damage is found."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from palm.artifacts import ArtifactError
from palm.data.loaders import load_pairs
from palm.data.planted import make_world, write_corpus
from palm.features.encode import Encoder, distinct_texts, embed, embed_texts, load_encoder
from palm.features.store import open_features
from palm.lm.load import LanguageModel
from palm.lm.logprobs import response_logprobs
from palm.lm.tokens import encode

TEXTS: list[Any] = [*write_corpus(18, np.random.default_rng(5)), ("Hi", "No."), ("Hi" * 40, "Long prompt.")]


@pytest.fixture
def encoder(language_model: LanguageModel) -> Encoder:
    return Encoder(language_model.model, language_model.tokenizer, pooling="mean+last", max_length=128)


@pytest.fixture(scope="session")
def reward_model_folder(base_folder: Path, language_model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sequence classifier with one label, as reward models are published."""
    torch.manual_seed(0)
    config = LlamaConfig(**{**language_model.model.config.to_dict(), "num_labels": 1, "architectures": None})
    folder = tmp_path_factory.mktemp("reward-model")
    LlamaForSequenceClassification(config).save_pretrained(folder)
    language_model.tokenizer.save_pretrained(folder)
    return folder


def _alone(model: Any, ids: list[int], layer: int) -> torch.Tensor:
    """(T, d) hidden states of one text, no padding."""
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0]


@pytest.mark.parametrize("batch_tokens", [1, 300, 8192])
@pytest.mark.parametrize("layer", [-1, 1, 0])
def test_features_equal_a_plain_pass_per_text(language_model: LanguageModel, layer: int, batch_tokens: int) -> None:
    expected: dict[str, list[np.ndarray]] = {"last": [], "mean": []}
    for text in TEXTS:
        prompt, response = encode(language_model.tokenizer, *text, max_length=48)
        hidden = _alone(language_model.model, prompt + response, layer)
        expected["last"].append(hidden[-1].numpy())
        expected["mean"].append(hidden[len(prompt) :].mean(dim=0).numpy())
    both = np.hstack([expected["mean"], expected["last"]])
    options: dict[str, Any] = {"layer": layer, "max_length": 48, "batch_tokens": batch_tokens}
    for pooling, wanted in (("last", expected["last"]), ("mean", expected["mean"]), ("mean+last", both)):
        encoder = Encoder(language_model.model, language_model.tokenizer, pooling=pooling, **options)
        features, _ = encoder.encode(TEXTS)
        assert features.shape == (len(TEXTS), encoder.width)
        np.testing.assert_allclose(features, wanted, atol=2e-5)


def test_score_of_a_language_model_is_the_mean_log_probability_of_a_response_token(
    language_model: LanguageModel, encoder: Encoder
) -> None:
    texts = [encode(language_model.tokenizer, *text, max_length=128) for text in TEXTS]
    expected = response_logprobs(language_model, texts) / [len(response) for _, response in texts]
    np.testing.assert_allclose(encoder.encode(TEXTS)[1], expected, rtol=1e-4)
    bare = Encoder(language_model.model, language_model.tokenizer, pooling="mean+last", max_length=128, scores=False)
    features, scores = bare.encode(TEXTS)
    assert scores is None
    np.testing.assert_allclose(features, encoder.encode(TEXTS)[0], atol=1e-6)


def test_score_of_a_reward_model_is_its_logit(reward_model_folder: Path) -> None:
    encoder = load_encoder(reward_model_folder, max_length=128, batch_tokens=400)
    expected = []
    for text in TEXTS:
        prompt, response = encode(encoder.tokenizer, *text, max_length=128)
        with torch.inference_mode():
            expected.append(encoder.model(input_ids=torch.tensor([prompt + response])).logits[0, 0].item())
    features, scores = encoder.encode(TEXTS)
    assert type(encoder.model).__name__ == "LlamaForSequenceClassification"
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert np.std(expected) > 100 * 1e-5
    assert features.shape == (len(TEXTS), 32)


def test_no_texts_have_no_features(encoder: Encoder) -> None:
    features, scores = encoder.encode([])
    assert features.shape == (0, 64)
    assert scores is not None
    assert scores.shape == (0,)


def test_shards_hold_what_one_array_would(encoder: Encoder, tmp_path: Path) -> None:
    whole, whole_scores = encoder.encode(TEXTS)
    done: list[int] = []
    embed_texts(encoder, TEXTS, tmp_path, shard_size=6, advance=done.append)
    items, scores = open_features(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("shard-*")) == [f"shard-{n:05d}.safetensors" for n in range(4)]
    np.testing.assert_allclose(items.rows(np.arange(len(TEXTS))), whole, atol=2e-5)
    np.testing.assert_allclose(scores, whole_scores, atol=1e-5)
    order = np.random.default_rng(0).permutation(len(TEXTS))
    np.testing.assert_array_equal(items.rows(order), items.rows(np.arange(len(TEXTS)))[order])
    assert sum(done) == len(TEXTS)


def test_float16_is_half_as_large_and_as_close_as_it_can_be(encoder: Encoder, tmp_path: Path) -> None:
    for dtype in ("float32", "float16"):
        embed_texts(encoder, TEXTS, tmp_path / dtype, dtype=dtype)
    wide, narrow = (open_features(tmp_path / dtype)[0].rows(np.arange(len(TEXTS))) for dtype in ("float32", "float16"))
    np.testing.assert_array_equal(narrow, wide.astype(np.float16).astype(np.float32))
    with pytest.raises(ValueError, match="dtype: expected 'float32' or 'float16', got 'int8'"):
        embed_texts(encoder, TEXTS, tmp_path / "int8", dtype="int8")


def test_features_beyond_float16_are_refused(base_folder: Path, tmp_path: Path) -> None:
    large = load_encoder(base_folder, layer=0)
    with torch.no_grad():
        large.model.get_input_embeddings().weight.mul_(1e7)
    with pytest.raises(ValueError, match="dtype: expected features within the range of float16, text 0 exceeds it; use float32"):
        embed_texts(large, TEXTS, tmp_path, dtype="float16")


def test_finished_shards_are_kept_and_damaged_ones_made_again(encoder: Encoder, tmp_path: Path) -> None:
    embed_texts(encoder, TEXTS, tmp_path / "whole", shard_size=5)
    embed_texts(encoder, TEXTS, tmp_path / "again", shard_size=5)
    shards = sorted((tmp_path / "again").glob("shard-*"))
    before = [path.stat().st_mtime_ns for path in shards]
    (tmp_path / "again" / "features.json").unlink()
    shards[1].unlink()
    shards[2].write_bytes(shards[2].read_bytes()[:-1])
    done: list[int] = []
    embed_texts(encoder, TEXTS, tmp_path / "again", shard_size=5, advance=done.append)
    assert [path.stat().st_mtime_ns == old for path, old in zip(shards, before, strict=True)] == [True, False, False, True]
    assert sum(done) == len(TEXTS)
    for path in shards:
        assert path.read_bytes() == (tmp_path / "whole" / path.name).read_bytes()


def test_truncated_shard_is_found_when_read(encoder: Encoder, tmp_path: Path) -> None:
    embed_texts(encoder, TEXTS, tmp_path, shard_size=5)
    shard = tmp_path / "shard-00002.safetensors"
    whole = shard.read_bytes()
    for keep in (len(whole) - 1, 40, 3, 0):
        shard.write_bytes(whole[:keep])
        with pytest.raises(ArtifactError, match=r"shard-00002\.safetensors: expected a complete safetensors file"):
            open_features(tmp_path)
    shard.write_bytes((tmp_path / "shard-00003.safetensors").read_bytes())
    open_features(tmp_path)
    embed_texts(encoder, TEXTS[:18], tmp_path / "short", shard_size=5)
    shard.write_bytes((tmp_path / "short" / "shard-00003.safetensors").read_bytes())
    with pytest.raises(ArtifactError, match=r"shard-00002\.safetensors: expected 5 x 64 features, got \(3, 64\)"):
        open_features(tmp_path)


def test_ranks_together_write_what_one_writes(encoder: Encoder, tmp_path: Path) -> None:
    embed_texts(encoder, TEXTS, tmp_path / "one", shard_size=3)
    waited = []
    for rank in (2, 1, 0):
        before = {path.name for path in (tmp_path / "three").glob("shard-*")}
        embed_texts(encoder, TEXTS, tmp_path / "three", shard_size=3, rank=rank, ranks=3, wait=lambda: waited.append(None))
        written = {path.name for path in (tmp_path / "three").glob("shard-*")} - before
        assert written == {f"shard-{number:05d}.safetensors" for number in range(rank, 7, 3)}
        assert (tmp_path / "three/features.json").exists() == (rank == 0)
    assert len(waited) == 3
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "three").iterdir())
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "three" / name).read_bytes()


def test_rank_that_has_not_written_is_named(encoder: Encoder, tmp_path: Path) -> None:
    embed_texts(encoder, TEXTS, tmp_path, shard_size=4, rank=2, ranks=3)
    assert not (tmp_path / "features.json").exists()
    with pytest.raises(ArtifactError, match=r"shard-00001\.safetensors: missing or truncated; rank 1 of 3 has not written it"):
        embed_texts(encoder, TEXTS, tmp_path, shard_size=4, rank=0, ranks=3)
    with pytest.raises(ValueError, match="expected at least 1 and a rank from 0 to 1, got 4 and 2"):
        embed_texts(encoder, TEXTS, tmp_path, shard_size=4, rank=2, ranks=2)


def test_folder_of_other_texts_or_settings_is_refused(encoder: Encoder, language_model: LanguageModel, tmp_path: Path) -> None:
    embed_texts(encoder, TEXTS, tmp_path, settings={"model": "a"})
    embed_texts(encoder, TEXTS, tmp_path, settings={"model": "a"})
    other = Encoder(language_model.model, language_model.tokenizer, pooling="last", max_length=128)
    for change, name in (((TEXTS[:-1], encoder, "a"), "texts"), ((TEXTS, other, "a"), "pooling"), ((TEXTS, encoder, "b"), "model")):
        texts, which, model = change
        with pytest.raises(ArtifactError, match=rf"holds features made otherwise \({name} differ\); use another folder"):
            embed_texts(which, texts, tmp_path, settings={"model": model})


def test_embed_gives_each_pair_the_features_of_its_two_texts(encoder: Encoder, base_folder: Path, tmp_path: Path) -> None:
    """30 pairs on few texts: in memory, on disk and from the model's folder alike, each text through the model once."""
    pairs = load_pairs(make_world(users=6, pairs_per_user=5, responses_per_prompt=2, seed=1).rows)
    texts = distinct_texts(pairs)
    assert len(set(texts.texts)) == len(texts.texts) <= 2 * len(pairs)
    in_memory = embed(pairs, encoder)
    on_disk = embed(pairs, encoder, folder=tmp_path / "features")
    loaded = embed(pairs, base_folder, pooling="mean+last", max_length=128)
    for row, (prompt, chosen, rejected) in enumerate(zip(pairs["prompt"], pairs["chosen"], pairs["rejected"], strict=True)):
        (one, other), scores = encoder.encode([(prompt, chosen), (prompt, rejected)])
        for features in (in_memory, on_disk, loaded):
            np.testing.assert_allclose(features.chosen[row], one, atol=2e-5)
            np.testing.assert_allclose(features.rejected[row], other, atol=2e-5)
            np.testing.assert_allclose(features.scores[[features.chosen_row[row], features.rejected_row[row]]], scores, atol=1e-5)
    assert in_memory.user.tolist() == list(pairs["user"])
    assert in_memory.group.tolist() == list(pairs["group"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, r"pooling: expected one of last, mean, mean\+last, got 'max'"),
        ({"max_length": 1}, "max_length, batch_tokens: expected at least 2 and 1, got 1 and 8192"),
        ({"dtype": "half"}, "dtype: expected one of float32, bfloat16, float16, got 'half'"),
        ({"layer": 9}, r"layer: expected a hidden layer from -3 to 2, got 9"),
    ],
)
def test_encoder_options(base_folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_encoder(base_folder, **options)


def test_hidden_states_that_are_not_finite_name_the_text(base_folder: Path) -> None:
    broken = load_encoder(base_folder)
    token = encode(broken.tokenizer, *TEXTS[18])[1][0]
    with torch.no_grad():
        broken.model.get_input_embeddings().weight[token] = float("nan")
    first = next(row for row, text in enumerate(TEXTS) if any(token in ids for ids in encode(broken.tokenizer, *text)))
    with pytest.raises(ValueError, match=f"model: expected finite hidden states, text {first} gives others; try dtype float32"):
        broken.encode(TEXTS)


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model: expected the folder or Hub id of a language or reward model, got '.*nothing'"):
        load_encoder(tmp_path / "nothing")
