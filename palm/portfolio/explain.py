"""Portfolios in words, for `palm show` and `palm diff`."""

from typing import Any

import numpy as np

from palm.portfolio.confidence import Confidence
from palm.portfolio.portfolio import Portfolio
from palm.simplex import sample_simplex

_SAMPLE = 20_000


def policies(count: int) -> str:
    """1 policy, 2 policies."""
    return f"{count} {'policy' if count == 1 else 'policies'}"


def in_words(weight: np.ndarray, bases: tuple[str, ...]) -> str:
    """A weight by its largest parts: "mostly warmth (0.62), some brevity (0.30)"; what is below 5 % is left out."""
    if len(weight) > 1 and np.ptp(weight) < 0.05:
        return f"all {len(weight)} bases alike"
    order = np.argsort(-weight, kind="stable")
    parts = [(bases[k], float(weight[k])) for k in order if weight[k] >= 0.05]
    return ", ".join(f"{_how_much(part)} {name} ({part:.2f})" for name, part in parts)


def _how_much(part: float) -> str:
    for least, word in ((0.95, "only"), (0.5, "mostly"), (0.2, "some")):
        if part >= least:
            return word
    return "a little"


def show(portfolio: Portfolio, *, curve: list[dict[str, Any]] | None = None, users: dict[str, int] | None = None) -> list[str]:
    """Lines that explain a portfolio.

    Args:
        portfolio: any.
        curve: the plan's points, each with `size`, `epsilon`, `captured_gain` and, if known, `epsilon_at_least`, if there is one.
        users: how many users are routed to each id, if that is known.
    """
    bases = len(portfolio.reference)
    names = [*portfolio.ids, "reference"]
    kinds = sample_simplex(_SAMPLE, bases, np.random.default_rng(0))
    best = portfolio.utilities(kinds).argmax(axis=1)
    share = np.bincount(best, minlength=len(names)) / _SAMPLE
    lines = [
        f"{policies(len(portfolio))} over {bases} bases ({', '.join(portfolio.bases)}), {portfolio.origin} values, "
        f"kl {portfolio.kl:g}" + (f", for {portfolio.base_model}" if portfolio.base_model else ""),
        "",
        "members, and what each is for:",
    ]
    for number, name in enumerate(names):
        own = (
            f"made for {in_words(portfolio.weights[number], portfolio.bases)}"
            if number < len(portfolio)
            else "the base model itself"
        )
        centre = kinds[best == number].mean(axis=0) if share[number] else None
        serves = "best for none" if centre is None else f"best for {_percent(share[number])} of all weights"
        middle = "" if centre is None else f", in the middle {in_words(centre, portfolio.bases)}"
        routed = "" if users is None else f"; {users.get(name, 0)} users"
        lines.append(f"  {name}: {own}; {serves}{middle}{routed}")
    lines += ["", *_certificate_lines(portfolio)]
    if portfolio.confidence is not None:
        lines += ["", *_confidence_lines(portfolio.confidence)]
    return lines + (["", *_curve_lines(curve, portfolio)] if curve else [])


def _certificate_lines(portfolio: Portfolio) -> list[str]:
    found = portfolio.certificate
    if found is None:
        return ["no certificate was made"]
    given = f" beside an additive {found.given_delta:g}" if found.given_delta else ""
    lines = [
        "certificate, for every weight:",
        f"  a policy of one's own would give {_more(found.epsilon)}{given}; worst for "
        f"{in_words(found.worst_weight, portfolio.bases)}",
        f"  at most {found.delta:.4f} more in reward; worst for {in_words(found.worst_weight_delta, portfolio.bases)}",
        f"  at least {_percent(found.captured_gain)} of what personalisation can gain over the base model; worst for "
        f"{in_words(found.worst_weight_captured, portfolio.bases)}",
    ]
    if found.given_delta:
        lines.append(f"  with {found.given_delta:g} in reward forgiven, at least {_percent(found.captured_gain_given_delta)} of it")
    lines.append(f"  no portfolio this good has fewer than {policies(found.size_at_least)}")
    if found.captured_size_at_least:
        lines.append(f"  none that captures as much has fewer than {found.captured_size_at_least}")
    return [*lines, "assumed:", *(f"  {assumption}" for assumption in found.assumptions)]


def _confidence_lines(found: Confidence) -> list[str]:
    level = _percent(found.level)

    def row(name: str, bounds: Any) -> str:
        beside = f" beside an additive {found.given_delta:g}" if found.given_delta else ""
        gap = f"{_more(bounds.epsilon)}{beside} and at most {bounds.delta:.4f} more"
        return f"  {name}: {gap} by a policy of one's own, at least {_percent(bounds.captured_gain)} of the gain"

    lines = [
        f"for every weight, over all prompts drawn like {found.prompts} on which nothing was chosen, each with {level} confidence:",
        row("by resampling", found.bootstrap),
    ]
    if found.bernstein is not None:
        # Of few prompts the bound that holds for sure comes first, unless it says nothing.
        first = bool(found.caution) and found.stands
        lines.insert(1 if first else 2, row("whatever their distribution", found.bernstein))
    return [*lines, f"  {found.caution}"] if found.caution else lines


def _curve_lines(curve: list[dict[str, Any]], portfolio: Portfolio) -> list[str]:
    size = len(portfolio)
    own = portfolio.certificate.epsilon if portfolio.certificate and not portfolio.certificate.given_delta else np.nan
    points = sorted(curve, key=lambda point: int(point["size"]))
    lines = ["size against the smallest gap found:"]
    for point in points:
        epsilon = np.inf if point["epsilon"] is None else float(point["epsilon"])
        # Of a gap wanted, the fewest policies are kept that reach it: others, as few, may leave a smaller one.
        other = f"; this portfolio leaves {_percent(own)}" if portfolio.origin == "planned" and epsilon < own - 5e-4 else ""
        mark = f"  <- this size{other}" if int(point["size"]) == size else ""
        proven = point.get("epsilon_at_least")  # of files written before it was, nothing is said
        least = "" if proven is None else f" (any {point['size']}: at least {_percent(float(proven))})"
        lines.append(f"  {point['size']}: gap {_percent(epsilon)}{least}, {_percent(float(point['captured_gain']))} gained{mark}")
    gaps = {int(point["size"]): np.inf if point["epsilon"] is None else float(point["epsilon"]) for point in points}
    if size in gaps and size + 1 in gaps:
        after = next(point for point in points if int(point["size"]) == size + 1).get("epsilon_at_least")
        limit = "" if after is None else f"; whatever it is, at least {_percent(float(after))} are left"
        lines.append(f"one more policy lowers the gap from {_percent(gaps[size])} to {_percent(gaps[size + 1])}{limit}")
    return lines


def diff(first: Portfolio, second: Portfolio) -> list[str]:
    """Lines that say what changed from one portfolio to another; one line if nothing did."""
    lines = []
    for name in ("origin", "kl", "base_model"):
        if getattr(first, name) != getattr(second, name):
            lines.append(f"{name}: {getattr(first, name)} -> {getattr(second, name)}")
    gone = [name for name in first.bases if name not in second.bases]
    new = [name for name in second.bases if name not in first.bases]
    lines += [f"basis gone: {name}" for name in gone] + [f"basis new: {name}" for name in new]
    lines += [f"policy gone: {name}" for name in first.ids if name not in second.ids]
    for number, name in enumerate(second.ids):
        if name not in first.ids:
            lines.append(f"policy new: {name}, made for {in_words(second.weights[number], second.bases)}")
        else:
            lines += _member_lines(first, first.ids.index(name), second, number)
    lines += _number_lines(first, second) + _confidence_changes(first.confidence, second.confidence)
    if first.bases == second.bases:
        kinds = sample_simplex(_SAMPLE, len(first.reference), np.random.default_rng(0))
        change = second.served(kinds) - first.served(kinds)
        if np.abs(change).max() > 1e-9:
            better, worse = float((change > 1e-9).mean()), float((change < -1e-9).mean())
            lines.append(
                f"served utility: {change.mean():+.4f} on average over all weights, better for {_percent(better)} (most "
                f"{max(change.max(), 0):+.4f}), worse for {_percent(worse)} (most {min(change.min(), 0):+.4f})"
            )
    return lines or ["nothing changed"]


def _member_lines(first: Portfolio, one: int, second: Portfolio, other: int) -> list[str]:
    """What changed of a policy that both have, over the bases that both have."""
    shared = [name for name in first.bases if name in second.bases]
    before, after = [first.bases.index(name) for name in shared], [second.bases.index(name) for name in shared]
    lines, name = [], first.ids[one]
    if np.abs(first.weights[one][before] - second.weights[other][after]).max(initial=0) > 1e-9:
        old, new = in_words(first.weights[one], first.bases), in_words(second.weights[other], second.bases)
        lines.append(f"{name}: weight: {old} -> {new}")
    for basis, old, new in zip(shared, first.value[one][before], second.value[other][after], strict=True):
        if abs(old - new) > 1e-9:
            lines.append(f"{name}: value of {basis}: {old:.4f} -> {new:.4f}")
    if abs(first.cost[one] - second.cost[other]) > 1e-9:
        lines.append(f"{name}: KL cost: {first.cost[one]:.4f} -> {second.cost[other]:.4f}")
    return lines


def _number_lines(first: Portfolio, second: Portfolio) -> list[str]:
    """The certificates' numbers side by side."""
    one, other = first.certificate, second.certificate
    if one is None or other is None:
        return [] if one is other else [f"certificate: {'none' if one is None else 'one'} -> {'none' if other is None else 'one'}"]
    lines = []
    for name in ("epsilon", "delta", "captured_gain", "size_at_least", "given_epsilon", "given_delta"):
        old, new = getattr(one, name), getattr(other, name)
        if old != new and abs(old - new) > 1e-9:
            lines.append(f"{name}: {old:.4g} -> {new:.4g}")
    return lines


def _confidence_changes(one: Confidence | None, other: Confidence | None) -> list[str]:
    """What is stated of all prompts, side by side."""
    if one is None or other is None:
        return [] if one is other else [f"confidence: {'none' if one is None else 'one'} -> {'none' if other is None else 'one'}"]
    lines = []
    for name in ("level", "prompts", "draws", "given_epsilon", "given_delta"):
        if getattr(one, name) != getattr(other, name):
            lines.append(f"confidence: {name}: {getattr(one, name):.4g} -> {getattr(other, name):.4g}")
    for part in ("bootstrap", "bernstein", "estimate", "low", "high"):
        before, after = getattr(one, part), getattr(other, part)
        if before is None or after is None:
            if before is not after:
                words = ["none" if bounds is None else "some" for bounds in (before, after)]
                lines.append(f"confidence: {part}: {words[0]} -> {words[1]}")
            continue
        for name in ("epsilon", "delta", "captured_gain"):
            old, new = getattr(before, name), getattr(after, name)
            if old != new and not abs(old - new) <= 1e-9:
                lines.append(f"confidence: {part}: {name}: {old:.4g} -> {new:.4g}")
    return lines


def _more(share: float) -> str:
    return f"at most {_percent(share)} more" if np.isfinite(share) else "possibly any factor more"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if np.isfinite(share) else "without bound"
