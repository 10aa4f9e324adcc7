"""Learning what is free in a basis: statistics of a block of frames -> merge -> update, one pass after another.

All is frames-major: a frame is a row of X (n_frames, n_bins) and of H (n_frames, n_components), an atom a row of W
(n_components, n_bins). A pass improves the activations of every block of frames, sums the statistics that the basis
needs, and updates what is free in it. Blocks need nothing of each other: they run in threads, and are merged in order.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from knownmf.divergences import ZERO_FLOOR
from knownmf.native import descend_rows, extrapolate, measure, multiply_rows, pull_of_activations, pull_of_basis
from knownmf.threads import run_in_threads

BLOCKS, SMALLEST_BLOCK, LARGEST_BLOCK = 16, 2**15, 2**20  # how many, and how few and many entries of X are in one
SINGLE_TOL = 1e-6  # the relative decrease below which single precision cannot tell one from its own rounding
N_SWEEPS = 2  # coordinate sweeps of least squares: the products that they start from cost more

Callback = Callable[[int, float], object]


@dataclass(frozen=True, eq=False)
class Learned:
    """What :func:`learn` found.

    Attributes
    ----------
    W : (n_components, n_bins) float64
        The basis; its frozen entries are bit for bit those given.
    H : (n_frames, n_components) float64
        The activations that it was learned with.
    history : list of float
        The objective at the start and after every pass.
    n_passes : int
        The number of passes.
    constant : float
        The part of the objective that does not depend on the activations: penalties of W and ties to templates.
    converged : bool
        Whether the last pass lowered the objective by at most ``tol`` of it.
    """

    W: NDArray[np.float64] = field(repr=False)
    H: NDArray[np.float64] = field(repr=False)
    history: list[float]
    n_passes: int
    constant: float
    converged: bool


class Frames(NamedTuple):
    """Data and what shapes their divergence, a frame a row; what all frames share has one row."""

    X: Any  # (n_frames, n_bins): an array, NaN = missing; or a CSR matrix, without weights or background
    weights: NDArray
    background: NDArray
    support: NDArray  # (1 or n_frames, n_components) bool
    l1: NDArray[np.float64]  # (n_components,) of the activations
    l2: NDArray[np.float64]
    beta: float


class Basis(NamedTuple):
    """What holds the basis: a component a row."""

    free: NDArray[np.bool_]  # (n_components, n_bins) what may change
    template: NDArray[np.float64]  # (n_components, n_bins)
    strength: NDArray[np.float64]  # (n_components,) of the tie to the template
    l1: NDArray[np.float64]  # (n_components,) penalties on free entries
    l2: NDArray[np.float64]


class Statistics(NamedTuple):
    """What the basis needs to know of a block of frames: sums over them.

    The multiplicative update takes ``linear = H'pull`` and ``other = H'push`` (n_components, n_bins), with the slopes'
    halves ``pull = m x v^(beta-2)`` and ``push = m v^(beta-1)``; least squares without weights takes ``linear = H'x``
    and ``other = H'H``.
    """

    linear: NDArray
    other: NDArray


Point = tuple[NDArray[np.float64], NDArray]  # a basis and activations


class Pace(NamedTuple):
    """How a pass computes: in which precision, and whether it goes further than is sure to lower the objective."""

    precision: type[np.floating]
    bold: bool


def safe_power(beta: float, bent: bool) -> float:
    """Return the exponent with which a multiplicative update is sure to lower the objective.

    Along the ratio r of new to old, the majorising function has its minimum where a sum of powers of r, the largest
    of them ``max(1, 2 - beta, beta - 1)``, equals the ratio of pull to push [1]_; a quadratic penalty (``bent``) adds
    the power ``3 - beta`` below beta = 2. With the inverse of the largest, an update ends between the old value and
    that minimum.

    .. [1] C. Fevotte and J. Idier, "Algorithms for nonnegative matrix factorization with the beta-divergence",
       Neural Computation 23(9), 2011.
    """
    return 1.0 / max(1.0, 2.0 - beta, beta - 1.0, 3.0 - beta if bent else 1.0)


def bold_power(safe: float) -> float:
    """Return the exponent of an update that nearly always lowers the objective too, and twice as far: 1 at most."""
    return min(1.0, 2.0 * safe)


def power_of_two(values: NDArray) -> NDArray[np.float64]:
    """Return the powers of two not above the values, which scale them without losing a bit; 1 for zero."""
    values = np.asarray(values, dtype=np.float64)
    return 2.0 ** np.floor(np.log2(values, out=np.zeros(values.shape), where=values > 0.0))


def blocks_of(n_frames: int, n_entries: int) -> list[slice]:
    """Return the blocks of frames of a pass: the same ones whatever the number of threads."""
    size, each = -(-n_frames // BLOCKS), max(1, n_entries // n_frames)
    size = max(1, min(max(size, SMALLEST_BLOCK // each), LARGEST_BLOCK // each))
    return [slice(first, min(first + size, n_frames)) for first in range(0, n_frames, size)]


class Task:
    """Frames to learn from, in units in which the data and the atoms are of the size of one."""

    def __init__(self, frames: Frames, basis: Basis, W: NDArray[np.float64], multiplicative: bool = False):
        self.beta = frames.beta
        self.n_frames, self.n_bins = frames.X.shape
        self.frames, self.basis = frames, basis
        self.sparse = scipy.sparse.issparse(frames.X)
        entries = frames.X.data if self.sparse else frames.X
        self.blocks = blocks_of(self.n_frames, entries.size)
        largest = np.fmax.reduce(entries, axis=None, initial=0.0)
        self.scale = float(power_of_two(np.array(largest)))
        self.unit = self.scale**self.beta
        atoms = power_of_two(W.sum(axis=1))
        self.atoms = atoms[:, np.newaxis]
        self.l1, self.l2 = (
            np.atleast_2d(frames.l1 * self.scale / atoms / self.unit),
            np.atleast_2d(frames.l2 * (self.scale / atoms) ** 2 / self.unit),
        )
        ones = np.ones((1, self.n_bins))
        self.basis_l1 = (basis.l1 * atoms / self.unit)[:, np.newaxis] * ones
        self.basis_l2 = (basis.l2 * atoms**2 / self.unit)[:, np.newaxis] * ones
        self.strength = (basis.strength * atoms**self.beta / self.unit)[:, np.newaxis] * basis.free
        self.template = basis.template / self.atoms
        if self.beta < 1.0:
            self.template = np.maximum(self.template, ZERO_FLOOR * self.template.max(axis=1, keepdims=True))
        self.missing = bool(np.isnan(np.add.reduce(entries, axis=None)))
        plain = not self.missing and np.ptp(frames.weights) == 0.0
        self.least_squares = self.beta == 2.0 and plain and not multiplicative
        self.h_power = safe_power(self.beta, bool(frames.l2.any()))
        self.w_power = safe_power(self.beta, bool(basis.l2.any()))
        self.may_be_bold = not self.least_squares and min(self.h_power, self.w_power) < 1.0
        self.weights, self.constant = frames.weights, 0.0
        self.floors = self.find_floors() if self.beta <= 1.0 else np.zeros((self.n_frames, 1))
        if self.beta <= 1.0:
            self.leave_out(W)

    def find_floors(self) -> NDArray[np.float64]:
        """Return what data (below beta = 1) and models that nothing reaches are raised to, a frame a row."""
        if self.sparse:
            return ZERO_FLOOR / self.scale * self.frames.X.max(axis=1).toarray().reshape(-1, 1)
        floors = np.zeros((self.n_frames, 1))
        for block in self.blocks:
            counts = rows_of(self.frames.weights, block) > 0.0
            largest = np.where(counts, np.nan_to_num(self.frames.X[block]), 0.0).max(axis=1)
            if self.beta < 1.0:
                background = np.where(counts, rows_of(self.frames.background, block), 0.0).max(axis=1)
                largest = np.where(largest > 0.0, largest, background)
            floors[block, 0] = ZERO_FLOOR * largest / self.scale
        return floors

    def leave_out(self, W: NDArray[np.float64]) -> None:
        """Take the weight of entries that cost a constant whatever is learned, and keep that constant.

        Those are bins with data that neither an atom of the support nor the background reaches, and, below beta = 1,
        frames without anything.
        """
        frames, idle = self.frames, (self.floors == 0.0) & (self.beta < 1.0)
        reached = (frames.support @ (W > 0.0) > 0) | (frames.background > 0.0)
        if reached.all() and not idle.any():
            return
        if self.sparse:
            self.leave_out_entries(reached)
            return
        out = ~reached & (np.nan_to_num(frames.X) > 0.0) | idle
        self.weights = np.where(out, 0.0, frames.weights)
        for block in self.blocks:
            x, m, _ = self.load(block, np.float64)
            m = np.where(out[block] & ~np.isnan(frames.X[block]) & ~idle[block], rows_of(frames.weights, block), 0.0)
            v = np.broadcast_to(self.floors[block], x.shape).copy()
            self.constant += measure(x, m, v, self.beta, True, np.empty_like(x), np.empty_like(x))

    def leave_out_entries(self, reached: NDArray[np.bool_]) -> None:
        """The same for a sparse matrix: entries without a model become zero, which costs nothing there."""
        X = self.frames.X.astype(np.float64)
        rows = np.repeat(np.arange(self.n_frames), np.diff(X.indptr))
        lost = ~np.broadcast_to(reached, X.shape)[rows, X.indices] & (X.data > 0.0)
        x, v = X.data[np.newaxis] / self.scale, self.floors[rows].T.copy()
        self.constant += measure(x, 1.0 * lost[np.newaxis], v, self.beta, True, np.empty_like(x), np.empty_like(x))
        X.data[lost] = 0.0
        self.frames = self.frames._replace(X=X)

    def load(self, block: slice, precision: type[np.floating]) -> tuple[NDArray, NDArray, NDArray]:
        """Return the data, the weights and the background of a block, in the precision asked for."""
        source, weights = self.frames.X[block], rows_of(self.weights, block)
        source = source.toarray() if self.sparse else source
        x = np.empty(source.shape, precision)
        np.multiply(source, 1.0 / self.scale, out=x, casting="same_kind")
        if self.missing:
            hole = np.isnan(x)
            weights = np.where(hole, 0.0, weights)
            x[hole] = 0.0
        if self.beta < 1.0:
            np.maximum(x, self.floors[block].astype(precision), out=x)
        background = rows_of(self.frames.background, block) / self.scale
        return x, np.ascontiguousarray(weights, precision), background.astype(precision)


def rows_of(values: NDArray, block: slice) -> NDArray:
    """Return the rows of a block, or the one row that stands for all."""
    return values if len(values) == 1 else values[block]


def visit(task: Task, W: NDArray, gram: NDArray, H: NDArray, block: slice, pace: Pace) -> tuple[float, Statistics]:
    """Improve the activations of a block, in place; return their cost before that, and the statistics after it."""
    if task.sparse and (task.least_squares or task.beta == 1.0):
        part = task.frames.X[block].astype(pace.precision) * pace.precision(1.0 / task.scale)
        # What the native code takes; blocks are far below 2^31 entries.
        part.indices, part.indptr = (index.astype(np.int32, copy=False) for index in (part.indices, part.indptr))
        if task.least_squares:
            return visit_squares(task, W, gram, H, part, rows_of(task.frames.support, block))
        return visit_entries(task, W, H, part, pace)
    x, m, b = task.load(block, pace.precision)
    if task.least_squares:
        return visit_squares(task, W, gram, H, x - b, rows_of(task.frames.support, block))
    beta, cost = task.beta, price_of_activations(task, H)
    v, pull, push = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    np.add(np.matmul(H, W, out=v), b, out=v)
    cost += measure(x, m, v, beta, True, pull, push)
    shared = beta == 1.0 and len(m) == 1
    power = bold_power(task.h_power) if pace.bold else task.h_power
    multiply_rows(H, pull @ W.T, (m if shared else push) @ W.T, task.l1.astype(H.dtype), task.l2.astype(H.dtype), power)
    np.add(np.matmul(H, W, out=v), b, out=v)
    measure(x, m, v, beta, False, pull, push)
    return cost, Statistics(H.T @ pull, H.sum(axis=0)[:, np.newaxis] * m if shared else H.T @ push)


def visit_squares(
    task: Task, W: NDArray, gram: NDArray, H: NDArray[np.float64], x: Any, support: NDArray
) -> tuple[float, Statistics]:
    """The same for least squares, where the products of the data and of the atoms say everything of both."""
    weight = float(task.weights.flat[0])
    linear = weight * (x @ W.T).astype(np.float64)
    flat = x.data if task.sparse else x.ravel()
    cost = 0.5 * weight * float(np.vdot(flat, flat)) + float(H.sum(axis=0) @ task.l1[0] - np.vdot(linear, H))
    cost += 0.5 * float(np.vdot(gram, H.T @ H))
    descend_rows(gram, linear - task.l1, H, support, N_SWEEPS)
    return cost, Statistics(weight * (x.T @ H.astype(x.dtype)).T, weight * (H.T @ H))


def visit_entries(task: Task, W: NDArray, H: NDArray, x: Any, pace: Pace) -> tuple[float, Statistics]:
    """The same for counts of which most are zero, under beta = 1: zeros ask for nothing but the sum of the model."""
    columns, push = W.T, W.sum(axis=1)[np.newaxis]
    cost = price_of_activations(task, H) + float(H.sum(axis=0, dtype=np.float64) @ push[0])
    pull, linear = np.zeros_like(H), np.zeros_like(columns)
    cost += pull_of_activations(x, H, columns, pull)
    power = bold_power(task.h_power) if pace.bold else task.h_power
    multiply_rows(H, pull, push, task.l1.astype(H.dtype), task.l2.astype(H.dtype), power)
    pull_of_basis(x, H, columns, linear)
    return cost, Statistics(linear.T, H.sum(axis=0)[:, np.newaxis] * np.ones((1, task.n_bins), W.dtype))


def visit_all(task: Task, W: NDArray[np.float64], H: NDArray, pace: Pace) -> tuple[float, NDArray, Statistics]:
    """Return the objective at W and H, the activations one step on, and the statistics of all frames."""
    improved = H.astype(np.float64 if task.least_squares else pace.precision, order="C")
    # Entries are looked up by their bin: there the atoms of a bin lie side by side.
    rough = W.astype(pace.precision, order="F" if task.sparse else "C")
    gram = np.empty((0, 0))
    if task.least_squares:
        gram = float(task.weights.flat[0]) * (W @ W.T) + np.diag(task.l2[0])
    shape = W.shape
    total = Statistics(np.zeros(shape), np.zeros((len(W), len(W)) if task.least_squares else shape))
    value = task.constant + price_of_basis(task, W)

    def work(block: slice) -> tuple[float, Statistics]:
        return visit(task, rough, gram, improved[block], block, pace)

    for cost, statistics in run_in_threads(work, task.blocks, lambda: None):
        value += cost
        # In order and in double precision: the sum does not depend on the threads.
        np.add(total.linear, statistics.linear, out=total.linear)
        np.add(total.other, statistics.other, out=total.other)
    return value, improved, total


def price_of_activations(task: Task, H: NDArray) -> float:
    """Return the penalties of activations."""
    sums, squares = (values.sum(axis=0, dtype=np.float64) for values in (H, H * H))
    return float(sums @ task.l1[0] + 0.5 * squares @ task.l2[0])


def price_of_basis(task: Task, W: NDArray[np.float64]) -> float:
    """Return the penalties of what is free in the basis, and what its ties to templates cost."""
    free, tied = np.where(task.basis.free, W, 0.0), np.flatnonzero(task.basis.strength)
    cost = float((task.basis_l1 * free + 0.5 * task.basis_l2 * free * free).sum())
    if len(tied):
        cost += tie(task, W, tied)[0]
    return cost


def tie(task: Task, W: NDArray[np.float64], tied: NDArray[np.intp]) -> tuple[float, NDArray, NDArray]:
    """Return the cost of the ties to templates and the two halves of its slope: templates are data of a frame each."""
    w = np.maximum(W[tied], 0.0)
    pull, push = np.empty_like(w), np.empty_like(w)
    return measure(task.template[tied], task.strength[tied], w, task.beta, True, pull, push), pull, push


def update(task: Task, W: NDArray[np.float64], statistics: Statistics, bold: bool) -> NDArray[np.float64]:
    """Return the basis after one update of what is free in it."""
    free, tied = task.basis.free, np.flatnonzero(task.basis.strength)
    linear, other = statistics.linear.copy(), statistics.other.copy()
    if task.least_squares:
        strength = task.basis.strength * task.atoms[:, 0] ** 2 / task.unit
        gram = other + np.diag(task.basis_l2[:, 0] + strength)
        linear += strength[:, np.newaxis] * task.template - task.basis_l1
        new = W.T.copy()
        descend_rows(gram, np.ascontiguousarray(linear.T), new, np.ascontiguousarray(free.T), N_SWEEPS)
        return np.ascontiguousarray(new.T)
    if len(tied):
        _, pull, push = tie(task, W, tied)
        linear[tied] += pull
        other[tied] += push
    new = W.copy()
    power = bold_power(task.w_power) if bold else task.w_power
    multiply_rows(new, linear, other, task.basis_l1, task.basis_l2, power)
    return np.where(free, new, W)


def learn(
    frames: Frames,
    basis: Basis,
    W: NDArray[np.float64],
    H: NDArray[np.float64],
    *,
    tol: float,
    max_iter: int,
    callback: Callback | None = None,
) -> Learned:
    r"""Learn what is free in W, and the activations H with it, from the starts given.

    A pass lowers, over the activations and then over the free entries of W,

    .. math:: \sum_{tf} m_{tf} d_\beta(x_{tf} | v_{tf}) + \sum_{tk} (l_{1k} h_{tk} + \tfrac12 l_{2k} h_{tk}^2)
              + \sum_{free} (l'_{1k} w_{kf} + \tfrac12 l'_{2k} w_{kf}^2 + s_k d_\beta(w^0_{kf} | w_{kf})),
              \qquad v = b + H W

    by one multiplicative update each, which a power makes sure to lower it (see :func:`safe_power`); for least squares
    without weights per entry by coordinate sweeps [1]_. The tie of strength s to a template w0 is the cost of one more
    frame with the activation 1 in that component alone: it adds ``s w0 w^(beta-2)`` to the pull and ``s w^(beta-1)``
    to the push (to the quadratic program s on the diagonal and ``s w0`` to the linear term), so the update stays exact.

    Passes gather momentum: each starts not where the one before it ended but beyond, in every entry by the ratio to
    where the one before that ended, to the power of Nesterov's weight n / (n + 3) after n passes with it [2]_. In
    ratios, as for the updates themselves, nothing leaves the positive. Entries that the last update moved the other way
    stay where it left them [3]_, and a ratio counts as three at most. Nor are updates held to what is sure to lower:
    the exponent is :func:`bold_power`, in single precision.

    Where the objective has not fallen, the pass is taken back and taken again without momentum, then as it is sure to
    fall, and when that is lost in rounding, in double precision: the objective never rises.

    .. [1] N. Gillis and F. Glineur, "Accelerated multiplicative updates and hierarchical ALS algorithms for
       nonnegative matrix factorization", Neural Computation 24(4), 2012.
    .. [2] L. T. K. Hien, V. Leplat and N. Gillis, "Block majorization minimization with extrapolation and application
       to beta-NMF", 2024 (arXiv:2401.06646), who extrapolate differences, which took several times as many passes here.
    .. [3] B. O'Donoghue and E. Candes, "Adaptive restart for accelerated gradient schemes", Foundations of
       Computational Mathematics 15(3), 2015; here entry by entry.
    """
    task = Task(frames, basis, W)
    with threadpool_limits(limits=1, user_api="blas"), np.errstate(all="ignore"):
        descent = Descent(task, W / task.atoms, H * task.atoms.T / task.scale)
        n_passes, converged = 0, False
        while not converged and n_passes < max_iter:
            before = descent.value
            if descent.take_pass():
                n_passes += 1
                if callback is not None:
                    callback(n_passes, descent.value * task.unit)
                converged = before - descent.value <= tol * before
                if converged and tol < SINGLE_TOL:
                    converged = not descent.go_over_to_double()
            else:
                converged = not descent.fall_back()
    last, activations = descent.here
    return Learned(
        np.where(basis.free, last * task.atoms, W),
        activations * task.scale / task.atoms.T,
        [value * task.unit for value in descent.history],
        n_passes,
        price_of_basis(task, last) * task.unit,
        converged,
    )


class Descent:
    """Passes from a start, each of which lowers the objective.

    Where a pass did not, it is taken back, and the next one is taken a rung further down: with momentum; without; with
    updates that are sure to lower it; in double precision. There is nothing below that.

    Attributes
    ----------
    here : (W, H)
        The basis and the activations.
    value : float
        The objective there.
    history : list of float
        The objective at the start and after every pass.
    """

    def __init__(self, task: Task, W: NDArray[np.float64], H: NDArray[np.float64]):
        self.task, self.here = task, (W, H)
        self.pace = Pace(np.float32, task.may_be_bold)
        self._ended: Point | None = None  # where the last pass ended; momentum goes beyond that
        self._n_carried = 0  # passes in a row with momentum
        self._n_safe, self._caution = 0, 1  # passes that are to be safe; how many next time
        self._look()
        self.history = [self.value]

    def _look(self) -> None:
        """Compute the objective, and what the next pass starts from, at the present point and pace."""
        self.value, self._improved, self._statistics = visit_all(self.task, *self.here, self.pace)

    def take_pass(self) -> bool:
        """Take a pass; return whether it lowered the objective. If not, nothing has changed."""
        ended = update(self.task, self.here[0], self._statistics, self.pace.bold), self._improved
        point = beyond(ended, self.here, self._ended, self._n_carried) if self._ended else ended
        value, improved, statistics = visit_all(self.task, *point, self.pace)
        if not value <= self.value:
            return False
        self.here, self.value, self._improved, self._statistics = point, value, improved, statistics
        self._ended, self._n_carried = None if self.task.least_squares else ended, self._n_carried + 1
        self._n_safe = max(0, self._n_safe - 1)
        self.pace = self.pace._replace(bold=self._n_safe == 0 and self.task.may_be_bold)
        self.history = recorded(self.history, value)
        return True

    def fall_back(self) -> bool:
        """Go one rung down; return False where there is none left."""
        if self._ended:
            self._ended, self._n_carried = None, 0
            return True
        if self.pace.bold:
            self.pace = self.pace._replace(bold=False)
            self._n_safe, self._caution = self._caution, 2 * self._caution
            self._look()
            return True
        return self.go_over_to_double()

    def go_over_to_double(self) -> bool:
        """Compute in double precision from now on; return False where that is so already."""
        if self.pace.precision == np.float64:
            return False
        self.pace = self.pace._replace(precision=np.float64)
        self._ended, self._n_carried = None, 0
        self._look()
        self.history = recorded(self.history[:-1], self.value)
        return True


def beyond(ended: Point, here: Point, before: Point, n_carried: int) -> Point:
    """Return what lies beyond the point where a pass ended that began ``here``; the one before it ended ``before``."""
    share = n_carried / (n_carried + 3)
    W, H = (extrapolate(*points, share) for points in zip(ended, here, before, strict=True))
    return W, H


def recorded(history: list[float], value: float) -> list[float]:
    """Return the history with one more value; earlier ones below it, which nobody can have, are left out."""
    return [*(earlier for earlier in history if earlier >= value), value]


def learn_block(
    frames: Frames,
    basis: Basis,
    W: NDArray[np.float64],
    H: NDArray[np.float64],
    memory: Statistics | None,
    forgetting: float,
) -> tuple[NDArray[np.float64], Statistics]:
    """Update W once by a block of frames and what is remembered of earlier ones; return it with the new memory.

    What is remembered is the majorising function of each block, whose coefficients do not depend on the W at which it
    was made: ``linear w^max(0, 2-beta)`` and ``other w^-max(0, beta-1)``, summed, and multiplied by ``forgetting`` at
    every block [1]_. ``H`` are the activations of the block at W.

    .. [1] A. Lefevre, F. Bach and C. Fevotte, "Online algorithms for nonnegative matrix factorization with the
       Itakura-Saito divergence", IEEE WASPAA 2011.
    """
    task = Task(frames, basis, W, multiplicative=True)
    with threadpool_limits(limits=1, user_api="blas"), np.errstate(all="ignore"):
        scaled = W / task.atoms
        _, _, new = visit_all(task, scaled, H * task.atoms.T / task.scale, Pace(np.float64, False))
        w = np.maximum(W, np.finfo(np.float64).tiny)
        linear_unit = task.unit / task.atoms * w ** max(0.0, 2.0 - task.beta)
        other_unit = task.unit / task.atoms / w ** max(0.0, task.beta - 1.0)
        memory = Statistics(
            new.linear * linear_unit + (forgetting * memory.linear if memory else 0.0),
            new.other * other_unit + (forgetting * memory.other if memory else 0.0),
        )
        statistics = Statistics(memory.linear / linear_unit, memory.other / other_unit)
        return np.where(basis.free, update(task, scaled, statistics, False) * task.atoms, W), memory
