"""What a trained policy writes to some prompts, with its texts' basis rewards and KL terms; finished batches are kept."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from palm.artifacts import digest
from palm.data.schema import Text
from palm.evaluation.measure import Measured, from_samples
from palm.lm.generate import Sample
from palm.lm.load import LanguageModel
from palm.lm.logprobs import response_kl
from palm.lm.sampling import sample_to_folder
from palm.lm.tokens import encode_prompt
from palm.pipeline.data_stages import featurise, read_items
from palm.pipeline.fit_stage import read_main_model
from palm.pipeline.runner import Context
from palm.policies.adapters import Members


@dataclass(frozen=True)
class ScoredTexts:
    """Responses of one policy, prompt after prompt.

    Attributes:
        texts: for each of P prompts, its S responses.
        basis: (P S, K) their basis rewards.
        kl, log_ratio: (P S,) of `palm.lm.logprobs.response_kl`.
    """

    texts: list[list[Text]]
    basis: np.ndarray
    kl: np.ndarray
    log_ratio: np.ndarray

    def measured(self) -> Measured:
        """J and KL by prompt."""
        return from_samples(self.basis, self.kl, len(self.texts[0]), log_ratio=self.log_ratio)


def write_and_score(context: Context, members: Members, name: str, prompts: list[Text], *, count: int, seed: int) -> ScoredTexts:
    """Sample `count` responses to each prompt from the policy `name`, as long as candidates may be, and score them."""
    config = context.config
    with members.policy(name) as policy:
        samples = sample_to_folder(
            policy,
            prompts,
            context.folder / f".writing-{name}",
            count=count,
            batch_size=config.candidates.batch_size,
            max_new_tokens=config.candidates.max_new_tokens,
            temperature=1.0,
            seed=seed,
            label=f"measuring {name}",
            track=context.track,
        )
        return score_samples(context, members, policy, name, prompts, samples)


def score_samples(
    context: Context, members: Members, policy: LanguageModel, name: str, prompts: list[Text], samples: Sequence[Sequence[Sample]]
) -> ScoredTexts:
    """KL terms and basis rewards of what a policy wrote to each prompt."""
    generated = [
        (encode_prompt(policy.tokenizer, prompt), sample.token_ids)
        for prompt, row in zip(prompts, samples, strict=True)
        for sample in row
    ]
    kl, log_ratio = response_kl(policy, generated, without_adapter=members.without_adapter)
    texts: list[list[Text]] = [[sample.text for sample in row] for row in samples]
    return ScoredTexts(texts, score_responses(context, name, prompts, texts), kl, log_ratio)


def score_responses(context: Context, name: str, prompts: list[Text], responses: list[list[Text]]) -> np.ndarray:
    """Basis rewards of a policy's texts, prompt after prompt; features are kept for these texts and not found for others."""
    texts = [(prompt, response) for prompt, row in zip(prompts, responses, strict=True) for response in row]
    folder = context.folder / f".writing-features-{name}-{digest(texts)[:12]}"
    featurise(context, texts, folder)
    return read_main_model(context).basis(read_items(folder))
