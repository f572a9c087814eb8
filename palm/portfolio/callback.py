"""Callback oracle: train a policy for a weight, measure it, and never do so twice.

OPT is known where a policy was trained, up to the slack by which training may miss it; elsewhere OPT is convex and lies below
every chord of trained weights (`palm.portfolio.corners.upper_bound`). So bounds and certificates cost no training.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from palm.artifacts import ArtifactError, read_json, write_json
from palm.portfolio import corners
from palm.portfolio.oracle import Oracle, Solution, trains
from palm.simplex import check_weights

logger = logging.getLogger(__name__)

FILE = "solved.json"
_FORMAT = "palm.CallbackOracle/1"
_ROUNDING = 1e-9  # relative
_SAME = 1e-9  # weights that differ by no more are the same weight

TrainAndMeasure = Callable[[np.ndarray], tuple[np.ndarray, float]]
"""(K,) weight -> the trained policy's value J (K,), at least 0, and KL cost C, kl times its KL divergence from the reference."""


def check_cheap(oracle: Oracle, caller: str) -> None:
    """Refuse an oracle that trains where hundreds of weights would be solved.

    Raises:
        ValueError: it trains, as a `CallbackOracle` does.
    """
    if trains(oracle):
        raise ValueError(
            f"oracle: expected one that is cheap to solve, for {caller} solves hundreds of weights, got one that trains"
        )


class CallbackOracle:
    """Policies that a function trains and measures, one weight at a time.

    `solve` calls the function for weights that are new; everything else uses what was solved. With a folder, each result is
    written there as soon as it is known (a kill loses only the policy in training), and a new oracle goes on from there.

    Attributes:
        kl: coefficient of the KL cost.
        weights, value, cost: (n, K), (n, K), (n,) of the policies that were trained so far.
    """

    def __init__(
        self,
        function: TrainAndMeasure,
        bases: int,
        reference: np.ndarray,
        kl: float,
        slack: float = 0.0,
        *,
        folder: str | Path | None = None,
    ) -> None:
        """Check the arguments and read what the folder holds.

        Args:
            function: see `TrainAndMeasure`.
            bases: K.
            reference: (K,) finite numbers, at least 0; J of the reference policy. It is served too, so that no utility is negative
                and ratios of them mean something.
            kl: coefficient of the KL cost that the policies are trained with, at least 0.
            slack: most by which a trained policy misses the optimum for its weight, in units of reward.
            folder: where results are kept; made when the first is there.

        Raises:
            ValueError: an argument is out of range.
            ArtifactError: the folder holds results of another oracle (bases, kl or reference differ), or damaged ones.
        """
        if isinstance(bases, bool) or not isinstance(bases, int | np.integer) or bases < 1:
            raise ValueError(f"bases: expected a whole number of at least 1, got {bases!r}")
        reference = np.array(reference, dtype=np.float64)
        if reference.shape != (bases,) or not np.isfinite(reference).all():
            raise ValueError(f"reference: expected {bases} finite numbers, got {reference.tolist()}")
        if reference.min() < 0:
            raise ValueError(f"reference: expected at least 0, got {reference.min():g} for basis {int(reference.argmin())}")
        for name, number in (("kl", kl), ("slack", slack)):
            if isinstance(number, bool) or not (np.isfinite(number) and number >= 0):
                raise ValueError(f"{name}: expected a number of at least 0, got {number}")
        self._function, self.bases, self.reference = function, int(bases), reference
        self.kl, self._given_slack = float(kl), float(slack)
        self.weights, self.value, self.cost = np.zeros((0, bases)), np.zeros((0, bases)), np.zeros(0)
        self._file = None if folder is None else Path(folder) / FILE
        if self._file is not None and self._file.exists():
            self._read(self._file)

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def trains(self) -> bool:
        """True: every solve is a training."""
        return True

    @property
    def slack(self) -> float:
        """The given slack, or what was seen if that is more: by how much another policy beats the one trained for a weight."""
        if not len(self):
            return self._given_slack
        own = (self.weights * self.value).sum(axis=1) - self.cost
        seen = float((self.lower_bound(self.weights) - own).max())
        return seen if seen > self._given_slack + _ROUNDING * np.abs(own).max() else self._given_slack

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What a reader must grant for its numbers to hold."""
        return (
            f"optima between the {len(self)} weights that were solved are bounded by convexity",
            "the measured values and KL costs of policies are taken as exact",
            f"utility is w.J - C with C = {self.kl:g} x KL from the reference",
        )

    def solve(self, weights: np.ndarray) -> Solution:
        """Train for those of (M, K) weights that are new, and tell all.

        Returns:
            value (M, K), cost (M,), and as optimum (M,) what each weight's own policy reaches.

        Raises:
            ValueError: the function returned something else than K finite numbers and a finite cost, all of at least 0.
            ArtifactError: a result could not be written.
        """
        weights = check_weights(weights, bases=self.bases)
        places = np.array([self._place(weight) for weight in weights], dtype=np.intp)
        value, cost = self.value[places], self.cost[places]
        return Solution(value, cost, (weights * value).sum(axis=1) - cost)

    def optimum(self, weights: np.ndarray) -> np.ndarray:
        """The upper bound without the slack, but no less than a trained policy reaches: (M,) float."""
        return np.maximum(self.upper_bound(weights) - self.slack, self.lower_bound(weights))

    def upper_bound(self, weights: np.ndarray) -> np.ndarray:
        """OPT at most, at (M, K) weights: the lower convex hull of what was solved, plus the slack. (M,) float.

        Raises:
            ValueError: some vertex of the simplex was not solved yet, so there is no bound.
        """
        weights = check_weights(weights, bases=self.bases)
        missing = [k for k, vertex in enumerate(np.eye(self.bases)) if self._known(vertex) is None]
        if missing:
            raise ValueError(
                f"weights: expected every vertex of the simplex to be solved before OPT can be bounded, basis {missing[0]} is not; "
                "call solve(numpy.eye(K)) first"
            )
        own = (self.weights * self.value).sum(axis=1) - self.cost
        return corners.upper_bound(weights, self.weights, own) + self.slack

    def lower_bound(self, weights: np.ndarray) -> np.ndarray:
        """The best of the trained policies and the reference at (M, K) weights: (M,) float."""
        weights = check_weights(weights, bases=self.bases)
        return np.maximum((weights @ self.value.T - self.cost).max(axis=1, initial=-np.inf), weights @ self.reference)

    def _known(self, weight: np.ndarray) -> int | None:
        near = np.flatnonzero(np.abs(self.weights - weight).max(axis=1) <= _SAME)
        return int(near[0]) if len(near) else None

    def _place(self, weight: np.ndarray) -> int:
        """Position of a weight's policy, which is trained if there is none."""
        known = self._known(weight)
        if known is not None:
            return known
        before = self.slack
        self._add(weight, *self._checked(weight, self._function(weight.copy())))
        if self._file is not None:
            write_json(self._file, self._record())
        if self.slack > before + _SAME:
            logger.warning("a policy misses the optimum for its weight by %.4g, more than the slack of %.4g", self.slack, before)
        return len(self) - 1

    def _add(self, weight: np.ndarray, value: np.ndarray, cost: float) -> None:
        self.weights, self.value = np.vstack([self.weights, weight]), np.vstack([self.value, value])
        self.cost = np.append(self.cost, cost)

    def _checked(self, weight: np.ndarray, result: Any) -> tuple[np.ndarray, float]:
        expected = f"function: expected a value of {self.bases} finite numbers and a KL cost, all at least 0,"
        try:
            value, cost = (np.asarray(part, dtype=np.float64) for part in result)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{expected} for weight {weight.tolist()}, got {result!r:.80}") from error
        if value.shape != (self.bases,) or cost.shape != () or not np.isfinite([*value, cost]).all() or min(*value, cost) < 0:
            raise ValueError(f"{expected} for weight {weight.tolist()}, got {value.tolist()} and {cost.tolist()}")
        return value, float(cost)

    def _record(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "kl": self.kl,
            "reference": self.reference.tolist(),
            "policies": [
                {"weight": weight.tolist(), "value": value.tolist(), "cost": float(cost)}
                for weight, value, cost in zip(self.weights, self.value, self.cost, strict=True)
            ],
        }

    def _read(self, path: Path) -> None:
        record = read_json(path)
        if not isinstance(record, dict) or record.get("format") != _FORMAT:
            raise ArtifactError(f"{path}: expected the format {_FORMAT!r}")
        try:
            for name, mine in (("kl", self.kl), ("reference", self.reference.tolist())):
                if record[name] != mine:
                    raise ArtifactError(f"{path}: expected results for {name} = {mine}, got those for {record[name]}")
            for policy in record["policies"]:
                weight = check_weights(np.array(policy["weight"]), bases=self.bases)[0]
                self._add(weight, *self._checked(weight, (policy["value"], policy["cost"])))
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{path}: not complete results: {error!r}") from error
