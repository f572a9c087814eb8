"""A fitted VPL: applied with numpy. How it is fitted: `palm.rewards.vpl`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from palm.features.pairs import PairFeatures
from palm.rewards.base import RewardModel, check_users, pair_items, place_users
from palm.rewards.episodes import read_pairs
from palm.rewards.networks import Network
from palm.rewards.users import UserWeights

_PAIRS = 4096  # scored at a time
_LOGITS = 2**22  # of pairs looking at pairs, at a time: 16 MiB
_SLOPES = {"encoder": 0.2, "attention": 0.0, "head": 0.0, "reward": 0.2}


@dataclass(frozen=True)
class VPLModel(RewardModel):
    """Users as vectors that a network reads beside a text.

    Attributes:
        method: "VPL".
        encoder, attention, head: from a user's pairs to mean and log-variance of their vector.
        reward: of a text's features and a user's vector, in logits.
        centre, scale: (d,) mean and deviation of the features; a constant one has deviation infinity.
        population: mean vector and spread of the seen users.
        seen: vectors of the users it was fitted on.
        details: how the fit went; JSON values.
    """

    method: str
    encoder: Network
    attention: Network
    head: Network
    reward: Network
    centre: np.ndarray
    scale: np.ndarray
    population: UserWeights
    seen: UserWeights
    details: dict[str, Any]
    geometry: ClassVar[str] = "latent"

    @property
    def users(self) -> UserWeights:
        """The seen users' vectors."""
        return self.seen

    def margin(self, features: PairFeatures, users: UserWeights) -> np.ndarray:
        """(n,) chosen minus rejected reward of each pair for its user, in logits."""
        check_users(users, self.geometry, self.population.mean.shape[1])
        pair_items(features, len(self.centre))
        own, result = users.mean[users.rows(features.user)].astype(np.float32), np.empty(len(features))
        for start in range(0, len(features), _PAIRS):
            part = slice(start, start + _PAIRS)
            chosen, rejected = (
                self.reward(np.hstack([(features.items.finite_rows(rows[part]) - self.centre) / self.scale, own[part]]))[:, 0]
                for rows in (features.chosen_row, features.rejected_row)
            )
            result[part] = chosen.astype(np.float64) - rejected
        return result

    def infer(self, context: PairFeatures, *, ids: np.ndarray | None = None) -> UserWeights:
        """Vectors from one pass over the pairs; users without pairs get the population's mean and spread.

        A pair of equal features tells nothing and is left out. Every other pair of a user looks at all of theirs, as published:
        O(n^2) time for n pairs of one user, in bounded memory.
        """
        wanted, known, vectors, variances = self.gaussians(context, ids=ids)
        latent = vectors.shape[1]
        mean, covariance = np.empty((len(wanted), latent)), np.empty((len(wanted), latent, latent))
        mean[known], covariance[known] = vectors, variances[:, :, None] * np.eye(latent)
        if not known.all():
            mean[~known], covariance[~known] = self.population.mean, self.population.covariance
        return UserWeights(wanted, mean, covariance, "latent")

    def gaussians(
        self, context: PairFeatures, *, ids: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The users as the encoder reads them.

        Args:
            context, ids: as in `infer`.

        Returns:
            wanted: (U,) ids; known: (U,) bool, False for users without pairs that tell anything; mean, variance: (known users,
            latent).
        """
        pair_items(context, len(self.centre), "context")
        wanted, rows, code = place_users(context, ids)
        order = np.argsort(code, kind="stable")
        rows, code = rows[order], code[order]
        read, tells = np.empty((len(rows), self.head.weights[0].shape[0]), dtype=np.float32), np.empty(len(rows), dtype=bool)
        for start in range(0, len(rows), _PAIRS):
            part = slice(start, start + _PAIRS)
            middle, difference = np.split(read_pairs(context, rows[part], self.centre, self.scale), 2, axis=1)
            read[part] = self.encoder(np.hstack([middle + difference / 2, middle - difference / 2]))
            tells[part] = difference.any(axis=1)
        read, code = read[tells], code[tells]
        users, first = np.unique(code, return_index=True)
        pooled = [self._attend(part) for part in np.split(read, first[1:])] if len(users) else [read]
        mean, log_variance = np.split(np.vstack([self.head(one) for one in pooled]).astype(np.float64), 2, axis=1)
        known = np.zeros(len(wanted), dtype=bool)
        known[users] = True
        return wanted, known, mean, np.exp(np.clip(log_variance, -1.0, 1.0))

    def _attend(self, read: np.ndarray) -> np.ndarray:
        """(1, hidden) mean of what one user's n pairs make of each other: of values, by how much each pair is looked at."""
        query, key, value = np.split(self.attention(read), 3, axis=1)
        looked_at, step = np.zeros(len(read)), max(1, _LOGITS // len(read))
        for start in range(0, len(read), step):
            logit = query[start : start + step] @ key.T / np.float32(np.sqrt(read.shape[1]))
            share = np.exp(logit - logit.max(axis=1, keepdims=True))
            looked_at += (1 / share.sum(axis=1)) @ share
        return (looked_at / len(read))[None] @ value

    def _write(self, folder: Path) -> None:
        arrays = {"centre": self.centre, "scale": self.scale}
        for name in _SLOPES:
            arrays |= getattr(self, name).arrays(name)
        self._write_parts(folder, arrays=arrays, record={"details": self.details}, users=self.seen, population=self.population)

    @classmethod
    def _assemble(cls, folder: Path, record: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        return cls(
            method=record["method"],
            **{name: Network.from_arrays(arrays, name, slope) for name, slope in _SLOPES.items()},
            centre=arrays["centre"],
            scale=arrays["scale"],
            population=UserWeights.load(folder, "population"),
            seen=UserWeights.load(folder, "users"),
            details=record["details"],
        )
