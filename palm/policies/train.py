"""Train the members of a portfolio: one LoRA policy per weight, on one base model, in one process.

What they are trained for is one of palm.policies.objectives. What members share is made once: token ids, the reference's
log-probabilities of every candidate and, if asked for, the first steps: an adapter for the mean of the members' weights, which
every member goes on from.
"""

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from palm.artifacts import ArtifactError, read_json, write_json
from palm.lm.load import LanguageModel
from palm.lm.training import old_objects_aside, quieten, train_to_end, training_arguments
from palm.policies.adapters import check_adapter, is_complete, load_into, publish_adapter
from palm.policies.candidates import TokenisedCandidates
from palm.policies.objectives import Basis, Material, objective
from palm.policies.options import ONLINE, TrainingOptions
from palm.policies.stopping import Watch, keep_back, watching
from palm.policies.strength import match_divergence, planned_divergence
from palm.progress import Track, silent
from palm.ranks import agree, barrier, rank, shards_models
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


@old_objects_aside()
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
    basis: Basis | None = None,
    track: Track = silent,
    reload: Callable[[], LanguageModel] | None = None,
    only: Collection[str] | None = None,
    starts: Mapping[str, Path] | None = None,
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
        basis: rewards of new texts on the scale of `rewards`; objectives rloo and grpo want it.
        track: for a progress bar of each member's steps.
        reload: loads the base model anew; called before every member but the first where the launcher splits the model over
            processes, since it cannot be put together again in place.
        only: ids of the members to train now; the others still count for the steps that all share. None of them: those steps alone.
        starts: by member's id, the folder of an adapter of the same LoRA settings that it goes on from, instead of a fresh one; it
            takes part in no shared steps.

    Returns:
        for each member's id that was to be trained: steps, the training loss at every logged step, and what was seen where it was
        looked at.

    Raises:
        ValueError: an option is out of range, there is nothing to learn from, or training took no step or diverged; what was
            trained before stays.
        ArtifactError: one of `starts` is no complete adapter, or one of another shape or scale.
    """
    options.check()
    starts = dict(starts or {})
    for each in set(starts.values()):
        check_adapter(each, base_model=base_model)
    _check_given(options, candidates, basis)
    material = _keep_back(Material(candidates, rewards, kl, options, seed, basis))
    trained = 0

    def train(member: Member, target: Path, material: Material, start: Path | None) -> dict[str, Any]:
        nonlocal language_model, trained
        log = _log(target)
        if not is_trained(target):
            if trained and shards_models():
                if reload is None:
                    raise ValueError("reload: expected a function, since FSDP or ZeRO-3 leaves the base model in pieces; got None")
                language_model = reload()
            trained += 1
            saved, told = _train(language_model, member, material, folder, track, start)
            if rank() == 0:
                write_json(log, told)
                publish_adapter(saved, target, base_model=base_model)
            barrier()
        history: dict[str, Any] = read_json(log)
        return history

    def some_left(among: Sequence[Member]) -> bool:
        return agree(any(not is_trained(folder / member.id) for member in among))

    fresh = [member for member in members if member.id not in starts]
    wanted = [member for member in members if only is None or member.id in only]
    shares = options.shared_steps > 0 and some_left(fresh)
    if shares or some_left(wanted):  # otherwise others have trained them, with as many processes as they had
        options.check_batches(len(candidates.prompts))
    if shares:
        centre, shared = Member(_SHARED_ID, np.mean([member.weight for member in fresh], axis=0)), folder / _SHARED
        _forget_another(shared, {"weight": centre.weight.tolist(), "kl": kl, "seed": seed, "options": repr(options)})
        first = replace(options.with_steps(options.shared_steps), match_kl=0)
        train(centre, shared, replace(material, options=first, kept_back=None), None)
        starts |= {member.id: shared for member in fresh}
    return {member.id: train(member, folder / member.id, material, starts.get(member.id)) for member in wanted}


def _keep_back(material: Material) -> Material:
    """The material without the prompts that its options keep back to look at."""
    options = material.options
    if not options.stop_within:
        return material
    if shards_models():
        raise ValueError("stop_within: expected 0, since FSDP or ZeRO-3 leaves no whole model to look at")
    own, back = keep_back(len(material.candidates.prompts), options.stop_prompts, seed=material.seed)
    kept = material.candidates.select(back), material.rewards.select(back)
    return replace(material, candidates=material.candidates.select(own), rewards=material.rewards.select(own), kept_back=kept)


def read_logs(members: Sequence[Member], folder: Path) -> dict[str, dict[str, Any]]:
    """What `train_members` returned for members, wherever they were trained.

    Raises:
        ArtifactError: one is not complete.
    """
    for member in members:
        check_adapter(folder / member.id)
    return {member.id: read_json(_log(folder / member.id)) for member in members}


def _check_given(options: TrainingOptions, candidates: TokenisedCandidates, basis: Basis | None) -> None:
    """See that there is what the options want."""
    if options.match_kl and shards_models():
        raise ValueError("match_kl: expected 0, since FSDP or ZeRO-3 leaves no whole model to write with")
    if options.compares and candidates.reference is None:
        what = "stop_within" if options.stop_within else f"objective {options.objective}"
        raise ValueError(f"candidates.reference: expected log-probabilities for {what}, got None")
    if options.objective in ONLINE:
        _check_online(options, candidates, basis)


def _check_online(options: TrainingOptions, candidates: TokenisedCandidates, basis: Basis | None) -> None:
    if basis is None:
        raise ValueError(f"basis: expected a function that gives rewards of new texts for objective {options.objective}, got None")
    if len(candidates.texts) != len(candidates.prompts):
        raise ValueError(
            f"candidates.texts: expected {len(candidates.prompts)} prompts as text for objective {options.objective}, "
            f"got {len(candidates.texts)}"
        )
    if shards_models():
        raise ValueError(f"objective: {options.objective} wants a whole model to write with, which FSDP or ZeRO-3 leaves not")


def _log(target: Path) -> Path:
    return target.with_name(f"{target.name}.log.json")


def is_trained(target: Path) -> bool:
    """Whether a member's adapter and the history of its training are complete."""
    return is_complete(target) and _read(_log(target)) is not None


def _read(path: Path) -> Any:
    """What a record holds; None if it is missing or damaged, which is to be made again."""
    try:
        return read_json(path)
    except ArtifactError as error:
        if isinstance(error.__cause__, OSError):  # it may be whole
            raise
        return None


def _check_trained(trainer: Any, section: str, member: Member) -> None:
    """See that training took a step, and has not diverged.

    Raises:
        ValueError: no step was taken, or a trained parameter is not finite; the message names the option.
    """
    if trainer.state.global_step < 1:
        raise ValueError(
            f"{section}.per_device_train_batch_size: expected one that {len(trainer.train_dataset)} rows fill, "
            f"got {trainer.args.per_device_train_batch_size}: training {member.id} took no step"
        )
    if not all(bool(parameter.isfinite().all()) for parameter in trainer.model.parameters() if parameter.requires_grad):
        raise ValueError(
            f"{section}.learning_rate: expected one at which training does not diverge, got {trainer.args.learning_rate:g}: after "
            f"{trainer.state.global_step} steps the adapter of {member.id} has numbers that are not finite"
        )


def _forget_another(shared: Path, made_with: dict[str, Any]) -> None:
    """Remove an adapter of shared steps that was made for other members or with other options."""
    note = shared.with_name(f"{shared.name}.made-with.json")
    if rank() == 0 and _read(note) != made_with:
        for made in (shared, shared.with_name(f".writing-work-{_SHARED_ID}")):  # the adapter, and a killed run's checkpoints
            shutil.rmtree(made, ignore_errors=True)
        _log(shared).unlink(missing_ok=True)
        write_json(note, made_with)
    barrier()


def _train(
    language_model: LanguageModel, member: Member, material: Material, folder: Path, track: Track, start: Path | None
) -> tuple[Path, dict[str, Any]]:
    """Train one member, from the adapter `start` if there is one; returns where PEFT saved the adapter, and the history.

    With `match_kl` the member then writes text of its own, and is scaled down where it diverges by more than planned.
    """
    options, candidates, seed = material.options, material.candidates, material.seed
    kind = objective(options.objective)
    base, work, saved = language_model.model, folder / f".writing-work-{member.id}", folder / f".writing-saved-{member.id}"
    arguments = training_arguments(options.configuration, kind.arguments(material), folder=work, seed=seed)
    rows = kind.rows(material, member.weight)
    generation = base.generation_config
    with isolated_rng(seed):
        trainer = kind.trainer(language_model, material, member.weight, rows, arguments)
        quieten(trainer, f"training {member.id}", track)
        try:
            if start is not None:
                load_into(trainer.model, start)
            watch = None if material.kept_back is None else Watch.of(material, member.weight)
            train_to_end(trainer, work, None if watch is None else watching(trainer, watch, language_model.tokenizer))
            _check_trained(trainer, options.section, member)
            told: dict[str, Any] = {"strength": 1.0}
            if watch is not None:
                told["looks"] = [asdict(look) for look in watch.looks]
            if options.match_kl and rank() == 0:
                base.generation_config = generation
                planned = planned_divergence(material.rewards, member.weight, material.kl)
                policy = LanguageModel(trainer.model.eval(), language_model.tokenizer, language_model.source)
                told |= match_divergence(
                    policy, candidates.prompts, planned, texts=options.match_kl, max_new_tokens=material.longest, seed=seed
                )
            trainer.save_model(str(saved))
        finally:
            trainer.model.unload()
            base.__dict__.pop("forward", None)  # TRL wraps the base's forward anew for every trainer
            base.requires_grad_(False)
            base.eval()
            base.generation_config = generation
    losses = [{"step": entry["step"], "loss": entry["loss"]} for entry in trainer.state.log_history if "loss" in entry]
    if rank() == 0:
        shutil.rmtree(work, ignore_errors=True)
    return saved, {"steps": trainer.state.global_step, "weight": member.weight.tolist(), "losses": losses, **told}
