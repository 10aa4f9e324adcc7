"""Arrays that are read in slices, such as those on disk: which ones they are, and which slices are read."""

from __future__ import annotations

import math
import mmap
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from scipy.sparse import issparse

from knownmf.observations import Axes
from knownmf.solver import GROUP
from knownmf.validation import level_of_caller

# What is read at a time: large enough that reading and handing over cost much less than the work, small next to the
# memory of any machine. A block is larger if the chunks in which the array is stored are, up to the second number:
# otherwise each chunk would be read several times.
BLOCK_BYTES, LARGEST_BLOCK_BYTES = 2**26, 2**28

CERTIFICATE_BYTES = 64.0  # what the results of a frame take besides its activations

IN_MEMORY = (np.ndarray, float, int, list, type(None))  # types for which no further question need be asked


def is_sliced(values: Any) -> bool:
    """Return whether an array is read in slices: a large one on disk, or one that is not NumPy's but can be sliced."""
    if type(values) in IN_MEMORY:
        return False
    if isinstance(values, np.ndarray):
        return isinstance(values, np.memmap) and values.nbytes > BLOCK_BYTES
    if issparse(values) or hasattr(values, "iloc") or not hasattr(values, "__getitem__"):
        return False
    shape, dtype = getattr(values, "shape", None), getattr(values, "dtype", None)
    return isinstance(shape, tuple) and len(shape) > 0 and isinstance(dtype, np.dtype)


def read_whole(values: Any) -> np.ndarray:
    """Read an array that is read in slices as a whole."""
    return np.asarray(values[(slice(None),) * len(values.shape)])


def n_dims_of(values: Any) -> int:
    """Return the number of dimensions of an array, which is not read for that."""
    return len(values.shape) if is_sliced(values) else np.ndim(values)


def slices_of(
    arrays: Mapping[str, Any], axes_of: Mapping[str, int], n_frames: int, n_components: int, axes: Axes
) -> list[slice]:
    """Return blocks of frames that are large enough and, where possible, whole chunks of what they are read from.

    Parameters
    ----------
    arrays : mapping of arrays
        The arrays that are read.
    axes_of : mapping of int
        Their axes of frames.
    n_frames, n_components : int
        The numbers of frames, and of components.
    axes : Axes
        The names of the axes, for messages.
    """
    of_frame = 8.0 * n_components + CERTIFICATE_BYTES
    for values in arrays.values():
        of_frame += 8.0 if issparse(values) else values.dtype.itemsize * math.prod(values.shape) / max(n_frames, 1)
    size, most = (max(1, int(n_bytes / of_frame)) for n_bytes in (BLOCK_BYTES, LARGEST_BLOCK_BYTES))
    stored = min(stored_frames(arrays, axes_of), n_frames)
    if stored > most:
        warnings.warn(
            f"{axes.data} is stored in chunks of {stored} {axes.frames}, of which {size} fit into a block: each chunk "
            f"is read {-(-stored // size)} times. Store it in smaller chunks if that is slow.",
            UserWarning,
            stacklevel=level_of_caller(),
        )
    elif stored > 1:
        size = stored * max(1, size // stored)
    elif size > GROUP:
        size -= size % GROUP
    return [slice(first, min(first + size, n_frames)) for first in range(0, n_frames, size)] or [slice(0, 0)]


def stored_frames(arrays: Mapping[str, Any], axes_of: Mapping[str, int]) -> int:
    """Return the largest number of frames that a chunk has in which an array is stored; 1 if there are no chunks."""
    stored = 1
    for name, values in arrays.items():
        chunks = getattr(values, "chunks", None)
        if is_sliced(values) and isinstance(chunks, tuple) and all(isinstance(width, int) for width in chunks):
            stored = max(stored, chunks[axes_of[name]])
    return stored


def release(arrays: Iterable[Any]) -> None:
    """Let the system take back the memory of the pages of files that have been read or written."""
    for values in arrays:
        pages = getattr(values, "_mmap", None) if isinstance(values, np.memmap) else None
        # Mappings in mode "c" are not shared with the file: changes would be lost.
        if isinstance(pages, mmap.mmap) and values.mode in ("r", "r+", "w+") and hasattr(pages, "madvise"):
            pages.madvise(mmap.MADV_DONTNEED)
