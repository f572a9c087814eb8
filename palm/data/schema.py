"""What a pair is: five columns, text or chat, both sides brought into one form by one function.

A label must never be readable from the form. `normalise_side` treats chosen and rejected alike, so that a side given
as a list of messages and a side given as text come out the same (a published data set leaked its labels that way).
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

COLUMNS = ("user", "prompt", "chosen", "rejected", "group")
REQUIRED = ("user", "chosen", "rejected")
ROLES = ("system", "user", "assistant", "tool")

Message = dict[str, str]
Text = str | list[Message]


class PairError(ValueError):
    """A pair, or a file of pairs, is not what was expected; the message names file, row and column."""


def normalise_row(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check one pair and bring it into the schema.

    Args:
        row: values under the names of `COLUMNS`; `prompt` may be left out when both sides are conversations that
            begin alike, `group` always (a pair's group is then its prompt).
        where: file and row, for messages.

    Returns:
        user and group as strings; prompt, chosen and rejected all text or all lists of messages, the sides holding
        what comes after the prompt.

    Raises:
        PairError: a column is missing, empty or of another type, or the two sides are equal.
    """
    user = row.get("user")
    if user is None or isinstance(user, bool | float | list | dict) or not str(user).strip():
        raise PairError(f"{where}, column 'user': expected a user id, got {user!r:.60}")
    prompt = row.get("prompt")
    chosen = normalise_side(row.get("chosen"), f"{where}, column 'chosen'")
    rejected = normalise_side(row.get("rejected"), f"{where}, column 'rejected'")
    chat = isinstance(prompt, list) or isinstance(chosen, list) or isinstance(rejected, list)
    if prompt is not None:
        prompt = normalise_side(prompt, f"{where}, column 'prompt'")
    if chat:
        chosen, rejected = as_messages(chosen, "assistant"), as_messages(rejected, "assistant")
        prompt = as_messages(prompt, "user") if prompt is not None else []
        prompt, chosen, rejected = _split_shared(prompt, chosen, rejected, where)
    elif prompt is None:
        raise PairError(f"{where}, column 'prompt': expected text, got nothing; only conversations can do without")
    if chosen == rejected:
        raise PairError(f"{where}, columns 'chosen' and 'rejected': expected different responses, got the same twice")
    group = row.get("group")
    if group is None or (isinstance(group, str) and not group.strip()):
        group = text_id(prompt)
    if isinstance(group, bool | float | list | dict):
        raise PairError(f"{where}, column 'group': expected an id, got {group!r:.60}")
    for name, value in (("user", user), ("group", group)):
        _check_unicode(str(value), f"{where}, column '{name}'")
        if "\0" in str(value):
            raise PairError(f"{where}, column '{name}': expected an id without NUL characters, got {str(value)!r:.60}")
    return {"user": str(user), "prompt": prompt, "chosen": chosen, "rejected": rejected, "group": str(group)}


def plain_text(text: Text) -> str:
    """A text as it is; a conversation's messages, one after the other."""
    return text if isinstance(text, str) else "\n".join(message["content"] for message in text)


def normalise_side(value: Any, where: str) -> Text:
    """Check a prompt or a response: text that is not blank, or messages with a role and content.

    Raises:
        PairError: anything else.
    """
    if isinstance(value, str):
        if not value.strip():
            raise PairError(f"{where}: expected text, got {value!r}")
        _check_unicode(value, where)
        return value
    if isinstance(value, list | tuple) and value:
        messages = []
        for message in value:
            if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
                raise PairError(f"{where}: expected messages with 'role' and 'content', got {message!r:.60}")
            role, content = message["role"], message["content"]
            if role not in ROLES:
                raise PairError(f"{where}: expected a role out of {', '.join(ROLES)}, got {role!r:.60}")
            if not isinstance(content, str) or not content.strip():
                raise PairError(f"{where}: expected a message's content to be text, got {content!r:.60}")
            _check_unicode(content, where)
            messages.append({"role": role, "content": content})
        return messages
    raise PairError(f"{where}: expected text or a list of messages, got {value!r:.60}")


def _check_unicode(text: str, where: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON's escapes can spell it, but no file or tokenizer can take it
        raise PairError(f"{where}: expected Unicode text, got half a surrogate pair at character {error.start}") from None


def as_messages(text: Text, role: str) -> list[Message]:
    """Messages as they are; text as one message of `role`."""
    return [{"role": role, "content": text}] if isinstance(text, str) else text


def text_id(*texts: Text) -> str:
    """A short id of texts or conversations, equal for equal content."""
    form = json.dumps(texts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(form.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _split_shared(
    prompt: list[Message], chosen: list[Message], rejected: list[Message], where: str
) -> tuple[list[Message], list[Message], list[Message]]:
    """Move what both conversations begin with into the prompt, and see that each side ends with the assistant."""
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    beginning = chosen[:shared]
    if prompt and beginning[: len(prompt)] == prompt:
        prompt = beginning  # the sides repeat the prompt
    else:
        prompt = prompt + beginning
    chosen, rejected = chosen[shared:], rejected[shared:]
    if not prompt:
        raise PairError(f"{where}, column 'prompt': expected messages, got none, and the two sides share no beginning")
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        if side[-1]["role"] != "assistant":
            raise PairError(f"{where}, column '{name}': expected the assistant to speak last, got {side[-1]['role']!r}")
    return prompt, chosen, rejected
