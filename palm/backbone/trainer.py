"""transformers' Trainer for a backbone with a head: our order of pairs, a rate for the head, checkpoints whole or absent."""

import shutil
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer

from palm.artifacts import ArtifactError, read_json, write_json
from palm.backbone.batches import Batches, Order
from palm.backbone.model import RewardBackbone
from palm.ranks import barrier, rank, ranks

_WEIGHTS = "trained.safetensors"
_WHOLE = "whole.json"  # written last

REFUSED = {
    "accelerator_config": "palm deals pairs to processes itself",
    "auto_find_batch_size": "another batch would be another training",
    "dataloader_drop_last": "palm deals the pairs itself",
    "deepspeed": "the backbone is held whole by every process",
    "eval_strategy": "held-out pairs are looked at when training is over",
    "fsdp": "the backbone is held whole by every process",
    "ignore_data_skip": "a run that is taken up again would see other pairs",
    "label_smoothing_factor": "the loss is the method's",
    "load_best_model_at_end": "nothing is evaluated on the way",
    "parallelism_config": "the backbone is held whole by every process",
    "save_only_model": "a killed run could not be taken up again",
    "train_sampling_strategy": "palm deals the pairs itself",
}
"""Fields of transformers.TrainingArguments that would be without effect or do harm, and why."""


class BackboneTrainer(Trainer):
    """Trains a `RewardBackbone`.

    Attributes:
        head_rate: learning rate of the head.
    """

    model: RewardBackbone
    train_dataset: Batches
    head_rate = 1e-3

    def get_train_dataloader(self) -> Any:
        """This process' parts, one at a time, in order."""
        turns, args = self.train_dataset.turns, self.args
        order = Order(turns, rank(), ranks(), lambda: self.state.global_step // turns.steps)
        options: dict[str, Any] = {}
        if args.dataloader_num_workers:
            options = {"prefetch_factor": args.dataloader_prefetch_factor, "persistent_workers": args.dataloader_persistent_workers}
        return torch.utils.data.DataLoader(
            self.train_dataset,
            batch_sampler=order,
            collate_fn=itemgetter(0),
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            **options,
        )

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """The head's loss of a part."""
        loss = model(**inputs)
        return (loss, {}) if return_outputs else loss

    def create_optimizer(self, model: Any = None) -> Any:
        """The optimiser that the arguments ask for, with the head's parameters in groups of their own rates."""
        fresh = self.optimizer is None
        optimiser = super().create_optimizer(model)
        if fresh:
            rates = self.model.learning_rates(self.head_rate)
            groups = []
            for group in optimiser.param_groups:
                by_rate: dict[float, list[Any]] = {}
                for parameter in group["params"]:
                    by_rate.setdefault(rates.get(id(parameter), group["lr"]), []).append(parameter)
                groups += [{**group, "params": parameters, "lr": rate} for rate, parameters in by_rate.items()]
            optimiser.param_groups[:] = groups
        return optimiser

    def _save(self, output_dir: str | None = None, state_dict: Mapping[str, Any] | None = None) -> None:
        """Write what training changes; the rest is where it came from."""
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            save_file({name: value.contiguous() for name, value in self.model.trained_state().items()}, folder / _WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_trained(self.model, Path(resume_from_checkpoint))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As transformers does it, and a mark when every process is done."""
        super()._save_checkpoint(model, trial)
        barrier()
        if rank() == 0:
            mark = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}" / _WHOLE
            write_json(mark, {"batch": self.train_dataset.turns.batch})
        barrier()


def load_trained(model: RewardBackbone, checkpoint: Path) -> None:
    """Set what training changes to what a checkpoint holds.

    Raises:
        ArtifactError: the checkpoint is of another model.
    """
    state, found = model.trained_state(), load_file(checkpoint / _WEIGHTS)
    if {name: value.shape for name, value in state.items()} != {name: value.shape for name, value in found.items()}:
        raise ArtifactError(
            f"{checkpoint / _WEIGHTS}: expected the weights of this backbone and head, got others; remove {checkpoint}"
        )
    for name, value in state.items():
        value.copy_(found[name])


def last_whole(folder: Path, batch: int) -> Path | None:
    """The newest checkpoint that is whole; rank 0 removes those that a kill left in pieces.

    Args:
        folder: of the checkpoints.
        batch: blocks in a step, over all processes.

    Raises:
        ArtifactError: training was begun with another batch.
    """
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    whole = [path for path in checkpoints if (path / _WHOLE).exists()]
    barrier()  # all have looked
    if rank() == 0:
        for path in checkpoints:
            if path not in whole:
                shutil.rmtree(path, ignore_errors=True)
    barrier()
    if not whole:
        return None
    if (begun := read_json(whole[-1] / _WHOLE)["batch"]) != batch:
        raise ArtifactError(f"{whole[-1]}: begun with steps of {begun} blocks, got {batch}: start as many processes as before")
    return whole[-1]
