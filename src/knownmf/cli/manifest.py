"""The manifest of many recordings: a table, in the folder of the results, of what was done with each of them."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path

from knownmf.cli.console import UserError
from knownmf.files import write_rows

__all__ = ["MANIFEST", "Manifest", "Row", "holds_results"]

# The name of the file.
MANIFEST = "manifest.csv"

_COLUMNS = (
    "recording",
    "folder",
    "status",
    "seconds",
    "took_s",
    "frames",
    "converged",
    "tol",
    "worst",
    "explained",
    "explained_by_dictionary",
    "settings",
    "bytes",
    "modified",
    "outputs",
    "message",
)

Row = dict[str, str]


class Manifest:
    """The manifest in a folder.

    While recordings are processed, rows are appended to the file. If it is not written again because the process was
    killed, the last row of a recording counts.

    Parameters
    ----------
    folder : Path
        The folder.

    Raises
    ------
    UserError
        If the file is no manifest.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / MANIFEST
        self._rows = {row["recording"]: row for row in _read(self.path)}

    def name_of(self, recording: Path) -> str:
        """Return the name of a recording: its path from the folder of the manifest, so that both can be moved."""
        path, here = os.path.realpath(recording), os.path.realpath(self.path.parent)
        with contextlib.suppress(ValueError):  # another drive of Windows
            path = os.path.relpath(path, here)
        return _as_unicode(Path(path).as_posix())

    def folders(self) -> dict[str, str]:
        """Return the folders of the results, by the names of the recordings."""
        return {name: row["folder"] for name, row in self._rows.items()}

    def outputs(self, recording: Path) -> dict[str, int]:
        """Return the names and sizes of the results of a recording, in its folder; the size of a folder is -1."""
        row = self._rows.get(self.name_of(recording))
        return {} if row is None else _outputs_in(row)

    def new_row(self, recording: Path, folder: str, settings: str) -> Row:
        """Return what is known of a recording before it is processed.

        Parameters
        ----------
        recording : Path
            The recording.
        folder : str
            The folder of its results, inside the folder of the manifest.
        settings : str
            A text that differs for other options or another dictionary.
        """
        row = dict.fromkeys(_COLUMNS, "")
        row.update(recording=self.name_of(recording), folder=folder, settings=settings)
        with contextlib.suppress(OSError):  # reported when it is opened
            status = recording.stat()
            row.update(bytes=str(status.st_size), modified=str(status.st_mtime_ns))
        return row

    def settings(self, recording: Path) -> str | None:
        """Return the settings with which a recording was processed last; None if it was not."""
        row = self._rows.get(self.name_of(recording))
        return None if row is None else row["settings"]

    def is_finished(self, row: Row) -> bool:
        """Return whether a recording is finished, with the same settings, and has not changed since.

        ``row`` is what :meth:`new_row` returns for it now.
        """
        before = self._rows.get(row["recording"])
        outputs = {} if before is None else _outputs_in(before)
        if before is None or before["status"] != "finished" or not outputs:
            return False
        if any(before[name] != row[name] for name in ("folder", "settings", "bytes", "modified")):
            return False
        paths = {self.path.parent / row["folder"] / name: size for name, size in outputs.items()}
        return all(path.exists() and size in (-1, path.stat().st_size) for path, size in paths.items())

    def begin(self, row: Row) -> None:
        """Note that a recording is being processed. Its earlier results, which are removed first, may still exist."""
        before = self._rows.get(row["recording"], row)
        self._append({**row, "outputs": before["outputs"], "status": "begun"})

    def end(self, row: Row, status: str, **values: str) -> None:
        """Note how a recording has ended, with the values of other columns."""
        texts = {name: _as_unicode(value) for name, value in values.items()}
        self._rows[row["recording"]] = {**row, **texts, "status": status}
        self._append(self._rows[row["recording"]])

    def save(self) -> None:
        """Write the file, with one row for each recording."""
        write_rows(self.path, _COLUMNS, ([row[name] for name in _COLUMNS] for row in self._rows.values()))

    def _append(self, row: Row) -> None:
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow([row[name] for name in _COLUMNS])


def holds_results(folder: Path) -> bool:
    """Return whether a folder has a manifest."""
    with contextlib.suppress(OSError, ValueError), (folder / MANIFEST).open(encoding="utf-8") as file:
        return file.readline().rstrip("\n") == ",".join(_COLUMNS)
    return False


def _read(path: Path) -> Iterator[Row]:
    """Yield the rows of a manifest, if there is one. The last one is left out if it is not complete."""
    other = f'"{path}" is not a manifest that knownmf has written: choose another folder.'
    try:
        with contextlib.suppress(FileNotFoundError), path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if tuple(rows.fieldnames or _COLUMNS) != _COLUMNS:  # an empty file has none: its writer was killed
                raise UserError(other)
            for row in rows:
                if None not in row.values():
                    _check_names(row)
                    yield row
    except (ValueError, csv.Error) as error:
        raise UserError(other) from error


def _check_names(row: Row) -> None:
    """Raise a ValueError if a row names a folder or a result that is somewhere else, where files would be removed."""
    for name in (row["folder"], *_outputs_in(row)):
        if name in ("", "..") or name != Path(name).name:
            raise ValueError(f"{name!r} is no name of a file")


def _outputs_in(row: Row) -> dict[str, int]:
    """Return the names and sizes of the results in a row. Raise a ValueError if the text is not that of such names."""
    outputs = json.loads(row["outputs"] or "{}")
    if not isinstance(outputs, dict):
        raise ValueError(f"{row['outputs']} has no names")
    return outputs


def _as_unicode(text: str) -> str:
    """Return a text with escape sequences for what is not valid Unicode, as in names that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()
