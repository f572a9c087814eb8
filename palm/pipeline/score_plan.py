"""A plan on given scores: from a table of scored responses to a certified portfolio and a report, nothing learned or trained."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from palm.artifacts import (
    ArtifactError,
    building,
    digest,
    digest_file,
    finite_or_none,
    read_manifest,
    recover,
    write_json,
    write_text,
)
from palm.data.attributes import load_scores
from palm.data.candidates import split_prompts
from palm.evaluation.pictures import SizePoint
from palm.evaluation.plan_pictures import check_pictures, save_plan_pictures
from palm.locks import locked
from palm.pipeline.config import PlanConfig, as_record
from palm.pipeline.plan_stages import PARTS, curve_record, oracle_for
from palm.pipeline.planning import check_plan, plan_as_wished
from palm.portfolio import Portfolio, certify, held_out_confidence
from palm.portfolio.explain import show
from palm.progress import Track
from palm.rewards import Calibration, RewardTensor, reward_tensor

_VERSION = 1  # of the folder's form


@dataclass(frozen=True)
class ScoresConfig:
    """The table; see `palm.data.attributes.load_scores`.

    Attributes:
        source: file, or id of a data set on the Hub.
        attributes: columns with scores, such as "scores.quality".
        columns: where prompt and response are found, if not under these names.
        split, subset: of a data set on the Hub.
        fewest: prompts with fewer different responses are left out.
        drop_invalid: leave out rows that lack a text or a score instead of stopping at the first.
        held_out: share or number of prompts that the plan does not see and that confidence is stated from.
    """

    source: str = ""
    attributes: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    split: str = "train"
    subset: str | None = None
    fewest: int = 2
    drop_invalid: bool = False
    held_out: float | int = 0.4


@dataclass(frozen=True)
class ScorePlan:
    """A plan on given scores.

    Attributes:
        output: folder of the result.
        seed: of the split and of resampling.
        pictures: whether they are drawn, for which Matplotlib is needed.
    """

    output: str = "runs/scores"
    seed: int = 0
    pictures: bool = True
    scores: ScoresConfig = field(default_factory=ScoresConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)


def run_score_plan(config: ScorePlan, *, track: Track, say: Callable[[str], object] = lambda line: None) -> Portfolio:
    """Scores to rewards to plan to certificate: the folder `config.output`, whole or not at all.

    It has score/ (reward tensors), plan/ (portfolio.json, plan.json, held_out/ and pictures) and report.md. Scores are calibrated
    by the prompts planned on: their least becomes 0 and their largest 1. A folder that was made from the same settings and scores
    is left as it is; until another is complete, the old one stays.

    Returns:
        the portfolio, with its certificate on the prompts planned on and what the held-out ones say of all.

    Raises:
        ArtifactError: another process makes the folder, or it is not one of these.
        PipelineError, ValueError: a setting is out of range, or the scores are not what they should be.
    """
    check_plan(config.plan, users=False)
    if config.pictures:
        check_pictures()
    folder = Path(config.output).absolute()
    settings = {name: value for name, value in as_record(config).items() if name != "output"}
    inputs = {"scores.source": _digest_of(config.scores.source)}
    made: dict[str, Any] = {"config": settings, "inputs": inputs, "seed": config.seed}
    fingerprint = digest({**made, "version": _VERSION})
    with locked(folder.with_name(f".{folder.name}.lock"), folder=folder):
        recover(folder)
        if _made_of(folder, fingerprint):
            say(f"{config.output}: done before, nothing changed")
        else:
            with building(folder, stage="plan-scores", fingerprint=fingerprint, **made) as where:
                _make(config, where, track)
    return Portfolio.from_pretrained(folder / "plan")


def _digest_of(source: str) -> str:
    """Of a file's content; of a data set on the Hub, the id."""
    return digest_file(Path(source)) if Path(source).is_file() else digest(source)


def _made_of(folder: Path, fingerprint: str) -> bool:
    """Whether a folder is complete and made of this.

    Raises:
        ArtifactError: the folder is not one that `palm plan-scores` made.
    """
    try:
        manifest = read_manifest(folder)
    except ArtifactError:  # damaged: to be made anew
        return False
    if manifest is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtifactError(f"output: {folder}: expected a new folder, or one that palm plan-scores made; other files are there")
    return manifest is not None and manifest.fingerprint == fingerprint


def _make(config: ScorePlan, folder: Path, track: Track) -> None:
    """Plan, and write everything."""
    wanted = config.scores
    table = load_scores(
        wanted.source,
        wanted.attributes,
        columns=wanted.columns,
        split=wanted.split,
        subset=wanted.subset,
        fewest=wanted.fewest,
        drop_invalid=wanted.drop_invalid,
    )
    rows = np.repeat(np.arange(len(table.candidates.counts)), table.candidates.counts)
    try:
        parts = split_prompts(len(table.candidates.counts), wanted.held_out, seed=config.seed)
    except ValueError as error:
        raise ValueError(f"scores.{error}") from error
    calibration = Calibration.own_width(table.scores[np.isin(rows, parts[0])])
    whole = reward_tensor(calibration.apply(table.scores), table.candidates.counts)
    (folder / "score").mkdir(parents=True, exist_ok=True)
    tensors: list[RewardTensor] = [whole.select(part) for part in parts]
    for name, tensor in zip(PARTS, tensors, strict=True):
        tensor.save(folder / "score" / f"{name}.safetensors")
    wish = config.plan
    oracle, others = (oracle_for(tensor, wish.kl) for tensor in tensors)
    planned, curve = plan_as_wished(oracle, wish, names=table.names, seed=config.seed, track=track)
    stated = held_out_confidence(planned, tensors[1].rewards, tensors[1].mask, wish.kl, delta=wish.delta, seed=config.seed)
    planned = replace(planned, calibration=np.column_stack([calibration.low, calibration.high]), confidence=stated)
    planned.save_pretrained(folder / "plan")
    crossed = planned.revalued(others)
    replace(crossed, certificate=certify(crossed, others, delta=wish.delta), confidence=stated).save_pretrained(
        folder / "plan" / "held_out"
    )
    points = curve_record(curve, planned)
    write_json(folder / "plan" / "plan.json", {"curve": points})
    sizes = [SizePoint(**{**point, "epsilon": finite_or_none(point["epsilon"])}) for point in points]
    pictures = save_plan_pictures(planned, oracle, sizes, folder / "plan") if config.pictures else []
    prompts = " and ".join(f"{len(part)} prompts {what}" for part, what in zip(parts, ("to plan on", "held out"), strict=True))
    lines = [f"# Plan on {len(table.names)} attributes", "", f"{prompts}, {len(table.scores)} responses.", "", "```"]
    lines += [*show(planned, curve=points), "```", ""] + [f"![{path.stem}](plan/{path.name})" for path in pictures]
    write_text(folder / "report.md", "\n".join(lines) + "\n")
