"""Candidates as members are trained on them: token ids and reference log-probabilities once for all, and the rows of a member."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
from datasets import Dataset

from palm.arrays import read_arrays, write_arrays
from palm.artifacts import ArtifactError
from palm.data.schema import Text
from palm.lm.load import LanguageModel
from palm.lm.logprobs import Encoded, response_logprobs
from palm.lm.tokens import encode_prompt, encode_response, fit_all
from palm.policies.pairs import scalarise
from palm.ranks import barrier, rank, ranks
from palm.rewards.tensor import RewardTensor
from palm.seeds import derive_seed

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenisedCandidates:
    """Candidates as token ids, with the reference's log-probabilities.

    Attributes:
        prompts: P prompts' token ids.
        responses: for each prompt, its candidates' token ids.
        reference: (P, N) log-probability of each candidate under the reference, 0 where there is no candidate; None: not computed.
        texts: the prompts as text, which rewards of new texts want; may be missing otherwise.
    """

    prompts: list[list[int]]
    responses: list[list[list[int]]]
    reference: np.ndarray | None
    texts: Sequence[Text] = ()

    def select(self, prompts: np.ndarray) -> Self:
        """Some of the prompts, by number."""
        return type(self)(
            [self.prompts[number] for number in prompts],
            [self.responses[number] for number in prompts],
            None if self.reference is None else self.reference[prompts],
            [self.texts[number] for number in prompts] if len(self.texts) else (),
        )

    @property
    def longest(self) -> int:
        """Tokens of the longest candidate."""
        return max(len(response) for responses in self.responses for response in responses)


def tokenise_candidates(
    language_model: LanguageModel,
    prompts: Sequence[Text],
    responses: Sequence[Sequence[Text]],
    folder: Path,
    *,
    max_length: int,
    sampled: Sequence[Sequence[list[int]]] | None = None,
    reference: bool = True,
    advance: Callable[[int], object] | None = None,
) -> TokenisedCandidates:
    """Token ids of all candidates, and the reference's log-probabilities: computed once, shared by members and ranks.

    Args:
        language_model: the reference.
        prompts: P prompts.
        responses: each prompt's candidates.
        folder: each rank keeps its share of the log-probabilities there; a later call finds them.
        max_length: longest prompt and response in tokens.
        sampled: each prompt's candidates as token ids, where the reference sampled them: its own tokens, and the one that ends a
            response only if that was sampled. Without, candidates are taken to be whole texts.
        reference: False leaves the log-probabilities out, for training that does not want them.
        advance: called with the number of texts done.
    """
    beginnings, encoded = encode_candidates(language_model.tokenizer, prompts, responses, max_length=max_length, sampled=sampled)
    logprobs = None
    if reference:
        counts = np.array([len(candidates) for candidates in encoded])
        logprobs = np.zeros((len(counts), counts.max()))
        there = np.arange(counts.max())[None, :] < counts[:, None]
        logprobs[there] = _reference(language_model, flatten(beginnings, encoded), folder, advance)
    return TokenisedCandidates(beginnings, encoded, logprobs, list(prompts))


def encode_candidates(
    tokenizer: Any,
    prompts: Sequence[Text],
    responses: Sequence[Sequence[Text]],
    *,
    max_length: int,
    sampled: Sequence[Sequence[list[int]]] | None = None,
) -> tuple[list[list[int]], list[list[list[int]]]]:
    """Token ids of P prompts and of each one's candidates, with a warning if some are cut to `max_length`.

    Args:
        tokenizer: of the reference.
        prompts, responses, max_length, sampled: as in `tokenise_candidates`.
    """
    whole = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    if sampled is None:
        sampled = [
            [encode_response(tokenizer, prompt, response) for response in candidates]
            for prompt, candidates in zip(prompts, responses, strict=True)
        ]
    cut = [fit_all(prompt, candidates, max_length) for prompt, candidates in zip(whole, sampled, strict=True)]
    beginnings, encoded = [prompt for prompt, _ in cut], [candidates for _, candidates in cut]
    _tell_of_cuts("prompts at their beginning", whole, beginnings, max_length)
    _tell_of_cuts("responses at their end", list(chain(*sampled)), list(chain(*encoded)), max_length)
    return beginnings, encoded


def _tell_of_cuts(what: str, whole: Sequence[list[int]], cut: Sequence[list[int]], max_length: int) -> None:
    count = sum(len(left) < len(ids) for ids, left in zip(whole, cut, strict=True))
    if count and rank() == 0:
        logger.warning("train.max_length: %d tokens cut %d of %d %s", max_length, count, len(whole), what)


def flatten(prompts: Sequence[list[int]], responses: Sequence[Sequence[list[int]]]) -> list[Encoded]:
    """A text for every candidate, prompt after prompt."""
    return [(prompt, response) for prompt, candidates in zip(prompts, responses, strict=True) for response in candidates]


def _reference(
    language_model: LanguageModel, flat: Sequence[Encoded], folder: Path, advance: Callable[[int], object] | None
) -> np.ndarray:
    """Log-probabilities of all texts; each rank computes its share, or finds it."""
    own = folder / f"reference-{rank()}-of-{ranks()}.safetensors"
    try:
        read_arrays(own)
    except ArtifactError:
        write_arrays(own, {"logprobs": response_logprobs(language_model, flat[rank() :: ranks()], advance=advance)})
    barrier()
    logprobs = np.empty(len(flat))
    for part in range(ranks()):
        logprobs[part :: ranks()] = read_arrays(folder / f"reference-{part}-of-{ranks()}.safetensors")["logprobs"]
    return logprobs


def group_rows(
    candidates: TokenisedCandidates, rewards: RewardTensor, weight: np.ndarray, kl: float, *, size: int, seed: int
) -> Dataset:
    """Each prompt's candidates in random groups of about `size`, at least 2, with their log-ratios at the optimum.

    A group's `mass` is the planned policy's probability of it among the prompt's candidates, times their number of groups: 1 on
    average, so that a step on one group stands for a step on all. Where the reference's log-probabilities were not computed, which
    the objective then does not read, they are 0.
    """
    reference = np.zeros(rewards.mask.shape) if candidates.reference is None else candidates.reference
    rng = np.random.default_rng(derive_seed(seed, "groups"))
    target = rewards.rewards @ weight / kl  # (P, N)
    rows = []
    for prompt, responses in enumerate(candidates.responses):
        order = rng.permutation(len(responses))
        groups = np.array_split(order, max(1, min(round(len(order) / size), len(order) // 2)))
        likely = np.exp(target[prompt, : len(order)] - target[prompt, : len(order)].max(initial=-np.inf))
        for group in groups:
            if len(group) > 1:  # a prompt's only candidate has nothing to be compared with
                rows.append(
                    {
                        "prompt_ids": candidates.prompts[prompt],
                        "responses": [responses[index] for index in group],
                        "target": target[prompt, group].tolist(),
                        "reference": reference[prompt, group].tolist(),
                        "mass": float(len(groups) * likely[group].sum() / likely.sum()),
                    }
                )
    if not rows:
        raise ValueError("candidates: expected a prompt with two candidates to compare, found none")
    return Dataset.from_list(rows)


def pair_rows(candidates: TokenisedCandidates, rewards: RewardTensor, weight: np.ndarray, *, per_prompt: int, seed: int) -> Dataset:
    """Pairs that say which candidate is better, in the columns of TRL's prepared data."""
    assert candidates.reference is not None
    pairs = scalarise(rewards.rewards, weight, mask=rewards.mask, per_prompt=per_prompt, seed=derive_seed(seed, "pairs"))
    columns: dict[str, list[Any]] = {
        "prompt_ids": [candidates.prompts[prompt] for prompt in pairs.prompt],
        "chosen_ids": [candidates.responses[p][n] for p, n in zip(pairs.prompt, pairs.chosen, strict=True)],
        "rejected_ids": [candidates.responses[p][n] for p, n in zip(pairs.prompt, pairs.rejected, strict=True)],
        "ref_chosen_logps": candidates.reference[pairs.prompt, pairs.chosen].tolist(),
        "ref_rejected_logps": candidates.reference[pairs.prompt, pairs.rejected].tolist(),
    }
    return Dataset.from_dict(columns)
