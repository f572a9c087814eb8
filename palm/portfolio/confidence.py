"""Gaps over the distribution of prompts, from P of them: "with 95 % confidence".

A certificate is exact for the prompts it was computed on. What users will ask are other prompts, drawn as those were, and the
gap that counts is of the expectations: OPT(w) = E OPT_x(w) against L_S(w) = max_j E u_xj(w), u_xj(w) = w.J_xj - C_xj. Two answers:

**Paired bootstrap.** Prompts are drawn anew from the P, with replacement; optimum, reference and every policy go together, and
each draw is certified over the whole simplex. The worst of many noisy gaps is larger than the worst of the true ones, on the
prompts and once more on every draw, and the draws are skewed, so neither percentiles nor their mirror images alone are safe. An
end is as far from the estimate as the farther of the two percentiles, at a level widened for small P by Student's quantile (T.
Hesterberg, "What teachers should know about the bootstrap", 2015), and the optimistic end moves on by the draws' mean excess.
Approximate; few prompts and heavy tails weaken it.

**Empirical Bernstein.** Holds for every distribution and every P, for planned policies; see `palm.portfolio.bernstein`.

Source of the bootstrap: B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7 (1979).
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, stdtrit

from palm.portfolio.bernstein import bernstein_bounds
from palm.portfolio.certify import Policies
from palm.portfolio.on_prompts import Bounds, OnPrompts

_SHARE = 0.7  # of the tails: whole ones covered 92 to 95 % where 95 % was asked for, in worlds whose truth is known (the tests')


@dataclass(frozen=True)
class Confidence:
    """What P prompts say of all prompts.

    Attributes:
        level: probability with which each bound holds, and with which each interval does; each by itself.
        prompts: P.
        estimate: the gaps on these prompts.
        bernstein: one-sided bounds that hold for every distribution of prompts; None if they do not apply (`measured` values).
        pairs: means that are bounded together for them.
        bootstrap: one-sided bounds by resampling.
        low, high: ends of two-sided intervals by resampling.
        draws: of the resampling.
        assumptions: what a reader must grant.
    """

    level: float
    prompts: int
    estimate: Bounds
    bernstein: Bounds | None
    pairs: int
    bootstrap: Bounds
    low: Bounds
    high: Bounds
    draws: int
    assumptions: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Confidence":
        """What `record` gave, after JSON, which has null for infinity.

        Raises:
            KeyError, TypeError: it is not complete.
        """

        def bounds(entry: dict[str, float | None]) -> Bounds:
            return Bounds(**{name: np.inf if number is None else number for name, number in entry.items()})

        parts = {name: bounds(record[name]) for name in ("estimate", "bootstrap", "low", "high")}
        bernstein = None if record["bernstein"] is None else bounds(record["bernstein"])
        return cls(**{**record, **parts, "bernstein": bernstein, "assumptions": tuple(record["assumptions"])})


def resampled_gaps(
    prompts: OnPrompts, *, draws: int, seed: int, epsilon: float = 0.0, delta: float = 0.0
) -> tuple[Bounds, np.ndarray]:
    """Gaps on the prompts, and (draws, 3) epsilon, delta and captured gain on as many drawn from them with replacement.

    O(draws P N K c) for c corners.
    """
    size = len(prompts.rewards)
    rng = np.random.default_rng(seed)
    centre = prompts.gaps(np.ones(size), epsilon=epsilon, delta=delta)
    samples = np.empty((draws, 3))
    for draw in range(draws):
        counts = np.bincount(rng.integers(size, size=size), minlength=size)
        found = prompts.gaps(counts, epsilon=epsilon, delta=delta)
        samples[draw] = found.epsilon, found.delta, found.captured_gain
    return centre, samples


def confidence(
    planned: Policies,
    prompts: OnPrompts,
    *,
    bernstein: bool = True,
    level: float = 0.95,
    epsilon: float = 0.0,
    delta: float = 0.0,
    draws: int = 200,
    seed: int = 0,
) -> Confidence:
    """How good a portfolio is over all prompts, from prompts that it was not planned on.

    Args:
        planned: the portfolio as it was planned, on other prompts.
        prompts: the certifying prompts; `optimal_on(portfolio.weights, rewards, mask, kl)` for planned policies, or what trained
            policies were measured to have.
        bernstein: also the distribution-free bounds; only for `optimal_on`, whose utilities have known ranges.
        level: of confidence, above 0 and below 1.
        epsilon, delta: given, as `certify` has them.
        draws: of the bootstrap, at least 20 / (1 - level) for its ends to mean something.
        seed: of the draws.

    Raises:
        ValueError: an argument is out of range, there are fewer than two prompts, or the prompts are those planned on: a
            portfolio is too good where it was chosen.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number above 0 and below 1, got {level}")
    if draws < 2:
        raise ValueError(f"draws: expected at least 2, got {draws}")
    for name, given in (("epsilon", epsilon), ("delta", delta)):
        if not given >= 0:
            raise ValueError(f"{name}: expected at least 0, got {given}")
    size = len(prompts.rewards)
    if size < 2:
        raise ValueError(f"prompts: expected at least 2, got {size}")
    if len(prompts.value) != len(planned.weights):
        raise ValueError(
            f"prompts: expected values of {len(planned.weights)} members as in the portfolio, got {len(prompts.value)}"
        )
    if prompts.rewards.shape[2] != len(planned.reference):
        raise ValueError(f"prompts: expected {len(planned.reference)} bases as in the portfolio, got {prompts.rewards.shape[2]}")
    if bernstein and (prompts.rewards.min() < 0 or prompts.rewards.max() > 1):
        raise ValueError(
            f"prompts: expected rewards in [0, 1], whose range the bounds need, got {prompts.rewards.min():g} to "
            f"{prompts.rewards.max():g}"
        )
    same = np.allclose(prompts.reference.mean(axis=0), planned.reference, rtol=0, atol=1e-12)
    if bernstein and same and np.ptp(prompts.rewards) > 0:
        raise ValueError(
            "prompts: expected other prompts than the portfolio was planned on, got the same; certify on held-out ones"
        )
    centre, samples = resampled_gaps(prompts, draws=draws, seed=seed, epsilon=epsilon, delta=delta)
    found, pairs = bernstein_bounds(planned, prompts, level=level, epsilon=epsilon, delta=delta) if bernstein else (None, 0)
    one, two = _safe_ends(centre, samples, 1 - level, size), _safe_ends(centre, samples, (1 - level) / 2, size)
    return Confidence(
        level=level,
        prompts=size,
        estimate=centre,
        bernstein=found,
        pairs=pairs,
        bootstrap=one[0],
        low=Bounds(two[1].epsilon, two[1].delta, two[0].captured_gain),
        high=Bounds(two[0].epsilon, two[0].delta, two[1].captured_gain),
        draws=draws,
        assumptions=(
            "the prompts, with their candidates, are independent draws from the distribution of interest",
            "the portfolio was fixed without them (planned on other prompts)",
            "the optimum is over policies on each prompt's candidates",
            "each bound holds at its level by itself, for all weights together",
        ),
    )


def _safe_ends(centre: Bounds, samples: np.ndarray, tail: float, size: int) -> tuple[Bounds, Bounds]:
    """The pessimistic and the optimistic ends of intervals with `tail` beyond them, for three gaps on `size` prompts."""
    tail = float(ndtr(np.sqrt(size / (size - 1)) * stdtrit(size - 1, _SHARE * tail)))
    middle = np.array([centre.epsilon, centre.delta, centre.captured_gain])
    side = np.array([1.0, 1.0, -1.0])  # a captured gain is worse the smaller it is
    with np.errstate(invalid="ignore"):
        above = np.quantile(samples, 1 - tail, axis=0, method="higher") - middle
        below = middle - np.quantile(samples, tail, axis=0, method="lower")
        drift = np.maximum(side * (samples.mean(axis=0) - middle), 0.0)
        half = np.maximum(np.maximum(above, below), 0.0)
        worst, best = middle + side * half, middle - side * (half + drift)
    worst = np.where(np.isnan(worst), np.inf, worst)  # an infinite gap: nothing is known of the other end
    best = np.where(np.isfinite(best), best, 0.0)
    return (
        Bounds(float(worst[0]), float(worst[1]), max(float(worst[2]), 0.0)),
        Bounds(max(float(best[0]), 0.0), max(float(best[1]), 0.0), min(float(best[2]), 1.0)),
    )
