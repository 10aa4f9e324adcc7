"""The result of solving frames, with its proof, and what a call warns of at its end."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from knownmf.extras import tables_extra
from knownmf.limits import Limits
from knownmf.observations import NegativeData, Observations
from knownmf.validation import level_of_caller

if TYPE_CHECKING:
    from pandas import DataFrame

# If all bins of a frame but the largest have together less than so many tolerances, and less than this share of the
# frame, the tolerance hardly bounds what they say. Measured on mixtures of spectra with a row of ones of a large
# weight: with 300 tolerances or fewer the activations of the worst frame are wrong by 0.17 or more (of a sum of 1),
# with 2000 by less than 0.02.
FEW_TOLERANCES, SMALL_REST = 300.0, 0.05
MOST_BY_CHANCE = 5  # fewer frames may look like that by themselves
FRAMES_LOOKED_AT = 25  # at most so many, evenly spaced


@dataclass(frozen=True, eq=False)
class Activations:
    """Activations of a known basis and the proof of how good they are, frame by frame.

    Attributes
    ----------
    H : (n_components, n_frames) float32 or float64
        The activations, not negative; what is not used is exactly zero.
    gap : (n_frames,) float64
        Upper bound on how far the objective lies above its minimum, in the units of the objective. NaN for a beta
        outside [1, 2], where the problem is not convex.
    relative_gap : (n_frames,) float64
        ``gap`` divided by the sum of m x^beta over the frame's bins. With a fixed total, by what the activations cost,
        if that is larger (see ``total`` of :func:`knownmf.activations`).
    kkt : (n_frames,) float64
        Karush-Kuhn-Tucker residual, free of every scale; 0 at a stationary point.
    converged : (n_frames,) bool
        Whether ``relative_gap`` (outside [1, 2]: ``kkt``) is at most ``tol``.
    objective : (n_frames,) float64
        What was minimized: the weighted divergence plus the penalties. Infinite where it is larger than 1e308.
    divergence : (n_frames,) float64
        The objective without the penalties: the sum of m d(x | v) over the bins.
    null_divergence : (n_frames,) float64
        The same of the null model, which is the weighted mean of the frame's data in every bin. NaN if all data of the
        frame are equal.
    n_iter : (n_frames,) int64
        Newton steps taken; 0 where multiplicative updates were enough, 1 for least squares with one Gram matrix.
    beta : float
        The beta-divergence that was minimized.
    tol : float
        The tolerance asked for.
    limits : Limits
        The upper bounds and totals that were given, as ``limits.upper``, ``limits.total`` and ``limits.max_total``.
    component_labels, frame_labels : sequence, or None
        The labels of the components and of the frames, if tables (pandas, polars) had them.
    """

    H: NDArray[np.floating] = field(repr=False)
    gap: NDArray[np.float64] = field(repr=False)
    relative_gap: NDArray[np.float64] = field(repr=False)
    kkt: NDArray[np.float64] = field(repr=False)
    converged: NDArray[np.bool_] = field(repr=False)
    objective: NDArray[np.float64] = field(repr=False)
    divergence: NDArray[np.float64] = field(repr=False)
    null_divergence: NDArray[np.float64] = field(repr=False)
    n_iter: NDArray[np.int64] = field(repr=False)
    beta: float
    tol: float
    limits: Limits = field(default_factory=Limits, repr=False)
    component_labels: Sequence[Any] | None = field(default=None, repr=False)
    frame_labels: Sequence[Any] | None = field(default=None, repr=False)

    def to_frame(self, values: ArrayLike | None = None) -> "DataFrame":
        """Return the activations as a pandas DataFrame, with the labels of the tables that they were computed from.

        Parameters
        ----------
        values : array_like, (n_components, n_frames), optional
            Other values of the same shape to label instead of ``H``, such as standard errors or a support.

        Returns
        -------
        pandas.DataFrame, (n_components, n_frames)
            A copy. Its index has the labels of the components, its columns those of the frames; where no table had
            labels, they are 0, 1, 2, ... For polars, use
            ``pl.from_pandas(found.to_frame().rename_axis("component"), include_index=True)``.

        Raises
        ------
        ValueError
            If ``values`` have another shape.
        MissingPackageError
            If pandas is not installed.

        Examples
        --------
        >>> import pandas as pd
        >>> import knownmf
        >>> W = pd.DataFrame([[0.4, 0.4], [0.2, 0.1]], index=["x", "y"], columns=["a", "b"])
        >>> V = pd.DataFrame([[3.0, 2.0], [1.2, 1.0]], index=["x", "y"], columns=["first", "second"])
        >>> knownmf.activations(V, W, tol=1e-9).to_frame().round(3)
           first  second
        a    4.5     5.0
        b    3.0     0.0
        """
        with tables_extra():
            import pandas as pd
        array = np.asarray(self.H if values is None else values)
        if array.shape != self.H.shape:
            raise ValueError(
                f"values has shape {array.shape}, expected (n_components, n_frames) = {self.H.shape}, as H has."
            )
        return pd.DataFrame(array, self.component_labels, self.frame_labels, copy=True)

    def in_memory(self) -> "Activations":
        """Return the same result with NumPy arrays, where fields are arrays on disk or of Dask."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        arrays: dict[str, Any] = {name: np.asarray(value) for name, value in values.items() if hasattr(value, "shape")}
        return replace(self, **arrays)

    @property
    def criterion(self) -> NDArray[np.float64]:
        """What ``tol`` bounds: ``relative_gap`` for a beta in [1, 2], else ``kkt``; (n_frames,)."""
        return self.relative_gap if 1.0 <= self.beta <= 2.0 else self.kkt

    @property
    def criterion_name(self) -> str:
        """The name of ``criterion`` in words."""
        return "relative gap" if 1.0 <= self.beta <= 2.0 else "KKT residual"

    @property
    def deviance(self) -> NDArray[np.float64]:
        """Twice the divergence; (n_frames,). For beta = 1 it is the Poisson deviance, for 2 the squared error."""
        return 2.0 * self.divergence

    @property
    def explained(self) -> NDArray[np.float64]:
        """The share of the deviance that the model explains: 1 - divergence / null_divergence; (n_frames,).

        It is 1 for a perfect fit, 0 for one that is no better than the mean, and negative for a worse one. For least
        squares it is the coefficient of determination R^2, for any beta scikit-learn's ``d2_tweedie_score`` with a
        power of 2 - beta. NaN if all data of the frame are equal.
        """
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            return 1.0 - self.divergence / self.null_divergence

    def __repr__(self) -> str:
        n_components, n_frames = self.H.shape
        text = f"Activations({n_components} components x {n_frames} frames, beta={self.beta:g}"
        if not all(isinstance(values, np.ndarray) for values in (self.converged, self.criterion)):
            text += f": {type(self.converged).__module__} arrays"  # not read, or not even computed, for a description
        elif n_frames:
            text += f": {self.converged.sum()} of {n_frames} frames within tol={self.tol:g}"
            text += f", worst {self.criterion_name} {self.criterion.max():.1e}"
        return text + ")"


class Missed(NamedTuple):
    """How many frames missed the tolerance, and which is the worst.

    Attributes
    ----------
    n_frames, n_missed : int
        The number of frames, and of those that missed it.
    worst : int
        The frame with the largest criterion of those.
    criterion : float
        Its criterion.
    """

    n_frames: int = 0
    n_missed: int = 0
    worst: int = -1
    criterion: float = -np.inf

    @classmethod
    def of(cls, found: Activations, first: int = 0) -> Self:
        """Return which of some frames missed the tolerance; ``first`` is the number of the first one."""
        missed = np.flatnonzero(~found.converged)
        if not len(missed):
            return cls(len(found.converged))
        worst = missed[np.argmax(found.criterion[missed])]
        return cls(len(found.converged), len(missed), first + int(worst), float(found.criterion[worst]))

    def merged(self, other: Self) -> Self:
        """Return which of these frames and of ``other`` ones missed the tolerance."""
        worse = self if self.criterion >= other.criterion else other
        return worse._replace(n_frames=self.n_frames + other.n_frames, n_missed=self.n_missed + other.n_missed)

    def warn(
        self,
        criterion_name: str,
        tol: float,
        unit: str = "frame",
        tolerance: str = "tol",
        remedy: str = "Raise tol or max_iter",
    ) -> None:
        """Warn if frames missed the tolerance, in the caller's words: what a frame is, and what can be changed."""
        if not self.n_missed:
            return
        from sklearn.exceptions import ConvergenceWarning

        warnings.warn(
            f"{self.n_missed} of {self.n_frames} {unit}s missed {tolerance}={tol:g}; the worst is {unit} "
            f"{self.worst} with a {criterion_name} of {self.criterion:.1e}. {remedy}.",
            ConvergenceWarning,
            stacklevel=level_of_caller(),
        )


def warn_of_missed(found: Activations) -> None:
    """Warn if frames missed the tolerance."""
    Missed.of(found).warn(found.criterion_name, found.tol)


NONE_MISSED = Missed()


class Remarks:
    """What a call warns of at its end, collected block by block."""

    def __init__(self, data: str = "V", unit: str = "frame") -> None:
        self.data, self.unit = data, unit
        self.missed, self.negative = NONE_MISSED, NegativeData()
        self.n_dominated = self.n_with_data = 0
        self._found: Activations | None = None

    def add(self, observations: Observations, found: Activations, weights: NDArray | None = None) -> None:
        """Look at a block. ``weights`` are those that all frames share, if they are not among the observations."""
        missed = Missed.of(found, observations.first)
        self.missed = missed if self._found is None else self.missed.merged(missed)
        self._found = found
        if found.beta == 2.0:
            self.negative.add(observations, found.beta, self.data)
        if observations.n_frames < MOST_BY_CHANCE:  # too few to remark on, and streams call for every frame
            return
        n_dominated, n_with_data = dominated(observations, found.beta, found.tol, weights)
        self.n_dominated, self.n_with_data = self.n_dominated + n_dominated, self.n_with_data + n_with_data

    def warn(self) -> None:
        """Warn once of each kind of remark."""
        found = self._found
        if found is None:
            return
        self.missed.warn(found.criterion_name, found.tol, self.unit)
        if 2 * self.n_dominated > self.n_with_data and self.n_dominated >= MOST_BY_CHANCE:
            warnings.warn(
                f"In most {self.unit}s one value has nearly all of the sum that tol={found.tol:g} is relative to, "
                f"because of its size or its weight: the {self.unit}s may be within tol and yet be wrong in all other "
                "values. Choose a much smaller tol, or a smaller weight.",
                UserWarning,
                stacklevel=level_of_caller(),
            )
        self.negative.warn(self.data)


def dominated(observations: Observations, beta: float, tol: float, weights: NDArray | None = None) -> tuple[int, int]:
    """Return in how many frames one bin has nearly all of what ``tol`` is relative to, and how many have data.

    Some of the frames are looked at. ``weights`` are those that all frames share, if they are not among the
    observations. Least squares with shared weights is exact, whatever the tolerance is; for beta outside of [1, 2] the
    tolerance is not relative to the data.
    """
    weights = observations.weights if weights is None else weights
    if not 1.0 <= beta <= 2.0 or tol == 0.0 or observations.is_sparse:
        return 0, 0
    if beta == 2.0 and (weights is None or weights.ndim == 1):
        return 0, 0
    some = slice(None, None, max(1, -(-observations.n_frames // FRAMES_LOOKED_AT)))
    sizes = observations.V[:, some].astype(np.float64)
    if weights is not None:
        weights = weights[:, some] if weights.ndim == 2 else weights[:, np.newaxis]
    if beta != 1.0:
        np.power(np.abs(sizes, out=sizes), beta, out=sizes)
    if weights is not None:
        sizes *= weights
    sizes[np.isnan(sizes)] = 0.0
    total = sizes.sum(axis=0)
    rest = total - sizes.max(axis=0, initial=0.0)
    n_dominated = int(((rest > 0.0) & (rest < min(FEW_TOLERANCES * tol, SMALL_REST) * total)).sum())
    return n_dominated, int((total > 0.0).sum())
