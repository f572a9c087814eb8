"""Stage fit: the reward model that feeds the portfolio, and those to compare it with."""

import logging
from dataclasses import replace
from difflib import get_close_matches
from inspect import signature
from typing import Any

import numpy as np

from palm.features.pairs import PairFeatures
from palm.pipeline.config import Config, RewardsConfig
from palm.pipeline.data_stages import given_names, outside_model, read_split_features
from palm.pipeline.runner import Context, PipelineError
from palm.rewards import METHODS, RewardModel, SimplexRewards, load_reward_model

logger = logging.getLogger(__name__)


def run_fit(context: Context) -> None:
    """Fit the reward model and those to compare it with, on the seen users' training pairs."""
    config = context.config
    splits = read_split_features(context.inputs["data"], context.inputs["embed"])
    train = splits["seen_train"]
    for name in [config.rewards.method, *config.rewards.compare]:
        options: dict[str, Any] = dict(config.rewards.options) if name == config.rewards.method else {}
        if name == "Given" and "names" not in options:
            options["names"] = given_names(config.features)
        if name == "Reference" and train.scores is None:
            logger.warning("rewards.compare: Reference needs scores beside the features; left out")
            continue
        if name == config.rewards.method and config.rewards.fitted:
            model: RewardModel = _fitted(config.rewards, splits)
        else:
            model = METHODS[name](**options).fit(train, seed=context.seed)
        model.save_pretrained(context.folder / name)


def outside_fit(config: Config) -> dict[str, str]:
    """Digest of the reward model that was fitted before, if one was."""
    return outside_model("rewards.fitted", config.rewards.fitted) if config.rewards.fitted else {}


def _fitted(rewards: RewardsConfig, splits: dict[str, PairFeatures]) -> SimplexRewards:
    """A reward model that was fitted before, with this run's seen users as its seen users."""
    assert rewards.fitted is not None
    model, train = load_reward_model(rewards.fitted), splits["seen_train"]
    if not isinstance(model, SimplexRewards) or model.method != rewards.method:
        raise PipelineError(f"rewards.fitted: expected a model of rewards.method {rewards.method!r}, got {model!r:.60}")
    if model.width != train.width:
        raise PipelineError(
            f"rewards.fitted: expected a model of {train.width} features, as features.model gives, got {model.width}"
        )
    known = np.intersect1d(model.seen.ids, splits["unseen_test"].ids)
    if len(known):
        raise PipelineError(
            f"rewards.fitted: it was fitted on {len(known)} users who are unseen here, {str(known[0])!r} among them; "
            "use the seed and the data settings that it was fitted with"
        )
    return replace(model, seen=model.infer(train))


def check_rewards(config: Config) -> None:
    """See that methods and their options exist.

    Raises:
        PipelineError: one does not, or the method cannot feed a portfolio.
    """
    for name in [config.rewards.method, *config.rewards.compare]:
        if name not in METHODS:
            raise PipelineError(f"rewards.method, rewards.compare: expected names out of {', '.join(METHODS)}, got {name!r}")
    method = METHODS[config.rewards.method]
    if method.geometry != "simplex":
        able = ", ".join(name for name, known in METHODS.items() if known.geometry == "simplex")
        raise PipelineError(
            f"rewards.method: expected a method with weights on the simplex ({able}), got {config.rewards.method!r}, "
            f"whose geometry is {method.geometry!r}: it cannot feed a portfolio; put it in rewards.compare"
        )
    if config.rewards.fitted and (config.rewards.options or config.rewards.method == "Given"):
        raise PipelineError(
            "rewards.fitted: expected a learned method and no rewards.options, since nothing is fitted, got "
            f"{config.rewards.method!r} with {config.rewards.options}"
        )
    known = list(signature(method).parameters)
    for option in config.rewards.options:
        if option not in known:
            close = get_close_matches(str(option), known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
            raise PipelineError(f"rewards.options.{option}: {config.rewards.method} has no such option{hint}")
    try:
        method(**config.rewards.options)
    except (TypeError, ValueError) as error:
        raise PipelineError(f"rewards.options.{error}") from error
    given = bool(config.features.functions or config.features.reward_models)
    if given != (config.rewards.method == "Given"):
        raise PipelineError(
            "rewards.method, features.functions: expected method Given together with features.functions or "
            f"features.reward_models, got {config.rewards.method!r} and {len(config.features.functions)} functions"
        )


def read_method(context: Context, name: str | None = None) -> RewardModel | None:
    """A fitted model by name, the main one by default; None if it was left out."""
    folder = context.inputs["fit"] / (name or context.config.rewards.method)
    return load_reward_model(folder) if folder.exists() else None


def read_main_model(context: Context) -> SimplexRewards:
    """The model that feeds the portfolio."""
    model = read_method(context)
    if not isinstance(model, SimplexRewards):
        raise PipelineError(f"rewards.method: expected a model of geometry simplex, got {model!r:.60}")
    return model
