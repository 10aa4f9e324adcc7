"""Which components a frame needs."""

import warnings
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from knownmf.divergences import beta_of
from knownmf.inference.errors import Dispersion, check_dispersion, dispersion_of
from knownmf.inference.frames import Problem, Rows, in_double, take
from knownmf.inference.information import variances_of
from knownmf.limits import ROUNDING, LimitArguments
from knownmf.results import Activations, warn_of_missed
from knownmf.solver import Progress, Solver
from knownmf.threads import single_threaded_blas
from knownmf.validation import check_zeros_and_ones, level_of_caller, number, one_for_each, whole_number

if TYPE_CHECKING:
    from pandas import DataFrame

# Memory for the arrays of the frames that are treated together, in bytes.
BLOCK_BYTES = 2**25
# Where the gaps leave open whether a component is dropped, the frame is solved again with the tolerance times this.
SHARPER = 1e-3


@dataclass(frozen=True, eq=False)
class Selection:
    """The components that frames need.

    Attributes
    ----------
    support : (n_components, n_frames) bool
        Which components every frame uses.
    found : Activations
        The activations with this support.
    dropped : (n_steps, n_frames) int64
        The path: the component that each step tried to drop. -1 where a frame has no such step. All steps of a frame
        but possibly the last one succeeded.
    likelihood_ratios : (n_steps, n_frames) float64
        By how much each step raised the deviance, divided by the dispersion. NaN where a frame has no such step.
    accepted : (n_steps, n_frames) bool
        Whether the step succeeded.
    decided : (n_frames,) bool
        Whether the gaps prove, for every step of the frame, on which side of the criterion its likelihood ratio is.
        False where a frame has no observed bin.
        False where a frame has no estimate of its dispersion: nothing is dropped from it but what ``max_components``
        demands.
    """

    support: NDArray[np.bool_] = field(repr=False)
    found: Activations
    dropped: NDArray[np.int64] = field(repr=False)
    likelihood_ratios: NDArray[np.float64] = field(repr=False)
    accepted: NDArray[np.bool_] = field(repr=False)
    decided: NDArray[np.bool_] = field(repr=False)

    def to_frame(self) -> "DataFrame":
        """Return ``support`` as a pandas DataFrame with the labels of the components and of the frames."""
        return self.found.to_frame(self.support)


def select(
    V: ArrayLike,
    W: ArrayLike,
    criterion: str | float = "bic",
    always: ArrayLike | None = None,
    max_components: int | None = None,
    *,
    prior: ArrayLike | None = None,
    dispersion: Dispersion = None,
    beta_loss: str | float = "kullback-leibler",
    weights: ArrayLike | None = None,
    background: ArrayLike | None = None,
    support: ArrayLike | None = None,
    upper: ArrayLike | None = None,
    total: ArrayLike | None = None,
    max_total: ArrayLike | None = None,
    tol: float = 1e-8,
    max_iter: int = 200,
    progress: Progress | None = None,
) -> Selection:
    """Choose the components that each frame needs, by backward elimination.

    A frame begins with all components that are active without selection. Then, step by step, the component whose
    activation is smallest relative to its standard error is left out, and the frame is solved again. If this raises the
    deviance, divided by the dispersion, by no more than the criterion, the component is dropped. The first step that
    raises it by more ends the path.

    Parameters
    ----------
    V : array_like or sparse matrix, (n_bins, n_frames)
        The data.
    W : array_like, (n_bins, n_components)
        The basis.
    criterion : {"bic", "aic"} or float, default "bic"
        How much a component has to lower the deviance. "aic" is 2 [1]_. "bic" is the logarithm of the number of
        observations [2]_: for counts under Kullback-Leibler these are the events, the weighted sum of the frame; for
        everything else the observed bins.
    always : array_like of bool, (n_components,), optional
        Components that are not dropped.
    max_components : int, optional
        Most active components of a frame, those of ``always`` included. More are dropped whatever the criterion, except
        those of ``always``. The order is the same: the smallest relative to their standard errors first.
    prior : array_like, (n_components,), optional
        The probability, above 0 and below 1, that a frame has the component. It changes the criterion for a component
        by -2 log(p / (1 - p)): likely components are kept more easily, which matters most for few counts.
    dispersion : float, array_like (n_frames,) or "pearson", optional
        As in :func:`knownmf.standard_errors`; Pearson's estimate is that of all active components. If it is given,
        the variance of a bin of weight m is taken to be that of the loss divided by m, also for counts.
    beta_loss, weights, background, support, upper, total, max_total
        As in :func:`knownmf.activations`; beta from 1 to 2, where the gap proves how close a frame is to its optimum.
    tol : float, default 1e-8
        Bound on the relative gap of every frame. It has to be small beside the noise.
    max_iter : int, default 200
        Most Newton steps for a frame.
    progress : callable, optional
        Called as ``progress(frames_done, n_frames)`` as the work proceeds.

    Returns
    -------
    Selection
        The support, the activations with it, and the path.

    Raises
    ------
    ValueError
        As in :func:`knownmf.activations`, and if beta lies outside [1, 2] or a parameter is out of range, or if counts
        under Kullback-Leibler have weights other than 0 and 1 and no ``dispersion`` is given.
    TypeError
        If something is not an array of real numbers.

    Warns
    -----
    ConvergenceWarning
        If frames miss ``tol`` with the support that was selected.
    UserWarning
        If nothing is left of frames that had active components.

    References
    ----------
    .. [1] H. Akaike, "A new look at the statistical model identification", IEEE Transactions on Automatic Control 19,
       1974.
    .. [2] G. Schwarz, "Estimating the dimension of a model", Annals of Statistics 6, 1978.

    Examples
    --------
    >>> import numpy as np
    >>> import knownmf
    >>> rng = np.random.default_rng(0)
    >>> W = rng.dirichlet(np.full(50, 0.3), 20).T
    >>> H = np.zeros((20, 1))
    >>> H[[3, 7, 11]] = 500
    >>> V = rng.poisson(W @ H)
    >>> int((knownmf.activations(V, W).H > 0).sum())
    9
    >>> np.flatnonzero(knownmf.select(V, W).support)
    array([ 3,  7, 11])
    """
    beta = beta_of(beta_loss)
    if not 1 <= beta <= 2:
        raise ValueError(
            f"beta_loss is {beta_loss!r}: select needs a beta from 1 to 2, because only there a bound on the distance "
            "to the optimum is known."
        )
    limits = LimitArguments(upper, total, max_total)
    others = {"always": always, "prior": prior, "dispersion": dispersion}
    problem = Problem.check(V, W, beta, weights, background, support, limits, **others)
    if problem.observations.limits:
        problem.observations.limits.check_feasible(problem.observations.support, problem.W.shape[1])
    rules = _Rules.check(criterion, always, max_components, prior, problem.W.shape[1])
    if dispersion is None:
        _check_weights_of_counts(problem)
    dispersion = check_dispersion(dispersion, problem)
    shared_weights, _, rest = replace(problem.observations, support=None).split()
    solver, sharper = (
        Solver(problem.W, beta, 0.0, 0.0, shared_weights, None, tolerance, max_iter)
        for tolerance in (tol, tol * SHARPER)
    )
    (n_bins, n_components), n_frames = problem.W.shape, problem.observations.n_frames
    steps = _Steps(
        np.full((n_components, n_frames), -1),
        np.full((n_components, n_frames), np.nan),
        np.zeros((n_components, n_frames), np.bool_),
    )
    H, decided = np.zeros((n_components, n_frames)), np.ones(n_frames, np.bool_)
    size = max(1, BLOCK_BYTES // (8 * 8 * (n_bins + n_components)))
    for first in range(0, n_frames, size):
        chunk = slice(first, min(first + size, n_frames))
        with single_threaded_blas():  # the matrices are small, and threads of BLAS would disturb those of the solver
            path = _Path(problem, chunk, solver, sharper, rules, dispersion)
            path.run(steps.part((slice(None), chunk)))
        H[:, chunk], decided[chunk] = path.H, path.decided
        if progress is not None:
            progress(chunk.stop, n_frames)
    found = solver.solve_observations(replace(in_double(rest), support=H > 0, H_init=H))
    warn_of_missed(found)
    _warn_of_nothing_left(H, steps)
    n_steps = int((steps.dropped >= 0).any(axis=1).sum())
    return Selection(H > 0, found, *steps.part(slice(n_steps)), decided)


class _Steps(NamedTuple):
    """The steps of some frames, (n_steps, n_frames) each, as in `Selection`."""

    dropped: NDArray[np.int64]
    likelihood_ratios: NDArray[np.float64]
    accepted: NDArray[np.bool_]

    def part(self, index: Any) -> "_Steps":
        """Return views of a part of each array."""
        return _Steps(self.dropped[index], self.likelihood_ratios[index], self.accepted[index])


@dataclass(frozen=True, eq=False)
class _Rules:
    """What decides whether a component is dropped.

    Attributes
    ----------
    criterion : {"bic", "aic"} or float
        How much a component has to lower the deviance.
    always : (n_components,) bool
        Components that are not dropped.
    max_components : int
        Most components of a frame.
    log_odds : (n_components,) float64
        The logarithm of p / (1 - p) for the probability p of each component; 0 without a prior.
    """

    criterion: str | float
    always: NDArray[np.bool_]
    max_components: int
    log_odds: NDArray[np.float64]

    @classmethod
    def check(
        cls, criterion: Any, always: Any, max_components: Any, prior: ArrayLike | None, n_components: int
    ) -> "_Rules":
        """Check the rules that the user passed."""
        _check_criterion(criterion)
        kept = np.zeros(n_components)
        if always is not None:
            kept = one_for_each(always, "always", n_components, "components")
            check_zeros_and_ones(kept, "always")
        most = n_components if max_components is None else whole_number(max_components, "max_components")
        return cls(criterion, kept > 0, most, _log_odds(prior, n_components))

    def prices(self, rows: Rows, counted: bool) -> NDArray[np.float64]:
        """Return how much each component has to lower the deviance of each frame, (n_components, n_frames)."""
        if self.criterion == "bic":
            n = (rows.weights * rows.x).sum(axis=1) if counted else (rows.weights > 0).sum(axis=1)
            price = np.log(np.maximum(n, 1.0))
        else:
            price = np.full(len(rows.x), 2.0 if self.criterion == "aic" else self.criterion, np.float64)
        return price - 2 * self.log_odds[:, np.newaxis]


class _Path:
    """The backward elimination of some frames, which take their steps together.

    After `run`, ``H`` has the activations that are left, and ``decided`` is as in `Selection`.

    Parameters
    ----------
    problem : Problem
        The data of all frames, the basis and the loss.
    chunk : slice
        The frames of this path.
    solver, sharper : Solver
        The solver, and one with a smaller tolerance.
    rules : _Rules
        What decides whether a component is dropped.
    dispersion : (n_frames,) float64 or None
        The dispersion of all frames; Pearson's estimate if it is None.
    """

    def __init__(
        self,
        problem: Problem,
        chunk: slice,
        solver: Solver,
        sharper: Solver,
        rules: _Rules,
        dispersion: NDArray[np.float64] | None,
    ):
        self.problem, self.solver, self.sharper, self.rules = problem, solver, sharper, rules
        some = in_double(take(problem.observations, chunk))
        self.n_frames = some.n_frames
        self.allowed = np.ones((problem.W.shape[1], self.n_frames), np.bool_)
        if some.support is not None:
            self.allowed[:] = (some.support if some.support.ndim == 2 else some.support[:, np.newaxis]) > 0
        self.observations = replace(some, support=None)
        every = np.arange(self.n_frames)
        found = self._solve(solver, every, self.allowed, None)
        self.H, self.divergence, self.gap = found.H.copy(), found.divergence.copy(), found.gap
        rows = self._rows(every)
        self.dispersion = dispersion_of(dispersion, rows, problem.beta, chunk)
        self.prices = rules.prices(rows, problem.dispersion_is_known)
        self.decided = ~np.isnan(self.dispersion) & (rows.weights > 0).any(axis=1)

    def run(self, steps: _Steps) -> None:
        """Drop components until no frame has one to drop; write the steps."""
        frames, n = np.arange(self.n_frames), 0
        while len(frames):
            frames, component, tried = self._weakest(frames)
            solved = self._solve(self.solver, frames, tried, np.where(tried, self.H[:, frames], 0.0))
            rise, accepted = self._compare(frames, tried, solved)
            if len(frames):  # else there may be no row left
                steps.dropped[n, frames], steps.likelihood_ratios[n, frames] = component, rise
                steps.accepted[n, frames] = accepted
            frames, n = frames[accepted], n + 1
            self.allowed[:, frames], self.H[:, frames] = tried[:, accepted], solved.H[:, accepted]
            self.divergence[frames], self.gap[frames] = solved.divergence[accepted], solved.gap[accepted]

    def _weakest(self, frames: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
        """Return the frames that can drop a component, the one to try, and what the frames have without it."""
        rows = self._rows(frames)
        left = self._left(frames)
        droppable = (rows.H.T > 0) & ~self.rules.always[:, np.newaxis] & self._can_be_dropped(frames, left)
        wald = self._wald(rows)
        dispersion, prices = self.dispersion[frames], self.prices[:, frames]
        is_known = dispersion > 0
        # Without a dispersion, prices cannot be compared: the order is that of the Wald statistics.
        worth = np.where(is_known, wald / np.where(is_known, dispersion, 1.0) - prices, wald)
        # Infinite for those that cannot be dropped, nearly so for those whose worth is not known.
        worth = np.where(droppable, np.nan_to_num(worth, nan=1e300, posinf=1e300), np.inf)
        some = droppable.any(axis=0)
        component, tried = worth[:, some].argmin(axis=0), left[:, some]
        tried[component, np.arange(len(component))] = False
        return frames[some], component, tried

    @np.errstate(invalid="ignore", divide="ignore", over="ignore")
    def _wald(self, rows: Rows) -> NDArray[np.float64]:
        """Return by how much the deviance rises, to second order, if a component is left out: (n_components, n_frames).

        For a free activation this is h^2 / variance, the square of its Wald statistic without the dispersion. An
        activation at its upper bound is taken to be free for its variance; the slope of the deviance, which is not zero
        there, adds -h slope. NaN for activations of zero.
        """
        W, curvature = self.problem.W, rows.curvature(self.problem.beta)
        wald = rows.H**2 / variances_of(W, rows, curvature)
        at_bound = (rows.H > 0) & ~rows.free
        if not at_bound.any():
            return wald.T
        slopes = 2 * (curvature * (rows.model - rows.x)) @ W
        # With a total, the other activations rise as one falls: the slope is that relative to free activations.
        n_free = rows.free.sum(axis=1)
        common = np.where(rows.free, slopes, 0.0).sum(axis=1) / np.maximum(n_free, 1)
        slopes -= np.where(rows.has_total & (n_free > 0), common, 0.0)[:, np.newaxis]
        for k in np.flatnonzero(at_bound.any(axis=0)):
            here = np.flatnonzero(at_bound[:, k])
            some = rows.take(here)
            some.free[:, k] = True
            h, variance = some.H[:, k], variances_of(W, some, curvature[here])[:, k]
            wald[here, k] = h * np.maximum(-slopes[here, k], 0.0) + h**2 / variance
        return wald.T

    def _left(self, frames: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return the components that frames still have.

        One that is zero is left out with those that were dropped. Otherwise it might become active again, and it would
        take a step to drop it.
        """
        return self.allowed[:, frames] & ((self.H[:, frames] > 0) | self.rules.always[:, np.newaxis])

    def _can_be_dropped(self, frames: NDArray[np.intp], left: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which components may be left out without making the total of their frame impossible."""
        limits = take(self.observations, frames).limits
        if limits.total is None:
            return left
        upper = limits.rows(slice(None), len(frames)).get("upper")
        bounds = np.where(left, np.inf if upper is None else upper.T, 0.0)
        # The sum of all other bounds, without inf - inf.
        unbounded = np.isinf(bounds)
        finite = np.where(unbounded, 0.0, bounds)
        others = np.where(unbounded.sum(axis=0) > unbounded, np.inf, finite.sum(axis=0) - finite)
        return left & (others >= limits.total * (1 + ROUNDING))

    @np.errstate(over="ignore", invalid="ignore")
    def _compare(
        self, frames: NDArray[np.intp], tried: NDArray[np.bool_], solved: Activations
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the likelihood ratio of a step of each frame, and whether the step is accepted."""
        n_active, prices = (self.H[:, frames] > 0).sum(axis=0), self.prices[:, frames]
        allowance = (prices * (self.H[:, frames] > 0)).sum(axis=0) - (prices * (solved.H > 0)).sum(axis=0)
        forced = n_active > self.rules.max_components
        unit = 2 / np.maximum(self.dispersion[frames], np.finfo(float).tiny)
        ratio = unit * (solved.divergence - self.divergence[frames])
        # Either minimum lies at most its gap below the divergence.
        is_open = (ratio - unit * solved.gap <= allowance) & (ratio + unit * self.gap[frames] > allowance) & ~forced
        again = np.flatnonzero(is_open)
        if len(again):
            which, unit = frames[again], unit[again]
            before = self._solve(self.sharper, which, self.allowed[:, which], self.H[:, which])
            after = self._solve(self.sharper, which, tried[:, again], solved.H[:, again])
            ratio[again] = unit * (after.divergence - before.divergence)
            least, most = ratio[again] - unit * after.gap, ratio[again] + unit * before.gap
            self.decided[which[(least <= allowance[again]) & (most > allowance[again])]] = False
        return ratio, forced | (ratio <= allowance)

    def _rows(self, frames: NDArray[np.intp]) -> Rows:
        return Rows.of(take(self.observations, frames), self.problem.W, self.H[:, frames], self.problem.beta)

    def _solve(
        self, solver: Solver, frames: NDArray[np.intp], support: NDArray[np.bool_], H: NDArray[np.floating] | None
    ) -> Activations:
        """Return the activations of some frames with a support."""
        some = take(self.observations, frames)
        if some.weights is not None and some.weights.ndim == 1:  # those of the solver
            some = replace(some, weights=None)
        return solver.solve_observations(replace(some, support=support, H_init=H))


def _warn_of_nothing_left(H: NDArray[np.float64], steps: _Steps) -> None:
    """Warn once if every active component of some frames was dropped."""
    empty = np.flatnonzero(steps.accepted.any(axis=0) & (H == 0).all(axis=0))
    if len(empty):
        warnings.warn(
            f"All components of {len(empty)} of {H.shape[1]} frames were dropped, first of frame "
            f"{empty[0]}: none of them lowers the deviance by more than the criterion. If the frames are more than "
            "noise, look at their goodness of fit, or pass a dispersion or a smaller criterion.",
            UserWarning,
            stacklevel=level_of_caller(),
        )


def _check_weights_of_counts(problem: Problem) -> None:
    """Raise if counts have weights that change the scale of their likelihood ratios."""
    weights = problem.observations.weights
    if not problem.dispersion_is_known or weights is None:
        return
    other = (weights != 0) & (weights != 1)
    if other.any():
        where = np.unravel_index(np.argmax(other), other.shape)
        raise ValueError(
            f"weights[{', '.join(map(str, where))}] is {weights[where]:g}, but V are counts under 'kullback-leibler', "
            "whose likelihood ratios have a known scale only with weights of 0 and 1: leave the weights out, or pass "
            "dispersion=1.0 if the variance of a bin is its expectation divided by its weight, or 'pearson' to "
            "estimate it."
        )


def _check_criterion(criterion: Any) -> None:
    if isinstance(criterion, str):
        if criterion not in ("bic", "aic"):
            raise ValueError(f"criterion is {criterion!r}: choose 'bic', 'aic', or a number of at least 0.")
    else:
        number(criterion, "criterion")


def _log_odds(prior: ArrayLike | None, n_components: int) -> NDArray[np.float64]:
    """Return the logarithm of the odds of each component, 0 without a prior."""
    if prior is None:
        return np.zeros(n_components)
    values = one_for_each(prior, "prior", n_components, "components")
    if not ((values > 0) & (values < 1)).all():
        k = int(np.argmin((values > 0) & (values < 1)))
        raise ValueError(
            f"prior[{k}] is {values[k]:g}, expected a probability above 0 and below 1: use always for components that "
            "every frame has, and support for those that it cannot have."
        )
    return np.log(values / (1 - values))
