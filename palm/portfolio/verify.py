"""Re-check a portfolio and its certificate from the file alone, and from the rewards if they are at hand.

This is the reader's own proof: it shares no code with what made the certificate (see `palm.portfolio.recount`), reads the files
itself, and tells line by line what holds, what does not, and what cannot be told. Without the rewards only what the file says
of itself can be compared; with them every number is counted again.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from palm.portfolio.claim import Claim, exceeded, implied, lack, read_claim, read_rewards, statements
from palm.portfolio.recount import Recount, apart, ascend, cell_corners, random_weights

_BUDGET = 2e9  # candidates x weights that the search for counterexamples looks at
_COMPLETE = "the certificate is complete"
HOLDS, FAILS, OPEN = "holds", "FAILS", "open"


@dataclass(frozen=True)
class Line:
    """One thing that was checked.

    Attributes:
        verdict: "holds", "FAILS", or "open" where it cannot be told.
        what: the claim and what was found.
    """

    verdict: str
    what: str

    def __str__(self) -> str:
        return f"{self.verdict:5s}  {self.what}"


def verify(
    folder: str | Path, rewards: str | Path | None = None, *, weights: int = 100_000, starts: int = 100, seed: int = 0
) -> list[Line]:
    """Check the portfolio in a folder.

    Args:
        folder: with portfolio.json.
        rewards: the reward tensor of the prompts that the certificate is for, as a run's stage score writes it: a safetensors file
            with `rewards` (P, N, K) and `mask` (P, N). None leaves what needs it open.
        weights: how many random weights look for a counterexample; fewer if P N times as many is above 2e9.
        starts: of these, how many of the worst are climbed from.
        seed: of the random weights.

    Returns:
        the lines; the portfolio is sound if none says "FAILS".

    Raises:
        ValueError: a file is missing or is not what it should be; the message names it.
    """
    claim = read_claim(Path(folder) / "portfolio.json")
    lines = _shape_lines(claim)
    if any(line.verdict == FAILS for line in lines):
        return lines
    lines += _own_lines(claim)
    if not sound(lines[-1:]) and lines[-1].what.startswith(_COMPLETE):
        return lines
    if rewards is None:
        where = "SCORE/plan.safetensors of a run, say, with --rewards"
        return [*lines, Line(OPEN, f"values, optima and cells were not counted again: that needs the rewards ({where})")]
    if claim.kl <= 0:
        return [*lines, Line(OPEN, f"kl is {claim.kl:g}: only KL-regularised optima on candidates can be counted again")]
    tensor, mask = read_rewards(Path(rewards), len(claim.reference))
    recount = Recount(tensor, claim.kl, mask)
    lines += _value_lines(claim, recount)
    if claim.certificate is not None:
        lines += _gap_lines(claim, claim.certificate, recount, weights, starts, seed)
        lines += _size_lines(claim.certificate, recount)
    return lines


def sound(lines: list[Line]) -> bool:
    """Whether nothing fails."""
    return all(line.verdict != FAILS for line in lines)


def _shape_lines(claim: Claim) -> list[Line]:
    """Whether the numbers can be a portfolio at all."""
    finite = all(np.isfinite(array).all() for array in (claim.weights, claim.value, claim.cost, claim.reference, [claim.kl]))
    on_simplex = bool((np.abs(claim.weights.sum(axis=1) - 1) < 1e-6).all() and (claim.weights > -1e-6).all())
    distinct = len(set(claim.ids)) == len(claim.ids)
    return [
        _line(finite, "all numbers are finite"),
        _line(on_simplex, f"{len(claim.weights)} weights lie on the simplex of {len(claim.reference)} bases"),
        _line(distinct, "ids are distinct"),
        _line(bool((claim.cost >= 0).all()) and claim.kl >= 0, "no KL cost is negative"),
    ]


def _own_lines(claim: Claim) -> list[Line]:
    """What the file says of itself: no rewards needed."""
    lines = []
    if claim.origin == "planned" and claim.kl > 0 and len(claim.weights):
        own = np.einsum("mk,mk->m", claim.weights, claim.folded[:-1])
        worst = int((claim.served(claim.weights) - own).argmax())
        fine = claim.served(claim.weights)[worst] <= own[worst] + claim.close
        lines.append(_line(fine, f"every planned policy is the best member for its own weight{_but(fine, claim.ids[worst])}"))
    if claim.certificate is None:
        return [*lines, Line(OPEN, "there is no certificate")]
    try:
        return [*lines, *_statement_lines(claim, claim.certificate)]
    except (KeyError, TypeError, ValueError) as error:
        return [*lines, Line(FAILS, f"{_COMPLETE}: {error!r}")]


def _statement_lines(claim: Claim, certificate: dict[str, Any]) -> list[Line]:
    """The three worst weights: corners of the cells, and no statement contradicts what another says of the optimum."""
    said = statements(certificate)
    lines = []
    for name, weight, _, _ in said:
        fine = _is_corner(claim.folded, weight)
        lines.append(_line(fine, f"the worst weight of {name} is a corner of the cells"))
    for name, weight, number, _ in said:
        optimum = implied(claim, certificate, name, weight, number)
        if exceeded(name, number) or not math.isfinite(optimum):
            continue
        for other, _, bound, _ in said:
            limit = implied(claim, certificate, other, weight, bound)
            if other != name and math.isfinite(limit):
                fine = optimum <= limit + claim.close
                lines.append(_line(fine, f"the optimum that {name} implies at its worst weight is within what {other} allows"))
    least, witnesses = int(certificate["size_at_least"]), len(certificate["incompatible"])
    fine = least == witnesses if witnesses else least in (0, 1)
    return [*lines, _line(fine, f"size_at_least is {least}, and {witnesses} incompatible weights are there to show it")]


def _is_corner(folded: np.ndarray, weight: np.ndarray) -> bool:
    """Whether the members that are best at a weight, and its zeros, leave it no way to move: their planes have full rank."""
    utility = folded @ weight
    ties = folded[utility >= utility.max() - 1e-8]
    walls = np.eye(len(weight))[weight < 1e-9]
    rows = np.vstack([ties - ties[0], walls, np.ones((1, len(weight)))])
    return int(np.linalg.matrix_rank(rows, tol=1e-9)) == len(weight)


def _value_lines(claim: Claim, recount: Recount) -> list[Line]:
    """Reference, values and KL costs, counted again."""
    off = float(np.abs(claim.reference - recount.reference).max())
    lines = [_line(off < 1e-8, f"the reference's value is the candidates' mean reward (off by {off:.1e})")]
    if claim.origin != "planned":
        return [*lines, Line(OPEN, f"values are {claim.origin}: taken from the policies' own texts, not counted again")]
    for name, weight, value, cost in zip(claim.ids, claim.weights, claim.value, claim.cost, strict=True):
        again, price = recount.policy(weight)
        off_value, off_cost = float(np.abs(again - value).max()), abs(price - float(cost))
        words = f"{name}: value and KL cost are those of the best policy for its weight at kl {claim.kl:g}"
        lines.append(_line(off_value < 1e-8 and off_cost < 1e-8, f"{words} (off by {off_value:.1e}, {off_cost:.1e})"))
    return lines


def _gap_lines(claim: Claim, certificate: dict[str, Any], recount: Recount, count: int, starts: int, seed: int) -> list[Line]:
    """Every statement at every corner of the cells, at its own worst weight, and at weights that know nothing of cells."""
    corners = cell_corners(claim.folded)
    close = claim.close
    count = int(max(1000, min(count, _BUDGET / recount.numbers)))
    scattered = random_weights(count, len(claim.reference), np.random.default_rng(seed))
    lines = []
    optimum = None if corners is None else recount.optimum(corners)
    scattered_optimum = recount.optimum(scattered)
    for name, weight, number, extra in statements(certificate):

        def broken(
            weights: np.ndarray,
            known: np.ndarray | None = None,
            name: str = name,
            number: float = number,
            extra: float = extra,
        ) -> np.ndarray:
            best = recount.optimum(weights) if known is None else known
            return lack(name, number, extra, certificate, best, claim.served(weights), weights @ claim.reference)

        if not math.isfinite(number):
            lines.append(_line(float(claim.served(weight[None])[0]) <= close, "a weight is served with utility 0, as said"))
            continue
        at_worst = float(broken(weight[None])[0])
        attained = abs(at_worst) <= close or (exceeded(name, number) and at_worst <= close)
        lines.append(_line(attained, f"{name} = {number:.9g} is attained at its worst weight (lack {at_worst:.1e})"))
        if corners is None:
            lines.append(Line(OPEN, f"{name}: too many corners to enumerate again"))
        else:
            most = float(broken(corners, optimum).max())
            lines.append(_line(most <= close, f"{name} = {number:.9g} holds at all {len(corners)} corners (lack {most:.1e})"))
        lacks = broken(scattered, scattered_optimum)
        tops = ascend(broken, scattered[np.argsort(-lacks)[:starts]], seed=seed)
        most = max(float(lacks.max()), float(broken(tops).max()))
        words = f"{name}: none of {count:,} random weights and {len(tops)} climbs is a counterexample (lack {most:.1e})"
        lines.append(_line(most <= close, words))
    return lines


def _size_lines(certificate: dict[str, Any], recount: Recount) -> list[Line]:
    """No policy is good enough for two of the incompatible weights, by a search along the line between them."""
    delta = float(certificate["given_delta"])
    lines = []
    if certificate["epsilon"] is not None:
        lines += _bound_lines(
            "size_at_least",
            int(certificate["size_at_least"]),
            np.array(certificate["incompatible"], dtype=float).reshape(-1, len(recount.reference)),
            recount,
            np.zeros_like(recount.reference),
            1 + float(certificate["epsilon"]),
            delta,
        )
    share = certificate.get("captured_gain_given_delta")
    if share and certificate.get("captured_size_at_least") is not None:
        lines += _bound_lines(
            "captured_size_at_least",
            int(certificate["captured_size_at_least"]),
            np.array(certificate["captured_incompatible"], dtype=float).reshape(-1, len(recount.reference)),
            recount,
            recount.reference,
            1 / float(share),
            delta / float(share),
        )
    return lines


def _bound_lines(
    name: str, least: int, witnesses: np.ndarray, recount: Recount, zero: np.ndarray, factor: float, delta: float
) -> list[Line]:
    """A bound on the size: `factor` times what a policy gives above `zero`, plus delta, must reach the optimum's."""

    def best(weights: np.ndarray) -> np.ndarray:
        return recount.optimum(weights) - weights @ zero

    def reference(weights: np.ndarray) -> np.ndarray:
        return weights @ (recount.reference - zero)

    vertices = np.eye(len(zero))
    needed = bool((factor * reference(vertices) + delta < best(vertices)).any())  # convex: worst at a vertex
    if len(witnesses) == 0:
        return [_line(least <= int(needed), f"{name} = {least}: the reference {'does not suffice' if needed else 'suffices'}")]
    lines = [_line(least <= max(len(witnesses), int(needed)), f"{name} = {least} is shown by {len(witnesses)} weights")]
    served = np.flatnonzero(factor * reference(witnesses) + delta >= best(witnesses))
    lines.append(_line(len(served) == 0, f"{name}: the reference is good enough for {len(served)} of them"))
    shared = [(i, j) for i in range(len(witnesses)) for j in range(i) if not apart(best, witnesses[i], witnesses[j], factor, delta)]
    pairs = len(witnesses) * (len(witnesses) - 1) // 2
    return [*lines, _line(not shared, f"{name}: {len(shared)} of {pairs} pairs of them could share a policy")]


def _line(fine: bool, what: str) -> Line:
    return Line(HOLDS if fine else FAILS, what)


def _but(fine: bool, who: str) -> str:
    return "" if fine else f", but {who} is not"
