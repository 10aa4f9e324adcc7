"""The loop: from a start to a proven answer, frame by frame."""

import math

import numpy as np

from knownmf.certificates import duality_gap, kkt_residual
from knownmf.divergences import TINY
from knownmf.kernels import add_model, compiled, copy, dot, kept_on_disk, total_divergence, vectorised
from knownmf.solver.frames import (
    DENSE,
    frame_of,
    gather_atoms,
    load_group,
    price,
    rounded_to_single,
    still_live,
    update_model,
)
from knownmf.solver.newton import newton_step
from knownmf.solver.start import N_WARM_UP, spread_start, start_group, warm_up

NEAR = 1e-2  # the relative gap, or KKT residual, from which on a frame counts as near its optimum
N_POOR = np.int64(6)  # multiplicative updates of a warm start that is not near; typed, so that they compile once
SINGLE_START = 1e-6  # a tolerance below this asks for more digits than a start has, whatever its gap: that is flat


@vectorised
def below_floor(v, pull, push):
    """Return ``sum push v`` and ``sum pull v`` over the bins whose model is below the floor that slopes give it."""
    pushed, pulled = 0.0, 0.0
    for f in range(len(v)):
        low = v[f] < TINY
        pushed += push[f] if low else 0.0
        pulled += pull[f] if low else 0.0
    return TINY * pushed, TINY * pulled


@compiled
def certify(frame, problem):
    """Return the duality gap of a frame and what the tolerance bounds: that gap, relative, or the KKT residual."""
    beta, x, b, state = problem.beta, frame.x, frame.b, frame.state[0]
    pushed, pulled = 0.0, 0.0
    if len(problem.gram) > 0:
        copy(frame.offset, frame.B)
        add_model(frame.h, problem.gram, frame.B)
        pushed = dot(frame.h, frame.offset)
        for f in range(len(x)):
            pushed += frame.m[f] * b[f] * b[f]
            pulled += frame.m[f] * b[f] * x[f]
    else:
        pushed, pulled = dot(b, frame.push), dot(b, frame.pull)
        if 1.0 <= beta < 2.0:
            state.sums[5], state.sums[6] = below_floor(frame.v, frame.pull, frame.push)
    state.sums[3], state.sums[4] = pushed, pulled
    gap = duality_gap(frame.h, frame.A, frame.B, frame.l1, frame.l2, frame.allowed, beta, frame.weighted, state.sums)
    return gap, relative(gap, state.size) if 1.0 <= beta <= 2.0 else kkt_of(frame)


@compiled
def relative(gap, size):
    """Return a gap relative to the size of its frame; nothing is 0 even of nothing."""
    return gap / size if gap > 0.0 else gap


@compiled
def kkt_of(frame):
    """Return the KKT residual of a frame."""
    return kkt_residual(frame.h, frame.A, frame.B, frame.l1, frame.l2, frame.allowed)


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
def write_frame(frame, t, gap, kkt, converged, problem, answer):
    """Write what was found of a frame as frame t of the answer, in the user's units."""
    if len(problem.gram) > 0:
        copy(frame.b, frame.v)
        add_model(frame.h, problem.W, frame.v)
    state = frame.state[0]
    scale, value = 2.0**state.exponent, state.constant
    for k in range(len(frame.h)):
        value += frame.h[k] * (frame.l1[k] + 0.5 * frame.l2[k] * frame.h[k])
        answer.H[t, k] = frame.h[k] * scale
    value += total_divergence(frame.x, frame.v, frame.m, problem.beta)
    if len(problem.bins) > 0 and problem.beta == 2.0:
        value += cost_of_other_bins(frame.h, frame.B, frame.m, frame.v)
    unit = scale**problem.beta
    answer.objective[t], answer.gap[t], answer.kkt[t] = value * unit, gap * unit, kkt
    answer.relative_gap[t] = relative(gap, state.size)
    answer.n_iter[t], answer.converged[t] = state.n_iter, converged


@compiled
def round_frame(frame, problem):
    """Round the activations of a frame to what single precision can hold; return whether that changed them."""
    changed, scale = False, 2.0 ** frame.state[0].exponent
    for k in range(len(frame.h)):
        rounded = rounded_to_single(frame.h[k], problem.units[k] * scale)
        changed |= rounded != frame.h[k]
        frame.h[k] = rounded
    return changed


@kept_on_disk
def solve_frames(problem, g, answer):
    """Solve all frames of a problem in groups that move in lockstep; ``g`` is the worker's own.

    What is proven, spent or stuck leaves its group; the others take a step. All steps are called from here, though
    functions of their own would be easier to read: compiled code is made anew for each level that it lies deep.

    Frames that are gathered from a sparse matrix have atoms of their own: a group is one of them.
    """
    n_frames, size = len(problem.X), 1 if len(problem.bins) > 0 else len(g.state)
    # Updates may raise the objective for a while: they are for where any start leads to the same optimum.
    convex = 1.0 <= problem.beta <= 2.0
    may_be_poor = problem.warm and convex and len(problem.gram) == 0 and len(problem.W) <= DENSE
    for start in range(0, n_frames, size):
        n = min(size, n_frames - start)
        if len(problem.bins) > 0:
            gather_atoms(problem.columns, problem.bins[start], problem.W, problem.W_single)
        load_group(g, start, n, problem, answer.H)
        for i in range(n):
            silent = not g.state[i].live  # also what write_frame is told of it: a literal would compile that twice
            if silent:
                frame = frame_of(g, i)
                gap = 0.0 if convex else math.nan
                update_model(frame, problem)
                write_frame(frame, start + i, gap, 0.0, silent, problem, answer)
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
                frame = frame_of(g, i)
                state = frame.state[0]
                gap, promise = certify(frame, problem)
                converged = promise <= problem.tol and (state.n_iter > 0 or problem.warm or problem.tol >= SINGLE_START)
                ends = converged or state.stuck or state.n_iter == problem.max_iter
                if problem.single and ends and state.n_roundings < 2 and round_frame(frame, problem):
                    # The proof must hold for the numbers that are returned: look again.
                    state.n_roundings += 1
                    if len(problem.gram) == 0:
                        update_model(frame, problem)
                elif ends or state.n_roundings == 2:
                    state.live = False
                    write_frame(frame, start + i, gap, kkt_of(frame), converged, problem, answer)
                elif step == 1 and promise > NEAR and may_be_poor:
                    # A start that is far off, and zero where it should not be, misleads the quadratic model.
                    spread_start(frame, 1e-2, problem.beta)
                    poor[n_poor] = i
                    n_poor += 1
                else:
                    newton_step(frame, promise <= NEAR, problem)
            if n_poor > 0:
                warm_up(g, poor[:n_poor], problem, N_POOR)
            which = still_live(g.state, n)
