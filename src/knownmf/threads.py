"""Run chunks of work in a pool of threads, determine the number of threads, and limit that of BLAS."""

import contextlib
import functools
import math
import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from knownmf.validation import whole_number

Result = TypeVar("Result")
Chunk = TypeVar("Chunk")

_END = object()  # what stands for the end of blocks

# The files in which Linux stores the limit of a container on processor time, for version 2 and version 1 of control
# groups.
_CGROUPS = Path("/sys/fs/cgroup")
_QUOTA_FILES = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))

_n_threads: int | None = None  # as set by set_num_threads
_of_this_thread = threading.local()  # its attribute ``single`` is true inside one_thread

# The number of calls that need single-threaded BLAS now, and the function that ends the limit.
_n_single = 0
_end_limit: Callable[[], None] = lambda: None  # noqa: E731
_single_lock = threading.Lock()
if hasattr(os, "register_at_fork"):  # a forked process must not inherit a lock that another thread holds
    os.register_at_fork(
        before=_single_lock.acquire, after_in_parent=_single_lock.release, after_in_child=_single_lock.release
    )


def get_num_threads() -> int:
    """Return the number of threads in which frames are solved.

    The number is the first of these that is set: the argument of `set_num_threads`; the environment variable
    ``KNOWNMF_NUM_THREADS``; the first number in ``OMP_NUM_THREADS``; the number of processors that this process may
    use, which its affinity and the quota of its container limit. The environment is read once.

    Raises
    ------
    ValueError
        If the environment variable is not a whole number of at least 1.
    """
    if getattr(_of_this_thread, "single", False):
        return 1
    return _default_num_threads() if _n_threads is None else _n_threads


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let calls from this thread use one thread, where somebody else decides how many run at a time, as Dask does."""
    before = getattr(_of_this_thread, "single", False)
    _of_this_thread.single = True
    try:
        yield
    finally:
        _of_this_thread.single = before


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
    """Return the number of threads from the environment, else the number of processors for this process."""
    return (
        _threads_in_variable("KNOWNMF_NUM_THREADS", os.environ.get("KNOWNMF_NUM_THREADS", ""))
        # In a list such as "4,2", which is for nested parallel regions, the first number is for the outermost.
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
        The root folder of the control groups of Linux, which have the quota of a container.
    """
    n_allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(n_allowed, container_quota(cgroups))))


def container_quota(cgroups: Path) -> float:
    """Return the quota of a container as a number of processors; infinity if it has no limit."""
    for names in _QUOTA_FILES:
        try:
            quota, period = " ".join((cgroups / name).read_text() for name in names).split()
            # "No limit" is written as "max" in version 2 and as -1 in version 1.
            return int(quota) / int(period) if quota not in ("max", "-1") else math.inf
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return math.inf


def run_in_threads(
    work: Callable[[Chunk], Result], chunks: Sequence[Chunk], stop: Callable[[], None]
) -> Generator[Result, None, None]:
    """Yield what ``work`` returns for every chunk, in the order of the chunks.

    The calling thread only waits for the other threads, so that it can respond to an interrupt. Inside of
    :func:`one_thread` it does the work itself.

    Parameters
    ----------
    work : callable
        The function that is called with each chunk.
    chunks : sequence
        The chunks, such as slices.
    stop : callable
        The function that is called at the end, or after an exception. It must end running calls of ``work``.
    """
    if getattr(_of_this_thread, "single", False):
        yield from map(work, chunks)
        return
    pool = ThreadPoolExecutor(max(1, min(get_num_threads(), len(chunks))))
    try:
        yield from pool.map(work, chunks)
    finally:
        stop()
        pool.shutdown(cancel_futures=True)


@functools.cache
def limit_blas_of_worker() -> None:
    """Let BLAS use one thread in a process that works for Dask, from now on.

    Nothing changes where it does so already: workers of ``distributed`` are started like that, and in the process of
    the caller, :func:`single_threaded_blas` is in force.
    """
    from threadpoolctl import threadpool_info, threadpool_limits

    if any(library["num_threads"] > 1 for library in threadpool_info() if library["user_api"] == "blas"):
        threadpool_limits(1, user_api="blas")


@contextlib.contextmanager
def other_threads(number: int = 1) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of threads, which have ended when an exception leaves here, also an interrupt."""
    started = threading.Barrier(number)
    with ThreadPoolExecutor(number) as pool:
        try:
            # An interrupt that arrives while a thread starts would leave it behind: at that time it does nothing.
            for waiting in [pool.submit(started.wait) for _ in range(number)]:
                waiting.result()
            yield pool
        finally:
            started.abort()
            pool.shutdown(cancel_futures=True)


def read_ahead(blocks: Generator[Result, None, None]) -> Generator[Result, None, None]:
    """Yield blocks while another thread computes the next one.

    All blocks are computed in this other thread. ``blocks`` are closed before an exception leaves here.
    """
    with contextlib.closing(blocks), other_threads() as other:
        following: Future[Any] = other.submit(next, blocks, _END)
        while (block := following.result()) is not _END:
            following = other.submit(next, blocks, _END)
            yield block


@contextlib.contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Let BLAS and OpenMP use one thread, so that sums are computed in the same order on every machine.

    The number of threads of BLAS belongs to the process. If several Python threads need this at the same time, the
    first one begins the limit and the last one ends it. The number of threads of OpenMP belongs to the calling thread.
    """
    global _n_single, _end_limit
    from threadpoolctl import threadpool_limits  # imported here, because only learning needs it

    with _single_lock:
        if _n_single == 0:
            _end_limit = _begin_limit()
        _n_single += 1
    try:
        with threadpool_limits(1, user_api="openmp"):
            yield
    finally:
        with _single_lock:
            _n_single -= 1
            if _n_single == 0:
                _end_limit()


def _begin_limit() -> Callable[[], None]:
    """Limit BLAS to one thread, and return the function that restores its number of threads.

    A thread of its own holds the limit, because threadpoolctl lets a number of threads be restored only by the thread
    that has changed it.
    """
    from threadpoolctl import threadpool_limits

    begun, ended = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with threadpool_limits(1):
                begun.set()
                ended.wait()
        finally:
            begun.set()

    def end() -> None:
        ended.set()
        holder.join()

    holder = threading.Thread(target=hold, name="knownmf: BLAS limit", daemon=True)
    holder.start()
    try:
        begun.wait()
    except BaseException:  # an interrupt
        ended.set()
        raise
    return end
