"""How members are trained: every option, checked before any work is done."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, cast

from palm.policies.adapters import lora_config
from palm.policies.online_batches import OnlineBatches

OBJECTIVES = ("dpo-soft", "dpo", "gibbs", "rloo", "grpo")
ONLINE = {"rloo": "RLOOConfig", "grpo": "GRPOConfig"}

_FIXED_LOSS = (
    "beta",
    "loss_type",
    "loss_weights",
    "label_smoothing",
    "f_divergence_type",
    "f_alpha_divergence_coef",
    "discopop_tau",
    "use_weighting",
)
_SHARED_REFERENCE = {
    **dict.fromkeys(
        ("precompute_ref_log_probs", "precompute_ref_batch_size", "sync_ref_model"),
        "palm computes the reference's log-probabilities once for all members; leave it out",
    ),
    **dict.fromkeys(
        ("max_length", "truncation_mode"),
        "the reference's log-probabilities would be those of other texts; train.max_length cuts both alike",
    ),
    "ld_alpha": "the reference's log-probabilities are of whole responses; leave it out",
}
_FREE_ONLINE = (  # of TRL's own options, those that leave what is optimised as it is
    "num_generations",
    "num_iterations",
    "generation_batch_size",
    "steps_per_generation",
    "epsilon",
    "epsilon_high",
    "shuffle_dataset",
    "pad_to_multiple_of",
    "cache_implementation",
    "log_completions",
    "num_completions_to_print",
    "log_unique_prompts",
)


@dataclass(frozen=True)
class TrainingOptions:
    """How members are trained.

    Attributes:
        objective: "dpo-soft", "dpo", "gibbs", "rloo" or "grpo"; see `palm.policies.objectives`.
        group: about how many responses of a prompt are compared with each other at a time (dpo-soft), or read in one step
            (gibbs); at least 2.
        listwise: share of the loss that compares a group's responses all at once, the rest compares pairs (dpo-soft); 0 to 1.
            Where the loss is least does not depend on it, what is learnt first does.
        pairs_per_prompt: pairs of each prompt (dpo).
        shared_steps: steps at the mean of the members' weights, taken once, after which each member takes its own; 0 lets every
            member begin afresh. Log-ratios of planned policies are linear in the weight, so most of what is learnt is the same.
        match_kl: texts that each member writes when it is trained, to learn its KL divergence; where that exceeds the planned one,
            its change of the base is scaled down to match (palm.policies.strength). 0: none. Not for models split over
            processes, nor for candidates that the reference did not sample.
        stop_within: share of the planned gain that a member may lack, on prompts that it is not trained on, for its training to
            stop before its last step (palm.policies.stopping); 0: it takes all its steps. Not for online objectives, nor for
            models split over processes.
        stop_every: steps between looks.
        stop_prompts: prompts kept back to look at, of all members.
        max_new_tokens: longest text that a member writes, for that or online: what candidates were sampled with; their longest
            by default.
        max_length: longest prompt and response in tokens.
        lora: fields of PEFT's LoraConfig.
        dpo: fields of TRL's DPOConfig (dpo-soft, dpo, gibbs). Where the objective fixes the loss, options of the loss are refused.
        online: fields of TRL's RLOOConfig or GRPOConfig (rloo, grpo). Options that would change what is optimised are refused.
    """

    objective: str = "dpo-soft"
    group: int = 8
    listwise: float = 0.5
    pairs_per_prompt: int = 16
    shared_steps: int = 0
    match_kl: int = 0
    stop_within: float = 0.0
    stop_every: int = 50
    stop_prompts: int = 16
    max_new_tokens: int | None = None
    max_length: int = 1024
    lora: Mapping[str, Any] = field(default_factory=dict)
    dpo: Mapping[str, Any] = field(default_factory=dict)
    online: Mapping[str, Any] = field(default_factory=dict)

    @property
    def section(self) -> str:
        """Which of the options the objective's trainer takes: "dpo" or "online"."""
        return "online" if self.objective in ONLINE else "dpo"

    @property
    def trainer(self) -> Mapping[str, Any]:
        """Options of the objective's trainer."""
        return self.online if self.objective in ONLINE else self.dpo

    @property
    def compares(self) -> bool:
        """Whether training wants to know how likely candidates are under the reference."""
        return self.objective in ("dpo-soft", "dpo") or self.stop_within > 0

    @property
    def configuration(self) -> str:
        """Name of TRL's configuration class of the objective's trainer."""
        return ONLINE.get(self.objective, "DPOConfig")

    def with_steps(self, steps: int) -> "TrainingOptions":
        """The same for another number of optimiser steps."""
        return dataclasses.replace(self, **cast(Any, {self.section: {**self.trainer, "max_steps": steps}}))

    def check(self) -> None:
        """Look at every option before any work is done.

        Raises:
            ValueError: an option is unknown, out of range or refused.
        """
        from palm.lm.training import check_options

        if self.objective not in OBJECTIVES:
            close = get_close_matches(str(self.objective), OBJECTIVES, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            hint = "; TRL has removed PPO, its documented successor is 'rloo'" if str(self.objective).lower() == "ppo" else hint
            raise ValueError(f"objective: expected one of {', '.join(OBJECTIVES)}, got {self.objective!r}{hint}")
        least_of = {"group": 2, "pairs_per_prompt": 1, "shared_steps": 0, "match_kl": 0, "max_length": 2, "stop_every": 1}
        for name, least in {**least_of, "stop_prompts": 2}.items():
            value = getattr(self, name)
            if not value >= least:
                raise ValueError(f"{name}: expected at least {least}, got {value}")
        if not 0 <= self.listwise <= 1:
            raise ValueError(f"listwise: expected a number from 0 to 1, got {self.listwise}")
        if not 0 <= self.stop_within < 1:
            raise ValueError(f"stop_within: expected a share from 0 to below 1, got {self.stop_within}")
        if self.stop_within and self.objective in ONLINE:
            raise ValueError(f"stop_within: expected 0 with objective {self.objective}, got {self.stop_within}")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens: expected at least 1 or None, got {self.max_new_tokens}")
        check_options("DPOConfig", self.dpo, where="dpo")
        refused = dict(_SHARED_REFERENCE)
        if self.objective in ("dpo-soft", "gibbs"):
            why = f"the loss of {self.objective} is fixed by the plan's kl; leave it out or use objective: dpo"
            refused |= dict.fromkeys(_FIXED_LOSS, why)
        for name in self.dpo:
            if name in refused:
                raise ValueError(f"dpo.{name}: {refused[name]}")
        if not self.dpo.get("beta", 0) >= 0:
            raise ValueError(f"dpo.beta: expected at least 0, got {self.dpo['beta']!r}")
        if (strategy := self.dpo.get("train_sampling_strategy")) in ("group_by_length", "batch_rebalance"):
            raise ValueError(f"dpo.train_sampling_strategy: expected one that asks for no lengths of rows, got {strategy!r}")
        self._check_online()
        lora_config(self.lora)

    def _check_online(self) -> None:
        """See that nothing in `online` would make the trainer optimise anything but E[w.phi] - kl KL."""
        import transformers

        from palm.lm.training import check_options

        own = {entry.name for entry in dataclasses.fields(transformers.TrainingArguments)}
        check_options(ONLINE.get(self.objective, "RLOOConfig"), self.online, where="online")
        for name in self.online:
            if name in ("beta", "temperature"):
                settled = "the plan's kl" if name == "beta" else "1, so that the policy's own distribution is sampled"
                raise ValueError(f"online.{name}: palm sets this to {settled}; leave it out")
            if name == "max_completion_length":
                raise ValueError("online.max_completion_length: palm sets this to max_new_tokens; leave it out")
            if name not in own and name not in _FREE_ONLINE:
                raise ValueError(
                    f"online.{name}: this changes what is optimised, E[w.phi] - kl KL, or is not supported; leave it out"
                )
        for name in ("epsilon", "epsilon_high"):
            if (clip := self.online.get(name)) is not None and not (isinstance(clip, int | float) and clip >= 0):
                raise ValueError(f"online.{name}: expected a number of at least 0, got {clip!r}")
        if self.objective in ONLINE:
            OnlineBatches(self.online).check_counts()

    def check_batches(self, prompts: int | None) -> None:
        """See that a step's batch is whole and that there are prompts enough for it, with as many processes as there are now.

        Args:
            prompts: how many there are; None if that is not known.

        Raises:
            ValueError: it is not, or there are too few.
        """
        if self.objective in ONLINE:
            OnlineBatches(self.online).check_batches(prompts)
