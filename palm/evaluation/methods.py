"""Reward methods side by side: fitted on the same pairs, judged on the same held-out ones, over several splits."""

import ast
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np

from palm.evaluation.accuracy import Accuracy, accuracy, compare, pooled
from palm.evaluation.calibration import accuracy_by_uncertainty, reliability
from palm.evaluation.few_shot import rank_within_user
from palm.evaluation.tasks import Task
from palm.features.pairs import PairFeatures
from palm.progress import Track, silent
from palm.rewards import METHODS, Estimator

BASELINE = "BradleyTerry"
ALL = "unseen all"


@dataclass(frozen=True)
class MethodRun:
    """One method on one split.

    Attributes:
        found: accuracy of each part: "seen", "unseen N" after N pairs, and "unseen all".
        terciles: accuracy of unseen users after all of their pairs, best known first.
        calibration: expected calibration error on the same.
        fit_seconds: of the fit.
        adapt_ms: per unseen user, to infer all of them from all of their pairs; features are there already.
        details: what the fitted model says of itself.
    """

    found: dict[str, Accuracy]
    terciles: list[float]
    calibration: float
    fit_seconds: float
    adapt_ms: float
    details: dict[str, Any]


def estimator(spec: str) -> Estimator:
    """What `LoRe:rank=5,preset=joint` names.

    Raises:
        ValueError: there is no such method or option, or features here cannot feed it.
    """
    name, _, text = spec.partition(":")
    able = [known for known in METHODS if known not in ("Reference", "Given")]
    if name not in able:
        raise ValueError(f"expected names out of {', '.join(able)}, got {name!r}")
    options = {}
    for part in filter(None, text.split(",")):
        option, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"{name}: expected options such as rank=5, got {part!r}")
        options[option] = _value(value)
    known = signature(METHODS[name]).parameters
    for option in options:
        if option not in known:
            raise ValueError(f"{name} has no option {option!r}; known: {', '.join(known)}")
    return METHODS[name](**options)


def _value(text: str) -> Any:
    """A number, true, false or none; anything else is text."""
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def judge(spec: str, task: Task, *, shots: Sequence[int], seed: int) -> MethodRun:
    """Fit a method and judge it.

    Args:
        spec: as `estimator` takes it.
        task: what on.
        shots: sizes of unseen users' contexts, besides all of their pairs; a larger one holds the smaller ones.
        seed: of the fit, of contexts and of the bootstrap.
    """
    start = time.perf_counter()
    model = estimator(spec).fit(task.train, seed=seed)
    fitted = time.perf_counter() - start
    known = model.users.select(task.seen_test.ids) if model.users is not None else model.infer(task.seen_test)
    found = {"seen": accuracy(model, task.seen_test, known, seed=seed)}
    for part, context in contexts(task, shots, seed).items():
        start = time.perf_counter()
        users = model.infer(context, ids=task.unseen_test.ids)
        took = time.perf_counter() - start  # the last is that of all pairs
        found[part] = accuracy(model, task.unseen_test, users, seed=seed)
    terciles = [part.mean for part in accuracy_by_uncertainty(found[ALL], users, seed=seed)]
    error = reliability(model, task.unseen_test, users).error
    details = dict(getattr(model, "details", {}))
    return MethodRun(found, terciles, error, fitted, 1000 * took / len(users), details)


def contexts(task: Task, shots: Sequence[int], seed: int) -> dict[str, PairFeatures]:
    """What unseen users have told: some of their pairs, and all."""
    rank = rank_within_user(task.context, seed)
    return {f"unseen {size}": task.context.select(np.flatnonzero(rank < size)) for size in shots} | {ALL: task.context}


def compare_methods(
    make: Callable[[int], Task],
    methods: Sequence[str],
    *,
    shots: Sequence[int],
    seeds: Sequence[int],
    track: Track = silent,
) -> list[dict[str, Any]]:
    """A row per method, Bradley-Terry first: accuracy, and gain over Bradley-Terry for the same users, over all splits.

    Args:
        make: the task of a seed; who is seen, and what is held out, is drawn anew.
        methods: as `estimator` takes them.
        shots: sizes of unseen users' contexts.
        seeds: of splits and fits.
        track: for a progress bar of fits.

    Returns:
        rows of JSON values: means and 95 % intervals over users, each user's figures averaged over the splits that they are in.
    """
    specs = [BASELINE, *(method for method in methods if method != BASELINE)]
    runs: dict[str, list[MethodRun]] = {spec: [] for spec in specs}
    with track("fits", len(specs) * len(seeds)) as advance:
        for seed in seeds:
            task = make(seed)
            for spec in specs:
                runs[spec].append(judge(spec, task, shots=shots, seed=seed))
                advance(1)
    base = {part: pooled([run.found[part] for run in runs[BASELINE]]) for part in runs[BASELINE][0].found}
    return [{"method": spec, **_row(runs[spec], base)} for spec in specs]


def _row(runs: list[MethodRun], base: dict[str, Accuracy]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for part, reference in base.items():
        found = pooled([run.found[part] for run in runs])
        row[part] = found.overall.record() | {"log_loss": found.loss.mean}
        row[f"{part} gain"] = compare(found, reference).record()
    enough = [run.terciles for run in runs if len(run.terciles) == 3]
    row["terciles"] = np.mean(enough, axis=0).tolist() if enough else None
    row["calibration"] = float(np.mean([run.calibration for run in runs]))
    row["fit_seconds"] = float(np.mean([run.fit_seconds for run in runs]))
    row["adapt_ms"] = float(np.mean([run.adapt_ms for run in runs]))
    row["details"] = [
        {name: value for name, value in run.details.items() if name in ("penalty", "personal_penalty", "active_units")}
        for run in runs
    ]
    return row
