"""Stages sample, score, plan: candidates, the reward tensor, the portfolio."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from palm.artifacts import write_json
from palm.data.candidates import Candidates, distinct_prompts, pool_candidates, split_prompts
from palm.data.schema import Text
from palm.lm.sampling import load_token_ids, sample_to_folder, save_token_ids
from palm.pipeline.data_stages import (
    base_name,
    featurise,
    read_base,
    read_items,
    read_pairs,
)
from palm.pipeline.fit_stage import read_main_model
from palm.pipeline.planning import plan_as_wished
from palm.pipeline.runner import Context, PipelineError
from palm.portfolio import CurvePoint, GibbsOracle, Portfolio, certify, held_out_confidence, plan_portfolio
from palm.rewards import RewardTensor, SimplexRewards, reward_tensor
from palm.seeds import derive_seed

logger = logging.getLogger(__name__)

PARTS = ("plan", "held_out")
_NEARLY = 0.97  # of the gain at the mean weight: a policy that gives as much stands for the best on average
POOL = "pool"
WORST, MEAN = "single-worst", "single-mean"  # single policies: best for the worst weight, best on average over users


def run_sample(context: Context) -> None:
    """Candidates of the prompts to plan on and of the prompts held out."""
    config = context.config.candidates
    pairs = read_pairs(context.inputs["data"])
    if config.source == POOL:
        pool = pool_candidates(pairs, fewest=config.min_pool, most=config.per_prompt)
        parts = split_prompts(len(pool.prompts), config.held_out, seed=context.seed)
        for name, rows in zip(PARTS, parts, strict=True):
            chosen = Candidates([pool.prompts[row] for row in rows], [pool.responses[row] for row in rows])
            chosen.save(context.folder / f"{name}.jsonl")
        return
    prompts = distinct_prompts(pairs["prompt"])
    held_out = config.held_out if isinstance(config.held_out, int) else max(1, round(config.held_out * config.prompts))
    wanted = config.prompts + held_out
    if len(prompts) < wanted:
        raise PipelineError(
            f"candidates.prompts, candidates.held_out: expected at most {len(prompts)} together, the data's prompts, got {wanted}"
        )
    order = np.random.default_rng(context.seed).permutation(len(prompts))[:wanted]
    model = read_base(context)
    for name, rows in zip(PARTS, (order[: config.prompts], order[config.prompts :]), strict=True):
        chosen_prompts = [prompts[row] for row in rows]
        batches = context.folder / f".writing-{name}"
        samples = sample_to_folder(
            model,
            chosen_prompts,
            batches,
            count=config.per_prompt,
            batch_size=config.batch_size,
            max_new_tokens=config.max_new_tokens,
            temperature=1.0,
            seed=derive_seed(context.seed, name),
            label=f"sampling candidates ({name})",
            track=context.track,
        )
        texts: list[list[Text]] = [[sample.text for sample in row] for row in samples]
        Candidates(chosen_prompts, texts).save(context.folder / f"{name}.jsonl")
        save_token_ids(samples, context.folder / f"{name}-tokens.safetensors")


def read_token_ids(context: Context, part: str, candidates: Candidates) -> list[list[list[int]]] | None:
    """What the base sampled, token for token; None where candidates are a pool's."""
    if context.config.candidates.source == POOL:
        return None
    return load_token_ids(context.inputs["sample"] / f"{part}-tokens.safetensors", candidates.counts)


def read_candidates(folder: Path, part: str) -> Candidates:
    """Candidates of the part "plan" or "held_out"."""
    return Candidates.load(folder / f"{part}.jsonl")


def run_score(context: Context) -> None:
    """Basis rewards of all candidates."""
    model = read_main_model(context)
    for part in PARTS:
        candidates = read_candidates(context.inputs["sample"], part)
        features = context.folder / f".writing-{part}"
        featurise(context, candidates.texts, features)
        basis = model.basis(read_items(features))
        reward_tensor(basis, candidates.counts).save(context.folder / f"{part}.safetensors")
        shutil.rmtree(features)


def read_tensor(folder: Path, part: str) -> RewardTensor:
    """Reward tensor of the part "plan" or "held_out"."""
    return RewardTensor.load(folder / f"{part}.safetensors")


def oracle_for(tensor: RewardTensor, kl: float) -> GibbsOracle:
    """The sampled oracle of a reward tensor."""
    return GibbsOracle(tensor.rewards, kl, mask=tensor.mask)


def run_plan(context: Context) -> None:
    """The portfolio to train, its certificate on the same and on other prompts, and gap against size."""
    config = context.config.plan
    model = read_main_model(context)
    oracle = oracle_for(read_tensor(context.inputs["score"], "plan"), config.kl)
    others = read_tensor(context.inputs["score"], "held_out")
    held_out = oracle_for(others, config.kl)
    planned, curve = plan_as_wished(
        oracle, config, names=model.names, users=model.seen.mean, seed=context.seed, track=context.track
    )
    described: dict[str, Any] = {
        "bases": model.names,
        "calibration": np.column_stack([model.calibration.low, model.calibration.high]),
        "base_model": base_name(context.inputs["base"]),
    }
    # The portfolio was chosen on the planning prompts and is too good there; the held-out ones know nothing of the choice.
    stated = held_out_confidence(planned, others.rewards, others.mask, config.kl, delta=config.delta, seed=context.seed)
    planned = replace(planned, **described, confidence=stated)
    planned.save_pretrained(context.folder)
    crossed = planned.revalued(held_out)
    replace(crossed, certificate=certify(crossed, held_out), confidence=stated).save_pretrained(context.folder / "held_out")
    trained = dict(zip(planned.ids, planned.weights, strict=True))
    for name, weight in _baselines(oracle, model).items():
        policy = _stands_for(oracle, name, weight, trained) or name  # nothing is trained twice
        weight = trained.setdefault(policy, weight)  # who stands for another keeps the weight that it was planned for
        single = Portfolio(
            weight[None, :], np.zeros((1, oracle.bases)), np.zeros(1), oracle.reference, config.kl, (policy,), **described
        )
        single = single.revalued(oracle)
        replace(single, certificate=certify(single, oracle)).save_pretrained(context.folder / "baselines" / name)
    checks = held_out.diagnostics(planned.weights) if len(planned) else None
    write_json(
        context.folder / "plan.json",
        {
            "curve": curve_record(curve, planned),
            "diagnostics": None
            if checks is None
            else {name: getattr(checks, name).tolist() for name in ("effective_samples", "fewest_samples", "bias", "prompt_error")},
        },
    )


def curve_record(curve: list[CurvePoint], planned: Portfolio) -> list[dict[str, Any]]:
    """Points of gap against size for plan.json; two searches may end in different places: the plan may be the best of its size."""
    points = []
    for point in curve:
        found, whole = point.portfolio.certified, planned.certified
        if len(planned) <= point.size and whole.epsilon < found.epsilon and not whole.given_delta:
            found = whole
        shown = {name: getattr(found, name) for name in ("epsilon", "captured_gain", "size_at_least")}
        points.append({"size": point.size, **shown, "epsilon_at_least": point.epsilon_at_least, "hypervolume": point.hypervolume})
    return points


def _stands_for(oracle: GibbsOracle, name: str, weight: np.ndarray, trained: dict[str, np.ndarray]) -> str | None:
    """A policy that is trained anyway and does what a single policy is for; None if none does.

    The best on average is judged by its gain at one weight, so nearly all of that gain will do. The best at the worst weight is
    judged over the whole simplex, where a policy of nearly that gain can be far worse: only the same weight stands for it.
    """
    same = [other for other, known in trained.items() if np.abs(known - weight).max() < 1e-9]
    if same or name == WORST or not trained:
        return same[0] if same else None
    solved = oracle.solve(np.array(list(trained.values())))
    base = float(weight @ oracle.reference)
    gain = solved.value @ weight - solved.cost - base
    best = int(gain.argmax())
    return list(trained)[best] if gain[best] >= _NEARLY * (float(oracle.optimum(weight[None, :])[0]) - base) else None


def _baselines(oracle: GibbsOracle, model: SimplexRewards) -> dict[str, np.ndarray]:
    """Weights of two single policies: the best for the worst weight, and the best on average over the population."""
    single = plan_portfolio(oracle, size=1)
    worst = single.weights[0] if len(single) else np.full(oracle.bases, 1.0 / oracle.bases)
    return {WORST: worst, MEAN: model.seen.mean.mean(axis=0)}


def baseline_names() -> tuple[str, ...]:
    """Ids of the single policies."""
    return (WORST, MEAN)
