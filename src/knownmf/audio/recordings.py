"""Read and write recordings, whole or in blocks."""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self, TypeVar

import numpy as np
import numpy.typing as npt
import soundfile

from knownmf.audio.containers import HeaderLength, header_length
from knownmf.audio.samples import (
    HIGHEST_RATE,
    LOWEST_RATE,
    Recording,
    Samples,
    as_channels,
    check_rate,
    checked_samples,
    joined,
)
from knownmf.files import errors_with_name, written_aside
from knownmf.memory import check_memory
from knownmf.threads import other_threads, read_ahead
from knownmf.validation import level_of_caller
from knownmf.wording import counted

__all__ = [
    "NotARecordingError",
    "RecordingFile",
    "RecordingInfo",
    "RecordingWriter",
    "describe",
    "opened",
    "read",
    "wav_format",
    "write",
]

# Subtypes that store floating-point samples. All others clip samples above full scale.
_FLOAT_SUBTYPES = ("FLOAT", "DOUBLE")

# In an MP3 file without a length, libsndfile estimates it. A file counts as truncated only if more than this share and
# more than this many seconds are missing, which is about as accurate. In other formats, every missing sample counts.
_MP3_SHARE, _MP3_S = 0.01, 0.1

# A WAV file has sizes of 32 bits. An MP3 file without a length in its header may be this factor longer than estimated.
_LARGEST_WAV = 2**32
_MP3_FACTOR = 8

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
    blocks: list[np.ndarray] = []
    n_between = n_unchecked = 0
    with RecordingFile(path) as file, contextlib.closing(read_ahead(file.blocks(_BLOCK))) as decoded:
        n_between = _CHECKED_BYTES // (8 * file.n_channels)
        for block in decoded:
            if n_unchecked <= 0:
                check_memory(2 * _CHECKED_BYTES, f"the next part of {file.name}", "split the recording")
                n_unchecked = n_between
            n_unchecked -= block.shape[1]
            blocks.append(block)
        file.warn()
        return checked_samples(joined(blocks, 1, "C"), file.name), file.sr


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
    with RecordingFile(path) as file, contextlib.closing(read_ahead(file.blocks(_BLOCK))) as decoded:
        n_samples = sum(block.shape[1] for block in decoded)
        file.warn()
        return RecordingInfo(n_samples, file.n_channels, file.sr, file.format, file.subtype)


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

    def encode() -> None:
        writer = RecordingWriter(content, path, int(sr), len(y), format_name, subtype)
        writer.write(y)
        writer.close()

    _in_other_thread(encode)
    with written_aside(path) as file:
        file.write(content.getbuffer())


@contextlib.contextmanager
def opened(
    y: npt.ArrayLike | str | os.PathLike[str], sr: int | None, outputs: Iterable[Path] = ()
) -> Iterator[Recording]:
    """Yield what the user passed, samples and their sample rate or the name of a file, as a recording.

    Parameters
    ----------
    y, sr
        What the user passed.
    outputs : iterable of Path
        The files and folders that will be replaced. A recording in one of them would be lost.

    Raises
    ------
    OSError, ValueError
        If the samples or their sample rate are not valid, if the file cannot be read or would be replaced, or if `sr`
        is passed with a file.
    """
    if not isinstance(y, str | os.PathLike):
        channels = as_channels(y)
        check_rate(sr)
        yield Samples(channels, int(sr))  # type: ignore[arg-type]  # it was checked
        return
    if sr is not None:
        raise ValueError(
            f'sr is {sr!r}, but "{os.fspath(y)}" is a file, which states its sample rate: pass sr=None, or pass '
            "samples, which knownmf.audio.read returns."
        )
    if any(_is_inside(Path(y), output) for output in outputs):
        raise ValueError(f'out would replace the recording "{os.fspath(y)}": choose another file or folder.')
    with RecordingFile(y) as file:
        yield file


def _is_inside(path: Path, place: Path) -> bool:
    """Return whether a file is another file or is in a folder, under any of their names."""
    path, place = Path(os.path.realpath(path)), Path(os.path.realpath(place))
    return place.exists() and any(each.exists() and each.samefile(place) for each in (path, *path.parents))


class RecordingFile:
    """A file that is decoded in blocks, as often as needed. A context manager, which closes the file.

    All methods but ``warn`` call libsndfile. Call them in another thread than the main thread, see
    :func:`_in_other_thread`; the constructor does so itself.

    Parameters
    ----------
    path : str or path-like
        The file. What cannot be read twice, such as a pipe, is copied into a temporary file.

    Attributes
    ----------
    name : str
        The path in quotation marks, for messages.
    sr, n_channels, n_samples
        As in :class:`knownmf.audio.samples.Recording`.
    format, subtype : str
        How libsndfile names the format of the file, and how its samples are stored.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.name = f'"{self.path}"'
        self._damage: str | None = None
        self._is_known = False  # whether a pass has found out about the damage
        with contextlib.ExitStack() as stack:
            self._file = stack.enter_context(_rereadable(self.path))
            self._length = header_length(self._file)
            _in_other_thread(self._look)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def warn(self) -> None:
        """Warn, once, if the last pass over the file has found that it is cut off or damaged."""
        if self._damage is not None:
            warnings.warn(self._damage, UserWarning, stacklevel=level_of_caller())
            self._damage = None

    def blocks(self, n_samples: int) -> Generator[np.ndarray, None, None]:
        """Decode the file from its beginning up to its end, or to where it is damaged.

        Yields
        ------
        ndarray of shape (n_channels, n_samples)
            The next samples; the last block may be shorter.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If there are no samples, or some are not finite.
        """
        n_decoded, error = 0, None
        with self._open() as (content, file):
            while error is None:
                block, error = _next_block(file, n_samples)
                content.check()
                if not len(block):
                    break
                where = f"{self.name}, from {n_decoded / self.sr:.1f} s on," if n_decoded else self.name
                n_decoded += len(block)
                yield checked_samples(block.T, where)
        self._finish(n_decoded, error)

    def _look(self) -> None:
        """Set the attributes that the header states."""
        with self._open() as (_, file):
            if not LOWEST_RATE <= file.samplerate <= HIGHEST_RATE:
                raise ValueError(
                    f"{self.name} has a sample rate of {file.samplerate} Hz, expected {LOWEST_RATE} to {HIGHEST_RATE} "
                    "Hz: its header is damaged, or it is not a recording."
                )
            self.sr, self.n_channels = file.samplerate, file.channels
            self.format, self.subtype = file.format, file.subtype
            self._n_stated = file.frames if file.frames < _UNKNOWN_LENGTH else None
            self.n_samples: int | None = self._n_stated or None

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[_Content, _Stream]]:
        """Yield the bytes of the file and the decoder at its beginning."""
        content = _Content(self._file, self._length, self.path)
        try:
            with _Stream(content) as file:
                yield content, file
        except soundfile.LibsndfileError as failure:
            content.check()
            raise self._no_recording(failure) from failure

    def _no_recording(self, failure: soundfile.LibsndfileError) -> NotARecordingError:
        """Return the error for a file that libsndfile cannot read at all."""
        return NotARecordingError(
            f"{self.name} is not a recording that can be read ({failure.error_string.rstrip(' .')}): pass a WAV, FLAC, "
            "OGG, MP3 or AIFF file, or convert it to one of these."
        )

    def _finish(self, n_decoded: int, error: soundfile.LibsndfileError | None) -> None:
        """Set the length to what was decoded, and describe what is missing."""
        if error is not None and not n_decoded:
            raise self._no_recording(error) from error
        ratio, n_stated, sr = self._length.ratio, self._n_stated, self.sr
        if ratio > 1:
            n_stated = None if math.isinf(ratio) else round(n_decoded * ratio)
        elif n_stated is not None and n_stated - n_decoded <= _tolerated(n_stated, sr, self.format):
            n_stated = None
        is_damaged = ratio > 1 or n_stated is not None or error is not None
        if not n_decoded:
            if is_damaged:
                raise NotARecordingError(f"{self.name} ends before its first sample: the file is truncated or damaged.")
            raise ValueError(f"{self.name} is empty: it has no samples.")
        if is_damaged and not self._is_known:
            stated = "" if n_stated is None else f", but its header states {n_stated / sr:.2f} s"
            self._damage = (
                f"{self.name} ends after {n_decoded / sr:.2f} s{stated}: the file is truncated or damaged. The samples "
                "up to there are used."
            )
        self.n_samples, self._is_known = n_decoded, True


class RecordingWriter:
    """Encode a recording in blocks.

    All methods call libsndfile: call them in another thread than the main thread, see :func:`_in_other_thread`.

    Parameters
    ----------
    file : file object
        Where to write; it must be seekable.
    path : Path
        The name of the file for messages.
    sr, n_channels : int
        Sample rate in Hz and number of channels.
    format_name, subtype : str
        As in soundfile.

    Raises
    ------
    OSError
        If the file cannot be written.
    ValueError
        If the format does not support this.
    """

    def __init__(self, file: BinaryIO, path: Path, sr: int, n_channels: int, format_name: str, subtype: str):
        self._content = _Content(file, path=path)
        self._most = math.inf if format_name != "WAV" else (_LARGEST_WAV - 4096) // (4 * n_channels)
        self._path = path
        try:
            self._encoder = soundfile.SoundFile(self._content, "w", sr, n_channels, format=format_name, subtype=subtype)
        except (soundfile.LibsndfileError, OverflowError) as error:
            self._content.check()
            raise ValueError(
                f'"{path}": {format_name} files with {subtype} cannot store {counted(n_channels, "channel")} at {sr} '
                "Hz: write a .wav file, or reduce the number of channels or resample the recording to a common sample "
                "rate."
            ) from error

    def close(self) -> None:
        """Complete the file."""
        try:
            self._encoder.close()
        finally:
            self._content.check()

    def discard(self) -> None:
        """Release the encoder, if it was not closed, of a file that is not needed any more."""
        with contextlib.suppress(soundfile.LibsndfileError):
            self._encoder.close()

    def write(self, y: np.ndarray) -> None:
        """Write the next samples, of shape (n_channels, n_samples)."""
        self._most -= y.shape[1]
        if self._most < 0:
            raise ValueError(
                f'"{self._path}": the file would have more than 4 GiB, which WAV files cannot have, as the recording '
                "is longer than its header states: convert the recording to a FLAC or WAV file first."
            )
        samples = y.T.astype(np.float32, order="C") if self._encoder.subtype == "FLOAT" else y.T
        try:
            self._encoder.write(samples)
        except (soundfile.LibsndfileError, AssertionError):
            self._content.check()
            raise


def wav_format(recording: Recording) -> str:
    """Return the format of a .wav file with 32-bit floats for a recording: "RF64" if a WAV file may be too small.

    RF64 is WAV with sizes of 64 bits. Most programs that read WAV files read both.
    """
    if recording.n_samples is None:
        return "RF64"
    is_estimated = isinstance(recording, RecordingFile) and recording.format == "MP3"
    n_bytes = 4 * recording.n_channels * recording.n_samples * (_MP3_FACTOR if is_estimated else 1)
    return "WAV" if n_bytes < _LARGEST_WAV - 2**20 else "RF64"


def _tolerated(n_stated: int, sr: int, format_name: str) -> float:
    """Return how many samples may be missing in a file with this length in its header."""
    return max(_MP3_SHARE * n_stated, _MP3_S * sr) if format_name == "MP3" else 0


def _in_other_thread(work: Callable[[], _Result]) -> _Result:
    """Call a function in another thread and return its result.

    Python raises KeyboardInterrupt in the main thread only. libsndfile reads and writes bytes through Python callbacks
    and ignores exceptions in them, so an interrupt there would be lost, and the recording would end at this point
    without an error. With the callbacks in another thread, the interrupt is raised here, after the function has ended.
    """
    with other_threads() as other:
        return other.submit(work).result()


@contextlib.contextmanager
def _rereadable(path: Path) -> Iterator[BinaryIO]:
    """Yield an open file that is seekable: the file itself, or a temporary copy of what is none, such as a pipe."""
    if path.is_dir():
        raise IsADirectoryError(
            errno.EISDIR, "this is a folder, expected a recording: pass one file at a time", str(path)
        )
    with contextlib.ExitStack() as stack:
        file: BinaryIO = stack.enter_context(path.open("rb"))  # raises OSError for a missing file
        start = file.read(1)  # raises OSError after a disk error
        if not start:
            raise NotARecordingError(f'"{path}" is empty: it has no bytes. Copy or record it again.')
        if not file.seekable():
            copy = stack.enter_context(tempfile.TemporaryFile())
            with errors_with_name(Path(tempfile.gettempdir())):
                copy.write(start)
                shutil.copyfileobj(file, copy)
                copy.flush()
            file = copy
        yield file


class _Content:
    """The bytes of a file for libsndfile, which ignores exceptions: the first one is kept, and raised by ``check``.

    Parameters
    ----------
    file : file object
        The file.
    length : HeaderLength, optional
        What to change in the header while it is read.
    path : Path, optional
        The name of the file for errors.
    """

    def __init__(self, file: BinaryIO, length: HeaderLength | None = None, path: Path | None = None):
        self._file, self._path = file, path
        self._error: OSError | None = None
        self._begin, self._field = (length.position, length.field) if length else (0, b"")
        self._position, self._size = 0, file.seek(0, os.SEEK_END)

    def check(self) -> None:
        """Raise the error that libsndfile has ignored, if there was one."""
        if self._error is not None:
            if self._path is not None:
                self._error.filename = str(self._path)
            raise self._error

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Change the position and return it. In damaged files, libsndfile seeks to impossible ones: nothing happens."""
        target = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if 0 <= target < 2**63:
            self._position = target
        return self._position

    def readinto(self, buffer: bytearray) -> int:
        """Read bytes at the position into a buffer, and return their number."""
        try:
            self._file.seek(self._position)
            n_bytes = self._file.readinto(buffer)  # type: ignore[attr-defined]  # binary files have it
        except OSError as error:
            self._error = self._error or error
            return 0
        begin = self._begin - self._position
        changed = slice(max(0, begin), min(n_bytes, begin + len(self._field)))
        if changed.start < changed.stop:
            buffer[changed] = self._field[changed.start - begin : changed.stop - begin]
        self._position += n_bytes
        return n_bytes

    def write(self, data: bytes) -> int:
        """Write bytes at the position, and return their number."""
        try:
            self._file.seek(self._position)
            self._file.write(data)
        except OSError as error:
            self._error = self._error or error
            return 0
        self._position += len(data)
        self._size = max(self._size, self._position)
        return len(data)


class _Stream(soundfile.SoundFile):
    """A file that is read from its beginning to its end: soundfile seeks after each block, which may fail."""

    def seekable(self) -> bool:
        """Return that seeking is not wanted."""
        return False


def _next_block(file: soundfile.SoundFile, n_samples: int) -> tuple[np.ndarray, soundfile.LibsndfileError | None]:
    """Return the next samples, of shape (n_samples, n_channels), and the error that ended them, if there was one."""
    buffer = np.full((n_samples, file.channels), np.nan)
    try:
        return file.read(out=buffer), None
    except soundfile.LibsndfileError as error:
        return buffer[: int(np.argmax(np.isnan(buffer[:, -1])))], error  # what was decoded before the error
