"""Where blocks of frames come from in this process: observations in memory, which are one block, or arrays on disk."""

from __future__ import annotations

from collections.abc import Iterator

from knownmf.blocks.questions import FrameArrays, Question
from knownmf.blocks.slices import release, slices_of, stored_frames
from knownmf.limits import Limits
from knownmf.observations import Observations


class UnreadableError(OSError):
    """Some frames of an array cannot be read."""


class WholeSource:
    """Observations in memory, as one block. The attributes are those of :class:`SlicedSource`."""

    is_in_memory = True

    def __init__(self, observations: Observations) -> None:
        self._observations = observations
        self.n_frames, self.dtype = observations.n_frames, observations.V.dtype
        self.counts = [observations.n_frames]
        self.has_start, self.has_limits = observations.H_init is not None, bool(observations.limits)

    def __iter__(self) -> Iterator[Observations]:
        yield self._observations

    def limits_of_all(self, shared: Limits) -> Limits:
        """Return the limits of all frames, where ``shared`` are those of a block."""
        return shared


class SlicedSource:
    """Blocks of frames of a question, some of whose arrays are on disk. Each is checked when it is read.

    Attributes
    ----------
    is_in_memory : bool
        Whether the blocks stay in memory.
    n_frames : int
        The number of all frames.
    dtype : dtype
        The type of the data.
    counts : list of int
        The number of frames of each block.
    has_start, has_limits : bool
        Whether activations to start from, and limits of the activations, are given.
    """

    is_in_memory = False

    def __init__(self, question: Question) -> None:
        self._frames = FrameArrays.of(question).with_shared_in_memory()
        self.n_frames, self.dtype = self._frames.n_frames, self._frames.question.V.dtype
        self.has_start, self.has_limits = self._frames.has_start, self._frames.has_limits
        self._slices = slices_of(
            self._frames.arrays, self._frames.axes, self.n_frames, question.n_components, question.axes
        )
        self.counts = [chunk.stop - chunk.start for chunk in self._slices]

    def read(self, chunk: slice) -> Observations:
        """Read and check a block."""
        question, axes = self._frames.question, self._frames.question.axes
        blocks = {}
        for name, values in self._frames.arrays.items():
            try:
                blocks[name] = values[chunk] if self._frames.axes[name] == 0 else values[:, chunk]
            except Exception as error:  # that of whichever library has the array
                raise UnreadableError(
                    f"{question.name_of(name)} cannot be read in {axes.frames} {chunk.start} to {chunk.stop - 1} "
                    f"({type(error).__name__}: {error})."
                ) from error
        observations = question.check_block(blocks, chunk.start)
        if observations.n_frames != chunk.stop - chunk.start:
            raise ValueError(
                f"{axes.data} returned {observations.n_frames} {axes.frames} when {axes.frames} {chunk.start} to "
                f"{chunk.stop - 1} of {self.n_frames} were read: its shape and its slices disagree."
            )
        return observations

    def __iter__(self) -> Iterator[Observations]:
        for chunk in self._slices:
            yield self.read(chunk)
            release(self._frames.arrays.values())

    def readable(self, unreadable: list[tuple[slice, UnreadableError]]) -> Iterator[Observations]:
        """Yield the blocks that can be read. The frames of the others are appended to ``unreadable``.

        Of a block that cannot be read, each chunk in which the arrays are stored becomes a block.
        """
        width = stored_frames(self._frames.arrays, self._frames.axes)
        for whole in self._slices:
            pending = [whole]
            while pending:
                chunk = pending.pop(0)
                try:
                    block = self.read(chunk)
                except UnreadableError as error:
                    if 1 < width < chunk.stop - chunk.start:
                        pending = [
                            slice(first, min(first + width, chunk.stop))
                            for first in range(chunk.start, chunk.stop, width)
                        ]
                    else:
                        unreadable.append((chunk, error))
                else:
                    yield block
            release(self._frames.arrays.values())

    def limits_of_all(self, shared: Limits) -> Limits:
        """Return the limits of all frames, where ``shared`` are those of a block."""
        return self._frames.limits_of_all(shared)


Source = WholeSource | SlicedSource


def source_of(question: Question, in_memory: bool) -> Source:
    """Return the blocks of a question; ``in_memory`` says whether all of its arrays are in memory."""
    if in_memory:
        return WholeSource(question.check())
    source = SlicedSource(question)
    return source if len(source.counts) > 1 else WholeSource(source.read(slice(0, source.n_frames)))
