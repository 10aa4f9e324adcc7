"""The solver: a basis prepared once, and frames solved with it in threads."""

import contextlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from scipy.sparse import issparse

from knownmf.divergences import beta_of
from knownmf.limits import LimitArguments, Limits
from knownmf.native import Answer, InterruptFlag, Options, PreparedBasis, Workspace, solve
from knownmf.observations import SPECTROGRAM, Observations
from knownmf.results import Activations, Remarks
from knownmf.table_labels import TableLabels
from knownmf.threads import get_num_threads, run_in_threads
from knownmf.validation import (
    check_range,
    check_zeros_and_ones,
    number,
    one_for_each,
    penalty,
    real_array,
    whole_number,
)

Progress = Callable[[int, int], object]

# Double-precision data that a thread takes at a time: small enough to stay in the cache, large enough that handing over
# costs much less than the work.
CHUNK_BYTES = 2**20
# Frames that the native code moves together (group_size in solver.hpp). Chunks of long calls are multiples of it, so
# that all groups but the last are full.
GROUP = 8
# Least squares keeps the Gram matrix of at most so many components: 32 MB.
GRAM_LIMIT = 2048
# Multiply-adds of a call that is not worth the 0.3 ms that threads take: about 1 ms.
SHORT_WORK = 5e7
# Multiply-adds of the longest call that may run in the calling thread, where no interrupt is answered: about 0.1 s.
INLINE_WORK = 2e9
# Workspaces that a solver keeps for its next calls.
KEPT_WORKSPACES = 16


class Solver:
    """Find activations of a basis that is prepared once: for streams, and wherever the same basis is used again.

    ``Solver(W, ...).solve(V, ...)`` is what :func:`knownmf.activations` does. A solver does not change, may be pickled,
    and may be used from many threads at once.

    Parameters
    ----------
    W : array_like, (n_bins, n_components)
        The basis vectors, not negative. A column of zeros gets activations of zero, or takes what a ``total``
        leaves.
    beta_loss : {"kullback-leibler", "frobenius", "itakura-saito"} or float in [-1, 3], default "kullback-leibler"
        The beta-divergence, as in :func:`knownmf.activations`.
    l1, l2 : float or array_like (n_components,), default 0
        Penalties, not negative.
    weights : array_like, (n_bins,), optional
        How much a bin counts in every frame, not negative.
    support : array_like of bool, (n_components,), optional
        Which components every frame may use. All if not given.
    tol : float, default 1e-4
        Bound on the relative gap of every frame (on the KKT residual for beta outside [1, 2]).
    max_iter : int, default 200
        Most Newton steps for a frame; a handful is usual.
    upper : float or array_like (n_components,), optional
        Upper bounds of the activations, not negative; infinite for none.
    total, max_total : float, optional
        What the activations of a frame sum to, or sum to at most; not negative. At most one of the two.

    Raises
    ------
    ValueError
        If a shape does not fit, a value is negative, infinite or NaN, or a parameter is out of range.
    TypeError
        If something is not an array of real numbers.

    Examples
    --------
    A stream, each frame started from the one before:

    >>> import numpy as np
    >>> W = np.array([[1.0, 0.2], [0.5, 0.5], [0.1, 1.0]])
    >>> solver = Solver(W, tol=1e-6)
    >>> h = None
    >>> for frame in (W @ [[2.0], [1.0]], W @ [[2.0], [3.0]]):
    ...     h = solver.solve(frame, H_init=h).H
    ...     print(h.T.round(3))
    [[2. 1.]]
    [[2. 3.]]
    """

    def __init__(
        self,
        W: ArrayLike,
        beta_loss: str | float = "kullback-leibler",
        l1: ArrayLike = 0.0,
        l2: ArrayLike = 0.0,
        weights: ArrayLike | None = None,
        support: ArrayLike | None = None,
        tol: float = 1e-4,
        max_iter: int = 200,
        *,
        upper: ArrayLike | None = None,
        total: float | None = None,
        max_total: float | None = None,
    ):
        self._labels = TableLabels()
        self._labels.add(W, "W", "bins", "components")
        for name, values, axis in (
            ("l1", l1, "components"),
            ("l2", l2, "components"),
            ("weights", weights, "bins"),
            ("support", support, "components"),
            ("upper", upper, "components"),
        ):
            self._labels.add(values, name, axis)
        basis = real_array(W, "W", 2)
        n_bins, n_components = basis.shape
        if not n_components:
            raise ValueError("W has no columns: give at least one basis vector.")
        check_range(basis, "W", kind="factor")
        self.beta = beta_of(beta_loss)
        self.tol, self.max_iter = number(tol, "tol"), whole_number(max_iter, "max_iter")
        self.n_bins, self.n_components = n_bins, n_components
        self._l1, self._l2 = penalty(l1, "l1", n_components), penalty(l2, "l2", n_components)
        self._has_penalties = bool(self._l1.any() or self._l2.any())
        self._weights = np.ones(n_bins) if weights is None else one_for_each(weights, "weights", n_bins, "bins")
        self._support = np.ones(n_components)
        if support is not None:
            self._support = one_for_each(support, "support", n_components, "components")
            check_zeros_and_ones(self._support, "support")
        self._limits = Limits.check(LimitArguments(upper, total, max_total), n_components, None)
        self._limits.check_feasible(self._support, n_components)
        self._workspaces: list[Workspace] = []
        self._dense_basis = self._prepare(np.ascontiguousarray(basis, np.float64), sparse=False)

    def __reduce__(self) -> tuple[Any, ...]:
        options = self._l1, self._l2, self._weights, self._support, self.tol, self.max_iter
        limits = self._limits.upper, self._limits.total, self._limits.max_total
        return _unpickled, (self._dense_basis.columns(), self.beta, *options, *limits), {"_labels": self._labels}

    def __repr__(self) -> str:
        return f"Solver({self.n_bins} bins x {self.n_components} components, beta={self.beta:g}, tol={self.tol:g})"

    @property
    def nbytes(self) -> int:
        """Return the memory that the solver holds, in bytes: the prepared basis, and what its threads work in."""
        sparse = self._sparse_basis.nbytes if "_sparse_basis" in vars(self) else 0
        return self._dense_basis.nbytes + sparse + sum(workspace.nbytes for workspace in tuple(self._workspaces))

    def solve(
        self,
        V: ArrayLike,
        background: ArrayLike | None = None,
        H_init: ArrayLike | None = None,
        *,
        weights: ArrayLike | None = None,
        support: ArrayLike | None = None,
        l1: ArrayLike | None = None,
        l2: ArrayLike | None = None,
        upper: ArrayLike | None = None,
        total: ArrayLike | None = None,
        max_total: ArrayLike | None = None,
        progress: Progress | None = None,
    ) -> Activations:
        """Find the activations of some frames.

        Parameters
        ----------
        V : array_like or sparse matrix, (n_bins, n_frames)
            The data, as in :func:`knownmf.activations`.
        background : array_like, (n_bins,) or (n_bins, n_frames), optional
            A known part of the model, not negative.
        H_init : array_like, (n_components, n_frames), optional
            A warm start, not negative.
        weights : array_like, (n_bins, n_frames), optional
            Weights of the single frames, instead of those of the solver.
        support : array_like of bool, (n_components, n_frames), optional
            The support of the single frames, instead of that of the solver.
        l1, l2 : array_like, (n_components, n_frames), optional
            Penalties of the single frames, instead of those of the solver.
        upper : array_like, (n_components, n_frames), optional
            Upper bounds of the single frames, instead of those of the solver.
        total, max_total : array_like, (n_frames,), optional
            Totals of the single frames, instead of that of the solver.
        progress : callable, optional
            Called as ``progress(frames_done, n_frames)`` as the work proceeds.

        Returns
        -------
        Activations
            ``H`` in V's type if that is float32, else float64, and the certificate of every frame.

        Warns
        -----
        ConvergenceWarning
            Once, if frames miss ``tol``.
        """
        given = V, self.n_bins, self.n_components, self.beta, weights, background, support, H_init
        limits = LimitArguments(upper, total, max_total)
        observations = Observations.check(*given, labels=self._labels, l1=l1, l2=l2, limits=limits)
        if observations.is_sparse and observations.weights is not None:
            raise TypeError("weights is given with a sparse V: pass it to Solver(W, weights=...), or pass V.toarray().")
        if observations.is_sparse and observations.l2 is not None and self._l2.any():
            raise TypeError("l2 is given with a sparse V and in Solver(W, l2=...): pass it to solve only.")
        found = self.solve_observations(observations, progress)
        remarks = Remarks()
        remarks.add(observations, found, self._weights if observations.weights is None else None)
        remarks.warn()
        return found

    def certify(
        self,
        V: ArrayLike,
        H: ArrayLike,
        background: ArrayLike | None = None,
        *,
        weights: ArrayLike | None = None,
        support: ArrayLike | None = None,
        l1: ArrayLike | None = None,
        l2: ArrayLike | None = None,
        upper: ArrayLike | None = None,
        total: ArrayLike | None = None,
        max_total: ArrayLike | None = None,
    ) -> Activations:
        """Say how good activations are that were found elsewhere.

        Parameters
        ----------
        V : array_like, (n_bins, n_frames)
            The data.
        H : array_like, (n_components, n_frames)
            The activations, not negative. What the support forbids counts as zero.
        background, weights, support, l1, l2, upper, total, max_total : array_like, optional
            As in :meth:`solve`. H must satisfy the limits.

        Returns
        -------
        Activations
            ``H`` and its certificate: ``gap`` bounds how far its objective lies above the minimum.

        Examples
        --------
        >>> import numpy as np
        >>> W = np.array([[0.4, 0.4], [0.2, 0.1]])
        >>> print(Solver(W, "frobenius").certify([[3.0], [1.2]], [[4.5122], [2.9871]]).relative_gap < 1e-3)
        [ True]
        """
        if issparse(V):
            raise TypeError("V is a sparse matrix: certify takes a dense one, pass V.toarray().")
        if H is None:
            raise TypeError("H is None: pass the activations to certify.")
        given = V, self.n_bins, self.n_components, self.beta, weights, background, support, H
        axes, limits = SPECTROGRAM._replace(start="H"), LimitArguments(upper, total, max_total)
        observations = Observations.check(*given, axes, self._labels, l1, l2, limits)
        if observations.H_init is not None:
            used = observations.support if observations.support is not None else self._support
            used = used if used.ndim == 2 else used[:, np.newaxis]
            H_used = np.where(used > 0, observations.H_init, 0)  # of the same type, which the tolerance depends on
            observations.limits.or_else(self._limits).check_satisfied(H_used)
        return self.solve_observations(observations, certify_only=True)

    def solve_observations(
        self, observations: Observations, progress: Progress | None = None, *, certify_only: bool = False
    ) -> Activations:
        """Find the activations of observations that have been checked, or certify those that they start from.

        Unlike :meth:`solve`, it does not warn of frames that miss the tolerance.
        """
        limits = observations.limits.or_else(self._limits)
        if limits:
            support = observations.support if observations.support is not None else self._support
            limits.check_feasible(support, self.n_components, observations.frame, observations.first)
            observations = replace(observations, limits=limits)
        n_frames = observations.n_frames
        # Activations to certify are not rounded, unless they came in float32.
        start = observations.H_init
        rounds = not certify_only or (start is not None and start.dtype == np.float32)
        single = observations.V.dtype == np.float32 and rounds
        answer = new_answer(n_frames, self.n_components, np.float32 if single else np.float64)
        H, divergence = answer.H, answer.objective
        penalties = self._penalties(observations)
        if penalties:
            divergence = np.empty(n_frames)
        options, interrupt = Options(self.tol, self.max_iter, single, certify_only), InterruptFlag()

        def solve_chunk(chunk: slice) -> int:
            part = Answer._make(values[chunk] for values in answer)
            if single:
                part = part._replace(H=np.empty((len(part.gap), self.n_components)))
            with self._workspace() as workspace:
                block = observations.block(chunk, workspace)
                solve(workspace, self._basis(observations), block, options, interrupt, part)
            if penalties:
                divergence[chunk] = np.maximum(part.objective - penalties(part.H, chunk), 0.0)
            if single:
                H[chunk] = np.minimum(part.H, np.finfo(np.float32).max, out=part.H)
            return chunk.stop

        chunks = chunks_of(n_frames, observations.bytes_per_frame)
        if self._is_short(n_frames):
            results: Generator[int, None, None] = (solve_chunk(chunk) for chunk in chunks)
        else:
            self._basis(observations)  # prepare it before several threads ask for it
            results = run_in_threads(solve_chunk, chunks, interrupt.set)
        with contextlib.closing(results):  # at once, also where `progress` raises
            for n_done in results:
                if progress is not None:
                    progress(n_done, n_frames)
        return Activations(
            H=H.T,
            gap=answer.gap,
            relative_gap=answer.relative_gap,
            kkt=answer.kkt,
            converged=answer.converged,
            objective=answer.objective,
            divergence=divergence,
            null_divergence=answer.null_divergence,
            n_iter=answer.n_iter,
            beta=self.beta,
            tol=self.tol,
            limits=limits,
            component_labels=observations.component_labels,
            frame_labels=observations.frame_labels,
        )

    def _penalties(self, observations: Observations) -> Callable[[NDArray, slice], NDArray] | None:
        """Return what computes the penalties of some frames, whose activations are rows; None if there are none."""
        l1, l2 = observations.l1, observations.l2
        l1, l2 = self._l1 if l1 is None else l1, self._l2 if l2 is None else l2
        if not self._has_penalties and observations.l1 is None and observations.l2 is None:
            return None
        return lambda H, chunk: (H * (_of_frames(l1, chunk) + 0.5 * _of_frames(l2, chunk) * H)).sum(axis=1)

    def _is_short(self, n_frames: int) -> bool:
        """Return whether a call is too short for threads, and ends soon even if every frame needs all its steps."""
        size = self.n_bins * self.n_components
        usual_products, usual_steps = 60, 3  # 30 updates with two products each, then some Newton steps
        usual = n_frames * size * (usual_products + usual_steps * self.n_components)
        most_steps = min(self.max_iter, 1000)  # more have not been seen, whatever max_iter
        most = n_frames * self.n_components * (size + self.n_components**2) * most_steps
        return (n_frames <= GROUP or usual <= SHORT_WORK) and most <= INLINE_WORK

    @contextlib.contextmanager
    def _workspace(self) -> Iterator[Workspace]:
        """Lend a workspace to one thread. After an error it is dropped: its buffers may be incomplete."""
        try:
            workspace = self._workspaces.pop()
        except IndexError:
            workspace = Workspace()
        yield workspace
        if len(self._workspaces) < KEPT_WORKSPACES:
            self._workspaces.append(workspace)

    def _basis(self, observations: Observations) -> PreparedBasis:
        return self._sparse_basis if observations.is_sparse else self._dense_basis

    @cached_property
    def _sparse_basis(self) -> PreparedBasis:
        return self._prepare(self._dense_basis.columns(), sparse=True)

    def _prepare(self, W: NDArray[np.float64], sparse: bool) -> PreparedBasis:
        gram = self.beta == 2.0 and (sparse or self.n_components <= GRAM_LIMIT)
        interrupt = InterruptFlag()

        def prepare(_: slice) -> PreparedBasis:
            options = self.beta, self._l1, self._l2, self._weights, self._support
            return PreparedBasis(W, *options, sparse=sparse, gram=gram, interrupt=interrupt)

        if not gram or self.n_bins * self.n_components**2 <= INLINE_WORK:
            return prepare(slice(0))
        [basis] = run_in_threads(prepare, [slice(0)], interrupt.set)
        return basis


def _of_frames(values: NDArray, chunk: slice) -> NDArray:
    """Return values of the components as a row, or as a row for each frame of a chunk."""
    return values if values.ndim == 1 else values[:, chunk].T


def _unpickled(*arguments: Any) -> Solver:
    """Return a solver from its arguments, of which the last three have no position."""
    *options, upper, total, max_total = arguments
    return Solver(*options, upper=upper, total=total, max_total=max_total)


def new_answer(n_frames: int, n_components: int, dtype: DTypeLike) -> Answer:
    """Return arrays for the answer to some frames, with activations of a type."""
    return Answer(
        H=np.empty((n_frames, n_components), dtype),
        gap=np.empty(n_frames),
        relative_gap=np.empty(n_frames),
        kkt=np.empty(n_frames),
        objective=np.empty(n_frames),
        null_divergence=np.empty(n_frames),
        n_iter=np.zeros(n_frames, np.int64),
        converged=np.zeros(n_frames, np.bool_),
    )


def chunks_of(n_frames: int, bytes_per_frame: float) -> list[slice]:
    """Return chunks of frames, small enough to stay in the cache and to keep every thread busy to the end."""
    if n_frames <= GROUP:
        return [slice(0, n_frames)] if n_frames else []
    n_threads = get_num_threads()
    if n_frames <= GROUP * n_threads:
        size = -(-n_frames // n_threads)
        return [slice(first, min(first + size, n_frames)) for first in range(0, n_frames, size)]
    most = max(1, int(CHUNK_BYTES / (bytes_per_frame * GROUP)))
    size = GROUP * max(1, min(most, n_frames // (4 * GROUP * n_threads)))
    return [slice(first, min(first + size, n_frames)) for first in range(0, n_frames, size)]
