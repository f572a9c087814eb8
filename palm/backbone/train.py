"""Train a backbone and its head on the pairs of seen users, from pairs to a fitted reward model.

    encoder = load_encoder("Qwen/Qwen3-0.6B", dtype="float32")
    trained = train_backbone(encoder, LoReHead(rank=5), features, texts, work=Path("work"), options=BackboneOptions(), seed=0)
    trained.save(Path("backbone"))
    model = fitted_reward(LoReHead(rank=5), Path("backbone"), embed(pairs, "backbone"))

A step's loss is the mean over the pairs that all processes are asked in it, so it does not depend on how many they are; nor does
anything else but rounding, unless the model has dropout.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerState

from palm.arrays import read_arrays, write_arrays
from palm.artifacts import read_json, write_json
from palm.backbone.batches import Batches
from palm.backbone.heads import Head
from palm.backbone.model import RewardBackbone, lora_config, save_backbone
from palm.backbone.trainer import REFUSED, BackboneTrainer, last_whole, load_trained
from palm.backbone.turns import Turns
from palm.data.schema import Text
from palm.features.encode import Encoder
from palm.features.pairs import PairFeatures
from palm.lm.tokens import encode
from palm.lm.training import check_options, quieten, training_arguments
from palm.progress import Track, silent
from palm.ranks import ranks, shards_models
from palm.rewards.base import RewardModel
from palm.rewards.episodes import in_order
from palm.seeds import derive_seed, isolated_rng

_CLASS = "TrainingArguments"
_HEAD, _LOG = "head.safetensors", "training.json"


@dataclass(frozen=True)
class BackboneOptions:
    """How a backbone is trained.

    Attributes:
        targets: most pairs of a user in a block; a user with more has several blocks in an epoch.
        context: pairs that say who a user is, dealt anew each epoch and disjoint from the targets, no more than half of theirs; for
            methods that read users from them.
        head_learning_rate: of the head; that of the backbone is `trainer.learning_rate`.
        lora: fields of peft.LoraConfig; None trains every weight.
        trainer: fields of transformers.TrainingArguments; batch sizes count blocks. By default a learning rate of 2e-5 (1e-4 with
            LoRA) that falls along a cosine, and a checkpoint every 100 steps of which two are kept.
    """

    targets: int = 8
    context: int = 10
    head_learning_rate: float = 1e-3
    lora: Mapping[str, Any] | None = None
    trainer: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Look at every option before any work is done.

        Raises:
            ValueError: an option is unknown, out of range or refused.
        """
        for name in ("targets", "context"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: expected a whole number of at least 1, got {value!r}")
        if not 0 < self.head_learning_rate < math.inf:
            raise ValueError(f"head_learning_rate: expected a positive number, got {self.head_learning_rate}")
        for name, reason in REFUSED.items():
            if name in self.trainer:
                raise ValueError(f"trainer.{name}: expected it to be left out: {reason}")
        check_options(_CLASS, self.trainer, where="trainer")
        if self.lora is not None:
            lora_config(self.lora)

    def arguments(self, work: Path, seed: int) -> Any:
        """transformers' TrainingArguments."""
        defaults = {
            "learning_rate": 2e-5 if self.lora is None else 1e-4,
            "lr_scheduler_type": "cosine",
            "logging_steps": 1,
            "save_strategy": "steps",
            "save_steps": 100,
            "save_total_limit": 2,
        }
        arguments = training_arguments(_CLASS, {**defaults, **self.trainer}, folder=work, seed=seed)
        if arguments.n_gpu > 1:
            arguments._n_gpu = 1  # without a launcher one GPU is used; DataParallel would cut tensors that are no batches
        return arguments


@dataclass(frozen=True)
class Trained:
    """A backbone and head after training.

    Attributes:
        encoder: gives the features of the trained backbone; LoRA is merged into it.
        arrays: parameters and buffers of the trained head, by name.
        steps: of the optimiser.
        losses: at every logged step, each with its number.
    """

    encoder: Encoder
    arrays: dict[str, np.ndarray]
    steps: int
    losses: list[dict[str, float]]

    def save(self, folder: Path) -> None:
        """Write the backbone as a model that `load_encoder` and transformers read, and the head beside it."""
        save_backbone(self.encoder, folder)
        write_arrays(folder / _HEAD, self.arrays)
        write_json(folder / _LOG, {"steps": self.steps, "losses": self.losses})


def fitted_reward(head: Head, folder: Path, features: PairFeatures) -> RewardModel:
    """The reward model of a backbone that `Trained.save` wrote.

    Args:
        head: the method that it was trained with.
        folder: of the backbone.
        features: the seen users' pairs, with features of the trained backbone.

    Raises:
        ArtifactError: there is none, or it is damaged.
    """
    losses = [entry["loss"] for entry in read_json(folder / _LOG)["losses"]]
    return head.finish(read_arrays(folder / _HEAD), in_order(features), _tenths(losses))


def train_backbone(
    encoder: Encoder,
    head: Head,
    features: PairFeatures,
    texts: Sequence[tuple[Text, Text]],
    *,
    work: Path,
    options: BackboneOptions,
    seed: int = 0,
    track: Track = silent,
) -> Trained:
    """Train an encoder's model and a head on it; several processes do it together.

    Args:
        encoder: its model is trained in place. Its pooling and layer say what the head reads.
        head: the method.
        features: the seen users' pairs with features of `encoder` as it is: for the head's beginning.
        texts: of which `features.items` are the features, in the same order.
        work: folder of checkpoints; training goes on from the last that is whole. Whoever calls removes it.
        options: see `BackboneOptions`.
        seed: of the order of pairs, contexts, and dropout.
        track: for a progress bar.

    Raises:
        ValueError: an option is out of range, there are no pairs, or the launcher splits models over processes.
        ArtifactError: `work` holds checkpoints of another backbone or head.
    """
    head.check()
    options.check()
    if shards_models() or os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        raise ValueError("distributed_type: expected MULTI_GPU or MULTI_CPU (DDP), got FSDP or DeepSpeed")
    if len(features) == 0:
        raise ValueError("features: expected at least one pair, got none")
    pairs, encoded = (
        in_order(features),
        [encode(encoder.tokenizer, prompt, response, max_length=encoder.max_length) for prompt, response in texts],
    )
    arguments = options.arguments(work, seed)
    parts = ranks() * arguments.gradient_accumulation_steps
    turns = Turns(
        pairs.code,
        context=options.context if head.reads_context else 0,
        targets=options.targets,
        batch=arguments.per_device_train_batch_size * parts,
        parts=parts,
        seed=derive_seed(seed, "turns"),
    )
    batches = Batches(
        turns,
        pairs,
        encoded,
        pad_token_id=encoder.tokenizer.pad_token_id,
        batch_tokens=encoder.batch_tokens,
        equal_users=head.equal_users,
        noise=head.noise,
    )
    with isolated_rng(derive_seed(seed, "backbone")):
        model = RewardBackbone(encoder, head.begin(pairs, seed), options.lora)
        trainer = BackboneTrainer(model=model, args=arguments, train_dataset=batches)
        trainer.head_rate = options.head_learning_rate
        quieten(trainer, "training", track)
        _train(trainer, turns)
    model.merge()
    losses = [{"step": entry["step"], "loss": entry["loss"]} for entry in trainer.state.log_history if "loss" in entry]
    arrays = {name: value.cpu().numpy() for name, value in model.head.state_dict().items()}
    return Trained(encoder, arrays, trainer.state.global_step, losses)


def _train(trainer: Any, turns: Turns) -> None:
    """Train to the end, from the last checkpoint if there is one."""
    arguments = trainer.args
    checkpoint = last_whole(Path(arguments.output_dir), turns.batch)
    if checkpoint is None:
        trainer.train()
        return
    whole = arguments.max_steps if arguments.max_steps > 0 else math.ceil(arguments.num_train_epochs * turns.steps)
    if read_json(checkpoint / "trainer_state.json")["global_step"] < whole:
        trainer.train(resume_from_checkpoint=str(checkpoint))
    else:  # all steps are done; the Trainer would take another
        load_trained(trainer.model, checkpoint)
        trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))


def _tenths(losses: Sequence[float]) -> list[float]:
    """Mean of each tenth of the losses."""
    return [float(np.mean(part)) for part in np.array_split(losses, 10) if len(part)]
