"""Decompose the spectrogram of a recording into the components of a dictionary."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from knownmf.activations import Activations, activations
from knownmf.audio.recordings import as_channels, check_rate, resampled, resampled_length
from knownmf.audio.spectrograms import count_frames, frame_times, spectrogram
from knownmf.dictionary import Dictionary
from knownmf.divergences import beta_of
from knownmf.learning import Loss, fit_basis, known_basis
from knownmf.memory import check_memory
from knownmf.observations import Observations
from knownmf.validation import number, whole_number

__all__ = ["REST", "SHORTER", "Decomposition", "Progress", "decompose", "decompose_spectrogram", "decomposition_memory"]

# A function that is called as progress(done, total) during the computation.
Progress = Callable[[int, int], object]

# What to do if there is too little memory, for messages.
SHORTER = "take a shorter recording, or fewer channels"

# The label of components that are learned from the recording.
REST = "rest"

# Number of passes over the recording when components are learned; docs/learning.md shows what more passes would gain.
PASSES = 100

# A resampling filter does not attenuate frequencies below this share of the Nyquist frequency.
USABLE_BAND = 0.95


@dataclass(frozen=True, eq=False, repr=False)
class Decomposition:
    """The result of :func:`decompose`. Two results are equal only if they are the same object.

    Attributes
    ----------
    found : Activations
        The activations ``found.H``, with a certificate for each frame.
    V : ndarray of shape (n_bins, n_frames)
        The spectrogram of the recording.
    dictionary : Dictionary
        The dictionary that was used: the given one, with the components that were learned from the recording, if any.
    times : ndarray of shape (n_frames,)
        Center of each frame in seconds.
    explained : float
        Between 0 and 1: the share of the energy of the recording that the model explains,
        1 - sum((A - Â)**2) / sum(A**2), where A are the magnitudes of the recording and Â those of the model, each
        ``spectrogram ** (1 / power)``. 1 for a silent recording.
    """

    found: Activations
    V: np.ndarray
    dictionary: Dictionary
    times: np.ndarray
    explained: float

    def __repr__(self) -> str:
        n_components, n_frames = self.found.H.shape
        explained = math.floor(self.explained * 1e4) / 1e4  # rounded down: only 1 is printed as 1
        return (
            f"Decomposition({n_components} components of {len(self.dictionary.names)} sounds x {n_frames} frames, "
            f"explained={explained:g}: {self.found.converged.sum()} of {n_frames} frames within tol={self.found.tol:g})"
        )


def decompose(
    y: npt.ArrayLike,
    sr: int,
    dictionary: Dictionary,
    *,
    free: int = 0,
    adapt: float = 0.0,
    beta_loss: str | float = "kullback-leibler",
    tol: float = 1e-4,
    max_iter: int = 200,
    progress: Progress | None = None,
) -> Decomposition:
    """Find how strongly each component of a dictionary sounds at each moment of a recording.

    If the recording contains sounds that are not in the dictionary, use `free` to learn more components from the
    recording; their label is "rest". If its sounds differ from those in the dictionary (another room, another
    microphone), use `adapt` to let the components of the dictionary change.

    Parameters
    ----------
    y : array_like of shape (n_samples,) or (n_channels, n_samples)
        The recording.
    sr : int
        Sample rate of the recording in Hz. If it differs from that of the dictionary, the recording is resampled. If it
        is lower, the bins above its highest frequency get a weight of 0.
    dictionary : Dictionary
        The sounds to search for.
    free : int, default=0
        Number of components to learn from the recording, for sounds that are not in the dictionary.
    adapt : float, default=0.0
        How much the components of the dictionary may change, from 0 (not at all) to below 1. At 0.5, a template has the
        same weight as the data of an average component; see Notes.
    beta_loss, tol, max_iter
        As in :func:`knownmf.activations`.
    progress : callable, optional
        Called as ``progress(done, total)``: in passes while components are learned, then in frames.

    Returns
    -------
    Decomposition
        Activations with their certificates, the spectrogram, the times, and the share that is explained.

    Raises
    ------
    ValueError
        If the recording is empty or has samples that are not finite, if `free` or `adapt` is out of its range, or if
        `free` is not 0 and the dictionary already has a sound named "rest".
    MemoryError
        If the recording needs more memory than there is.

    Notes
    -----
    Components are learned as by :class:`knownmf.NMF`. The components of the dictionary are frozen if `adapt` is 0.
    Otherwise they are tied to their templates with a strength of
    ``(1 - adapt) / adapt * sum(V ** beta) / sum(W ** beta)``, where the sums are over the entries that are not zero.

    Examples
    --------
    >>> import numpy as np
    >>> from knownmf.audio import decompose, learn
    >>> tone = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
    >>> dictionary = learn({"tone": [(tone, 8000)]})
    >>> found = decompose(0.5 * tone, 8000, dictionary)
    >>> found.explained > 0.9
    True
    """
    check_learning(dictionary, free, adapt)
    y = as_channels(y)
    check_rate(sr)
    check_memory(decomposition_memory(y.shape, sr, dictionary), "decomposing the recording", SHORTER)
    channels = resampled(y, sr, dictionary.sr)
    return decompose_spectrogram(
        spectrogram(channels, dictionary),
        sr,
        dictionary,
        free=free,
        adapt=adapt,
        beta_loss=beta_loss,
        tol=tol,
        max_iter=max_iter,
        progress=progress,
    )


def decomposition_memory(shape: tuple[int, ...], sr: int, dictionary: Dictionary) -> float:
    """Return about how many bytes :func:`decompose` and :func:`transcribe` need, in addition to the recording.

    `shape` is that of the recording, (n_channels, n_samples). The most are needed when the magnitudes are computed from
    complex spectra: four numbers for each bin of each frame and channel. Compared with measurements for 1 and 2
    channels, 6 to 704 components and other sample rates, the estimate is 3 to 16 % too large.
    """
    n_channels, n_samples = shape
    n_resampled = resampled_length(n_samples, sr, dictionary.sr)
    frames = count_frames(n_resampled, dictionary)
    numbers = 4.2 * n_channels * dictionary.n_bins * frames + 2 * dictionary.n_components * frames
    return 8 * (numbers + (n_channels * n_resampled if sr != dictionary.sr else 0))


def decompose_spectrogram(
    V: np.ndarray,
    sr: int,
    dictionary: Dictionary,
    *,
    free: int,
    adapt: float,
    beta_loss: str | float,
    tol: float,
    max_iter: int,
    progress: Progress | None,
) -> Decomposition:
    """Decompose a spectrogram that was computed with the settings of the dictionary.

    Parameters
    ----------
    V : ndarray of shape (n_bins, n_frames)
        The spectrogram.
    sr : int
        Sample rate in Hz of the recording before it was resampled.
    dictionary, free, adapt, beta_loss, tol, max_iter, progress
        As in :func:`decompose`.

    Returns
    -------
    Decomposition
        As from :func:`decompose`.
    """
    number(tol, "tol")
    whole_number(max_iter, "max_iter")  # before learning, which takes long
    if progress is not None:
        progress(0, V.shape[1])
    observed = _observed_bins(sr, dictionary)
    if free or adapt:
        dictionary = _adapted_dictionary(V, dictionary, observed, free, adapt, beta_loss, progress)
    found = activations(
        V, dictionary.W, beta_loss=beta_loss, weights=observed, tol=tol, max_iter=max_iter, progress=progress
    )
    times = frame_times(V.shape[1], dictionary)
    return Decomposition(found, V, dictionary, times, _explained(V, found.H, dictionary, observed))


def check_learning(dictionary: Dictionary, free: object, adapt: object) -> None:
    """Raise if `free` or `adapt` is out of its range, or if `free` needs the label "rest" but it is taken."""
    whole_number(free, "free", 0, "how many components to learn")
    if free and REST in dictionary.names:
        raise ValueError(f'the dictionary already has a sound named "{REST}": rename it, or pass free=0.')
    number(adapt, "adapt", 0, 1)


def _adapted_dictionary(
    V: np.ndarray,
    dictionary: Dictionary,
    observed: np.ndarray | None,
    free: int,
    adapt: float,
    beta_loss: str | float,
    progress: Progress | None,
) -> Dictionary:
    """Return the dictionary with `free` components learned from V and, if `adapt` is above 0, its own ones adapted."""
    beta = beta_of(beta_loss)
    strength = 0.0
    if adapt:
        bins = slice(None) if observed is None else observed > 0
        heights, templates = V[bins], dictionary.W[bins]
        sizes = np.sum(heights[heights > 0] ** beta), np.sum(templates[templates > 0] ** beta)
        strength = (1 - adapt) / adapt * float(sizes[0] / sizes[1])
    known = known_basis(dictionary.W.T, dictionary.n_components + free, adapt == 0, strength)
    learned = fit_basis(
        Observations(V, weights=observed),
        known,
        Loss(beta),
        random_state=0,
        tol=0.0,
        max_iter=PASSES,
        callback=None if progress is None else lambda done, _: progress(done, PASSES),
    )
    return Dictionary(learned.W.T, [*dictionary.labels, *[REST] * free], **dictionary.settings)


def _observed_bins(sr: int, dictionary: Dictionary) -> np.ndarray | None:
    """Return the weights of the bins: 0 above the highest frequency of the recording, else 1. None if all are 1.

    A recording with a lower sample rate than the dictionary has no information about these bins. With a weight of 1,
    they would count as silence, against sounds that have such frequencies.
    """
    if sr >= dictionary.sr:
        return None
    return (dictionary.frequencies < USABLE_BAND * sr / 2).astype(float)


def _explained(V: np.ndarray, H: np.ndarray, dictionary: Dictionary, observed: np.ndarray | None) -> float:
    """Return the share of the energy in the observed bins that the model explains."""
    bins = slice(None) if observed is None else observed > 0
    to_magnitude = 1 / dictionary.power
    magnitudes = V[bins] ** to_magnitude
    energy = float(np.sum(magnitudes**2))
    if energy == 0:
        return 1.0
    error = float(np.sum((magnitudes - (dictionary.W[bins] @ H) ** to_magnitude) ** 2))
    return max(0.0, 1 - error / energy)
