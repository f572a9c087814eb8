"""What a portfolio's file says of itself, compared: no rewards are needed. For `palm.portfolio.verify`."""

import math
from typing import Any

import numpy as np

from palm.portfolio.claim import Claim, exceeded, implied, statements
from palm.portfolio.verdict import FAILS, OPEN, Line, told

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
        return [*lines, Line(OPEN, "there is no certificate")]
    try:
        return [*lines, *_statement_lines(claim, claim.certificate), *_size_lines(claim, claim.certificate)]
    except (KeyError, TypeError, ValueError) as error:
        return [*lines, Line(FAILS, f"{COMPLETE}: {error!r}")]


def _statement_lines(claim: Claim, certificate: dict[str, Any]) -> list[Line]:
    """The worst weights: corners of the cells, and no statement contradicts what another says of the optimum."""
    said = statements(certificate)
    lines = []
    for name, weight, _, _ in said:
        fine = _is_corner(claim.folded, weight)
        lines.append(told(fine, f"the worst weight of {name} is a corner of the cells"))
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


def _is_corner(folded: np.ndarray, weight: np.ndarray) -> bool:
    """Whether the members that are best at a weight, and its zeros, leave it no way to move: their planes have full rank."""
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
    many = len(claim.weights)
    lines.append(told(least <= many, f"size_at_least is {least}, and the portfolio is that good with {many}"))
    if certificate.get("captured_size_at_least") is not None:
        least, witnesses = int(certificate["captured_size_at_least"]), len(certificate["captured_incompatible"])
        lines.append(told(least == witnesses, f"captured_size_at_least is {least}, and {witnesses} weights are there to show it"))
        lines.append(told(least <= many, f"captured_size_at_least is {least}, and the portfolio captures as much with {many}"))
    return lines


def _but(fine: bool, who: str) -> str:
    return "" if fine else f", but {who} is not"
