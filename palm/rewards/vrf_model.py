"""A fitted VRF: applied with numpy, so that serving needs no torch. How it is fitted: `palm.rewards.vrf`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from scipy.special import softmax

from palm.features.pairs import PairFeatures
from palm.features.store import FeatureArray
from palm.rewards.base import Calibration, pair_items, part_of, place_users
from palm.rewards.checks import as_switch, positive
from palm.rewards.episodes import read_pairs
from palm.rewards.networks import Network
from palm.rewards.users import UserWeights
from palm.rewards.weighted import WeightedModel

WIDEST = 6.0
"""Of a Gaussian's log-deviation, either way."""

_PAIRS = 4096  # read by the encoder at a time
_DRAWS = 256  # of a user's weight, for its covariance
_USERS = 1024  # whose draws are in memory at a time
_ARRAYS = ("centre", "scale", "basis_mean", "basis_deviation")


@dataclass(frozen=True)
class VRFModel(WeightedModel):
    """K rewards read by a network, and users who weigh them by how near they are.

    Attributes:
        method: "VRF".
        rewards: d features to K rewards in logits.
        encoder: 2 d numbers of a pair to mean and log-deviation of a Gaussian of D numbers.
        centre, scale: (d,) mean and deviation of the features; a constant one has deviation infinity.
        basis_mean, basis_deviation: (K, D) Gaussians of the bases.
        calibration: of the rewards into [0, 1], one width for all.
        population: mean weight and spread of the seen users.
        seen: posterior weights of the users it was fitted on.
        names: K names of the bases.
        details: temperature, product, and how the fit went; JSON values.
    """

    method: str
    rewards: Network
    encoder: Network
    centre: np.ndarray
    scale: np.ndarray
    basis_mean: np.ndarray
    basis_deviation: np.ndarray
    calibration: Calibration
    population: UserWeights
    seen: UserWeights
    names: tuple[str, ...]
    details: dict[str, Any]
    geometry: ClassVar[str] = "simplex"

    @property
    def width(self) -> int:
        """d."""
        return len(self.centre)

    @property
    def sharpness(self) -> float:
        """Logits per unit of calibrated utility."""
        return float(self.calibration.high[0] - self.calibration.low[0])

    def raw(self, items: FeatureArray) -> np.ndarray:
        """(t, K) basis rewards of (t, d) features before calibration."""
        return self.rewards.over(items, self.centre, self.scale)

    def infer(self, context: PairFeatures, *, ids: np.ndarray | None = None) -> UserWeights:
        """Weights from one pass of the encoder over the pairs; users without pairs get the population's mean and spread."""
        wanted, known, mean, variance = self.gaussians(context, ids=ids)
        bases = len(self.basis_mean)
        weight, covariance = np.empty((len(wanted), bases)), np.empty((len(wanted), bases, bases))
        if not known.all():
            weight[~known], covariance[~known] = self.population.mean, self.population.covariance
        if known.any():
            weight[known], covariance[known] = self.weigh(mean, variance)
        return UserWeights(wanted, weight, covariance)

    def gaussians(
        self, context: PairFeatures, *, ids: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The users as the encoder reads them, in the space that they share with the bases.

        Args:
            context, ids: as in `infer`.

        Returns:
            wanted: (U,) ids; known: (U,) bool, False for users without pairs that tell anything, as a pair of equal features does
            not; mean, variance: (known users, D).
        """
        pair_items(context, len(self.centre), "context")
        wanted, rows, code = place_users(context, ids)
        order = np.argsort(code, kind="stable")
        rows, code = rows[order], code[order]
        dim = self.basis_mean.shape[1]
        sums = np.zeros((3, len(wanted), dim))  # over a user's pairs: of shares, of means by share, of variances
        known = np.zeros(len(wanted), dtype=bool)
        for start in range(0, len(rows), _PAIRS):
            pairs = read_pairs(context, rows[start : start + _PAIRS], self.centre, self.scale)
            tells = pairs[:, len(self.centre) :].any(axis=1)
            if not tells.any():
                continue
            whose = code[start : start + _PAIRS][tells]
            known[whose] = True
            read = self.encoder(pairs[tells]).astype(np.float64)
            mean, variance = read[:, :dim], np.exp(2 * np.clip(read[:, dim:], -WIDEST, WIDEST))
            share = 1 / variance if self.details["product"] else np.ones_like(variance)
            first = np.flatnonzero(np.diff(whose, prepend=-1))
            for total, values in zip(sums, (share, share * mean, variance), strict=True):
                total[whose[first]] += np.add.reduceat(values, first)
        shares, means, variances = (total[known] for total in sums)
        return wanted, known, means / shares, (1 if self.details["product"] else variances) / shares

    def weigh(self, mean: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights (U, K) of users who are Gaussians of (U, D) means and variances, and covariances of weights drawn from them."""
        temperature = float(self.details["temperature"])
        logit = np.stack(
            [
                -(((mean - centre) ** 2).sum(axis=1) + ((np.sqrt(variance) - deviation) ** 2).sum(axis=1)) / (2 * temperature)
                for centre, deviation in zip(self.basis_mean, self.basis_deviation, strict=True)
            ],
            axis=1,
        )
        # mu_u enters logit k as mu_u.mu_k / temperature (what does not depend on k drops out of the softmax): logits are Gaussian.
        pull = (self.basis_mean - self.basis_mean.mean(axis=0)) / temperature
        return softmax(logit, axis=1), _spread(logit, np.einsum("kd,ud,ld->ukl", pull, variance, pull, optimize=True))

    def _write(self, folder: Path) -> None:
        arrays = {name: getattr(self, name) for name in _ARRAYS} | self.calibration.arrays()
        arrays |= self.rewards.arrays("rewards") | self.encoder.arrays("encoder")
        record = {"names": list(self.names), "details": self.details}
        self._write_parts(folder, arrays=arrays, record=record, users=self.seen, population=self.population)

    @classmethod
    def _assemble(cls, folder: Path, record: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        part_of(record["details"], "temperature", positive)
        part_of(record["details"], "product", as_switch)
        return cls(
            method=record["method"],
            rewards=Network.from_arrays(arrays, "rewards", 0.0),
            encoder=Network.from_arrays(arrays, "encoder", 0.0),
            **{name: arrays[name] for name in _ARRAYS},
            calibration=Calibration.from_arrays(arrays),
            population=UserWeights.load(folder, "population"),
            seen=UserWeights.load(folder, "users"),
            names=tuple(record["names"]),
            details=record["details"],
        )


def _spread(logit: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """(U, K, K) covariance of softmax(x) for Gaussian logits x of means (U, K) and covariances (U, K, K).

    From the same draws for every user, each with its opposite; to first order instead, users of a few pairs came out with a
    variance of up to 180 on a simplex of diameter sqrt(2).
    """
    users, bases = logit.shape
    drawn = np.random.default_rng(0).standard_normal((_DRAWS // 2, bases))
    drawn = np.concatenate([drawn, -drawn])
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
    result = np.empty_like(covariance)
    for start in range(0, users, _USERS):
        part = slice(start, start + _USERS)
        weight = softmax(logit[part, None] + drawn @ root[part].transpose(0, 2, 1), axis=2)
        weight -= weight.mean(axis=1, keepdims=True)
        result[part] = weight.transpose(0, 2, 1) @ weight / _DRAWS
    return result
