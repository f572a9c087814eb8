"""Progress bars for whoever asks for them; the library itself is silent."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

Advance = Callable[[int], object]
"""Called with how many more units are done."""

Track = Callable[[str, int | None], AbstractContextManager[Advance]]
"""Takes a label and the number of units (None if unknown), gives a context that yields an `Advance`."""


@contextlib.contextmanager
def silent(label: str, total: int | None) -> Iterator[Advance]:
    """No bar."""
    yield lambda done: None


@contextlib.contextmanager
def bars(label: str, total: int | None) -> Iterator[Advance]:
    """A tqdm bar on a terminal; nothing where output is not one."""
    from tqdm.auto import tqdm

    with tqdm(total=total, desc=label, leave=False, disable=None) as bar:
        yield bar.update
