"""Frames in work: the problem they share, the state of a group that moves in lockstep, its loading and its prices.

Everything is frames-major here: a frame is a row of X, an atom a row of W. One product prices all atoms for all
unfinished frames of a group. Each frame has a scale of its own, and none reads anything of another.
"""

import math
from typing import NamedTuple

import numpy as np

from knownmf.divergences import ZERO_FLOOR, divergence, slopes
from knownmf.kernels import add_model, compiled, copy, dot, greatest, products_of_rows, vectorised

GROUP = 8  # frames in lockstep: enough to share the reading of W, few enough for the second-level cache
DENSE = 128  # atoms up to which a working set starts with all of them
ADMITTED = 32  # of more atoms, how many enter at a time; twice as many begin
FAR_TOO_LARGE = 1e6  # a warm start's model over the data, from which on it comes down before anything is computed
LARGEST_SINGLE = float(np.finfo(np.float32).max)


class Problem(NamedTuple):
    """A block of frames and what they share. ``M``, ``background`` and ``support`` have one row, or one a frame."""

    X: np.ndarray  # (n_frames, n_bins), NaN = missing
    M: np.ndarray  # weights
    background: np.ndarray
    support: np.ndarray
    W: np.ndarray  # (n_components, n_bins), columns scaled to sums between 1 and 2
    W_single: np.ndarray  # the same in float32
    atoms: np.ndarray  # 0, 1, ... n_components - 1
    units: np.ndarray  # what the columns were multiplied by
    weighted: np.ndarray  # W M, where all frames share the weights, else (0,)
    reachable: np.ndarray  # (n_bins,) sum of the atoms in the support; (0,) where frames have their own, or own bins
    bins: np.ndarray  # which bins the columns of X are, for frames that are gathered from a sparse matrix, else (0, 0)
    columns: np.ndarray  # (all bins, n_components) what their W is gathered from
    gram: np.ndarray  # W M W' where every frame shares it (beta = 2), else (0, 0)
    l1: np.ndarray
    l2: np.ndarray
    beta: float
    tol: float
    max_iter: int
    warm: bool  # the answer's H holds a start
    single: bool  # the answer will be float32


class Answer(NamedTuple):
    """What a block returns, a frame a row."""

    H: np.ndarray
    gap: np.ndarray
    relative_gap: np.ndarray
    kkt: np.ndarray
    objective: np.ndarray
    n_iter: np.ndarray
    converged: np.ndarray


class Group(NamedTuple):
    """The state of frames in lockstep, a frame a row, in the frame's own units; or of one (:func:`frame_of`)."""

    x: np.ndarray
    m: np.ndarray
    b: np.ndarray
    v: np.ndarray
    pull: np.ndarray
    push: np.ndarray
    reachable: np.ndarray  # sum of the atoms that the support allows
    h: np.ndarray
    A: np.ndarray  # W'pull
    B: np.ndarray  # W'push
    weighted: np.ndarray  # W'm
    offset: np.ndarray  # W'(m b), where beta = 2
    l1: np.ndarray
    l2: np.ndarray
    allowed: np.ndarray
    state: np.ndarray  # STATE of each frame


#: What is a number of a frame, not a row.
STATE = np.dtype(
    [
        ("sums", np.float64, 7),  # see certificates.duality_gap
        ("constant", np.float64),  # what the bins cost that nothing reaches
        ("size", np.float64),  # sum m x^beta
        ("exactness", np.float64),  # of the next step's curvature: 0 is Fisher's
        ("exponent", np.int64),  # of two, of the frame's scale
        ("n_iter", np.int64),
        ("n_roundings", np.int64),
        ("live", np.bool_),
        ("precise", np.bool_),  # whether the next step computes its curvature in double precision
        ("barred", np.bool_),  # whether the last step failed at a bin without model
        ("stuck", np.bool_),
    ],
    align=True,
)


def new_group(n_frames: int, n_bins: int, n_components: int) -> Group:
    """Return the buffers of one worker, which takes as many frames at a time."""
    bins, components = np.zeros((7, n_frames, n_bins)), np.zeros((7, n_frames, n_components))
    allowed, state = np.zeros((n_frames, n_components), np.bool_), np.zeros(n_frames, STATE)
    # In the order of the fields: seven with a value a bin, seven with a value a component.
    return Group._make((*bins, *components, allowed, state))


@compiled
def frame_of(g, i):
    """Return frame i of a group: its row of everything, its state an array of one (records cannot be returned)."""
    return Group(
        g.x[i], g.m[i], g.b[i], g.v[i], g.pull[i], g.push[i], g.reachable[i],
        g.h[i], g.A[i], g.B[i], g.weighted[i], g.offset[i], g.l1[i], g.l2[i], g.allowed[i], g.state[i : i + 1],
    )  # fmt: skip


@compiled
def still_live(state, n):
    """Return the indices of the first n frames that are unfinished."""
    which, n_live = np.empty(n, np.int64), 0
    for i in range(n):
        if state[i].live:
            which[n_live] = i
            n_live += 1
    return which[:n_live]


@vectorised
def moments(x, m):
    """Return the sums of m, of m x and of m x^2."""
    weight, data, energy = 0.0, 0.0, 0.0
    for f in range(len(x)):
        weight += m[f]
        data += m[f] * x[f]
        energy += m[f] * x[f] * x[f]
    return weight, data, energy


@compiled
def power_sum(x, m, beta):
    """Return ``sum m x^beta`` over the bins with data."""
    if beta == 1.0 or beta == 2.0:
        return moments(x, m)[int(beta)]
    total = 0.0
    for f in range(len(x)):
        if m[f] > 0.0 and x[f] > 0.0:
            total += m[f] * x[f] ** beta
    return total


@compiled
def scale_frame(x, m, b, reachable, beta):
    """Bring one frame to a scale of its own, in place.

    Missing bins lose their weight, and so do bins that neither an atom nor the background reaches: they cost a
    constant. Returns the exponent of two of the scale, whether the frame is silent, that constant, and
    ``sum m x^beta``, all but the first in the frame's units.
    """
    for f in range(len(x)):
        m[f] = 0.0 if math.isnan(x[f]) else m[f]
        x[f] = 0.0 if m[f] == 0.0 else x[f]
    largest = greatest(x)
    if largest == 0.0 and beta < 1.0:
        for f in range(len(x)):
            if m[f] > 0.0:
                largest = max(largest, b[f])
    exponent = 0 if largest == 0.0 else min(max(math.floor(math.log2(largest)), -1000), 1000)
    scale = 2.0**-exponent
    floor = ZERO_FLOOR * largest * scale
    least = floor if beta < 1.0 else 0.0
    n_sounding, n_lost = 0, 0
    for f in range(len(x)):
        x[f] = max(x[f] * scale, least)
        b[f] *= scale
        sounding = (m[f] > 0.0) & (x[f] > 0.0)  # an "and" would be a branch
        n_sounding += sounding
        n_lost += sounding & (b[f] == 0.0) & (reachable[f] == 0.0)
    size, constant = power_sum(x, m, beta), 0.0
    for f in range(len(x) if n_lost > 0 else 0):
        if m[f] > 0.0 and x[f] > 0.0 and b[f] == 0.0 and reachable[f] == 0.0:
            constant += m[f] * divergence(x[f], floor if beta <= 1.0 else 0.0, beta)
            m[f] = 0.0
    return exponent, n_sounding == n_lost, constant, size


@compiled
def gather_atoms(columns, bins, W, W_single):
    """Fill W with what it holds at the bins of a frame, in both precisions."""
    for f in range(len(bins)):
        column = columns[bins[f]]
        for k in range(len(column)):
            W[k, f] = column[k]
            W_single[k, f] = column[k]


@compiled
def load_frame(frame, t, problem):
    """Fill a frame with frame t of the problem, but for what depends on ``W'm``."""
    beta, state = problem.beta, frame.state[0]
    copy(problem.X[t], frame.x)
    copy(problem.M[min(t, len(problem.M) - 1)], frame.m)
    copy(problem.background[min(t, len(problem.background) - 1)], frame.b)
    copy(problem.reachable, frame.reachable)
    if len(problem.reachable) == 0:
        for f in range(len(frame.reachable)):
            frame.reachable[f] = 0.0
        add_model(problem.support[min(t, len(problem.support) - 1)], problem.W, frame.reachable)
    state.exponent, silent, state.constant, state.size = scale_frame(frame.x, frame.m, frame.b, frame.reachable, beta)
    state.live, state.exactness = not silent, 0.0
    state.barred, state.stuck = False, False
    # Below beta = 1 curvatures span more than single precision can hold.
    state.precise = len(problem.gram) > 0 or beta < 1.0
    state.n_iter, state.n_roundings = 0, 0
    state.sums[2], state.sums[0], state.sums[1] = moments(frame.x, frame.m)
    state.sums[5], state.sums[6] = 0.0, 0.0


@compiled
def load_atoms(frame, t, problem, H):
    """Fill a frame with what it has of every atom: penalties, whether it may be used, a warm start from H."""
    beta, scale = problem.beta, 2.0 ** frame.state[0].exponent
    support = problem.support[min(t, len(problem.support) - 1)]
    l1_unit, l2_unit = scale ** (1.0 - beta), scale ** (2.0 - beta)
    for k in range(len(frame.h)):
        frame.allowed[k] = support[k] and frame.weighted[k] > 0.0
        frame.l1[k] = problem.l1[k] * l1_unit
        if len(problem.bins) > 0 and beta == 1.0:
            # An empty bin costs its model: those that were not gathered are a penalty.
            frame.l1[k] += max(problem.weighted[k] - frame.weighted[k], 0.0)
        frame.l2[k] = problem.l2[k] * l2_unit
        start = problem.warm and frame.state[0].live and frame.allowed[k]
        frame.h[k] = H[t, k] / scale if start else 0.0
    data, model = frame.state[0].sums[0], dot(frame.h, frame.weighted)
    if model > FAR_TOO_LARGE * data:
        for k in range(len(frame.h)):
            frame.h[k] *= data / model  # to nothing, if need be: see start_group


@compiled
def load_group(g, first, n, problem, H):
    """Fill a group with n frames from ``first`` on, and with their starts from H if those are warm."""
    for i in range(n):
        load_frame(frame_of(g, i), first + i, problem)
    weigh_atoms(g, n, problem)
    for i in range(n):
        load_atoms(frame_of(g, i), first + i, problem, H)


@compiled
def weigh_atoms(g, n, problem):
    """Write ``W'm`` of n frames; those with the weights that all share, and no bin without, need no product."""
    which, n_own = np.empty(n, np.int64), 0
    for i in range(n):
        own = len(problem.weighted) == 0 or len(problem.bins) > 0
        copy(problem.weighted, g.weighted[i])
        for f in range(0 if own else g.m.shape[1]):
            own |= g.m[i, f] != problem.M[0, f]
        if own:
            which[n_own] = i
            n_own += 1
    if n_own > 0:
        price_half(g, which[:n_own], problem, g.m, g.weighted)


@compiled
def price(g, which, problem, step):
    """Bring A and B of the frames ``which`` up to date, all of them in one product each, where they changed."""
    if step == 0 or problem.beta != 2.0:
        price_half(g, which, problem, g.pull, g.A)
    if problem.beta != 1.0:
        price_half(g, which, problem, g.push, g.B)
    elif step == 0:
        for i in which:
            copy(g.weighted[i], g.B[i])


@compiled
def price_half(g, which, problem, half, out):
    """Write ``W'half`` of the frames ``which``, packed so that finished frames cost nothing."""
    packed = np.empty(((len(which) + 3) // 4 * 4, half.shape[1]))
    products = np.empty((len(packed), len(problem.W)))
    for i in range(len(packed)):
        copy(half[which[min(i, len(which) - 1)]], packed[i])
    products_of_rows(packed, problem.W, problem.atoms, len(problem.W), products)
    for i in range(len(which)):
        copy(products[i], out[which[i]])


@compiled
def rounded_to_single(value, unit):
    """Return the nearest activation that single precision can hold in the user's units."""
    return np.float32(min(value * unit, LARGEST_SINGLE)) / unit


@compiled
def update_model(frame, problem):
    """Recompute the model of a frame from its activations, and the two halves of its slope."""
    copy(frame.b, frame.v)
    add_model(frame.h, problem.W, frame.v)
    slopes(frame.x, frame.v, frame.m, problem.beta, frame.pull, frame.push)


@compiled
def strongest(values, limit):
    """Return, in order, the indices of the positive values; only about the ``limit`` largest if there are more."""
    largest, n_positive = 0.0, 0
    for value in values:
        n_positive += value > 0.0
        largest = max(largest, value)
    # Next to the smallest numbers halving would never end.
    low, high = 0.0, largest if n_positive > limit and largest > 1e-300 else 0.0
    while high - low > 2.0**-12 * largest:
        middle, n_above = 0.5 * (low + high), 0
        for value in values:
            n_above += value > middle
        if n_above > limit:
            low = middle
        else:
            high = middle
    chosen, n = np.empty(min(n_positive, limit), np.int64), 0
    for k in range(len(values)):
        if values[k] > low and n < len(chosen):
            chosen[n] = k
            n += 1
    return chosen[:n]
