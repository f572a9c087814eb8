"""A small training task on the tiny model: prompts, candidates, their rewards and the reference's log-probabilities."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palm.data.planted import basis_rewards, prompt_texts, write_response
from palm.lm.load import LanguageModel
from palm.policies.candidates import TokenisedCandidates, tokenise_candidates
from palm.policies.options import TrainingOptions
from palm.policies.train import Member, train_members
from palm.rewards.tensor import RewardTensor, reward_tensor

KL = 0.1
COUNTS = (5, 6, 4)


@dataclass(frozen=True)
class Task:
    """Everything `train_members` wants, and a short way to call it."""

    prompts: list[str]
    responses: list[list[str]]
    candidates: TokenisedCandidates
    rewards: RewardTensor

    def train(self, model: LanguageModel, folder: Path, weights: dict[str, Any], **options: Any) -> dict[str, dict[str, Any]]:
        """Train one member per weight, by default for four steps on all prompts at once."""
        dpo = {
            "max_steps": 4,
            "per_device_train_batch_size": 3,
            "learning_rate": 1e-2,
            "logging_steps": 1,
            **options.pop("dpo", {}),
        }
        run = {name: options.pop(name) for name in ("seed", "kl", "track", "candidates", "starts") if name in options}
        return train_members(
            model,
            [Member(name, np.array(weight)) for name, weight in weights.items()],
            run.pop("candidates", self.candidates),
            self.rewards,
            folder,
            base_model="tiny-base",
            options=TrainingOptions(**{"group": 6, "max_length": 96, "dpo": dpo, **options}),
            **{"kl": KL, **run},
        )


@pytest.fixture(scope="session")
def task(language_model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Three prompts of the embedded world with 5, 6 and 4 candidates and two rewards that conflict."""
    rng = np.random.default_rng(0)
    prompts = prompt_texts()[::250]
    responses = [[write_response(prompt, rng) for _ in range(count)] for prompt, count in zip(prompts, COUNTS, strict=True)]
    basis = basis_rewards([response for row in responses for response in row], ("expert", "friend"))
    folder = tmp_path_factory.mktemp("reference")
    candidates = tokenise_candidates(language_model, prompts, responses, folder, max_length=96)
    return Task(prompts, responses, candidates, reward_tensor(basis, list(COUNTS)))


@pytest.fixture
def fresh_model(base_folder: Path) -> Callable[[], LanguageModel]:
    """Loads the tiny model anew."""
    from palm.lm.load import load_language_model

    return lambda: load_language_model(base_folder)
