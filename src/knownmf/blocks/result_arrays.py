"""Where the results of blocks go: new arrays in memory, or arrays of the caller, in memory or on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from knownmf.blocks.questions import Question
from knownmf.limits import Limits
from knownmf.results import Activations
from knownmf.validation import check_is_array, check_is_no_file

#: The fields of :class:`knownmf.Activations` with a value for each frame, and their types; ``H`` has a floating type.
CERTIFICATES: Mapping[str, DTypeLike] = {
    "gap": np.float64,
    "relative_gap": np.float64,
    "kkt": np.float64,
    "converged": np.bool_,
    "objective": np.float64,
    "divergence": np.float64,
    "null_divergence": np.float64,
    "n_iter": np.int64,
}

Wanted = Mapping[str, tuple[tuple[int, ...], np.dtype]]  # the shapes and types of arrays for results, by their names


def type_of_activations(dtype: DTypeLike) -> type[np.floating]:
    """Return the type of the activations of data of a type."""
    return np.float32 if dtype == np.float32 else np.float64


class ResultArrays:
    """Arrays for the results of blocks: new ones in memory, or those of the caller.

    Parameters
    ----------
    out : array, mapping of arrays, or None
        Where the activations go; or, by their names, where the fields of :class:`knownmf.Activations` go.
    n_components, n_frames : int
        The numbers of components and of frames.
    dtype : dtype
        The type of the activations.
    frames_in_rows : bool
        Whether ``out`` has the activations of a frame in a row.
    """

    def __init__(self, out: Any, n_components: int, n_frames: int, dtype: DTypeLike, frames_in_rows: bool) -> None:
        shape = (n_frames, n_components) if frames_in_rows else (n_components, n_frames)
        certificates = {name: ((n_frames,), np.dtype(kind)) for name, kind in CERTIFICATES.items()}
        given = _given_arrays(out, {"H": (shape, np.dtype(dtype)), **certificates})
        new = {name: np.empty(*wanted) for name, wanted in certificates.items() if name not in given}
        if "H" not in given:
            new["H"] = np.empty((n_frames, n_components), dtype).T
        self.arrays = given | new
        self._has_rows = frames_in_rows and "H" in given

    def put(self, first: int, found: Activations) -> None:
        """Store the activations of a block that begins with the frame ``first``."""
        block = slice(first, first + len(found.converged))
        for name in CERTIFICATES:
            self.arrays[name][block] = getattr(found, name)
        if self._has_rows:
            self.arrays["H"][block] = found.H.T
        else:
            self.arrays["H"][:, block] = found.H

    def put_nothing(self, block: slice) -> None:
        """Store that nothing is known of some frames."""
        unknown = {"converged": False, "n_iter": 0, "gap": np.inf, "relative_gap": np.inf, "kkt": np.inf}
        for name in CERTIFICATES:
            self.arrays[name][block] = unknown.get(name, np.nan)
        self.arrays["H"][block if self._has_rows else (slice(None), block)] = np.nan

    def activations(self, last: Activations, limits: Limits) -> Activations:
        """Return what has been stored, of which ``last`` is the last block. Arrays of the caller keep their axes."""
        return replace(last, **self.arrays, limits=limits, frame_labels=None)

    def check_apart_from(self, question: Question) -> None:
        """Raise if an array for results shares memory with one of the data, which would be overwritten."""
        for name, values in question.arrays().items():
            if isinstance(values, np.ndarray) and any(
                isinstance(array, np.ndarray) and np.may_share_memory(values, array) for array in self.arrays.values()
            ):
                raise ValueError(
                    f"out shares memory with {question.name_of(name)}, which would be overwritten: pass another array."
                )


def _given_arrays(out: Any, wanted: Wanted) -> dict[str, Any]:
    """Return the arrays of the caller for results, by their names, after checking their shapes and types."""
    if out is None:
        return {}
    if hasattr(out, "shape"):
        given, names = {"H": out}, {"H": "out"}
    elif hasattr(out, "__contains__") and hasattr(out, "__getitem__") and not isinstance(out, Sequence):
        given = {name: out[name] for name in wanted if name in out}
        names = {name: f'out["{name}"]' for name in given}
        unknown = [name for name in out if name not in wanted] if isinstance(out, dict) else []
        if unknown or not given:
            raise ValueError(
                f"out has {f'the name {unknown[0]!r}' if unknown else 'no array for a result'}: pass an array for H, "
                f"or arrays with some of the names {', '.join(wanted)}."
            )
    else:
        check_is_no_file(out, "out")
        raise TypeError(f"out is an object of type {type(out).__name__}, expected an array or a mapping of arrays.")
    for name, array in given.items():
        _check_array(array, names[name], *wanted[name])
    return given


def _check_array(array: Any, name: str, shape: tuple[int, ...], kind: np.dtype) -> None:
    """Raise if an array cannot be written to, or has another shape or type than the result."""
    check_is_array(array, name)
    if not isinstance(array, np.ndarray) and not (hasattr(array, "__setitem__") and hasattr(array, "shape")):
        raise TypeError(f"{name} is an object of type {type(array).__name__}, which cannot be written to.")
    if tuple(array.shape) != shape or array.dtype != kind:
        raise ValueError(f"{name} has shape {tuple(array.shape)} and type {array.dtype}, expected {shape} and {kind}.")
    file = getattr(array, "file", None)  # of HDF5
    if (
        getattr(array, "read_only", False)
        or getattr(file, "mode", "") == "r"
        or (isinstance(array, np.ndarray) and not array.flags.writeable)
    ):
        raise ValueError(f"{name} is read-only: open it for writing.")
