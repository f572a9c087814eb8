"""A small task for training backbones: the embedded world's pairs, and the tiny model's features of their texts."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palm.backbone import BackboneOptions, Trained, train_backbone
from palm.data.loaders import load_pairs
from palm.data.planted import make_world
from palm.data.schema import Text
from palm.features.encode import Encoder, distinct_texts, load_encoder
from palm.features.pairs import PairFeatures

READING: dict[str, Any] = {"pooling": "mean+last", "max_length": 96, "batch_tokens": 1024, "scores": False}


@dataclass(frozen=True)
class Task:
    """Pairs, the texts that they number, and a short way to train on them.

    Attributes:
        folder: of the tiny model.
        texts: of which `features.items` are the tiny model's features.
        features: all pairs.
    """

    folder: Path
    texts: list[tuple[Text, Text]]
    features: PairFeatures

    def train(
        self,
        head: Any,
        work: Path,
        *,
        source: Path | None = None,
        rows: Any = slice(None),
        seed: int = 0,
        track: Any = None,
        **options: Any,
    ) -> Trained:
        """Train on some of the pairs, by default in 8 steps of 4 blocks."""
        trainer = {"max_steps": 8, "per_device_train_batch_size": 4, "learning_rate": 1e-3, **options.pop("trainer", {})}
        encoder = load_encoder(source or self.folder, **READING)
        return train_backbone(
            encoder,
            head,
            self.features.select(np.arange(len(self.features))[rows]),
            self.texts,
            work=work,
            options=BackboneOptions(**{"targets": 3, "context": 3, **options, "trainer": trainer}),
            seed=seed,
            **({"track": track} if track else {}),
        )

    def features_of(self, encoder: Encoder, rows: Any = slice(None)) -> PairFeatures:
        """The same pairs with another model's features."""
        one = self.features
        everything = PairFeatures.from_items(one.user, encoder.encode(self.texts)[0], one.chosen_row, one.rejected_row)
        return everything.select(np.arange(len(one))[rows])


@pytest.fixture(scope="session")
def task(base_folder: Path) -> Task:
    """Eight users with twelve pairs each."""
    pairs = load_pairs(make_world(users=8, bases=2, pairs_per_user=12, seed=0).rows)
    texts = distinct_texts(pairs)
    items = load_encoder(base_folder, **READING).encode(texts.texts)[0]
    return Task(base_folder, texts.texts, PairFeatures.from_items(pairs["user"], items, texts.chosen, texts.rejected))


@pytest.fixture
def loaded() -> Callable[[Path], Encoder]:
    """Loads a saved backbone."""
    return lambda folder: load_encoder(folder, **READING)
