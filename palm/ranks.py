"""Which of several cooperating processes this is, under torchrun or `accelerate launch`."""

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar

_ALONE: ContextVar[bool] = ContextVar("_ALONE", default=False)


def rank() -> int:
    """This process's number, 0 when it is alone."""
    return 0 if _ALONE.get() else int(os.environ.get("RANK", "0"))


def ranks() -> int:
    """Number of processes."""
    return 1 if _ALONE.get() else int(os.environ.get("WORLD_SIZE", "1"))


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Work that the others wait for: inside the block this process shares nothing and waits for no one."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def shards_models() -> bool:
    """Whether the launcher splits a model's parameters over processes (FSDP, DeepSpeed ZeRO-3), which cannot be undone."""
    fsdp = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    zero3 = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "0") == "3"
    return fsdp or zero3


def agree(decision: bool) -> bool:
    """What the first process decided, in every process."""
    if ranks() == 1:
        return decision
    from accelerate.utils import broadcast_object_list

    barrier()  # makes the processes' connection as well
    said: list[bool] = broadcast_object_list([decision])
    return said[0]


def barrier() -> None:
    """Wait until every process is here; nothing when this one is alone."""
    if ranks() > 1:
        import torch
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available()).wait_for_everyone()
