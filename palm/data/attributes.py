"""Responses that people scored on several attributes, such as how coherent and how engaging: candidates with their scores."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from palm.data.candidates import Candidates
from palm.data.rows import Source, read_rows
from palm.data.schema import PairError, Text, normalise_side, text_id

logger = logging.getLogger(__name__)

_TEXTS = ("prompt", "response")
_LARGEST = 1e150  # sums and squares of such scores are still numbers


@dataclass(frozen=True)
class ScoredCandidates:
    """Prompts, their responses, and what these scored.

    Attributes:
        candidates: P prompts with their responses.
        scores: (n, K) raw scores of all n responses, prompt after prompt, larger is better; scales may differ between attributes.
        names: of the K attributes.
    """

    candidates: Candidates
    scores: np.ndarray
    names: tuple[str, ...]


def load_scores(
    source: Source,
    attributes: Sequence[str],
    *,
    columns: Mapping[str, str] | None = None,
    split: str = "train",
    subset: str | None = None,
    fewest: int = 2,
    drop_invalid: bool = False,
) -> ScoredCandidates:
    """Load a table with a row per response: prompt, response, and a number for each attribute.

    A response that comes again at the same prompt, from another rater or another system, is one candidate with the mean of its
    rows' scores, attribute by attribute: the plan's reference draws candidates, and no text twice as often for being rated twice.

    Args:
        source: as for `palm.load_pairs`: a file (.jsonl, .jsonl.gz, .parquet, .csv, .csv.gz), a data set's id on the Hub, a
            `datasets.Dataset`, or any iterable of dicts.
        attributes: K columns with scores; "scores.quality" is the entry "quality" of a column "scores" that holds objects, and
            is called "quality".
        columns: where prompt and response are found, such as `{"response": "summary"}`; by default under these names.
        split, subset: of a data set on the Hub.
        fewest: prompts with fewer different responses are left out: a single one leaves a policy no choice.
        drop_invalid: leave out rows that lack a text or a score, with a warning that counts them, instead of raising.

    Returns:
        prompts and responses in order of first appearance.

    Raises:
        ValueError: `attributes` is empty or has a name twice, `columns` has an unknown name, or `fewest` is below 1.
        PairError: the file cannot be read, a text or a score is missing, a score is not a finite number, or no prompt has
            `fewest` responses; the message names file, row and column.
    """
    found = dict(zip(_TEXTS, _TEXTS, strict=True)) | dict(columns or {})
    names = tuple(attribute.partition(".")[2] or attribute for attribute in attributes)
    _check(found, names, attributes, fewest)
    label, rows = read_rows(source, split=split, subset=subset)
    prompts: dict[str, Text] = {}
    pools: dict[str, dict[str, Text]] = {}
    sums: dict[tuple[str, str], np.ndarray] = {}
    times: dict[tuple[str, str], int] = {}
    dropped, first_drop, count = 0, "", 0
    for number, row in rows:
        where, count = f"{label}, row {number}", count + 1
        try:
            prompt, response, scores = _read(row, found, attributes, where)
        except PairError as error:
            if not drop_invalid:
                raise
            dropped, first_drop = dropped + 1, first_drop or str(error)
            continue
        cell = text_id(prompt), text_id(response)
        prompts.setdefault(cell[0], prompt)
        pools.setdefault(cell[0], {}).setdefault(cell[1], response)
        sums[cell] = sums[cell] + scores if cell in sums else scores
        times[cell] = times.get(cell, 0) + 1
    if dropped:
        logger.warning("%s: left out %d of %d rows; the first: %s", label, dropped, count, first_drop)
    kept = [key for key, pool in pools.items() if len(pool) >= fewest]
    if not kept:
        largest = max(map(len, pools.values()), default=0)
        raise PairError(
            f"{label}: no prompt has {fewest} different responses (fewest); the most of any is {largest}"
            + (f"; {first_drop}" if first_drop else "")
        )
    candidates = Candidates([prompts[key] for key in kept], [list(pools[key].values()) for key in kept])
    means = [sums[key, response] / times[key, response] for key in kept for response in pools[key]]
    return ScoredCandidates(candidates, np.array(means), names)


def _check(columns: Mapping[str, str], names: Sequence[str], attributes: Sequence[str], fewest: int) -> None:
    if isinstance(attributes, str) or not attributes:
        raise ValueError(f"attributes: expected names of columns, at least one, got {attributes!r}")
    if len(set(names)) != len(names):
        raise ValueError(f"attributes: expected different names, got {', '.join(map(repr, names))}")
    unknown = sorted(set(columns) - set(_TEXTS))
    if unknown:
        raise ValueError(f"columns: expected names out of {', '.join(_TEXTS)}, got {unknown[0]!r}")
    if fewest < 1:
        raise ValueError(f"fewest: expected at least 1, got {fewest}")


def _read(row: Any, columns: Mapping[str, str], attributes: Sequence[str], where: str) -> tuple[Text, Text, np.ndarray]:
    """Prompt, response and (K,) scores of a row."""
    if not isinstance(row, Mapping):
        raise PairError(f"{where}: expected an object with columns, got {row!r:.60}")
    texts = []
    for name in _TEXTS:
        column = columns[name]
        if column not in row:
            raise PairError(
                f"{where}, column {column!r}: missing, the columns are {', '.join(map(repr, row))}; "
                f"columns={{'{name}': ...}} says where it is"
            )
        texts.append(normalise_side(row[column], f"{where}, column {column!r}"))
    return texts[0], texts[1], np.array([_score(row, name, where) for name in attributes])


def _score(row: Mapping[str, Any], attribute: str, where: str) -> float:
    column, _, entry = attribute.partition(".")
    outer = row.get(column)
    if attribute in row:
        value = row[attribute]
    elif entry and isinstance(outer, Mapping) and entry in outer:
        value = outer[entry]
    else:
        known = outer if entry and isinstance(outer, Mapping) else row
        raise PairError(f"{where}, column {attribute!r}: missing, there are {', '.join(map(repr, known))}")
    try:
        score = math.nan if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        score = math.nan
    if not abs(score) < _LARGEST:
        expected = "a finite number" if not math.isfinite(score) else f"a number below {_LARGEST:g} in size"
        raise PairError(
            f"{where}, column {attribute!r}: expected {expected}, got {value!r:.60}; drop_invalid=True leaves such rows out"
        )
    return score
