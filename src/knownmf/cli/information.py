"""The command info: describe a file by its content."""

from __future__ import annotations

import csv
import json
import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from knownmf.archives import array_header, array_names, array_values, opened_archive
from knownmf.cli import options
from knownmf.cli.console import UserError, input_errors, print_line, print_table
from knownmf.cli.inputs import load_dictionary
from knownmf.cli.summaries import describe_basis, describe_dictionary, describe_recording, describe_settings
from knownmf.table_files import TABLE_ENDINGS, read_table, table_ending
from knownmf.wording import counted, listed, percent, printable

if TYPE_CHECKING:
    import numpy as np

__all__ = ["info"]

# More bytes than the labels and the convergence flags of any real result. A damaged or hostile file may state more.
_MAX_BYTES = 2**26

_REMEDY = "write the activations again with `knownmf decompose`"


def info(file: options.AnyFile) -> None:
    """Describe a file: a recording, a dictionary, activations, events or another table of numbers."""
    if file.suffix.lower() == ".zarr" and (file / "zarr.json").exists():
        with input_errors():
            print_line(f"{file}: {_describe_group(file)}")
        return
    ending = table_ending(file)
    if file.is_dir():
        raise UserError(f'"{file}" is a folder: pass a file.')
    if ending not in (".npz", *TABLE_ENDINGS):
        _print_recording(file)
        return
    with input_errors():
        if ending == ".npz":
            description = _describe_archive(file)
        else:
            description = _describe_csv(file) if ending == ".csv" else _describe_table(file)
    if description is not None:
        print_line(f"{file}: {description}")
        return
    basis = load_dictionary(file, of_sounds=False)
    if not basis.settings:
        print_line(f"{file}: dictionary, {describe_basis(basis)}")
        table = Table("component", "largest features", box=box.SIMPLE_HEAD)
        for label, vector in zip(basis.labels, basis.W.T, strict=True):
            largest = [int(place) for place in (-vector).argsort(kind="stable")[:3]]
            names = [basis.features[place] if basis.features else str(place + 1) for place in largest]
            table.add_row(Text(printable(label)), Text(printable(", ".join(names))))
        print_table(table)
        return
    print_line(f"{file}: dictionary, {describe_dictionary(basis)}")
    table = Table("sound", "components", "strongest frequency", box=box.SIMPLE_HEAD)
    for label in basis.names:
        columns = basis.W[:, basis.components_of(label)]
        peak = basis.frequencies[columns.sum(axis=1).argmax()]
        table.add_row(Text(printable(label)), str(columns.shape[1]), f"{peak:.0f} Hz")
    print_table(table)


def _describe_archive(path: Path) -> str | None:
    """Return a description of the activations in a ``.npz`` file, or None if the file may be a dictionary.

    Raises
    ------
    OSError, ValueError
        If the file cannot be opened, or is an archive of something else.
    """
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            return None
        with opened_archive(file, path, _REMEDY) as archive:
            names = array_names(archive)
            if "format" in names:
                return None
            if not {"H", "labels", "converged", "settings"} <= names:
                raise ValueError(
                    f'"{path}" is a .npz file, but neither a dictionary nor activations that knownmf has written.'
                )
            try:
                return _describe_archived_activations(archive)
            except ValueError as error:
                raise ValueError(f'"{path}" contains invalid activations ({error}): {_REMEDY}.') from error


def _describe_group(path: Path) -> str:
    """Return a description of the activations in a ``.zarr`` folder.

    Raises
    ------
    ValueError
        If it contains something else.
    """
    from knownmf.audio.activation_files import imported_zarr

    group = imported_zarr().open_group(path, mode="r")
    try:
        labels, settings = group.attrs["labels"], json.loads(group.attrs["settings"])
        return _describe_all(group["H"].shape, labels, int(group["converged"][:].sum()), settings)
    except KeyError as error:
        raise ValueError(f'"{path}" is a .zarr folder, but not of activations that knownmf has written.') from error


def _describe_csv(path: Path) -> str:
    """Return a description of the events, the activations or the other numbers in a ``.csv`` file.

    Raises
    ------
    OSError, ValueError
        If the file cannot be opened, or is another table.
    """
    other = f'"{path}" is a .csv file, but neither events nor activations that knownmf has written'
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            columns = list(rows.fieldnames or [])
            if "onset_s" in columns and "label" in columns:
                return _describe_events(rows)
            if columns[:1] == ["time_s"]:
                return _describe_activations(rows, columns[1:])
            if columns[:3] == ["recording", "folder", "status"]:
                return _describe_manifest(rows)
    except (UnicodeDecodeError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{other}: it cannot be read as a table of numbers and labels in UTF-8.") from error
    try:
        return _describe_table(path)
    except ValueError as error:
        raise ValueError(f"{other}, nor a table of numbers: {error}") from error


def _describe_table(path: Path) -> str:
    """Return what is in the rows and in the columns of a table of numbers."""
    table, *others = (table for table in read_table(path) if table.is_likely)
    parts = []
    for number, noun, labels in (
        (table.values.shape[0], "row", table.rows),
        (table.values.shape[1], "column", table.columns),
    ):
        parts.append(counted(number, noun) + (f" ({listed(list(labels), 3)})" if labels else ""))
    kind = "activations" if table.corner == "component" else "table"
    doubt = "; the first row or the first column may also be data" if others else ""
    return f"{kind}, {' and '.join(parts)}{doubt}"


def _print_recording(file: Path) -> None:
    """Print the length and the format of a recording."""
    from knownmf.audio.recordings import NotARecordingError, describe

    with input_errors():
        try:
            found = describe(file)
        except NotARecordingError as error:
            if error.__cause__ is None:  # the file is empty or truncated, whatever it was
                raise
            raise UserError(
                f'"{file}" is not a recording in a format that can be read, and not a .npz or .csv file of knownmf.'
            ) from error
    length = describe_recording(found.n_samples / found.sr, found.sr, found.n_channels)
    print_line(f"{file}: {length}, {found.format} {found.subtype}")


def _describe_archived_activations(archive: zipfile.ZipFile) -> str:
    """Return how many components, sounds and frames there are, the settings, and how good the activations are."""
    _, shape = array_header(archive, "H")
    labels, converged = _small_array(archive, "labels"), _small_array(archive, "converged")
    settings = json.loads(str(_small_array(archive, "settings")))
    return _describe_all(shape, labels, int(converged.sum()), settings)


def _describe_all(shape: tuple[int, ...], labels: Iterable[object], n_converged: int, settings: dict[str, Any]) -> str:
    """Return a description of activations of this shape."""
    n_components, n_frames = shape
    sounds = list(dict.fromkeys(map(str, labels)))
    parts = [
        f"activations, {counted(n_components, 'component')} of {counted(len(sounds), 'sound')} ({listed(sounds)}) in "
        f"{counted(n_frames, 'frame')}"
    ]
    if "hop_length" in settings:
        parts.append(describe_settings(settings))
    if "explained" in settings:
        share = settings["explained"]
        parts.append("of a silent recording" if share is None else f"{percent(share)} of the recording explained")
    if "tol" in settings:
        parts.append(f"{n_converged} of {n_frames} frames within {percent(settings['tol'], digits=3)} of the optimum")
    return ", ".join(parts)


def _small_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Return an array in an archive. Raise if it is larger than in any real result."""
    dtype, shape = array_header(archive, name)
    if dtype.itemsize * math.prod(shape) > _MAX_BYTES:
        raise ValueError(f"{name} is larger than in any real result")
    return array_values(archive, name)


def _describe_events(rows: Iterable[dict[str, str]]) -> str:
    """Return how many events there are, of which sounds, and when."""
    events = [(float(row["onset_s"]), row["label"]) for row in rows]
    sounds = list(dict.fromkeys(label for _, label in events))
    if not events:
        return "events, 0 events"
    onsets = [onset for onset, _ in events]
    return (
        f"events, {counted(len(events), 'event')} of {counted(len(sounds), 'sound')} ({listed(sounds)}) from "
        f"{min(onsets):.2f} s to {max(onsets):.2f} s"
    )


def _describe_manifest(rows: Iterable[dict[str, str]]) -> str:
    """Return how many recordings there are, and what was done with them. The last row of a recording counts."""
    status = {row["recording"]: row["status"] for row in rows}
    counts = [f"{list(status.values()).count(kind)} {kind}" for kind in dict.fromkeys(status.values())]
    return f"results of {counted(len(status), 'recording')}: {listed(counts) or 'none'}"


def _describe_activations(rows: Iterable[dict[str, str]], names: list[str]) -> str:
    """Return how many components and frames there are, and the times of the first and the last frame."""
    times = [float(row["time_s"]) for row in rows]
    length = f" from {times[0]:.2f} s to {times[-1]:.2f} s" if times else ""
    return (
        f"activations, {counted(len(names), 'component')} ({listed(names)}) in {counted(len(times), 'frame')}{length}"
    )
