"""The judge: how far an answer is from the optimum, in plain NumPy, apart from every package that is timed."""

import numpy as np
from scipy.sparse import issparse

from .cases import KULLBACK_LEIBLER

TINY = 1e-300  # keeps a division by zero finite
FRAMES_AT_A_TIME = 512  # bounds the memory


def worst_gap(case, H):
    """Return the relative duality gap of the worst frame, as computed: rounding can make it slightly negative."""
    gap_of = kullback_leibler_gap if case.beta_loss == KULLBACK_LEIBLER else frobenius_gap
    n_frames = case.V.shape[1]
    blocks = [slice(first, first + FRAMES_AT_A_TIME) for first in range(0, n_frames, FRAMES_AT_A_TIME)]
    H = np.asarray(H, dtype=float)
    return float(max(gap_of(dense(case.V[:, block]), case.W, H[:, block]).max() for block in blocks))


def kullback_leibler_gap(V, W, H):
    """Return the gap of each frame relative to its sum, after scaling H so that the sums of V and W H agree."""
    total, sizes = V.sum(axis=0), W.sum(axis=0)[:, np.newaxis]
    H = H * (total / np.maximum((sizes * H).sum(axis=0), TINY))
    gap = np.log(np.max(W.T @ (V / np.maximum(W @ H, TINY)) / sizes, axis=0))
    return np.where(total > 0, gap, 0.0)


def frobenius_gap(V, W, H):
    """Return the gap of each frame relative to its energy."""
    pull, residual, energy = W.T @ V, W.T @ (V - W @ H), (V**2).sum(axis=0)
    shift = np.maximum(np.max(residual / np.maximum(pull, TINY), axis=0), 0.0)
    gap = shift * (H * pull).sum(axis=0) - (H * residual).sum(axis=0)
    return np.where(energy > 0, gap / np.maximum(energy, TINY) + 0.5 * shift**2, 0.0)


def dense(V):
    """Return an array in double precision."""
    return np.asarray(V.toarray() if issparse(V) else V, dtype=float)
