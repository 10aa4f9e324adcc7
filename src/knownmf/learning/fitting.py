"""The entry points of learning: a basis from all observations, and one more update of it from a block of a stream."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from knownmf.learning.alternating import alternate
from knownmf.learning.descent import Callback, Learned, descend
from knownmf.learning.known import KnownBasis
from knownmf.learning.passes import Loss, Pace, Statistics, Task, take_pass, take_statistics, update
from knownmf.learning.starts import start_of
from knownmf.observations import Observations
from knownmf.threads import single_threaded_blas

# If components start from scratch, so many passes without momentum and with safe steps come first, because faster
# passes often lead to worse local minima. Ad hoc: docs/learning.md compares 10, 20 and 30.
PLAIN_PASSES = 10

# In a stream, no positive entry that is learned falls below this, so that its powers stay far above the smallest
# numbers that a computer can represent.
SMALLEST_ENTRY = 1e-60


def fit_basis(
    observations: Observations,
    known: KnownBasis,
    loss: Loss,
    *,
    init: str | None = None,
    random_state: Any = None,
    W_init: NDArray[np.float64] | None = None,
    tol: float = 1e-4,
    max_iter: int = 200,
    callback: Callback | None = None,
) -> Learned:
    """Learn what is not known of a basis.

    Parameters
    ----------
    observations : Observations
        The data and what belongs to it; ``H_init`` is where the activations start, if it is given.
    known : KnownBasis
        What is known of the basis.
    loss : Loss
        What is minimized.
    init, random_state
        How unknown components start, as in :class:`knownmf.NMF`.
    W_init : (n_components, n_bins) float64, optional
        Where everything that is free starts, instead of ``init``.
    tol : float
        Learning stops when a pass lowers the objective by no more than this share of it. A plain pass that does so ends
        the plain passes only (see :func:`knownmf.learning.descent.descend`).
    max_iter : int
        Most passes over the data.
    callback : callable, optional
        Called as ``callback(n_passes, objective)`` after every pass.

    Returns
    -------
    Learned
        The basis and its activations, a component a row and a frame a row. Components learned from scratch sum to 1,
        unless a penalty or limits of the activations decide their scale.

    Raises
    ------
    TypeError
        If the data are a sparse matrix that comes with weights or a background.
    """
    W, H = start_of(observations, known, loss, init, random_state, W_init)
    if observations.limits:  # they decide the scale of components
        return alternate(observations, known, loss, W, H, tol=tol, max_iter=max_iter, callback=callback)
    n_plain = PLAIN_PASSES if len(W) > known.n_known else 0
    learned = descend(observations, known, loss, W, H, tol=tol, max_iter=max_iter, n_plain=n_plain, callback=callback)
    sums = free_sums(learned.W, known, loss)
    return learned._replace(W=learned.W / sums[:, np.newaxis], H=learned.H * sums)


def free_sums(W: NDArray[np.float64], known: KnownBasis, loss: Loss) -> NDArray[np.float64]:
    """Return the sums of the components whose scale is free: nothing is known of them, and there is no penalty.

    Limits of the activations, which decide the scale too, are not looked at.

    It is 1 for all others, and for components of zero.
    """
    sums = W.sum(axis=1)
    sums[: len(W) if loss.has_penalties else known.n_known] = 1.0
    return np.where(sums == 0.0, 1.0, sums)


def update_basis(
    observations: Observations,
    known: KnownBasis,
    loss: Loss,
    W: NDArray[np.float64],
    H: NDArray[np.float64],
    memory: Statistics | None,
    forgetting: float,
) -> tuple[NDArray[np.float64], Statistics]:
    """Update W once by a block of frames and what is remembered of earlier blocks; return it with the new memory.

    What is remembered is the majorizing function of each block, whose coefficients do not depend on the W at which it
    was made: ``linear w^max(0, 2-beta)`` and ``other w^-max(0, beta-1)``, summed, and multiplied by ``forgetting`` at
    every block [1]_. ``H`` are the activations of the block at W.

    .. [1] A. Lefevre, F. Bach and C. Fevotte, "Online algorithms for nonnegative matrix factorization with the
       Itakura-Saito divergence", IEEE WASPAA 2011.
    """
    task = Task(observations, known, loss, W, multiplicative=True)
    with single_threaded_blas(), np.errstate(all="ignore"):
        scaled = W / task.atoms
        activations = H * task.atoms.T / task.scales
        if observations.limits:
            new = take_statistics(task, scaled, activations)
        else:
            _, _, new = take_pass(task, scaled, activations, Pace(np.float64, False))
        w = np.maximum(W, SMALLEST_ENTRY)
        linear_unit = task.unit / task.atoms * w ** max(0.0, 2.0 - task.beta)
        other_unit = task.unit / task.atoms / w ** max(0.0, task.beta - 1.0)
        memory = Statistics(
            new.linear * linear_unit + (forgetting * memory.linear if memory else 0.0),
            new.other * other_unit + (forgetting * memory.other if memory else 0.0),
        )
        statistics = Statistics(memory.linear / linear_unit, memory.other / other_unit)
        # A component that is active in no sample of the block stays as it is: penalties alone would pull it to zero,
        # from where it would not come back.
        moves = known.free & ((H > 0.0).any(axis=0) | (known.strength > 0.0))[:, np.newaxis]
        moved = update(task, scaled, statistics, False) * task.atoms
        updated = np.where(moves, np.where(W > 0.0, np.maximum(moved, SMALLEST_ENTRY), moved), W)
        # If components are divided by their sums, activations are multiplied by them, and so are both statistics. The
        # powers of W in the memory change with W.
        if observations.limits:
            return updated, memory
        sums = free_sums(updated, known, loss)[:, np.newaxis]
        memory = Statistics(
            memory.linear * sums ** (1.0 - max(0.0, 2.0 - task.beta)),
            memory.other * sums ** (1.0 + max(0.0, task.beta - 1.0)),
        )
        return updated / sums, memory
