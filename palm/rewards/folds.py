"""Inner cross-validation: which pairs of the seen users are held out while hyper-parameters are chosen.

Where pairs belong to groups, groups are held out and users are known from their other pairs: nothing judged twice stands on
both sides. Where there are no groups to tell apart, people judge the same things in many combinations (jokes, say), and a random
pair follows from others by transitivity; then users are held out, each inferred from pairs among one half of the texts that they
judged and tested on pairs among the other half.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from palm.features.pairs import PairFeatures
from palm.rewards.logistic import Standardised, fit_population, log_loss

PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
"""Ridge penalties that cross-validation chooses among, for features of unit variance, in nats per squared weight."""


_HOPELESS = 1.1  # times the loss of an infinite penalty: weaker penalties will not do better than that


@dataclass(frozen=True)
class Fold:
    """One way to hold pairs out.

    Attributes:
        train: pairs to fit on.
        context: pairs of the test's users to infer them from; None: they are among those of `train`.
        test: pairs to predict.
    """

    train: Standardised
    context: Standardised | None
    test: Standardised


def split_folds(data: Standardised, *, seed: int, folds: int = 5) -> list[Fold]:
    """All folds that have pairs to fit on and pairs to predict; none if there is a single pair, say.

    Args:
        data: pairs of the seen users.
        seed: of who goes where; the order of the pairs has no part in it.
        folds: how many, where there are groups or users enough.
    """
    pairs, rng = data.pairs, np.random.default_rng(seed)
    by_users = (pairs.group is None or len(np.unique(pairs.group)) < 2) and len(pairs.ids) >= folds
    if by_users:
        fold = (np.argsort(rng.permutation(len(pairs.ids))) % folds)[pairs.code]
        late, early = _sides(pairs, rng)
        made = [
            Fold(data.select(fold != number), data.select((fold == number) & early), data.select((fold == number) & late))
            for number in range(folds)
        ]
    else:
        fold = inner_folds(pairs, folds, rng)
        made = [Fold(data.select(fold != number), None, data.select(fold == number)) for number in range(int(fold.max()) + 1)]
    return [part for part in made if len(part.train.pairs) and len(part.test.pairs)]


def inner_folds(pairs: PairFeatures, folds: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) a fold for every pair; pairs of a group share it. Fewer folds where there are fewer groups, two at least."""
    keys = pairs.group if pairs.group is not None else pairs.chosen_row
    code = np.unique(keys, return_inverse=True)[1]
    count = int(code.max()) + 1
    if count < 2:  # one group: there is no clean split, so split pairs
        code, count = np.arange(len(pairs)), len(pairs)
    if count < 2:
        return np.zeros(len(pairs), dtype=np.int64)
    order = rng.permutation(count)
    return np.asarray(np.argsort(order) % min(folds, count))[code]


def _sides(pairs: PairFeatures, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(n,) masks of pairs on either side: each user's texts are dealt to two sides, pairs across them are on neither.

    Where hardly any user judged a text twice, pairs are dealt and none is lost.
    """
    texts = len(pairs.items)
    cells, cell = np.unique(
        np.concatenate([pairs.code * texts + pairs.chosen_row, pairs.code * texts + pairs.rejected_row]), return_inverse=True
    )
    first, second = cell[: len(pairs)], cell[len(pairs) :]
    if len(cells) > 1.5 * len(pairs):
        second = first = np.minimum(first, second)
    side = rng.random(len(cells)) < 0.5
    return side[first] & side[second], ~side[first] & ~side[second]


def search_penalties(penalties: Iterable[float], loss: Callable[[float], float]) -> tuple[float, dict[str, float]]:
    """The penalty with the least loss, tried from strong to weak until two in a row have not been the best yet.

    While an infinite penalty is the best, all are tried until a loss is a tenth above its: finite ones that are too strong may all
    be as bad as none, and the best come late. A loss that is not a number is never best.

    Args:
        penalties: at least one.
        loss: held-out loss of a penalty; called in falling order, so it may begin where the last one ended.

    Returns:
        the penalty, and the loss of each that was tried, by its text.
    """
    losses: dict[float, float] = {}
    best, rising = np.inf, 0
    for penalty in sorted(penalties, reverse=True):
        found = loss(penalty)
        losses[penalty] = np.inf if np.isnan(found) else found
        rising = 0 if losses[penalty] < losses.get(best, np.inf) or len(losses) == 1 else rising + 1
        best = min(losses, key=lambda tried: losses[tried])
        if losses[penalty] > _HOPELESS * losses[np.inf] if np.isinf(best) else rising == 2:
            break
    return float(best), {str(tried): value for tried, value in losses.items()}


def known_or_prior(wanted: np.ndarray, ids: np.ndarray, known: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """(n, K) what is known of (n,) users: their rows of `known` (U, K) where they are among the sorted `ids`, else `prior`."""
    result = np.tile(prior, (len(wanted), 1))
    if len(ids):
        place = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
        result = np.where((ids[place] == wanted)[:, None], known[place], result)
    return result


def choose_penalty(folds: list[Fold]) -> tuple[float, dict[str, float]]:
    """The ridge penalty with the least held-out loss of one reward for everyone.

    Returns:
        the penalty, and the mean held-out loss of each penalty tried; 100 and nothing if there are no folds.
    """
    if not folds:
        return 100.0, {}
    held_out = sum(len(fold.test.pairs) + (len(fold.context.pairs) if fold.context else 0) for fold in folds)
    starts: list[np.ndarray | None] = [None] * len(folds)

    def loss(penalty: float) -> float:
        total = 0.0
        for number, fold in enumerate(folds):  # the solution of a strong penalty is near 0 and starts the next
            direction = starts[number] = fit_population(fold.train, penalty, starts[number])
            for part in (fold.test, fold.context):
                if part is not None:
                    total += float(log_loss(part.scores(direction[:, None])[:, 0]).sum())
        return total / held_out

    return search_penalties(PENALTIES, loss)
