"""Learn components from a recording, and adapt those of a dictionary to it, from blocks of its frames."""

from __future__ import annotations

import contextlib
import reprlib
from collections.abc import Callable, Generator, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from knownmf.activations import solve_with
from knownmf.audio.spectrograms import FrameBlock
from knownmf.dictionary import Dictionary
from knownmf.learning import KnownBasis, Loss, Statistics, fit_basis, known_basis, update_basis
from knownmf.observations import Observations
from knownmf.solver import Progress
from knownmf.validation import number, whole_number

__all__ = ["REST", "TOL_OF_SHARE", "adapted", "check_learning"]

# The label of components that are learned from the recording.
REST = "rest"

# Number of passes over the recording when components are learned; docs/learning.md shows what more passes would gain.
PASSES = 100

# Components are learned from a spectrogram of at most this number of bytes. Of longer recordings, it has every n-th
# frame; then all frames, so many at a time, update the components once.
LEARNING_BYTES = 2**26
FRAMES_OF_UPDATE = 1024

# The accuracy of activations from which only components, or the share of the dictionary, are computed.
TOL_OF_SHARE = 1e-3


def check_learning(dictionary: Dictionary | None, free: object, adapt: object) -> Dictionary:
    """Return the dictionary. Raise if `free` or `adapt` is out of its range, or `free` needs the label "rest" twice.

    Also raise if the dictionary is not one, such as the name of a file, or a sample rate in its place.
    """
    if not isinstance(dictionary, Dictionary):
        raise TypeError(
            f"dictionary is {reprlib.repr(dictionary)}, expected a knownmf.Dictionary: the arguments are y, sr and "
            "dictionary, and Dictionary.load reads a file."
        )
    if not dictionary.settings:
        raise ValueError(
            "the dictionary has no settings of spectrograms (sr, n_fft, hop_length, window, power), which recordings "
            "need: make it with knownmf.audio.learn, or pass its sr to Dictionary."
        )
    whole_number(free, "free", 0, "how many components to learn")
    if free and REST in dictionary.names:
        raise ValueError(
            f'the dictionary already has a sound named "{REST}", the label of free components: pass free=0, or a '
            "dictionary with another label."
        )
    number(adapt, "adapt", 0, 1)
    return dictionary


def adapted(
    take_pass: Callable[[], Generator[FrameBlock, None, None]],
    dictionary: Dictionary,
    observed: NDArray | None,
    beta: float,
    free: int,
    adapt: float,
    progress: Progress,
) -> Dictionary:
    """Return a dictionary with components learned from a recording and, if `adapt` is above 0, its own ones adapted.

    Parameters
    ----------
    take_pass : callable
        Yields all frames of the recording in blocks, each time that it is called.
    dictionary : Dictionary
        The dictionary.
    observed : ndarray of shape (n_bins,) or None
        The weights of the bins: those of weight 0 do not count.
    beta : float
        The beta-divergence.
    free, adapt
        As in :func:`knownmf.audio.decompose`.
    progress : callable
        Called as ``progress(done, total)`` in passes over a part of the frames.
    """
    bins = slice(None) if observed is None else observed > 0
    with contextlib.closing(take_pass()) as blocks:
        some, size = _some_and_size(blocks, bins, dictionary.n_bins, beta)

    def known(size: float) -> KnownBasis:
        strength = (1 - adapt) / adapt * size / _size(dictionary.W[bins], beta) if adapt else 0.0
        return known_basis(dictionary.W.T, dictionary.n_components + free, adapt == 0, strength)

    V = some.frames()
    W = fit_basis(
        Observations(V, weights=observed),
        known(_size(V[bins], beta)),
        Loss(beta),
        random_state=0,
        tol=0.0,
        max_iter=PASSES,
        callback=lambda done, _: progress(done, PASSES),
    ).W
    del V
    if some.step > 1:
        with contextlib.closing(take_pass()) as blocks:
            W = _updated(W, known(size), beta, _regrouped(blocks, FRAMES_OF_UPDATE), some.n_seen)
    return Dictionary(W.T, [*dictionary.labels, *[REST] * free], **dictionary.settings)


def _some_and_size(
    blocks: Iterable[Observations], bins: slice | NDArray[np.bool_], n_bins: int, beta: float
) -> tuple[_EvenlySpaced, float]:
    """Return every n-th frame, as many as learning takes at once, and the size of the observed bins of all frames."""
    some, size = _EvenlySpaced(max(1, LEARNING_BYTES // (8 * n_bins))), 0.0
    for block in blocks:
        some.add(block.V)
        size += _size(block.V[bins], beta)
    return some, size


def _updated(
    W: NDArray[np.float64], known: KnownBasis, beta: float, blocks: Iterable[Observations], n_frames: int
) -> NDArray[np.float64]:
    """Return components, one in each row, after an update by each block of so many frames."""
    memory: Statistics | None = None
    n_seen = 0
    for block in blocks:
        n_seen += block.n_frames
        # What is remembered is that of the frames so far: the ties to the templates grow with it.
        tied = known._replace(strength=known.strength * (n_seen / n_frames))
        H = solve_with(block, W.T, beta, tol=TOL_OF_SHARE).H.T.astype(np.float64)
        W, memory = update_basis(block, tied, Loss(beta), W, H, memory, 1.0)
    return W


def _regrouped(blocks: Iterable[Observations], n_frames: int) -> Iterator[Observations]:
    """Yield the same frames, with the weights that they share, in blocks of so many; the last block may have fewer."""
    pending: list[np.ndarray] = []
    for block in blocks:
        pending.append(block.V)
        while sum(part.shape[1] for part in pending) >= n_frames:
            whole = np.concatenate(pending, axis=1)
            yield Observations(whole[:, :n_frames], weights=block.weights)
            pending = [whole[:, n_frames:]]
    if any(part.shape[1] for part in pending):
        yield Observations(np.concatenate(pending, axis=1), weights=block.weights)


class _EvenlySpaced:
    """Every n-th frame of frames that come in blocks, where n is the smallest power of two that leaves few enough.

    Parameters
    ----------
    most : int
        The largest number of frames to keep.
    """

    def __init__(self, most: int):
        self._most, self.n_seen, self._kept = most, 0, [np.zeros((0, 0))]
        self._n_kept, self.step = 0, 1

    def add(self, V: np.ndarray) -> None:
        """Add a block of frames, of shape (n_bins, n_frames)."""
        new = V[:, -self.n_seen % self.step :: self.step]
        self.n_seen += V.shape[1]
        self._kept.append(new if self.step == 1 else new.copy())
        self._n_kept += new.shape[1]
        while self._n_kept > self._most:
            self._kept = [self.frames()[:, ::2].copy()]
            self._n_kept, self.step = self._kept[0].shape[1], 2 * self.step

    def frames(self) -> np.ndarray:
        """Return the frames, of shape (n_bins, n_frames)."""
        return np.concatenate([part for part in self._kept if part.shape[1]] or self._kept[-1:], axis=1)


def _size(values: np.ndarray, beta: float) -> float:
    """Return the sum of the values to the power of beta, where they are not 0."""
    return float(np.sum(values[values > 0] ** beta))
