"""Members that learn from what they write themselves: TRL's RLOO and GRPO, set so that E[w.phi] - kl KL(pi||pi_ref) is optimised.

With A the reward less the other responses' mean, both follow E[A grad log pi(y)]. What has to hold for that to be the gradient
of E[w.phi] - kl KL, and what of TRL 1.16 would break it:

* The reward is w.phi - kl rho, with rho the log-ratio of the whole response: E[(kl rho) grad log pi] is the gradient of kl KL.
  RLOO takes beta x rho off the reward, as wanted. GRPO adds beta times the estimator exp(-rho_t) + rho_t - 1 of every token to
  the loss and differentiates it, which on the policy's own text is the gradient of KL(pi_ref||pi) and leaves out what a token
  does to the KL of those after it. So GRPO's beta is 0, and the same penalty as RLOO's is in the reward.
* Nothing is divided by the rewards' spread: that would make every w and every kl alike (`scale_rewards`,
  `normalize_advantages`).
* Nothing is divided by a response's own length: `loss_type: dr_grpo` divides by one constant.
* Responses are drawn from the policy itself: temperature 1, all tokens, no penalty, not even one of the model's own settings.
* GRPO's baseline counts the response itself. That scales the whole gradient by 1 - 1/G, now that the penalty is part of the
  reward, and moves nothing.

Responses are used for one step each unless `num_iterations` or `steps_per_generation` say otherwise; then ratios are clipped
(`epsilon`), and the point where all advantages vanish stays the same.
"""

import math
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, TrainerCallback
from trl import GRPOTrainer, RLOOTrainer

from palm.data.schema import Text, plain_text
from palm.lm.load import LanguageModel
from palm.lm.logprobs import response_logprobs
from palm.policies.candidates import TokenisedCandidates

_SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0, "disable_dropout": True}
SETTLED: dict[str, dict[str, Any]] = {
    "rloo": {**_SAMPLING, "normalize_advantages": False},
    "grpo": {**_SAMPLING, "scale_rewards": "none", "loss_type": "dr_grpo", "importance_sampling_level": "token"},
}
"""Options of TRL's trainers that are not the user's; `beta` and `max_completion_length` come from the plan."""

Reward = Callable[[list[tuple[Text, Text]]], np.ndarray]
"""w.phi of (prompt, response) texts, (n,)."""


class PenalisedGRPOTrainer(GRPOTrainer):
    """GRPO with the KL penalty in the reward.

    Attributes:
        kl: what a nat of log-ratio takes off the reward.
    """

    kl = 0.0

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> torch.Tensor:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        policy = LanguageModel(self.accelerator.unwrap_model(self.model), self.processing_class, "policy")
        texts = list(zip(self._tokenize_prompts(prompts)[0], completion_ids_list, strict=True))
        own = response_logprobs(policy, texts)
        with policy.model.disable_adapter():
            ratio = own - response_logprobs(policy, texts)
        penalty = self.accelerator.gather(torch.as_tensor(self.kl * ratio, dtype=rewards.dtype, device=rewards.device))
        return rewards - penalty[:, None]


def prompt_names(prompts: Sequence[Text]) -> list[str]:
    """Prompts as text that tells them apart, for TRL's logs."""
    names: list[str] = []
    taken: set[str] = set()
    for number, prompt in enumerate(prompts):
        name = plain_text(prompt)
        names.append(name if name not in taken else f"{name} #{number}")
        taken.add(names[-1])
    return names


def online_trainer(
    kind: str,
    language_model: LanguageModel,
    names: Sequence[str],
    candidates: TokenisedCandidates,
    reward: Reward,
    *,
    kl: float,
    arguments: Any,
    peft_config: Any,
) -> Any:
    """A trainer whose policy answers prompts and is rewarded by w.phi - kl log-ratio.

    The base's generation settings are set aside for good: what else they hold than the tokens that end a response would change the
    distribution that is sampled. `palm.policies.train` puts them back.

    Args:
        kind: "rloo" or "grpo".
        language_model: the base and reference.
        names: of the prompts, as `prompt_names` gives them.
        candidates: the prompts, as text and as token ids.
        reward: of new texts.
        kl: the plan's.
        arguments: TRL's configuration, with `SETTLED`.
        peft_config: of the fresh adapter.
    """
    from datasets import Dataset

    ids = dict(zip(names, candidates.prompts, strict=True))
    texts = dict(zip(names, candidates.texts, strict=True))

    def utility(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        found = np.asarray(
            reward([(texts[p], c.strip() or " ") for p, c in zip(prompts, completions, strict=True)]), dtype=np.float64
        )
        if found.shape != (len(prompts),) or not np.isfinite(found).all():
            raise ValueError(f"basis: expected a finite reward for each of {len(prompts)} texts, got {found.shape}: {found}")
        return [float(value) for value in found]

    base = language_model.model
    base.generation_config = GenerationConfig(
        eos_token_id=language_model.end_ids, pad_token_id=language_model.tokenizer.pad_token_id
    )
    trainer: Any = {"rloo": RLOOTrainer, "grpo": PenalisedGRPOTrainer}[kind](
        model=base,
        reward_funcs=utility,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": list(names)}),
        processing_class=language_model.tokenizer,
        peft_config=peft_config,
    )
    if kind == "grpo":
        trainer.kl = kl
    _go_on_in_order(trainer)
    trainer._tokenize_prompts = types.MethodType(lambda self, prompts: ([list(ids[p]) for p in prompts], None, {}), trainer)
    return trainer


def _go_on_in_order(trainer: Any) -> None:
    """Have training from a checkpoint go on with the order of prompts that its epoch has.

    TRL's sampler draws every epoch's order from a generator that is made anew with the trainer, and would begin with the first.
    """
    make, samplers = trainer._get_train_sampler, []

    def made(dataset: Any = None) -> Any:
        samplers.append(make(dataset))
        return samplers[-1]

    class PastOrders(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            for _ in range(math.floor((state.epoch or 0) + 1e-6) if samplers[-1].shuffle else 0):
                torch.randperm(samplers[-1].num_samples, generator=samplers[-1].generator)

    trainer._get_train_sampler = made
    trainer.add_callback(PastOrders())
