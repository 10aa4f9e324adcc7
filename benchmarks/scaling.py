"""Time against the number of components, bins and frames, on log-log axes."""

from functools import partial

from matplotlib.figure import Figure

import knownmf

from . import cases, peers
from .comparisons import WARM_UP_FRAMES
from .timing import best_of

SIZES = {
    "components": (5, 10, 20, 40, 80, 160, 320, 640),
    "bins": (65, 129, 257, 513, 1025, 2049, 4097),
    "frames": (10, 30, 100, 300, 1000, 3000),
}
KEPT = {"bins": 513, "components": 40, "frames": 200}  # the sizes that are not on the axis


def solvers():
    """Return what is drawn: the same data for all, each to where it usually stops."""
    mu = partial(peers.scikit_learn, beta_loss=1.0, solver="mu", max_iter=peers.DEFAULT_ITERATIONS, tol=0.0)
    return {
        "knownmf, KL to 1e-4": partial(knownmf.activations, beta_loss="kullback-leibler", tol=1e-4),
        "knownmf, least squares to 1e-4": partial(knownmf.activations, beta_loss="frobenius", tol=1e-4),
        f"scikit-learn mu, KL, {peers.DEFAULT_ITERATIONS} iterations": mu,
        "SciPy nnls, least squares": peers.scipy_nnls,
    }


def times(axis, size):
    """Return the best time of each solver for a problem."""
    shape = {**KEPT, axis: size}
    case = cases.harmonic(shape["bins"], shape["components"], shape["frames"])
    for solve in solvers().values():
        solve(case.V[:, :WARM_UP_FRAMES], case.W)
    best = best_of(*(partial(solve, case.V, case.W) for solve in solvers().values()))
    return [one.seconds for one in best]


def picture():
    """Draw time against each of the three sizes, the other two kept."""
    figure = Figure(figsize=(14, 5), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    for ax, (axis, sizes) in zip(axes, SIZES.items(), strict=True):
        lines = zip(*(times(axis, size) for size in sizes), strict=True)
        for name, line in zip(solvers(), lines, strict=True):
            ax.loglog(sizes, line, "o-" if "knownmf" in name else "s--", label=name)
        kept = ", ".join(f"{value} {name}" for name, value in KEPT.items() if name != axis)
        ax.set(xlabel=f"{axis} ({kept})", title=f"Time against {axis}")
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("seconds")
    axes[0].legend()
    return figure
