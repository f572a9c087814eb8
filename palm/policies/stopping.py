"""When a member has learnt enough: its utility on prompts that it does not train on, with confidence.

On a prompt's candidates, which the reference sampled, a policy pi is p proportional to exp(log pi - log pi_ref), and the planned
policy of weight w is q proportional to exp(w.phi / kl). What p lacks of the planned utility is kl KL(p || q); what the plan gains
over the reference is kl log mean exp(w.phi / kl) - mean w.phi. A member lacks at most the share `within` of the gain where the
mean over prompts of lack - within x gain is below 0: a one-sided t-test, at 5 % over all its looks together (Bonferroni).
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from scipy.special import logsumexp
from scipy.stats import t as student

from palm.artifacts import ArtifactError, read_json, write_json
from palm.policies.candidates import TokenisedCandidates
from palm.policies.objectives import Material
from palm.rewards.tensor import RewardTensor
from palm.seeds import derive_seed

_LOOKS = "looks.json"
_ERROR = 0.05  # chance, over all looks of a member, to stop one that lacks more


@dataclass(frozen=True)
class Look:
    """What was seen at one step.

    Attributes:
        step: optimiser steps taken.
        lack: share of the planned gain that the member lacks on these prompts.
        enough: whether that is within what is allowed, with confidence.
    """

    step: int
    lack: float
    enough: bool


def keep_back(prompts: int, count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the prompts to train on and of `count` others, drawn at random; both in order.

    Raises:
        ValueError: none would be left to train on.
    """
    if not 0 <= count < prompts:
        raise ValueError(f"stop_prompts: expected fewer than the {prompts} prompts that there are, got {count}")
    order = np.random.default_rng(derive_seed(seed, "kept back")).permutation(prompts)
    return np.sort(order[count:]), np.sort(order[:count])


def lack_and_gain(ratio: np.ndarray, reward: np.ndarray, mask: np.ndarray, kl: float) -> tuple[np.ndarray, np.ndarray]:
    """What a policy lacks of the planned utility on each prompt's candidates, and what the plan gains over the reference there.

    Args:
        ratio: (P, N) log pi - log pi_ref, up to a constant of the prompt.
        reward: (P, N) w.phi.
        mask: (P, N) bool, False where there is no candidate.
        kl: coefficient of the KL cost.

    Returns:
        (P,) and (P,), in units of reward, neither below 0.
    """
    none = np.where(mask, 0.0, -np.inf)
    tilt = np.where(mask, reward / kl, 0.0)
    own, planned = (part + none - logsumexp(part + none, axis=1, keepdims=True) for part in (np.where(mask, ratio, 0.0), tilt))
    probability = np.exp(own)
    apart = np.subtract(own, planned, out=np.zeros(mask.shape), where=probability > 0)
    counts = mask.sum(axis=1)
    gain = kl * (logsumexp(tilt + none, axis=1) - np.log(counts)) - kl * tilt.sum(axis=1) / counts
    return np.maximum(kl * (probability * apart).sum(axis=1), 0.0), np.maximum(gain, 0.0)


def is_enough(lack: np.ndarray, gain: np.ndarray, *, within: float, looks: int) -> bool:
    """Whether the mean of lack - within x gain over (P,) prompts is below 0, at 5 % over that many looks."""
    excess, count = lack - within * gain, len(lack)
    if count < 2:
        return False
    bound = student.ppf(1 - _ERROR / max(looks, 1), count - 1) * excess.std(ddof=1) / np.sqrt(count)
    return bool(excess.mean() + bound < 0)


@dataclass
class Watch:
    """Looks at a member while it is trained.

    Attributes:
        candidates, rewards: of the prompts kept back.
        weight: (K,) the member's.
        kl: coefficient of the KL cost.
        within: share of the planned gain that it may lack.
        every: steps between looks.
        looks: what was seen.
    """

    candidates: TokenisedCandidates
    rewards: RewardTensor
    weight: np.ndarray
    kl: float
    within: float
    every: int
    looks: list[Look] = field(default_factory=list)

    @classmethod
    def of(cls, material: Material, weight: np.ndarray) -> Self:
        """For a member of a weight, on the prompts that its material keeps back."""
        assert material.kept_back is not None
        return cls(*material.kept_back, weight, material.kl, material.options.stop_within, material.options.stop_every)

    def look(self, logprobs: Callable[[Sequence[tuple[list[int], list[int]]]], np.ndarray], step: int, most: int) -> bool:
        """See how good the member is at a step; whether that is enough.

        Args:
            logprobs: of (prompt, response) token ids under the member.
            step: that it has taken.
            most: steps that it may take.
        """
        assert self.candidates.reference is not None
        found = np.zeros(self.rewards.mask.shape)
        rows = zip(self.candidates.prompts, self.candidates.responses, strict=True)
        found[self.rewards.mask] = logprobs([(prompt, response) for prompt, responses in rows for response in responses])
        lack, gain = lack_and_gain(
            found - self.candidates.reference, self.rewards.rewards @ self.weight, self.rewards.mask, self.kl
        )
        enough = is_enough(lack, gain, within=self.within, looks=most // self.every)
        share = float(lack.sum() / gain.sum()) if gain.sum() > 0 else 0.0
        self.looks = [look for look in self.looks if look.step < step] + [Look(step, share, enough)]
        return enough

    def keep(self, path: Path) -> None:
        """Write what was seen, beside the checkpoints: who goes on after a kill has seen it, too."""
        write_json(path, [asdict(look) for look in self.looks])

    def recall(self, path: Path) -> None:
        """Read what was seen before a kill, if it is there and whole; what a later look sees again replaces it."""
        with contextlib.suppress(ArtifactError):
            self.looks = [Look(**look) for look in read_json(path)]

    def due(self, step: int) -> bool:
        """Whether a step is one of those at which to look."""
        return step > 0 and step % self.every == 0


def watching(trainer: Any, watch: Watch, tokenizer: Any) -> Callable[[int, int], bool]:
    """Let a trainer stop where a member is good enough; what was seen is kept in the trainer's folder.

    Returns:
        (step, most steps) -> whether a member that stands at that step has stopped there: whoever goes on from a checkpoint has to
        ask, since the checkpoint does not say.
    """
    from transformers import TrainerCallback

    from palm.lm.load import LanguageModel
    from palm.lm.logprobs import response_logprobs
    from palm.ranks import agree, rank

    kept = Path(trainer.args.output_dir) / _LOOKS
    watch.recall(kept)

    def enough(step: int, most: int) -> bool:
        model = trainer.model
        training = model.training
        policy = LanguageModel(model.eval(), tokenizer, "a member")
        try:
            stop = agree(watch.look(lambda texts: response_logprobs(policy, texts), step, most))
            if rank() == 0:
                watch.keep(kept)
            return stop
        finally:
            model.train(training)

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if watch.due(state.global_step) and state.global_step < state.max_steps:
                control.should_training_stop = enough(state.global_step, state.max_steps)

    trainer.add_callback(Stop())
    return lambda step, most: watch.due(step) and enough(step, most)
