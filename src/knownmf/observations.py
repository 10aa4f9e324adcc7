"""Observations: the data of some frames and what came with them, checked once, and handed out as blocks of frames."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse

from knownmf.native import Block
from knownmf.validation import (
    check_range,
    check_sparse,
    check_start,
    check_support,
    per_bin,
    real_array,
    sparse_array,
)


@dataclass(frozen=True, eq=False)
class Observations:
    """The data of some frames, a frame a column, and what belongs to single frames.

    Attributes
    ----------
    V : array or CSC matrix, (n_bins, n_frames)
        The data; NaN means missing.
    weights : (n_bins, n_frames) array or None
        Weights of the frames' own.
    background : (n_bins, n_frames) or (n_bins, 1) array or None
        The known part of the model; one column stands for all frames.
    support : (n_components, n_frames) array or None
        Zeros and ones: where the frames' own support allows activations.
    H_init : (n_components, n_frames) array or None
        Activations to start from.
    """

    V: Any
    weights: NDArray | None
    background: NDArray | None
    support: NDArray | None
    H_init: NDArray | None

    @classmethod
    def check(
        cls,
        V: Any,
        n_bins: int,
        n_components: int,
        beta: float,
        weights: ArrayLike | None = None,
        background: ArrayLike | None = None,
        support: ArrayLike | None = None,
        H_init: ArrayLike | None = None,
        start_name: str = "H_init",
    ) -> Self:
        """Return observations for a basis of so many bins and components; the caller calls H_init ``start_name``.

        Raises
        ------
        ValueError
            If a shape does not fit, or a value is negative or infinite.
        TypeError
            If something is not an array of real numbers, or a sparse V comes with what only a dense one can have.
        """
        sparse = issparse(V)
        V = sparse_array(V, "V") if sparse else real_array(V, "V", 2)
        if V.shape[0] != n_bins or not n_bins:
            raise ValueError(f"V has {V.shape[0]} bins but W has {n_bins}: both need the same bins in their rows.")
        if sparse:
            check_sparse(beta, background=background)
            if weights is not None:
                raise TypeError(
                    f"weights has one value for each entry of a sparse matrix: give one for each of the {n_bins} bins, "
                    "or pass the data as a dense array."
                )
        else:
            check_range(V, "V", missing=True)
        n_frames = V.shape[1]
        return cls(
            V,
            None if weights is None else of_every_frame(per_bin(weights, "weights", V.shape), n_frames),
            None if background is None else per_bin(background, "background", V.shape),
            None if support is None else of_every_frame(check_support(support, n_components, n_frames), n_frames),
            None if H_init is None else check_start(H_init, n_components, n_frames, start_name),
        )

    @property
    def n_frames(self) -> int:
        """The number of frames."""
        return self.V.shape[1]

    @property
    def is_sparse(self) -> bool:
        """Whether the data are a sparse matrix."""
        return issparse(self.V)

    @property
    def bytes_per_frame(self) -> float:
        """The size of a frame's data in double precision, on average."""
        return 8 * (1 + self.V.nnz / max(self.n_frames, 1) if self.is_sparse else self.V.shape[0])

    def block(self, chunk: slice) -> Block:
        """Return a block of frames as the native code takes it, a frame a row in double precision."""
        n = len(range(self.n_frames)[chunk])
        block = Block(
            n,
            weights=rows_of(self.weights, chunk),
            background=rows_of(self.background, chunk),
            support=rows_of(self.support, chunk),
            start=rows_of(self.H_init, chunk),
        )
        if not self.is_sparse:
            return block._replace(data=rows_of(self.V, chunk))
        starts = self.V.indptr[chunk.start : chunk.stop + 1].astype(np.int64)
        entries = slice(starts[0], starts[-1])
        return block._replace(
            entries=np.ascontiguousarray(self.V.data[entries], np.float64),
            entry_bins=np.ascontiguousarray(self.V.indices[entries], np.int32),
            starts=starts - starts[0],
        )


def of_every_frame(values: NDArray, n_frames: int) -> NDArray:
    """Return values with a column for every frame; they may have one for all."""
    return np.broadcast_to(values, (len(values), n_frames))


def rows_of(values: NDArray | None, chunk: slice) -> NDArray[np.float64] | None:
    """Return some columns as rows in double precision; a single column stands for all frames."""
    if values is None:
        return None
    return np.array((values if values.shape[1] == 1 else values[:, chunk]).T, dtype=np.float64, order="C")
