"""Write the activations of a recording block by block: files that grow with the recording."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from knownmf.activations import Activations
from knownmf.audio.spectrograms import frame_times
from knownmf.dictionary import Dictionary
from knownmf.extras import MissingPackageError
from knownmf.files import column_names, created_folder, folder_written_aside, temporary_name, written_aside
from knownmf.wording import size_of_memory

__all__ = [
    "ENDINGS",
    "ActivationWriter",
    "activation_writer",
    "check_activations_file",
    "imported_zarr",
]

ENDINGS = (".npz", ".csv", ".zarr")

# An .npz file is read as a whole. Activations of more bytes than this need a file that can be read in parts.
LARGEST_NPZ = 2**31

# Frames of a chunk of a .zarr folder: some hundred kilobytes to some megabytes.
CHUNK_FRAMES = 4096

# The results for each frame, besides H.
_CERTIFICATE = ("gap", "relative_gap", "kkt", "converged")


class ActivationWriter(Protocol):
    """Write activations in blocks of frames, then what is known at the end."""

    def write(self, found: Activations) -> None:
        """Write the next frames."""
        ...

    def finish(self, settings: dict[str, Any]) -> None:
        """Write the settings of the computation, with values that JSON can represent, and all that is missing."""
        ...


def check_activations_file(path: Path, n_components: int, n_frames: int) -> None:
    """Raise if a file cannot store these activations.

    Raises
    ------
    ValueError
        If the name has no ending of `ENDINGS`, or the activations are too long for an .npz file.
    MissingPackageError
        If the ending is .zarr, and the package zarr is not installed.
    """
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(f'"{path}" must end in {", ".join(ENDINGS[:-1])} or {ENDINGS[-1]}: choose another name.')
    if ending == ".npz" and 8 * n_components * n_frames > LARGEST_NPZ:
        raise ValueError(
            f'"{path}" would have {size_of_memory(8 * n_components * n_frames)} of activations, and an .npz file can '
            f"only be read as a whole, so that {size_of_memory(LARGEST_NPZ)} are the limit: choose a name that ends in "
            ".zarr or .csv."
        )
    if ending == ".zarr":
        imported_zarr()


@contextlib.contextmanager
def activation_writer(path: Path, dictionary: Dictionary) -> Iterator[ActivationWriter]:
    """Yield an object that writes activations to a file. The file gets its name at the end, when it is complete.

    - An ``.npz`` file contains H, W, times, labels, frequencies, gap, relative_gap, kkt, converged and settings (a text
      in JSON; shares that are explained are null for a silent recording). It can be read without pickle.
    - A ``.zarr`` folder is a Zarr group with the same arrays, which can be read in parts; the labels, the settings and
      the frequencies are attributes of the group.
    - A ``.csv`` file has the columns time_s and one for each component.

    Parameters
    ----------
    path : Path
        The file; its ending selects the format.
    dictionary : Dictionary
        The dictionary of the activations.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(created_folder(path.parent))
        if path.suffix.lower() == ".zarr":
            yield _ZarrWriter(stack.enter_context(folder_written_aside(path)), dictionary)
            return
        file = stack.enter_context(written_aside(path))
        if path.suffix.lower() == ".csv":
            yield _TableWriter(file, dictionary)
            return
        folder = stack.enter_context(temporary_name(path.parent))
        folder.mkdir(0o700)
        yield stack.enter_context(contextlib.closing(_ArchiveWriter(file, path, folder, dictionary)))


class _TableWriter:
    """Write a ``.csv`` file with one row per frame."""

    def __init__(self, file: BinaryIO, dictionary: Dictionary):
        self._text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        self._rows = csv.writer(self._text, lineterminator="\n")
        self._rows.writerow(["time_s", *column_names(dictionary.labels)])
        self._dictionary, self._n_frames = dictionary, 0

    def write(self, found: Activations) -> None:
        """Write the next frames."""
        n_frames = found.H.shape[1]
        times = frame_times(n_frames, self._dictionary, self._n_frames)
        self._rows.writerows(
            [f"{time:.6f}", *(f"{value:.7g}" for value in frame)]
            for time, frame in zip(times.tolist(), found.H.T.tolist(), strict=True)
        )
        self._n_frames += n_frames

    def finish(self, settings: dict[str, Any]) -> None:
        """Write what is still in memory. A table has no settings."""
        self._text.flush()
        self._text.detach()


class _ArchiveWriter:
    """Write an ``.npz`` file.

    The members of an archive are written one after another, and begin with their shape. Therefore the results for
    frames are first written to temporary files in `folder`.
    """

    def __init__(self, file: BinaryIO, path: Path, folder: Path, dictionary: Dictionary):
        self._file, self._path, self._dictionary, self._n_frames = file, path, dictionary, 0
        self._parts = {name: (folder / name).open("w+b") for name in ("H", *_CERTIFICATE)}
        self._types: dict[str, np.dtype] = {}

    def write(self, found: Activations) -> None:
        """Write the next frames."""
        self._n_frames += found.H.shape[1]
        check_activations_file(self._path, len(found.H), self._n_frames)
        for name, part in self._parts.items():
            values = np.ascontiguousarray(getattr(found, name).T)  # frame by frame
            self._types[name] = values.dtype
            part.write(values.data)

    def finish(self, settings: dict[str, Any]) -> None:
        """Write the archive."""
        dictionary = self._dictionary
        with zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, part in self._parts.items():
                shape = (dictionary.n_components, self._n_frames) if name == "H" else (self._n_frames,)
                header = {"descr": self._types[name].str, "fortran_order": name == "H", "shape": shape}
                part.seek(0)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array_header_1_0(member, header)
                    shutil.copyfileobj(part, member, 2**20)
            for name, values in {
                "W": dictionary.W,
                "times": frame_times(self._n_frames, dictionary),
                "labels": np.array(dictionary.labels),
                "frequencies": dictionary.frequencies,
                "settings": np.array(json.dumps(settings)),
            }.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, values, allow_pickle=False)

    def close(self) -> None:
        """Close the temporary files."""
        for part in self._parts.values():
            part.close()


class _ZarrWriter:
    """Write a ``.zarr`` folder."""

    def __init__(self, folder: Path, dictionary: Dictionary):
        self._group = imported_zarr().create_group(store=folder)
        self._group.create_array("W", data=dictionary.W)
        self._group.attrs.update(labels=list(dictionary.labels), frequencies=dictionary.frequencies.tolist())
        self._dictionary, self._n_frames = dictionary, 0
        self._pending: list[dict[str, np.ndarray]] = []
        self._n_pending = 0

    def write(self, found: Activations) -> None:
        """Write the next frames, in whole chunks."""
        n_frames = found.H.shape[1]
        times = frame_times(n_frames, self._dictionary, self._n_frames)
        self._pending.append({"H": found.H, "times": times, **{name: getattr(found, name) for name in _CERTIFICATE}})
        self._n_frames += n_frames
        self._n_pending += n_frames
        if self._n_pending >= CHUNK_FRAMES:
            self._append(self._n_pending // CHUNK_FRAMES * CHUNK_FRAMES)

    def finish(self, settings: dict[str, Any]) -> None:
        """Write the remaining frames and the settings."""
        self._append(self._n_pending)
        self._group.attrs["settings"] = json.dumps(settings)

    def _append(self, n_frames: int) -> None:
        """Append the first pending frames to the arrays."""
        whole = {name: np.concatenate([part[name] for part in self._pending], axis=-1) for name in self._pending[0]}
        for name, values in whole.items():
            if name not in self._group:
                self._group.create_array(
                    name,
                    shape=(*values.shape[:-1], 0),
                    chunks=(*values.shape[:-1], CHUNK_FRAMES),
                    dtype=values.dtype,
                )
            self._group[name].append(values[..., :n_frames], axis=values.ndim - 1)
        self._pending = [{name: values[..., n_frames:] for name, values in whole.items()}]
        self._n_pending -= n_frames


def imported_zarr() -> Any:
    """Return the package zarr.

    Raises
    ------
    MissingPackageError
        If it is not installed.
    """
    try:
        import zarr
    except ModuleNotFoundError as error:
        if error.name != "zarr":
            raise
        raise MissingPackageError(
            'the package zarr is not installed, which .zarr files need: run pip install "knownmf[zarr]", or choose a '
            "name that ends in .npz or .csv.",
            name="zarr",
        ) from error
    return zarr
