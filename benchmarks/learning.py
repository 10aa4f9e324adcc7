"""Time to learn a basis to the objective that others reach, from the same start, in one process.

    python -m benchmarks.learning [--cases notes sparse frozen] [--iterations 200 1000] [--components 10 30 88]

The others are scikit-learn's NMF (mu; cd for Frobenius), and where half of the basis is frozen, which that cannot do,
multiplicative updates in NumPy. They take so many iterations from random numbers; then knownmf starts from the same
numbers. ``passes`` is the time until a pass has reached their objective, in up to three times as many passes as they
take; ``fit`` is the time of a whole fit of so many passes, which also solves the activations and certifies them.
``sparse`` are counts of which one in a hundred is not zero.
"""

import argparse
import time
import warnings
from functools import partial

import numpy as np
import scipy.sparse
from scipy.special import xlogy
from sklearn.decomposition import NMF as TheirNMF
from sklearn.exceptions import ConvergenceWarning

from benchmarks.cases import harmonic
from benchmarks.timing import machine, timed
from knownmf import NMF

BETA_OF = {"frobenius": 2.0, "kullback-leibler": 1.0, "itakura-saito": 0.0}
TINY = np.finfo(float).tiny
MOST = 3  # times as many passes as the others take
WARM_UP_FRAMES, WARM_UP_PASSES = 64, 2


def sparse_counts(n_samples, n_features=2000, n_topics=30, density=0.01):
    """Return counts of a few topics a sample, with about a share ``density`` of entries that are not zero."""
    rng = np.random.default_rng(6)
    topics = rng.dirichlet(np.full(n_features, 0.05), n_topics)
    H = rng.gamma(0.3, 1.0, (n_samples, n_topics))
    H *= 1.05 * density * n_features / H.sum(axis=1).mean()  # some counts fall on the same entry
    return scipy.sparse.vstack(
        [scipy.sparse.csr_array(rng.poisson(rows @ topics).astype(float)) for rows in np.array_split(H, 20)]
    ).tocsr()


def random_start(X, n_components, known):
    """Return random numbers of the right size, and the known components as they are."""
    rng = np.random.default_rng(0)
    size = np.sqrt(X.mean() / n_components)
    W = np.abs(size * rng.standard_normal((X.shape[0], n_components)))
    H = np.abs(size * rng.standard_normal((n_components, X.shape[1])))
    H[: len(known)] = known
    return {"W": W, "H": H}


def objective(X, H, W, beta):
    """Return the divergence in double precision, computed apart from any package."""
    total = 0.0
    for first in range(0, X.shape[0], 2000):
        x = X[first : first + 2000]
        x = x.toarray() if scipy.sparse.issparse(x) else x
        v = np.maximum(H[first : first + 2000] @ W, TINY)
        if beta == 2.0:
            total += 0.5 * float(((x - v) ** 2).sum())
        elif beta == 1.0:
            total += float((xlogy(x, x / v) - x + v).sum())
        else:
            total += float((x / v - np.log(x / v) - 1.0).sum())
    return total


def scikit_learn(X, loss, start, n_iter):
    solver = "cd" if loss == "frobenius" else "mu"
    model = TheirNMF(len(start["H"]), init="custom", solver=solver, beta_loss=loss, tol=0.0, max_iter=n_iter)
    H = model.fit_transform(X, **{name: values.copy() for name, values in start.items()})
    return H, model.components_


def numpy_updates(X, loss, start, n_iter, n_frozen):
    """Run multiplicative updates that put the frozen rows back, in double precision."""
    beta, H, W = BETA_OF[loss], start["W"].copy(), start["H"].copy()
    power = 0.5 if beta == 0.0 else 1.0
    for _ in range(n_iter):
        v = np.maximum(H @ W, TINY)
        H *= ((X * v ** (beta - 2.0) @ W.T) / (v ** (beta - 1.0) @ W.T)) ** power
        v = np.maximum(H @ W, TINY)
        W *= ((H.T @ (X * v ** (beta - 2.0))) / (H.T @ v ** (beta - 1.0))) ** power
        W[:n_frozen] = start["H"][:n_frozen]
    return H, W


def learn(X, loss, start, known, n_passes):
    """Fit for so many passes; return the objectives, when each was reached, and the estimator with its activations."""
    values, times = [], []

    def note(_, value):
        values.append(value)
        times.append(time.perf_counter() - begin)

    model = NMF(
        len(start["H"]), components=known if len(known) else None, init="custom", beta_loss=loss, tol=0.0,
        max_iter=n_passes, callback=note,
    )  # fmt: skip
    begin = time.perf_counter()
    H = model.fit_transform(X, **start)
    return np.array(values), np.array(times), model, H


def compare(X, n_components, loss, n_iter, known):
    start = random_start(X, n_components, known)
    few = X[:WARM_UP_FRAMES], loss, {**start, "W": start["W"][:WARM_UP_FRAMES]}
    if len(known):
        name, peer = "NumPy", partial(numpy_updates, n_frozen=len(known))
    else:
        name, peer = "cd" if loss == "frobenius" else "mu", scikit_learn
    peer(*few, WARM_UP_PASSES)
    their_time, found = timed(lambda: peer(X, loss, start, n_iter))
    target = objective(X, *found, BETA_OF[loss])
    learn(*few, known, WARM_UP_PASSES)
    for most in (n_iter, MOST * n_iter):
        values, times, _, _ = learn(X, loss, start, known, most)
        reached = np.flatnonzero(values <= target * (1.0 + 1e-9))  # as far as rounding lets one tell
        after = values[min(n_iter, len(values)) - 1] / target - 1
        if len(reached):
            break
    else:
        end = values[-1] / target - 1
        return f"{name} {their_time:8.2f} s   not reached: {after:+.1e} after as many passes, {end:+.1e} after {most}"
    n_passes = int(reached[0]) + 1
    fit_time, (_, _, model, H) = timed(lambda: learn(X, loss, start, known, n_passes))
    passes, final = times[reached[0]], objective(X, H, model.components_, BETA_OF[loss])
    return (
        f"{name} {their_time:8.2f} s   passes {passes:7.2f} s ({n_passes:3d})   {their_time / passes:6.1f} x   "
        f"fit {fit_time:7.2f} s   {their_time / fit_time:6.1f} x   objective after as many passes {after:+.1e}, "
        f"after fit {final / target - 1:+.1e}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=["notes", "sparse", "frozen"])
    parser.add_argument("--iterations", type=int, nargs="+", default=[200])
    parser.add_argument("--frames", type=int, default=2584, help="of notes and frozen")
    parser.add_argument("--samples", type=int, default=20_000, help="of sparse")
    parser.add_argument("--components", type=int, nargs="+", default=[10, 30, 88])
    parser.add_argument("--losses", nargs="+", default=["kullback-leibler", "itakura-saito", "frobenius"])
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    print(*machine(), sep="\n")
    for case in options.cases:
        notes = None if case == "sparse" else harmonic(1025, 88, options.frames)
        X = sparse_counts(options.samples) if case == "sparse" else np.ascontiguousarray(notes.V.T)
        for loss in options.losses:
            if case == "sparse" and loss == "itakura-saito":
                continue  # every zero would have to be looked at
            for n_components in options.components:
                # Notes from all over the keyboard.
                spread = np.linspace(0, 87, n_components // 2).round().astype(int)
                known = notes.W.T[spread] if case == "frozen" else np.empty((0, X.shape[1]))
                for n_iter in options.iterations:
                    line = compare(X, n_components, loss, n_iter, known)
                    print(f"{case:6s} {loss:17s} K={n_components:3d} {n_iter:4d} iterations   {line}", flush=True)


if __name__ == "__main__":
    main()
