"""palm.lm.tokens: prompt and response become the same tokens everywhere, and what is cut is cut as documented."""

from typing import Any

import pytest

from palm.lm.load import LanguageModel
from palm.lm.tokens import encode, encode_prompt, encode_response, fit, fit_all

PROMPT, RESPONSE = "How do I bake bread?", "Just mix the flour and water."


@pytest.fixture
def tokenizer(language_model: LanguageModel) -> Any:
    return language_model.tokenizer


def test_text_has_one_beginning_one_newline_and_one_end(tokenizer: Any) -> None:
    prompt, response = encode(tokenizer, PROMPT, RESPONSE)
    assert tokenizer.decode(prompt + response) == f"<s>{PROMPT}\n{RESPONSE}</s>"
    assert (prompt[0], prompt.count(tokenizer.bos_token_id)) == (tokenizer.bos_token_id, 1)
    assert (response[-1], response.count(tokenizer.eos_token_id)) == (tokenizer.eos_token_id, 1)
    assert encode_prompt(tokenizer, PROMPT + "\n") == encode_prompt(tokenizer, PROMPT)
    assert tokenizer.decode(encode_prompt(tokenizer, PROMPT + " ")) == f"<s>{PROMPT} "


def test_any_text_survives_the_round_trip(tokenizer: Any) -> None:
    for text in ("Grüße 🎉 どう", "  two  spaces ", "a\nb\tc\u2028d"):
        assert tokenizer.decode(encode_response(tokenizer, "p", text)[:-1]) == text


def test_conversation_goes_through_the_chat_template(tokenizer: Any) -> None:
    conversation = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": PROMPT}]
    answer = [{"role": "assistant", "content": RESPONSE}]
    prompt, response = encode(tokenizer, conversation, answer)
    assert prompt + response == tokenizer.apply_chat_template(conversation + answer, tokenize=True, return_dict=True)["input_ids"]
    assert tokenizer.decode(prompt).endswith("<|assistant|>\n")
    assert tokenizer.decode(response).startswith(RESPONSE)
    assert encode(tokenizer, conversation, RESPONSE) == (prompt, response), "a side given as text is the same"


def test_template_that_rewrites_the_beginning_still_gives_the_response(tokenizer: Any) -> None:
    """Some templates drop what earlier turns held once another turn follows; then the response is tokenised by itself."""
    other = type(tokenizer)(tokenizer_object=tokenizer._tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    other.chat_template = "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    prompt, response = encode(other, [{"role": "user", "content": PROMPT}], [{"role": "assistant", "content": RESPONSE}])
    assert other.decode(prompt) == f"1{PROMPT}"
    assert other.decode(response) == f"{RESPONSE}</s>"


def test_conversation_needs_a_chat_template(tokenizer: Any) -> None:
    bare = type(tokenizer)(tokenizer_object=tokenizer._tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    with pytest.raises(ValueError, match="prompt: expected text, since this tokenizer has no chat template; got a list"):
        encode(bare, [{"role": "user", "content": "x"}], "y")


@pytest.mark.parametrize("max_length", range(2, 80))
def test_what_exceeds_the_length_is_cut_from_the_prompts_start_then_the_responses_end(tokenizer: Any, max_length: int) -> None:
    for prompt, response in ((PROMPT * 3, RESPONSE), (PROMPT, RESPONSE * 4), ("Hi", RESPONSE * 4), (PROMPT * 4, "Yes.")):
        whole_prompt, whole_response = encode(tokenizer, prompt, response)
        cut_prompt, cut_response = encode(tokenizer, prompt, response, max_length=max_length)
        if len(whole_prompt) + len(whole_response) <= max_length:
            assert (cut_prompt, cut_response) == (whole_prompt, whole_response)
            continue
        assert len(cut_prompt) + len(cut_response) == max_length
        assert cut_prompt
        assert cut_prompt == whole_prompt[-len(cut_prompt) :]
        assert cut_response == whole_response[: len(cut_response)]
        assert len(cut_response) >= min(len(whole_response), max_length // 2)
        if len(cut_response) < len(whole_response):
            assert len(cut_prompt) <= max(1, max_length // 2), "the prompt gives way first"


@pytest.mark.parametrize("max_length", [2, 3, 7, 12, 20, 40])
def test_a_prompt_is_cut_once_for_all_its_responses(max_length: int) -> None:
    prompt, responses = list(range(100, 118)), [[1], list(range(9)), list(range(30)), [5, 6]]
    cut, kept = fit_all(prompt, responses, max_length)
    assert cut == fit(prompt, responses[2], max_length)[0], "as the longest response wants it"
    assert kept[2] == fit(prompt, responses[2], max_length)[1]
    assert all(len(cut) + len(response) <= max_length for response in kept)
    assert all(response[: len(left)] == left for response, left in zip(responses, kept, strict=True))
    assert fit_all(prompt, responses, 48) == fit_all(prompt, responses, None) == (prompt, responses)
