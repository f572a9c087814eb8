"""Re-check a portfolio and its certificate from the file alone, and from the rewards if they are at hand.

This is the reader's own proof: it shares no code with what made the certificate (see `palm.portfolio.recount`), reads the files
itself, and tells line by line what holds, what does not, and what cannot be told. Without the rewards only what the file says
of itself can be compared; with them every number is counted again.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from palm.portfolio.claim import Claim, exceeded, lack, read_claim, read_rewards, statements
from palm.portfolio.contradictions import COMPLETE, own_lines
from palm.portfolio.curve_claim import curve_lines
from palm.portfolio.form import form_lines
from palm.portfolio.recount import Recount, apart, ascend, cell_corners, random_weights
from palm.portfolio.stated import recounted_lines, stated_form_lines, stated_lines
from palm.portfolio.verdict import FAILS, HOLDS, OPEN, Line, sound, told

_BUDGET = 2e9  # candidates x weights that the search for counterexamples looks at
_RECOUNTED = 1e-8  # of the largest utility: how far a number counted again may be off
_ROUNDING = 1e-13  # of the KL coefficient, beside it, for a KL cost

__all__ = ["FAILS", "HOLDS", "OPEN", "Line", "sound", "verify"]


def verify(
    folder: str | Path,
    rewards: str | Path | None = None,
    *,
    held_out: str | Path | None = None,
    weights: int = 100_000,
    starts: int = 100,
    seed: int = 0,
) -> list[Line]:
    """Check the portfolio in a folder.

    Args:
        folder: with portfolio.json.
        rewards: the reward tensor of the prompts that the certificate is for, as a run's stage score writes it: a safetensors file
            with `rewards` (P, N, K) and `mask` (P, N). None leaves what needs it open.
        held_out: that of the prompts that confidence is stated from, on which nothing was chosen. None leaves that open.
        weights: how many random weights look for a counterexample; fewer if P N times as many is above 2e9.
        starts: of these, how many of the worst are climbed from.
        seed: of the random weights.

    Returns:
        the lines; the portfolio is sound if none says "FAILS".

    Raises:
        ValueError: a file is missing or is not what it should be; the message names it.
    """
    claim = read_claim(Path(folder) / "portfolio.json")
    lines = form_lines(claim) + ([] if claim.confidence is None else stated_form_lines(claim.confidence))
    if not sound(lines):
        return lines
    lines += own_lines(claim)
    if not sound(lines[-1:]) and lines[-1].what.startswith(COMPLETE):
        return lines
    lines += _counted_lines(claim, rewards, weights, starts, seed)
    lines += curve_lines(claim, Path(folder) / "plan.json")
    if claim.confidence is not None:
        lines += stated_lines(claim.confidence) + _sampled_lines(claim, claim.confidence, held_out)
    return lines


def _counted_lines(claim: Claim, rewards: str | Path | None, weights: int, starts: int, seed: int) -> list[Line]:
    """All that the certificate's own rewards are needed for."""
    if rewards is None:
        where = "SCORE/plan.safetensors of a run, say, with --rewards"
        return [Line(OPEN, f"values, optima and cells were not counted again: that needs the rewards ({where})")]
    if claim.kl <= 0:
        return [Line(OPEN, f"kl is {claim.kl:g}: only KL-regularised optima on candidates can be counted again")]
    tensor, mask = read_rewards(Path(rewards), len(claim.reference))
    recount = Recount(tensor, claim.kl, mask)
    lines = _value_lines(claim, recount)
    if claim.certificate is not None:
        lines += _gap_lines(claim, claim.certificate, recount, weights, starts, seed)
        lines += _size_lines(claim.certificate, recount)
    return lines


def _sampled_lines(claim: Claim, confidence: dict[str, Any], held_out: str | Path | None) -> list[Line]:
    """What the rewards of the prompts are needed for that confidence is stated from."""
    if held_out is None or claim.kl <= 0:
        why = f"kl is {claim.kl:g}" if held_out is not None else "that needs their rewards (SCORE/held_out.safetensors, --held-out)"
        return [Line(OPEN, f"confidence: what {confidence['prompts']} prompts say of all was not counted again: {why}")]
    tensor, mask = read_rewards(Path(held_out), len(claim.reference))
    return recounted_lines(claim, confidence, Recount(tensor, claim.kl, mask), len(tensor))


def _value_lines(claim: Claim, recount: Recount) -> list[Line]:
    """Reference, values and KL costs, counted again."""
    close = _RECOUNTED * max(
        float(np.abs(recount.optimum(np.eye(len(claim.reference)))).max()), float(np.abs(recount.reference).max())
    )
    off = float(np.abs(claim.reference - recount.reference).max())
    lines = [told(off <= close, f"the reference's value is the candidates' mean reward (off by {off:.1e})")]
    if claim.origin != "planned":
        return [*lines, Line(OPEN, f"values are {claim.origin}: taken from the policies' own texts, not counted again")]
    for name, weight, value, cost in zip(claim.ids, claim.weights, claim.value, claim.cost, strict=True):
        again, price = recount.policy(weight)
        off_value, off_cost = float(np.abs(again - value).max()), abs(price - float(cost))
        words = f"{name}: value and KL cost are those of the best policy for its weight at kl {claim.kl:g}"
        same = off_value <= close and off_cost <= close + _ROUNDING * claim.kl
        lines.append(told(same, f"{words} (off by {off_value:.1e}, {off_cost:.1e})"))
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
            lines.append(told(float(claim.served(weight[None])[0]) <= close, "a weight is served with utility 0, as said"))
            continue
        at_worst = float(broken(weight[None])[0])
        attained = abs(at_worst) <= close or (exceeded(name, number) and at_worst <= close)
        lines.append(told(attained, f"{name} = {number:.9g} is attained at its worst weight (lack {at_worst:.1e})"))
        if corners is None:
            lines.append(Line(OPEN, f"{name}: too many corners to enumerate again"))
        else:
            most = float(broken(corners, optimum).max())
            lines.append(told(most <= close, f"{name} = {number:.9g} holds at all {len(corners)} corners (lack {most:.1e})"))
        lacks = broken(scattered, scattered_optimum)
        tops = ascend(broken, scattered[np.argsort(-lacks)[:starts]], seed=seed)
        most = max(float(lacks.max()), float(broken(tops).max()))
        words = f"{name}: none of {count:,} random weights and {len(tops)} climbs is a counterexample (lack {most:.1e})"
        lines.append(told(most <= close, words))
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
        return [told(least <= int(needed), f"{name} = {least}: the reference {'does not suffice' if needed else 'suffices'}")]
    lines = [told(least <= max(len(witnesses), int(needed)), f"{name} = {least} is shown by {len(witnesses)} weights")]
    served = np.flatnonzero(factor * reference(witnesses) + delta >= best(witnesses))
    lines.append(told(len(served) == 0, f"{name}: the reference is good enough for {len(served)} of them"))
    shared = [(i, j) for i in range(len(witnesses)) for j in range(i) if not apart(best, witnesses[i], witnesses[j], factor, delta)]
    pairs = len(witnesses) * (len(witnesses) - 1) // 2
    return [*lines, told(not shared, f"{name}: {len(shared)} of {pairs} pairs of them could share a policy")]
