"""Read, write, check and resample recordings."""

import io
import os
import reprlib
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from knownmf.files import written_aside
from knownmf.validation import level_of_caller, whole_number
from knownmf.wording import counted

__all__ = ["as_channels", "check_rate", "read", "resampled", "write"]

# Subtypes that store floating-point samples. All others clip samples above full scale.
_FLOAT_SUBTYPES = ("FLOAT", "DOUBLE")

# A file counts as truncated if it ends before the stated length by more than this share and by more than this many
# seconds. Less is no sign of damage: if the header of an MP3 file has no length, libsndfile estimates it, and the
# estimate is about this accurate.
_MISSING_SHARE, _MISSING_S = 0.01, 0.1

# The largest number of channels. Microphone arrays have up to 64; what has more is a spectrogram.
MOST_CHANNELS = 64

# More channels than this without a single negative sample are a spectrogram, such as one of 12 or 40 bands.
MOST_UNSIGNED_CHANNELS = 8

# Larger samples are refused, as their squares could overflow. No recording has them.
LARGEST_SAMPLE = 1e30

# `write` warns about a peak above this multiple of full scale (40 dB): then the samples are not scaled to 1.
FAR_ABOVE_FULL_SCALE = 100

_Result = TypeVar("_Result")


def read(path: str | os.PathLike[str]) -> tuple[np.ndarray, int]:
    """Read a recording from a WAV, FLAC, OGG or MP3 file, or from another format that libsndfile supports.

    Parameters
    ----------
    path : str or path-like
        The file.

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
        If the file is not a recording, is empty, or has samples that are not finite. The message names the file.

    Warns
    -----
    UserWarning
        If the file ends before the length that its header states.
    """
    path = Path(path)
    content = io.BytesIO(path.read_bytes())  # raises OSError for a missing file, a folder or a disk error
    try:
        y, sr, n_stated = _in_other_thread(lambda: _decode(content))
    except soundfile.LibsndfileError as error:
        raise ValueError(
            f'"{path}" is not a recording that can be read ({error.error_string}): pass a WAV, FLAC, OGG or MP3 file.'
        ) from error
    if n_stated - len(y) > max(_MISSING_SHARE * n_stated, _MISSING_S * sr):
        warnings.warn(
            f'"{path}" ends after {len(y) / sr:.2f} s, but its header states {n_stated / sr:.2f} s: '
            "the file is truncated or damaged. The samples up to there are used.",
            UserWarning,
            stacklevel=level_of_caller(),
        )
    try:
        return _checked(y.T), sr
    except ValueError as error:
        raise ValueError(f'"{path}": {error}') from error


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
    samples = _checked(samples)
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


def _checked(samples: np.ndarray) -> np.ndarray:
    """Return samples of shape (n_channels, n_samples). Raise a ValueError if there are none, or one cannot be used."""
    if not samples.size:
        raise ValueError("the recording is empty: it has no samples.")
    faulty = int(np.count_nonzero(~np.isfinite(samples)))
    if faulty:
        are = "is" if faulty == 1 else "are"
        raise ValueError(
            f"the recording has {counted(faulty, 'sample')} that {are} infinite or not a number: replace them first."
        )
    peak = max(samples.max(), -samples.min())
    if peak > LARGEST_SAMPLE:
        raise ValueError(f"the recording has a peak of {peak:.3g} times full scale: scale it to a peak of 1 first.")
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
        If a sample rate is not a whole number above 0.
    """
    check_rate(sr)
    check_rate(sr_new)
    if sr != sr_new:
        y = soxr.resample(y.T, sr, sr_new, quality="VHQ").T
    if n_samples is not None and n_samples != y.shape[1]:
        y = np.pad(y[:, :n_samples], ((0, 0), (0, max(0, n_samples - y.shape[1]))))
    return y


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


def _decode(content: io.BytesIO) -> tuple[np.ndarray, int, int]:
    """Return samples of shape (n_samples, n_channels), their sample rate, and the number that the header states."""
    with soundfile.SoundFile(content) as file:
        return file.read(dtype="float64", always_2d=True), file.samplerate, file.frames
