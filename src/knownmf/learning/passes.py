"""Passes over the data: statistics of a block of frames -> merge -> update of what is free in the basis.

All is frames-major: a frame is a row of X (n_frames, n_bins) and of H (n_frames, n_components), a component a row of W
(n_components, n_bins). A pass improves the activations of every block of frames, sums the statistics that the basis
needs, and updates what is free in it. Blocks are independent: they run in threads, and are merged in order.
"""

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from knownmf.learning.known import KnownBasis
from knownmf.native import (
    ZERO_FLOOR,
    descend_rows,
    measure,
    multiply_rows,
    pull_of_activations,
    pull_of_basis,
    safe_power,
)
from knownmf.observations import Observations
from knownmf.threads import run_in_threads
from knownmf.validation import check_sparse

# How many blocks there are, and how few and how many entries of X one has. Ad hoc: enough blocks for many threads,
# small enough to stay in the cache.
BLOCKS, SMALLEST_BLOCK, LARGEST_BLOCK = 16, 2**15, 2**20
# Frames whose largest value is a smaller share than this of that of all, ties that are weaker than this in the unit of
# the objective, and penalties beyond its inverse leave the range of single precision, 1e-38 to 1e38, on the way: passes
# are then in double precision.
SMALLEST_SHARE = 1e-25
N_SWEEPS = 2  # coordinate sweeps of least squares: the products that they start from cost more


class Loss(NamedTuple):
    """What learning minimizes: the beta-divergence, penalties of activations, and penalties of what is free in W."""

    beta: float
    l1: float = 0.0
    l2: float = 0.0
    basis_l1: float = 0.0
    basis_l2: float = 0.0

    @property
    def has_penalties(self) -> bool:
        """Whether it has penalties, which decide the scale of components."""
        return any(self[1:])


class Statistics(NamedTuple):
    """The sums over a block of frames that the update of the basis needs.

    The multiplicative update takes ``linear = H'pull`` and ``other = H'push`` (n_components, n_bins), with the slopes'
    halves ``pull = m x v^(beta-2)`` and ``push = m v^(beta-1)``; least squares without weights takes ``linear = H'x``
    and ``other = H'H``.
    """

    linear: NDArray
    other: NDArray


class Pace(NamedTuple):
    """How a pass computes.

    Attributes
    ----------
    precision : numpy.float32 or numpy.float64
        The type of its matrices.
    long_steps : bool
        Whether its updates use :func:`long_power`, which nearly always lowers the objective, instead of
        :func:`knownmf.native.safe_power`, which always does.
    """

    precision: type[np.floating]
    long_steps: bool


def long_power(safe: float) -> float:
    """Return twice the safe exponent, at most 1, with which an update nearly always lowers the objective too."""
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
    """What to learn from, in units in which the data and the components are of the size of one.

    Parameters
    ----------
    observations : Observations
        The data; what has a row for each frame here has a column there.
    known : KnownBasis
        What is known of the basis.
    loss : Loss
        What is minimized.
    W : (n_components, n_bins) float64
        The basis that learning starts from, which decides the units of the components.
    multiplicative : bool
        Whether least squares, too, is to be solved by multiplicative updates.

    Attributes
    ----------
    scales : (1 or n_frames, 1) float64
        What the data are divided by: powers of two. One for all frames, or, below beta = 1, one for each: there a small
        frame counts as much as a large one, or more, and single precision has to hold both.
    atoms : (n_components, 1) float64
        What the components are divided by: powers of two. Activations are divided by ``scales / atoms``.
    unit : float
        What objectives are divided by: the largest ``scales ** beta``.
    shares : (n_frames, 1) float64, or None
        What the weights of each frame are multiplied by: ``scales ** beta / unit``. None if it is 1 for all.
    needs_double : bool
        Whether frames, ties or penalties are too far apart for single precision.
    l1, l2, basis_l1, basis_l2, strength, template
        The penalties and ties in these units.
    least_squares : bool
        Whether coordinate sweeps on Gram matrices are used, instead of multiplicative updates.
    h_power, w_power : float
        The safe exponents of the updates of H and W.
    weights : (1 or n_frames, n_bins) float64
        The weights, 0 for entries that cost a constant; the sum of these costs is ``constant``.
    floors : (n_frames, 1) float64
        What data of zero (for beta < 1) and models that nothing reaches count as.
    """

    def __init__(
        self,
        observations: Observations,
        known: KnownBasis,
        loss: Loss,
        W: NDArray[np.float64],
        multiplicative: bool = False,
    ):
        if observations.is_sparse:
            check_sparse(loss.beta, weights=observations.weights, background=observations.background)
        self.beta = loss.beta
        self.X = observations.V.T
        self.n_frames, self.n_bins = self.X.shape
        self.known = known
        self.given_weights = rows_or(observations.weights, self.n_bins, 1.0)
        self.background = rows_or(observations.background, self.n_bins, 0.0)
        self.support = rows_or(observations.support, len(W), 1.0) > 0.0
        self.sparse = scipy.sparse.issparse(self.X)
        entries = self.X.data if self.sparse else self.X
        self.blocks = blocks_of(self.n_frames, entries.size)
        self.has_negative = bool(np.fmin.reduce(entries, axis=None, initial=0.0) < 0.0)  # of least squares
        largest = self.largest_of_frames()
        self.scales = power_of_two(largest if self.beta < 1.0 else np.array([largest.max(initial=0.0)]))[:, np.newaxis]
        sizes = self.beta * np.log2(self.scales)  # exponents of two
        self.unit = float(2.0 ** sizes.max(initial=-np.inf)) if len(sizes) else 1.0
        self.shares = 2.0 ** (sizes - sizes.max()) if np.ptp(sizes) else None
        atoms = power_of_two(W.sum(axis=1))
        self.atoms = atoms[:, np.newaxis]
        units = self.scales / atoms
        self.l1 = loss.l1 * units / self.unit if loss.l1 else np.zeros((1, len(W)))
        self.l2 = loss.l2 * units**2 / self.unit if loss.l2 else np.zeros((1, len(W)))
        ones = np.ones((1, self.n_bins))
        self.basis_l1 = (loss.basis_l1 * atoms / self.unit)[:, np.newaxis] * ones
        self.basis_l2 = (loss.basis_l2 * atoms**2 / self.unit)[:, np.newaxis] * ones
        self.strength = (known.strength * atoms**self.beta / self.unit)[:, np.newaxis] * known.free
        positive = np.concatenate(
            [largest[largest > 0.0] / largest.max(initial=0.0), self.strength[self.strength > 0.0]]
        )
        largest_penalty = max(np.max(values, initial=0.0) for values in (self.l1, self.l2))
        self.needs_double = self.beta >= 1.0 and bool((positive < SMALLEST_SHARE).any())
        self.needs_double |= bool(largest_penalty > 1.0 / SMALLEST_SHARE)
        self.template = known.template / self.atoms
        if self.beta < 1.0:
            self.template = np.maximum(self.template, ZERO_FLOOR * self.template.max(axis=1, keepdims=True))
        self.missing = bool(np.isnan(np.add.reduce(entries, axis=None)))
        plain = not self.missing and np.ptp(self.given_weights) == 0.0
        self.least_squares = self.beta == 2.0 and plain and not multiplicative
        self.h_power = safe_power(self.beta, loss.l2 > 0.0)
        self.w_power = safe_power(self.beta, loss.basis_l2 > 0.0)
        self.may_take_long_steps = not self.least_squares and min(self.h_power, self.w_power) < 1.0
        self.weights, self.constant = self.given_weights, 0.0
        self.floors = self.find_floors() if self.beta <= 1.0 else np.zeros((self.n_frames, 1))
        if self.beta <= 1.0:
            self.leave_out(W)

    def largest_of_frames(self) -> NDArray[np.float64]:
        """Return the largest absolute value of each frame; of a frame without any, that of its background."""
        if self.sparse:
            return abs(self.X).max(axis=1).toarray().ravel().astype(np.float64)
        largest = np.zeros(self.n_frames)
        for block in self.blocks:
            x, background = self.X[block], rows_in_block(self.background, block)
            part = np.fmax.reduce(x, axis=1, initial=0.0).astype(np.float64)
            if self.has_negative:
                part = np.maximum(part, -np.fmin.reduce(x, axis=1, initial=0.0))
            largest[block] = np.where(part > 0.0, part, background.max(axis=1) if self.beta < 1.0 else 0.0)
        return largest

    @cached_property
    def size(self) -> float:
        """Return the size of the data, which rounding in single precision is relative to: the sum of weight x^beta.

        For beta < 0, where small data would have an unbounded share in it, it is the sum of the weights.
        """
        if self.sparse and self.beta > 0.0:  # zeros add nothing
            return float(self.weights.flat[0]) * float(((self.X.data / self.scales) ** self.beta).sum())
        size = 0.0
        for block in self.blocks:
            x, m, _ = self.load(block, np.float64)
            sizes = x ** max(self.beta, 0.0)
            size += float((m * sizes).sum())
            if self.has_negative:
                size += float((m * np.square(np.minimum(np.nan_to_num(self.X[block]), 0.0) / self.scales)).sum())
        return size

    def find_floors(self) -> NDArray[np.float64]:
        """Return what data (below beta = 1) and models that nothing reaches are raised to, a frame a row."""
        if self.sparse:
            return ZERO_FLOOR / self.scales * self.X.max(axis=1).toarray().reshape(-1, 1)
        floors = np.zeros((self.n_frames, 1))
        for block in self.blocks:
            counts = rows_in_block(self.given_weights, block) > 0.0
            largest = np.where(counts, np.nan_to_num(self.X[block]), 0.0).max(axis=1)
            if self.beta < 1.0:
                background = np.where(counts, rows_in_block(self.background, block), 0.0).max(axis=1)
                largest = np.where(largest > 0.0, largest, background)
            floors[block, 0] = ZERO_FLOOR * largest / rows_in_block(self.scales, block)[:, 0]
        return floors

    def leave_out(self, W: NDArray[np.float64]) -> None:
        """Take the weight of entries that cost a constant whatever is learned, and keep that constant.

        Those are bins with data that neither an atom of the support nor the background reaches, and, below beta = 1,
        frames without anything.
        """
        idle = (self.floors == 0.0) & (self.beta < 1.0)
        reached = (self.support @ (W > 0.0) > 0) | (self.background > 0.0)
        if reached.all() and not idle.any():
            return
        if self.sparse:
            self.leave_out_entries(reached)
            return
        # Below beta = 1 every observed entry has data: zeros are raised to the floor.
        with_data = ~np.isnan(self.X) if self.beta < 1.0 else np.nan_to_num(self.X) > 0.0
        out = ~reached & with_data | idle
        self.weights = np.where(out, 0.0, self.given_weights)
        for block in self.blocks:
            x, m, _ = self.load(block, np.float64)
            m = np.where(
                out[block] & ~np.isnan(self.X[block]) & ~idle[block], rows_in_block(self.given_weights, block), 0.0
            )
            m = m if self.shares is None else m * self.shares[block]
            v = np.broadcast_to(self.floors[block], x.shape).copy()
            self.constant += measure(x, m, v, self.beta, True, np.empty_like(x), np.empty_like(x))

    def leave_out_entries(self, reached: NDArray[np.bool_]) -> None:
        """Leave out the entries of a sparse matrix that nothing reaches: they become zero, which costs nothing."""
        X = self.X.astype(np.float64)
        rows = np.repeat(np.arange(self.n_frames), np.diff(X.indptr))
        lost = ~np.broadcast_to(reached, X.shape)[rows, X.indices] & (X.data > 0.0)
        x, v = X.data[np.newaxis] / self.scales, self.floors[rows].T.copy()
        self.constant += measure(x, 1.0 * lost[np.newaxis], v, self.beta, True, np.empty_like(x), np.empty_like(x))
        X.data[lost] = 0.0
        self.X = X

    def load(self, block: slice, precision: type[np.floating]) -> tuple[NDArray, NDArray, NDArray]:
        """Return the data, the weights and the background of a block, in the precision asked for.

        Negative data, which least squares may have, become background: what is left for the activations stays the same.
        """
        source, weights = self.X[block], rows_in_block(self.weights, block)
        source = source.toarray() if self.sparse else source
        x = np.empty(source.shape, precision)
        scales = rows_in_block(self.scales, block)
        np.multiply(source, 1.0 / (scales if len(scales) > 1 else float(scales[0, 0])), out=x, casting="same_kind")
        if self.missing:
            hole = np.isnan(x)
            weights = np.where(hole, 0.0, weights)
            x[hole] = 0.0
        if self.beta < 1.0:
            np.maximum(x, self.floors[block].astype(precision), out=x)
        if self.shares is not None:
            weights = weights * self.shares[block]
        background = rows_in_block(self.background, block) / scales
        if self.has_negative:
            background = background - np.minimum(x, 0.0)
            np.maximum(x, 0.0, out=x)
        return x, np.ascontiguousarray(weights, precision), background.astype(precision)


def rows_or(columns: NDArray | None, size: int, default: float) -> NDArray[np.float64]:
    """Return columns, or the values that all frames share, as rows of this size; or one row of a default."""
    if columns is None:
        return np.full((1, size), default)
    return np.atleast_2d(columns.T).astype(np.float64, copy=False)


def rows_in_block(values: NDArray, block: slice) -> NDArray:
    """Return the rows of a block, or the one row that stands for all."""
    return values if len(values) == 1 else values[block]


def improve(
    task: Task, W: NDArray, gram: NDArray | None, H: NDArray, block: slice, pace: Pace
) -> tuple[float, Statistics]:
    """Improve the activations of a block, in place; return their cost before that, and the statistics after it.

    ``gram`` are the products of the atoms, for coordinate sweeps, or None, for multiplicative updates.
    """
    if task.sparse and (gram is not None or task.beta == 1.0):
        part = entries_of(task, block, pace.precision)
        if gram is not None:
            return improve_squares(task, W, gram, H, part, rows_in_block(task.support, block))
        return improve_entries(task, W, H, part, pace)
    x, m, b = task.load(block, pace.precision)
    if gram is not None:
        return improve_squares(task, W, gram, H, x - b, rows_in_block(task.support, block))
    beta, cost = task.beta, penalty_of_activations(task, H, block)
    l1, l2 = (rows_in_block(values, block).astype(H.dtype) for values in (task.l1, task.l2))
    v, pull, push = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    np.add(np.matmul(H, W, out=v), b, out=v)
    cost += measure(x, m, v, beta, True, pull, push)
    shared = beta == 1.0 and len(m) == 1
    power = long_power(task.h_power) if pace.long_steps else task.h_power
    multiply_rows(H, pull @ W.T, (m if shared else push) @ W.T, l1, l2, power)
    np.add(np.matmul(H, W, out=v), b, out=v)
    measure(x, m, v, beta, False, pull, push)
    return cost, Statistics(H.T @ pull, H.sum(axis=0)[:, np.newaxis] * m if shared else H.T @ push)


def entries_of(task: Task, block: slice, precision: type[np.floating]) -> Any:
    """Return a block of a sparse matrix as the native code takes it; blocks are far below 2^31 entries."""
    part = task.X[block].astype(precision) * precision(1.0 / float(task.scales[0, 0]))
    part.indices, part.indptr = (index.astype(np.int32, copy=False) for index in (part.indices, part.indptr))
    return part


def statistics_of(task: Task, W: NDArray[np.float64], H: NDArray[np.float64], block: slice) -> Statistics:
    """Return the statistics of a block for the multiplicative update, with its activations as they are."""
    if task.sparse and task.beta == 1.0:
        linear = np.zeros((task.n_bins, len(W)))
        pull_of_basis(entries_of(task, block, np.float64), H, np.ascontiguousarray(W.T), linear)
        return Statistics(linear.T, H.sum(axis=0)[:, np.newaxis] * np.ones((1, task.n_bins)))
    x, m, b = task.load(block, np.float64)
    v, pull, push = H @ W + b, np.empty_like(x), np.empty_like(x)
    measure(x, m, v, task.beta, False, pull, push)
    return Statistics(H.T @ pull, H.T @ push)


def improve_squares(
    task: Task, W: NDArray, gram: NDArray, H: NDArray[np.float64], x: Any, support: NDArray
) -> tuple[float, Statistics]:
    """Improve the activations of a block under least squares, from the products of the data and of the atoms alone."""
    weight = float(task.weights.flat[0])
    linear = weight * (x @ W.T).astype(np.float64)
    flat = x.data if task.sparse else x.ravel()
    cost = 0.5 * weight * float(np.vdot(flat, flat)) + float(H.sum(axis=0) @ task.l1[0] - np.vdot(linear, H))
    cost += 0.5 * float(np.vdot(gram, H.T @ H))
    descend_rows(gram, linear - task.l1, H, support, N_SWEEPS)
    return cost, Statistics(weight * (x.T @ H.astype(x.dtype)).T, weight * (H.T @ H))


def improve_entries(task: Task, W: NDArray, H: NDArray, x: Any, pace: Pace) -> tuple[float, Statistics]:
    """Improve the activations of a sparse block under beta = 1, where zeros cost nothing but the sum of the model."""
    columns, push = W.T, W.sum(axis=1)[np.newaxis]
    cost = penalty_of_activations(task, H, slice(None)) + float(H.sum(axis=0, dtype=np.float64) @ push[0])
    pull, linear = np.zeros_like(H), np.zeros_like(columns)
    cost += pull_of_activations(x, H, columns, pull)
    power = long_power(task.h_power) if pace.long_steps else task.h_power
    multiply_rows(H, pull, push, task.l1.astype(H.dtype), task.l2.astype(H.dtype), power)
    pull_of_basis(x, H, columns, linear)
    return cost, Statistics(linear.T, H.sum(axis=0)[:, np.newaxis] * np.ones((1, task.n_bins), W.dtype))


def take_pass(task: Task, W: NDArray[np.float64], H: NDArray, pace: Pace) -> tuple[float, NDArray, Statistics]:
    """Return the objective at W and H, the activations one step on, and the statistics of all frames."""
    improved = H.astype(np.float64 if task.least_squares else pace.precision, order="C")
    # Entries are looked up by their bin: there the atoms of a bin lie side by side.
    rough = W.astype(pace.precision, order="F" if task.sparse else "C")
    gram = float(task.weights.flat[0]) * (W @ W.T) + np.diag(task.l2[0]) if task.least_squares else None
    shape = W.shape
    total = Statistics(np.zeros(shape), np.zeros((len(W), len(W)) if task.least_squares else shape))
    value = task.constant + cost_of_basis(task, W)

    def work(block: slice) -> tuple[float, Statistics]:
        return improve(task, rough, gram, improved[block], block, pace)

    for cost, statistics in run_in_threads(work, task.blocks, lambda: None):
        value += cost
        # In order and in double precision: the sum does not depend on the threads.
        np.add(total.linear, statistics.linear, out=total.linear)
        np.add(total.other, statistics.other, out=total.other)
    return value, improved, total


def take_statistics(task: Task, W: NDArray[np.float64], H: NDArray[np.float64]) -> Statistics:
    """Return the statistics of all frames for the multiplicative update, with their activations as they are."""
    total = Statistics(np.zeros(W.shape), np.zeros(W.shape))
    H = np.ascontiguousarray(H)

    def work(block: slice) -> Statistics:
        return statistics_of(task, W, H[block], block)

    for statistics in run_in_threads(work, task.blocks, lambda: None):
        np.add(total.linear, statistics.linear, out=total.linear)
        np.add(total.other, statistics.other, out=total.other)
    return total


def penalty_of_activations(task: Task, H: NDArray, block: slice) -> float:
    """Return the penalties of the activations of a block."""
    total = 0.0
    for values, penalty in ((H, task.l1), (0.5 * H * H, task.l2)):
        if not penalty.any():
            continue
        if len(penalty) == 1:
            total += float(values.sum(axis=0, dtype=np.float64) @ penalty[0])
        else:
            total += float(np.vdot(values.astype(np.float64), penalty[block]))
    return total


def cost_of_basis(task: Task, W: NDArray[np.float64]) -> float:
    """Return the penalties of what is free in the basis, and what its ties to templates cost."""
    free, tied = np.where(task.known.free, W, 0.0), np.flatnonzero(task.known.strength)
    cost = float((task.basis_l1 * free + 0.5 * task.basis_l2 * free * free).sum())
    if len(tied):
        cost += compare_with_templates(task, W, tied)[0]
    return cost


def compare_with_templates(
    task: Task, W: NDArray[np.float64], tied: NDArray[np.intp]
) -> tuple[float, NDArray, NDArray]:
    """Return the cost of the ties to templates, and the two halves of its slope in W.

    A template counts as the data of one more frame.
    """
    w = np.maximum(W[tied], 0.0)
    pull, push = np.empty_like(w), np.empty_like(w)
    return measure(task.template[tied], task.strength[tied], w, task.beta, True, pull, push), pull, push


def update(task: Task, W: NDArray[np.float64], statistics: Statistics, long_steps: bool) -> NDArray[np.float64]:
    """Return the basis after one update of what is free in it."""
    free, tied = task.known.free, np.flatnonzero(task.known.strength)
    linear, other = statistics.linear.copy(), statistics.other.copy()
    if task.least_squares:
        strength = task.known.strength * task.atoms[:, 0] ** 2 / task.unit
        gram = other + np.diag(task.basis_l2[:, 0] + strength)
        linear += strength[:, np.newaxis] * task.template - task.basis_l1
        new = W.T.copy()
        descend_rows(gram, np.ascontiguousarray(linear.T), new, np.ascontiguousarray(free.T), N_SWEEPS)
        return np.ascontiguousarray(new.T)
    if len(tied):
        _, pull, push = compare_with_templates(task, W, tied)
        linear[tied] += pull
        other[tied] += push
    new = W.copy()
    power = long_power(task.w_power) if long_steps else task.w_power
    multiply_rows(new, linear, other, task.basis_l1, task.basis_l2, power)
    return np.where(free, new, W)
