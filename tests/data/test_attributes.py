"""palm.data.attributes: responses with human scores become candidates with scores, or a message names file, row and column."""

import csv
import gzip
import json
import logging

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from palm.data.attributes import load_scores
from palm.data.schema import PairError

ROWS = [
    {"prompt": "Why?", "response": "Because.", "quality": 3.0, "tone": 1},
    {"prompt": "How?", "response": "Slowly, “so”.", "quality": 1.0, "tone": 7},
    {"prompt": "Why?", "response": "No idea.", "quality": 2.5, "tone": 4},
    {"prompt": "How?", "response": "Fast.", "quality": -1.5, "tone": 2},
    {"prompt": "Why?", "response": "Ask him.", "quality": 0.0, "tone": 5},
]
ATTRIBUTES = ("quality", "tone")


def write(path, rows):
    name = path.name
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    with (gzip.open if name.endswith(".gz") else open)(path, "wt", encoding="utf-8", newline="") as file:
        if ".csv" in name:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.csv.gz", "a.parquet"])
def test_every_file_format_gives_the_same_candidates_and_scores(tmp_path, name):
    scored = load_scores(write(tmp_path / name, ROWS), ATTRIBUTES)
    assert scored.candidates.prompts == ["Why?", "How?"]
    assert scored.candidates.responses == [["Because.", "No idea.", "Ask him."], ["Slowly, “so”.", "Fast."]]
    np.testing.assert_array_equal(scored.scores, [[3, 1], [2.5, 4], [0, 5], [1, 7], [-1.5, 2]])
    assert scored.names == ATTRIBUTES


def test_scores_inside_a_column_and_texts_under_other_names():
    rows = [{"q": row["prompt"], "a": row["response"], "scores": {"tone": row["tone"], "quality": row["quality"]}} for row in ROWS]
    scored = load_scores(rows, ["scores.quality", "scores.tone"], columns={"prompt": "q", "response": "a"})
    expected = load_scores(ROWS, ATTRIBUTES)
    assert scored.names == ATTRIBUTES
    assert scored.candidates == expected.candidates
    np.testing.assert_array_equal(scored.scores, expected.scores)
    flat = [{"prompt": row["prompt"], "response": row["response"], "scores.tone": row["tone"]} for row in ROWS]
    np.testing.assert_array_equal(load_scores(flat, ["scores.tone"]).scores[:, 0], expected.scores[:, 1])


def test_a_response_that_comes_again_is_one_candidate_with_the_mean_of_its_scores():
    again = [{**ROWS[0], "quality": 1.0, "tone": 2}, {**ROWS[0], "quality": 5.0, "tone": 6}]
    elsewhere = {**ROWS[0], "prompt": "How?", "quality": 9.0, "tone": 9}  # the same text at another prompt is another candidate
    scored = load_scores([*ROWS, *again, elsewhere], ATTRIBUTES)
    assert scored.candidates.responses == [["Because.", "No idea.", "Ask him."], ["Slowly, “so”.", "Fast.", "Because."]]
    np.testing.assert_array_equal(scored.scores, [[3, 3], [2.5, 4], [0, 5], [1, 7], [-1.5, 2], [9, 9]])


def test_conversations_are_prompts_too():
    chat = [{"role": "user", "content": "Why?"}]
    scored = load_scores([{**row, "prompt": chat} for row in ROWS], ATTRIBUTES)
    assert scored.candidates.prompts == [chat]
    assert scored.candidates.counts == [5]


def test_prompts_with_few_responses_are_left_out_unless_asked_for():
    assert load_scores(ROWS, ATTRIBUTES, fewest=3).candidates.prompts == ["Why?"]
    assert load_scores(ROWS[:2], ATTRIBUTES, fewest=1).candidates.counts == [1, 1]
    with pytest.raises(PairError, match=r"rows: no prompt has 4 different responses \(fewest\); the most of any is 3"):
        load_scores(ROWS, ATTRIBUTES, fewest=4)


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        (
            "a.jsonl",
            {"tone": None},
            "a.jsonl, row 2, column 'tone': expected a finite number, got None; drop_invalid=True leaves",
        ),
        ("a.jsonl", {"tone": float("nan")}, "a.jsonl, row 2, column 'tone': expected a finite number, got nan"),
        ("a.jsonl", {"tone": float("inf")}, "a.jsonl, row 2, column 'tone': expected a finite number, got inf"),
        ("a.jsonl", {"tone": 10**400}, r"a.jsonl, row 2, column 'tone': expected a finite number, got 1000"),
        ("a.jsonl", {"tone": -1.7e308}, r"a.jsonl, row 2, column 'tone': expected a number below 1e\+150 in size, got -1.7e"),
        ("a.jsonl", {"tone": True}, "a.jsonl, row 2, column 'tone': expected a finite number, got True"),
        ("a.jsonl", {"tone": [3]}, r"a.jsonl, row 2, column 'tone': expected a finite number, got \[3\]"),
        ("a.csv", {"quality": ""}, "a.csv, row 2, column 'quality': expected a finite number, got ''"),
        ("a.csv", {"quality": "good"}, "a.csv, row 2, column 'quality': expected a finite number, got 'good'"),
        ("a.parquet", {"quality": None}, "a.parquet, row 2, column 'quality': expected a finite number, got None"),
        ("a.jsonl", {"response": " "}, "a.jsonl, row 2, column 'response': expected text, got ' '"),
        ("a.csv", {"prompt": ""}, "a.csv, row 2, column 'prompt': expected text, got ''"),
    ],
)
def test_a_bad_row_is_named_or_left_out(tmp_path, caplog, name, row, message):
    rows = [ROWS[0], {**ROWS[1], **row}, *ROWS[2:]]
    path = write(tmp_path / name, rows)
    with pytest.raises(PairError, match=message):
        load_scores(path, ATTRIBUTES)
    with caplog.at_level(logging.WARNING):
        scored = load_scores(path, ATTRIBUTES, drop_invalid=True)
    assert scored.candidates.responses == [["Because.", "No idea.", "Ask him."]]  # "How?" has a single response left
    assert "left out 1 of 5 rows; the first: " in caplog.text


def test_missing_columns_are_named_with_those_there_are():
    with pytest.raises(PairError, match="rows, row 1, column 'tact': missing, there are 'prompt', 'response', 'quality', 'tone'"):
        load_scores(ROWS, ["quality", "tact"])
    nested = [{"prompt": "p", "response": "r", "scores": {"tone": 1}}]
    with pytest.raises(PairError, match=r"rows, row 1, column 'scores.tact': missing, there are 'tone'"):
        load_scores(nested, ["scores.tact"])
    with pytest.raises(
        PairError, match=r"row 1, column 'summary': missing, the columns are .*columns={'response': ...} says where"
    ):
        load_scores(ROWS, ATTRIBUTES, columns={"response": "summary"})
    with pytest.raises(PairError, match="rows, row 1: expected an object with columns, got 'text'"):
        load_scores(["text"], ATTRIBUTES)
    with pytest.raises(PairError, match=r"rows: no prompt has 2 .*; the most of any is 0; rows, row 1, column 'tact': missing"):
        load_scores(ROWS, ["tact"], drop_invalid=True)


@pytest.mark.parametrize(
    ("attributes", "options", "message"),
    [
        ([], {}, r"attributes: expected names of columns, at least one, got \[\]"),
        ("quality", {}, "attributes: expected names of columns, at least one, got 'quality'"),
        (["tone", "scores.tone"], {}, "attributes: expected different names, got 'tone', 'tone'"),
        (ATTRIBUTES, {"columns": {"answer": "a"}}, "columns: expected names out of prompt, response, got 'answer'"),
        (ATTRIBUTES, {"fewest": 0}, "fewest: expected at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(attributes, options, message):
    with pytest.raises(ValueError, match=message):
        load_scores(ROWS, attributes, **options)
