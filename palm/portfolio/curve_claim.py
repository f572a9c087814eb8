"""Gap against size as a run wrote it beside its plan, compared with itself and the certificate: for `palm.portfolio.verify`."""

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

from palm.portfolio.claim import Claim
from palm.portfolio.form import in_range, is_whole
from palm.portfolio.verdict import FAILS, OPEN, Line, told

_PARTS = {"epsilon": math.inf, "epsilon_at_least": math.inf, "captured_gain": 1.0}
_SAME = 1e-9


def curve_lines(claim: Claim, path: Path) -> list[Line]:
    """Lines on the curve in plan.json; none if there is no such file or no curve in it.

    The portfolios of other sizes are not kept, so that their gaps cannot be counted again, but they have to agree: more policies
    are no worse, nothing found is below what is proven of its size, and neither contradicts the portfolio itself.
    """
    if not path.is_file():
        return []
    try:
        curve = json.loads(path.read_text(encoding="utf-8")).get("curve") or []
        points = [_point(entry) for entry in curve]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [Line(FAILS, f"curve: {path.name} has points of gap against size: {error!r}")]
    if not points:
        return []
    sizes, gaps, least = zip(*points, strict=True)
    grows = all(after > before for before, after in pairwise(sizes))
    falls = all(after <= before + _SAME for row in (gaps, least) for before, after in pairwise(row))
    possible = all(proven <= gap + _SAME for gap, proven in zip(gaps, least, strict=True))
    return [
        told(grows and falls, "curve: sizes increase, and more policies leave no larger gap"),
        told(possible, "curve: no gap is below what is proven of every portfolio of its size"),
        *_own_line(claim, points),
        Line(OPEN, "curve: gaps of other sizes were not counted again; their portfolios are not kept"),
    ]


def _point(entry: dict[str, Any]) -> tuple[int, float, float]:
    """Size, gap and proven bound of a point.

    Raises:
        ValueError, KeyError: it is none.
    """
    numbers = [math.inf if entry[name] is None else entry[name] for name in _PARTS]
    if not is_whole(entry["size"], 0) or not all(
        number == math.inf or in_range(number, 0, most) for number, most in zip(numbers, _PARTS.values(), strict=True)
    ):
        raise ValueError(f"{entry!r:.200}")
    return entry["size"], numbers[0], numbers[1]


def _own_line(claim: Claim, points: list[tuple[int, float, float]]) -> list[Line]:
    """What the curve says of the portfolio's size and of larger ones is no worse than what its certificate says of it."""
    if claim.certificate is None or claim.origin != "planned" or float(claim.certificate["given_delta"]) > 0:
        return []
    epsilon = claim.certificate["epsilon"]
    own = math.inf if epsilon is None else float(epsilon)
    beaten = [size for size, gap, proven in points if size >= len(claim.weights) and not max(gap, proven) <= own + _SAME]
    return [told(not beaten, f"curve: with as many policies or more no larger gap is said than the portfolio's{_of(beaten)}")]


def _of(sizes: list[int]) -> str:
    return f", but of {', '.join(map(str, sizes))}" if sizes else ""
