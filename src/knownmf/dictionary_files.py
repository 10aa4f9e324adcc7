"""Read the files of dictionaries."""

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from knownmf.archives import array_header, array_names, array_values, opened_archive
from knownmf.memory import check_memory
from knownmf.validation import whole_number

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "FORMAT_VERSION_WITHOUT_SETTINGS",
    "LONGEST_LABEL",
    "SETTINGS",
    "stored_dictionary",
]

FORMAT = "knownmf dictionary"
# Dictionaries without settings have a version of their own, so that programs which need the settings refuse them.
FORMAT_VERSION, FORMAT_VERSION_WITHOUT_SETTINGS = 1, 2

# The names of the settings of spectrograms, which are also those of the constructor's arguments and of the entries of
# a file.
SETTINGS = ("sr", "n_fft", "hop_length", "window", "power")

# Limits for files, so that a small one cannot take much memory. No name of a window is nearly as long.
LONGEST_LABEL = 1000  # characters
MOST_BYTES = 1000  # of a single value


def stored_dictionary(path: Path) -> tuple[np.ndarray, list[str], dict[str, Any]]:
    """Return the basis, the labels and the settings in a file. Raise if it is not a dictionary.

    In the place of the settings, there may be the features and the units.

    Only the arrays of a dictionary are decompressed, each after its type and its shape were checked. Therefore, no file
    takes more memory than a dictionary of this shape does.
    """
    with path.open("rb") as file:
        _check_start(path, file.peek(6))
        with opened_archive(file, path, "save the dictionary again") as archive:
            has_settings = _check_format(path, archive) == FORMAT_VERSION
            try:
                settings = {name: _single_value(archive, name) for name in (SETTINGS if has_settings else ("units",))}
                n_fft = None
                if has_settings:
                    n_fft = whole_number(settings["n_fft"], "n_fft", meaning="the window's length in samples")
                _check_headers(path, archive, n_fft)
                if "features" in array_names(archive) and not has_settings:
                    settings["features"] = [str(name) for name in array_values(archive, "features")]
                W, labels = array_values(archive, "W"), array_values(archive, "labels")
            except ValueError as error:
                raise ValueError(f'"{path}" contains an invalid dictionary: {error}') from error
    return W, [str(label) for label in labels], settings


def _check_start(path: Path, start: bytes) -> None:
    """Raise if a file with these first bytes is not an .npz file."""
    if start.startswith(b"\x93NUMPY"):
        raise ValueError(f'"{path}" is a single array, not a dictionary: write one with `Dictionary.save`.')
    if not start.startswith(b"PK"):
        raise ValueError(
            f'"{path}" is not a knownmf dictionary: it is not an .npz file. Write dictionaries with '
            "`Dictionary.save` or `knownmf learn`."
        )


def _check_format(path: Path, archive: zipfile.ZipFile) -> int:
    """Return the version of the format. Raise unless the entries are those of a dictionary in a known version."""
    entries = array_names(archive)

    def value(name: str) -> object:
        try:
            return _single_value(archive, name)
        except ValueError:
            return None

    if "format" not in entries or value("format") != FORMAT:
        raise ValueError(
            f'"{path}" is an .npz file but not a knownmf dictionary: write one with `Dictionary.save` or '
            "`knownmf learn`."
        )
    version = value("format_version") if "format_version" in entries else None
    if not isinstance(version, int) or version < 1:
        raise ValueError(f'"{path}" has no readable format version: save the dictionary again.')
    if version > FORMAT_VERSION_WITHOUT_SETTINGS:
        raise ValueError(
            f'"{path}" has format version {version}, but this knownmf reads versions up to '
            f"{FORMAT_VERSION_WITHOUT_SETTINGS}: upgrade knownmf."
        )
    options = SETTINGS if version == FORMAT_VERSION else ("units",)
    missing = [key for key in ("W", "labels", *options) if key not in entries]
    if missing:
        raise ValueError(f'"{path}" lacks {", ".join(missing)}: it is incomplete, save the dictionary again.')
    return version


def _single_value(archive: zipfile.ZipFile, name: str) -> Any:
    """Return a single stored value."""
    dtype, shape = array_header(archive, name)
    if shape:
        raise ValueError(f"{name} has shape {shape} instead of being one value")
    if dtype.itemsize > MOST_BYTES:
        raise ValueError(f"{name} takes {dtype.itemsize} bytes, which is more than any value needs")
    return array_values(archive, name).item()


def _check_headers(path: Path, archive: zipfile.ZipFile, n_fft: int | None) -> None:
    """Raise unless the basis, the labels and the features in a file fit together, and into memory."""
    dtype, shape = array_header(archive, "W")
    if dtype.kind not in "biuf" or len(shape) != 2:
        raise ValueError(f"W has values of type {dtype} and shape {shape}; a matrix of real numbers is needed")
    if n_fft is not None and shape[0] != n_fft // 2 + 1:
        raise ValueError(f"W has {shape[0]} bins, but n_fft={n_fft} makes spectra of {n_fft // 2 + 1}")
    n_labels = _checked_number_of_texts(archive, "labels")
    if shape[1] != n_labels:
        raise ValueError(f"W has {shape[1]} components but there are {n_labels} labels")
    if n_fft is None and "features" in array_names(archive):
        n_features = _checked_number_of_texts(archive, "features")
        if shape[0] != n_features:
            raise ValueError(f"W has {shape[0]} bins but there are {n_features} features")
    # The array that is read, and the copy that the dictionary keeps.
    check_memory(math.prod(shape) * (dtype.itemsize + 8), f'loading "{path}"', "close other programs")


def _checked_number_of_texts(archive: zipfile.ZipFile, name: str) -> int:
    """Return how many strings an array has. Raise if it has something else, or longer ones than any label."""
    dtype, shape = array_header(archive, name)
    if dtype.kind != "U" or len(shape) != 1:
        raise ValueError(f"the {name} are not strings but {dtype} of shape {shape}")
    longest = dtype.itemsize // np.dtype("U1").itemsize
    if longest > LONGEST_LABEL:
        raise ValueError(f"the {name} have up to {longest} characters, expected at most {LONGEST_LABEL}")
    return shape[0]
