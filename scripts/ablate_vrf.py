#!/usr/bin/env python3
"""VRF without one part at a time, on planted data: what each part of the published loss gives.

    python scripts/ablate_vrf.py
    python scripts/ablate_vrf.py --users 100 --pairs 20 --seeds 3 --steps 300

Every seed is a world of its own (scripts/benchmarks/planted.py) and a training of its own; all variants see the same worlds.
Accuracy is the mean over users on pairs held out, `seen` users known from all of their training pairs and `unseen` ones from 10.
`gain` is the variant minus the full model, seed by seed, with a 95 % Student interval over seeds. Prints a table and one JSON line.
"""

import argparse
import json
import time
from typing import Any

import numpy as np
from benchmarks.over_seeds import cell, over_seeds
from benchmarks.planted import World, plant
from benchmarks.table import print_table

from palm.evaluation import accuracy
from palm.rewards import VRF

VARIANTS: dict[str, dict[str, bool]] = {
    "full": {},
    "no VBT: plain Bradley-Terry": {"uncertain": False},
    "no SEP: bases not pushed apart": {"separation": False},
    "no REG: users not drawn to the bases": {"regulariser": False},
    "no MoG prior: standard normal": {"mixture": False},
    "no PoG: mean of the pairs": {"product": False},
}
"""What is switched off in each."""

PARTS = ("seen", "unseen")


def measure(world: World, options: dict[str, Any], seed: int) -> dict[str, float]:
    """Accuracy of one training for seen and unseen users."""
    model = VRF(**options).fit(world.train, seed=seed)
    unseen = accuracy(model, world.unseen_test, model.infer(world.context))
    return {"seen": accuracy(model, world.seen_test, model.seen).overall.mean, "unseen": unseen.overall.mean}


def ablate(worlds: list[World], options: dict[str, Any]) -> list[dict[str, Any]]:
    """A row per variant: accuracy in every world, and the gain over the full model with its interval."""
    found = {}
    for name, change in VARIANTS.items():
        start = time.perf_counter()
        runs = [measure(world, {**options, **change}, seed) for seed, world in enumerate(worlds)]
        found[name] = {part: np.array([run[part] for run in runs]) for part in PARTS}, time.perf_counter() - start
    rows = []
    for name, (values, taken) in found.items():
        row: dict[str, Any] = {"variant": name, "seconds": round(taken, 1)}
        for part in PARTS:
            row[part] = over_seeds(values[part])
            row[f"{part} gain"] = over_seeds(values[part] - found["full"][0][part])
        rows.append(row)
    return rows


def _for_people(row: dict[str, Any]) -> dict[str, Any]:
    cells = {"variant": row["variant"]}
    for part in PARTS:
        cells[part] = f"{row[part]['mean']:.3f}"
        cells[f"{part} gain"] = "" if row["variant"] == "full" else cell(row[f"{part} gain"], sign="+")
    return {**cells, "s": row["seconds"]}


def main() -> None:
    """Plant the worlds, train every variant in each, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=500, help="seen users (default: 500)")
    parser.add_argument("--pairs", type=int, default=40, help="of each seen user (default: 40)")
    parser.add_argument("--width", type=int, default=64, help="d (default: 64)")
    parser.add_argument("--bases", type=int, default=4, help="planted (default: 4)")
    parser.add_argument("--rank", type=int, default=8, help="bases of VRF (default: 8)")
    parser.add_argument("--steps", type=int, default=1000, help="of training (default: 1000)")
    parser.add_argument("--seeds", type=int, default=5, help="worlds, each with a training (default: 5)")
    options = parser.parse_args()
    for name, least in (("users", 2), ("pairs", 2), ("width", 2), ("bases", 1), ("rank", 1), ("steps", 1), ("seeds", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name}: expected at least {least}, got {getattr(options, name)}")
    if options.bases > options.width:
        parser.error(f"--bases: expected at most --width {options.width}, got {options.bases}")
    size = {name: getattr(options, name) for name in ("users", "pairs", "width", "bases")}
    rows = ablate([plant(**size, seed=seed) for seed in range(options.seeds)], {"rank": options.rank, "steps": options.steps})
    print_table([_for_people(row) for row in rows])
    print(json.dumps({**vars(options), "rows": rows}))


if __name__ == "__main__":
    main()
