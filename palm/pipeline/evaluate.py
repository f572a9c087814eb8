"""Evaluate a finished run: coverage, and diversity of whom policies serve, of what they write and of their distributions."""

import contextlib
from functools import partial
from typing import Any

import numpy as np

from palm.data.schema import plain_text
from palm.evaluation.divergence import Divergences, Policy, pairwise_kl
from palm.evaluation.gaps import gap_table, serving_table
from palm.evaluation.tables import markdown_table, rounded
from palm.evaluation.vendi import feature_kernel, word_kernel
from palm.evaluation.writing import Kernel, writing
from palm.lm.generate import sample_responses
from palm.lm.tokens import encode_prompt
from palm.pipeline.data_stages import base_name, read_base
from palm.pipeline.finished import FinishedRun
from palm.pipeline.plan_stages import POOL, oracle_for
from palm.policies.adapters import Members
from palm.progress import Track, silent
from palm.seeds import derive_seed

TFIDF = "tfidf"


def coverage_of_run(run: FinishedRun, *, draws: int = 400, level: float = 0.95, seed: int = 0) -> dict[str, Any]:
    """Worst and mean gaps over the simplex and over the run's users, and what finitely many candidates hide of them.

    Args:
        run: whose policies were measured on held-out prompts.
        draws: of the bootstrap over prompts.
        level: of the intervals.
        seed: of the draws.
    """
    rows = gap_table(run.prompts, run.users.mean, draws=draws, level=level, seed=seed)
    worst = run.portfolio.certificate
    weight = np.full(len(run.portfolio.reference), 1 / len(run.portfolio.reference)) if worst is None else worst.worst_weight
    bias = oracle_for(run.tensor, run.portfolio.kl).diagnostics(weight[None, :]).bias[0]
    return {
        "rows": [row.record() for row in rows],
        "worst_weight": weight.tolist(),
        "candidate_bias": float(bias),
        "prompts": len(run.tensor.rewards),
        "users": len(run.users),
        "level": level,
        "draws": draws,
    }


def diversity_of_run(
    run: FinishedRun,
    *,
    draws: int = 400,
    level: float = 0.95,
    samples: int = 4,
    prompts: int = 40,
    features: str = TFIDF,
    seed: int = 0,
    track: Track = silent,
) -> dict[str, Any]:
    """Whom policies serve, how different their texts are, and how far their distributions are apart.

    Args:
        run: whose policies were measured on held-out prompts.
        draws, level: of intervals over prompts.
        samples: new responses of every policy to each prompt. 0 loads no model and leaves divergences out: texts are then those
            that were measured, which all policies drew with the same seeds, so that they resemble each other more.
        prompts: that they answer, at most. Divergences are over all; texts are compared as `writing` says, at most 120 of a policy.
        features: what the Vendi score compares texts by: "tfidf", or the folder or Hub id of a language model.
        seed: of everything random.
        track: for progress bars.

    Raises:
        ValueError: an argument is out of range.
    """
    for name, value, least in (("samples", samples, 0), ("prompts", prompts, 2)):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    ids = run.portfolio.ids
    serving = serving_table(run.prompts, ids, run.users.mean, draws=draws, level=level, seed=seed)
    apart = None
    if samples:
        texts, apart = _write_anew(run, samples=samples, prompts=prompts, seed=seed, track=track)
    else:
        texts = {name: [[plain_text(text) for text in row] for row in run.texts[name][:prompts]] for name in ids}
        texts["reference"] = [[plain_text(text) for text in row] for row in run.candidates.responses[:prompts]]
    kernel = word_kernel if features == TFIDF else model_kernel(features)
    return {
        "serving": [row.record() for row in serving],
        "writing": writing(texts, kernel=kernel, level=level, seed=seed).record(),
        "divergence": None if apart is None else apart.record(),
        "features": features,
        "independent": bool(samples),
        "pool": not samples and run.config.candidates.source == POOL,
        "level": level,
    }


def _write_anew(
    run: FinishedRun, *, samples: int, prompts: int, seed: int, track: Track
) -> tuple[dict[str, list[list[str]]], Divergences | None]:
    """New texts of the reference and of each member to the first held-out prompts, with seeds of their own, and the divergences."""
    base = read_base(run.context(run.folder))
    ids = run.portfolio.ids
    adapters = {name: run.folder / "train" / name for name in ids}
    members = Members(base, adapters, base_model=base_name(run.folder / "base")) if ids else None
    policies: dict[str, Policy] = {"reference": members.reference if members else lambda: contextlib.nullcontext(base)}
    for name in ids:
        policies[name] = partial(members.policy, name)  # type: ignore[union-attr]
    chosen = run.candidates.prompts[:prompts]
    encoded = [encode_prompt(base.tokenizer, prompt) for prompt in chosen]
    texts, written = {}, {}
    try:
        for name, policy in policies.items():
            with policy() as model, track(f"sampling {name}", None):
                drawn = sample_responses(
                    model,
                    chosen,
                    count=samples,
                    batch_size=run.config.candidates.batch_size,
                    max_new_tokens=run.config.candidates.max_new_tokens,
                    seed=derive_seed(seed, "evaluate", name),
                )
            texts[name] = [[sample.text for sample in row] for row in drawn]
            written[name] = [[(prompt, sample.token_ids) for sample in row] for prompt, row in zip(encoded, drawn, strict=True)]
        return texts, pairwise_kl(policies, written, track=track) if members else None
    finally:
        if members:
            members.close()


def model_kernel(source: str) -> Kernel:
    """How alike texts are by the mean of a language model's last hidden states."""
    from palm.features.encode import load_encoder

    encoder = load_encoder(source, pooling="mean")
    return lambda texts: feature_kernel(np.asarray(encoder.encode([("", text) for text in texts])[0], dtype=np.float64))


def coverage_lines(record: dict[str, Any]) -> list[str]:
    """Coverage for people."""
    return [
        f"Coverage, measured on {record['prompts']} held-out prompts; {100 * record['level']:g} % intervals over prompts",
        "",
        *markdown_table(record["rows"]),
        "",
        f"Finitely many candidates put the optimum at the worst weight off by about {record['candidate_bias']:+.4f}; "
        "gaps are too small by that much where it is negative.",
    ]


def diversity_lines(record: dict[str, Any]) -> list[str]:
    """Diversity for people."""
    serving = [{"over": row["over"], "members used": row["perplexity"], **row["share"]} for row in record["serving"]]
    lines = ["Whom each member serves best: shares, and how many members are used, in effect", "", *markdown_table(serving)]
    seeds = "; the pool's responses that each favours most" if record["pool"] else ""
    seeds = seeds if record["independent"] or record["pool"] else "; drawn with the same seeds for all, which hides differences"
    lines += ["", f"Texts (Vendi score by {record['features']}){seeds}", "", *markdown_table(record["writing"]["policies"])]
    if record["writing"]["between"] is not None:
        lines += ["", "Policies' texts against each other; what is above `if_same` is no accident", ""]
        lines += markdown_table([rounded(record["writing"]["between"])])
    if record["divergence"] is not None:
        found = record["divergence"]
        table = Divergences(
            tuple(found["ids"]), np.array(found["kl"]), np.array(found["error"]), found["prompts"], found["samples"]
        )
        lines += ["", f"Divergence in nats, {found['samples']} new responses to each of {found['prompts']} prompts", ""]
        lines += markdown_table(table.rows())
    return lines
