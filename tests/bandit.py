"""A bandit with a known optimum: a tiny model that answers with at most two words, each answer with a given reward.

A response is the end token alone, a token and the end token, or two tokens: few enough to sum over, long enough that a loss
divided by length, or one that forgets what a token does to the next, would end elsewhere.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from palm.lm.load import LanguageModel
from palm.lm.logprobs import response_logprobs
from palm.policies.adapters import Members
from palm.policies.candidates import TokenisedCandidates
from palm.policies.options import TrainingOptions
from palm.policies.train import Member, train_members
from palm.progress import Track, silent
from palm.rewards.tensor import RewardTensor

WORDS = ("<s>", "</s>", "<pad>", "red", "blue")
END = WORDS.index("</s>")
PROMPTS = ("blue", "red blue")
KL = 0.25
WEIGHT = np.array([0.7, 0.3])
ARMS = [[END]] + [[a, b] for a in range(len(WORDS)) for b in range(len(WORDS)) if a != END]


def base_model() -> LanguageModel:
    """Two layers, with weights so large that answers differ in probability, and so wide that any answer can become certain."""
    vocabulary = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<pad>"))
    vocabulary.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=vocabulary, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    sizes = {"hidden_size": 192, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"bos_token_id": 0, "eos_token_id": END, "pad_token_id": WORDS.index("<pad>")}
    torch.manual_seed(3)
    model = LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=len(WORDS), initializer_range=0.07, **ids))
    model.generation_config.max_length = None
    return LanguageModel(model.eval().requires_grad_(False), tokenizer, "bandit")


def basis(texts: Any) -> np.ndarray:
    """(n, 2) rewards, decided by the response's words and whether it answers the first prompt."""
    rows = []
    for prompt, response in texts:
        words = response.split()
        score = {"red": 0.9, "blue": 0.1}
        first = score.get(words[0], 0.0) if words else 0.2
        second = 1.0 - score.get(words[-1], 0.6) if len(words) > 1 else 0.4
        rows.append([first, second] if prompt == PROMPTS[0] else [1 - second, first])
    return np.array(rows)


@dataclass(frozen=True)
class Bandit:
    """The model with everything that can be summed: rewards (P, A) and reference log-probabilities (P, A) of every answer."""

    model: LanguageModel
    prompts: list[list[int]]
    phi: np.ndarray
    reference: np.ndarray

    @classmethod
    def make(cls) -> "Bandit":
        """Load nothing, compute everything."""
        model = base_model()
        prompts = [[0, *model.tokenizer(prompt)["input_ids"]] for prompt in PROMPTS]
        decode = model.tokenizer.decode
        phi = np.array([basis([(prompt, decode(arm, skip_special_tokens=True)) for arm in ARMS]) for prompt in PROMPTS])
        return cls(model, prompts, phi, cls.logprobs_of(model, prompts))

    @staticmethod
    def logprobs_of(model: LanguageModel, prompts: list[list[int]]) -> np.ndarray:
        """(P, A) log-probabilities of every answer; its probabilities sum to 1."""
        found = response_logprobs(model, [(prompt, arm) for prompt in prompts for arm in ARMS]).reshape(len(prompts), -1)
        np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, atol=1e-4)
        return found

    def utility(self, logprobs: np.ndarray) -> float:
        """E[w.phi] - kl KL of a policy, summed over answers, mean over prompts."""
        probability = np.exp(logprobs)
        ratio = np.where(probability > 0, logprobs - self.reference, 0.0)
        return float((probability * (self.phi @ WEIGHT - KL * ratio)).sum(axis=1).mean())

    @property
    def gibbs(self) -> np.ndarray:
        """(P, A) log-probabilities of the optimum."""
        tilted = self.reference + self.phi @ WEIGHT / KL
        return tilted - np.logaddexp.reduce(tilted, axis=1, keepdims=True)

    def share(self, logprobs: np.ndarray) -> float:
        """Of what the optimum gains over the reference."""
        low = self.utility(self.reference)
        return (self.utility(logprobs) - low) / (self.utility(self.gibbs) - low)

    def candidates(self, sampled: int | None = None) -> tuple[TokenisedCandidates, RewardTensor]:
        """Every answer once, or about `sampled` of each prompt as often as the reference gives them."""
        if sampled is None:
            chosen = [list(range(len(ARMS)))] * len(PROMPTS)
        else:  # systematic sampling
            places = (np.arange(sampled) + 0.5) / sampled
            chosen = [np.searchsorted(np.exp(row).cumsum(), places).clip(max=len(ARMS) - 1).tolist() for row in self.reference]
        responses = [[ARMS[index] for index in row] for row in chosen]
        phi = np.array([self.phi[prompt, row] for prompt, row in enumerate(chosen)])
        reference = np.array([self.reference[prompt, row] for prompt, row in enumerate(chosen)])
        return TokenisedCandidates(self.prompts, responses, reference, PROMPTS), RewardTensor(phi, np.ones(phi.shape[:2], bool))

    def train(self, folder: Path, *, sampled: int | None = None, track: Track = silent, **options: Any) -> np.ndarray:
        """(P, A) log-probabilities of a trained member."""
        candidates, rewards = self.candidates(sampled)
        for section in ("dpo", "online"):
            if section in options:
                options[section] = {"lr_scheduler_type": "linear", "adam_beta2": 0.98, **options[section]}
        train_members(
            self.model,
            [Member("m", WEIGHT)],
            candidates,
            rewards,
            folder,
            kl=KL,
            base_model="bandit",
            options=TrainingOptions(**options),
            basis=basis,
            track=track,
        )
        members = Members(self.model, {"m": folder / "m"})
        with members.policy("m") as policy:
            found = self.logprobs_of(policy, self.prompts)
        members.close()
        return found
