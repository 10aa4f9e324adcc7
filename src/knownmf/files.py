"""Write files so that an incomplete file never has the final name."""

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["put_in_place", "remove_unfinished", "temporary_name", "written_aside"]

# The temporary files and folders that exist now, or that are about to be created.
_unfinished: set[Path] = set()


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file next to `path`. Rename it to `path` at the end, or remove it after an exception.

    A new file gets the permissions that ``open(path, "wb")`` would give it; a file that is replaced keeps its own. A
    symbolic link is replaced by the file. A device or a pipe is written to directly.
    """
    existing = _lstat(path)
    if existing is not None and not (stat.S_ISREG(existing.st_mode) or stat.S_ISLNK(existing.st_mode)):
        with path.open("wb") as file:
            yield file
        return
    # At no time may the new content be read by more users than the old one.
    mode = 0o666 if existing is None or stat.S_ISLNK(existing.st_mode) else existing.st_mode & 0o666
    with temporary_name(path.parent) as temporary:
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
        except OSError as error:
            error.filename = os.fspath(path)  # the user does not know the name of the temporary file
            raise
        with open(descriptor, "wb") as file:
            yield file
        put_in_place(temporary, path)


def put_in_place(temporary: Path, path: Path) -> None:
    """Rename a complete file. A file that is replaced keeps its permissions."""
    existing = _lstat(path)
    if existing is not None and stat.S_ISREG(existing.st_mode):
        mode = existing.st_mode & 0o777
        if mode != stat.S_IMODE(temporary.stat().st_mode):
            temporary.chmod(mode)
    os.replace(temporary, path)


@contextlib.contextmanager
def temporary_name(folder: Path) -> Iterator[Path]:
    """Yield an unused path in a folder. At the end, remove the file or the folder that has it."""
    # The name is not derived from that of the final file, which may have the maximum length already.
    path = folder / f".knownmf.{os.urandom(8).hex()}.part"
    _unfinished.add(path)
    try:
        yield path
    finally:
        _remove(path)
        _unfinished.discard(path)


def remove_unfinished() -> None:
    """Remove all temporary files and folders of this process, before it ends at once."""
    for path in list(_unfinished):
        _remove(path)


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it exists and can be removed."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _lstat(path: Path) -> os.stat_result | None:
    """Return the status of what has this path, or None if there is nothing."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None
