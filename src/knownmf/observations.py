"""The data of frames, with their weights, background, support and start: checked once, then split into blocks.

Callers name the data and its axes differently: a spectrogram V has a frame in each column, scikit-learn's X has a
sample in each row. Both are checked here under their own names and axes, and kept as a spectrogram.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse

from knownmf.limits import NO_LIMITS, LimitArguments, Limits
from knownmf.native import Block, Workspace
from knownmf.table_labels import TableLabels, labels_of
from knownmf.validation import (
    advice_for_negative,
    check_range,
    check_sparse,
    check_zeros_and_ones,
    level_of_caller,
    real_array,
    sparse_array,
)

# Return an array of a shape, of arbitrary values.
Empty = Callable[[tuple[int, int]], NDArray[np.float64]]


class Axes(NamedTuple):
    """The caller's names of the data, of its axes and of the activations to start from."""

    data: str
    bins: str
    frames: str
    start: str = "H_init"
    frames_in_rows: bool = False
    first: int = 0  # the number of the first frame, if the arrays are a block of larger ones

    @property
    def frame(self) -> str:
        """The name of one frame."""
        return self.frames.removesuffix("s")

    @property
    def origin(self) -> tuple[int, int]:
        """The place of the block in arrays with two dimensions."""
        return (self.first, 0) if self.frames_in_rows else (0, self.first)

    def whole(self, size: int, n_frames: int) -> tuple[int, int]:
        """Return the shape of an array with ``size`` values for each frame."""
        return (n_frames, size) if self.frames_in_rows else (size, n_frames)

    def in_order(self, inner: str) -> tuple[str, str]:
        """Return the names of the rows and of the columns of an array with an axis ``inner`` and one of frames."""
        return (self.frames, inner) if self.frames_in_rows else (inner, self.frames)


# With least squares, there is a warning if more than this share of at least so many data is negative. Data from which
# a baseline was subtracted are negative in about half of the entries; decibels are often negative in all of them.
MOSTLY_NEGATIVE, FEWEST_NEGATIVE = 0.9, 1000

SPECTROGRAM = Axes("V", "bins", "frames")
SAMPLES = Axes("X", "features", "samples", frames_in_rows=True)


@dataclass(frozen=True, eq=False)
class Observations:
    """The data of frames, one in each column, and the arrays that were passed with them.

    An array with one dimension is shared by all frames; one with two dimensions has a column for each frame.

    Attributes
    ----------
    V : array or CSC matrix, (n_bins, n_frames)
        The data; NaN means missing.
    weights : (n_bins,) or (n_bins, n_frames) array, or None
        How much a bin counts.
    background : (n_bins,) or (n_bins, n_frames) array, or None
        The known part of the model.
    support : (n_components,) or (n_components, n_frames) array, or None
        Zeros and ones: where activations may differ from zero.
    H_init : (n_components, n_frames) array, or None
        Activations to start from.
    l1, l2 : (n_components,) or (n_components, n_frames) array, or None
        Penalties instead of those of the solver.
    limits : Limits
        Upper bounds and totals of the activations.
    frame : str
        What the caller calls a frame.
    first : int
        The number of the first frame, if these are a block of frames.
    component_labels, frame_labels : sequence, or None
        The labels in the tables that were passed.
    """

    V: Any
    weights: NDArray | None = None
    background: NDArray | None = None
    support: NDArray | None = None
    H_init: NDArray | None = None
    l1: NDArray | None = None
    l2: NDArray | None = None
    limits: Limits = field(default_factory=Limits)
    frame: str = "frame"
    first: int = 0
    component_labels: Sequence[Any] | None = None
    frame_labels: Sequence[Any] | None = None

    @classmethod
    def check(
        cls,
        V: Any,
        n_bins: int,
        n_components: int,
        beta: float,
        weights: ArrayLike | None = None,
        background: ArrayLike | None = None,
        support: ArrayLike | None = None,
        H_init: ArrayLike | None = None,
        axes: Axes = SPECTROGRAM,
        labels: TableLabels | None = None,
        l1: ArrayLike | None = None,
        l2: ArrayLike | None = None,
        limits: LimitArguments = NO_LIMITS,
    ) -> Self:
        """Check arrays with the axes of the caller, and return them as observations.

        ``n_bins`` and ``n_components`` are those of the basis.

        Labels of tables are compared with ``labels``, which are those of the basis, and with each other.

        Raises
        ------
        ValueError
            If a shape or a label does not fit, or a value is negative or infinite.
        TypeError
            If an argument is not an array of real numbers, or if V is sparse and an option needs a dense V.
        """
        labels = TableLabels() if labels is None else labels.copy()
        labels.add(V, axes.data, *axes.in_order(axes.bins))
        for name, values, inner in (
            ("weights", weights, axes.bins),
            ("background", background, axes.bins),
            ("support", support, "components"),
            (axes.start, H_init, "components"),
            ("l1", l1, "components"),
            ("l2", l2, "components"),
            ("upper", limits.upper, "components"),
        ):
            labels.add(values, name, *(axes.in_order(inner) if len(labels_of(values)) == 2 else (inner,)))
        for name, values in (("total", limits.total), ("max_total", limits.max_total)):
            labels.add(values, name, axes.frames)
        data = check_data(V, axes, beta)
        n_frames = data.shape[1]
        check_bins(data.shape[0], n_frames, n_bins, n_components, axes)
        if issparse(data):
            check_sparse(beta, background=background)
        per_bin, per_component = (n_bins, axes.bins), (n_components, "components")
        checked = cls(
            data,
            _check_rows(weights, "weights", per_bin, n_frames, axes),
            _check_rows(background, "background", per_bin, n_frames, axes),
            _check_rows(support, "support", per_component, n_frames, axes),
            _check_rows(H_init, axes.start, per_component, n_frames, axes, may_be_shared=False),
            _check_rows(l1, "l1", per_component, n_frames, axes),
            _check_rows(l2, "l2", per_component, n_frames, axes),
            Limits.check(limits, n_components, n_frames, axes.frame, axes.frames_in_rows, axes.first),
            axes.frame,
            axes.first,
            labels.of("components"),
            labels.of(axes.frames),
        )
        if checked.support is not None:
            check_zeros_and_ones(checked.support, "support")
        if issparse(data) and checked.weights is not None and checked.weights.ndim == 2:
            if n_frames == 1:
                return replace(checked, weights=checked.weights[:, 0])
            raise TypeError(
                f"weights has one value for each entry of a sparse matrix: give one for each of the {n_bins} "
                f"{axes.bins}, or pass the data as a dense array."
            )
        return checked

    @property
    def n_frames(self) -> int:
        """The number of frames."""
        return self.V.shape[1]

    @property
    def is_sparse(self) -> bool:
        """Whether the data are a sparse matrix."""
        return issparse(self.V)

    @property
    def bytes_per_frame(self) -> float:
        """The size of a frame's data in double precision, on average."""
        return 8 * (1 + self.V.nnz / max(self.n_frames, 1) if self.is_sparse else self.V.shape[0])

    def check_something_counts(self) -> None:
        """Raise if the weights are zero, or the support is False, everywhere."""
        if self.weights is not None and not self.weights.any():
            raise ValueError("weights is 0 everywhere: nothing would count. Pass None to count everything.")
        if self.support is not None and not self.support.any():
            raise ValueError("support is False everywhere: no component may be active. Pass None to allow all.")

    def split(self) -> tuple[NDArray | None, NDArray | None, Self]:
        """Return the weights and the support that all frames share, and the observations without these."""
        weights = self.weights if self.weights is not None and self.weights.ndim == 1 else None
        support = self.support if self.support is not None and self.support.ndim == 1 else None
        rest = replace(
            self,
            weights=None if weights is not None else self.weights,
            support=None if support is not None else self.support,
        )
        return weights, support, rest

    def block(self, chunk: slice, workspace: Workspace) -> Block:
        """Return a block of frames for the native code: in double precision, with one frame in each row.

        Values of bins are in arrays of the workspace, which the next block overwrites.
        """
        n = len(range(self.n_frames)[chunk])
        block = Block(
            n,
            weights=rows_of_each(self.weights, chunk, n, partial(workspace.empty, "weights")),
            background=rows_of(self.background, chunk, partial(workspace.empty, "background")),
            support=rows_of_each(self.support, chunk, n),
            start=rows_of(self.H_init, chunk),
            l1=rows_of_each(self.l1, chunk, n),
            l2=rows_of_each(self.l2, chunk, n),
            **self.limits.rows(chunk, n),
        )
        if not self.is_sparse:
            return block._replace(data=rows_of(self.V, chunk, partial(workspace.empty, "data")))
        starts = self.V.indptr[chunk.start : chunk.stop + 1].astype(np.int64)
        entries = slice(starts[0], starts[-1])
        return block._replace(
            entries=np.ascontiguousarray(self.V.data[entries], np.float64),
            entry_bins=np.ascontiguousarray(self.V.indices[entries], np.int32),
            starts=starts - starts[0],
        )


def check_bins(n_given: int, n_frames: float, n_bins: int, n_components: int, axes: Axes) -> None:
    """Raise if data do not have as many bins as the basis."""
    if not n_given:
        raise ValueError(f"{axes.data} has no {axes.bins}.")
    if n_given != n_bins:
        turned = axes.data if n_frames == n_bins else "W" if n_given == n_components else ""
        remedy = f" {turned} may be transposed: pass {turned}.T." if turned else ""
        raise ValueError(
            f"{axes.data} has {n_given} {axes.bins} but W has {n_bins}: both need the same {axes.bins}." + remedy
        )


def check_data(V: Any, axes: Axes, beta: float) -> Any:
    """Return data as an array or CSC matrix with a frame in each column; least squares allows negative values."""
    signed = beta == 2.0
    if issparse(V):
        return sparse_array(V.T if axes.frames_in_rows else V, axes.data, signed)
    data = real_array(V, axes.data, 2)
    check_range(data, axes.data, missing=True, signed=signed, kind="data", origin=axes.origin)
    return data.T if axes.frames_in_rows else data


class NegativeData:
    """How many data are negative, counted block by block."""

    def __init__(self) -> None:
        self.n_negative, self.n_observed, self.advice = 0, 0, ""

    def add(self, observations: Observations, beta: float, name: str) -> None:
        """Count the negative data of a block; only least squares may have any. ``name`` is that of the data."""
        data = observations.V
        if beta != 2.0 or observations.is_sparse or not data.size:
            return
        any_negative = np.fmin.reduce(data, axis=None) < 0.0
        n_negative = int((data < 0).sum()) if any_negative else 0
        n_observed = int((~np.isnan(data)).sum()) if any_negative else data.size
        if n_negative > MOSTLY_NEGATIVE * n_observed and not self.advice:
            self.advice = advice_for_negative(data, name, "data")
        self.n_negative, self.n_observed = self.n_negative + n_negative, self.n_observed + n_observed

    def merged(self, other: Self) -> Self:
        """Return how many of these data and of ``other`` ones are negative."""
        both = type(self)()
        both.n_negative, both.n_observed = self.n_negative + other.n_negative, self.n_observed + other.n_observed
        both.advice = self.advice or other.advice
        return both

    def warn(self, name: str) -> None:
        """Warn if nearly all data are negative: least squares takes them, but the model cannot be near them."""
        if self.n_negative > MOSTLY_NEGATIVE * max(self.n_observed, FEWEST_NEGATIVE):
            warnings.warn(
                f"{self.n_negative} of {self.n_observed} values of {name} are negative, but the model is not: nearly "
                f"all activations are zero. Remedy: {self.advice}.",
                UserWarning,
                stacklevel=level_of_caller(),
            )


def _check_rows(
    values: ArrayLike | None,
    name: str,
    inner: tuple[int, str],
    n_frames: int,
    axes: Axes,
    may_be_shared: bool = True,
) -> NDArray | None:
    """Return values of each frame as (size, n_frames), or (size,) if the frames share them.

    ``inner`` is the size and the name of the axis that is not that of the frames.
    """
    if values is None:
        return None
    size, inner_name = inner
    array = real_array(values, name, 1, 2)
    whole = axes.whole(size, n_frames)
    if not may_be_shared and n_frames == 1 and array.shape == (size,):
        array = array.reshape(whole)
    shared = ((1, size) if axes.frames_in_rows else (size, 1), (size,)) if may_be_shared else ()
    if array.shape not in (whole, *shared):
        axis_names = "(n_{}, n_{})".format(*axes.in_order(inner_name))
        alternative = f", or ({size},) for all {axes.frames}" if may_be_shared else ""
        raise ValueError(f"{name} has shape {np.shape(values)}, expected {axis_names} = {whole}{alternative}.")
    origin = axes.origin if array.shape == whole else ()
    check_range(array, name, kind="factor" if name == axes.start else "option", origin=origin)
    if array.shape != whole:
        return array.ravel()
    return array.T if axes.frames_in_rows else array


def rows_of(values: NDArray | None, chunk: slice, empty: Empty = np.empty) -> NDArray[np.float64] | None:
    """Return some columns as rows in double precision, or the one row that all frames share.

    ``empty`` returns an array of a shape.
    """
    if values is None:
        return None
    rows = values[np.newaxis] if values.ndim == 1 else values[:, chunk].T
    copied = empty(rows.shape)
    copied[:] = rows
    return copied


def rows_of_each(values: NDArray | None, chunk: slice, n: int, empty: Empty = np.empty) -> NDArray[np.float64] | None:
    """Return some columns as rows in double precision, one for each of n frames."""
    if values is None or values.ndim == 2:
        return rows_of(values, chunk, empty)
    rows = empty((n, len(values)))
    rows[:] = values
    return rows
