#!/usr/bin/env python3
"""Do the regions that posteriors state hold what they say? Planted worlds, unseen users, by the number of pairs they gave.

    python scripts/evaluate_regions.py
    python scripts/evaluate_regions.py --methods LoRe:rank=4 --shots 0 5 50 --level 0.5

`weights` is the share of unseen users whose true weight lies in their region, with the true bases known and the prior learned
from the seen users. Bases that are learned can be turned freely, so for every method the share of held-out pairs is given whose
true logit lies in its interval: a method that has to learn its bases falls short of the level by what it does not know of them.
Worlds as in scripts/benchmarks/planted.py: d 64, K 4, 500 seen users with 40 pairs each, 400 unseen. Intervals are 95 % Student
over seeds, each a world of its own (one seed has none). Prints a table and one JSON line.
"""

import argparse
import json
from collections import defaultdict
from typing import Any

import numpy as np
from benchmarks.over_seeds import cell, over_seeds
from benchmarks.planted import plant
from benchmarks.table import print_table

from palm.evaluation import logit_coverage, region_coverage
from palm.evaluation.few_shot import rank_within_user
from palm.evaluation.methods import estimator
from palm.rewards.questions import ABLE
from palm.rewards.simplex_users import infer_weights
from palm.rewards.users import UserWeights


def coverage(methods: list[str], shots: list[int], *, level: float, seed: int, users: int = 500) -> dict[tuple[int, str], float]:
    """Shares by number of pairs and by what they are of, on one world."""
    world = plant(users=users, pairs=40, unseen=400, shots=max(1, *shots), seed=seed)
    models = {spec: estimator(spec).fit(world.train, seed=seed) for spec in methods}
    prior = world.oracle()[1]
    ids, rank = world.context.ids, rank_within_user(world.context, seed)
    code, truth = np.searchsorted(ids, world.unseen_test.user), world.truth(world.unseen_test)
    weights = world.weights[np.searchsorted(world.ids, ids)]
    found: dict[tuple[int, str], float] = {}
    for size in shots:
        told = world.context.select(np.flatnonzero(rank < size))
        place = np.searchsorted(ids, told.user)
        known = UserWeights(ids, *infer_weights(world.scores(told), place, len(ids), prior))
        found[size, "weights"] = region_coverage(known, weights, level=level)
        found[size, "logits, bases known"] = logit_coverage(world.scores(world.unseen_test), known, code, truth, level=level)
        for spec, model in models.items():
            inferred = model.infer(told, ids=ids)
            found[size, f"logits, {spec}"] = logit_coverage(
                model.pair_scores(world.unseen_test), inferred, code, truth, level=level
            )
    return found


def main() -> None:
    """Fit every world, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="*", default=["LoRe:rank=4", "PReF:rank=4", "VRF"], help="(default: LoRe, PReF, VRF)")
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 1, 3, 5, 10, 20, 50], help="(default: 0 1 3 5 10 20 50)")
    parser.add_argument("--level", type=float, default=0.9, help="of the regions (default: 0.9)")
    parser.add_argument("--users", type=int, default=500, help="seen (default: 500)")
    parser.add_argument("--seeds", type=int, default=5, help="worlds (default: 5)")
    options = parser.parse_args()
    if min(options.shots) < 0:
        parser.error(f"--shots: expected numbers of at least 0, got {min(options.shots)}")
    if not 0 < options.level < 1:
        parser.error(f"--level: expected a number between 0 and 1, got {options.level}")
    for name, least in (("users", 2), ("seeds", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name}: expected at least {least}, got {getattr(options, name)}")
    for spec in options.methods:
        if spec.partition(":")[0] not in ABLE or spec.startswith("Given"):
            parser.error(f"--methods: expected names out of {', '.join(name for name in ABLE if name != 'Given')}, got {spec!r}")
    runs: dict[tuple[int, str], list[float]] = defaultdict(list)
    try:
        for seed in range(options.seeds):
            shares = coverage(options.methods, options.shots, level=options.level, seed=seed, users=options.users)
            for key, share in shares.items():
                runs[key].append(share)
    except ValueError as error:
        parser.error(f"--methods: {error}")
    rows: list[dict[str, Any]] = [
        {"pairs": size} | {name: over_seeds(shares) for (at, name), shares in runs.items() if at == size}
        for size in dict.fromkeys(options.shots)
    ]
    print_table([{name: value if name == "pairs" else cell(value) for name, value in row.items()} for row in rows])
    print(json.dumps({**vars(options), "rows": rows}))


if __name__ == "__main__":
    main()
