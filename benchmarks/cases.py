"""The problems that are timed: seeded, and made the way that such data come about."""

from typing import NamedTuple

import numpy as np


class Case(NamedTuple):
    """A problem by name: V (n_bins, n_frames), W (n_bins, n_components), and the loss."""

    name: str
    V: np.ndarray
    W: np.ndarray
    beta_loss: str


def partials(n_bins, n_components, sr=22050):
    """A spectrum for each of n_components pitches over 88 keys: stretched partials, a peak each, columns sum to 1."""
    rng = np.random.default_rng(1)
    f = np.linspace(0, sr / 2, n_bins)[:, np.newaxis]
    W = np.full((n_bins, n_components), 1e-4) * np.exp(-f / 4000)
    for k, pitch in enumerate(27.5 * 2 ** (np.linspace(0, 87, n_components) / 12)):
        number = np.arange(1, min(int(sr / 2 / pitch), 40) + 1)
        at = pitch * number * np.sqrt(1 + 3e-4 * number**2)
        W[:, k] += np.exp(-0.5 * ((f - at) / 12) ** 2 - 0.15 * number) @ rng.uniform(0.3, 1, len(number))
    return W / W.sum(axis=0)


def notes(n_components, n_frames, density=0.25):
    """Activations of notes that begin at random and decay."""
    rng = np.random.default_rng(2)
    H = np.zeros((n_components, n_frames))
    for _ in range(int(density * n_frames * n_components / 88) + 1):
        k, start, length = rng.integers(n_components), rng.integers(n_frames), rng.integers(10, 60)
        decay = rng.uniform(5, 100) * np.exp(-np.arange(length) / 20)
        H[k, start : start + length] += decay[: n_frames - start]
    return H


def harmonic(n_bins, n_components, n_frames, beta_loss="kullback-leibler", name="harmonic"):
    """Notes with multiplicative noise over a floor of additive noise."""
    rng = np.random.default_rng(3)
    W = partials(n_bins, n_components)
    V = W @ notes(n_components, n_frames)
    V = V * rng.gamma(20, 1 / 20, V.shape) + 0.002 * rng.rayleigh(size=V.shape)
    return Case(name, V, W, beta_loss)


def exemplars(n_bins, n_components, n_frames):
    """Frames that mix two spectra each, over a dictionary of many spectra like them."""
    rng = np.random.default_rng(4)
    V = harmonic(n_bins, 88, n_components + n_frames).V + 0.01 * rng.rayleigh(size=(n_bins, n_components + n_frames))
    W, X = V[:, :n_components], V[:, n_components:]
    X = X + 0.7 * W[:, rng.permutation(n_components)[:n_frames]]
    return Case("exemplars", X * rng.gamma(50, 1 / 50, X.shape), W / W.sum(axis=0), "kullback-leibler")


def counts(n_channels, n_signatures, n_samples):
    """Poisson counts of a few sparse signatures a sample, as of mutations in genomes."""
    rng = np.random.default_rng(5)
    W = rng.dirichlet(np.full(n_channels, 0.15), n_signatures).T
    H = rng.gamma(0.3, 400, (n_signatures, n_samples)) * (rng.random((n_signatures, n_samples)) < 0.08)
    V = rng.poisson(W @ H + 1e-9).astype(float)
    return Case("counts", V[:, V.sum(axis=0) > 0], W, "kullback-leibler")


def all_cases(share=1.0):
    """Every case, at a share of its full number of frames."""
    return [
        harmonic(1025, 88, int(2584 * share), name="piano"),
        harmonic(513, 15, int(8000 * share), name="drums"),
        exemplars(513, max(int(2000 * share), 200), int(600 * share)),
        counts(96, 80, int(8000 * share)),
        harmonic(1025, 88, int(2584 * share), "frobenius", name="least squares"),
    ]
