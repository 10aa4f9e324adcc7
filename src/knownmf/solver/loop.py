"""The loop: from a start to a proven answer, frame by frame."""

import math

import numpy as np

from knownmf.certificates import duality_gap, kkt_residual
from knownmf.kernels import add_model, compiled, copy, dot, kept_on_disk, total_divergence
from knownmf.solver.frames import (
    DENSE,
    N_WARM_UP,
    gather_atoms,
    load_group,
    price,
    rounded_to_single,
    spread_start,
    start_group,
    still_live,
    update_model,
    warm_up,
)
from knownmf.solver.newton import newton_step

NEAR = 1e-2  # the relative gap from which on a frame counts as near its optimum
N_POOR = np.int64(6)  # multiplicative updates of a warm start that is not near; typed, so that they compile once
SINGLE_START = 1e-6  # a tolerance below this asks for more digits than a start has, whatever its gap: that is flat


@compiled
def certify(g, i, problem):
    """Return the duality gap of frame i and what the tolerance bounds: that gap, relative, or the KKT residual."""
    beta, x, b, state = problem.beta, g.x[i], g.b[i], g.state[i]
    pushed, pulled = 0.0, 0.0
    if len(problem.gram) > 0:
        copy(g.offset[i], g.B[i])
        add_model(g.h[i], problem.gram, g.B[i])
        pushed = dot(g.h[i], g.offset[i])
        for f in range(len(x)):
            pushed += g.m[i, f] * b[f] * b[f]
            pulled += g.m[i, f] * b[f] * x[f]
    else:
        pushed, pulled = dot(b, g.push[i]), dot(b, g.pull[i])
    state.sums[3], state.sums[4] = pushed, pulled
    gap = duality_gap(g.h[i], g.A[i], g.B[i], g.l1[i], g.l2[i], g.allowed[i], beta, g.weighted[i], state.sums)
    return gap, relative(gap, state.size) if 1.0 <= beta <= 2.0 else kkt_of(g, i)


@compiled
def relative(gap, size):
    """Return a gap relative to the size of its frame; nothing is 0 even of nothing."""
    return gap / size if gap > 0.0 else gap


@compiled
def kkt_of(g, i):
    """Return the KKT residual of frame i."""
    return kkt_residual(g.h[i], g.A[i], g.B[i], g.l1[i], g.l2[i], g.allowed[i])


@compiled
def cost_of_other_bins(h, B, m, v):
    """Return what empty bins that were not gathered cost under least squares: the model's energy less that elsewhere.

    The difference of two energies has their rounding, which beside the frame is none.
    """
    energy = dot(h, B)
    for f in range(len(v)):
        energy -= m[f] * v[f] * v[f]
    return 0.5 * max(energy, 0.0)


@compiled
def write_frame(g, i, t, gap, kkt, converged, problem, answer):
    """Write what was found of frame i as frame t of the answer, in the user's units."""
    if len(problem.gram) > 0:
        copy(g.b[i], g.v[i])
        add_model(g.h[i], problem.W, g.v[i])
    state = g.state[i]
    scale, value = 2.0**state.exponent, state.constant
    for k in range(g.h.shape[1]):
        value += g.h[i, k] * (g.l1[i, k] + 0.5 * g.l2[i, k] * g.h[i, k])
        answer.H[t, k] = g.h[i, k] * scale
    value += total_divergence(g.x[i], g.v[i], g.m[i], problem.beta)
    if len(problem.bins) > 0 and problem.beta == 2.0:
        value += cost_of_other_bins(g.h[i], g.B[i], g.m[i], g.v[i])
    unit = scale**problem.beta
    answer.objective[t], answer.gap[t], answer.kkt[t] = value * unit, gap * unit, kkt
    answer.relative_gap[t] = relative(gap, state.size)
    answer.n_iter[t], answer.converged[t] = state.n_iter, converged


@compiled
def round_frame(g, i, problem):
    """Round the activations of frame i to what single precision can hold; return whether that changed them."""
    changed, scale = False, 2.0 ** g.state[i].exponent
    for k in range(g.h.shape[1]):
        rounded = rounded_to_single(g.h[i, k], problem.units[k] * scale)
        changed |= rounded != g.h[i, k]
        g.h[i, k] = rounded
    if changed and len(problem.gram) == 0:
        update_model(g, i, problem)
    return changed


@kept_on_disk
def solve_frames(problem, g, answer):
    """Solve all frames of a problem in groups that move in lockstep; ``g`` is the worker's own.

    What is proven, spent or stuck leaves its group; the others take a step. All steps are called from here, though
    functions of their own would be easier to read: compiled code is made anew for each level that it lies deep.

    Frames that are gathered from a sparse matrix have atoms of their own: a group is one of them.
    """
    n_frames, size = len(problem.X), len(g.state)
    may_be_poor = problem.warm and len(problem.gram) == 0 and len(problem.W) <= DENSE
    for start in range(0, n_frames, size):
        n = min(size, n_frames - start)
        if len(problem.bins) > 0:
            gather_atoms(problem.columns, problem.bins[start], problem.W, problem.W_single)
        load_group(g, start, n, problem, answer.H)
        for i in range(n):
            silent = not g.state[i].live
            if silent:
                gap = 0.0 if 1.0 <= problem.beta <= 2.0 else math.nan
                update_model(g, i, problem)
                write_frame(g, i, start + i, gap, 0.0, silent, problem, answer)
        which = still_live(g.state, n)
        start_group(g, which, problem)
        if len(problem.gram) == 0 and not problem.warm:
            warm_up(g, which, problem, 1 if len(problem.W) > DENSE else N_WARM_UP)
        step = np.int64(0)  # typed, so that price compiles once
        while len(which) > 0:
            if len(problem.gram) == 0:
                price(g, which, problem, step)
            step += 1
            poor, n_poor = np.empty(len(which), np.int64), 0
            for i in which:
                gap, promise = certify(g, i, problem)
                state = g.state[i]
                converged = promise <= problem.tol and (state.n_iter > 0 or problem.warm or problem.tol >= SINGLE_START)
                ends = converged or state.stuck or state.n_iter == problem.max_iter
                if problem.single and ends and state.n_roundings < 2 and round_frame(g, i, problem):
                    # The proof must hold for the numbers that are returned: look again.
                    state.n_roundings += 1
                elif ends or state.n_roundings == 2:
                    state.live = False
                    write_frame(g, i, start + i, gap, kkt_of(g, i), converged, problem, answer)
                elif step == 1 and promise > NEAR and may_be_poor:
                    spread_start(g, i, 1e-2, problem.beta)
                    poor[n_poor] = i
                    n_poor += 1
                else:
                    newton_step(g, i, promise <= NEAR, problem)
            if n_poor > 0:
                warm_up(g, poor[:n_poor], problem, N_POOR)
            which = still_live(g.state, n)
