"""One Newton step of one frame: its working set, its curvature, its quadratic program, its line search."""

import math

import numpy as np

from knownmf.kernels import (
    RIDGE,
    RIDGE_SINGLE,
    add_model,
    blend,
    compiled,
    copy,
    line_search,
    nonnegative_quadratic,
    products_of_rows,
    vectorised,
)
from knownmf.solver.frames import ADMITTED, DENSE, rounded_to_single, strongest, update_model

N_SINGLE = 8  # Newton steps with curvature in single precision; whoever needs more gets double
STRETCH = 1e12  # data over model from which on curvature no longer grows: a step would not get off the ground
PATIENCE = 9  # steps after which every third looks further again: exact curvature only doubles a model far too small
N_SWEEPS = 10  # coordinate sweeps that guess the support of a quadratic program


@compiled
def choose_atoms(frame, gradient):
    """Return the working set of a frame: what is active, and the worst of what wants to become active."""
    priority = np.zeros(len(gradient))
    n_active, largest = 0, 0.0
    for k in range(len(gradient)):
        if frame.h[k] > 0.0:
            n_active += 1
        elif frame.allowed[k] and gradient[k] < 0.0:
            priority[k] = -gradient[k] / (frame.B[k] + frame.l1[k] + 1e-300)
            largest = max(largest, priority[k])
    for k in range(len(gradient)):
        if frame.h[k] > 0.0:
            priority[k] = 2.0 * largest + 1.0
    limit = len(priority) if len(priority) <= DENSE else n_active + max(ADMITTED, n_active // 2)
    return strongest(priority, limit)


@compiled
def curvature_matrix(frame, atoms, W, beta, exactness, gram):
    """Return the second derivative of the divergence in the chosen atoms, with products in the precision of W.

    A blend, by ``exactness``, of the exact ``m v^(beta-3) [(beta-1) v + (2-beta) x]`` and its expectation
    ``m v^(beta-2)`` (Fisher), which looks further from a poor start and is never negative.
    """
    n = len(atoms)
    Q = np.empty((n, n))
    if len(gram) > 0:
        for p in range(n):
            own, row = gram[atoms[p]], Q[p]
            for q in range(n):
                row[q] = own[atoms[q]]
        return Q
    x, v = frame.x, frame.v
    curvature, largest = np.empty(len(x)), 0.0
    a, b = 1.0 - exactness * (2.0 - beta), exactness * (2.0 - beta)
    convex = 1.0 <= beta <= 2.0
    for f in range(len(x)):
        if beta == 2.0:
            curvature[f] = frame.m[f]
        elif x[f] == 0.0 and v[f] < 1e-12:
            # An empty bin with an empty model: the limit is 0 or infinite and would say nothing of a step.
            curvature[f] = frame.m[f] * (max(a, 0.0) * 1e-12 ** (beta - 2.0) + 1e-2)
        elif v[f] < x[f] / STRETCH:
            model = x[f] / STRETCH
            curvature[f] = frame.m[f] * model ** (beta - 3.0) * (a * model + b * x[f])
        else:
            curvature[f] = (a * frame.push[f] + b * frame.pull[f]) / v[f]
        if convex:
            curvature[f] = max(curvature[f], 1e-8 * frame.push[f] / max(v[f], 1e-6))
        largest = max(largest, abs(curvature[f]))
    for f in range(len(x)):
        curvature[f] /= largest
    rows = np.empty(((n + 3) // 4 * 4, len(x)), W.dtype)
    product = np.empty((len(rows), n), W.dtype)
    for p in range(len(rows)):
        row, atom = rows[p], W[atoms[min(p, n - 1)]]
        for f in range(len(x)):
            row[f] = curvature[f] * atom[f]
    products_of_rows(rows, W, atoms, np.int64(0), product)
    for p in range(n):
        for q in range(p + 1):
            Q[p, q] = Q[q, p] = product[p, q] * largest
    return Q


@vectorised
def newton_target(Q, h, gradient, l2, share, ridge):
    """Overwrite h with the minimiser of the quadratic model with curvature Q + diag(l2), over all above ``share h``.

    Returns whether it is one: False where the curvature is not positive.
    """
    n = len(h)
    positive = True
    unit, q, base = np.empty(n), np.empty(n), np.empty(n)
    for p in range(n):
        positive = positive and Q[p, p] + l2[p] > 0.0
        unit[p] = 1.0 / math.sqrt(max(Q[p, p] + l2[p], 1e-200))
        base[p] = share * h[p]
        h[p] = (h[p] - base[p]) / unit[p]
    for p in range(n):
        row, own = Q[p], unit[p]
        for j in range(n):
            row[j] *= own * unit[j]
        row[p] = 1.0
        known = 0.0
        for j in range(n):
            known += row[j] * h[j]
        q[p] = gradient[p] * own - known
    positive &= nonnegative_quadratic(Q, q, h, ridge, np.int64(N_SWEEPS))
    for p in range(n):
        h[p] = base[p] + h[p] * unit[p]
    return positive


@compiled
def give_up(state):
    """No way down was found for a frame: try once more with better curvature, else stop."""
    state.stuck = state.precise
    state.precise, state.exactness = True, 0.0


@compiled
def drop_vanishing(h):
    """Zero what is on its way to zero without ever arriving: for beta > 2 the slope vanishes with the model.

    Returns whether anything was.
    """
    dropped = False
    for k in range(len(h)):
        vanishing = 0.0 < h[k] < 1e-30
        h[k] = 0.0 if vanishing else h[k]
        dropped |= vanishing
    return dropped


@compiled
def newton_step(frame, near, problem):
    """Move a frame to the minimiser of its quadratic model, or as far that way as the objective falls.

    ``near`` says that the frame is near its optimum, where the exact curvature is the best.
    """
    beta, state = problem.beta, frame.state[0]
    gradient = np.empty(len(frame.h))
    for k in range(len(gradient)):
        gradient[k] = frame.B[k] - frame.A[k] + frame.l1[k] + frame.l2[k] * frame.h[k]
    atoms = choose_atoms(frame, gradient)
    n, n_components = len(atoms), len(gradient)
    target, slope, l2, end = np.empty(n), np.empty(n), np.empty(n), np.empty(n_components)
    convex, first = 1.0 <= beta <= 2.0, 0.0
    if convex:
        look_far = (state.n_iter == 0 and len(gradient) > DENSE) or (state.n_iter >= PATIENCE and state.n_iter % 3 == 0)
        state.exactness = 0.0 if look_far else 1.0 if near else 0.5
    # An end that single precision can hold may be proven and returned as it is; the last digits go without.
    rounding, scale = problem.single and not state.precise, 2.0**state.exponent
    for _attempt in range(2):
        for p in range(n):
            target[p], slope[p], l2[p] = frame.h[atoms[p]], gradient[atoms[p]], frame.l2[atoms[p]]
        if state.precise:
            Q = curvature_matrix(frame, atoms, problem.W, beta, state.exactness, problem.gram)
        else:
            Q = curvature_matrix(frame, atoms, problem.W_single, beta, state.exactness, problem.gram)
        share = 0.1 if state.barred else 0.0
        positive = newton_target(Q, target, slope, l2, share, RIDGE if state.precise else RIDGE_SINGLE)
        first = 0.0
        for p in range(n if rounding else 0):
            target[p] = rounded_to_single(target[p], problem.units[atoms[p]] * scale)
        for p in range(n):
            first += slope[p] * (target[p] - frame.h[atoms[p]])
        if convex or state.exactness == 0.0 or (positive and first < 0.0):
            break
        state.exactness = 0.0
    state.n_iter += 1
    if not first < 0.0:
        give_up(state)
        return
    copy(frame.h, end)
    penalty, bend = 0.0, 0.0
    for p in range(n):
        k, step = atoms[p], target[p] - frame.h[atoms[p]]
        end[k] = target[p]
        penalty += step * (frame.l1[k] + l2[p] * frame.h[k])
        bend += step * step * l2[p]
    if len(problem.gram) > 0:
        copy(end, frame.h)
        return
    model, trial = np.empty(len(frame.x)), np.empty(len(frame.x))
    copy(frame.b, model)
    add_model(end, problem.W, model)
    x, v, pull, push = frame.x, frame.v, frame.pull, frame.push
    t, barred = line_search(x, frame.m, beta, v, model, first, penalty, bend, pull, push, trial)
    blend(frame.h, end, t, frame.h)
    if beta > 2.0 and drop_vanishing(frame.h):
        update_model(frame, problem)
    # Where zeros took a bin's whole model and most of the step with it, go there by tenths.
    state.barred = barred and t < 0.5
    # Where the objective is not convex, the exact curvature is worth a try once a whole step has succeeded, and where
    # a step went nowhere the other curvature is.
    state.exactness = 1.0 if t == 1.0 else 1.0 - state.exactness if t < 0.1 else 0.0
    if t == 0.0:
        give_up(state)
    elif state.n_iter >= N_SINGLE:
        state.precise = True
