"""Which components a frame needs."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from knownmf.divergences import beta_of
from knownmf.inference.errors import Dispersion, check_dispersion, dispersion_of
from knownmf.inference.frames import Problem, Rows, in_double, take
from knownmf.inference.information import variances_of
from knownmf.limits import ROUNDING, LimitArguments
from knownmf.observations import Observations
from knownmf.solver import Activations, Progress, Solver, warn_of_missed
from knownmf.threads import single_threaded_blas
from knownmf.validation import check_zeros_and_ones, number, one_for_each, whole_number

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
        those of ``always``.
    prior : array_like, (n_components,), optional
        The probability, above 0 and below 1, that a frame has the component. It changes the criterion for a component
        by -2 log(p / (1 - p)): likely components are kept more easily, which matters most for few counts.
    dispersion : float, array_like (n_frames,) or "pearson", optional
        As in :func:`knownmf.standard_errors`; Pearson's estimate is that of all active components.
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
        As in :func:`knownmf.activations`, and if beta lies outside [1, 2] or a parameter is out of range.
    TypeError
        If something is not an array of real numbers.

    Warns
    -----
    ConvergenceWarning
        If frames miss ``tol`` with the support that was selected.

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
    n_bins, n_components = problem.W.shape
    n_frames = problem.observations.n_frames
    kept = np.zeros(n_components, np.bool_)
    if always is not None:
        given = one_for_each(always, "always", n_components, "components")
        check_zeros_and_ones(given, "always")
        kept = given > 0
    most = n_components if max_components is None else whole_number(max_components, "max_components")
    odds = _check_prior(prior, n_components)
    dispersion = check_dispersion(dispersion, problem)
    _check_criterion(criterion)
    shared_weights, _, rest = replace(problem.observations, support=None).split()
    solvers = [
        Solver(problem.W, beta, 0.0, 0.0, shared_weights, None, tolerance, max_iter)
        for tolerance in (tol, tol * SHARPER)
    ]
    paths, selected = [], np.zeros((n_components, n_frames), np.bool_)
    size = max(1, BLOCK_BYTES // (8 * 8 * (n_bins + n_components)))
    for first in range(0, n_frames, size):
        chunk = slice(first, min(first + size, n_frames))
        with single_threaded_blas():  # the matrices are small, and threads of BLAS would disturb those of the solver
            path = _Path(problem, take(problem.observations, chunk), solvers, kept, most)
            path.set_prices(criterion, odds, None if dispersion is None else dispersion[chunk])
            while path.step():
                pass
        paths.append(path)
        selected[:, chunk] = path.H > 0
        if progress is not None:
            progress(chunk.stop, n_frames)
    H_init = np.concatenate([path.H for path in paths], axis=1) if paths else None
    found = solvers[0].solve_observations(replace(in_double(rest), support=selected, H_init=H_init))
    warn_of_missed(found)
    n_steps = max((len(path.dropped) for path in paths), default=0)
    steps = {
        name: np.concatenate([_padded(getattr(path, name), n_steps, none, path.n_frames) for path in paths], axis=1)
        if paths
        else np.full((0, 0), none)
        for name, none in (("dropped", -1), ("likelihood_ratios", np.nan), ("accepted", False))
    }
    decided = np.concatenate([path.decided for path in paths]) if paths else np.ones(0, np.bool_)
    return Selection(selected, found, **steps, decided=decided)


class _Path:
    """The backward elimination of some frames, which take their steps together.

    Call `set_prices` once, then `step` until it returns False. ``H`` then has the activations that are left.

    Parameters
    ----------
    problem : Problem
        The basis and the loss.
    observations : Observations
        The data of the frames.
    solvers : list of Solver
        The solver, and one with a smaller tolerance.
    kept : (n_components,) bool
        Components that are not dropped.
    most : int
        Most components of a frame.
    """

    def __init__(
        self,
        problem: Problem,
        observations: Observations,
        solvers: list[Solver],
        kept: NDArray[np.bool_],
        most: int,
    ):
        self.problem, self.solvers, self.kept, self.most = problem, solvers, kept, most
        self.n_frames = observations.n_frames
        support = observations.support
        shape = problem.W.shape[1], self.n_frames
        self.allowed = np.ones(shape, np.bool_)
        if support is not None:
            self.allowed[:] = (support if support.ndim == 2 else support[:, np.newaxis]) > 0
        self.observations = replace(in_double(observations), support=None)
        found = self._solve(np.arange(self.n_frames), self.allowed, None)
        self.H, self.divergence, self.gap = found.H.copy(), found.divergence, found.gap
        self.is_open = np.ones(self.n_frames, np.bool_)
        self.decided = np.ones(self.n_frames, np.bool_)
        self.dropped: list[NDArray[np.int64]] = []
        self.likelihood_ratios: list[NDArray[np.float64]] = []
        self.accepted: list[NDArray[np.bool_]] = []

    def set_prices(
        self, criterion: str | float, odds: NDArray[np.float64], dispersion: NDArray[np.float64] | None
    ) -> None:
        """Set how much each component has to lower the deviance, and the dispersion of each frame."""
        rows = self._rows(np.arange(self.n_frames))
        self.dispersion = dispersion_of(dispersion, rows, self.problem.beta, slice(None))
        if criterion == "bic":
            counted = self.problem.dispersion_is_known
            n = (rows.weights * rows.x).sum(axis=1) if counted else (rows.weights > 0).sum(axis=1)
            price = np.log(np.maximum(n, 1.0))
        else:
            price = np.full(self.n_frames, 2.0 if criterion == "aic" else criterion, np.float64)
        self.prices = price - 2 * odds[:, np.newaxis]

    def step(self) -> bool:
        """Try to drop one component of every frame whose path has not ended; return whether there was any."""
        frames = np.flatnonzero(self.is_open)
        rows = self._rows(frames)
        droppable = (rows.H.T > 0) & ~self.kept[:, np.newaxis] & self._can_be_dropped(frames)
        self.is_open[frames[~droppable.any(axis=0)]] = False
        some = droppable.any(axis=0)
        frames, droppable = frames[some], droppable[:, some]
        if not len(frames):
            return False
        variances = variances_of(self.problem.W, rows, rows.curvature(self.problem.beta))[some].T
        H, prices = self.H[:, frames], self.prices[:, frames]
        with np.errstate(invalid="ignore", divide="ignore"):
            worth = H**2 / (variances * self.dispersion[frames]) - prices
        component = np.where(droppable, np.nan_to_num(worth, nan=np.inf, posinf=1e300), np.inf).argmin(axis=0)
        # Without a component that is dropped, one at zero might become active: it would take a step to drop it again.
        tried = self._left(frames)
        tried[component, np.arange(len(frames))] = False
        solved = self._solve(frames, tried, np.where(tried, H, 0.0))
        forced = (H > 0).sum(axis=0) > self.most
        ratio, accepted = self._compare(frames, tried, solved, forced)
        self._record(frames, component, ratio, accepted)
        taken = frames[accepted]
        self.allowed[:, taken] = tried[:, accepted]
        self.H[:, taken] = solved.H[:, accepted]
        self.divergence[taken], self.gap[taken] = solved.divergence[accepted], solved.gap[accepted]
        self.is_open[frames[~accepted]] = False
        return True

    def _left(self, frames: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return the components that frames still have."""
        return self.allowed[:, frames] & ((self.H[:, frames] > 0) | self.kept[:, np.newaxis])

    def _can_be_dropped(self, frames: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return which components of frames may be left out without making a total impossible."""
        left = self._left(frames)
        limits = take(self.observations, frames).limits
        if limits.total is None:
            return left
        bounds = np.full(left.shape, np.inf) if limits.upper is None else limits.rows(slice(None), len(frames))["upper"].T
        bounds = np.where(left, bounds, 0.0)
        # The sum of all other bounds, without inf - inf.
        unbounded = np.isinf(bounds)
        finite = np.where(unbounded, 0.0, bounds)
        others = np.where(unbounded.sum(axis=0) > unbounded, np.inf, finite.sum(axis=0) - finite)
        return left & (others >= limits.total * (1 + ROUNDING))

    def _compare(
        self, frames: NDArray[np.intp], tried: NDArray[np.bool_], solved: Activations, forced: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the likelihood ratio of each step, and whether it is accepted."""
        before = self.divergence[frames], self.gap[frames]
        saved = self._saved(frames, solved.H)
        ratio, open_ = self._ratio(frames, before, (solved.divergence, solved.gap), saved)
        again = np.flatnonzero(open_ & ~forced)
        if len(again):
            which = frames[again]
            old = self._solve(which, self.allowed[:, which], self.H[:, which], sharper=True)
            new = self._solve(which, tried[:, again], solved.H[:, again], sharper=True)
            after = new.divergence, new.gap
            ratio[again], open_ = self._ratio(which, (old.divergence, old.gap), after, saved[again])
            self.decided[which[open_]] = False
        with np.errstate(invalid="ignore"):
            return ratio, forced | (ratio <= saved)

    def _saved(self, frames: NDArray[np.intp], H: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the sum of the prices of the active components, minus that with other activations."""
        prices = self.prices[:, frames]
        return (prices * (self.H[:, frames] > 0)).sum(axis=0) - (prices * (H > 0)).sum(axis=0)

    def _ratio(
        self,
        frames: NDArray[np.intp],
        before: tuple[NDArray[np.float64], NDArray[np.float64]],
        after: tuple[NDArray[np.float64], NDArray[np.float64]],
        saved: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return by how much the deviance rises, and whether the gaps leave open if it is by more than ``saved``.

        Both are pairs of the divergence and the gap. The minimum of either divergence lies at most the gap below it.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            unit = 2 / self.dispersion[frames]
            ratio = unit * (after[0] - before[0])
            lowest, highest = ratio - unit * after[1], ratio + unit * before[1]
        return ratio, (lowest <= saved) & (highest > saved)

    def _record(
        self,
        frames: NDArray[np.intp],
        component: NDArray[np.intp],
        ratio: NDArray[np.float64],
        accepted: NDArray[np.bool_],
    ) -> None:
        """Add a step to the path."""
        self.dropped.append(np.full(self.n_frames, -1))
        self.likelihood_ratios.append(np.full(self.n_frames, np.nan))
        self.accepted.append(np.zeros(self.n_frames, np.bool_))
        self.dropped[-1][frames] = component
        self.likelihood_ratios[-1][frames] = ratio
        self.accepted[-1][frames] = accepted

    def _rows(self, frames: NDArray[np.intp]) -> Rows:
        return Rows.of(take(self.observations, frames), self.problem.W, self.H[:, frames], self.problem.beta)

    def _solve(
        self,
        frames: NDArray[np.intp],
        support: NDArray[np.bool_],
        H: NDArray[np.floating] | None,
        sharper: bool = False,
    ) -> Activations:
        """Return the activations of some frames with a support."""
        some = take(self.observations, frames)
        shared = self.solvers[sharper]
        if some.weights is not None and some.weights.ndim == 1:  # those of the solver
            some = replace(some, weights=None)
        return shared.solve_observations(replace(some, support=support, H_init=H))


def _padded(steps: list[NDArray], n_steps: int, none: float, n_frames: int) -> NDArray:
    """Return the steps of some frames as one array, with more steps that were not taken."""
    return np.array([*steps, *(n_steps - len(steps)) * [np.full(n_frames, none)]]).reshape(n_steps, n_frames)


def _check_criterion(criterion: Any) -> None:
    if isinstance(criterion, str):
        if criterion not in ("bic", "aic"):
            raise ValueError(f"criterion is {criterion!r}: choose 'bic', 'aic', or a number of at least 0.")
    else:
        number(criterion, "criterion")


def _check_prior(prior: ArrayLike | None, n_components: int) -> NDArray[np.float64]:
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
