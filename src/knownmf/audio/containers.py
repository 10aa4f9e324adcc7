"""Compare the length that the header of a sound file states with the data that the file has.

libsndfile reads a file that was cut off as if it were complete, and some files whose header states no length as empty.
"""

import math
import os
import struct
from typing import BinaryIO, NamedTuple

__all__ = ["HeaderLength", "header_length"]


class HeaderLength(NamedTuple):
    """What the header of a file says about its length.

    Attributes
    ----------
    ratio : float
        How many times more data the file should have than it has: 1 if it is complete, if its header states no length,
        or if its format is not known here; infinity if it breaks off, and nothing says where it should end.
    position, field : int and bytes
        What has to be written into the header, so that libsndfile reads all the data that are there; no bytes if
        nothing has to change.
    """

    ratio: float
    position: int = 0
    field: bytes = b""


class _Chunks(NamedTuple):
    """How a format divides files into chunks, each with an identifier and a size."""

    start: int  # position of the first chunk
    id_length: int  # bytes
    size_format: str  # of the module struct
    counts_itself: bool  # whether the size of a chunk includes its identifier and its size
    alignment: int  # bytes
    samples: bytes  # identifier of the chunk with the samples
    skipped: int  # bytes at the beginning of this chunk that are no samples

    @property
    def header(self) -> int:
        """Return the number of bytes of an identifier and a size."""
        return self.id_length + struct.calcsize(self.size_format)


_FORMATS = {
    b"RIFF": _Chunks(12, 4, "<I", False, 2, b"data", 0),
    b"RIFX": _Chunks(12, 4, ">I", False, 2, b"data", 0),
    b"RF64": _Chunks(12, 4, "<I", False, 2, b"data", 0),
    b"FORM": _Chunks(12, 4, ">I", False, 2, b"SSND", 8),  # AIFF
    b"riff": _Chunks(40, 16, "<Q", True, 8, b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a", 0),  # W64
    b"caff": _Chunks(8, 4, ">Q", False, 1, b"data", 4),
}

# RF64 files have the real size at this position if the size of the chunk is the largest number.
_RF64_SIZE = 28

# Programs that cannot go back to the header write 0 or one of these. No file has a size of 64 bits above the limit.
_UNKNOWN_32_BIT = (range(0x7F000000, 0x80000001), range(0xFFFFFF00, 0x100000000))
_UNKNOWN_64_BIT = 2**62

_LARGEST_PAGE = 27 + 255 + 255 * 255  # of an Ogg file, in bytes


class _Size(NamedTuple):
    """The field in a header that states the size of the samples."""

    position: int
    format: str  # of the module struct
    extra: int  # how many bytes it counts that are no samples
    begin: int  # position of the samples


def header_length(file: BinaryIO) -> HeaderLength:
    """Return what the header of a sound file says about its length. Only the headers of its chunks are read.

    Parameters
    ----------
    file : file object
        The file, open for reading and seekable. Its position changes.
    """
    magic, n_bytes = _bytes_at(file, 0, 12), file.seek(0, os.SEEK_END)
    if magic[:4] == b"OggS":
        return HeaderLength(1.0 if _has_last_page(file, n_bytes) else math.inf)
    chunks = _FORMATS.get(magic[:4])
    if magic[:4] == b".snd" and len(magic) == 12:  # AU
        size: _Size | None = _Size(8, ">I", 0, struct.unpack_from(">I", magic, 4)[0])
    else:
        size = _size_in_chunks(file, chunks) if chunks else None
    if size is None or n_bytes <= size.begin:
        return HeaderLength(1.0)
    n_size = struct.calcsize(size.format)
    value, actual = struct.unpack(size.format, _bytes_at(file, size.position, n_size))[0], n_bytes - size.begin
    if 0 < value - size.extra <= actual or (
        chunks and value <= size.extra and _only_chunks(file, size.begin, n_bytes, chunks)
    ):
        return HeaderLength(1.0)
    field = struct.pack(size.format, min(actual + size.extra, 256**n_size - 1))
    if value <= size.extra or _means_unknown(value, size.format):
        return HeaderLength(1.0, size.position, field)
    return HeaderLength((value - size.extra) / actual, size.position, field)


def _bytes_at(file: BinaryIO, position: int, number: int) -> bytes:
    """Return some bytes of a file, fewer at its end, none beyond it."""
    if position >= 2**63:  # from a damaged header; no file is so long
        return b""
    file.seek(position)
    return file.read(number)


def _size_in_chunks(file: BinaryIO, chunks: _Chunks) -> _Size | None:
    """Return the field with the size of the samples, or None if there are no samples."""
    position = chunks.start
    while len(header := _bytes_at(file, position, chunks.header)) == chunks.header:
        field = position + chunks.id_length
        if header[: chunks.id_length] == chunks.samples:
            begin = position + chunks.header + chunks.skipped
            extra = chunks.skipped + (chunks.header if chunks.counts_itself else 0)
            if header[chunks.id_length :] == b"\xff" * 4 and _bytes_at(file, 0, 4) == b"RF64":
                return _Size(_RF64_SIZE, "<Q", extra, begin)
            return _Size(field, chunks.size_format, extra, begin)
        position = _next_chunk(header, position, chunks)
    return None


def _next_chunk(header: bytes, position: int, chunks: _Chunks) -> int:
    """Return the position of the chunk after the one at `position`, whose identifier and size are `header`."""
    (size,) = struct.unpack_from(chunks.size_format, header, chunks.id_length)
    end = position + max(size, chunks.header) if chunks.counts_itself else position + chunks.header + size
    return int(end + -end % chunks.alignment)


def _only_chunks(file: BinaryIO, position: int, n_bytes: int, chunks: _Chunks) -> bool:
    """Return whether a file consists of chunks with readable identifiers from `position` on, and not of samples."""
    while position + chunks.header <= n_bytes:
        header = _bytes_at(file, position, chunks.header)
        if not all(32 <= byte < 127 for byte in header[:4]):
            return False
        position = _next_chunk(header, position, chunks)
    return position - n_bytes in range(chunks.alignment)


def _means_unknown(value: int, size_format: str) -> bool:
    """Return whether a size stands for an unknown length."""
    if struct.calcsize(size_format) == 8:
        return value >= _UNKNOWN_64_BIT
    return any(value in sizes for sizes in _UNKNOWN_32_BIT)


def _has_last_page(file: BinaryIO, n_bytes: int) -> bool:
    """Return whether an Ogg file ends with a complete page that is marked as the last one of its stream."""
    content = _bytes_at(file, max(0, n_bytes - 2 * _LARGEST_PAGE), 2 * _LARGEST_PAGE)
    position = content.rfind(b"OggS")
    page = content[position : position + 27]
    if len(page) < 27 or len(content) < position + 27 + page[26]:
        return False
    end = position + 27 + page[26] + sum(content[position + 27 : position + 27 + page[26]])
    return bool(page[5] & 4) and end <= len(content)
