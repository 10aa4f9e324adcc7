"""What one would use instead of knownmf: other packages as documented, and the best simple methods in NumPy or numba.

A peer takes V (n_bins, n_frames) and W (n_bins, n_components) and returns H (n_components, n_frames). Packages that are
slow to import, or not always there, are imported when they are used.
"""

import functools
import importlib.util
import math
import warnings
from functools import partial

import numpy as np
from scipy.optimize import nnls

from .cases import KULLBACK_LEIBLER

TINY = 1e-300  # keeps a division by zero finite

# Most iterations of SciPy's nnls for each component: its default of 3 is too few for nearly collinear atoms.
NNLS_ITERATIONS = 50
# Iterations of a peer that does not stop by itself.
DEFAULT_ITERATIONS, PATIENT_ITERATIONS, QUICK_ITERATIONS = 200, 2000, 500
# Most iterations of peers that watch their own gap, and how often they look at it.
MOST_ITERATIONS, LOOK_EVERY = 5000, 10


def peers_of(case, quick=False):
    """Return the general peers for the divergence of a case, by name."""
    if case.beta_loss == KULLBACK_LEIBLER:
        mu = partial(scikit_learn, beta_loss=1.0, solver="mu")
        patient = QUICK_ITERATIONS if quick else PATIENT_ITERATIONS
        peers = {
            "scikit-learn mu, defaults": partial(mu, max_iter=DEFAULT_ITERATIONS, tol=1e-4),
            f"scikit-learn mu, {patient}": partial(mu, max_iter=patient, tol=0.0),
        }
        if importlib.util.find_spec("torchnmf"):
            peers[f"torchnmf in float32, {DEFAULT_ITERATIONS}"] = partial(torch_nmf, max_iter=DEFAULT_ITERATIONS)
        return peers
    cd = partial(scikit_learn, beta_loss=2.0, solver="cd")
    return {
        "scikit-learn cd, defaults": partial(cd, max_iter=DEFAULT_ITERATIONS, tol=1e-4),
        "scikit-learn cd, tol 1e-8": partial(cd, max_iter=5000, tol=1e-8),
        "SciPy nnls, frame by frame": scipy_nnls,
        "librosa.util.nnls": librosa_nnls,
    }


def scikit_learn(V, W, beta_loss, solver, max_iter, tol):
    from sklearn.decomposition import non_negative_factorization

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # how far it is from convergence is measured here
        return non_negative_factorization(
            np.ascontiguousarray(V.T), H=np.ascontiguousarray(W.T), n_components=W.shape[1], init="custom",
            update_H=False, solver=solver, beta_loss=beta_loss, max_iter=max_iter, tol=tol,
        )[0].T  # fmt: skip


def scipy_nnls(V, W):
    return np.stack([nnls(W, v, maxiter=NNLS_ITERATIONS * W.shape[1])[0] for v in V.T], axis=1)


def librosa_nnls(V, W):
    import librosa

    return librosa.util.nnls(W, V)


def torch_nmf(V, W, max_iter):
    """Run torchnmf in single precision, as it keeps its factors, and without a tolerance, which rounding would meet."""
    import torch
    from torchnmf.nmf import NMF

    V, W = torch.as_tensor(V.T.copy(), dtype=torch.float32), torch.as_tensor(W.copy(), dtype=torch.float32)
    start = torch.rand(len(V), W.shape[1], generator=torch.Generator().manual_seed(0))
    model = NMF(W=W, H=start, trainable_W=False)
    model.fit(V, beta=1, max_iter=max_iter, tol=-math.inf)
    return model.H.detach().numpy().T


# --- Kullback-Leibler -------------------------------------------------------------------------------------------------


def multiplicative(V, W, tol):
    """Run multiplicative updates until their own gap is at most ``tol``."""
    sizes = W.sum(axis=0)[:, np.newaxis]
    H = np.ones((W.shape[1], 1)) * V.sum(axis=0) / W.sum()
    for n in range(MOST_ITERATIONS):
        ratio = W.T @ (V / np.maximum(W @ H, TINY)) / sizes
        # Each update leaves sum(W H) = sum(V) for every frame, so that the gap needs no scaling.
        if n % LOOK_EVERY == 0 and np.log(ratio.max()) <= tol:
            break
        H = H * ratio
    return H


# Coordinate Newton starts like others of its kind after a few multiplicative updates.
STARTING_UPDATES = 4
# The smallest model and activation of coordinate Newton, which divides by them.
FLOOR = 1e-15


def coordinate_newton(V, W, n_sweeps):
    """Run Newton's method on one activation at a time, as in fastTopics and NNLM: so many sweeps for each frame."""
    H = np.ascontiguousarray(starting_updates(V, W).T)
    coordinate_newton_kernel()(*rows_of(V, W), H, np.broadcast_to(n_sweeps, len(H)), np.zeros(0))
    return H.T


def sweeps_needed(V, W, targets, most):
    """Return how many sweeps of coordinate Newton bring each frame to each gap; ``most`` where they do not suffice.

    Parameters
    ----------
    targets : sequence of float
        Gaps, decreasing.

    Returns
    -------
    (n_targets, n_frames) int, (n_targets, n_frames) bool
        The number of sweeps, and whether the gap was reached.
    """
    H = np.ascontiguousarray(starting_updates(V, W).T)
    reached = coordinate_newton_kernel()(*rows_of(V, W), H, np.full(len(H), most), np.array(targets)).T
    return np.where(reached < 0, most, reached), reached >= 0


def starting_updates(V, W):
    """Return activations after a few multiplicative updates from a constant."""
    sizes = W.sum(axis=0)[:, np.newaxis]
    H = np.ones((W.shape[1], 1)) * V.sum(axis=0) / W.sum()
    for _ in range(STARTING_UPDATES):
        H *= W.T @ (V / np.maximum(W @ H, TINY)) / sizes
    return H


def rows_of(V, W):
    """Return frames and atoms as rows."""
    return np.ascontiguousarray(V.T), np.ascontiguousarray(W.T)


@functools.cache
def coordinate_newton_kernel():
    """Return the compiled loop over frames, sweeps and activations.

    It writes H, and returns after how many sweeps each frame reached each target, -1 if it did not. Without targets, it
    does not look at the gap. Bins without data enter by the sums of the atoms alone.
    """
    import numba

    compiled = numba.njit(fastmath=True, error_model="numpy")

    @compiled
    def gap_of(x, v, atoms, sizes, h):
        total, explained, steepest = 0.0, 0.0, 0.0
        ratio = x / v
        for k in range(len(atoms)):
            explained += sizes[k] * h[k]
            pull = 0.0
            for f in range(len(x)):
                pull += atoms[k, f] * ratio[f]
            steepest = max(steepest, pull / sizes[k])
        for f in range(len(x)):
            total += x[f]
        return np.log(steepest * explained / total)

    @compiled
    def sweep(x, v, inverse, atoms, sizes, h):
        for k in range(len(atoms)):
            slope, curvature = -sizes[k], 0.0
            for f in range(len(x)):
                pull = atoms[k, f] * inverse[f]
                slope += pull * x[f]
                curvature += pull * pull * x[f]
            new = max(h[k] + slope / curvature, FLOOR) if curvature > 0.0 else h[k]
            change = new - h[k]
            if change != 0.0:
                h[k] = new
                for f in range(len(x)):
                    v[f] = max(v[f] + change * atoms[k, f], FLOOR)
                    inverse[f] = 1.0 / v[f]

    @compiled
    def solve(X, atoms, H, n_sweeps, targets):
        reached = np.full((len(X), len(targets)), -1)
        sizes = atoms.sum(axis=1)
        for i in range(len(X)):
            h, bins = H[i], np.flatnonzero(X[i])
            if len(bins) == 0:
                h[:] = 0.0
                reached[i] = 0
                continue
            x = X[i][bins]
            seen = atoms if len(bins) == X.shape[1] else np.ascontiguousarray(atoms[:, bins])
            v = np.full(len(x), FLOOR)
            for k in range(len(seen)):
                v += h[k] * seen[k]
            inverse, done = 1.0 / v, 0
            for n in range(n_sweeps[i] + 1):
                if len(targets) > 0:
                    gap = gap_of(x, v, seen, sizes, h)
                    while done < len(targets) and gap <= targets[done]:
                        reached[i, done] = n
                        done += 1
                    if done == len(targets):
                        break
                if n < n_sweeps[i]:
                    sweep(x, v, inverse, seen, sizes, h)
        return reached

    return solve


# --- least squares ----------------------------------------------------------------------------------------------------


def accelerated_gradient(V, W, tol):
    """Run Nesterov's projected gradient on the normal equations until its own gap is at most ``tol``."""
    gram, pull, energy = W.T @ W, W.T @ V, np.einsum("ft,ft->t", V, V)
    step = 1.0 / np.linalg.norm(gram, 2)
    pull_squared = (pull**2).sum(axis=0)
    H = ahead = pull * (pull_squared / np.maximum((pull * (gram @ pull)).sum(axis=0), TINY))  # the best multiple
    momentum = 1.0
    for n in range(MOST_ITERATIONS):
        if n % LOOK_EVERY == 0 and gap_from_products(gram, pull, energy, H).max() <= tol:
            break
        new = np.maximum(ahead + step * (pull - gram @ ahead), 0.0)
        next_momentum = 0.5 * (1.0 + math.sqrt(1.0 + 4.0 * momentum**2))
        ahead = new + (momentum - 1.0) / next_momentum * (new - H)
        H, momentum = new, next_momentum
    return H


def gap_from_products(gram, pull, energy, H):
    """Return the relative gap of each frame from W'W, W'V and the energies."""
    residual = pull - gram @ H
    shift = np.maximum((residual / np.maximum(pull, TINY)).max(axis=0), 0.0)
    gap = shift * (H * pull).sum(axis=0) - (H * residual).sum(axis=0)
    return gap / np.maximum(energy, TINY) + 0.5 * shift**2


def product_and_descent(V, W, n_sweeps):
    """Take one product with the data, then coordinate descent over the components, all frames at a time."""
    gram, slope = W.T @ W, -np.ascontiguousarray((V.T @ W).T)
    H = np.zeros_like(slope)
    for _ in range(n_sweeps):
        for k in range(len(gram)):
            change = np.maximum(H[k] - slope[k] / gram[k, k], 0.0) - H[k]
            H[k] += change
            slope += gram[:, [k]] * change
    return H


# Kim and Park's rule: so many exchanges of all infeasible components may fail to lower their number; then one component
# is exchanged at a time.
FULL_EXCHANGES = 3
# Components below this share of the frame's largest value count as feasible.
ROUNDING = 1e-12
MOST_EXCHANGES = 1000


def block_pivoting(V, W):
    """Solve exactly by block principal pivoting, where frames with the same passive set share one factorization.

    It begins with all components, and so needs a Gram matrix that is far from singular.

    J. Kim and H. Park, "Fast nonnegative matrix factorization: an active-set-like method and comparisons", SIAM Journal
    on Scientific Computing 33(6), 2011.
    """
    gram, pull = W.T @ W, np.ascontiguousarray(V.T) @ W  # a frame a row
    n_frames, n_components = pull.shape
    H, slope, passive = np.zeros_like(pull), -pull, np.zeros(pull.shape, bool)
    fewest, full_exchanges = np.full(n_frames, n_components + 1), np.full(n_frames, FULL_EXCHANGES)
    lowest_slope = -ROUNDING * np.abs(pull).max(axis=1, keepdims=True)
    for _ in range(MOST_EXCHANGES):
        lowest = -ROUNDING * np.abs(H).max(axis=1, keepdims=True)
        infeasible = np.where(passive, lowest > H, lowest_slope > slope)
        frames = np.flatnonzero(infeasible.any(axis=1))
        if not len(frames):
            break
        passive[frames] ^= exchanged(infeasible[frames], frames, fewest, full_exchanges)
        H[frames] = solve_in_groups(gram, pull[frames], passive[frames])
        slope[frames] = H[frames] @ gram - pull[frames]
    return np.maximum(H, 0.0).T


def exchanged(infeasible, frames, fewest, full_exchanges):
    """Return which components change sides; updates ``fewest`` and ``full_exchanges`` of these frames."""
    n_infeasible = infeasible.sum(axis=1)
    better = n_infeasible < fewest[frames]
    single = ~better & (full_exchanges[frames] == 0)
    full_exchanges[frames] = np.where(better, FULL_EXCHANGES, np.maximum(full_exchanges[frames] - 1, 0))
    fewest[frames] = np.minimum(fewest[frames], n_infeasible)
    last = infeasible.shape[1] - 1 - np.argmax(infeasible[:, ::-1], axis=1)
    alone = np.arange(infeasible.shape[1]) == last[:, np.newaxis]
    return np.where(single[:, np.newaxis], alone, infeasible)


def solve_in_groups(gram, pull, passive):
    """Solve the normal equations over the passive components of each frame; the others are zero."""
    _, groups = np.unique(np.packbits(passive, axis=1), axis=0, return_inverse=True)
    order = np.argsort(groups, kind="stable")
    return grouped_solve_kernel()(gram, pull, passive, order, groups[order])


@functools.cache
def grouped_solve_kernel():
    """Return the compiled loop over groups of frames: one Cholesky factorization each."""
    import numba

    compiled = numba.njit(fastmath=True, error_model="numpy")

    @compiled
    def factorize(gram, chosen, L):
        for i in range(len(chosen)):
            for j in range(i + 1):
                value = gram[chosen[i], chosen[j]]
                for k in range(j):
                    value -= L[i, k] * L[j, k]
                L[i, j] = value / L[j, j] if j < i else np.sqrt(max(value, 1e-16 * gram[chosen[i], chosen[i]]))

    @compiled
    def substitute(L, n, x):
        for i in range(n):
            value = x[i]
            for k in range(i):
                value -= L[i, k] * x[k]
            x[i] = value / L[i, i]
        for i in range(n - 1, -1, -1):
            x[i] /= L[i, i]
            for k in range(i):
                x[k] -= L[i, k] * x[i]

    @compiled
    def solve(gram, pull, passive, order, groups):
        H, L, x = np.zeros_like(pull), np.zeros_like(gram), np.zeros(len(gram))
        for position in range(len(order)):
            frame = order[position]
            chosen = np.flatnonzero(passive[frame])
            if position == 0 or groups[position] != groups[position - 1]:
                factorize(gram, chosen, L)
            for i in range(len(chosen)):
                x[i] = pull[frame, chosen[i]]
            substitute(L, len(chosen), x)
            for i in range(len(chosen)):
                H[frame, chosen[i]] = x[i]
        return H

    return solve
