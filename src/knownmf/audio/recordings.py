"""Read and write recordings."""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import soundfile

from knownmf.audio.containers import header_length
from knownmf.audio.samples import HIGHEST_RATE, LOWEST_RATE, as_channels, check_rate, checked_samples
from knownmf.files import written_aside
from knownmf.memory import check_memory
from knownmf.validation import level_of_caller
from knownmf.wording import counted

__all__ = ["NotARecordingError", "RecordingInfo", "describe", "read", "write"]

# Subtypes that store floating-point samples. All others clip samples above full scale.
_FLOAT_SUBTYPES = ("FLOAT", "DOUBLE")

# In an MP3 file without a length, libsndfile estimates it. A file counts as truncated only if more than this share and
# more than this many seconds are missing, which is about as accurate. In other formats, every missing sample counts.
_MP3_SHARE, _MP3_S = 0.01, 0.1

# libsndfile returns a length of this size if the header does not state one.
_UNKNOWN_LENGTH = 2**62

_BLOCK = 2**16  # the number of samples of each channel that are decoded at a time
_CHECKED_BYTES = 2**26  # before so many bytes more are decoded, it is checked that there is memory for them

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
    return checked_samples(y, f'"{path}"'), info.sr


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
