"""The data that is timed: seeded, and made to resemble real data of its kind."""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

KULLBACK_LEIBLER = "kullback-leibler"
FROBENIUS = "frobenius"

SAMPLE_RATE = 22050  # Hz
N_KEYS = 88  # of a piano


class Case(NamedTuple):
    """A problem: V (n_bins, n_frames), W (n_bins, n_components), and the divergence."""

    name: str
    V: Any  # an array, or a sparse matrix
    W: np.ndarray
    beta_loss: str

    @property
    def shapes(self):
        """Describe the size of the problem."""
        n_bins, n_frames = self.V.shape
        return f"{n_bins} bins x {self.W.shape[1]} components x {n_frames} frames"

    def first_frames(self, n_frames):
        """Return the same problem with the first frames only."""
        return self._replace(V=self.V[:, :n_frames])

    def under(self, beta_loss, name=None):
        """Return the same data with another divergence."""
        return self._replace(beta_loss=beta_loss, name=name or self.name)


def harmonic_basis(n_bins, n_components, sr=SAMPLE_RATE):
    """Return a spectrum for each of n_components pitches: a peak for each stretched partial, columns sum to 1."""
    rng = np.random.default_rng(1)
    f = np.linspace(0, sr / 2, n_bins)[:, np.newaxis]
    W = np.full((n_bins, n_components), 1e-4) * np.exp(-f / 4000)
    for k, pitch in enumerate(27.5 * 2 ** (np.linspace(0, N_KEYS - 1, n_components) / 12)):
        number = np.arange(1, min(int(sr / 2 / pitch), 40) + 1)
        partials = pitch * number * np.sqrt(1 + 3e-4 * number**2)
        W[:, k] += np.exp(-0.5 * ((f - partials) / 12) ** 2 - 0.15 * number) @ rng.uniform(0.3, 1, len(number))
    return W / W.sum(axis=0)


def notes(n_components, n_frames, density=0.25):
    """Return activations of notes that begin at random and decay."""
    rng = np.random.default_rng(2)
    H = np.zeros((n_components, n_frames))
    for _ in range(int(density * n_frames * n_components / N_KEYS) + 1):
        k, start, length = rng.integers(n_components), rng.integers(n_frames), rng.integers(10, 60)
        decay = rng.uniform(5, 100) * np.exp(-np.arange(length) / 20)
        H[k, start : start + length] += decay[: n_frames - start]
    return H


def harmonic(n_bins, n_components, n_frames, beta_loss=KULLBACK_LEIBLER, name="harmonic"):
    """Return notes with multiplicative noise, over a floor of additive noise."""
    rng = np.random.default_rng(3)
    W = harmonic_basis(n_bins, n_components)
    V = W @ notes(n_components, n_frames)
    V = V * rng.gamma(20, 1 / 20, V.shape) + 0.002 * rng.rayleigh(size=V.shape)
    return Case(name, V, W, beta_loss)


def exemplars(n_bins, n_components, n_frames):
    """Return frames that mix two spectra each, and a dictionary of many spectra like them."""
    rng = np.random.default_rng(4)
    V = harmonic(n_bins, N_KEYS, n_components + n_frames).V
    V = V + 0.01 * rng.rayleigh(size=V.shape)
    W, X = V[:, :n_components], V[:, n_components:]
    X = X + 0.7 * W[:, rng.permutation(n_components)[:n_frames]]
    return Case("exemplars", X * rng.gamma(50, 1 / 50, X.shape), W / W.sum(axis=0), KULLBACK_LEIBLER)


def counts(n_channels, n_signatures, n_samples, beta_loss=KULLBACK_LEIBLER, name="counts"):
    """Return Poisson counts of a few sparse signatures for each sample, like mutations in genomes."""
    rng = np.random.default_rng(5)
    W = rng.dirichlet(np.full(n_channels, 0.15), n_signatures).T
    H = rng.gamma(0.3, 400, (n_signatures, n_samples)) * (rng.random((n_signatures, n_samples)) < 0.08)
    V = rng.poisson(W @ H + 1e-9).astype(float)
    return Case(name, V[:, V.sum(axis=0) > 0], W, beta_loss)


def mel_filters(n_mels=80, n_fft_bins=513, sr=SAMPLE_RATE):
    """Return triangular filters on the mel scale, (n_mels, bins that a filter reaches); rows sum to 1."""
    f = np.linspace(0, sr / 2, n_fft_bins)
    edges = 700 * np.expm1(np.linspace(0, np.log1p(sr / 2 / 700), n_mels + 2))[:, np.newaxis]
    low, center, high = edges[:-2], edges[1:-1], edges[2:]
    filters = np.maximum(0, np.minimum((f - low) / (center - low), (high - f) / (high - center)))
    filters /= np.maximum(filters.sum(axis=1, keepdims=True), 1e-9)
    return filters[:, filters.any(axis=0)]


def mel(n_frames):
    """Return mel spectra, to be inverted: the filters are the basis, with more atoms than bins."""
    W = mel_filters()
    power = harmonic(513, 40, n_frames).V[: W.shape[1]] ** 2
    return Case("mel filters", W @ power, W, KULLBACK_LEIBLER)


def sparse_atoms(n_frames):
    """Return mixtures without noise of 1000 sparse atoms in 500 bins, most of them active."""
    rng = np.random.default_rng(6)
    W = rng.random((500, 1000)) * (rng.random((500, 1000)) < 0.05)
    return Case("sparse atoms", W @ rng.gamma(0.3, 1, (1000, n_frames)), W, KULLBACK_LEIBLER)


def decay_curves(n_frames):
    """Return sums of two exponential decays, over a basis of 60 time constants with a condition number near 1e16."""
    rng = np.random.default_rng(7)
    echo = 10e-3 * np.arange(1, 33)[:, np.newaxis]  # seconds
    W = np.exp(-echo / np.geomspace(15e-3, 2.0, 60))
    V = 1000 * (rng.uniform(0.05, 0.2, n_frames) * np.exp(-echo / 0.02) + np.exp(-echo / 0.08))
    return Case("decay curves", V + rng.standard_normal(V.shape), W, FROBENIUS)


def gaussian_peaks(n_frames):
    """Return counts of a few Gaussian peaks a frame, over a basis with a peak at each of 400 bins."""
    rng = np.random.default_rng(8)
    bins = np.arange(400)
    W = np.exp(-0.5 * ((bins[:, np.newaxis] - bins) / 3.0) ** 2)
    H = rng.gamma(2, 50, (400, n_frames)) * (rng.random((400, n_frames)) < 0.015)
    return Case("Gaussian peaks", rng.poisson(W @ H + 2).astype(float), W, FROBENIUS)


def sparse_counts(n_samples, n_features, n_topics, mean):
    """Return the transpose of a CSR matrix (samples x features) of counts with that mean, and topics."""
    rng = np.random.default_rng(9)
    W = rng.gamma(0.3, 1, (n_features, n_topics))
    H = rng.gamma(0.3, mean / (0.3**2 * n_topics), (n_samples, n_topics))
    parts = np.array_split(H, max(n_samples // 100, 1))  # so that the dense matrix never exists
    X = scipy.sparse.vstack([scipy.sparse.csr_array(rng.poisson(part @ W.T).astype(float)) for part in parts])
    X = X.tocsr()
    return Case(f"counts, {X.nnz / np.prod(X.shape):.0%} filled", X.T, W, FROBENIUS)


def sizes(full, quick, is_quick):
    """Return the sizes of a full run, or of a quick one."""
    return quick if is_quick else full


def piano(quick=False, beta_loss=KULLBACK_LEIBLER):
    return harmonic(1025, 88, sizes(2584, 128, quick), beta_loss, "piano")


def drums(quick=False):
    return harmonic(513, 15, sizes(8000, 400, quick), name="drums")


def many_exemplars(quick=False):
    return exemplars(513, *sizes((2000, 600), (200, 40), quick))


def signatures(quick=False):
    return counts(96, 80, sizes(8000, 400, quick))


def signatures_under_frobenius(quick=False):
    return counts(96, 86, sizes(2000, 200, quick), FROBENIUS)


def unmixing(quick=False):
    """Return reflectance spectra that mix endmembers of broad bands, with abundances that sum to one."""
    rng = np.random.default_rng(10)
    n_pixels = sizes(4000, 100, quick)
    bands = np.linspace(0, 1, 200)[:, np.newaxis]
    centers, widths = rng.random((1, 12)), rng.uniform(0.05, 0.4, (1, 12))
    W = 0.1 + 0.8 * np.exp(-0.5 * ((bands - centers) / widths) ** 2) * rng.uniform(0.3, 1, 12)
    V = W @ rng.dirichlet(np.full(12, 0.3), n_pixels).T
    return Case("unmixing", V + 0.01 * rng.standard_normal(V.shape), W, FROBENIUS)


def main_cases(quick=False):
    """Return one case of each kind of data, with the two common divergences."""
    return [
        piano(quick),
        drums(quick),
        many_exemplars(quick),
        signatures(quick),
        piano(quick, FROBENIUS)._replace(name="frobenius"),
    ]
