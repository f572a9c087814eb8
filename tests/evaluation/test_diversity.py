import json
import math
from dataclasses import replace

import numpy as np
import pytest

from palm.evaluation import diversity
from palm.evaluation.diversity import References, bleu, distinct_n, perplexity, self_bleu


def test_perplexity_counts_members_in_effect():
    assert perplexity(np.array([1.0, 0, 0])) == 1
    assert perplexity(np.full(4, 0.25)) == pytest.approx(4)
    assert perplexity(np.array([0.5, 0.25, 0.25])) == pytest.approx(2**1.5)


def test_distinct_counts_different_n_grams():
    assert distinct_n(["a b a", "a b"], 1) == 2 / 5
    assert distinct_n(["a b a", "a b"], 2) == 2 / 3  # ab, ba, ab
    assert distinct_n(["a"], 2) == 0
    assert distinct_n([], 1) == 0


def test_bleu_of_the_same_text_is_1_and_of_another_0():
    text = ["the", "cat", "sat", "on", "the", "mat"]
    assert bleu(text, [text]) == pytest.approx(1)
    assert bleu(text, [["dogs", "bark", "loudly", "at", "night", "too"]]) == 0
    assert bleu([], [text]) == 0
    assert bleu(text, []) == 0


def test_bleu_is_the_product_of_its_parts_counted_by_hand():
    text, reference = ["a", "b", "c", "d", "e"], ["a", "b", "c", "x", "y", "z"]
    # Unigrams 3 of 5; bigrams ab, bc of 4, trigram abc of 3, no 4-gram of 2, each plus one over plus one; 5 words against 6.
    precisions = [3 / 5, (2 + 1) / (4 + 1), (1 + 1) / (3 + 1), (0 + 1) / (2 + 1)]
    assert bleu(text, [reference]) == pytest.approx(math.prod(precisions) ** 0.25 * math.exp(1 - 6 / 5))


def test_bleu_clips_repeats_by_the_most_in_one_reference():
    # "the" is there seven times and twice in a reference: 2 / 7 unigrams (Papineni et al., section 2.1).
    text = ["the"] * 7
    references = [["the", "cat", "is", "on", "the", "mat"], ["there", "is", "a", "cat", "on", "the", "mat"]]
    smoothed = [2 / 7, 1 / 7, 1 / 6, 1 / 5]
    assert bleu(text, references) == pytest.approx(math.prod(smoothed) ** 0.25)


def test_bleu_of_several_references_takes_the_nearest_length():
    text = ["a", "b", "c", "d"]
    assert bleu(text, [["a", "b", "c", "d", "e", "f", "g", "h"], text]) == pytest.approx(1)


def test_self_bleu_is_the_mean_against_all_others():
    texts = [line.split() for line in ("a b c d", "a b c e", "x y z w")]
    expected = [bleu(texts[0], [texts[1], texts[2]]), bleu(texts[1], [texts[0], texts[2]]), bleu(texts[2], texts[:2])]
    assert self_bleu(texts) == pytest.approx(np.mean(expected))
    assert self_bleu([texts[0]] * 3) == pytest.approx(1)
    assert self_bleu(texts[:1]) == 0


def test_policies_that_write_the_same_are_less_diverse_than_those_that_do_not(planned):
    same = {name: ["one two three four five"] * 3 for name in planned.ids}
    different = {
        name: [f"{name}-{n} {name}-{n + 1} {name}-{n + 2} {name}-{n + 3}" for n in range(0, 12, 4)] for name in planned.ids
    }
    alike, unlike = diversity(planned, same), diversity(planned, different)
    assert alike.between_bleu == pytest.approx(1)
    assert unlike.between_bleu == 0
    assert all(value == pytest.approx(1) for value in alike.self_bleu.values())
    assert all(value == 0 for value in unlike.self_bleu.values())
    assert alike.distinct["policy-0"] == (5 / 15, 4 / 12)
    assert unlike.distinct["policy-0"] == (1, 1)


def test_shares_are_of_whom_each_member_serves_best(planned):
    found = diversity(planned, {})
    weights = np.random.default_rng(3).dirichlet(np.ones(3), size=50_000)
    best = planned.utilities(weights).argmax(axis=1)
    np.testing.assert_allclose(found.serving_share, np.bincount(best, minlength=4) / 50_000, atol=0.01)
    assert found.serving_share.sum() == pytest.approx(1)
    assert found.serving_perplexity == pytest.approx(perplexity(found.serving_share))
    assert found.between_bleu == 0
    assert (found.user_share, found.user_perplexity) == (None, None)


def test_users_use_what_serves_them(planned):
    found = diversity(planned, {}, users=np.repeat(planned.weights[:2], [3, 1], axis=0))
    best = planned.utilities(planned.weights[:2]).argmax(axis=1)
    assert found.user_share[best[0]] == 0.75
    assert found.user_perplexity == pytest.approx(perplexity(np.array([0.75, 0.25])))
    json.dumps(found.record(), allow_nan=False)


def test_no_policies_leave_everyone_to_the_reference(planned):
    empty = replace(planned, weights=np.zeros((0, 3)), value=np.zeros((0, 3)), cost=np.zeros(0), ids=(), certificate=None)
    found = diversity(empty, {})
    np.testing.assert_array_equal(found.serving_share, [1])
    assert found.serving_perplexity == 1


def test_a_text_left_out_is_as_if_it_were_not_there():
    """Against a plain count of everything anew, on texts with many shared and repeated words, equal ones among them."""
    rng = np.random.default_rng(0)
    texts = [rng.choice(list("abcdef"), size=rng.integers(1, 15)).tolist() for _ in range(30)]
    texts += [texts[3], texts[7], []]
    everyone = References(texts)
    for place, text in enumerate(texts):
        alone = bleu(text, [*texts[:place], *texts[place + 1 :]])
        assert everyone.bleu(text, without=place) == pytest.approx(alone, abs=1e-15)
    changed = [everyone.bleu(text) != everyone.bleu(text, without=place) for place, text in enumerate(texts)]
    assert any(changed)
