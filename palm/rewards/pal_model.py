"""A fitted PAL: applied with numpy. How it is fitted: `palm.rewards.pal`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from scipy.special import softmax

from palm.features.pairs import PairFeatures
from palm.rewards.base import RewardModel, check_bases, check_users, pair_items, part_of, place_users
from palm.rewards.checks import positive
from palm.rewards.gaussian_users import GaussianPopulation
from palm.rewards.networks import Network
from palm.rewards.pal_users import Distances, Margins, PairByPair, descend, with_slope
from palm.rewards.users import UserWeights

_PAIRS = 4096  # scored at a time
_SMALL = 1e-9


@dataclass(frozen=True)
class PALModel(RewardModel):
    """Users as mixtures of prototypes; a text is liked for how near it is to the mixture's ideal point.

    Attributes:
        method: "PAL".
        text: of a text's features, to where it lies.
        prompts: K networks from a prompt to where its ideal lies (variant "B"; else none).
        places: (K, d) prototypes in standardised features (variant "A").
        scale: logits per unit of distance or cosine.
        centre, deviation: (d,) of the features; a constant one has deviation infinity.
        population: Gaussian prior of a user's K numbers, whose softmax are the weights.
        seen: posterior weights of the users it was fitted on.
        details: variant, and how the fit went; JSON values.
    """

    method: str
    text: Network
    prompts: tuple[Network, ...]
    places: np.ndarray
    scale: float
    centre: np.ndarray
    deviation: np.ndarray
    population: GaussianPopulation
    seen: UserWeights
    details: dict[str, Any]
    geometry: ClassVar[str] = "latent"

    def __post_init__(self) -> None:
        """Check that every part is for the same prototypes.

        Raises:
            ValueError: one is not; the message names it.
        """
        check_bases(len(self.places), population=len(self.population.mean), users=self.seen.mean.shape[1])

    @property
    def users(self) -> UserWeights:
        """The seen users' weights of prototypes."""
        return self.seen

    def margin(self, features: PairFeatures, users: UserWeights) -> np.ndarray:
        """(n,) chosen minus rejected reward of each pair for its user, in logits."""
        check_users(users, self.geometry, len(self.population.mean))
        pair_items(features, len(self.centre))
        return self.margins(features, np.arange(len(features)), users.mean[users.rows(features.user)])[0]

    def infer(self, context: PairFeatures, *, ids: np.ndarray | None = None) -> UserWeights:
        """Posterior weights from pairs, all users at once; users without pairs get the population's."""
        pair_items(context, len(self.centre), "context")
        wanted, rows, code = place_users(context, ids)
        bases, precision = len(self.population.mean), np.linalg.inv(self.population.covariance)
        spread = np.sqrt(np.diag(self.population.covariance))
        mean = self.population.mean
        beginnings = [mean, *(mean + 2 * spread * side for side in np.eye(bases))]
        measure = self.measure(context, rows, code)
        tried = [descend(measure, code, np.tile(begin, (len(wanted), 1)), mean, precision) for begin in beginnings]
        best = np.argmin([value for value, _, _ in tried], axis=0)  # rectifiers make valleys; each user is put in their deepest
        logits, hessian = (np.stack([found[part] for found in tried])[best, np.arange(len(wanted))] for part in (1, 2))
        weight = softmax(logits, axis=1)
        slope = weight[:, :, None] * (np.eye(bases) - weight[:, None, :])
        covariance = slope @ np.linalg.inv(hessian) @ slope.transpose(0, 2, 1)
        return UserWeights(wanted, weight, 0.5 * (covariance + covariance.transpose(0, 2, 1)), "latent")

    def measure(self, context: PairFeatures, rows: np.ndarray, code: np.ndarray) -> Margins:
        """Margins as a function of users' weights, for (n,) row numbers of pairs and their users; texts are read here."""
        if self.details["variant"] == "B":
            return PairByPair(lambda there, weight: self.margins(context, rows[there], weight), code)
        sides = np.concatenate([context.chosen_row[rows], context.rejected_row[rows]])
        used, place = np.unique(sides, return_inverse=True)
        placed = np.empty((len(used), self.text.weights[-1].shape[1]))
        for start in range(0, len(used), _PAIRS):
            part = slice(start, start + _PAIRS)
            placed[part] = self.text((context.items.finite_rows(used[part]) - self.centre) / self.deviation)
        return Distances(self.text, self.places, self.scale, placed, place[: len(rows)], place[len(rows) :], code)

    def margins(self, pairs: PairFeatures, rows: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n,) margins of some pairs for users of (n, K) weights, and (n, K) derivatives by the weights."""
        margin, slope = np.empty(len(rows)), np.empty(weight.shape)
        measure = self._distances if self.details["variant"] == "A" else self._cosines
        for start in range(0, len(rows), _PAIRS):
            part = slice(start, start + _PAIRS)
            chosen, rejected = (
                (pairs.items.finite_rows(side[rows[part]]) - self.centre) / self.deviation
                for side in (pairs.chosen_row, pairs.rejected_row)
            )
            margin[part], slope[part] = measure(chosen, rejected, weight[part])
        return margin, slope

    def _distances(self, chosen: np.ndarray, rejected: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Variant "A"."""
        ideal, turn = with_slope(self.text, weight @ self.places, self.places)
        margin, slope = np.zeros(len(weight)), np.zeros(weight.shape)
        for sign, side in ((1.0, rejected), (-1.0, chosen)):
            away = ideal - self.text(side).astype(np.float64)
            distance = np.linalg.norm(away, axis=1)
            margin += sign * self.scale * distance
            slope += sign * self.scale * np.einsum("np,npk->nk", away / np.maximum(distance, _SMALL)[:, None], turn)
        return margin, slope

    def _cosines(self, chosen: np.ndarray, rejected: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Variant "B"."""
        middle = (chosen + rejected) / 2
        parts = np.stack([network(middle) for network in self.prompts], axis=2).astype(np.float64)  # (n, dim, K)
        ideal = np.einsum("npk,nk->np", parts, weight)
        length = np.maximum(np.linalg.norm(ideal, axis=1), _SMALL)
        margin, slope = np.zeros(len(weight)), np.zeros(weight.shape)
        for sign, side in ((1.0, chosen), (-1.0, rejected)):
            place = self.text(side).astype(np.float64)
            place /= np.maximum(np.linalg.norm(place, axis=1, keepdims=True), _SMALL)
            cosine = (place * ideal).sum(axis=1) / length
            margin += sign * self.scale * cosine
            turn = (place - cosine[:, None] * ideal / length[:, None]) / length[:, None]
            slope += sign * self.scale * np.einsum("np,npk->nk", turn, parts)
        return margin, slope

    def _write(self, folder: Path) -> None:
        arrays = {"places": self.places, "centre": self.centre, "deviation": self.deviation} | self.text.arrays("text")
        for number, network in enumerate(self.prompts):
            arrays |= network.arrays(f"prompt{number}")
        record = {"scale": self.scale, "population": self.population.record(), "details": self.details}
        self._write_parts(folder, arrays=arrays, record=record, users=self.seen)

    @classmethod
    def _assemble(cls, folder: Path, record: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        count = len(arrays["places"]) if record["details"]["variant"] == "B" else 0
        return cls(
            method=record["method"],
            text=Network.from_arrays(arrays, "text", 0.0),
            prompts=tuple(Network.from_arrays(arrays, f"prompt{number}", 0.0) for number in range(count)),
            places=arrays["places"],
            scale=part_of(record, "scale", positive),
            centre=arrays["centre"],
            deviation=arrays["deviation"],
            population=part_of(record, "population", GaussianPopulation.from_record),
            seen=UserWeights.load(folder, "users"),
            details=record["details"],
        )
