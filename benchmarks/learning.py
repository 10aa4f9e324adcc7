"""Time to learn a basis to the objective that scikit-learn reaches, from the same start, in one process.

    python -m benchmarks.learning [--iterations 200] [--frames 2584] [--components 10 30 88]

scikit-learn's NMF (mu; cd for Frobenius) takes so many iterations from random numbers; then knownmf starts from
the same numbers. ``passes`` is the time until a pass has reached scikit-learn's objective, ``fit`` that of a whole fit
of so many passes, which also solves the activations to their optimum and proves it.
"""

import argparse
import time
import warnings

import numpy as np
from sklearn.decomposition import NMF as TheirNMF
from sklearn.exceptions import ConvergenceWarning

from benchmarks.cases import harmonic
from knownmf import NMF
from knownmf.divergences import BETA_OF


def random_start(X, n_components):
    rng = np.random.default_rng(0)
    size = np.sqrt(X.mean() / n_components)
    return {
        "W": np.abs(size * rng.standard_normal((len(X), n_components))),
        "H": np.abs(size * rng.standard_normal((n_components, X.shape[1]))),
    }


def objective(X, H, W, beta):
    """The divergence in double precision, in a form that knows nothing of either package."""
    v = np.maximum(H @ W, np.finfo(float).tiny)
    if beta == 2.0:
        return 0.5 * float(((X - v) ** 2).sum())
    ratio = X / v
    terms = X * np.log(ratio) - X + v if beta == 1.0 else ratio - np.log(ratio) - 1.0
    return float(terms.sum())


def timed(call):
    begin = time.perf_counter()
    result = call()
    return time.perf_counter() - begin, result


def learn(X, n_components, loss, start, n_passes):
    """Fit for so many passes; return the objectives, when each was reached, and the time of the whole fit."""
    values, times = [], []

    def note(_, value):
        values.append(value)
        times.append(time.perf_counter() - begin)

    model = NMF(n_components, init="custom", beta_loss=loss, tol=0.0, max_iter=n_passes, callback=note)
    begin = time.perf_counter()
    H = model.fit_transform(X, **start)
    return (
        np.array(values),
        np.array(times),
        time.perf_counter() - begin,
        objective(X, H, model.components_, BETA_OF[loss]),
    )


def compare(X, n_components, loss, n_iter):
    start = random_start(X, n_components)
    solver = "cd" if loss == "frobenius" else "mu"
    theirs = TheirNMF(n_components, init="custom", solver=solver, beta_loss=loss, tol=0.0, max_iter=n_iter)
    their_time, H = timed(lambda: theirs.fit_transform(X, **{name: values.copy() for name, values in start.items()}))
    target = objective(X, H, theirs.components_, BETA_OF[loss])
    learn(X[:64], n_components, loss, {**start, "W": start["W"][:64]}, 2)  # compile
    values, times, _, _ = learn(X, n_components, loss, start, n_iter)
    reached = np.flatnonzero(values <= target)
    if not len(reached):
        return f"{solver} {their_time:8.2f} s   not reached in as many passes: {values[-1] / target - 1:+.1e}"
    n_passes = int(reached[0]) + 1
    _, _, fit_time, final = learn(X, n_components, loss, start, n_passes)
    passes = times[reached[0]]
    return (
        f"{solver} {their_time:8.2f} s   passes {passes:7.2f} s ({n_passes:3d})   {their_time / passes:6.1f} x   "
        f"fit {fit_time:7.2f} s   {their_time / fit_time:6.1f} x   objective after {n_iter} passes "
        f"{values[-1] / target - 1:+.1e}, after fit {final / target - 1:+.1e}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--frames", type=int, default=2584)
    parser.add_argument("--components", type=int, nargs="+", default=[10, 30, 88])
    parser.add_argument("--losses", nargs="+", default=["kullback-leibler", "itakura-saito", "frobenius"])
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    X = np.ascontiguousarray(harmonic(1025, 88, options.frames).V.T)
    for loss in options.losses:
        for n_components in options.components:
            print(f"{loss:17s} K={n_components:3d}   {compare(X, n_components, loss, options.iterations)}", flush=True)


if __name__ == "__main__":
    main()
