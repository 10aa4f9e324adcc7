"""Invert the Fisher information of the active components of many frames."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from knownmf.inference.frames import Rows

# Memory for the atoms of the frames that are treated together, in bytes.
BATCH_BYTES = 2**23
# An activation whose variance is larger than this number times what it would be if its component were alone is not
# determined by the data: its component is, but for rounding, a combination of other active components. The information
# has some 12 right digits.
MOST_INFLATED = 1e10


class Inverse(NamedTuple):
    """The inverse of the Fisher information of frames that have the same number of active components.

    Attributes
    ----------
    frames : (n,) int
        The rows of the frames.
    atoms : (n, size) int
        The free components of each.
    basis : (n, size, n_bins) float64
        Their basis vectors.
    matrix : (n, size, size) float64
        The inverse, or the pseudoinverse; with a total, that of the information about what does not change the sum.
    determined : (n, size) bool
        Whether the data determine the activation.
    """

    frames: NDArray[np.intp]
    atoms: NDArray[np.intp]
    basis: NDArray[np.float64]
    matrix: NDArray[np.float64]
    determined: NDArray[np.bool_]

    @property
    def variances(self) -> NDArray[np.float64]:
        """The diagonal, (n, size): the variances of the activations, infinite where they are not determined."""
        return np.where(self.determined, np.einsum("tkk->tk", self.matrix), np.inf)


def inverses(W: NDArray[np.float64], rows: Rows, curvature: NDArray[np.float64]) -> Iterator[Inverse]:
    """Yield the inverse of ``W_S' diag(curvature) W_S`` of all frames, those with equally many components together.

    S are the free activations of a frame. If they have to sum to a total, the inverse is Z (Z' W_S' diag(curvature) W_S
    Z)^-1 Z', where the columns of Z are a basis of the changes that leave the sum as it is.

    Parameters
    ----------
    W : (n_bins, n_components) float64
        The basis.
    rows : Rows
        The frames. Those without free activations are left out.
    curvature : (n_frames, n_bins) float64
        The information about the model of each bin, m v^(beta-2).
    """
    atoms_of_basis = np.ascontiguousarray(W.T)
    sizes = rows.free.sum(axis=1)
    for size, has_total in sorted(set(zip(sizes.tolist(), rows.has_total.tolist(), strict=True))):
        if not size:
            continue
        same = np.flatnonzero((sizes == size) & (rows.has_total == has_total))
        Z = _changes_without_sum(size) if has_total else np.eye(size)
        n_together = max(1, int(BATCH_BYTES // (8 * 2 * size * (len(W) + size))))
        for first in range(0, len(same), n_together):
            frames = same[first : first + n_together]
            atoms = np.nonzero(rows.free[frames])[1].reshape(len(frames), size)
            basis = atoms_of_basis[atoms]
            information = (basis * curvature[frames, np.newaxis]) @ basis.transpose(0, 2, 1)
            yield Inverse(frames, atoms, basis, *_invert(information, Z))


def variances_of(
    W: NDArray[np.float64], rows: Rows, curvature: NDArray[np.float64], noise: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Return the variances of free activations, (n_frames, n_components); NaN for the others.

    They are the diagonal of the inverse C of the information, or, with the variance ``noise`` (n_frames, n_bins) of the
    slope with respect to the model of each bin, that of ``C W_S' diag(noise) W_S C``.
    """
    variances = np.full(rows.free.shape, np.nan)
    for inverse in inverses(W, rows, curvature):
        values = inverse.variances
        if noise is not None:
            errors = inverse.matrix @ (inverse.basis * np.sqrt(noise[inverse.frames, np.newaxis]))
            values = np.where(inverse.determined, (errors**2).sum(axis=2), np.inf)
        variances[inverse.frames[:, np.newaxis], inverse.atoms] = values
    return variances


def _changes_without_sum(size: int) -> NDArray[np.float64]:
    """Return an orthonormal basis of the vectors that sum to zero, (size, size - 1)."""
    return np.linalg.qr(np.column_stack([np.ones(size), np.eye(size)[:, 1:]]))[0][:, 1:]


def _invert(information: NDArray[np.float64], Z: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return ``Z (Z' information Z)^-1 Z'`` for each matrix, and which of its rows are determined."""
    of_components = np.einsum("tkk->tk", information)
    determined = np.ones(of_components.shape, np.bool_)
    if not Z.shape[1]:
        return np.zeros_like(information), determined
    reduced = Z.T @ information @ Z
    diagonal = np.einsum("tkk->tk", reduced)
    scale = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    scales = scale[:, :, np.newaxis] * scale[:, np.newaxis, :]
    scaled = reduced / scales
    try:
        inverse = np.linalg.inv(scaled)
    except np.linalg.LinAlgError:  # at least one matrix is singular
        inverse = np.full_like(scaled, np.nan)
    inflation = np.einsum("tkk->tk", inverse)
    with np.errstate(invalid="ignore"):
        good = ((inflation > 0.99) & (inflation < MOST_INFLATED)).all(axis=1)
    for t in np.flatnonzero(~good):
        values, vectors = np.linalg.eigh(scaled[t])
        kept = values > 1 / MOST_INFLATED
        inverse[t] = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
        # A vector of the null space moves the components in which it has more than rounding.
        moves = Z @ (vectors[:, ~kept] / scale[t][:, np.newaxis])
        sizes = np.where(of_components[t] > 0, of_components[t], 1.0)
        determined[t] = sizes * (moves**2).sum(axis=1) < 1e-8
    return Z @ (inverse / scales) @ Z.T, determined
