"""Write files so that an incomplete file never has the final name."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["written_aside"]


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file next to `path`. Rename it to `path` at the end, or remove it after an exception."""
    # The temporary name is not derived from the final name, which may have the maximum length already.
    handle, name = tempfile.mkstemp(prefix=".knownmf.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        # mkstemp creates files that only the user can read: set the permissions that the umask gives to other files.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
