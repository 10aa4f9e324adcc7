"""Check and resample the samples of recordings."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Generator
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import soxr

from knownmf.memory import check_memory
from knownmf.validation import check_is_no_group, whole_number
from knownmf.wording import counted

__all__ = [
    "Recording",
    "Resampler",
    "Samples",
    "as_channels",
    "check_rate",
    "check_ratio",
    "checked_samples",
    "joined",
    "resampled",
    "resampled_length",
]

# The sample rates of recordings: from those of slow sensors to those of ultrasound. A header with another one is
# damaged, or was made to take all memory.
LOWEST_RATE, HIGHEST_RATE = 100, 10_000_000

# For a ratio of a million, soxr needs more than a minute, and for larger ones it crashes.
LARGEST_RATIO = HIGHEST_RATE // LOWEST_RATE

# The largest number of channels. Microphone arrays have up to 64; what has more is a spectrogram.
MOST_CHANNELS = 64

# More channels than this without a single negative sample are a spectrogram, such as one of 12 or 40 bands.
MOST_UNSIGNED_CHANNELS = 8

# Larger samples are refused, as their squares could overflow. No recording has them.
LARGEST_SAMPLE = 1e30

# About so many samples of each channel are resampled at a time; soxr is slower with longer pieces.
PIECE = 2**16


class Recording(Protocol):
    """Samples that come in blocks, as often as they are needed: an array, or an open file.

    Attributes
    ----------
    sr : int
        Sample rate in Hz.
    n_channels : int
        The number of channels.
    n_samples : int or None
        The number of samples of each channel; None if it is not known before all have been read. The header of a file
        may state a wrong one: it is correct after a pass over all blocks.
    """

    sr: int
    n_channels: int
    n_samples: int | None

    def blocks(self, n_samples: int) -> Generator[np.ndarray, None, None]:
        """Yield all samples in blocks of shape (n_channels, n_samples); the last block may be shorter."""
        ...

    def warn(self) -> None:
        """Warn, once, if the last pass has found that the recording is incomplete."""
        ...


class Samples:
    """A recording in memory.

    Parameters
    ----------
    y : ndarray of shape (n_channels, n_samples)
        Samples.
    sr : int
        Sample rate in Hz.
    """

    def __init__(self, y: np.ndarray, sr: int):
        self.y, self.sr = y, sr
        self.n_channels, self.n_samples = y.shape

    def blocks(self, n_samples: int) -> Generator[np.ndarray, None, None]:
        """Yield all samples in blocks of shape (n_channels, n_samples)."""
        for start in range(0, self.y.shape[1], n_samples):
            yield self.y[:, start : start + n_samples]

    def warn(self) -> None:
        """Do nothing: an array is complete."""


class Resampler:
    """Resample a recording that comes in blocks. The result does not depend on the blocks.

    Parameters
    ----------
    sr, sr_new : int
        Sample rates in Hz.
    n_channels : int
        The number of channels.

    Raises
    ------
    ValueError
        If a sample rate is not a whole number above 0, or the sample rates differ by a factor of more than 100 000.
    """

    def __init__(self, sr: int, sr_new: int, n_channels: int):
        check_ratio(sr, sr_new)
        self._stream = None
        if sr != sr_new:
            self._stream = soxr.ResampleStream(sr, sr_new, n_channels, dtype="float64", quality="VHQ")
        self._piece = max(1, int(PIECE * min(1, sr / sr_new)))
        self._is_empty = True

    def push(self, y: np.ndarray, last: bool = False) -> np.ndarray:
        """Return the samples that can be computed now, of shape (n_channels, n_samples).

        Parameters
        ----------
        y : ndarray of shape (n_channels, n_samples)
            The next samples.
        last : bool
            Whether no more samples follow.
        """
        if self._stream is None:
            return y
        starts = range(0, max(1, y.shape[1]), self._piece)
        pieces = [
            self._stream.resample_chunk(
                np.ascontiguousarray(y[:, start : start + self._piece].T), last and start == starts[-1]
            )
            for start in starts
        ]
        new: np.ndarray = np.concatenate(pieces).T
        self._is_empty &= not new.size
        if last and self._is_empty:  # less than half a sample at the new rate
            return np.zeros((len(y), 1))
        return new


def joined(blocks: list[np.ndarray], axis: int, order: Literal["K", "C"] = "K") -> np.ndarray:
    """Return blocks as one array in the memory order of the first one, or in C order.

    Each block is removed from the list when it has been copied, to save memory.
    """
    end = sum(block.shape[axis] for block in blocks)
    shape = list(blocks[0].shape)
    shape[axis] = end
    whole = np.empty_like(blocks[0], shape=shape, order=order)
    view = np.moveaxis(whole, axis, 0)
    while blocks:  # in this order, because the memory of the last block can be returned to the system first
        block = np.moveaxis(blocks.pop(), axis, 0)
        view[end - len(block) : end] = block
        end -= len(block)
    return whole


def as_channels(y: npt.ArrayLike) -> np.ndarray:
    """Check the samples that a user passed and return them as a float64 array of shape (n_channels, n_samples).

    A recording may have at most as many channels as samples, and at most `MOST_CHANNELS` channels. So an array of shape
    (n_samples, n_channels) is refused. Only the axes of a square array cannot be told apart; the first one counts as
    that of the channels.

    Parameters
    ----------
    y : array_like of shape (n_samples,) or (n_channels, n_samples)
        Samples of a floating-point type; full scale is 1.

    Returns
    -------
    ndarray of shape (n_channels, n_samples)
        A view of `y` if it has this type, else a copy.

    Raises
    ------
    ValueError
        If there are no samples, if some are masked, not finite or above 1e30, or if the shape or the type does not
        match.
    TypeError
        If `y` is a mapping of arrays.
    """
    check_is_no_group(y, "y")
    try:
        samples = np.asarray(y)
    except ValueError as error:
        raise ValueError(
            "y is a list of arrays of different lengths, expected samples: all channels need the same length. If y is "
            "a pair (y, sr), pass its parts one by one."
        ) from error
    if samples.ndim == 0:
        raise ValueError(
            f"y is {reprlib.repr(y)}, expected an array of samples: the samples come before the sample rate "
            "(scipy.io.wavfile.read returns them the other way round), and files are read with knownmf.audio.read."
        )
    first = samples.flat[0] if samples.size else None
    if isinstance(first, str | os.PathLike):
        raise ValueError(
            f"y has names of files, the first of which is {str(first)!r}, expected one recording: call the "
            "function once for each of them."
        )
    _check_type(samples.dtype)
    if np.ma.is_masked(y):
        raise ValueError("y has masked samples: replace them first, for example by silence, y.filled(0).")
    samples = np.atleast_2d(samples.astype(np.float64, copy=False))
    if samples.ndim != 2:
        raise ValueError(f"y has shape {samples.shape}, expected (n_samples,) or (n_channels, n_samples).")
    samples = checked_samples(samples, "y")
    _check_axes(samples)
    return samples


def checked_samples(samples: np.ndarray, name: str) -> np.ndarray:
    """Return samples of shape (n_channels, n_samples). Raise a ValueError if there are none, or one cannot be used."""
    if not samples.size:
        raise ValueError(f"{name} is empty: it has no samples.")
    faulty = int(np.count_nonzero(~np.isfinite(samples)))
    if faulty:
        are, them = ("is", "it") if faulty == 1 else ("are", "them")
        raise ValueError(
            f"{name} has {counted(faulty, 'sample')} that {are} infinite or not a number: replace {them} first."
        )
    peak = max(samples.max(), -samples.min())
    if peak > LARGEST_SAMPLE:
        raise ValueError(f"{name} has a peak of {peak:.3g} times full scale: scale it to a peak of 1 first.")
    return samples


def check_rate(sr: object) -> None:
    """Raise a ValueError if `sr` is not a whole number of at least 1."""
    if isinstance(sr, np.ndarray) and sr.ndim:
        raise ValueError(f"sr has shape {sr.shape}, expected the sample rate in Hz: pass the samples before it.")
    whole_number(sr, "sr", meaning="a sample rate in Hz")


def check_ratio(sr: int, sr_new: int) -> None:
    """Raise a ValueError if a recording cannot be resampled from one sample rate to the other."""
    check_rate(sr)
    check_rate(sr_new)
    if max(sr, sr_new) > LARGEST_RATIO * min(sr, sr_new):
        raise ValueError(
            f"the recording cannot be resampled from {sr} Hz to {sr_new} Hz: a ratio of at most {LARGEST_RATIO} is "
            "possible. Check the sample rates."
        )


def resampled(y: np.ndarray, sr: int, sr_new: int, n_samples: int | None = None) -> np.ndarray:
    """Resample a recording to another sample rate.

    Parameters
    ----------
    y : ndarray of shape (n_channels, n_samples)
        Samples at `sr`.
    sr, sr_new : int
        Sample rates in Hz.
    n_samples : int, optional
        Length of the result: it is cut or padded with zeros at its end. By default the length that `soxr` returns.

    Returns
    -------
    ndarray of shape (n_channels, n_samples)
        Samples at `sr_new`; `y` itself if nothing has to change.

    Raises
    ------
    ValueError
        If a sample rate is not a whole number above 0, or the sample rates differ by a factor of more than 100 000.
    MemoryError
        If the result needs more memory than there is.
    """
    resampler = Resampler(sr, sr_new, len(y))
    if sr != sr_new:
        # The result is collected in pieces before they are joined.
        needed = 2 * y.itemsize * y.shape[0] * resampled_length(y.shape[1], sr, sr_new)
        check_memory(needed, f"resampling from {sr} Hz to {sr_new} Hz", "take a shorter recording")
    y = resampler.push(y, last=True)
    if n_samples is not None and n_samples != y.shape[1]:
        y = np.pad(y[:, :n_samples], ((0, 0), (0, max(0, n_samples - y.shape[1]))))
    return y


def resampled_length(n_samples: int, sr: int, sr_new: int) -> int:
    """Return about how many samples a recording has after resampling. Raise a ValueError if it is not possible."""
    check_ratio(sr, sr_new)
    return -(-n_samples * int(sr_new) // int(sr))


def _check_type(dtype: np.dtype) -> None:
    """Raise a ValueError that says how to convert samples that are not of a floating-point type."""
    if dtype.kind == "f":
        return
    if dtype.kind == "c":
        raise ValueError(
            f"y has complex values ({dtype}), expected samples. If it is a spectrogram, use "
            "knownmf.activations(np.abs(y), dictionary.W)."
        )
    scaled = {"int8": "y / 128", "uint8": "(y - 128.0) / 128", "int16": "y / 32768", "int32": "y / 2147483648"}
    remedy = f": pass {scaled[dtype.name]}" if dtype.name in scaled else ""
    raise ValueError(f"y has values of type {dtype}, expected floats with a full scale of 1{remedy}.")


def _check_axes(samples: np.ndarray) -> None:
    """Raise a ValueError if an array of shape (n_channels, n_samples) is transposed or a spectrogram."""
    n_channels, n_samples = samples.shape
    many = min(n_channels, n_samples) > MOST_CHANNELS
    unsigned = min(n_channels, n_samples) > MOST_UNSIGNED_CHANNELS and samples.min() >= 0 and samples.any()
    if many or unsigned:
        reason = f"at most {MOST_CHANNELS} are possible" if many else "no sample is negative"
        raise ValueError(
            f"y has shape {samples.shape}, which would be {n_samples} samples of {n_channels} channels, but {reason}. "
            "If y is a spectrogram, use knownmf.activations(y, dictionary.W); if not, pass fewer channels at once."
        )
    if n_channels > n_samples:
        raise ValueError(
            f"y has shape {samples.shape}, which would be {counted(n_samples, 'sample')} of "
            f"{counted(n_channels, 'channel')}: pass y.T if the shape is (n_samples, n_channels), as soundfile and "
            "scipy.io.wavfile return it. A recording needs at least as many samples as channels."
        )
