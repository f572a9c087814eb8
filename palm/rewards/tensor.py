"""Basis rewards of every candidate as one array, padded where prompts have fewer candidates."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from palm.arrays import read_arrays, write_arrays
from palm.artifacts import ArtifactError


@dataclass(frozen=True)
class RewardTensor:
    """Rewards of P prompts' candidates.

    Attributes:
        rewards: (P, N, K) in [0, 1]; 0 where a prompt has no such candidate.
        mask: (P, N) bool; False there.
    """

    rewards: np.ndarray
    mask: np.ndarray

    def select(self, prompts: np.ndarray) -> Self:
        """Some of the prompts."""
        return type(self)(self.rewards[prompts], self.mask[prompts])

    def spread(self) -> np.ndarray:
        """(K, K) covariance of the basis rewards within prompts, over all candidates; 0 where no prompt has two."""
        counts = self.mask.sum(axis=1, keepdims=True)[:, :, None]
        apart = np.where(self.mask[:, :, None], self.rewards - self.rewards.sum(axis=1, keepdims=True) / counts, 0.0)
        found: np.ndarray = np.einsum("pnk,pnl->kl", apart, apart) / max(int(self.mask.sum()) - len(self.mask), 1)
        return found

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        write_arrays(path, {"rewards": self.rewards, "mask": self.mask.astype(np.uint8)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: the file is missing or damaged.
        """
        arrays = read_arrays(path)
        if set(arrays) != {"rewards", "mask"}:
            raise ArtifactError(f"{path}: expected the arrays 'rewards' and 'mask', got {sorted(arrays)}")
        return cls(arrays["rewards"], arrays["mask"].astype(bool))


def reward_tensor(basis: np.ndarray, counts: Sequence[int] | np.ndarray) -> RewardTensor:
    """Arrange the rewards of all candidates, prompt after prompt, as a tensor.

    Args:
        basis: (sum of counts, K) rewards.
        counts: (P,) number of candidates of each prompt, whole and at least 1.

    Raises:
        ValueError: the numbers disagree, or a prompt has no candidate.
    """
    size = np.asarray(counts)
    if size.ndim != 1 or len(size) == 0 or size.dtype.kind not in "iu" or size.min() < 1:
        raise ValueError(f"counts: expected at least one prompt with at least one candidate each, got {counts!r:.60}")
    if len(basis) != size.sum():
        raise ValueError(f"basis: expected {size.sum()} rows, one per candidate, got {len(basis)}")
    mask = np.arange(size.max())[None, :] < size[:, None]
    rewards = np.zeros((*mask.shape, basis.shape[1]))
    rewards[mask] = basis
    return RewardTensor(rewards, mask)
