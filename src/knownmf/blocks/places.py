"""Find where the arrays of a question are, and solve it, or take passes over it, there."""

from __future__ import annotations

from typing import Any, Literal

from knownmf.blocks.dask_arrays import is_dask, lazy_activations
from knownmf.blocks.dask_passes import DaskParts
from knownmf.blocks.passes import Parts
from knownmf.blocks.questions import Question
from knownmf.blocks.result_arrays import ResultArrays, type_of_activations
from knownmf.blocks.slices import IN_MEMORY, is_sliced, release
from knownmf.blocks.solving import SolverFor, solved
from knownmf.blocks.sources import SlicedSource, UnreadableError, source_of
from knownmf.results import Activations, Remarks
from knownmf.solver import Progress
from knownmf.wording import listed


def place_of(question: Question) -> Literal["memory", "disk", "dask"]:
    """Return where the arrays of a question are: in memory, on disk (they are read in slices), or of Dask."""
    others = [values for values in question.arrays().values() if type(values) not in IN_MEMORY]
    if any(map(is_dask, others)):
        return "dask"
    return "disk" if any(map(is_sliced, others)) else "memory"


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
        Where results go; see :class:`knownmf.blocks.result_arrays.ResultArrays`.
    out_has_frames_in_rows : bool
        Whether ``out`` has the activations of a frame in a row.
    progress : callable, optional
        Called as ``progress(frames_done, n_frames)``.

    Raises
    ------
    UnreadableError
        If a block cannot be read. With ``out``, all other blocks are solved before.
    """
    place = place_of(question)
    if place == "dask":
        if out is not None or progress is not None:
            raise TypeError(
                f"{'out' if out is not None else 'progress'} is given with a Dask array, whose results are computed "
                "later: store them with dask.array.store, and see their progress with dask.diagnostics.ProgressBar."
            )
        return lazy_activations(question, solver_for)
    # A block that cannot be read must not prevent that the others are solved, where there is an array for the results.
    is_partial = out is not None and place == "disk"
    source = SlicedSource(question) if is_partial else source_of(question, place == "memory")
    results = None
    if out is not None or len(source.counts) > 1:
        kind = type_of_activations(source.dtype)
        results = ResultArrays(out, question.n_components, source.n_frames, kind, out_has_frames_in_rows)
        results.check_apart_from(question)
    unreadable: list[tuple[slice, UnreadableError]] = []
    blocks = source.readable(unreadable) if isinstance(source, SlicedSource) and is_partial else source
    for observations, found in solved(blocks, solver_for, progress, source.n_frames):
        remarks.add(observations, found)
        if results is not None:
            results.put(observations.first, found)
            release(results.arrays.values())
    if results is not None and unreadable:
        for chunk, _ in unreadable:
            results.put_nothing(chunk)
        raise UnreadableError(
            f"{listed([str(error).removesuffix('.') for _, error in unreadable], 3)}. The results "
            f"of all other {question.axes.frames} are in out; those of these are NaN."
        )
    return found if results is None else results.activations(found, source.limits_of_all(found.limits))


def parts_of(question: Question, progress: Progress | None = None) -> Parts:
    """Return the blocks of a question, wherever its arrays are, for passes over them."""
    place = place_of(question)
    if place == "dask":
        if progress is not None:
            raise TypeError(
                "progress is given with a Dask array: use dask.diagnostics.ProgressBar, or Dask's dashboard."
            )
        return DaskParts(question)
    return Parts(source_of(question, place == "memory"), question.n_components, progress)
