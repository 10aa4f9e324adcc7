"""The proof that comes with every answer: the duality gap of a frame, and its KKT residual.

For 1 <= beta <= 2 the problem of a frame

    P(h) = sum m d_beta(x | v) + lambda'h + 1/2 sum mu h^2,    v = b + W h,  h >= 0

is convex, and because W is not negative a feasible point of its dual costs nothing beyond the two halves of the
gradient that the solver has anyway, ``A = W'(m x v^(beta - 2))`` and ``B = W'(m v^(beta - 1))``: the model scaled by a
number c. Any feasible point bounds the distance to the optimum, ``P(h) - min P <= gap``, whoever found h and how.
"""

import math

import numpy as np

from knownmf.divergences import compiled


@compiled
def smallest_scale(A, B, l1, l2, allowed, beta, strict):
    """Return the least c with ``c^(beta-2) A_k - c^(beta-1) B_k <= l1_k`` for every allowed k without an L2 penalty.

    With ``strict`` for those with one, too.
    """
    c = 0.0
    for k in range(len(A)):
        if not allowed[k] or (l2[k] > 0.0 and not strict) or A[k] == 0.0:
            continue
        if A[k] == math.inf or (B[k] == 0.0 and (l1[k] == 0.0 or beta == 2.0) and A[k] > l1[k]):
            return math.inf
        if l1[k] == 0.0:
            c = max(c, A[k] / B[k])
        elif beta == 1.0:
            c = max(c, A[k] / (B[k] + l1[k]))
        elif beta == 2.0:
            c = max(c, (A[k] - l1[k]) / B[k])
        else:
            # A - c B - l1 c^(2-beta) is convex and falls: Newton from the left never passes its root.
            for _ in range(50):
                excess = A[k] - c * B[k] - l1[k] * c ** (2.0 - beta)
                if excess <= 1e-15 * A[k]:
                    break
                bend = l1[k] * (2.0 - beta) * c ** (1.0 - beta) if c > 0.0 else math.inf
                c = c + excess / (B[k] + bend) if c > 0.0 else 1e-3 * A[k] / (B[k] + l1[k])
            else:
                return math.inf  # the root is many orders of magnitude away: no scale is feasible yet
    return c


@compiled
def gap_of_scaled_model(c, h, A, B, l1, l2, allowed, beta, strict, sums):
    """Return the duality gap of the dual point that the model times ``c`` gives (DESIGN's gap(c)).

    The two sums that it needs are S1 = h'B + pushed and S2 = h'A + pulled, with the background's parts of ``sums``.
    Slopes belong to a model that is no smaller than their floor: what of the point comes from bins whose model is below
    it, S1 and S2 do not know.
    """
    data, pushed, pulled, floor_push, floor_pull = sums[0], sums[3], sums[4], sums[5], sums[6]
    inner, outer = c ** (beta - 1.0), c ** (beta - 2.0)
    gap, s1, s2 = 0.0, pushed, pulled
    for k in range(len(h)):
        s1 += h[k] * B[k]
        s2 += h[k] * A[k]
        gap += h[k] * (l1[k] + 0.5 * l2[k] * h[k])
        if l2[k] > 0.0 and allowed[k] and not strict:
            excess = outer * A[k] - inner * B[k] - l1[k]
            if excess > 0.0:
                gap += 0.5 * excess * excess / l2[k]
    if beta == 1.0:
        gap += s1 - data * (1.0 - math.log(c)) if floor_pull == 0.0 else math.inf
    else:
        gap += s1 * (1.0 / beta + (1.0 - 1.0 / beta) * inner * c)
        gap += floor_push * (1.0 - 1.0 / beta) * inner * c + floor_pull * (2.0 - beta) / (beta - 1.0) * inner
        gap -= s2 * (1.0 - (2.0 - beta) * inner) / (beta - 1.0)
    return gap - (inner * pushed - outer * pulled)


@compiled
def gap_of_shifted_residual(h, A, B, l1, l2, allowed, strict, direction, energy):
    """Return the gap of the dual point ``m (x - v - eps q)`` of the least-squares problem.

    ``direction = W'(m q)`` and ``energy = sum m q^2``, for whatever q >= 0 the caller likes.
    """
    shift = 0.0
    for k in range(len(h)):
        excess = A[k] - B[k] - l1[k]
        if allowed[k] and (l2[k] == 0.0 or strict) and excess > 0.0:
            if direction[k] <= 0.0:
                return math.inf
            shift = max(shift, excess / direction[k])
    gap = 0.5 * shift * shift * energy
    for k in range(len(h)):
        gap += h[k] * (l1[k] + 0.5 * l2[k] * h[k] - A[k] + B[k] + shift * direction[k])
        if l2[k] > 0.0 and allowed[k] and not strict:
            excess = max(A[k] - B[k] - l1[k] - shift * direction[k], 0.0)
            gap += 0.5 * excess * excess / l2[k]
    return gap


@compiled
def duality_gap(h, A, B, l1, l2, allowed, beta, weighted, sums):
    """Return a bound on ``P(h) - min P`` for one frame; NaN outside 1 <= beta <= 2.

    Parameters
    ----------
    h, A, B, l1, l2 : (n_components,) float64
    allowed : (n_components,) bool
        Components that may be used: inside the support, and not zero on the observed bins.
    weighted : (n_components,) float64
        ``W'm``, used where beta = 2.
    sums : (7,) float64
        ``sum m x``, ``sum m x^2``, ``sum m``, ``sum m b v^(beta-1)``, ``sum m b x v^(beta-2)``; and, over the bins
        where the slopes' v is a floor above the model, ``sum m v^beta`` and ``sum m x v^(beta-1)``.
    """
    if beta < 1.0 or beta > 2.0:
        return math.nan
    energy, weight, model_energy, gap = sums[1], sums[2], sums[3], math.inf
    for k in range(len(h)):
        model_energy += h[k] * B[k]
    # A component with an L2 penalty need not be feasible, at a price of its excess squared over the penalty; where the
    # penalty is next to nothing, so that rounding alone would cost much, it had better be.
    for attempt in range(1 if np.sum(l2) == 0.0 else 2):
        strict = attempt == 1
        least = smallest_scale(A, B, l1, l2, allowed, beta, strict)
        for c in (least, max(least, 1.0)):
            if 0.0 < c < math.inf:
                gap = min(gap, gap_of_scaled_model(c, h, A, B, l1, l2, allowed, beta, strict, sums))
        if beta == 2.0:
            gap = min(gap, gap_of_shifted_residual(h, A, B, l1, l2, allowed, strict, A, energy))
            gap = min(gap, gap_of_shifted_residual(h, A, B, l1, l2, allowed, strict, B, model_energy))
            gap = min(gap, gap_of_shifted_residual(h, A, B, l1, l2, allowed, strict, weighted, weight))
    return max(gap, 0.0)


@compiled
def kkt_residual(h, A, B, l1, l2, allowed):
    """Return how far a frame is from the Karush-Kuhn-Tucker conditions, free of every scale.

    ``max_k |min(h_k d_k, gradient_k)| / (B_k + l1_k)`` with ``d_k`` such that ``h_k d_k / (B_k + l1_k)`` is component
    k's share ``h_k (B_k + l1_k)`` of the largest such share.
    """
    largest = 0.0
    for k in range(len(h)):
        largest = max(largest, h[k] * (B[k] + l1[k]))
    worst = 0.0
    for k in range(len(h)):
        if not allowed[k]:
            continue
        scale = B[k] + l1[k]
        gradient = scale - A[k] + l2[k] * h[k]
        if scale > 0.0:
            share = h[k] * scale / largest if largest > 0.0 else 0.0
            residual = abs(min(share, gradient / scale))
            if not residual < math.inf:  # NaN, too
                return math.inf
            worst = max(worst, residual)
        elif gradient < 0.0:
            worst = math.inf
    return worst
