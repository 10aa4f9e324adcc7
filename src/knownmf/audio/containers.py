"""Compare the length that the header of a sound file states with the data that the file has.

libsndfile reads a file that was cut off as if it were complete, and some files whose header states no length as empty.
"""

import math
import struct
from typing import NamedTuple

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


class _Size(NamedTuple):
    """The field in a header that states the size of the samples."""

    position: int
    format: str  # of the module struct
    extra: int  # how many bytes it counts that are no samples
    begin: int  # position of the samples


def header_length(content: bytes) -> HeaderLength:
    """Return what the header of a sound file says about its length.

    Parameters
    ----------
    content : bytes
        The file.
    """
    magic = content[:4]
    if magic == b"OggS":
        return HeaderLength(1.0 if _has_last_page(content) else math.inf)
    chunks = _FORMATS.get(magic)
    if magic == b".snd" and len(content) >= 12:  # AU
        size: _Size | None = _Size(8, ">I", 0, struct.unpack_from(">I", content, 4)[0])
    else:
        size = _size_in_chunks(content, chunks) if chunks else None
    if size is None or len(content) <= size.begin:
        return HeaderLength(1.0)
    value, actual = struct.unpack_from(size.format, content, size.position)[0], len(content) - size.begin
    if 0 < value - size.extra <= actual or (
        chunks and value <= size.extra and _only_chunks(content, size.begin, chunks)
    ):
        return HeaderLength(1.0)
    largest = 256 ** struct.calcsize(size.format) - 1
    field = struct.pack(size.format, min(actual + size.extra, largest))
    if value <= size.extra or _means_unknown(value, size.format):
        return HeaderLength(1.0, size.position, field)
    return HeaderLength((value - size.extra) / actual, size.position, field)


def _size_in_chunks(content: bytes, chunks: _Chunks) -> _Size | None:
    """Return the field with the size of the samples, or None if there are no samples."""
    position = chunks.start
    while position + chunks.header <= len(content):
        identifier = content[position : position + chunks.id_length]
        field = position + chunks.id_length
        if identifier == chunks.samples:
            begin = position + chunks.header + chunks.skipped
            extra = chunks.skipped + (chunks.header if chunks.counts_itself else 0)
            if content.startswith(b"RF64") and content[field : field + 4] == b"\xff" * 4:
                return _Size(_RF64_SIZE, "<Q", extra, begin)
            return _Size(field, chunks.size_format, extra, begin)
        position = _next_chunk(content, position, chunks)
    return None


def _next_chunk(content: bytes, position: int, chunks: _Chunks) -> int:
    """Return the position of the chunk after the one at `position`."""
    (size,) = struct.unpack_from(chunks.size_format, content, position + chunks.id_length)
    end = position + max(size, chunks.header) if chunks.counts_itself else position + chunks.header + size
    return int(end + -end % chunks.alignment)


def _only_chunks(content: bytes, position: int, chunks: _Chunks) -> bool:
    """Return whether a file consists of chunks with readable identifiers from `position` on, and not of samples."""
    while position + chunks.header <= len(content):
        if not all(32 <= byte < 127 for byte in content[position : position + 4]):
            return False
        position = _next_chunk(content, position, chunks)
    return position - len(content) in range(chunks.alignment)


def _means_unknown(value: int, size_format: str) -> bool:
    """Return whether a size stands for an unknown length."""
    if struct.calcsize(size_format) == 8:
        return value >= _UNKNOWN_64_BIT
    return any(value in sizes for sizes in _UNKNOWN_32_BIT)


def _has_last_page(content: bytes) -> bool:
    """Return whether an Ogg file ends with a complete page that is marked as the last one of its stream."""
    position = content.rfind(b"OggS")
    page = content[position : position + 27]
    if len(page) < 27 or len(content) < position + 27 + page[26]:
        return False
    end = position + 27 + page[26] + sum(content[position + 27 : position + 27 + page[26]])
    return bool(page[5] & 4) and end <= len(content)
