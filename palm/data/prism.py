"""PRISM: people's own conversations with language models, every response scored by them (H. R. Kirk et al., arXiv 2404.16019).

On the Hub as `HannahRoseKirk/prism-alignment`; what is read here is its configuration "conversations". Users are the participants,
a conversation is a group.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from palm.data.schema import PairError

SOURCE, SUBSET = "HannahRoseKirk/prism-alignment", "conversations"


def prism_pairs(rows: Iterable[Mapping[str, Any]], *, balanced: bool = True, least_gap: int = 1) -> Iterator[dict[str, Any]]:
    """Of every turn, the response with the highest score against the one with the lowest; both sides as messages.

    The prompt is the conversation so far, with the responses that it went on from. Prompt, chosen and rejected go through one
    form: a published preparation gave one side as text and the other as a list, so the form told the label.

    Args:
        rows: user_id, conversation_id, conversation_history (turn, role, content, score, if_chosen) and, for `balanced`,
            included_in_balanced_subset.
        balanced: only conversations of the demographically balanced subset.
        least_gap: turns whose best and worst scores differ by less are left out, at least 1.

    Raises:
        PairError: a row is not of that form; the message names it and the column.
        ValueError: `least_gap` is below 1.
    """
    if least_gap < 1:
        raise ValueError(f"least_gap: expected at least 1, got {least_gap}")
    for number, row in enumerate(rows, start=1):
        where = f"{SOURCE}, row {number}"
        for column in ("user_id", "conversation_id", "conversation_history"):
            if not row.get(column):
                raise PairError(f"{where}, column {column!r}: expected a value, got {row.get(column)!r:.60}")
        if balanced:
            if "included_in_balanced_subset" not in row:
                raise PairError(f"{where}, column 'included_in_balanced_subset': missing; use balanced=False to do without")
            if not row["included_in_balanced_subset"]:
                continue
        _check_history(row["conversation_history"], where)
        yield from _turns(row, where, least_gap)


def _check_history(history: Any, where: str) -> None:
    where = f"{where}, column 'conversation_history'"
    if not isinstance(history, list):
        raise PairError(f"{where}: expected a list of messages, got {history!r:.60}")
    for message in history:
        if not isinstance(message, Mapping) or not isinstance(message.get("turn"), int):
            raise PairError(f"{where}: expected messages with a turn, got {message!r:.60}")
        if not isinstance(message.get("content"), str):
            raise PairError(f"{where}: expected text as content in turn {message['turn']}, got {message.get('content')!r:.60}")
        score = message.get("score")
        if score is not None and (isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score)):
            raise PairError(f"{where}: expected a number as score in turn {message['turn']}, got {score!r:.60}")


def _turns(row: Mapping[str, Any], where: str, least_gap: int) -> Iterator[dict[str, Any]]:
    so_far: list[dict[str, str]] = []
    for turn in sorted({entry["turn"] for entry in row["conversation_history"]}):
        entries = [entry for entry in row["conversation_history"] if entry["turn"] == turn]
        asked = [entry for entry in entries if entry["role"] == "user"]
        answers = [entry for entry in entries if entry["role"] == "model" and entry.get("score") is not None]
        if len(asked) != 1:
            raise PairError(f"{where}, column 'conversation_history': expected one user message in turn {turn}, got {len(asked)}")
        so_far = [*so_far, {"role": "user", "content": str(asked[0]["content"])}]
        ranked = sorted(answers, key=lambda entry: float(entry["score"]))
        if len(ranked) > 1 and ranked[-1]["score"] - ranked[0]["score"] >= least_gap:
            best, worst = str(ranked[-1]["content"]), str(ranked[0]["content"])
            if best.strip() and worst.strip() and best != worst:
                yield {
                    "user": str(row["user_id"]),
                    "prompt": [dict(message) for message in so_far],
                    "chosen": [{"role": "assistant", "content": best}],
                    "rejected": [{"role": "assistant", "content": worst}],
                    "group": str(row["conversation_id"]),
                }
        went_on = [entry for entry in entries if entry["role"] == "model" and entry.get("if_chosen")]
        if not went_on:
            return  # the conversation ended here
        so_far = [*so_far, {"role": "assistant", "content": str(went_on[0]["content"])}]
