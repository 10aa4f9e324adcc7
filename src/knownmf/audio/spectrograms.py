"""Spectrograms of recordings, computed with the analysis settings of a dictionary."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from knownmf.audio.samples import as_channels
from knownmf.dictionary import Dictionary
from knownmf.memory import check_memory

__all__ = ["count_frames", "frame_times", "istft", "magnitudes", "spectrogram", "stft"]

# Frames are transformed in blocks of about this many bytes, so that temporary arrays stay in the processor's cache. Ad
# hoc: the time changes little between 2**18 and 2**24, measured for 60 s of stereo with windows of 2048 samples.
BLOCK_BYTES = 2**20


def spectrogram(y: npt.ArrayLike, dictionary: Dictionary) -> np.ndarray:
    """Compute the spectrogram of a recording with the analysis settings of a dictionary.

    Parameters
    ----------
    y : array_like of shape (n_samples,) or (n_channels, n_samples)
        Samples at the sample rate ``dictionary.sr``.
    dictionary : Dictionary
        Provides `n_fft`, `hop_length`, `window` and `power`.

    Returns
    -------
    V : ndarray of shape (n_bins, n_frames)
        ``magnitude ** power``. Frame t is centered on sample ``t * hop_length``; the recording is padded with zeros at
        both ends. For several channels, the magnitude is the root of the mean power of the channels,
        (mean over c of ``|X_c|**2``) ** (1/2), so that channels of opposite phase do not cancel.

    Raises
    ------
    ValueError
        If the recording is empty, has samples that are not finite, or does not have the shape or type above.

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
    """Compute the short-time Fourier transform of each channel.

    The transform is not scaled: ``X[c, f, t] = sum_n window[n] y[c, t * hop_length - n_fft // 2 + n]
    exp(-2j pi f n / n_fft)``, where samples outside the recording are zero.

    Parameters
    ----------
    y : ndarray of shape (n_channels, n_samples)
        Samples.
    dictionary : Dictionary
        Provides `n_fft`, `hop_length` and `window`.

    Returns
    -------
    ndarray of complex, shape (n_channels, n_bins, n_frames)
        Spectra. There are ``1 + (n_samples + 2 * (n_fft // 2) - n_fft) // hop_length`` frames.

    Raises
    ------
    MemoryError
        If the result needs more memory than there is.
    """
    half = dictionary.n_fft // 2
    shape = (y.shape[0], count_frames(y.shape[1], dictionary), dictionary.n_bins)
    check_memory(16 * math.prod(shape), "the spectrogram", "take a shorter recording")
    padded = np.pad(y, ((0, 0), (half, half)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, dictionary.n_fft, axis=1)[:, :: dictionary.hop_length]
    window = _window(dictionary)
    spectra = np.empty(shape, dtype=complex)
    for block in _blocks(*frames.shape):
        np.fft.rfft(frames[:, block] * window, out=spectra[:, block])
    return spectra.swapaxes(1, 2)


def istft(spectra: np.ndarray, dictionary: Dictionary, n_samples: int) -> np.ndarray:
    """Compute the signal whose short-time Fourier transform is closest to the given spectra.

    This is the least-squares inverse of :func:`stft`: the inverse transforms of the frames are multiplied by the
    window, added where they overlap, and divided by the sum of the squared windows. Samples that no window reaches are
    zero.

    Parameters
    ----------
    spectra : ndarray of complex, shape (n_channels, n_bins, n_frames)
        Spectra.
    dictionary : Dictionary
        Provides `n_fft`, `hop_length` and `window`.
    n_samples : int
        Length of the signal.

    Returns
    -------
    ndarray of shape (n_channels, n_samples)
        Samples.

    Notes
    -----
    D. W. Griffin and J. S. Lim, "Signal estimation from modified short-time Fourier transform", IEEE Transactions on
    Acoustics, Speech, and Signal Processing 32 (1984).
    """
    n_fft, hop_length = dictionary.n_fft, dictionary.hop_length
    n_channels, _, n_frames = spectra.shape
    window = _window(dictionary)
    kept = slice(n_fft // 2, n_fft // 2 + n_samples)  # stft pads half a window at the beginning
    n_rows = max(n_frames - 1 + _ceil(n_fft, hop_length), _ceil(kept.stop, hop_length))
    total = np.zeros((n_channels, n_rows, hop_length))
    for block in _blocks(n_channels, n_frames, n_fft):
        frames = np.fft.irfft(spectra[:, :, block].swapaxes(1, 2), n_fft)
        frames *= window
        _overlap_add(total[:, block.start :], frames)
    squares = np.zeros((1, n_rows, hop_length))
    _overlap_add(squares, np.broadcast_to(window**2, (1, n_frames, n_fft)))
    y, norm = total.reshape(n_channels, -1)[:, kept], squares.reshape(-1)[kept]
    return y / np.where(norm > np.finfo(float).tiny, norm, 1)


def magnitudes(spectra: np.ndarray) -> np.ndarray:
    """Return the root of the mean power of the channels.

    Parameters
    ----------
    spectra : ndarray of complex, shape (n_channels, n_bins, n_frames)
        Spectra of each channel.

    Returns
    -------
    ndarray of shape (n_bins, n_frames)
        Magnitudes.
    """
    return np.sqrt(np.mean(spectra.real**2 + spectra.imag**2, axis=0))


def count_frames(n_samples: int, dictionary: Dictionary) -> int:
    """Return the number of frames of a recording at the sample rate of the dictionary."""
    return 1 + (n_samples + 2 * (dictionary.n_fft // 2) - dictionary.n_fft) // dictionary.hop_length


def frame_times(n_frames: int, dictionary: Dictionary) -> np.ndarray:
    """Return the center of each frame in seconds, shape (n_frames,)."""
    return np.arange(n_frames) * (dictionary.hop_length / dictionary.sr)


def _window(dictionary: Dictionary) -> np.ndarray:
    """Return the window of the analysis, shape (n_fft,)."""
    from scipy.signal import get_window  # here, because SciPy's signal package is slow to import

    return get_window(dictionary.window, dictionary.n_fft)


def _blocks(n_channels: int, n_frames: int, n_fft: int) -> Iterator[slice]:
    """Yield slices of consecutive frames; the samples of each slice take about `BLOCK_BYTES`."""
    n_block = max(1, BLOCK_BYTES // (8 * n_channels * n_fft))
    for start in range(0, n_frames, n_block):
        yield slice(start, min(start + n_block, n_frames))


def _overlap_add(rows: np.ndarray, frames: np.ndarray) -> None:
    """Add frames of shape (n_channels, n_frames, n_fft) to a signal; frame t begins at row t.

    Writes: `rows`, the signal in rows of `hop_length` samples, shape (n_channels, n_rows, hop_length).

    Each frame is split into pieces of `hop_length` samples. One array addition adds the k-th pieces of all frames to
    the rows k, k + 1, ... The last pieces are added first, so that each sample is summed in the order of the frames,
    and the result does not depend on how the frames are divided into blocks.
    """
    n_frames, hop_length = frames.shape[1], rows.shape[2]
    for piece in reversed(range(_ceil(frames.shape[2], hop_length))):
        part = frames[:, :, piece * hop_length : (piece + 1) * hop_length]
        rows[:, piece : piece + n_frames, : part.shape[2]] += part


def _ceil(number: int, divisor: int) -> int:
    """Return ``number / divisor``, rounded up."""
    return -(-number // divisor)
