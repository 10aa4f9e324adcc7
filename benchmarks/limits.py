"""Activations with upper bounds, or that sum to a total, beside what one would use instead, and beside no limits."""

import importlib.util
import warnings
from functools import partial

import numpy as np
from scipy.optimize import lsq_linear, nnls

import knownmf

from . import cases, report
from .timing import race

TOL = 1e-6
# What the activations of peers are compared with.
EXACT_TOL = 1e-12
# The weight of the row of ones that makes nnls keep a sum, in units of the largest value of the basis.
HEAVY = 1e3
# Frames that slow peers solve.
FEW_FRAMES = 200

COLUMNS = ("problem", "peer", "frames", "its time, s", "its largest error", "its sums are off by", "knownmf, s",
           "knownmf's largest error", "times faster")  # fmt: skip


def limits(quick):
    """Compare limited problems with peers, and with the same problem without limits."""
    unmixing, signatures = cases.unmixing(quick), cases.counts(96, 86, cases.sizes(2000, 100, quick), name="signatures")
    counts = signatures.V.sum(axis=0)
    text = (
        f"Upper bounds and totals. {unmixing.name}: {unmixing.shapes}, {unmixing.beta_loss}; "
        f"{signatures.name}: {signatures.shapes}, {signatures.beta_loss}. knownmf to {TOL:g}. Errors are the largest "
        f"difference of an activation from its optimum (knownmf to {EXACT_TOL:g}), as a share of the sum of its "
        "frame. The last rows have knownmf itself without limits as the peer."
    )
    section = report.Section("limits", text, COLUMNS)
    few = unmixing.first_frames(FEW_FRAMES)
    if importlib.util.find_spec("pysptools"):
        section.rows.append(compare(unmixing, "total=1", {"total": 1.0}, "pysptools FCLS", fcls))
    section.rows.append(compare(unmixing, "total=1", {"total": 1.0}, "SciPy nnls, heavy row of ones", heavy_row))
    section.rows.append(
        compare(unmixing, "total=1", {"total": 1.0}, "cvxpy, all pixels at once", least_squares_at_once)
    )
    section.rows.append(compare(few, "total=1", {"total": 1.0}, "cvxpy, a pixel at a time", least_squares_one_by_one))
    section.rows.append(compare(few, "upper=0.3", {"upper": 0.3}, "SciPy lsq_linear", partial(bounded, upper=0.3)))
    some = signatures.first_frames(FEW_FRAMES)
    half = {"total": some.V.sum(axis=0) / 2}
    section.rows.append(compare(some, "total=half the counts", half, "cvxpy, all samples at once", divergence_at_once))
    for case, problem, limit in (
        (unmixing, "total=1", {"total": 1.0}),
        (unmixing, "max_total=1", {"max_total": 1.0}),
        (unmixing, "upper=0.3", {"upper": 0.3}),
        (unmixing, "upper=0.5, total=1", {"upper": 0.5, "total": 1.0}),
        (signatures, "total=counts", {"total": counts}),
        (signatures, "total=half the counts", {"total": counts / 2}),
        (signatures, "max_total=half the counts", {"max_total": counts / 2}),
        (signatures, "upper=100", {"upper": 100.0}),
    ):
        section.rows.append(beside_no_limits(case, problem, limit))
    return section


def ours(case, tol, **limits):
    return knownmf.activations(case.V, case.W, case.beta_loss, tol=tol, **limits).H


def compare(case, problem, limit, name, peer):
    """Return a row: a peer with a limit, and knownmf."""
    peer(case.V[:, :2], case.W, **cut(limit, 2))
    theirs, found = race(partial(peer, case.V, case.W, **limit), lambda _: partial(ours, case, TOL, **limit))
    exact = ours(case, EXACT_TOL, **limit)
    sums = limit.get("total", np.inf)
    off = report.gap(np.max(np.abs(theirs.result.sum(axis=0) / sums - 1))) if "total" in limit else ""
    return (
        f"{case.name}, {problem}",
        name,
        str(case.V.shape[1]),
        report.seconds(theirs.seconds),
        report.gap(largest_error(theirs.result, exact)),
        off,
        report.seconds(found.seconds),
        report.gap(largest_error(found.result, exact)),
        report.ratio(theirs.seconds, found.seconds),
    )


def beside_no_limits(case, problem, limit):
    """Return a row with the time of knownmf without limits."""
    free, found = race(partial(ours, case, TOL), lambda _: partial(ours, case, TOL, **limit))
    error = largest_error(found.result, ours(case, EXACT_TOL, **limit))
    frames, ratio = str(case.V.shape[1]), report.ratio(free.seconds, found.seconds)
    name, times = f"{case.name}, {problem}", (report.seconds(free.seconds), report.seconds(found.seconds))
    return name, "knownmf without limits", frames, times[0], "", "", times[1], report.gap(error), ratio


def cut(limit, n_frames):
    """Return a limit for the first frames."""
    return {name: values[:n_frames] if np.ndim(values) else values for name, values in limit.items()}


def largest_error(H, exact):
    """Return the largest difference of an activation, as a share of the sum of its frame."""
    return np.max(np.abs(H - exact) / exact.sum(axis=0))


def fcls(V, W, total):
    """Fully constrained least squares of pysptools, whose total is one."""
    from pysptools.abundance_maps.amaps import FCLS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return total * FCLS(V.T / total, W.T.copy()).T


def heavy_row(V, W, total):
    """Add a heavy row of ones to the basis, and of the total to the data."""
    weight = HEAVY * W.max()
    extended = np.vstack([W, np.full(W.shape[1], weight)])
    return np.stack([nnls(extended, np.append(x, weight * total))[0] for x in V.T], axis=1)


def bounded(V, W, upper):
    return np.stack([lsq_linear(W, x, (0, upper), tol=1e-10).x for x in V.T], axis=1)


def least_squares_at_once(V, W, total):
    import cvxpy

    H = cvxpy.Variable((W.shape[1], V.shape[1]), nonneg=True)
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(V - W @ H)), [cvxpy.sum(H, axis=0) == total])
    problem.solve(solver=cvxpy.CLARABEL)
    return H.value


def least_squares_one_by_one(V, W, total):
    """Solve a problem with a parameter for each frame, as its documentation advises."""
    import cvxpy

    h, x = cvxpy.Variable(W.shape[1], nonneg=True), cvxpy.Parameter(len(V))
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(x - W @ h)), [cvxpy.sum(h) == total])
    H = np.empty((W.shape[1], V.shape[1]))
    for t in range(V.shape[1]):
        x.value = V[:, t]
        problem.solve(solver=cvxpy.CLARABEL)
        H[:, t] = h.value
    return H


def divergence_at_once(V, W, total):
    """Solve all frames in one problem, in units of their totals; in the units of counts Clarabel fails."""
    import cvxpy

    shares, H = V / total, cvxpy.Variable((W.shape[1], V.shape[1]), nonneg=True)
    loss = cvxpy.sum(W @ H) - cvxpy.sum(cvxpy.multiply(shares[V > 0], cvxpy.log((W @ H)[V > 0])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its error is in the table
        cvxpy.Problem(cvxpy.Minimize(loss), [cvxpy.sum(H, axis=0) == 1]).solve(solver=cvxpy.CLARABEL)
    return H.value * total
