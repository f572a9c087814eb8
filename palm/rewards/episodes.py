"""Training by users: in every epoch each user's pairs are dealt into a context, which says who they are, and targets.

For methods that read a user from a set of pairs (VRF, VPL). Contexts are dealt anew each epoch and are disjoint from targets, so
a model learns to predict pairs that it was not told.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from palm.features.pairs import PairFeatures
from palm.rewards.checks import check_not_negative, check_positive, check_whole
from palm.rewards.logistic import column_scales
from palm.seeds import derive_seed

if TYPE_CHECKING:
    import torch


def in_order(pairs: PairFeatures) -> PairFeatures:
    """The same pairs in an order that does not depend on the one they came in, so that a seed decides everything."""
    return pairs.select(np.lexsort((pairs.rejected_row, pairs.chosen_row, pairs.code)))


def standardisation(pairs: PairFeatures) -> tuple[np.ndarray, np.ndarray]:
    """(d,) float32 mean and deviation of the texts' features; a constant feature has deviation infinity, which takes it out.

    Raises:
        ValueError: a feature is not finite; the message names its row.
    """
    mean, scale = column_scales(pairs)
    return mean.astype(np.float32), scale.astype(np.float32)


def read_pairs(pairs: PairFeatures, rows: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """(n, 2 d) float32 mean and difference of the two sides of some pairs, standardised."""
    chosen, rejected = pairs.items.finite_rows(pairs.chosen_row[rows]), pairs.items.finite_rows(pairs.rejected_row[rows])
    return np.hstack([((chosen + rejected) / 2 - centre) / scale, (chosen - rejected) / scale])


@dataclass(frozen=True)
class Episode:
    """Some users with their contexts and targets.

    Attributes:
        users: number of users.
        context, target: row numbers of pairs.
        context_user, target_user: for each, the number of its user, 0 to users - 1.
    """

    users: int
    context: np.ndarray
    context_user: np.ndarray
    target: np.ndarray
    target_user: np.ndarray


def deal(pairs: PairFeatures, *, context: int, batch_users: int, rng: np.random.Generator) -> Iterator[Episode]:
    """One epoch: every user once, in random order.

    A user has `context` pairs of context but no more than half of theirs; someone with a single pair is both told and asked it.

    Args:
        pairs: of the seen users.
        context: size of contexts, at least 1.
        batch_users: users in an episode.
        rng: decides who is with whom and what is context.
    """
    counts = np.bincount(pairs.code)
    order = np.lexsort((rng.random(len(pairs)), pairs.code))  # users' pairs together, in random order within
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rank = np.arange(len(pairs)) - np.repeat(starts, counts)
    size = np.minimum(context, counts // 2)
    told = rank < np.repeat(size, counts)
    single = np.repeat(counts == 1, counts)
    turn = rng.permutation(len(counts))
    for begin in range(0, len(turn), batch_users):
        chosen = turn[begin : begin + batch_users]
        number = np.full(len(counts), -1)
        number[chosen] = np.arange(len(chosen))
        here = number[pairs.code[order]]
        inside = here >= 0
        is_context, is_target = inside & (told | single), inside & ~told
        yield Episode(len(chosen), order[is_context], here[is_context], order[is_target], here[is_target])


@dataclass(frozen=True)
class Schedule:
    """How a module is trained: AdamW under a cosine from `learning_rate` to 0, gradients clipped to norm 1.

    Attributes:
        steps: of the optimiser; every pass over the users deals contexts anew.
        batch_users: users in a step.
        context: pairs of a user's context.
        learning_rate: at the beginning.
        weight_decay: of AdamW.
    """

    steps: int
    batch_users: int
    context: int
    learning_rate: float
    weight_decay: float

    def check(self) -> None:
        """See that every number is in its range.

        Raises:
            ValueError: one is not; the message names it.
        """
        check_whole(self, "steps", "batch_users", "context")
        check_positive(self, "learning_rate")
        check_not_negative(self, "weight_decay")


def train_on_episodes(
    module: "torch.nn.Module",
    pairs: PairFeatures,
    loss: Callable[[Episode, Any], "torch.Tensor"],
    schedule: Schedule,
    *,
    seed: int,
) -> list[float]:
    """Minimise a loss over episodes.

    Args:
        module: what is trained, in place.
        pairs: of the seen users.
        loss: of an episode and a torch generator for whatever is random in it, mean over targets.
        schedule: how.
        seed: of episodes and of the generator.

    Returns:
        mean loss of each tenth of the steps.
    """
    import torch

    rng = np.random.default_rng(derive_seed(seed, "episodes"))
    generator = torch.Generator().manual_seed(derive_seed(seed, "noise"))
    optimiser = torch.optim.AdamW(module.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=schedule.steps)
    module.train()
    losses: list[float] = []
    while len(losses) < schedule.steps:
        for episode in deal(pairs, context=schedule.context, batch_users=schedule.batch_users, rng=rng):
            value = loss(episode, generator)
            optimiser.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimiser.step()
            cosine.step()
            losses.append(float(value.detach()))
            if len(losses) == schedule.steps:
                break
    module.eval()
    return [float(np.mean(part)) for part in np.array_split(losses, 10) if len(part)]
