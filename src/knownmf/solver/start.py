"""Where frames start: every atom a little, or the caller's activations, and multiplicative updates from there."""

import math

import numpy as np

from knownmf.divergences import TINY, slopes
from knownmf.kernels import add_model, add_models, compiled, copy, products_of_rows, vectorised
from knownmf.solver.frames import ADMITTED, DENSE, frame_of, price_half, strongest, update_model

N_WARM_UP = 14  # multiplicative updates before Newton starts (of many atoms, one finds the strongest)
WEAK, FALLING = 1e-3, 0.95  # share of a frame, and slope ratio, below which an activation does not start
LARGEST_RATIO, SMALLEST_START = 1e15, 1e-25  # of a multiplicative update: beyond, single precision soon ends


@compiled
def spread_start(frame, share, beta):
    """Add the same amount of every allowed atom to a frame, ``share`` of the frame's data in all, and to its model."""
    total, room = 0.0, 0.0
    x, m, b = frame.x, frame.m, frame.b
    for f in range(len(x)):
        total += m[f] * x[f]
        room += m[f] * max(x[f] - b[f], 1e-3 * x[f])
    model = 0.0
    for k in range(len(frame.h)):
        model += frame.weighted[k] if frame.allowed[k] else 0.0
    amount = share * min(room, total) / model
    for k in range(len(frame.h)):
        if frame.allowed[k]:
            frame.h[k] += amount
    for f in range(len(x)):
        frame.v[f] += amount * frame.reachable[f]
    slopes(x, frame.v, m, beta, frame.pull, frame.push)


@compiled
def rescale(frame, beta):
    """Multiply the start of a frame by the factor that its objective likes best; a background bars that."""
    pushed, pulled, offset, l1, l2 = 0.0, 0.0, 0.0, 0.0, 0.0
    for f in range(len(frame.x)):
        pushed += frame.push[f] * frame.v[f]
        pulled += frame.pull[f] * frame.v[f]
        offset += frame.m[f] * frame.b[f]
    for k in range(len(frame.h)):
        l1 += frame.l1[k] * frame.h[k]
        l2 += frame.l2[k] * frame.h[k] ** 2
    if offset > 0.0 or not 0.0 < pushed < math.inf or not 0.0 < pulled < math.inf:
        return
    factor = pulled / pushed
    if l1 + l2 > 0.0 and beta <= 2.0:
        # c pushed + c^(2-beta) l1 + c^(3-beta) l2 = pulled: rising in c, so halve an interval of its logarithm.
        low, high = -400.0, 400.0
        for _ in range(60):
            middle = 0.5 * (low + high)
            factor = 2.0**middle
            if factor * pushed + factor ** (2.0 - beta) * l1 + factor ** (3.0 - beta) * l2 > pulled:
                high = middle
            else:
                low = middle
    for k in range(len(frame.h)):
        frame.h[k] *= factor
    for f in range(len(frame.v)):
        frame.v[f] *= factor
    slopes(frame.x, frame.v, frame.m, beta, frame.pull, frame.push)


@compiled
def start_group(g, which, problem):
    """Give every frame its starting point, with its model and its slopes.

    Least squares with one Gram matrix starts from nothing: its first step is exact. Otherwise a frame starts from
    the same share of every atom, or from the caller's activations, at its best scale.
    """
    beta = problem.beta
    if len(problem.gram) > 0:
        with_background = False
        for i in which:
            frame = frame_of(g, i)
            copy(frame.b, frame.v)
            slopes(frame.x, frame.v, frame.m, beta, frame.pull, frame.push)
            for k in range(len(frame.offset)):
                frame.offset[k] = 0.0
            for f in range(len(frame.b)):
                with_background |= frame.b[f] > 0.0
        price_half(g, which, problem, g.pull, g.A)
        if with_background:
            price_half(g, which, problem, g.push, g.offset)
        return
    for i in which:
        frame, uncovered = frame_of(g, i), not problem.warm
        copy(frame.b, frame.v)
        if problem.warm:
            update_model(frame, problem)
            for f in range(len(frame.x)):
                uncovered |= frame.m[f] * frame.x[f] > 0.0 and frame.v[f] < TINY
        if uncovered:
            spread_start(frame, 1e-2 if problem.warm else 1.0, beta)
        rescale(frame, beta)


@vectorised
def multiply(h, A, B, l1, l2, power, relaxed):
    """Take one multiplicative update (Fevotte and Idier 2011), which looks far and never leaves the positive.

    A relaxed one, for starts, goes 1.75 times as far (in square roots, which are quick). What is not finite changes
    nothing.
    """
    unit = h.dtype.type  # all in the precision of h, or the loop is not vectorised
    most, least, exponent = unit(LARGEST_RATIO), unit(SMALLEST_START), unit(power)
    for k in range(len(h)):
        ratio = A[k] / (B[k] + unit(l1[k]) + unit(l2[k]) * h[k])
        if power != 1.0:
            ratio = unit(ratio**exponent)
        if relaxed:
            root = unit(math.sqrt(ratio))
            ratio *= root * unit(math.sqrt(root))
        new = max(h[k] * ratio, least) if ratio < most else h[k]
        h[k] = new if h[k] > 0.0 else h[k]


@compiled
def drop_weak(frame, A, B):
    """Zero the activations of a frame that count little and are falling."""
    h, total = frame.h, 0.0
    for k in range(len(h)):
        total += h[k] * B[k]
    for k in range(len(h)):
        if h[k] * B[k] < WEAK * total and A[k] < FALLING * (B[k] + frame.l1[k]):
            h[k] = 0.0


@compiled
def lacks_model(frame):
    """Return whether some bin with data has next to no model."""
    lacks, x, m, v = False, frame.x, frame.m, frame.v
    for f in range(len(x)):
        lacks |= (m[f] > 0.0) & (v[f] < 1e-3 * x[f])  # an "and" would be a branch
    return lacks


@compiled
def keep_strongest(frame, W):
    """Leave a start only its strongest atoms, and one for every bin with data that would be left without any."""
    h, v = np.empty(len(frame.h)), frame.v
    for k in range(len(h)):
        h[k] = frame.h[k]
        frame.h[k] = 0.0
    for k in strongest(h, np.int64(2 * ADMITTED)):
        frame.h[k] = h[k]
    copy(frame.b, v)
    add_model(frame.h, W, v)
    for f in range(len(v)):
        if frame.m[f] > 0.0 and frame.x[f] > 0.0 and v[f] <= 0.0:
            best = 0
            for k in range(len(h)):
                if h[k] * W[k, f] > h[best] * W[best, f]:
                    best = k
            frame.h[best] = h[best]
            for j in range(len(v)):
                v[j] += h[best] * W[best, j]


@compiled
def warm_up(g, which, problem, n_updates):
    """Improve the starts of the frames ``which`` by multiplicative updates of all of them at once, in single precision.

    All but the first and last are relaxed. Of many atoms one update finds the strongest; of few, those that are
    left weak are dropped.
    """
    beta, W, atoms = problem.beta, problem.W_single, problem.atoms
    power = 1.0 / max(1.0, 2.0 - beta, beta - 1.0)
    rows, even = (len(which) + 3) // 4 * 4, (len(which) + 1) // 2 * 2
    bins = np.zeros((3, rows, W.shape[1]), W.dtype)
    components = np.zeros((3, rows, len(W)), W.dtype)
    pull, push, v = bins[0], bins[1], bins[2]
    h, A, B = components[0], components[1], components[2]
    for j in range(len(which)):
        i = which[j]
        copy(g.pull[i], pull[j])
        copy(g.push[i], push[j])
        copy(g.h[i], h[j])
        copy(g.weighted[i], B[j])
    for n in range(n_updates):
        products_of_rows(pull, W, atoms, len(W), A)
        if beta != 1.0:
            products_of_rows(push, W, atoms, len(W), B)
        for j in range(len(which)):
            i = which[j]
            multiply(h[j], A[j], B[j], g.l1[i], g.l2[i], power, 0 < n < n_updates - 1)
            copy(g.b[i], v[j])
        if n < n_updates - 1:
            add_models(h[:even], W, v[:even])
            for j in range(len(which)):
                i = which[j]
                slopes(g.x[i], v[j], g.m[i], beta, pull[j], push[j])
    for j in range(len(which)):
        frame = frame_of(g, which[j])
        copy(h[j], frame.h)
        if len(W) > DENSE:
            keep_strongest(frame, problem.W)
        else:
            drop_weak(frame, A[j], B[j])
        update_model(frame, problem)
        if len(W) <= DENSE and lacks_model(frame):
            copy(h[j], frame.h)
            update_model(frame, problem)
