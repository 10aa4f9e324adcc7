"""The beta-divergence: its definition, and the names of its special cases.

For a bin with data ``x`` and model ``v`` [1]_

    d(x | v) = (x^beta + (beta - 1) v^beta - beta x v^(beta - 1)) / (beta (beta - 1))

with the limits ``x log(x / v) - x + v`` (Kullback-Leibler, beta = 1) and ``x / v - log(x / v) - 1``
(Itakura-Saito, beta = 0); beta = 2 is half the squared error (Frobenius). Its derivative with respect to ``v`` is
``v^(beta - 1) - x v^(beta - 2)``. Because ``d(s x | s v) = s^beta d(x | v)``, the solver may scale every frame.

.. [1] C. Fevotte and J. Idier, "Algorithms for nonnegative matrix factorization with the
   beta-divergence", Neural Computation 23(9), 2011.
"""

import numpy as np
from numpy.typing import NDArray

from knownmf.validation import number

BETA_OF = {"frobenius": 2.0, "kullback-leibler": 1.0, "itakura-saito": 0.0}
BETA_RANGE = (-1.0, 3.0)


def beta_of(beta_loss: object) -> float:
    """Return beta as a number.

    Parameters
    ----------
    beta_loss : {"frobenius", "kullback-leibler", "itakura-saito"} or float from -1 to 3
        The name of the loss, or beta.

    Returns
    -------
    float
        The number beta.

    Raises
    ------
    ValueError
        If the name is unknown or the number lies outside [-1, 3].

    Examples
    --------
    >>> beta_of("kullback-leibler"), beta_of(0.5)
    (1.0, 0.5)
    """
    if isinstance(beta_loss, str) and beta_loss in BETA_OF:
        return BETA_OF[beta_loss]
    return number(beta_loss, "beta_loss", *BETA_RANGE, "both", f"one of {', '.join(map(repr, BETA_OF))}, or beta")


def divergence(x: NDArray[np.float64], v: NDArray[np.float64], beta: float) -> NDArray[np.float64]:
    """Return the beta-divergence of data ``x`` from a model ``v``, entry by entry.

    Both are not negative, except under least squares. Where ``v`` is zero and ``x`` is not, it is infinite for
    beta <= 1. There is no cancellation where beta is next to 0 or 1.

    Examples
    --------
    >>> import numpy as np
    >>> divergence(np.array([0.0, 1.0, 3.0]), np.array([2.0, 1.0, 2.0]), 1.0)
    array([2.        , 0.        , 0.2163953...])
    """
    if beta == 2.0:
        return 0.5 * (x - v) ** 2
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if beta == 1.0:
            return np.where(x > 0, x * np.log(x / v), 0.0) - x + v
        if beta == 0.0:
            return x / v - np.log(x / v) - 1
        u = np.log(v / x)
        inside = x**beta * (np.expm1(beta * u) / beta - np.expm1((beta - 1) * u) / (beta - 1))
        at_zero = v**beta / beta + x**beta / (beta * (beta - 1)) if beta > 0 else np.inf
        return np.where((x > 0) & (v > 0), inside, np.where(x == v, 0.0, at_zero))
