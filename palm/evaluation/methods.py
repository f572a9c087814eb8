"""Reward methods side by side: fitted on the same pairs, judged on the same held-out ones, over several splits."""

import ast
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np

from palm.evaluation.accuracy import Accuracy, accuracy, compare, pooled
from palm.evaluation.calibration import accuracy_by_uncertainty, reliability
from palm.evaluation.few_shot import rank_within_user
from palm.evaluation.stability import angles_between, same_texts, spanned
from palm.evaluation.tasks import Task
from palm.features.pairs import PairFeatures
from palm.features.store import FeatureArray
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
        span: of its basis rewards of the split's texts, as `palm.evaluation.stability.spanned` gives it.
    """

    found: dict[str, Accuracy]
    terciles: list[float]
    calibration: float
    fit_seconds: float
    adapt_ms: float
    details: dict[str, Any]
    span: np.ndarray | None


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
    return MethodRun(found, terciles, error, fitted, 1000 * took / len(users), details, spanned(model, task.train.items))


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
    leaks: Mapping[str, Callable[[int], Task]] | None = None,
    track: Track = silent,
) -> list[dict[str, Any]]:
    """A row per method, Bradley-Terry first: accuracy, and gain over Bradley-Terry for the same users, over all splits.

    Args:
        make: the task of a seed; who is seen, and what is held out, is drawn anew.
        methods: as `estimator` takes them.
        shots: sizes of unseen users' contexts.
        seeds: of splits and fits.
        leaks: by name of features that should tell little, the same tasks with these; Bradley-Terry is fitted on each, last.
        track: for a progress bar of fits.

    Returns:
        rows of JSON values: means and 95 % intervals over users, each user's figures averaged over the splits that they are in.
        `basis_angles` has the principal angles between fits of two seeds, where splits share their texts and bases are weighed.

    Raises:
        ValueError: a leak's task is not the same split.
    """
    specs = [BASELINE, *(method for method in methods if method != BASELINE)]
    tests = leaks or {}
    runs: dict[str, list[MethodRun]] = {name: [] for name in (*specs, *map(leak_name, tests))}
    texts: FeatureArray | None = None
    same = True
    with track("fits", len(runs) * len(seeds)) as advance:
        for seed in seeds:
            task = make(seed)
            texts = task.train.items if texts is None else texts
            same = same and same_texts(texts, task.train.items)
            for spec in specs:
                runs[spec].append(judge(spec, task, shots=shots, seed=seed))
                advance(1)
            for features, remake in tests.items():
                runs[leak_name(features)].append(judge(BASELINE, _same_split(remake(seed), task, features), shots=shots, seed=seed))
                advance(1)
    base = {part: pooled([run.found[part] for run in runs[BASELINE]]) for part in runs[BASELINE][0].found}
    return [{"method": name, **_row(found, base), **_angles(found, seeds if same else [])} for name, found in runs.items()]


def leak_name(features: str) -> str:
    """What the row of Bradley-Terry on features that should tell little is called."""
    return f"{BASELINE} on {features} alone"


def _same_split(leak: Task, task: Task, features: str) -> Task:
    for part, pairs in vars(task).items():
        if not np.array_equal(pairs.user, vars(leak)[part].user):
            raise ValueError(f"leaks: expected the same split for {features}, its {part} pairs are of other users")
    return leak


def _angles(runs: list[MethodRun], seeds: Sequence[int]) -> dict[str, Any]:
    spans = [run.span for run in runs if run.span is not None]
    return {"basis_angles": angles_between(spans, seeds)} if len(spans) == len(seeds) > 1 else {}


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
