"""The portfolio: the policies kept, what each is worth, and the certificate."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from palm.artifacts import ArtifactError, finite_or_none, read_json, write_json
from palm.hub import HubObject
from palm.portfolio.certify import Certificate, served_utility
from palm.portfolio.confidence import Confidence
from palm.portfolio.oracle import Oracle
from palm.simplex import check_weights

FILE = "portfolio.json"


@dataclass(frozen=True)
class Portfolio(HubObject):
    """m policies with their weights, values and KL costs.

    Attributes:
        weights: (m, K) the weight that each policy is, or is to be, optimised for.
        value: (m, K) J of each policy.
        cost: (m,) KL cost of each policy, kl times its KL divergence from the reference.
        reference: (K,) J of the reference policy.
        kl: coefficient of the KL cost.
        ids: m names of the policies, and of their adapters' folders.
        certificate: over all weights; None if none was made for these values.
        solves: weights at which the oracle was solved to find these.
        origin: "planned" or "measured": what value and cost are from.
        bases: K names of the basis rewards.
        calibration: (K, 2) raw reward that became 0 and 1, if known.
        base_model: id of the model that the adapters are for, if known.
        confidence: what these prompts say of all prompts, if that was asked.
    """

    weights: np.ndarray
    value: np.ndarray
    cost: np.ndarray
    reference: np.ndarray
    kl: float
    ids: tuple[str, ...]
    certificate: Certificate | None = None
    solves: int = 0
    origin: str = "planned"
    bases: tuple[str, ...] = ()
    calibration: np.ndarray | None = None
    base_model: str | None = field(default=None)
    confidence: Confidence | None = None

    def __post_init__(self) -> None:
        """Check shapes.

        Raises:
            ValueError: the arrays disagree in m or K, an id is repeated, or a number is not finite.
        """
        weights = check_weights(self.weights) if len(self.weights) else np.zeros((0, len(self.reference)))
        size, bases = weights.shape
        for name, shape in (("value", (size, bases)), ("cost", (size,)), ("reference", (bases,))):
            array = np.asarray(getattr(self, name), dtype=np.float64)
            if array.shape != shape:
                raise ValueError(f"{name}: expected the shape {shape} for {size} policies and {bases} bases, got {array.shape}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name}: expected finite numbers, got {array.tolist()}")
            object.__setattr__(self, name, array)
        if len(self.ids) != size or len(set(self.ids)) != size:
            raise ValueError(f"ids: expected {size} different ids, got {list(self.ids)}")
        for name in self.ids:
            if not isinstance(name, str) or not name or name.startswith(".") or set(name) & set("/\\\0"):
                raise ValueError(f"ids: expected names that a folder can have, got {name!r}")
        names = tuple(self.bases) or tuple(f"basis-{k}" for k in range(bases))
        if len(names) != bases:
            raise ValueError(f"bases: expected {bases} names, got {list(names)}")
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "bases", names)

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def certified(self) -> Certificate:
        """The certificate.

        Raises:
            ValueError: none was made for these values.
        """
        if self.certificate is None:
            raise ValueError("certificate: expected a portfolio with one, got none; see `certify`")
        return self.certificate

    def served(self, weights: np.ndarray) -> np.ndarray:
        """(n,) utility of the best member, the reference included, at each of (n, K) weights."""
        return served_utility(check_weights(weights, bases=len(self.reference)), self.value, self.cost, self.reference)

    def utilities(self, weights: np.ndarray) -> np.ndarray:
        """(n, m + 1) utility of every member at each of (n, K) weights; the last column is the reference."""
        weights = check_weights(weights, bases=len(self.reference))
        return np.column_stack([weights @ self.value.T - self.cost, weights @ self.reference])

    def revalued(self, oracle: Oracle) -> Self:
        """The same weights with value, cost and reference on another oracle's prompts; without a certificate."""
        if not len(self):
            return replace(self, reference=oracle.reference, certificate=None, confidence=None)
        solution = oracle.solve(self.weights)
        moved = replace(self, value=solution.value, cost=solution.cost, reference=oracle.reference)
        return replace(moved, certificate=None, confidence=None)

    def _write(self, folder: Path) -> None:
        record: dict[str, Any] = {
            "format": "palm.Portfolio/1",
            "origin": self.origin,
            "kl": self.kl,
            "bases": list(self.bases),
            "base_model": self.base_model,
            "calibration": None if self.calibration is None else self.calibration.tolist(),
            "reference": self.reference.tolist(),
            "policies": [
                {"id": name, "weight": weight.tolist(), "value": value.tolist(), "cost": float(cost)}
                for name, weight, value, cost in zip(self.ids, self.weights, self.value, self.cost, strict=True)
            ],
            "solves": self.solves,
            "certificate": None if self.certificate is None else _certificate_record(self.certificate),
        }
        if self.confidence is not None:
            record["confidence"] = self.confidence.record()
        write_json(folder / FILE, record)

    @classmethod
    def _read(cls, folder: Path) -> Self:
        path = folder / FILE
        if not path.exists():
            raise ArtifactError(f"{path}: no such file; a run has its portfolios in RUN/plan, RUN/measure and RUN/route/portfolio")
        record = read_json(path)
        if not isinstance(record, dict) or record.get("format") != "palm.Portfolio/1":
            raise ArtifactError(f"{path}: expected the format 'palm.Portfolio/1', got {_format(record)!r}")
        try:
            policies, size = record["policies"], len(record["bases"])
            return cls(
                weights=np.array([policy["weight"] for policy in policies]).reshape(-1, size),
                value=np.array([policy["value"] for policy in policies]).reshape(-1, size),
                cost=np.array([policy["cost"] for policy in policies]),
                reference=np.array(record["reference"]),
                kl=record["kl"],
                ids=tuple(policy["id"] for policy in policies),
                certificate=None if record["certificate"] is None else _read_certificate(record["certificate"]),
                solves=record["solves"],
                origin=record["origin"],
                bases=tuple(record["bases"]),
                calibration=None if record["calibration"] is None else np.array(record["calibration"]),
                base_model=record["base_model"],
                confidence=None if record.get("confidence") is None else Confidence.from_record(record["confidence"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{path}: not a complete portfolio: {error!r}") from error


def _format(record: Any) -> Any:
    return record.get("format") if isinstance(record, dict) else type(record).__name__


def _certificate_record(certificate: Certificate) -> dict[str, Any]:
    record = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in asdict(certificate).items()}
    record["epsilon"] = finite_or_none(certificate.epsilon)
    return record


def _read_certificate(record: dict[str, Any]) -> Certificate:
    arrays = ("worst_weight", "worst_weight_delta", "worst_weight_captured", "worst_weight_captured_given_delta")
    bases = len(record["worst_weight"])
    # Files written before these were: what is true without the given delta is true with it.
    older = {
        "captured_gain_given_delta": record["captured_gain"],
        "worst_weight_captured_given_delta": record["worst_weight_captured"],
        "captured_size_at_least": 0,
        "captured_incompatible": [],
    }
    record = {**older, **record}
    values = {**record, **{name: np.array(record[name]) for name in arrays}}
    for name in ("incompatible", "captured_incompatible"):
        values[name] = np.array(record[name]).reshape(-1, bases)
    values["assumptions"] = tuple(record["assumptions"])
    values |= {name: np.inf if record[name] is None else record[name] for name in ("epsilon", "delta")}
    return Certificate(**values)
