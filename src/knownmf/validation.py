"""Check the arrays and the numbers that users pass.

Every message says what was passed, what was expected and what to do.
"""

import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

NAMES_SHOWN = 4  # names of arrays in a message

# How files are opened, by their endings, for messages.
_OPENED_BY = {
    ".npy": "numpy.load({})",
    ".npz": "numpy.load({})[NAME]",
    ".zarr": "zarr.open_array({})",
    ".h5": "h5py.File({})[NAME]",
    ".hdf5": "h5py.File({})[NAME]",
    ".mtx": "scipy.io.mmread({})",
    ".csv": "pandas.read_csv({}, index_col=0)",
    ".tsv": 'pandas.read_csv({}, sep="\\t", index_col=0)',
    ".parquet": "pandas.read_parquet({})",
}


def check_is_array(values: object, name: str) -> None:
    """Raise a TypeError that says what to do if a file or a group of arrays was passed as an array."""
    check_is_no_file(values, name)
    check_is_no_group(values, name)


def check_is_no_file(values: object, name: str) -> None:
    """Raise a TypeError that says what to do if the name of a file, or an open file, was passed as an array."""
    if isinstance(values, str | bytes | os.PathLike):
        path = os.fspath(values)
        ending = os.path.splitext(os.fsdecode(path))[1].lower()
        call = _OPENED_BY.get(ending, "numpy.load({}) or zarr.open_array({})").format(repr(path), repr(path))
        raise TypeError(
            f"{name} is {path!r}, expected an array: if this is the name of a file, open it first, for example by "
            f"{call}."
        )
    if hasattr(values, "read") and hasattr(values, "seek"):
        raise TypeError(f"{name} is an open file, expected an array: read it first, for example by numpy.load.")


def check_is_no_group(values: object, name: str) -> None:
    """Raise a TypeError that names arrays to choose from if several, such as a group of Zarr or HDF5, were passed."""
    if hasattr(values, "shape") or not (isinstance(values, Mapping) or _is_group_of_zarr(values)):
        return
    kind, package = type(values).__name__, type(values).__module__.partition(".")[0]
    inside = sorted(map(str, itertools.islice(values, NAMES_SHOWN + 1)))  # type: ignore[call-overload]  # a mapping
    remedy = f"pass one of its arrays, such as {name}[{inside[0]!r}]" if inside else "it is empty"
    names = [*map(repr, inside[:NAMES_SHOWN]), *["..."] * (len(inside) > NAMES_SHOWN)]
    named = f" with {', '.join(names)}" if names else ""
    of_package = "" if package == "builtins" else f" of {package}"
    raise TypeError(f"{name} is an object of type {kind}{of_package}{named}, expected an array: {remedy}.")


def _is_group_of_zarr(values: object) -> bool:
    """Return whether an object is a group of Zarr, which is a mapping, but not called one."""
    return type(values).__module__.partition(".")[0] == "zarr" and hasattr(values, "keys")


def real_array(values: ArrayLike, name: str, *n_dims: int) -> NDArray:
    """Return ``values`` as an array of real numbers; raise if it has another dimension.

    Masked entries, None and the missing values of pandas become NaN.
    """
    check_is_array(values, name)
    if hasattr(values, "toarray"):
        raise TypeError(f"{name} is a sparse matrix: pass {name}.toarray().")
    if type(values).__module__.partition(".")[0] == "dask":
        raise TypeError(f"{name} is a lazy array of Dask, which cannot be used here: pass {name}.compute().")
    for kind, attribute in (("Activations", "H"), ("Dictionary", "W")):
        if type(values).__name__ == kind and hasattr(values, attribute):
            raise TypeError(f"{name} is an object of type {kind}, expected an array: pass its attribute {attribute}.")
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} is not a rectangular array: {error}") from error
    if array.dtype.kind == "c":
        raise TypeError(about_complex(name))
    if array.dtype.kind == "O":
        array = _numbers(array, name, getattr(values, "columns", None))
    if array.dtype.kind not in "fiub" or (array.dtype.kind == "b" and not array.ndim):
        raise TypeError(f"{name} holds {_kind_of(array)}, not real numbers: pass numbers.")
    if array.ndim not in n_dims:
        raise ValueError(about_dimensions(array.shape, name, *n_dims))
    return np.where(values.mask, np.nan, array) if isinstance(values, np.ma.MaskedArray) else array


def about_dimensions(shape: tuple[int, ...], name: str, *n_dims: int) -> str:
    """Return the message about an array with a wrong number of dimensions."""
    n, expected = len(shape), " or ".join(str(n) for n in n_dims)
    remedy = ""
    if n == 1 and 2 in n_dims:
        remedy = f" To use it as a single column, pass np.reshape({name}, (-1, 1)); as a single row, (1, -1)."
    return (
        f"{name} has {n} {'dimension' if n == 1 else 'dimensions'}, expected {expected}: its shape is {shape}.{remedy}"
    )


def _numbers(array: NDArray[np.object_], name: str, columns: Sequence[object] | None) -> NDArray[np.float64]:
    """Return an array of objects as numbers; None and the missing values of pandas become NaN.

    If the array was a table, ``columns`` are the names of its columns, for the message.
    """
    numbers = np.empty(array.shape)
    for index, value in np.ndenumerate(array):
        if value is None or value is np.ma.masked or type(value).__name__ in ("NAType", "NaTType"):
            numbers[index] = np.nan
        else:
            try:
                if isinstance(value, str | bytes):
                    raise TypeError("text is not converted")
                numbers[index] = float(value)
            except (TypeError, ValueError, OverflowError) as error:
                place = f"{name}[{', '.join(map(str, index))}]" if index else name
                remedy = "pass numbers"
                if columns is not None and len(index) == 2:
                    column = columns[index[1]]
                    remedy = f"leave out the column {column!r}, or make it the index (set_index of pandas)"
                raise TypeError(f"{place} is {value!r}, not a real number ({error}): {remedy}.") from error
    return numbers


def _kind_of(array: NDArray) -> str:
    """Return what an array holds, in words."""
    kinds = {"b": "a bool", "U": "text", "S": "bytes", "M": "dates", "m": "time differences", "V": "records"}
    return kinds.get(array.dtype.kind, str(array.dtype))


def about_complex(name: str) -> str:
    """Return the message about complex values, such as those of a short-time Fourier transform."""
    return f"{name} is complex: pass its magnitude, np.abs({name}), or its power."


def sparse_array(values: Any, name: str, signed: bool = False) -> Any:
    """Return a sparse matrix in CSC format without duplicates.

    Raise if an entry is infinite or NaN, or if it is negative and ``signed`` is false.
    """
    if values.ndim != 2:
        raise ValueError(about_dimensions(values.shape, name, 2))
    if values.dtype.kind == "c":
        raise TypeError(about_complex(name))
    if values.dtype.kind not in "fiub":
        raise TypeError(f"{name} holds {values.dtype}, not real numbers.")
    if hasattr(values, "check_format"):
        try:
            values.check_format(full_check=True)
        except ValueError as error:
            raise ValueError(f"{name} is not a valid sparse matrix: {error}") from error
    # SciPy stores in the matrix whether it is canonical, and does not notice when its arrays are changed later. A new
    # matrix on the same arrays is checked again.
    parts = (values.data, values.indices, values.indptr) if values.format in ("csc", "csr") else None
    columns = (values if parts is None else type(values)(parts, shape=values.shape)).tocsc()
    if not columns.has_canonical_format:
        columns = columns.copy() if np.shares_memory(columns.data, values.data) else columns
        columns.sum_duplicates()
    if columns.dtype.kind == "f" and np.isnan(columns.data).any():
        raise ValueError(
            f"{name} is a sparse matrix with NaN in it: only a dense array may have missing entries, "
            f"pass {name}.toarray()."
        )
    check_range(columns.data, f"{name}.data", signed=signed, kind="data")
    return columns


def check_sparse(beta: float, **others: object) -> None:
    """Raise if a sparse matrix is combined with a loss or an option that needs all of its zeros."""
    if beta not in (1.0, 2.0):
        raise TypeError(
            f"The data are a sparse matrix, but beta_loss is {beta:g}: sparse data are for 'kullback-leibler' and "
            "'frobenius'. Choose one of them, or pass a dense array."
        )
    for name, values in others.items():
        if values is not None:
            raise TypeError(f"{name} is given with a sparse matrix of data: pass the data as a dense array.")


def check_range(
    array: NDArray,
    name: str,
    missing: bool = False,
    signed: bool = False,
    kind: Literal["data", "factor", "option"] = "option",
    origin: Sequence[int] = (),
) -> None:
    """Raise if a value is infinite, NaN or negative.

    Parameters
    ----------
    array : ndarray
        The values.
    name : str
        The name of the argument, for the message.
    missing : bool
        Whether NaN is allowed.
    signed : bool
        Whether negative values are allowed.
    kind : {"data", "factor", "option"}
        What the values are, which the advice depends on: data, components or activations, or anything else.
    origin : sequence of int
        Where the first of the values is in the whole array, if they are a block of it.
    """
    if not array.size:
        return
    # fmin and fmax ignore NaN and do not copy the array.
    low, high = np.fmin.reduce(array, axis=None), np.fmax.reduce(array, axis=None)
    if low < 0 and not signed:
        wrong, what, remedy = array < 0, "negative", advice_for_negative(array, name.removesuffix(".data"), kind)
    elif high == np.inf or low == -np.inf:
        wrong, what, remedy = np.isinf(array), "infinite", "use NaN for what is missing" if missing else "replace them"
    elif not missing and array.dtype.kind == "f" and np.isnan(array).any():
        wrong, what, remedy = np.isnan(array), "NaN (missing or masked)", "replace them"
    else:
        return
    where = tuple(int(i) for i in np.argwhere(wrong)[0])
    indices = [i + first for i, first in zip(where, origin or [0] * len(where), strict=True)]
    place = f"{name}[{', '.join(map(str, indices))}]" if where else name
    others = f" (and {wrong.sum() - 1} more)" if wrong.sum() > 1 else ""
    raise ValueError(f"{place} is {array[where]}{others}: {what} values cannot be used, {remedy}.")


def advice_for_negative(array: NDArray, name: str, kind: Literal["data", "factor", "option"]) -> str:
    """Return what to do about the negative values of an array, as part of a sentence.

    What is likely depends on how many they are and how large.
    """
    if kind == "option" or array.ndim == 0:
        return "pass values of at least 0"
    finite = array[np.isfinite(array)]
    low, high = finite.min(initial=0.0), finite.max(initial=0.0)
    share = float(np.mean(array < 0))
    # Decibels are rarely below -250 or above 60. Noise below zero rarely reaches a quarter of the largest value.
    least_level, level, most_level, of_noise = -250.0, -10.0, 60.0, 0.25
    if share > 0.5:
        turned = f"pass -{name} if only the sign is wrong"
        if least_level <= low <= level and high <= most_level:
            return f"convert {name} if it is in decibels, for example with librosa.db_to_amplitude, or {turned}"
        return f"{turned}, or undo a logarithm or the subtraction of a mean"
    if kind == "factor":
        if -low <= of_noise * high:
            return f"set those that are noise to 0, np.maximum({name}, 0)"
        return "only data may be negative: vectors of both signs, as PCA or ICA find them, are not for this model"
    if -low <= of_noise * high:
        return (
            f'pass beta_loss="frobenius" (least squares), which takes negative data, or set those that are noise to 0, '
            f"np.maximum({name}, 0)"
        )
    return (
        'pass beta_loss="frobenius" (least squares), which takes negative data; if these are samples of sound, compute '
        "their spectrogram first"
    )


def check_zeros_and_ones(array: NDArray, name: str) -> None:
    """Raise unless all values of an array are True or False, or 1 or 0."""
    if not ((array == 0) | (array == 1)).all():
        raise ValueError(f"{name} holds values other than True and False: pass, for example, H > 0.")


def one_for_each(values: ArrayLike, name: str, size: int, what: str) -> NDArray[np.float64]:
    """Return nonnegative values of shape (size,). In the message, ``what`` names the bins or components."""
    array = real_array(values, name, 1)
    if array.shape != (size,):
        raise ValueError(f"{name} has shape {array.shape}, expected ({size},): one value for each of {size} {what}.")
    check_range(array, name)
    return array.astype(np.float64)


def penalty(values: ArrayLike, name: str, n_components: int) -> NDArray[np.float64]:
    """Return a penalty as an array with one value for each component."""
    array = real_array(values, name, 0, 1)
    if array.ndim and array.shape != (n_components,):
        raise ValueError(
            f"{name} has shape {array.shape}, expected one number or one for each of {n_components} components."
        )
    check_range(array, name)
    return np.full(n_components, array, dtype=np.float64)


def number(
    value: object,
    name: str,
    low: float = 0.0,
    high: float = np.inf,
    closed: Literal["left", "right", "both", "neither"] = "left",
    meaning: str = "",
) -> float:
    """Return a finite real number in an interval as a float.

    Numbers of NumPy count as numbers; bool, text, dates and NaN do not.

    Parameters
    ----------
    value : object
        The number.
    name : str
        The name of the argument, for the message.
    low, high : float
        The ends of the interval.
    closed : {"left", "right", "both", "neither"}, default="left"
        Which ends belong to the interval.
    meaning : str
        What the number is, for the message.

    Raises
    ------
    ValueError
        If `value` is not a number in the interval.

    Examples
    --------
    >>> number(3, "mask_power", closed="neither")
    3.0
    >>> number(3, "adapt", 0, 1)
    Traceback (most recent call last):
    ValueError: adapt is 3, expected a number from 0 to below 1.
    """
    if _is_number(value, Real):
        try:
            size = float(value)  # type: ignore[arg-type]
        except OverflowError:  # a whole number above 1e308
            size = np.inf
        above = low < size or (low == size and closed in ("left", "both"))
        below = size < high or (size == high and closed in ("right", "both"))
        if above and below and np.isfinite(size):
            return size
    if high == np.inf:
        expected = "a finite number " + ("of at least" if closed in ("left", "both") else "above") + f" {low:g}"
    else:
        expected = {
            "both": f"a number from {low:g} to {high:g}",
            "left": f"a number from {low:g} to below {high:g}",
            "right": f"a number above {low:g} and at most {high:g}",
            "neither": f"a number above {low:g} and below {high:g}",
        }[closed]
    raise ValueError(f"{name} is {value!r}, expected {f'{meaning}, ' if meaning else ''}{expected}.")


def whole_number(value: object, name: str, least: int = 1, meaning: str = "") -> int:
    """Return a whole number of at least ``least``. In the message, ``meaning`` says what the number is."""
    if not _is_number(value, Integral) or int(value) < least:  # type: ignore[call-overload]
        expected = f"{meaning}, a whole number" if meaning else "a whole number"
        raise ValueError(f"{name} is {value!r}, expected {expected} of at least {least}.")
    return int(value)  # type: ignore[call-overload, no-any-return]


def _is_number(value: object, kind: type) -> bool:
    """Return whether a value is a number of a kind. For NumPy, a time span is a whole number too; here it is not."""
    return isinstance(value, kind) and not isinstance(value, bool | np.timedelta64)


def level_of_caller() -> int:
    """Return the ``stacklevel`` that makes a warning show the line of code that called the package.

    Calls from scikit-learn are skipped too, because it wraps the methods of estimators.
    """
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in ("knownmf", "sklearn"):
        level, frame = level + 1, frame.f_back
    return level
