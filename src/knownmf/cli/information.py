"""Describe the files that knownmf writes besides dictionaries and recordings: activations and events."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knownmf.wording import counted, listed, percent

if TYPE_CHECKING:
    import numpy as np

__all__ = ["describe_archive", "describe_csv"]

# More bytes than the labels and the convergence flags of any real result. A damaged or hostile file may state more.
_MAX_BYTES = 2**26


def describe_archive(path: Path) -> str | None:
    """Return a description of the activations in a ``.npz`` file, or None if the file may be a dictionary.

    Raises
    ------
    OSError, ValueError
        If the file cannot be opened, or is an archive of something else.
    """
    with path.open("rb") as content:
        if not zipfile.is_zipfile(content):
            return None
        try:
            with zipfile.ZipFile(content) as archive:
                names = {name.removesuffix(".npy") for name in archive.namelist()}
                if "format" in names:
                    return None
                if not {"H", "labels", "converged", "settings"} <= names:
                    raise ValueError(
                        f'"{path}" is a .npz file, but neither a dictionary nor activations that knownmf has written.'
                    )
                n_components, n_frames = _shape(archive, "H")
                labels, converged = _array(archive, "labels"), _array(archive, "converged")
                settings = json.loads(str(_array(archive, "settings")))
        except (zipfile.BadZipFile, EOFError, NotImplementedError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f'"{path}" is damaged: write the activations again with `knownmf decompose`.') from error
    sounds = list(dict.fromkeys(map(str, labels)))
    parts = [
        f"activations, {counted(n_components, 'component')} of {counted(len(sounds), 'sound')} ({listed(sounds)}) in "
        f"{counted(n_frames, 'frame')}"
    ]
    if "hop_length" in settings:
        parts.append(f"for {settings['sr']} Hz, windows of {settings['n_fft']} samples every {settings['hop_length']}")
    if "explained" in settings:
        parts.append(f"{percent(settings['explained'])} of the recording explained")
    if "tol" in settings:
        parts.append(
            f"{converged.sum()} of {n_frames} frames within {percent(settings['tol'], digits=3)} of the optimum"
        )
    return ", ".join(parts)


def describe_csv(path: Path) -> str:
    """Return a description of the events or the activations in a ``.csv`` file.

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
    except (UnicodeDecodeError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{other}: it cannot be read as a table of numbers and labels in UTF-8.") from error
    raise ValueError(f"{other}: its columns are {listed(columns) or 'missing'}.")


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


def _describe_activations(rows: Iterable[dict[str, str]], names: list[str]) -> str:
    """Return how many components and frames there are, and the times of the first and the last frame."""
    times = [float(row["time_s"]) for row in rows]
    length = f" from {times[0]:.2f} s to {times[-1]:.2f} s" if times else ""
    return (
        f"activations, {counted(len(names), 'component')} ({listed(names)}) in {counted(len(times), 'frame')}{length}"
    )


def _shape(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    """Return the shape of an array in an archive, without reading its values."""
    with archive.open(f"{name}.npy") as stored:
        return _header(stored)[0]


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Return a small array in an archive."""
    import numpy as np

    with archive.open(f"{name}.npy") as stored:
        content = stored.read(_MAX_BYTES + 1)
    shape, item_bytes = _header(io.BytesIO(content))
    if len(content) > _MAX_BYTES or int(np.prod(shape, dtype=object)) * item_bytes > len(content):
        raise zipfile.BadZipFile(f"{name} is larger than any real result")
    return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)


def _header(stored: Any) -> tuple[tuple[int, ...], int]:
    """Return the shape and the bytes per entry that the header of a stored array states."""
    import numpy as np

    version = np.lib.format.read_magic(stored)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stored)
    return shape, dtype.itemsize
