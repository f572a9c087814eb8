"""The report's first screen: its main numbers, and what they say in plain words."""

from dataclasses import dataclass

import numpy as np

from palm.evaluation.intervals import Estimate
from palm.evaluation.report_content import AccuracyRow, ReportData, ServedRow
from palm.portfolio.explain import policies

_SPACE = "\u202f"  # keeps a number and its unit on one line


@dataclass(frozen=True)
class Card:
    """A number in large type.

    Attributes:
        figure: the number.
        label: what it is.
        note: its interval, or where it is from.
    """

    figure: str
    label: str
    note: str


def number(value: float | None) -> str:
    """Three significant digits; whole thousands in groups; a dash for None."""
    if value is None or np.isnan(value):
        return "–"
    if not np.isfinite(value):
        return "unbounded"
    if value == 0:
        return "0"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")
    return text.replace("-", "−")


def percent(value: float | None) -> str:
    """A share as a percentage with three significant digits."""
    if value is None or not np.isfinite(value):
        return number(value)
    return f"{number(100 * value)}{_SPACE}%"


def interval(estimate: Estimate | None, *, share: bool = False) -> str:
    """A number with its interval: 0.516 [0.505, 0.528]."""
    if estimate is None:
        return number(None)
    scale = 100 if share else 1
    ends = f"[{number(scale * estimate.low)}, {number(scale * estimate.high)}]"
    return f"{number(estimate.mean * scale)}{_SPACE + '%' if share else ''} {ends}"


def cards(data: ReportData) -> list[Card]:
    """At most four main numbers."""
    captured = data.gap["captured_gain"]
    give = "gives" if len(data.portfolio) == 1 else "give"
    label = (
        f"of what personal optimisation could gain: so much, at least, {policies(len(data.portfolio))} {give} every possible user"
    )
    result = [
        Card(percent(captured.mean), label, f"measured; 95{_SPACE}% interval {_span(captured)}")
        if len(data.portfolio)
        else Card("0", "policies: the base model alone is good enough", f"gap ε {percent(data.certificate('portfolio').epsilon)}")
    ]
    single = data.best_single
    if single is not None and len(data.portfolio) > 1:
        note = f"measured; {single.id}, the best of {len(data.singles)} trained"
        result.append(
            Card(percent(single.captured_gain), "of it, at least, is what one policy for everyone gives every possible user", note)
        )
    if (row := _served(data)) is not None:
        who = f"{row.part} users"
        figure = f"{'+' if row.gain.mean > 0 else ''}{number(row.gain.mean)}"
        label = f"utility for routed {who} over one policy for everyone"
        note = f"[{number(row.gain.low)}, {number(row.gain.high)}]; {_judge(row)}"
        result.append(Card(figure, label, note))
    if (main := _main_accuracy(data)) is not None:
        label = f"of {main.part} users' held-out choices are predicted by {main.method}"
        result.append(Card(percent(main.accuracy.mean), label, f"95{_SPACE}% interval {_span(main.accuracy)}"))
    return result


def sentences(data: ReportData) -> list[str]:
    """What the run found, one plain sentence or two each."""
    return [*_coverage(data), *_size(data), *_routing(data), *_accuracy(data)]


def _coverage(data: ReportData) -> list[str]:
    certificate, captured = data.certificate("portfolio"), data.gap["captured_gain"]
    if not len(data.portfolio):
        return [
            "No policy was trained: for every possible user the base model alone is good enough for the gap that was asked for. "
            f"The optimum is at most {percent(certificate.epsilon)} above it on the held-out prompts; nothing of it is captured."
        ]
    found = [
        f"{policies(len(data.portfolio)).capitalize()} beside the base model: whatever a user's weight, the best of them gives at "
        f"least {percent(captured.mean)} of what a policy optimised for this user alone could gain over the base model (measured "
        f"on {captured.count:,} held-out prompts; 95{_SPACE}% interval {_span(captured)}). The plan promised "
        f"{percent(data.certificate('held_out').captured_gain)} on the same prompts, before training."
    ]
    single = data.best_single
    if single is not None and len(data.portfolio) > 1:
        found.append(
            f"One policy for everyone gives every possible user at least {percent(single.captured_gain)} of it and no more: "
            f"this is {single.id}, the best of the {policies(len(data.singles))} trained here when each is on its own."
        )
    return found


def _size(data: ReportData) -> list[str]:
    if not len(data.portfolio):
        return []
    plan, measured = data.certificate("planned"), data.certificate("portfolio")
    gap = data.gap.get("epsilon")
    shown = percent(measured.epsilon) if gap is None else f"{percent(gap.mean)} ({_span(gap)})"
    text = f"The optimum is nowhere more than {shown} above what the portfolio gives. "
    if plan.size_at_least >= len(data.planned):
        are = "is" if len(data.planned) == 1 else "are"
        text += f"On the planning prompts {policies(len(data.planned))} {are} proven to be the fewest for the planned gap of "
        text += f"{percent(plan.epsilon)}."
    else:
        text += f"The planned gap of {percent(plan.epsilon)} needs at least {policies(plan.size_at_least)}, by proof."
    return [text]


def _routing(data: ReportData) -> list[str]:
    row = _served(data)
    if row is None:
        return []
    who = f"{row.part} {'user' if row.users == 1 else 'users'}"
    known = f", known from {data.shots} pairs each," if row.part == "unseen" else ""
    text = (
        f"Sent to the policy chosen for them, {row.users:,} {who}{known} get a mean utility of {number(row.routed)}, against "
        f"{number(row.single)} with one policy for everyone: {_signed(row.gain.mean)} ({_span_plain(row.gain)}). "
        f"{percent(row.worse_off)} of them would be better off with that single policy."
    )
    if row.gain.low <= 0 <= row.gain.high:
        text += " The interval includes 0: no difference is shown."
    for other in data.served:
        if other.judge == "planted" and other.part == row.part:
            text += (
                f" By the planted (true) rewards and weights: {_signed(other.gain.mean)} ({_span_plain(other.gain)}), "
                f"{percent(other.worse_off)} worse off."
            )
    return [text]


def _accuracy(data: ReportData) -> list[str]:
    main = _main_accuracy(data)
    if main is None:
        return []
    others = [
        f"{row.method} {percent(row.accuracy.mean)}" for row in data.accuracy if row.part == main.part and row.method != main.method
    ]
    beside = f"; {', '.join(others)}" if others else ""
    return [
        f"The rewards behind all this are learned: {main.method} predicts {percent(main.accuracy.mean)} of {main.part} users' "
        f"held-out choices{beside}."
    ]


def _served(data: ReportData) -> ServedRow | None:
    """Unseen users by the learned rewards; seen users if there are no others."""
    rows = {row.part: row for row in data.served if row.judge == "learned"}
    return rows.get("unseen") or rows.get("seen")


def _main_accuracy(data: ReportData) -> AccuracyRow | None:
    rows = {row.part: row for row in data.accuracy if row.method == data.method}
    return rows.get("unseen") or rows.get("seen")


def _judge(row: ServedRow) -> str:
    return "by learned rewards" if row.judge == "learned" else "by planted rewards"


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{number(value)}"


def _span(estimate: Estimate) -> str:
    """An interval of shares: 48.4 to 68.0 %."""
    return f"{number(100 * estimate.low)} to {percent(estimate.high)}"


def _span_plain(estimate: Estimate) -> str:
    return f"{number(estimate.low)} to {number(estimate.high)}"
