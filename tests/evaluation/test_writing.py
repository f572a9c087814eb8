"""palm.evaluation.writing: what each policy wrote, and policies against each other, with intervals over prompts."""

from typing import Any

import numpy as np
import pytest

from palm.evaluation.diversity import References, distinct_n, self_bleu
from palm.evaluation.intervals import jackknife
from palm.evaluation.vendi import different_policies, vendi, word_kernel
from palm.evaluation.writing import writing


def texts_of(words: str, prompts: int, count: int, seed: int) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    return [[" ".join(rng.choice(list(words), size=6)) for _ in range(count)] for _ in range(prompts)]


def test_numbers_are_those_of_the_texts() -> None:
    responses = {"a": texts_of("abcdefgh", 6, 2, 0), "b": texts_of("ghijklmnop", 6, 2, 1)}
    found = writing(responses, groups=6)
    own = [text for row in responses["a"] for text in row]
    row = found.policies[0]
    kernel = word_kernel(own + [text for rows in responses["b"] for text in rows])  # rare words are rare among all texts
    assert (row.policy, row.texts, row.vendi.count) == ("a", 12, 6)
    assert (row.distinct_1.mean, row.distinct_2.mean) == (distinct_n(own, 1), distinct_n(own, 2))
    assert row.self_bleu.mean == pytest.approx(self_bleu([text.split() for text in own]))
    assert row.vendi.mean == pytest.approx(vendi(kernel[:12, :12]))
    assert found.between is not None
    policy = np.repeat([0, 1], 12)
    assert found.between.policies.mean == pytest.approx(different_policies(kernel, policy))
    assert found.between.vendi.mean == pytest.approx(vendi(kernel))
    words = {name: [text.split() for row in rows for text in row] for name, rows in responses.items()}
    bleu = [References(words["b"]).bleu(text) for text in words["a"]] + [References(words["a"]).bleu(text) for text in words["b"]]
    assert found.between.bleu.mean == pytest.approx(np.mean(bleu))
    left = [distinct_n([text for at, row in enumerate(responses["a"]) if at != out for text in row], 2) for out in range(6)]
    assert row.distinct_2 == jackknife(row.distinct_2.mean, np.array(left), 6, least=0, most=1)
    assert row.distinct_2.low < row.distinct_2.mean < row.distinct_2.high


def test_policies_that_write_differently_stand_out() -> None:
    alike = writing({name: texts_of("abcdefghijkl", 8, 3, seed) for seed, name in enumerate("xyz")}).between
    unlike = writing({name: texts_of(words, 8, 3, 0) for name, words in (("x", "abcd"), ("y", "efgh"), ("z", "ijkl"))}).between
    assert alike is not None
    assert unlike is not None
    assert alike.policies.mean < alike.if_same_most
    assert unlike.policies.mean == pytest.approx(3)
    assert unlike.if_same_most < 2
    assert unlike.bleu.mean == 0


def test_policies_of_different_counts_weigh_the_same() -> None:
    responses = {"a": [["x y"], ["x y"]], "b": [["p q", "p q", "p q"], ["p q", "p q", "p q"]]}
    between = writing(responses).between
    assert between is not None
    assert between.vendi.mean == pytest.approx(2)


def test_policies_are_compared_on_equally_many_responses_to_the_same_prompts() -> None:
    """A reference with many candidates a prompt is cut to what the policies have, of the prompts that they are looked at on."""
    short = {"a": texts_of("abcdefgh", 30, 2, 0), "b": texts_of("ghijklmnop", 30, 2, 1)}
    many = texts_of("abcdefghijklmnop", 30, 16, 2)
    found = writing({**short, "reference": many})
    assert found == writing({**short, "reference": [row[:2] for row in many]})
    assert {row.texts for row in found.policies} == {60}
    assert all(row.vendi.low < row.vendi.mean < row.vendi.high for row in found.policies)
    without = [row if number else [] for number, row in enumerate(short["a"])]  # nothing to the first prompt
    assert writing({**short, "a": without}).policies == writing({name: rows[1:] for name, rows in short.items()}).policies


@pytest.mark.parametrize(("prompts", "groups", "looked_at"), [(30, 10, 30), (29, 7, 28), (13, 12, 12), (7, 7, 7), (2, 2, 2)])
def test_prompts_are_left_out_in_equal_groups(prompts: int, groups: int, looked_at: int) -> None:
    rows = texts_of("abcdefgh", prompts, 2, 0)
    row = writing({"a": rows}).policies[0]
    assert (row.texts, row.vendi.count) == (2 * looked_at, looked_at)
    left = []
    for part in np.split(np.arange(looked_at), groups):
        left.append(distinct_n([text for at in range(looked_at) if at not in part for text in rows[at]], 1))
    assert row.distinct_1 == jackknife(row.distinct_1.mean, np.array(left), looked_at, least=0, most=1)


def test_whole_prompts_up_to_the_most() -> None:
    found = writing({"a": texts_of("abcdef", 10, 3, 0)}, most=10)
    assert found.policies[0].texts == 9
    assert found.between is None
    assert writing({"a": texts_of("abcdef", 10, 3, 0)}, most=1).policies[0].texts == 3
    one = writing({"a": [["a b"]]}).policies[0]
    assert (one.vendi.mean, one.distinct_1.low, one.distinct_1.high) == (1, 0, 1)
    two = writing({"a": [["a b c d e"], ["a b c d f"]]}).policies[0]  # without either a single text is left
    assert (two.self_bleu.low, two.self_bleu.high) == (0, 1)


@pytest.mark.parametrize(
    ("responses", "options", "message"),
    [
        ({}, {}, "responses: expected equally many prompts of every policy, at least one, got {}"),
        ({"a": [["x"]], "b": []}, {}, "responses: expected equally many prompts of every policy"),
        ({"a": [[], ["x"]], "b": [["x"], []]}, {}, "expected a prompt that every policy answered, found none of 2"),
        ({"a": [["x"]]}, {"level": 2}, "level: expected a number above 0 and below 1, got 2"),
        ({"a": [["x"]]}, {"most": 0}, "most: expected at least 1, got 0"),
        ({"a": [["x"]]}, {"groups": 1}, "groups: expected at least 2, got 1"),
    ],
)
def test_what_cannot_be_compared(responses: dict[str, list[list[str]]], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        writing(responses, **options)
