"""Small feed-forward networks on features: applied with numpy, so that a fitted model needs no torch; trained with torch.

A network standardises its input itself: means are taken off and standard deviations divided out before the first layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from palm.features.store import FeatureArray

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Network:
    """Layers x W + b with a leaky rectifier between them.

    Attributes:
        weights: (in, out) of each layer.
        biases: (out,) of each layer.
        slope: of the rectifier below 0.
    """

    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    slope: float = 0.0

    def __post_init__(self) -> None:
        """Check that layers fit onto each other.

        Raises:
            ValueError: they do not, or a number is not finite.
        """
        shapes = [weight.shape for weight in self.weights]
        fits = all(one[1] == other[0] for one, other in pairwise(shapes))
        sized = [bias.shape for bias in self.biases] == [shape[1:] for shape in shapes]
        if not shapes or not fits or not sized or not all(np.isfinite(part).all() for part in self.weights + self.biases):
            raise ValueError(f"weights, biases: expected finite layers that fit onto each other, got the shapes {shapes}")

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """(n, out) float32 of (n, in) inputs."""
        hidden = inputs.astype(np.float32, copy=False)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = hidden @ weight + bias
            if layer < len(self.weights) - 1:
                hidden = np.maximum(hidden, self.slope * hidden)
        return hidden

    def over(self, items: FeatureArray, centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """(t, out) float64 of all texts' features, standardised by (d,) means and deviations; in blocks, so memory stays bounded.

        Raises:
            ValueError: a feature is not finite; the message names its row.
        """
        result = np.empty((len(items), self.weights[-1].shape[1]))
        for where, block in items.blocks():
            bad = ~np.isfinite(block).all(axis=1)
            if bad.any():
                raise ValueError(f"features: expected finite numbers, row {where.start + int(bad.argmax())} has others")
            result[where] = self((block - centre) / scale)
        return result

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """For a file: each layer's parts under names that begin with `name`."""
        parts = {f"{name}.weight{layer}": weight for layer, weight in enumerate(self.weights)}
        return parts | {f"{name}.bias{layer}": bias for layer, bias in enumerate(self.biases)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], name: str, slope: float) -> Self:
        """Inverse of `arrays`.

        Raises:
            KeyError: there is no such network.
        """
        layers = sum(key.startswith(f"{name}.weight") for key in arrays)
        weights = tuple(arrays[f"{name}.weight{layer}"] for layer in range(max(layers, 1)))
        return cls(weights, tuple(arrays[f"{name}.bias{layer}"] for layer in range(len(weights))), slope)

    @classmethod
    def of(cls, module: "torch.nn.Sequential") -> Self:
        """The network that a trained module of `trainable` is."""
        import torch

        linear = [layer for layer in module if isinstance(layer, torch.nn.Linear)]
        slopes = [layer.negative_slope for layer in module if isinstance(layer, torch.nn.LeakyReLU)]
        return cls(
            tuple(layer.weight.detach().numpy().T.copy() for layer in linear),
            tuple(layer.bias.detach().numpy().copy() for layer in linear),
            slopes[0] if slopes else 0.0,
        )


def trainable(widths: Sequence[int], *, slope: float = 0.0, dropout: float = 0.0) -> Any:
    """A torch module of layers of those widths, with torch's own beginning; draws from torch's generator."""
    import torch

    layers: list[torch.nn.Module] = []
    for layer, (before, after) in enumerate(pairwise(widths)):
        layers.append(torch.nn.Linear(before, after))
        if layer < len(widths) - 2:
            layers.append(torch.nn.LeakyReLU(slope))
            if dropout:
                layers.append(torch.nn.Dropout(dropout))
    return torch.nn.Sequential(*layers)
