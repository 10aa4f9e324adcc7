"""Read .npz files that may come from anywhere: the header of an array is checked before the array is decompressed."""

import contextlib
import errno
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

__all__ = ["array_header", "array_names", "array_values", "opened_archive"]

# The exceptions that zipfile and NumPy raise for damaged archives, in addition to ValueError.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
)


@contextlib.contextmanager
def opened_archive(file: BinaryIO, path: Path, remedy: str) -> Iterator[zipfile.ZipFile]:
    """Open the archive in a file. Raise a ValueError if there is none, or if it is damaged.

    Damage that is found in the body of the ``with`` statement is reported in the same way.

    Parameters
    ----------
    file : binary file
        The open file.
    path, remedy : Path and str
        The name of the file, and how to get a complete one, for the message.
    """
    try:
        with _zip_file(file) as archive:
            yield archive
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # an error of the disk; a damaged file has offsets that are invalid arguments
        raise ValueError(f'"{path}" is damaged or not an .npz file ({error}): {remedy}.') from error


def array_names(archive: zipfile.ZipFile) -> set[str]:
    """Return the names of the arrays in an archive."""
    return {name.removesuffix(".npy") for name in archive.namelist()}


def array_header(archive: zipfile.ZipFile, name: str) -> tuple[np.dtype, tuple[int, ...]]:
    """Return the type and the shape of an array in an archive, without decompressing its values.

    Raises
    ------
    ValueError
        If the array is not stored as :func:`numpy.savez` or :func:`numpy.savez_compressed` store arrays of numbers or
        text, or does not have the size that its shape needs.
    """
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others may take any amount of memory
        raise ValueError(f"{name} is compressed by a method that np.savez_compressed does not use")
    with archive.open(member) as file:
        if np.lib.format.read_magic(file) != (1, 0):  # in other versions, the length of the header has no limit
            raise ValueError(f"{name} has a format that np.save does not use for such arrays")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype.hasobject:
            raise ValueError(f"{name} contains pickled objects, which are never loaded")
        if file.tell() + dtype.itemsize * math.prod(shape) != member.file_size:
            raise ValueError(f"{name} does not have the size that its shape {shape} needs")
    return dtype, shape


def array_values(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Return an array in an archive. Its header must have been checked by :func:`array_header`."""
    with archive.open(f"{name}.npy") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _zip_file(file: BinaryIO) -> zipfile.ZipFile:
    """Return an open archive. Raise one of `_DAMAGE` if it is none."""
    try:
        return zipfile.ZipFile(file if file.seekable() else io.BytesIO(file.read()))
    except ValueError as error:  # for example because the name of a member is not valid
        raise zipfile.BadZipFile(str(error)) from error
