"""Compiled kernels: products of rows, Cholesky, the nonnegative quadratic program, and the line search.

Arrays in, arrays out: nothing here warns, checks or allocates more than it returns. Matrices are row-major and a bin
is always the last axis, so that inner loops run over contiguous memory.
"""

import math
from typing import Any

import numpy as np
from numba import njit

from knownmf.divergences import divergence, itakura_saito, kullback_leibler, model_cost, slopes

#: Kernels are called by compiled code alone (from Python they crash): without wrappers for Python they compile in three
#: quarters of the time. ``vectorised`` has the licence to reorder a sum; NaN and infinity keep their meaning.
INNER: dict[str, Any] = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
compiled = njit(**INNER)
vectorised = njit(**INNER, fastmath={"reassoc", "contract", "nsz", "arcp"})


def kept_on_disk(function):
    """Compile what Python calls without the interpreter's lock; keep it on disk where one may write."""
    options: dict[str, Any] = {"error_model": "numpy", "nogil": True, "no_cfunc_wrapper": True}
    try:
        return njit(**options, cache=True)(function)
    except RuntimeError:
        # Numba found no folder for its cache: compile anew in each process rather than fail on import.
        return njit(**options)(function)


#: Added to the unit diagonal of a curvature matrix (in double, in single precision): about its rounding, so that
#: duplicate atoms have one answer. It slows steps along directions that the data can hardly tell apart.
RIDGE, RIDGE_SINGLE = 1e-14, 2e-6


@vectorised
def products_of_rows(P, W, atoms, skip, out):
    """Write ``out[i, j] = P[i] . W[atoms[j]]`` for j < i + 4 + ``skip``: with 0, not above the diagonal's blocks.

    The number of rows of P is a multiple of four. Four by three sums stay in registers, the widest block that 16
    vector registers hold, and W passes once. Every row of P goes through the same instructions wherever it stands:
    a frame's answer does not depend, by one bit, on its neighbours.
    """
    zero = P.dtype.type(0)
    last = len(atoms) - 1
    for j in range(0, last + 1, 3):
        j1, j2 = min(j + 1, last), min(j + 2, last)
        w0, w1, w2 = W[atoms[j]], W[atoms[j1]], W[atoms[j2]]
        for i in range(max(0, (j - skip) // 4 * 4), P.shape[0], 4):
            p0, p1, p2, p3 = P[i], P[i + 1], P[i + 2], P[i + 3]
            s00 = s10 = s20 = s30 = s01 = s11 = s21 = s31 = s02 = s12 = s22 = s32 = zero
            for f in range(P.shape[1]):
                a, b, c = w0[f], w1[f], w2[f]
                s00 += p0[f] * a
                s01 += p0[f] * b
                s02 += p0[f] * c
                s10 += p1[f] * a
                s11 += p1[f] * b
                s12 += p1[f] * c
                s20 += p2[f] * a
                s21 += p2[f] * b
                s22 += p2[f] * c
                s30 += p3[f] * a
                s31 += p3[f] * b
                s32 += p3[f] * c
            out[i, j], out[i + 1, j], out[i + 2, j], out[i + 3, j] = s00, s10, s20, s30
            out[i, j1], out[i + 1, j1], out[i + 2, j1], out[i + 3, j1] = s01, s11, s21, s31
            out[i, j2], out[i + 1, j2], out[i + 2, j2], out[i + 3, j2] = s02, s12, s22, s32


@vectorised
def dot(a, b):
    """Return the inner product of two rows."""
    total = a.dtype.type(0)
    for k in range(len(a)):
        total += a[k] * b[k]
    return total


@vectorised
def add_model(h, W, v):
    """Add ``W' h`` to ``v``, four atoms at a time and zeros skipped; ``W`` is (n_components, n_bins)."""
    active, n = np.empty(len(h), np.int64), 0
    for k in range(len(h)):
        if h[k] != 0.0:
            active[n] = k
            n += 1
    for i in range(0, n - 3, 4):
        k0, k1, k2, k3 = active[i], active[i + 1], active[i + 2], active[i + 3]
        w0, w1, w2, w3 = W[k0], W[k1], W[k2], W[k3]
        h0, h1, h2, h3 = h[k0], h[k1], h[k2], h[k3]
        for f in range(len(v)):
            v[f] += (h0 * w0[f] + h1 * w1[f]) + (h2 * w2[f] + h3 * w3[f])
    for i in range(n // 4 * 4, n):
        w0, h0 = W[active[i]], h[active[i]]
        for f in range(len(v)):
            v[f] += h0 * w0[f]


@vectorised
def add_models(H, W, V):
    """Add ``H W`` to ``V``, two frames and four atoms at a time; the number of frames is even.

    For starts, where next to no activation is zero: :func:`add_model` skips zeros, but reads W anew for every frame.
    """
    n_components = H.shape[1]
    for k in range(0, n_components - 3, 4):
        w0, w1, w2, w3 = W[k], W[k + 1], W[k + 2], W[k + 3]
        for i in range(0, len(H), 2):
            h0, h1, h2, h3 = H[i, k], H[i, k + 1], H[i, k + 2], H[i, k + 3]
            j0, j1, j2, j3 = H[i + 1, k], H[i + 1, k + 1], H[i + 1, k + 2], H[i + 1, k + 3]
            v, u = V[i], V[i + 1]
            for f in range(V.shape[1]):
                # Read once: after v is written, the compiler would read them again.
                a, b, c, d = w0[f], w1[f], w2[f], w3[f]
                v[f] += h0 * a + h1 * b + h2 * c + h3 * d
                u[f] += j0 * a + j1 * b + j2 * c + j3 * d
    for k in range(n_components // 4 * 4, n_components):
        w0 = W[k]
        for i in range(len(H)):
            h0, v = H[i, k], V[i]
            for f in range(V.shape[1]):
                v[f] += h0 * w0[f]


@vectorised
def cholesky(A, n):
    """Overwrite the lower triangle of the first n rows of A with its Cholesky factor; return whether A is positive.

    A pivot that is worthless is replaced by infinity: its variable then does not move.
    """
    positive = True
    for j in range(n):
        row = A[j]
        pivot = row[j]
        for i in range(j, n):
            total = A[i, j]
            for p in range(j):
                total -= A[i, p] * row[p]
            A[i, j] = total
        usable = row[j] > 1e-15 * pivot
        inverse = 1.0 / math.sqrt(row[j]) if usable else 0.0
        positive = positive and usable
        for i in range(j, n):
            A[i, j] *= inverse
        # The diagonal keeps the inverse: both substitutions multiply by it.
        row[j] = inverse
    return positive


@vectorised
def solve_cholesky(L, n, b):
    """Overwrite b with the solution of (L L') z = b, L from :func:`cholesky`."""
    for i in range(n):
        total = b[i]
        for p in range(i):
            total -= L[i, p] * b[p]
        b[i] = total * L[i, i]
    for i in range(n - 1, -1, -1):
        b[i] *= L[i, i]
        for p in range(i):
            b[p] -= L[i, p] * b[i]


@vectorised
def coordinate_sweeps(Q, z, y, n_sweeps):
    """Lower ``1/2 z'Qz + q'z`` over z >= 0 one variable at a time; ``y = Q z + q`` is kept up to date."""
    for _ in range(n_sweeps):
        for k in range(len(z)):
            new = max(z[k] - y[k] / Q[k, k], 0.0)
            step = new - z[k]
            if step != 0.0:
                z[k] = new
                row = Q[k]
                for j in range(len(z)):
                    y[j] += step * row[j]


@vectorised
def quadratic_gradient(Q, q, z, y):
    """Write ``y = Q z + q``; Q is symmetric."""
    for j in range(len(y)):
        y[j] = q[j]
    for k in range(len(z)):
        value, row = z[k], Q[k]
        if value != 0.0:
            for j in range(len(y)):
                y[j] += value * row[j]


@vectorised
def quadratic_value(q, z, y):
    """Return ``1/2 z'Qz + q'z`` from its gradient y."""
    total = 0.0
    for k in range(len(z)):
        total += 0.5 * z[k] * (y[k] + q[k])
    return total


@compiled
def solve_passive(Q, q, ridge, passive, n, L, packed, z, y):
    """Minimise over the n passive variables, the others at zero, ``y`` the gradient.

    Returns the largest variable, and whether the curvature is positive.
    """
    for i in range(n):
        row, source = L[i], Q[passive[i]]
        for j in range(i + 1):
            row[j] = source[passive[j]]
        row[i] += ridge
        packed[i] = -q[passive[i]]
    positive = cholesky(L, n)
    solve_cholesky(L, n, packed)
    largest = 0.0
    for k in range(len(z)):
        z[k] = 0.0
    for i in range(n):
        z[passive[i]] = packed[i]
        largest = max(largest, packed[i])
    quadratic_gradient(Q, q, z, y)
    return largest, positive


@compiled
def polish(q, passive, n, L, packed, z, y):
    """Take back what the ridge cost, and make zeros of what is only rounding beside its own terms."""
    for i in range(n):
        packed[i] = -y[passive[i]]
    solve_cholesky(L, n, packed)
    for i in range(n):
        z[passive[i]] += packed[i]
    for k in range(len(z)):
        if z[k] <= 1e-13 * abs(q[k]):
            z[k] = 0.0


@compiled
def exchange(passive, n_passive, wrong):
    """Let every variable of ``wrong`` change sides, both lists in ascending order; return the new number of passive."""
    merged = np.empty(n_passive + len(wrong), np.int64)
    i, j, n = 0, 0, 0
    while i < n_passive or j < len(wrong):
        if j == len(wrong) or (i < n_passive and passive[i] < wrong[j]):
            merged[n] = passive[i]
            i, n = i + 1, n + 1
        elif i == n_passive or wrong[j] < passive[i]:
            merged[n] = wrong[j]
            j, n = j + 1, n + 1
        else:
            i, j = i + 1, j + 1
    for k in range(n):
        passive[k] = merged[k]
    return n


@compiled
def nonnegative_quadratic(Q, q, z, ridge, n_sweeps):
    """Minimise ``1/2 z'Qz + q'z`` over z >= 0, from ``z``, in place; Q has a unit diagonal.

    Coordinate sweeps guess the support; block principal pivoting with Kim and Park's backup rule [1]_ finds it
    exactly, each trial one Cholesky. Where rounding makes it wander, or end above the guess, more sweeps finish the
    work: they cannot rise. Returns whether the minimiser was found and Q is positive there.

    .. [1] J. Kim and H. Park, "Fast nonnegative matrix factorization: an active-set-like method and comparisons",
       SIAM Journal on Scientific Computing 33(6), 2011.
    """
    n = len(z)
    y, guess, packed = np.empty(n), np.empty(n), np.empty(n)
    L = np.empty((n, n))
    passive = np.empty(n, np.int64)
    wrong = np.empty(n, np.int64)
    quadratic_gradient(Q, q, z, y)
    coordinate_sweeps(Q, z, y, n_sweeps)
    n_passive = np.int64(0)  # typed, so that callees compile once
    for k in range(n):
        guess[k] = z[k]
        if z[k] > 0.0:
            passive[n_passive] = k
            n_passive += 1
    fewest, patience, lowest = n + 1, 3, quadratic_value(q, z, y)
    for _ in range(20 + n):
        largest, positive = solve_passive(Q, q, ridge, passive, n_passive, L, packed, z, y)
        n_wrong, p, end = 0, 0, n_passive
        for k in range(n):
            inside = p < end and passive[p] == k
            p = p + 1 if inside else p
            # Beside its own terms: what is prohibitive for one variable must not hide what another wants.
            if z[k] < -1e-14 * largest if inside else y[k] < -1e-14 * (abs(q[k]) + abs(y[k] - q[k])):
                wrong[n_wrong] = k
                n_wrong += 1
        if n_wrong == 0:
            polish(q, passive, n_passive, L, packed, z, y)
            quadratic_gradient(Q, q, z, y)
            if quadratic_value(q, z, y) <= lowest + 1e-14 * abs(lowest):
                return positive
            break
        first = 0
        if n_wrong < fewest:
            fewest, patience = n_wrong, 3
        elif patience > 0:
            patience -= 1
        else:
            # Murty's rule: one exchange, of the last wrong variable, cannot cycle.
            first = n_wrong - 1
        n_passive = exchange(passive, n_passive, wrong[first:n_wrong])
    for k in range(n):
        z[k] = guess[k]
    quadratic_gradient(Q, q, z, y)
    coordinate_sweeps(Q, z, y, 10 * n_sweeps)
    return False


@vectorised
def total_divergence(x, v, m, beta):
    """Return ``sum m d(x | v)`` of a frame; a bin without weight counts nothing, whatever it holds."""
    total = 0.0
    if beta == 1.0:
        for f in range(len(x)):
            total += m[f] * kullback_leibler(x[f], v[f]) if m[f] > 0.0 else 0.0
    elif beta == 0.0:
        for f in range(len(x)):
            total += m[f] * itakura_saito(x[f], v[f]) if m[f] > 0.0 else 0.0
    else:
        for f in range(len(x)):
            total += m[f] * divergence(x[f], v[f], beta) if m[f] > 0.0 else 0.0
    return total


@compiled
def total_cost(x, v, m, beta):
    """Return what of ``sum m d(x | v)`` depends on the model, and how much of it may be rounding."""
    total, size = 0.0, 0.0
    for f in range(len(x)):
        if m[f] > 0.0:
            cost = m[f] * model_cost(x[f], v[f], beta)
            total += cost
            size += abs(cost)
    return total, 1e-15 * size


@vectorised
def slope_along(v, end, pull, push):
    """Return the derivative of the divergence along ``end - v``, and how much of it may be rounding."""
    # Both models carry rounding of their own size, which residuals that do not cancel turn into slope.
    total, size = 0.0, 0.0
    for f in range(len(v)):
        slope = push[f] - pull[f]
        total += slope * (end[f] - v[f])
        size += abs(slope) * (end[f] + v[f])
    return total, 4e-16 * size


@compiled
def copy(source, out):
    """Write ``out = source``; compiles in a tenth of the time of a slice assignment."""
    for f in range(len(source)):
        out[f] = source[f]


@njit(**INNER, fastmath={"nnan", "nsz"})
def greatest(values):
    """Return the greatest of what is neither negative nor NaN, 0 of nothing."""
    found = 0.0
    for value in values:
        found = max(found, value)
    return found


@compiled
def blend(v, end, t, out):
    """Write ``(1 - t) v + t end``, which loses no digit of a small model."""
    for f in range(len(v)):
        out[f] = (1.0 - t) * v[f] + t * end[f]


@compiled
def line_search(x, m, beta, v, end, first, penalty, bend, pull, push, trial):
    """Return how far to go from ``v`` towards ``end``, and whether the end itself is out of reach.

    That is a t in [0, 1] at which the objective has fallen; out of reach is an end that leaves a bin without model.

    ``first`` is the objective's slope at t = 0 (negative); the penalties add ``penalty + t bend`` to the slope of the
    divergence. On return ``v``, ``pull`` and ``push`` belong to the point t.

    For 1 <= beta <= 2 the objective is convex along the way: where its slope is not yet positive it has only fallen,
    and no logarithm is needed. Otherwise Armijo's rule, or Hager and Zhang's form of it once the fall is lost in
    rounding.
    """
    convex, barred = 1.0 <= beta <= 2.0, False
    for f in range(len(x)):
        barred |= m[f] * x[f] > 0.0 and end[f] < 1e-3 * v[f] and end[f] < x[f]
    value, noise = (0.0, 0.0) if convex else total_cost(x, v, m, beta)
    low, high, slope_low, slope_high, t = 0.0, 1.0, first, math.inf, 1.0
    in_a_row = 0  # trials since the other end of the bracket moved, negative for the lower end
    for _ in range(60):
        blend(v, end, t, trial)
        slopes(x, trial, m, beta, pull, push)
        slope, rounding = slope_along(v, end, pull, push)
        slope += penalty + t * bend
        if convex:
            accepted = slope <= rounding and (t == 1.0 or slope >= 0.3 * first)
            if t == 1.0 and rounding < slope <= -0.3 * first:
                # A little past the lowest point: as the slope only rises, halfway tells whether the whole step falls.
                blend(v, end, 0.5, trial)
                slopes(x, trial, m, beta, pull, push)
                accepted = slope_along(v, end, pull, push)[0] + penalty + 0.5 * bend + slope <= 0.0
                blend(v, end, 1.0, trial)
                slopes(x, trial, m, beta, pull, push)
        else:
            fall = total_cost(x, trial, m, beta)[0] - value + t * penalty + 0.5 * t * t * bend
            flat = abs(fall) <= noise and abs(slope) <= 0.9 * abs(first) + rounding
            accepted = fall <= 1e-4 * t * first or flat
        if accepted:
            copy(trial, v)
            return t, barred
        if convex and slope <= 0.0:
            low, slope_low, in_a_row = t, slope, min(in_a_row, 0) - 1
        else:
            high, slope_high, in_a_row = t, slope, max(in_a_row, 0) + 1
        share = slope_low / (slope_low - slope_high) if 0.0 < slope_high < math.inf else 0.5
        share = min(max(share, 0.1), 0.9)
        if in_a_row < -2:
            share = 0.9  # the secant crawls along one side: go for the other,
        elif in_a_row > 2:
            share = 0.1**2.0 ** (in_a_row - 3)  # be it many orders of magnitude away
        # An end at which some bin with data has lost its whole model says nothing of the way there.
        t = 0.99 if t == 1.0 and barred else low + share * (high - low)
    blend(v, end, low, trial)
    copy(trial, v)
    slopes(x, v, m, beta, pull, push)
    return low, barred
