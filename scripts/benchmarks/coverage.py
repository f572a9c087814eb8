"""How often confidence bounds hold: prompts drawn from worlds whose true gaps are known, again and again."""

import time
from dataclasses import dataclass

import numpy as np

from palm.portfolio import GibbsOracle, OnPrompts, Portfolio, certify, confidence, optimal_on, plan_portfolio

POPULATION = 20_000
WORLDS = ("even", "rare", "coarse")
_SIDE = np.array([1, 1, -1])
_NAMES = ("epsilon", "delta", "captured_gain")


@dataclass(frozen=True)
class World:
    """A population of prompts that draws are made from with replacement, so that its own gaps are the true ones.

    Attributes:
        planned: on 200 prompts that are not among the population's.
        rewards: (20,000, 8, K).
        truth: (3,) epsilon, delta, captured gain over the population.
    """

    planned: Portfolio
    rewards: np.ndarray
    truth: np.ndarray


def make_world(kind: str, bases: int, seed: int, *, kl: float = 0.1, population: int = POPULATION) -> World:
    """A world of one kind.

    Args:
        kind: "even": prompts vary about alike. "rare": at nine prompts in ten the candidates hardly differ, at the tenth they do
            as much as they can, so that few prompts decide. "coarse": rewards are 0, 1/2 or 1.
        bases: K.
        seed: of the world.
        kl: coefficient of the KL cost.
        population: prompts that are drawn from.
    """
    rng = np.random.default_rng([101, WORLDS.index(kind), bases, seed])
    prompts = population + 200
    centre = rng.beta(0.8, 1.2, size=(prompts, 1, bases))
    if kind == "rare":
        spread = np.where(rng.random(prompts) < 0.1, 0.6, 0.05)[:, None, None]
    else:
        spread = np.full((prompts, 1, 1), 0.25)
    rewards = np.clip(centre + spread * rng.normal(size=(prompts, 8, bases)), 0, 1)
    if kind == "coarse":
        rewards = np.round(2 * rewards) / 2
    planned = plan_portfolio(GibbsOracle(rewards[:200], kl), epsilon=0.03 if kind == "rare" else 0.05)
    oracle = GibbsOracle(rewards[200:], kl)
    whole = certify(planned.revalued(oracle), oracle, search_bound=False)
    return World(planned, rewards[200:], np.array([getattr(whole, name) for name in _NAMES]))


def try_confidence(world: World, *, prompts: int, repeats: int, level: float, draws: int, seed: int) -> dict[str, object]:
    """Shares of repetitions in which bounds and intervals hold, and how far off they are.

    Args:
        world: drawn from.
        prompts: P of each repetition.
        repeats: of drawing.
        level: that is claimed.
        draws: of each bootstrap.
        seed: of the repetitions.

    Returns:
        for each of the three gaps the share of one-sided bounds (`bootstrap`, `bernstein`) and two-sided intervals that hold, how
        often the estimate itself is on the safe side, and the median bound.
    """
    began = time.process_time()
    bounds, exact, ends, middle = (np.empty((repeats, 3)) for _ in range(4))
    low = np.empty((repeats, 3))
    for repeat in range(repeats):
        rows = np.random.default_rng([seed, prompts, repeat]).integers(len(world.rewards), size=prompts)
        rewards = world.rewards[rows]
        on: OnPrompts = optimal_on(world.planned.weights, rewards, np.ones(rewards.shape[:2], dtype=bool), world.planned.kl)
        found = confidence(world.planned, on, level=level, draws=draws, seed=repeat)
        assert found.bernstein is not None
        for into, numbers in (
            (bounds, found.bootstrap),
            (exact, found.bernstein),
            (low, found.low),
            (ends, found.high),
            (middle, found.estimate),
        ):
            into[repeat] = [getattr(numbers, name) for name in _NAMES]
    inside = (low <= world.truth) & (world.truth <= ends)
    return {
        "policies": len(world.planned),
        "prompts": prompts,
        **{
            name: {
                "truth": float(world.truth[i]),
                "bootstrap": float((bounds[:, i] * _SIDE[i] >= world.truth[i] * _SIDE[i]).mean()),
                "bernstein": float((exact[:, i] * _SIDE[i] >= world.truth[i] * _SIDE[i]).mean()),
                "interval": float(inside[:, i].mean()),
                "estimate": float((middle[:, i] * _SIDE[i] >= world.truth[i] * _SIDE[i]).mean()),
                "median_bound": float(np.median(bounds[:, i])),
            }
            for i, name in enumerate(_NAMES)
        },
        "seconds": round(time.process_time() - began, 1),
    }
