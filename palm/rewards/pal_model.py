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
from palm.rewards.users import UserWeights

_PAIRS = 4096  # scored at a time
_STEPS = 30
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
        return self._margins(features, np.arange(len(features)), users.mean[users.rows(features.user)])[0]

    def infer(self, context: PairFeatures, *, ids: np.ndarray | None = None) -> UserWeights:
        """Posterior weights from pairs, all users at once; users without pairs get the population's."""
        pair_items(context, len(self.centre), "context")
        wanted, rows, code = place_users(context, ids)
        bases, precision = len(self.population.mean), np.linalg.inv(self.population.covariance)
        spread = np.sqrt(np.diag(self.population.covariance))
        beginnings = [self.population.mean, *(self.population.mean + 2 * spread * side for side in np.eye(bases))]
        tried = [self._descend(context, rows, code, np.tile(begin, (len(wanted), 1)), precision) for begin in beginnings]
        best = np.argmin([value for value, _, _ in tried], axis=0)  # rectifiers make valleys; each user is put in their deepest
        logits, hessian = (np.stack([found[part] for found in tried])[best, np.arange(len(wanted))] for part in (1, 2))
        weight = softmax(logits, axis=1)
        slope = weight[:, :, None] * (np.eye(bases) - weight[:, None, :])
        covariance = slope @ np.linalg.inv(hessian) @ slope.transpose(0, 2, 1)
        return UserWeights(wanted, weight, 0.5 * (covariance + covariance.transpose(0, 2, 1)), "latent")

    def _descend(
        self, context: PairFeatures, rows: np.ndarray, code: np.ndarray, logits: np.ndarray, precision: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Value (U,), logits (U, K) and Hessian (U, K, K) where steps from (U, K) logits no longer help.

        Everyone stops on their own, so that who else is inferred has no part in it.
        """
        damping, going = np.full(len(logits), 1e-3), np.ones(len(logits), dtype=bool)
        value, gradient, hessian = self._posterior(context, rows, code, logits, precision)
        for _ in range(_STEPS):  # Levenberg and Marquardt: Gauss-Newton, damped for whom it would not help
            damped = hessian + damping[:, None, None] * np.eye(logits.shape[1])
            step = -np.linalg.solve(damped, gradient[:, :, None])[:, :, 0]
            found = self._posterior(context, rows, code, logits + step, precision)
            better = going & (found[0] <= value)
            going &= ~(better & (np.abs(step).max(axis=1) < 1e-6))
            logits = np.where(better[:, None], logits + step, logits)
            value = np.where(better, found[0], value)
            gradient = np.where(better[:, None], found[1], gradient)
            hessian = np.where(better[:, None, None], found[2], hessian)
            damping = np.clip(np.where(better, damping / 5, damping * 10), 1e-6, 1e6)
            if not going.any():
                break
        return value, logits, hessian

    def _posterior(
        self, context: PairFeatures, rows: np.ndarray, code: np.ndarray, logits: np.ndarray, precision: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Value (U,), gradient (U, K) and Gauss-Newton Hessian (U, K, K) of the negative log posterior at (U, K) logits."""
        users, bases = logits.shape
        weight = softmax(logits, axis=1)
        margin, by_weight = self._margins(context, rows, weight[code])
        own = weight[code]
        slope = own * (by_weight - (own * by_weight).sum(axis=1, keepdims=True))
        away = logits - self.population.mean
        value = np.bincount(code, np.logaddexp(0.0, -margin), minlength=users) + 0.5 * np.einsum(
            "uk,kl,ul->u", away, precision, away
        )
        gradient, hessian = away @ precision, np.tile(precision, (users, 1, 1))
        wrong = 0.5 * (1 - np.tanh(0.5 * margin))
        for i in range(bases):
            gradient[:, i] -= np.bincount(code, wrong * slope[:, i], minlength=users)
            for j in range(bases):
                hessian[:, i, j] += np.bincount(code, wrong * (1 - wrong) * slope[:, i] * slope[:, j], minlength=users)
        return value, gradient, hessian

    def _margins(self, pairs: PairFeatures, rows: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
        ideal, turn = _with_slope(self.text, weight @ self.places, self.places)
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


def _with_slope(network: Network, inputs: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, out) outputs of a network and (n, out, K) their derivatives along (K, in) directions of the input."""
    hidden = inputs
    turn = np.broadcast_to(directions, (len(inputs), *directions.shape))  # (n, K, width)
    for layer, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        hidden, turn = hidden @ weight + bias, turn @ weight
        if layer < len(network.weights) - 1:
            on = np.where(hidden > 0, 1.0, network.slope)
            hidden, turn = hidden * on, turn * on[:, None, :]
    return hidden, turn.transpose(0, 2, 1)
