import numpy as np
import pytest

from palm.data.ids import as_ids


def test_text_and_numbers_become_strings():
    assert as_ids(["a", "ß ", 7, "nan"], name="user").tolist() == ["a", "ß ", "7", "nan"]
    assert as_ids(np.array([10, 9]), name="user").tolist() == ["10", "9"]
    given = np.array(["b", "a"])
    assert as_ids(given, name="user").tolist() == ["b", "a"]
    assert not np.shares_memory(as_ids(given, name="user"), given)
    assert as_ids((), name="user").dtype == "<U1"


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ("ab", "user: expected a list or array of ids, got the text 'ab'"),
        (b"ab", "user: expected a list or array of ids, got the text b'ab'"),
        (3, r"user: expected a list or array of ids, got the shape \(\)"),
        (np.array([["a"]]), r"user: expected a list or array of ids, got the shape \(1, 1\)"),
        (["a", None], "user: expected ids, got None at position 1"),
        (["a", float("nan")], "user: expected ids, got nan at position 1"),
        (np.array([np.float32("nan")]), "user: expected ids, got nan at position 0"),
        (["a\0"], r"user: expected ids without NUL characters, got 'a\\x00' at position 0"),
    ],
)
def test_what_is_no_id_is_refused(ids, message):
    with pytest.raises(ValueError, match=message):
        as_ids(ids, name="user")
