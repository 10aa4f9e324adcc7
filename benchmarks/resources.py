"""What two threads gain, and the memory that a call takes beyond its input and its result."""

import ctypes
import gc
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numba
import numpy as np

import knownmf

from . import cases

PROCESS = Path("/proc/self")  # Linux tells here how much memory a process has, and had at most


def two_threads(share):
    """How many times faster two threads are than one, case by case; a text for the report."""
    if numba.config.NUMBA_NUM_THREADS < 2:
        return "Threads: this machine has one core."
    before, ratios = numba.get_num_threads(), []
    for case in cases.all_cases(share):
        took = {1: np.inf, 2: np.inf}
        for n_threads in 4 * [1, 2]:  # in turns, so that what else the machine does meets both
            numba.set_num_threads(n_threads)
            start = time.perf_counter()
            knownmf.activations(case.V, case.W, case.beta_loss)
            took[n_threads] = min(took[n_threads], time.perf_counter() - start)
        ratios.append(f"{case.name} {took[1] / took[2]:.2f}")
    numba.set_num_threads(before)
    return f"Two threads beside one, to 1e-4, times faster: {', '.join(ratios)}."


def resident(name):
    """A process's memory in bytes: now (VmRSS), or the most since its mark was reset (VmHWM)."""
    lines = dict(line.split(":", 1) for line in (PROCESS / "status").read_text().splitlines())
    return 1024 * int(lines[name].split()[0])


def beyond(dtype, order, n_frames):
    """The most memory that a call takes beyond V and what it returns, in sizes of V; in a process of its own."""
    V = np.ones((1025, n_frames), dtype, order)
    V += (np.arange(n_frames) % 7).astype(dtype)
    W = cases.partials(1025, 10)
    knownmf.activations(V[:, :64], W)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    (PROCESS / "clear_refs").write_text("5")  # the most memory so far is forgotten
    before = resident("VmRSS")
    found = knownmf.activations(V, W)
    returned = sum(values.nbytes for values in vars(found).values() if isinstance(values, np.ndarray))
    return (resident("VmHWM") - before - returned) / V.nbytes


def memory(share):
    """What a call takes beyond its input and its result, for every layout; a text for the report."""
    if not (PROCESS / "clear_refs").exists():
        return "Memory: measured on Linux only."
    n_frames, taken = int(20000 * share), []
    for dtype in ("float64", "float32", "int16"):
        for order in ("C", "F"):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                taken.append(f"{dtype} {order} {pool.submit(beyond, dtype, order, n_frames).result():.2f}")
    return f"Memory beyond V (1025 x {n_frames}) and the result, in sizes of V: {', '.join(taken)}."
