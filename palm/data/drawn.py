"""Users drawn over responses that reward models scored: pairs from a table in PersonalLLM's schema, on the Hub or in a file."""

import numpy as np
from datasets import Dataset

from palm.data.loaders import load_pairs
from palm.data.personalllm import SOURCE, draw_users, read_scored
from palm.data.rows import Source, read_rows


def load_drawn(
    source: Source = SOURCE,
    *,
    users: int,
    alpha: float,
    pairs_per_user: int,
    split: str = "train",
    subset: str | None = None,
    seed: int = 0,
) -> tuple[Dataset, np.ndarray]:
    """Read scored responses and draw users over them.

    Scores are brought to one scale first (`ScoredResponses.calibrated`), so that no reward model outvotes others by its range.

    Args:
        source: rows of PersonalLLM's schema: its id on the Hub, a file, a `datasets.Dataset`, or dicts.
        users, alpha, pairs_per_user: as in `palm.data.personalllm.draw_users`; alpha of .001, .01 or .1 is published.
        split, subset: of a data set on the Hub.
        seed: of weights and prompts.

    Returns:
        pairs as `palm.load_pairs` gives them, and the (users, K) weights over the reward models, in the order of user ids.

    Raises:
        PairError: the table cannot be read, or a text or score is missing; the message names row and column.
        ValueError: a number is out of range.
    """
    label, rows = read_rows(source, split=split, subset=subset)
    scored = read_scored((row for _, row in rows), label=label).calibrated()
    pairs, weights = draw_users(scored, users=users, alpha=alpha, pairs_per_user=pairs_per_user, seed=seed)
    return load_pairs(pairs), weights
