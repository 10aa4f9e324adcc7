"""Learning with limits of the activations: exact activations, then some updates of the basis, in turn.

The multiplicative updates of :mod:`knownmf.learning.descent` know neither bounds nor totals. The solver does, so that
here every pass solves the activations within their limits, and then updates the basis with these activations.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from knownmf.activations import solve_with
from knownmf.blocks import Part, Parts
from knownmf.learning.descent import Callback, Learned
from knownmf.learning.known import KnownBasis
from knownmf.learning.passes import Loss, Statistics, Survey, Task, Terms, cost_of_basis, take_statistics, update
from knownmf.learning.starts import StartOfActivations
from knownmf.threads import single_threaded_blas

# Updates of the basis between two solutions of the activations, which cost some ten times as much as an update. Ad hoc.
N_UPDATES = 5
# The tolerance of the activations: so tight that what a pass gains is not lost in it, but for passes that gain little.
TOL = 1e-7


class State(NamedTuple):
    """The activations of a block of frames between two passes; the frames, if they stay in memory."""

    H: NDArray[np.float64]
    task: Task | None


class Objective(NamedTuple):
    """The sum of the objectives of frames."""

    value: float

    def merged(self, other: Self) -> Self:
        """Return the sum over these frames and ``other`` ones."""
        return self._replace(value=self.value + other.value)


class Gathered(NamedTuple):
    """The sums of statistics of frames."""

    statistics: Statistics

    def merged(self, other: Self) -> Self:
        """Return the sums over these frames and ``other`` ones."""
        pairs = zip(self.statistics, other.statistics, strict=True)
        return self._replace(statistics=Statistics(*(mine + others for mine, others in pairs)))


@dataclass(frozen=True)
class Solve:
    """Solve the activations of a block within their limits, from those before, or from where learning starts."""

    W: NDArray[np.float64]
    loss: Loss
    start: StartOfActivations | None = None

    def __call__(self, terms: Terms, part: Part, state: Any) -> tuple[Objective, State]:
        """Return the summary of a block, and its new state."""
        H = state.H if self.start is None else self.start.activations(part, state)
        observations = part.read()
        loss = self.loss
        found = solve_with(replace(observations, H_init=H.T), self.W.T, loss.beta, loss.l1, loss.l2, TOL)
        task = None if self.start is not None else state.task
        if task is None and part.keeps:
            task = Task(observations, terms)
        return Objective(float(found.objective.sum())), State(found.H.T.astype(np.float64), task)


@dataclass(frozen=True)
class Gather:
    """Sum the statistics of a block, with its activations as they are."""

    W: NDArray[np.float64]

    def __call__(self, terms: Terms, part: Part, state: State) -> tuple[Gathered, State]:
        """Return the summary of a block, and its new state."""
        task = state.task or Task(part.read(), terms)
        return Gathered(take_statistics(task, self.W, state.H / task.units())), state


def alternate(
    parts: Parts,
    survey: Survey,
    known: KnownBasis,
    loss: Loss,
    W: NDArray[np.float64],
    states: Sequence[Any],
    start: StartOfActivations,
    *,
    tol: float,
    max_iter: int,
    callback: Callback | None = None,
) -> Learned:
    """Learn what is free in W, and the activations with it, within the limits of the observations.

    The parameters are those of :func:`knownmf.learning.descent.descend`. It ends when a pass lowers the objective by at
    most ``tol`` of it.
    """
    terms = Terms(survey, known, loss, W, multiplicative=True)
    shared = parts.share(terms)
    found, states = parts.sweep(Solve(W, loss, start), states, shared)
    history = [found.value + cost_of_basis(terms, W / terms.atoms) * terms.unit]
    n_passes, converged = 0, False
    with single_threaded_blas(), np.errstate(all="ignore"):
        while not converged and n_passes < max_iter:
            moved = W / terms.atoms
            for _ in range(N_UPDATES):
                gathered, states = parts.sweep(Gather(moved), states, shared)
                moved = update(terms, moved, gathered.statistics, long_steps=False)
            lowered = np.where(known.free, moved * terms.atoms, W)
            tried, new_states = parts.sweep(Solve(lowered, loss), states, shared)
            value = tried.value + cost_of_basis(terms, moved) * terms.unit
            if not value <= history[-1]:  # what is left to gain is below the tolerance of the activations
                converged = True
                break
            converged = history[-1] - value <= tol * history[-1]
            W, found, states = lowered, tried, new_states
            history.append(value)
            n_passes += 1
            if callback is not None:
                callback(n_passes, value)
    return Learned(W, history, n_passes, history[-1] - found.value, converged)
