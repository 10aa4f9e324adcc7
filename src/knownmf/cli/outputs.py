"""Write the outputs of the commands. A file is written completely or not at all; its name is valid on every system."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import os
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knownmf.cli.console import UserError, input_errors
from knownmf.extras import command_extra
from knownmf.files import put_in_place, temporary_name, written_aside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from knownmf.audio import Decomposition, Event

__all__ = [
    "check_folder",
    "check_outputs",
    "check_picture",
    "column_names",
    "file_names",
    "write_activations",
    "write_events",
    "write_folder",
    "write_picture",
    "write_rows",
]

# Windows reserves these names for devices, with any ending.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}
_MAX_NAME_BYTES = 200

PICTURES = (".png", ".pdf", ".svg")


def check_outputs(
    outputs: Iterable[Path], *, force: bool, inputs: Iterable[Path] = (), endings: Sequence[str] = ()
) -> None:
    """Raise if files cannot or must not be written. Called before a long computation, not after it.

    Parameters
    ----------
    outputs : iterable of Path
        The files to be written.
    force : bool
        Whether files may be replaced.
    inputs : iterable of Path
        Files that the command reads. They are never replaced, even with `force`.
    endings : sequence of str
        The endings that are allowed, such as ``(".npz", ".csv")``; empty if every ending is.

    Raises
    ------
    UserError
        If a file has another ending, exists while `force` is false, is an input, or is in a place where no file can be
        written.
    """
    read = {os.path.realpath(path) for path in inputs}
    for path in outputs:
        if endings and not path.name.lower()[1:].endswith(tuple(endings)):
            raise UserError(f'"{path}" must end in {" or ".join(endings)}: the ending selects the format.')
        with input_errors():
            folder, exists = path.is_dir(), path.exists() or path.is_symlink()
        if folder:
            raise UserError(f'"{path}" is a folder: choose the name of a file.')
        if os.path.realpath(path) in read:
            raise UserError(f'"{path}" is an input of this command and would be overwritten: write to another file.')
        if exists and not force:
            raise UserError(f'"{path}" exists already: choose another name, or replace it with --force.')
        _check_writable(path.parent)


def check_picture(picture: Path | None, force: bool, inputs: Iterable[Path]) -> None:
    """Raise if a picture is wanted but cannot or must not be written."""
    if picture is not None:
        # Where it cannot write to the home folder, Matplotlib uses a temporary folder, which is not worth a message.
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        with command_extra():
            import matplotlib  # noqa: F401 - report that it is missing now, before any work

        check_outputs([picture], force=force, inputs=inputs, endings=PICTURES)


def check_folder(folder: Path) -> None:
    """Raise if no files can be written in a folder. Called before a long computation, not after it.

    Parameters
    ----------
    folder : Path
        The folder; it need not exist yet.

    Raises
    ------
    UserError
        If it is a file, or the user has no permission to create it or to write in it.
    """
    with input_errors():
        if folder.exists() and not folder.is_dir():
            raise UserError(f'"{folder}" is a file, but a folder is needed: choose another name.')
    _check_writable(folder)


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
    names: dict[str, str] = {}
    taken: set[str] = set()
    for label in labels:
        plain = _valid_name(label)
        name, number = plain, 1
        while unicodedata.normalize("NFC", name).casefold() in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(unicodedata.normalize("NFC", name).casefold())
        names[label] = name + ending
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


def write_folder(folder: Path, files: dict[str, Callable[[Path], None]]) -> None:
    """Write several files into a folder. They get their names only when all of them are complete.

    Parameters
    ----------
    folder : Path
        The folder. It is created if it does not exist; other files in it are not changed.
    files : dict of str to callable
        For each file name, a function that writes the file, called with a path.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The temporary folder is inside the folder: its parent may be on another file system or not writable.
        with temporary_name(folder) as temporary:
            temporary.mkdir(0o700)
            for name, write in files.items():
                write(temporary / name)
            for name in files:
                put_in_place(temporary / name, folder / name)
    except BaseException:
        with contextlib.suppress(OSError):  # a folder with other files in it cannot be removed
            for path in created:
                path.rmdir()
        raise


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV file in UTF-8: a row of column names, then the rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        text.flush()
        text.detach()


def write_events(path: Path, events: Iterable[Event]) -> None:
    """Write events as a CSV file with the columns onset_s, offset_s, label and strength."""
    rows = ([f"{e.onset_s:.4f}", f"{e.offset_s:.4f}", e.label, f"{e.strength:.4g}"] for e in events)
    write_rows(path, ["onset_s", "offset_s", "label", "strength"], rows)


def write_activations(path: Path, decomposition: Decomposition, settings: dict[str, Any]) -> None:
    """Write activations to a ``.npz`` file with all results, or to a ``.csv`` file with one row per frame.

    The ``.npz`` file contains H, W, times, labels, frequencies, gap, relative_gap, kkt, converged and settings (a text
    in JSON). It can be read without pickle. The columns of the ``.csv`` file are time_s and one for each component.

    Parameters
    ----------
    path : Path
        The file; its ending selects the format.
    decomposition : Decomposition
        The result to write.
    settings : dict
        The settings of the computation, with values that JSON can represent.
    """
    import numpy as np

    found, labels = decomposition.found, decomposition.dictionary.labels
    if path.suffix.lower() == ".csv":
        rows = (
            [f"{time:.6f}", *(f"{value:.7g}" for value in frame)]
            for time, frame in zip(decomposition.times, found.H.T, strict=True)
        )
        write_rows(path, ["time_s", *column_names(labels)], rows)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as file:
        np.savez_compressed(
            file,
            allow_pickle=False,
            H=found.H,
            W=decomposition.dictionary.W,
            times=decomposition.times,
            labels=np.array(labels),
            frequencies=decomposition.dictionary.frequencies,
            gap=found.gap,
            relative_gap=found.relative_gap,
            kkt=found.kkt,
            converged=found.converged,
            settings=np.array(json.dumps(settings)),
        )


def write_picture(path: Path, picture: Figure) -> None:
    """Write a figure in the format that the ending of the file selects."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as file, warnings.catch_warnings():
        # Characters that no font has are drawn as empty boxes; a warning for each of them is not needed.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        picture.savefig(file, format=path.suffix[1:].lower())


def _check_writable(folder: Path) -> None:
    """Raise if the user cannot write in a folder, or in its nearest parent that exists."""
    while not os.path.lexists(folder):  # also false where the user has no permission to look
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f'"{folder}" is not a folder: choose another place.')
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f'You have no permission to write in "{folder}": choose another place.')


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
