"""A basis made ready once, and chunks of the user's frames solved with it: where arrays meet compiled code."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from knownmf.solver.frames import Answer, Group, Problem, new_group
from knownmf.solver.loop import solve_frames
from knownmf.validation import check_range

REMEMBERED_BYTES = 2**24  # of a basis in double precision that is kept from one call to the next
GRAM_LIMIT = 2048  # components up to which least squares keeps their Gram matrix, 32 MB

_last: tuple[tuple[NDArray, ...], Any] = (), None


def prepared(*given: Any) -> Problem:
    """Return what :func:`prepare` makes of its arguments, W checked; of the last ones again without making it anew.

    A stream asks a frame at a time with the same basis, and to prepare that costs more than to solve the frame.
    """
    global _last
    before = _last  # read once: another thread may put another there at any time
    if len(before[0]) == len(given) and all(map(np.array_equal, before[0], given)):
        return before[1]
    check_range(given[0], "W")
    problem = prepare(*given)
    if problem.W.nbytes <= REMEMBERED_BYTES:
        _last = tuple(np.copy(values) for values in given), problem
    return problem


def prepare(
    W: NDArray, beta: float, l1: NDArray, l2: NDArray, weights: NDArray | None, support: NDArray | None
) -> Problem:
    """Return the part of the problem that all frames share, ``weights`` and ``support`` (n_...,) among it if they do.

    Atoms are scaled by powers of two, which keep the user's numbers: scaling there and back loses no bit.
    """
    scaled = np.array(W.T, dtype=np.float64, order="C")
    sums = scaled.sum(axis=1)
    exponents = np.floor(np.log2(sums, out=np.zeros(len(sums)), where=sums > 0.0))
    scaled *= 2.0 ** -exponents[:, np.newaxis]
    nothing = np.empty((0, 0))
    weighted = np.empty(0) if weights is None else scaled @ np.asarray(weights, dtype=np.float64)
    gram = nothing
    if weights is not None and beta == 2.0 and len(scaled) <= GRAM_LIMIT:
        gram = (scaled * weights) @ scaled.T
    return Problem(
        X=nothing,
        M=nothing,
        background=nothing,
        support=nothing,
        W=scaled,
        W_single=scaled.astype(np.float32),
        atoms=np.arange(len(scaled)),
        units=2.0**-exponents,
        weighted=weighted,
        reachable=np.empty(0) if support is None else scaled[support > 0].sum(axis=0),
        bins=np.empty((0, 0), np.int64),
        columns=nothing,
        gram=gram,
        l1=l1 * 2.0**-exponents,
        l2=l2 * 4.0**-exponents,
        beta=beta,
        tol=0.0,
        max_iter=0,
        warm=False,
        single=False,
    )


def new_answer(n_frames: int, n_components: int) -> Answer:
    """Return room for the answer of a chunk."""
    return Answer(
        H=np.empty((n_frames, n_components)),
        gap=np.empty(n_frames),
        relative_gap=np.empty(n_frames),
        kkt=np.empty(n_frames),
        objective=np.empty(n_frames),
        n_iter=np.zeros(n_frames, np.int64),
        converged=np.zeros(n_frames, np.bool_),
    )


def buffers_of(buffers: dict[int, Group], size: int, n_bins: int, n_components: int) -> Group:
    """Return a thread's buffers for ``size`` frames of so many bins, made when they are first asked for."""
    if n_bins not in buffers:
        buffers[n_bins] = new_group(size, n_bins, n_components)
    return buffers[n_bins]


def solve(problem: Problem, buffers: Group, answer: Answer) -> None:
    """Solve a chunk of frames. Where all share one Gram matrix, frames with missing bins go without it."""
    n_frames = len(problem.X)
    incomplete = np.isnan(problem.X).any(axis=1) if len(problem.gram) else np.zeros(n_frames, np.bool_)
    if not incomplete.any():
        solve_frames(problem, buffers, answer)
        return
    for some, gram in ((incomplete, np.empty((0, 0))), (~incomplete, problem.gram)):
        rows = {name: getattr(problem, name) for name in ("X", "M", "background")}
        rows = {name: values[some] if len(values) == n_frames else values for name, values in rows.items()}
        solve_some(problem._replace(gram=gram, **rows), some, buffers, answer)


def solve_entries(problem: Problem, V: Any, buffers: dict[int, Group], answer: Answer) -> None:
    """Solve the frames of a CSC matrix, each over the bins where it is not zero and with the atoms gathered there.

    The certificate holds for the whole frame: under Kullback-Leibler an empty bin costs its model, so that all of them
    are an L1 penalty; under Frobenius the Gram matrix knows them. Frames with about as many entries go together,
    filled up to a power of two with bins that count nothing.
    """
    counts = np.diff(V.indptr)
    widths = 2 ** np.ceil(np.log2(np.maximum(counts, 4))).astype(np.int64)
    for width in np.unique(widths):
        some = np.flatnonzero(widths == width)
        frames, filled = V[:, some], np.arange(width) < counts[some, np.newaxis]
        X, M, bins = np.zeros(filled.shape), np.zeros(filled.shape), np.zeros(filled.shape, np.int64)
        X[filled], M[filled], bins[filled] = frames.data, problem.M[0, frames.indices], frames.indices
        n_components = len(problem.atoms)
        part = problem._replace(
            X=X,
            M=M,
            background=np.zeros((1, width)),
            reachable=np.empty(0),
            bins=bins,
            W=np.empty((n_components, width)),
            W_single=np.empty((n_components, width), np.float32),
        )
        solve_some(part, some, buffers_of(buffers, 1, width, n_components), answer)


def solve_some(problem: Problem, some: NDArray, buffers: Group, answer: Answer) -> None:
    """Solve a part of the frames of a chunk; the problem has the data of those alone."""
    part = Answer(*(values[some] for values in answer))
    support = problem.support[some] if len(problem.support) == len(answer.H) else problem.support
    solve_frames(problem._replace(support=support), buffers, part)
    for values, found in zip(answer, part, strict=True):
        values[some] = found
