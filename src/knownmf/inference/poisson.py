"""The moments of the deviance of a Poisson count.

The deviance of a count X with the expectation v is ``d = 2 (X log(X / v) - X + v)``. Up to `LARGEST_SUMMED` its moments
are sums over all counts that have a probability. Above, they are power series in 1 / v: d is expanded in powers of
(X - v) / v, whose expectations are the central moments of X, polynomials in v. The series start with the moments of a
chi-square variable with one degree of freedom: 1, 2 and 8.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Above, the first omitted term of the series is below 1e-5; below, at most 170 counts have to be summed.
LARGEST_SUMMED = 50.0

# Coefficients of 1, 1/v, 1/v^2, 1/v^3 and 1/v^4.
_MEAN = (1.0, 1 / 6, 1 / 6, 19 / 60, 9 / 10)
_VARIANCE = (2.0, 2 / 3, 4 / 3, 701 / 180, 449 / 30)
_THIRD = (8.0, 4.0, 12.0, 283 / 6, 1144 / 5)
# Of the covariance with (X - v)^2, divided by v.
_WITH_SQUARE = (2.0, 0.0, 1 / 6, 2 / 3, 57 / 20)


class Moments(NamedTuple):
    """Moments of the deviance d of counts X with the expectations v; arrays of the shape of v.

    Attributes
    ----------
    mean, variance, third : ndarray
        The mean of d, and its second and third central moments.
    slope, bend : ndarray
        The first and the second derivative of the mean with respect to v. The covariance of d with X is v times the
        slope, as the derivative of a Poisson probability is (X / v - 1) times it.
    with_square : ndarray
        The covariance of d with (X - v)^2.
    """

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    third: NDArray[np.float64]
    slope: NDArray[np.float64]
    bend: NDArray[np.float64]
    with_square: NDArray[np.float64]


def moments(v: NDArray[np.float64]) -> Moments:
    """Return the moments of the deviance of counts with these expectations, which are positive.

    Examples
    --------
    >>> import numpy as np
    >>> m = moments(np.array([0.01, 1.0, 100.0]))
    >>> m.mean.round(4), m.variance.round(4)
    (array([0.0922, 1.1468, 1.0017]), array([0.5243, 1.3646, 2.0068]))
    """
    small = v <= LARGEST_SUMMED
    out = Moments(*np.empty((len(Moments._fields), *v.shape)))
    for where, part in ((small, _summed(v[small])), (~small, _expanded(v[~small]))):
        for target, values in zip(out, part, strict=True):
            target[where] = values
    return out


def _summed(v: NDArray[np.float64]) -> Moments:
    """Sum over the counts, as many as there can be. A count above v + 12 sqrt(v) + 25 has less than 1e-20."""
    largest = v.max(initial=0.0)
    n = int(largest + 12 * np.sqrt(largest) + 25)
    log_v, probability = np.log(v), np.exp(-v)
    d1, d2, d3, d_u, d_uu, bend = np.zeros((6, *v.shape))
    x_log_x = [0.0, *(x * np.log(x) for x in range(1, n + 3))]
    for x in range(n + 1):
        d, u = 2 * (x_log_x[x] - x * log_v - x + v), x - v
        p_d = probability * d
        d1 += p_d
        d2 += p_d * d
        d3 += p_d * d * d
        d_u += p_d * u
        d_uu += p_d * u * u
        # The derivative of an expectation of f(X) is that of f(X + 1) - f(X).
        bend += probability * (2 * (x_log_x[x + 2] - 2 * x_log_x[x + 1] + x_log_x[x]))
        probability = probability * v / (x + 1)
    variance = d2 - d1**2
    return Moments(d1, variance, d3 - 3 * d1 * variance - d1**3, d_u / v, bend - 2 / v, d_uu - d1 * v)


def _expanded(v: NDArray[np.float64]) -> Moments:
    """Evaluate the series."""

    def series(*coefficients: float) -> NDArray[np.float64]:
        total = np.zeros_like(v)
        for c in reversed(coefficients):
            total = total / v + c
        return total

    powers = range(len(_MEAN))
    slope = series(*(-n * c for n, c in zip(powers, _MEAN, strict=True))) / v
    bend = series(*(n * (n + 1) * c for n, c in zip(powers, _MEAN, strict=True))) / v**2
    return Moments(series(*_MEAN), series(*_VARIANCE), series(*_THIRD), slope, bend, v * series(*_WITH_SQUARE))
