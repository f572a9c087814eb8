"""palm.rewards.traits: what each counts, and texts with nothing to count."""

import pytest

from palm.rewards.functions import score_texts
from palm.rewards.traits import CHEERFUL, GLOOMY, cheer, dialogue, length, sentence_length

NAMES = ["palm.rewards.traits:length", "palm.rewards.traits:dialogue", "palm.rewards.traits:cheer"]


def test_length_is_a_share_of_120_words():
    assert length(["p"] * 3, ["", "one two, three", "word " * 200]) == pytest.approx([0, 3 / 120, 1])


def test_length_of_sentences_is_their_mean_as_a_share_of_30_words():
    texts = ["One two three four. Five!", 'Wait... "What?" he said.\nNo', "", "word " * 40, "3.5 is a number"]
    assert sentence_length(["p"] * 5, texts) == pytest.approx([2.5 / 30, 5 / 4 / 30, 0, 1, 3 / 30])


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("He said nothing.", 0),
        ('"Come here," said Tom.', 0.5),
        ("“Come here,” said Tom.", 0.5),
        ('Tom said: "come here', 0.5),
        ('"Ja, natürlich"', 1),
        ("", 0),
        ('""', 0),
    ],
)
def test_dialogue_is_the_share_of_words_in_quotes(text, share):
    assert dialogue(["p"], [text]) == pytest.approx([share])


def test_cheer_goes_from_gloomy_over_neutral_to_cheerful():
    gloomy, neutral, cheerful = cheer(["p"] * 3, ["sad and afraid", "the box was green", "Happy friends laughed"])
    assert (gloomy, neutral, cheerful) == (0.0, 0.5, 1.0)
    assert cheer(["p"], ["happy, but sad"]) == [0.5]
    assert cheer(["p"], ["one happy word in " + "a " * 96]) == pytest.approx([0.5 + 0.01 / 0.24])


def test_no_word_is_both_cheerful_and_gloomy():
    assert not CHEERFUL & GLOOMY


def test_conversations_and_texts_without_words_get_a_number():
    message = [{"role": "assistant", "content": 'She said "thanks"'}]
    scores = score_texts(NAMES, [("p", message), ("p", "…"), ("p", "12 34")])
    assert scores[0] == pytest.approx([3 / 120, 1 / 3, 1.0])
    assert scores[1:].tolist() == [[0, 0, 0.5]] * 2
