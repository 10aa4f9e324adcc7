"""Components with a solver that was prepared for them, and a tolerance that fits what was learned."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from knownmf.blocks import BlockSolver, Part, Parts
from knownmf.learning import Learned, Loss
from knownmf.observations import NegativeData, Observations
from knownmf.results import Activations, Missed
from knownmf.solver import Solver

# The tightest tolerances that `solve_no_worse` asks for, for data in double and in single precision.
TIGHTEST, TIGHTEST_SINGLE = 1e-8, 1e-6


class PreparedComponents:
    """Components with a solver that was prepared for them once.

    Parameters
    ----------
    components : (n_components, n_bins) array
        The components, a component a row.
    loss : Loss
        What the activations minimize.
    tol : float
        The tolerance of the activations.
    """

    def __init__(self, components: NDArray[np.floating], loss: Loss, tol: float):
        self.components, self.loss, self.tol = components.copy(), loss, tol
        self.solver = Solver(components.T, loss.beta, loss.l1, loss.l2, tol=tol)
        self._last: tuple[NDArray | None, NDArray | None, Solver] | None = None

    def matches(self, components: NDArray[np.floating], loss: Loss, tol: float) -> bool:
        """Return whether these components were prepared with this loss and this tolerance."""
        return self.loss == loss and self.tol == tol and np.array_equal(self.components, components)

    def solver_for(self, weights: NDArray | None, support: NDArray | None) -> Solver:
        """Return the solver for weights and a support that all frames share. The last one is kept for other blocks."""
        if weights is None and support is None:
            return self.solver
        if self._last is None or not (_equal(self._last[0], weights) and _equal(self._last[1], support)):
            loss = self.loss
            solver = Solver(self.components.T, loss.beta, loss.l1, loss.l2, weights, support, self.tol)
            self._last = weights, support, solver
        return self._last[2]

    def solve(self, observations: Observations) -> Activations:
        """Return the activations of observations."""
        return BlockSolver(self.solver_for).solve(observations)


def _equal(one: NDArray | None, other: NDArray | None) -> bool:
    """Return whether two arrays are equal, or both None."""
    return one is other or (one is not None and other is not None and np.array_equal(one, other))


class Solved(NamedTuple):
    """What is known of solved frames: the sums of their objectives and divergences, and what a caller is warned of."""

    n_frames: int
    objective: float
    divergence: float
    missed: Missed
    negative: NegativeData
    criterion_name: str

    def merged(self, other: Self) -> Self:
        """Return what is known of these frames and of ``other`` ones."""
        return self._replace(
            n_frames=self.n_frames + other.n_frames,
            objective=self.objective + other.objective,
            divergence=self.divergence + other.divergence,
            missed=self.missed.merged(other.missed),
            negative=self.negative.merged(other.negative),
        )


@dataclass(frozen=True)
class SolveBlock:
    """Solve the activations of a block; what is shared are the prepared components.

    Attributes
    ----------
    keeps : bool
        Whether the activations are left as the state of the block, (n_frames, n_components).
    """

    keeps: bool

    def __call__(self, prepared: PreparedComponents, part: Part, state: Any) -> tuple[Solved, NDArray | None]:
        """Return the summary of a block, and its new state."""
        observations = part.read()
        found = prepared.solve(observations)
        negative = NegativeData()
        negative.add(observations, found.beta, "X")
        divergence = float(found.divergence.sum())
        missed = Missed.of(found, observations.first)
        summary = Solved(
            part.n_frames, float(found.objective.sum()), divergence, missed, negative, found.criterion_name
        )
        return summary, found.H.T if self.keeps else None


def solve_parts(parts: Parts, prepared: PreparedComponents, keeps: bool) -> tuple[Solved, Sequence[Any]]:
    """Solve the activations of all blocks; leave them as states if ``keeps`` is true."""
    return parts.sweep(SolveBlock(keeps), shared=parts.share(prepared))


def solve_no_worse(
    learned: Learned, prepared: PreparedComponents, parts: Parts, keeps: bool
) -> tuple[PreparedComponents, Solved, Sequence[Any]]:
    """Solve the activations of all blocks at a tolerance at which they are no worse than those learned.

    The tolerance is that of ``prepared``, or a tighter one as long as all frames meet it. For a beta outside [1, 2],
    where there are several stationary points, even the tightest may not be enough.
    """
    tightest = TIGHTEST if parts.dtype == np.float64 else TIGHTEST_SINGLE
    found, states = solve_parts(parts, prepared, keeps)
    while found.objective + learned.constant > learned.history[-1] and prepared.tol > tightest:
        tighter = PreparedComponents(prepared.components, prepared.loss, max(1e-2 * prepared.tol, tightest))
        better, better_states = solve_parts(parts, tighter, keeps)
        if better.missed.n_missed:
            break
        prepared, found, states = tighter, better, better_states
    return prepared, found, states
