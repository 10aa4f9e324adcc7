"""Measure data larger than memory: wall time and peak memory against the number of frames and of workers.

python -m benchmarks.large            all of it, in about half an hour on an idle machine
python -m benchmarks.large frames     wall time and peak memory of a process, 1e4 to 1e7 frames made on read
python -m benchmarks.large workers    the overhead of Dask, with 1 and 2 workers of one thread
python -m benchmarks.large passes     bytes and seconds per pass of learning
python -m benchmarks.large bytes 50   wall time and peak memory for so many gigabytes
"""

import argparse
import functools
import json
import pickle
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

import knownmf
from knownmf import blocks
from knownmf.learning import descent

N_BINS, N_COMPONENTS, PERIOD = 1025, 8, 4096


@functools.cache
def period_of(n_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Return spectra (n_bins, N_COMPONENTS) and a mixture of them with noise, PERIOD frames long."""
    rng = np.random.default_rng(0)
    W = rng.gamma(0.5, 1.0, (n_bins, N_COMPONENTS))
    H = rng.gamma(0.5, 1.0, (N_COMPONENTS, PERIOD))
    return W, ((W @ H) * rng.gamma(5.0, 0.2, (n_bins, PERIOD))).astype(np.float32)


class Made:
    """Frames that are made when they are read: a mixture of known spectra with noise, again and again.

    ``shape`` is (n_bins, n_frames), or (n_frames, n_bins) for samples in rows.
    """

    def __init__(self, n_frames: int, n_bins: int = N_BINS, rows: bool = False) -> None:
        self.W, self.period = period_of(n_bins)
        self.rows, self.dtype, self.ndim = rows, self.period.dtype, 2
        self.shape = (n_frames, n_bins) if rows else (n_bins, n_frames)

    def __reduce__(self) -> tuple:
        return Made, (self.shape[0 if self.rows else 1], len(self.period), self.rows)

    def __getitem__(self, index: tuple[slice, ...] | slice) -> np.ndarray:
        chunk = index[0 if self.rows else 1] if isinstance(index, tuple) else index
        first, stop, _ = chunk.indices(self.shape[0 if self.rows else 1])
        made = self.period[:, np.arange(first, stop) % PERIOD]
        return made.T if self.rows else made


def in_a_process(code: str) -> dict[str, float]:
    """Run code in a new process; return its wall time and peak memory, and what it puts into ``result``."""
    script = f"""
import json, time
import numpy as np, knownmf
from benchmarks import large
result = {{}}
begin = time.perf_counter()
{code}
print(json.dumps(result | {{"seconds": time.perf_counter() - begin, "megabytes": large.peak()}}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def peak() -> float:
    """Return the peak memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def frames(beta_loss: str = "kullback-leibler") -> Iterator[str]:
    """Yield a table of wall time and peak memory against the number of frames."""
    yield f"activations, {N_BINS} bins x {N_COMPONENTS} components, {beta_loss}, float32, made on read"
    yield "| frames | data | wall time | per frame | peak memory | of it results |"
    yield "| ---: | ---: | ---: | ---: | ---: | ---: |"
    for n in (10**4, 10**5, 10**6, 10**7):
        code = f"V = large.Made({n}); knownmf.activations(V, V.W, {beta_loss!r}, tol=1e-2)"
        found, n_bytes = in_a_process(code), 4.0 * n * N_BINS
        results = n * (4 * N_COMPONENTS + 57) / 1e6
        yield (
            f"| {n:.0e} | {n_bytes / 1e9:.2f} GB | {found['seconds']:.1f} s | {1e6 * found['seconds'] / n:.1f} us | "
            f"{found['megabytes']:.0f} MB | {results:.0f} MB |"
        )


def of_bytes(gigabytes: float) -> Iterator[str]:
    """Yield wall time and peak memory of activations and of learning for so much data."""
    n = int(gigabytes * 1e9 / (4 * N_BINS))
    calls = {
        "activations": 'knownmf.activations(V, V.W, "frobenius", tol=1e-2)',
        "activations, least memory": (
            f'out = {{"H": np.memmap(f"{{folder}}/H", np.float32, "w+", shape=({N_COMPONENTS}, {n}))}};'
            'out |= {name: np.memmap(f"{folder}/{name}", kind, "w+", shape=(V.shape[1],)) '
            "for name, kind in large.blocks.CERTIFICATES.items()};"
            'knownmf.activations(V, V.W, "frobenius", tol=1e-2, out=out)'
        ),
        "NMF.fit, 2 passes": (
            f'X = large.Made({n}, rows=True); knownmf.NMF({N_COMPONENTS}, components=V.W.T[:7], init="random", '
            'beta_loss="frobenius", max_iter=2, tol=0.0, gap_tol=1e-2, random_state=0).fit(X)'
        ),
    }
    for name, call in calls.items():
        code = f"import tempfile\nwith tempfile.TemporaryDirectory() as folder:\n    V = large.Made({n}); {call}"
        found = in_a_process(code)
        yield f"{gigabytes:g} GB, {name}: {found['seconds']:.0f} s, peak {found['megabytes']:.0f} MB"


def workers(n_chunks: int = 16) -> Iterator[str]:
    """Yield what Dask adds to the plain call with as many threads as workers, for chunks of a second's work."""
    import dask.array as da
    from distributed import Client, LocalCluster

    small = Made(PERIOD)
    solver = knownmf.Solver(small.W, tol=1e-2)
    knownmf.set_num_threads(1)
    begin = time.perf_counter()
    solver.solve(small[:, 0:PERIOD])
    n_of_chunk = int(PERIOD / (time.perf_counter() - begin))
    yield f"chunks of {n_of_chunk} frames, about a second's work of one thread; {n_chunks} chunks"
    yield "| workers | plain | Dask | overhead |"
    yield "| ---: | ---: | ---: | ---: |"
    V = Made(n_chunks * n_of_chunk)
    for n in (1, 2):
        lazy = da.from_array(V, chunks=(N_BINS, n_of_chunk), asarray=False, name="made", meta=np.empty((0, 0), "f4"))
        with LocalCluster(n_workers=n, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
            da.store([knownmf.activations(lazy[:, : n * 100], V.W, tol=1e-2).gap], [np.empty(n * 100)])  # imports
            times = {"plain": [], "dask": []}
            knownmf.set_num_threads(n)
            for _ in range(3):
                begin = time.perf_counter()
                knownmf.activations(V, V.W, tol=1e-2)
                times["plain"].append(time.perf_counter() - begin)
                found = knownmf.activations(lazy, V.W, tol=1e-2)
                begin = time.perf_counter()
                found.H.compute()
                times["dask"].append(time.perf_counter() - begin)
            plain, dask = min(times["plain"]), min(times["dask"])
            yield f"| {n} | {plain:.2f} s | {dask:.2f} s | {100 * (dask / plain - 1):.1f} % |"


def passes(n: int = 40000) -> Iterator[str]:
    """Yield what a pass of learning sends to a worker and back, and how long it takes for a frame."""
    V = Made(n, rows=True)[0:n]
    for n_components, n_bins in ((8, 1025), (50, 1025), (100, 4097)):
        W = np.random.default_rng(0).random((n_components, n_bins))
        down = len(pickle.dumps(descent.Proceed(W, descent.Pace(np.float32, True)), 5))
        sums = descent.Statistics(np.zeros((n_components, n_bins)), np.zeros((n_components, n_bins)))
        up = len(pickle.dumps(descent.Sums(0.0, sums), 5))
        size = f"{n_components} components x {n_bins} bins"
        yield f"{size}: {down / 1e6:.2f} MB to a worker, {up / 1e6:.2f} MB from a block"
    for beta_loss in ("kullback-leibler", "frobenius", "itakura-saito"):
        seconds = []

        def note(*_: object, seconds: list[float] = seconds) -> None:
            seconds.append(time.perf_counter())

        # From some random starts, a pass is tried again: then the time is that of two.
        parameters = {"max_iter": 12, "tol": 0.0, "init": "random", "random_state": 0}
        model = knownmf.NMF(N_COMPONENTS, beta_loss=beta_loss, callback=note, **parameters)
        knownmf.set_num_threads(1)
        model.fit(V)
        per_pass = float(np.median(np.diff(seconds)))
        yield f"{beta_loss}: {1e6 * per_pass / n:.2f} us for a frame and a pass, one thread"


def chunks(n_chunks: int = 100) -> Iterator[str]:
    """Yield what a chunk costs in a pass of learning, beyond its work: chunks of ten frames, on two workers."""
    import dask.array as da
    from distributed import Client, LocalCluster

    V = Made(10 * n_chunks, 65, rows=True)
    X = da.from_array(V, chunks=(10, 65), asarray=False, name="made-small", meta=np.empty((0, 0), "f4"))
    seconds: list[float] = []
    parameters = {"max_iter": 6, "tol": 0.0, "init": "random", "random_state": 0}
    model = knownmf.NMF(2, callback=lambda *_: seconds.append(time.perf_counter()), **parameters)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        model.fit(X.persist())
    yield f"{1e3 * float(np.median(np.diff(seconds))) / n_chunks:.2f} ms for a chunk and a pass, {n_chunks} chunks"


def main() -> None:
    """Print the tables that are asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="?", choices=["frames", "workers", "passes", "chunks", "bytes"])
    parser.add_argument("gigabytes", nargs="?", type=float, default=50.0)
    arguments = parser.parse_args()
    tables = {
        "frames": frames,
        "workers": workers,
        "passes": passes,
        "chunks": chunks,
        "bytes": lambda: of_bytes(arguments.gigabytes),
    }
    for name in [arguments.what] if arguments.what else tables:
        for line in tables[name]():
            print(line, flush=True)


if __name__ == "__main__":
    main()

__all__ = ["Made", "blocks", "peak"]
