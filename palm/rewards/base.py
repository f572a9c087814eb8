"""The contract of personalised reward models: an estimator has hyper-parameters and `fit`, the result is immutable.

Estimators: hyper-parameters in the constructor; `fit(features, seed=0)` takes `PairFeatures` and returns a `RewardModel`.
Fitted models say by `geometry` how a user enters: "simplex" (a weight over K bases, feeds the portfolio), "linear",
"latent" or "none" (one reward for everyone).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np

from palm.arrays import read_arrays, write_arrays
from palm.artifacts import ArtifactError, read_json, write_json
from palm.data.ids import as_ids
from palm.features.pairs import PairFeatures
from palm.features.store import FeatureArray
from palm.hub import HubObject
from palm.rewards.users import UserWeights, check_distinct

RECORD = "reward.json"
ARRAYS = "reward.safetensors"

Part = TypeVar("Part")


class Estimator(Protocol):
    """What every method's class offers.

    Attributes:
        geometry: of the models that it fits.
    """

    geometry: ClassVar[str]

    def fit(self, features: PairFeatures, seed: int = 0) -> "RewardModel":
        """Learn from seen users' pairs."""


@dataclass(frozen=True)
class Calibration:
    """Raw rewards into [0, 1], basis by basis: (raw - low) / (high - low), clipped.

    Attributes:
        low, high: (K,) raw reward that becomes 0 and 1.
    """

    low: np.ndarray
    high: np.ndarray

    def __post_init__(self) -> None:
        """Check the range.

        Raises:
            ValueError: not finite, or high is not above low.
        """
        if not (np.isfinite(self.low).all() and np.isfinite(self.high).all() and (self.high > self.low).all()):
            raise ValueError(f"low, high: expected finite numbers with high above low, got {self.low} and {self.high}")

    @classmethod
    def common_width(cls, raw: np.ndarray, *, outside: float = 0.01) -> Self:
        """From (t, K) raw rewards, with one width for all bases: a user's weight over raw and calibrated rewards is the same.

        Args:
            raw: rewards of texts such as will be scored.
            outside: share of the texts below each basis' low end; the width is the largest range, over bases, of all but
                as many texts at either end. A few outliers would otherwise squeeze everyone else together.
        """
        low, high = np.quantile(raw, [outside, 1 - outside], axis=0)
        width = float((high - low).max())
        return cls(low, low + (width if width > 0 else 1.0))

    @classmethod
    def own_width(cls, raw: np.ndarray) -> Self:
        """From (t, K) raw rewards: each basis' least becomes 0 and its largest 1 (a constant one becomes 0)."""
        low, high = raw.min(axis=0), raw.max(axis=0)
        return cls(low, np.where(high > low, high, low + 1.0))

    def apply(self, raw: np.ndarray) -> np.ndarray:
        """(n, K) calibrated rewards in [0, 1]."""
        return np.clip((raw - self.low) / (self.high - self.low), 0.0, 1.0)

    def arrays(self) -> dict[str, np.ndarray]:
        """For a file."""
        return {"low": self.low, "high": self.high}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Inverse of `arrays`.

        Raises:
            KeyError: an end is missing.
        """
        return cls(arrays["low"], arrays["high"])


class RewardModel(HubObject):
    """A fitted model: scores responses, and infers users from their pairs."""

    method: str
    geometry: ClassVar[str]

    def basis(self, features: FeatureArray | np.ndarray) -> np.ndarray:
        """Calibrated basis rewards of (n, d) features: (n, K) in [0, 1]."""
        raise TypeError(f"{self.method}: has no basis rewards on features")

    def margin(self, features: PairFeatures, users: UserWeights) -> np.ndarray:
        """(n,) chosen minus rejected reward of each pair for its user, in logits.

        A model of geometry "none" has one reward for everyone and looks at no weights: its `users` may be anybody's.

        Raises:
            ValueError: a pair's user is not among `users`, or these are of another geometry or number of bases.
        """
        raise TypeError(f"{self.method}: has no margin")

    def infer(self, context: PairFeatures, *, ids: np.ndarray | None = None) -> UserWeights:
        """Each user's weight from their pairs.

        Args:
            context: pairs of the users.
            ids: users wanted, in this order; users without pairs get the population's mean. By default those of `context`.
        """
        wanted = context.ids if ids is None else as_ids(ids, name="ids")
        return UserWeights(wanted, np.ones((len(wanted), 1)), np.zeros((len(wanted), 1, 1)))

    @property
    def users(self) -> UserWeights | None:
        """The seen users' weights, if the method has any."""
        return None

    def _write_parts(self, folder: Path, *, arrays: dict[str, np.ndarray], record: dict[str, Any], **users: UserWeights) -> None:
        """Write a model's arrays, its JSON record beside what every model has, and user weights, each under its name."""
        shapes = {name: list(array.shape) for name, array in arrays.items()}
        write_arrays(folder / ARRAYS, arrays)
        for name, weights in users.items():
            weights.save(folder, name)
        write_json(
            folder / RECORD,
            {"format": "palm.RewardModel/1", "geometry": self.geometry, "method": self.method, "shapes": shapes, **record},
        )

    @classmethod
    def _assemble(cls, folder: Path, record: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        """The model out of what `_write_parts` wrote; KeyError, ValueError and TypeError are for what is missing or damaged."""
        raise TypeError(f"{cls.__name__} cannot be loaded")

    @classmethod
    def _read(cls, folder: Path) -> Self:
        record = read_record(folder, cls.geometry)
        arrays = read_arrays(folder / ARRAYS)
        _check_arrays(folder / ARRAYS, arrays, record.get("shapes"))
        try:
            return cls._assemble(folder, record, arrays)
        except (KeyError, ValueError, TypeError) as error:
            raise ArtifactError(f"{folder / RECORD}: not a complete reward model: {error!r}") from error


def _check_arrays(path: Path, arrays: Mapping[str, np.ndarray], shapes: Any) -> None:
    """See that a saved model's arrays hold numbers, in the shapes that they were saved in (older models do not say which).

    Raises:
        ArtifactError: one does not; the message names it.
    """
    for name, array in arrays.items():
        if np.isnan(array).any():
            raise ArtifactError(f"{path}: {name}: expected numbers, got NaN at {tuple(map(int, np.argwhere(np.isnan(array))[0]))}")
        wanted = shapes.get(name) if isinstance(shapes, dict) else None
        if wanted is not None and list(array.shape) != wanted:
            raise ArtifactError(f"{path}: {name}: expected the shape {wanted}, got {list(array.shape)}")


def as_array(features: FeatureArray | np.ndarray, width: int) -> FeatureArray:
    """Features of responses, checked for the model's width."""
    array = features if isinstance(features, FeatureArray) else FeatureArray([np.atleast_2d(np.asarray(features))])
    if array.shape[1] != width:
        raise ValueError(f"features: expected {width} numbers per text as in the fit, got {array.shape[1]}")
    return array


def pair_items(pairs: PairFeatures, width: int, name: str = "features") -> FeatureArray:
    """Features of the texts that pairs are of, checked for the model's width.

    Raises:
        ValueError: these are no pairs, or their features have another width.
    """
    if not isinstance(pairs, PairFeatures):
        raise ValueError(f"{name}: expected PairFeatures, got {type(pairs).__name__}")
    return as_array(pairs.items, width)


def check_users(users: UserWeights, geometry: str, bases: int) -> None:
    """See that users' weights are such as a model's `infer` gives; those of another model of the same kind and size pass.

    Raises:
        ValueError: their geometry or their number of bases is another.
    """
    if not isinstance(users, UserWeights):
        raise ValueError(f"users: expected UserWeights, as this model's infer gives them, got {type(users).__name__}")
    if (users.geometry, users.mean.shape[1]) != (geometry, bases):
        raise ValueError(
            f"users: expected weights of geometry {geometry!r} over {bases} bases, as this model's infer gives them, "
            f"got {users.geometry!r} over {users.mean.shape[1]}"
        )


def place_users(context: PairFeatures, ids: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which pairs are whose, for users asked for in some order.

    Args:
        context: pairs.
        ids: users wanted, all different; by default those of `context`.

    Returns:
        wanted: (U,) ids; rows: (n,) the pairs that belong to one of them; code: (n,) the position among `wanted` of each.

    Raises:
        ValueError: these are no pairs, a user is asked for twice, or `ids` is not a list or array of ids.
    """
    if not isinstance(context, PairFeatures):
        raise ValueError(f"context: expected PairFeatures, got {type(context).__name__}")
    wanted = context.ids if ids is None else as_ids(ids, name="ids")
    check_distinct(wanted)
    if len(wanted) == 0 or len(context) == 0:
        return wanted, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    order = np.argsort(wanted)
    place = order[np.minimum(np.searchsorted(wanted, context.ids, sorter=order), len(wanted) - 1)]
    code = np.where(wanted[place] == context.ids, place, -1)[context.code]
    rows = np.flatnonzero(code >= 0)
    return wanted, rows, code[rows]


def part_of(record: dict[str, Any], key: str, make: Callable[[Any], Part]) -> Part:
    """What a model's JSON has under a key, made into what it stands for.

    Raises:
        KeyError: there is nothing under the key.
        ValueError: it is something else; the message names the key.
    """
    value = record[key]
    try:
        return make(value)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{key}: expected what a model is saved with, got {value!r:.80} ({error!r})") from error


def check_bases(bases: int, **parts: int) -> None:
    """See that a model's parts are for as many bases as it has.

    Raises:
        ValueError: one is for more or fewer; the message names it.
    """
    for name, found in parts.items():
        if found != bases:
            raise ValueError(f"{name}: expected {bases}, one per basis, got {found}")


def read_record(folder: Path, geometry: str) -> dict[str, Any]:
    """A fitted model's JSON, checked for its kind."""
    record = read_json(folder / RECORD)
    if not isinstance(record, dict) or record.get("format") != "palm.RewardModel/1" or record.get("geometry") != geometry:
        raise ArtifactError(f"{folder / RECORD}: expected a palm.RewardModel/1 of geometry {geometry!r}")
    return record
