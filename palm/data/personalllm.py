"""PersonalLLM: eight responses per prompt, scored by ten reward models, for users who mix these (arXiv 2409.20296).

On the Hub as `namkoong-lab/PersonalLLM`: prompt, response_1 to response_8, and response_{i}_{reward model}. A user is a weight
over the reward models drawn from Dirichlet(alpha): the smaller alpha, the fewer models a user listens to.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from palm.data.schema import PairError

SOURCE = "namkoong-lab/PersonalLLM"

_REWARD = re.compile(r"response_(\d+)_(.+)")


@dataclass(frozen=True)
class ScoredResponses:
    """Responses with every reward model's score.

    Attributes:
        prompts: P texts.
        responses: for each prompt, its N texts.
        rewards: (P, N, K) scores.
        names: of the K reward models.
    """

    prompts: list[str]
    responses: list[list[str]]
    rewards: np.ndarray
    names: tuple[str, ...]

    def calibrated(self) -> "ScoredResponses":
        """Every reward model's scores with mean 0 and deviation 1 over all responses: none outvotes others by its scale."""
        scale = self.rewards.std(axis=(0, 1))
        rewards = (self.rewards - self.rewards.mean(axis=(0, 1))) / np.where(scale > 0, scale, 1.0)
        return ScoredResponses(self.prompts, self.responses, rewards, self.names)


def read_scored(rows: Iterable[Mapping[str, Any]], *, label: str = SOURCE) -> ScoredResponses:
    """Prompts, responses and all reward models' scores.

    Args:
        rows: prompt, response_1 and so on, and response_{i}_{reward model}; what there is, the first row says.
        label: what messages call the table.

    Raises:
        PairError: there are no rows, a response or a score is missing; the message names row, from 1, and column.
    """
    prompts, responses, rewards = [], [], []
    names: tuple[str, ...] = ()
    for number, row in enumerate(rows, start=1):
        where = f"{label}, row {number}"
        if not isinstance(row, Mapping):
            raise PairError(f"{where}: expected an object with columns, got {row!r:.60}")
        if not names:
            found = [match for match in map(_REWARD.fullmatch, row) if match and not match[2].endswith("model")]
            names = tuple(sorted({match[2] for match in found}))
            count = max((int(match[1]) for match in found), default=0)
            if not names:
                raise PairError(f"{where}: expected columns such as 'response_1_gemma_2b', got {', '.join(row):.80}")
        for column in ["prompt", *(f"response_{n + 1}" for n in range(count))]:
            if not isinstance(row.get(column), str) or not row[column].strip():
                raise PairError(f"{where}, column {column!r}: expected text, got {row.get(column)!r:.60}")
        scores = np.empty((count, len(names)))
        for n in range(count):
            for k, name in enumerate(names):
                value = row.get(f"response_{n + 1}_{name}")
                if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
                    raise PairError(f"{where}, column 'response_{n + 1}_{name}': expected a finite number, got {value!r}")
                scores[n, k] = value
        prompts.append(row["prompt"])
        responses.append([row[f"response_{n + 1}"] for n in range(count)])
        rewards.append(scores)
    if not prompts:
        raise PairError(f"{label}: expected at least one row, got none")
    return ScoredResponses(prompts, responses, np.array(rewards), names)


def draw_users(
    scored: ScoredResponses, *, users: int, alpha: float, pairs_per_user: int, seed: int = 0
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Users who each compare, at prompts of their own, the response that they like best with the one they like least.

    Args:
        scored: responses; a user's liking is their weight times the scores.
        users: how many.
        alpha: of the Dirichlet distribution their weights are drawn from; published: .001, .01, .1.
        pairs_per_user: prompts that a user judges, drawn without replacement.
        seed: of weights and prompts.

    Returns:
        pairs of the columns user, prompt, chosen, rejected, group, and the (users, K) weights.

    Raises:
        ValueError: a number is out of range.
    """
    for name, value, least in (("users", users, 1), ("pairs_per_user", pairs_per_user, 1)):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    if pairs_per_user > len(scored.prompts):
        raise ValueError(f"pairs_per_user: expected at most {len(scored.prompts)}, one per prompt, got {pairs_per_user}")
    if not 0 < alpha < np.inf:
        raise ValueError(f"alpha: expected a positive number, got {alpha}")
    rng = np.random.default_rng(seed)
    drawn = rng.gamma(alpha, size=(users, len(scored.names)))
    total = drawn.sum(axis=1, keepdims=True)
    first = np.eye(len(scored.names))[rng.integers(len(scored.names), size=users)]
    weights = np.where(total > 0, drawn / np.where(total > 0, total, 1.0), first)  # a tiny alpha underflows to all zeros
    pairs = []
    for user, weight in enumerate(weights):
        for prompt in rng.choice(len(scored.prompts), size=pairs_per_user, replace=False):
            liked = scored.rewards[prompt] @ weight
            best, worst = int(liked.argmax()), int(liked.argmin())
            if scored.responses[prompt][best] != scored.responses[prompt][worst]:
                pairs.append(
                    {
                        "user": f"user-{user:05d}",
                        "prompt": scored.prompts[prompt],
                        "chosen": scored.responses[prompt][best],
                        "rejected": scored.responses[prompt][worst],
                        "group": f"prompt-{prompt:06d}",
                    }
                )
    return pairs, weights
