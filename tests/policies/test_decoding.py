"""palm.policies.decoding: mixtures of log-probabilities, token by token, on a tiny model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from made_adapters import make_adapters

from palm.data.planted import prompt_texts
from palm.lm.generate import sample_responses
from palm.lm.load import load_language_model
from palm.lm.logprobs import response_kl
from palm.lm.tokens import encode_prompt
from palm.policies.adapters import Members
from palm.policies.decoding import sample_mixture

PROMPTS = prompt_texts()[::170]


@pytest.fixture(scope="module")
def members(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Members:
    base = load_language_model(base_folder)
    return Members(base, make_adapters(base, tmp_path_factory.mktemp("adapters"), ("one", "two.dotted"), std=0.4))


@pytest.mark.parametrize("name", ["one", "two.dotted"])
def test_all_weight_on_one_member_is_that_member(members: Members, name: str) -> None:
    """Token for token what the member itself samples with the same seed, and its own divergence from the reference."""
    options = {"count": 3, "max_new_tokens": 12, "batch_size": 9, "seed": 5}
    drawn = sample_mixture(members, {"one": float(name == "one"), "two.dotted": float(name != "one")}, PROMPTS, **options)
    with members.policy(name) as policy:
        alone = sample_responses(policy, PROMPTS, **options)
        texts = [(encode_prompt(members.tokenizer, p), s.token_ids) for p, row in zip(PROMPTS, alone, strict=True) for s in row]
        kl, ratio = response_kl(policy, texts, without_adapter=members.without_adapter)
    assert [[mixed.sample for mixed in row] for row in drawn] == alone
    flat = [mixed for row in drawn for mixed in row]
    np.testing.assert_allclose([mixed.kl for mixed in flat], kl, atol=1e-4)
    np.testing.assert_allclose([mixed.log_ratio for mixed in flat], ratio, atol=1e-4)
    assert {len(s.token_ids) for row in alone for s in row} - {12}, "a response that ends early is needed for this to test masking"


def test_first_token_follows_the_geometric_mean(members: Members) -> None:
    """2,000 draws: chi-square of the 20 likeliest tokens and the rest below 60, and the exact divergence."""
    weights, draws = {"one": 0.3, "two.dotted": 0.7}, 2000
    drawn = sample_mixture(members, weights, PROMPTS[:1], count=draws, max_new_tokens=1)[0]
    ids = torch.tensor([encode_prompt(members.tokenizer, PROMPTS[0])])
    with torch.inference_mode():
        logs = {}
        for name in weights:
            with members.policy(name) as policy:
                logs[name] = policy.model(ids).logits[0, -1].double().log_softmax(dim=0)
        with members.reference() as reference:
            base = reference.model(ids).logits[0, -1].double().log_softmax(dim=0)
    mixture = sum(weight * logs[name] for name, weight in weights.items()).log_softmax(dim=0)
    probability = mixture.exp().numpy()
    likeliest = np.argsort(-probability)[:20]
    counts = np.bincount([mixed.sample.token_ids[0] for mixed in drawn], minlength=len(probability))
    expected = np.append(probability[likeliest], 1 - probability[likeliest].sum()) * draws
    found = np.append(counts[likeliest], draws - counts[likeliest].sum())
    assert ((found - expected) ** 2 / expected).sum() < 60
    exact = float((mixture.exp() * (mixture - base)).sum())
    mean = sum(weight * logs[name].exp() for name, weight in weights.items())
    assert abs(float((mean * (mean.log() - base)).sum()) - exact) > 1e-3, "the mean of probabilities would not be told from it"
    np.testing.assert_allclose([mixed.kl for mixed in drawn], exact, atol=1e-4)
    token = drawn[0].sample.token_ids[0]
    assert drawn[0].log_ratio == pytest.approx(float(mixture[token] - base[token]), abs=1e-4)


def test_log_ratio_less_divergence_averages_to_nothing(members: Members) -> None:
    drawn = sample_mixture(members, {"one": 0.5, "two.dotted": 0.5}, PROMPTS[:1], count=400, max_new_tokens=8)[0]
    apart = np.array([mixed.log_ratio - mixed.kl for mixed in drawn])
    assert abs(apart.mean()) < 4 * apart.std() / np.sqrt(len(apart))
    assert np.mean([mixed.kl for mixed in drawn]) > 0.05


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        ({"three": 1.0}, {}, "weights: expected ids out of one, two.dotted, got 'three'"),
        ({"one": 0.5}, {}, "weights: expected numbers of at least 0 that sum to 1"),
        ({"one": 1.5, "two.dotted": -0.5}, {}, "weights: expected numbers of at least 0"),
        ({}, {}, "weights: expected numbers of at least 0 that sum to 1, got {}"),
        ({"one": float("nan")}, {}, "weights: expected numbers"),
        ({"one": 1.0}, {"count": 0}, "count: expected at least 1, got 0"),
        ({"one": 1.0}, {"max_new_tokens": 0}, "max_new_tokens: expected at least 1, got 0"),
    ],
)
def test_what_cannot_be_sampled(members: Members, weights: dict[str, float], options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_mixture(members, weights, PROMPTS[:1], **{"count": 1, **options})
