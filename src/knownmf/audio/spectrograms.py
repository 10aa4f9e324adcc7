"""Recordings to spectrograms, by the settings that a dictionary carries."""

import librosa
import numpy as np
import numpy.typing as npt

from knownmf.audio.recordings import as_channels
from knownmf.dictionary import Dictionary

__all__ = ["frame_times", "istft", "magnitudes", "spectrogram", "stft"]


def spectrogram(y: npt.ArrayLike, dictionary: Dictionary) -> np.ndarray:
    """The spectrogram of a recording, as the dictionary's spectra were made.

    Parameters
    ----------
    y : array_like of shape (n_samples,) or (n_channels, n_samples)
        Samples at ``dictionary.sr``.
    dictionary : Dictionary
        Gives `n_fft`, `hop_length`, `window` and `power`.

    Returns
    -------
    V : ndarray of shape (n_bins, n_frames)
        ``magnitude ** power``. Frame t is centred on sample ``t * hop_length``; beyond the ends there is silence. For
        several channels, the magnitude is the root of the channels' mean power, so that channels of opposite phase do
        not cancel: (mean over c of ``|X_c|**2``) ** (1/2).

    Examples
    --------
    >>> import numpy as np
    >>> from knownmf import Dictionary
    >>> from knownmf.audio import spectrogram
    >>> one = Dictionary(np.ones((1025, 1)), ["any"], sr=22050)
    >>> spectrogram(np.zeros((2, 22050)), one).shape
    (1025, 44)
    """
    return magnitudes(stft(as_channels(y), dictionary)) ** dictionary.power


def stft(y: np.ndarray, dictionary: Dictionary) -> np.ndarray:
    """Complex spectra of each channel: (n_channels, n_samples) to (n_channels, n_bins, n_frames)."""
    # librosa's own centring warns of recordings that are shorter than the window; silence around them is no fault.
    half = dictionary.n_fft // 2
    return librosa.stft(
        np.pad(y, ((0, 0), (half, half))),
        n_fft=dictionary.n_fft,
        hop_length=dictionary.hop_length,
        window=dictionary.window,
        center=False,
    )


def istft(spectra: np.ndarray, dictionary: Dictionary, n_samples: int) -> np.ndarray:
    """The inverse of :func:`stft`: (n_channels, n_bins, n_frames) to (n_channels, n_samples)."""
    return librosa.istft(
        spectra,
        n_fft=dictionary.n_fft,
        hop_length=dictionary.hop_length,
        window=dictionary.window,
        center=True,
        length=n_samples,
    )


def magnitudes(spectra: np.ndarray) -> np.ndarray:
    """Root of the channels' mean power: (n_channels, n_bins, n_frames) to (n_bins, n_frames)."""
    return np.sqrt(np.mean(spectra.real**2 + spectra.imag**2, axis=0))


def frame_times(n_frames: int, dictionary: Dictionary) -> np.ndarray:
    """Centre of each frame in seconds, shape (n_frames,)."""
    return np.arange(n_frames) * (dictionary.hop_length / dictionary.sr)
