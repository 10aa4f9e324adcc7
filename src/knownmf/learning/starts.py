"""Where learning starts: components and activations for what is not known, and no zero where something may grow.

Frames-major, as in :mod:`knownmf.learning.passes`. The initializations are scikit-learn's [1]_, on what the known
components leave of the data, but for one thing: they do not depend on the units of the data. They are computed block by
block: the activations stay where the block is, and only sums are merged.

.. [1] C. Boutsidis and E. Gallopoulos, "SVD based initialization: a head start for nonnegative matrix factorization",
   Pattern Recognition 41(4), 2008.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

from knownmf.activations import solve_with
from knownmf.blocks import Part, Parts
from knownmf.learning.known import KnownBasis
from knownmf.learning.passes import Loss, Survey, largest_data, power_of_two, rows_or
from knownmf.limits import Limits
from knownmf.observations import Observations

# Multiplicative updates never leave zero: zeros that may grow start from this share of their component's mean.
LIFT = 1e-3
INITS = ("random", "nndsvd", "nndsvda", "nndsvdar")
# Frames whose sizes are so many decades apart start at one size, where every frame counts.
FAR_APART = 6
KNOWN_TOL = 1e-2  # of the activations of the known components: a start needs no better
# As in scikit-learn's randomized_svd: directions beyond those asked for, and the numbers of power iterations for few
# and for many components.
OVERSAMPLES, MANY_ITERATIONS, FEW_ITERATIONS = 10, 7, 4
# Directions with a smaller share than this of the largest singular value are rounding errors.
SMALLEST_DIRECTION = 1e-13
DRAWN_AT_A_TIME = 2**20  # random numbers


class Started(NamedTuple):
    """The state of a block before the first pass.

    Attributes
    ----------
    known, unknown : (n_frames, n) array, or None
        The activations of the known and of the unknown components, at one size of frames.
    left : (n_frames, n_bins) array or sparse matrix, or None
        What the known components leave, if frames stay in memory.
    """

    known: Any = None
    unknown: Any = None
    left: Any = None


class Total(NamedTuple):
    """Sums over frames, which are added."""

    values: NDArray[np.float64]

    def merged(self, other: Self) -> Self:
        """Return the sums over these frames and over ``other`` ones."""
        return self._replace(values=self.values + other.values)


@dataclass(frozen=True)
class StartOfActivations:
    """How activations start: from H_init, or from what a block's state says; but a little above zero.

    Attributes
    ----------
    beta : float
        The beta-divergence.
    survey : Survey
        What is known of all frames.
    lifts : (n_components,) float64
        What activations of zero start from.
    """

    beta: float
    survey: Survey
    lifts: NDArray[np.float64]

    def raw(self, part: Part, state: Started) -> NDArray[np.float64]:
        """Return the activations with their zeros, of frames at one size."""
        if part.observations is not None and part.observations.H_init is not None:
            observations, _ = at_one_size(part.observations, self.beta, self.survey)
            return np.asarray(observations.H_init, np.float64).T
        return np.hstack([H for H in (state.known, state.unknown) if H is not None])

    def activations(self, part: Part, state: Started) -> NDArray[np.float64]:
        """Return the activations that the first pass over a block starts from, a frame a row."""
        H = self.raw(part, state)
        observations = part.read()
        _, sizes = at_one_size(observations, self.beta, self.survey)
        support = rows_or(observations.support, H.shape[1], 1.0) > 0.0
        return np.where(support, np.where(H == 0.0, self.lifts, H) * sizes, 0.0)


@dataclass(frozen=True)
class SumActivations:
    """Sum the activations that a block starts from, by components."""

    start: StartOfActivations

    def __call__(self, shared: Any, part: Part, state: Started) -> tuple[Total, Started]:
        """Return the summary of a block, and its new state."""
        return Total(self.start.raw(part, state).sum(axis=0)), state


def start_of(
    parts: Parts,
    survey: Survey,
    known: KnownBasis,
    loss: Loss,
    init: str | None,
    random_state: Any,
    W_init: NDArray[np.float64] | None,
) -> tuple[NDArray[np.float64], list[Any], StartOfActivations]:
    """Return the components that learning starts from, the states of all blocks, and how their activations start.

    Known components start as they are, with their own activations; unknown ones start on what those leave of the data,
    or all of them at ``W_init`` (n_components, n_bins).
    """
    n_known, n_components = known.n_known, len(known.free)
    W = known.components.astype(np.float64)
    if W_init is not None:
        W, n_known = np.where(known.free, W_init, W), n_components
    W[:n_known] = without_zeros(W[:n_known], known.free[:n_known])
    states: list[Any] = [Started()] * len(parts.counts)
    explains = n_known > 0 and (not parts.has_start or n_components > n_known)
    left = Left(W[:n_known] if explains else None, loss.beta, survey, survey.mean)
    mean = survey.mean
    if far_apart(loss.beta, survey):
        sums, _ = parts.sweep(SumLeft(replace(left, W=None)), states)
        mean = mean_of(sums)
        left = replace(left, mean=mean)
    if explains:
        sums, states = parts.sweep(Explain(left), states)
        mean = mean_of(sums)
    if n_components > n_known:
        init = chosen_init(init, survey, n_components - n_known)
        W[n_known:], states = start(parts, left, mean, states, n_components - n_known, init, random_state)
        W[n_known:] = without_zeros(W[n_known:], known.free[n_known:])
    how = StartOfActivations(loss.beta, survey, np.zeros(n_components))
    sums, _ = parts.sweep(SumActivations(how), states, reads=parts.has_start)
    means = sums.values / parts.n_frames
    whole = means.mean()
    return W, states, replace(how, lifts=LIFT * np.where(means > 0.0, means, whole if whole > 0.0 else 1.0))


def far_apart(beta: float, survey: Survey) -> bool:
    """Return whether frames have to be brought to one size: below beta = 1, where frames of all sizes count."""
    if beta >= 1.0 or not survey.data_largest > 0.0:
        return False
    low, high = power_of_two(np.array([survey.data_smallest, survey.data_largest]))
    return bool(np.log10(high) - np.log10(low) > FAR_APART)


def at_one_size(observations: Observations, beta: float, survey: Survey) -> tuple[Observations, NDArray[np.float64]]:
    """Return observations whose frames are all of the size of one, and what they were divided by, a frame a row.

    If frames are not far apart, they are left as they are.
    """
    if not far_apart(beta, survey):
        return observations, np.ones((1, 1))
    X = observations.V.T
    largest = largest_data(X, False)
    sizes = power_of_two(np.where(largest > 0.0, largest, survey.data_largest))
    background, H = observations.background, observations.H_init
    if background is not None:
        background = (background if background.ndim == 2 else background[:, np.newaxis]) / sizes
    scaled = replace(
        observations, V=(X / sizes[:, np.newaxis]).T, background=background, H_init=None if H is None else H / sizes
    )
    return scaled, sizes[:, np.newaxis]


# ---- What known components leave


@dataclass(frozen=True)
class Left:
    """What known components leave of the data.

    Attributes
    ----------
    W : (n_known, n_bins) float64, or None
        The known components.
    beta : float
        The beta-divergence.
    survey : Survey
        What is known of all frames.
    mean : float
        The mean of the data, of frames at one size.
    """

    W: NDArray[np.float64] | None
    beta: float
    survey: Survey
    mean: float

    def of(self, part: Part, H: NDArray[np.float64] | None) -> Any:
        """Return what is left of a block if the known components have these activations, a frame a row."""
        observations, _ = at_one_size(part.read(), self.beta, self.survey)
        X = positive_part(observations.V.T)
        if self.W is None or H is None:
            return X
        return residual(X, rows_or(observations.background, self.W.shape[1], 0.0), H, self.W, self.mean)

    def explained(self, part: Part) -> NDArray[np.float64] | None:
        """Return the activations of the known components alone."""
        if self.W is None:
            return None
        observations, _ = at_one_size(part.read(), self.beta, self.survey)
        support = None if observations.support is None else observations.support[: len(self.W)]
        asked = replace(observations, support=support, H_init=None, limits=Limits())
        return solve_with(asked, self.W.T, self.beta, tol=KNOWN_TOL).H.T.astype(np.float64)


def summed(X: Any) -> Total:
    """Return the sum of what is not missing, and how many these are."""
    if issparse(X):
        return Total(np.array([float(X.sum()), float(X.shape[0]) * X.shape[1]]))
    return Total(np.array([float(np.nansum(X)), float(X.size - np.isnan(X).sum())]))


def mean_of(sums: Total) -> float:
    """Return the mean of what has been summed, 0 of nothing."""
    total, n = sums.values
    return float(total / n) if n else 0.0


@dataclass(frozen=True)
class SumLeft:
    """Sum what is left of a block."""

    left: Left

    def __call__(self, shared: Any, part: Part, state: Started) -> tuple[Total, Started]:
        """Return the summary of a block, and its new state."""
        return summed(self.left.of(part, state.known)), state


@dataclass(frozen=True)
class Explain:
    """Find the activations of the known components, and sum what they leave."""

    left: Left

    def __call__(self, shared: Any, part: Part, state: Started) -> tuple[Total, Started]:
        """Return the summary of a block, and its new state."""
        known = self.left.explained(part)
        left = self.left.of(part, known)
        return summed(left), Started(known, left=left if part.keeps else None)


# ---- Unknown components


def chosen_init(init: str | None, survey: Survey, n_components: int) -> str:
    """Return how unknown components start, which None leaves open."""
    most = min(survey.n_frames, survey.n_bins)
    if init is None:
        return "nndsvda" if survey.is_plain and n_components <= most else "random"
    if init == "custom":
        raise ValueError('init="custom" needs W and H, which only fit takes: pass init=None.')
    if init not in INITS:
        raise ValueError(f'init is {init!r}, expected one of {INITS}, "custom" or None.')
    if init != "random" and n_components > most:
        raise ValueError(
            f"init is {init!r}, which starts at most min(n_samples, n_features) = {most} components, not "
            f'{n_components}: pass init="random".'
        )
    return init


def start(
    parts: Parts, left: Left, mean: float, states: list[Any], n_components: int, init: str, random_state: Any
) -> tuple[NDArray[np.float64], list[Any]]:
    """Return components (n_components, n_bins) to start from, and the states with the activations of each block.

    Parameters
    ----------
    parts : Parts
        The blocks.
    left : Left
        What there is to explain; what is missing counts as the mean.
    mean : float
        The mean of what there is to explain.
    states : list
        The states of the blocks.
    n_components : int
        How many components to start.
    init : {"random", "nndsvd", "nndsvda", "nndsvdar"}
        Random numbers of the right size; or the nonnegative double singular value decomposition, with its zeros left,
        filled with the mean, or filled with small random numbers.
    random_state : int, RandomState instance or None
        The source of the random numbers.
    """
    from sklearn.utils import check_random_state  # here: scikit-learn is slow to import

    rng, n_bins = check_random_state(random_state), left.survey.n_bins
    if init == "random" or not mean > 0.0:
        size = np.sqrt((mean or 1.0) / n_components)
        W = np.abs(size * rng.standard_normal((n_components, n_bins)))
        numbers = drawn(rng, [(n, n_components) for n in parts.counts], parts.is_local)
        return W, parts.sweep(StartRandomly(size, n_components), states, arguments=numbers, reads=False)[1]
    # The fill and the threshold below are absolute numbers: bring the data to the size of one, whatever their units.
    scale = float(4.0 ** np.floor(0.5 * np.log2(mean)))
    scaled = ScaledLeft(left, mean, scale)
    s, V, states, norms = decompose(parts, scaled, states, n_components, check_random_state(random_state))
    signs, sizes_H, sizes_W = leading_signs(V, norms)
    W = np.array(
        [size * np.sqrt(part) * folded(v, sign) for size, part, v, sign in zip(sizes_W, s, V, signs, strict=True)]
    )
    W[W < SMALLEST_START] = 0.0
    fill = mean / scale if init == "nndsvda" else 0.0
    counts, states = parts.sweep(Fold(signs, sizes_H * np.sqrt(s), fill), states, reads=False)
    W[W == 0.0] = fill
    if init == "nndsvdar":
        numbers = drawn(rng, counts.values, parts.is_local)
        size = mean / scale / 100
        _, states = parts.sweep(Fill(size), states, arguments=numbers, reads=False)
        W[W == 0.0] = np.abs(size * rng.standard_normal((W == 0.0).sum()))
    _, states = parts.sweep(Rescale(np.sqrt(scale)), states, reads=False)
    return W * np.sqrt(scale), states


SMALLEST_START = 1e-6  # as in scikit-learn: smaller entries of singular vectors count as zero


def drawn(rng: np.random.RandomState, shapes: Sequence[Any], are_local: bool) -> Iterator[Any]:
    """Yield normal random numbers for each block, or the state of the generator from which a worker draws them.

    Either way they are those that one call for all blocks would return.
    """
    for shape in shapes:
        if are_local:
            yield rng.standard_normal(shape)
            continue
        yield rng.get_state()
        n_left = int(np.prod(shape))
        while n_left:
            n = min(n_left, DRAWN_AT_A_TIME)
            rng.standard_normal(n)
            n_left -= n


def numbers_of(argument: Any, shape: Any) -> NDArray[np.float64]:
    """Return the random numbers of a block; see :func:`drawn`."""
    if isinstance(argument, np.ndarray):
        return argument
    rng = np.random.RandomState()
    rng.set_state(argument)
    return rng.standard_normal(shape)


class Nothing(NamedTuple):
    """What a pass returns that only changes the states."""

    def merged(self, other: Self) -> Self:
        """Return nothing."""
        return self


@dataclass(frozen=True)
class StartRandomly:
    """Start the activations of a block with random numbers."""

    size: float
    n_components: int

    def __call__(self, shared: Any, part: Part, state: Started) -> tuple[Nothing, Started]:
        """Return the summary of a block, and its new state."""
        numbers = numbers_of(part.argument, (part.n_frames, self.n_components))
        return Nothing(), state._replace(unknown=np.abs(self.size * numbers))


@dataclass(frozen=True)
class ScaledLeft:
    """What there is to explain, divided by ``scale``; what is missing counts as the mean."""

    left: Left
    mean: float
    scale: float

    def of(self, part: Part, state: Started) -> tuple[Any, Started]:
        """Return what is left of a block, and the state, which keeps it if frames stay in memory."""
        if isinstance(state.left, Scaled):
            return state.left.X, state
        X = self.left.of(part, state.known) if state.left is None else state.left
        X = X / self.scale if issparse(X) else np.where(np.isnan(X), self.mean / self.scale, X / self.scale)
        return X, state._replace(left=Scaled(X)) if part.keeps else state


class Scaled(NamedTuple):
    """What is left of a block, divided by the scale."""

    X: Any


@dataclass(frozen=True)
class Multiply:
    """Multiply what is left of a block, X, by directions: ``X' X P``, or ``X' Q`` for the block's own Q."""

    left: ScaledLeft
    P: NDArray[np.float64] | None

    def __call__(self, shared: Any, part: Part, state: Started) -> tuple[Total, Started]:
        """Return the summary of a block, and its new state."""
        X, state = self.left.of(part, state)
        return Total(X.T @ (part.argument if self.P is None else X @ self.P)), state


def triangular(C: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the triangular factor of a matrix."""
    R: Any = np.linalg.qr(C, "r")
    return R


class Projection(NamedTuple):
    """The triangular factor of ``C = X P``, and ``C' X``."""

    R: NDArray[np.float64]
    product: NDArray[np.float64]

    def merged(self, other: Self) -> Self:
        """Return the factor and the product of these frames and of ``other`` ones."""
        return self._replace(R=triangular(np.vstack([self.R, other.R])), product=self.product + other.product)


@dataclass(frozen=True)
class Project:
    """Project what is left of a block, X, on directions."""

    left: ScaledLeft
    P: NDArray[np.float64]

    def __call__(self, shared: Any, part: Part, state: Started) -> tuple[Projection, Started]:
        """Return the summary of a block, and its new state."""
        X, state = self.left.of(part, state)
        C = X @ self.P
        return Projection(triangular(C), (X.T @ C).T), state._replace(unknown=C, left=None)


@dataclass(frozen=True)
class Turn:
    """Turn the projection of a block into singular vectors, and find the norms of their positive and negative parts."""

    T: NDArray[np.float64]

    def __call__(self, shared: Any, part: Part, state: Started) -> tuple[Total, Started]:
        """Return the summary of a block, and its new state."""
        U = state.unknown @ self.T
        return Total(squares_of_signs(U.T)), state._replace(unknown=U)


def squares_of_signs(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sums of squares of the positive and of the negative parts of vectors, (2, n_vectors)."""
    return np.array([(np.maximum(sign * vectors, 0.0) ** 2).sum(axis=1) for sign in (1.0, -1.0)])


def decompose(
    parts: Parts, left: ScaledLeft, states: list[Any], n_components: int, rng: np.random.RandomState
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[Any], NDArray[np.float64]]:
    """Find singular values and vectors of what is left, by the algorithm of scikit-learn's ``randomized_svd``.

    It is done in products with blocks. Directions are made orthogonal among the bins only, which does not change what
    they span.

    Returns
    -------
    s : (n_components,) float64
        The singular values.
    V : (n_components, n_bins) float64
        The vectors of the bins.
    states : list
        The vectors of the frames, as activations of unknown components.
    squares : (2, n_components) float64
        The sums of squares of the positive and of the negative parts of these.
    """
    n_frames, n_bins = left.left.survey.n_frames, left.left.survey.n_bins
    n_iter = MANY_ITERATIONS if n_components < 0.1 * min(n_frames, n_bins) else FEW_ITERATIONS
    n_directions = n_components + OVERSAMPLES
    is_wide = n_frames < n_bins
    P = rng.normal(size=(min(n_frames, n_bins), n_directions))
    if is_wide:
        ends = np.cumsum(parts.counts)
        total, states = parts.sweep(Multiply(left, None), states, arguments=np.split(P, ends[:-1]))
        P = np.linalg.qr(total.values)[0]
    for _ in range(n_iter):
        total, states = parts.sweep(Multiply(left, P), states)
        P = np.linalg.qr(total.values)[0]
    projection, states = parts.sweep(Project(left, P), states)
    _, sizes, F = np.linalg.svd(projection.R, full_matrices=False)
    used = sizes > SMALLEST_DIRECTION * sizes[0]
    T = F[used].T / sizes[used]  # C T has orthonormal columns
    if is_wide:
        s, V = sizes[used], F[used] @ P.T
    else:
        turned, s, V = np.linalg.svd(T.T @ projection.product, full_matrices=False)
        T = T @ turned
    lacking = max(0, n_components - len(s))
    s, V = np.pad(s, (0, lacking))[:n_components], np.pad(V, ((0, lacking), (0, 0)))[:n_components]
    T = np.pad(T, ((0, 0), (0, lacking)))[:, :n_components]
    norms, states = parts.sweep(Turn(T), states, reads=False)
    return s, V, states, norms.values


def leading_signs(
    V: NDArray[np.float64], squares: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the signs of pairs of singular vectors whose parts explain more, and what the parts are multiplied by.

    Parameters
    ----------
    V : (n_components, n_bins) float64
        The vectors of the bins.
    squares : (2, n_components) float64
        Of the vectors of the frames, the sums of squares of the positive and of the negative parts.

    Returns
    -------
    signs : (n_components,) float64
        1 or -1 for the positive or the negative parts; 0 for the absolute values, of the first pair.
    sizes_U, sizes_V : (n_components,) float64
        Factors that scale the parts of the two vectors to their share.
    """
    of_U, of_V = np.sqrt(squares), np.sqrt(squares_of_signs(V))
    best = np.where(of_U[0] * of_V[0] > of_U[1] * of_V[1], 0, 1)
    every = np.arange(len(V))
    size_U, size_V = of_U[best, every], of_V[best, every]
    share = np.sqrt(size_U * size_V)
    scales_U, scales_V = np.ones(len(V)), np.ones(len(V))
    some = size_U * size_V > 0.0
    scales_U[some], scales_V[some] = share[some] / size_U[some], share[some] / size_V[some]
    signs = 1.0 - 2.0 * best
    signs[0], scales_U[0], scales_V[0] = 0.0, 1.0, 1.0
    return signs, scales_U, scales_V


def folded(values: NDArray[np.float64], sign: float) -> NDArray[np.float64]:
    """Return the positive or the negative part of a vector, or, if the sign is 0, its absolute values."""
    return np.maximum(sign * values, 0.0) if sign else np.abs(values)


class Counts(NamedTuple):
    """A number for each block."""

    values: tuple[int, ...]

    def merged(self, other: Self) -> Self:
        """Return the numbers of these blocks and of ``other`` ones."""
        return self._replace(values=self.values + other.values)


@dataclass(frozen=True)
class Fold:
    """Turn the singular vectors of a block into activations, whose zeros are filled; count those that are left."""

    signs: NDArray[np.float64]
    sizes: NDArray[np.float64]
    fill: float

    def __call__(self, shared: Any, part: Part, state: Started) -> tuple[Counts, Started]:
        """Return the summary of a block, and its new state."""
        H = np.empty_like(state.unknown)
        for k, (sign, size) in enumerate(zip(self.signs, self.sizes, strict=True)):
            H[:, k] = size * folded(state.unknown[:, k], sign)
        H[H < SMALLEST_START] = 0.0
        H[H == 0.0] = self.fill
        return Counts((int((H == 0.0).sum()),)), state._replace(unknown=H)


@dataclass(frozen=True)
class Fill:
    """Fill the zeros of the activations of a block with random numbers."""

    size: float

    def __call__(self, shared: Any, part: Part, state: Started) -> tuple[Nothing, Started]:
        """Return the summary of a block, and its new state."""
        H = state.unknown.copy()
        zero = H == 0.0
        H[zero] = np.abs(self.size * numbers_of(part.argument, int(zero.sum())))
        return Nothing(), state._replace(unknown=H)


@dataclass(frozen=True)
class Rescale:
    """Multiply the activations of a block by a number."""

    factor: float

    def __call__(self, shared: Any, part: Part, state: Started) -> tuple[Nothing, Started]:
        """Return the summary of a block, and its new state."""
        return Nothing(), state._replace(unknown=state.unknown * self.factor)


def positive_part(X: Any) -> Any:
    """Return data without what is negative, which components cannot explain; not a copy if nothing is."""
    values = X.data if issparse(X) else X
    if not np.fmin.reduce(values, axis=None, initial=0.0) < 0.0:
        return X
    if not issparse(X):
        return np.maximum(X, 0.0)
    positive = X.copy()
    np.maximum(positive.data, 0.0, out=positive.data)
    return positive


def residual(X: Any, model: NDArray, H: NDArray[np.float64], W: NDArray[np.float64], mean: float) -> Any:
    """Return what ``model + H W`` leaves of X, at least a little of the mean; of a sparse matrix, at its entries."""
    if not issparse(X):
        return np.maximum(X - model - H @ W, LIFT * mean)
    left = X.astype(np.float64)
    for i in range(left.shape[0]):
        row = slice(left.indptr[i], left.indptr[i + 1])
        left.data[row] = np.maximum(left.data[row] - H[i] @ W[:, left.indices[row]], LIFT * left.data[row])
    return left


def without_zeros(Z: NDArray[np.float64], free: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return a start, a component a row, whose free zeros and missing entries have a little of the component's mean."""
    whole = np.nanmean(Z) if not np.isnan(Z).all() else 0.0
    means = np.nansum(Z, axis=1, keepdims=True) / np.maximum((~np.isnan(Z)).sum(axis=1, keepdims=True), 1)
    means = np.where(means > 0.0, means, whole if whole > 0.0 else 1.0)
    filled = np.where(np.isnan(Z), means, Z)
    return np.where(free & (filled == 0.0), LIFT * means, filled)
