"""Pairs as numbers: who judged, and the features of what was chosen and what was rejected."""

from typing import Self

import numpy as np

from palm.data.ids import as_ids
from palm.features.store import FeatureArray

_LARGEST = float(np.finfo(np.float32).max)


class PairFeatures:
    """Features of n pairs, each distinct text stored once.

    Made by `palm.embed`, or directly: `PairFeatures(user=ids, chosen=(n, d), rejected=(n, d))`.
    """

    def __init__(
        self,
        user: np.ndarray | list[str],
        chosen: np.ndarray,
        rejected: np.ndarray,
        *,
        group: np.ndarray | list[str] | None = None,
        chosen_score: np.ndarray | None = None,
        rejected_score: np.ndarray | None = None,
    ) -> None:
        """Check and keep features of both sides.

        Args:
            user: (n,) user ids.
            chosen, rejected: (n, d) finite numbers.
            group: (n,) ids of what the pairs belong to; used to keep a group on one side of an inner split.
            chosen_score, rejected_score: (n,) un-personalised scores that came with the features, for `Reference`.

        Raises:
            ValueError: shapes disagree, an id is missing, or a feature or score is not a finite number, of float32 for features.
        """
        user = as_ids(user, name="user")
        sides = []
        for name, side in (("chosen", chosen), ("rejected", rejected)):
            array = np.asarray(side)
            if array.ndim != 2 or len(array) != len(user) or array.shape[1] == 0:
                raise ValueError(f"{name}: expected the shape ({len(user)}, d) for {len(user)} pairs, got {array.shape}")
            if array.dtype.kind not in "iuf":
                raise ValueError(f"{name}: expected real numbers, got dtype {array.dtype}")
            if not np.isfinite(array).all():
                raise ValueError(
                    f"{name}: expected finite features, row {int((~np.isfinite(array).all(axis=1)).argmax())} has others"
                )
            if array.size and max(float(array.max()), -float(array.min())) > _LARGEST:
                row = int((np.abs(array) > _LARGEST).any(axis=1).argmax())
                raise ValueError(f"{name}: expected features within float32's range, 3.4e38 either way, row {row} has others")
            sides.append(array)
        if sides[0].shape != sides[1].shape:
            raise ValueError(f"rejected: expected the shape {sides[0].shape} of chosen, got {sides[1].shape}")
        if (chosen_score is None) != (rejected_score is None):
            raise ValueError("chosen_score, rejected_score: expected both or neither, got one")
        scores = None
        if chosen_score is not None and rejected_score is not None:
            both = [np.asarray(side, dtype=np.float64) for side in (chosen_score, rejected_score)]
            for name, side in zip(("chosen_score", "rejected_score"), both, strict=True):
                if side.shape != (len(user),):
                    raise ValueError(f"{name}: expected one score per pair, {len(user)} of them, got the shape {side.shape}")
            scores = np.concatenate(both)
        count = len(user)
        self._set(user, FeatureArray(sides), np.arange(count), np.arange(count, 2 * count), group, scores)

    @classmethod
    def from_items(
        cls,
        user: np.ndarray | list[str],
        items: FeatureArray | np.ndarray,
        chosen: np.ndarray,
        rejected: np.ndarray,
        *,
        group: np.ndarray | list[str] | None = None,
        scores: np.ndarray | None = None,
    ) -> Self:
        """Pairs of texts out of t whose features are given once.

        Args:
            user: (n,) user ids.
            items: (t, d) features, in memory or memory-mapped.
            chosen, rejected: (n,) row numbers in `items`.
            group: (n,) ids.
            scores: (t,) un-personalised score of each text.

        Raises:
            ValueError: a row number is out of range or not whole, the lengths disagree, an id is missing, or a score is not finite.
        """
        user = as_ids(user, name="user")
        array = items if isinstance(items, FeatureArray) else FeatureArray([np.asarray(items)])
        numbers = []
        for name, side in (("chosen", chosen), ("rejected", rejected)):
            rows = np.asarray(side) if len(side) else np.zeros(0, dtype=np.int64)
            if rows.shape != (len(user),):
                raise ValueError(f"{name}: expected {len(user)} row numbers, got {len(rows)}")
            if rows.dtype.kind not in "iu":
                raise ValueError(f"{name}: expected whole row numbers, got dtype {rows.dtype}")
            if len(rows) and (np.min(rows) < 0 or np.max(rows) >= len(array)):
                raise ValueError(f"{name}: expected row numbers from 0 to {len(array) - 1}, got {np.min(rows)} to {np.max(rows)}")
            numbers.append(rows)
        self = cls.__new__(cls)
        self._set(user, array, numbers[0], numbers[1], group, scores)
        return self

    def _set(
        self,
        user: np.ndarray,
        items: FeatureArray,
        first: np.ndarray,
        second: np.ndarray,
        group: np.ndarray | list[str] | None,
        scores: np.ndarray | None,
    ) -> None:
        self.user = user
        self.group = None if group is None else as_ids(group, name="group")
        if self.group is not None and len(self.group) != len(user):
            raise ValueError(f"group: expected {len(user)} ids, got {len(self.group)}")
        if scores is not None:
            scores = np.asarray(scores, dtype=np.float64)
            if scores.shape != (len(items),):
                raise ValueError(f"scores: expected one per text, {len(items)} of them, got the shape {scores.shape}")
            if not np.isfinite(scores).all():
                raise ValueError(f"scores: expected finite numbers, text {int((~np.isfinite(scores)).argmax())} has another")
        self.items, self.chosen_row, self.rejected_row = items, first.astype(np.int64), second.astype(np.int64)
        self.scores = scores
        self.ids, self.code = np.unique(self.user, return_inverse=True)
        self.ids.flags.writeable = self.code.flags.writeable = False

    def __len__(self) -> int:
        return len(self.user)

    @property
    def width(self) -> int:
        """d."""
        return self.items.shape[1]

    @property
    def chosen(self) -> np.ndarray:
        """(n, d) float32 features of the chosen responses."""
        return self.items.rows(self.chosen_row)

    @property
    def rejected(self) -> np.ndarray:
        """(n, d) float32 features of the rejected responses."""
        return self.items.rows(self.rejected_row)

    def select(self, rows: np.ndarray) -> "PairFeatures":
        """Some of the pairs, by row number or by a mask; the texts' features are shared."""
        return PairFeatures.from_items(
            self.user[rows],
            self.items,
            self.chosen_row[rows],
            self.rejected_row[rows],
            group=None if self.group is None else self.group[rows],
            scores=self.scores,
        )

    def difference(self, per_item: np.ndarray) -> np.ndarray:
        """(n, K) chosen minus rejected of (t, K) numbers per text."""
        return per_item[self.chosen_row] - per_item[self.rejected_row]
