"""What the command line writes: whole files or none, under names that every system can hold."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import tempfile
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knownmf.cli.console import Mistake, wrong_input
from knownmf.files import written_aside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from knownmf.audio import Decomposition, Event

__all__ = [
    "checked_folder",
    "checked_outputs",
    "column_names",
    "file_names",
    "write_activations",
    "write_events",
    "write_folder",
    "write_picture",
    "write_rows",
]

# Windows keeps these for devices, whatever their ending.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}
_LONGEST_NAME = 200


def checked_outputs(
    outputs: Iterable[Path], *, force: bool, inputs: Iterable[Path] = (), endings: Sequence[str] = ()
) -> None:
    """Complain now, before any work, about files that could or should not be written at the end of it.

    Parameters
    ----------
    outputs : iterable of Path
        The files to be written.
    force : bool
        Whether files may be replaced.
    inputs : iterable of Path
        Files that are read, which not even `force` replaces.
    endings : sequence of str
        What the names must end in, such as ``(".npz", ".csv")``; anything if empty.

    Raises
    ------
    Mistake
        If a file has another ending, exists while `force` is false, is read too, or lies where no file can be.
    """
    read = {os.path.realpath(path) for path in inputs}
    for path in outputs:
        if endings and path.suffix.lower() not in endings:
            raise Mistake(f'"{path}" has to end in {" or ".join(endings)}: the ending says what is written.')
        with wrong_input():
            folder, exists = path.is_dir(), path.exists()
        if folder:
            raise Mistake(f'"{path}" is a folder: name a file in it.')
        if os.path.realpath(path) in read:
            raise Mistake(f'"{path}" is read by this command and would be lost: write to another file.')
        if exists and not force:
            raise Mistake(f'"{path}" exists already: choose another name, or replace it with --force.')
        _check_folder(path.parent)


def checked_folder(folder: Path) -> None:
    """Complain now, before any work, about a folder in which no files could be written at the end of it.

    Parameters
    ----------
    folder : Path
        Need not exist.

    Raises
    ------
    Mistake
        If it is a file, or the user may not make or use it.
    """
    with wrong_input():
        if folder.exists() and not folder.is_dir():
            raise Mistake(f'"{folder}" is a file, but a folder is needed: choose another name.')
    _check_folder(folder)


def file_names(labels: Iterable[str], ending: str) -> dict[str, str]:
    """A file name for each label that no file system refuses, no two of them the same even where case is ignored.

    Plain labels stay as they are. Characters that separate folders or are reserved become ``_``, and so does a dot in
    front; a second label with the same name gets ``-2``.

    Examples
    --------
    >>> file_names(["kick", "060", "C#4", "../hat", "Kick"], ".wav")
    {'kick': 'kick.wav', '060': '060.wav', 'C#4': 'C#4.wav', '../hat': '_._hat.wav', 'Kick': 'Kick-2.wav'}
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for label in labels:
        plain = _plain(label)
        name, number = plain, 1
        while unicodedata.normalize("NFC", name).casefold() in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(unicodedata.normalize("NFC", name).casefold())
        names[label] = name + ending
    return names


def column_names(labels: Iterable[str]) -> list[str]:
    """One name per component: ``kick``, ``kick.2``, ``kick.3``, and never the same twice.

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


def write_folder(folder: Path, files: dict[str, Callable[[Path], None]]) -> None:
    """Write several files as one: all are complete before the first of them appears.

    Parameters
    ----------
    folder : Path
        Made if it does not exist; other files in it are left alone.
    files : dict of str to callable
        For each name what writes it, called with the path.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Aside, but inside the folder: what is beside it may be on another file system, or not ours to write.
        with tempfile.TemporaryDirectory(prefix=".knownmf.", suffix=".part", dir=folder) as aside:
            for name, write in files.items():
                write(Path(aside, name))
            for name in files:
                os.replace(Path(aside, name), folder / name)
    except BaseException:
        with contextlib.suppress(OSError):  # where something else is in it by now
            for place in made:
                place.rmdir()
        raise


def write_rows(path: Path, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV file, in UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)
        text.flush()
        text.detach()


def write_events(path: Path, events: Iterable[Event]) -> None:
    """Write events as CSV: onset_s, offset_s, label, strength."""
    rows = ([f"{e.onset_s:.4f}", f"{e.offset_s:.4f}", e.label, f"{e.strength:.4g}"] for e in events)
    write_rows(path, ["onset_s", "offset_s", "label", "strength"], rows)


def write_activations(path: Path, decomposition: Decomposition, settings: dict[str, Any]) -> None:
    """Write activations: ``.npz`` with their proof and settings, or ``.csv`` with one row per frame.

    The ``.npz`` file holds H, W, times, labels, frequencies, gap, relative_gap, kkt, converged and, as JSON text,
    settings; nothing in it is pickled. The columns of the ``.csv`` file are time_s and one per component.

    Parameters
    ----------
    path : Path
        Its ending decides.
    decomposition : Decomposition
        What was found.
    settings : dict
        How it was found: everything that JSON can hold.
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
    """Write a figure in the format that its ending names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as file, warnings.catch_warnings():
        # A letter that no font has is drawn as an empty box, which speaks for itself.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        picture.savefig(file, format=path.suffix[1:].lower())


def _check_folder(folder: Path) -> None:
    while not os.path.lexists(folder):  # which takes what cannot be looked at for missing
        folder = folder.parent
    if not folder.is_dir():
        raise Mistake(f'"{folder}" is not a folder, so nothing can be written in it.')
    if not os.access(folder, os.W_OK | os.X_OK):
        raise Mistake(f'You may not write in "{folder}": choose another place.')


def _plain(label: str) -> str:
    kept = "".join("_" if c in '<>:"/\\|?*' or unicodedata.category(c)[0] == "C" else c for c in label)
    if kept.startswith("."):
        kept = "_" + kept[1:]
    kept = kept.rstrip(". ")
    kept = kept.encode()[:_LONGEST_NAME].decode(errors="ignore")
    if kept.split(".")[0].strip().casefold() in _DEVICES:
        kept = "_" + kept
    return kept or "_"
