"""Prompt and response to token ids, in one way everywhere: embedding, training, generating, scoring."""

from collections.abc import Sequence
from typing import Any

from palm.data.schema import Text, as_messages


def encode_prompt(tokenizer: Any, prompt: Text) -> list[int]:
    """Token ids of a prompt, ready for the model to answer.

    A conversation goes through the tokenizer's chat template with the generation prompt; text gets the tokenizer's own
    beginning-of-sequence token, and a newline if it does not end in white space.

    Raises:
        ValueError: the prompt is a conversation and the tokenizer has no chat template.
    """
    if isinstance(prompt, str):
        text = prompt if prompt[-1:].isspace() else prompt + "\n"
        return list(tokenizer(text)["input_ids"])
    return _template(tokenizer, prompt, add_generation_prompt=True)


def encode_response(tokenizer: Any, prompt: Text, response: Text) -> list[int]:
    """Token ids of a response after `encode_prompt(prompt)`, with the end-of-sequence token.

    Text and conversation are tokenised apart from the prompt's own text, so no token spans the two.
    """
    if isinstance(prompt, str) and isinstance(response, str):
        return [*tokenizer(response, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    beginning = _template(tokenizer, as_messages(prompt, "user"), add_generation_prompt=True)
    whole = _template(tokenizer, as_messages(prompt, "user") + as_messages(response, "assistant"))
    if whole[: len(beginning)] == beginning:
        return whole[len(beginning) :]
    content = "\n".join(message["content"] for message in as_messages(response, "assistant"))
    return [*tokenizer(content, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def encode(tokenizer: Any, prompt: Text, response: Text, *, max_length: int | None = None) -> tuple[list[int], list[int]]:
    """Token ids of prompt and response, cut by `fit` to `max_length`."""
    return fit(encode_prompt(tokenizer, prompt), encode_response(tokenizer, prompt, response), max_length)


def fit(prompt_ids: list[int], response_ids: list[int], max_length: int | None) -> tuple[list[int], list[int]]:
    """Cut what exceeds `max_length` from the prompt's start, then the response's end.

    At least one token of the prompt stays, and at least half of `max_length` goes to the response if it needs it.
    """
    if max_length is not None and len(prompt_ids) + len(response_ids) > max_length:
        prompt_ids = prompt_ids[-max(1, max_length - max(len(response_ids), 1), max_length // 2) :]
        response_ids = response_ids[: max_length - len(prompt_ids)]
    return prompt_ids, response_ids


def fit_all(prompt_ids: list[int], responses: Sequence[list[int]], max_length: int | None) -> tuple[list[int], list[list[int]]]:
    """Cut a prompt and its responses as `fit` does: the prompt once, for the longest response, so that all follow the same one."""
    prompt, longest = fit(prompt_ids, max(responses, key=len, default=[]), max_length)
    if max_length is None or not longest:
        return prompt, list(responses)
    return prompt, [response[: max_length - len(prompt)] for response in responses]


def _template(tokenizer: Any, messages: list[dict[str, str]], *, add_generation_prompt: bool = False) -> list[int]:
    if not tokenizer.chat_template:
        raise ValueError("prompt: expected text, since this tokenizer has no chat template; got a list of messages")
    encoded = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=add_generation_prompt, return_dict=True)
    return list(encoded["input_ids"])
