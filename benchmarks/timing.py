"""Time two calls alike, and say on what machine.

Both sides of a comparison are warmed up by a call with a few frames, then run in turns, the same number of times; the
shortest time of each counts.
"""

import os
import platform
import time
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from threadpoolctl import threadpool_info, threadpool_limits

import knownmf
from knownmf.native_library import compiler, cpu_level

# How often both sides run, by the first time of the slower one.
LONG, SHORT = 10.0, 0.1  # seconds
N_LONG, N_MEDIUM, N_SHORT = 1, 3, 20

PACKAGES = ("numpy", "scipy", "scikit-learn", "librosa", "numba", "torch", "torchnmf", "cvxpy", "clarabel", "pysptools")
# Settings of OpenBLAS that make NumPy slower than it is by default.
SLOWING_VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


class Timed(NamedTuple):
    """The time of a call in seconds, and what it returned."""

    seconds: float
    result: Any


def timed(call):
    """Call once."""
    start = time.perf_counter()
    result = call()
    return Timed(time.perf_counter() - start, result)


def n_repeats(seconds):
    """Return how often to run two calls, the slower of which takes so long."""
    if seconds > LONG:
        return N_LONG
    return N_MEDIUM if seconds > SHORT else N_SHORT


def best_of(*calls):
    """Run calls in turns, so that other load on the machine meets all of them, and return the best time of each."""
    best = [timed(call) for call in calls]
    return improved(best, calls)


def improved(best, calls):
    """Run calls as often again as their first times say, and return the best time of each."""
    for _ in range(n_repeats(max(one.seconds for one in best)) - 1):
        best = [min(one, timed(call), key=lambda one: one.seconds) for one, call in zip(best, calls, strict=True)]
    return best


def race(theirs, ours_after):
    """Time a peer and knownmf alike.

    ``ours_after`` is called once, untimed, with what the peer's first run returned, and returns our call: the accuracy
    to ask for depends on the peer's answer.
    """
    first = timed(theirs)
    ours = ours_after(first.result)
    return improved([first, timed(ours)], (theirs, ours))


@contextmanager
def threads(n_threads):
    """Limit knownmf, BLAS and OpenMP to so many threads; None leaves them as they are."""
    if n_threads is None:
        yield
        return
    before = knownmf.get_num_threads()
    knownmf.set_num_threads(n_threads)
    try:
        with threadpool_limits(n_threads):
            yield
    finally:
        knownmf.set_num_threads(before)


def machine():
    """Return lines that say what the figures were measured on."""
    packages = ", ".join(f"{name} {number}" for name, number in installed())
    return [
        f"{processor()}, {os.cpu_count()} cores; Python {platform.python_version()}, {packages}",
        f"knownmf {knownmf.__version__}: {cpu_level()}, {compiler()}, {knownmf.get_num_threads()} threads",
        *blas_kernels(),
        *load(),
    ]


def installed():
    """Yield the packages that are installed, and their versions."""
    for name in PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def processor():
    """Return the name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def load():
    """Yield how busy the machine is: BLAS in several threads suffers most from other processes."""
    if hasattr(os, "getloadavg"):
        yield f"load average over one minute: {os.getloadavg()[0]:.1f}"


def blas_kernels():
    """Yield the kernel that each BLAS library runs, and a warning if the environment slows it."""
    for library in threadpool_info():
        if library["user_api"] == "blas":
            folder = Path(library["filepath"]).parent.name.removesuffix(".libs")
            kernel = f"kernel {library.get('architecture', 'unknown')}, {library['num_threads']} threads"
            yield f"BLAS of {folder}: {library['internal_api']} {library['version']}, {kernel}"
    for name in SLOWING_VARIABLES:
        if name in os.environ:
            yield f"WARNING: {name}={os.environ[name]} is set, and slows NumPy and SciPy: unset it."
