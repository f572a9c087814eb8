"""A run's portfolio beside what else could be done with the same candidates, prompts and trained adapters.

The portfolio gives each test weight the member that is best for it by what was measured; `palm.pipeline.baseline_families` has
the others. Of a few policies that serve everyone, the portfolio among them, the worst gap over the whole simplex is exact on the
held-out prompts; a policy for every weight has no such certificate.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from palm.artifacts import digest
from palm.evaluation.intervals import bootstrap_mean
from palm.evaluation.measure import gap_interval, on_prompts
from palm.pipeline.baseline_families import MAKERS, Made, Setting, best_of_few
from palm.pipeline.config import as_record
from palm.pipeline.data_stages import read_base
from palm.pipeline.finished import FinishedRun
from palm.pipeline.plan_stages import POOL, oracle_for
from palm.pipeline.runner import PipelineError
from palm.progress import Track, silent
from palm.seeds import derive_seed

FAMILIES = tuple(MAKERS)
DEFAULT = FAMILIES[:6]


def compare_baselines(
    run: FinishedRun, *, weights: int = 8, families: Sequence[str] = DEFAULT, most: int = 16, seed: int = 0, track: Track = silent
) -> dict[str, Any]:
    """Measure baselines at test weights and compare each with the portfolio, paired over prompts.

    Args:
        run: whose policies were measured on their own samples.
        weights: how many test weights: the certificate's worst one, the users' mean, and users' own.
        families: out of `FAMILIES`.
        most: largest n of best-of-n.
        seed: of the choice of users.

    Returns:
        for every family: trained adapters, what serving costs, utility as a share of what could be gained (mean and worst over the
        test weights), how much less than the portfolio it gains, and for few policies the measured gap and captured gain at the
        worst of all weights, with intervals over prompts.

    Raises:
        PipelineError: the run's candidates are a pool, so that nothing was sampled, or it has no policies.
        ValueError: a family is not known or a number is out of range.
    """
    unknown = sorted(set(families) - set(FAMILIES))
    if unknown:
        raise ValueError(f"families: expected names out of {', '.join(FAMILIES)}, got {unknown[0]!r}")
    for name, value in (("weights", weights), ("most", most)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    if run.config.candidates.source == POOL or not len(run.portfolio):
        raise PipelineError(f"{run.folder}: expected a run with trained policies and sampled candidates, got one without")
    context = run.context(run.folder / "evaluation" / "baselines" / _made_with(run), track=track)
    setting = Setting(run, context, read_base(context), weights_to_test(run, weights, seed))
    portfolio = best_of_few(setting, "portfolio", [run.measured(name) for name in run.portfolio.ids])
    found = [portfolio, *(made for family in dict.fromkeys(families) for made in MAKERS[family](setting, most))]
    return {
        "rows": [_row(setting, made, portfolio) for made in found],
        "weights": setting.weights.tolist(),
        "optimum": oracle_for(run.tensor, run.portfolio.kl).optimum(setting.weights).tolist(),
        "reference": (setting.weights @ run.portfolio.reference).tolist(),
        "prompts": len(run.tensor.rewards),
    }


def _made_with(run: FinishedRun) -> str:
    """A name for what the adapters depend on: a run that was made anew must not find the old ones."""
    contents = [manifest.content for name in ("base", "sample", "score", "plan", "train") if (manifest := run.manifest(name))]
    return digest({"contents": contents, "train": as_record(run.config.train), "seed": run.config.seed})[:16]


def weights_to_test(run: FinishedRun, count: int, seed: int) -> np.ndarray:
    """The weight where the portfolio is worst, the users' mean, and users' own, `count` in all."""
    chosen = [] if run.portfolio.certificate is None else [run.portfolio.certificate.worst_weight]
    if len(run.users):
        chosen.append(run.users.mean.mean(axis=0))
        rng = np.random.default_rng(derive_seed(seed, "test weights"))
        chosen += list(run.users.mean[rng.permutation(len(run.users))])
    return np.array(chosen[:count])


def _row(setting: Setting, made: Made, portfolio: Made) -> dict[str, Any]:
    run, kl, seed = setting.run, setting.run.portfolio.kl, setting.context.seed
    prompts = on_prompts(run.tensor, made.policies or [], kl)
    best, base = prompts.optimum(setting.weights).mean(axis=0), setting.weights @ prompts.reference.mean(axis=0)
    own, served = (
        np.array([policy.value @ w - kl * policy.kl for policy, w in zip(each.measured, setting.weights, strict=True)])  # (T, P)
        for each in (made, portfolio)
    )
    gain = own.mean(axis=1) - base
    share = gain / np.maximum(best - base, 1e-12)
    row = {
        "baseline": made.name,
        "adapters": made.adapters,
        "serving": made.serving,
        "gain": bootstrap_mean((own - setting.weights @ prompts.reference.T).mean(axis=0), seed=seed).record(),
        "share_of_gain": round(float(gain.sum() / max(float((best - base).sum()), 1e-12)), 4),
        "worst_share": round(float(share.min()), 4),
        "less_than_portfolio": bootstrap_mean((served - own).mean(axis=0), seed=seed).record(),
        "kl": round(float(np.mean([policy.kl.mean() for policy in made.measured])), 4),
    }
    if made.policies is None:
        return row
    gaps = gap_interval(prompts, draws=run.config.measure.draws, seed=seed)
    return row | {name: gaps[name].record() for name in ("epsilon", "captured_gain")}
