"""Learning with limits of the activations: exact activations, then some updates of the basis, in turn.

The multiplicative updates of :mod:`knownmf.learning.descent` know neither bounds nor totals. The solver does, so that
here every pass solves the activations within their limits, and then updates the basis with these activations.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from knownmf.activations import solve_with
from knownmf.learning.descent import Callback, Learned
from knownmf.learning.known import KnownBasis
from knownmf.learning.passes import Loss, Task, cost_of_basis, take_statistics, update
from knownmf.observations import Observations
from knownmf.threads import single_threaded_blas

# Updates of the basis between two solutions of the activations, which cost some ten times as much as an update. Ad hoc.
N_UPDATES = 5
# The tolerance of the activations: so tight that what a pass gains is not lost in it, but for passes that gain little.
TOL = 1e-7


def alternate(
    observations: Observations,
    known: KnownBasis,
    loss: Loss,
    W: NDArray[np.float64],
    H: NDArray[np.float64],
    *,
    tol: float,
    max_iter: int,
    callback: Callback | None = None,
) -> Learned:
    """Learn what is free in W, and the activations H with it, within the limits of the observations.

    The parameters are those of :func:`knownmf.learning.descent.descend`. It ends when a pass lowers the objective by at
    most ``tol`` of it. The activations that are returned are those of the basis that is returned.
    """
    task = Task(observations, known, loss, W, multiplicative=True)
    best = solved(observations, loss, W, H)
    history = [best[0] + cost_of_basis(task, W / task.atoms) * task.unit]
    n_passes, converged = 0, False
    with single_threaded_blas(), np.errstate(all="ignore"):
        while not converged and n_passes < max_iter:
            moved = W / task.atoms
            for _ in range(N_UPDATES):
                statistics = take_statistics(task, moved, best[1] * task.atoms.T / task.scales)
                moved = update(task, moved, statistics, long_steps=False)
            lowered = np.where(known.free, moved * task.atoms, W)
            found = solved(observations, loss, lowered, best[1])
            value = found[0] + cost_of_basis(task, moved) * task.unit
            if not value <= history[-1]:  # what is left to gain is below the tolerance of the activations
                converged = True
                break
            converged = history[-1] - value <= tol * history[-1]
            W, best = lowered, found
            history.append(value)
            n_passes += 1
            if callback is not None:
                callback(n_passes, value)
    return Learned(W, best[1], history, n_passes, history[-1] - best[0], converged)


def solved(
    observations: Observations, loss: Loss, W: NDArray[np.float64], H: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Return the objective of the activations of a basis, and these, a frame a row; H is where they start."""
    found = solve_with(replace(observations, H_init=H.T), W.T, loss.beta, loss.l1, loss.l2, TOL)
    return float(found.objective.sum()), found.H.T.astype(np.float64)
