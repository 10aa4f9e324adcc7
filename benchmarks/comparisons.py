"""Time to an accuracy that is checked, side by side with what one would use instead."""

import warnings
from functools import partial

import numpy as np

import knownmf

from . import cases, peers, report
from .gaps import worst_gap
from .timing import best_of, race, threads

COLUMNS = ("peer", "its time, s", "its worst gap", "knownmf, s", "knownmf's worst gap", "times faster")

WARM_UP_FRAMES = 4
# knownmf is asked for the gap that the peer reached, but for no less than rounding lets anyone prove.
LOWEST_TOL = 1e-12
# What knownmf alone is timed to.
OWN_TOL = 1e-6

# Gaps that coordinate Newton is asked for, and the most sweeps it gets.
NEWTON_GAPS = (1e-1, 1e-2, 1e-4, 1e-6)
NEWTON_MOST_SWEEPS = 1000
# Sweeps of coordinate descent over the components.
DESCENT_SWEEPS = 60
# Frames that are made dense at a time.
DENSE_FRAMES = 256


def ours(case, tol):
    """Return knownmf's answer to a case, without a warning: missed frames are counted in the table."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return knownmf.activations(case.V, case.W, case.beta_loss, tol=tol)


def compare(case, name, peer, tol=None, n_threads=None):
    """Return a row: a peer, and knownmf to ``tol``, by default to the gap of the peer's answer."""

    def ours_after(H):
        return partial(ours, case, max(worst_gap(case, H), LOWEST_TOL) if tol is None else tol)

    with threads(n_threads):
        few = case.first_frames(WARM_UP_FRAMES)
        peer(few.V, few.W)
        ours(few, LOWEST_TOL if tol is None else tol)
        theirs, found = race(lambda: peer(case.V, case.W), ours_after)
    n_missed = int((~found.result.converged).sum())
    missed = f" ({n_missed} frames missed)" if n_missed else ""
    return (
        name,
        report.seconds(theirs.seconds),
        report.gap(worst_gap(case, theirs.result)),
        report.seconds(found.seconds),
        report.gap(worst_gap(case, found.result.H)) + missed,
        report.ratio(theirs.seconds, found.seconds),
    )


def alone(case):
    """Return a sentence about a case: its size, and how long knownmf takes alone, in units of one product W'V."""
    ours(case.first_frames(WARM_UP_FRAMES), OWN_TOL)
    unit, found = best_of(lambda: case.W.T @ case.V, partial(ours, case, OWN_TOL))
    return (
        f"{case.name}: {case.shapes}, {case.beta_loss}. knownmf to {OWN_TOL:g}: {report.seconds(found.seconds)} s, "
        f"{found.seconds / unit.seconds:.0f} times one product W'V; worst gap {worst_gap(case, found.result.H):.1e}."
    )


def against_general_peers(name, case, quick):
    """Return a section with the peers that there are for a divergence."""
    section = report.Section(name, alone(case), COLUMNS)
    for peer_name, peer in peers.peers_of(case, quick).items():
        section.rows.append(compare(case, peer_name, peer))
    return section


def newton_rows(case):
    """Yield rows beside coordinate Newton, in one thread.

    Each frame gets as many sweeps as it needs and no more; finding out how many is not timed.
    """
    sweeps, reached = peers.sweeps_needed(case.V, case.W, NEWTON_GAPS, NEWTON_MOST_SWEEPS)
    for gap, n_sweeps, is_reached in zip(NEWTON_GAPS, sweeps, reached, strict=True):
        name = f"coordinate Newton to {gap:g} ({n_sweeps.mean():.1f} sweeps), one thread"
        if not is_reached.all():
            name += f": not reached by {(~is_reached).sum()} frames in {NEWTON_MOST_SWEEPS} sweeps"
        # The warm-up has fewer frames.
        yield compare(case, name, lambda V, W, n=n_sweeps: peers.coordinate_newton(V, W, n[: V.shape[1]]), gap, 1)


def piano(quick):
    case = cases.piano(quick)
    section = against_general_peers("piano", case, quick)
    section.rows.extend(newton_rows(case))
    return section


def drums(quick):
    return against_general_peers("drums", cases.drums(quick), quick)


def exemplars(quick):
    return against_general_peers("exemplars", cases.many_exemplars(quick), quick)


def counts(quick):
    case = cases.signatures(quick)
    section = against_general_peers("counts", case, quick)
    section.rows.extend(newton_rows(case))
    return section


def frobenius(quick):
    case = cases.piano(quick, cases.FROBENIUS)
    section = against_general_peers("frobenius", case, quick)
    section.rows.append(compare(case, "grouped block pivoting, one thread", peers.block_pivoting, n_threads=1))
    return section


def mel(quick):
    """Compare where there are more atoms than bins."""
    problems = cases.mel(cases.sizes(240, 8, quick)), cases.sparse_atoms(cases.sizes(12, 2, quick))
    text = "More atoms than bins. " + describe(problems)
    section = report.Section("mel", text, COLUMNS)
    for case in problems:
        for tol in (1e-1, 1e-2, 1e-4):
            peer = partial(peers.multiplicative, tol=tol)
            section.rows.append(compare(case, f"{case.name} to {tol:g}: multiplicative updates", peer, tol))
    return section


def decay(quick):
    """Compare where neighboring atoms are almost the same."""
    problems = cases.decay_curves(cases.sizes(400, 40, quick)), cases.gaussian_peaks(cases.sizes(40, 4, quick))
    text = "Atoms that are almost collinear. " + describe(problems)
    section = report.Section("decay", text, COLUMNS)
    for case in problems:
        for tol in (1e-4, 1e-8):
            section.rows.append(compare(case, f"{case.name} to {tol:g}: SciPy nnls", peers.scipy_nnls, tol))
    return section


def sparse(quick):
    """Compare on sparse data."""
    shape = cases.sizes((3000, 20000, 50), (200, 1000, 20), quick)
    problems = [cases.sparse_counts(*shape, mean) for mean in (0.06, 1.6)]
    section = report.Section("sparse", "A CSR matrix (samples x features), transposed. " + describe(problems), COLUMNS)
    for case in problems:
        descent = partial(peers.product_and_descent, n_sweeps=DESCENT_SWEEPS)
        name = f"{case.name}: W'V and {DESCENT_SWEEPS} sweeps of descent"
        section.rows.append(compare(case, name, descent))
        section.rows.append(compare(case, f"{case.name}, to 1e-4: knownmf on dense blocks", dense_blocks, 1e-4))
    return section


def dense_blocks(V, W):
    """Solve sparse data in blocks of frames that are made dense, with knownmf to 1e-4."""
    solver = knownmf.Solver(W, cases.FROBENIUS, tol=1e-4)
    firsts = range(0, V.shape[1], DENSE_FRAMES)
    return np.concatenate([solver.solve(V[:, first : first + DENSE_FRAMES].toarray()).H for first in firsts], axis=1)


def small(quick):
    """Compare on small problems, where what a call costs counts."""
    many = cases.signatures_under_frobenius(quick)
    toy = cases.harmonic(65, 5, 10, name="toy")
    problems = [many, many.first_frames(20)._replace(name="20 counts"), many.first_frames(1)._replace(name="1 count")]
    problems += [toy, toy.under(cases.FROBENIUS)]
    section = report.Section("small", "Small problems. " + describe(problems), COLUMNS)
    for case in problems:
        if case.beta_loss == cases.FROBENIUS:
            for tol in (1e-4, 1e-8):
                section.rows.append(compare(case, f"{case.name} to {tol:g}: SciPy nnls", peers.scipy_nnls, tol))
        else:
            for tol in (1e-1, 1e-4):
                peer = partial(peers.multiplicative, tol=tol)
                section.rows.append(compare(case, f"{case.name} to {tol:g}: multiplicative updates", peer, tol))
    return section


def loose(quick):
    """Compare to tolerances at which simple methods need few iterations."""
    problems = cases.piano(quick, cases.FROBENIUS), cases.signatures_under_frobenius(quick)
    section = report.Section("loose", "Loose tolerances. " + describe(problems), COLUMNS)
    for case in problems:
        for tol in (1e-1, 1e-2):
            peer = partial(peers.accelerated_gradient, tol=tol)
            section.rows.append(compare(case, f"{case.name} to {tol:g}: accelerated projected gradient", peer, tol))
    return section


def describe(problems):
    """Return the sizes of some cases."""
    return "; ".join(f"{case.name}: {case.shapes}, {case.beta_loss}" for case in problems) + "."
