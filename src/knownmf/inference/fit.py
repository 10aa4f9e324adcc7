"""Whether the model fits the data of a frame."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from knownmf.extras import tables_extra
from knownmf.inference.errors import check_dispersion
from knownmf.inference.frames import Problem, Rows
from knownmf.inference.information import inverses
from knownmf.inference.poisson import moments
from knownmf.limits import LimitArguments
from knownmf.results import Activations

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, eq=False)
class GoodnessOfFit:
    """The goodness of fit of every frame.

    Attributes
    ----------
    deviance : (n_frames,) float64
        The deviance, divided by the dispersion.
    expected : (n_frames,) float64
        Its expectation if the model is right.
    z : (n_frames,) float64
        (deviance - expected) / standard deviation: about 0 for a good fit, large for a bad one. NaN where a frame has
        no bins left to judge by.
    p_value : (n_frames,) float64
        The probability of a deviance at least as large if the model is right. NaN where ``z`` is.
    frame_labels : sequence, or None
        The labels of the frames, if tables (pandas, polars) had them.
    """

    deviance: NDArray[np.float64] = field(repr=False)
    expected: NDArray[np.float64] = field(repr=False)
    z: NDArray[np.float64] = field(repr=False)
    p_value: NDArray[np.float64] = field(repr=False)
    frame_labels: Sequence[Any] | None = field(default=None, repr=False)

    def to_frame(self) -> "DataFrame":
        """Return a pandas DataFrame with a row for each frame, and a column for each attribute."""
        with tables_extra():
            import pandas as pd
        columns = ("deviance", "expected", "z", "p_value")
        return pd.DataFrame({name: getattr(self, name) for name in columns}, index=self.frame_labels)

    def __repr__(self) -> str:
        n_frames, n_poor = len(self.z), np.count_nonzero(self.p_value < 0.05)
        return f"GoodnessOfFit({n_poor} of {n_frames} frames with a p-value below 0.05)"


def goodness_of_fit(
    V: ArrayLike,
    W: ArrayLike,
    found: Activations,
    dispersion: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    background: ArrayLike | None = None,
    upper: ArrayLike | None = None,
    total: ArrayLike | None = None,
    max_total: ArrayLike | None = None,
) -> GoodnessOfFit:
    """Compare the deviance of every frame with what it would be if the model were right.

    For counts under Kullback-Leibler, the deviance is compared with its expectation and its variance for Poisson counts
    with the model as expectation, given the estimated activations [1]_ [2]_. A chi-square distribution would be wrong
    for it unless all bins have many counts. The tail is that of a gamma distribution with the same skewness.

    Parameters
    ----------
    V : array_like or sparse matrix, (n_bins, n_frames)
        The data: whole numbers for Kullback-Leibler, anything for least squares.
    W : array_like, (n_bins, n_components)
        The basis.
    found : Activations
        Their activations, found without penalties.
    dispersion : float or array_like (n_frames,), optional
        For least squares, where it is required: the variance of the noise in a bin of weight 1. It has to be known from
        elsewhere, because an estimate from the residuals would make every fit a good one.
    weights, background : array_like, optional
        Those that ``found`` was solved with.
    upper, total, max_total : array_like, optional
        As in :func:`knownmf.standard_errors`.

    Returns
    -------
    GoodnessOfFit
        Deviance, standardized deviance and p-value of every frame.

    Raises
    ------
    ValueError
        If the data are not counts under Kullback-Leibler, the loss is another one than that and least squares, or
        ``found`` was solved with penalties or not with these arrays.
    TypeError
        If something is not an array of real numbers.

    References
    ----------
    .. [1] P. McCullagh, "The conditional distribution of goodness-of-fit statistics for discrete data", Journal of the
       American Statistical Association 81, 1986.
    .. [2] G. Osius and D. Rojek, "Normal goodness-of-fit tests for multinomial models with large degrees of freedom",
       Journal of the American Statistical Association 87, 1992.

    Examples
    --------
    >>> import numpy as np
    >>> import knownmf
    >>> rng = np.random.default_rng(1)
    >>> W = rng.dirichlet(np.ones(50), 3).T
    >>> V = rng.poisson(W @ [[100.0], [200.0], [50.0]])
    >>> V = np.hstack([V, np.roll(V, 1, axis=0)])  # the second frame is shifted by a bin: W does not fit
    >>> knownmf.goodness_of_fit(V, W, knownmf.activations(V, W)).p_value.round(1)
    array([0.4, 0. ])
    """
    limits = LimitArguments(upper, total, max_total)
    problem = Problem.of_found(V, W, found, weights, background, limits, dispersion=dispersion)
    found = found.in_memory()
    beta, n_frames = problem.beta, problem.observations.n_frames
    if beta not in (1.0, 2.0):
        raise ValueError(
            f"found has beta={beta:g}: the goodness of fit is known for counts under 'kullback-leibler' and for noise "
            "of known variance under 'frobenius'."
        )
    if beta == 1.0:
        if dispersion is not None:
            raise ValueError("dispersion is for least squares: counts under 'kullback-leibler' have a dispersion of 1.")
        if not problem.is_counts:
            raise ValueError("V has values that are not whole numbers: the goodness of fit is for counts, pass these.")
    elif dispersion is None or isinstance(dispersion, str):
        raise ValueError(
            f"dispersion is {dispersion!r}: pass the variance of the noise in a bin, which has to be known, because an "
            "estimate from the residuals would make every fit a good one."
        )
    variance = check_dispersion(dispersion, problem)
    deviance = found.deviance if variance is None else found.deviance / variance
    expected, spread, skewness = np.full((3, n_frames), np.nan)
    for chunk, rows in problem.blocks(found):
        expected[chunk], spread[chunk], skewness[chunk] = _reference(rows, problem.W, beta)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (deviance - expected) / spread
    labels = found.frame_labels if found.frame_labels is not None else problem.observations.frame_labels
    return GoodnessOfFit(deviance, expected, z, _upper_tail(z, skewness), labels)


def _upper_tail(z: NDArray[np.float64], skewness: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probability that a standardized gamma variable with this skewness, which is positive, exceeds z."""
    from scipy.special import gammaincc  # imported here: `import knownmf` loads SciPy's sparse matrices only

    shape = 4 / np.maximum(skewness, 1e-3) ** 2  # below 1e-3 it is normal in every digit that matters
    return gammaincc(shape, np.maximum(shape + z * np.sqrt(shape), 0.0))


def _reference(
    rows: Rows, W: NDArray[np.float64], beta: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean, the standard deviation and the skewness of the deviance of each frame at the estimates."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if beta == 1.0:
            mean, variance, third = _cumulants_of_counts(rows, W)
            return mean, np.sqrt(np.where(variance > 0, variance, np.nan)), third / variance**1.5
        left = rows.n_left
        return left, np.sqrt(2 * left), np.sqrt(8 / left)


def _cumulants_of_counts(
    rows: Rows, W: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the first three cumulants of the deviance of counts, given the estimated activations.

    docs/inference.md derives the formulas. The symbols: m weights, v model, u = x - v; A the free atoms, a row each;
    C the inverse of their information, so that the errors of the activations are C A (m / v) u.
    """
    used = (rows.weights > 0) & (rows.model > 0)
    m, v = np.where(used, rows.weights, 0.0), np.where(used, rows.model, 1.0)
    of_bins = moments(v)
    mean = (m * of_bins.mean).sum(axis=1)
    total = (m**2 * of_bins.variance).sum(axis=1)
    third = (m**3 * of_bins.third).sum(axis=1)
    variance = total.copy()
    for inverse in inverses(W, rows, m / v):
        here, A, C = inverse.frames, inverse.basis, inverse.matrix
        M, V = (m / v)[here], v[here]
        slope, bend, cross = ((m * values)[here] for values in (of_bins.slope, of_bins.bend, of_bins.with_square))
        # The estimate lowers the deviance, and the expectation follows it: together the quadratic form u'Pu with
        # P = M A' B A M, and the linear form g'u.
        B = C + 0.5 * C @ _gram(A, bend) @ C
        P = M**2 * np.einsum("tkf,tkl,tlf->tf", A, B, A, optimize=True)
        g = M * np.einsum("tkf,tk->tf", A, np.einsum("tkl,tl->tk", C, np.einsum("tkf,tf->tk", A, slope)))
        BN = B @ _gram(A, M**2 * V)
        mean[here] -= (P * V).sum(axis=1)
        variance[here] += (
            2 * np.einsum("tkl,tlk->t", BN, BN)
            + (P**2 * V).sum(axis=1)
            - 2 * (P * cross).sum(axis=1)
            + (g**2 * V).sum(axis=1)
            - 2 * (g * V * slope).sum(axis=1)
            + 2 * (P * g * V).sum(axis=1)
        )
    return mean, variance, third * variance / total


def _gram(A: NDArray[np.float64], curvature: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the products of the rows of each A, weighted by a curvature of each frame."""
    return (A * curvature[:, np.newaxis]) @ A.transpose(0, 2, 1)
