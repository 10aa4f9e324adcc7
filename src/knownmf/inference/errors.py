"""Standard errors of activations from the Fisher information."""

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from knownmf.inference.frames import Problem, Rows
from knownmf.inference.information import variances_of
from knownmf.limits import LimitArguments
from knownmf.results import Activations
from knownmf.validation import check_range, real_array

Dispersion = ArrayLike | Literal["pearson"] | None


def standard_errors(
    V: ArrayLike,
    W: ArrayLike,
    found: Activations,
    dispersion: Dispersion = None,
    *,
    weights: ArrayLike | None = None,
    background: ArrayLike | None = None,
    upper: ArrayLike | None = None,
    total: ArrayLike | None = None,
    max_total: ArrayLike | None = None,
) -> NDArray[np.float64]:
    r"""Return the standard errors of activations.

    The covariance of the free activations S of a frame, which are neither zero nor at an upper bound, is the inverse of
    their Fisher information times the dispersion [1]_:

    .. math:: \phi \, (W_S' \, \mathrm{diag}(m_f v_f^{\beta-2}) \, W_S)^{-1}, \qquad v = b + W h

    It is exact for least squares, and for the other losses as the data of a frame grow. The variance of a bin is taken
    to be :math:`\phi v^{2-\beta} / m`, except for whole numbers under Kullback-Leibler without a ``dispersion``: these
    are taken for Poisson counts, whose variance is v whatever their weights are. With the inverse C of the information,
    their covariance is :math:`C \, W_S' \, \mathrm{diag}(m_f^2 / v_f) \, W_S \, C`. If the activations have a total, or
    reach their maximal total, :math:`Z (Z' I Z)^{-1} Z'` takes the place of the inverse of the information I, where the
    columns of Z are a basis of the changes that leave the sum as it is.

    Parameters
    ----------
    V : array_like or sparse matrix, (n_bins, n_frames)
        The data.
    W : array_like, (n_bins, n_components)
        The basis.
    found : Activations
        Their activations, found without penalties.
    dispersion : float, array_like (n_frames,) or "pearson", optional
        The dispersion :math:`\phi`, above 0: for least squares the variance of the noise in a bin of weight 1. If it is
        not given, it is 1 for whole numbers under Kullback-Leibler, which are taken for Poisson counts, and "pearson"
        for everything else. "pearson" is the estimate :math:`\sum_f m_f v_f^{\beta-2} (x_f - v_f)^2 / (n - |S|)` of
        each frame, with n the number of its observed bins (one more is left if there is a total). Bins with data that
        no active component reaches are left out of it, except under least squares.
    weights, background : array_like, optional
        Those that ``found`` was solved with.
    upper, total, max_total : array_like, optional
        Other limits than those that ``found`` was solved with, which ``found`` satisfies. They need not be repeated.

    Returns
    -------
    (n_components, n_frames) float64
        The standard errors, in the units of ``found.H``; ``found.to_frame(errors)`` labels them. NaN where an
        activation is zero or at its upper bound, and where Pearson's estimate needs more bins than there are. Infinite
        where the data do not determine an activation, because its component is a combination of other active ones.

    Raises
    ------
    ValueError
        If ``found`` was solved with penalties, or not with these arrays, or a parameter is out of range.
    TypeError
        If something is not an array of real numbers.

    Notes
    -----
    The errors are conditional on which activations are zero, and know nothing of how these were chosen. If they were
    chosen by the same data (the solver sets many to zero, and ``select`` more), intervals of two standard errors on
    each side contain the true value less often than 95 % of the time. docs/inference.md has what was measured.

    References
    ----------
    .. [1] P. McCullagh and J. A. Nelder, "Generalized Linear Models", 2nd edition, Chapman and Hall, 1989, sections
       2.5 and 9.2.

    Examples
    --------
    >>> import numpy as np
    >>> import knownmf
    >>> W = np.array([[0.8, 0.0], [0.2, 0.5], [0.0, 0.5]])
    >>> V = W @ [[1000.0], [400.0]]
    >>> found = knownmf.activations(V, W, tol=1e-10)
    >>> knownmf.standard_errors(V, W, found).round(1)
    array([[34. ],
           [23.5]])
    """
    limits = LimitArguments(upper, total, max_total)
    problem = Problem.of_found(V, W, found, weights, background, limits, dispersion=dispersion)
    found = found.in_memory()
    is_weighted_counts = dispersion is None and problem.dispersion_is_known and weights is not None
    dispersion = check_dispersion(dispersion, problem)
    errors = np.full(found.H.shape, np.nan)
    for chunk, rows in problem.blocks(found):
        curvature = rows.curvature(problem.beta)
        # The slope of a bin is m (1 - x / v), and the variance of a count x is v, whatever its weight is.
        noise = rows.weights * curvature if is_weighted_counts else None
        variances = variances_of(problem.W, rows, curvature, noise)
        factor = dispersion_of(dispersion, rows, problem.beta, chunk)
        errors[:, chunk] = np.sqrt(variances * factor[:, np.newaxis]).T
    return errors


def check_dispersion(dispersion: Any, problem: Problem) -> NDArray[np.float64] | None:
    """Return the dispersion of each frame, (n_frames,), or None for Pearson's estimate."""
    n_frames = problem.observations.n_frames
    if dispersion is None and problem.dispersion_is_known:
        return np.ones(n_frames)
    if dispersion is None or (isinstance(dispersion, str) and dispersion == "pearson"):
        return None
    if isinstance(dispersion, str):
        raise ValueError(f"dispersion is {dispersion!r}: pass a number, one for each frame, or 'pearson'.")
    values = real_array(dispersion, "dispersion", 0, 1)
    if values.ndim and values.shape != (n_frames,):
        raise ValueError(
            f"dispersion has shape {values.shape}, expected one number or one for each of {n_frames} frames."
        )
    check_range(values, "dispersion")
    if (values == 0).any():
        where = f"[{np.argmin(values)}]" if values.ndim else ""
        raise ValueError(
            f"dispersion{where} is 0, expected a positive number: pass the variance of the noise in a bin, divided by "
            "v^(2 - beta)."
        )
    return np.full(n_frames, values, np.float64)


def dispersion_of(dispersion: NDArray[np.float64] | None, rows: Rows, beta: float, frames: Any) -> NDArray[np.float64]:
    """Return the dispersion of some frames: that of the user, or Pearson's estimate if it is None."""
    return rows.pearson(beta) if dispersion is None else dispersion[frames]
