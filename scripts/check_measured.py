#!/usr/bin/env python3
"""Do the intervals of measured values hold? What policies write is drawn again and again from a large sample of it.

    python scripts/check_measured.py runs/planted
    python scripts/check_measured.py runs/planted --prompts 40 --samples 2 --repeats 1000

Every member of a finished run answers all the run's prompts, those it was trained on and those held out, `--world` times each.
From that world, of which everything is known, as many prompts as the run held out are drawn with replacement, and for each as many
of its responses as the measure stage takes; J of every basis reward, the KL divergence and the utility at the member's own weight
are measured as that stage measures them. `truth` is the same over the whole world; `holds` the share of repetitions whose 95 %
interval has it, and `width` the interval's median width.

RUN/evaluation/check-measured keeps what was written: a second call only draws. Prints a table and one JSON line; the exit status
is 1 if a share is below 93 % by more than chance explains (a one-sided binomial test at 1 in 1,000 for each row).
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.table import print_table
from scipy.stats import binom

from palm.artifacts import ArtifactError
from palm.commands.guarded import quiet
from palm.evaluation.intervals import Estimate, bootstrap_mean
from palm.evaluation.measure import from_samples
from palm.pipeline.data_stages import base_name, read_base
from palm.pipeline.finished import FinishedRun
from palm.pipeline.plan_stages import read_candidates
from palm.pipeline.policy_texts import ScoredTexts, write_and_score
from palm.policies.adapters import Members
from palm.progress import bars
from palm.seeds import derive_seed

_LEAST = 0.93


def write_world(run: FinishedRun, size: int, *, seed: int) -> dict[str, ScoredTexts]:
    """What each member answers to all prompts of a run, `size` times."""
    prompts = [*read_candidates(run.folder / "sample", "plan").prompts, *run.candidates.prompts]
    context = run.context(run.folder / "evaluation" / "check-measured" / f"{size}-{seed}", track=bars)
    adapters = {name: run.folder / "train" / name for name in run.portfolio.ids}
    members = Members(read_base(context), adapters, base_model=base_name(run.folder / "base"))
    made = {
        name: write_and_score(context, members, name, prompts, count=size, seed=derive_seed(seed, "world")) for name in adapters
    }
    members.close()
    return made


def statistics(
    texts: tuple[np.ndarray, np.ndarray, np.ndarray], samples: int, weight: np.ndarray, kl: float
) -> dict[str, Estimate]:
    """What the measure stage states of a policy: J, KL, utility at a weight."""
    basis, divergence, ratio = (part.reshape(-1, *part.shape[2:]) for part in texts)
    found = from_samples(basis, divergence, samples, log_ratio=ratio)
    stated = {f"J{k + 1}": bootstrap_mean(column) for k, column in enumerate(found.value.T)}
    return stated | {"KL": bootstrap_mean(found.kl), "utility": found.utility(weight, kl)}


def check(
    world: ScoredTexts, weight: np.ndarray, kl: float, *, prompts: int, samples: int, repeats: int, seed: int
) -> dict[str, Any]:
    """By statistic: truth, share of intervals that hold it, median width."""
    size = len(world.texts[0])
    parts = tuple(part.reshape(len(world.texts), size, *part.shape[1:]) for part in (world.basis, world.kl, world.log_ratio))
    truth = statistics(parts, size, weight, kl)
    rng = np.random.default_rng(derive_seed(seed, "draws"))
    drawn = []
    for _ in range(repeats):
        chosen = rng.integers(len(world.texts), size=prompts)[:, None]
        order = rng.permuted(np.tile(np.arange(size), (prompts, 1)), axis=1)[:, :samples]
        drawn.append(statistics(tuple(part[chosen, order] for part in parts), samples, weight, kl))
    return {
        name: {
            "truth": exact.mean,
            "holds": float(np.mean([one[name].low <= exact.mean <= one[name].high for one in drawn])),
            "width": float(np.median([one[name].high - one[name].low for one in drawn])),
        }
        for name, exact in truth.items()
    }


def main() -> int:
    """Write the world, draw from it, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--world", type=int, default=16, help="responses to every prompt (default: 16)")
    parser.add_argument("--prompts", type=int, help="of one repetition (default: as many as the run held out)")
    parser.add_argument("--samples", type=int, help="responses to each (default: the run's measure.samples)")
    parser.add_argument("--repeats", type=int, default=200, help="(default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of what is written and drawn (default: 0)")
    options = parser.parse_args()
    quiet()
    try:
        run = FinishedRun.read(options.run)
        prompts, samples = options.prompts or len(run.candidates.prompts), options.samples or run.config.measure.samples
        for name, value, most in (
            ("prompts", prompts, np.inf),
            ("samples", samples, options.world),
            ("repeats", options.repeats, np.inf),
        ):
            if not 1 <= value <= most:
                raise ValueError(f"--{name}: expected 1 to {most}, got {value}")
        if not len(run.portfolio):
            raise ValueError(f"{options.run}: expected a run with trained policies, got none")
        world = write_world(run, options.world, seed=options.seed)
    except (ArtifactError, OSError, ValueError) as error:
        parser.error(str(error))
    rows, low = [], 0
    draw = {"prompts": prompts, "samples": samples, "repeats": options.repeats, "seed": options.seed}
    for weight, (name, written) in zip(run.portfolio.weights, world.items(), strict=True):
        for statistic, found in check(written, weight, run.portfolio.kl, **draw).items():
            low += binom.cdf(round(found["holds"] * options.repeats), options.repeats, _LEAST) < 1e-3
            rows.append({"member": name, "statistic": statistic, **found})
    print_table([{key: f"{value:.4f}" if isinstance(value, float) else value for key, value in row.items()} for row in rows])
    mean = float(np.mean([row["holds"] for row in rows]))
    print(json.dumps({"run": str(options.run), **draw, "world": options.world, "holds": mean, "rows": rows, "too_low": int(low)}))
    return int(low > 0)


if __name__ == "__main__":
    sys.exit(main())
