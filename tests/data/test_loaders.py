"""palm.data.loaders: the same pairs out of every format, and a message that names file, row and column."""

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset, DatasetDict

from palm.data.loaders import load_pairs
from palm.data.schema import COLUMNS, PairError, text_id

ROWS = [
    {"user": "ann", "prompt": "Why?", "chosen": "Because, well.", "rejected": "No idea.", "group": "g1"},
    {
        "user": "böb",
        "prompt": "どう？",
        "chosen": 'He said "yes"\nand left 🎉',
        "rejected": "\u2028line\u00a0separator",
        "group": "g2",
    },
]


def _jsonl(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _csv(rows: list[dict[str, str]]) -> bytes:
    quoted = [[f'"{str(value).replace(chr(34), chr(34) * 2)}"' for value in row.values()] for row in rows]
    return "\r\n".join(",".join(line) for line in [list(rows[0]), *quoted]).encode()


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json.gz", "a.csv", "a.csv.gz", "a.parquet", "A.JSONL"])
def test_every_file_format_gives_the_same_pairs(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    else:
        content = _csv(ROWS) if ".csv" in name else _jsonl(ROWS)
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    pairs = load_pairs(path)
    assert pairs.column_names == list(COLUMNS)
    assert pairs.to_list() == ROWS == load_pairs(str(path)).to_list()


def test_rows_data_sets_and_their_splits(tmp_path: Path) -> None:
    data_set = Dataset.from_list(ROWS)
    assert load_pairs(ROWS).to_list() == load_pairs(data_set).to_list() == ROWS
    assert load_pairs(iter(ROWS)).to_list() == ROWS
    splits = DatasetDict({"train": data_set.select([0]), "test": data_set.select([1])})
    assert load_pairs(splits, split="test").to_list() == ROWS[1:]
    with pytest.raises(PairError, match="split: expected one of train, test, got 'dev'"):
        load_pairs(splits, split="dev")


def test_columns_are_found_under_other_names(tmp_path: Path) -> None:
    rows = [{"worker": 3, "question": "Why?", "better": "A", "worse": "B", "user": "not this one"}]
    columns = {"user": "worker", "prompt": "question", "chosen": "better", "rejected": "worse"}
    pairs = load_pairs(_write(tmp_path / "a.jsonl", _jsonl(rows)), columns=columns)
    assert pairs.to_list() == [{"user": "3", "prompt": "Why?", "chosen": "A", "rejected": "B", "group": text_id("Why?")}]


def test_byte_order_mark_blank_lines_and_escapes(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf\n" + json.dumps(ROWS[1]).encode() + b"\r\n\r\n"
    assert load_pairs(_write(tmp_path / "a.jsonl", content)).to_list() == ROWS[1:]


def test_one_conversation_makes_every_row_a_conversation() -> None:
    chat = {"user": "u", "chosen": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}
    chat["rejected"] = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "B"}]
    pairs = load_pairs([ROWS[0], chat])
    assert pairs[0]["prompt"] == [{"role": "user", "content": "Why?"}]
    assert pairs[0]["chosen"] == [{"role": "assistant", "content": "Because, well."}]
    assert pairs[1]["prompt"] == [{"role": "user", "content": "Q"}]
    assert pairs[1]["rejected"] == [{"role": "assistant", "content": "B"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            _jsonl([ROWS[0], {**ROWS[1], "user": float("nan")}]),
            "a.jsonl, row 2, column 'user': expected a user id, got nan",
        ),
        ("a.jsonl", _jsonl([{**ROWS[0], "chosen": float("nan")}]), "a.jsonl, row 1, column 'chosen': expected text or a list"),
        (
            "a.jsonl",
            b'{"user": "a", "prompt": "p", "chosen": "c\\ud800", "rejected": "r"}',
            "row 1, column 'chosen': expected Unicode",
        ),
        ("a.jsonl", b"\n" + _jsonl(ROWS)[:-40], "a.jsonl, row 3: expected one JSON object a line"),
        ("a.jsonl", b"[1, 2]\n", r"a.jsonl, row 1: expected an object with columns, got \[1, 2\]"),
        ("a.jsonl", b'{"user": "\xff"}\n', "a.jsonl: expected UTF-8 text, after row 0"),
        ("a.jsonl", b"", "a.jsonl: expected at least one pair, got none"),
        ("a.jsonl.gz", b"", "a.jsonl.gz: expected at least one pair, got none"),
        ("a.jsonl.gz", _jsonl(ROWS), "a.jsonl.gz: the file is truncated or no gzip file, after row 0"),
        ("a.csv.gz", gzip.compress(_csv(ROWS))[:-9], "a.csv.gz: the file is truncated or no gzip file, after row"),
        ("a.csv", b"", "a.csv: expected at least one pair, got none"),
        ("a.csv", b"user,prompt,chosen,rejected\nu,p,c\n", "a.csv, row 1: expected 4 columns, as in the header"),
        ("a.csv", b"user,prompt,chosen,rejected\nu,p,c,r,x\n", "a.csv, row 1: expected 4 columns, as in the header"),
        ("a.csv", b'user,prompt,chosen,rejected\nu,p,"c,r\n', "a.csv: expected CSV in UTF-8, after row 0"),
        ("a.csv", b"user,prompt,chosen,rejected\nu,p,\xff,r\n", "a.csv: expected CSV in UTF-8, after row 0"),
        (
            "a.csv",
            b"user,prompt,chosen\nu,p,c\n",
            "a.csv, row 1, column 'rejected': expected it under 'rejected', the columns are 'user'",
        ),
        ("a.parquet", b"PAR1 and no more", "a.parquet: expected a complete Parquet file"),
        ("a.txt", b"x", "a.txt: expected a file ending in .jsonl, .jsonl.gz, .json.gz, .parquet, .csv, .csv.gz"),
    ],
)
def test_bad_files_are_named_with_row_and_column(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(PairError, match=message):
        load_pairs(_write(tmp_path / name, content))


def test_gzip_damaged_in_its_middle_is_named(tmp_path: Path) -> None:
    """Wherever the damage lies, it is a PairError about this file, never a decoder's own error."""
    whole = gzip.compress(_jsonl([{**ROWS[0], "prompt": f"{number:x}" * 40} for number in range(3000)]))
    seen = set()
    for place in range(10, len(whole) - 8, len(whole) // 25):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        with pytest.raises(PairError, match=r"a\.jsonl\.gz") as raised:
            load_pairs(_write(tmp_path / "a.jsonl.gz", bytes(damaged)))
        seen.add(type(raised.value.__cause__).__name__)
    assert "error" in seen, "no damage made zlib fail, so this tests nothing"


def test_truncated_parquet_is_named(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    with pytest.raises(PairError, match=r"a\.parquet: expected a complete Parquet file"):
        load_pairs(_write(tmp_path / "a.parquet", whole[: len(whole) // 2]))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(PairError, match=r"expected a file ending in \.jsonl, .* got a folder"):
        load_pairs(tmp_path)


def test_missing_files_are_not_looked_up_on_the_hub(tmp_path: Path) -> None:
    for source in (tmp_path / "none.jsonl", str(tmp_path / "none"), "none.csv", "./none"):
        with pytest.raises(PairError, match=r"none.*: no such file"):
            load_pairs(source)
    with pytest.raises(PairError, match="nobody/nothing: neither a file here nor a data set that the Hub gave"):
        load_pairs("nobody/nothing")


def test_column_mapping_is_checked() -> None:
    with pytest.raises(PairError, match="columns: expected names out of user, prompt, chosen, rejected, group, got 'reject'"):
        load_pairs(ROWS, columns={"reject": "worse"})
    with pytest.raises(
        PairError, match="rows, row 1, column 'group': expected it under 'dialog', the columns are 'user', 'prompt'"
    ):
        load_pairs(ROWS, columns={"group": "dialog"})


def test_invalid_rows_can_be_left_out_and_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    rows = [ROWS[0], {**ROWS[0], "chosen": ""}, {"user": "u"}, ROWS[1]]
    with caplog.at_level(logging.WARNING):
        assert load_pairs(rows, drop_invalid=True).to_list() == ROWS
    assert "left out 2 of 4 rows; the first: rows, row 2, column 'chosen'" in caplog.text
    with pytest.raises(PairError, match="rows: expected at least one pair, got none; rows, row 1, column 'chosen'"):
        load_pairs(rows[1:2], drop_invalid=True)


def test_a_column_that_comes_twice(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("user,prompt,chosen,rejected,user\nada,p,a,b,bob\n", encoding="utf-8")
    with pytest.raises(PairError, match=r"pairs.csv: expected every column once in the header, got 'user' 2 times"):
        load_pairs(path)


def test_a_long_text_in_a_csv(tmp_path: Path) -> None:
    path, long = tmp_path / "pairs.csv", "word " * 40_000
    path.write_text(f"user,prompt,chosen,rejected\nada,p,{long},b\n", encoding="utf-8")
    assert load_pairs(path)["chosen"] == [long]


@pytest.mark.parametrize("source", [None, "", b"pairs.csv", {"user": "ada"}, 3])
def test_what_is_no_source(source: Any) -> None:
    with pytest.raises(PairError, match=r"source: expected a file"):
        load_pairs(source)


def test_a_file_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pairs.csv").write_text("user,prompt,chosen,rejected\nada,p,a,b\n", encoding="utf-8")
    assert len(load_pairs("~/pairs.csv")) == 1
