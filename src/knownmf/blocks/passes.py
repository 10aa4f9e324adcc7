"""Passes over all blocks, for learning and for statistics: work on each block, and a summary that is merged."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from knownmf.blocks.sources import Source, WholeSource
from knownmf.blocks.state_files import StateFile, StateFiles
from knownmf.observations import Observations
from knownmf.solver import Progress

# If the activations of all frames take more than this, passes over files keep them in files, too.
MOST_STATE_BYTES = 2**27


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
    n_components : int
        The number of components, on which the size of what passes leave for each other depends.
    progress : callable, optional
        Called as ``progress(frames_done, n_frames)`` in every pass.
    """

    #: Whether passes run in this process.
    is_local = True

    def __init__(self, source: Source, n_components: int = 0, progress: Progress | None = None) -> None:
        self.n_frames, self.dtype, self.counts = source.n_frames, source.dtype, source.counts
        self.has_start, self.has_limits = source.has_start, source.has_limits
        self._source, self._progress = source, progress
        in_files = not source.is_in_memory and 8 * source.n_frames * n_components > MOST_STATE_BYTES
        self._files = StateFiles() if in_files else None

    @classmethod
    def of(cls, observations: Observations) -> Self:
        """Return observations in memory as one block."""
        return cls(WholeSource(observations))

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
        none = [None] * len(self.counts)
        blocks = iter(self._source) if reads else none
        given, before = (none if values is None else values for values in (arguments, states))
        for n, observations, argument, state in zip(self.counts, blocks, given, before, strict=True):
            if observations is not None and not self.has_start:
                observations = replace(observations, H_init=None)
            part = Part(observations, n, self._source.is_in_memory, argument)
            found, new = work(shared, part, _loaded(state))
            summary = found if summary is None else summary.merged(found)
            left.append(new if self._files is None or new is None else self._files.store(new))
            n_done += n
            if self._progress is not None and reads:
                self._progress(n_done, self.n_frames)
        return summary, left


def collected(states: Sequence[Any]) -> NDArray:
    """Return the arrays that a pass over local blocks has left as one array."""
    arrays = [_loaded(state) for state in states]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _loaded(state: Any) -> Any:
    """Return a state, also one in a file."""
    return state.load() if isinstance(state, StateFile) else state
