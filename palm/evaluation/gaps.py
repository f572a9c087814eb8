"""How well policies serve everyone, with intervals over prompts: gaps over the simplex and over users, and who serves whom.

Prompts are drawn anew with replacement, and the optimum, the reference and every policy on them go together: what is hard about a
prompt is hard for all. Users and weights stay as they are.

* Over the simplex: the worst gaps are exact on every draw, at the corners of the portfolio's cells (`palm.portfolio.certify`); the
  mean is over weights drawn uniformly once.
* Over users: the worst and the mean of those given.

The optimum is over policies on each prompt's candidates, so it is a little low for finitely many of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from palm.evaluation.diversity import perplexity
from palm.evaluation.intervals import Estimate, check_level, resampled_interval
from palm.portfolio.certify import worst_gap
from palm.portfolio.on_prompts import OnPrompts
from palm.simplex import check_weights, sample_simplex

_BLOCK = 2**22  # numbers in one block of utilities


@dataclass(frozen=True)
class GapRow:
    """The gaps of one set of weights.

    Attributes:
        over: "simplex" or "users".
        statistic: "worst" or "mean" over the weights.
        weights: how many; 0 for all of the simplex.
        epsilon: multiplicative gap, OPT / L_S - 1.
        delta: additive gap, OPT - L_S.
        captured_gain: "worst": least share of what could be gained over the reference; "mean": share of what all weights together
            could gain.
    """

    over: str
    statistic: str
    weights: int
    epsilon: Estimate
    delta: Estimate
    captured_gain: Estimate

    def record(self) -> dict[str, object]:
        """JSON form, and a row of a table."""
        estimates = {name: getattr(self, name).record() for name in ("epsilon", "delta", "captured_gain")}
        return {"over": self.over, "statistic": self.statistic, "weights": self.weights, **estimates}


@dataclass(frozen=True)
class ServingRow:
    """Which members serve a set of weights best.

    Attributes:
        over: "simplex" or "users".
        perplexity: exp of the entropy of the shares, 1 to m + 1: how many members are used, in effect.
        share: by member, the reference last, the share of the weights that it serves best.
    """

    over: str
    perplexity: Estimate
    share: dict[str, Estimate]

    def record(self) -> dict[str, object]:
        """JSON form."""
        share = {name: estimate.record() for name, estimate in self.share.items()}
        return {"over": self.over, "perplexity": self.perplexity.record(), "share": share}


def gap_table(
    prompts: OnPrompts,
    users: np.ndarray | None = None,
    *,
    weights: int = 4096,
    draws: int = 400,
    level: float = 0.95,
    seed: int = 0,
) -> list[GapRow]:
    """Worst and mean gaps over the simplex and over users, with intervals over prompts.

    Args:
        prompts: what each policy gives on each of P prompts, and their candidates.
        users: (U, K) weights; None for none.
        weights: how many to average over on the simplex.
        draws: of the bootstrap, at least 20 / (1 - level) for ends to mean something.
        level: of the intervals.
        seed: of weights and draws.

    Returns:
        rows simplex worst, simplex mean and, if there are users, users worst, users mean. O(draws (P N K c + P M)) for c corners
        and M weights.

    Raises:
        ValueError: an argument is out of range, or a user is off the simplex.
    """
    _check(draws, level)
    shares = _shares(len(prompts.rewards), draws, seed)
    exact = np.array([_worst(prompts, share) for share in shares])
    rows = [_row("simplex", "worst", 0, exact, len(prompts.rewards), level)]
    for over, chosen in _sets(prompts, users, weights, seed):
        optimum = prompts.optimum(chosen)
        found = np.concatenate([_gaps(part @ optimum, *_served(prompts, part, chosen)) for part in _blocks(shares, chosen)])
        if over == "users":
            rows.append(_row(over, "worst", len(chosen), found[:, 0], len(prompts.rewards), level))
        rows.append(_row(over, "mean", len(chosen), found[:, 1], len(prompts.rewards), level))
    return rows


def serving_table(
    prompts: OnPrompts,
    ids: tuple[str, ...],
    users: np.ndarray | None = None,
    *,
    weights: int = 4096,
    draws: int = 400,
    level: float = 0.95,
    seed: int = 0,
) -> list[ServingRow]:
    """Which member serves weights of the simplex and users best, with intervals over prompts.

    Args:
        prompts, users, weights, draws, level, seed: as in `gap_table`.
        ids: the policies' names.

    Raises:
        ValueError: an argument is out of range, or there is another number of ids than of policies.
    """
    _check(draws, level)
    if len(ids) != len(prompts.value):
        raise ValueError(f"ids: expected {len(prompts.value)}, one per policy, got {len(ids)}")
    size = len(prompts.rewards)
    shares = _shares(size, draws, seed)
    rows = []
    for over, chosen in _sets(prompts, users, weights, seed):
        best = np.concatenate([_utilities(prompts, part, chosen).argmax(axis=2) for part in _blocks(shares, chosen)])
        served = (best[:, :, None] == np.arange(len(ids) + 1)).mean(axis=1)  # (1 + draws, m + 1)
        used = np.array([perplexity(share) for share in served])
        of_each = {
            name: resampled_interval(served[0, k], served[1:, k], size, level=level, least=0.0, most=1.0)
            for k, name in enumerate((*ids, "reference"))
        }
        whole = resampled_interval(used[0], used[1:], size, level=level, least=1.0, most=len(ids) + 1.0)
        rows.append(ServingRow(over, whole, of_each))
    return rows


def _check(draws: int, level: float) -> None:
    check_level(level)
    if draws < 2:
        raise ValueError(f"draws: expected at least 2, got {draws}")


def _shares(prompts: int, draws: int, seed: int) -> np.ndarray:
    """(1 + draws, P) how much each prompt counts: equally in the first row, in the others as often as it was drawn."""
    rng = np.random.default_rng(seed)
    counts = [np.bincount(rng.integers(prompts, size=prompts), minlength=prompts) for _ in range(draws)]
    return np.vstack([np.ones(prompts), *counts]) / prompts


def _sets(prompts: OnPrompts, users: np.ndarray | None, weights: int, seed: int) -> list[tuple[str, np.ndarray]]:
    bases = prompts.rewards.shape[2]
    if weights < 1:
        raise ValueError(f"weights: expected at least 1, got {weights}")
    sets = [("simplex", sample_simplex(weights, bases, np.random.default_rng(seed)))]
    if users is not None and len(users):
        sets.append(("users", check_weights(users, bases=bases, name="users")))
    return sets


def _blocks(shares: np.ndarray, weights: np.ndarray) -> Iterator[np.ndarray]:
    step = max(1, _BLOCK // len(weights) // 8)
    return (shares[start : start + step] for start in range(0, len(shares), step))


def _utilities(prompts: OnPrompts, shares: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(D, M, m + 1) utilities of the members and, last, the reference, with prompts counted by (D, P) shares."""
    value = np.einsum("dp,mpk->dmk", shares, prompts.value) - np.einsum("dp,mp->dm", shares, prompts.cost)[:, :, None]
    members = np.concatenate([value, (shares @ prompts.reference)[:, None, :]], axis=1)
    return np.einsum("wk,dmk->dwm", weights, members)


def _served(prompts: OnPrompts, shares: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    utilities = _utilities(prompts, shares, weights)
    return utilities.max(axis=2), utilities[:, :, -1]


def _gaps(optimum: np.ndarray, served: np.ndarray, base: np.ndarray) -> np.ndarray:
    """(D, 2, 3) worst and mean epsilon, delta and captured gain over the weights, from (D, M) utilities."""
    found = np.empty((len(optimum), 2, 3))
    for row in range(len(optimum)):
        worst = worst_gap(optimum[row], served[row], base[row])
        found[row, 0] = worst.epsilon, worst.delta, worst.captured_gain
    missed = np.maximum(optimum - served, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        found[:, 1, 0] = np.where(missed > 0, missed / np.maximum(served, 0.0), 0.0).mean(axis=1)
        found[:, 1, 1] = missed.mean(axis=1)
        gain = (optimum - base).sum(axis=1)
        found[:, 1, 2] = np.where(gain > 1e-12 * len(optimum), np.minimum((served - base).sum(axis=1) / gain, 1.0), 1.0)
    return found


def _worst(prompts: OnPrompts, share: np.ndarray) -> tuple[float, float, float]:
    gaps = prompts.gaps(share)
    return gaps.epsilon, gaps.delta, gaps.captured_gain


def _row(over: str, statistic: str, weights: int, found: np.ndarray, prompts: int, level: float) -> GapRow:
    ranges = ((0.0, np.inf), (0.0, np.inf), (0.0, 1.0))
    parts = (
        resampled_interval(found[0, k], found[1:, k], prompts, level=level, least=least, most=most)
        for k, (least, most) in enumerate(ranges)
    )
    return GapRow(over, statistic, weights, *parts)
