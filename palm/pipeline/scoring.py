"""What recipes/score.py does: responses of a file scored by given rewards, as a table that users can be drawn over."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from palm.artifacts import write_text
from palm.data.rows import read_rows
from palm.data.schema import PairError
from palm.pipeline.config import FeaturesConfig
from palm.pipeline.data_stages import given_names, given_rewards


@dataclass(frozen=True)
class Scoring:
    """What to score.

    Attributes:
        responses: table of the columns prompt and text, a response a row, such as recipes/sample.py writes; every prompt must have
            equally many.
        output: the JSONL file to write.
        functions: "package.module:name" each.
        reward_models: folders or Hub ids.
    """

    responses: Path
    output: Path
    functions: Sequence[str] = ()
    reward_models: Sequence[str] = field(default=())


def run_scoring(wanted: Scoring) -> tuple[int, int, int]:
    """Score, and write one row for each prompt: prompt, response_1 and so on, response_1_NAME for every reward's name.

    Returns:
        numbers of prompts, of responses to each, and of prompts that were left out since a response is empty.

    Raises:
        PairError: the table cannot be read, a text is missing, prompts have different numbers of responses, or
            every prompt has an empty one.
        ValueError: there are no rewards, two have one name, or one gives no finite number.
    """
    config = FeaturesConfig(functions=list(wanted.functions), reward_models=list(wanted.reward_models))
    names = given_names(config)
    if not names:
        raise ValueError("--functions, --reward-models: expected at least one reward, got none")
    if len(set(names)) < len(names):
        raise ValueError(f"--functions, --reward-models: expected names that differ, got {', '.join(names)}")
    everything = _by_prompt(wanted.responses)
    prompts = {prompt: texts for prompt, texts in everything.items() if all(text.strip() for text in texts)}
    if not prompts:
        raise PairError(f"{wanted.responses}: expected a prompt without empty responses, got none among {len(everything)}")
    count = len(next(iter(prompts.values())))
    rewards = given_rewards(config, [(prompt, text) for prompt, texts in prompts.items() for text in texts])
    lines = []
    for number, (prompt, texts) in enumerate(prompts.items()):
        row: dict[str, str | float] = {"prompt": prompt}
        for place, text in enumerate(texts):
            row[f"response_{place + 1}"] = text
            scores = rewards[number * count + place].tolist()
            row |= {f"response_{place + 1}_{name}": score for name, score in zip(names, scores, strict=True)}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_text(wanted.output, "".join(lines))
    return len(prompts), count, len(everything) - len(prompts)


def _by_prompt(path: Path) -> dict[str, list[str]]:
    label, rows = read_rows(str(path))
    prompts: dict[str, list[str]] = {}
    for number, (_, row) in enumerate(rows, start=1):
        for column in ("prompt", "text"):
            if not isinstance(row, dict) or not isinstance(row.get(column), str):
                raise PairError(f"{label}, row {number}, column {column!r}: expected text, got {row!r:.60}")
        prompts.setdefault(row["prompt"], []).append(row["text"])
    if not prompts:
        raise PairError(f"{label}: expected at least one row, got none")
    count = len(next(iter(prompts.values())))
    for prompt, texts in prompts.items():
        if len(texts) != count:
            raise PairError(
                f"{label}: expected {count} responses to every prompt, as the first has, got {len(texts)} to {prompt!r:.60}"
            )
    return prompts
