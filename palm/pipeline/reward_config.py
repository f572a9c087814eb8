"""The configuration of training a reward backbone end to end (recipes/train_rewards.py): one YAML file, unknown keys refused."""

import inspect
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from palm.pipeline.config import ConfigError, DataConfig

COMPARED = ("BradleyTerry", "LoRe", "PReF", "VRF", "VPL", "PAL")


@dataclass(frozen=True)
class BackboneConfig:
    """What is trained.

    Attributes:
        model: folder or Hub id of a language model, classifier or reward model.
        revision, dtype: of the model; by default float32, under LoRA bfloat16 on a GPU that has it.
        pooling: "last", "mean" or "mean+last": what of the hidden states the rewards read.
        layer: hidden layer that they read, from the end if negative.
        max_length: longest text in tokens.
        batch_tokens: tokens per forward pass, padding included; a step of training takes several.
        shard_size: texts per file of features.
        targets: most pairs of a user in a block, the unit that batch sizes count.
        context: pairs that say who a user is, dealt anew each epoch, none of them among the targets (VRF).
        head_learning_rate: of what is trained on top; the backbone's is trainer.learning_rate.
    """

    model: str = ""
    revision: str | None = None
    dtype: str | None = None
    pooling: str = "last"
    layer: int = -1
    max_length: int = 1024
    batch_tokens: int = 8192
    shard_size: int = 4096
    targets: int = 8
    context: int = 10
    head_learning_rate: float = 1e-3


@dataclass(frozen=True)
class HeadConfig:
    """The reward model on top.

    Attributes:
        method: BradleyTerry, LoRe or VRF.
        options: the method's hyper-parameters: fields of palm.backbone.LoReHead or VRFHead.
        compare: methods to fit to the features as they were before training, for the table at the end.
    """

    method: str = "LoRe"
    options: dict[str, Any] = field(default_factory=dict)
    compare: list[str] = field(default_factory=lambda: ["BradleyTerry"])


@dataclass(frozen=True)
class RewardTraining:
    """A whole run of recipes/train_rewards.py.

    Attributes:
        output: folder of the run; `backbone` and `reward` in it are the result.
        seed: of everything random.
        lora: fields of peft.LoraConfig; left out: every weight is trained.
        trainer: fields of transformers.TrainingArguments; batch sizes count blocks of pairs of one user.
    """

    output: str = "runs/rewards"
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    rewards: HeadConfig = field(default_factory=HeadConfig)
    lora: dict[str, Any] | None = None
    trainer: dict[str, Any] = field(default_factory=dict)


def check_reward_training(config: RewardTraining) -> None:
    """Look for what would fail a late stage before the first one starts.

    Raises:
        ConfigError, ValueError: an option is unknown or out of range.
    """
    from palm.backbone import HEADS, BackboneOptions
    from palm.backbone.model import training_dtype
    from palm.features.pooling import POOLINGS
    from palm.lm.load import DTYPES
    from palm.pipeline.data_checks import check_data
    from palm.pipeline.data_stages import BASE

    backbone, rewards, data = config.backbone, config.rewards, config.data
    check_data(data)
    choices: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("backbone.dtype", backbone.dtype, (None, *DTYPES)),
        ("backbone.pooling", backbone.pooling, POOLINGS),
        ("rewards.method", rewards.method, tuple(HEADS)),
        *(("rewards.compare", name, COMPARED) for name in rewards.compare),
    ]
    for name, value, known in choices:
        if value not in known:
            listed = ", ".join(repr(entry) for entry in known if entry is not None)
            raise ConfigError(f"{name}: expected one of {listed}, got {value!r}")
    bounds = [
        ("seed", config.seed, 0),
        ("data.shots", data.shots, 0),
        ("data.min_pairs", data.min_pairs, 1),
        ("data.unseen", data.unseen, 0),
        ("data.test", data.test, 0),
        ("backbone.max_length", backbone.max_length, 2),
        ("backbone.batch_tokens", backbone.batch_tokens, 1),
        ("backbone.shard_size", backbone.shard_size, 1),
    ]
    for name, number, least in bounds:
        if not number >= least:
            raise ConfigError(f"{name}: expected at least {least}, got {number}")
    if backbone.model in ("", BASE):
        raise ConfigError(f"backbone.model: expected the folder or Hub id of a model, got {backbone.model!r}")
    known_options = list(inspect.signature(HEADS[rewards.method]).parameters)
    for option in rewards.options:
        if option not in known_options:
            close = get_close_matches(str(option), known_options, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known_options) or 'none'}"
            raise ConfigError(f"rewards.options.{option}: {rewards.method} has no such option{hint}")
    try:
        HEADS[rewards.method](**rewards.options).check()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"rewards.options.{error}") from error
    training_dtype(backbone.dtype, config.lora)
    options = BackboneOptions(backbone.targets, backbone.context, backbone.head_learning_rate, config.lora, config.trainer)
    options.check()
