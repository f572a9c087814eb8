"""What the stages wrote, gathered for the report."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from palm.artifacts import read_json
from palm.data.schema import Text
from palm.evaluation.intervals import Estimate
from palm.evaluation.pictures import SizePoint
from palm.evaluation.report import ReportData
from palm.evaluation.report_content import AccuracyRow, CheckRow, Example, MemberRow, ServedRow, SingleRow, Truth, WritingRow
from palm.pipeline.measure_stages import read_results
from palm.pipeline.plan_stages import POOL, baseline_names, oracle_for, read_candidates, read_tensor
from palm.pipeline.policy_stages import read_plan
from palm.pipeline.runner import Context
from palm.portfolio import Portfolio
from palm.rewards.users import UserWeights

PARTS = ("seen", "unseen")
_LONGEST = 2000  # characters of a text that the report shows


def collect(context: Context) -> ReportData:
    """Everything that the report shows, from the stages' results."""
    results = read_results(context.inputs["measure"])
    planned = read_plan(context)
    portfolio = Portfolio.from_pretrained(context.inputs["measure"])
    users = {part: UserWeights.load(context.inputs["measure"], f"users-{part}") for part in PARTS}
    plan = read_json(context.inputs["plan"] / "plan.json")
    diversity = results["diversity"]
    routes, confidence = _routes(context.inputs["route"])
    ids = [*portfolio.ids, "reference"]
    return ReportData(
        title=context.config.report.title,
        method=context.config.rewards.method,
        pairs=read_json(context.inputs["data"] / "summary.json"),
        shots=context.config.data.shots,
        portfolio=portfolio,
        planned=planned,
        held_out=Portfolio.from_pretrained(context.inputs["plan"] / "held_out"),
        gap={name: _estimate(record) for name, record in results["gap"].items() if None not in record.values()},
        users={part: posterior.mean.reshape(len(posterior), -1) for part, posterior in users.items() if len(posterior)},
        routes=routes,
        confidence=confidence,
        rule=context.config.route.rule,
        pool=context.config.candidates.source == POOL,
        simplex_share=dict(zip(ids, diversity["serving_share"], strict=True)),
        curve=tuple(SizePoint(**point) for point in plan["curve"]),
        members=tuple(_member(row) for row in results["members"]),
        singles=tuple(SingleRow(name, name in baseline_names(), **row) for name, row in results["singles"].items()),
        accuracy=_accuracy(results["accuracy"]),
        served=_served(context.inputs["route"]),
        writing=tuple(_writing(diversity, name) for name in portfolio.ids),
        checks=_checks(planned.ids, plan["diagnostics"]),
        between_bleu=diversity["between_bleu"],
        members_used=diversity["user_perplexity"],
        truth=_truth(results["truth"], users) if "truth" in results else None,
        examples=_examples(context, portfolio.ids),
        oracle=oracle_for(read_tensor(context.inputs["score"], "held_out"), planned.kl),
    )


def _estimate(record: dict[str, Any]) -> Estimate:
    return Estimate(record["mean"], record["low"], record["high"], int(record["count"]))


def _member(row: dict[str, Any]) -> MemberRow:
    return MemberRow(
        id=row["id"],
        weight=np.array(row["weight"]),
        reference_utility=row["reference_utility"],
        planned_utility=row["planned_utility"],
        measured_utility=_estimate(row["measured_utility"]),
        planned_cost=row["planned_cost"],
        measured_cost=row["measured_cost"],
        share_of_planned_gain=row["share_of_planned_gain"],
    )


def _accuracy(table: dict[str, Any]) -> tuple[AccuracyRow, ...]:
    return tuple(
        AccuracyRow(
            method=method,
            part=part,
            accuracy=_estimate(row["accuracy"]),
            log_loss=_estimate(row["log_loss"]),
            users=row["users"],
            pairs=row["pairs"],
            gain_of_main=_estimate(row["gain_of_main"]) if "gain_of_main" in row else None,
        )
        for method, parts in table.items()
        for part, row in parts.items()
    )


def _served(folder: Path) -> tuple[ServedRow, ...]:
    served = read_json(folder / "served.json")
    return tuple(
        ServedRow(judge=judge, part=part, **{**row, "gain": _estimate(row["gain"])})
        for judge, parts in served.items()
        for part, row in parts.items()
    )


def _routes(folder: Path) -> tuple[dict[str, dict[str, int]], dict[str, float]]:
    """How many users of each part go to each policy, and how sure their routes are on average."""
    table = read_json(folder / "routes.json").values()
    counts, confidence = {}, {}
    for part in PARTS:
        rows = [row for row in table if row["part"] == part]
        if rows:
            counts[part] = dict(Counter(row["policy"] for row in rows))
            confidence[part] = float(np.mean([row["confidence"] for row in rows]))
    return counts, confidence


def _writing(diversity: dict[str, Any], name: str) -> WritingRow:
    words, pairs = diversity["distinct"][name]
    return WritingRow(name, words, pairs, diversity["self_bleu"][name])


def _checks(ids: tuple[str, ...], diagnostics: dict[str, list[Any]] | None) -> tuple[CheckRow, ...]:
    if diagnostics is None:
        return ()
    names = ("effective_samples", "fewest_samples", "bias", "prompt_error")
    return tuple(CheckRow(*row) for row in zip(ids, *(diagnostics[name] for name in names), strict=True))


def _truth(record: dict[str, Any], users: dict[str, UserWeights]) -> Truth:
    """The planted values, and how the users' learned weights go with their planted ones."""
    known = [posterior for posterior in users.values() if len(posterior)]
    learned = np.vstack([posterior.mean for posterior in known]).T  # (K, U)
    planted = np.array([record["users"][str(user)] for posterior in known for user in posterior.ids]).T  # (B, U)
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = [rows - rows.mean(axis=1, keepdims=True) for rows in (learned, planted)]
        unit = [rows / np.sqrt((rows**2).sum(axis=1, keepdims=True)) for rows in apart]
    value = {name: np.array(row) for name, row in record["value"].items()}
    return Truth(tuple(record["bases"]), np.array(record["reference"]), value, unit[0] @ unit[1].T)


def _examples(context: Context, ids: tuple[str, ...]) -> tuple[Example, ...]:
    """The first held-out prompts with the first response of the reference and of each policy."""
    candidates = read_candidates(context.inputs["sample"], "held_out")
    texts = read_json(context.inputs["measure"] / "texts.json")
    examples = []
    for row in range(min(context.config.report.examples, len(candidates.prompts))):
        responses = [("reference", candidates.responses[row][0])]
        responses += [(name, texts[name][row][0]) for name in ids if texts[name][row]]
        examples.append(Example(_shown(candidates.prompts[row]), tuple((name, _shown(text)) for name, text in responses)))
    return tuple(examples)


def _shown(text: Text) -> str:
    """Text as it is; a conversation with who speaks; long ones cut."""
    if isinstance(text, list):
        text = text[0]["content"] if len(text) == 1 else "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} … (cut here)"
