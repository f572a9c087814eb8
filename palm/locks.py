"""One process at a time: lock files that a kill cannot leave locked."""

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from palm.artifacts import ArtifactError

logger = logging.getLogger(__name__)


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


@contextlib.contextmanager
def held(path: Path, *, what: str) -> Iterator[None]:
    """Hold the lock of a file, which is made if need be, after whatever process of this machine holds it.

    Args:
        path: of the file, whose folder is there.
        what: is done under the lock, for messages.

    Raises:
        ArtifactError: the folder is not there, or went while this process waited: what it was for is done, or was given up.
    """
    try:
        lock = path.open("w")
    except OSError as error:
        raise ArtifactError(f"{path.parent}: expected the folder to {what} in: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("waiting for another process, to %s", what)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not (path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat())):
            raise ArtifactError(f"{path.parent}: expected the folder to {what} in, which went meanwhile")
        yield
