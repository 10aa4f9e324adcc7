"""Write the outputs of the commands. A file is written completely or not at all; its name is valid on every system."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knownmf.cli.console import UserError, input_errors
from knownmf.files import put_in_place, temporary_name, written_aside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from knownmf.audio import Decomposition, Event

__all__ = [
    "check_folder",
    "check_outputs",
    "column_names",
    "file_names",
    "write_activations",
    "write_events",
    "write_folder",
    "write_picture",
    "write_rows",
]


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
        if endings and path.suffix.lower() not in endings:
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


def column_names(labels: Iterable[str]) -> list[str]:
    """Return a different name for each component, such as ``kick``, ``kick.2`` and ``kick.3``.

    Examples
    --------
    >>> column_names(["kick", "kick", "snare", "kick.2"])
    ['kick', 'kick.2', 'snare', 'kick.2.2']
    """
    names: list[str] = []
    for label in labels:
        name, number = label, 1
        while name in names:
            number += 1
            name = f"{label}.{number}"
        names.append(name)
    return names


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


