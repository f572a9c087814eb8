"""Which comparisons to put before a judge: what users are served, against one policy for all."""

from collections.abc import Mapping, Sequence

import numpy as np

from palm.data.schema import Text, plain_text
from palm.evaluation.judge import Comparison, profile_of
from palm.portfolio.portfolio import Portfolio
from palm.rewards.users import UserWeights


def user_comparisons(
    portfolio: Portfolio,
    users: UserWeights,
    prompts: Sequence[Text],
    texts: Mapping[str, Sequence[Sequence[Text]]],
    *,
    against: str,
    count: int,
    descriptions: dict[str, str] | None = None,
    seed: int = 0,
) -> list[Comparison]:
    """Users, prompts and responses to compare, drawn at random: every prompt about equally often, and every user.

    A user is served by the member with the most expected utility at their mean weight, the reference included. Where that is
    `against` itself there is nothing to compare, and the user is not drawn.

    Args:
        portfolio: serves the users.
        users: with their weights.
        prompts: P prompts.
        texts: by policy, the reference among them, P prompts' responses.
        against: id of the policy that everyone gets instead.
        count: comparisons.
        descriptions: of bases, for the profile.
        seed: of the draw.

    Raises:
        ValueError: there is no such policy, nobody is served by another one, or a number is out of range.
    """
    if count < 1:
        raise ValueError(f"count: expected at least 1, got {count}")
    if against not in texts:
        raise ValueError(f"against: expected one of {', '.join(texts)}, got {against!r}")
    ids = np.array([*portfolio.ids, "reference"])
    best = ids[portfolio.utilities(users.mean).argmax(axis=1)] if len(users) else ids[:0]
    other = np.flatnonzero(best != against)
    if not len(other):
        raise ValueError(f"against: expected a policy that does not serve every user, got {against!r}")
    rng = np.random.default_rng(seed)
    drawn = np.concatenate([rng.permutation(other) for _ in range(-(-count // len(other)))])[:count]
    place = np.concatenate([rng.permutation(len(prompts)) for _ in range(-(-count // len(prompts)))])[:count]
    made = []
    for user, prompt in zip(drawn.tolist(), place.tolist(), strict=True):
        ours, theirs = texts[str(best[user])][prompt], texts[against][prompt]
        made.append(
            Comparison(
                str(users.ids[user]),
                profile_of(users.mean[user], portfolio.bases, descriptions),
                prompts[prompt],
                plain_text(ours[int(rng.integers(len(ours)))]),
                plain_text(theirs[int(rng.integers(len(theirs)))]),
                unit=str(prompt),
            )
        )
    return made
