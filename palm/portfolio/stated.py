"""What a portfolio's file states of all prompts, "with 95 % confidence", checked again: for `palm.portfolio.verify`.

From the file alone: the numbers are of their kind, no bound is better than the estimate that it allows for sampling on, and
two-sided intervals reach further than one-sided bounds. With the rewards of the prompts that it was stated from, the estimate is
counted again by other means. The bounds are a matter of resampling: whether they leave sampling some room (`palm.portfolio.room`)
is all that is seen of them, and a line says so.
"""

import math
from typing import Any

import numpy as np

from palm.portfolio.claim import Claim, exceeded, lack
from palm.portfolio.form import in_range, is_whole
from palm.portfolio.recount import Recount, cell_corners
from palm.portfolio.room import SIDE, but, number_or_infinity, room_lines
from palm.portfolio.verdict import FAILS, OPEN, Line, told

_BISECTED = 1e-6  # bounds are found by halving


def stated_form_lines(confidence: dict[str, Any]) -> list[Line]:
    """Whether the section can be one: where a line fails nothing else need be asked of it."""
    try:
        level, draws, bernstein = confidence["level"], confidence["draws"], confidence["bernstein"]
        fine = in_range(level, 0, 1) and 0 < level < 1
        lines = [told(fine, f"confidence: level is {level!r:.40}: above 0 and below 1")]
        for name, least in (("prompts", 2), ("draws", 2), ("pairs", 0 if bernstein is None else 1)):
            number = confidence[name]
            lines.append(told(is_whole(number, least), f"confidence: {name} is {number!r:.40}: a whole number, at least {least}"))
        if all(line.verdict != FAILS for line in lines):
            enough = (draws + 1) * (1 - level) >= 1 - 1e-9
            lines.append(told(enough, f"confidence: {draws} draws have a quantile at the level {level:g}"))
        for name in ("given_epsilon", "given_delta"):
            number = confidence.get(name, 0.0)  # files written before they were have none
            lines.append(told(in_range(number, 0, math.inf), f"confidence: {name} is {number!r:.40}: not negative"))
        for part in ("estimate", "bootstrap", "low", "high", *(["bernstein"] if bernstein is not None else [])):
            wrong = [f"{name} {confidence[part][name]!r:.40}" for name in SIDE if not _is_gap(name, confidence[part][name])]
            lines.append(told(not wrong, f"confidence: {part} has numbers that gaps can have{but(wrong)}"))
    except (KeyError, TypeError, ValueError) as error:
        return [Line(FAILS, f"confidence is complete: {error!r}")]
    return lines


def stated_lines(confidence: dict[str, Any]) -> list[Line]:
    """No bound is better than the estimate, and the estimate lies in its interval: needs no rewards."""
    lines = []
    of = {part: confidence[part] for part in ("estimate", "bootstrap", "low", "high", "bernstein") if confidence[part] is not None}
    for name in ("bootstrap", "bernstein"):
        if name in of:
            better = [gap for gap in SIDE if not _no_better(gap, of[name][gap], of["estimate"][gap])]
            lines.append(told(not better, f"confidence: no bound of {name} is better than the estimate{but(better)}"))
    for low, high in (("low", "estimate"), ("estimate", "high")):
        out = [gap for gap in SIDE if number_or_infinity(of[low][gap]) > number_or_infinity(of[high][gap]) + _BISECTED]
        lines.append(told(not out, f"confidence: {low} is not above {high}{but(out)}"))
    short = [gap for gap in SIDE if not _no_better(gap, of["high" if SIDE[gap] > 0 else "low"][gap], of["bootstrap"][gap])]
    lines.append(told(not short, f"confidence: intervals reach beyond the bounds by resampling{but(short)}"))
    return lines


def recounted_lines(claim: Claim, confidence: dict[str, Any], recount: Recount, prompts: int) -> list[Line]:
    """The estimate on the prompts that it is of, counted again.

    Args:
        claim: the portfolio; planned policies are taken as optimal at their weights there, too, measured ones as they are said.
        confidence: its section.
        recount: of the rewards of the prompts.
        prompts: how many these are.
    """
    said = int(confidence["prompts"])
    lines = [told(said == prompts, f"confidence: stated from {said} prompts; the rewards held out are of {prompts}")]
    folded, planned = claim.folded, claim.origin == "planned"
    if planned:
        members = [recount.policy(weight) for weight in claim.weights]
        folded = np.vstack([*(value - cost for value, cost in members), recount.reference])
    corners = cell_corners(folded)
    if corners is None:
        return [*lines, Line(OPEN, "confidence: the estimate was not counted again: too many corners")]
    served, base, optimum = (corners @ folded.T).max(axis=1), corners @ recount.reference, recount.optimum(corners)
    given = {name: float(confidence.get(name, 0.0)) for name in ("given_epsilon", "given_delta")}
    for name in SIDE:
        number, extra = number_or_infinity(confidence["estimate"][name]), given["given_delta"] if name == "epsilon" else 0.0
        if math.isinf(number):
            fine, most = bool((served <= claim.close).any()), math.inf
        else:
            most = float(lack(name, number, extra, given, optimum, served, base).max())
            fine = abs(most) <= claim.close or (exceeded(name, number) and most <= claim.close)
        lines.append(told(fine, f"confidence: the estimate of {name} is {number:.9g} on these prompts (lack {most:.1e})"))
    if planned and prompts > 1:
        lines += room_lines(claim, confidence, recount, corners)
    known = "only that they leave some room" if planned else "only that none is better than its estimate"
    return [*lines, Line(OPEN, f"confidence: that its bounds allow enough for sampling was not counted again, {known}")]


def _is_gap(name: str, number: Any) -> bool:
    """Whether something can be a gap, without bound perhaps, or a share."""
    return in_range(number, 0, 1) if name == "captured_gain" else number is None or in_range(number, 0, math.inf)


def _no_better(gap: str, bound: float | None, than: float | None) -> bool:
    """Whether a bound is on the pessimistic side of another number, up to rounding."""
    first, second = number_or_infinity(bound), number_or_infinity(than)
    if math.isinf(second):
        return math.isinf(first) if SIDE[gap] > 0 else True
    return first >= second - _BISECTED * (1 + second) if SIDE[gap] > 0 else first <= second + _BISECTED
