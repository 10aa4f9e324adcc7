"""What a user feels beside the time of a large call: the first call, a stream, threads, memory and single precision."""

import ctypes
import gc
import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

import knownmf

from . import cases, peers, report
from .comparisons import WARM_UP_FRAMES, ours
from .gaps import worst_gap
from .timing import best_of, timed

PROCESS = Path("/proc/self")  # Linux tells here how much memory a process has, and had at most
ROOT = Path(__file__).parents[1]

DATA = "import numpy as np; r = np.random.default_rng(0); V, W = r.random((20, 5)), r.random((20, 3)); "
FIRST_CALLS = {
    "Python alone": "pass",
    "import numpy, scipy.sparse": "import numpy, scipy.sparse",
    "import knownmf": "import knownmf",
    "knownmf.activations": DATA + "import knownmf; knownmf.activations(V, W)",
    "knownmf.NMF": DATA + "import knownmf; knownmf.NMF.from_basis(W).transform(V.T)",
    "scikit-learn mu": DATA
    + "from sklearn.decomposition import non_negative_factorization as nmf; "
    + "nmf(V.T, H=W.T.copy(), n_components=3, init='custom', update_H=False, solver='mu', beta_loss=1)",
    "SciPy nnls": DATA + "from scipy.optimize import nnls; [nnls(W, v) for v in V.T]",
    "librosa.util.nnls": DATA + "import librosa; librosa.util.nnls(W, V)",
}

STREAM_TOL = 1e-3
STREAM_WARM_UP = 20  # frames

PRECISION_TOL = 1e-4


def first(quick):
    """Time from the start of the interpreter to its end."""
    text = "From the start of a fresh process to the end of its first call, on 20 bins x 3 components x 5 frames."
    calls = [partial(run_python, code) for code in FIRST_CALLS.values()]
    rows = [(name, f"{best.seconds:.3f}") for name, best in zip(FIRST_CALLS, best_of(*calls), strict=True)]
    return report.Section("first", text, ("what", "time, s"), rows)


def run_python(code):
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True, capture_output=True)


def stream(quick):
    """Time single frames, one call each; knownmf starts from the frame before."""
    n_frames = cases.sizes(400, 40, quick) + STREAM_WARM_UP
    kl = cases.harmonic(1025, 88, n_frames)
    frobenius = kl.under(cases.FROBENIUS)
    mu, cd = (next(iter(peers.peers_of(case, quick).items())) for case in (kl, frobenius))
    rows = [
        stream_row("Kullback-Leibler: knownmf.Solver", kl, from_frame_before(kl)),
        stream_row("Kullback-Leibler: knownmf.activations", kl, activations_from_frame_before(kl)),
        stream_row(f"Kullback-Leibler: {mu[0]}", kl, lambda v: mu[1](v, kl.W)),
        stream_row("Frobenius: knownmf.Solver", frobenius, from_frame_before(frobenius)),
        stream_row(f"Frobenius: {cd[0]}", frobenius, lambda v: cd[1](v, kl.W)),
        stream_row("Frobenius: SciPy nnls", frobenius, lambda v: peers.scipy_nnls(v, kl.W)),
    ]
    hop = 1e3 * 512 / cases.SAMPLE_RATE
    text = f"One frame a call, {kl.W.shape[0]} bins x {kl.W.shape[1]} components, knownmf to {STREAM_TOL:g} from the "
    text += f"frame before. A hop of 512 samples at {cases.SAMPLE_RATE} Hz is {hop:.1f} ms."
    return report.Section("stream", text, ("what", "median, ms", "99 % within, ms", "worst gap"), rows)


def from_frame_before(case):
    """Return a function that solves a frame with a prepared basis, started from the frame before."""
    solver, before = knownmf.Solver(case.W, case.beta_loss, tol=STREAM_TOL), [None]

    def solve(v):
        before[0] = solver.solve(v, H_init=before[0]).H
        return before[0]

    return solve


def activations_from_frame_before(case):
    """Return the same with a basis that is prepared anew at each call."""
    before = [None]

    def solve(v):
        before[0] = knownmf.activations(v, case.W, case.beta_loss, tol=STREAM_TOL, H_init=before[0]).H
        return before[0]

    return solve


def stream_row(name, case, solve):
    """Return a row with the times of single frames."""
    calls = [timed(partial(solve, case.V[:, [t]])) for t in range(case.V.shape[1])]
    H = np.concatenate([call.result for call in calls], axis=1)
    milliseconds = [1e3 * call.seconds for call in calls[STREAM_WARM_UP:]]
    median, most = np.percentile(milliseconds, (50, 99))
    return name, f"{median:.2f}", f"{most:.2f}", report.gap(worst_gap(case, H))


def two_threads(quick):
    """Compare two threads with one."""
    section = report.Section("threads", "knownmf to 1e-4.", ("case", "one thread, s", "two threads, s", "times faster"))
    if knownmf.get_num_threads() < 2:
        section.text = "This machine has one processor."
        return section
    for case in cases.main_cases(quick):
        one, two = (partial(ours_in_threads, case, n_threads) for n_threads in (1, 2))
        ours(case.first_frames(WARM_UP_FRAMES), 1e-4)
        slow, fast = best_of(one, two)
        times = report.seconds(slow.seconds), report.seconds(fast.seconds)
        section.rows.append((case.name, *times, report.ratio(slow.seconds, fast.seconds)))
    return section


def ours_in_threads(case, n_threads):
    before = knownmf.get_num_threads()
    knownmf.set_num_threads(n_threads)
    ours(case, 1e-4)
    knownmf.set_num_threads(before)


def precision(quick):
    """Compare single with double precision."""
    text = f"knownmf to {PRECISION_TOL:g}; the gap of single precision is that for the rounded data."
    columns = ("case", "float64, s", "worst gap", "float32, s", "worst gap", "times faster")
    section = report.Section("precision", text, columns)
    for case in cases.main_cases(quick):
        rounded = case._replace(V=case.V.astype(np.float32))
        for one in (case, rounded):
            ours(one.first_frames(WARM_UP_FRAMES), PRECISION_TOL)
        double, single = best_of(partial(ours, case, PRECISION_TOL), partial(ours, rounded, PRECISION_TOL))
        cells = []
        for one, best in ((case, double), (rounded, single)):
            cells += [report.seconds(best.seconds), report.gap(worst_gap(one, best.result.H))]
        section.rows.append((case.name, *cells, report.ratio(double.seconds, single.seconds)))
    return section


def memory(quick):
    """Measure what a call takes beyond its input and its result, for every layout of the data."""
    n_frames = cases.sizes(20000, 2500, quick)
    text = f"Memory beyond V (1025 x {n_frames}) and the result, in sizes of V; 10 components."
    section = report.Section("memory", text, ("type", "order", "sizes of V"))
    if not (PROCESS / "clear_refs").exists():
        section.text = "Measured on Linux only."
        return section
    for dtype in ("float64", "float32", "int16"):
        for order in ("C", "F"):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                beyond = pool.submit(memory_beyond, dtype, order, n_frames).result()
            section.rows.append((dtype, order, f"{beyond:.2f}"))
    return section


def memory_beyond(dtype, order, n_frames):
    """Return the most memory that a call takes beyond V and what it returns, in sizes of V; in a process of its own."""
    V = np.ones((1025, n_frames), dtype, order)
    V += (np.arange(n_frames) % 7).astype(dtype)
    W = cases.harmonic_basis(1025, 10)
    knownmf.activations(V[:, :64], W)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    (PROCESS / "clear_refs").write_text("5")  # forget the most memory so far
    before = resident("VmRSS")
    found = knownmf.activations(V, W)
    returned = sum(values.nbytes for values in vars(found).values() if isinstance(values, np.ndarray))
    return (resident("VmHWM") - before - returned) / V.nbytes


def resident(name):
    """Return a process's memory in bytes: now (VmRSS), or the most since its mark was reset (VmHWM)."""
    lines = dict(line.split(":", 1) for line in (PROCESS / "status").read_text().splitlines())
    return 1024 * int(lines[name].split()[0])
