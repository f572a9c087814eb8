"""Gaps over the distribution of prompts, from P of them: "with 95 % confidence".

A certificate is exact for the prompts it was computed on. What users will ask are other prompts, drawn as those were, and the
gap that counts is of the expectations: OPT(w) = E OPT_x(w) against L_S(w) = max_j E u_xj(w), u_xj(w) = w.J_xj - C_xj. Two answers:

**Studentised bootstrap.** The gap lies between functions of finitely many means over prompts, all of which are bounded together by
drawing prompts anew; approximate, with an error of second order in P, and not to be trusted below `ENOUGH_PROMPTS`. See
`palm.portfolio.studentised`.

**Empirical Bernstein.** Holds for every distribution and every P, for planned policies; wide. See `palm.portfolio.bernstein`.

Both need prompts that the portfolio was not chosen on: on those that it was chosen on it is too good, and no resampling of these
tells how much. The pipeline holds prompts out. Cross-fitting (`palm.portfolio.crossfit`) uses every prompt for both, but its folds'
plans share prompts and none of them is the plan that is trained: it estimates, and is no bound.
"""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from palm.portfolio.bernstein import bernstein_bounds
from palm.portfolio.certify import Policies
from palm.portfolio.on_prompts import Bounds, OnPrompts, optimal_on
from palm.portfolio.studentised import studentised_bounds

# In a world where one prompt in ten decides, bounds by resampling that say 95 % held 67, 80, 84, 87 and 92 % of the time with 10,
# 20, 30, 40 and 60 prompts, and 96 % with 100 (scripts/README.md, "Confidence over all prompts"): a draw with hardly any prompts
# that decide cannot tell how much these vary.
ENOUGH_PROMPTS = 100


@dataclass(frozen=True)
class Confidence:
    """What P prompts say of all prompts.

    Attributes:
        level: probability with which each bound holds, and with which each interval does; each by itself.
        prompts: P.
        estimate: the gaps on these prompts.
        bernstein: one-sided bounds that hold for every distribution of prompts; None if they do not apply (`measured` values).
        pairs: means that are bounded together for them.
        bootstrap: one-sided bounds by resampling; at their level in name only where `caution` says so.
        low, high: ends of two-sided intervals by resampling.
        draws: of the resampling.
        assumptions: what a reader must grant.
        given_epsilon, given_delta: as in the certificate; the bound on epsilon is what remains beside given_delta.
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
    given_epsilon: float = 0.0
    given_delta: float = 0.0

    @property
    def caution(self) -> str:
        """What to say beside a bound by resampling: that fewer prompts back it than its level needs; empty if enough do."""
        if self.prompts >= ENOUGH_PROMPTS:
            return ""
        return _few(self.prompts, self.level)

    @property
    def stands(self) -> bool:
        """Whether the bounds that hold whatever the distribution of prompts say anything."""
        return self.bernstein is not None and bool(np.isfinite(self.bernstein.epsilon) or self.bernstein.captured_gain > 0)

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


def confidence(
    planned: Policies,
    prompts: OnPrompts,
    *,
    bernstein: bool = True,
    level: float = 0.95,
    epsilon: float = 0.0,
    delta: float = 0.0,
    draws: int = 1000,
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
    _check(planned, prompts, bernstein, level, epsilon, delta, draws)
    size = len(prompts.rewards)
    ends = partial(studentised_bounds, planned, prompts, draws=draws, seed=seed, epsilon=epsilon, delta=delta)
    bootstrap, _ = ends(tail=1 - level)
    worst, best = ends(tail=(1 - level) / 2)
    found, pairs = bernstein_bounds(planned, prompts, level=level, epsilon=epsilon, delta=delta) if bernstein else (None, 0)
    return Confidence(
        level=level,
        prompts=size,
        estimate=prompts.gaps(np.ones(size), epsilon=epsilon, delta=delta),
        bernstein=found,
        pairs=pairs,
        bootstrap=bootstrap,
        low=Bounds(best.epsilon, best.delta, worst.captured_gain),
        high=Bounds(worst.epsilon, worst.delta, best.captured_gain),
        draws=draws,
        assumptions=(
            "the prompts, with their candidates, are independent draws from the distribution of interest",
            "the portfolio was fixed without them (planned on other prompts)",
            "the optimum is over policies on each prompt's candidates",
            "each bound holds at its level by itself, for all weights together",
            *((_few(size, level),) if size < ENOUGH_PROMPTS else ()),
        ),
        given_epsilon=epsilon,
        given_delta=delta,
    )


def _few(prompts: int, level: float) -> str:
    percent = f"{100 * level:.10g} %"
    return f"{percent} is nominal: {prompts} prompts, fewer than {ENOUGH_PROMPTS}, so bounds by resampling may hold less often"


def _check(planned: Policies, prompts: OnPrompts, bernstein: bool, level: float, epsilon: float, delta: float, draws: int) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number above 0 and below 1, got {level}")
    if draws < 2:
        raise ValueError(f"draws: expected at least 2, got {draws}")
    for name, given in (("epsilon", epsilon), ("delta", delta)):
        if not 0 <= given < np.inf:
            raise ValueError(f"{name}: expected a finite number of at least 0, got {given}")
    if len(prompts.rewards) < 2:
        raise ValueError(f"prompts: expected at least 2, got {len(prompts.rewards)}")
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


def held_out_confidence(
    planned: Policies, rewards: np.ndarray, mask: np.ndarray, kl: float, *, delta: float = 0.0, seed: int = 0
) -> Confidence | None:
    """With 95 % confidence: what held-out prompts say of a plan, its policies being optimal at their weights there, too.

    Args:
        planned: on other prompts.
        rewards: (P, N, K) in [0, 1] of the held-out prompts' candidates.
        mask: (P, N) bool, False where a prompt has no such candidate.
        kl: coefficient of the KL cost.
        delta: given, as `certify` has it.
        seed: of the draws.

    Returns:
        None for a single prompt, which says nothing of others.
    """
    if len(rewards) < 2:
        return None
    return confidence(planned, optimal_on(planned.weights, rewards, mask, kl), delta=delta, seed=seed)
