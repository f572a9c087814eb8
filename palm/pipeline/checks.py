"""What can be seen to be wrong before the first stage starts, so that no late stage fails for it."""

import math
from pathlib import Path
from typing import Any

from palm.artifacts import ArtifactError, read_json
from palm.lm.load import is_folder_name
from palm.pipeline.config import Config
from palm.pipeline.data_checks import check_data
from palm.pipeline.data_stages import PLANTED, SCRATCH
from palm.pipeline.fanout import check_launch
from palm.pipeline.fit_stage import check_rewards
from palm.pipeline.model_checks import check_models
from palm.pipeline.plan_stages import POOL
from palm.pipeline.planning import check_plan
from palm.pipeline.policy_stages import training_options
from palm.pipeline.runner import PipelineError
from palm.policies.adapters import CONFIG, check_adapter, check_scale, lora_config, served_adapters
from palm.policies.options import ONLINE
from palm.portfolio import Portfolio
from palm.rewards.functions import source_files


def check(config: Config) -> None:
    """Look for what would fail a late stage before the first one starts.

    Raises:
        PipelineError, ValueError: an option is out of range, or something needed is not installed.
    """
    from palm.evaluation.report import check_plots
    from palm.lm.pretrain import check_architecture
    from palm.lm.training import check_options

    _check_choices(config)
    _check_ranges(config)
    check_plan(config.plan, users=True)
    check_data(config.data)
    check_rewards(config)
    try:
        training_options(config).check()
    except ValueError as error:
        raise PipelineError(f"train.{error}") from error
    kept, prompts = config.train.stop_prompts, config.candidates.prompts
    if config.train.stop_within and config.candidates.source != POOL and kept >= prompts:
        raise PipelineError(f"train.stop_prompts: expected fewer than candidates.prompts, {prompts}, got {kept}")
    check_launch(config.train.launch)
    if config.train.start is not None:
        _check_start(config.train.start, Path(config.output), lora=lora_config(config.train.lora))
    if config.train.objective in ONLINE and config.candidates.source == POOL:
        raise PipelineError(
            "train.objective: expected dpo-soft, dpo or gibbs with candidates.source pool, whose policies give the pool's "
            f"responses only; got {config.train.objective!r}"
        )
    check_options("SFTConfig", config.base.sft, where="base.sft")
    try:
        check_architecture(config.base.architecture)
    except ValueError as error:
        raise PipelineError(f"base.{error}") from error
    source_files(config.features.functions)  # imports them
    check_models(config)
    if config.report.plots:
        check_plots()


def _check_start(start: str, output: Path, *, lora: Any) -> None:
    """See that the portfolio whose members training goes on from is whole, another run's, and fits; the Hub is not asked."""
    if not is_folder_name(start) and not Path(start).is_dir():
        return
    folder = Path(start)
    if folder.resolve().is_relative_to(output.resolve()):
        raise PipelineError(f"train.start: expected another run's portfolio, got {start}, which is made anew in {output}")
    try:
        for adapter in served_adapters(folder, Portfolio.from_pretrained(folder).ids).values():
            check_adapter(adapter)
            if (own := read_json(adapter / CONFIG).get("r")) != lora.r:
                raise PipelineError(f"train.start: expected adapters of rank {lora.r}, train.lora.r, got {own}")
            check_scale(adapter, lora.lora_alpha)
    except ArtifactError as error:
        raise PipelineError(f"train.start: expected a trained portfolio, such as RUN/route/portfolio: {error}") from error


def _check_choices(config: Config) -> None:
    from palm.features.pooling import POOLINGS
    from palm.routing.router import RULES

    dtypes = (None, "float32", "float16", "bfloat16")
    choices: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("base.corpus", config.base.corpus, ("data", PLANTED)),
        ("base.dtype", config.base.dtype, dtypes),
        ("features.dtype", config.features.dtype, dtypes),
        ("features.pooling", config.features.pooling, POOLINGS),
        ("features.storage", config.features.storage, ("float32", "float16")),
        ("candidates.source", config.candidates.source, ("sample", POOL)),
        ("route.rule", config.route.rule, RULES),
    ]
    for name, value, known in choices:
        if value not in known:
            listed = ", ".join(repr(entry) for entry in known if entry is not None)
            raise PipelineError(f"{name}: expected one of {listed}, got {value!r}")


def _check_ranges(config: Config) -> None:
    data, base, features, candidates = config.data, config.base, config.features, config.candidates
    bounds: list[tuple[str, float | None, float]] = [
        ("seed", config.seed, 0),
        ("data.shots", data.shots, 0),
        ("data.min_pairs", data.min_pairs, 1),
        ("data.min_groups", data.min_groups, 1),
        ("data.train_pairs", data.train_pairs, 1),
        ("data.draw.users", data.draw.users, 0),
        ("data.draw.pairs_per_user", data.draw.pairs_per_user, 1),
        ("data.unseen", data.unseen, 0),
        ("data.test", data.test, 0),
        ("features.max_length", features.max_length, 2),
        ("features.batch_tokens", features.batch_tokens, 1),
        ("features.shard_size", features.shard_size, 1),
        ("candidates.prompts", candidates.prompts, 1),
        ("candidates.per_prompt", candidates.per_prompt, 2),
        ("candidates.max_new_tokens", candidates.max_new_tokens, 1),
        ("candidates.batch_size", candidates.batch_size, 1),
        ("candidates.min_pool", candidates.min_pool, 1),
        ("measure.samples", config.measure.samples, 1),
        ("measure.draws", config.measure.draws, 1),
        ("refine.epsilon", config.refine.epsilon, 0),
        ("refine.delta", config.refine.delta, 0),
        ("refine.most", config.refine.most, 0),
        ("refine.steps", config.refine.steps, 0),
        ("report.examples", config.report.examples, 0),
    ]
    if base.model == SCRATCH:
        bounds += [
            ("base.texts", base.texts, 1),
            ("base.vocabulary", base.vocabulary, 260),
            ("base.max_length", base.max_length, 2),
        ]
    for name, value, least in bounds:
        if value is not None and not value >= least:
            raise PipelineError(f"{name}: expected at least {least}, got {value}")
    if not data.draw.alpha > 0:
        raise PipelineError(f"data.draw.alpha: expected a positive number, got {data.draw.alpha}")
    for name, value in (("data.unseen", data.unseen), ("candidates.held_out", candidates.held_out)):
        if isinstance(value, float) and not math.isclose(value, 0) and not value < 1:
            raise PipelineError(f"{name}: expected a share below 1 or a whole number, got {value}")
    if not 0 < config.refine.share < 1:
        raise PipelineError(f"refine.share: expected a share above 0 and below 1, got {config.refine.share}")
    if not data.test < 1:
        raise PipelineError(f"data.test: expected a share below 1, got {data.test}")
    if not candidates.held_out > 0 or candidates.held_out == 1:
        raise PipelineError(
            f"candidates.held_out: expected two prompts or more to certify and measure on, got {candidates.held_out}"
        )
