"""A part of a step as tensors: its distinct texts, tokenised, and which of them its pairs compare."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from palm.backbone.turns import Block, Part, Turns
from palm.features.pairs import PairFeatures
from palm.features.pooling import pad_texts
from palm.lm.logprobs import Encoded, length_batches

Batch = dict[str, Any]
"""Tensors of a part; see `Batches`."""


class Batches(torch.utils.data.Dataset[Batch]):
    """Parts by (epoch, step, number).

    A part's tensors, for t distinct texts and b blocks:
        ids, attended, response: lists; token ids, 1 where there is a token, true where it is the response's, (rows, T) each.
        place: (t,) row of each text when the lists' rows are put together.
        context, target: (2, c) and (2, n) texts that are chosen and rejected in each pair.
        context_block, target_block: (c,), (n,) number of each pair's block.
        pair_share: (n,) weight of each target in the loss. Over all parts of a step shares add up to the number of parts, so that
            the mean over parts is the mean over the step's targets, whoever does which part.
        user, user_share: (b,) number of each block's user, and the weight of the block where blocks are counted.
        noise: (b, ...) draws from N(0, 1), if any are wanted.
    """

    def __init__(
        self,
        turns: Turns,
        pairs: PairFeatures,
        texts: Sequence[Encoded],
        *,
        pad_token_id: int,
        batch_tokens: int,
        equal_users: bool,
        noise: tuple[int, ...] | None,
    ) -> None:
        """Keep what parts are made of.

        Args:
            turns: which pairs, when.
            pairs: of which rows are numbered by `turns`; their features are not read.
            texts: token ids of the texts that `pairs` number.
            pad_token_id: fills rows.
            batch_tokens: tokens that go through the model at a time, padding included.
            equal_users: targets weigh 1 / their user's number of pairs; False: all the same.
            noise: shape of each block's noise.
        """
        self.turns, self.pairs, self.texts = turns, pairs, texts
        self.pad_token_id, self.batch_tokens, self.noise = pad_token_id, batch_tokens, noise
        counts = np.bincount(turns.code)
        self.weight = 1 / counts if equal_users else np.ones(len(counts))  # of a target, by user

    def __len__(self) -> int:
        return self.turns.blocks

    def __getitem__(self, key: tuple[int, int, int]) -> Batch:
        """The tensors of one part."""
        part = self.turns.part(*key)
        blocks = part.blocks
        context = np.concatenate([block.context for block in blocks])
        target = np.concatenate([block.target for block in blocks])
        sides = [self.pairs.chosen_row[context], self.pairs.rejected_row[context]]
        sides += [self.pairs.chosen_row[target], self.pairs.rejected_row[target]]
        rows, local = np.unique(np.concatenate(sides), return_inverse=True)
        told, asked = local[: 2 * len(context)], local[2 * len(context) :]
        user = np.array([block.user for block in blocks])
        target_block = np.repeat(np.arange(len(blocks)), [len(block.target) for block in blocks])
        batch = {
            **self._padded([self.texts[row] for row in rows]),
            "context": torch.from_numpy(told.reshape(2, -1)),
            "context_block": _numbers(blocks, [len(block.context) for block in blocks]),
            "target": torch.from_numpy(asked.reshape(2, -1)),
            "target_block": torch.from_numpy(target_block),
            "pair_share": self._shares(part, self.weight[user[target_block]]),
            "user": torch.from_numpy(user),
            "user_share": torch.full((len(blocks),), self.turns.parts / len(part.step) * part.counted),
        }
        if self.noise is not None:
            batch["noise"] = torch.stack(
                [torch.randn(self.noise, generator=torch.Generator().manual_seed(block.seed)) for block in blocks]
            )
        return batch

    def _shares(self, part: Part, weight: np.ndarray) -> torch.Tensor:
        total = sum(len(block.target) * self.weight[block.user] for block in part.step)
        return torch.from_numpy(weight * (self.turns.parts / total * part.counted)).float()

    def _padded(self, texts: Sequence[Encoded]) -> Batch:
        lengths = [len(prompt) + len(response) for prompt, response in texts]
        order, padded = [], []
        for rows in length_batches(lengths, batch_tokens=self.batch_tokens):
            order.append(rows)
            padded.append(pad_texts([texts[row] for row in rows], self.pad_token_id))
        ids, attended, response = (list(column) for column in zip(*padded, strict=True))
        return {
            "ids": ids,
            "attended": attended,
            "response": response,
            "place": torch.from_numpy(np.argsort(np.concatenate(order))),
        }


def _numbers(blocks: Sequence[Block], counts: Sequence[int]) -> torch.Tensor:
    return torch.from_numpy(np.repeat(np.arange(len(blocks)), counts))


class Order(torch.utils.data.Sampler[list[tuple[int, int, int]]]):
    """The keys of one process' parts in an epoch, one at a time, as a batch sampler."""

    def __init__(self, turns: Turns, rank: int, ranks: int, epoch: Any) -> None:
        """Keep whose parts they are; `epoch` is called to learn which epoch is beginning."""
        self.turns, self.rank, self.ranks, self.epoch = turns, rank, ranks, epoch

    def __len__(self) -> int:
        return self.turns.steps * (self.turns.parts // self.ranks)

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        epoch = self.epoch()
        for step in range(self.turns.steps):
            for number in range(self.rank, self.turns.parts, self.ranks):
                yield [(epoch, step, number)]
