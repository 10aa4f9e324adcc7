"""Where learning starts: components and activations for what is not known, and no zero where something may grow.

Frames-major, as in :mod:`knownmf.learning.passes`. The initializations are scikit-learn's [1]_, on what the known
components leave of the data, but for one thing: they do not depend on the units of the data.

.. [1] C. Boutsidis and E. Gallopoulos, "SVD based initialization: a head start for nonnegative matrix factorization",
   Pattern Recognition 41(4), 2008.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

from knownmf.activations import solve_with
from knownmf.learning.known import KnownBasis
from knownmf.learning.passes import Loss, power_of_two, rows_or
from knownmf.limits import Limits
from knownmf.observations import Observations

# Multiplicative updates never leave zero: zeros that may grow start from this share of their component's mean.
LIFT = 1e-3
INITS = ("random", "nndsvd", "nndsvda", "nndsvdar")
# Frames whose sizes are so many decades apart start at one size, where every frame counts.
FAR_APART = 6
KNOWN_TOL = 1e-2  # of the activations of the known components: a start needs no better


def start_of(
    observations: Observations,
    known: KnownBasis,
    loss: Loss,
    init: str | None,
    random_state: Any,
    W_init: NDArray[np.float64] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the components and the activations that learning starts from.

    Known components start as they are, with their own activations; unknown ones start on what those leave of the data,
    or all of them at ``W_init`` (n_components, n_bins).
    """
    n_known, n_components = known.n_known, len(known.free)
    sizes = np.ones((observations.n_frames, 1))
    if loss.beta < 1.0:  # frames of all sizes count
        observations, sizes = at_one_size(observations)
    W = known.components.astype(np.float64)
    if W_init is not None:
        W, n_known = np.where(known.free, W_init, W), n_components
    W[:n_known] = without_zeros(W[:n_known], known.free[:n_known])
    H, left = np.empty((observations.n_frames, n_components)), positive_part(observations.V.T)
    if n_known and (observations.H_init is None or n_components > n_known):
        H[:, :n_known], left = explained(observations, W[:n_known], loss.beta)
    if n_components > n_known:
        init = chosen_init(init, observations, n_components - n_known)
        W[n_known:], H[:, n_known:] = start(left, n_components - n_known, init, random_state)
        W[n_known:] = without_zeros(W[n_known:], known.free[n_known:])
    if observations.H_init is not None:
        H = observations.H_init.T.astype(np.float64)
    support = rows_or(observations.support, n_components, 1.0) > 0.0
    return W, np.where(support, without_zeros(H.T, np.ones(H.T.shape, np.bool_)).T * sizes, 0.0)


def at_one_size(observations: Observations) -> tuple[Observations, NDArray[np.float64]]:
    """Return observations whose frames are all of the size of one, and what they were divided by, a frame a row."""
    X = observations.V.T
    largest = np.fmax.reduce(X, axis=1, initial=0.0).astype(np.float64)
    sizes = power_of_two(np.where(largest > 0.0, largest, largest.max(initial=0.0)))
    if not np.ptp(np.log10(sizes)) > FAR_APART:
        return observations, np.ones((len(sizes), 1))
    background, H = observations.background, observations.H_init
    if background is not None:
        background = (background if background.ndim == 2 else background[:, np.newaxis]) / sizes
    scaled = replace(
        observations, V=(X / sizes[:, np.newaxis]).T, background=background, H_init=None if H is None else H / sizes
    )
    return scaled, sizes[:, np.newaxis]


def explained(observations: Observations, W: NDArray[np.float64], beta: float) -> tuple[NDArray[np.float64], Any]:
    """Return the activations of the known components alone, and what they leave of the data."""
    support = None if observations.support is None else observations.support[: len(W)]
    free = replace(observations, support=support, H_init=None, limits=Limits())
    H = solve_with(free, W.T, beta, tol=KNOWN_TOL).H.T.astype(np.float64)
    return H, residual(positive_part(observations.V.T), rows_or(observations.background, W.shape[1], 0.0), H, W)


def chosen_init(init: str | None, observations: Observations, n_components: int) -> str:
    """Return how unknown components start, which None leaves open."""
    most = min(observations.V.shape)
    if init is None:
        weights = observations.weights
        plain = (weights is None or np.ptp(weights) == 0.0) and not np.isnan(observations.V.sum())
        return "nndsvda" if plain and n_components <= most else "random"
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
    left: Any, n_components: int, init: str, random_state: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return components (n_components, n_bins) and activations (n_frames, n_components) to start from.

    Parameters
    ----------
    left : (n_frames, n_bins) array or sparse matrix
        What there is to explain, not negative; NaN means missing, and counts as the mean.
    n_components : int
        How many components to start.
    init : {"random", "nndsvd", "nndsvda", "nndsvdar"}
        Random numbers of the right size; or the nonnegative double singular value decomposition, with its zeros left,
        filled with the mean, or filled with small random numbers.
    random_state : int, RandomState instance or None
        The source of the random numbers.
    """
    from sklearn.utils import check_random_state  # here: scikit-learn is slow to import
    from sklearn.utils.extmath import randomized_svd

    rng = check_random_state(random_state)
    mean = mean_of(left)
    if init == "random" or not mean > 0.0:
        size = np.sqrt((mean or 1.0) / n_components)
        W = np.abs(size * rng.standard_normal((n_components, left.shape[1])))
        return W, np.abs(size * rng.standard_normal((left.shape[0], n_components)))
    # The fill and the threshold below are absolute numbers: bring the data to the size of one, whatever their units.
    scale = 4.0 ** np.floor(0.5 * np.log2(mean))
    mean = mean / scale
    left = left / scale if issparse(left) else np.where(np.isnan(left), mean, left / scale)
    U, s, V = randomized_svd(left, n_components, random_state=random_state)
    W, H = np.zeros((n_components, left.shape[1])), np.zeros((left.shape[0], n_components))
    for k in range(n_components):
        u, v = leading_signs(U[:, k], V[k]) if k else (np.abs(U[:, 0]), np.abs(V[0]))
        H[:, k], W[k] = np.sqrt(s[k]) * u, np.sqrt(s[k]) * v
    for Z in (H, W):
        Z[Z < 1e-6] = 0.0
        if init == "nndsvda":
            Z[Z == 0.0] = mean
        elif init == "nndsvdar":
            Z[Z == 0.0] = np.abs(mean * rng.standard_normal((Z == 0.0).sum()) / 100)
    return W * np.sqrt(scale), H * np.sqrt(scale)


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


def mean_of(X: Any) -> float:
    """Return the mean of what is not missing, 0 of nothing."""
    if issparse(X):
        return float(X.mean())
    observed = X.size - np.isnan(X).sum()
    return float(np.nansum(X) / observed) if observed else 0.0


def residual(X: Any, model: NDArray, H: NDArray[np.float64], W: NDArray[np.float64]) -> Any:
    """Return what ``model + H W`` leaves of X, at least a little of its mean; of a sparse matrix, at its entries."""
    if not issparse(X):
        return np.maximum(X - model - H @ W, LIFT * mean_of(X))
    left = X.astype(np.float64)
    for i in range(left.shape[0]):
        row = slice(left.indptr[i], left.indptr[i + 1])
        left.data[row] = np.maximum(left.data[row] - H[i] @ W[:, left.indices[row]], LIFT * left.data[row])
    return left


def leading_signs(u: NDArray, v: NDArray) -> tuple[NDArray, NDArray]:
    """Return the parts of two singular vectors with the signs that explain more, scaled to their share."""
    pairs = [(np.maximum(sign * u, 0.0), np.maximum(sign * v, 0.0)) for sign in (1.0, -1.0)]
    sizes = [(np.linalg.norm(a), np.linalg.norm(b)) for a, b in pairs]
    best = 0 if sizes[0][0] * sizes[0][1] > sizes[1][0] * sizes[1][1] else 1
    (a, b), (size_a, size_b) = pairs[best], sizes[best]
    if not size_a * size_b > 0.0:
        return a, b
    share = np.sqrt(size_a * size_b)
    return share * a / size_a, share * b / size_b


def without_zeros(Z: NDArray[np.float64], free: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return a start, a component a row, whose free zeros and missing entries have a little of the component's mean."""
    whole = np.nanmean(Z) if not np.isnan(Z).all() else 0.0
    means = np.nansum(Z, axis=1, keepdims=True) / np.maximum((~np.isnan(Z)).sum(axis=1, keepdims=True), 1)
    means = np.where(means > 0.0, means, whole if whole > 0.0 else 1.0)
    filled = np.where(np.isnan(Z), means, Z)
    return np.where(free & (filled == 0.0), LIFT * means, filled)
