"""Features of many texts on disk: shards of safetensors, memory-mapped, read as if they were one array."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from palm.arrays import map_array
from palm.artifacts import ArtifactError, read_json, write_json

INDEX = "features.json"
_CHUNK = 2**20  # numbers converted to float32 at a time: 4 MiB, which stay in cache


class FeatureArray:
    """(n, d) features that may lie in several memory-mapped parts; rows are converted to float32 as they are read."""

    def __init__(self, parts: list[np.ndarray]) -> None:
        """Join parts of shape (rows, d).

        Raises:
            ValueError: there are no parts, or they are not two-dimensional with the same d, or not real numbers.
        """
        if not parts or any(part.ndim != 2 or part.shape[1] != parts[0].shape[1] for part in parts):
            raise ValueError(f"features: expected parts of the shape (n, d) with equal d, got {[part.shape for part in parts]}")
        if not all(part.dtype.kind in "biuf" for part in parts):
            raise ValueError(f"features: expected real numbers, got {', '.join(sorted({str(part.dtype) for part in parts}))}")
        self._parts = parts
        self._starts = np.cumsum([0] + [len(part) for part in parts])

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return int(self._starts[-1]), int(self._parts[0].shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, index: np.ndarray) -> np.ndarray:
        """(len(index), d) float32 rows, in the order asked for."""
        index = np.asarray(index)
        result = np.empty((len(index), self.shape[1]), dtype=np.float32)
        part_of = np.searchsorted(self._starts, index, side="right") - 1
        for part in np.unique(part_of):
            here = part_of == part
            result[here] = self._parts[part][index[here] - self._starts[part]]
        return result

    def finite_rows(self, index: np.ndarray) -> np.ndarray:
        """`rows`, all finite.

        Raises:
            ValueError: a feature is not; the message names its row.
        """
        found = self.rows(index)
        bad = ~np.isfinite(found).all(axis=1)
        if bad.any():
            raise ValueError(f"features: expected finite numbers, row {int(np.asarray(index)[bad.argmax()])} has others")
        return found

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """All rows in order, as (position, float32 block) pairs of bounded size."""
        step = max(1, _CHUNK // max(self.shape[1], 1))
        for start, part in zip(self._starts, self._parts, strict=False):
            for offset in range(0, len(part), step):
                block = np.asarray(part[offset : offset + step], dtype=np.float32)
                yield slice(int(start) + offset, int(start) + offset + len(block)), block

    def project(self, directions: np.ndarray) -> np.ndarray:
        """(n, K) float64 products with (d, K) directions, in O(n d K).

        Raises:
            ValueError: a feature is not finite, or too large for its product to be; the message names its row.
        """
        result = np.empty((len(self), directions.shape[1]))
        narrow = directions.astype(np.float32)
        for where, block in self.blocks():
            result[where] = block @ narrow
        bad = ~np.isfinite(result).all(axis=1)
        if bad.any() and np.isfinite(narrow).all():
            row = int(bad.argmax())
            self.finite_rows(np.array([row]))  # says so where they are not finite themselves
            raise ValueError(f"features: expected numbers whose products are finite, row {row} has larger ones")
        return result

    def gather(self, coefficients: np.ndarray) -> np.ndarray:
        """(d, K) float64: features' transpose times (n, K) coefficients, in O(n d K)."""
        result = np.zeros((self.shape[1], coefficients.shape[1]))
        narrow = coefficients.astype(np.float32)
        for where, block in self.blocks():
            result += block.T @ narrow[where]
        return result

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each column, (d,) float64 each."""
        total, squares = np.zeros(self.shape[1]), np.zeros(self.shape[1])
        for _, block in self.blocks():
            total += block.sum(axis=0, dtype=np.float64)
            squares += np.square(block, dtype=np.float64).sum(axis=0)
        mean = total / max(len(self), 1)
        return mean, np.sqrt(np.maximum(squares / max(len(self), 1) - mean**2, 0.0))


def open_features(folder: Path) -> tuple[FeatureArray, np.ndarray | None]:
    """The features that `palm.features.encode.embed_texts` wrote, memory-mapped, and each text's score if there is one.

    Raises:
        ArtifactError: the folder is incomplete or a shard is truncated.
    """
    index = read_json(folder / INDEX)
    parts = [map_array(folder / shard["file"], "features") for shard in index["shards"]]
    for shard, part in zip(index["shards"], parts, strict=True):
        if part.shape != (shard["rows"], index["width"]):
            raise ArtifactError(f"{folder / shard['file']}: expected {shard['rows']} x {index['width']} features, got {part.shape}")
    scores = None
    if index["scored"]:
        scores = np.concatenate([map_array(folder / shard["file"], "score") for shard in index["shards"]])
    return FeatureArray(parts), scores


def write_index(folder: Path, *, shards: list[dict[str, Any]], width: int, scored: bool, settings: dict[str, Any]) -> None:
    """Mark a folder of shards as complete."""
    write_json(folder / INDEX, {"width": width, "scored": scored, "shards": shards, "settings": settings})
