"""The world of the `fit` benchmark on disk: features as the pipeline keeps them, memory-mapped float16, and who judged what."""

from pathlib import Path
from typing import Any

import numpy as np

from palm.arrays import read_arrays, write_arrays
from palm.features.pairs import PairFeatures
from palm.features.store import open_features, write_index

HELD_OUT = 5
"""Pairs of each user that nothing is fitted on."""

_LATENT, _TASTE = 256, 32  # features move along so many directions, tastes are about the first ones


def write_world(folder: str, *, users: int, pairs: int, width: int, rank: int, texts: int | None, seed: int = 0) -> dict[str, Any]:
    """Features and judgements of users with planted weights on the simplex, in the store's format.

    Features are 256 factors with a spectrum like 1/i and as much white noise; rewards are linear in the first 32 factors.

    Args:
        folder: to write into.
        users, pairs: seen users, and pairs of each to fit on.
        width: d.
        rank: planted bases.
        texts: distinct texts; None: every pair has two of its own.
        seed: of everything.
    """
    rng, each = np.random.default_rng(seed), pairs + HELD_OUT
    n = users * each
    count = 2 * n if texts is None else texts
    latent, taste = min(_LATENT, width), min(_TASTE, width)
    spread = (1.0 + np.arange(latent)) ** -0.5
    mix = (rng.standard_normal((latent, width)) * (spread / np.linalg.norm(spread))[:, None]).astype(np.float32)
    directions = np.linalg.qr(rng.standard_normal((taste, max(rank, taste))))[0][:, :rank]
    rewards = np.empty((count, rank))
    shards: list[dict[str, Any]] = []
    for start in range(0, count, 10_000):
        factors = rng.standard_normal((min(10_000, count - start), latent), dtype=np.float32)
        noise = rng.standard_normal((len(factors), width), dtype=np.float32)
        rewards[start : start + len(factors)] = factors[:, :taste] @ directions
        name = f"features-{len(shards):05d}.safetensors"
        write_arrays(Path(folder) / name, {"features": ((factors @ mix + noise) / np.sqrt(2)).astype(np.float16)})
        shards.append({"file": name, "rows": len(factors)})
    write_index(Path(folder), shards=shards, width=width, scored=False, settings={"seed": seed})
    if texts is None:
        first, second = rng.permutation(count).reshape(2, n)
    else:
        first = rng.integers(count, size=n)
        second = (first + rng.integers(1, count, size=n)) % count
    user = np.repeat(np.arange(users), each)
    weights = rng.dirichlet(np.full(rank, 0.1), size=users)
    logit = 3.0 * ((rewards[first] - rewards[second]) * weights[user]).sum(axis=1)
    wins = rng.random(n) < 1 / (1 + np.exp(-logit))
    found = {"user": user, "chosen": np.where(wins, first, second), "rejected": np.where(wins, second, first)}
    write_arrays(Path(folder) / "pairs.safetensors", {**found, "held_out": (np.arange(n) % each >= pairs).astype(np.int64)})
    return {"oracle": float(((logit > 0) == wins).mean())}


def read_world(folder: str, users: int | None = None) -> tuple[PairFeatures, PairFeatures]:
    """Pairs to fit on and pairs held out, of the first `users` users; features are memory-mapped."""
    pairs, items = read_arrays(Path(folder) / "pairs.safetensors"), open_features(Path(folder))[0]
    made = PairFeatures.from_items(np.char.mod("u%06d", pairs["user"]), items, pairs["chosen"], pairs["rejected"])
    some = np.ones(len(made), dtype=bool) if users is None else pairs["user"] < users
    return made.select(some & (pairs["held_out"] == 0)), made.select(some & (pairs["held_out"] == 1))
