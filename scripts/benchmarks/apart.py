"""Something measured in a process of its own, so that its peak memory is its own."""

import multiprocessing
import resource
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


def peak_gib() -> float:
    """Most memory that this process has held, in GiB; pages of memory-mapped files that it has touched count."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would begin at what the parent held
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="ascii").splitlines() if ":" in line)
        return int(lines["VmHWM"].split()[0]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def apart(function: Callable[..., dict[str, Any]], *arguments: Any, **options: Any) -> dict[str, Any]:
    """Call a module's function in a new process; its result, with `peak_gib` of that process.

    Raises:
        RuntimeError: the process ended without a result; what it printed says why.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(sender, function, arguments, options))
    process.start()
    sender.close()  # so that the other end's being closed is noticed
    try:
        result: dict[str, Any] = receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"{function.__name__}: its process ended with {process.exitcode} and no result") from None
    process.join()
    return result


def _measured(
    sender: Connection, function: Callable[..., dict[str, Any]], arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    result = function(*arguments, **options)
    sender.send({**result, "peak_gib": round(peak_gib(), 2)})
    sender.close()
