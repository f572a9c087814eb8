#!/usr/bin/env python3
"""Performance claims, as ratios measured in one run against the obvious alternative. Prints a table and one JSON line.

    python scripts/bench.py train    # k members together, against k separate TRL runs of the same steps
    python scripts/bench.py generate # texts of k members in mixed batches, against one member after another
    python scripts/bench.py steps    # a step of soft-label training: layouts and heads
    python scripts/bench.py adapt    # users' weights from a few pairs each, against a loop of Adam steps per user
    python scripts/bench.py fit      # LoRe's fit, against the published full-batch procedure
    python scripts/bench.py rewards  # every reward model on one planted world: accuracy, time, memory
    python scripts/bench.py plan     # solves, seconds and policies of portfolio plans, against grids and a textbook search

What each compares, and with what, is in scripts/benchmarks/.
"""

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.table import print_table

from palm.commands.guarded import quiet
from palm.rewards import METHODS

MODEL_SIZES = ("small", "big", "half")
PLAN_SECTIONS = ("solves", "seconds", "fewest", "speed", "quality", "fresh", "bounds", "growth")


def main() -> None:
    """Run the benchmark that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    benches = parser.add_subparsers(dest="what", required=True)
    train = benches.add_parser("train", help="k members together, against k separate TRL runs of the same steps")
    train.add_argument("--members", type=_at_least(1), nargs="+", default=[1, 2, 4, 8, 16], help="k (default: 1 2 4 8 16)")
    train.add_argument("--size", choices=MODEL_SIZES, default="small", help="1M, 17M or 596M parameters (default: small)")
    train.add_argument("--pieces", type=_at_least(1), default=1, help="of about 35 tokens in a response (default: 1)")
    train.add_argument("--steps", type=_at_least(10), default=60, help="optimiser steps of each policy (default: 60)")
    train.add_argument("--batch", type=_at_least(1), default=8, help="pairs a step (default: 8)")
    train.add_argument("--separate", type=_at_least(1), default=3, help="separate runs that are timed (default: 3)")
    generate = benches.add_parser("generate", help="texts of k members in mixed batches, against one member after another")
    generate.add_argument("--members", type=_at_least(1), nargs="+", default=[1, 2, 4, 8, 16], help="k (default: 1 2 4 8 16)")
    generate.add_argument("--size", choices=MODEL_SIZES, default="small", help="1M, 17M or 596M parameters (default: small)")
    generate.add_argument("--texts", type=_at_least(1), default=64, help="wanted at a time, of all members (default: 64)")
    generate.add_argument("--new-tokens", type=_at_least(1), default=64, help="longest text (default: 64)")
    generate.add_argument("--rounds", type=_at_least(1), default=3, help="timed (default: 3)")
    steps = benches.add_parser("steps", help="a step of soft-label training: layouts and heads")
    steps.add_argument("--responses", type=_at_least(2), nargs="+", default=[8, 16, 32], help="sizes of a group (default: 8 16 32)")
    steps.add_argument("--rounds", type=_at_least(1), default=40, help="groups timed for each size (default: 40)")
    adapt = benches.add_parser("adapt", help="users' weights from a few pairs each, against a loop of Adam steps per user")
    adapt.add_argument("--pairs", type=_at_least(1), default=9, help="of each user (default: 9)")
    adapt.add_argument("--bases", type=_at_least(2), default=8, help="K (default: 8)")
    sizes = [1000, 10_000, 100_000, 1_000_000]
    adapt.add_argument("--users", type=_at_least(1), nargs="+", default=sizes, help="at a time (default: 10^3 to 10^6)")
    adapt.add_argument("--loop-users", type=_at_least(1), default=20, help="users that the loop is timed on (default: 20)")
    fit = benches.add_parser("fit", help="LoRe's fit, against the published full-batch procedure")
    fit.add_argument("--users", type=_at_least(8), default=1000, help="seen users (default: 1000)")
    fit.add_argument("--pairs", type=_at_least(4), default=45, help="of each user (default: 45)")
    fit.add_argument("--width", type=_at_least(8), default=4096, help="d (default: 4096)")
    fit.add_argument("--rank", type=_at_least(2), default=5, help="K (default: 5)")
    fit.add_argument("--texts", type=_at_least(2), default=500, help="distinct texts where they repeat (default: 500)")
    fit.add_argument("--worlds", nargs="+", choices=["own", "repeated"], default=["own", "repeated"], help="(default: both)")
    fit.add_argument("--steps", type=_at_least(1), default=1000, help="of the published procedure (default: 1000, as published)")
    rewards = benches.add_parser("rewards", help="every reward model on one planted world: accuracy, time, memory")
    rewards.add_argument("--users", type=_at_least(2), default=500, help="seen users (default: 500)")
    rewards.add_argument("--pairs", type=_at_least(2), default=40, help="of each user (default: 40)")
    rewards.add_argument("--width", type=_at_least(2), default=64, help="d (default: 64)")
    rewards.add_argument("--bases", type=_at_least(1), default=4, help="planted (default: 4)")
    rewards.add_argument("--methods", nargs="+", choices=METHODS, help="some of them (default: all)")
    rewards.add_argument("--steps", type=_at_least(1), help="of PAL, VPL and VRF (default: their own)")
    plan = benches.add_parser("plan", help="solves, seconds and policies of portfolio plans, against grids and a textbook search")
    plan.add_argument("--sections", nargs="+", choices=PLAN_SECTIONS, default=list(PLAN_SECTIONS), help="(default: all)")
    plan.add_argument("--bases", type=_at_least(2), nargs="+", default=[2, 3, 4], help="K, but in seconds (default: 2 3 4)")
    plan.add_argument(
        "--epsilons", type=float, nargs="+", default=[0.1, 0.05, 0.02, 0.01], help="in solves (default: .1 .05 .02 .01)"
    )
    plan.add_argument("--tensors", type=_at_least(1), default=20, help="in solves, quality, fresh and bounds (default: 20)")
    plan.add_argument("--prompts", type=_at_least(1), default=300, help="P (default: 300)")
    plan.add_argument("--candidates", type=_at_least(2), default=64, help="N (default: 64)")
    plan.add_argument("--plots", type=Path, metavar="FOLDER", help="write a picture of quality there, as SVG (needs Matplotlib)")
    plan.add_argument("--most-bases", type=_at_least(2), default=12, help="largest K in seconds and growth (default: 12)")
    arguments = parser.parse_args()
    quiet()
    facts: dict[str, Any] = {}
    if arguments.what == "train":
        from benchmarks.train import bench_train

        sizes = (arguments.size, arguments.members, arguments.steps, arguments.batch, arguments.separate, arguments.pieces)
        rows, facts = bench_train(*sizes)
        print(f"{arguments.separate} separate runs were timed; their mean counts k times.")
    elif arguments.what == "generate":
        from benchmarks.generate import bench_generate

        rows, facts = bench_generate(arguments.size, arguments.members, arguments.texts, arguments.new_tokens, arguments.rounds)
    else:
        rows = _run(arguments)
    print_table(rows)
    if getattr(arguments, "plots", None):
        from benchmarks.plan_plots import save_quality

        print("\n".join(f"written: {path}" for path in save_quality(rows, arguments.plots)))
    import torch  # not above: the processes that measure something import this file, and torch is half of their memory

    machine = {"cpu": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__, "numpy": np.__version__}
    print(json.dumps({"bench": arguments.what, **machine, **facts, "rows": rows}))


def _run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    if arguments.what == "steps":
        from benchmarks.steps import bench_steps

        return bench_steps(arguments.responses, arguments.rounds)
    if arguments.what == "fit":
        from benchmarks.fit import bench_fit

        sizes = ("users", "pairs", "width", "rank", "texts", "steps", "worlds")
        return bench_fit(**{name: getattr(arguments, name) for name in sizes})
    if arguments.what == "rewards":
        from benchmarks.rewards import bench_rewards

        names = ("users", "pairs", "width", "bases", "methods", "steps")
        return bench_rewards(**{name: getattr(arguments, name) for name in names})
    if arguments.what == "plan":
        from benchmarks.plan import bench_plan

        names = ("sections", "bases", "epsilons", "tensors", "prompts", "candidates", "most_bases")
        return bench_plan(**{name: getattr(arguments, name) for name in names})
    from benchmarks.adapt import bench_adapt

    return bench_adapt(pairs=arguments.pairs, bases=arguments.bases, sizes=sorted(arguments.users), loop_users=arguments.loop_users)


def _at_least(least: int) -> Any:
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"expected at least {least}, got {value}")
        return value

    return number


if __name__ == "__main__":
    main()
