"""What a portfolio's file says of itself, compared: no rewards are needed. For `palm.portfolio.verify`."""

import math
from typing import Any

import numpy as np

from palm.portfolio.claim import Claim, exceeded, implied, statements
from palm.portfolio.recount import cell_corners
from palm.portfolio.verdict import FAILS, OPEN, Line, told

_DIGITS = (6, 7, 8, 9, 11)  # to which corners may be told apart
_BEND = 1e-3  # of the largest utility: what bends less may leave a gap below rounding

COMPLETE = "the certificate is complete"


def own_lines(claim: Claim) -> list[Line]:
    """What the file says of itself; the last line fails and begins with `COMPLETE` if the certificate cannot be read."""
    lines = []
    if claim.origin == "planned" and claim.kl > 0 and len(claim.weights):
        own = np.einsum("mk,mk->m", claim.weights, claim.folded[:-1])
        worst = int((claim.served(claim.weights) - own).argmax())
        fine = claim.served(claim.weights)[worst] <= own[worst] + claim.close
        lines.append(told(fine, f"every planned policy is the best member for its own weight{_but(fine, claim.ids[worst])}"))
    if claim.certificate is None:
        return [*lines, Line(FAILS, "there is a certificate to check")]
    try:
        found = claim.certificate
        return [*lines, *_corner_lines(claim, found), *_statement_lines(claim, found), *_size_lines(claim, found)]
    except (KeyError, TypeError, ValueError) as error:
        return [*lines, Line(FAILS, f"{COMPLETE}: {error!r}")]


def _corner_lines(claim: Claim, certificate: dict[str, Any]) -> list[Line]:
    """The worst weights are corners of the members' cells, and these are as many as were looked at: members gone show here."""
    lines = []
    for name, weight, _, _ in statements(certificate):
        fine = _is_corner(claim.folded, weight)
        lines.append(told(fine, f"the worst weight of {name} is a corner of the cells"))
    corners, said = cell_corners(claim.folded), int(certificate["corners"])
    if corners is None:
        return [*lines, Line(OPEN, "corners were not counted again: there are too many")]
    counts = [len(np.unique(np.round(corners, digits), axis=0)) for digits in _DIGITS]
    # Where more planes meet than must, rounding may leave the maker several corners for one.
    planes = (corners @ claim.folded.T >= claim.served(corners)[:, None] - 1e-7 * claim.scale).sum(axis=1) + (corners < 1e-7).sum(
        axis=1
    )
    most = max(counts) if (planes <= corners.shape[1]).all() else math.inf
    return [*lines, told(min(counts) <= said <= most, f"the optimum was evaluated at {said} corners; the cells have {counts[0]}")]


def _statement_lines(claim: Claim, certificate: dict[str, Any]) -> list[Line]:
    """No statement contradicts what another says of the optimum, or what the members show of it."""
    said = statements(certificate)
    lines = [_bend_line(claim, certificate)] if claim.origin == "planned" and claim.kl > 0 else []
    if certificate["epsilon"] is None:
        served = float(claim.served(said[0][1][None])[0])
        lines.append(
            told(served <= claim.close, f"a weight is served with utility 0, as an epsilon without bound says: {served:.3g}")
        )
    for name, weight, number, _ in said:
        optimum = implied(claim, certificate, name, weight, number)
        if exceeded(name, number) or not math.isfinite(optimum):
            continue
        for other, _, bound, _ in said:
            limit = implied(claim, certificate, other, weight, bound)
            if other != name and math.isfinite(limit):
                fine = optimum <= limit + claim.close
                lines.append(told(fine, f"the optimum that {name} implies at its worst weight is within what {other} allows"))
    return lines


def _bend_line(claim: Claim, certificate: dict[str, Any]) -> Line:
    """A portfolio of several members is nowhere perfect everywhere: OPT is smooth, and what they serve bends between cells.

    OPT of policies on candidates is a mean of kl log mean exp(w.phi / kl), analytic in w. Were it what is served for all w, linear
    on each cell, it would be linear, and one member the best at every vertex.
    """
    words = "no gap of 0 is said where what is served bends between cells"
    elsewhere = [text for text in map(str, certificate["assumptions"]) if "are bounded" in text or "given policies" in text]
    if elsewhere:
        return Line(OPEN, f"{words}: not known, for {elsewhere[0]}")
    bend = float((claim.folded.max(axis=0) - claim.folded).max(axis=1).min())  # of the member that lacks least at any vertex
    perfect = [
        name
        for name, _, number, extra in statements(certificate)
        if exceeded(name, number) and extra == 0 and (name != "delta" or float(certificate["given_epsilon"]) == 0)
    ]
    fine = not perfect or bend <= _BEND * claim.scale
    return told(fine, words if fine else f"{words}: {', '.join(perfect)} cannot be, members differ by {bend:.3g} at a vertex")


def _is_corner(folded: np.ndarray, weight: np.ndarray) -> bool:
    """Whether the members that are best at a weight, and its zeros, leave it no way to move: their planes have full rank."""
    folded = folded / max(float(np.abs(folded).max()), 1e-300)
    utility = folded @ weight
    ties = folded[utility >= utility.max() - 1e-8]
    walls = np.eye(len(weight))[weight < 1e-9]
    rows = np.vstack([ties - ties[0], walls, np.ones((1, len(weight)))])
    return int(np.linalg.matrix_rank(rows, tol=1e-9)) == len(weight)


def _size_lines(claim: Claim, certificate: dict[str, Any]) -> list[Line]:
    """Bounds on the size: as many as there are weights to show it, and never more than the portfolio, which is good enough."""
    least, witnesses = int(certificate["size_at_least"]), len(certificate["incompatible"])
    fine = least == witnesses if witnesses else least in (0, 1)
    lines = [told(fine, f"size_at_least is {least}, and {witnesses} incompatible weights are there to show it")]
    lines.append(_own_size_line(claim, f"size_at_least is {least}, and the portfolio is that good with", least))
    if certificate.get("captured_size_at_least") is not None:
        least, witnesses = int(certificate["captured_size_at_least"]), len(certificate["captured_incompatible"])
        lines.append(told(least == witnesses, f"captured_size_at_least is {least}, and {witnesses} weights are there to show it"))
        words = f"captured_size_at_least is {least}, and the portfolio captures as much with"
        lines.append(_own_size_line(claim, words, least))
    return lines


def _own_size_line(claim: Claim, words: str, least: int) -> Line:
    """A portfolio is the counterexample to a bound above its own size, unless it is measured to be better than the bound allows.

    Bounds are over policies on candidates, whose optimum the texts of trained ones may exceed.
    """
    words = f"{words} {len(claim.weights)}"
    if claim.origin != "planned" and least > len(claim.weights):
        return Line(OPEN, f"{words}: its {claim.origin} values must exceed the optimum on candidates, or the bound is wrong")
    return told(least <= len(claim.weights), words)


def _but(fine: bool, who: str) -> str:
    return "" if fine else f", but {who} is not"
