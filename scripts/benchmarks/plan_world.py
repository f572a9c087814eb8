"""Reward tensors that plans are compared on, the same for the same seed.

Rewards are a logistic function of normal numbers: one for the candidate and one for the prompt, which all of its candidates
share. "balanced": every basis has the same spread. "uneven": the spread of basis k falls geometrically from 1 to 0.03 of that, so
that OPT bends strongly along few directions and hardly along the others.
"""

import numpy as np

WORLDS = ("balanced", "uneven")
KL = 0.1
LEAST_SPREAD = 0.03


def plan_world(name: str, seed: int, bases: int, *, prompts: int = 300, candidates: int = 64) -> np.ndarray:
    """(P, N, K) rewards in [0, 1] of a world named in `WORLDS`."""
    if name not in WORLDS:
        raise ValueError(f"name: expected one of {', '.join(WORLDS)}, got {name!r}")
    rng = np.random.default_rng([seed, bases])
    own, shared = rng.normal(size=(prompts, candidates, bases)), rng.normal(size=(prompts, 1, bases))
    rewards = 1 / (1 + np.exp(-own - shared))
    spread = np.ones(bases) if name == "balanced" else np.geomspace(1, LEAST_SPREAD, bases)
    scaled: np.ndarray = 0.5 + (rewards - 0.5) * spread
    return scaled
