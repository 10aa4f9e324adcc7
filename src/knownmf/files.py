"""Write files so that an incomplete file never has the final name, and give them names that every system accepts."""

import contextlib
import csv
import errno
import io
import os
import shutil
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "allow_open_files",
    "column_names",
    "created_folder",
    "errors_with_name",
    "file_names",
    "files_written_aside",
    "folder_written_aside",
    "put_in_place",
    "remove_files",
    "remove_unfinished",
    "remove_unfinished_in",
    "sole_user",
    "temporary_name",
    "unique_names",
    "write_rows",
    "written_aside",
]

# Windows reserves these names for devices, with any ending.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}
_MAX_NAME_BYTES = 200

# The files that a process may open besides those that it knows of: standard streams, libraries, a recording.
_OTHER_FILES = 64

# The errors of a full disk. The system raises them from a write, without the name of the file.
_FULL = {errno.ENOSPC, errno.EFBIG, *([errno.EDQUOT] if hasattr(errno, "EDQUOT") else [])}

# The temporary files and folders that exist now, or that are about to be created.
_unfinished: set[Path] = set()

# The folders that were created for results that are not yet complete, each before its parent.
_new_folders: list[Path] = []


def allow_open_files(number: int, what: str, remedy: str) -> None:
    """Make sure that many files can be open at the same time, before any work.

    If the limit of the process is lower, it is raised, as far as the system allows that without special rights.

    Parameters
    ----------
    number : int
        How many files will be opened.
    what, remedy : str
        What needs them, and what to do instead, for the message.

    Raises
    ------
    OSError
        If the system does not allow so many.
    """
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = number + _n_open_files() + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return
    if hard == resource.RLIM_INFINITY or needed <= hard:
        with contextlib.suppress(OSError, ValueError):  # macOS has a lower limit than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
            return
    raise OSError(
        errno.EMFILE,
        f"{what} needs {needed} open files, but the system allows {hard if needed > hard >= 0 else soft}: raise the "
        f"limit (ulimit -n {needed}), or {remedy}",
    )


def _n_open_files() -> int:
    """Return how many files this process has opened, 0 where the system does not say it."""
    try:
        return len(os.listdir("/dev/fd"))
    except OSError:
        return 0


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file next to `path`. Rename it to `path` at the end, or remove it after an exception.

    A new file gets the permissions that ``open(path, "wb")`` would give it; a file that is replaced keeps its own. A
    symbolic link is replaced by the file. A device or a pipe is written to directly.
    """
    existing = _lstat(path)
    if existing is not None and not (stat.S_ISREG(existing.st_mode) or stat.S_ISLNK(existing.st_mode)):
        with errors_with_name(path), path.open("wb") as file:
            yield file
        return
    # At no time may the new content be read by more users than the old one.
    mode = 0o666 if existing is None or stat.S_ISLNK(existing.st_mode) else existing.st_mode & 0o666
    with temporary_name(path.parent) as temporary, errors_with_name(path, temporary):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
        with open(descriptor, "wb") as file:
            yield file
        put_in_place(temporary, path)


@contextlib.contextmanager
def files_written_aside(folder: Path) -> Iterator[Path]:
    """Yield an empty folder for new files. They are moved to `folder` at the end, all of them or none.

    `folder` is created if it does not exist, and removed again after an exception; other files in it are not changed.
    """
    # The temporary folder is inside the folder: its parent may be on another file system or not writable.
    with created_folder(folder), temporary_name(folder) as temporary, errors_with_name(folder, temporary):
        temporary.mkdir(0o700)
        yield temporary
        for path in sorted(temporary.iterdir()):
            put_in_place(path, folder / path.name)


@contextlib.contextmanager
def created_folder(folder: Path) -> Iterator[None]:
    """Create a folder and its parents, if they do not exist. After an exception, remove those that are empty."""
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    _new_folders[:0] = created
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        _remove_empty(created)
        raise
    finally:
        for path in created:
            _new_folders.remove(path)


@contextlib.contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Hold a lock of a folder, where the system has such locks. It ends with the process, whatever ends that.

    Raises
    ------
    BlockingIOError
        If another process holds it.
    """
    with contextlib.ExitStack() as held:
        try:
            import fcntl

            descriptor = os.open(folder, os.O_RDONLY)
            held.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(
                error.errno, "another knownmf command is writing into this folder: wait until it has ended", str(folder)
            ) from error
        except (ImportError, OSError):  # Windows, and some file systems of networks, have no such locks
            pass
        yield


@contextlib.contextmanager
def folder_written_aside(path: Path) -> Iterator[Path]:
    """Yield a name for a new folder next to `path`. Rename it to `path` at the end, or remove it after an exception.

    What is at `path` is replaced.
    """
    with temporary_name(path.parent) as temporary, errors_with_name(path, temporary):
        yield temporary
        if path.is_dir() and not path.is_symlink():
            with temporary_name(path.parent) as old:  # a folder cannot be replaced at once; the old one is removed
                try:
                    os.replace(path, old)
                    os.replace(temporary, path)
                except BaseException:  # also a signal between the two
                    if old.exists() and not path.exists():
                        os.replace(old, path)
                    raise
        else:
            if _lstat(path) is not None:
                path.unlink()
            os.replace(temporary, path)


@contextlib.contextmanager
def errors_with_name(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Let errors of writing name a file that the user knows.

    Parameters
    ----------
    path : Path
        The file or the folder that is written. An error of a full disk gets its name, if it has none.
    temporary : Path, optional
        Another name that it has until it is complete. Errors that name it, or a file in it, name `path` instead.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in _FULL:
            error.filename = str(path)
        elif temporary is not None and isinstance(error.filename, str | Path):
            parts = Path(error.filename).parts  # also of an absolute name
            if temporary.name in parts:
                error.filename = str(path.joinpath(*parts[parts.index(temporary.name) + 1 :]))
        raise


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


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV file in UTF-8: a row of column names, then the rows."""
    with created_folder(path.parent), written_aside(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        text.flush()
        text.detach()


def file_names(labels: Iterable[str], ending: str) -> dict[str, str]:
    """Return a file name for each label that is valid on every file system.

    Ordinary labels are not changed. Path separators and other reserved characters become ``_``; ``_`` is put in front
    of a name that starts with a dot. Names differ even if upper and lower case are not distinguished: a second label
    with the same name gets ``-2``.

    Examples
    --------
    >>> file_names(["kick", "060", "C#4", "../hat", "Kick"], ".wav")
    {'kick': 'kick.wav', '060': '060.wav', 'C#4': 'C#4.wav', '../hat': '_._hat.wav', 'Kick': 'Kick-2.wav'}
    """
    labels = list(labels)
    return {label: name + ending for label, name in zip(labels, unique_names(labels), strict=True)}


def unique_names(labels: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Return a different name for each label, as :func:`file_names` does, without endings. Names in `taken` are used.

    Examples
    --------
    >>> unique_names(["song", "song", "a:b"], ["song"])
    ['song-2', 'song-3', 'a_b']
    """
    used = {_folded(name) for name in taken}
    names = []
    for label in labels:
        plain = _valid_name(label)
        name, number = plain, 1
        while _folded(name) in used:
            number += 1
            name = f"{plain}-{number}"
        used.add(_folded(name))
        names.append(name)
    return names


def column_names(labels: Iterable[str]) -> list[str]:
    """Return a different name for each component, such as ``kick``, ``kick.2`` and ``kick.3``.

    Examples
    --------
    >>> column_names(["kick", "kick", "snare", "kick.2"])
    ['kick', 'kick.2', 'snare', 'kick.2.2']
    """
    names: dict[str, None] = {}  # in order; a list would take long to search
    for label in labels:
        name, number = label, 1
        while name in names:
            number += 1
            name = f"{label}.{number}"
        names[name] = None
    return list(names)


def _folded(name: str) -> str:
    """Return a name as file systems compare it that do not distinguish upper and lower case."""
    return unicodedata.normalize("NFC", name).casefold()


def remove_unfinished() -> None:
    """Remove all temporary files of this process, and the new folders for them, before it ends at once."""
    for path in list(_unfinished):
        _remove(path)
    _remove_empty(list(_new_folders))


def remove_unfinished_in(folder: Path) -> None:
    """Remove temporary files and folders that another process, which was killed, has left behind in a folder."""
    for path in folder.glob(".knownmf.*.part"):
        _remove(path)


def remove_files(paths: Iterable[Path]) -> None:
    """Remove files and folders, if they exist."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it exists and can be removed."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders, each before its parent, up to the first one with other files in it."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _lstat(path: Path) -> os.stat_result | None:
    """Return the status of what has this path, or None if there is nothing."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _valid_name(label: str) -> str:
    """Return a label as a file name that is valid on every system, without an ending."""
    kept = "".join("_" if c in '<>:"/\\|?*' or unicodedata.category(c)[0] == "C" else c for c in label)
    if kept.startswith("."):
        kept = "_" + kept[1:]
    kept = kept.rstrip(". ")
    kept = kept.encode()[:_MAX_NAME_BYTES].decode(errors="ignore")
    if kept.split(".")[0].strip().casefold() in _DEVICES:
        kept = "_" + kept
    return kept or "_"
