"""Texts to frozen features: last-token (or mean) hidden states of a language model, classifier or reward model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from palm.arrays import map_array, write_arrays
from palm.artifacts import ArtifactError, digest, read_json, write_json
from palm.data.schema import Text, text_id
from palm.features.pairs import PairFeatures
from palm.features.pooling import POOLINGS, pad_texts, pool, pooled_width
from palm.features.store import FeatureArray, open_features, write_index
from palm.lm.load import load_tokenizer, logit_width, pick_device, pick_dtype
from palm.lm.logprobs import length_batches
from palm.lm.tokens import encode

_SETTINGS = "embedding.json"


@dataclass(frozen=True)
class Encoder:
    """A frozen model that turns prompt and response into d numbers.

    Attributes:
        model: transformers' model with a language-modelling or a classification head, in evaluation mode.
        tokenizer: its tokenizer.
        pooling: "last": the hidden state at the last token, as reward heads read it. "mean": the mean over the
            response's tokens; for small models whose last token says little. "mean+last": both, d twice as wide.
        layer: hidden layer to read, counted from the input embeddings (0) or from the end (-1).
        max_length: longer texts are cut.
        batch_tokens: tokens per forward pass, padding included.
        scores: also give every text an un-personalised score: a classifier's first logit, or a language model's mean
            token log-probability of the response.
    """

    model: Any
    tokenizer: Any
    pooling: str = "last"
    layer: int = -1
    max_length: int = 1024
    batch_tokens: int = 8192
    scores: bool = True

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: one is out of range.
        """
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling: expected one of {', '.join(POOLINGS)}, got {self.pooling!r}")
        if self.max_length < 2 or self.batch_tokens < 1:
            raise ValueError(f"max_length, batch_tokens: expected at least 2 and 1, got {self.max_length} and {self.batch_tokens}")
        layers = int(self.model.config.get_text_config().num_hidden_layers)
        if not -layers - 1 <= self.layer <= layers:
            raise ValueError(f"layer: expected a hidden layer from {-layers - 1} to {layers}, got {self.layer}")

    def encode(
        self, texts: Sequence[tuple[Text, Text]], *, advance: Callable[[int], object] | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Features and scores of (prompt, response) texts.

        Returns:
            (n, d) float32, and (n,) float64 if `scores`.

        Raises:
            ValueError: the model gives a number that is not finite (in float16, say); the message names the text.
        """
        encoded = [encode(self.tokenizer, prompt, response, max_length=self.max_length) for prompt, response in texts]
        features: np.ndarray | None = None
        scores = np.zeros(len(texts)) if self.scores else None
        # With scores every token has a row of logits: 2^28 of them are 1 GiB.
        budget = min(self.batch_tokens, max(1, 2**28 // logit_width(self.model))) if self.scores else self.batch_tokens
        for rows in length_batches([len(a) + len(b) for a, b in encoded], batch_tokens=budget):
            pooled, scored = self._forward([encoded[row] for row in rows])
            if features is None:
                features = np.empty((len(texts), pooled.shape[1]), dtype=np.float32)
            features[rows] = pooled
            if scores is not None:
                scores[rows] = scored
            if advance is not None:
                advance(len(rows))
        result = np.zeros((0, self.width), dtype=np.float32) if features is None else features
        bad = ~np.isfinite(result).all(axis=1)
        if bad.any():
            raise ValueError(f"model: expected finite hidden states, text {int(bad.argmax())} gives others; try dtype float32")
        return result, scores

    @property
    def width(self) -> int:
        """d."""
        return pooled_width(int(self.model.config.get_text_config().hidden_size), self.pooling)

    @property
    def _classifies(self) -> bool:
        return type(self.model).__name__.endswith("ForSequenceClassification")

    def _forward(self, batch: list[tuple[list[int], list[int]]]) -> tuple[np.ndarray, np.ndarray]:
        import torch

        ids, attended, response_mask = pad_texts(batch, self.tokenizer.pad_token_id)
        device = next(self.model.parameters()).device
        ids, attended, response_mask = ids.to(device), attended.to(device), response_mask.to(device)
        with torch.inference_mode():
            keep = {} if self.scores or self._classifies else {"logits_to_keep": 1}
            output = self.model(input_ids=ids, attention_mask=attended, output_hidden_states=True, use_cache=False, **keep)
            pooled = pool(output.hidden_states[self.layer].float(), attended, response_mask, self.pooling)
            scored = torch.zeros(len(batch))
            if self.scores and self._classifies:
                scored = output.logits[:, 0].float()
            elif self.scores:
                logprobs = output.logits[:, :-1].float().log_softmax(dim=2)
                picked = logprobs.gather(2, ids[:, 1:, None])[:, :, 0] * response_mask[:, 1:]
                scored = picked.sum(dim=1) / response_mask[:, 1:].sum(dim=1).clamp(min=1)
        return pooled.cpu().numpy(), scored.cpu().numpy()


def load_encoder(source: str | Path, *, revision: str | None = None, dtype: str | None = None, **options: Any) -> Encoder:
    """Load a causal language model, sequence classifier or reward model as an `Encoder`.

    Args:
        source: folder or Hub id; which kind it is, its configuration says.
        revision: of a Hub repository.
        dtype: as in `palm.lm.load.load_language_model`.
        options: fields of `Encoder`.

    Raises:
        ValueError: nothing there can be loaded.
    """
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    device = pick_device()
    number_type = pick_dtype(dtype, device)
    try:
        config = AutoConfig.from_pretrained(source, revision=revision)
        classifier = any(name.endswith("ForSequenceClassification") for name in config.architectures or [])
        kind = AutoModelForSequenceClassification if classifier else AutoModelForCausalLM
        model = kind.from_pretrained(source, revision=revision, dtype=number_type)
        tokenizer = load_tokenizer(source, revision=revision)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(
            f"model: expected the folder or Hub id of a language or reward model, got {str(source)!r}: {error}"
        ) from error
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    model.requires_grad_(False)
    return Encoder(model.to(device).eval(), tokenizer, **options)


@dataclass(frozen=True)
class Texts:
    """The distinct texts of pairs, and which of them each pair compares.

    Attributes:
        texts: t (prompt, response) texts in order of first appearance.
        chosen, rejected: (n,) positions in `texts`.
    """

    texts: list[tuple[Text, Text]]
    chosen: np.ndarray
    rejected: np.ndarray


def distinct_texts(pairs: Dataset) -> Texts:
    """Every text once, however many pairs it is in."""
    position: dict[str, int] = {}
    texts: list[tuple[Text, Text]] = []
    sides: dict[str, list[int]] = {"chosen": [], "rejected": []}
    for prompt, chosen, rejected in zip(pairs["prompt"], pairs["chosen"], pairs["rejected"], strict=True):
        for name, response in (("chosen", chosen), ("rejected", rejected)):
            key = text_id(prompt, response)
            if key not in position:
                position[key] = len(texts)
                texts.append((prompt, response))
            sides[name].append(position[key])
    return Texts(texts, np.array(sides["chosen"], dtype=np.int64), np.array(sides["rejected"], dtype=np.int64))


def embed_texts(
    encoder: Encoder,
    texts: Sequence[tuple[Text, Text]],
    folder: Path,
    *,
    settings: Mapping[str, Any] | None = None,
    shard_size: int = 4096,
    dtype: str = "float32",
    rank: int = 0,
    ranks: int = 1,
    wait: Callable[[], object] | None = None,
    advance: Callable[[int], object] | None = None,
) -> None:
    """Write the features of texts to `folder`, shard by shard; shards that are there already are kept.

    Args:
        encoder: gives the features.
        texts: n texts.
        folder: shards are written here, each atomically; `features.json` marks the folder complete.
        settings: what identifies the encoder; a folder that was begun with others is refused.
        shard_size: texts per shard.
        dtype: "float32" or "float16" on disk.
        rank, ranks: this process's number among those that share the work; every `ranks`-th shard is its own.
        wait: returns when all ranks have called it; rank 0 then checks the shards and writes the index.
        advance: called with the number of texts done, for a progress bar.

    Raises:
        ArtifactError: the folder was begun with other texts or settings, or shards of other ranks are missing.
        ValueError: an argument is out of range.
    """
    if dtype not in ("float32", "float16"):
        raise ValueError(f"dtype: expected 'float32' or 'float16', got {dtype!r}")
    if shard_size < 1 or not 0 <= rank < ranks:
        raise ValueError(f"shard_size, rank: expected at least 1 and a rank from 0 to {ranks - 1}, got {shard_size} and {rank}")
    identity = {
        "texts": digest([text_id(*text) for text in texts]),
        "shard_size": shard_size,
        "dtype": dtype,
        **_options(encoder),
        **dict(settings or {}),
    }
    _claim(folder, identity)
    shards = [range(start, min(start + shard_size, len(texts))) for start in range(0, len(texts), shard_size)]
    for number, span in enumerate(shards):
        if number % ranks != rank:
            continue
        path = folder / _shard_name(number)
        if _complete(path, len(span)):
            if advance is not None:
                advance(len(span))
            continue
        features, scores = encoder.encode([texts[index] for index in span], advance=advance)
        arrays = {"features": _narrow(features, dtype)}
        if scores is not None:
            arrays["score"] = scores
        write_arrays(path, arrays)
    if wait is not None:
        wait()
    if rank == 0:
        for number, span in enumerate(shards):
            if not _complete(folder / _shard_name(number), len(span)):
                raise ArtifactError(
                    f"{folder / _shard_name(number)}: missing or truncated; rank {number % ranks} of {ranks} has not written it"
                )
        rows = [{"file": _shard_name(number), "rows": len(span)} for number, span in enumerate(shards)]
        write_index(folder, shards=rows, width=encoder.width, scored=encoder.scores, settings=identity)


def embed(pairs: Dataset, model: str | Path | Encoder, *, folder: str | Path | None = None, **options: Any) -> PairFeatures:
    """Features of pairs: every distinct text goes through the frozen model once.

    Args:
        pairs: as `load_pairs` gives them.
        model: folder or Hub id of a language model, classifier or reward model, or an `Encoder`.
        folder: where features are kept, memory-mapped and taken up again after a kill; in memory by default.
        options: fields of `Encoder` (pooling, layer, max_length, batch_tokens, scores) if `model` is not one.

    Raises:
        ValueError: the model cannot be loaded, an option is out of range, or a hidden state is not finite.
    """
    encoder = model if isinstance(model, Encoder) else load_encoder(model, **options)
    texts = distinct_texts(pairs)
    if folder is None:
        features, scores = encoder.encode(texts.texts)
        items = FeatureArray([features])
    else:
        settings = {"model": "Encoder" if isinstance(model, Encoder) else str(model)}
        embed_texts(encoder, texts.texts, Path(folder), settings=settings)
        items, scores = open_features(Path(folder))
    return PairFeatures.from_items(pairs["user"], items, texts.chosen, texts.rejected, group=pairs["group"], scores=scores)


def _options(encoder: Encoder) -> dict[str, Any]:
    return {name: getattr(encoder, name) for name in ("pooling", "layer", "max_length", "scores")}


def _claim(folder: Path, identity: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _SETTINGS
    if path.exists():
        found = read_json(path)
        if found != identity:
            differing = sorted(name for name in {*found, *identity} if found.get(name) != identity.get(name))
            raise ArtifactError(f"{folder}: holds features made otherwise ({', '.join(differing)} differ); use another folder")
    else:
        write_json(path, identity)


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.safetensors"


def _complete(path: Path, rows: int) -> bool:
    try:
        return len(map_array(path, "features")) == rows
    except ArtifactError:
        return False


def _narrow(features: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # what overflows is found below
        narrow = features.astype(dtype)
    if not np.isfinite(narrow).all():
        row = int((~np.isfinite(narrow).all(axis=1)).argmax())
        raise ValueError(f"dtype: expected features within the range of {dtype}, text {row} exceeds it; use float32")
    return narrow
