"""Dask arrays: which ones a question has, how their chunks become observations, and activations that are lazy."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse

from knownmf.blocks.questions import FrameArrays, Question
from knownmf.blocks.result_arrays import CERTIFICATES, type_of_activations
from knownmf.blocks.solving import BlockSolver, SolverFor, split
from knownmf.extras import dask_extra
from knownmf.observations import Axes, Observations
from knownmf.results import Activations
from knownmf.solver import Solver
from knownmf.threads import one_thread
from knownmf.validation import level_of_caller
from knownmf.wording import size_of_memory


def is_dask(values: Any) -> bool:
    """Return whether something is a lazy collection of Dask; raise unless it is an array."""
    if not hasattr(type(values), "__dask_graph__") or not hasattr(values, "chunks"):
        if hasattr(type(values), "to_dask_array"):
            raise TypeError("A Dask DataFrame is no array: pass frame.to_dask_array(lengths=True).")
        return False
    with dask_extra():
        import dask.array
    return isinstance(values, dask.array.Array)


class DaskFrames:
    """The arrays of a question as Dask arrays with the same chunks of frames, each with all bins and components.

    Attributes
    ----------
    frames : FrameArrays
        The question with these arrays.
    arrays : dict
        The arrays with a value for each frame.
    sizes : tuple of int
        The number of frames of each chunk; NaN if it is unknown.
    firsts : (n_chunks,) ndarray
        The number of the first frame of each chunk.
    reader : ChunkReader
        How chunks become observations.
    """

    def __init__(self, question: Question) -> None:
        _check_data_are_lazy(question)
        frames = FrameArrays.of(question)
        _check_shared(frames)
        frames = frames.with_shared_in_memory()
        V = _with_whole_bins(frames.question.V, question.axes)
        self.sizes = V.chunks[frames.axes["V"]]
        self.arrays = {
            name: V if name == "V" else _in_chunks(values, frames.axes[name], self.sizes)
            for name, values in frames.arrays.items()
        }
        self.frames = frames._replace(question=frames.question.with_arrays(self.arrays))
        known_sizes = [0 if math.isnan(size) else size for size in self.sizes]
        self.firsts = np.cumsum([0, *known_sizes[:-1]])
        self.reader = ChunkReader.of(self.frames)


@dataclass(frozen=True)
class ChunkReader:
    """How chunks of Dask arrays become observations.

    Attributes
    ----------
    question : Question
        The question without frames.
    names : tuple of str
        The names of the arrays with a value for each frame.
    has_start : bool
        Whether activations to start from are used, if there are any.
    """

    question: Question
    names: tuple[str, ...]
    has_start: bool = True

    @classmethod
    def of(cls, frames: FrameArrays) -> Self:
        """Return the reader of chunks of Dask arrays."""
        question = frames.question
        if math.isnan(frames.n_frames):  # then errors cannot give the number of a frame in the whole array
            question = question._replace(axes=question.axes._replace(data=f"a chunk of {question.axes.data}"))
        empty = {name: np.empty(question.shape_of(name, 0), values.dtype) for name, values in frames.arrays.items()}
        kind = question.V._meta
        if issparse(kind) or hasattr(kind, "to_scipy_sparse"):
            empty["V"] = csr_array(empty["V"])
        return cls(question.with_arrays(empty), tuple(frames.axes))

    def read(self, first: int, chunks: Sequence[Any]) -> Observations:
        """Check the chunks of all arrays, of which the first frame has this number."""
        arrays = dict(zip(self.names, map(_array_of_chunk, chunks), strict=True))
        observations = self.question.check_block(arrays, first)
        return observations if self.has_start else replace(observations, H_init=None)


@dataclass(frozen=True)
class ChunkSolver:
    """What a worker needs to solve chunks; each worker gets it once.

    Attributes
    ----------
    solver : Solver
        The solver, with the weights and the support that all frames share.
    reader : ChunkReader
        How chunks become observations.
    dtype : dtype
        The type of the records that are returned, one for each frame: the fields of :class:`knownmf.Activations`.
    """

    solver: Solver
    reader: ChunkReader
    dtype: np.dtype

    def solve(self, first: int, chunks: Sequence[Any]) -> NDArray:
        """Return the records of a chunk of frames, of which the first one has this number."""
        with one_thread():  # Dask decides how many chunks are solved at a time
            found = BlockSolver(lambda *_: self.solver).solve(self.reader.read(first, chunks))
        records = np.empty(len(found.converged), self.dtype)
        records["H"] = found.H.T
        for name in CERTIFICATES:
            records[name] = getattr(found, name)
        return records


def lazy_activations(question: Question, solver_for: SolverFor) -> Activations:
    """Return activations whose fields are Dask arrays. Nothing is computed; what all frames share is checked."""
    lazy = DaskFrames(question)
    import dask
    import dask.array as da

    weights, support, rest = split(lazy.reader.question.check())
    solver = solver_for(weights, support)
    kind = type_of_activations(lazy.arrays["V"].dtype)
    dtype = np.dtype([("H", kind, (question.n_components,)), *CERTIFICATES.items()])
    inputs: list[Any] = [da.from_array(lazy.firsts, chunks=1), "f"]
    for name, values in lazy.arrays.items():
        indices = [name] * values.ndim
        indices[lazy.frames.axes[name]] = "f"
        inputs += [values, tuple(indices)]
    records = da.blockwise(
        _solve_records,
        "f",
        *inputs,
        chunk_solver=dask.delayed(ChunkSolver(solver, lazy.reader, dtype), traverse=False),
        # The chunks of the first array, the numbers of the first frames, do not say how many frames there are.
        adjust_chunks={"f": tuple(lazy.sizes)},
        align_arrays=False,
        meta=np.empty(0, dtype),
    )
    certificates = {name: records[name] for name in CERTIFICATES}
    limits = lazy.frames.limits_of_all(rest.limits)
    return Activations(H=records["H"].T, **certificates, beta=solver.beta, tol=solver.tol, limits=limits)


def _solve_records(first: NDArray, *chunks: Any, chunk_solver: ChunkSolver) -> NDArray:
    """Return the records of a chunk of frames."""
    return chunk_solver.solve(int(first[0]), chunks)


def _array_of_chunk(chunk: Any) -> Any:
    """Return a chunk as NumPy or SciPy has it. Dask passes chunks of a contracted axis as a list, here of one."""
    while isinstance(chunk, list):
        [chunk] = chunk
    return chunk.to_scipy_sparse() if hasattr(chunk, "to_scipy_sparse") else chunk


def _check_data_are_lazy(question: Question) -> None:
    """Raise if the data are not a Dask array, but another array is, or if the number of bins is unknown."""
    data = question.axes.data
    if not is_dask(question.V):
        name = question.name_of(next(name for name, values in question.arrays().items() if is_dask(values)))
        raise TypeError(
            f"{name} is a Dask array, but {data} is not: pass dask.array.from_array({data}), or {name}.compute()."
        )
    if math.isnan(question.V.shape[1 if question.axes.frames_in_rows else 0]):
        raise ValueError(f"The number of {question.axes.bins} of {data} is unknown: call {data}.compute_chunk_sizes().")


def _check_shared(frames: FrameArrays) -> None:
    """Raise if an array that all frames share is a Dask array."""
    for name, values in frames.shared.items():
        if is_dask(values):
            name = frames.question.name_of(name)
            raise TypeError(
                f"{name} is a Dask array without values for single {frames.question.axes.frames}: pass "
                f"{name}.compute()."
            )


def _in_chunks(values: Any, axis: int, sizes: tuple[int, ...]) -> Any:
    """Return an array as a Dask array with chunks of these numbers of frames, and one chunk along the other axis."""
    import dask.array as da

    wanted = dict.fromkeys(range(len(values.shape)), -1) | {axis: sizes}
    if is_dask(values):
        return values.rechunk(wanted)
    # What has no __array__ is an array where it is read.
    meta = None if hasattr(values, "__array__") else np.empty((0,) * len(values.shape), values.dtype)
    return da.from_array(values, chunks=tuple(wanted.values()), asarray=meta is None, meta=meta)


def _with_whole_bins(V: Any, axes: Axes) -> Any:
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
