"""Train the members of a portfolio: one LoRA policy per weight, on one base model, in one process.

Soft labels (the default): each response of a group is run once and compared with every other of its group by the DPO loss
with label sigmoid((w.phi_a - w.phi_b) / kl) and logit log pi/pi_ref(a) - log pi/pi_ref(b), and with all others at once by the
cross-entropy of softmax(w.phi / kl) with softmax(log pi/pi_ref) over the group. Both are least where the log-ratio is
w.phi / kl + a constant of the group: at the planned Gibbs policy. Pairs teach all differences alike, the list what the planned
policy would really say; in the embedded world half of each reached more of the planned gain than pairs alone. A prompt's
candidates are dealt into groups once; only through the model itself are groups compared. Hard labels: TRL's own DPO losses on
pairs that say only which is better.

What members share is made once: token ids, the reference's log-probabilities of every candidate and, if asked for, the
first steps: an adapter for the mean of the members' weights, which every member goes on from.
"""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from palm.artifacts import ArtifactError, read_arrays, read_json, write_arrays, write_json
from palm.data.schema import Text
from palm.lm.load import LanguageModel
from palm.lm.logprobs import response_logprobs
from palm.lm.tokens import encode
from palm.policies.adapters import is_complete, load_into, lora_config, publish_adapter
from palm.policies.pairs import scalarise
from palm.policies.strength import matched_strength, own_divergence, planned_divergence, scale_adapter
from palm.progress import Track, silent
from palm.ranks import barrier, rank, ranks, shards_models
from palm.rewards.tensor import RewardTensor
from palm.seeds import derive_seed, isolated_rng

logger = logging.getLogger(__name__)

_MATCHES = 3  # times that a member is scaled down, at most
_CLOSE = 1.05  # times the planned divergence: as good as it
_SHARED_ID = "shared-steps"
_SHARED = ".writing--shared"  # the adapter that members go on from; it goes when the stage that trains them is done


@dataclass(frozen=True)
class TrainingOptions:
    """How members are trained.

    Attributes:
        labels: "soft" or "hard"; see the module's text.
        group: about how many responses of a prompt are compared with each other at a time (soft labels), at least 2.
        listwise: share of the loss that compares a group's responses all at once, the rest compares pairs (soft labels); 0 to 1.
            Where the loss is least does not depend on it, what is learnt first does.
        pairs_per_prompt: pairs of each prompt (hard labels).
        shared_steps: steps at the mean of the members' weights, taken once, after which each member takes its own; 0 lets every
            member begin afresh. Log-ratios of planned policies are linear in the weight, so most of what is learnt is the same.
        match_kl: texts that each member writes when it is trained, to learn its KL divergence; where that exceeds the planned one,
            its change of the base is scaled down to match (palm.policies.strength). 0: none. Not for models split over
            processes, nor for candidates that the reference did not sample.
        max_new_tokens: longest text that a member writes for that: what candidates were sampled with; their longest by default.
        max_length: longest prompt and response in tokens.
        lora: fields of PEFT's LoraConfig.
        dpo: fields of TRL's DPOConfig. With soft labels the loss is fixed, so `beta` and `loss_type` are refused.
    """

    labels: str = "soft"
    group: int = 8
    listwise: float = 0.5
    pairs_per_prompt: int = 16
    shared_steps: int = 0
    match_kl: int = 0
    max_new_tokens: int | None = None
    max_length: int = 1024
    lora: Mapping[str, Any] = field(default_factory=dict)
    dpo: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Look at every option before any work is done.

        Raises:
            ValueError: an option is unknown, out of range or refused.
        """
        from palm.lm.training import check_options

        if self.labels not in ("soft", "hard"):
            raise ValueError(f"labels: expected 'soft' or 'hard', got {self.labels!r}")
        if self.group < 2:
            raise ValueError(f"group: expected at least 2, got {self.group}")
        if not 0 <= self.listwise <= 1:
            raise ValueError(f"listwise: expected a number from 0 to 1, got {self.listwise}")
        if self.pairs_per_prompt < 1:
            raise ValueError(f"pairs_per_prompt: expected at least 1, got {self.pairs_per_prompt}")
        if self.shared_steps < 0:
            raise ValueError(f"shared_steps: expected at least 0, got {self.shared_steps}")
        if self.match_kl < 0:
            raise ValueError(f"match_kl: expected at least 0, got {self.match_kl}")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens: expected at least 1 or None, got {self.max_new_tokens}")
        if self.max_length < 2:
            raise ValueError(f"max_length: expected at least 2, got {self.max_length}")
        check_options("DPOConfig", self.dpo, where="dpo")
        for name in ("beta", "loss_type", "label_smoothing", "precompute_ref_log_probs"):
            if self.labels == "soft" and name in self.dpo:
                raise ValueError(
                    f"dpo.{name}: with soft labels the loss is fixed by the plan's kl; leave it out or use labels: hard"
                )
        lora_config(self.lora)


@dataclass(frozen=True)
class Member:
    """One policy to train.

    Attributes:
        id: name of the policy and its adapter's folder.
        weight: (K,) the weight that it is for.
    """

    id: str
    weight: np.ndarray


@dataclass(frozen=True)
class TokenisedCandidates:
    """Candidates as token ids, with the reference's log-probabilities.

    Attributes:
        prompts: P prompts' token ids.
        responses: for each prompt, its candidates' token ids.
        reference: (P, N) log-probability of each candidate under the reference; 0 where there is none.
    """

    prompts: list[list[int]]
    responses: list[list[list[int]]]
    reference: np.ndarray


def tokenise_candidates(
    language_model: LanguageModel,
    prompts: Sequence[Text],
    responses: Sequence[Sequence[Text]],
    folder: Path,
    *,
    max_length: int,
    advance: Callable[[int], object] | None = None,
) -> TokenisedCandidates:
    """Token ids of all candidates, and the reference's log-probabilities: computed once, shared by members and ranks.

    Args:
        language_model: the reference.
        prompts: P prompts.
        responses: each prompt's candidates.
        folder: each rank keeps its share of the log-probabilities there; a later call finds them.
        max_length: longest prompt and response in tokens.
        advance: called with the number of texts done.
    """
    encoded = [
        [encode(language_model.tokenizer, prompt, response, max_length=max_length) for response in candidates]
        for prompt, candidates in zip(prompts, responses, strict=True)
    ]
    flat = [text for candidates in encoded for text in candidates]
    own = folder / f"reference-{rank()}-of-{ranks()}.safetensors"
    try:
        read_arrays(own)
    except ArtifactError:
        write_arrays(own, {"logprobs": response_logprobs(language_model, flat[rank() :: ranks()], advance=advance)})
    barrier()
    logprobs = np.empty(len(flat))
    for part in range(ranks()):
        logprobs[part :: ranks()] = read_arrays(folder / f"reference-{part}-of-{ranks()}.safetensors")["logprobs"]
    counts = [len(candidates) for candidates in encoded]
    reference = np.zeros((len(prompts), max(counts)))
    reference[np.arange(max(counts))[None, :] < np.array(counts)[:, None]] = logprobs
    return TokenisedCandidates(
        [candidates[0][0] for candidates in encoded],
        [[response for _, response in candidates] for candidates in encoded],
        reference,
    )


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
                rows = _groups(candidates, rewards, member.weight, kl, options.group, seed)
            else:
                rows = _pairs(candidates, rewards, member.weight, kl, options.pairs_per_prompt, seed)
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
    from palm.lm.training import last_checkpoint, quieten, training_arguments
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
            trainer.train(resume_from_checkpoint=last_checkpoint(work))
            told: dict[str, Any] = {"strength": 1.0}
            if planned is not None and rank() == 0:
                policy = LanguageModel(trainer.model.eval(), language_model.tokenizer, language_model.source)
                told |= _match(policy, candidates, planned, options, seed)
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


def _match(
    policy: LanguageModel, candidates: TokenisedCandidates, planned: float, options: TrainingOptions, seed: int
) -> dict[str, Any]:
    """Scale a policy down, in place, until it diverges as planned on text of its own; by how much, and its divergences."""
    longest = options.max_new_tokens or max(len(response) for responses in candidates.responses for response in responses)

    def measured() -> float:
        return own_divergence(
            policy,
            candidates.prompts,
            texts=options.match_kl,
            max_new_tokens=longest,
            without_adapter=policy.model.disable_adapter,
            seed=seed,
        )

    strength, before = 1.0, measured()
    own = before
    for _ in range(_MATCHES):
        if own <= planned * _CLOSE:
            break
        factor = matched_strength(planned, own)
        scale_adapter(policy.model, factor)
        strength, own = strength * factor, measured()
    if own > 1.5 * planned:
        logger.warning("a member's KL divergence is %.3g nats after scaling by %.2f, planned %.3g", own, strength, planned)
    return {"strength": strength, "planned_divergence": planned, "trained_divergence": before, "divergence": own}


def _groups(candidates: TokenisedCandidates, rewards: RewardTensor, weight: np.ndarray, kl: float, size: int, seed: int) -> Dataset:
    """Each prompt's candidates in random groups of about `size`, at least 2, with their log-ratios at the optimum."""
    rng = np.random.default_rng(derive_seed(seed, "groups"))
    target = rewards.rewards @ weight / kl  # (P, N)
    rows = []
    for prompt, responses in enumerate(candidates.responses):
        order = rng.permutation(len(responses))
        for group in np.array_split(order, max(1, min(round(len(order) / size), len(order) // 2))):
            if len(group) > 1:  # a prompt's only candidate has nothing to be compared with
                rows.append(
                    {
                        "prompt_ids": candidates.prompts[prompt],
                        "responses": [responses[index] for index in group],
                        "target": target[prompt, group].tolist(),
                        "reference": candidates.reference[prompt, group].tolist(),
                    }
                )
    if not rows:
        raise ValueError("candidates: expected a prompt with two candidates to compare, found none")
    return Dataset.from_list(rows)


def _pairs(
    candidates: TokenisedCandidates, rewards: RewardTensor, weight: np.ndarray, kl: float, per_prompt: int, seed: int
) -> Dataset:
    """Pairs that say which candidate is better, in the columns of TRL's prepared data."""
    pairs = scalarise(rewards.rewards, weight, mask=rewards.mask, per_prompt=per_prompt, seed=derive_seed(seed, "pairs"))
    columns: dict[str, list[Any]] = {
        "prompt_ids": [candidates.prompts[prompt] for prompt in pairs.prompt],
        "chosen_ids": [candidates.responses[p][n] for p, n in zip(pairs.prompt, pairs.chosen, strict=True)],
        "rejected_ids": [candidates.responses[p][n] for p, n in zip(pairs.prompt, pairs.rejected, strict=True)],
        "ref_chosen_logps": candidates.reference[pairs.prompt, pairs.chosen].tolist(),
        "ref_rejected_logps": candidates.reference[pairs.prompt, pairs.rejected].tolist(),
    }
    return Dataset.from_dict(columns)
