"""Activations of a known basis: one call, validated once, solved frame by frame, returned with its proof."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse

from knownmf.divergences import beta_of
from knownmf.solver import GROUP, Group, Problem, buffers_of, new_answer, prepared, solve, solve_entries
from knownmf.threads import run_in_threads
from knownmf.validation import (
    check_max_iter,
    check_range,
    check_sparse,
    check_start,
    check_support,
    check_tol,
    penalty,
    per_bin,
    real_array,
    sparse_array,
)

CHUNK_BYTES = 2**20  # of double-precision data that a thread works on at a time

Progress = Callable[[int, int], object]


class PerFrame(NamedTuple):
    """What belongs to single frames, a frame a column; but for V and H_init, one column stands for all frames."""

    V: Any
    weights: NDArray
    background: NDArray
    support: NDArray
    H_init: NDArray | None


@dataclass(frozen=True, eq=False)
class Activations:
    """Activations of a known basis and the proof of how good they are, frame by frame.

    Attributes
    ----------
    H : (n_components, n_frames) float32 or float64
        The activations, not negative; what is not used is exactly zero.
    gap : (n_frames,) float64
        Upper bound on how far the objective lies above its minimum, in the units of the objective. NaN for a beta
        outside [1, 2], where the problem is not convex.
    relative_gap : (n_frames,) float64
        ``gap`` divided by the sum of m x^beta over the frame's bins.
    kkt : (n_frames,) float64
        Karush-Kuhn-Tucker residual, free of every scale; 0 at a stationary point.
    converged : (n_frames,) bool
        Whether ``relative_gap`` (outside [1, 2]: ``kkt``) is at most ``tol``.
    objective : (n_frames,) float64
        What was minimised: the weighted divergence plus the penalties.
    n_iter : (n_frames,) int64
        Newton steps taken.
    beta : float
        The beta-divergence that was minimised.
    tol : float
        The tolerance asked for.
    """

    H: NDArray[np.floating] = field(repr=False)
    gap: NDArray[np.float64] = field(repr=False)
    relative_gap: NDArray[np.float64] = field(repr=False)
    kkt: NDArray[np.float64] = field(repr=False)
    converged: NDArray[np.bool_] = field(repr=False)
    objective: NDArray[np.float64] = field(repr=False)
    n_iter: NDArray[np.int64] = field(repr=False)
    beta: float
    tol: float

    @property
    def promise(self) -> NDArray[np.float64]:
        """The certificate that ``tol`` bounds: ``relative_gap`` for a beta in [1, 2], else ``kkt``; (n_frames,)."""
        return self.relative_gap if 1.0 <= self.beta <= 2.0 else self.kkt

    def __repr__(self) -> str:
        n_components, n_frames = self.H.shape
        text = f"Activations({n_components} components x {n_frames} frames, beta={self.beta:g}"
        if n_frames:
            name = "relative gap" if 1.0 <= self.beta <= 2.0 else "KKT residual"
            text += f": {self.converged.sum()} of {n_frames} frames within tol={self.tol:g}"
            text += f", worst {name} {self.promise.max():.1e}"
        return text + ")"


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
    progress: Progress | None = None,
) -> Activations:
    r"""Find the activations of known basis vectors: ``V ~ background + W H`` with W untouched.

    Every frame x (a column of V) is solved on its own: over h >= 0,

    .. math:: \min_h \sum_f m_f d_\beta(x_f | v_f) + \sum_k l_{1k} h_k + \tfrac12 \sum_k l_{2k} h_k^2,
              \qquad v = b + W h

    by Newton steps whose quadratic model is solved exactly over the nonnegative [1]_, until a bound on the distance
    to the optimum is below ``tol``. For beta in [1, 2] the problem is convex and the bound is a duality gap: the
    answer is the global optimum to within ``gap``. Outside it is a stationary point.

    Parameters
    ----------
    V : array_like or sparse matrix, (n_bins, n_frames)
        The data, not negative, any numeric type. NaN (or a masked entry) means missing. A sparse matrix is for
        Kullback-Leibler and Frobenius, without a background and with weights per bin at most; it is never made
        dense as a whole.
    W : array_like, (n_bins, n_components)
        The basis vectors, not negative. A column of zeros gets activations of zero.
    beta_loss : {"kullback-leibler", "frobenius", "itakura-saito"} or float in [-1, 3], default "kullback-leibler"
        The beta-divergence (1, 2 and 0 by name). Below 1, data under 1e-15 of the frame's largest value are raised
        to it (a bin of zero would cost infinity): that is part of the objective reported. Where no atom and no
        background reach a bin with data, beta <= 1 counts the model there as that floor.
    l1, l2 : float or array_like (n_components,), default 0
        Penalties, not negative, in the units of the formula above.
    weights : array_like, (n_bins,) or (n_bins, n_frames), optional
        How much a bin counts, not negative; 0 is as good as missing.
    background : array_like, (n_bins,) or (n_bins, n_frames), optional
        A known part of the model, not negative.
    support : array_like of bool, (n_components,) or (n_components, n_frames), optional
        Where an activation may differ from zero (a score, an alignment). Everywhere if not given.
    H_init : array_like, (n_components, n_frames), optional
        A warm start, not negative; outside the support it counts as zero. For beta in [1, 2] it changes the time, not
        the optimum; outside, it may lead to another stationary point.
    tol : float, default 1e-4
        Bound on the relative gap of every frame (on the KKT residual for beta outside [1, 2]).
    max_iter : int, default 200
        Most Newton steps for a frame; a handful is usual.
    progress : callable, optional
        Called as ``progress(frames_done, n_frames)`` as the work proceeds.

    Returns
    -------
    Activations
        ``H`` in V's type if that is float32, else float64, and the certificate of every frame.

    Raises
    ------
    ValueError
        If a shape does not fit, a value is negative or infinite, or a parameter is out of range.
    TypeError
        If something is not an array of real numbers, or a sparse V comes with what only a dense one can have.

    Warns
    -----
    ConvergenceWarning
        Once, if frames miss ``tol``: how many, and the worst. ``converged`` says which.

    Notes
    -----
    Frames run in ``numba.get_num_threads()`` threads. The answer of a frame does not depend on its neighbours, on
    their number or on the threads, to the last bit.

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
    given, problem = checked(V, W, beta_of(beta_loss), l1, l2, weights, background, support, H_init)
    problem = problem._replace(tol=check_tol(tol), max_iter=check_max_iter(max_iter))
    n_frames, n_components = given.V.shape[1], len(problem.atoms)
    found = Activations(
        H=np.empty((n_components, n_frames), given.V.dtype if problem.single else np.float64),
        gap=np.empty(n_frames),
        relative_gap=np.empty(n_frames),
        kkt=np.empty(n_frames),
        converged=np.zeros(n_frames, np.bool_),
        objective=np.empty(n_frames),
        n_iter=np.zeros(n_frames, np.int64),
        beta=problem.beta,
        tol=problem.tol,
    )
    for n_done in solve_in_chunks(given, problem, found):
        if progress is not None:
            progress(n_done, n_frames)
    warn_of_missed(found)
    return found


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
    progress: Progress | None = None,
) -> Activations:
    """Find the basis vectors of known activations: ``V ~ background + W H`` with H untouched.

    The mirror of :func:`activations`, and the same solver on the transpose: what was said of a frame there holds of a
    bin here.

    Parameters
    ----------
    V : array_like, (n_bins, n_frames)
        The data, not negative, any numeric type. NaN (or a masked entry) means missing.
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
    V, H = real_array(V, "V", 2), real_array(H, "H", 2)
    if H.shape[1] != V.shape[1]:
        raise ValueError(f"V has {V.shape[1]} frames but H has {H.shape[1]}: both need the same frames in columns.")
    shaped = {"weights": weights, "background": background}
    for name, values in shaped.items():
        if values is not None:
            shaped[name] = np.broadcast_to(per_bin(values, name, V.shape), V.shape).T
    return activations(
        V.T,
        H.T,
        beta_loss,
        l1,
        l2,
        support=None if support is None else real_array(support, "support", 1, 2).T,
        H_init=None if W_init is None else real_array(W_init, "W_init", 2).T,
        tol=tol,
        max_iter=max_iter,
        progress=progress,
        **shaped,
    )


def checked(
    V: Any,
    W: ArrayLike,
    beta: float,
    l1: ArrayLike,
    l2: ArrayLike,
    weights: ArrayLike | None,
    background: ArrayLike | None,
    support: ArrayLike | None,
    H_init: ArrayLike | None,
) -> tuple[PerFrame, Problem]:
    """Return what :func:`activations` was given, checked: what each frame has of its own, and what all share."""
    V = sparse_array(V, "V") if issparse(V) else real_array(V, "V", 2)
    W = real_array(W, "W", 2)
    (n_bins, n_frames), n_components = V.shape, W.shape[1]
    if len(W) != n_bins or not n_bins:
        raise ValueError(f"V has {n_bins} bins but W has {len(W)}: both need the same bins in their rows.")
    if not n_components:
        raise ValueError("W has no columns: give at least one basis vector.")
    if issparse(V):
        check_sparse(beta, background=background)
    else:
        check_range(V, "V", missing=True)
    # One column stands for all frames, unless it is the only frame's own: the answer must not depend on that.
    shared = weights is None or np.ndim(weights) < 2 or (np.shape(weights)[1] == 1 and n_frames != 1) or issparse(V)
    weights = np.ones((n_bins, 1)) if weights is None else per_bin(weights, "weights", V.shape)
    if issparse(V) and weights.shape[1] > 1:
        raise TypeError(
            f"weights has one value for each entry of a sparse matrix: give one for each of the {n_bins} bins, or pass "
            "the data as a dense array."
        )
    background = np.zeros((n_bins, 1)) if background is None else per_bin(background, "background", V.shape)
    alike = support is None or np.ndim(support) < 2 or (np.shape(support)[1] == 1 and n_frames != 1)
    support = np.ones((n_components, 1)) if support is None else check_support(support, n_components, n_frames)
    H_init = None if H_init is None else check_start(H_init, n_components, n_frames)
    penalties = penalty(l1, "l1", n_components), penalty(l2, "l2", n_components)
    problem = prepared(W, beta, *penalties, weights[:, 0] if shared else None, support[:, 0] if alike else None)
    problem = problem._replace(warm=H_init is not None, single=V.dtype == np.float32)
    return PerFrame(V, weights, background, support, H_init), problem


def solve_in_chunks(given: PerFrame, problem: Problem, found: Activations) -> Iterator[int]:
    """Fill ``found`` chunk by chunk, in threads; yield how many frames are done."""
    V, n_components = given.V, len(problem.atoms)
    n_bins, n_frames = V.shape
    by_entry = issparse(V) and (problem.beta == 1.0 or len(problem.gram) > 0)
    if by_entry:
        problem = problem._replace(columns=np.ascontiguousarray(problem.W.T))
    # Of sparse frames only what they have takes room.
    chunks = chunks_of(n_frames, 1 + np.size(V.data) // max(n_frames, 1) if by_entry else n_bins)
    # Few frames go by fours, so that buffers are not much larger than the data.
    size = GROUP if n_frames >= 16 * GROUP else min(4, n_frames)

    def solve_chunk(chunk: slice, buffers: dict[int, Group]) -> int:
        rows = problem._replace(
            X=problem.X if by_entry else frames_of(V, chunk),
            M=frames_of(given.weights, chunk),
            background=frames_of(given.background, chunk),
            support=frames_of(given.support, chunk),
        )
        answer = new_answer(len(range(n_frames)[chunk]), n_components)
        if given.H_init is not None:
            answer.H[:] = frames_of(given.H_init, chunk) / problem.units
        if by_entry:
            solve_entries(rows, V[:, chunk], buffers, answer)
        else:
            solve(rows, buffers_of(buffers, size, n_bins, n_components), answer)
        found.H[:, chunk] = (answer.H * problem.units).T
        for name in ("gap", "relative_gap", "kkt", "objective", "n_iter", "converged"):
            getattr(found, name)[chunk] = getattr(answer, name)
        return chunk.stop

    return run_in_threads(solve_chunk, chunks, dict)


def chunks_of(n_frames: int, n_bins: int) -> list[slice]:
    """Return chunks of frames, small enough to stay in the cache and to keep every thread busy to the end."""
    if n_frames <= GROUP:
        return [slice(0, n_frames)] if n_frames else []
    n_threads = min(numba.get_num_threads(), -(-n_frames // GROUP))
    most = max(1, CHUNK_BYTES // (8 * n_bins * GROUP))
    size = GROUP * max(1, min(most, n_frames // (4 * GROUP * n_threads)))
    return [slice(first, min(first + size, n_frames)) for first in range(0, n_frames, size)]


def frames_of(values: Any, block: slice) -> NDArray[np.float64]:
    """Return a block of frames as rows in double precision; one column stands for all frames."""
    if issparse(values):
        return values[:, block].T.toarray().astype(np.float64)
    return np.array((values if values.shape[1] == 1 else values[:, block]).T, dtype=np.float64, order="C")


def warn_of_missed(found: Activations) -> None:
    """Warn once if frames missed the tolerance."""
    missed = np.flatnonzero(~found.converged)
    if not len(missed):
        return
    from sklearn.exceptions import ConvergenceWarning

    name = "relative gap" if 1.0 <= found.beta <= 2.0 else "KKT residual"
    worst = missed[np.argmax(found.promise[missed])]
    warnings.warn(
        f"{len(missed)} of {len(found.converged)} frames missed tol={found.tol:g}; the worst is frame {worst} with a "
        f"{name} of {found.promise[worst]:.1e}. Raise tol or max_iter; `converged` says which frames they are.",
        ConvergenceWarning,
        stacklevel=3,
    )
