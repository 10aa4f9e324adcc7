"""Temporary files for what passes over many blocks leave for the next pass."""

from __future__ import annotations

import pickle
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from knownmf.files import errors_with_name


class StateFiles:
    """A temporary folder for states. It is deleted with the last object that needs it."""

    def __init__(self) -> None:
        self._folder, self._n = Path(tempfile.mkdtemp(prefix="knownmf-")), 0
        self._end = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def store(self, state: Any) -> StateFile:
        """Write a state to a new file."""
        self._n += 1
        path = self._folder / f"{self._n}.pickle"
        with errors_with_name(path), path.open("wb") as file:
            pickle.dump(state, file, protocol=5)
        return StateFile(path, self)


class StateFile:
    """A state in a file, which is deleted with this object."""

    def __init__(self, path: Path, folder: StateFiles) -> None:
        self._path, self._folder = path, folder
        self._end = weakref.finalize(self, path.unlink, missing_ok=True)

    def load(self) -> Any:
        """Return the state."""
        with self._path.open("rb") as file:
            return pickle.load(file)
