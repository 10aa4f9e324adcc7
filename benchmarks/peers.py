"""What one would use instead, called as its documentation says, and a judge that belongs to none of them."""

import importlib.util
import math
import warnings
from functools import partial

import librosa
import numpy as np
from scipy.optimize import nnls
from sklearn.decomposition import non_negative_factorization

KULLBACK_LEIBLER = "kullback-leibler"


def scikit_learn(V, W, beta_loss, solver, max_iter, tol):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it did not converge is what is measured here
        return non_negative_factorization(
            np.ascontiguousarray(V.T), H=np.ascontiguousarray(W.T), n_components=W.shape[1], init="custom",
            update_H=False, solver=solver, beta_loss=beta_loss, max_iter=max_iter, tol=tol,
        )[0].T  # fmt: skip


def scipy_nnls(V, W):
    return np.stack([nnls(W, v)[0] for v in V.T], axis=1)


def torch_nmf(V, W, max_iter):
    """Single precision, which torchnmf keeps its factors in; no tolerance of its own, which rounding would meet."""
    import torch
    from torchnmf.nmf import NMF

    V, W = torch.as_tensor(V.T.copy(), dtype=torch.float32), torch.as_tensor(W.copy(), dtype=torch.float32)
    start = torch.rand(len(V), W.shape[1], generator=torch.Generator().manual_seed(0))
    model = NMF(W=W, H=start, trainable_W=False)
    model.fit(V, beta=1, max_iter=max_iter, tol=-math.inf)
    return model.H.detach().numpy().T


def peers_of(beta_loss, long):
    """The peers for a loss by name; ``long`` is the number of iterations of a patient user."""
    if beta_loss != KULLBACK_LEIBLER:
        return {
            "scikit-learn cd, defaults": partial(scikit_learn, beta_loss=2.0, solver="cd", max_iter=200, tol=1e-4),
            "scikit-learn cd, tol 1e-8": partial(scikit_learn, beta_loss=2.0, solver="cd", max_iter=5000, tol=1e-8),
            "SciPy nnls, frame by frame": scipy_nnls,
            "librosa.util.nnls": lambda V, W: librosa.util.nnls(W, V),
        }
    peers = {
        "scikit-learn mu, defaults": partial(scikit_learn, beta_loss=1.0, solver="mu", max_iter=200, tol=1e-4),
        f"scikit-learn mu, {long}": partial(scikit_learn, beta_loss=1.0, solver="mu", max_iter=long, tol=0.0),
    }
    if importlib.util.find_spec("torchnmf"):
        importlib.import_module("torchnmf.nmf")  # takes seconds, which are not its fault
        peers["torchnmf in float32, 200"] = partial(torch_nmf, max_iter=200)
    return peers


def worst_gap(V, W, H, beta_loss):
    """The relative duality gap of the worst frame, from plain NumPy: no penalty, no weights."""
    H = np.asarray(H, dtype=float)
    if beta_loss == KULLBACK_LEIBLER:
        size = W.sum(axis=0)[:, np.newaxis]
        H = H * (V.sum(axis=0) / np.maximum((size * H).sum(axis=0), 1e-300))
        gap = np.log(np.max(W.T @ (V / np.maximum(W @ H, 1e-300)) / size, axis=0))
    else:
        pull, residual = W.T @ V, W.T @ (V - W @ H)
        shift = np.maximum(np.max(residual / np.maximum(pull, 1e-300), axis=0), 0.0)
        energy = (V**2).sum(axis=0)
        gap = (-(H * residual).sum(axis=0) + shift * (H * pull).sum(axis=0)) / energy + 0.5 * shift**2
    return float(max(np.where(V.sum(axis=0) > 0, gap, 0.0).max(), 1e-12))
