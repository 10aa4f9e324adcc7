"""Call the compiled library.

The type and the shape of every array are checked here before its address is handed over. The indices of CSR blocks for
learning were checked by ``validation.sparse_array``. A NumPy array that a structure points to is kept alive by the
object that owns the structure.
"""

import ctypes
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from knownmf.native_library import library

_STATUS_OUT_OF_MEMORY, _STATUS_INTERRUPTED = 1, 2
_ALIGNMENT = 64  # bytes, as in memory.hpp: rows begin at vector registers
_PADDING = 16  # numbers, as in memory.hpp

_PRECISIONS = {np.dtype(np.float32): "single", np.dtype(np.float64): "double"}


class Interrupted(Exception):
    """Raised where a call ended early because its caller asked for that."""


class InterruptFlag:
    """Ends calls that run in other threads: they look at it between the steps of a frame, and within long ones."""

    def __init__(self) -> None:
        self._value = ctypes.c_int32(0)
        self.address = ctypes.addressof(self._value)

    def set(self) -> None:
        """End all calls that were given this flag."""
        self._value.value = 1


def _structure(name: str, **fields: Any) -> type[ctypes.Structure]:
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})


_address, _index, _double, _int32 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double, ctypes.c_int32

# The structures of frame.hpp, field by field.
_Basis = _structure(
    "_Basis",
    n_bins=_index,
    n_components=_index,
    bin_stride=_index,
    component_stride=_index,
    beta=_double,
    atoms=_address,
    atoms_single=_address,
    bins_single=_address,
    bins=_address,
    gram=_address,
    gram_units=_address,
    units=_address,
    l1=_address,
    l2=_address,
    weights=_address,
    weighted_sums=_address,
    support=_address,
    reach=_address,
)
_Observations = _structure(
    "_Observations",
    n_frames=_index,
    data=_address,
    weights=_address,
    background=_address,
    background_stride=_index,
    support=_address,
    start=_address,
    entries=_address,
    entry_bins=_address,
    starts=_address,
    l1=_address,
    l2=_address,
    upper=_address,
    total=_address,
    total_is_most=_int32,
)
_Options = _structure(
    "_Options", tol=_double, max_iter=_index, round_to_single=_int32, certify_only=_int32, interrupted=_address
)
_Answer = _structure(
    "_Answer",
    H=_address,
    gap=_address,
    relative_gap=_address,
    kkt=_address,
    objective=_address,
    null_divergence=_address,
    n_iter=_address,
    converged=_address,
)


def structure_sizes() -> dict[str, tuple[int, int]]:
    """Return, for every structure, its size here and in the library, in bytes: they must agree."""
    structures = (_Basis, _Observations, _Options, _Answer)
    sizes = (_index * len(structures))()
    library.knownmf_structure_sizes(sizes)
    return {kind.__name__: (ctypes.sizeof(kind), size) for kind, size in zip(structures, sizes, strict=True)}


def _pointer(array: NDArray | None, dtype: DTypeLike, *shape: int, written: bool = False) -> int | None:
    """Return the address of an array, None for None.

    It must have exactly this type and shape and be contiguous, and writable if it is ``written``.
    """
    if array is None:
        return None
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise TypeError(
            f"The native code got {array.dtype} of shape {array.shape}, "
            f"{'' if array.flags.c_contiguous else 'not '}contiguous; expected contiguous {np.dtype(dtype)} of {shape}."
        )
    if written and not array.flags.writeable:
        raise TypeError("The native code got an array to write to that is read-only.")
    return array.ctypes.data


def _check(status: int) -> None:
    """Raise what a status stands for."""
    if status == _STATUS_OUT_OF_MEMORY:
        raise MemoryError("There is not enough memory to solve this: pass fewer frames or components at a time.")
    if status == _STATUS_INTERRUPTED:
        raise Interrupted
    if status:
        raise RuntimeError(f"The native code returned the unknown status {status}: this is an error in knownmf.")


def _padded(size: int) -> int:
    return -(-size // _PADDING) * _PADDING


def _aligned_zeros(shapes: dict[str, tuple[tuple[int, ...], DTypeLike]]) -> dict[str, NDArray]:
    """Return arrays of zeros that begin at vector registers, in one piece of memory, which the system maps fastest."""
    sizes = {name: math.prod(shape) * np.dtype(dtype).itemsize for name, (shape, dtype) in shapes.items()}
    steps = {name: -(-size // _ALIGNMENT) * _ALIGNMENT for name, size in sizes.items()}
    memory = np.zeros(sum(steps.values()) + _ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % _ALIGNMENT
    arrays = {}
    for name, (shape, dtype) in shapes.items():
        arrays[name] = memory[first : first + sizes[name]].view(dtype).reshape(shape)
        first += steps[name]
    return arrays


class PreparedBasis:
    """A basis as the native code reads it: scaled, padded, in the precisions and orientations that its mode needs.

    Parameters
    ----------
    W : (n_bins, n_components) float64, C-contiguous
        The basis vectors.
    beta : float
        The beta-divergence.
    l1, l2 : (n_components,) float64
        The penalties.
    weights : (n_bins,) float64
        The weights that all frames share.
    support : (n_components,) float64
        The support that all frames share, zeros and ones.
    sparse : bool
        Whether it is for sparse data.
    gram : bool
        Whether least squares may use one Gram matrix for all frames.
    interrupt : InterruptFlag
        Ends the preparation early.
    """

    def __init__(
        self,
        W: NDArray[np.float64],
        beta: float,
        l1: NDArray[np.float64],
        l2: NDArray[np.float64],
        weights: NDArray[np.float64],
        support: NDArray[np.float64],
        *,
        sparse: bool,
        gram: bool,
        interrupt: InterruptFlag,
    ):
        n_bins, n_components = W.shape
        bins, components = _padded(n_bins), _padded(n_components)
        shapes: dict[str, tuple[tuple[int, ...], DTypeLike]] = dict.fromkeys(
            ("l1", "l2", "units", "weighted_sums", "support"), ((components,), np.float64)
        )
        shapes |= dict.fromkeys(("weights", "reach"), ((bins,), np.float64))
        if sparse:
            shapes["bins"] = (n_bins, components), np.float64
        else:
            shapes["atoms"] = (n_components, bins), np.float64
            shapes["atoms_single"] = (n_components, bins), np.float32
            shapes["bins_single"] = (n_bins, components), np.float32
        if gram:
            shapes["gram"] = (n_components, components), np.float64
            shapes["gram_units"] = (components,), np.float64
        self._arrays = _aligned_zeros(shapes)
        for name, values in (("l1", l1), ("l2", l2), ("weights", weights), ("support", support)):
            self._arrays[name][: len(values)] = values
        addresses = {name: values.ctypes.data for name, values in self._arrays.items()}
        self.shape = W.shape
        self.structure = _Basis(n_bins, n_components, bins, components, beta, **addresses)
        _check(
            library.knownmf_prepare(
                ctypes.byref(self.structure),
                _address(_pointer(W, np.float64, n_bins, n_components)),
                _address(interrupt.address),
            )
        )

    @property
    def nbytes(self) -> int:
        """The number of bytes of its arrays."""
        return sum(values.nbytes for values in self._arrays.values())

    def columns(self) -> NDArray[np.float64]:
        """Return the basis vectors as they were given, (n_bins, n_components); the basis is not for sparse data."""
        n_bins, n_components = self.shape
        # Powers of two: scaling there and back loses no digit.
        return np.ascontiguousarray(self._arrays["atoms"][:, :n_bins].T / self._arrays["units"][:n_components])


class Workspace:
    """Memory that one thread needs to solve blocks of frames. It grows as needed and is kept for the next block."""

    def __init__(self) -> None:
        self.handle = library.knownmf_new_workspace()
        if not self.handle:
            raise MemoryError("There is not enough memory for a workspace.")
        self._arrays: dict[str, NDArray[np.float64]] = {}

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            library.knownmf_free_workspace(self.handle)

    @property
    def nbytes(self) -> int:
        """The number of bytes that it holds."""
        return library.knownmf_workspace_bytes(self.handle) + sum(array.nbytes for array in self._arrays.values())

    def empty(self, name: str, shape: tuple[int, int]) -> NDArray[np.float64]:
        """Return an array for the input of a block, which is valid until the next call with the same name.

        New memory for each block costs time where the system takes it back at once, as in the workers of Dask.
        """
        size = shape[0] * shape[1]
        array = self._arrays.get(name)
        if array is None or array.size < size:
            array = self._arrays[name] = np.empty(size)
        return array[:size].reshape(shape)


class Block(NamedTuple):
    """Frames to solve, a frame a row; ``data`` or, of a sparse block, ``entries``, ``entry_bins`` and ``starts``."""

    n_frames: int
    data: NDArray[np.float64] | None = None  # (n_frames, n_bins), NaN = missing
    entries: NDArray[np.float64] | None = None
    entry_bins: NDArray[np.int32] | None = None
    starts: NDArray[np.int64] | None = None  # (n_frames + 1,)
    weights: NDArray[np.float64] | None = None  # (n_frames, n_bins)
    background: NDArray[np.float64] | None = None  # (n_frames, n_bins), or (1, n_bins) for all frames
    support: NDArray[np.float64] | None = None  # (n_frames, n_components)
    start: NDArray[np.float64] | None = None  # (n_frames, n_components)
    l1: NDArray[np.float64] | None = None  # (n_frames, n_components), as are l2 and upper
    l2: NDArray[np.float64] | None = None
    upper: NDArray[np.float64] | None = None
    total: NDArray[np.float64] | None = None  # (n_frames,): what the activations of a frame sum to
    total_is_most: bool = False  # whether they may sum to less


class Answer(NamedTuple):
    """Where the answers of a block are written, a frame a row."""

    H: NDArray[np.float64]  # (n_frames, n_components)
    gap: NDArray[np.float64]
    relative_gap: NDArray[np.float64]
    kkt: NDArray[np.float64]
    objective: NDArray[np.float64]
    null_divergence: NDArray[np.float64]
    n_iter: NDArray[np.int64]
    converged: NDArray[np.bool_]


class Options(NamedTuple):
    """How a block is solved."""

    tol: float
    max_iter: int
    round_to_single: bool  # whether the activations are rounded to float32 before they are certified
    certify_only: bool  # whether the activations that the block starts from are certified as they are


def solve(
    workspace: Workspace,
    basis: PreparedBasis,
    block: Block,
    options: Options,
    interrupt: InterruptFlag,
    answer: Answer,
) -> None:
    """Solve a block of frames, or certify the activations that it starts from; the answer is written to ``answer``.

    Raises
    ------
    MemoryError
        If the workspace could not grow.
    Interrupted
        If the flag was set before the end.
    """
    n, (n_bins, n_components) = block.n_frames, basis.shape
    n_backgrounds = 0 if block.background is None else len(block.background)
    observations = _Observations(
        n,
        _pointer(block.data, np.float64, n, n_bins),
        _pointer(block.weights, np.float64, n, n_bins),
        _pointer(block.background, np.float64, 1 if n_backgrounds == 1 else n, n_bins),
        0 if n_backgrounds == 1 else n_bins,
        _pointer(block.support, np.float64, n, n_components),
        _pointer(block.start, np.float64, n, n_components),
    )
    observations.l1 = _pointer(block.l1, np.float64, n, n_components)
    observations.l2 = _pointer(block.l2, np.float64, n, n_components)
    observations.upper = _pointer(block.upper, np.float64, n, n_components)
    observations.total = _pointer(block.total, np.float64, n)
    observations.total_is_most = block.total_is_most
    if block.starts is not None and block.weights is not None:
        raise TypeError("A sparse block has no weights of its own: those of the basis are used.")
    if block.data is None and block.starts is None:
        raise TypeError("A block has neither data nor entries.")
    if block.starts is not None:
        observations.starts = _pointer(block.starts, np.int64, n + 1)
        observations.entries = _pointer(block.entries, np.float64, block.starts[-1])
        observations.entry_bins = _pointer(block.entry_bins, np.int32, block.starts[-1])
        _check_entries(block, n_bins)
    how = _Options(
        options.tol, min(options.max_iter, 2**62), options.round_to_single, options.certify_only, interrupt.address
    )
    rows = _Answer(
        _pointer(answer.H, np.float64, n, n_components, written=True),
        _pointer(answer.gap, np.float64, n, written=True),
        _pointer(answer.relative_gap, np.float64, n, written=True),
        _pointer(answer.kkt, np.float64, n, written=True),
        _pointer(answer.objective, np.float64, n, written=True),
        _pointer(answer.null_divergence, np.float64, n, written=True),
        _pointer(answer.n_iter, np.int64, n, written=True),
        _pointer(answer.converged, np.bool_, n, written=True),
    )
    pointers = map(ctypes.byref, (basis.structure, observations, how, rows))
    _check(library.knownmf_solve(workspace.handle, *pointers))


def _check_entries(block: Block, n_bins: int) -> None:
    """Raise unless the entries of a sparse block are where its frames and bins are."""
    starts, bins = block.starts, block.entry_bins
    if starts is None or bins is None or block.entries is None:
        raise TypeError("A sparse block has entries, entry_bins and starts: one of them is missing.")
    if starts[0] != 0 or (np.diff(starts) < 0).any() or (len(bins) and not 0 <= bins.min() <= bins.max() < n_bins):
        raise TypeError(f"A sparse block has entries outside of its {n_bins} bins or {len(starts) - 1} frames.")
    rises = np.diff(bins) > 0
    first = starts[1:-1]  # of all frames but the first, whose bins start anew
    rises[first[(first > 0) & (first < len(bins))] - 1] = True
    if not rises.all():
        raise TypeError("A sparse block has entries that are not in ascending order of their bins within a frame.")


# ---- Learning passes. Matrices are frames-major and of one floating type; one with a single row stands for all frames.


def safe_power(beta: float, has_quadratic_penalty: bool) -> float:
    """Return the exponent with which a multiplicative update is sure to lower the objective, at most 1."""
    return library.knownmf_safe_power(_double(beta), int(has_quadratic_penalty))


def measure(
    x: NDArray, weights: NDArray, v: NDArray, beta: float, with_cost: bool, pull: NDArray, push: NDArray
) -> float:
    """Write the two halves of the slope of a block, (n_frames, n_bins); return its divergence, if it is asked for."""
    shape, dtype = x.shape, x.dtype
    return _learning("measure", dtype)(
        _address(_pointer(x, dtype, *shape)),
        *_rows(weights, dtype, shape[1]),
        _address(_pointer(v, dtype, *shape)),
        _double(beta),
        int(with_cost),
        _address(_pointer(pull, dtype, *shape, written=True)),
        _address(_pointer(push, dtype, *shape, written=True)),
        _index(shape[0]),
        _index(shape[1]),
    )


def pull_of_activations(block: Any, H: NDArray, columns: NDArray, pull: NDArray) -> float:
    """Add ``W'(x / v)`` of the entries of a CSR block to the rows of ``pull``; return their part of the cost.

    ``columns`` is the transposed basis, (n_bins, n_components). For beta = 1; the cost is ``sum x (log(x / v) - 1)``.
    """
    n_components = H.shape[1]
    return _learning("pull_of_activations", H.dtype)(
        *_sparse_rows(block, H.dtype),
        _address(_pointer(H, H.dtype, block.shape[0], n_components)),
        _address(_pointer(columns, H.dtype, block.shape[1], n_components)),
        _index(n_components),
        _address(_pointer(pull, H.dtype, *H.shape, written=True)),
    )


def pull_of_basis(block: Any, H: NDArray, columns: NDArray, pull: NDArray) -> None:
    """Add ``(x / v) h`` of the entries of a CSR block to ``pull``, (n_bins, n_components), at the entry's bin."""
    n_components = H.shape[1]
    _learning("pull_of_basis", H.dtype)(
        *_sparse_rows(block, H.dtype),
        _address(_pointer(H, H.dtype, block.shape[0], n_components)),
        _address(_pointer(columns, H.dtype, block.shape[1], n_components)),
        _index(n_components),
        _address(_pointer(pull, H.dtype, *columns.shape, written=True)),
    )


def multiply_rows(Z: NDArray, A: NDArray, B: NDArray, l1: NDArray, l2: NDArray, power: float) -> None:
    """Take one multiplicative update of every row of Z, in place: ``Z *= (A / (B + l1 + l2 Z))^power``."""
    (n, size), dtype = Z.shape, Z.dtype
    _learning("multiply_rows", dtype)(
        _address(_pointer(Z, dtype, n, size, written=True)),
        _address(_pointer(A, dtype, n, size)),
        *_rows(B, dtype, size),
        *_rows(l1, dtype, size),
        *_rows(l2, dtype, size),
        _double(power),
        _index(n),
        _index(size),
    )


def extrapolate(ended: NDArray, here: NDArray, before: NDArray, share: float) -> NDArray:
    """Return ``ended * (ended / before)^share``, entry by entry.

    An entry whose steps to ``ended`` from ``here`` and from ``before`` have different signs stays at ``ended``.
    """
    out, (shape, dtype) = np.empty_like(ended), (ended.shape, ended.dtype)
    _learning("extrapolate", dtype)(
        *(_address(_pointer(values, dtype, *shape)) for values in (ended, here, before)),
        _double(share),
        _address(_pointer(out, dtype, *shape, written=True)),
        _index(out.size),
    )
    return out


def descend_rows(Q: NDArray, q: NDArray, Z: NDArray, free: NDArray[np.bool_], n_sweeps: int) -> None:
    """Lower ``1/2 z'Qz - q'z`` for every row z of Z over its free entries, in place, by coordinate sweeps (HALS)."""
    (n, size), gradient = Z.shape, np.empty(Z.shape[1])
    library.knownmf_descend_rows(
        _address(_pointer(Q, np.float64, size, size)),
        _address(_pointer(q, np.float64, n, size)),
        _address(_pointer(Z, np.float64, n, size, written=True)),
        *_rows(free, np.bool_, size),
        int(n_sweeps),
        _address(_pointer(gradient, np.float64, size, written=True)),
        _index(n),
        _index(size),
    )


def _rows(values: NDArray, dtype: DTypeLike, size: int) -> tuple[Any, Any]:
    """Return the address and the number of rows of a matrix of which one row may stand for all."""
    return _address(_pointer(values, dtype, len(values), size)), _index(len(values))


def _sparse_rows(block: Any, dtype: DTypeLike) -> tuple[Any, ...]:
    """Return the addresses of the arrays of a CSR block, and its number of rows."""
    n_entries = int(block.indptr[-1])
    return (
        _address(_pointer(block.data, dtype, n_entries)),
        _address(_pointer(block.indices, np.int32, n_entries)),
        _address(_pointer(block.indptr, np.int32, block.shape[0] + 1)),
        _index(block.shape[0]),
    )


def _learning(name: str, dtype: np.dtype) -> Any:
    """Return the function of the library for a floating type."""
    return getattr(library, f"knownmf_{name}_{_PRECISIONS[dtype]}")


library.knownmf_new_workspace.restype = _address
library.knownmf_free_workspace.argtypes = [_address]
library.knownmf_free_workspace.restype = None
library.knownmf_workspace_bytes.argtypes = [_address]
library.knownmf_workspace_bytes.restype = _index
library.knownmf_solve.argtypes = [_address] * 5
library.knownmf_prepare.argtypes = [_address] * 3
library.knownmf_descend_rows.restype = None
library.knownmf_zero_floor.restype = _double
library.knownmf_safe_power.restype = _double
for _precision in _PRECISIONS.values():
    for _name in ("measure", "pull_of_activations"):
        getattr(library, f"knownmf_{_name}_{_precision}").restype = _double
    for _name in ("pull_of_basis", "multiply_rows", "extrapolate"):
        getattr(library, f"knownmf_{_name}_{_precision}").restype = None

#: For beta < 1, data below this share of the largest value of their frame are raised to it.
ZERO_FLOOR: float = library.knownmf_zero_floor()
