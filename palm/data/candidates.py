"""Candidates: for each prompt the responses that a plan is made on, sampled or taken from a pool."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from datasets import Dataset

from palm.artifacts import ArtifactError, write_text
from palm.data.schema import Text, text_id


@dataclass(frozen=True)
class Candidates:
    """Prompts with their candidate responses.

    Attributes:
        prompts: P prompts.
        responses: each prompt's candidates, at least one.
    """

    prompts: list[Text]
    responses: list[list[Text]]

    def __post_init__(self) -> None:
        """Check that every prompt has candidates.

        Raises:
            ValueError: a prompt has none, or the numbers disagree.
        """
        if len(self.prompts) != len(self.responses):
            raise ValueError(f"responses: expected one list per prompt, {len(self.prompts)}, got {len(self.responses)}")
        for number, responses in enumerate(self.responses):
            if not responses:
                raise ValueError(f"responses: expected at least one candidate for prompt {number}, got none")

    @property
    def counts(self) -> list[int]:
        """Number of candidates of each prompt."""
        return [len(responses) for responses in self.responses]

    @property
    def texts(self) -> list[tuple[Text, Text]]:
        """All (prompt, response) texts, prompt after prompt."""
        return [
            (prompt, response) for prompt, responses in zip(self.prompts, self.responses, strict=True) for response in responses
        ]

    def save(self, path: Path) -> None:
        """Write one JSON object per prompt and line."""
        rows = zip(self.prompts, self.responses, strict=True)
        lines = (json.dumps({"prompt": prompt, "responses": responses}, ensure_ascii=False) for prompt, responses in rows)
        write_text(path, "".join(line + "\n" for line in lines))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: the file is missing, or a line is not complete.
        """
        try:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
            return cls([row["prompt"] for row in rows], [row["responses"] for row in rows])
        except (OSError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{path}: not complete candidates: {error}") from error


def pool_candidates(pairs: Dataset, *, fewest: int = 2, most: int | None = None) -> Candidates:
    """The distinct responses to each prompt in the data, prompts and responses in order of first appearance.

    Args:
        pairs: as `load_pairs` gives them.
        fewest: prompts with fewer responses are left out.
        most: keep so many responses of a prompt, the first.

    Raises:
        ValueError: no prompt has `fewest` responses.
    """
    prompts: dict[str, Text] = {}
    pools: dict[str, dict[str, Text]] = {}
    for prompt, chosen, rejected in zip(pairs["prompt"], pairs["chosen"], pairs["rejected"], strict=True):
        key = text_id(prompt)
        prompts.setdefault(key, prompt)
        for response in (chosen, rejected):
            pools.setdefault(key, {}).setdefault(text_id(response), response)
    kept = [key for key, pool in pools.items() if len(pool) >= fewest]
    if not kept:
        raise ValueError(
            f"min_pool: no prompt has {fewest} different responses; the largest pool has {max(map(len, pools.values()))}"
        )
    return Candidates([prompts[key] for key in kept], [list(pools[key].values())[:most] for key in kept])


def split_prompts(count: int, held_out: float | int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Prompts to plan on and prompts to hold out, at random.

    Args:
        count: number of prompts, at least 2.
        held_out: share (a float below 1) or number of prompts to hold out.
        seed: of the draw.

    Returns:
        two arrays of positions, each in increasing order and not empty.

    Raises:
        ValueError: either side would be empty.
    """
    if count < 2:
        raise ValueError(f"held_out: expected at least 2 prompts, to plan on some and hold out others, got {count}")
    wanted = held_out if isinstance(held_out, int) else max(1, round(held_out * count))
    if not 0 < wanted < count:
        raise ValueError(f"held_out: expected from 1 to {count - 1} of the {count} prompts, got {wanted}")
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[wanted:]), np.sort(order[:wanted])


def distinct_prompts(prompts: Sequence[Text]) -> list[Text]:
    """Every prompt once, in order of first appearance."""
    return list({text_id(prompt): prompt for prompt in prompts}.values())
