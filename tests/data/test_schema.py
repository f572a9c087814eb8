"""palm.data.schema: one form for every pair, and a message for everything that is no pair."""

from typing import Any

import pytest

from palm.data.schema import COLUMNS, PairError, as_messages, normalise_row, normalise_side, text_id

PAIR = {"user": "ann", "prompt": "Why?", "chosen": "Because.", "rejected": "No idea."}


def _says(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def test_text_pair_comes_out_as_it_went_in_with_its_prompt_as_group() -> None:
    row = normalise_row(PAIR, "here")
    assert tuple(row) == COLUMNS
    assert row == {**PAIR, "group": text_id("Why?")}


def test_ids_may_be_integers_and_become_text() -> None:
    row = normalise_row({**PAIR, "user": 7, "group": 12}, "here")
    assert (row["user"], row["group"]) == ("7", "12")


def test_blank_group_is_the_prompts() -> None:
    assert normalise_row({**PAIR, "group": "  "}, "here")["group"] == normalise_row(PAIR, "here")["group"]


def test_form_of_a_side_tells_nothing_about_the_label() -> None:
    """The same conversation comes out equal whichever side is given as messages and which as text."""
    conversation = [_says("user", "Why?"), _says("assistant", "Because.")]
    listed = normalise_row(
        {**PAIR, "prompt": None, "chosen": conversation, "rejected": [conversation[0], _says("assistant", "No.")]}, ""
    )
    mixed = normalise_row({**PAIR, "prompt": [conversation[0]], "chosen": [_says("assistant", "Because.")], "rejected": "No."}, "")
    plain = normalise_row({**PAIR, "prompt": [conversation[0]], "chosen": "Because.", "rejected": [_says("assistant", "No.")]}, "")
    repeated = normalise_row(
        {**PAIR, "prompt": "Why?", "chosen": conversation, "rejected": [conversation[0], _says("assistant", "No.")]}, ""
    )
    assert listed == mixed == plain == repeated
    assert listed["prompt"] == [_says("user", "Why?")]
    assert listed["chosen"] == [_says("assistant", "Because.")]


def test_turns_that_both_sides_share_move_into_the_prompt_but_never_the_last() -> None:
    shared = [_says("user", "Hi"), _says("assistant", "Hello"), _says("user", "Why?")]
    row = normalise_row(
        {"user": "ann", "chosen": [*shared, _says("assistant", "A")], "rejected": [*shared, _says("assistant", "B")]}, "here"
    )
    assert row["prompt"] == shared
    assert (row["chosen"], row["rejected"]) == ([_says("assistant", "A")], [_says("assistant", "B")])
    longer = [_says("assistant", "A"), _says("user", "And?"), _says("assistant", "B")]
    row = normalise_row({"user": "ann", "prompt": "Why?", "chosen": longer, "rejected": longer[:1]}, "here")
    assert (row["chosen"], row["rejected"]) == (longer, longer[:1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user": None}, "column 'user': expected a user id, got None"),
        ({"user": float("nan")}, "column 'user': expected a user id, got nan"),
        ({"user": "  "}, "column 'user': expected a user id, got '  '"),
        ({"user": True}, "column 'user': expected a user id, got True"),
        ({"prompt": None}, "column 'prompt': expected text, got nothing"),
        ({"prompt": float("nan")}, "column 'prompt': expected text or a list of messages, got nan"),
        ({"chosen": ""}, "column 'chosen': expected text, got ''"),
        ({"rejected": None}, "column 'rejected': expected text or a list of messages, got None"),
        ({"rejected": []}, r"column 'rejected': expected text or a list of messages, got \[\]"),
        ({"chosen": [{"role": "assistant"}]}, "column 'chosen': expected messages with 'role' and 'content'"),
        ({"chosen": [_says("robot", "A")]}, "column 'chosen': expected a role out of system, user, assistant, tool, got 'robot'"),
        ({"chosen": [_says("assistant", " ")]}, "column 'chosen': expected a message's content to be text, got ' '"),
        ({"chosen": [_says("user", "A")]}, "column 'chosen': expected the assistant to speak last, got 'user'"),
        ({"chosen": "No idea."}, "columns 'chosen' and 'rejected': expected different responses"),
        ({"group": 1.5}, "column 'group': expected an id, got 1.5"),
        ({"chosen": "a\ud800"}, "column 'chosen': expected Unicode text, got half a surrogate pair at character 1"),
        ({"user": "a\0"}, "column 'user': expected an id without NUL characters, got 'a.x00'"),
        ({"user": "\udc00"}, "column 'user': expected Unicode text, got half a surrogate pair at character 0"),
        ({"group": "g\udc00"}, "column 'group': expected Unicode text, got half a surrogate pair at character 1"),
        ({"chosen": [_says("assistant", "\ud800")]}, "column 'chosen': expected Unicode text"),
    ],
)
def test_what_is_no_pair_is_refused_by_place_and_column(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PairError, match=f"^file, row 3, {message}"):
        normalise_row({**PAIR, **change}, "file, row 3")


def test_conversations_without_prompt_must_begin_alike() -> None:
    with pytest.raises(PairError, match="column 'prompt': expected messages, got none, and the two sides share no beginning"):
        normalise_row({"user": "u", "chosen": [_says("assistant", "A")], "rejected": [_says("assistant", "B")]}, "here")


def test_messages_lose_what_is_neither_role_nor_content() -> None:
    assert normalise_side([{"role": "user", "content": "Hi", "score": 3}], "here") == [_says("user", "Hi")]


def test_text_id_depends_on_content_and_order_only() -> None:
    assert text_id("a", "b") == text_id("a", "b") != text_id("b", "a")
    assert text_id("ab", "c") != text_id("a", "bc")
    assert text_id([{"role": "user", "content": "x"}]) == text_id([{"content": "x", "role": "user"}]) != text_id("x")


def test_as_messages_wraps_text_only() -> None:
    assert as_messages("Hi", "user") == [_says("user", "Hi")]
    assert as_messages([_says("tool", "x")], "user") == [_says("tool", "x")]
