"""Blocks of frames: where they come from, where work on them runs, and where its results go.

An array in memory is one block. An array that is larger than memory (``numpy.memmap``, ``zarr.Array``,
``h5py.Dataset``, or anything else that has a shape and a type and can be sliced) is read block by block. The blocks of
a Dask array are its chunks. Each block is checked, and solved by the same :class:`knownmf.Solver`, in the same way.

This is the only module that knows of Dask.
"""

from __future__ import annotations

import copy
import math
import mmap
import pickle
import shutil
import tempfile
import uuid
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy.sparse import csr_array, issparse

from knownmf.extras import dask_extra
from knownmf.limits import NO_LIMITS, LimitArguments, Limits
from knownmf.observations import SPECTROGRAM, Axes, Observations, check_bins
from knownmf.results import Activations, Remarks
from knownmf.solver import GROUP, Progress, Solver
from knownmf.table_labels import TableLabels
from knownmf.threads import limit_blas_of_worker, one_thread, single_threaded_blas
from knownmf.validation import about_complex, about_dimensions, level_of_caller, real_array
from knownmf.wording import size_of_memory

# What is read at a time: large enough that reading and handing over cost much less than the work, small next to the
# memory of any machine. A block is larger if the chunks in which the array is stored are, up to the second number:
# otherwise each chunk would be read several times.
BLOCK_BYTES, LARGEST_BLOCK_BYTES = 2**26, 2**28

# Return the solver for weights and a support that all frames share.
SolverFor = Callable[[NDArray | None, NDArray | None], Solver]

#: The fields of :class:`knownmf.Activations` with a value for each frame, and their types; ``H`` has a floating type.
CERTIFICATES: Mapping[str, DTypeLike] = {
    "gap": np.float64,
    "relative_gap": np.float64,
    "kkt": np.float64,
    "converged": np.bool_,
    "objective": np.float64,
    "divergence": np.float64,
    "null_divergence": np.float64,
    "n_iter": np.int64,
}


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

    def check_shared(self, names: Iterable[str]) -> Self:
        """Return the question for blocks, in some of which nothing may count; check what all frames share.

        ``names`` are those of the arrays with a value for each frame.
        """
        if self.must_count:
            weights, support = (None if name in names else getattr(self, name) for name in ("weights", "support"))
            Observations(None, weights=weights, support=support).check_something_counts()
        return self._replace(must_count=False)

    def arrays(self) -> dict[str, tuple[Any, int]]:
        """Return what may have a value for each frame, and how many values a frame has in it; 0 for a number."""
        per_bin = {name: (getattr(self, name), self.n_bins) for name in ("V", "weights", "background")}
        names = ("support", "H_init", "l1", "l2")
        per_component = {name: (getattr(self, name), self.n_components) for name in names}
        upper = {"upper": (self.limits.upper, self.n_components)}
        return per_bin | per_component | upper | {name: (getattr(self.limits, name), 0) for name in TOTALS}

    def with_arrays(self, arrays: Mapping[str, Any]) -> Self:
        """Return the question with other arrays; those that are not mentioned are kept."""
        limits = self.limits._replace(**{name: arrays[name] for name in self.limits._fields if name in arrays})
        rest = {name: values for name, values in arrays.items() if name not in self.limits._fields}
        return self._replace(**rest, limits=limits)

    def name_of(self, array: str) -> str:
        """Return the caller's name of an array."""
        return {"V": self.axes.data, "H_init": self.axes.start}.get(array, array)


TOTALS = ("total", "max_total")


# ---- Where blocks come from


_IN_MEMORY = (np.ndarray, float, int, list, type(None))  # types for which no further question need be asked


def is_sliced(values: Any) -> bool:
    """Return whether an array is read in blocks: a large one on disk, or one that is not NumPy's but can be sliced."""
    if type(values) in _IN_MEMORY:
        return False
    if isinstance(values, np.ndarray):
        return isinstance(values, np.memmap) and values.nbytes > BLOCK_BYTES
    if issparse(values) or hasattr(values, "iloc") or not hasattr(values, "__getitem__"):
        return False
    shape, dtype = getattr(values, "shape", None), getattr(values, "dtype", None)
    return isinstance(shape, tuple) and len(shape) > 0 and isinstance(dtype, np.dtype)


def n_dims_of(values: Any) -> int:
    """Return the number of dimensions of an array, which is not read for that."""
    return len(values.shape) if is_sliced(values) else np.ndim(values)


def is_dask(values: Any) -> bool:
    """Return whether something is a lazy collection of Dask; raise unless it is an array."""
    if not hasattr(type(values), "__dask_graph__") or not hasattr(values, "chunks"):
        if hasattr(type(values), "to_dask_array"):
            raise TypeError("A Dask DataFrame is no array: pass frame.to_dask_array(lengths=True).")
        return False
    with dask_extra():
        import dask.array
    return isinstance(values, dask.array.Array)


def place_of(question: Question) -> str:
    """Return where the arrays of a question are: "memory", "disk" (they are read in blocks) or "dask"."""
    arrays = (question.V, *question[4:8], question.l1, question.l2, *question.limits)  # all that may be large
    others = [values for values in arrays if type(values) not in _IN_MEMORY]
    if not others:
        return "memory"
    if any(map(is_dask, others)):
        return "dask"
    return "disk" if any(map(is_sliced, others)) else "memory"


def shape_of(question: Question) -> tuple[int, Any]:
    """Return the numbers of bins and of frames of data that are not in memory; raise if they are no such data."""
    V, axes = question.V, question.axes
    if len(V.shape) != 2:
        raise ValueError(about_dimensions(V.shape, axes.data, 2))
    if V.dtype.kind == "c":
        raise TypeError(about_complex(axes.data))
    if V.dtype.kind not in "fiubO":
        raise TypeError(f"{axes.data} holds {V.dtype}, not real numbers: pass numbers.")
    n_bins, n_frames = V.shape[::-1] if axes.frames_in_rows else V.shape
    check_bins(n_bins, n_frames, question.n_bins, question.n_components, axes)
    return n_bins, n_frames


def frames_axis(question: Question, array: str, values: Any, size: int, n_frames: int) -> int | None:
    """Return the axis of an array that is that of the frames; None if all frames share its values."""
    shape, axes = values.shape, question.axes
    if array == "V" or shape == axes.whole(size, n_frames):
        return 0 if axes.frames_in_rows else 1
    if array in TOTALS:
        if shape == (n_frames,):
            return 0
        if shape == ():
            return None
        raise ValueError(
            f"{question.name_of(array)} has shape {shape}, expected one number, or ({n_frames},) for the {axes.frames}."
        )
    if (array != "H_init" and shape in ((size,), axes.whole(size, 1))) or (array == "upper" and shape == ()):
        return None
    shared = "" if array == "H_init" else f", or ({size},) for all {axes.frames}"
    raise ValueError(
        f"{question.name_of(array)} has shape {shape}, expected {axes.whole(size, n_frames)} for the "
        f"{axes.frames}{shared}."
    )


def loaded(question: Question) -> tuple[Question, int]:
    """Return a question about data on disk whose other arrays are sliceable, and the number of its frames.

    Whatever cannot be sliced is in memory already: it becomes an array. Labels of tables are compared.
    """
    arrays = {name: values for name, (values, _) in question.arrays().items() if values is not None}
    labels = TableLabels() if question.labels is None else question.labels.copy()
    for name, values in arrays.items():
        if is_sliced(values) or isinstance(values, np.ndarray):
            continue
        n_dims = np.ndim(values)
        inner = question.axes.bins if name in ("V", "weights", "background") else "components"
        rows = (question.axes.frames,) if name in TOTALS else (inner,)
        labels.add(values, question.name_of(name), *(question.axes.in_order(inner) if n_dims == 2 else rows))
        if issparse(values):
            arrays[name] = values.tocsr() if question.axes.frames_in_rows else values.tocsc()
        else:
            arrays[name] = real_array(values, question.name_of(name), 0, 1, 2)
    question = question.with_arrays(arrays)._replace(labels=None)
    _, n_frames = shape_of(question)
    return question, n_frames


class Source:
    """Blocks of frames of a question whose arrays are in memory, which is one block, or on disk.

    Attributes
    ----------
    n_frames : int
        The number of all frames.
    slices : list of slice
        The frames of each block.
    dtype : dtype
        The type of the data.
    n_components : int
        The number of components.
    """

    def __init__(self, question: Question, in_memory: bool) -> None:
        self.n_components = question.n_components
        if in_memory:
            self._set_whole(question.check())
            return
        self._whole: Observations | None = None
        self._question, self.n_frames = loaded(question)
        self.dtype = self._question.V.dtype
        self._axes: dict[str, int] = {}  # the axis of the frames in arrays with a value for each frame
        for name, (values, size) in self._question.arrays().items():
            axis = None if values is None else frames_axis(self._question, name, values, size, self.n_frames)
            if axis is not None:
                self._axes[name] = axis
            elif is_sliced(values):
                self._question = self._question.with_arrays({name: np.asarray(values)})
        self._question = self._question.check_shared(self._axes)
        self.slices = slices_of(self._question, self._arrays(), self._axes, self.n_frames)
        if len(self.slices) == 1:
            self._set_whole(self.read(self.slices[0]))

    @classmethod
    def of(cls, observations: Observations) -> Self:
        """Return observations in memory as one block."""
        source = cls.__new__(cls)
        source.n_components = 0
        source._set_whole(observations)
        return source

    def _set_whole(self, observations: Observations) -> None:
        self._whole = observations
        self.n_frames, self.dtype = observations.n_frames, observations.V.dtype
        self.slices = [slice(0, self.n_frames)]

    @property
    def has_limits(self) -> bool:
        """Whether the activations have limits."""
        if self._whole is not None:
            return bool(self._whole.limits)
        return any(limit is not None for limit in self._question.limits)

    def limits_or(self, shared: Limits) -> Limits:
        """Return the limits of all frames, where ``shared`` are those of a block."""
        if self._whole is not None:
            return shared
        given = {name: getattr(self._question.limits, name) for name in LimitArguments._fields if name in self._axes}
        if "upper" in given and self._axes["upper"] == 0 and isinstance(given["upper"], np.ndarray):
            given["upper"] = given["upper"].T
        return replace(shared, **given)

    @property
    def has_start(self) -> bool:
        """Whether activations to start from are given."""
        return "H_init" in self._axes if self._whole is None else self._whole.H_init is not None

    @property
    def is_in_memory(self) -> bool:
        """Whether the arrays are in memory."""
        return self._whole is not None

    def _arrays(self) -> dict[str, Any]:
        """Return the arrays with a value for each frame."""
        arrays = self._question.arrays()
        return {name: arrays[name][0] for name in self._axes}

    def read(self, chunk: slice) -> Observations:
        """Read and check a block."""
        if self._whole is not None:
            return self._whole
        arrays = {
            name: values[chunk] if self._axes[name] == 0 else values[:, chunk]
            for name, values in self._arrays().items()
        }
        axes = self._question.axes._replace(first=chunk.start)
        observations = self._question.with_arrays(arrays)._replace(axes=axes).check()
        if observations.n_frames != chunk.stop - chunk.start:
            raise ValueError(
                f"{axes.data} returned {observations.n_frames} {axes.frames} when {axes.frames} {chunk.start} to "
                f"{chunk.stop - 1} of {self.n_frames} were read: its shape and its slices disagree."
            )
        return observations

    def __iter__(self) -> Iterator[Observations]:
        for chunk in self.slices:
            yield self.read(chunk)
            if self._whole is None:
                release(self._arrays().values())


def slices_of(question: Question, arrays: Mapping[str, Any], axes_of: Mapping[str, int], n_frames: int) -> list[slice]:
    """Return blocks of frames that are large enough and, where possible, whole chunks of what they are read from."""
    of_frame = 1.0 * question.n_components
    for values in arrays.values():
        of_frame += 8.0 if issparse(values) else values.dtype.itemsize * math.prod(values.shape) / max(n_frames, 1)
    size, most = (max(1, int(n_bytes / of_frame)) for n_bytes in (BLOCK_BYTES, LARGEST_BLOCK_BYTES))
    stored = 1
    for name, values in arrays.items():
        chunks = getattr(values, "chunks", None)
        if is_sliced(values) and isinstance(chunks, tuple) and all(isinstance(width, int) for width in chunks):
            stored = max(stored, chunks[axes_of[name]])
    stored = min(stored, n_frames)
    if stored > most:
        warnings.warn(
            f"{question.axes.data} is stored in chunks of {stored} {question.axes.frames}, of which {size} fit into a "
            f"block: each chunk is read {-(-stored // size)} times. Store it in smaller chunks if that is slow.",
            UserWarning,
            stacklevel=level_of_caller(),
        )
    elif stored > 1:
        size = stored * max(1, size // stored)
    elif size > GROUP:
        size -= size % GROUP
    return [slice(first, min(first + size, n_frames)) for first in range(0, n_frames, size)] or [slice(0, 0)]


def release(arrays: Iterable[Any]) -> None:
    """Let the system take back the memory of the pages of files that have been read."""
    for values in arrays:
        pages = getattr(values, "_mmap", None) if isinstance(values, np.memmap) else None
        # Mappings in mode "c" are not shared with the file: changes would be lost.
        if isinstance(pages, mmap.mmap) and values.mode in ("r", "r+") and hasattr(pages, "madvise"):
            pages.madvise(mmap.MADV_DONTNEED)


# ---- Where results go


class Results:
    """Arrays for the results of blocks: new ones in memory, or those of the caller.

    Parameters
    ----------
    out : array, mapping of arrays, or None
        Where the activations go; or, by their names, where the fields of :class:`knownmf.Activations` go.
    n_components, n_frames : int
        The numbers of components and of frames.
    dtype : dtype
        The type of the activations.
    frames_in_rows : bool
        Whether ``out`` has the activations of a frame in a row.
    """

    def __init__(self, out: Any, n_components: int, n_frames: int, dtype: DTypeLike, frames_in_rows: bool) -> None:
        shape = (n_frames, n_components) if frames_in_rows else (n_components, n_frames)
        wanted: dict[str, tuple[tuple[int, ...], np.dtype]] = {"H": (shape, np.dtype(dtype))}
        wanted |= {name: ((n_frames,), np.dtype(kind)) for name, kind in CERTIFICATES.items()}
        given = given_results(out, wanted)
        self.arrays = given | {
            name: np.empty(shape, kind) for name, (shape, kind) in wanted.items() if name not in given | {"H": None}
        }
        self._rows = frames_in_rows and "H" in given
        if "H" not in given:
            self.arrays["H"] = np.empty((n_frames, n_components), dtype).T

    def put(self, first: int, found: Activations) -> None:
        """Store the activations of a block that begins with the frame ``first``."""
        block = slice(first, first + len(found.converged))
        for name in CERTIFICATES:
            self.arrays[name][block] = getattr(found, name)
        if self._rows:
            self.arrays["H"][block] = found.H.T
        else:
            self.arrays["H"][:, block] = found.H

    def activations(self, last: Activations, limits: Limits) -> Activations:
        """Return what has been stored, of which ``last`` is the last block. Arrays of the caller keep their axes."""
        return replace(last, **self.arrays, limits=limits, frame_labels=None)

    def check_apart_from(self, question: Question) -> None:
        """Raise if an array for results shares memory with one of the data, which would be overwritten."""
        for name, (values, _) in question.arrays().items():
            if isinstance(values, np.ndarray) and any(
                isinstance(array, np.ndarray) and np.may_share_memory(values, array) for array in self.arrays.values()
            ):
                raise ValueError(
                    f"out shares memory with {question.name_of(name)}, which would be overwritten: pass another array."
                )


def given_results(out: Any, wanted: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> dict[str, Any]:
    """Return the arrays of the caller for results, by their names, after checking their shapes and types."""
    if out is None:
        return {}
    if hasattr(out, "shape"):
        given, names = {"H": out}, {"H": "out"}
    elif hasattr(out, "__contains__") and hasattr(out, "__getitem__") and not isinstance(out, Sequence):
        given = {name: out[name] for name in wanted if name in out}
        names = {name: f'out["{name}"]' for name in given}
        unknown = [name for name in out if name not in wanted] if isinstance(out, dict) else []
        if unknown or not given:
            raise ValueError(
                f"out has {f'the name {unknown[0]!r}' if unknown else 'no array for a result'}: pass an array for H, "
                f"or arrays with some of the names {', '.join(wanted)}."
            )
    else:
        raise TypeError(f"out is an object of type {type(out).__name__}, expected an array or a mapping of arrays.")
    for name, array in given.items():
        shape, kind = wanted[name]
        if not isinstance(array, np.ndarray) and not hasattr(array, "__setitem__"):
            raise TypeError(f"{names[name]} is an object of type {type(array).__name__}, which cannot be written to.")
        if tuple(array.shape) != shape or array.dtype != kind:
            raise ValueError(
                f"{names[name]} has shape {tuple(array.shape)} and type {array.dtype}, expected {shape} and {kind}."
            )
        if getattr(array, "read_only", False) or (isinstance(array, np.ndarray) and not array.flags.writeable):
            raise ValueError(f"{names[name]} is read-only: open it for writing.")
    return given


# ---- Where blocks are solved: here


def solved(
    blocks: Iterable[Observations], solver_for: SolverFor, progress: Progress | None = None, n_frames: int | None = None
) -> Iterator[tuple[Observations, Activations]]:
    """Solve blocks of frames, one after another, and yield each with its activations.

    Parameters
    ----------
    blocks : iterable of Observations
        The blocks. All have the same weights and support for all frames, if they have any.
    solver_for : callable
        Returns the solver for weights and a support that all frames share. It is called once.
    progress : callable, optional
        Called as ``progress(frames_done, n_frames)``.
    n_frames : int, optional
        The number of all frames, for ``progress``, if there are several blocks.
    """
    solver, n_done = None, 0
    for observations in blocks:
        weights, support, rest = observations.split()
        if support is not None and rest.limits:  # what is infeasible is reported with the caller's frames
            rest.limits.check_feasible(support, len(support), rest.frame, rest.first)
        if solver is None:
            solver = solver_for(weights, support)
        shifted = None if progress is None else _shifted(progress, n_done, n_frames)
        found = solver.solve_observations(rest, shifted)
        n_done += observations.n_frames
        yield observations, found


def _shifted(progress: Progress, n_before: int, n_frames: int | None) -> Progress:
    """Return a progress callback that counts the frames of earlier blocks, too."""
    return lambda n_done, n_of_block: progress(n_before + n_done, n_frames or n_of_block)


def solve(
    question: Question,
    solver_for: SolverFor,
    remarks: Remarks,
    *,
    out: Any = None,
    out_has_frames_in_rows: bool = False,
    progress: Progress | None = None,
) -> Activations:
    """Find the activations of a question, wherever its arrays are.

    Parameters
    ----------
    question : Question
        The data and what belongs to them.
    solver_for : callable
        Returns the solver for weights and a support that all frames share. It is called once.
    remarks : Remarks
        Collects what the caller is to be warned of. Of Dask arrays nothing is known before they are computed.
    out : array, mapping of arrays, or None
        Where results go; see :class:`Results`.
    out_has_frames_in_rows : bool
        Whether ``out`` has the activations of a frame in a row.
    progress : callable, optional
        Called as ``progress(frames_done, n_frames)``.
    """
    place = place_of(question)
    if place == "dask":
        if out is not None or progress is not None:
            raise TypeError(
                f"{'out' if out is not None else 'progress'} is given with a Dask array, whose results are computed "
                "later: store them with dask.array.store, and see their progress with dask.diagnostics.ProgressBar."
            )
        return lazy_activations(question, solver_for)
    source = Source(question, place == "memory")
    n_components, n_frames = question.n_components, source.n_frames
    kind = np.float32 if source.dtype == np.float32 else np.float64
    results = None
    if out is not None or len(source.slices) > 1:
        results = Results(out, n_components, n_frames, kind, out_has_frames_in_rows)
        results.check_apart_from(question)
    for observations, found in solved(source, solver_for, progress, n_frames):
        remarks.add(observations, found)
        if results is not None:
            results.put(observations.first, found)
    return found if results is None else results.activations(found, source.limits_or(found.limits))


# ---- Where blocks are solved: Dask


@dataclass(frozen=True)
class BlockSolver:
    """What a worker needs to solve blocks; each worker gets it once.

    Attributes
    ----------
    solver : Solver
        The solver, with the weights and the support that all frames share.
    question : Question
        The question without arrays that have a value for each frame.
    names : tuple of str
        The names of these arrays.
    dtype : dtype
        The type of the records that are returned, one for each frame: the fields of :class:`knownmf.Activations`.
    """

    solver: Solver
    question: Question
    names: tuple[str, ...]
    dtype: np.dtype

    def solve(self, first: int, blocks: Sequence[Any]) -> NDArray:
        """Return the records of a block of frames, of which the first one has this number."""
        with one_thread():  # Dask decides how many blocks are solved at a time
            observations = block_question(self.question, self.names, first, blocks).check()
            _, _, rest = observations.split()
            found = self.solver.solve_observations(rest)
        records = np.empty(observations.n_frames, self.dtype)
        records["H"] = found.H.T
        for name in CERTIFICATES:
            records[name] = getattr(found, name)
        return records


def block_question(question: Question, names: Sequence[str], first: int, blocks: Sequence[Any]) -> Question:
    """Return the question about a chunk of Dask arrays, of which the first frame has this number."""
    arrays = dict(zip(names, map(chunk_of, blocks), strict=True))
    return question.with_arrays(arrays)._replace(axes=question.axes._replace(first=first))


def chunk_of(block: Any) -> Any:
    """Return a chunk as NumPy or SciPy has it. Dask passes chunks of a contracted axis as a list, here of one."""
    while isinstance(block, list):
        [block] = block
    return block.to_scipy_sparse() if hasattr(block, "to_scipy_sparse") else block


def solve_records(first: NDArray, *blocks: Any, block_solver: BlockSolver) -> NDArray:
    """Return the records of a chunk of frames."""
    return block_solver.solve(int(first[0]), blocks)


class DaskFrames:
    """Dask arrays of a question, with the same chunks of frames, each with all bins and components.

    Attributes
    ----------
    question : Question
        The question without arrays that have a value for each frame.
    arrays : dict
        These arrays, by their names.
    axes : dict
        Their axes of frames.
    firsts : (n_chunks,) ndarray
        The number of the first frame of each chunk.
    """

    def __init__(self, question: Question) -> None:
        with dask_extra():
            import dask.array as da
        if not is_dask(question.V):
            lazy = next(name for name, (values, _) in question.arrays().items() if is_dask(values))
            data = question.axes.data
            raise TypeError(
                f"{question.name_of(lazy)} is a Dask array, but {data} is not: pass dask.array.from_array({data}), or "
                f"{question.name_of(lazy)}.compute()."
            )
        if math.isnan(question.V.shape[1 if question.axes.frames_in_rows else 0]):
            raise ValueError(
                f"The number of {question.axes.bins} of {question.axes.data} is unknown: call "
                f"{question.axes.data}.compute_chunk_sizes()."
            )
        question, n_frames = loaded(question)
        question = question._replace(V=whole_bins(question.V, question.axes))
        chunks = question.V.chunks[0 if question.axes.frames_in_rows else 1]
        self.arrays: dict[str, Any] = {}
        self.axes: dict[str, int] = {}
        without: dict[str, Any] = {}
        for name, (values, size) in question.arrays().items():
            if values is None:
                continue
            if math.isnan(n_frames) and name != "V":
                if values.ndim - (name in TOTALS) not in (-1, 1) or name == "H_init":
                    raise ValueError(
                        f"{question.name_of(name)} has values for single {question.axes.frames}, whose number is "
                        f"unknown: call {question.axes.data}.compute_chunk_sizes()."
                    )
                axis = None
            else:
                axis = frames_axis(question, name, values, size, n_frames)
            if axis is None:
                if is_dask(values):
                    raise TypeError(
                        f"{question.name_of(name)} is a Dask array without values for single {question.axes.frames}: "
                        f"pass {question.name_of(name)}.compute()."
                    )
                without[name] = np.asarray(values)
                continue
            wanted = dict.fromkeys(range(values.ndim), -1) | {axis: chunks}
            if not is_dask(values):
                values = da.from_array(values, chunks=tuple(wanted[i] for i in range(values.ndim)))
            self.arrays[name] = values if name == "V" else values.rechunk(wanted)
            self.axes[name] = axis
            without[name] = np.empty((0,) if values.ndim == 1 else question.axes.whole(size, 0), values.dtype)
        if issparse(question.V._meta) or hasattr(question.V._meta, "to_scipy_sparse"):
            without["V"] = csr_array(without["V"])
        self.question = question.check_shared(self.arrays).with_arrays(without)
        self.n_frames, self.dtype = n_frames, question.V.dtype
        sizes = [0 if math.isnan(size) else size for size in chunks]
        self.firsts = np.cumsum([0, *sizes[:-1]])

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the arrays."""
        return tuple(self.arrays)


def whole_bins(V: Any, axes: Axes) -> Any:
    """Return a Dask array whose chunks have all bins. Warn if chunks have to be merged for that."""
    axis = 1 if axes.frames_in_rows else 0
    if V.numblocks[axis] == 1:
        return V
    cost = "an unknown size" if math.isnan(V.nbytes) else size_of_memory(V.nbytes)
    warnings.warn(
        f"{axes.data} has chunks of some of its {axes.bins}, but a {axes.frame} is solved as a whole: "
        f"{V.numblocks[axis]} chunks are merged into one, which moves up to {cost} between workers each time that a "
        f"result is computed. To avoid it, store the data in chunks of all {axes.bins}.",
        UserWarning,
        stacklevel=level_of_caller(),
    )
    return V.rechunk({axis: -1})


def lazy_activations(question: Question, solver_for: SolverFor) -> Activations:
    """Return activations whose fields are Dask arrays. Nothing is computed; what all frames share is checked."""
    frames = DaskFrames(question)
    import dask
    import dask.array as da

    weights, support, rest = frames.question.check().split()
    if support is not None and rest.limits:
        rest.limits.check_feasible(support, len(support), rest.frame)
    solver = solver_for(weights, support)
    kind = np.float32 if frames.dtype == np.float32 else np.float64
    dtype = np.dtype([("H", kind, (question.n_components,)), *CERTIFICATES.items()])
    block_solver = BlockSolver(solver, frames.question, frames.names, dtype)
    inputs: list[Any] = [da.from_array(frames.firsts, chunks=1), "f"]
    for name, values in frames.arrays.items():
        indices = ["f"] if values.ndim == 1 else [name, name]
        indices[frames.axes[name]] = "f"
        inputs += [values, tuple(indices)]
    # The chunks of the first array, the numbers of the first frames, do not say how many frames there are.
    chunks = frames.arrays["V"].chunks[frames.axes["V"]]
    records = da.blockwise(
        solve_records,
        "f",
        *inputs,
        block_solver=dask.delayed(block_solver, traverse=False),
        adjust_chunks={"f": tuple(chunks)},
        align_arrays=False,
        meta=np.empty(0, dtype),
    )
    certificates = {name: records[name] for name in CERTIFICATES}
    limits = replace(
        rest.limits, **{name: frames.arrays[name] for name in LimitArguments._fields if name in frames.arrays}
    )
    return Activations(H=records["H"].T, **certificates, beta=solver.beta, tol=solver.tol, limits=limits)


# ---- Passes over all blocks, for learning


class Part(NamedTuple):
    """A block of frames in a pass.

    Attributes
    ----------
    observations : Observations or None
        The frames; None in a pass that does not read them.
    n_frames : int
        Their number.
    keeps : bool
        Whether they stay in memory until the next pass, so that what was computed from them may be kept, too.
    argument : object
        What the caller of the pass has passed for this block.
    """

    observations: Observations | None
    n_frames: int
    keeps: bool
    argument: Any = None

    def read(self) -> Observations:
        """Return the frames, in a pass that reads them."""
        if self.observations is None:
            raise TypeError("This pass does not read the frames.")
        return self.observations


# What is done with a block in a pass: it is called with what all blocks share, the block, and what the last pass left
# for it. It returns a summary, which has a method ``merged``, and what is left for the next pass.
Work = Callable[[Any, Part, Any], tuple[Any, Any]]


class Parts:
    """Blocks of frames that passes go over, one block after another.

    Parameters
    ----------
    source : Source
        The blocks.
    progress : callable, optional
        Called as ``progress(frames_done, n_frames)`` in every pass.
    """

    #: Whether passes run in this process.
    is_local = True

    def __init__(self, source: Source, progress: Progress | None = None) -> None:
        self.n_frames, self.dtype = source.n_frames, source.dtype
        self.counts = [len(range(source.n_frames)[chunk]) for chunk in source.slices]
        self._source, self._progress = source, progress
        self._keeps, self.has_start, self.has_limits = source.is_in_memory, source.has_start, source.has_limits
        self._shelf: StateFiles | None = None
        if 8 * source.n_frames * source.n_components > MOST_STATE_BYTES and not self._keeps:
            self._shelf = StateFiles()

    @classmethod
    def of(cls, observations: Observations) -> Self:
        """Return observations in memory as one block."""
        return cls(Source.of(observations))

    def without_start(self) -> Self:
        """Return the same blocks without activations to start from."""
        parts = copy.copy(self)
        parts.has_start = False
        return parts

    def share(self, values: Any) -> Any:
        """Return what passes may be given as ``shared``: what they need from each pass to the next."""
        return values

    def sweep(
        self,
        work: Work,
        states: Sequence[Any] | None = None,
        shared: Any = None,
        arguments: Iterable[Any] | None = None,
        reads: bool = True,
    ) -> tuple[Any, list[Any]]:
        """Take a pass over all blocks.

        Parameters
        ----------
        work : callable
            What is done with each block.
        states : sequence, optional
            What an earlier pass has left for each block.
        shared : object
            What :meth:`share` has returned.
        arguments : iterable, optional
            One for each block, small.
        reads : bool
            Whether the frames are needed.

        Returns
        -------
        summary : object
            The merged summaries, in the order of the blocks.
        states : list
            What is left for the next pass.
        """
        summary, left, n_done = None, [], 0
        blocks = iter(self._source) if reads else [None] * len(self.counts)
        given = [None] * len(self.counts) if arguments is None else arguments
        before = [None] * len(self.counts) if states is None else states
        for n, observations, argument, state in zip(self.counts, blocks, given, before, strict=True):
            state = state.load() if isinstance(state, StateFile) else state
            if observations is not None and not self.has_start:
                observations = replace(observations, H_init=None)
            part, new = work(shared, Part(observations, n, self._keeps, argument), state)
            summary = part if summary is None else summary.merged(part)
            left.append(new if self._shelf is None or new is None else self._shelf.store(new))
            n_done += n
            if self._progress is not None and reads:
                self._progress(n_done, self.n_frames)
        return summary, left


# If the activations of all frames take more than this, passes over files keep them in files, too.
MOST_STATE_BYTES = 2**27


class StateFiles:
    """A temporary folder for what passes leave for the next one. It is deleted with the last object that needs it."""

    def __init__(self) -> None:
        self._folder, self._n = Path(tempfile.mkdtemp(prefix="knownmf-")), 0
        self._end = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def store(self, state: Any) -> StateFile:
        """Write a state to a new file."""
        self._n += 1
        path = self._folder / f"{self._n}.pickle"
        with path.open("wb") as file:
            pickle.dump(state, file, protocol=5)
        return StateFile(path, self)


class StateFile:
    """A state in a file, which is deleted with this object."""

    def __init__(self, path: Path, folder: StateFiles) -> None:
        self._path, self._folder = path, folder
        self._end = weakref.finalize(self, path.unlink, missing_ok=True)

    def load(self) -> Any:
        """Return the state."""
        with self._path.open("rb") as file:
            return pickle.load(file)


class DaskParts(Parts):
    """Chunks of Dask arrays that passes go over, wherever Dask runs them.

    What a pass leaves for the next one stays where it was computed. Summaries are merged in a tree.
    """

    is_local = False

    def __init__(self, question: Question) -> None:
        frames = DaskFrames(question)
        if math.isnan(frames.n_frames):
            data = question.axes.data
            raise ValueError(
                f"The number of {question.axes.frames} of {data} is unknown: call {data}.compute_chunk_sizes()."
            )
        sizes = frames.arrays["V"].chunks[frames.axes["V"]]
        used = [i for i, size in enumerate(sizes) if size] or [0]
        self.n_frames, self.dtype = frames.n_frames, frames.dtype
        self.has_start = "H_init" in frames.arrays
        self.has_limits = any(limit is not None for limit in question.limits)
        self.counts = [int(sizes[i]) for i in used]
        self._firsts = [int(frames.firsts[i]) for i in used]
        columns = [values.to_delayed().ravel() for values in frames.arrays.values()]
        self._blocks = [[column[i].key for column in columns] for i in used]
        self._graph: dict[Any, Any] = {}  # the tasks that read the chunks
        for column in columns:  # the chunks of an array have one graph
            self._graph.update(column[0].dask)
        self._reader = self.share(ChunkReader(frames.question, frames.names))
        self._reader_without_start = self.share(ChunkReader(frames.question, frames.names, False))
        self._nothing = self.share(None)

    def share(self, values: Any) -> Any:
        """Return a handle of values that each worker gets once."""
        import dask

        return dask.delayed(values, name=f"knownmf-shared-{uuid.uuid4().hex}", traverse=False)

    def sweep(
        self,
        work: Work,
        states: Sequence[Any] | None = None,
        shared: Any = None,
        arguments: Iterable[Any] | None = None,
        reads: bool = True,
    ) -> tuple[Any, list[Any]]:
        """Take a pass over all chunks; see :meth:`Parts.sweep`."""
        import dask
        from dask.delayed import Delayed

        n_parts, name = len(self.counts), f"knownmf-{type(work).__name__.lower()}-{uuid.uuid4().hex}"
        same = [self._nothing] * n_parts
        given = same if arguments is None else [self.share(argument) for argument in arguments]
        before = same if states is None else list(states)
        if not all(isinstance(state, Delayed) for state in before):  # the first pass: all states are equal
            before = [self.share(before[0])] * n_parts
        reader = self._nothing if not reads else self._reader if self.has_start else self._reader_without_start
        shared, handle = self._nothing if shared is None else shared, self.share(work)
        graph = dict(self._graph) if reads else {}
        for collection in {id(one): one for one in (reader, handle, shared, *given, *before)}.values():
            graph.update(collection.dask)
        summaries, left = [], []
        for i, blocks in enumerate(self._blocks):
            run, summary, state = ((f"{name}-{what}", i) for what in ("run", "summary", "state"))
            arguments_of_run = (handle.key, shared.key, self.counts[i], self._firsts[i], given[i].key, before[i].key)
            graph[run] = (run_work, reader.key, *arguments_of_run, *(blocks if reads else ()))
            graph[summary], graph[state] = (first_of, run), (second_of, run)
            summaries.append(summary)
            left.append(state)
        while len(summaries) > 1:
            groups = [summaries[i : i + MERGED] for i in range(0, len(summaries), MERGED)]
            merges = [(f"{name}-merge-{len(groups)}", i) for i in range(len(groups))]
            graph |= {key: (merged, group) for key, group in zip(merges, groups, strict=True)}
            summaries = merges
        with single_threaded_blas():  # where Dask runs in this process
            whole, *rest = dask.persist(*(Delayed(key, graph) for key in (*summaries, *left)))
            return whole.compute(), rest


MERGED = 8  # summaries that one task merges: few enough to run in parallel, many enough to be worth a task


@dataclass(frozen=True)
class ChunkReader:
    """How chunks of Dask arrays become observations; see :class:`DaskFrames`."""

    question: Question
    names: tuple[str, ...]
    with_start: bool = True

    def read(self, first: int, blocks: Sequence[Any]) -> Observations:
        """Check a chunk, of which the first frame has this number."""
        observations = block_question(self.question, self.names, first, blocks).check()
        return observations if self.with_start else replace(observations, H_init=None)


def run_work(
    reader: ChunkReader | None, work: Work, shared: Any, n: int, first: int, argument: Any, state: Any, *blocks: Any
) -> tuple[Any, Any]:
    """Do work on a chunk, in one thread: Dask decides how much runs at a time."""
    observations = None if reader is None else reader.read(first, blocks)
    limit_blas_of_worker()
    with one_thread(), np.errstate(all="ignore"):
        return work(shared, Part(observations, n, False, argument), state)


def first_of(pair: tuple[Any, Any]) -> Any:
    """Return the first of two."""
    return pair[0]


def second_of(pair: tuple[Any, Any]) -> Any:
    """Return the second of two."""
    return pair[1]


def merged(summaries: Sequence[Any]) -> Any:
    """Return merged summaries."""
    whole = summaries[0]
    for summary in summaries[1:]:
        whole = whole.merged(summary)
    return whole


def collected(states: Sequence[Any]) -> NDArray:
    """Return the arrays that a pass over local blocks has left as one array."""
    arrays = [state.load() if isinstance(state, StateFile) else state for state in states]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def parts_of(question: Question, progress: Progress | None = None) -> Parts:
    """Return the blocks of a question, wherever its arrays are, for passes over them."""
    place = place_of(question)
    if place != "dask":
        return Parts(Source(question, place == "memory"), progress)
    if progress is not None:
        raise TypeError("progress is given with a Dask array: use dask.diagnostics.ProgressBar, or Dask's dashboard.")
    return DaskParts(question)
