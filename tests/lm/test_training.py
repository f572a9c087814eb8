"""palm.lm.training: TRL's options pass through, unknown ones are refused, and checkpoints are found when complete."""

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest

from palm.lm.training import check_options, last_checkpoint, old_objects_aside, training_arguments


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "DPOConfig",
            {"learning_rat": 1},
            r"^train\.dpo\.learning_rat: trl\.DPOConfig has no such option; did you mean 'learning_rate'\?$",
        ),
        ("SFTConfig", {"zzzzzz": 1}, r"^train\.dpo\.zzzzzz: trl\.SFTConfig has no such option$"),
        ("SFTConfig", {"beta": 1}, r"^train\.dpo\.beta: trl\.SFTConfig has no such option"),
        ("DPOConfig", {"seed": 1}, r"^train\.dpo\.seed: palm sets this itself; leave it out$"),
        ("DPOConfig", {"remove_unused_columns": False}, "remove_unused_columns: palm sets this itself"),
        ("DPOConfig", {"optim": "adam"}, r"^train\.dpo\.optim: expected one of .*adamw_torch, .* got 'adam'$"),
        ("RLOOConfig", {"lr_scheduler_type": "cos"}, r"lr_scheduler_type: expected one of linear, cosine, .* got 'cos'$"),
        (
            "DPOConfig",
            {"save_strategy": False},
            r"save_strategy: expected one of no, steps, epoch, best, got False; in YAML a bare no is false, write 'no'$",
        ),
        (
            "DPOConfig",
            {"eval_strategy": "steps"},
            r"eval_strategy: expected 'no', since nothing is evaluated on the way, got 'steps'$",
        ),
        ("RLOOConfig", {"eval_on_start": True}, r"eval_on_start: expected False, since nothing is evaluated on the way, got True$"),
        ("DPOConfig", {"load_best_model_at_end": True}, r"load_best_model_at_end: expected False, since nothing is evaluated"),
        (
            "SFTConfig",
            {"lr_scheduler_type": "reduce_lr_on_plateau"},
            r"type: expected one that asks for no evaluation, got 'reduce",
        ),
        ("DPOConfig", {"lr_scheduler_type": "greedy"}, r"type: expected one that asks for no evaluation, got 'greedy'$"),
        ("DPOConfig", {"save_strategy": "best"}, r"save_strategy: expected no, steps or epoch, since nothing is evaluated"),
        ("DPOConfig", {"logging_steps": 0}, r"^train\.dpo\.logging_steps: expected more than 0, got 0$"),
        ("DPOConfig", {"push_to_hub": True}, r"^train\.dpo\.push_to_hub: expected False"),
        ("RLOOConfig", {"lr_scheduler_type": "cosine_with_min_lr"}, r"kwargs: expected what 'cosine_with_min_lr' takes, .* min_lr"),
        ("DPOConfig", {"lr_scheduler_type": "warmup_stable_decay"}, r"kwargs: expected what .* 'num_decay_steps'"),
        (
            "DPOConfig",
            {"lr_scheduler_type": "linear", "lr_scheduler_kwargs": {"cycles": 2}},
            r"what 'linear' takes, got .*'cycles'",
        ),
        (
            "DPOConfig",
            {"lr_scheduler_type": "linear", "lr_scheduler_kwargs": {"last_epoch": 3}},
            r"kwargs: expected .* 'linear' takes",
        ),
        (
            "DPOConfig",
            {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": [2]},
            r"kwargs: expected names and values, got \[2\]$",
        ),
        ("DPOConfig", {"num_train_epochs": 0}, r"^train\.dpo\.num_train_epochs: expected more than 0 without max_steps, got 0$"),
        (
            "SFTConfig",
            {"max_steps": -1, "num_train_epochs": -1},
            r"num_train_epochs: expected more than 0 without max_steps, got -1$",
        ),
    ],
)
def test_unknown_options_are_refused_by_name(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_options(name, options, where="train.dpo")


def test_options_win_over_defaults_and_reach_trl(tmp_path: Path) -> None:
    check_options("DPOConfig", {"beta": 0.3, "max_steps": 7, "num_train_epochs": 0}, where="dpo")
    for name, value in (
        ("optim", "adafactor"),
        ("lr_scheduler_type", "constant"),
        ("lr_scheduler_kwargs", None),
        ("eval_strategy", "no"),
        ("save_strategy", "steps"),
    ):
        check_options("DPOConfig", {name: value}, where="dpo")
    for taken in (
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}},
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": '{"min_lr": 1e-5}'},
        {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": 1e-3}, "learning_rate": 5e-3},
        {"lr_scheduler_kwargs": {"num_cycles": 0.25}},  # of the schedule that palm takes unless told otherwise
        {"logging_steps": 0, "logging_strategy": "no"},
    ):
        check_options("DPOConfig", taken, where="dpo")
    arguments = training_arguments("DPOConfig", {"beta": 0.3, "logging_steps": 2, "learning_rate": 1e-4}, folder=tmp_path, seed=9)
    assert (arguments.beta, arguments.logging_steps, arguments.learning_rate) == (0.3, 2, 1e-4)
    assert (arguments.seed, arguments.data_seed, arguments.output_dir) == (9, 9, str(tmp_path))
    defaults = training_arguments("SFTConfig", {}, folder=tmp_path, seed=0)
    assert (defaults.gradient_checkpointing, defaults.logging_steps, str(defaults.save_strategy.value)) == (False, 5, "no")
    assert defaults.report_to == []


def test_newest_complete_checkpoint_is_found(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "none") is None
    for step in (9, 10, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert last_checkpoint(tmp_path) is None, "none of them is complete"
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").touch()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


def test_old_objects_stay_aside_until_the_end_and_not_longer() -> None:
    def train() -> None:
        with old_objects_aside():
            aside = gc.get_freeze_count()
            assert aside > 0
            fresh = [[number] for number in range(10_000)]  # these would be counted if they were put aside, too
            with old_objects_aside():  # training within training
                assert 0.9 * aside < gc.get_freeze_count() < aside + len(fresh) / 2  # a few of the old ones may be gone by now
            assert 0.9 * aside < gc.get_freeze_count() < aside + len(fresh) / 2
            raise RuntimeError("training failed")

    assert gc.get_freeze_count() == 0
    with pytest.raises(RuntimeError, match="training failed"):
        train()
    assert gc.get_freeze_count() == 0


def test_garbage_made_before_is_collected_and_not_kept() -> None:
    model = _Cyclic()
    gone = weakref.ref(model)
    del model
    with old_objects_aside():
        assert gone() is None
        model = _Cyclic()
        gone = weakref.ref(model)
        del model
        gc.collect()
        assert gone() is None  # what is made within is collected as ever


class _Cyclic:
    def __init__(self) -> None:
        self.own = self
