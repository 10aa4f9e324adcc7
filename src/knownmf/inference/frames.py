"""Read the data and the model of some frames as dense rows in double precision."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from knownmf.divergences import divergence
from knownmf.limits import NO_LIMITS, TOLERANCE, TOLERANCE_SINGLE, LimitArguments
from knownmf.native import ZERO_FLOOR
from knownmf.observations import Observations
from knownmf.results import Activations
from knownmf.table_labels import TableLabels
from knownmf.validation import check_range, real_array

# Memory for the arrays of a block of frames, in bytes: large enough for fast products, small beside most data.
BLOCK_BYTES = 2**24
# Smaller models of bins without data, as in the tails of peaks, count as this: the inverse of its square is finite.
SMALLEST_MODEL = 1e-100


@dataclass(frozen=True, eq=False)
class Problem:
    """Data and a basis that have been checked.

    Attributes
    ----------
    observations : Observations
        The data and what belongs to their frames.
    W : (n_bins, n_components) float64
        The basis.
    beta : float
        The beta-divergence.
    is_counts : bool
        Whether all data are whole numbers.
    """

    observations: Observations
    W: NDArray[np.float64]
    beta: float
    is_counts: bool

    @classmethod
    def check(
        cls,
        V: Any,
        W: ArrayLike,
        beta: float,
        weights: ArrayLike | None,
        background: ArrayLike | None,
        support: ArrayLike | None = None,
        limits: LimitArguments = NO_LIMITS,
        **others: ArrayLike | None,
    ) -> "Problem":
        """Return the problem of arrays that users passed; raise what :func:`knownmf.activations` raises.

        ``others`` are arguments with a value for each component, or for each frame if the name is "dispersion": their
        labels are compared, too.
        """
        labels = TableLabels()
        labels.add(W, "W", "bins", "components")
        for name, values in others.items():
            labels.add(values, name, "frames" if name == "dispersion" else "components")
        basis = real_array(W, "W", 2)
        n_bins, n_components = basis.shape
        if not n_components:
            raise ValueError("W has no columns: give at least one basis vector.")
        check_range(basis, "W", kind="factor")
        given = V, n_bins, n_components, beta, weights, background, support
        observations = Observations.check(*given, labels=labels, limits=limits)
        return cls(observations, np.ascontiguousarray(basis, np.float64), beta, _are_whole(observations))

    @classmethod
    def of_found(
        cls,
        V: Any,
        W: ArrayLike,
        found: Any,
        weights: ArrayLike | None,
        background: ArrayLike | None,
        limits: LimitArguments,
        **others: ArrayLike | None,
    ) -> "Problem":
        """Return the problem that activations are for, with the limits that they were found with.

        Raises
        ------
        TypeError
            If ``found`` are no activations.
        ValueError
            If they do not fit in shape, were found with penalties, or do not satisfy the limits.
        """
        if not isinstance(found, Activations):
            raise TypeError(
                f"found is of type {type(found).__name__}, expected Activations: pass what knownmf.activations returns."
            )
        problem = cls.check(V, W, found.beta, weights, background, None, limits, **others)
        observations = problem.observations
        expected = problem.W.shape[1], observations.n_frames
        if found.H.shape != expected:
            raise ValueError(
                f"found.H has shape {found.H.shape}, but V and W are for {expected}: pass the V and the W of found."
            )
        penalized = np.asarray(found.objective) > np.asarray(found.divergence) * (1 + 1e-9)
        if penalized.any():
            raise ValueError(
                f"found was solved with penalties (frame {np.argmax(penalized)}), which shrink the activations in a "
                "way that the errors do not tell: solve again without l1 and l2, with support=found.H > 0."
            )
        observations.limits.check_satisfied(np.asarray(found.H))
        return replace(problem, observations=replace(observations, limits=observations.limits.or_else(found.limits)))

    @property
    def dispersion_is_known(self) -> bool:
        """Whether the variance of the data is that of a Poisson distribution."""
        return self.beta == 1.0 and self.is_counts

    def blocks(self, found: Activations) -> Iterator[tuple[slice, "Rows"]]:
        """Yield blocks of frames with their model.

        Raises
        ------
        ValueError
            If the divergence of a frame is not that of ``found``: these are not its data, basis, weights or background.
        """
        n_bins, n_components = self.W.shape
        size = max(1, BLOCK_BYTES // (8 * (4 * n_bins + 2 * n_components)))
        for first in range(0, self.observations.n_frames, size):
            chunk = slice(first, min(first + size, self.observations.n_frames))
            rows = Rows.of(take(self.observations, chunk), self.W, found.H[:, chunk], self.beta)
            rows.check_divergence(found.divergence[chunk], self.beta, first)
            yield chunk, rows


@dataclass(frozen=True, eq=False)
class Rows:
    """Frames as rows; an entry that is missing has a weight of zero.

    Attributes
    ----------
    x, weights, model : (n_frames, n_bins) float64
        The data, their weights, and the model b + W h. Where it is zero and the data are not, for beta <= 1, the model
        is the floor that the solver documents. Where the data are zero, it is zero or at least `SMALLEST_MODEL`.
    used : (n_frames, n_bins) bool
        Which bins say something about the activations and the noise: those that are observed, but for bins with data
        that no active component reaches. These cost the same whatever the activations are, and the variance of their
        noise would be zero. Under least squares, where the variance is the same in all bins, they are used.
    H : (n_frames, n_components) float64
        The activations.
    free : (n_frames, n_components) bool
        Which activations are neither zero nor at an upper bound.
    has_total : (n_frames,) bool
        Whether the sum of the activations is fixed, or at its maximum.
    """

    x: NDArray[np.float64]
    weights: NDArray[np.float64]
    model: NDArray[np.float64]
    used: NDArray[np.bool_]
    H: NDArray[np.float64]
    free: NDArray[np.bool_]
    has_total: NDArray[np.bool_]

    @classmethod
    def of(cls, observations: Observations, W: NDArray[np.float64], H: NDArray[np.floating], beta: float) -> "Rows":
        """Return the rows of observations and of their activations, (n_components, n_frames)."""
        V = observations.V.toarray() if observations.is_sparse else observations.V
        x = np.array(V.T, np.float64, order="C")
        weights = np.ones(x.shape) if observations.weights is None else _as_rows(observations.weights, x.shape)
        missing = np.isnan(x) | (weights == 0)
        x[missing], weights[missing] = 0.0, 0.0
        activations = np.array(H.T, np.float64, order="C")
        model = activations @ W.T
        if observations.background is not None:
            model += _as_rows(observations.background, x.shape)
        used = ~missing
        if beta != 2.0:
            floor = np.broadcast_to(ZERO_FLOOR * x.max(axis=1, initial=0.0, keepdims=True), x.shape)
            x = np.where(missing, x, np.maximum(x, floor)) if beta < 1 else x
            unreached = (model == 0) & (x > 0)
            used &= ~unreached
            if beta <= 1:
                model[unreached] = floor[unreached]
            model[(x == 0) & (model > 0) & (model < SMALLEST_MODEL)] = SMALLEST_MODEL
        limits = observations.limits.rows(slice(None), len(x))
        nearly = 1 - (TOLERANCE if H.dtype == np.float64 else TOLERANCE_SINGLE)
        free = (activations > 0) & (activations < nearly * limits.get("upper", np.inf))
        total = limits.get("total", np.full(len(x), np.inf))
        return cls(x, weights, model, used, activations, free, activations.sum(axis=1) >= nearly * total)

    def take(self, frames: NDArray[np.intp]) -> "Rows":
        """Return copies of some of the rows."""
        return Rows(*(getattr(self, each.name)[frames] for each in fields(self)))

    @property
    def n_left(self) -> NDArray[np.float64]:
        """The used bins of each frame minus what was estimated from them, (n_frames,); NaN if nothing is left."""
        n_free = self.free.sum(axis=1)
        left = self.used.sum(axis=1) - (n_free - (self.has_total & (n_free > 0)))
        return np.where(left > 0, left, np.nan)

    def curvature(self, beta: float) -> NDArray[np.float64]:
        """Return m v^(beta-2), (n_frames, n_bins): the inverse of the variance of each bin, but for the dispersion.

        It is zero in bins that are not used.
        """
        if beta == 2.0:
            return self.weights.copy()
        used = self.used & (self.model > 0)
        power = np.power(self.model, beta - 2.0, where=used, out=np.zeros_like(self.model))
        return self.weights * power

    def pearson(self, beta: float) -> NDArray[np.float64]:
        """Return Pearson's estimate of the dispersion of each frame; NaN if no bins are left for it."""
        return (self.curvature(beta) * (self.x - self.model) ** 2).sum(axis=1) / self.n_left

    def check_divergence(self, expected: NDArray[np.float64], beta: float, first: int) -> None:
        """Raise unless the divergence of each frame is the one expected; ``first`` is the number of the first frame."""
        with np.errstate(all="ignore"):
            costs = divergence(self.x, self.model, beta)
            sizes = np.abs(self.x) ** beta + self.model**beta
            total, size = (
                np.where(self.weights > 0, self.weights * values, 0.0).sum(axis=1) for values in (costs, sizes)
            )
        # Rounding of either sum is below 1e-12 of the size of the frame; other data or weights change far more.
        wrong = ~(np.abs(total - expected) <= 1e-6 * np.abs(expected) + 1e-10 * size) & np.isfinite(total)
        if wrong.any():
            t = int(np.argmax(wrong))
            raise ValueError(
                f"V, W, weights and background give frame {first + t} a divergence of {total[t]:g}, but found has "
                f"{expected[t]:g}: pass those that found was solved with."
            )


def take(observations: Observations, frames: Any, V: Any = None) -> Observations:
    """Return some frames of observations, a slice or an array of their numbers; with other data, if ``V`` is given."""
    arrays = ("weights", "background", "support", "H_init")
    given = {name: getattr(observations, name) for name in arrays}
    of_frames = {name: values[:, frames] for name, values in given.items() if values is not None and values.ndim == 2}
    limits = observations.limits
    totals = {
        name: values[frames]
        for name in ("total", "max_total")
        if (values := getattr(limits, name)) is not None and values.ndim == 1
    }
    if limits.upper is not None and limits.upper.ndim == 2:
        totals["upper"] = limits.upper[:, frames]
    data = observations.V[:, frames] if V is None else V
    return replace(observations, V=data, limits=replace(limits, **totals), **of_frames)


def in_double(observations: Observations) -> Observations:
    """Return observations whose activations are not rounded to single precision, which would hide a small gap."""
    if observations.V.dtype == np.float32:
        return replace(observations, V=observations.V.astype(np.float64))
    return observations


def _as_rows(values: NDArray, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return values of the bins as a new array with a row for each frame."""
    return np.array(np.broadcast_to(values if values.ndim == 1 else values.T, shape), np.float64, order="C")


def _are_whole(observations: Observations) -> bool:
    """Return whether all data that are not missing are whole numbers."""
    V = observations.V.data if observations.is_sparse else observations.V
    if V.dtype.kind != "f":
        return True
    pieces = (V[..., first : first + 4096] for first in range(0, V.shape[-1], 4096))
    return all(bool(((piece == np.floor(piece)) | np.isnan(piece)).all()) for piece in pieces)
