"""What stage train trains: the adapters of the portfolio's members and of the single policies to compare with."""

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from palm.features.store import FeatureArray
from palm.hub import locate
from palm.locks import held
from palm.pipeline.config import Config
from palm.pipeline.data_stages import base_name, base_weights, read_base, text_features
from palm.pipeline.fit_stage import read_main_model
from palm.pipeline.plan_stages import baseline_names, read_candidates, read_tensor, read_token_ids
from palm.pipeline.runner import Context, PipelineError
from palm.policies.adapters import served_adapters, served_weights
from palm.policies.candidates import tokenise_candidates
from palm.policies.objectives import Basis
from palm.policies.options import ONLINE, TrainingOptions
from palm.policies.train import Member, train_members
from palm.portfolio import Portfolio
from palm.ranks import barrier, rank
from palm.simplex import nearest


def training_options(config: Config) -> TrainingOptions:
    """The train section as `TrainingOptions`."""
    train = config.train
    return TrainingOptions(
        objective=train.objective,
        group=train.group,
        listwise=train.listwise,
        pairs_per_prompt=train.pairs_per_prompt,
        shared_steps=train.shared_steps,
        match_kl=0 if config.candidates.source == "pool" else train.match_kl,  # a pool is no sample of the reference
        stop_within=train.stop_within,
        stop_every=train.stop_every,
        stop_prompts=train.stop_prompts,
        max_new_tokens=config.candidates.max_new_tokens,
        max_length=train.max_length,
        lora=train.lora,
        dpo=train.dpo,
        online=train.online,
    )


def read_plan(context: Context) -> Portfolio:
    """The planned portfolio."""
    return Portfolio.from_pretrained(context.inputs["plan"])


def read_baselines(context: Context) -> list[Portfolio]:
    """The planned single policies that are trained to compare with."""
    if not context.config.train.baselines:
        return []
    return [Portfolio.from_pretrained(context.inputs["plan"] / "baselines" / name) for name in baseline_names()]


def read_policies(context: Context) -> dict[str, np.ndarray]:
    """Every policy that is trained, with its planned weight: the members first, of whom some stand for single policies."""
    weights: dict[str, np.ndarray] = {}
    for each in (read_plan(context), *read_baselines(context)):
        for name, weight in zip(each.ids, each.weights, strict=True):
            weights.setdefault(name, weight)
    return weights


def basis_of(context: Context) -> Basis:
    """Basis rewards of new texts, as the plan's were computed; what gives features is loaded once."""
    model, featurised = read_main_model(context), text_features(context)
    return lambda texts: model.basis(FeatureArray([featurised(list(texts))]))


def read_members(context: Context) -> list[Member]:
    """Every policy that is trained, as `train_members` takes it."""
    return [Member(name, weight) for name, weight in read_policies(context).items()]


def read_starts(context: Context, members: Sequence[Member]) -> dict[str, Path]:
    """Of the trained portfolio `train.start`, for each member the adapter whose weight is nearest to its own.

    Raises:
        PipelineError: that portfolio has no members, other basis rewards than the plan, or another base.
    """
    if context.config.train.start is None:
        return {}
    folder = locate(context.config.train.start)
    trained, planned = Portfolio.from_pretrained(folder), read_plan(context)
    if not len(trained) or trained.bases != planned.bases:
        raise PipelineError(
            f"train.start: expected members for the basis rewards {', '.join(planned.bases)}, got "
            f"{len(trained)} for {', '.join(trained.bases)}"
        )
    theirs, own = served_weights(folder), base_weights(context.inputs["base"])
    if theirs is not None and own is not None and theirs != own:
        raise PipelineError(
            f"train.start: expected members of this run's base model, weights {own[:12]}, got those of another of the same name, "
            f"weights {theirs[:12]}"
        )
    adapters = list(served_adapters(folder, trained.ids).values())
    return {member.id: adapters[nearest(trained.weights, member.weight)] for member in members}


def train_in_process(
    context: Context,
    only: Collection[str] | None = None,
    *,
    members: Sequence[Member] | None = None,
    options: TrainingOptions | None = None,
    starts: Mapping[str, Path] | None = None,
    reference: Path | None = None,
) -> dict[str, dict[str, Any]]:
    """Train members one after the other, after what they share; returns their histories.

    Args:
        context: with the stages that training needs; adapters appear in its folder.
        only: ids of those to train now; all of them unless given.
        members: the plan's and the single policies to compare with, unless others are given.
        options: those of the configuration, unless others are given.
        starts: adapters that members go on from, by id; those of `train.start` unless given.
        reference: where the reference's log-probabilities are kept, or found; in the context's folder unless given.
    """
    members = read_members(context) if members is None else members
    with _held(context.folder, [member.id for member in members if only is None or member.id in only]):
        return _train(context, only, members, options, starts, reference)


@contextlib.contextmanager
def _held(folder: Path, ids: Sequence[str]) -> Iterator[None]:
    """Hold members' locks, so that no two processes train one: a killed pool's commands go on."""
    with contextlib.ExitStack() as stack:
        if rank() == 0:
            folder.mkdir(parents=True, exist_ok=True)
            for name in ids:
                stack.enter_context(held(folder / f".writing-lock-{name}", what=f"train {name}"))
        barrier()  # the others wait until the first process has the locks
        yield


def _train(
    context: Context,
    only: Collection[str] | None,
    members: Sequence[Member],
    options: TrainingOptions | None,
    starts: Mapping[str, Path] | None,
    reference: Path | None,
) -> dict[str, dict[str, Any]]:
    portfolio = read_plan(context)
    candidates = read_candidates(context.inputs["sample"], "plan")
    options = options or training_options(context.config)
    model = read_base(context)
    with context.track("reference log-probabilities", len(candidates.texts) if options.compares else 0) as advance:
        tokenised = tokenise_candidates(
            model,
            candidates.prompts,
            candidates.responses,
            reference or context.folder / ".writing-reference",
            max_length=options.max_length,
            sampled=read_token_ids(context, "plan", candidates),
            reference=options.compares,
            advance=advance,
        )
    return train_members(
        model,
        members,
        tokenised,
        read_tensor(context.inputs["score"], "plan"),
        context.folder,
        kl=portfolio.kl,
        base_model=base_name(context.inputs["base"]),
        options=options,
        seed=context.seed,
        basis=basis_of(context) if options.objective in ONLINE else None,
        track=context.track,
        reload=lambda: read_base(context),
        only=only,
        starts=read_starts(context, members) if starts is None else starts,
    )
