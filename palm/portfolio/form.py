"""Whether what a portfolio's file has can be a portfolio and a certificate at all: for `palm.portfolio.verify`.

Everything later computes with these numbers, and an argument from weights holds for weights on the simplex only: OPT may bend as
much as it likes off it, so that off it any number of weights are "incompatible".
"""

import math
from typing import Any

import numpy as np

from palm.portfolio.claim import Claim
from palm.portfolio.verdict import FAILS, Line, told

_FORMAT = "palm.Portfolio/1"
_ROUNDING = 1e-9  # weights of the certificate are computed; those of the policies may be typed in
_TYPED = 1e-6


def form_lines(claim: Claim) -> list[Line]:
    """Whether the numbers can be what they are said to be; where a line fails nothing else need be asked."""
    finite = all(np.isfinite(array).all() for array in (claim.weights, claim.value, claim.cost, claim.reference, [claim.kl]))
    bases = len(claim.reference)
    lines = [
        told(claim.format == _FORMAT, f"the format is {claim.format!r:.40}: {_FORMAT!r} is what can be checked"),
        told(is_whole(claim.solves, 0), f"solves is {claim.solves!r:.40}: a whole number, at least 0"),
        told(finite, "all numbers are finite"),
        told(on_simplex(claim.weights, _TYPED), f"{len(claim.weights)} weights lie on the simplex of {bases} bases"),
        told(_are_names(claim.ids), "ids are distinct names"),
        told(_are_names(claim.bases), "bases are distinct names"),
        told(_is_calibration(claim.calibration, bases), f"calibration is null, or a least and a largest reward of {bases} bases"),
        told(bool((claim.cost >= 0).all()) and claim.kl >= 0, "no KL cost is negative"),
    ]
    if claim.certificate is not None:
        try:
            lines += _weight_lines(claim.certificate, bases) + _number_lines(claim.certificate)
        except (KeyError, TypeError, ValueError) as error:
            lines.append(Line(FAILS, f"the certificate is complete: {error!r}"))
    return lines


def on_simplex(weights: np.ndarray, tolerance: float = _ROUNDING) -> bool:
    """Whether all of (n, K) weights are finite and on the simplex within a tolerance."""
    summed = np.abs(weights.sum(axis=1) - 1)
    return bool(np.isfinite(weights).all() and (summed < tolerance).all() and (weights > -tolerance).all())


def _weight_lines(certificate: dict[str, Any], bases: int) -> list[Line]:
    """The certificate's weights, in `worst_weight` and what else there is."""
    lines = []
    names = ["worst_weight", "worst_weight_delta", "worst_weight_captured"]
    for name in [*names, "worst_weight_captured_given_delta"]:
        if name in names or certificate.get(name) is not None:
            weight = np.array(certificate[name], dtype=float)
            fine = weight.shape == (bases,) and on_simplex(weight[None])
            lines.append(told(fine, f"{name} is on the simplex of {bases} bases{_found(fine, weight)}"))
    for name in ("incompatible", "captured_incompatible"):
        rows = [np.array(row, dtype=float) for row in certificate[name]] if name == "incompatible" or name in certificate else []
        off = [number for number, row in enumerate(rows) if row.shape != (bases,) or not on_simplex(row[None])]
        found = _found(not off, rows[off[0]]) if off else ""
        lines.append(told(not off, f"{len(rows) - len(off)} of {len(rows)} weights in {name} are on the simplex{found}"))
    return lines


def _number_lines(certificate: dict[str, Any]) -> list[Line]:
    """The certificate's numbers. Epsilon may be null, for a gap without bound; no other comparison sees NaN."""
    lines = []
    for name in ("epsilon", "delta", "given_epsilon", "given_delta"):
        number = certificate[name]
        fine = (name == "epsilon" and number is None) or in_range(number, 0, math.inf)
        lines.append(told(fine, f"{name} is {number!r:.40}: a finite number that is not negative{_or_none(name)}"))
    for name in ("captured_gain", "captured_gain_given_delta"):
        if name in certificate:
            fine = in_range(certificate[name], 0, 1)
            lines.append(told(fine, f"{name} is {certificate[name]!r:.40}: from 0 to 1"))
    for name, least in (("size_at_least", 0), ("captured_size_at_least", 0), ("corners", 1)):
        if name != "captured_size_at_least" or name in certificate:
            fine = is_whole(certificate[name], least)
            lines.append(told(fine, f"{name} is {certificate[name]!r:.40}: a whole number, at least {least}"))
    return lines


def _are_names(names: Any) -> bool:
    """Whether these are distinct texts, none empty."""
    return all(isinstance(name, str) and name.strip() for name in names) and len(set(names)) == len(names)


def _is_calibration(rows: Any, bases: int) -> bool:
    """Whether there is none, or the second of two finite numbers of each basis is above the first or is it."""
    if rows is None:
        return True
    try:
        array = np.array(rows, dtype=float)
    except (TypeError, ValueError):
        return False
    return array.shape == (bases, 2) and bool(np.isfinite(array).all() and (array[:, 0] <= array[:, 1]).all())


def in_range(number: Any, low: float, high: float) -> bool:
    """Whether something is a finite number in a range, up to rounding."""
    if isinstance(number, bool) or not isinstance(number, int | float):
        return False
    return math.isfinite(number) and low - _ROUNDING <= number <= high + _ROUNDING


def is_whole(number: Any, least: int) -> bool:
    """Whether something is a whole number, at least so large."""
    return isinstance(number, int) and not isinstance(number, bool) and number >= least


def _or_none(name: str) -> str:
    return ", or null for no bound" if name == "epsilon" else ""


def _found(fine: bool, weight: np.ndarray) -> str:
    return "" if fine else f", got {weight.tolist()!r:.80}"
