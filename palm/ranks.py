"""Which of several cooperating processes this is, under torchrun or `accelerate launch`."""

import os


def rank() -> int:
    """This process's number, 0 when it is alone."""
    return int(os.environ.get("RANK", "0"))


def ranks() -> int:
    """Number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def barrier() -> None:
    """Wait until every process is here; nothing when this one is alone."""
    if ranks() > 1:
        import torch
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available()).wait_for_everyone()
