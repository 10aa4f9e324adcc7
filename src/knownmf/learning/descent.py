"""The descent: passes from a start, with momentum, each of which lowers the objective."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from knownmf.learning.known import KnownBasis
from knownmf.learning.passes import Loss, Pace, Task, cost_of_basis, take_pass, update
from knownmf.native import extrapolate
from knownmf.observations import Observations
from knownmf.threads import single_threaded_blas

# A pass that lowers the objective by less than this share of the objective, or of the size of the data, needs double
# precision. In single precision the objective is wrong by some 1e-8 of that size; the factor of 100 is for safety.
SINGLE_TOL = 1e-6

Callback = Callable[[int, float], object]
Point = tuple[NDArray[np.float64], NDArray]  # a basis and activations


class Learned(NamedTuple):
    """A basis that was learned.

    Attributes
    ----------
    W : (n_components, n_bins) float64
        The basis; its frozen entries are bit for bit those given.
    H : (n_frames, n_components) float64
        The activations that it was learned with.
    history : list of float
        The objective at the start and after every pass.
    n_passes : int
        The number of passes.
    constant : float
        The part of the objective that does not depend on the activations: penalties of W and ties to templates.
    converged : bool
        Whether the last pass lowered the objective by at most ``tol`` of it.
    """

    W: NDArray[np.float64]
    H: NDArray[np.float64]
    history: list[float]
    n_passes: int
    constant: float
    converged: bool


def descend(
    observations: Observations,
    known: KnownBasis,
    loss: Loss,
    W: NDArray[np.float64],
    H: NDArray[np.float64],
    *,
    tol: float,
    max_iter: int,
    n_plain: int = 0,
    callback: Callback | None = None,
) -> Learned:
    r"""Learn what is free in W, and the activations H with it, from the starts given.

    A pass lowers, over the activations and then over the free entries of W,

    .. math:: \sum_{tf} m_{tf} d_\beta(x_{tf} | v_{tf}) + \sum_{tk} (l_{1k} h_{tk} + \tfrac12 l_{2k} h_{tk}^2)
              + \sum_{free} (l'_{1k} w_{kf} + \tfrac12 l'_{2k} w_{kf}^2 + s_k d_\beta(w^0_{kf} | w_{kf})),
              \qquad v = b + H W

    by one multiplicative update each, with an exponent that makes sure that it does (see
    :func:`knownmf.native.safe_power`). Least squares without weights for single entries uses coordinate sweeps [1]_.
    The tie of strength s to a template w0 costs as much as one more frame, the template, whose only activation is 1 in
    that component: it adds ``s w0 w^(beta-2)`` to the pull and ``s w^(beta-1)`` to the push (s on the diagonal of the
    quadratic program and ``s w0`` to its linear term), so that the update stays exact.

    Passes have momentum: each starts from an extrapolation of the two points where the last two passes ended. Every
    entry moves on by the ratio of its values there, to the power of Nesterov's weight n / (n + 3) after n passes with
    momentum [2]_. Ratios keep everything positive, as the updates do. An entry that the last update moved in the
    opposite direction is not extrapolated [3]_, and a ratio counts as 3 at most. In single precision updates use a
    larger exponent, ``passes.long_power``, which nearly always lowers the objective.

    The first ``n_plain`` passes are plain: without momentum and with the safe exponent. If a plain pass lowers the
    objective by no more than ``tol`` of it, the plain passes end there instead of learning.

    If a pass did not lower the objective, it is repeated without momentum, then with the safe exponent, then in double
    precision (see :class:`Descent`).

    .. [1] N. Gillis and F. Glineur, "Accelerated multiplicative updates and hierarchical ALS algorithms for
       nonnegative matrix factorization", Neural Computation 24(4), 2012.
    .. [2] L. T. K. Hien, V. Leplat and N. Gillis, "Block majorization minimization with extrapolation and application
       to beta-NMF", 2024 (arXiv:2401.06646), who extrapolate differences, which took several times as many passes here.
    .. [3] B. O'Donoghue and E. Candes, "Adaptive restart for accelerated gradient schemes", Foundations of
       Computational Mathematics 15(3), 2015; here entry by entry.
    """
    task = Task(observations, known, loss, W)
    with single_threaded_blas(), np.errstate(all="ignore"):
        descent = Descent(task, W / task.atoms, H * task.atoms.T / task.scales, n_plain)
        if not np.isfinite(descent.value):
            raise FloatingPointError(
                "The objective at the start of learning is not finite: scale the data to values near 1."
            )
        n_passes, converged = 0, False
        while not converged and n_passes < max_iter:
            before = descent.value
            if descent.try_pass():
                n_passes += 1
                if callback is not None:
                    callback(n_passes, descent.value * task.unit)
                decrease = before - descent.value
                converged = decrease <= tol * before
                if converged and descent.end_plain_passes():
                    converged = False
                rounding = SINGLE_TOL * max(task.size, before)
                if decrease <= rounding and not (converged and tol * before > rounding):
                    converged = not descent.switch_to_double() and converged
            else:
                converged = not descent.fall_back()
    last, activations = descent.here
    constant = cost_of_basis(task, last)
    return Learned(
        np.where(known.free, last * task.atoms, W),
        activations * (task.scales / task.atoms.T),
        [value * task.unit for value in descent.history],
        n_passes,
        constant * task.unit if constant else 0.0,  # the unit may be infinite
        converged,
    )


class Descent:
    """Passes from a start, each of which lowers the objective.

    A pass that did not lower it is discarded, and the next one is one step further down this ladder:

    1. with momentum and long steps,
    2. without momentum,
    3. with safe steps,
    4. in double precision.

    If that does not help either, the descent has ended. The first ``n_plain`` passes start on step 3.

    Attributes
    ----------
    here : (W, H)
        The basis and the activations.
    value : float
        The objective there.
    history : list of float
        The objective at the start and after every pass.
    """

    def __init__(self, task: Task, W: NDArray[np.float64], H: NDArray[np.float64], n_plain: int):
        self.task, self.here = task, (W, H)
        self.pace = Pace(np.float64 if task.needs_double else np.float32, task.may_take_long_steps and n_plain == 0)
        self._n_plain = 0 if task.least_squares else n_plain  # plain passes left
        self._ended: Point | None = None  # where the last pass ended before extrapolation, if there is one
        self._n_with_momentum = 0  # passes in a row
        self._n_safe, self._next_n_safe = n_plain, 1  # passes left with safe steps; how many after the next failure
        self._evaluate()
        self.history = [self.value]

    def _evaluate(self) -> None:
        """Compute the objective, and what the next pass starts from, at the current point and pace."""
        self.value, self._improved, self._statistics = take_pass(self.task, *self.here, self.pace)

    @property
    def _before(self) -> Point | None:
        """The point from which the next pass extrapolates, or None if it has no momentum."""
        return self._ended if self._n_plain == 0 else None

    def try_pass(self) -> bool:
        """Take a pass; return whether it lowered the objective. If not, nothing has changed."""
        ended = update(self.task, self.here[0], self._statistics, self.pace.long_steps), self._improved
        point = ended
        if self._before:
            point = extrapolated(ended, self.here, self._before, self._n_with_momentum)
        value, improved, statistics = take_pass(self.task, *point, self.pace)
        if not value <= self.value:
            return False
        self.here, self.value, self._improved, self._statistics = point, value, improved, statistics
        self._n_plain, self._n_safe = max(0, self._n_plain - 1), max(0, self._n_safe - 1)
        self._ended = None if self.task.least_squares else ended
        self._n_with_momentum = self._n_with_momentum + 1 if self._n_plain == 0 else 0
        self.pace = self.pace._replace(long_steps=self._n_safe == 0 and self.task.may_take_long_steps)
        self.history.append(value)
        return True

    def end_plain_passes(self) -> bool:
        """Switch to momentum and long steps; return False if there are no plain passes left."""
        if self._n_plain == 0:
            return False
        self._n_plain, self._n_safe, self._n_with_momentum = 0, 0, 1
        self.pace = self.pace._replace(long_steps=self.task.may_take_long_steps)
        return True

    def fall_back(self) -> bool:
        """Go one step down the ladder; return False if there is none left."""
        if self._before:
            self._ended, self._n_with_momentum = None, 0
            return True
        if self.pace.long_steps:
            self.pace = self.pace._replace(long_steps=False)
            self._n_safe, self._next_n_safe = self._next_n_safe, 2 * self._next_n_safe
            self._evaluate()
            return True
        return self.switch_to_double()

    def switch_to_double(self) -> bool:
        """Switch to double precision; return False if that is in use already."""
        if self.pace.precision == np.float64:
            return False
        self.pace = self.pace._replace(precision=np.float64)
        self._ended, self._n_with_momentum = None, 0
        self._evaluate()
        self.history[-1] = self.value
        return True


def extrapolated(ended: Point, begun: Point, before: Point, n_passes: int) -> Point:
    """Extrapolate from ``before``, where the last pass but one ended, to ``ended``; the last one began at ``begun``."""
    share = n_passes / (n_passes + 3)
    W, H = (extrapolate(*points, share) for points in zip(ended, begun, before, strict=True))
    return W, H
