"""Stages data, base, embed: pairs and splits, the reference policy, features."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from datasets import Dataset

from palm.arrays import read_arrays, write_arrays
from palm.artifacts import digest_file, digest_folder, read_json, write_json
from palm.data.drawn import load_drawn
from palm.data.loaders import load_pairs
from palm.data.planted import World, make_world, write_corpus
from palm.data.schema import Text
from palm.data.splits import split_users
from palm.features.encode import Encoder, distinct_texts, embed_texts, load_encoder
from palm.features.pairs import PairFeatures
from palm.features.store import FeatureArray, open_features, write_index
from palm.lm.load import LanguageModel, digest_weights, load_language_model
from palm.lm.pretrain import train_from_scratch
from palm.pipeline.config import Config, FeaturesConfig
from palm.pipeline.runner import Context
from palm.ranks import barrier, rank, ranks
from palm.rewards.functions import score_texts, source_files
from palm.seeds import derive_seed

logger = logging.getLogger(__name__)

SPLITS = ("seen_train", "seen_test", "unseen_context", "unseen_test")
PLANTED = "planted"
SCRATCH = "scratch"
BASE = "base"


def planted_world(config: Config) -> World:
    """The embedded world that the configuration plants."""
    planted = config.data.planted
    return make_world(
        users=planted.users,
        bases=planted.bases,
        pairs_per_user=planted.pairs_per_user,
        responses_per_prompt=planted.responses_per_prompt,
        concentration=planted.concentration,
        sharpness=planted.sharpness,
        seed=derive_seed(config.seed, "world"),
    )


def outside_data(config: Config) -> dict[str, str]:
    """Digest of the data file, if the source is one."""
    path = Path(config.data.source)
    return {f"file {path.name}": digest_file(path)} if path.is_file() else {}


def run_data(context: Context) -> None:
    """Pairs in one form, and who is seen, unseen, context and test."""
    config = context.config.data
    if config.source == PLANTED:
        pairs = load_pairs(planted_world(context.config).rows)
    elif config.draw.users:
        pairs = load_drawn(
            config.source,
            users=config.draw.users,
            alpha=config.draw.alpha,
            pairs_per_user=config.draw.pairs_per_user,
            split=config.split,
            subset=config.subset,
            seed=derive_seed(context.config.seed, "draw"),
        )[0]
    else:
        pairs = load_pairs(
            config.source, columns=config.columns, split=config.split, subset=config.subset, drop_invalid=config.drop_invalid
        )
    splits = split_users(
        pairs,
        unseen=config.unseen,
        shots=config.shots,
        test=config.test,
        min_pairs=config.min_pairs,
        min_groups=config.min_groups,
        train_pairs=config.train_pairs,
        seed=context.seed,
    )
    pyarrow.parquet.write_table(pairs.data.table.combine_chunks(), context.folder / ".writing-pairs", compression="zstd")
    (context.folder / ".writing-pairs").rename(context.folder / "pairs.parquet")
    write_arrays(context.folder / "splits.safetensors", {name: splits.rows[name] for name in SPLITS})
    summary = {
        "pairs": len(pairs),
        "users": len(np.unique(np.asarray(pairs["user"], dtype=object).astype(str))),
        "seen_users": _users(splits.seen_train),
        "unseen_users": _users(splits.unseen_context) if config.shots else _users(splits.unseen_test),
        **{name: len(splits.rows[name]) for name in SPLITS},
    }
    write_json(context.folder / "summary.json", summary)


def _users(pairs: Dataset) -> int:
    return len(set(pairs["user"]))


def read_pairs(folder: Path) -> Dataset:
    """All pairs of a data stage."""
    return Dataset(pyarrow.parquet.read_table(folder / "pairs.parquet"))


def read_splits(folder: Path) -> dict[str, np.ndarray]:
    """Row numbers of the four splits."""
    return read_arrays(folder / "splits.safetensors")


def outside_base(config: Config) -> dict[str, str]:
    """Digest of a local base model's files."""
    return outside_model("base model", config.base.model) if config.base.model != SCRATCH else {}


def outside_model(name: str, source: str) -> dict[str, str]:
    """Digest of a local model's folder, by its name; nothing for a Hub id."""
    path = Path(source)
    return {name: digest_folder(path)} if path.is_dir() else {}


def run_base(context: Context) -> None:
    """Train the small base model from scratch, or see that the given one loads."""
    config = context.config.base
    if config.model != SCRATCH:
        model = load_language_model(config.model, revision=config.revision, dtype=config.dtype)
        parameters = sum(parameter.numel() for parameter in model.model.parameters())
        facts = {"parameters": parameters, "weights": digest_weights(config.model)}
        write_json(context.folder / "base.json", {"name": config.name or config.model, **facts})
        return
    if config.corpus == PLANTED:
        texts: list[tuple[Text, Text]] = list(write_corpus(config.texts, np.random.default_rng(context.seed)))
    else:
        texts = distinct_texts(read_pairs(context.inputs["data"])).texts
    facts = train_from_scratch(
        texts,
        context.folder / "model",
        work=context.folder / ".writing-work",
        vocabulary=config.vocabulary,
        architecture=config.architecture,
        sft=config.sft,
        max_length=config.max_length,
        seed=context.seed,
        track=context.track,
    )
    weights = digest_weights(context.folder / "model")
    write_json(
        context.folder / "base.json", {"name": config.name or "palm-base", "trained_here": True, "weights": weights, **facts}
    )


def base_weights(folder: Path) -> str | None:
    """Digest of the base's weights, where they were seen: not those of a Hub id."""
    weights: str | None = read_json(folder / "base.json").get("weights")
    return weights


def base_name(folder: Path) -> str:
    """Id of the base model that adapters record."""
    return str(read_json(folder / "base.json")["name"])


def read_base(context: Context) -> LanguageModel:
    """The base model."""
    config, folder = context.config.base, context.inputs[BASE]
    if config.model == SCRATCH:
        return load_language_model(folder / "model", dtype=config.dtype)
    return load_language_model(config.model, revision=config.revision, dtype=config.dtype)


def outside_features(config: Config) -> dict[str, str]:
    """Digests of the local models, and of the files of the functions, that features come from."""
    sources = source_files(config.features.functions)  # numbered: files in two packages may have one name
    files = {f"functions {number} {path.name}": digest_file(path) for number, path in enumerate(sources)}
    models = config.features.reward_models + ([config.features.model] if config.features.model != BASE else [])
    folders = {
        key: value
        for number, source in enumerate(models)
        for key, value in outside_model(f"model {number} {Path(source).name}", source).items()
    }
    return files | folders


def uses_base(config: FeaturesConfig) -> bool:
    """Whether features are the base model's hidden states."""
    return config.model == BASE and not config.functions and not config.reward_models


def run_embed(context: Context) -> None:
    """Features of every distinct text that a split's pair compares."""
    splits = read_splits(context.inputs["data"])
    used = np.unique(np.concatenate([splits[name] for name in SPLITS]))
    texts = distinct_texts(read_pairs(context.inputs["data"]).select(used))
    if rank() == 0:
        write_arrays(context.folder / "pairs.safetensors", {"row": used, "chosen": texts.chosen, "rejected": texts.rejected})
    featurise(context, texts.texts, context.folder / "items")


def featurise(context: Context, texts: list[tuple[Text, Text]], folder: Path) -> None:
    """Write features of texts: hidden states, or the given rewards themselves."""
    config = context.config.features
    with context.track("embedding", len(texts)) as advance:
        if config.functions or config.reward_models:
            if rank() == 0:
                features = given_rewards(config, texts)
                folder.mkdir(parents=True, exist_ok=True)
                write_arrays(folder / "rewards.safetensors", {"features": features})
                shards = [{"file": "rewards.safetensors", "rows": len(texts)}]
                write_index(folder, shards=shards, width=features.shape[1], scored=False, settings={})
            barrier()
            return
        embed_texts(
            _encoder(context),
            texts,
            folder,
            settings={"model": config.model},
            shard_size=config.shard_size,
            dtype=config.storage,
            rank=rank(),
            ranks=ranks(),
            wait=barrier,
            advance=advance,
        )


def text_features(context: Context) -> Callable[[list[tuple[Text, Text]]], np.ndarray]:
    """A function that gives features (n, d) of texts in memory; what it needs is loaded once."""
    config = context.config.features
    if not config.functions and not config.reward_models:
        encoder = replace(_encoder(context), scores=False)
        return lambda texts: encoder.encode(texts)[0]
    models = [_reward_model(config, source) for source in config.reward_models]
    return lambda texts: given_rewards(config, texts, models)


def given_rewards(config: FeaturesConfig, texts: list[tuple[Text, Text]], models: Iterable[Encoder] | None = None) -> np.ndarray:
    """(n, K) rewards of (prompt, response) texts by the given functions and reward models.

    Args:
        config: names them.
        texts: n of them.
        models: the reward models, if they are loaded; by default they are, one after the other.

    Raises:
        ValueError: a function cannot be had, or gives not n finite numbers.
    """
    if models is None:
        models = (_reward_model(config, source) for source in config.reward_models)
    columns = [score_texts(config.functions, texts)] if config.functions else []
    for model in models:
        scores = model.encode(texts)[1]
        assert scores is not None
        columns.append(scores[:, None])
    return np.column_stack(columns)


def _reward_model(config: FeaturesConfig, source: str) -> Encoder:
    return load_encoder(source, dtype=config.dtype, max_length=config.max_length, batch_tokens=config.batch_tokens)


def _encoder(context: Context) -> Encoder:
    config = context.config.features
    options: dict[str, Any] = {
        "pooling": config.pooling,
        "layer": config.layer,
        "max_length": config.max_length,
        "batch_tokens": config.batch_tokens,
    }
    if config.model == BASE:
        base = read_base(context)
        return Encoder(base.model, base.tokenizer, **options)
    return load_encoder(config.model, revision=config.revision, dtype=config.dtype, **options)


def given_names(config: FeaturesConfig) -> tuple[str, ...]:
    """Names of the given rewards, in the order of the features' columns."""
    return tuple(name.rpartition(":")[2] for name in config.functions) + tuple(Path(name).name for name in config.reward_models)


def read_split_features(data: Path, embed: Path) -> dict[str, PairFeatures]:
    """Features of each split's pairs; the texts' features are shared."""
    pairs, splits = read_pairs(data), read_splits(data)
    items, scores = open_features(embed / "items")
    places = read_arrays(embed / "pairs.safetensors")
    user, group = np.asarray(pairs["user"], dtype=object), np.asarray(pairs["group"], dtype=object)
    result = {}
    for name in SPLITS:
        rows = splits[name]
        place = np.searchsorted(places["row"], rows)
        result[name] = PairFeatures.from_items(
            user[rows], items, places["chosen"][place], places["rejected"][place], group=group[rows], scores=scores
        )
    return result


def read_items(folder: Path) -> FeatureArray:
    """Features that `featurise` wrote."""
    return open_features(folder)[0]
