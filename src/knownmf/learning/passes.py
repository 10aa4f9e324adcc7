"""Passes over the data: statistics of a block of frames -> merge -> update of what is free in the basis.

All is frames-major: a frame is a row of X (n_frames, n_bins) and of H (n_frames, n_components), a component a row of W
(n_components, n_bins). A pass improves the activations of every block of frames, sums the statistics that the basis
needs, and updates what is free in it. Blocks are independent: they run in threads, and are merged in order.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from knownmf.blocks import Part
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


class Survey(NamedTuple):
    """What has to be known of all frames before the first pass; surveys of blocks are merged.

    Attributes
    ----------
    n_frames, n_bins : int
        The size of the data.
    largest, smallest : float
        The largest absolute value, and the smallest positive one of the largest ones of each frame. Below beta = 1 the
        background counts in frames without data.
    data_largest, data_smallest : float
        The same of the data alone.
    scale_low, scale_high : float
        The smallest and the largest power of two that frames are divided by below beta = 1.
    low : float
        The smallest value, or 0.
    missing : bool
        Whether entries are missing.
    total, n_observed : float
        The sum of what is positive, and the number of entries that are not missing.
    weight_low, weight_high : float
        The smallest and the largest weight.
    """

    n_frames: int
    n_bins: int
    largest: float
    smallest: float
    data_largest: float
    data_smallest: float
    scale_low: float
    scale_high: float
    low: float
    missing: bool
    total: float
    n_observed: float
    weight_low: float
    weight_high: float

    @classmethod
    def of(cls, observations: Observations, beta: float) -> Self:
        """Return what has to be known of a block of frames."""
        X = observations.V.T
        sparse = scipy.sparse.issparse(X)
        n_frames, n_bins = X.shape
        entries = X.data if sparse else X
        low = float(np.fmin.reduce(entries, axis=None, initial=0.0))
        data_largest = largest_data(X, low < 0.0)
        largest = data_largest
        if beta < 1.0 and not sparse:
            background = rows_or(observations.background, n_bins, 0.0).max(axis=1)
            largest = np.where(data_largest > 0.0, data_largest, background)
        scales = power_of_two(largest)
        total = n_missing = 0.0
        for block in blocks_of(n_frames, n_frames) if sparse else blocks_of(n_frames, entries.size):
            values = X[block].data if sparse else X[block]
            hole = np.isnan(values)
            total += float(np.sum(values, dtype=np.float64, where=~hole & (values > 0)))
            n_missing += float(hole.sum())
        weights = (1.0,) if observations.weights is None else observations.weights
        return cls(
            n_frames,
            n_bins,
            float(largest.max(initial=0.0)),
            _smallest_positive(largest),
            float(data_largest.max(initial=0.0)),
            _smallest_positive(data_largest),
            float(scales.min()),
            float(scales.max()),
            low,
            n_missing > 0,
            total,
            float(n_frames) * n_bins - n_missing,
            float(np.min(weights)),
            float(np.max(weights)),
        )

    def merged(self, other: Self) -> Self:
        """Return what has to be known of these frames and of ``other`` ones."""
        sums, lows = (
            ("n_frames", "total", "n_observed"),
            ("smallest", "data_smallest", "scale_low", "low", "weight_low"),
        )
        values = {name: getattr(self, name) + getattr(other, name) for name in sums}
        values |= {name: min(getattr(self, name), getattr(other, name)) for name in lows}
        highs = ("largest", "data_largest", "scale_high", "missing", "weight_high")
        values |= {name: max(getattr(self, name), getattr(other, name)) for name in highs}
        return self._replace(**values)

    @property
    def is_plain(self) -> bool:
        """Whether nothing is missing and all weights are equal."""
        return not self.missing and self.weight_low == self.weight_high

    @property
    def mean(self) -> float:
        """The mean of what is positive, of what is not missing; 0 of nothing."""
        return self.total / self.n_observed if self.n_observed else 0.0


@dataclass(frozen=True)
class TakeSurvey:
    """Take the survey of a block."""

    beta: float

    def __call__(self, shared: Any, part: Part, state: Any) -> tuple[Survey, None]:
        """Return the summary of a block, and its new state."""
        return Survey.of(part.read(), self.beta), None


def _smallest_positive(values: NDArray[np.float64]) -> float:
    """Return the smallest positive value, infinity if there is none."""
    return float(np.min(values, initial=np.inf, where=values > 0.0))


def largest_data(X: Any, has_negative: bool) -> NDArray[np.float64]:
    """Return the largest absolute value of each row."""
    if scipy.sparse.issparse(X):
        return abs(X).max(axis=1).toarray().ravel().astype(np.float64)
    largest = np.fmax.reduce(X, axis=1, initial=0.0).astype(np.float64)
    return np.maximum(largest, -np.fmin.reduce(X, axis=1, initial=0.0)) if has_negative else largest


class Terms:
    """What learning minimizes, in units in which the data and the components are of the size of one.

    It is the same for all blocks of frames.

    Parameters
    ----------
    survey : Survey
        What is known of all frames.
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
    scale : float
        What the data are divided by: a power of two. Below beta = 1, each frame has its own instead (see
        :class:`Task`): there a small frame counts as much as a large one, or more, and single precision has to hold
        both.
    atoms : (n_components, 1) float64
        What the components are divided by: powers of two. Activations are divided by the scale of their frame divided
        by ``atoms``.
    unit : float
        What objectives are divided by: the largest ``scale ** beta`` of the frames.
    has_shares : bool
        Whether ``scale ** beta`` is not the same for all frames.
    needs_double : bool
        Whether frames, ties or penalties are too far apart for single precision.
    l1, l2 : float
        The penalties of the activations, in the units of the user.
    basis_l1, basis_l2, strength, template
        The penalties and ties of the basis in these units.
    least_squares : bool
        Whether coordinate sweeps on Gram matrices are used, instead of multiplicative updates.
    h_power, w_power : float
        The safe exponents of the updates of H and W.
    reachable : (n_components, n_bins) array of bool
        Where components are positive from the start.
    """

    def __init__(
        self, survey: Survey, known: KnownBasis, loss: Loss, W: NDArray[np.float64], multiplicative: bool = False
    ):
        self.beta, self.known, self.l1, self.l2 = loss.beta, known, loss.l1, loss.l2
        self.missing, self.has_negative = survey.missing, survey.low < 0.0  # negative data are for least squares
        self.scale = float(power_of_two(np.array(survey.largest)))
        scales = np.array([survey.scale_low, survey.scale_high] if self.beta < 1.0 else [self.scale])
        sizes = self.beta * np.log2(scales)  # exponents of two
        self.largest_size, self.has_shares = float(sizes.max()), bool(np.ptp(sizes))
        self.unit = float(2.0 ** sizes.max())
        atoms = power_of_two(W.sum(axis=1))
        self.atoms = atoms[:, np.newaxis]
        ones = np.ones((1, survey.n_bins))
        self.basis_l1 = (loss.basis_l1 * atoms / self.unit)[:, np.newaxis] * ones
        self.basis_l2 = (loss.basis_l2 * atoms**2 / self.unit)[:, np.newaxis] * ones
        self.strength = (known.strength * atoms**self.beta / self.unit)[:, np.newaxis] * known.free
        self.template = known.template / self.atoms
        if self.beta < 1.0:
            self.template = np.maximum(self.template, ZERO_FLOOR * self.template.max(axis=1, keepdims=True))
        shares = self.strength[self.strength > 0.0]
        if survey.largest > 0.0:
            shares = np.append(shares, survey.smallest / survey.largest)
        largest_penalty = max(values.max(initial=0.0) for values in self.penalties(scales.max(keepdims=True)))
        self.needs_double = self.beta >= 1.0 and bool((shares < SMALLEST_SHARE).any())
        self.needs_double |= bool(largest_penalty > 1.0 / SMALLEST_SHARE)
        self.least_squares = self.beta == 2.0 and survey.is_plain and not multiplicative
        self.h_power = safe_power(self.beta, loss.l2 > 0.0)
        self.w_power = safe_power(self.beta, loss.basis_l2 > 0.0)
        self.may_take_long_steps = not self.least_squares and min(self.h_power, self.w_power) < 1.0
        self.reachable = W > 0.0

    def penalties(self, scales: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return l1 and l2 of the activations in these units, a row for each scale of frames."""
        units = scales.reshape(-1, 1) / self.atoms.T
        none = np.zeros((1, len(self.atoms)))
        l1 = self.l1 * units / self.unit if self.l1 else none
        return l1, self.l2 * units**2 / self.unit if self.l2 else none


class Task:
    """A block of frames to learn from, in the units of the terms.

    Parameters
    ----------
    observations : Observations
        The data; what has a row for each frame here has a column there.
    terms : Terms
        What is minimized.

    Attributes
    ----------
    scales : (1 or n_frames, 1) float64
        What the data are divided by: powers of two. One for all frames, or, below beta = 1, one for each.
    shares : (n_frames, 1) float64, or None
        What the weights of each frame are multiplied by: ``scales ** beta / unit``. None if it is 1 for all.
    l1, l2 : (1 or n_frames, n_components) float64
        The penalties of the activations.
    weights : (1 or n_frames, n_bins) float64
        The weights, 0 for entries that cost a constant; the sum of these costs is ``constant``.
    floors : (n_frames, 1) float64
        What data of zero (for beta < 1) and models that nothing reaches count as.
    """

    def __init__(self, observations: Observations, terms: Terms):
        if observations.is_sparse:
            check_sparse(terms.beta, weights=observations.weights, background=observations.background)
        self.terms, self.beta = terms, terms.beta
        self.missing, self.has_negative = terms.missing, terms.has_negative
        self.X = observations.V.T
        self.n_frames, self.n_bins = self.X.shape
        self.given_weights = rows_or(observations.weights, self.n_bins, 1.0)
        self.background = rows_or(observations.background, self.n_bins, 0.0)
        self.support = rows_or(observations.support, len(terms.atoms), 1.0) > 0.0
        self.sparse = scipy.sparse.issparse(self.X)
        self.blocks = blocks_of(self.n_frames, (self.X.data if self.sparse else self.X).size)
        scales = power_of_two(self.largest_of_frames()) if self.beta < 1.0 else np.array([terms.scale])
        self.scales = scales[:, np.newaxis]
        self.shares = None
        if terms.has_shares:
            self.shares = 2.0 ** (self.beta * np.log2(self.scales) - terms.largest_size)
        self.l1, self.l2 = terms.penalties(scales)
        self.weights, self.constant = self.given_weights, 0.0
        self.floors = self.find_floors() if self.beta <= 1.0 else np.zeros((self.n_frames, 1))
        if self.beta <= 1.0:
            self.leave_out()

    def units(self) -> NDArray[np.float64]:
        """Return what activations are divided by."""
        return self.scales / self.terms.atoms.T

    def largest_of_frames(self) -> NDArray[np.float64]:
        """Return the largest value of each frame; of a frame without any, that of its background."""
        largest = np.zeros(self.n_frames)
        for block in self.blocks:
            part, background = largest_data(self.X[block], False), rows_in_block(self.background, block)
            largest[block] = np.where(part > 0.0, part, background.max(axis=1))
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

    def leave_out(self) -> None:
        """Take the weight of entries that cost a constant whatever is learned, and keep that constant.

        Those are bins with data that neither an atom of the support nor the background reaches, and, below beta = 1,
        frames without anything.
        """
        idle = (self.floors == 0.0) & (self.beta < 1.0)
        reached = (self.support @ self.terms.reachable > 0) | (self.background > 0.0)
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
    power = long_power(task.terms.h_power) if pace.long_steps else task.terms.h_power
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
    power = long_power(task.terms.h_power) if pace.long_steps else task.terms.h_power
    multiply_rows(H, pull, push, task.l1.astype(H.dtype), task.l2.astype(H.dtype), power)
    pull_of_basis(x, H, columns, linear)
    return cost, Statistics(linear.T, H.sum(axis=0)[:, np.newaxis] * np.ones((1, task.n_bins), W.dtype))


def take_pass(task: Task, W: NDArray[np.float64], H: NDArray, pace: Pace) -> tuple[float, NDArray, Statistics]:
    """Return what a block of frames costs at W and H, the activations one step on, and the statistics of the frames."""
    terms = task.terms
    improved = H.astype(np.float64 if terms.least_squares else pace.precision, order="C")
    # Entries are looked up by their bin: there the atoms of a bin lie side by side.
    rough = W.astype(pace.precision, order="F" if task.sparse else "C")
    gram = float(task.weights.flat[0]) * (W @ W.T) + np.diag(task.l2[0]) if terms.least_squares else None
    shape = W.shape
    total = Statistics(np.zeros(shape), np.zeros((len(W), len(W)) if terms.least_squares else shape))
    value = task.constant

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


def cost_of_basis(terms: Terms, W: NDArray[np.float64]) -> float:
    """Return the penalties of what is free in the basis, and what its ties to templates cost."""
    free, tied = np.where(terms.known.free, W, 0.0), np.flatnonzero(terms.known.strength)
    cost = float((terms.basis_l1 * free + 0.5 * terms.basis_l2 * free * free).sum())
    if len(tied):
        cost += compare_with_templates(terms, W, tied)[0]
    return cost


def compare_with_templates(
    terms: Terms, W: NDArray[np.float64], tied: NDArray[np.intp]
) -> tuple[float, NDArray, NDArray]:
    """Return the cost of the ties to templates, and the two halves of its slope in W.

    A template counts as the data of one more frame.
    """
    w = np.maximum(W[tied], 0.0)
    pull, push = np.empty_like(w), np.empty_like(w)
    return measure(terms.template[tied], terms.strength[tied], w, terms.beta, True, pull, push), pull, push


def update(terms: Terms, W: NDArray[np.float64], statistics: Statistics, long_steps: bool) -> NDArray[np.float64]:
    """Return the basis after one update of what is free in it."""
    free, tied = terms.known.free, np.flatnonzero(terms.known.strength)
    linear, other = statistics.linear.copy(), statistics.other.copy()
    if terms.least_squares:
        strength = terms.known.strength * terms.atoms[:, 0] ** 2 / terms.unit
        gram = other + np.diag(terms.basis_l2[:, 0] + strength)
        linear += strength[:, np.newaxis] * terms.template - terms.basis_l1
        new = W.T.copy()
        descend_rows(gram, np.ascontiguousarray(linear.T), new, np.ascontiguousarray(free.T), N_SWEEPS)
        return np.ascontiguousarray(new.T)
    if len(tied):
        _, pull, push = compare_with_templates(terms, W, tied)
        linear[tied] += pull
        other[tied] += push
    new = W.copy()
    power = long_power(terms.w_power) if long_steps else terms.w_power
    multiply_rows(new, linear, other, terms.basis_l1, terms.basis_l2, power)
    return np.where(free, new, W)
