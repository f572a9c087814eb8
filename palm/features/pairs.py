"""Pairs as numbers: who judged, and the features of what was chosen and what was rejected."""

from typing import Self

import numpy as np

from palm.features.store import FeatureArray


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
            ValueError: shapes disagree, or a feature or score is not a finite number.
        """
        sides = []
        for name, side in (("chosen", chosen), ("rejected", rejected)):
            array = np.asarray(side)
            if array.ndim != 2 or len(array) != len(user) or array.shape[1] == 0:
                raise ValueError(f"{name}: expected the shape ({len(user)}, d) for {len(user)} pairs, got {array.shape}")
            if array.dtype == object or not np.issubdtype(array.dtype, np.number):
                raise ValueError(f"{name}: expected numbers, got dtype {array.dtype}")
            if not np.isfinite(array).all():
                raise ValueError(
                    f"{name}: expected finite features, row {int((~np.isfinite(array).all(axis=1)).argmax())} has others"
                )
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
            ValueError: a row number is out of range, the lengths disagree, or a score is not finite.
        """
        array = items if isinstance(items, FeatureArray) else FeatureArray([np.asarray(items)])
        for name, rows in (("chosen", chosen), ("rejected", rejected)):
            if len(rows) != len(user):
                raise ValueError(f"{name}: expected {len(user)} row numbers, got {len(rows)}")
            if len(rows) and (np.min(rows) < 0 or np.max(rows) >= len(array)):
                raise ValueError(f"{name}: expected row numbers from 0 to {len(array) - 1}, got {np.min(rows)} to {np.max(rows)}")
        self = cls.__new__(cls)
        self._set(user, array, np.asarray(chosen), np.asarray(rejected), group, scores)
        return self

    def _set(
        self,
        user: np.ndarray | list[str],
        items: FeatureArray,
        first: np.ndarray,
        second: np.ndarray,
        group: np.ndarray | list[str] | None,
        scores: np.ndarray | None,
    ) -> None:
        self.user = np.asarray(user, dtype=object).astype(str) if len(user) else np.zeros(0, dtype="<U1")
        if group is not None and len(group) != len(self.user):
            raise ValueError(f"group: expected {len(self.user)} ids, got {len(group)}")
        self.group = None if group is None else np.asarray(group, dtype=object).astype(str)
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
