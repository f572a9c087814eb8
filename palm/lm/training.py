"""TRL's and transformers' arguments as palm sets them: unknown options refused, no checkpoints or reports unless asked for."""

import contextlib
import dataclasses
import gc
import math
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any, get_args

from palm.progress import Advance, Track
from palm.ranks import shards_models


def check_options(name: str, options: Mapping[str, Any], *, where: str) -> None:
    """See that every option is a field of TRL's or transformers' configuration class.

    Args:
        name: of a class of `trl`, such as "DPOConfig", or of `transformers`, such as "TrainingArguments".
        options: fields and their values.
        where: what the options are called in the configuration, for messages.

    Raises:
        ValueError: an option is no field of the class, or palm sets it itself.
    """
    kind = _configuration(name)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    own = {"output_dir", "seed", "data_seed", "disable_tqdm", "remove_unused_columns"}
    for option in options:
        if option in own:
            raise ValueError(f"{where}.{option}: palm sets this itself; leave it out")
        if option not in fields:
            close = get_close_matches(option, fields, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{where}.{option}: {kind.__module__.partition('.')[0]}.{name} has no such option{hint}")
        if option == "max_steps" and options[option] == 0:
            raise ValueError(f"{where}.max_steps: expected at least 1, or -1 for whole epochs, got 0")
        numeric = isinstance(fields[option].default, int | float) and not isinstance(fields[option].default, bool)
        if numeric and fields[option].type in (int, float, "int", "float") and not isinstance(options[option], int | float):
            raise ValueError(f"{where}.{option}: expected a number, got {options[option]!r}")
        if numeric and fields[option].type in (int, "int") and not isinstance(options[option], int):
            raise ValueError(f"{where}.{option}: expected a whole number, got {options[option]!r}")
        least = {"learning_rate": 0.0, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1}.get(option)
        if least is not None and not options[option] >= least:
            raise ValueError(f"{where}.{option}: expected at least {least:g}, got {options[option]!r}")
        if option == "max_steps" and options[option] < -1:
            raise ValueError(f"{where}.max_steps: expected at least 1, or -1 for whole epochs, got {options[option]}")
        _check_choice(option, options[option], fields[option].type, where)
    if options.get("max_steps", -1) == -1 and not options.get("num_train_epochs", 1) > 0:
        raise ValueError(f"{where}.num_train_epochs: expected more than 0 without max_steps, got {options['num_train_epochs']}")
    if options.get("logging_strategy", "steps") == "steps" and not options.get("logging_steps", 1) > 0:
        raise ValueError(f"{where}.logging_steps: expected more than 0, got {options['logging_steps']!r}")
    _check_unused(options, where)
    _check_schedule(options, where)
    _check_report_to(options.get("report_to"), where)


def check_alpha(options: Mapping[str, Any]) -> None:
    """See that `lora_alpha` is a positive number, if it is among fields of PEFT's LoraConfig, which takes anything.

    Raises:
        ValueError: it is not.
    """
    alpha = options.get("lora_alpha", 1)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < math.inf:
        raise ValueError(f"lora.lora_alpha: expected a positive number, got {alpha!r}")


def _check_choice(option: str, value: Any, kind: Any, where: str) -> None:
    """See that the value of an option whose type is an enumeration is one of it: a trainer finds out when it is made."""
    for choices in get_args(kind):
        if not (isinstance(choices, type) and issubclass(choices, Enum)):
            continue
        known = [str(choice.value) for choice in choices]
        if value not in known:
            hint = "; in YAML a bare no is false, write 'no'" if value is False and "no" in known else ""
            raise ValueError(f"{where}.{option}: expected one of {', '.join(known)}, got {value!r}{hint}")


def _check_unused(options: Mapping[str, Any], where: str) -> None:
    """See that nothing is asked for that does not happen on the way: evaluations, and uploads of work in progress."""
    for option, right in {"eval_strategy": "no", "eval_on_start": False, "load_best_model_at_end": False}.items():
        if (value := options.get(option, right)) != right:
            raise ValueError(f"{where}.{option}: expected {right!r}, since nothing is evaluated on the way, got {value!r}")
    if options.get("save_strategy") == "best":
        raise ValueError(f"{where}.save_strategy: expected no, steps or epoch, since nothing is evaluated on the way, got 'best'")
    if options.get("push_to_hub"):
        raise ValueError(
            f"{where}.push_to_hub: expected False, since work in progress is no result, got {options['push_to_hub']!r}"
        )


def _check_schedule(options: Mapping[str, Any], where: str) -> None:
    """See that the learning rate's schedule, if one is named, has what it needs: a trainer finds out when it begins."""
    import torch
    from transformers import get_scheduler

    schedule, given = options.get("lr_scheduler_type"), options.get("lr_scheduler_kwargs") or {}
    if schedule in ("reduce_lr_on_plateau", "greedy"):
        raise ValueError(f"{where}.lr_scheduler_type: expected one that asks for no evaluation, got {str(schedule)!r}")
    if schedule is None or isinstance(given, str):  # what callers take in its place they know; transformers reads JSON
        return
    if not isinstance(given, Mapping):
        raise ValueError(f"{where}.lr_scheduler_kwargs: expected names and values, got {given!r}")
    try:
        get_scheduler(schedule, torch.optim.SGD([torch.zeros(1)], lr=options.get("learning_rate") or 1.0), 1, 2, dict(given))
    except (TypeError, ValueError, KeyError, ZeroDivisionError) as error:
        raise ValueError(f"{where}.lr_scheduler_kwargs: expected what {str(schedule)!r} takes, got {given!r}: {error}") from error


def _check_report_to(wanted: Any, where: str) -> None:
    """See that what progress is to be reported to is installed: transformers finds out when it begins to train."""
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

    names = [] if wanted is None else [wanted] if isinstance(wanted, str) else wanted
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError(f"{where}.report_to: expected a name or a list of names, got {wanted!r}")
    if set(names) <= {"all", "none"}:
        return
    there = get_available_reporting_integrations()
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            raise ValueError(
                f"{where}.report_to: expected 'none', 'all' or one of {', '.join(INTEGRATION_TO_CALLBACK)}, got {name!r}"
            )
        if name not in there:
            raise ValueError(f"{where}.report_to: {name!r} is not installed here; installed: {', '.join(there) or 'none of them'}")


def training_arguments(name: str, options: Mapping[str, Any], *, folder: Path, seed: int) -> Any:
    """An instance of TRL's or transformers' configuration class with palm's defaults under the user's options.

    Where TRL's defaults assume a large GPU (bf16, gradient checkpointing), ours follow the machine: bf16 on a GPU that
    has it, float32 elsewhere, no gradient checkpointing.
    """
    import torch

    check_options(name, options, where=name)
    cuda = torch.cuda.is_available()
    defaults = {
        "bf16": cuda and torch.cuda.is_bf16_supported(),
        "use_cpu": not cuda,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": cuda,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 5,
    }
    return _configuration(name)(output_dir=str(folder), seed=seed, data_seed=seed, disable_tqdm=True, **{**defaults, **options})


def _configuration(name: str) -> Any:
    import transformers
    import trl

    return getattr(trl, name) if hasattr(trl, name) else getattr(transformers, name)


def quieten(trainer: Any, label: str, track: Track) -> None:
    """Stop a trainer from printing its logs, and show its steps by `track` instead."""
    from transformers import TrainerCallback
    from transformers.trainer_callback import PrinterCallback

    stack = contextlib.ExitStack()
    advance: list[Advance] = []

    class Steps(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            advance.append(stack.enter_context(track(label, state.max_steps - state.global_step)))

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            advance[0](1)

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            stack.close()

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Steps())


@contextlib.contextmanager
def old_objects_aside() -> Iterator[None]:
    """Have Python's garbage collector go through those objects only that are made from now on.

    Every trainer has it collect everything when it begins, which with torch and transformers imported takes .2 s each time: as long
    as a few steps of a small model.
    """
    if gc.get_freeze_count():  # somebody has done so already
        yield
        return
    gc.collect()  # an old model that waits to be collected shall not wait longer
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def train_to_end(trainer: Any, folder: Path, stopped: Callable[[int, int], bool] | None = None) -> None:
    """Train, from the newest checkpoint in the trainer's folder if there is one.

    A checkpoint of the last step is loaded and not trained on: in the midst of an epoch transformers' loop would take one more
    step.

    Args:
        trainer: of transformers or TRL.
        folder: of its checkpoints.
        stopped: (step, most steps) -> whether the loaded model has had its last step already.
    """
    from transformers import TrainerState

    checkpoint = last_checkpoint(folder)
    if checkpoint is not None and not shards_models():
        state = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
        ended = state.global_step >= state.max_steps
        if ended or stopped is not None:
            trainer._load_from_checkpoint(checkpoint)
        if ended or (stopped is not None and stopped(state.global_step, state.max_steps)):
            trainer.state = state
            return
    trainer.train(resume_from_checkpoint=checkpoint)


def last_checkpoint(folder: Path) -> str | None:
    """The newest complete checkpoint of a trainer's folder, if there is one."""
    checkpoints = [path for path in folder.glob("checkpoint-*") if (path / "trainer_state.json").exists()]
    return str(max(checkpoints, key=lambda path: int(path.name.rsplit("-", 1)[1]))) if checkpoints else None
