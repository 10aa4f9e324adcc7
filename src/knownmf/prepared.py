"""Components with a solver that was prepared for them, and a tolerance that fits what was learned."""

import numpy as np
from numpy.typing import NDArray

from knownmf.activations import solve_with
from knownmf.learning import Learned, Loss
from knownmf.observations import Observations
from knownmf.solver import Activations, Solver

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

    def matches(self, components: NDArray[np.floating], loss: Loss, tol: float) -> bool:
        """Return whether these components were prepared with this loss and this tolerance."""
        return self.loss == loss and self.tol == tol and np.array_equal(self.components, components)

    def solve(self, observations: Observations) -> Activations:
        """Return the activations of observations. If all frames share weights or a support, prepare another solver."""
        weights, support, rest = observations.split()
        if weights is None and support is None:
            return self.solver.solve_observations(rest)
        loss = self.loss
        return solve_with(observations, self.components.T, loss.beta, loss.l1, loss.l2, self.tol)


def solve_no_worse(
    learned: Learned, prepared: PreparedComponents, observations: Observations
) -> tuple[PreparedComponents, Activations]:
    """Return the activations of observations at a tolerance at which they are no worse than those learned.

    The tolerance is that of ``prepared``, or a tighter one as long as all frames meet it. For a beta outside [1, 2],
    where there are several stationary points, even the tightest may not be enough.
    """
    tightest = TIGHTEST if observations.V.dtype == np.float64 else TIGHTEST_SINGLE
    found = prepared.solve(observations)
    while found.objective.sum() + learned.constant > learned.history[-1] and prepared.tol > tightest:
        tighter = PreparedComponents(prepared.components, prepared.loss, max(1e-2 * prepared.tol, tightest))
        better = tighter.solve(observations)
        if not better.converged.all():
            break
        prepared, found = tighter, better
    return prepared, found
