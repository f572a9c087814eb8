"""palm.evaluation.divergence: pairwise KL of policies on a tiny model, against distributions counted directly."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from made_adapters import make_adapters

from palm.data.planted import prompt_texts
from palm.evaluation.divergence import Policy, pairwise_kl
from palm.lm.generate import sample_responses
from palm.lm.load import LanguageModel, load_language_model
from palm.lm.logprobs import Encoded, response_kl, response_logprobs
from palm.lm.tokens import encode_prompt
from palm.policies.adapters import Members

PROMPTS = prompt_texts()[::200]


@pytest.fixture(scope="module")
def members(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Members:
    base = load_language_model(base_folder)
    return Members(base, make_adapters(base, tmp_path_factory.mktemp("adapters"), ("one", "two")))


@pytest.fixture(scope="module")
def policies(members: Members) -> dict[str, Policy]:
    return {"reference": members.reference, "one": partial(members.policy, "one"), "two": partial(members.policy, "two")}


def draw(policies: dict[str, Policy], count: int, length: int) -> dict[str, list[list[Encoded]]]:
    drawn = {}
    for name, policy in policies.items():
        with policy() as model:
            samples = sample_responses(model, PROMPTS, count=count, max_new_tokens=length, seed=7)
            prompts = [encode_prompt(model.tokenizer, prompt) for prompt in PROMPTS]
        drawn[name] = [[(prompt, s.token_ids) for s in row] for prompt, row in zip(prompts, samples, strict=True)]
    return drawn


def first_token(model: LanguageModel) -> np.ndarray:
    """(P, vocabulary) log-probabilities of the first token of a response."""
    with torch.inference_mode():
        rows = [model.model(torch.tensor([encode_prompt(model.tokenizer, prompt)])).logits[0, -1] for prompt in PROMPTS]
    return torch.stack(rows).double().log_softmax(dim=1).numpy()


def test_one_token_is_the_divergence_itself(policies: dict[str, Policy]) -> None:
    """Responses of one token: no randomness is left, and every entry is a sum over the vocabulary."""
    found = pairwise_kl(policies, draw(policies, 2, 1))
    logs = {}
    for name, policy in policies.items():
        with policy() as model:
            logs[name] = first_token(model)
    for row, own in enumerate(found.ids):
        for column, other in enumerate(found.ids):
            exact = (np.exp(logs[own]) * (logs[own] - logs[other])).sum(axis=1)
            assert found.kl[row, column] == pytest.approx(exact.mean(), abs=1e-5)
            assert found.error[row, column] == pytest.approx(exact.std(ddof=1) / np.sqrt(len(PROMPTS)), abs=1e-5)
    assert found.kl[1, 2] > 0.05
    assert abs(found.kl[1, 2] - found.kl[2, 1]) > 1e-3


def test_longer_responses_agree_with_log_ratios(policies: dict[str, Policy], members: Members) -> None:
    """Against the reference the numbers are `response_kl`'s; between members their mean is that of the log-ratio."""
    samples = draw(policies, 40, 6)
    found = pairwise_kl(policies, samples)
    texts = [text for row in samples["one"] for text in row]
    with members.policy("one") as model:
        kl = response_kl(model, texts, without_adapter=members.without_adapter)[0]
        own = response_logprobs(model, texts)
    assert found.kl[1, 0] == pytest.approx(kl.mean(), rel=1e-5)
    with members.policy("two") as model:
        ratio = own - response_logprobs(model, texts)
    spread = ratio.reshape(len(PROMPTS), 40)
    noise = np.sqrt((spread.var(axis=1, ddof=1) / 40).mean() / len(PROMPTS))
    assert abs(found.kl[1, 2] - ratio.mean()) < 4 * noise
    assert noise < 0.2 * found.kl[1, 2]
    rows = found.rows()
    assert rows[1]["one"] == "0"
    assert rows[1]["two"] == f"{found.kl[1, 2]:.3f} ± {found.error[1, 2]:.3f}"


def test_samples_must_be_there(policies: dict[str, Policy]) -> None:
    samples = draw(policies, 1, 1)
    with pytest.raises(ValueError, match="samples: expected them of every policy, at least two"):
        pairwise_kl({"one": policies["one"]}, {"one": samples["one"]})
    with pytest.raises(ValueError, match="samples: expected them of every policy"):
        pairwise_kl(policies, {"one": samples["one"]})
    with pytest.raises(ValueError, match="samples: expected equally many of every policy and prompt"):
        pairwise_kl(policies, {**samples, "two": [*samples["two"][:1], []]})
