"""How many threads to use, and keeping two linear-algebra libraries from fighting over the same cores.

numpy and scipy wheels each carry an OpenBLAS with its own threads. scipy's optimisers call theirs on tiny vectors between
numpy's matrix products; the idle threads of both spin, and a fit takes ten times as long (15 s instead of 0.4 s for
Bradley-Terry on 6,720 pairs, two cores).
"""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def one_scipy_thread() -> Iterator[None]:
    """Inside the block scipy's own OpenBLAS uses one thread; numpy's and torch's are left as they are."""
    import scipy.linalg  # noqa: F401  (loads scipy's OpenBLAS, so that it is found)
    from threadpoolctl import ThreadpoolController

    libraries = [lib for lib in ThreadpoolController().lib_controllers if "scipy.libs" in (lib.filepath or "")]
    before = [lib.num_threads for lib in libraries]
    for library in libraries:
        library.set_num_threads(1)
    try:
        yield
    finally:
        for library, threads in zip(libraries, before, strict=True):
            library.set_num_threads(threads)


def threads_allowed() -> int:
    """OMP_NUM_THREADS if that is a number, else how many processors this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(asked)) if asked.isdecimal() else _processors()


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # the former on Linux only
