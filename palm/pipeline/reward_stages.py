"""Training a reward backbone end to end, stage by stage: data, features before, backbone, features after, reward, accuracy."""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from palm.arrays import write_arrays
from palm.artifacts import read_json, write_json
from palm.evaluation import accuracy
from palm.features.encode import Texts, distinct_texts, embed_texts, load_encoder
from palm.features.pairs import PairFeatures
from palm.pipeline.config import Config, FeaturesConfig
from palm.pipeline.data_stages import SPLITS, outside_features, read_pairs, read_split_features, read_splits
from palm.pipeline.reward_config import RewardTraining
from palm.pipeline.runner import Context, Pipeline, Say, Stage, section
from palm.pipeline.stages import STAGES
from palm.progress import Track
from palm.ranks import barrier, rank, ranks
from palm.rewards import METHODS, load_reward_model
from palm.rewards.base import RewardModel

END_TO_END = "end to end"


def reward_pipeline(config: RewardTraining, *, track: Track, say: Say) -> Pipeline:
    """The stages over the run's folder; each runs once, and a killed one goes on."""
    (data,) = (stage for stage in STAGES if stage.name == "data")
    model = asdict(config.backbone)
    del model["batch_tokens"]  # how the work is cut up does not change the result
    read = {name: model[name] for name in ("model", "revision", "dtype", "pooling", "layer", "max_length", "shard_size")}
    trained = {"backbone": model, "rewards": [config.rewards.method, config.rewards.options]}

    def stage(
        name: str, summary: str, needs: tuple[str, ...], settings: dict[str, Any], run: Callable[..., None], *, shared: bool
    ) -> Stage:
        return Stage(
            name,
            summary,
            needs=lambda _: needs,
            settings=lambda _: settings,
            run=partial(run, config),
            outside=outside_features if name in ("frozen", "backbone") else lambda _: {},
            parallel=shared,
        )

    stages = [
        data,
        stage("frozen", "features of every text before training", ("data",), read, _run_frozen, shared=True),
        stage(
            "backbone",
            f"train the backbone ({config.rewards.method})",
            ("data", "frozen"),
            trained | {"lora": config.lora, "trainer": config.trainer},
            _run_backbone,
            shared=True,
        ),
        stage("features", "features of every text after training", ("data", "backbone"), read, _run_features, shared=True),
        stage("reward", "the fitted reward model", ("data", "backbone", "features"), trained, _run_reward, shared=False),
        stage(
            "accuracy",
            "accuracy on held-out pairs, of seen and unseen users",
            ("data", "frozen", "features", "reward"),
            section(config.rewards),
            _run_accuracy,
            shared=False,
        ),
    ]
    whole = Config(output=config.output, seed=config.seed, data=config.data, features=FeaturesConfig(model=config.backbone.model))
    return Pipeline(stages, whole, track=track, say=say)


def _used_texts(data: Path) -> tuple[np.ndarray, Texts]:
    """The pairs that a split has, by row number, and their distinct texts."""
    splits = read_splits(data)
    used = np.unique(np.concatenate([splits[name] for name in SPLITS]))
    return used, distinct_texts(read_pairs(data).select(used))


def _encoder(config: RewardTraining, source: str | Path, *, dtype: str | None, revision: str | None = None) -> Any:
    own = config.backbone
    return load_encoder(
        source,
        revision=revision,
        dtype=dtype,
        pooling=own.pooling,
        layer=own.layer,
        max_length=own.max_length,
        batch_tokens=own.batch_tokens,
        scores=False,
    )


def _embed(config: RewardTraining, context: Context, encoder: Any, source: str) -> None:
    used, texts = _used_texts(context.inputs["data"])
    if rank() == 0:
        write_arrays(context.folder / "pairs.safetensors", {"row": used, "chosen": texts.chosen, "rejected": texts.rejected})
    with context.track("embedding", len(texts.texts)) as advance:
        embed_texts(
            encoder,
            texts.texts,
            context.folder / "items",
            settings={"model": source},
            shard_size=config.backbone.shard_size,
            rank=rank(),
            ranks=ranks(),
            wait=barrier,
            advance=advance,
        )


def _run_frozen(config: RewardTraining, context: Context) -> None:
    own = config.backbone
    _embed(config, context, _encoder(config, own.model, dtype=own.dtype, revision=own.revision), own.model)


def _run_backbone(config: RewardTraining, context: Context) -> None:
    from palm.backbone import HEADS, BackboneOptions, train_backbone
    from palm.backbone.model import training_dtype

    own, data = config.backbone, context.inputs["data"]
    trained = train_backbone(
        _encoder(config, own.model, dtype=training_dtype(own.dtype, config.lora), revision=own.revision),
        HEADS[config.rewards.method](**config.rewards.options),
        read_split_features(data, context.inputs["frozen"])["seen_train"],
        _used_texts(data)[1].texts,
        work=context.folder / ".writing-work",
        options=BackboneOptions(own.targets, own.context, own.head_learning_rate, config.lora, config.trainer),
        seed=context.seed,
        track=context.track,
    )
    if rank() == 0:
        trained.save(context.folder)
    barrier()


def _run_features(config: RewardTraining, context: Context) -> None:
    source = context.inputs["backbone"]
    _embed(config, context, _encoder(config, source, dtype=config.backbone.dtype), "backbone")


def _run_reward(config: RewardTraining, context: Context) -> None:
    from palm.backbone import HEADS, fitted_reward

    head = HEADS[config.rewards.method](**config.rewards.options)
    pairs = read_split_features(context.inputs["data"], context.inputs["features"])["seen_train"]
    model: Any = fitted_reward(head, context.inputs["backbone"], pairs)
    read = {name: getattr(config.backbone, name) for name in ("model", "pooling", "layer", "max_length")}
    replace(model, details=model.details | {"backbone": read}).save_pretrained(context.folder)


def _run_accuracy(config: RewardTraining, context: Context) -> None:
    data = context.inputs["data"]
    after, before = (read_split_features(data, context.inputs[name]) for name in ("features", "frozen"))
    model = load_reward_model(context.inputs["reward"])
    rows = [{"method": config.rewards.method, "features": END_TO_END, **_accuracy(model, after, context.seed)}]
    for name in config.rewards.compare:
        fitted = METHODS[name]().fit(before["seen_train"], seed=context.seed)
        rows.append({"method": name, "features": "frozen", **_accuracy(fitted, before, context.seed)})
    write_json(context.folder / "accuracy.json", rows)


def _accuracy(model: RewardModel, features: dict[str, PairFeatures], seed: int) -> dict[str, Any]:
    found = {}
    for name, context, test in (("seen", "seen_train", "seen_test"), ("unseen", "unseen_context", "unseen_test")):
        if len(features[test]):
            users = model.infer(features[context], ids=features[test].ids)
            found[name] = accuracy(model, features[test], users, seed=seed).record()
    return found


def accuracy_lines(folder: Path, shots: int) -> list[str]:
    """The table of a finished run, for people."""
    lines = []
    for row in read_json(folder / "accuracy" / "accuracy.json"):
        parts = []
        for name, told in (("seen", "seen users"), ("unseen", f"unseen users after {shots} pairs")):
            if name in row:
                found = row[name]["accuracy"]
                parts.append(f"{told} {found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]")
        what = END_TO_END if row["features"] == END_TO_END else "on the features before"
        lines.append(f"accuracy of {row['method']} {what}: {', '.join(parts) or 'no held-out pairs'}")
    return lines
