"""What a learning pass computes of a block of frames: its cost and slopes, and one step of every row."""

import math

import numpy as np

from knownmf.divergences import TINY, log_single, slopes
from knownmf.kernels import dot, kept_on_disk, quadratic_gradient, total_divergence, vectorised
from knownmf.solver.start import SMALLEST_START, multiply

FURTHEST = 3.0  # the ratio of two passes that counts at most: in the beginning entries fall by far more


@vectorised
def quick_divergence(x, v, m, beta):
    """Return ``sum m d(x | v)`` of a frame in single precision, for beta 0 and 1: its rounding does not add up."""
    total = np.float32(0.0)
    for f in range(len(x)):
        ratio = x[f] / v[f]
        logarithm = log_single(ratio)
        total += m[f] * (v[f] - x[f] + x[f] * logarithm if beta == 1.0 else ratio - logarithm - np.float32(1.0))
    return total


@kept_on_disk
def measure(x, m, v, beta, with_cost, pull, push):
    """Write the two halves of the slope of a block; return its divergence, if it is asked for."""
    total = 0.0
    quick = x.itemsize == 4 and (beta == 0.0 or beta == 1.0)
    for i in range(len(x)):
        weights = m[min(i, len(m) - 1)]
        slopes(x[i], v[i], weights, beta, pull[i], push[i])
        if with_cost and quick:
            total += quick_divergence(x[i], v[i], weights, beta)
        elif with_cost:
            total += total_divergence(x[i], v[i], weights, beta)
    return total


@vectorised
def add_multiple(amount, row, out):
    """Add ``amount row`` to ``out``."""
    for k in range(len(row)):
        out[k] += amount * row[k]


@kept_on_disk
def measure_entries(data, bins, starts, H, columns, pull, linear, for_basis):
    """Gather what the entries of a CSR block pull, under beta = 1; ``columns`` is (n_bins, n_components).

    For the activations, add ``W'(x / v)`` to the rows of ``pull`` and return ``sum x log(x / v) - x``; for the basis,
    add ``(x / v) h`` to ``linear`` at the entry's bin.
    """
    total = 0.0
    for i in range(len(H)):
        h = H[i]
        for j in range(starts[i], starts[i + 1]):
            x, column = data[j], columns[bins[j]]
            ratio = x / max(dot(h, column), TINY)
            if ratio > 0.0:
                if for_basis:
                    add_multiple(data.dtype.type(ratio), h, linear[bins[j]])
                else:
                    total += x * (math.log(ratio) - 1.0)
                    add_multiple(data.dtype.type(ratio), column, pull[i])
    return total


@kept_on_disk
def multiply_rows(Z, A, B, l1, l2, power):
    """Take one multiplicative update of every row."""
    for i in range(len(Z)):
        multiply(Z[i], A[i], B[min(i, len(B) - 1)], l1[min(i, len(l1) - 1)], l2[min(i, len(l2) - 1)], power, False)


@kept_on_disk
def carry_on(new, now, old, share, out):
    """Write and return what lies beyond ``new`` by its ratio to ``old`` to the power ``share``.

    Entries stay at ``new`` where the step to there from ``now`` and that from ``old`` differ in direction.
    """
    for i in range(len(new)):
        for k in range(new.shape[1]):
            end = new[i, k]
            if (end - now[i, k]) * (end - old[i, k]) > 0.0:
                ratio = min(max(np.float32(end / old[i, k]), np.float32(1.0 / FURTHEST)), np.float32(FURTHEST))
                end = max(end * ratio ** np.float32(share), np.float32(SMALLEST_START))
            out[i, k] = end
    return out


@kept_on_disk
def descend_rows(Q, q, Z, free, n_sweeps):
    """Lower ``1/2 z'Qz - q'z`` for every row z of Z over its free entries, by coordinate sweeps (HALS)."""
    n = len(Q)
    y, minus = np.empty(n), np.empty(n)
    for i in range(len(Z)):
        z, may = Z[i], free[min(i, len(free) - 1)]
        for k in range(n):
            minus[k] = -q[i, k]
        quadratic_gradient(Q, minus, z, y)
        for _ in range(n_sweeps):
            for k in range(n):
                if may[k] and (Q[k, k] > 0.0 or y[k] > 0.0):  # a slope without curvature leads to zero
                    new = max(z[k] - y[k] / Q[k, k], 0.0)
                    step = new - z[k]
                    if step != 0.0:
                        z[k] = new
                        row = Q[k]
                        for j in range(n):
                            y[j] += step * row[j]
