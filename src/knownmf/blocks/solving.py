"""Solve blocks of frames, one after another: of a matrix, of an array on disk, of a recording, or a chunk of Dask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from numpy.typing import NDArray

from knownmf.observations import Observations
from knownmf.results import Activations
from knownmf.solver import Progress, Solver

# Return the solver for weights and a support that all frames share.
SolverFor = Callable[[NDArray | None, NDArray | None], Solver]

Block = TypeVar("Block", bound=Observations)


def solved(
    blocks: Iterable[Block], solver_for: SolverFor, progress: Progress | None = None, n_frames: int | None = None
) -> Iterator[tuple[Block, Activations]]:
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
    solver, n_done = BlockSolver(solver_for), 0
    for block in blocks:
        shifted = None if progress is None else _shifted(progress, n_done, n_frames)
        found = solver.solve(block, shifted)
        n_done += block.n_frames
        yield block, found


class BlockSolver:
    """Solve blocks of frames with one solver.

    Parameters
    ----------
    solver_for : callable
        Returns the solver for weights and a support that all frames share. It is called once, for the first block.
    """

    def __init__(self, solver_for: SolverFor) -> None:
        self._solver_for = solver_for
        self._solver: Solver | None = None

    def solve(self, block: Observations, progress: Progress | None = None) -> Activations:
        """Return the activations of a block."""
        weights, support, rest = split(block)
        if self._solver is None:
            self._solver = self._solver_for(weights, support)
        return self._solver.solve_observations(rest, progress)


def split(observations: Observations) -> tuple[NDArray | None, NDArray | None, Observations]:
    """Return weights and a support that all frames share, and the rest; raise if no activations are within the limits.

    This is checked before a solver is prepared, which may take long.
    """
    weights, support, rest = observations.split()
    if support is not None and rest.limits:
        rest.limits.check_feasible(support, len(support), rest.frame, rest.first)
    return weights, support, rest


def _shifted(progress: Progress, n_before: int, n_frames: int | None) -> Progress:
    """Return a progress callback that counts the frames of earlier blocks, too."""
    return lambda n_done, n_of_block: progress(n_before + n_done, n_frames or n_of_block)
