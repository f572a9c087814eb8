"""A plan on given scores: from a table of scored responses to a certified portfolio and a report, nothing learned or trained."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from palm.artifacts import finite_or_none, write_json, write_text
from palm.data.attributes import load_scores
from palm.data.candidates import split_prompts
from palm.evaluation.pictures import SizePoint
from palm.evaluation.plan_pictures import save_plan_pictures
from palm.pipeline.config import PlanConfig
from palm.pipeline.plan_stages import PARTS, curve_record, oracle_for
from palm.portfolio import Portfolio, certify, held_out_confidence, plan_curve, plan_portfolio
from palm.portfolio.explain import show
from palm.progress import Track
from palm.rewards import Calibration, RewardTensor, reward_tensor


@dataclass(frozen=True)
class ScoresConfig:
    """The table; see `palm.data.attributes.load_scores`.

    Attributes:
        source: file, or id of a data set on the Hub.
        attributes: columns with scores, such as "scores.quality".
        columns: where prompt and response are found, if not under these names.
        fewest: prompts with fewer different responses are left out.
        held_out: share or number of prompts that the plan does not see and that confidence is stated from.
    """

    source: str = ""
    attributes: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    fewest: int = 2
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


def run_score_plan(config: ScorePlan, *, track: Track) -> Portfolio:
    """Scores to rewards to plan to certificate, below `config.output`.

    Writes score/ (reward tensors), plan/ (portfolio.json, plan.json, held_out/ and pictures) and report.md. Scores are calibrated
    by the prompts planned on: their least becomes 0 and their largest 1.

    Returns:
        the portfolio, with its certificate on the prompts planned on and what the held-out ones say of all.
    """
    table = load_scores(config.scores.source, config.scores.attributes, columns=config.scores.columns, fewest=config.scores.fewest)
    rows = np.repeat(np.arange(len(table.candidates.counts)), table.candidates.counts)
    parts = split_prompts(len(table.candidates.counts), config.scores.held_out, seed=config.seed)
    calibration = Calibration.own_width(table.scores[np.isin(rows, parts[0])])
    whole = reward_tensor(calibration.apply(table.scores), table.candidates.counts)
    folder = Path(config.output)
    (folder / "score").mkdir(parents=True, exist_ok=True)
    tensors: list[RewardTensor] = [whole.select(part) for part in parts]
    for name, tensor in zip(PARTS, tensors, strict=True):
        tensor.save(folder / "score" / f"{name}.safetensors")
    oracle, others = (oracle_for(tensor, config.plan.kl) for tensor in tensors)
    wish = config.plan
    with track("planning", None) as advance:
        planned = plan_portfolio(
            oracle,
            epsilon=wish.epsilon,
            delta=wish.delta,
            size=wish.size,
            method=wish.method,
            select=wish.select,
            seed=config.seed,
            names=table.names,
            advance=lambda line: advance(1),
        )
        curve = plan_curve(oracle, sizes=range(wish.curve + 1), advance=lambda line: advance(1)) if wish.curve else []
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
    return planned
