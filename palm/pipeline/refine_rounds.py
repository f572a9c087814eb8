"""What `palm refine` repeats: certify on prompts that choose, train at the worst weight, measure."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from palm.arrays import write_arrays
from palm.artifacts import read_json, write_json
from palm.data.candidates import split_prompts
from palm.evaluation.intervals import Estimate, resampled_interval
from palm.evaluation.measure import Measured, on_prompts
from palm.pipeline.config import RefineConfig
from palm.pipeline.measure_stages import measure_policies, read_measured
from palm.pipeline.plan_stages import oracle_for, read_tensor
from palm.pipeline.policy_stages import train_in_process, training_options
from palm.pipeline.runner import Context, PipelineError
from palm.policies.train import Member
from palm.portfolio import GibbsOracle, Portfolio, certify
from palm.portfolio.certify import served_utility
from palm.portfolio.confidence import confidence
from palm.portfolio.on_prompts import OnPrompts, resampled_gaps
from palm.rewards import RewardTensor
from palm.seeds import derive_seed
from palm.simplex import nearest

RECORD = "round.json"
_HELPS = 0.1  # of what was missing at the weight trained for; with less, training there again is not worth it


@dataclass(frozen=True)
class Policy:
    """A policy that is trained and measured on all held-out prompts."""

    id: str
    weight: np.ndarray
    adapter: Path
    measured: Measured


@dataclass(frozen=True)
class Part:
    """Some of the held-out prompts.

    Attributes:
        rows: positions among them.
        tensor: rewards of their candidates.
        oracle: the optimum on these.
    """

    rows: np.ndarray
    tensor: RewardTensor
    oracle: GibbsOracle

    def certified(self, planned: Portfolio, policies: list[Policy], *, delta: float) -> Portfolio:
        """The policies with what they gave on these prompts, certified there."""
        bases = len(planned.reference)
        made = replace(
            planned,
            weights=np.array([policy.weight for policy in policies]).reshape(-1, bases),
            value=np.array([policy.measured.value[self.rows].mean(axis=0) for policy in policies]).reshape(-1, bases),
            cost=np.array([self.oracle.kl * policy.measured.kl[self.rows].mean() for policy in policies]),
            reference=self.oracle.reference,
            ids=tuple(policy.id for policy in policies),
            origin="measured",
            certificate=None,
            confidence=None,
        )
        return replace(made, certificate=certify(made, self.oracle, delta=delta))

    def stated(self, portfolio: Portfolio, policies: list[Policy], *, delta: float, draws: int, seed: int) -> Portfolio:
        """The portfolio with what these prompts say of all prompts; they must not have chosen it."""
        said = confidence(portfolio, self._prompts(policies), bernstein=False, delta=delta, draws=draws, seed=seed)
        return replace(portfolio, confidence=said)

    def gap(self, policies: list[Policy], *, delta: float, draws: int, seed: int) -> Estimate:
        """The worst epsilon beside `delta`, with a 95 % interval over prompts."""
        centre, samples = resampled_gaps(self._prompts(policies), draws=draws, seed=seed, delta=delta)
        return resampled_interval(centre.epsilon, samples[:, 0], len(self.rows), least=0.0)

    def fall(
        self, before: list[Policy], after: list[Policy], *, delta: float, draws: int, seed: int
    ) -> tuple[Estimate, Estimate, Estimate]:
        """The `gap` of some policies, that of others, and by how much it falls, paired over prompts."""
        was, now = (resampled_gaps(self._prompts(each), draws=draws, seed=seed, delta=delta) for each in (before, after))
        gaps = [resampled_interval(centre.epsilon, drawn[:, 0], len(self.rows), least=0.0) for centre, drawn in (was, now)]
        with np.errstate(invalid="ignore"):
            drawn = was[1][:, 0] - now[1][:, 0]
        mean = gaps[0].mean - gaps[1].mean
        if np.isfinite(drawn).all():
            return gaps[0], gaps[1], resampled_interval(mean, drawn, len(self.rows))
        return gaps[0], gaps[1], Estimate(mean, -np.inf, np.inf, len(self.rows))

    def measured(self, policy: Policy) -> Measured:
        """What a policy gave on these prompts."""
        return Measured(policy.measured.value[self.rows], policy.measured.kl[self.rows])

    def _prompts(self, policies: list[Policy]) -> OnPrompts:
        return on_prompts(self.tensor, [self.measured(policy) for policy in policies], self.oracle.kl)


def parts_of(context: Context, kl: float) -> tuple[Part, Part]:
    """The held-out prompts that choose, and those that certify.

    Raises:
        PipelineError: fewer than two would be left for either.
    """
    tensor, share = read_tensor(context.inputs["score"], "held_out"), context.config.refine.share
    size = len(tensor.rewards)
    chosen = round(share * size)
    if not 2 <= chosen <= size - 2:
        raise PipelineError(
            f"refine.share, candidates.held_out: expected at least 2 held-out prompts to choose weights on and 2 others to certify "
            f"on, got {chosen} and {size - chosen}"
        )
    rows = split_prompts(size, chosen, seed=derive_seed(context.config.seed, "refine", "prompts"))
    choosing, certifying = (Part(part, taken := tensor.select(part), oracle_for(taken, kl)) for part in (rows[1], rows[0]))
    return choosing, certifying


def run_round(
    context: Context, number: int, planned: Portfolio, policies: list[Policy], starts: list[Policy], parts: tuple[Part, Part],
    weight: np.ndarray, reference: Path,
) -> None:  # fmt: skip
    """Train one more policy for a weight, measure it, and write the round's record into the context's folder.

    Args:
        context: of stage measure, but for the folder.
        number: of the round, from 1.
        planned: the plan.
        policies: those trained so far for the portfolio.
        starts: those and other trained policies; the nearest one's adapter is what training begins with.
        parts: prompts that choose, prompts that certify.
        weight: (K,) to train for.
        reference: where the reference's log-probabilities of the candidates are kept.
    """
    settings, folder, name = context.config.refine, context.folder, round_id(number)
    started = time.monotonic()
    near = starts[nearest(np.array([policy.weight for policy in starts]), weight)] if starts else None
    options = training_options(context.config)
    if settings.steps:
        options = options.with_steps(settings.steps)
    training = replace(context, seed=derive_seed(context.config.seed, "train"))  # as the other members were
    history = train_in_process(
        training,
        members=[Member(name, weight)],
        options=options,
        starts={} if near is None else {name: near.adapter},
        reference=reference,
    )
    trained = time.monotonic()
    measured, texts = measure_policies(
        replace(context, inputs={**context.inputs, "train": folder}),
        [name],
        read_tensor(context.inputs["score"], "held_out"),
    )
    write_arrays(folder / f"values-{name}.safetensors", {"value": measured[name].value, "kl": measured[name].kl})
    write_json(folder / "texts.json", texts)
    now = [*policies, Policy(name, weight, folder / name, measured[name])]
    choosing, certifying = parts
    draws, seed = context.config.measure.draws, context.seed
    gaps = {
        part: {
            when: prompts.gap(those, delta=settings.delta, draws=draws, seed=seed).record()
            for when, those in (("before", policies), ("after", now))
        }
        for part, prompts in (("choosing", choosing), ("certifying", certifying))
    }
    record: dict[str, Any] = {
        "round": number,
        "id": name,
        "weight": weight.tolist(),
        "start": None if near is None else near.id,
        "steps": history[name]["steps"],
        "gap": gaps,
        "helped": _helps(planned, policies, now[-1], choosing),
        "seconds": {"training": round(trained - started, 3), "measuring": round(time.monotonic() - trained, 3)},
    }
    write_json(folder / RECORD, record)


def _helps(planned: Portfolio, policies: list[Policy], new: Policy, part: Part) -> bool:
    """Whether a policy gives enough more at its own weight than what there was, on the prompts that choose."""
    had, weight = part.certified(planned, policies, delta=0.0), new.weight[None, :]
    before = served_utility(weight, had.value, had.cost, had.reference)[0]
    own = new.measured.value[part.rows] @ new.weight - part.oracle.kl * new.measured.kl[part.rows]
    return bool(own.mean() - before >= _HELPS * (part.oracle.optimum(weight)[0] - before))


def read_round(folder: Path) -> tuple[dict[str, Any], Policy]:
    """A finished round: its record, and the policy that it trained."""
    record = read_json(folder / RECORD)
    name = record["id"]
    return record, Policy(name, np.array(record["weight"]), folder / name, read_measured(folder, name))


def round_id(number: int) -> str:
    """Id of a round's policy."""
    return f"refined-{number}"


def round_settings(settings: RefineConfig) -> dict[str, Any]:
    """What a round's result depends on; the target and the budget only say when to stop."""
    return {"delta": settings.delta, "share": settings.share, "steps": settings.steps}
