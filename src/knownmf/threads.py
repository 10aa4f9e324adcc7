"""Run chunks of work in a pool of threads, and say how many threads that is."""

import functools
import math
import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from knownmf.validation import whole_number

Result = TypeVar("Result")

# Where Linux tells a container how much processor time it may use: version 2 of control groups, then version 1.
_CGROUPS = Path("/sys/fs/cgroup")
_QUOTA_FILES = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))

_n_threads: int | None = None  # as set by set_num_threads


def get_num_threads() -> int:
    """Return the number of threads in which frames are solved.

    It is what was passed to `set_num_threads`; else the environment variable ``KNOWNMF_NUM_THREADS``; else the first
    number in ``OMP_NUM_THREADS``; else the number of processors that this process may use, as limited by its affinity
    and by the quota of its container. The environment is read once.

    Raises
    ------
    ValueError
        If the environment variable is not a whole number of at least 1.
    """
    return _default_num_threads() if _n_threads is None else _n_threads


def set_num_threads(n_threads: int) -> None:
    """Set the number of threads in which frames are solved, for the whole process.

    Parameters
    ----------
    n_threads : int
        At least 1. It may exceed the number of processors.

    Raises
    ------
    ValueError
        If it is not a whole number of at least 1.
    """
    global _n_threads
    _n_threads = whole_number(n_threads, "n_threads")


@functools.cache
def _default_num_threads() -> int:
    """Return the number of threads by the environment, else the number of processors for this process."""
    return (
        _threads_in_variable("KNOWNMF_NUM_THREADS", os.environ.get("KNOWNMF_NUM_THREADS", ""))
        # A list such as "4,2" is for nested parallel regions: the first number is for the outermost.
        or _threads_in_variable("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "").partition(",")[0])
        or n_processors()
    )


def _threads_in_variable(name: str, value: str) -> int | None:
    """Return the number in an environment variable, or None if the value is empty."""
    value = value.strip()
    if not value:
        return None
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"The environment variable {name} is {value!r}, expected a whole number of at least 1.")
    return int(value)


def n_processors(cgroups: Path = _CGROUPS) -> int:
    """Return the number of processors that this process may use.

    Parameters
    ----------
    cgroups : Path
        The root of the control groups of Linux, where the quota of a container is found.
    """
    n_allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(n_allowed, container_quota(cgroups))))


def container_quota(cgroups: Path) -> float:
    """Return how many processors' time a container may use, infinity if it has no limit."""
    for names in _QUOTA_FILES:
        try:
            quota, period = " ".join((cgroups / name).read_text() for name in names).split()
            # The words for "no limit" are "max" in version 2 and -1 in version 1.
            return int(quota) / int(period) if quota not in ("max", "-1") else math.inf
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return math.inf


def run_in_threads(
    work: Callable[[slice], Result], chunks: Sequence[slice], stop: Callable[[], None]
) -> Generator[Result, None, None]:
    """Yield what ``work`` returns for every chunk, in the order of the chunks.

    The work runs in threads of its own, so that the calling thread can answer an interrupt while it waits.

    Parameters
    ----------
    work : callable
        Called with a chunk.
    chunks : sequence of slice
        What to work on.
    stop : callable
        Called when no more results are wanted, at the end or after an exception. It ends running calls of ``work``.
    """
    pool = ThreadPoolExecutor(max(1, min(get_num_threads(), len(chunks))))
    try:
        yield from pool.map(work, chunks)
    finally:
        stop()
        pool.shutdown(cancel_futures=True)
