"""Read pairs from a JSONL, Parquet or CSV file, a Hub data set, or a `datasets.Dataset`."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from datasets import Dataset

from palm.data import personalllm, prism, tldr
from palm.data.rows import Source, read_rows
from palm.data.schema import COLUMNS, REQUIRED, PairError, as_messages, normalise_row

logger = logging.getLogger(__name__)

_Reader = Callable[[Iterable[Mapping[str, Any]]], Iterator[dict[str, Any]]]
_PUBLISHED: dict[str, tuple[str, _Reader]] = {
    prism.SOURCE: (prism.SUBSET, prism.prism_pairs),
    tldr.SOURCE: (tldr.SUBSET, tldr.tldr_pairs),
}  # data sets on the Hub whose rows are not pairs yet


def load_pairs(
    source: Source,
    *,
    columns: Mapping[str, str] | None = None,
    split: str = "train",
    subset: str | None = None,
    drop_invalid: bool = False,
) -> Dataset:
    """Load everyone's judgements into the columns user, prompt, chosen, rejected, group.

    Args:
        source: a file (.jsonl, .jsonl.gz, .parquet, .csv, .csv.gz), a data set's id on the Hub, a `datasets.Dataset`,
            or any iterable of dicts. The Hub's PRISM and TL;DR are brought into pairs (palm.data.prism, palm.data.tldr).
        columns: where each of our columns is found in the source, such as `{"user": "worker_id"}`; names not given
            are looked for as they are. Not for the Hub's PRISM and TL;DR, whose columns are known.
        split: of a Hub data set.
        subset: configuration of a Hub data set.
        drop_invalid: leave out rows that fail the checks, with a warning that counts them, instead of raising.

    Returns:
        A data set of n pairs. All prompts and responses are text, or all are lists of messages: where any row is a
        conversation, every row becomes one.

    Raises:
        PairError: the file cannot be read, or a row is not a pair; the message names file, row and column. Or `columns` has an
            unknown name, or is given for a published set that is read by its own schema; or the source is PersonalLLM, whose users
            are drawn (palm.data.drawn).
    """
    columns = dict(columns or {})
    reader = _published_reader(source, subset)
    unknown = sorted(set(columns) - set(COLUMNS))
    if unknown:
        raise PairError(f"columns: expected names out of {', '.join(COLUMNS)}, got {unknown[0]!r}")
    if source == personalllm.SOURCE:
        raise PairError(
            f"{source}: has scores of responses and no users; palm.data.drawn.load_drawn draws users over them, "
            "in a configuration data.draw.users says how many"
        )
    if columns and reader:
        raise PairError(
            f"columns: {source} is read by its published schema (palm.data.{reader.__module__.rpartition('.')[2]}), "
            f"which says where everything is; expected none, got {columns}"
        )
    label, raw_rows = read_rows(source, split=split, subset=_PUBLISHED[str(source)][0] if reader else subset)
    if reader:
        raw_rows = _as_pairs(raw_rows, reader, label)
    rows: list[dict[str, Any]] = []
    dropped, first_drop = 0, ""
    for number, raw in raw_rows:
        where = f"{label}, row {number}"
        try:
            rows.append(normalise_row(_rename(raw, columns, where), where))
        except PairError as error:
            if not drop_invalid:
                raise
            dropped, first_drop = dropped + 1, first_drop or str(error)
    if dropped:
        logger.warning("%s: left out %d of %d rows; the first: %s", label, dropped, dropped + len(rows), first_drop)
    if not rows:
        raise PairError(f"{label}: expected at least one pair, got none" + (f"; {first_drop}" if first_drop else ""))
    if any(isinstance(row["prompt"], list) for row in rows):
        for row in rows:
            row["prompt"] = as_messages(row["prompt"], "user")
            row["chosen"], row["rejected"] = as_messages(row["chosen"], "assistant"), as_messages(row["rejected"], "assistant")
    return Dataset.from_dict({name: [row[name] for row in rows] for name in COLUMNS})


def _rename(raw: Any, columns: Mapping[str, str], where: str) -> dict[str, Any]:
    if isinstance(raw, PairError):
        raise raw
    if not isinstance(raw, Mapping):
        raise PairError(f"{where}: expected an object with columns, got {raw!r:.60}")
    row = {}
    for name in COLUMNS:
        found = columns.get(name, name)
        if found in raw:
            row[name] = raw[found]
        elif name in REQUIRED or name in columns:
            raise PairError(
                f"{where}, column '{name}': expected it under {found!r}, the columns are {', '.join(map(repr, raw))}; "
                f"columns={{'{name}': ...}} says where it is"
            )
    return row


def _published_reader(source: object, subset: str | None) -> _Reader | None:
    """What reads a set's own schema, if the source is one and its usual configuration is asked for."""
    usual, reader = _PUBLISHED.get(source, (None, None)) if isinstance(source, str) else (None, None)
    return reader if subset in (None, usual) else None


def _as_pairs(rows: Iterator[tuple[int, Any]], reader: _Reader, label: str) -> Iterator[tuple[int, Any]]:
    """The pairs of a published set's rows, each with its row's number; in place of a bad row, its error."""
    for number, row in rows:
        try:
            yield from ((number, pair) for pair in reader([row]))
        except PairError as error:  # named by its own column; whoever reads may leave it out
            yield number, PairError(str(error).replace(f"{label}, row 1", f"{label}, row {number}"))
