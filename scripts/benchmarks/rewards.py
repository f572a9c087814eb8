"""rewards: every method of palm.rewards.METHODS on one planted world of pair features (benchmarks.planted).

Accuracy is the mean over users on pairs held out, with a 95 % interval over users: `seen` users are those of the fit, `unseen@10`
are inferred from 10 pairs each. `Reference` is the mean of the true basis rewards; `Given` gets these as features: only users are
left to learn. `truth` is the accuracy of the true margins, which no model can beat but by luck. Every method has its defaults; none
is told how many bases were planted. `adapt_ms` is the time per user to infer all unseen users at once. Times are processor seconds
of a process of its own; torch is imported before the clock starts, where a method needs it.
"""

import time
from typing import Any

import numpy as np
from benchmarks.apart import apart
from benchmarks.planted import World, plant

from palm.evaluation import accuracy, bootstrap_mean
from palm.features.pairs import PairFeatures
from palm.rewards import METHODS

TRAINED = ("PAL", "VPL", "VRF")
"""Methods that are trained by steps."""


def bench_rewards(
    *, users: int, pairs: int, width: int, bases: int, methods: list[str] | None = None, steps: int | None = None
) -> list[dict[str, Any]]:
    """A row per method, and one for the truth.

    Args:
        users, pairs: seen users, and pairs of each to fit on.
        width, bases: d and K.
        methods: names; all by default.
        steps: of `TRAINED`, other than their own.
    """
    size = {"users": users, "pairs": pairs, "width": width, "bases": bases, "seed": 0}
    rows = [apart(_measure, name, size, steps) for name in methods or METHODS]
    world = plant(**size)
    return [*rows, {"method": "truth", "seen": _truth(world, world.seen_test), "unseen@10": _truth(world, world.unseen_test)}]


def _measure(name: str, size: dict[str, int], steps: int | None) -> dict[str, Any]:
    world = plant(**size)
    parts = [world.train, world.seen_test, world.context, world.unseen_test]
    if name == "Given":
        rewards = world.train.items.project(world.directions)
        parts = [PairFeatures.from_items(part.user, rewards, part.chosen_row, part.rejected_row) for part in parts]
    train, seen_test, context, unseen_test = parts
    options = {"steps": steps} if steps is not None and name in TRAINED else {}
    if name in TRAINED:
        import torch

        torch.optim.Adam([torch.zeros(1, requires_grad=True)]).step()  # loads what its first step needs
    start = time.process_time()
    model = METHODS[name](**options).fit(train, seed=0)
    fitted = time.process_time()
    unseen = model.infer(context)
    adapted = time.process_time()
    seen = model.users if model.users is not None else model.infer(train)
    return {
        "method": "Given (true basis)" if name == "Given" else name,
        "seen": accuracy(model, seen_test, seen).overall.record(),
        "unseen@10": accuracy(model, unseen_test, unseen).overall.record(),
        "fit_s": round(fitted - start, 2),
        "adapt_ms": round(1e3 * (adapted - fitted) / len(context.ids), 4),
    }


def _truth(world: World, pairs: PairFeatures) -> dict[str, float]:
    right = (world.truth(pairs) > 0).astype(np.float64)
    return bootstrap_mean(np.bincount(pairs.code, right) / np.bincount(pairs.code)).record()
