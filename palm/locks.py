"""One process at a time: a lock file that a kill cannot leave locked."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from palm.artifacts import ArtifactError


@contextlib.contextmanager
def locked(path: Path, *, folder: Path) -> Iterator[None]:
    """Hold the lock of a file, which is made if need be, for the work in a folder.

    Raises:
        ArtifactError: another process holds it, or the file cannot be made; the message names the folder.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as error:
        raise ArtifactError(f"output: {folder}: expected a folder that can be made: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArtifactError(f"{folder}: another palm process is working in this folder") from None
        lock.write(str(os.getpid()))
        lock.flush()
        yield
