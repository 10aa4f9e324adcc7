"""The descent: passes from a start, with momentum, each of which lowers the objective.

The driver has the basis, and decides what the next pass does. The activations of each block of frames stay where the
block is (see :class:`State`): in memory, in a file, or on a worker.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from knownmf.blocks import Part, Parts
from knownmf.learning.passes import Pace, Statistics, Task, Terms, cost_of_basis, take_pass, update
from knownmf.learning.starts import StartOfActivations
from knownmf.native import extrapolate
from knownmf.threads import single_threaded_blas

# A pass that lowers the objective by less than this share of the objective, or of the size of the data, needs double
# precision. In single precision the objective is wrong by some 1e-8 of that size; the factor of 100 is for safety.
SINGLE_TOL = 1e-6

Callback = Callable[[int, float], object]


class Learned(NamedTuple):
    """A basis that was learned.

    Attributes
    ----------
    W : (n_components, n_bins) float64
        The basis; its frozen entries are bit for bit those given.
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
    history: list[float]
    n_passes: int
    constant: float
    converged: bool


class State(NamedTuple):
    """The activations of a block of frames between two passes, and what was computed from the frames.

    Attributes
    ----------
    here : (n_frames, n_components) array
        The activations where the last pass began.
    improved : (n_frames, n_components) array
        The activations one step on.
    before : (n_frames, n_components) array, or None
        The activations that the last pass but one ended with, before extrapolation.
    task : Task or None
        The frames, if they stay in memory.
    """

    here: NDArray
    improved: NDArray
    before: NDArray | None
    task: Task | None


class Sums(NamedTuple):
    """What a pass returns of a block of frames: its part of the objective, its statistics, and the size of its data."""

    value: float
    statistics: Statistics
    size: float = 0.0

    def merged(self, other: Self) -> Self:
        """Return the sums over these frames and ``other`` ones."""
        added = Statistics(*(mine + others for mine, others in zip(self.statistics, other.statistics, strict=True)))
        return self._replace(value=self.value + other.value, statistics=added, size=self.size + other.size)


@dataclass(frozen=True)
class Begin:
    """The first pass over a block: it evaluates the activations that learning starts from.

    Attributes
    ----------
    W : (n_components, n_bins) float64
        The basis, in the units of the terms.
    pace : Pace
        How it is computed.
    start : StartOfActivations
        How the activations start.
    """

    W: NDArray[np.float64]
    pace: Pace
    start: StartOfActivations

    def __call__(self, terms: Terms, part: Part, state: Any) -> tuple[Sums, State]:
        """Return the summary of a block, and its new state."""
        task = Task(part.read(), terms)
        H = self.start.activations(part, state) / task.units()
        value, improved, statistics = take_pass(task, self.W, H, self.pace)
        return Sums(value, statistics, task.size), State(H, improved, None, task if part.keeps else None)


@dataclass(frozen=True)
class Proceed:
    """A pass over a block.

    Attributes
    ----------
    W : (n_components, n_bins) float64
        The basis, in the units of the terms.
    pace : Pace
        How it is computed.
    share : float or None
        The share of momentum with which the activations are extrapolated from the improved ones.
    again : bool
        Whether the activations where the last pass began are evaluated again, instead of the improved ones.
    """

    W: NDArray[np.float64]
    pace: Pace
    share: float | None = None
    again: bool = False

    def __call__(self, terms: Terms, part: Part, state: State) -> tuple[Sums, State]:
        """Return the summary of a block, and its new state."""
        task = state.task or Task(part.read(), terms)
        if self.again:
            H, before = state.here, state.before
        else:
            H, before = state.improved, None if terms.least_squares else state.improved
            if self.share is not None and state.before is not None:
                H = extrapolate(state.improved, state.here, state.before, self.share)
        value, improved, statistics = take_pass(task, self.W, H, self.pace)
        return Sums(value, statistics), State(H, improved, before, state.task)


def descend(
    parts: Parts,
    terms: Terms,
    W: NDArray[np.float64],
    states: Sequence[Any],
    start: StartOfActivations,
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
    with single_threaded_blas(), np.errstate(all="ignore"):
        descent = Descent(parts, terms, W / terms.atoms, states, start, n_plain)
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
                    callback(n_passes, descent.value * terms.unit)
                decrease = before - descent.value
                converged = decrease <= tol * before
                if converged and descent.end_plain_passes():
                    converged = False
                rounding = SINGLE_TOL * max(descent.size, before)
                if decrease <= rounding and not (converged and tol * before > rounding):
                    converged = not descent.switch_to_double() and converged
            else:
                converged = not descent.fall_back()
    constant = cost_of_basis(terms, descent.W)
    return Learned(
        np.where(terms.known.free, descent.W * terms.atoms, W),
        [value * terms.unit for value in descent.history],
        n_passes,
        constant * terms.unit if constant else 0.0,  # the unit may be infinite
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
    W : (n_components, n_bins) float64
        The basis, in the units of the terms.
    value : float
        The objective there, with the activations.
    size : float
        The size of the data, which rounding is relative to.
    history : list of float
        The objective at the start and after every pass.
    """

    def __init__(
        self,
        parts: Parts,
        terms: Terms,
        W: NDArray[np.float64],
        states: Sequence[Any],
        start: StartOfActivations,
        n_plain: int,
    ):
        self.parts, self.terms, self.W, self._shared = parts, terms, W, parts.share(terms)
        self.pace = Pace(np.float64 if terms.needs_double else np.float32, terms.may_take_long_steps and n_plain == 0)
        self._n_plain = 0 if terms.least_squares else n_plain  # plain passes left
        self._ended: NDArray | None = None  # the basis where the last pass ended before extrapolation, if there is one
        self._n_with_momentum = 0  # passes in a row
        self._n_safe, self._next_n_safe = n_plain, 1  # passes left with safe steps; how many after the next failure
        sums, self._states = self._sweep(Begin(W, self.pace, start), states)
        self.value, self._statistics, self.size = sums
        self.history = [self.value]

    def _sweep(self, work: Begin | Proceed, states: Sequence[Any]) -> tuple[Sums, list[Any]]:
        """Take a pass over all frames, and add what the basis costs."""
        sums, states = self.parts.sweep(work, states, self._shared)
        return sums._replace(value=sums.value + cost_of_basis(self.terms, work.W)), states

    def _evaluate(self) -> None:
        """Compute the objective, and what the next pass starts from, at the current point and pace."""
        sums, self._states = self._sweep(Proceed(self.W, self.pace, again=True), self._states)
        self.value, self._statistics = sums.value, sums.statistics

    @property
    def _before(self) -> NDArray | None:
        """The basis from which the next pass extrapolates, or None if it has no momentum."""
        return self._ended if self._n_plain == 0 else None

    def try_pass(self) -> bool:
        """Take a pass; return whether it lowered the objective. If not, nothing has changed."""
        point = ended = update(self.terms, self.W, self._statistics, self.pace.long_steps)
        share = None
        if self._before is not None:
            share = self._n_with_momentum / (self._n_with_momentum + 3)
            point = extrapolate(ended, self.W, self._before, share)
        sums, states = self._sweep(Proceed(point, self.pace, share), self._states)
        if not sums.value <= self.value:
            return False
        self.W, self.value, self._statistics, self._states = point, sums.value, sums.statistics, states
        self._n_plain, self._n_safe = max(0, self._n_plain - 1), max(0, self._n_safe - 1)
        self._ended = None if self.terms.least_squares else ended
        self._n_with_momentum = self._n_with_momentum + 1 if self._n_plain == 0 else 0
        self.pace = self.pace._replace(long_steps=self._n_safe == 0 and self.terms.may_take_long_steps)
        self.history.append(self.value)
        return True

    def end_plain_passes(self) -> bool:
        """Switch to momentum and long steps; return False if there are no plain passes left."""
        if self._n_plain == 0:
            return False
        self._n_plain, self._n_safe, self._n_with_momentum = 0, 0, 1
        self.pace = self.pace._replace(long_steps=self.terms.may_take_long_steps)
        return True

    def fall_back(self) -> bool:
        """Go one step down the ladder; return False if there is none left."""
        if self._before is not None:
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
