"""What members can be trained for, behind one interface: rows to train on, and a TRL trainer that reads them.

All but one are least, or greatest, at the planned policy of a weight w: pi(y|x) proportional to pi_ref(y|x) exp(w.phi(x, y) /
kl), which maximises E[w.phi] - kl KL(pi||pi_ref). With the log-ratio rho(y) = log pi(y|x) - log pi_ref(y|x):

dpo-soft (the default): each response of a group is run once and compared with every other of its group by the DPO loss with
label sigmoid((w.phi_a - w.phi_b) / kl) and logit rho(a) - rho(b), and with all others at once by the cross-entropy of
softmax(w.phi / kl) with softmax(rho) over the group. Both are least where rho is w.phi / kl + a constant of the group. Pairs
teach all differences alike, the list what the planned policy would really say; in the embedded world half of each reached a
little more of the planned gain than pairs alone, measured on held-out candidates.

dpo: TRL's own DPO losses (Rafailov et al. 2023) on pairs that say only which response is better by w.phi, not by how much. The
exception: labels are what dpo-soft's become as kl goes to 0, so the loss has no minimum. Every margin rho(a) - rho(b) goes on
growing, by about log(steps) / beta, towards the policy that always gives the best candidate, whose KL divergence is -log
pi_ref(best). How far it gets is a matter of `dpo.beta`, the learning rate and the number of steps; the plan's kl plays no part.

gibbs: the planned policy distilled: cross-entropy of its self-normalised weights softmax(w.phi / kl) over a prompt's
candidates, which the reference sampled, with log pi. Least, in expectation over candidates, at the planned policy; with few
candidates it learns those few by heart, at more KL than planned.

rloo, grpo: online. The policy writes, w.phi of what it wrote is its reward, and kl times the log-ratio of the whole response is
taken off that reward: the gradient is that of E[w.phi] - kl KL without bias, and vanishes for every single response at the
planned policy (palm.policies.online says how TRL's trainers are set for that). RLOO (Ahmadian et al. 2024) is what TRL's
documentation names as the successor of PPO, which it has removed.

What dpo and dpo-soft compare with, and what early stops are counted from, the log-probabilities of the reference, is computed once
for all members.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset

from palm.data.schema import Text
from palm.lm.load import LanguageModel
from palm.policies.adapters import lora_config
from palm.policies.candidates import TokenisedCandidates, group_rows, pair_rows
from palm.policies.online_batches import GENERATIONS
from palm.policies.options import OBJECTIVES, TrainingOptions
from palm.rewards.tensor import RewardTensor

Basis = Callable[[Sequence[tuple[Text, Text]]], np.ndarray]
"""Basis rewards of n new texts, (prompt, response) each: (n, K)."""


@dataclass(frozen=True)
class Material:
    """What every member is trained on.

    Attributes:
        candidates: of the prompts to train on.
        rewards: of the same candidates.
        kl: the plan's coefficient of the KL cost.
        options: see `TrainingOptions`.
        seed: of the choice of pairs and groups.
        basis: rewards of texts that nobody sampled yet (rloo, grpo).
        kept_back: candidates of other prompts, and their rewards, to see on how good a member is; None: it takes all its steps.
    """

    candidates: TokenisedCandidates
    rewards: RewardTensor
    kl: float
    options: TrainingOptions
    seed: int = 0
    basis: Basis | None = None
    kept_back: tuple[TokenisedCandidates, RewardTensor] | None = None

    @property
    def longest(self) -> int:
        """Tokens that a policy may write."""
        return self.options.max_new_tokens or self.candidates.longest


class Objective(ABC):
    """One way of training a member."""

    def defaults(self, material: Material) -> dict[str, Any]:
        """Options of TRL's trainer where the user gives none."""
        return {"learning_rate": 1e-4, "weight_decay": 0.0, "lr_scheduler_type": "cosine"}

    def settled(self, material: Material) -> dict[str, Any]:
        """Options of TRL's trainer that the user may not give."""
        return {}

    @abstractmethod
    def rows(self, material: Material, weight: np.ndarray) -> Dataset:
        """What the trainer reads for a weight (K,)."""

    @abstractmethod
    def trainer(self, model: LanguageModel, material: Material, weight: np.ndarray, rows: Dataset, arguments: Any) -> Any:
        """TRL's trainer with a fresh adapter on the model; it has not begun."""

    def arguments(self, material: Material) -> dict[str, Any]:
        """All options of TRL's trainer."""
        return {**self.defaults(material), **material.options.trainer, **self.settled(material)}


class _Offline(Objective):
    def defaults(self, material: Material) -> dict[str, Any]:
        return {**super().defaults(material), "max_length": material.options.max_length}


class SoftDPO(_Offline):
    """DPO whose labels say how much better a response is."""

    def rows(self, material: Material, weight: np.ndarray) -> Dataset:
        """Groups of responses, with the planned log-ratios."""
        return group_rows(
            material.candidates, material.rewards, weight, material.kl, size=material.options.group, seed=material.seed
        )

    def trainer(self, model: LanguageModel, material: Material, weight: np.ndarray, rows: Dataset, arguments: Any) -> Any:
        """On groups."""
        from palm.policies.trainer import SoftDPOTrainer

        trainer = _on_groups(SoftDPOTrainer, model, material, rows, arguments)
        trainer.listwise = material.options.listwise
        return trainer


class Gibbs(SoftDPO):
    """The planned policy by weighted likelihood of the candidates."""

    def trainer(self, model: LanguageModel, material: Material, weight: np.ndarray, rows: Dataset, arguments: Any) -> Any:
        """On groups."""
        from palm.policies.trainer import GibbsTrainer

        return _on_groups(GibbsTrainer, model, material, rows, arguments)


def _on_groups(kind: Any, model: LanguageModel, material: Material, rows: Dataset, arguments: Any) -> Any:
    from palm.policies.groups import GroupCollator
    from palm.policies.trainer import layout_for

    layout = layout_for(model, rows, arguments.per_device_train_batch_size * material.options.group)
    return kind(
        model=model.model,
        args=arguments,
        train_dataset=rows,
        processing_class=model.tokenizer,
        peft_config=lora_config(material.options.lora),
        data_collator=GroupCollator(layout),
    )


class HardDPO(_Offline):
    """TRL's own DPO on pairs."""

    def rows(self, material: Material, weight: np.ndarray) -> Dataset:
        """Pairs in the columns of TRL's prepared data."""
        per_prompt = material.options.pairs_per_prompt
        return pair_rows(material.candidates, material.rewards, weight, per_prompt=per_prompt, seed=material.seed)

    def trainer(self, model: LanguageModel, material: Material, weight: np.ndarray, rows: Dataset, arguments: Any) -> Any:
        """TRL's loss where another than the sigmoid is asked for; the sigmoid's on responses read once a batch."""
        from palm.policies.groups import PairCollator
        from palm.policies.trainer import PairDPOTrainer, PreparedDPOTrainer, layout_for, plain_sigmoid

        given: dict[str, Any] = {
            "model": model.model,
            "args": arguments,
            "train_dataset": rows,
            "processing_class": model.tokenizer,
            "peft_config": lora_config(material.options.lora),
        }
        if not plain_sigmoid(material.options.dpo):
            trainer = PreparedDPOTrainer(**given)
            trainer.precompute_ref_logps = True  # they are in the rows; as an option it would hash the whole model first
            return trainer
        ids = rows[:]  # a column alone is read row by row
        sides = zip(ids["prompt_ids"], ids["chosen_ids"], ids["rejected_ids"], strict=True)
        groups = [{"prompt_ids": prompt, "responses": [chosen, rejected]} for prompt, chosen, rejected in sides]
        layout = layout_for(model, groups, 2 * arguments.per_device_train_batch_size)
        return PairDPOTrainer(**given, data_collator=PairCollator(layout))


class Online(Objective):
    """A policy rewarded for what it writes itself."""

    def __init__(self, name: str) -> None:
        """Take "rloo" or "grpo"."""
        self.name = name

    def defaults(self, material: Material) -> dict[str, Any]:
        """As for the others, with several responses of each prompt."""
        return {**super().defaults(material), "num_generations": GENERATIONS}

    def settled(self, material: Material) -> dict[str, Any]:
        """What makes TRL's trainer optimise E[w.phi] - kl KL."""
        from palm.policies.online import SETTLED

        penalty = material.kl if self.name == "rloo" else 0.0  # palm's GRPO takes it off the reward itself
        return {**SETTLED[self.name], "beta": penalty, "max_completion_length": material.longest}

    def rows(self, material: Material, weight: np.ndarray) -> Dataset:
        """Prompts."""
        from palm.policies.online import prompt_names

        return Dataset.from_dict({"prompt": prompt_names(material.candidates.texts)})

    def trainer(self, model: LanguageModel, material: Material, weight: np.ndarray, rows: Dataset, arguments: Any) -> Any:
        """On prompts."""
        from palm.policies.online import online_trainer

        assert material.basis is not None
        return online_trainer(
            self.name,
            model,
            rows["prompt"],
            material.candidates,
            lambda texts: material.basis(texts) @ weight,  # type: ignore[misc]
            kl=material.kl,
            arguments=arguments,
            peft_config=lora_config(material.options.lora),
        )


_KNOWN: dict[str, Objective] = dict(zip(OBJECTIVES, (SoftDPO(), HardDPO(), Gibbs(), Online("rloo"), Online("grpo")), strict=True))


def objective(name: str) -> Objective:
    """The objective of a name out of `palm.policies.options.OBJECTIVES`."""
    return _KNOWN[name]
