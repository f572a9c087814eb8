"""Read pairs from a JSONL, Parquet or CSV file, a Hub data set, or a `datasets.Dataset`."""

import csv
import gzip
import json
import logging
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from palm.data import prism, tldr
from palm.data.schema import COLUMNS, REQUIRED, PairError, as_messages, normalise_row

logger = logging.getLogger(__name__)

_Reader = Callable[[Iterable[Mapping[str, Any]]], Iterator[dict[str, Any]]]
_PUBLISHED: dict[str, tuple[str, _Reader]] = {
    prism.SOURCE: (prism.SUBSET, prism.prism_pairs),
    tldr.SOURCE: (tldr.SUBSET, tldr.tldr_pairs),
}  # data sets on the Hub whose rows are not pairs yet
_ENDINGS = (".jsonl", ".jsonl.gz", ".json.gz", ".parquet", ".csv", ".csv.gz")


def load_pairs(
    source: str | Path | Dataset | Iterable[Mapping[str, Any]],
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
            unknown name, or is given for a published set that is read by its own schema.
    """
    columns = dict(columns or {})
    unknown = sorted(set(columns) - set(COLUMNS))
    if unknown:
        raise PairError(f"columns: expected names out of {', '.join(COLUMNS)}, got {unknown[0]!r}")
    if columns and (reader := _published_reader(source, subset)) is not None:
        raise PairError(
            f"columns: {source} is read by its published schema (palm.data.{reader.__module__.rpartition('.')[2]}), "
            f"which says where everything is; expected none, got {columns}"
        )
    label, raw_rows = _read(source, split, subset)
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


def _read(
    source: str | Path | Dataset | Iterable[Mapping[str, Any]], split: str, subset: str | None
) -> tuple[str, Iterator[tuple[int, Any]]]:
    """A name for messages, and the rows with their numbers (a file's are line numbers where it has lines)."""
    if isinstance(source, DatasetDict):
        if split not in source:
            raise PairError(f"split: expected one of {', '.join(source)}, got {split!r}")
        source = source[split]
    if isinstance(source, Dataset):
        return "data set", enumerate(iter(source), start=1)
    if not isinstance(source, str | Path):
        return "rows", enumerate(source, start=1)
    path = Path(source)
    name = path.name.lower()
    if path.is_file():
        if name.endswith(".parquet"):
            return str(path), _parquet_rows(path)
        if name.endswith((".csv", ".csv.gz")):
            return str(path), _csv_rows(path)
        if name.endswith((".jsonl", ".jsonl.gz", ".json.gz")):
            return str(path), _jsonl_rows(path)
        raise PairError(f"{path}: expected a file ending in {', '.join(_ENDINGS)}")
    if name.endswith(_ENDINGS) or isinstance(source, Path) or source.count("/") > 1 or source.startswith((".", "/", "~")):
        if path.is_dir():
            raise PairError(f"{path}: expected a file ending in {', '.join(_ENDINGS)}, got a folder")
        raise PairError(f"{path}: no such file")
    return str(source), _hub_rows(str(source), split, subset)


def _open(path: Path) -> Any:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _jsonl_rows(path: Path) -> Iterator[tuple[int, Any]]:
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    try:
                        yield number, json.loads(line)
                    except (json.JSONDecodeError, RecursionError) as error:
                        raise PairError(f"{path}, row {number}: expected one JSON object a line: {error}") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise PairError(f"{path}: the file is truncated or no gzip file, after row {number}: {error}") from error
    except UnicodeDecodeError as error:
        raise PairError(f"{path}: expected UTF-8 text, after row {number}: {error}") from error


def _csv_rows(path: Path) -> Iterator[tuple[int, Any]]:
    number = 0
    try:
        with _open(path) as file:
            reader = csv.DictReader(file, strict=True)
            for number, row in enumerate(reader, start=1):
                if None in row or None in row.values():
                    raise PairError(f"{path}, row {number}: expected {len(reader.fieldnames or [])} columns, as in the header")
                yield number, row
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise PairError(f"{path}: the file is truncated or no gzip file, after row {number}: {error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise PairError(f"{path}: expected CSV in UTF-8, after row {number}: {error}") from error


def _parquet_rows(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise PairError(f"{path}: expected a complete Parquet file: {error}") from error
    number = 0
    for batch in table.to_batches():
        for row in batch.to_pylist():
            number += 1
            yield number, row


def _published_reader(source: object, subset: str | None) -> _Reader | None:
    """What reads a set's own schema, if the source is one and its usual configuration is asked for."""
    usual, reader = _PUBLISHED.get(source, (None, None)) if isinstance(source, str) else (None, None)
    return reader if subset in (None, usual) else None


def _hub_rows(repository: str, split: str, subset: str | None) -> Iterator[tuple[int, Any]]:
    from datasets import load_dataset

    reader = _published_reader(repository, subset)
    if reader is not None:
        subset = _PUBLISHED[repository][0]
    try:
        rows = load_dataset(repository, subset, split=split)
    except Exception as error:  # datasets raises many kinds: network, missing repository, missing split
        raise PairError(f"{repository}: neither a file here nor a data set that the Hub gave: {error}") from error
    for number, row in enumerate(rows, start=1):
        if reader is None:
            yield number, row
            continue
        try:
            yield from ((number, pair) for pair in reader([row]))
        except PairError as error:  # named by its own column; whoever reads may leave it out
            yield number, PairError(str(error).replace(f"{repository}, row 1", f"{repository}, row {number}"))
