"""Recordings: files to samples and back."""

import io
import os
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
from knownmf.validation import whole_number

__all__ = ["as_channels", "check_rate", "read", "resampled", "write"]

# Formats whose samples are whole numbers clip at full scale.
_FLOAT_SUBTYPES = ("FLOAT", "DOUBLE")

# Where the header of an MP3 file does not say how long it is, libsndfile's estimate is about this good.
_MISSING_SHARE, _MISSING_S = 0.01, 0.1

_Result = TypeVar("_Result")


def read(path: str | os.PathLike[str]) -> tuple[np.ndarray, int]:
    """Read a recording: WAV, FLAC, OGG, MP3 and whatever else libsndfile knows.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    y : ndarray of shape (n_channels, n_samples)
        The samples as float64, full scale at 1.
    sr : int
        Sample rate in Hz.

    Raises
    ------
    OSError
        If the file cannot be opened, or not be read to its end.
    ValueError
        If it is not a recording, is empty, or has samples that are not finite; the message names the file.

    Warns
    -----
    UserWarning
        If the file breaks off before the end that its header promises.
    """
    path = Path(path)
    content = io.BytesIO(path.read_bytes())  # an ordinary OSError for what is missing, a folder, or a broken disk
    try:
        y, sr, n_promised = _undisturbed(lambda: _decoded(content))
    except soundfile.LibsndfileError as error:
        raise ValueError(
            f'"{path}" is not a recording that can be read ({error.error_string}): WAV, FLAC, OGG and MP3 files can.'
        ) from error
    if n_promised - len(y) > max(_MISSING_SHARE * n_promised, _MISSING_S * sr):
        warnings.warn(
            f'"{path}" breaks off after {len(y) / sr:.2f} s, but its header promises {n_promised / sr:.2f} s: '
            "it is cut off or damaged. What is there is used.",
            UserWarning,
            stacklevel=2,
        )
    try:
        return as_channels(y.T), sr
    except ValueError as error:
        raise ValueError(f'"{path}": {error}') from error


def write(path: str | os.PathLike[str], y: npt.ArrayLike, sr: int, subtype: str | None = None) -> None:
    """Write a recording; the file's extension names the format.

    The file is written aside and then renamed: whoever reads `path` sees the old file or the whole new one.

    Parameters
    ----------
    path : str or path-like
        Ends in ``.wav``, ``.flac``, ``.ogg`` or another extension that libsndfile knows.
    y : array_like of shape (n_samples,) or (n_channels, n_samples)
        Samples, full scale at 1.
    sr : int
        Sample rate in Hz.
    subtype : str, optional
        How samples are stored, as :func:`soundfile.available_subtypes` lists them. By default WAV files hold 32-bit
        floats, so that nothing clips and stems still add up; FLAC holds 24 bits; others what libsndfile chooses.

    Raises
    ------
    OSError
        If the file cannot be written.
    ValueError
        If the format is unknown, or cannot hold so many channels or such a sample rate, or samples beyond full scale
        would be clipped by a format that stores whole numbers.
    """
    path = Path(path)
    y = as_channels(y)
    check_rate(sr)
    format_name = path.suffix[1:].upper()
    format_name = {"AIF": "AIFF", "OGA": "OGG"}.get(format_name, format_name)
    if format_name not in soundfile.available_formats():
        raise ValueError(f'"{path}" does not name a format: end it with .wav, .flac or .ogg.')
    if subtype is None:
        subtype = {"WAV": "FLOAT", "FLAC": "PCM_24"}.get(format_name, soundfile.default_subtype(format_name))
    if not soundfile.check_format(format_name, subtype):
        known = ", ".join(soundfile.available_subtypes(format_name))
        raise ValueError(f'"{path}": {format_name} files cannot hold {subtype}; choose one of {known}.')
    peak = float(np.abs(y).max())
    if peak > 1 and subtype not in _FLOAT_SUBTYPES:
        raise ValueError(
            f'"{path}": the peak is {peak:.3g} times full scale and {subtype} would clip it: '
            "write a .wav file with subtype FLOAT, or scale the recording down."
        )
    content = io.BytesIO()
    try:
        _undisturbed(lambda: soundfile.write(content, y.T, int(sr), format=format_name, subtype=subtype))
    except (soundfile.LibsndfileError, OverflowError) as error:
        raise ValueError(
            f'"{path}": {format_name} files with {subtype} cannot hold {_counted(len(y), "channel")} at {sr} Hz: '
            "write a .wav file, or bring the recording to fewer channels or a usual sample rate."
        ) from error
    with written_aside(path) as file:
        file.write(content.getbuffer())


def as_channels(y: npt.ArrayLike) -> np.ndarray:
    """The samples as a float64 array of shape (n_channels, n_samples), checked.

    Parameters
    ----------
    y : array_like of shape (n_samples,) or (n_channels, n_samples)
        Samples, of floating type with full scale at 1.

    Returns
    -------
    ndarray of shape (n_channels, n_samples)
        A view of `y` where it has the right type and axes.

    Raises
    ------
    ValueError
        If there are no samples, or some are not finite, or the shape or type is another.
    """
    samples = np.asarray(y)
    if samples.dtype.kind != "f":
        raise ValueError(f"the samples are of type {samples.dtype}; floats with full scale at 1 are needed.")
    samples = np.atleast_2d(samples.astype(np.float64, copy=False))
    if samples.ndim != 2:
        raise ValueError(f"the samples have shape {samples.shape}; (n_channels, n_samples) is needed.")
    if not samples.size:
        raise ValueError("the recording is empty: it has no samples.")
    faulty = int(np.count_nonzero(~np.isfinite(samples)))
    if faulty:
        are = "is" if faulty == 1 else "are"
        raise ValueError(
            f"the recording has {_counted(faulty, 'sample')} that {are} infinite or not a number: repair it first."
        )
    return samples


def resampled(y: np.ndarray, sr: int, sr_new: int, n_samples: int | None = None) -> np.ndarray:
    """The recording at another sample rate.

    Parameters
    ----------
    y : ndarray of shape (n_channels, n_samples)
        Samples at `sr`.
    sr, sr_new : int
        Sample rates in Hz.
    n_samples : int, optional
        Cut or fill with zeros to this length; by default what `soxr` returns.

    Returns
    -------
    ndarray of shape (n_channels, n_samples)
        Samples at `sr_new`; `y` itself where nothing has to change.

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
    """Raise a ValueError unless `sr` is a whole number of at least 1."""
    whole_number(sr, "sr", meaning="a sample rate in Hz")


def _undisturbed(work: Callable[[], _Result]) -> _Result:
    """Do the work in another thread, where no Ctrl-C is raised; it is raised here, once the work is done.

    libsndfile calls back into Python for its bytes, and what is raised in such a call is lost: the recording ends there
    as if it had no more.
    """
    with ThreadPoolExecutor(1) as other:
        return other.submit(work).result()


def _decoded(content: io.BytesIO) -> tuple[np.ndarray, int, int]:
    """Samples of shape (n_samples, n_channels), their rate, and how many samples the header promises."""
    with soundfile.SoundFile(content) as file:
        return file.read(dtype="float64", always_2d=True), file.samplerate, file.frames


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
