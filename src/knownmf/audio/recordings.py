"""Read, write, check and resample recordings."""

from __future__ import annotations

import io
import math
import os
import reprlib
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from knownmf.audio.containers import header_length
from knownmf.files import written_aside
from knownmf.memory import check_memory
from knownmf.validation import level_of_caller, whole_number
from knownmf.wording import counted

__all__ = [
    "NotARecordingError",
    "RecordingInfo",
    "as_channels",
    "check_rate",
    "describe",
    "read",
    "resampled",
    "resampled_length",
    "write",
]

# Subtypes that store floating-point samples. All others clip samples above full scale.
_FLOAT_SUBTYPES = ("FLOAT", "DOUBLE")

# The sample rates of recordings: from those of slow sensors to those of ultrasound. A header with another one is
# damaged, or was made to take all memory.
LOWEST_RATE, HIGHEST_RATE = 100, 10_000_000

# For a ratio of a million, soxr needs more than a minute, and for larger ones it crashes.
LARGEST_RATIO = HIGHEST_RATE // LOWEST_RATE

# In an MP3 file without a length, libsndfile estimates it. A file counts as truncated only if more than this share and
# more than this many seconds are missing, which is about as accurate. In other formats, every missing sample counts.
_MP3_SHARE, _MP3_S = 0.01, 0.1

# libsndfile returns a length of this size if the header does not state one.
_UNKNOWN_LENGTH = 2**62

_BLOCK = 2**16  # the number of samples of each channel that are decoded at a time
_CHECKED_BYTES = 2**26  # before so many bytes more are decoded, it is checked that there is memory for them

# The largest number of channels. Microphone arrays have up to 64; what has more is a spectrogram.
MOST_CHANNELS = 64

# More channels than this without a single negative sample are a spectrogram, such as one of 12 or 40 bands.
MOST_UNSIGNED_CHANNELS = 8

# Larger samples are refused, as their squares could overflow. No recording has them.
LARGEST_SAMPLE = 1e30

# `write` warns about a peak above this multiple of full scale (40 dB): then the samples are not scaled to 1.
FAR_ABOVE_FULL_SCALE = 100

_Result = TypeVar("_Result")


class NotARecordingError(ValueError):
    """A file has a format that libsndfile cannot read, or is too damaged."""


@dataclass(frozen=True)
class RecordingInfo:
    """The result of :func:`describe`.

    Attributes
    ----------
    n_samples, n_channels : int
        The number of samples of each channel that can be read, and the number of channels.
    sr : int
        Sample rate in Hz.
    format, subtype : str
        How libsndfile names the format of the file, and how its samples are stored.
    """

    n_samples: int
    n_channels: int
    sr: int
    format: str
    subtype: str


def read(path: str | os.PathLike[str]) -> tuple[np.ndarray, int]:
    """Read a recording from a WAV, FLAC, OGG or MP3 file, or from another format that libsndfile supports.

    Parameters
    ----------
    path : str or path-like
        The file. Its header need not state a length: programs that write to a pipe cannot know it.

    Returns
    -------
    y : ndarray of shape (n_channels, n_samples)
        The samples as float64; full scale is 1.
    sr : int
        Sample rate in Hz.

    Raises
    ------
    OSError
        If the file cannot be opened or cannot be read to its end.
    ValueError
        If the file is not a recording, is empty, has samples that are not finite, or has a sample rate below 100 Hz or
        above 10 MHz. The message names the file.
    MemoryError
        If the recording needs more memory than there is.

    Warns
    -----
    UserWarning
        If the file is cut off or damaged. The samples before that point are returned.
    """
    path = Path(path)
    blocks: list[np.ndarray] = []
    info = _decoded(path, blocks)
    y = np.empty((info.n_channels, info.n_samples))
    end = info.n_samples
    while blocks:  # in this order, because the memory of the last block can be returned to the system first
        block = blocks.pop()
        y[:, end - len(block) : end] = block.T
        end -= len(block)
    return _checked(y, f'"{path}"'), info.sr


def describe(path: str | os.PathLike[str]) -> RecordingInfo:
    """Return the length and the format of a recording.

    The whole file is decoded, because headers may state a wrong length. Errors and warnings are those of :func:`read`.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    RecordingInfo
        What is actually in the file.
    """
    return _decoded(Path(path), None)


def _decoded(path: Path, blocks: list[np.ndarray] | None) -> RecordingInfo:
    """Decode a file, append its samples to `blocks`, if they are wanted, and warn if the file is cut off."""
    check_memory(path.stat().st_size, f'reading "{path}"', "split the recording")
    content = path.read_bytes()  # raises OSError for a missing file, a folder or a disk error
    if not content:
        raise NotARecordingError(f'"{path}" is empty: it has no bytes. Copy or record it again.')
    length = header_length(content)
    file = _Content(content)
    del content  # otherwise, writing would copy it
    if length.field:
        file.seek(length.position)
        file.write(length.field)
        file.seek(0)
    try:
        info, n_stated, error = _in_other_thread(lambda: _decode(path, file, blocks))
        if error is not None and not info.n_samples:
            raise error
    except soundfile.LibsndfileError as failure:
        raise NotARecordingError(
            f'"{path}" is not a recording that can be read ({failure.error_string.rstrip(" .")}): pass a WAV, FLAC, '
            "OGG, MP3 or AIFF file, or convert it to one of these."
        ) from failure
    if length.ratio > 1:
        n_stated = None if math.isinf(length.ratio) else round(info.n_samples * length.ratio)
    elif n_stated is not None and n_stated - info.n_samples <= _tolerated(n_stated, info):
        n_stated = None
    if length.ratio > 1 or n_stated is not None or error is not None:
        if not info.n_samples:
            raise NotARecordingError(f'"{path}" ends before its first sample: the file is truncated or damaged.')
        stated = "" if n_stated is None else f", but its header states {n_stated / info.sr:.2f} s"
        warnings.warn(
            f'"{path}" ends after {info.n_samples / info.sr:.2f} s{stated}: the file is truncated or damaged. The '
            "samples up to there are used.",
            UserWarning,
            stacklevel=level_of_caller(),
        )
    return info


def _tolerated(n_stated: int, info: RecordingInfo) -> float:
    """Return how many samples may be missing in a file with this length in its header."""
    return max(_MP3_SHARE * n_stated, _MP3_S * info.sr) if info.format == "MP3" else 0


def write(path: str | os.PathLike[str], y: npt.ArrayLike, sr: int, subtype: str | None = None) -> None:
    """Write a recording to a file in the format that the file extension names.

    The data are written to a temporary file, which is then renamed: at any time, `path` is the old file or the complete
    new file.

    Parameters
    ----------
    path : str or path-like
        The file; its extension is ``.wav``, ``.flac``, ``.ogg`` or another one that libsndfile supports.
    y : array_like of shape (n_samples,) or (n_channels, n_samples)
        Samples; full scale is 1.
    sr : int
        Sample rate in Hz.
    subtype : str, optional
        How samples are stored: one of :func:`soundfile.available_subtypes`. By default, WAV files store 32-bit floats,
        so that nothing is clipped and stems add up to the recording; FLAC files store 24 bits; other formats use the
        default of libsndfile.

    Raises
    ------
    OSError
        If the file cannot be written.
    ValueError
        If the format is unknown, if it does not support the number of channels or the sample rate, or if it stores
        integers and would clip samples above full scale.

    Warns
    -----
    UserWarning
        If the peak is more than 100 times full scale.
    """
    path = Path(path)
    y = as_channels(y)
    check_rate(sr)
    format_name = path.suffix[1:].upper()
    format_name = {"AIF": "AIFF", "OGA": "OGG"}.get(format_name, format_name)
    if format_name not in soundfile.available_formats():
        raise ValueError(f'"{path}" does not name a known format: use the extension .wav, .flac or .ogg.')
    if subtype is None:
        subtype = {"WAV": "FLOAT", "FLAC": "PCM_24"}.get(format_name, soundfile.default_subtype(format_name))
    if not soundfile.check_format(format_name, subtype):
        known = ", ".join(soundfile.available_subtypes(format_name))
        raise ValueError(f'"{path}": {format_name} files cannot store {subtype}: choose one of {known}.')
    peak = float(np.abs(y).max())
    if peak > FAR_ABOVE_FULL_SCALE and subtype in _FLOAT_SUBTYPES:
        warnings.warn(
            f'"{path}": the peak is {peak:.3g} times full scale, so that players will clip it: scale y to a peak of 1 '
            "(divide samples that were 16-bit integers by 32768).",
            UserWarning,
            stacklevel=level_of_caller(),
        )
    if peak > 1 and subtype not in _FLOAT_SUBTYPES:
        raise ValueError(
            f'"{path}": the peak is {peak:.3g} times full scale and {subtype} would clip it: '
            "write a .wav file with subtype FLOAT, or scale the recording down."
        )
    content = io.BytesIO()
    try:
        _in_other_thread(lambda: soundfile.write(content, y.T, int(sr), format=format_name, subtype=subtype))
    except (soundfile.LibsndfileError, OverflowError) as error:
        raise ValueError(
            f'"{path}": {format_name} files with {subtype} cannot store {counted(len(y), "channel")} at {sr} Hz: '
            "write a .wav file, or reduce the number of channels or resample the recording to a common sample rate."
        ) from error
    with written_aside(path) as file:
        file.write(content.getbuffer())


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
    """
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
    _check_type(samples.dtype)
    if np.ma.is_masked(y):
        raise ValueError("y has masked samples: replace them first, for example by silence, y.filled(0).")
    samples = np.atleast_2d(samples.astype(np.float64, copy=False))
    if samples.ndim != 2:
        raise ValueError(f"y has shape {samples.shape}, expected (n_samples,) or (n_channels, n_samples).")
    samples = _checked(samples, "y")
    _check_axes(samples)
    return samples


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


def _checked(samples: np.ndarray, name: str) -> np.ndarray:
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
    check_rate(sr)
    check_rate(sr_new)
    if sr != sr_new:
        if max(sr, sr_new) > LARGEST_RATIO * min(sr, sr_new):
            raise ValueError(
                f"the recording cannot be resampled from {sr} Hz to {sr_new} Hz: a ratio of at most {LARGEST_RATIO} is "
                "possible. Check the sample rates."
            )
        # soxr collects the result in pieces before it joins them.
        needed = 2 * y.itemsize * y.shape[0] * resampled_length(y.shape[1], sr, sr_new)
        check_memory(needed, f"resampling from {sr} Hz to {sr_new} Hz", "take a shorter recording")
        y = soxr.resample(y.T, sr, sr_new, quality="VHQ").T
        if not y.shape[1]:  # less than half a sample at the new rate
            y = np.zeros((len(y), 1))
    if n_samples is not None and n_samples != y.shape[1]:
        y = np.pad(y[:, :n_samples], ((0, 0), (0, max(0, n_samples - y.shape[1]))))
    return y


def resampled_length(n_samples: int, sr: int, sr_new: int) -> int:
    """Return about how many samples a recording has after resampling."""
    return -(-n_samples * int(sr_new) // int(sr))


def check_rate(sr: object) -> None:
    """Raise a ValueError if `sr` is not a whole number of at least 1."""
    if isinstance(sr, np.ndarray) and sr.ndim:
        raise ValueError(f"sr has shape {sr.shape}, expected the sample rate in Hz: pass the samples before it.")
    whole_number(sr, "sr", meaning="a sample rate in Hz")


def _in_other_thread(work: Callable[[], _Result]) -> _Result:
    """Call a function in another thread and return its result.

    Python raises KeyboardInterrupt in the main thread only. libsndfile reads and writes bytes through Python callbacks
    and ignores exceptions in them, so an interrupt there would be lost, and the recording would end at this point
    without an error. With the callbacks in another thread, the interrupt is raised here, after the function has ended.
    """
    with ThreadPoolExecutor(1) as other:
        return other.submit(work).result()


class _Content(io.BytesIO):
    """The bytes of a file. In some damaged files, libsndfile seeks to before the beginning: this has no effect."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Change the position, if possible, and return it."""
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


class _Stream(soundfile.SoundFile):
    """A file that is read from its beginning to its end: soundfile seeks after each block, which may fail."""

    def seekable(self) -> bool:
        """Return that seeking is not wanted."""
        return False


def _decode(
    path: Path, content: io.BytesIO, blocks: list[np.ndarray] | None
) -> tuple[RecordingInfo, int | None, soundfile.LibsndfileError | None]:
    """Decode a file up to its end or to the first error, and append its samples to `blocks`, if they are wanted.

    Returns
    -------
    info : RecordingInfo
        What was decoded.
    n_stated : int or None
        The number of samples that the header states.
    error : LibsndfileError or None
        The first error.
    """
    n_samples, error = 0, None
    with _Stream(content) as file:
        if not LOWEST_RATE <= file.samplerate <= HIGHEST_RATE:
            raise ValueError(
                f'"{path}" has a sample rate of {file.samplerate} Hz, expected {LOWEST_RATE} to {HIGHEST_RATE} Hz: its '
                "header is damaged, or it is not a recording."
            )
        n_checked, n_between = 0, _CHECKED_BYTES // (8 * file.channels)
        while error is None:
            if blocks is not None and n_samples >= n_checked:
                check_memory(2 * _CHECKED_BYTES, f'the next part of "{path}"', "split the recording")
                n_checked = n_samples + n_between
            buffer = np.full((_BLOCK, file.channels), np.nan)
            try:
                block = file.read(out=buffer)
            except soundfile.LibsndfileError as failure:
                error = failure
                block = buffer[: int(np.argmax(np.isnan(buffer[:, -1])))]  # what was decoded before the error
            if not len(block):
                break
            n_samples += len(block)
            if blocks is not None:
                blocks.append(block)
        info = RecordingInfo(n_samples, file.channels, file.samplerate, file.format, file.subtype)
        return info, file.frames if file.frames < _UNKNOWN_LENGTH else None, error
