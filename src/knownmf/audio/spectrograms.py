"""Spectrograms of recordings, computed with the analysis settings of a dictionary, whole or in blocks of frames."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from knownmf.audio.samples import Recording, Resampler, Samples, as_channels, joined, resampled_length
from knownmf.dictionary import Dictionary
from knownmf.memory import check_memory
from knownmf.observations import Observations
from knownmf.threads import read_ahead

__all__ = [
    "Analysis",
    "FrameBlock",
    "Synthesis",
    "count_frames",
    "expected_frames",
    "frame_blocks",
    "frame_times",
    "istft",
    "magnitudes",
    "observed_bins",
    "spectrogram",
    "spectrogram_of",
    "stft",
]

# Frames are transformed in blocks of about this many bytes, so that temporary arrays stay in the processor's cache. Ad
# hoc: the time changes little between 2**18 and 2**24, measured for 60 s of stereo with windows of 2048 samples.
BLOCK_BYTES = 2**20

# A recording is read in blocks whose spectra and stems take about this number of bytes. Ad hoc: from 2**21 to 2**26,
# the processor time of separating stereo with the demo's dictionary falls by a quarter, and the memory of the process
# grows from 210 to 470 MB.
STREAM_BYTES = 2**24

# A resampling filter does not attenuate frequencies below this share of the Nyquist frequency.
USABLE_BAND = 0.95


@dataclass(frozen=True, eq=False, kw_only=True)
class FrameBlock(Observations):
    """Consecutive frames of a recording, with what their sounds are made of.

    Attributes
    ----------
    V : ndarray of shape (n_bins, n_frames)
        The spectrogram.
    weights : ndarray of shape (n_bins,) or None
        As :func:`observed_bins` returns them.
    first : int
        The number of the first frame.
    samples : ndarray of shape (n_channels, n_samples)
        The samples of the recording that were read for these frames, at its own sample rate.
    spectra : ndarray of complex, shape (n_channels, n_bins, n_frames)
        Spectra of each channel.
    is_last : bool
        Whether no more frames follow.
    """

    samples: np.ndarray
    spectra: np.ndarray
    is_last: bool


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
    return spectrogram_of(Samples(as_channels(y), dictionary.sr), dictionary)


def spectrogram_of(recording: Recording, dictionary: Dictionary) -> np.ndarray:
    """Return the spectrogram of a recording of any sample rate, shape (n_bins, n_frames)."""
    if recording.n_samples is not None:
        n_frames = expected_frames(recording.n_samples, recording.sr, dictionary)
        check_memory(2 * 8 * dictionary.n_bins * n_frames, "the spectrogram", "take a shorter recording")
    with contextlib.closing(frame_blocks(recording, dictionary)) as blocks:
        return joined([block.V for block in blocks], 1)


def frame_blocks(recording: Recording, dictionary: Dictionary, n_stems: int = 0) -> Generator[FrameBlock, None, None]:
    """Yield all frames of a recording in blocks. The next block is computed in another thread.

    The frames do not depend on the size of the blocks.

    Parameters
    ----------
    recording : Recording
        The recording. If its sample rate is not that of the dictionary, it is resampled.
    dictionary : Dictionary
        Provides the settings of the analysis.
    n_stems : int
        How many stems are computed from a block: the more, the shorter the blocks.
    """
    return read_ahead(_analyzed(recording, dictionary, n_stems))


def _analyzed(recording: Recording, dictionary: Dictionary, n_stems: int) -> Generator[FrameBlock, None, None]:
    """Yield all frames of a recording in blocks."""
    n_channels = recording.n_channels
    samples_per_frame = dictionary.hop_length * recording.sr / dictionary.sr
    n_bytes = (16 * n_channels + 8 * n_stems) * dictionary.n_bins + 8 * n_stems * n_channels * samples_per_frame
    n_samples = max(1, int(STREAM_BYTES / n_bytes * samples_per_frame))
    resampler = Resampler(recording.sr, dictionary.sr, n_channels)
    analysis = Analysis(dictionary, n_channels)
    weights, n_frames = observed_bins(recording.sr, dictionary), 0
    with contextlib.closing(recording.blocks(n_samples)) as blocks:
        samples = next(blocks, None)
        while samples is not None:
            following = next(blocks, None)
            spectra = analysis.push(resampler.push(samples, following is None), following is None)
            V = magnitudes(spectra) ** dictionary.power
            yield FrameBlock(V, weights, first=n_frames, samples=samples, spectra=spectra, is_last=following is None)
            n_frames += V.shape[1]
            samples = following


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
    shape = (y.shape[0], count_frames(y.shape[1], dictionary), dictionary.n_bins)
    check_memory(16 * math.prod(shape), "the spectrogram", "take a shorter recording")
    return Analysis(dictionary, y.shape[0]).push(y, last=True)


class Analysis:
    """Compute the short-time Fourier transform, as :func:`stft` does, of a recording that comes in blocks.

    The frames do not depend on the blocks, to the last bit.

    Parameters
    ----------
    dictionary : Dictionary
        Provides `n_fft`, `hop_length` and `window`.
    n_channels : int
        The number of channels.
    """

    def __init__(self, dictionary: Dictionary, n_channels: int):
        self._dictionary, self._window = dictionary, _window(dictionary)
        self._rest = np.zeros((n_channels, dictionary.n_fft // 2))  # samples from the begin of the next frame on

    def push(self, y: np.ndarray, last: bool = False) -> np.ndarray:
        """Return the spectra of the frames that can be computed now, of shape (n_channels, n_bins, n_frames).

        Parameters
        ----------
        y : ndarray of shape (n_channels, n_samples)
            The next samples.
        last : bool
            Whether no more samples follow.
        """
        n_fft, hop_length = self._dictionary.n_fft, self._dictionary.hop_length
        end = np.zeros((len(y), n_fft // 2 if last else 0))
        padded = np.concatenate([self._rest, y, end], axis=1)
        n_frames = max(0, 1 + (padded.shape[1] - n_fft) // hop_length)
        self._rest = padded[:, n_frames * hop_length :].copy()
        spectra = np.empty((len(y), n_frames, self._dictionary.n_bins), dtype=complex)
        if n_frames:
            frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft, axis=1)[:, ::hop_length]
            for block in _blocks(*frames.shape):
                np.fft.rfft(frames[:, block] * self._window, out=spectra[:, block])
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
    return Synthesis(dictionary).push(spectra, n_samples)


class Synthesis:
    """Compute the signal of spectra, as :func:`istft` does, that come in blocks of frames.

    The samples do not depend on the blocks, to the last bit.

    Parameters
    ----------
    dictionary : Dictionary
        Provides `n_fft`, `hop_length` and `window`.
    """

    def __init__(self, dictionary: Dictionary):
        self._dictionary, self._window = dictionary, _window(dictionary)
        self._n_frames = 0
        # Sums of the frames so far, and of their squared windows, in rows of `hop_length` samples: those that the next
        # frame overlaps.
        self._sums, self._squares = np.zeros((0, 0, 0)), np.zeros((0, 0, 0))

    def push(self, spectra: np.ndarray, n_samples: int | None = None) -> np.ndarray:
        """Return the samples that can be computed now, of shape (n_channels, n_samples).

        Parameters
        ----------
        spectra : ndarray of complex, shape (n_channels, n_bins, n_frames)
            The next frames.
        n_samples : int, optional
            The length of the whole signal, if no more frames follow.
        """
        n_fft, hop_length = self._dictionary.n_fft, self._dictionary.hop_length
        n_channels, _, n_frames = spectra.shape
        half = n_fft // 2  # stft pads half a window at the beginning
        begin = self._n_frames * hop_length - half
        n_rows = n_frames + _ceil(n_fft, hop_length) - 1
        if n_samples is not None:
            n_rows = max(n_rows, _ceil(n_samples - begin, hop_length))
        total, squares = np.zeros((n_channels, n_rows, hop_length)), np.zeros((1, n_rows, hop_length))
        if self._n_frames:
            n_carried = self._sums.shape[1]
            total[:, :n_carried], squares[:, :n_carried] = self._sums, self._squares
        for block in _blocks(n_channels, n_frames, n_fft):
            frames = np.fft.irfft(spectra[:, :, block].swapaxes(1, 2), n_fft)
            frames *= self._window
            _overlap_add(total[:, block.start :], frames)
        _overlap_add(squares, np.broadcast_to(self._window**2, (1, n_frames, n_fft)))
        self._n_frames += n_frames
        n_complete = n_rows if n_samples is not None else n_frames
        self._sums, self._squares = total[:, n_complete:].copy(), squares[:, n_complete:].copy()
        kept = slice(max(0, -begin), n_complete * hop_length if n_samples is None else max(0, n_samples - begin))
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


def expected_frames(n_samples: int, sr: int, dictionary: Dictionary) -> int:
    """Return the number of frames of a recording at any sample rate; it may be one more or less."""
    return count_frames(resampled_length(n_samples, sr, dictionary.sr), dictionary)


def observed_bins(sr: int, dictionary: Dictionary) -> np.ndarray | None:
    """Return the weights of the bins: 0 above the highest frequency of the recording, else 1. None if all are 1.

    A recording with a lower sample rate than the dictionary has no information about these bins. With a weight of 1,
    they would count as silence, against sounds that have such frequencies.
    """
    if sr >= dictionary.sr:
        return None
    return (dictionary.frequencies < USABLE_BAND * sr / 2).astype(float)


def frame_times(n_frames: int, dictionary: Dictionary, first: int = 0) -> np.ndarray:
    """Return the center of each frame in seconds, shape (n_frames,), beginning with frame `first`."""
    return np.arange(first, first + n_frames) * (dictionary.hop_length / dictionary.sr)


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
