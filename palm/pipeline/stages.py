"""The stages in order: what each needs, what its result depends on, and what runs it."""

from typing import Any

from palm.pipeline.config import Config
from palm.pipeline.data_stages import (
    PLANTED,
    SCRATCH,
    outside_base,
    outside_data,
    outside_features,
    outside_model,
    run_base,
    run_data,
    run_embed,
    uses_base,
)
from palm.pipeline.fanout import check_train, run_train
from palm.pipeline.fit_stage import outside_fit, run_fit
from palm.pipeline.measure_stages import run_measure
from palm.pipeline.plan_stages import POOL, run_plan, run_sample, run_score
from palm.pipeline.result_stages import run_report, run_route
from palm.pipeline.runner import Stage, section
from palm.pipeline.summaries import SUMMARIES
from palm.policies.options import ONLINE


def _data_settings(config: Config) -> dict[str, Any]:
    settings = section(config.data)
    if config.data.source != PLANTED:
        del settings["planted"]
    if not config.data.draw.users:
        del settings["draw"]
    return settings


def _base_needs(config: Config) -> tuple[str, ...]:
    return ("data",) if config.base.model == SCRATCH and config.base.corpus != PLANTED else ()


def _embed_needs(config: Config) -> tuple[str, ...]:
    return ("data", "base") if uses_base(config.features) else ("data",)


def _features_settings(config: Config) -> dict[str, Any]:
    settings = section(config.features)
    del settings["batch_tokens"]  # how the work is cut up does not change the result
    return settings


def _fit_settings(config: Config) -> dict[str, Any]:
    settings = section(config.rewards)
    if config.rewards.fitted is None:
        del settings["fitted"]
    return settings


def _train_needs(config: Config) -> tuple[str, ...]:
    needs = ("base", "sample", "score", "plan")
    return (*needs, "fit") if config.train.objective in ONLINE else needs


def _train_settings(config: Config) -> dict[str, Any]:
    settings = section(config.train)
    del settings["launch"]  # who does the work is no part of what is done
    if config.train.start is None:
        del settings["start"]
    if config.train.objective in ONLINE:  # new texts are scored
        return {**settings, "features": _features_settings(config)}
    return settings


def _measure_settings(config: Config) -> dict[str, Any]:
    settings: dict[str, Any] = {"measure": section(config.measure)}
    if config.candidates.source == POOL:  # its responses are read; others are written
        settings["max_length"] = config.train.max_length
    return settings


def _outside_train(config: Config) -> dict[str, Any]:
    start = {} if config.train.start is None else outside_model("train.start", config.train.start)
    return {**start, **(outside_features(config) if config.train.objective in ONLINE else {})}


def _score_needs(config: Config) -> tuple[str, ...]:
    return ("fit", "sample", "base") if uses_base(config.features) else ("fit", "sample")


def _sample_needs(config: Config) -> tuple[str, ...]:
    return ("data", "base") if config.candidates.source == "sample" else ("data",)


STAGES = (
    Stage(
        "data",
        SUMMARIES["data"],
        needs=lambda config: (),
        settings=_data_settings,
        outside=outside_data,
        run=run_data,
    ),
    Stage(
        "base",
        SUMMARIES["base"],
        needs=_base_needs,
        settings=lambda config: section(config.base),
        outside=outside_base,
        run=run_base,
    ),
    Stage(
        "embed",
        SUMMARIES["embed"],
        needs=_embed_needs,
        settings=_features_settings,
        outside=outside_features,
        run=run_embed,
        parallel=True,
    ),
    Stage(
        "fit",
        SUMMARIES["fit"],
        needs=lambda config: ("data", "embed"),
        settings=_fit_settings,
        outside=outside_fit,
        run=run_fit,
    ),
    Stage(
        "sample",
        SUMMARIES["sample"],
        needs=_sample_needs,
        settings=lambda config: section(config.candidates),
        run=run_sample,
    ),
    Stage(
        "score",
        SUMMARIES["score"],
        needs=_score_needs,
        settings=lambda config: {"features": _features_settings(config)},
        outside=outside_features,
        run=run_score,
    ),
    Stage(
        "plan",
        SUMMARIES["plan"],
        needs=lambda config: ("score", "fit", "base"),
        settings=lambda config: section(config.plan),
        run=run_plan,
    ),
    Stage(
        "train",
        SUMMARIES["train"],
        needs=_train_needs,
        settings=_train_settings,
        outside=_outside_train,
        run=run_train,
        parallel=True,
        check=check_train,
    ),
    Stage(
        "measure",
        SUMMARIES["measure"],
        needs=lambda config: ("data", "base", "embed", "fit", "sample", "score", "plan", "train"),
        settings=_measure_settings,
        run=run_measure,
    ),
    Stage(
        "route",
        SUMMARIES["route"],
        needs=lambda config: ("data", "base", "fit", "sample", "score", "plan", "train", "measure"),
        settings=lambda config: section(config.route),
        run=run_route,
    ),
    Stage(
        "report",
        SUMMARIES["report"],
        needs=lambda config: ("data", "base", "fit", "sample", "score", "plan", "train", "measure", "route"),
        settings=lambda config: section(config.report),
        run=run_report,
    ),
)
