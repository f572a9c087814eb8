"""Which pair to ask a user next, and when to stop asking: for one user (`next_question`), and simulated for many (`ask`).

A question is a pair whose answer is not known; what it is worth is symmetric in its sides, so no answer leaks into the choice.
Rules: `information` and `design` (see `palm.rewards.worth`), and `random`, to compare with.
"""

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Protocol

import numpy as np

from palm.features.pairs import PairFeatures
from palm.rewards.users import UserWeights
from palm.rewards.worth import design, information

RULES = ("information", "design", "random")
ABLE = ("LoRe", "PReF", "VRF", "Given")
"""Methods whose models have scores of pairs that are linear in a user's weight."""

_ROWS = 1024  # candidates whose features are compared with answered ones at a time


class Asking(Protocol):
    """What a model must offer; models of the methods `ABLE` do."""

    @property
    def width(self) -> int:
        """d, numbers per text."""

    def pair_scores(self, features: PairFeatures) -> np.ndarray:
        """(n, K) of pairs, in logits per unit of weight."""

    def infer(self, context: PairFeatures, *, ids: np.ndarray | None = None) -> UserWeights:
        """Posterior of users."""


@dataclass(frozen=True)
class Question:
    """The best question to ask a user next.

    Attributes:
        index: its place among the candidates; None if all were answered already.
        value: what its answer is worth (nats for "information"); 0 if there is none.
        stop: there is none, or it is worth less than the least that was asked for.
        order: (q,) places of all candidates that were not answered already, best first.
        values: (q,) what each of these is worth on its own.
    """

    index: int | None
    value: float
    stop: bool
    order: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Asked:
    """Questions in the order they were asked.

    Attributes:
        ids: (U,) users.
        rows: (U, S) row number in the pool of each user's s-th question; -1 where a user was asked no more.
        worth: (U, S) what the rule thought of it beforehand (nats for "information"); 0 where there was none.
    """

    ids: np.ndarray
    rows: np.ndarray
    worth: np.ndarray

    def first(self, count: int) -> np.ndarray:
        """Row numbers of all users' first `count` questions."""
        rows = self.rows[:, :count]
        return rows[rows >= 0]


def next_question(
    model: Asking,
    answered: PairFeatures,
    candidates: PairFeatures | np.ndarray,
    *,
    rule: str = "information",
    stop: float = 0.0,
    seed: int = 0,
) -> Question:
    """The pair whose answer tells most of a user, given what they answered so far.

    Args:
        model: fitted on other users.
        answered: the user's pairs so far; none says what is known of nobody in particular.
        candidates: pairs that could be asked, of the same user id, either side as chosen; those with the features of an answered
            pair are left out. Or (n, K) differences of basis rewards, as `pair_scores` gives them; nothing is left out of these.
        rule: "information", "design" or "random".
        stop: least worth of a question, unless it is a random one ("information": nats).
        seed: of "random", and of ties.

    Raises:
        TypeError: the model has no `pair_scores`; the message names the methods whose models do.
        ValueError: there are no candidates, pairs are of several users, widths are not the model's, a score is not finite,
            the rule is unknown or `stop` is no number.
    """
    _check(model, rule, stop)
    if len(candidates) == 0:
        raise ValueError("candidates: expected at least one pair, got none")
    both = [("answered", answered)]
    if isinstance(candidates, PairFeatures):
        both.append(("candidates", candidates))
    for name, pairs in both:
        if pairs.width != model.width:
            raise ValueError(f"{name}: expected {model.width} numbers per text as in the fit, got {pairs.width}")
    ids = np.unique(np.concatenate([pairs.ids for _, pairs in both]))
    if len(ids) > 1:
        raise ValueError(f"{', '.join(name for name, _ in both)}: expected pairs of one user, got those of {', '.join(ids)}")
    scores = model.pair_scores(candidates) if isinstance(candidates, PairFeatures) else np.asarray(candidates, dtype=np.float64)
    posterior = model.infer(answered, ids=ids if len(ids) else np.array(["user"]))
    bases = posterior.mean.shape[1]
    if scores.ndim != 2 or scores.shape[1] != bases or not np.isfinite(scores).all():
        raise ValueError(f"candidates: expected finite scores in the shape (n, {bases}), got {scores!r:.80} of {scores.shape}")
    chance, code = np.random.default_rng(seed).random(len(scores)), np.zeros(len(scores), dtype=np.int64)
    value = _value(scores, code, posterior, chance, rule)
    known = _among(candidates, answered) if isinstance(candidates, PairFeatures) else np.zeros(len(scores), dtype=bool)
    order = _best_first(np.flatnonzero(~known), code, value, chance)
    values = value[order]
    if len(order) == 0:
        return Question(None, 0.0, True, order, values)
    return Question(int(order[0]), float(values[0]), not _worthwhile(values, rule, stop)[0], order, values)


def ask(model: Asking, pool: PairFeatures, *, budget: int, rule: str = "information", stop: float = 0.0, seed: int = 0) -> Asked:
    """Simulate asking: every user is asked pairs out of their own, one at a time, all users side by side.

    The answers are the pool's. After each one the user's posterior is inferred anew.

    Args:
        model: fitted on other users.
        pool: the pairs that users can be asked; each user's own.
        budget: most questions per user, at least 1.
        rule: "information", "design" or "random".
        stop: a user whose best question is worth less than this is asked no more ("information": nats).
        seed: of "random", and of ties.

    Returns:
        what was asked. O(n K^2) a step for n pairs in the pool.

    Raises:
        TypeError: the model has no `pair_scores`; the message names the methods whose models do.
        ValueError: the rule is unknown, the budget is out of range or `stop` is no number.
    """
    _check(model, rule, stop)
    if isinstance(budget, bool) or not isinstance(budget, Integral) or budget < 1:
        raise ValueError(f"budget: expected a whole number of at least 1, got {budget!r}")
    rng, users = np.random.default_rng(seed), len(pool.ids)
    scores = model.pair_scores(pool) if len(pool) else np.zeros((0, 1))
    rows, worth = np.full((users, int(budget)), -1), np.zeros((users, int(budget)))
    open_pairs, going = np.ones(len(pool), dtype=bool), np.ones(users, dtype=bool)
    for step in range(int(budget)):
        chance = rng.random(len(pool))
        there = np.flatnonzero(open_pairs & going[pool.code])
        if len(there) == 0:
            break
        posterior = None if rule == "random" else model.infer(pool.select(np.flatnonzero(~open_pairs)), ids=pool.ids)
        value = _value(scores, pool.code, posterior, chance, rule)
        order = _best_first(there, pool.code, value, chance)
        best = order[np.flatnonzero(np.diff(pool.code[order], prepend=-1))]
        best = best[_worthwhile(value[best], rule, stop)]
        asked = pool.code[best]
        going[:] = False
        going[asked] = True
        rows[asked, step], worth[asked, step] = best, value[best]
        open_pairs[best] = False
    return Asked(pool.ids, rows, worth)


def _check(model: Asking, rule: str, stop: float) -> None:
    if not hasattr(model, "pair_scores"):
        raise TypeError(f"model: expected one with pair_scores (of {', '.join(ABLE)}), got a {type(model).__name__}")
    if rule not in RULES:
        raise ValueError(f"rule: expected one of {', '.join(RULES)}, got {rule!r}")
    if isinstance(stop, bool) or not isinstance(stop, Real) or math.isnan(stop):
        raise ValueError(f"stop: expected a number, got {stop!r}")


def _value(scores: np.ndarray, code: np.ndarray, posterior: UserWeights | None, chance: np.ndarray, rule: str) -> np.ndarray:
    """(n,) what a rule thinks of pairs of (n, K) scores whose users stand at `code` in a posterior; chance without one."""
    if rule == "random" or posterior is None:
        return chance
    mean = np.einsum("nk,nk->n", scores, posterior.mean[code])
    variance = np.einsum("nk,nkl,nl->n", scores, posterior.covariance[code], scores, optimize=True)
    return (information if rule == "information" else design)(mean, variance)


def _best_first(rows: np.ndarray, code: np.ndarray, value: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Rows user by user, each user's most worth first; ties by chance."""
    return rows[np.lexsort((chance[rows], -value[rows], code[rows]))]


def _worthwhile(value: np.ndarray, rule: str, stop: float) -> np.ndarray:
    """The stopping rule: (n,) which best questions are worth asking; random ones always are."""
    return np.ones(len(value), dtype=bool) if rule == "random" else value >= stop


def _among(candidates: PairFeatures, answered: PairFeatures) -> np.ndarray:
    """(n,) which candidates have the features of an answered pair, either way round."""
    known = set(_sides(answered))
    found = []
    for start in range(0, len(candidates) if known else 0, _ROWS):
        found += [pair in known for pair in _sides(candidates.select(np.arange(start, min(start + _ROWS, len(candidates)))))]
    return np.array(found) if found else np.zeros(len(candidates), dtype=bool)


def _sides(pairs: PairFeatures) -> list[frozenset[bytes]]:
    """Both sides' features of each pair, in no order."""
    return [frozenset((one.tobytes(), other.tobytes())) for one, other in zip(pairs.chosen, pairs.rejected, strict=True)]
