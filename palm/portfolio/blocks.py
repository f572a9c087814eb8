"""Blocks of prompts and weights, small enough to stay in a core's cache, several at once where there is much to do."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.lib.introspect import opt_func_info

from palm.threads import threads_allowed

Result = TypeVar("Result")
Exponential = Callable[[np.ndarray], Any]

_BLOCK = 2**17  # numbers in one block of logits: 1 MiB stays near a core, and threads seldom wait for the interpreter's lock
_CHUNK = 2**15 - 1  # numbers; from one more, torch would start threads of its own
_PRODUCT = 2**18  # multiplications in one matrix product, above which OpenBLAS would, which costs more than it saves
MOST_WEIGHTS = 128  # in one block
_TOGETHER = 4  # blocks that one thread takes at a time
_AHEAD = 64  # such tasks whose results are waited for together
_WORTH_THREADS = 2**20  # numbers: exponentials that take about ten times as long as starting threads
_WORTH_TORCH = 2**22  # numbers in one call
_LONG = 2**20  # P N 2^K; importing torch takes seconds, which planning saves where there are many bases, and so many corners


def each_block(
    work: Callable[[slice, slice, np.ndarray], Result], *, weights: int, prompts: int, candidates: int, bases: int
) -> Iterator[tuple[slice, slice, Result]]:
    """Calls work(weights, prompts, room) for every block, on as many threads as `threads_allowed` says.

    Args:
        work: gets a slice of the weights, one of the prompts, and room for (p, N, m) float64. Most of its time must be spent in
            NumPy or torch, which let other threads run meanwhile.
        weights, prompts, candidates, bases: M, P, N and K.

    Yields:
        both slices and what `work` returned, in the same order however many threads there are. The results of few blocks are
        kept, so that memory does not grow with the number of weights.
    """
    step = max(1, min(MOST_WEIGHTS, weights, _most_in_product(bases + 1) // candidates))
    length = max(1, min(prompts, _BLOCK // (candidates * step)))
    parts = [slice(first, min(first + length, prompts)) for first in range(0, prompts, length)]
    groups = [parts[first : first + _TOGETHER] for first in range(0, len(parts), _TOGETHER)]
    tasks = [(slice(start, min(start + step, weights)), group) for start in range(0, weights, step) for group in groups]

    def together(task: tuple[slice, list[slice]]) -> list[tuple[slice, slice, Result]]:
        rows, group = task
        room = np.empty((length, candidates, rows.stop - rows.start))
        return [(rows, part, work(rows, part, room[: part.stop - part.start])) for part in group]

    threads = min(threads_allowed(), len(tasks)) if weights * prompts * candidates >= _WORTH_THREADS else 1
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(tasks), _AHEAD):
            for results in (map if threads == 1 else pool.map)(together, tasks[start : start + _AHEAD]):
                yield from results


def tilt(centred: np.ndarray, directions: np.ndarray, room: np.ndarray, exp: Exponential | None) -> None:
    """Fill the room (p, N, m) with exp(centred @ directions), or with logits alone without `exp`.

    Args:
        centred: (p, N, K).
        directions: (K, m).
        room: contiguous.
        exp: from `fastest_exponential`.
    """
    bases, count = directions.shape
    left, out = centred.reshape(-1, bases), room.reshape(-1, count)
    step = max(1, min(_CHUNK, _most_in_product(bases)) // count)
    for start in range(0, len(left), step):
        chunk = out[start : start + step]
        np.matmul(left[start : start + step], directions, out=chunk)
        if exp is not None:
            exp(chunk)


def _most_in_product(bases: int) -> int:
    return min(_CHUNK, _PRODUCT // bases)


def fastest_exponential(weights: int, *, prompts: int, candidates: int, bases: int) -> Exponential:
    """What replaces a contiguous float64 array by its exponentials: the fastest for so many weights of an oracle of such a size.

    NumPy's own is vectorised only where processors have AVX-512; elsewhere torch's takes 2/3 of its time, and differs by rounding.
    """
    numbers = prompts * candidates
    if weights * numbers < _WORTH_TORCH or numbers * 2.0**bases < _LONG or _numpy_is_vectorised():
        return lambda array: np.exp(array, out=array)
    import torch

    return lambda array: torch.from_numpy(array).exp_()


def _numpy_is_vectorised() -> bool:
    level = opt_func_info(func_name="^exp$", signature="float64").get("exp", {}).get("dd", {}).get("current", "")
    return "AVX512" in level or "V4" in level
