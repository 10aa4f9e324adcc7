"""The beta-divergence: its names, its value, its slope, and the floor that a zero needs below beta = 1.

For a bin with data ``x`` and model ``v`` [1]_

    d(x | v) = (x^beta + (beta - 1) v^beta - beta x v^(beta - 1)) / (beta (beta - 1))

with the limits ``x log(x / v) - x + v`` (Kullback-Leibler, beta = 1) and ``x / v - log(x / v) - 1``
(Itakura-Saito, beta = 0); beta = 2 is half the squared error (Frobenius). Its slope in ``v`` is
``v^(beta - 1) - x v^(beta - 2)``, and its homogeneity ``d(s x | s v) = s^beta d(x | v)`` is what lets
every frame be solved at a scale of its own.

.. [1] C. Fevotte and J. Idier, "Algorithms for nonnegative matrix factorization with the
   beta-divergence", Neural Computation 23(9), 2011.
"""

import math
from numbers import Real

import numpy as np
from numba import njit

#: How everything is compiled: dividing by zero gives infinity, as in NumPy.
compiled = njit(error_model="numpy")

BETA_OF = {"frobenius": 2.0, "kullback-leibler": 1.0, "itakura-saito": 0.0}
BETA_RANGE = (-1.0, 3.0)

#: Data below this share of the frame's largest value are raised to it when beta < 1, where a zero bin would make the
#: objective infinite (beta <= 0) or its slope (beta < 1). 1e-15 is -300 dB in amplitude: below it nothing is signal.
ZERO_FLOOR = 1e-15

#: Below this (in units of the frame's scale) a model is zero. Keeps v^-3 finite.
TINY = 1e-100


def beta_of(beta_loss: object) -> float:
    """The number behind ``beta_loss``.

    Parameters
    ----------
    beta_loss : {"frobenius", "kullback-leibler", "itakura-saito"} or float from -1 to 3
        The loss by name, or its beta.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the name is unknown or the number lies outside [-1, 3].

    Examples
    --------
    >>> beta_of("kullback-leibler"), beta_of(0.5)
    (1.0, 0.5)
    """
    if isinstance(beta_loss, str):
        if beta_loss in BETA_OF:
            return BETA_OF[beta_loss]
    elif isinstance(beta_loss, Real):
        low, high = BETA_RANGE
        if low <= float(beta_loss) <= high:
            return float(beta_loss)
    names = ", ".join(repr(name) for name in BETA_OF)
    raise ValueError(f"beta_loss is {beta_loss!r}: choose one of {names}, or a number from -1 to 3.")


@compiled
def divergence(x, v, beta):
    """Return d(x | v) of one bin; ``x`` and ``v`` are not negative. Infinite where the formula says so, never NaN."""
    if beta == 2.0:
        return 0.5 * (x - v) ** 2
    if beta == 1.0:
        return kullback_leibler(x, v)
    if beta == 0.0:
        return itakura_saito(x, v)
    if x == v:
        return 0.0
    if (v == 0.0 and (beta < 0.0 or (beta < 1.0 and x > 0.0))) or (x == 0.0 and beta < 0.0):
        return math.inf
    if x > 0.0 and abs(v - x) < 0.03 * x:
        return x**beta * _near_one(math.log1p((v - x) / x), beta)
    power = v ** (beta - 1.0) if v > 0.0 else 0.0
    value = (x**beta + (beta - 1.0) * v * power - beta * x * power) / (beta * (beta - 1.0))
    return max(value, 0.0)


@compiled
def kullback_leibler(x, v):
    """Return ``x log(x / v) - x + v``, without a branch ("and" is one); beside a v infinitely larger, x is nothing."""
    inside = (x > 0.0) & (v > 0.0)
    value = x * _minus_log(v if inside else 1.0, x if inside else 1.0)
    outside = v if (x < v) | (x == 0.0) else math.inf
    return value if inside & (value < math.inf) else outside


@compiled
def itakura_saito(x, v):
    """Return ``x / v - log(x / v) - 1``, without a branch."""
    inside = (x > 0.0) & (v > 0.0)
    value = _minus_log(x if inside else 1.0, v if inside else 1.0)
    return value if inside else 0.0 if x == v else math.inf


@compiled
def _minus_log(a, b):
    """Return ``r - 1 - log(r)`` of the ratio r = a / b of positive numbers, without cancellation around 1; r > 1e-590.

    Without a branch, so that loops over it are vectorised. The ratio is ``(1 + u) 2^n`` with 1 + u within the square
    roots of 1/2 and 2, and ``log(1 + u) = 2 (s + s^3/3 + s^5/5 + ...)`` with ``s = u / (2 + u)``, of which the first
    term leaves ``u^2 / (2 + u)`` of u.
    """
    small = a < 1e-300 * b  # too small a ratio for a mantissa of its own
    ratio = a * (2.0**960 if small else 1.0) / b
    bits = np.float64(ratio).view(np.int64)
    # The high half of the bits; 0x3FE6A09E is that of the square root of 1/2.
    exponent = np.int32(np.int32(bits >> np.int64(32)) - np.int32(0x3FE6A09E)) >> np.int32(20)
    mantissa = np.int64(bits - (np.int64(exponent) << np.int64(52))).view(np.float64)
    u = (a - b) / b if exponent == 0 else mantissa - 1.0
    s = u / (2.0 + u)
    square, series = s * s, 1.0 / 21.0
    for n in range(19, 1, -2):
        series = series * square + 1.0 / n
    log_of_power = (exponent - (960.0 if small else 0.0)) * math.log(2.0)
    ratio = 0.0 if small else ratio
    return u * u / (2.0 + u) - 2.0 * s * square * series + (ratio - mantissa) - log_of_power


@compiled
def _near_one(u, beta):
    """Return d(1 | e^u) by its series, ``sum u^n / n! (beta^(n-1) - (beta-1)^(n-1))`` from n = 2 on, for a small u."""
    total, power, first, second = 0.0, u, 1.0, 1.0
    for n in range(2, 11):
        power *= u / n
        first *= beta
        second *= beta - 1.0
        total += power * (first - second)
    return total


@compiled
def log_single(ratio):
    """Return the logarithm of a number in single precision, without a branch, so that loops over it are vectorised.

    The mantissa is brought to within the square roots of 1/2 and 2, where a polynomial (Moshier's of the Cephes
    library) holds to the last digit. Zero and infinity give large finite numbers.
    """
    bits = np.float32(ratio).view(np.int32)
    exponent = np.int32((bits - np.int32(0x3F3504F3)) >> np.int32(23))
    t = np.int32(bits - np.int32(exponent << np.int32(23))).view(np.float32) - np.float32(1.0)
    series = np.float32(7.0376836292e-2)
    series = series * t + np.float32(-1.1514610310e-1)
    series = series * t + np.float32(1.1676998740e-1)
    series = series * t + np.float32(-1.2420140846e-1)
    series = series * t + np.float32(1.4249322787e-1)
    series = series * t + np.float32(-1.6668057665e-1)
    series = series * t + np.float32(2.0000714765e-1)
    series = series * t + np.float32(-2.4999993993e-1)
    series = series * t + np.float32(3.3333331174e-1)
    return t + t * t * (series * t - np.float32(0.5)) + np.float32(exponent) * np.float32(0.6931471805599453)


@compiled
def model_cost(x, v, beta):
    """Return the part of d(x | v) that depends on v, for a beta outside [1, 2], where that is all one may compare."""
    if v == 0.0:
        return 0.0 if beta > 1.0 else math.inf
    if beta == 0.0:
        return math.log(v) + x / v
    power = v ** (beta - 1.0)
    return v * power / beta - x * power / (beta - 1.0)


@compiled
def slopes(x, v, m, beta, pull, push):
    """Write the two halves of the weighted slope of a frame: ``push - pull``.

    ``pull = m x v^(beta - 2)`` asks for more of a bin, ``push = m v^(beta - 1)`` for less. W' pull and W' push are the
    A and B of the certificate.
    """
    if beta == 2.0:
        for f in range(len(x)):
            pull[f] = m[f] * x[f]
            push[f] = m[f] * v[f]
    elif beta == 1.0:
        for f in range(len(x)):
            pull[f] = m[f] * x[f] / max(v[f], TINY)
            push[f] = m[f]
    elif beta == 0.0:
        for f in range(len(x)):
            inverse = 1.0 / max(v[f], TINY)
            pull[f] = m[f] * x[f] * inverse * inverse
            push[f] = m[f] * inverse
    else:
        for f in range(len(x)):
            model = max(v[f], TINY) if beta < 2.0 else v[f]
            power = m[f] * model ** (beta - 2.0)
            pull[f] = power * x[f]
            push[f] = power * v[f]
