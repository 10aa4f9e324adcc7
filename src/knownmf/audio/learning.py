"""Dictionaries learnt from isolated sounds."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
from scipy.fft import next_fast_len
from scipy.special import kl_div
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from knownmf.audio.decomposition import Progress
from knownmf.audio.recordings import as_channels, check_rate, resampled
from knownmf.audio.spectrograms import spectrogram
from knownmf.dictionary import Dictionary
from knownmf.learning import Loss, fit_basis, known_basis
from knownmf.observations import Observations
from knownmf.validation import whole_number

__all__ = ["learn", "window_length"]

# docs/sounds.md holds the measurements behind these.
WINDOW_SECONDS = 0.0928
HOPS_PER_WINDOW = 4
NUMBERS = (8, 16, 32)  # of components that are tried
UNEXPLAINED = 0.05  # the share of a sound's magnitude that they may leave

# Frames this far below a take's loudest are its silence: 60 dB.
SILENCE = 1e-3

# From the clusters' spectra NMF has little left to do; more rounds split sounds into parts that fit other sounds too.
# Ten with momentum go as far as the 30 plain ones of docs/sounds.md.
ROUNDS = 10


def learn(
    sounds: Mapping[str, Iterable[tuple[npt.ArrayLike, int]]],
    *,
    n_components: int | None = None,
    pooled: bool = True,
    sr: int | None = None,
    n_fft: int | None = None,
    hop_length: int | None = None,
    window: str = "hann",
    power: float = 1.0,
    progress: Progress | None = None,
) -> Dictionary:
    """Learn a dictionary from isolated sounds.

    Each take is scaled to the same loudest frame, and frames of silence are left out. The frames of a label are
    clustered by the shape of their spectra (k-means of square roots, so of Hellinger distances), which gives each state
    of the sound, such as attack and decay, a component; a few rounds of nonnegative matrix factorization under the
    Kullback-Leibler divergence refine them. The result does not depend on chance.

    Parameters
    ----------
    sounds : mapping of str to list of (y, sr)
        For each label its takes: samples of shape (n_samples,) or (n_channels, n_samples), and their sample rate in Hz.
    n_components : int, optional
        Components per label where `pooled`, else per take; fewer where there are fewer frames. By default the first of
        8, 16 and 32 that explains the takes to within 5 %, or 32: the Kullback-Leibler divergence between their
        spectrograms V and the model is at most ``0.05 * V.sum()``.
    pooled : bool, default=True
        Learn from all takes of a label together; if False, from each take apart.
    sr : int, optional
        Sample rate of the dictionary in Hz. By default the lowest among the takes, as every take then fills the whole
        band. Takes of another rate are resampled.
    n_fft : int, optional
        Length of the window in samples. By default some 93 ms: 2048 at 22050 Hz, 4096 at 44100 Hz.
    hop_length : int, optional
        Samples from frame to frame. By default a quarter of `n_fft`.
    window : str, default="hann"
        Name of the window, as :func:`scipy.signal.get_window` knows it.
    power : float, default=1.0
        1 for magnitude spectra, 2 for power spectra.
    progress : callable, optional
        Called as ``progress(done, total)``, in labels where `pooled`, else in takes.

    Returns
    -------
    Dictionary
        Components in the order of the labels; the entries of each sum to 1, so that an activation is the total
        magnitude that its component contributes to a frame.

    Raises
    ------
    ValueError
        If there are no sounds, a label has no takes, a take is no pair (y, sr), empty, silent or not finite, or a
        setting is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> from knownmf.audio import learn
    >>> seconds = np.arange(8000) / 8000
    >>> low, high = np.sin(2 * np.pi * 220 * seconds), np.sin(2 * np.pi * 880 * seconds)
    >>> learn({"low": [(low, 8000)], "high": [(high, 8000)]}, n_components=1)
    Dictionary(2 components of 2 sounds: low, high; sr=8000, n_fft=750, hop_length=187, window='hann', power=1.0)
    """
    for name, value in (("n_components", n_components), ("sr", sr), ("n_fft", n_fft), ("hop_length", hop_length)):
        if value is not None:
            whole_number(value, name)
    takes = _checked_takes(sounds)
    if sr is None:
        sr = min(rate for of_label in takes.values() for _, rate in of_label)
    if n_fft is None:
        n_fft = window_length(sr)
    if hop_length is None:
        hop_length = max(1, n_fft // HOPS_PER_WINDOW)
    # Settings are checked here, once, by the class that they are for.
    settings = Dictionary(
        np.ones((n_fft // 2 + 1, 1)), ["any"], sr=sr, n_fft=n_fft, hop_length=hop_length, window=window, power=power
    )
    spectrograms = {
        label: [_sounding(y, rate, settings, f"take {i + 1} of {label!r}") for i, (y, rate) in enumerate(of_label)]
        for label, of_label in takes.items()
    }
    portions = [
        (label, portion)
        for label, of_label in spectrograms.items()
        for portion in ([np.concatenate(of_label, axis=1)] if pooled else of_label)
    ]
    parts, labels = [], []
    # One thread: the same sums in the same order on every machine, and for matrices this small no slower.
    with threadpool_limits(1):
        for done, (label, V) in enumerate(portions):
            if progress is not None:
                progress(done, len(portions))
            parts.append(_enough_components(V) if n_components is None else _components(V, n_components)[0])
            labels += [label] * parts[-1].shape[1]
    if progress is not None:
        progress(len(portions), len(portions))
    return Dictionary(
        np.concatenate(parts, axis=1), labels, sr=sr, n_fft=n_fft, hop_length=hop_length, window=window, power=power
    )


def window_length(sr: int) -> int:
    """The default `n_fft` at a sample rate: even, some 93 ms, and quick to transform."""
    return 2 * int(next_fast_len(max(1, math.ceil(WINDOW_SECONDS / 2 * sr)), real=True))


def _checked_takes(
    sounds: Mapping[str, Iterable[tuple[npt.ArrayLike, int]]],
) -> dict[str, list[tuple[np.ndarray, int]]]:
    takes: dict[str, list[tuple[np.ndarray, int]]] = {}
    for label, of_label in sounds.items():
        takes[label] = []
        for take in of_label:
            try:
                takes[label].append(_checked_take(take))
            except ValueError as error:
                raise ValueError(f"take {len(takes[label]) + 1} of {label!r}: {error}") from error
        if not takes[label]:
            raise ValueError(f"{label!r} has no takes: give at least one recording of each sound.")
    if not takes:
        raise ValueError("There are no sounds to learn from: give at least one recording.")
    return takes


def _sounding(y: np.ndarray, sr: int, settings: Dictionary, name: str) -> np.ndarray:
    """The frames of a take that are not silence, scaled so that takes of any level count alike."""
    y = resampled(y, sr, settings.sr)
    V = spectrogram(y, settings)
    # Where a take is cut off, the cut clicks; only takes shorter than a window have nothing else.
    V = V[:, : max(1, 1 + (y.shape[1] - settings.n_fft // 2) // settings.hop_length)]
    loudness = V.sum(axis=0)
    loudest = loudness.max()
    if loudest == 0:
        raise ValueError(f"{name} is silent: there is nothing to learn from it.")
    return V[:, loudness > SILENCE**settings.power * loudest] / loudest


def _checked_take(take: object) -> tuple[np.ndarray, int]:
    if not isinstance(take, tuple | list) or len(take) != 2:
        raise ValueError(
            f"a pair (y, sr) is needed, not a thing of type {type(take).__name__}: "
            'give a list of pairs for each label, as in {"kick": [(y, sr)]}.'
        )
    y, sr = take
    check_rate(sr)
    return as_channels(y), sr


def _enough_components(V: np.ndarray) -> np.ndarray:
    """As few spectra as explain V, each summing to 1."""
    for n_components in NUMBERS:
        spectra, unexplained = _components(V, n_components)
        if unexplained <= UNEXPLAINED or spectra.shape[1] < n_components:
            break
    return spectra


def _components(V: np.ndarray, n_components: int) -> tuple[np.ndarray, float]:
    """Spectra of shape (n_bins, n_components) that add up to those of V, each summing to 1.

    Beside them the share of V that they leave unexplained: their divergence from V over the sum of V.
    """
    loudness = V.sum(axis=0)
    shapes = np.sqrt(V / loudness).T
    n_components = min(n_components, len(np.unique(shapes, axis=0)))
    if n_components == 1:
        spectrum = V.sum(axis=1, keepdims=True) / V.sum()
        return spectrum, float(kl_div(V, spectrum * loudness).sum() / V.sum())
    states = KMeans(n_components, n_init=10, random_state=0).fit_predict(shapes, sample_weight=loudness)
    membership = states[:, np.newaxis] == np.arange(n_components)
    spectra = V @ membership
    spectra /= spectra.sum(axis=0)
    # Multiplicative updates cannot leave zero: every frame may use every component, every component every bin.
    start = (0.9 * membership + 0.1 / n_components) * loudness[:, np.newaxis]
    spectra += 1e-9
    known = known_basis(spectra.T, frozen=False)
    learned = fit_basis(Observations(V, H_init=start.T), known, Loss(beta=1.0), tol=0.0, max_iter=ROUNDS)
    spectra = learned.W.T
    return spectra / spectra.sum(axis=0), learned.history[-1] / float(V.sum())
