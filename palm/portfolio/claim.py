"""What a portfolio's file claims, read without the code that wrote it: for `palm.portfolio.verify`."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_CLOSE = 1e-9


@dataclass(frozen=True)
class Claim:
    """A portfolio as its file has it: the arrays, and the records of certificate and confidence (None if there is none)."""

    weights: np.ndarray
    value: np.ndarray
    cost: np.ndarray
    reference: np.ndarray
    kl: float
    ids: list[str]
    origin: str
    certificate: dict[str, Any] | None
    confidence: dict[str, Any] | None = None
    format: Any = None
    solves: Any = None
    bases: Any = None
    calibration: Any = None

    @property
    def folded(self) -> np.ndarray:
        """(m + 1, K) values less the KL cost, the reference last: a member's utility at w is its row times w."""
        return np.vstack([self.value - self.cost[:, None], self.reference[None, :]])

    @property
    def scale(self) -> float:
        """The largest utility."""
        return max(float(np.abs(self.folded).max()), 1e-300)

    @property
    def close(self) -> float:
        """How far two numbers that should be equal may be apart: 1e-9 of the largest utility."""
        return _CLOSE * self.scale

    def served(self, weights: np.ndarray) -> np.ndarray:
        """(M,) utility of the best member at (M, K) weights."""
        return (weights @ self.folded.T).max(axis=1)


def read_claim(path: Path) -> Claim:
    """Read portfolio.json.

    Raises:
        ValueError: the file is missing, is not JSON, or lacks a part; the message names it.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: expected complete JSON, but reading it failed: {error}") from error
    try:
        bases, policies = len(record["bases"]), record["policies"]
        return Claim(
            weights=np.array([policy["weight"] for policy in policies], dtype=float).reshape(-1, bases),
            value=np.array([policy["value"] for policy in policies], dtype=float).reshape(-1, bases),
            cost=np.array([policy["cost"] for policy in policies], dtype=float),
            reference=np.array(record["reference"], dtype=float).reshape(bases),
            kl=float(record["kl"]),
            ids=[str(policy["id"]) for policy in policies],
            origin=str(record["origin"]),
            certificate=record["certificate"],
            confidence=record.get("confidence"),
            format=record.get("format"),
            solves=record.get("solves"),
            bases=record["bases"],
            calibration=record.get("calibration"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a complete portfolio: {error!r}") from error


def read_rewards(path: Path, bases: int) -> tuple[np.ndarray, np.ndarray]:
    """`rewards` and `mask` of a safetensors file: eight bytes of header length, a JSON header, the numbers."""
    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "U8": "u1", "BOOL": "u1"}
    try:
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])

        def array(name: str) -> np.ndarray:
            first, last = header[name]["data_offsets"]
            block = data[8 + length + first : 8 + length + last]
            return np.frombuffer(block, kinds[header[name]["dtype"]]).reshape(header[name]["shape"])

        rewards, mask = array("rewards").astype(float), array("mask").astype(bool)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: expected a complete safetensors file with the arrays 'rewards' and 'mask': {error!r}") from error
    if rewards.ndim != 3 or rewards.shape[2] != bases or mask.shape != rewards.shape[:2]:
        raise ValueError(f"{path}: expected rewards of {bases} bases as in the portfolio, got the shape {rewards.shape}")
    if not np.isfinite(rewards[mask]).all() or not mask.any(axis=1).all():
        raise ValueError(f"{path}: expected finite rewards and a candidate for every prompt")
    return rewards, mask


def statements(certificate: dict[str, Any]) -> list[tuple[str, np.ndarray, float, float]]:
    """Name, worst weight, number, and additive part that is given: of each statement that the certificate makes."""
    given = float(certificate["given_delta"])
    epsilon = math.inf if certificate["epsilon"] is None else float(certificate["epsilon"])
    rows = [
        ("epsilon", certificate["worst_weight"], epsilon, given),
        ("delta", certificate["worst_weight_delta"], float(certificate["delta"]), 0.0),
        ("captured_gain", certificate["worst_weight_captured"], float(certificate["captured_gain"]), 0.0),
    ]
    if certificate.get("captured_gain_given_delta") is not None:
        weight = certificate["worst_weight_captured_given_delta"]
        rows.append(("captured_gain_given_delta", weight, float(certificate["captured_gain_given_delta"]), given))
    return [(name, np.array(weight, dtype=float), number, extra) for name, weight, number, extra in rows]


def implied(claim: Claim, certificate: dict[str, Any], name: str, weight: np.ndarray, number: float) -> float:
    """The most that the optimum can be at a weight, by one statement: exactly what it is at the statement's worst weight."""
    served, base = float(claim.served(weight[None])[0]), float(weight @ claim.reference)
    if name == "epsilon":
        return (1 + number) * served + float(certificate["given_delta"])
    if name == "delta":
        return (1 + float(certificate["given_epsilon"])) * served + number
    extra = float(certificate["given_delta"]) if name == "captured_gain_given_delta" else 0.0
    return base + (served + extra - base) / number if number > 0 else math.inf


def exceeded(name: str, number: float) -> bool:
    """Whether a number stands for "better than this", so that its worst weight need not attain it."""
    return number <= 0 if name in ("epsilon", "delta") else number >= 1


def lack(
    name: str, number: float, extra: float, certificate: dict[str, Any], optimum: np.ndarray, served: np.ndarray, base: np.ndarray
) -> np.ndarray:
    """How far each weight is from what a statement promises, in units of reward; above 0 it is broken."""
    if name == "epsilon":
        return optimum - (1 + number) * served - extra
    if name == "delta":
        return optimum - (1 + float(certificate["given_epsilon"])) * served - number
    return number * (optimum - base) - (served - base) - extra
