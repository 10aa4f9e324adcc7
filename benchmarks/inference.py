"""Measure what docs/inference.md says: the coverage of errors and intervals, rejections of good fits, the selection.

Run it as `python -m benchmarks.inference`, with the path of an .npz file that has a basis `W` to use that instead of a
random one. It takes some minutes.
"""

import sys
import time

import numpy as np
from scipy.optimize import nnls
from scipy.stats import chi2

import knownmf

N_BINS, N_COMPONENTS = 96, 86
COUNTS = (100, 500, 2000, 10000, 50000)


def basis():
    """Return the basis that is measured."""
    if len(sys.argv) > 1:
        return np.load(sys.argv[1])["W"]
    return np.random.default_rng(1).dirichlet(np.full(N_BINS, 0.5), N_COMPONENTS).T


def catalogs(W, n_counts, n_frames, seed=0):
    """Return counts of 5 to 10 components for each frame, the first and the fifth always, and their activations."""
    rng = np.random.default_rng(seed)
    H = np.zeros((W.shape[1], n_frames))
    others = np.setdiff1d(np.arange(W.shape[1]), (0, 4))
    for t in range(n_frames):
        n_active = rng.integers(5, 11)
        active = np.r_[0, 4, rng.choice(others, n_active - 2, replace=False)]
        h = rng.lognormal(0.0, 1.2, n_active)
        H[active, t] = n_counts * h / h.sum()
    return rng.poisson(W @ H).astype(float), H


def error(H, truth):
    """Return half the L1 distance of normalized activations, averaged over the frames."""
    shares = (values / np.maximum(values.sum(axis=0), 1e-300) for values in (H, truth))
    return 0.5 * float(np.abs(np.subtract(*shares)).sum(axis=0).mean())


def selection(W):
    print("| counts | SciPy nnls | no selection | aic | bic | bic, with a prior | components | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    prior = np.full(W.shape[1], 5.5 / (W.shape[1] - 2))
    prior[[0, 4]] = 0.99
    for n_counts in COUNTS:
        V, H = catalogs(W, n_counts, 200)
        squares = np.column_stack([nnls(W, x)[0] for x in V.T])
        start = time.perf_counter()
        bic = knownmf.select(V, W)
        seconds = time.perf_counter() - start
        columns = (
            squares,
            knownmf.activations(V, W, tol=1e-8).H,
            knownmf.select(V, W, "aic").found.H,
            bic.found.H,
            knownmf.select(V, W, prior=prior).found.H,
        )
        errors = " | ".join(f"{error(found, H):.3f}" for found in columns)
        print(f"| {n_counts} | {errors} | {bic.support.sum(axis=0).mean():.1f} | {seconds:.1f} |", flush=True)


def coverage(W):
    print("| counts | true support: errors | bootstrap | bic: errors | bootstrap | no selection: errors | bootstrap |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    few = slice(0, 60)  # frames for the bootstrap
    for n_counts in COUNTS[1:]:
        V, H = catalogs(W, n_counts, 400)
        shares = []
        for support in (H > 0, knownmf.select(V, W).support, np.ones(H.shape, bool)):
            found = knownmf.activations(V, W, support=support, tol=1e-8)
            right = (found.H > 0) & (H > 0)
            inside = np.abs(found.H - H) <= 1.96 * knownmf.standard_errors(V, W, found)
            shares.append(inside[right].mean())
            lower, upper = knownmf.bootstrap(V[:, few], W, support=support[:, few], random_state=0).quantiles
            inside = (lower <= H[:, few]) & (H[:, few] <= upper)
            shares.append(inside[right[:, few]].mean())
        print(f"| {n_counts} | " + " | ".join(f"{share:.3f}" for share in shares) + " |", flush=True)


def bootstrap_times(W):
    print("| counts | seconds | seconds of processors |")
    print("| --- | --- | --- |")
    for n_counts in COUNTS[1:]:
        V, _ = catalogs(W, n_counts, 1000)
        start = time.perf_counter(), time.process_time()
        knownmf.bootstrap(V, W, 200, random_state=0)
        print(
            f"| {n_counts} | {time.perf_counter() - start[0]:.0f} | {time.process_time() - start[1]:.0f} |", flush=True
        )


def rejections(W):
    print("| counts a bin | 8 of 8 components | 86 components | chi-square, 8 components |")
    print("| --- | --- | --- | --- |")
    rng = np.random.default_rng(3)
    few = W[:, :8]
    for per_bin in (1, 3, 10, 100, 1000):
        H = rng.dirichlet(np.ones(8), 3000).T * per_bin * N_BINS
        V = rng.poisson(few @ H).astype(float)
        found = knownmf.activations(V, few, tol=1e-8)
        shares = [np.mean(knownmf.goodness_of_fit(V, few, found).p_value < 0.05)]
        every = knownmf.activations(V, W, tol=1e-8)
        shares.append(np.mean(knownmf.goodness_of_fit(V, W, every).p_value < 0.05))
        shares.append(np.mean(chi2.sf(found.deviance, N_BINS - (found.H > 0).sum(axis=0)) < 0.05))
        print(f"| {per_bin} | " + " | ".join(f"{100 * share:.1f} %" for share in shares) + " |", flush=True)


if __name__ == "__main__":
    for measure in (selection, coverage, rejections, bootstrap_times):
        measure(basis())
        print()
