"""Compute the activations of a known basis, or the basis of known activations, with a bound on their error."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from knownmf.blocks import BlockSolver, Question, is_sliced, n_dims_of, read_whole, solve
from knownmf.divergences import beta_of
from knownmf.limits import LimitArguments
from knownmf.observations import SAMPLES, Observations
from knownmf.results import Activations, Remarks
from knownmf.solver import Progress, Solver
from knownmf.table_labels import TableLabels
from knownmf.validation import about_dimensions, check_range, real_array


def activations(
    V: ArrayLike,
    W: ArrayLike,
    beta_loss: str | float = "kullback-leibler",
    l1: ArrayLike = 0.0,
    l2: ArrayLike = 0.0,
    weights: ArrayLike | None = None,
    background: ArrayLike | None = None,
    support: ArrayLike | None = None,
    H_init: ArrayLike | None = None,
    tol: float = 1e-4,
    max_iter: int = 200,
    *,
    upper: ArrayLike | None = None,
    total: ArrayLike | None = None,
    max_total: ArrayLike | None = None,
    out: Any = None,
    progress: Progress | None = None,
) -> Activations:
    r"""Find the activations of known basis vectors: ``V ~ background + W H``, without changing W.

    For every frame x (a column of V) by itself, find the h >= 0 that minimizes

    .. math:: \sum_f m_f d_\beta(x_f | v_f) + \sum_k l_{1k} h_k + \tfrac12 \sum_k l_{2k} h_k^2,
              \qquad v = b + W h

    The method is Newton's; each step minimizes a quadratic model exactly over h >= 0 [1]_. It stops when a bound on the
    distance from the optimum is at most ``tol``. For beta in [1, 2], the problem is convex, and the bound is a duality
    gap: the result is the global optimum to within ``gap``. For any other beta, it is close to a stationary point.

    Parameters
    ----------
    V : array_like or sparse matrix, (n_bins, n_frames)
        The data: real numbers of any type. They must not be negative, except with ``beta_loss="frobenius"``. NaN (or a
        masked entry, None, pandas.NA) means missing. A sparse matrix can be used for Kullback-Leibler and Frobenius,
        with weights for each bin, but without a background; it is never converted to a dense array as a whole.
    W : array_like, (n_bins, n_components)
        The basis vectors, not negative. A column of zeros gets activations of zero, or takes what a ``total``
        leaves.
    beta_loss : {"kullback-leibler", "frobenius", "itakura-saito"} or float in [-1, 3], default "kullback-leibler"
        The loss: a beta-divergence. The three names stand for 1, 2 and 0. If beta is below 1, a value of 0 would have
        an infinite loss: data below 1e-15 of the largest value of the frame are replaced by this floor, and the
        objective is that of the replaced data. If beta is at most 1, and no component and no background can reach a bin
        with data, the model in this bin counts as the floor.
    l1, l2 : float or array_like (n_components,) or (n_components, n_frames), default 0
        Penalties, not negative, in the units of the formula above. They favor few components (l1) or small activations
        (l2). If beta is 1 and the columns of W have equal sums, an l1 that is the same for all components only
        multiplies H by a number: the sum of H is then known already. It selects nothing there.
    weights : array_like, (n_bins,) or (n_bins, n_frames), optional
        How much a bin counts, not negative. A weight of 0 has the same effect as a missing value.
    background : array_like, (n_bins,) or (n_bins, n_frames), optional
        A known part of the model, not negative.
    support : array_like of bool, (n_components,) or (n_components, n_frames), optional
        Where an activation may differ from zero, for example from a score. By default, everywhere.
    H_init : array_like, (n_components, n_frames), optional
        A warm start, not negative; outside the support it counts as zero. For beta in [1, 2] it changes the time, not
        the optimum; outside, it may lead to another stationary point.
    tol : float, default 1e-4
        Bound on the relative gap of every frame (on the KKT residual for beta outside [1, 2]). The gap is relative to
        the sum of m x^beta over the bins of the frame (for least squares its energy), not to the misfit. If one bin
        has nearly all of that sum, because of a large weight or of large data, the tolerance says little about the
        other bins: choose a smaller one.
    max_iter : int, default 200
        The largest number of Newton steps for a frame. Most frames need fewer than ten.
    upper : float or array_like (n_components,) or (n_components, n_frames), optional
        Upper bounds of the activations, not negative; infinite for none. A bound of 0 has the effect of the support.
    total : float or array_like (n_frames,), optional
        What the activations of a frame sum to, for example 1 for abundances. If it is given, the relative gap is
        relative to the sum of (B + l1 + l2 h) h over the components where that is larger, B = W' (m v^(beta-1)), as a
        total may ask for much larger activations than the data.
    max_total : float or array_like (n_frames,), optional
        What the activations of a frame sum to at most; infinite for no limit. Not together with ``total``.
    out : array or mapping of arrays, optional
        Where results are written, for example a ``zarr.Array`` on disk for ``H``, of its shape (n_components, n_frames)
        and type. Or several arrays by the names of the fields of :class:`Activations`, as a dictionary or a group of
        Zarr or HDF5. After an error, it holds the results of the blocks before the one with the error.
        Frames that cannot be read have NaN there.
    progress : callable, optional
        Called as ``progress(frames_done, n_frames)`` after each group of up to some hundred frames.

    Returns
    -------
    Activations
        The activations ``H``, in float32 if V is, else in float64, and the bounds of every frame: ``gap``,
        ``relative_gap``, ``kkt`` and ``converged``. In float64, sums differ from ``total`` by at most 1e-12 of it; in
        float32, by the rounding of that type.

    Raises
    ------
    ValueError
        If a shape does not fit, a value is negative or infinite, or a parameter is out of range. Also if two tables
        (pandas, polars) have different labels for the same axis, or the same ones in another order.
    TypeError
        If something is not an array of real numbers, or a sparse V is combined with an option for dense arrays only.
    OSError
        If frames of an array on disk cannot be read, for example because a chunk is damaged. With ``out``, all other
        frames are solved before.

    Warns
    -----
    ConvergenceWarning
        Once, if frames miss ``tol``: how many, and the worst. ``converged`` says which.
    UserWarning
        Once, if in most frames one bin has nearly all of what ``tol`` is relative to. Also if nearly all data are
        negative (with ``beta_loss="frobenius"``), as decibels are: nearly all activations are then zero.

    Notes
    -----
    Frames are solved in :func:`knownmf.get_num_threads` threads. The result for a frame does not depend on the other
    frames, on their number or on the number of threads, to the last bit.

    **Data larger than memory.** V, and every array with a value for each frame, may be an array on disk
    (``numpy.memmap``, ``zarr.Array``, ``h5py.Dataset``) or any other object with a ``shape``, a ``dtype`` of NumPy and
    slices. It is read, checked and solved in blocks of some 64 MB (of whole chunks, if it has ``chunks``), and never
    read as a whole. The results of all frames take ``n_components`` numbers and 57 bytes per frame in memory, or what
    ``out`` leaves of them.

    **Dask.** If V is a ``dask.array.Array``, the fields of the result are Dask arrays, with the chunks of V along the
    frames and the same bits as for an array in memory. Nothing is computed, and no value is checked, before
    ``compute()``; nothing is warned of, as ``converged`` says what a warning would. ``dask.compute(found)`` computes
    all fields at once. Each chunk is solved in one thread: Dask decides how many chunks are solved at a time. Arrays
    with a value for each frame may be Dask arrays, in memory or on disk. This needs ``pip install "knownmf[dask]"``.

    References
    ----------
    .. [1] J. Kim and H. Park, "Fast nonnegative matrix factorization: an active-set-like method and comparisons",
       SIAM Journal on Scientific Computing 33(6), 2011.

    Examples
    --------
    >>> import numpy as np
    >>> W = np.array([[0.4, 0.4], [0.2, 0.1]])
    >>> found = activations([[3.0], [1.2]], W, beta_loss="frobenius", tol=1e-12)
    >>> found.H.round(6)
    array([[4.5],
           [3. ]])
    >>> bool(found.relative_gap[0] <= 1e-12)
    True
    """
    labels = TableLabels()
    labels.add(W, "W", "bins", "components")
    W = real_array(W, "W", 2)
    n_bins, n_components = W.shape
    given = V, n_bins, n_components, beta_of(beta_loss), weights, background, support, H_init
    (l1, own_l1), (l2, own_l2) = shared_or_own(l1, labels, "l1"), shared_or_own(l2, labels, "l2")
    limits = LimitArguments(upper, total, max_total)
    question = Question(*given, labels=labels, l1=own_l1, l2=own_l2, limits=limits)

    def solver_for(weights: NDArray | None, support: NDArray | None) -> Solver:
        return Solver(W, beta_loss, l1, l2, weights, support, tol, max_iter)

    remarks = Remarks()
    found = solve(question, solver_for, remarks, out=out, progress=progress)
    remarks.warn()
    return found


def solve_with(
    observations: Observations,
    W: NDArray,
    beta_loss: str | float,
    l1: ArrayLike = 0.0,
    l2: ArrayLike = 0.0,
    tol: float = 1e-4,
    max_iter: int = 200,
    progress: Progress | None = None,
) -> Activations:
    """Return the activations of checked observations. Weights or a support that all frames share go to the solver."""

    def solver_for(weights: NDArray | None, support: NDArray | None) -> Solver:
        return Solver(W, beta_loss, l1, l2, weights, support, tol, max_iter)

    return BlockSolver(solver_for).solve(observations, progress)


def basis(
    V: ArrayLike,
    H: ArrayLike,
    beta_loss: str | float = "kullback-leibler",
    l1: ArrayLike = 0.0,
    l2: ArrayLike = 0.0,
    weights: ArrayLike | None = None,
    background: ArrayLike | None = None,
    support: ArrayLike | None = None,
    W_init: ArrayLike | None = None,
    tol: float = 1e-4,
    max_iter: int = 200,
    *,
    upper: ArrayLike | None = None,
    total: ArrayLike | None = None,
    max_total: ArrayLike | None = None,
    out: Any = None,
    progress: Progress | None = None,
) -> Activations:
    """Find the basis vectors of known activations: ``V ~ background + W H``, without changing H.

    This is ``activations(V.T, H.T)``. Therefore each bin has a bound of its own here, and :class:`Activations`, which
    is also the type of this result, calls the bins frames. V may be larger than memory, or a Dask array, as there; it
    is read in blocks of bins. H has to fit into memory.

    Parameters
    ----------
    V : array_like, (n_bins, n_frames)
        The data, any numeric type; not negative, except with least squares. NaN (or a masked entry) means missing.
    H : array_like, (n_components, n_frames)
        The activations, not negative. A row of zeros gets a basis vector of zero.
    beta_loss, l1, l2, tol, max_iter, progress
        As in :func:`activations`; the penalties are on W, and ``progress`` counts bins.
    weights, background : array_like, (n_bins,) or (n_bins, n_frames), optional
        As in :func:`activations`.
    support : array_like of bool, (n_components,) or (n_bins, n_components), optional
        Where W may differ from zero. Everywhere if not given.
    W_init : array_like, (n_bins, n_components), optional
        A warm start, not negative.
    upper : float or array_like (n_components,) or (n_bins, n_components), optional
        Upper bounds of W.
    total, max_total : float or array_like (n_bins,), optional
        What W sums to over the components, or sums to at most, in each bin.
    out : array or mapping of arrays, optional
        Where results are written, as in :func:`activations`: (n_components, n_bins) for ``H``.

    Returns
    -------
    Activations
        Its ``H`` is the transpose of the basis, (n_components, n_bins), and its certificates are one for each bin:
        ``basis(V, H).H.T`` is W.

    Examples
    --------
    >>> import numpy as np
    >>> H = np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]])
    >>> W = np.array([[0.4, 0.4], [0.2, 0.1]])
    >>> basis(W @ H, H, tol=1e-12).H.T.round(6)
    array([[0.4, 0.4],
           [0.2, 0.1]])
    """
    labels = TableLabels()
    labels.add(V, "V", "bins", "frames")
    labels.add(H, "H", "components", "frames")
    labels.add(weights, "weights", "bins", "frames")
    labels.add(background, "background", "bins", "frames")
    data: Any = V
    if not is_sliced(V):
        data = real_array(V, "V", 2)
    elif len(data.shape) != 2:
        raise ValueError(about_dimensions(data.shape, "V", 2))
    H = real_array(H, "H", 2)
    check_range(H, "H", kind="factor")
    if H.shape[1] != data.shape[1]:
        raise ValueError(f"V has {data.shape[1]} frames but H has {H.shape[1]}: both need the same frames in columns.")
    # The solver's frames are the bins here, and its bins are the frames.
    axes = SAMPLES._replace(data="V", bins="frames", frames="bins", start="W_init")
    weights = of_every_frame(weights, "weights", data.shape)
    background = of_every_frame(background, "background", data.shape)
    n_components, n_frames = H.shape
    given = data, n_frames, n_components, beta_of(beta_loss), weights, background, support, W_init
    (l1, own_l1), (l2, own_l2) = shared_or_own(l1, labels, "l1"), shared_or_own(l2, labels, "l2")
    limits = LimitArguments(upper, total, max_total)
    question = Question(*given, axes, labels, own_l1, own_l2, limits)

    def solver_for(weights: NDArray | None, support: NDArray | None) -> Solver:
        return Solver(H.T, beta_loss, l1, l2, weights, support, tol, max_iter)

    remarks = Remarks(unit="bin")
    found = solve(question, solver_for, remarks, out=out, progress=progress)
    remarks.warn()
    return found


def shared_or_own(values: ArrayLike, labels: TableLabels, name: str) -> tuple[ArrayLike, ArrayLike | None]:
    """Return penalties as those that all frames share, and as those of each frame if they have two dimensions."""
    if n_dims_of(values) == 2:
        return 0.0, values
    if is_sliced(values):
        values = read_whole(values)
    labels.add(values, name, "components")
    return values, None


def of_every_frame(values: Any, name: str, shape: tuple[int, int]) -> Any:
    """Return values of shape (n_bins, n_frames), of which all frames may share one column; None for None."""
    if values is None or (is_sliced(values) and values.shape == shape):  # then it is checked block by block
        return values
    array = real_array(read_whole(values) if is_sliced(values) else values, name, 1, 2)
    if array.shape not in (shape, (shape[0], 1), (shape[0],)):
        raise ValueError(f"{name} has shape {array.shape}, expected {shape}, or ({shape[0]},) for all frames.")
    check_range(array, name)
    return np.broadcast_to(array if array.ndim == 2 else array[:, np.newaxis], shape)
