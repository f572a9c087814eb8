"""`palm refine`: go on training where the measured gap is, until it is as small as wanted or the budget is spent.

The plan's certificate is a promise; what was measured may fall short of it: the candidates were too few, training missed the
planned policies, or there is one policy where four are needed. Each round takes the measured certificate over the whole simplex,
trains one more policy at its worst weight, beginning with an exact copy of the adapter whose weight is nearest, and measures it on
the held-out prompts. That is the lazy search (`palm.portfolio.next_weight`) on real policies. The optimum is the one on candidates,
as in stage measure. `palm.portfolio.callback`, which knows optima only by what was trained, would want every vertex of the simplex
trained first, and would take what training reaches for the optimum.

**What the numbers mean.** Weights are chosen where the measured gap is large, which is in part where it was measured too large, and
members are kept for what they gave: on the prompts that choose, the gap after a round looks too good. So the held-out prompts are
parted at random. Those that *choose* say where to train, when to stop and which members are needed. No decision looks at those that
*certify*: the final portfolio's values, certificate and confidence are of them alone, and hold for prompts drawn like them. The
target is compared with the gap on the prompts that choose; the other ones say whether it is really reached. (The measured values'
control variates, `palm.evaluation.measure.from_samples`, have slopes fitted on all held-out prompts: every value is unbiased, but
the parts are not quite independent.) Whoever reads the statement, asks for a larger budget and runs again does choose by it.

In RUN/refine: `rounds/N`, each with its adapter, values, texts and record; `served`, the result: `portfolio`, which `palm route`,
`palm show` and Router read, `score` (the certifying prompts' rewards, for `palm verify`) and refine.json. A round appears when it
is complete; a killed one goes on with what it had; a larger `refine.most`, or another `refine.epsilon`, keeps the rounds there are.
"""

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from palm.artifacts import ArtifactError, building, digest, read_manifest, recover, write_json
from palm.pipeline.measure_stages import read_measured
from palm.pipeline.policy_stages import read_plan, read_policies
from palm.pipeline.refine_rounds import Part, Policy, parts_of, read_round, round_id, round_settings, run_round
from palm.pipeline.result_stages import SERVED, assemble
from palm.pipeline.runner import Context, Pipeline, PipelineError
from palm.pipeline.summaries import SUMMARIES
from palm.portfolio import Portfolio
from palm.portfolio.explain import in_words
from palm.portfolio.next_weight import hardest_weight, needed
from palm.ranks import ranks
from palm.seeds import derive_seed

FOLDER = "refine"
_VERSION = 1  # of a round's files
_REACHED, _SPENT, _NOTHING = "target reached", "budget spent", "no weight is left where training helped"


@dataclass(frozen=True)
class _Work:
    """What stays the same over the rounds."""

    pipeline: Pipeline
    context: Context
    planned: Portfolio
    parts: tuple[Part, Part]
    beginning: str

    @property
    def folder(self) -> Path:
        return self.pipeline.folder / FOLDER

    def of_round(self, number: int) -> tuple[Path, str]:
        """Folder and fingerprint of a round: it depends on all before it, and these on what was measured."""
        return self.folder / "rounds" / str(number), digest({"beginning": self.beginning, "round": number, "version": _VERSION})


def refine(pipeline: Pipeline) -> Path:
    """Refine a run whose members are trained and measured; returns the folder `served`.

    Raises:
        PipelineError: a stage up to measure is not done, there are too few held-out prompts, or this is one of several processes.
    """
    if ranks() > 1:
        raise PipelineError(f"refine: expected one process, got {ranks()}; members are trained one at a time")
    with pipeline.alone():
        work = _work(pipeline)
        settings, say = pipeline.config.refine, pipeline.say
        base = _trained(work.context, list(work.planned.ids))
        others = _trained(work.context, [name for name in read_policies(work.context) if name not in work.planned.ids])
        choosing, certifying = work.parts
        say(
            f"refine: {len(choosing.rows)} held-out prompts choose, {len(certifying.rows)} others certify; wanted: a gap of at "
            f"most {settings.epsilon:.1%}" + (f" beside an additive {settings.delta:g}" if settings.delta else "")
        )
        records: list[dict[str, Any]] = []
        policies = list(base)
        stopped = ""
        while not stopped:
            now = choosing.certified(work.planned, policies, delta=settings.delta)
            spent = np.array([record["weight"] for record in records if not record["helped"]])
            weight = hardest_weight(now, choosing.oracle, epsilon=settings.epsilon, delta=settings.delta, spent=spent)
            if now.certified.epsilon <= settings.epsilon:
                stopped = _REACHED
            elif weight is None:
                stopped = _NOTHING
            elif len(records) >= settings.most:
                stopped = _SPENT
            if stopped or weight is None:
                break
            words = in_words(weight, work.planned.bases)
            say(f"refine: gap {now.certified.epsilon:.1%} with {len(policies)} policies; the weight to train for: {words}")
            record, policy = _round(work, len(records) + 1, policies, others, weight)
            records.append(record)
            policies.append(policy)
        _forget_after(work, len(records))
        say(f"refine: {stopped} after {len(records)} rounds")
        served = _serve(work, base, policies, records, stopped)
        shutil.rmtree(_reference(work), ignore_errors=True)
    return served


def _work(pipeline: Pipeline) -> _Work:
    state = pipeline.state("measure")
    if state.state != "done":
        raise PipelineError(f"refine: expected stage measure to be done, it is {state.state}; `palm run` does it all in order")
    config = pipeline.config
    inputs = {name: pipeline.result(name) for name in SUMMARIES}
    context = Context(config, pipeline.folder / FOLDER, inputs, derive_seed(config.seed, "measure"), pipeline.track)
    planned = read_plan(context)
    taken = {name for name in read_policies(context) if name.startswith("refined-")}
    if taken:
        raise PipelineError(f"refine: expected members of other names than {round_id(1)!r}, got {', '.join(sorted(taken))}")
    made = {name: read_manifest(inputs[name], verify=False) for name in ("train", "measure")}
    parts = {name: None if manifest is None else [manifest.fingerprint, manifest.content] for name, manifest in made.items()}
    beginning = digest({"made": parts, "settings": round_settings(config.refine), "seed": config.seed})
    return _Work(pipeline, context, planned, parts_of(context, planned.kl), beginning)


def _trained(context: Context, names: list[str]) -> list[Policy]:
    weights = read_policies(context)
    return [
        Policy(name, weights[name], context.inputs["train"] / name, read_measured(context.inputs["measure"], name))
        for name in names
    ]


def _round(
    work: _Work, number: int, policies: list[Policy], others: list[Policy], weight: np.ndarray
) -> tuple[dict[str, Any], Policy]:
    """A round: found, or done now."""
    folder, fingerprint = work.of_round(number)
    recover(folder)
    if _done(folder, fingerprint):
        found = read_round(folder)
        work.pipeline.say(f"refine: round {number} done before, nothing changed")
        return found
    _forget_after(work, number)
    started = time.monotonic()
    with building(
        folder,
        stage=FOLDER,
        fingerprint=fingerprint,
        config=round_settings(work.pipeline.config.refine),
        inputs={"measure": work.beginning},
        seed=work.pipeline.config.seed,
    ) as where:
        run_round(
            replace(work.context, folder=where), number, work.planned, policies, [*others, *policies], work.parts, weight,
            _reference(work),
        )  # fmt: skip
    record, policy = read_round(folder)
    gap = record["gap"]["choosing"]
    work.pipeline.say(
        f"refine: round {number}: {policy.id} from {record['start'] or 'a fresh adapter'}, {record['steps']} steps; gap "
        f"{_said(gap['before'])} -> {_said(gap['after'])}; {time.monotonic() - started:.1f} s"
    )
    return record, policy


def _said(estimate: dict[str, Any]) -> str:
    ends = {"mean": np.inf, "low": -np.inf, "high": np.inf}
    mean, low, high = (end if estimate[key] is None else estimate[key] for key, end in ends.items())
    return f"{mean:.1%} [{low:.1%}, {high:.1%}]"


def _done(folder: Path, fingerprint: str) -> bool:
    try:
        manifest = read_manifest(folder)
    except ArtifactError:
        return False
    return manifest is not None and manifest.fingerprint == fingerprint


def _forget_after(work: _Work, number: int) -> None:
    """Remove finished and begun rounds after a number that are not for what was measured now; others wait for a larger budget."""
    rounds = work.folder / "rounds"
    for path in rounds.iterdir() if rounds.is_dir() else ():
        name = path.name.removeprefix(".").removesuffix(".partial").removesuffix(".old")
        if name.isdigit() and int(name) > number and not _done(path, work.of_round(int(name))[1]):
            shutil.rmtree(path, ignore_errors=True)


def _reference(work: _Work) -> Path:
    return work.folder / f".reference-{work.beginning[:16]}"


def _serve(work: _Work, base: list[Policy], policies: list[Policy], records: list[dict[str, Any]], stopped: str) -> Path:
    """The portfolio of the members that the gap needs, as the certifying prompts have them."""
    config, (choosing, certifying) = work.pipeline.config, work.parts
    delta, draws, seed = config.refine.delta, config.measure.draws, work.context.seed
    everything = choosing.certified(work.planned, policies, delta=delta)
    among = range(len(base), len(policies))
    kept = [policies[place] for place in needed(everything, choosing.oracle, delta=delta, among=among)]
    idle = [policy.id for policy in policies if policy not in kept]
    portfolio = certifying.certified(work.planned, kept, delta=delta)
    portfolio = certifying.stated(portfolio, kept, delta=delta, draws=max(draws, 400), seed=seed)
    compared = certifying.fall(base, kept, delta=delta, draws=draws, seed=seed)
    before, after, fall = (estimate.record() for estimate in compared)
    assert portfolio.confidence is not None
    bound, caution = portfolio.confidence.bootstrap.epsilon, portfolio.confidence.caution
    folder = work.folder / "served"
    fingerprint = digest({"beginning": work.beginning, "records": records, "served": [policy.id for policy in kept]})
    settings = {"refine": vars(config.refine), "route": vars(config.route)}
    with building(
        folder, stage=FOLDER, fingerprint=digest([fingerprint, settings]), config=settings, inputs={}, seed=config.seed
    ) as where:
        best = certifying.oracle.optimum(portfolio.weights) if kept else np.zeros(0)
        assemble(
            work.context,
            portfolio,
            where / SERVED,
            adapters={policy.id: policy.adapter for policy in kept},
            measured={policy.id: certifying.measured(policy) for policy in kept},
            planned={policy.id: float(utility) for policy, utility in zip(kept, best, strict=True)},
        )
        certifying.tensor.save(where / "score" / "held_out.safetensors")
        found: dict[str, Any] = {
            "stopped": stopped,
            "target": {"epsilon": config.refine.epsilon, "delta": delta},
            "prompts": {"choosing": choosing.rows.tolist(), "certifying": certifying.rows.tolist()},
            "served": [policy.id for policy in kept],
            "not_served": idle,
            "certifying": {"before": before, "after": after, "fall": fall, "after_at_most": bound},
            "rounds": records,
        }
        write_json(where / "refine.json", found)
    unused = f", kept but not served: {', '.join(idle)}" if idle else ""
    most = f"at most {bound:.1%}" if np.isfinite(bound) else f"without a bound: {len(certifying.rows)} prompts are too few"
    work.pipeline.say(
        f"refine: {len(kept)} policies served{unused}; on the prompts that certify the gap went from {_said(before)} to "
        f"{_said(after)}, by {_said(fall)}; over all prompts, with 95 % confidence, "
        f"it is {most}{caution and f' ({caution})'}"
    )
    return folder
