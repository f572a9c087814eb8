"""Train the members of a portfolio: one LoRA policy per weight, on one base model, in one process.

Soft labels (the default): each response of a group is run once and compared with every other of its group by the DPO loss
with label sigmoid((w.phi_a - w.phi_b) / kl) and logit log pi/pi_ref(a) - log pi/pi_ref(b), and with all others at once by the
cross-entropy of softmax(w.phi / kl) with softmax(log pi/pi_ref) over the group. Both are least where the log-ratio is
w.phi / kl + a constant of the group: at the planned Gibbs policy. Pairs teach all differences alike, the list what the planned
policy would really say; in the embedded world half of each reached a little
more of the planned gain than pairs alone, measured on held-out candidates. A prompt's
candidates are dealt into groups once; only through the model itself are groups compared. Hard labels: TRL's own DPO losses on
pairs that say only which is better.

What members share is made once: token ids, the reference's log-probabilities of every candidate and, if asked for, the
first steps: an adapter for the mean of the members' weights, which every member goes on from.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from palm.artifacts import read_json, write_json
from palm.lm.load import LanguageModel
from palm.policies.adapters import is_complete, load_into, lora_config, publish_adapter
from palm.policies.candidates import TokenisedCandidates, group_rows, pair_rows
from palm.policies.options import TrainingOptions
from palm.policies.strength import match_divergence, planned_divergence
from palm.progress import Track, silent
from palm.ranks import barrier, rank, shards_models
from palm.rewards.tensor import RewardTensor
from palm.seeds import isolated_rng

_SHARED_ID = "shared-steps"
_SHARED = ".writing--shared"  # the adapter that members go on from; it goes when the stage that trains them is done


@dataclass(frozen=True)
class Member:
    """One policy to train.

    Attributes:
        id: name of the policy and its adapter's folder.
        weight: (K,) the weight that it is for.
    """

    id: str
    weight: np.ndarray


def train_members(
    language_model: LanguageModel,
    members: Sequence[Member],
    candidates: TokenisedCandidates,
    rewards: RewardTensor,
    folder: Path,
    *,
    kl: float,
    base_model: str,
    options: TrainingOptions,
    seed: int = 0,
    track: Track = silent,
    reload: Callable[[], LanguageModel] | None = None,
) -> dict[str, dict[str, Any]]:
    """Train a LoRA policy for every member that has no complete adapter yet.

    Args:
        language_model: the base and reference; after training it is as before.
        members: policies to train.
        candidates: of the prompts to train on.
        rewards: of the same candidates.
        folder: each adapter appears in `folder`/ID when it is complete.
        kl: the plan's coefficient of the KL cost.
        base_model: id of the base model, recorded in the adapters.
        options: see `TrainingOptions`.
        seed: the same for all members, so that they differ in their weights only.
        track: for a progress bar of each member's steps.
        reload: loads the base model anew; called before every member but the first where the launcher splits the model over
            processes, since it cannot be put together again in place.

    Returns:
        for each member's id: steps, and the training loss at every logged step.

    Raises:
        ValueError: an option is out of range, or there is nothing to learn from.
    """
    options.check()
    if options.match_kl and shards_models():
        raise ValueError("match_kl: expected 0, since FSDP or ZeRO-3 leaves no whole model to write with")
    trained = 0

    def train(member: Member, target: Path, options: TrainingOptions, start: Path | None) -> dict[str, Any]:
        nonlocal language_model, trained
        log = _log(target)
        if not _is_trained(target):
            if options.labels == "soft":
                rows = group_rows(candidates, rewards, member.weight, kl, size=options.group, seed=seed)
            else:
                rows = pair_rows(candidates, rewards, member.weight, per_prompt=options.pairs_per_prompt, seed=seed)
            if trained and shards_models():
                if reload is None:
                    raise ValueError("reload: expected a function, since FSDP or ZeRO-3 leaves the base model in pieces; got None")
                language_model = reload()
            trained += 1
            planned = planned_divergence(rewards, member.weight, kl) if options.match_kl else None
            saved, told = _train(language_model, member, rows, folder, options, seed, track, start, candidates, planned)
            if rank() == 0:
                write_json(log, told)
                publish_adapter(saved, target, base_model=base_model)
            barrier()
        history: dict[str, Any] = read_json(log)
        return history

    start = None
    if options.shared_steps and any(not _is_trained(folder / member.id) for member in members):
        centre = Member(_SHARED_ID, np.mean([member.weight for member in members], axis=0))
        start = folder / _SHARED
        _forget_another(start, {"weight": centre.weight.tolist(), "kl": kl, "seed": seed, "options": repr(options)})
        train(centre, start, replace(options, dpo={**options.dpo, "max_steps": options.shared_steps}, match_kl=0), None)
    return {member.id: train(member, folder / member.id, options, start) for member in members}


def _log(target: Path) -> Path:
    return target.with_name(f"{target.name}.log.json")


def _is_trained(target: Path) -> bool:
    return is_complete(target) and _log(target).exists()


def _forget_another(shared: Path, made_with: dict[str, Any]) -> None:
    """Remove an adapter of shared steps that was made for other members or with other options."""
    note = shared.with_name(f"{shared.name}.made-with.json")
    if rank() == 0 and not (note.exists() and read_json(note) == made_with):
        for made in (shared, shared.with_name(f".writing-work-{_SHARED_ID}")):  # the adapter, and a killed run's checkpoints
            shutil.rmtree(made, ignore_errors=True)
        _log(shared).unlink(missing_ok=True)
        write_json(note, made_with)
    barrier()


def _train(
    language_model: LanguageModel,
    member: Member,
    rows: Dataset,
    folder: Path,
    options: TrainingOptions,
    seed: int,
    track: Track,
    start: Path | None,
    candidates: TokenisedCandidates,
    planned: float | None,
) -> tuple[Path, dict[str, Any]]:
    """Train one member, from the adapter `start` if there is one; returns where PEFT saved the adapter, and the history.

    With a `planned` divergence the member then writes text of its own, and is scaled down where it diverges by more.
    """
    from palm.lm.training import quieten, train_to_end, training_arguments
    from palm.policies.groups import GroupCollator
    from palm.policies.trainer import GroupDPOTrainer, PreparedDPOTrainer, layout_for

    soft = options.labels == "soft"
    defaults = {"learning_rate": 1e-4, "weight_decay": 0.0, "lr_scheduler_type": "cosine", "max_length": options.max_length}
    if not soft:
        defaults["precompute_ref_log_probs"] = True  # they are in the rows already
    arguments = training_arguments(
        "DPOConfig", {**defaults, **options.dpo}, folder=folder / f".writing-work-{member.id}", seed=seed
    )
    collator = None
    if soft:
        layout = layout_for(language_model, rows, arguments.per_device_train_batch_size * options.group)
        collator = GroupCollator(layout)
    base, work, saved = language_model.model, folder / f".writing-work-{member.id}", folder / f".writing-saved-{member.id}"
    with isolated_rng(seed):
        trainer = (GroupDPOTrainer if soft else PreparedDPOTrainer)(
            model=base,
            args=arguments,
            train_dataset=rows,
            processing_class=language_model.tokenizer,
            peft_config=lora_config(options.lora),
            data_collator=collator,
        )
        if soft:
            trainer.listwise = options.listwise
        quieten(trainer, f"training {member.id}", track)
        try:
            if start is not None:
                load_into(trainer.model, start)
            train_to_end(trainer, work)
            told: dict[str, Any] = {"strength": 1.0}
            if planned is not None and rank() == 0:
                policy = LanguageModel(trainer.model.eval(), language_model.tokenizer, language_model.source)
                longest = options.max_new_tokens or candidates.longest
                told |= match_divergence(
                    policy, candidates.prompts, planned, texts=options.match_kl, max_new_tokens=longest, seed=seed
                )
            trainer.save_model(str(saved))
        finally:
            trainer.model.unload()
            base.__dict__.pop("forward", None)  # TRL wraps the base's forward anew for every trainer
            base.requires_grad_(False)
            base.eval()
    losses = [{"step": entry["step"], "loss": entry["loss"]} for entry in trainer.state.log_history if "loss" in entry]
    if rank() == 0:
        shutil.rmtree(work, ignore_errors=True)
    return saved, {"steps": trainer.state.global_step, "weight": member.weight.tolist(), "losses": losses, **told}
