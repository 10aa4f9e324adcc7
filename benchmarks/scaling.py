"""Time against the number of components, bins and frames, on log-log axes."""

import time
from functools import partial

from matplotlib.figure import Figure

import knownmf

from . import cases, peers

SIZES = {
    "components": (5, 10, 20, 40, 80, 160, 320, 640),
    "bins": (65, 129, 257, 513, 1025, 2049, 4097),
    "frames": (10, 30, 100, 300, 1000, 3000),
}


def solvers():
    """What is drawn: the same data for all, each to where it usually stops."""
    return {
        "knownmf, KL to 1e-4": partial(knownmf.activations, beta_loss="kullback-leibler", tol=1e-4),
        "knownmf, least squares to 1e-4": partial(knownmf.activations, beta_loss="frobenius", tol=1e-4),
        "scikit-learn mu, KL, 200 iterations": peers.peers_of("kullback-leibler", 200)["scikit-learn mu, 200"],
        "SciPy nnls, least squares": peers.scipy_nnls,
    }


def problem(axis, size):
    shape = {"bins": 513, "components": 40, "frames": 200, axis: size}
    return cases.harmonic(shape["bins"], shape["components"], shape["frames"])


def picture(quick=False):
    """Draw time against each of the three sizes, the other two kept."""
    figure = Figure(figsize=(14, 5), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    for ax, (axis, sizes) in zip(axes, SIZES.items(), strict=True):
        sizes = sizes[::2] if quick else sizes
        took = {name: [] for name in solvers()}
        for size in sizes:
            case = problem(axis, size)
            for name, solve in solvers().items():
                solve(case.V[:, :4], case.W)
                start = time.perf_counter()
                solve(case.V, case.W)
                took[name].append(time.perf_counter() - start)
        for name, seconds in took.items():
            ax.loglog(sizes, seconds, "o-" if "knownmf" in name else "s--", label=name)
        kept = ", ".join(
            f"{value} {name}" for name, value in {"bins": 513, "components": 40, "frames": 200}.items() if name != axis
        )
        ax.set(xlabel=f"{axis} ({kept})", title=f"Time against {axis}")
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("seconds")
    axes[0].legend()
    return figure
