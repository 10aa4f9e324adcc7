"""An outside judge of limited activations: cvxpy with the interior-point solver Clarabel.

Its points are only as good as its own tolerance. They prove something all the same: made feasible, every one of them
has an objective of at least the minimum, so that no objective may lie above it by more than its gap.
"""

import warnings
from dataclasses import dataclass, replace

import cvxpy
import numpy as np
import scipy.sparse


@dataclass
class LimitedFrame:
    """The problem of one frame, of a beta in [1, 2].

    ``x``, ``weights`` and ``background`` are (n_bins,), with a weight of 0 where x is missing; ``l1``, ``l2`` and
    ``upper`` are (n_components,), with a bound of 0 outside the support; ``W`` is (n_bins, n_components). Limits are
    infinite where there are none. The sum is ``total``, or at most that if ``total_is_most``.
    """

    x: np.ndarray
    W: np.ndarray
    beta: float
    weights: np.ndarray
    background: np.ndarray
    l1: np.ndarray
    l2: np.ndarray
    upper: np.ndarray
    total: float
    total_is_most: bool

    @property
    def is_unreached(self):
        """Which bins no component and no background can reach."""
        return (self.background == 0) & ~(self.W[:, np.minimum(self.upper, self.total) > 0] > 0).any(axis=1)

    def objective(self, h):
        """Return P(h) and the sum of the absolute values of its terms, in extended precision."""
        h, W, x, m = (np.asarray(values, np.longdouble) for values in (h, self.W, self.x, self.weights))
        beta, v = np.longdouble(self.beta), self.background + (W * h).sum(axis=1)
        if self.beta == 1:  # with the documented floor of bins with data that nothing can reach
            v[self.is_unreached & (x > 0)] = 1e-15 * x[m > 0].max(initial=0)
            counts, logarithm = (m > 0) & (x > 0), np.zeros_like(x)
            logarithm[counts] = np.log(x[counts] / v[counts])
            terms = [x * logarithm, v, -x]
        else:
            factor = 1 / (beta * (beta - 1))
            terms = [factor * x**beta, factor * (beta - 1) * v**beta, -factor * beta * x * v ** (beta - 1)]
        penalties = (self.l1 * h + self.l2 * h**2 / 2).sum()
        return (m * sum(terms)).sum() + penalties, (m * sum(abs(term) for term in terms)).sum() + penalties

    def scaled(self):
        """Return the problem with activations and data in units in which they are about 1, and that unit."""
        data = ((self.x + self.background) * (self.weights > 0)).sum()
        unit = data / self.W.sum(axis=0).max() or 1.0
        if np.isfinite(self.total):
            unit = min(unit, self.total) if self.total_is_most else self.total
        sizes = (np.maximum(self.x, self.background) / unit + self.W.mean(axis=1)) ** self.beta
        share = 1 / ((self.weights * sizes).sum() or 1.0)
        problem = replace(
            self,
            x=self.x / unit,
            weights=self.weights * share,
            background=self.background / unit,
            l1=self.l1 * share * unit ** (1 - self.beta),
            l2=self.l2 * share * unit ** (2 - self.beta),
            upper=self.upper / unit,
            total=self.total / unit,
        )
        return problem, unit

    def feasible(self, h):
        """Return activations near h that satisfy the limits."""
        most = np.minimum(self.upper, self.total)
        h = np.clip(h, 0.0, most)
        missing, room = self.total - h.sum(), most - h
        if missing < 0:
            return h * (self.total / h.sum())
        if self.total_is_most or np.isinf(self.total) or not room.any():
            return h
        return h + room * min(missing / room.sum(), 1.0)


def minimizers(frames):
    """Return the activations that Clarabel finds for frames of one beta, made feasible; None where it fails."""
    found = [None if np.minimum(frame.upper, frame.total).any() else np.zeros(len(frame.upper)) for frame in frames]
    free = [i for i, h in enumerate(found) if h is None]
    for chosen in [free, *([i] for i in free)]:  # single frames only if the problem of all fails
        chosen = [i for i in chosen if found[i] is None]
        if chosen:
            for i, h in zip(chosen, _solve([frames[i] for i in chosen]), strict=True):
                found[i] = h
    return found


def _solve(frames):
    """Solve frames in one problem."""
    problems, units = zip(*(frame.scaled() for frame in frames), strict=True)
    x, background, weights, l1, l2, upper = (
        np.concatenate([getattr(problem, name) for problem in problems])
        for name in ("x", "background", "weights", "l1", "l2", "upper")
    )
    W = scipy.sparse.block_diag([problem.W for problem in problems], format="csr")
    sums = scipy.sparse.block_diag([np.ones((1, len(problem.l1))) for problem in problems], format="csr")
    total, is_most = (np.array([getattr(problem, name) for problem in problems]) for name in ("total", "total_is_most"))

    h, beta = cvxpy.Variable(W.shape[1], nonneg=True), frames[0].beta
    v = W @ h + background
    if beta == 2:
        loss = 0.5 * cvxpy.sum_squares(cvxpy.multiply(np.sqrt(weights), v - x))
    else:
        counts = (weights * x > 0) & ~np.concatenate([problem.is_unreached for problem in problems])
        pull = (weights * x)[counts]
        if beta == 1:
            loss = weights @ v - pull @ cvxpy.log(v[counts])
        else:
            power = weights @ cvxpy.power(v, beta, approx=True) / beta
            loss = power - pull @ cvxpy.power(v[counts], beta - 1, approx=True) / (beta - 1)
    penalties = l1 @ h + 0.5 * cvxpy.sum_squares(cvxpy.multiply(np.sqrt(l2), h))
    bounded, fixed, at_most = np.isfinite(upper), np.isfinite(total) & ~is_most, np.isfinite(total) & is_most
    limits = [h[bounded] <= upper[bounded], sums[fixed] @ h == total[fixed], sums[at_most] @ h <= total[at_most]]
    used = [limit for limit, rows in zip(limits, (bounded, fixed, at_most), strict=True) if rows.any()]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Solution may be inaccurate")  # how good it is can be seen from its objective
        try:
            cvxpy.Problem(cvxpy.Minimize(loss + penalties), used).solve(solver=cvxpy.CLARABEL)
        except cvxpy.SolverError:
            return [None] * len(frames)
    if h.value is None:
        return [None] * len(frames)
    ends = np.cumsum([len(frame.l1) for frame in frames])
    found = np.split(h.value, ends[:-1])
    return [frame.feasible(unit * part) for frame, unit, part in zip(frames, units, found, strict=True)]
