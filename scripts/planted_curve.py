#!/usr/bin/env python3
"""How many users and pairs LoRe needs to find planted tastes: the angle to their subspace, and unseen users against an oracle.

    python scripts/planted_curve.py
    python scripts/planted_curve.py --users 50 500 --pairs 40 --seeds 3

Every user's reward lies in the span of the planted directions; the span of the fitted bases is compared with it by the largest
principal angle. Which directions of the span are the bases is not identifiable from judgements. The oracle knows the
directions and infers unseen users from the same 10 pairs, with the prior that the seen users' pairs give (see World.oracle in
scripts/benchmarks/planted.py); `gap` is its accuracy minus ours, in points, paired by seed. `truth` is the accuracy of the true
margins. One curve over users at `--at-pairs` each, one over pairs at `--at-users`. Intervals are 95 % Student over seeds; each
seed is a world of its own. `s` is the mean processor time of a fit. Prints a table and one JSON line.
"""

import argparse
import json
import time
from typing import Any

import numpy as np
from benchmarks.over_seeds import cell, over_seeds
from benchmarks.planted import World, plant
from benchmarks.table import print_table

from palm.evaluation import accuracy, basis_angles
from palm.rewards import LoRe


def measure(world: World, rank: int, seed: int) -> dict[str, float]:
    """One fit: angle in degrees, accuracies for unseen users, the penalties chosen, seconds."""
    start = time.process_time()
    model = LoRe(rank=rank).fit(world.train, seed=seed)
    taken = time.process_time() - start
    personal = model.details["personal_penalty"]
    return {
        "angle": float(basis_angles(model.directions, world.directions).max()),
        "ours": accuracy(model, world.unseen_test, model.infer(world.context)).overall.mean,
        "oracle": per_user(world.oracle()[0], world),
        "truth": per_user(world.truth(world.unseen_test), world),
        "penalty": model.details["penalty"],
        "personal_penalty": np.inf if personal is None else personal,
        "seconds": taken,
    }


def per_user(margin: np.ndarray, world: World) -> float:
    """Accuracy of margins for the unseen users' held-out pairs, every user counted once."""
    code = world.unseen_test.code
    right = (margin > 0) + 0.5 * (margin == 0)
    return float((np.bincount(code, right) / np.bincount(code)).mean())


def curve(sizes: list[tuple[int, int]], *, width: int, bases: int, unseen: int, seeds: int) -> list[dict[str, Any]]:
    """A row per number of users and of pairs."""
    rows = []
    for users, pairs in sizes:
        found = [
            measure(plant(users=users, pairs=pairs, width=width, bases=bases, unseen=unseen, seed=seed), bases, seed)
            for seed in range(seeds)
        ]
        value = {name: np.array([run[name] for run in found]) for name in found[0]}
        personal = value["personal_penalty"]
        rows.append(
            {
                "users": users,
                "pairs": pairs,
                "angle": over_seeds(value["angle"]),
                "ours": over_seeds(value["ours"]),
                "oracle": over_seeds(value["oracle"]),
                "gap": over_seeds(100 * (value["oracle"] - value["ours"])),
                "truth": over_seeds(value["truth"]),
                "penalties": sorted(set(value["penalty"].tolist())),
                "personal_penalties": sorted({None if np.isinf(each) else each for each in personal.tolist()}, key=str),
                "seconds": round(float(value["seconds"].mean()), 1),
            }
        )
    return rows


def _for_people(row: dict[str, Any]) -> dict[str, Any]:
    cells = {"users": row["users"], "pairs": row["pairs"], "angle": cell(row["angle"], 1), "ours": cell(row["ours"])}
    means = {name: f"{row[name]['mean']:.3f}" for name in ("oracle", "truth")}
    return {**cells, **means, "gap": cell(row["gap"], 2), "personal": row["personal_penalties"], "s": row["seconds"]}


def main() -> None:
    """Fit every size with every seed, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, nargs="*", default=[50, 100, 200, 500, 1000, 2000], help="(default: 50 to 2000)")
    parser.add_argument("--pairs", type=int, nargs="*", default=[10, 20, 40, 80, 160], help="(default: 10 to 160)")
    parser.add_argument("--at-users", type=int, default=500, help="where pairs vary (default: 500)")
    parser.add_argument("--at-pairs", type=int, default=40, help="where users vary (default: 40)")
    parser.add_argument("--width", type=int, default=64, help="d (default: 64)")
    parser.add_argument("--bases", type=int, default=4, help="planted, and of the fit (default: 4)")
    parser.add_argument("--unseen", type=int, default=400, help="unseen users (default: 400)")
    parser.add_argument("--seeds", type=int, default=5, help="worlds, each with a fit (default: 5)")
    options = parser.parse_args()
    sizes = [(users, options.at_pairs) for users in options.users] + [(options.at_users, pairs) for pairs in options.pairs]
    if not options.users + options.pairs:
        parser.error("--users, --pairs: expected at least one number, got none")
    for name, values, least in (("users", [size[0] for size in sizes], 2), ("pairs", [size[1] for size in sizes], 1)):
        if min(values) < least:
            parser.error(f"--{name}: expected at least {least}, got {min(values)}")
    for name, least in (("width", 2), ("bases", 1), ("unseen", 1), ("seeds", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name}: expected at least {least}, got {getattr(options, name)}")
    if options.bases > options.width:
        parser.error(f"--bases: expected at most --width {options.width}, got {options.bases}")
    size = {name: getattr(options, name) for name in ("width", "bases", "unseen", "seeds")}
    rows = curve(list(dict.fromkeys(sizes)), **size)
    print_table([_for_people(row) for row in rows])
    print(json.dumps({**vars(options), "rows": rows}))


if __name__ == "__main__":
    main()
