"""Invert the Fisher information of the active components of many frames."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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
        The active components of each.
    basis : (n, size, n_bins) float64
        Their basis vectors.
    matrix : (n, size, size) float64
        The inverse, or the pseudoinverse.
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


def inverses(W: NDArray[np.float64], active: NDArray[np.bool_], curvature: NDArray[np.float64]) -> Iterator[Inverse]:
    """Yield the inverse of ``W_S' diag(curvature) W_S`` of all frames, those with equally many components together.

    Parameters
    ----------
    W : (n_bins, n_components) float64
        The basis.
    active : (n_frames, n_components) bool
        The active components S of each frame. Frames without any are left out.
    curvature : (n_frames, n_bins) float64
        The information about the model of each bin, m v^(beta-2).
    """
    atoms_of_basis = np.ascontiguousarray(W.T)
    sizes = active.sum(axis=1)
    for size in np.unique(sizes[sizes > 0]):
        same = np.flatnonzero(sizes == size)
        n_together = max(1, int(BATCH_BYTES // (8 * 2 * size * (len(W) + size))))
        for first in range(0, len(same), n_together):
            frames = same[first : first + n_together]
            atoms = np.nonzero(active[frames])[1].reshape(len(frames), size)
            basis = atoms_of_basis[atoms]
            information = (basis * curvature[frames, np.newaxis]) @ basis.transpose(0, 2, 1)
            yield Inverse(frames, atoms, basis, *_invert(information))


def variances_of(
    W: NDArray[np.float64], active: NDArray[np.bool_], curvature: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the variances of active activations, (n_frames, n_components); NaN for the others."""
    variances = np.full(active.shape, np.nan)
    for inverse in inverses(W, active, curvature):
        variances[inverse.frames[:, np.newaxis], inverse.atoms] = inverse.variances
    return variances


def _invert(information: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the inverse of each matrix, and which of its rows are determined."""
    diagonal = np.einsum("tkk->tk", information)
    scale = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    scales = scale[:, :, np.newaxis] * scale[:, np.newaxis, :]
    scaled = information / scales
    try:
        inverse = np.linalg.inv(scaled)
    except np.linalg.LinAlgError:  # at least one matrix is singular
        inverse = np.full_like(scaled, np.nan)
    inflation = np.einsum("tkk->tk", inverse)
    with np.errstate(invalid="ignore"):
        good = ((inflation > 0.99) & (inflation < MOST_INFLATED)).all(axis=1)
    determined = np.ones(diagonal.shape, np.bool_)
    for t in np.flatnonzero(~good):
        values, vectors = np.linalg.eigh(scaled[t])
        kept = values > 1 / MOST_INFLATED
        inverse[t] = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
        # A vector of the null space moves the components in which it has more than rounding.
        determined[t] = (vectors[:, ~kept] ** 2).sum(axis=1) < 1e-8
    return inverse / scales, determined
