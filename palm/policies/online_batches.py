"""How many responses an online step reads and writes, counted as TRL does; what is wrong it finds out late, or not at all."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palm.ranks import ranks

GENERATIONS = 8  # responses of a prompt that a step compares, unless told otherwise

_COUNTS: dict[str, tuple[Any, ...]] = {  # options that are whole numbers, and what else they may be
    "num_generations": (),
    "num_iterations": (),
    "steps_per_generation": (None,),
    "generation_batch_size": (None,),
    "pad_to_multiple_of": (None, "auto"),
}


@dataclass(frozen=True)
class OnlineBatches:
    """The batches of an online objective.

    Attributes:
        options: fields of TRL's RLOOConfig or GRPOConfig.
    """

    options: Mapping[str, Any]

    @property
    def generations(self) -> int:
        """Responses of a prompt that a step compares."""
        return int(self.options.get("num_generations", GENERATIONS))

    @property
    def step(self) -> int:
        """Responses that all processes read at a time."""
        return int(self.options.get("per_device_train_batch_size", 8) * ranks())

    @property
    def generated(self) -> int:
        """Responses that are generated together."""
        steps = self.options.get("steps_per_generation") or self.options.get("gradient_accumulation_steps", 1)
        return int(self.options.get("generation_batch_size") or self.step * steps)

    def check_counts(self) -> None:
        """See that counts are counts, whatever the number of processes.

        Raises:
            ValueError: they are not.
        """
        for name, others in _COUNTS.items():
            least = 2 if name == "num_generations" else 1
            value = self.options.get(name, least)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
            if not whole and value not in others:
                raise ValueError(f"online.{name}: expected a whole number of at least {least}, got {value!r}")
        if self.options.get("auto_find_batch_size"):
            raise ValueError(
                "online.auto_find_batch_size: a batch holds whole groups of responses, which are not halved; leave it out"
            )
        given = self.options.get("generation_batch_size")
        if given is not None and self.options.get("steps_per_generation") is not None:
            raise ValueError("online.steps_per_generation: expected it or generation_batch_size, got both")

    def check_batches(self, prompts: int | None) -> None:
        """See that batches hold whole groups of a prompt's responses, with as many processes as there are now.

        Of fewer prompts than are answered together TRL makes no step at all, and says nothing.

        Args:
            prompts: how many there are; None if that is not known.

        Raises:
            ValueError: they do not, or there are fewer prompts.
        """
        given = self.options.get("generation_batch_size")
        if given is not None and given % self.step:
            raise ValueError(
                f"online.generation_batch_size: expected a multiple of {self.step}, the responses of a step "
                f"(per_device_train_batch_size x processes), got {given}"
            )
        if self.generated % self.generations:
            raise ValueError(
                f"online.num_generations: expected a divisor of {self.generated}, the responses that are generated together "
                f"(per_device_train_batch_size x steps_per_generation x processes), got {self.generations}"
            )
        if prompts is not None and (together := self.generated // self.generations) > prompts:
            raise ValueError(
                f"online.per_device_train_batch_size: expected at most {prompts} prompts to be answered together, as many as there "
                f"are, got {together}: {self.generated} responses that are generated together, {self.generations} of each"
            )
