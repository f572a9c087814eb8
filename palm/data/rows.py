"""Rows of a table, whatever holds it: a JSONL, Parquet or CSV file, a data set on the Hub, a `datasets.Dataset`, or any dicts."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from datasets import Dataset, DatasetDict

from palm.data.schema import PairError

Source: TypeAlias = str | Path | Dataset | Iterable[Mapping[str, Any]]

_LONGEST = 1 << 24  # characters of a CSV's field
_ENDINGS = (".jsonl", ".jsonl.gz", ".json.gz", ".parquet", ".csv", ".csv.gz")


def read_rows(source: Source, *, split: str = "train", subset: str | None = None) -> tuple[str, Iterator[tuple[int, Any]]]:
    """Open a table.

    Args:
        source: a file (.jsonl, .jsonl.gz, .parquet, .csv, .csv.gz), a data set's id on the Hub, a `datasets.Dataset`, or dicts.
        split, subset: of a data set on the Hub.

    Returns:
        a name for messages, and the rows with their numbers, from 1 (lines of a JSONL file; of a CSV, rows below its header). A
        row is what was found there: whoever takes it checks that it is a mapping. Rows of a CSV hold text.

    Raises:
        PairError: there is no such file or split, or, as rows are taken, the file or data set cannot be read; the message names
            it and the row.
    """
    if isinstance(source, DatasetDict):
        if split not in source:
            raise PairError(f"split: expected one of {', '.join(source)}, got {split!r}")
        source = source[split]
    if isinstance(source, Dataset):
        return "data set", enumerate(iter(source), start=1)
    if source is None or isinstance(source, bytes | bytearray | Mapping) or not isinstance(source, str | Path | Iterable):
        raise PairError(f"source: expected a file, a Hub id, a datasets.Dataset or dicts, got {source!r:.60}")
    if not isinstance(source, str | Path):
        return "rows", enumerate(source, start=1)
    if not str(source).strip():
        raise PairError(f"source: expected a file or a data set's id, got {str(source)!r}")
    path = Path(source).expanduser()
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
    csv.field_size_limit(max(_LONGEST, csv.field_size_limit()))  # Python's own limit, 131,072 characters, is below a long chat
    try:
        with _open(path) as file:
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or [])
            doubled = sorted({name for name in columns if columns.count(name) > 1})
            if doubled:
                raise PairError(
                    f"{path}: expected every column once in the header, got {doubled[0]!r} {columns.count(doubled[0])} times"
                )
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


def _hub_rows(repository: str, split: str, subset: str | None) -> Iterator[tuple[int, Any]]:
    from datasets import load_dataset

    try:
        rows = load_dataset(repository, subset, split=split)
    except Exception as error:  # datasets raises many kinds: network, missing repository, missing split
        raise PairError(f"{repository}: neither a file here nor a data set that the Hub gave: {error}") from error
    yield from enumerate(rows, start=1)
