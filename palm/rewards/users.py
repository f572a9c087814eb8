"""Users: ids, and what a model knows of each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from palm.arrays import read_arrays, write_arrays
from palm.artifacts import ArtifactError, read_json, write_json
from palm.data.ids import as_ids
from palm.simplex import check_weights

GEOMETRIES = ("simplex", "linear", "latent", "none")


@dataclass(frozen=True)
class UserWeights:
    """Posterior of each user's weight; its arrays are read-only.

    Attributes:
        ids: (U,) user ids, all different.
        mean: (U, K) on the simplex, unless `geometry` says otherwise.
        covariance: (U, K, K); on the simplex each of its rows sums to 0, since weights stay there.
        geometry: of the model that they belong to; weights of "linear" and "latent" models are any finite numbers.
    """

    ids: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    geometry: str = "simplex"

    def __post_init__(self) -> None:
        """Check shapes.

        Raises:
            ValueError: shapes disagree, a weight is off the simplex or not finite, or an id is repeated.
        """
        if self.geometry not in GEOMETRIES:
            raise ValueError(f"geometry: expected one of {', '.join(GEOMETRIES)}, got {self.geometry!r}")
        ids = as_ids(self.ids, name="ids")
        mean = np.asarray(self.mean, dtype=np.float64)
        if len(ids) and self.geometry == "simplex":
            mean = check_weights(self.mean, name="mean")
        elif mean.ndim != 2 or not np.isfinite(mean).all():
            raise ValueError(f"mean: expected finite numbers in the shape (U, K), got {mean!r:.80}")
        if len(mean) != len(ids) or np.shape(self.covariance) != (len(ids), mean.shape[1], mean.shape[1]):
            shapes = f"{ids.shape}, {mean.shape} and {np.shape(self.covariance)}"
            raise ValueError(f"ids, mean, covariance: expected (U,), (U, K) and (U, K, K), got {shapes}")
        if not np.isfinite(self.covariance).all():
            raise ValueError("covariance: expected finite numbers, got others")
        check_distinct(ids)
        for name, array in (("ids", ids), ("mean", mean), ("covariance", np.asarray(self.covariance))):
            own = array.view()  # the caller's array stays writable
            own.flags.writeable = False
            object.__setattr__(self, name, own)

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def none(cls, bases: int, geometry: str = "simplex") -> Self:
        """No users."""
        return cls(np.zeros(0, dtype="<U1"), np.zeros((0, bases)), np.zeros((0, bases, bases)), geometry)

    def pooled(self) -> "UserWeights":
        """One user for them all: their mean, with how they differ and how unsure each is as covariance."""
        mean = self.mean.mean(axis=0)
        away = self.mean - mean
        spread = self.covariance.mean(axis=0) + away.T @ away / len(self)
        mean = mean / mean.sum() if self.geometry == "simplex" else mean
        return UserWeights(np.array(["population"]), mean[None], 0.5 * (spread + spread.T)[None], self.geometry)

    def rows(self, wanted: np.ndarray) -> np.ndarray:
        """Positions of (n,) user ids.

        Raises:
            ValueError: a user is not among these.
        """
        order = np.argsort(self.ids)
        place = np.searchsorted(self.ids, wanted, sorter=order)
        found = order[np.minimum(place, len(order) - 1)] if len(order) else np.zeros(len(wanted), dtype=np.intp)
        missing = np.ones(len(wanted), dtype=bool) if not len(order) else self.ids[found] != wanted
        if missing.any():
            raise ValueError(f"users: no weight for user {str(np.asarray(wanted)[missing.argmax()])!r}; infer it from pairs first")
        return found

    def select(self, wanted: np.ndarray) -> "UserWeights":
        """The users asked for, in that order."""
        rows = self.rows(wanted)
        return UserWeights(self.ids[rows], self.mean[rows], self.covariance[rows], self.geometry)

    def save(self, folder: Path, name: str) -> None:
        """Write `name`.safetensors and `name`.json."""
        write_arrays(folder / f"{name}.safetensors", {"mean": self.mean, "covariance": self.covariance})
        write_json(folder / f"{name}.json", {"ids": self.ids.tolist(), "geometry": self.geometry})

    @classmethod
    def load(cls, folder: Path, name: str) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing or damaged.
        """
        arrays, record = read_arrays(folder / f"{name}.safetensors"), read_json(folder / f"{name}.json")
        try:
            ids = np.array(record["ids"], dtype=object)
            return cls(ids, arrays["mean"], arrays["covariance"], record.get("geometry", "simplex"))
        except (KeyError, ValueError) as error:
            raise ArtifactError(f"{folder / name}: not complete user weights: {error}") from error


def check_distinct(ids: np.ndarray) -> None:
    """Refuse (n,) ids of which one is there twice.

    Raises:
        ValueError: one is; the message names it.
    """
    values, counts = np.unique(ids, return_counts=True)
    if len(values) != len(ids):
        raise ValueError(f"ids: expected every user once, got {str(values[counts.argmax()])!r} {counts.max()} times")
