"""Passes over the chunks of Dask arrays, wherever Dask runs them."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np

from knownmf.blocks.dask_arrays import ChunkReader, DaskFrames
from knownmf.blocks.passes import Part, Parts, Work
from knownmf.blocks.questions import Question
from knownmf.threads import limit_blas_of_worker, one_thread, single_threaded_blas

MERGED = 8  # summaries that one task merges: few enough to run in parallel, many enough to be worth a task


class DaskParts(Parts):
    """Chunks of Dask arrays that passes go over.

    What a pass leaves for the next one stays where it was computed. Summaries are merged in a tree.
    """

    is_local = False

    def __init__(self, question: Question) -> None:
        lazy = DaskFrames(question)
        import dask
        from dask.core import flatten

        self.n_frames, self.dtype = lazy.frames.n_frames, lazy.arrays["V"].dtype
        if math.isnan(self.n_frames):
            data = question.axes.data
            raise ValueError(
                f"The number of {question.axes.frames} of {data} is unknown: call {data}.compute_chunk_sizes()."
            )
        self.has_start, self.has_limits = lazy.frames.has_start, lazy.frames.has_limits
        used = [i for i, size in enumerate(lazy.sizes) if size] or [0]
        self.counts = [int(lazy.sizes[i]) for i in used]
        self._firsts = [int(lazy.firsts[i]) for i in used]
        self._arrays = tuple(lazy.arrays.values())  # which keep persisted chunks in the memory of the workers
        columns = [list(flatten(array.__dask_keys__())) for array in self._arrays]
        self._chunks = [[column[i] for column in columns] for i in used]
        self._graph: dict[Any, Any] = {}  # the tasks that read the chunks, and the futures of persisted chunks
        for array, optimized, keys in zip(self._arrays, dask.optimize(*self._arrays), columns, strict=True):
            self._graph.update(optimized.dask)
            futures = dict(array.dask)  # optimizing leaves them out
            self._graph |= {key: futures[key] for key in keys if key not in self._graph}
        self._reader = self.share(lazy.reader)
        self._reader_without_start = self.share(replace(lazy.reader, has_start=False))
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
        """Take a pass over all chunks; see :meth:`knownmf.blocks.passes.Parts.sweep`."""
        import dask
        from dask.delayed import Delayed

        name = f"knownmf-{type(work).__name__.lower()}-{uuid.uuid4().hex}"
        nothing = [self._nothing] * len(self.counts)
        given = nothing if arguments is None else [self.share(argument) for argument in arguments]
        before = list(states or [None])
        if not all(isinstance(state, Delayed) for state in before):  # the first pass: all states are equal
            before = [self.share((None, before[0]))] * len(self.counts)
        reader = self._nothing if not reads else self._reader if self.has_start else self._reader_without_start
        handles = reader, self.share(work), self._nothing if shared is None else shared

        graph = dict(self._graph) if reads else {}
        for handle in {id(one): one for one in (*handles, *given, *before)}.values():
            graph.update(handle.dask)
        summaries, runs = [], []
        for i, chunks in enumerate(self._chunks):
            run, summary = (f"{name}-run", i), (f"{name}-summary", i)
            keys = (handle.key for handle in (*handles, given[i], before[i]))
            graph[run] = (_run_work, *keys, self.counts[i], self._firsts[i], *(chunks if reads else ()))
            graph[summary] = (_summary_of, run)
            runs.append(run)
            summaries.append(summary)
        summary = _add_merges(graph, f"{name}-merge", summaries)
        with single_threaded_blas():  # where Dask runs in this process
            whole, *left = dask.persist(*(Delayed(key, graph) for key in (summary, *runs)))
            return whole.compute(), left


def _add_merges(graph: dict[Any, Any], name: str, summaries: list[Any]) -> Any:
    """Add tasks to a graph that merge summaries in a tree; return the key of the last one."""
    while len(summaries) > 1:
        groups = [summaries[i : i + MERGED] for i in range(0, len(summaries), MERGED)]
        merges = [(f"{name}-{len(groups)}", i) for i in range(len(groups))]
        graph |= {key: (_merged, group) for key, group in zip(merges, groups, strict=True)}
        summaries = merges
    return summaries[0]


def _run_work(
    reader: ChunkReader | None,
    work: Work,
    shared: Any,
    argument: Any,
    before: tuple[Any, Any],
    n_frames: int,
    first: int,
    *chunks: Any,
) -> tuple[Any, Any]:
    """Do work on a chunk, in one thread: Dask decides how much runs at a time.

    ``before`` is what this function has returned in the last pass: a summary, and what it has left for this one.
    """
    observations = None if reader is None else reader.read(first, chunks)
    limit_blas_of_worker()
    with one_thread(), np.errstate(all="ignore"):
        return work(shared, Part(observations, n_frames, False, argument), before[1])


def _summary_of(run: tuple[Any, Any]) -> Any:
    """Return the summary of a chunk, which is sent to another worker without what is left for the next pass."""
    return run[0]


def _merged(summaries: Sequence[Any]) -> Any:
    """Return merged summaries."""
    return reduce(lambda one, other: one.merged(other), summaries)
