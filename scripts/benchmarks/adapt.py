"""adapt: users' weights inferred from a few pairs each, per second.

The obvious alternative is LoRe's published way, written from its description (arXiv 2504.14439): for one user after the other,
w ~ N(0, 1) and 500 steps of Adam on the loss of softmax(w), with torch. Ours: Newton's method on the simplex for all users in one
batch, with a population prior and a covariance, which the loop does not give. Both see the same pair scores.
"""

import resource
import time
from typing import Any

import numpy as np
import torch

from palm.features.pairs import PairFeatures
from palm.rewards.simplex_users import Population, infer_weights
from palm.rewards.vrf import VRF


def published_loop(scores: np.ndarray, *, steps: int = 500, rate: float = 0.5, seed: int = 0) -> np.ndarray:
    """(U, K) weights of users with (U, n, K) pair scores, one user at a time."""
    generator, weights = torch.Generator().manual_seed(seed), []
    for own in torch.from_numpy(scores):
        logits = torch.randn(own.shape[1], generator=generator, dtype=own.dtype).requires_grad_()
        adam = torch.optim.Adam([logits], lr=rate)
        for _ in range(steps):
            adam.zero_grad()
            torch.nn.functional.softplus(-own @ torch.softmax(logits, dim=0)).mean().backward()
            adam.step()
        weights.append(torch.softmax(logits, dim=0).detach().numpy())
    return np.array(weights)


def judged(users: int, pairs: int, bases: int, seed: int = 0) -> np.ndarray:
    """(users, pairs, bases) scores of pairs as users with random weights judged them."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(users, pairs, bases)) * 2
    margin = np.einsum("unk,uk->un", scores, rng.dirichlet(np.full(bases, 0.3), size=users))
    return scores * np.where(rng.random((users, pairs)) < 1 / (1 + np.exp(-margin)), 1, -1)[:, :, None]


def bench_adapt(*, pairs: int, bases: int, sizes: list[int], loop_users: int) -> list[dict[str, Any]]:
    """Users per second of the loop, of ours at growing numbers of users, and of VRF's encoder from cached features."""
    published_loop(judged(1, pairs, bases), steps=5)  # torch's first use is not the loop's
    start = time.perf_counter()
    published_loop(judged(loop_users, pairs, bases))
    slow = loop_users / (time.perf_counter() - start)
    rows: list[dict[str, Any]] = [
        {"way": "loop of 500 Adam steps", "users": loop_users, "users_per_s": round(slow, 1), "ratio": 1.0}
    ]
    prior = Population.flat(bases)
    for users in sizes:
        scores = judged(users, pairs, bases).reshape(-1, bases)
        code = np.repeat(np.arange(users), pairs)
        start = time.perf_counter()
        infer_weights(scores, code, users, prior)
        taken = time.perf_counter() - start
        rows.append(_row("ours, with covariance", users, taken, slow))
    rows.append(_vrf(min(sizes[-1], 100_000), pairs, bases, slow))
    return rows


def _vrf(users: int, pairs: int, bases: int, slow: float) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    items = rng.standard_normal((20_000, 256)).astype(np.float32)
    code = np.repeat(np.arange(users), pairs)
    made = PairFeatures.from_items(
        np.char.mod("u%06d", code), items, rng.integers(20_000, size=len(code)), rng.integers(20_000, size=len(code))
    )
    model = VRF(rank=bases, steps=1).fit(made.select(np.arange(min(2000, len(made)))))
    start = time.perf_counter()
    model.infer(made)
    return _row("VRF, d = 256", users, time.perf_counter() - start, slow)


def _row(way: str, users: int, taken: float, slow: float) -> dict[str, Any]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "way": way,
        "users": users,
        "seconds": round(taken, 3),
        "users_per_s": round(users / taken),
        "ratio": round(users / taken / slow),
        "peak_gib": round(peak, 2),
    }
