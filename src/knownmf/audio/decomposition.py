"""A recording as a sum of a dictionary's components."""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

import numpy as np
import numpy.typing as npt

from knownmf.activations import Activations, activations
from knownmf.audio.recordings import as_channels, resampled
from knownmf.audio.spectrograms import frame_times, spectrogram
from knownmf.dictionary import Dictionary
from knownmf.divergences import beta_of
from knownmf.learning import Loss, fit_basis, known_basis
from knownmf.observations import Observations
from knownmf.validation import whole_number

__all__ = ["REST", "Decomposition", "Progress", "decompose", "decompose_spectrogram"]

# Called as progress(done, total) while work proceeds.
Progress = Callable[[int, int], object]

# The label of the components that are learned from the recording itself.
REST = "rest"

# Passes over a recording in which they are learned; docs/learning.md tells what more would bring.
PASSES = 100

# Resampling filters leave this share of the lower band untouched.
USABLE_BAND = 0.95


@dataclass(frozen=True)
class Decomposition:
    """What :func:`decompose` found.

    Attributes
    ----------
    found : Activations
        The activations ``found.H`` and the proof of each frame.
    V : ndarray of shape (n_bins, n_frames)
        The recording's spectrogram.
    dictionary : Dictionary
        The basis that it was decomposed with: the one given, or what the recording made of it.
    times : ndarray of shape (n_frames,)
        Centre of each frame in seconds.
    explained : float
        Between 0 and 1: the share of the recording's energy that the model accounts for,
        1 - sum((A - Â)**2) / sum(A**2), with A the recording's magnitudes and Â the model's, each
        ``spectrogram ** (1 / power)``. 1 for silence, which leaves nothing to explain.
    """

    found: Activations
    V: np.ndarray
    dictionary: Dictionary
    times: np.ndarray
    explained: float


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

    Where the recording holds sounds that the dictionary lacks, `free` more components are learned from it, labelled
    "rest"; where its sounds differ from the dictionary's (another room, another microphone), `adapt` lets those move.

    Parameters
    ----------
    y : array_like of shape (n_samples,) or (n_channels, n_samples)
        The recording.
    sr : int
        Its sample rate in Hz; where the dictionary has another, the recording is resampled to it. Bins that a recording
        of a lower rate cannot hold have no weight.
    dictionary : Dictionary
        The sounds to look for.
    free : int, default=0
        How many components to learn from the recording for what the dictionary lacks.
    adapt : float, default=0.0
        How far the dictionary's own components may follow the recording, from 0 (not at all) to below 1. At 0.5 a
        template counts as much as the recording has to say of an average component; see Notes.
    beta_loss, tol, max_iter
        As in :func:`knownmf.activations`.
    progress : callable, optional
        Called as ``progress(done, total)``, in passes while learning, then in frames.

    Returns
    -------
    Decomposition
        Activations with their proof, the spectrogram, times, and the share explained.

    Raises
    ------
    ValueError
        If the recording is empty or has samples that are not finite, `free` or `adapt` is out of its range, or the
        dictionary has a sound named "rest" already and `free` is not 0.

    Notes
    -----
    Learning is :class:`knownmf.NMF`'s: the known components are frozen, or tied to their templates with a strength of
    ``(1 - adapt) / adapt * sum(V ** beta) / sum(W ** beta)``, the sums over what is not zero.

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
    channels = resampled(as_channels(y), sr, dictionary.sr)
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
    """The same, of a spectrogram that was made with the dictionary's settings from a recording of sample rate `sr`."""
    if progress is not None:
        progress(0, V.shape[1])
    held = _held(sr, dictionary)
    if free or adapt:
        dictionary = _completed(V, dictionary, held, free, adapt, beta_loss, progress)
    found = activations(
        V, dictionary.W, beta_loss=beta_loss, weights=held, tol=tol, max_iter=max_iter, progress=progress
    )
    times = frame_times(V.shape[1], dictionary)
    return Decomposition(found, V, dictionary, times, _explained(V, found.H, dictionary, held))


def check_learning(dictionary: Dictionary, free: object, adapt: object) -> None:
    """Raise unless a recording can add `free` components to a dictionary and move its own by `adapt`."""
    whole_number(free, "free", 0, "how many components to learn")
    if free and REST in dictionary.names:
        raise ValueError(f'the dictionary has a sound named "{REST}" already: rename it, or pass free=0.')
    if not isinstance(adapt, Real) or not 0 <= float(adapt) < 1:
        raise ValueError(f"adapt={adapt!r}; a number from 0 (keep the templates) to below 1 is needed.")


def _completed(
    V: np.ndarray,
    dictionary: Dictionary,
    held: np.ndarray | None,
    free: int,
    adapt: float,
    beta_loss: str | float,
    progress: Progress | None,
) -> Dictionary:
    """The dictionary with what a recording teaches: more components, and its own moved."""
    beta = beta_of(beta_loss)
    strength = 0.0
    if adapt:
        strength = (
            (1 - adapt) / adapt * float(np.sum(V[V > 0] ** beta) / np.sum(dictionary.W[dictionary.W > 0] ** beta))
        )
    known = known_basis(dictionary.W.T, dictionary.n_components + free, adapt == 0, strength)
    learned = fit_basis(
        Observations(V, weights=held),
        known,
        Loss(beta),
        random_state=0,
        tol=0.0,
        max_iter=PASSES,
        callback=None if progress is None else lambda done, _: progress(done, PASSES),
    )
    settings = {name: getattr(dictionary, name) for name in ("sr", "n_fft", "hop_length", "window", "power")}
    return Dictionary(learned.W.T, [*dictionary.labels, *[REST] * free], **settings)


def _held(sr: int, dictionary: Dictionary) -> np.ndarray | None:
    """Weights that leave out the bins that a recording of a lower sample rate cannot hold, or None to keep all.

    What is silent there is silent for want of samples, and must not count against sounds that have such frequencies.
    """
    if sr >= dictionary.sr:
        return None
    return (dictionary.frequencies < USABLE_BAND * sr / 2).astype(float)


def _explained(V: np.ndarray, H: np.ndarray, dictionary: Dictionary, held: np.ndarray | None) -> float:
    bins = slice(None) if held is None else held > 0
    to_magnitude = 1 / dictionary.power
    heard = V[bins] ** to_magnitude
    energy = float(np.sum(heard**2))
    if energy == 0:
        return 1.0
    missed = float(np.sum((heard - (dictionary.W[bins] @ H) ** to_magnitude) ** 2))
    return max(0.0, 1 - missed / energy)
