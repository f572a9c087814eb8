"""Which pairs every process sees in every step: users' pairs in blocks, dealt anew each epoch, whole blocks to one process.

Everything is a function of the seed, the epoch and the step. So a run that is taken up again goes on with the same pairs, and the
blocks of a step are the same on one process as on several together.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from palm.seeds import derive_seed


@dataclass(frozen=True)
class Block:
    """Some pairs that a user is asked, and those that say who the user is.

    Attributes:
        user: the user's number.
        context: (c,) row numbers of pairs; the same for all blocks of the user in an epoch.
        target: (t,) row numbers of other pairs, unless the user has only one.
        seed: for whatever is random in the block.
    """

    user: int
    context: np.ndarray
    target: np.ndarray
    seed: int


@dataclass(frozen=True)
class Part:
    """What one process does at a time.

    Attributes:
        blocks: at least one.
        counted: False where the blocks only keep this process in step with others that have some: they weigh nothing.
        step: all blocks of the step, over all processes.
    """

    blocks: list[Block]
    counted: bool
    step: list[Block]


@dataclass(frozen=True)
class Turns:
    """The order of training.

    Attributes:
        code: (n,) number of each pair's user, 0 to U - 1, every user with at least one pair.
        context: pairs of a user's context, no more than half of theirs; 0 for none. Someone with a single pair is both told and
            asked it.
        targets: most pairs of a block.
        batch: blocks in a step, over all processes.
        parts: that a step's blocks are dealt out to: processes x parts that each takes one after the other.
        seed: of the order.
    """

    code: np.ndarray
    context: int
    targets: int
    batch: int
    parts: int
    seed: int
    _last: dict[int, list[Block]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            ValueError: one is out of range, or there are no pairs.
        """
        if len(self.code) == 0:
            raise ValueError("pairs: expected at least one, got none")
        for name, least in (("context", 0), ("targets", 1), ("batch", 1), ("parts", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")

    @cached_property
    def _rows(self) -> list[np.ndarray]:
        """Each user's row numbers."""
        order = np.argsort(self.code, kind="stable")
        return np.split(order, np.cumsum(np.bincount(self.code))[:-1])

    def _told(self, pairs: int) -> int:
        return min(self.context, pairs // 2)

    @cached_property
    def blocks(self) -> int:
        """Blocks in an epoch; every epoch has as many."""
        return sum(-(-(len(rows) - self._told(len(rows))) // self.targets) for rows in self._rows)

    @property
    def steps(self) -> int:
        """Steps in an epoch; the last has the blocks that are left."""
        return -(-self.blocks // self.batch)

    def epoch(self, number: int) -> list[Block]:
        """The blocks of an epoch, in order."""
        if number not in self._last:
            self._last.clear()
            self._last[number] = self._deal(number)
        return self._last[number]

    def _deal(self, number: int) -> list[Block]:
        rng = np.random.default_rng(derive_seed(self.seed, "epoch", number))
        blocks = []
        for user, rows in enumerate(self._rows):
            shuffled = rng.permutation(rows)
            told = self._told(len(rows))
            asked = shuffled[told:]
            context = shuffled[:1] if self.context and len(rows) == 1 else shuffled[:told]
            for target in np.array_split(asked, -(-len(asked) // self.targets)):
                blocks.append(Block(user, context, target, int(rng.integers(2**31))))
        return [blocks[place] for place in rng.permutation(len(blocks))]

    def part(self, epoch: int, step: int, number: int) -> Part:
        """One part of a step: every `parts`-th block, from the `number`-th."""
        blocks = self.epoch(epoch)[step * self.batch : (step + 1) * self.batch]
        own = blocks[number :: self.parts]
        return Part(own or blocks[:1], bool(own), blocks)
