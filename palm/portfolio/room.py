"""Whether bounds over all prompts leave sampling any room: for `palm.portfolio.verify`.

Bounds by resampling are others with every draw, and those by Bernstein's inequality rest on what the policies were planned to
be, so they are not counted again. But what they promise is a mean over prompts, and a bound that lies closer to what was found
than a part of what a single mean needs allows for no sampling at all.
"""

import math
from statistics import NormalDist
from typing import Any

import numpy as np

from palm.portfolio.claim import Claim, exceeded, lack
from palm.portfolio.recount import Recount
from palm.portfolio.verdict import Line, told

SIDE = {"epsilon": 1, "delta": 1, "captured_gain": -1}  # bounded from above, above, below
_PARTS = ("bootstrap", "bernstein", "low", "high")
_SHARE = 0.25  # of the room that the normal approximation leaves a single mean; of 300 plans none left less than .47 of it
_AT_ONCE = 2**22  # numbers


def room_lines(claim: Claim, confidence: dict[str, Any], recount: Recount, corners: np.ndarray) -> list[Line]:
    """A line for each kind of bound.

    A bound on what is lacked says of every corner that some member's mean is at most 0 there, a bound from the other side of some
    corner that every member's is at least 0.

    Args:
        claim: the planned portfolio.
        confidence: its section.
        recount: of the rewards of the prompts that it is stated from.
        corners: (c, K) of the cells on these prompts.
    """
    promises = _promises(confidence)
    reached = dict.fromkeys(promises, -math.inf)  # the most, over corners, of what the member that lacks least may lack
    members = recount.members(claim.weights)
    for some in np.array_split(corners, math.ceil(len(corners) * (members.shape[1] + 1) * len(members) / _AT_ONCE)):
        optimum, served, base = recount.lacks(some, members)
        served = np.concatenate([served, base[:, None, :]], axis=1)
        for promise in promises:
            part, gap, number, above = promise
            lacked = _lacked(gap, number, confidence, optimum, served, base)
            room = _bernstein(lacked, confidence) if part == "bernstein" else _normal(lacked, confidence, 1 + (part != "bootstrap"))
            least = (lacked.mean(axis=0) + (room if above else -room)).min(axis=0)
            reached[promise] = max(reached[promise], float(least.max()))
    lines = []
    for part in (part for part in _PARTS if confidence[part] is not None):
        short = [
            gap
            for (of, gap, number, above), most in reached.items()
            if of == part and (most > claim.close if above else most < -claim.close)
        ]
        lines.append(told(not short, f"confidence: {part} leaves room for sampling{but(short)}"))
    return lines


def _normal(lacked: np.ndarray, confidence: dict[str, Any], sides: int) -> np.ndarray:
    """(m, c) part of what the normal approximation leaves each mean, one- or two-sided."""
    tail = min((1 - confidence["level"]) / sides, 0.5)
    return np.asarray(_SHARE * NormalDist().inv_cdf(1 - tail) * lacked.std(axis=0, ddof=1) / math.sqrt(len(lacked)))


def _bernstein(lacked: np.ndarray, confidence: dict[str, Any]) -> np.ndarray:
    """(m, c) half of what Bernstein's inequality leaves each mean if it is bounded alone and ranges no further than was seen.

    Source: A. Maurer, M. Pontil, "Empirical Bernstein bounds and sample variance penalization", COLT 2009, theorem 4.
    """
    logarithm, count = math.log(2 / (1 - confidence["level"])), len(lacked)
    spread = np.sqrt(2 * lacked.var(axis=0, ddof=1) * logarithm / count)
    return np.asarray(0.5 * (spread + np.ptp(lacked, axis=0) * 7 * logarithm / (3 * (count - 1))))


def _promises(confidence: dict[str, Any]) -> list[tuple[str, str, float, bool]]:
    """Kind of bound, gap, number, and whether it is one on what is lacked; those that promise nothing are left out."""
    found = []
    for part in _PARTS:
        for gap, side in SIDE.items() if confidence[part] is not None else ():
            above = part in ("bootstrap", "bernstein") or (part == "high") == (side > 0)
            number = number_or_infinity(confidence[part][gap])
            nothing = math.isinf(number) or exceeded(gap, number) or (above and side < 0 and number <= 0)
            if not nothing:
                found.append((part, gap, number, above))
    return found


def _lacked(
    gap: str, number: float, confidence: dict[str, Any], optimum: np.ndarray, served: np.ndarray, base: np.ndarray
) -> np.ndarray:
    """(P, m, c) what each member lacks on each prompt of what is promised, at each corner."""
    given = {name: float(confidence.get(name, 0.0)) for name in ("given_epsilon", "given_delta")}
    extra = given["given_delta"] if gap == "epsilon" else 0.0
    return np.asarray(lack(gap, number, extra, given, optimum[:, None, :], served, base[:, None, :]))


def number_or_infinity(number: float | None) -> float:
    """A number as JSON has it: null for what is infinite."""
    return math.inf if number is None else float(number)


def but(names: list[str]) -> str:
    """The end of a line: of which gaps it does not hold."""
    return f", but of {', '.join(names)}" if names else ""
