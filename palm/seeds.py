"""Random seeds without global state: one seed per purpose, and a fence around libraries that use global generators."""

import contextlib
import hashlib
import random
from collections.abc import Iterator

import numpy as np


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed for one purpose, independent of the seeds of other purposes.

    Args:
        seed: the run's seed, at least 0.
        purpose: what it is for, such as `"member", 3`.

    Returns:
        An integer from 0 to 2^31 - 1, the same on every machine.

    Raises:
        ValueError: `seed` is not an integer of at least 0.
    """
    check_seed(seed)
    text = repr((int(seed), *map(str, purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def check_seed(seed: int) -> None:
    """Refuse what is no seed.

    Raises:
        ValueError: it is not an integer of at least 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed: expected an integer of at least 0, got {seed!r}")


@contextlib.contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch inside the block and restore the caller's after it.

    For trainers and samplers of other libraries, which draw from global generators.
    """
    import torch

    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            torch.manual_seed(seed)
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
