"""Learn dictionaries from isolated sounds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
from scipy.fft import next_fast_len
from scipy.special import kl_div

from knownmf.audio.samples import HIGHEST_RATE, Samples, as_channels, check_rate, resampled_length
from knownmf.audio.spectrograms import expected_frames, spectrogram_of
from knownmf.dictionary import Dictionary
from knownmf.learning import Loss, fit_basis, known_basis
from knownmf.memory import check_memory
from knownmf.observations import Observations
from knownmf.solver import Progress
from knownmf.threads import single_threaded_blas
from knownmf.validation import whole_number

__all__ = ["learn", "window_length"]

# docs/sounds.md describes the measurements behind these values.
WINDOW_SECONDS = 0.0928
HOPS_PER_WINDOW = 4
NUMBERS = (8, 16, 32)  # numbers of components to try
UNEXPLAINED = 0.05  # largest share of a sound that the components may leave unexplained

# Frames that are quieter than the loudest frame of a take by this factor (60 dB) count as silence.
SILENCE = 1e-3

# Passes of NMF after clustering. The spectra of the clusters are a good start; more passes split sounds into parts that
# also fit other sounds. Ten passes with momentum reach the result of the 30 passes without it in docs/sounds.md.
PASSES = 10


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

    The method has four steps:

    1. Each take is scaled so that its loudest frame has a sum of 1, and silent frames are removed.
    2. The frames of a label are clustered by the shape of their spectra: k-means of the square roots, which corresponds
       to Hellinger distances. Each cluster is a state of the sound, such as its attack or its decay.
    3. The spectra of the clusters are the first components.
    4. A few passes of nonnegative matrix factorization with the Kullback-Leibler divergence refine the components.

    The result is deterministic.

    Parameters
    ----------
    sounds : mapping of str to list of (y, sr)
        The takes of each label: samples of shape (n_samples,) or (n_channels, n_samples), and their sample rate in Hz.
    n_components : int, optional
        Number of components per label if `pooled`, else per take; fewer if there are fewer distinct frames. By default
        the smallest of 8, 16 and 32 for which the Kullback-Leibler divergence between the spectrograms V of the takes
        and the model is at most ``0.05 * V.sum()``; if there is none, 32.
    pooled : bool, default=True
        Learn from all takes of a label together. If False, learn from each take separately.
    sr : int, optional
        Sample rate of the dictionary in Hz. By default the lowest sample rate of the takes, so that every take has
        information about all bins. Takes with another sample rate are resampled.
    n_fft : int, optional
        Length of the window in samples. By default about 93 ms: 2048 at 22050 Hz, 4096 at 44100 Hz.
    hop_length : int, optional
        Number of samples from one frame to the next. By default a quarter of `n_fft`.
    window : str, default="hann"
        Name of the window, as in :func:`scipy.signal.get_window`.
    power : float, default=1.0
        1 for magnitude spectra, 2 for power spectra.
    progress : callable, optional
        Called as ``progress(done, total)``: in labels if `pooled`, else in takes.

    Returns
    -------
    Dictionary
        Components in the order of the labels. The entries of each component sum to 1, so that an activation is the
        total that the component adds to a frame.

    Raises
    ------
    ValueError
        If there are no sounds, if a label has no takes, if a take is not a pair (y, sr), is empty or silent or has
        samples that are not finite, or if a setting is out of its range.
    MemoryError
        If a take or a window needs more memory than there is.

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
    if sr > HIGHEST_RATE:
        raise ValueError(f"the sample rate is {sr} Hz, expected at most {HIGHEST_RATE} Hz: pass a lower sr.")
    # The constructor of Dictionary checks the settings, before any work. It copies and checks the array.
    check_memory(3 * 8 * n_fft, f"a window of {n_fft} samples", "choose a smaller n_fft")
    settings = Dictionary(
        np.ones((n_fft // 2 + 1, 1)), ["any"], sr=sr, n_fft=n_fft, hop_length=hop_length, window=window, power=power
    )
    spectrograms = {
        label: [_loud_frames(y, rate, settings, f"take {i + 1} of {label!r}") for i, (y, rate) in enumerate(of_label)]
        for label, of_label in takes.items()
    }
    portions = [
        (label, portion)
        for label, of_label in spectrograms.items()
        for portion in ([np.concatenate(of_label, axis=1)] if pooled else of_label)
    ]
    import sklearn.cluster  # noqa: F401 - here: it is slow to import; before the limit, which is for what is loaded

    parts, labels = [], []
    # With one thread, sums are computed in the same order on every machine. For matrices of this size it is as fast.
    with single_threaded_blas():
        for done, (label, V) in enumerate(portions):
            if progress is not None:
                progress(done, len(portions))
            parts.append(_enough_components(V) if n_components is None else _components(V, n_components)[0])
            labels += [label] * parts[-1].shape[1]
    if progress is not None:
        progress(len(portions), len(portions))
    return Dictionary(np.concatenate(parts, axis=1), labels, **settings.settings)


def window_length(sr: int) -> int:
    """Return the default `n_fft` at a sample rate: about 93 ms, even, and a fast length for FFTs."""
    return 2 * int(next_fast_len(max(1, math.ceil(WINDOW_SECONDS / 2 * sr)), real=True))


def _checked_takes(
    sounds: Mapping[str, Iterable[tuple[npt.ArrayLike, int]]],
) -> dict[str, list[tuple[np.ndarray, int]]]:
    """Return the takes of each label with samples of shape (n_channels, n_samples); raise if one is invalid."""
    if not isinstance(sounds, Mapping):
        raise TypeError(
            f"sounds is of type {type(sounds).__name__}, expected a dict with a list of pairs for each label, such as "
            '{"kick": [(y, sr)]}: read files with knownmf.audio.read.'
        )
    takes: dict[str, list[tuple[np.ndarray, int]]] = {}
    for label, of_label in sounds.items():
        takes[label] = []
        for take in of_label:
            try:
                takes[label].append(_checked_take(take))
            except ValueError as error:
                raise ValueError(f"take {len(takes[label]) + 1} of {label!r}: {error}") from error
        if not takes[label]:
            raise ValueError(f"{label!r} has no takes: pass at least one recording of each sound.")
    if not takes:
        raise ValueError("There are no sounds to learn from: pass at least one recording.")
    return takes


def _loud_frames(y: np.ndarray, sr: int, settings: Dictionary, name: str) -> np.ndarray:
    """Return the frames of a take that are not silent, scaled so that the sum of the loudest is 1."""
    n_samples = resampled_length(y.shape[1], sr, settings.sr)
    # The spectrogram is joined from blocks, then its loud frames are copied.
    needed = 3 * 8 * settings.n_bins * expected_frames(y.shape[1], sr, settings)
    check_memory(needed, f"learning from {name}", "use shorter recordings, or a lower sample rate")
    V = spectrogram_of(Samples(y, sr), settings)
    # Leave out the frames that overlap the end: if a take is cut off there, they contain a click. Takes shorter than a
    # window have no other frames.
    V = V[:, : max(1, 1 + (n_samples - settings.n_fft // 2) // settings.hop_length)]
    loudness = V.sum(axis=0)
    loudest = loudness.max()
    if loudest == 0:
        raise ValueError(f"{name} is silent: there is nothing to learn from it.")
    return V[:, loudness > SILENCE**settings.power * loudest] / loudest


def _checked_take(take: object) -> tuple[np.ndarray, int]:
    """Return samples of shape (n_channels, n_samples) and their sample rate; raise if the take is invalid."""
    if not isinstance(take, tuple | list) or len(take) != 2:
        raise ValueError(
            f"expected a pair (y, sr), got {type(take).__name__}: pass a list of pairs for each label, such as "
            '{"kick": [(y, sr)]}, where knownmf.audio.read("kick.wav") returns a pair.'
        )
    y, sr = take
    channels = as_channels(y)  # first, because its message says more if y and sr are in the wrong order
    check_rate(sr)
    return channels, sr


def _enough_components(V: np.ndarray) -> np.ndarray:
    """Return spectra for V with the smallest number of components in `NUMBERS` that explains V well enough."""
    for n_components in NUMBERS:
        spectra, unexplained = _components(V, n_components)
        if unexplained <= UNEXPLAINED or spectra.shape[1] < n_components:
            break
    return spectra


def _components(V: np.ndarray, n_components: int) -> tuple[np.ndarray, float]:
    """Learn spectra whose nonnegative combinations approximate the columns of V.

    Returns
    -------
    spectra : ndarray of shape (n_bins, n_components)
        One spectrum per column; each sums to 1.
    unexplained : float
        The Kullback-Leibler divergence between V and the model, divided by the sum of V.
    """
    loudness = V.sum(axis=0)
    shapes = np.sqrt(V / loudness).T
    n_components = min(n_components, len(np.unique(shapes, axis=0)))
    if n_components == 1:
        spectrum = V.sum(axis=1, keepdims=True) / V.sum()
        return spectrum, float(kl_div(V, spectrum * loudness).sum() / V.sum())
    from sklearn.cluster import KMeans  # here: scikit-learn is slow to import

    states = KMeans(n_components, n_init=10, random_state=0).fit_predict(shapes, sample_weight=loudness)
    membership = states[:, np.newaxis] == np.arange(n_components)
    spectra = V @ membership
    spectra /= spectra.sum(axis=0)
    # Multiplicative updates do not change zeros, so all activations and all spectra start above zero.
    start = (0.9 * membership + 0.1 / n_components) * loudness[:, np.newaxis]
    spectra += 1e-9
    known = known_basis(spectra.T, frozen=False)
    learned = fit_basis(Observations(V, H_init=start.T), known, Loss(beta=1.0), tol=0.0, max_iter=PASSES)
    spectra = learned.W.T
    return spectra / spectra.sum(axis=0), learned.history[-1] / float(V.sum())
