"""How members are trained: every option, checked before any work is done."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from palm.policies.adapters import lora_config


@dataclass(frozen=True)
class TrainingOptions:
    """How members are trained.

    Attributes:
        labels: "soft" or "hard"; see the module's text.
        group: about how many responses of a prompt are compared with each other at a time (soft labels), at least 2.
        listwise: share of the loss that compares a group's responses all at once, the rest compares pairs (soft labels); 0 to 1.
            Where the loss is least does not depend on it, what is learnt first does.
        pairs_per_prompt: pairs of each prompt (hard labels).
        shared_steps: steps at the mean of the members' weights, taken once, after which each member takes its own; 0 lets every
            member begin afresh. Log-ratios of planned policies are linear in the weight, so most of what is learnt is the same.
        match_kl: texts that each member writes when it is trained, to learn its KL divergence; where that exceeds the planned one,
            its change of the base is scaled down to match (palm.policies.strength). 0: none. Not for models split over
            processes, nor for candidates that the reference did not sample.
        max_new_tokens: longest text that a member writes for that: what candidates were sampled with; their longest by default.
        max_length: longest prompt and response in tokens.
        lora: fields of PEFT's LoraConfig.
        dpo: fields of TRL's DPOConfig. With soft labels the loss is fixed, so `beta` and `loss_type` are refused.
    """

    labels: str = "soft"
    group: int = 8
    listwise: float = 0.5
    pairs_per_prompt: int = 16
    shared_steps: int = 0
    match_kl: int = 0
    max_new_tokens: int | None = None
    max_length: int = 1024
    lora: Mapping[str, Any] = field(default_factory=dict)
    dpo: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Look at every option before any work is done.

        Raises:
            ValueError: an option is unknown, out of range or refused.
        """
        from palm.lm.training import check_options

        if self.labels not in ("soft", "hard"):
            raise ValueError(f"labels: expected 'soft' or 'hard', got {self.labels!r}")
        if self.group < 2:
            raise ValueError(f"group: expected at least 2, got {self.group}")
        if not 0 <= self.listwise <= 1:
            raise ValueError(f"listwise: expected a number from 0 to 1, got {self.listwise}")
        if self.pairs_per_prompt < 1:
            raise ValueError(f"pairs_per_prompt: expected at least 1, got {self.pairs_per_prompt}")
        if self.shared_steps < 0:
            raise ValueError(f"shared_steps: expected at least 0, got {self.shared_steps}")
        if self.match_kl < 0:
            raise ValueError(f"match_kl: expected at least 0, got {self.match_kl}")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens: expected at least 1 or None, got {self.max_new_tokens}")
        if self.max_length < 2:
            raise ValueError(f"max_length: expected at least 2, got {self.max_length}")
        check_options("DPOConfig", self.dpo, where="dpo")
        for name in ("beta", "loss_type", "label_smoothing", "precompute_ref_log_probs"):
            if self.labels == "soft" and name in self.dpo:
                raise ValueError(
                    f"dpo.{name}: with soft labels the loss is fixed by the plan's kl; leave it out or use labels: hard"
                )
        lora_config(self.lora)
