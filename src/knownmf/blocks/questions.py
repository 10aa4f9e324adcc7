"""The question: data and what belongs to them, as the caller passed them, and which arrays have values for each frame.

This is the same for arrays on disk and for Dask arrays.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, Self

import numpy as np
from scipy.sparse import issparse

from knownmf.blocks.slices import is_sliced, read_whole
from knownmf.limits import NO_LIMITS, LimitArguments, Limits
from knownmf.observations import SPECTROGRAM, Axes, Observations, check_bins
from knownmf.table_labels import TableLabels
from knownmf.validation import about_complex, about_dimensions, real_array

PER_BIN = ("V", "weights", "background")  # the arrays with a value for each bin
TOTALS = ("total", "max_total")  # those with one number for each frame


class Question(NamedTuple):
    """Data and what belongs to them, as the caller passed them; see :meth:`knownmf.observations.Observations.check`.

    Arrays with a value for each frame may be in memory, be read in blocks, or be Dask arrays.
    """

    V: Any
    n_bins: int
    n_components: int
    beta: float
    weights: Any = None
    background: Any = None
    support: Any = None
    H_init: Any = None
    axes: Axes = SPECTROGRAM
    labels: TableLabels | None = None
    l1: Any = None
    l2: Any = None
    limits: LimitArguments = NO_LIMITS
    must_count: bool = False  # whether weights or a support without anything are an error

    def check(self) -> Observations:
        """Check everything, and return it as observations."""
        checked = Observations.check(*self[:-1])
        if self.must_count:
            checked.check_something_counts()
        return checked

    def check_block(self, arrays: Mapping[str, Any], first: int) -> Observations:
        """Check the arrays of a block, of which the first frame has this number, and return it as observations."""
        return self.with_arrays(arrays)._replace(axes=self.axes._replace(first=first)).check()

    def arrays(self) -> dict[str, Any]:
        """Return the arrays and numbers that were given and that may have a value for each frame, by their names."""
        names = "V", "weights", "background", "support", "H_init", "l1", "l2"
        arrays = {name: getattr(self, name) for name in names} | self.limits._asdict()
        return {name: values for name, values in arrays.items() if values is not None}

    def with_arrays(self, arrays: Mapping[str, Any]) -> Self:
        """Return the question with other arrays; those that are not mentioned are kept."""
        limits = self.limits._replace(**{name: arrays[name] for name in self.limits._fields if name in arrays})
        rest = {name: values for name, values in arrays.items() if name not in self.limits._fields}
        return self._replace(**rest, limits=limits)

    def name_of(self, array: str) -> str:
        """Return the caller's name of an array."""
        return {"V": self.axes.data, "H_init": self.axes.start}.get(array, array)

    def size_of(self, array: str) -> int:
        """Return how many values a frame has in an array other than a total."""
        return self.n_bins if array in PER_BIN else self.n_components

    def shape_of(self, array: str, n_frames: Any) -> tuple[Any, ...]:
        """Return the shape of an array with a value for each of so many frames."""
        return (n_frames,) if array in TOTALS else self.axes.whole(self.size_of(array), n_frames)


class FrameArrays(NamedTuple):
    """A question about data that are not in memory, and which of its arrays have a value for each frame.

    Attributes
    ----------
    question : Question
        The question. Everything that cannot be sliced has become an array, and labels of tables have been compared.
    n_frames : int
        The number of frames; NaN if it is unknown, as it may be for a Dask array.
    axes : dict of int
        The axis of the frames, for each array with a value for each frame.
    """

    question: Question
    n_frames: Any
    axes: dict[str, int]

    @classmethod
    def of(cls, question: Question) -> Self:
        """Check the shapes of the arrays of a question. Nothing is read."""
        question = _arrays_of_tables(question)
        _check_shape(question)
        n_frames = question.V.shape[0 if question.axes.frames_in_rows else 1]
        axes = {name: _frames_axis(question, name, values, n_frames) for name, values in question.arrays().items()}
        return cls(question, n_frames, {name: axis for name, axis in axes.items() if axis is not None})

    @property
    def arrays(self) -> dict[str, Any]:
        """The arrays with a value for each frame."""
        given = self.question.arrays()
        return {name: given[name] for name in self.axes}

    @property
    def shared(self) -> dict[str, Any]:
        """The arrays that all frames share."""
        return {name: values for name, values in self.question.arrays().items() if name not in self.axes}

    @property
    def has_start(self) -> bool:
        """Whether activations to start from are given."""
        return "H_init" in self.axes

    @property
    def has_limits(self) -> bool:
        """Whether the activations have limits."""
        return any(limit is not None for limit in self.question.limits)

    def with_shared_in_memory(self) -> Self:
        """Read what all frames share, and check that something counts, which need not be so in every single block."""
        shared = {name: read_whole(values) if is_sliced(values) else values for name, values in self.shared.items()}
        for name, values in shared.items():
            if isinstance(values, np.ndarray) and values.ndim == 2:  # else it would be that of a block of one frame
                shared[name] = values.ravel()
        question = self.question.with_arrays(shared)
        if question.must_count:
            Observations(None, weights=shared.get("weights"), support=shared.get("support")).check_something_counts()
        return self._replace(question=question._replace(must_count=False))

    def limits_of_all(self, shared: Limits) -> Limits:
        """Return the limits of all frames, where ``shared`` are those of a block."""
        arrays = self.arrays
        given = {name: arrays[name] for name in LimitArguments._fields if name in arrays}
        if "upper" in given and self.axes["upper"] == 0 and hasattr(given["upper"], "T"):
            given["upper"] = given["upper"].T
        return replace(shared, **given)


def _arrays_of_tables(question: Question) -> Question:
    """Return a question whose arrays and numbers are all arrays. Labels of tables are compared."""
    arrays, axes = question.arrays(), question.axes
    labels = TableLabels() if question.labels is None else question.labels.copy()
    for name, values in arrays.items():
        if is_sliced(values) or isinstance(values, np.ndarray):
            continue
        inner = axes.bins if name in PER_BIN else "components"
        rows = (axes.frames,) if name in TOTALS else (inner,)
        labels.add(values, question.name_of(name), *(axes.in_order(inner) if np.ndim(values) == 2 else rows))
        if issparse(values):
            arrays[name] = values.tocsr() if axes.frames_in_rows else values.tocsc()
        else:
            arrays[name] = real_array(values, question.name_of(name), 0, 1, 2)
    return question.with_arrays(arrays)._replace(labels=None)


def _check_shape(question: Question) -> None:
    """Raise if data that are not in memory have a wrong shape or type."""
    V, axes = question.V, question.axes
    if len(V.shape) != 2:
        raise ValueError(about_dimensions(V.shape, axes.data, 2))
    if V.dtype.kind == "c":
        raise TypeError(about_complex(axes.data))
    if V.dtype.kind not in "fiubO":
        raise TypeError(f"{axes.data} holds {V.dtype}, not real numbers: pass numbers.")
    n_bins, n_frames = V.shape[::-1] if axes.frames_in_rows else V.shape
    check_bins(n_bins, n_frames, question.n_bins, question.n_components, axes)


def _frames_axis(question: Question, array: str, values: Any, n_frames: Any) -> int | None:
    """Return the axis of an array that is that of the frames; None if all frames share its values."""
    shape, axes, name = values.shape, question.axes, question.name_of(array)
    whole, is_known = question.shape_of(array, n_frames), not math.isnan(n_frames)
    if array == "V" or (is_known and shape == whole):
        return 0 if len(whole) == 1 or axes.frames_in_rows else 1
    if shape in _shared_shapes(question, array):
        return None
    if not is_known:
        raise ValueError(
            f"{name} has values for single {axes.frames}, whose number is unknown: call "
            f"{axes.data}.compute_chunk_sizes()."
        )
    if array in TOTALS:
        raise ValueError(f"{name} has shape {shape}, expected one number, or ({n_frames},) for the {axes.frames}.")
    alternative = "" if array == "H_init" else f", or ({question.size_of(array)},) for all {axes.frames}"
    raise ValueError(f"{name} has shape {shape}, expected {whole} for the {axes.frames}{alternative}.")


def _shared_shapes(question: Question, array: str) -> Collection[tuple[int, ...]]:
    """Return the shapes that an array may have whose values all frames share."""
    if array in TOTALS:
        return ((),)
    if array in ("V", "H_init"):
        return ()
    shapes = (question.size_of(array),), question.shape_of(array, 1)
    return (*shapes, ()) if array == "upper" else shapes
