"""Intervals of activations by resampling."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csc_array

from knownmf.divergences import beta_of
from knownmf.extras import tables_extra
from knownmf.inference.frames import Problem, Rows, in_double, take
from knownmf.limits import LimitArguments
from knownmf.native import ZERO_FLOOR
from knownmf.observations import Observations
from knownmf.results import Activations, warn_of_missed
from knownmf.solver import GROUP, Progress, Solver
from knownmf.threads import run_in_threads
from knownmf.validation import level_of_caller, number, whole_number

if TYPE_CHECKING:
    from pandas import DataFrame

Model = Literal["poisson", "multinomial", "residual"]
# Memory for the resamples of the frames that are treated together, in bytes.
RESAMPLES_BYTES = 2**25
# Better starts take 0.1 ms for a resample of 96 bins and 86 components. They save more than that where the sum of a
# frame is at least this many times the number of bins and the dispersion (ad hoc: insensitive between 5 and 15).
LEAST_STAGED = 8
# The tolerance of better starts. Ad hoc: 1e-2 to 1e-5 take nearly the same time, smaller ones more.
ROUGH_TOL = 1e-2
# With more components, the solver looks for the active ones itself.
LARGEST_STAGED = 256


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Intervals of activations.

    Attributes
    ----------
    found : Activations
        The activations of the data.
    levels : tuple of float
        The levels of the quantiles.
    quantiles : (n_levels, n_components, n_frames) float64
        The quantiles of the activations over the resamples. With two levels, ``lower, upper = result.quantiles``.
    standard_errors : (n_components, n_frames) float64
        The standard deviation of the activations over the resamples.
    frequency : (n_components, n_frames) float64
        The share of the resamples in which an activation is positive.
    n_missed : (n_frames,) int64
        How many resamples missed ``tol``.

    In a frame that has no observed bin, quantiles, standard errors and frequency are NaN: nothing is known about it.
    """

    found: Activations
    levels: tuple[float, ...]
    quantiles: NDArray[np.float64] = field(repr=False)
    standard_errors: NDArray[np.float64] = field(repr=False)
    frequency: NDArray[np.float64] = field(repr=False)
    n_missed: NDArray[np.int64] = field(repr=False)

    def to_frame(self) -> "DataFrame":
        """Return ``quantiles`` as a pandas DataFrame.

        It has a row for each component, and for each frame a column for each level: (n_components, n_frames *
        n_levels). Use ``found.to_frame(result.standard_errors)`` for other attributes.
        """
        tables = [self.found.to_frame(values) for values in self.quantiles]
        with tables_extra():
            import pandas as pd
        table = pd.concat(tables, axis=1, keys=self.levels)
        return table.swaplevel(axis=1)[[(label, level) for label in tables[0] for level in self.levels]]


def bootstrap(
    V: ArrayLike,
    W: ArrayLike,
    n_resamples: int = 200,
    model: Model = "poisson",
    quantiles: tuple[float, ...] = (0.025, 0.975),
    random_state: int | np.random.Generator | np.random.RandomState | None = None,
    *,
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
) -> Bootstrap:
    """Find intervals of activations: solve resamples of every frame, and take the quantiles of their activations [1]_.

    Parameters
    ----------
    V : array_like or sparse matrix, (n_bins, n_frames)
        The data.
    W : array_like, (n_bins, n_components)
        The basis.
    n_resamples : int, default 200
        The number of resamples of every frame.
    model : {"poisson", "multinomial", "residual"}, default "poisson"
        How a frame is resampled. "poisson": counts with the model ``background + W H`` as expectation; the model is
        taken to be right. "multinomial": the events that were counted, drawn with replacement, so that a frame keeps
        its total; the model need not be right. "residual": the model plus standardized residuals of the frame, drawn
        with replacement, for data that are not counts; the noise is taken to have the variance v^(2 - beta) / weight
        times an unknown number. Negative values become 0, except under least squares. The first two need whole
        numbers, the third a beta of at least 1. Unless under least squares, residuals are not drawn for bins whose
        model is next to zero, and for bins with data that no active component reaches: these keep their data.
    quantiles : tuple of float, default (0.025, 0.975)
        The levels of the quantiles, from 0 to 1.
    random_state : int, numpy.random.Generator or numpy.random.RandomState, optional
        Makes the result reproducible. The resamples of a frame depend on it and on the number of the frame, not on the
        other frames and not on the number of threads.
    beta_loss, weights, background, support, upper, total, max_total
        As in :func:`knownmf.activations`. Missing entries are missing in all resamples.
    tol : float, default 1e-8
        Bound on the relative gap of every frame and resample. It has to be small beside the noise: for N counts, the
        gap is ``tol`` N in units of the log-likelihood, of which half a unit is one standard error.
    max_iter : int, default 200
        Most Newton steps for a frame.
    progress : callable, optional
        Called as ``progress(frames_done, n_frames)`` as the work proceeds.

    Returns
    -------
    Bootstrap
        The activations of the data, their quantiles and standard errors.

    Raises
    ------
    ValueError
        As in :func:`knownmf.activations`, and if the data or the loss do not suit the model.
    TypeError
        If something is not an array of real numbers.

    Warns
    -----
    ConvergenceWarning
        If frames or resamples miss ``tol``.

    Notes
    -----
    Memory is needed for the resamples of some frames at a time, and for the result. An activation that is zero in the
    data gets an interval too, which begins at zero.

    References
    ----------
    .. [1] B. Efron and R. J. Tibshirani, "An Introduction to the Bootstrap", Chapman and Hall, 1993, chapters 6, 9 and
       13.

    Examples
    --------
    >>> import numpy as np
    >>> import knownmf
    >>> W = np.array([[0.8, 0.0], [0.2, 0.5], [0.0, 0.5]])
    >>> V = [[800], [400], [200]]
    >>> result = knownmf.bootstrap(V, W, random_state=0)
    >>> result.found.H.round()
    array([[1000.],
           [ 400.]])
    >>> lower, upper = result.quantiles
    >>> bool((lower < result.found.H).all() and (result.found.H < upper).all())
    True
    """
    beta = beta_of(beta_loss)
    limits = LimitArguments(upper, total, max_total)
    problem = Problem.check(V, W, beta, weights, background, support, limits)
    check_model(model, problem)
    n_resamples = whole_number(n_resamples, "n_resamples", 2)
    levels = tuple(
        number(q, "a level in quantiles", 0, 1, "both") for q in np.atleast_1d(np.asarray(quantiles)).tolist()
    )
    seed = _seed(random_state)
    shared_weights, shared_support, rest = in_double(problem.observations).split()
    solver = Solver(problem.W, beta, 0.0, 0.0, shared_weights, shared_support, tol, max_iter)
    rough = Solver(problem.W, beta, 0.0, 0.0, shared_weights, shared_support, ROUGH_TOL, max_iter)
    found = solver.solve_observations(rest)
    warn_of_missed(found)
    n_components, n_frames = found.H.shape
    result = Bootstrap(
        found,
        levels,
        np.empty((len(levels), n_components, n_frames)),
        np.empty((n_components, n_frames)),
        np.empty((n_components, n_frames)),
        np.zeros(n_frames, np.int64),
    )
    bytes_of_frame = 8 * n_resamples * (problem.W.shape[0] + 2 * n_components)
    size = max(1, RESAMPLES_BYTES // bytes_of_frame)
    for first in range(0, n_frames, size):
        chunk = slice(first, min(first + size, n_frames))
        rows = Rows.of(take(problem.observations, chunk), problem.W, found.H[:, chunk], beta)
        resamples = _resample(rows, beta, model, n_resamples, seed, first)
        observed = _observe(resamples, rest, chunk, found)
        if beta == 1.0 and n_components <= LARGEST_STAGED:
            observed = replace(observed, H_init=_better_starts(rough, problem.W, rows, observed, resamples))
        _summarize(result, chunk, solver.solve_observations(observed))
        empty = chunk.start + np.flatnonzero(~(rows.weights > 0).any(axis=1))
        for values in (result.quantiles, result.standard_errors, result.frequency):
            values[..., empty] = np.nan
        if progress is not None:
            progress(chunk.stop, n_frames)
    _warn_of_missed_resamples(result, n_resamples, tol)
    return result


def check_model(model: Any, problem: Problem) -> None:
    """Raise if data or loss do not suit the way in which they are to be resampled."""
    if model not in ("poisson", "multinomial", "residual"):
        raise ValueError(f"model is {model!r}: choose 'poisson', 'multinomial' or 'residual'.")
    if model == "residual" and problem.beta < 1:
        raise ValueError(
            f"model is 'residual' and beta_loss is {problem.beta:g}: residuals can be exchanged only for a beta of at "
            "least 1."
        )
    if model != "residual" and not problem.is_counts:
        raise ValueError(
            f"V has values that are not whole numbers, but model is {model!r}, which is for counts: pass the counts, "
            "or model='residual'."
        )
    V = problem.observations.V
    if model != "residual" and V.size and (V.data if problem.observations.is_sparse else V).min(initial=0) < 0:
        raise ValueError(f"V has negative values, but model is {model!r}, which is for counts: pass model='residual'.")


def _seed(random_state: Any) -> int:
    """Return the number that all random numbers of a call depend on."""
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**63))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**63 - 1, dtype=np.int64))
    return whole_number(random_state, "random_state", 0)


def _resample(rows: Rows, beta: float, model: Model, n_resamples: int, seed: int, first: int) -> NDArray[np.float64]:
    """Return resamples of some frames, (n_frames, n_resamples, n_bins); ``first`` is the number of the first frame."""
    n_frames, n_bins = rows.x.shape
    resamples = np.full((n_frames, n_resamples, n_bins), np.nan)
    dispersion = rows.pearson(beta)

    def draw(frames: slice) -> None:
        for t in range(frames.start, frames.stop):
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(first + t,)))
            bins = np.flatnonzero(rows.weights[t] > 0)
            if not len(bins):
                continue
            x, v, m = rows.x[t, bins], rows.model[t, bins], rows.weights[t, bins]
            if model == "poisson":
                drawn = rng.poisson(v, (n_resamples, len(bins))).astype(np.float64)
            elif model == "multinomial":
                total = x.sum()
                shares = np.full(len(bins), 1 / len(bins)) if total == 0 else x / total
                drawn = rng.multinomial(int(total), shares, n_resamples).astype(np.float64)
            else:
                drawn = _with_residuals(rng, x, v, m, rows.used[t, bins], dispersion[t], beta, n_resamples)
            resamples[t, :, bins] = drawn.T

    _over_frames(draw, n_frames)
    return resamples


def _with_residuals(
    rng: np.random.Generator,
    x: NDArray[np.float64],
    v: NDArray[np.float64],
    m: NDArray[np.float64],
    is_used: NDArray[np.bool_],
    dispersion: float,
    beta: float,
    n_resamples: int,
) -> NDArray[np.float64]:
    """Return the model of a frame plus its own residuals in another order, drawn with replacement.

    Unless under least squares, the noise vanishes with the model: bins that are not used, or whose model is next to
    zero, keep their data.
    """
    used = np.flatnonzero(is_used & ((v > ZERO_FLOOR * v.max(initial=0.0)) | (beta == 2.0)))
    spread = v[used] ** (1 - 0.5 * beta) / np.sqrt(m[used])
    residuals = (x[used] - v[used]) / spread
    residuals -= residuals.mean() if len(residuals) else 0.0
    squares = (residuals**2).sum()
    if np.isfinite(dispersion) and squares > 0:  # the fit has made them smaller than the noise was
        residuals *= np.sqrt(dispersion * len(residuals) / squares)
    drawn = np.tile(x, (n_resamples, 1))
    if len(used):
        drawn[:, used] = v[used] + spread * residuals[rng.integers(len(used), size=(n_resamples, len(used)))]
    return drawn if beta == 2.0 else np.maximum(drawn, 0.0)


def _observe(resamples: NDArray[np.float64], rest: Observations, chunk: slice, found: Activations) -> Observations:
    """Return the resamples of a chunk of frames as observations that start from the activations of the data."""
    n_resamples = resamples.shape[1]
    V: Any = resamples.reshape(-1, resamples.shape[2]).T
    if rest.is_sparse:
        V = csc_array(V)
    each = np.repeat(np.arange(chunk.start, chunk.stop), n_resamples)
    return replace(take(rest, each, V), H_init=found.H[:, each])


def _better_starts(
    rough: Solver,
    W: NDArray[np.float64],
    rows: Rows,
    observed: Observations,
    resamples: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return activations to start from that are nearly those of the resamples, for beta = 1.

    The solver begins with multiplicative updates unless a start is good, and they take most of its time. So start from
    least squares with the inverse variances of the frame's model as weights, which all resamples of a frame share:
    that takes one Gram matrix. Then solve for the components that are active there only, which are few.
    """
    n_frames, n_resamples, n_bins = resamples.shape
    start = np.array(observed.H_init)
    dispersion = np.maximum(rows.pearson(1.0), 1e-12 * rows.x.max(axis=1, initial=0.0))
    total = (rows.weights * rows.x).sum(axis=1)
    precise = (total > 0) & (total >= LEAST_STAGED * n_bins * dispersion)
    staged = np.zeros((n_frames, n_resamples), np.bool_)
    for t in np.flatnonzero(precise):
        here = slice(t * n_resamples, (t + 1) * n_resamples)
        inverse_variances = rows.weights[t] / np.maximum(rows.model[t], dispersion[t])
        squares = Solver(W, 2.0, weights=inverse_variances)
        # What is missing has a weight of 0, so that all resamples have the same Gram matrix.
        own = replace(take(observed, here), V=np.nan_to_num(resamples[t].T), weights=None, H_init=None)
        start[:, here] = squares.solve_observations(own).H
        staged[t] = True
    which = np.flatnonzero(staged)
    if len(which):
        some = replace(take(observed, which), support=start[:, which] > 0, H_init=start[:, which])
        start[:, which] = rough.solve_observations(some).H
    return start


def _summarize(result: Bootstrap, chunk: slice, solved: Activations) -> None:
    """Write what the activations of the resamples of a chunk of frames say."""
    n_frames = chunk.stop - chunk.start
    H = solved.H.T.reshape(n_frames, -1, len(solved.H))
    result.n_missed[chunk] = (~solved.converged).reshape(n_frames, -1).sum(axis=1)

    def summarize(frames: slice) -> None:
        columns = slice(chunk.start + frames.start, chunk.start + frames.stop)
        ordered = np.sort(H[frames].transpose(0, 2, 1), axis=2)
        for i, level in enumerate(result.levels):
            place = level * (ordered.shape[2] - 1)
            low, high = int(np.floor(place)), int(np.ceil(place))
            between = ordered[..., low] + (place - low) * (ordered[..., high] - ordered[..., low])
            result.quantiles[i, :, columns] = between.T
        result.standard_errors[:, columns] = ordered.std(axis=2, ddof=1).T
        result.frequency[:, columns] = (ordered > 0).mean(axis=2).T

    _over_frames(summarize, n_frames)


def _over_frames(work: Callable[[slice], None], n_frames: int) -> None:
    """Call ``work`` for some frames at a time, in threads."""
    chunks = [slice(first, min(first + GROUP, n_frames)) for first in range(0, n_frames, GROUP)]
    for _ in run_in_threads(work, chunks, lambda: None):
        pass


def _warn_of_missed_resamples(result: Bootstrap, n_resamples: int, tol: float) -> None:
    """Warn once if resamples missed the tolerance."""
    n_missed = int(result.n_missed.sum())
    if n_missed:
        from sklearn.exceptions import ConvergenceWarning

        warnings.warn(
            f"{n_missed} of {n_resamples * len(result.n_missed)} resamples missed tol={tol:g}; most of them belong to "
            f"frame {np.argmax(result.n_missed)}. Raise tol or max_iter.",
            ConvergenceWarning,
            stacklevel=level_of_caller(),
        )
