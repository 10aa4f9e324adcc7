"""A recording as a sum of a dictionary's components."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from knownmf.activations import Activations, activations
from knownmf.audio.recordings import as_channels, resampled
from knownmf.audio.spectrograms import frame_times, spectrogram
from knownmf.dictionary import Dictionary

__all__ = ["Decomposition", "Progress", "decompose", "decompose_spectrogram"]

# Called as progress(done, total) while work proceeds.
Progress = Callable[[int, int], object]

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
        The basis that it was decomposed with.
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
    beta_loss: str | float = "kullback-leibler",
    tol: float = 1e-4,
    max_iter: int = 200,
    progress: Progress | None = None,
) -> Decomposition:
    """Find how strongly each component of a dictionary sounds at each moment of a recording.

    Parameters
    ----------
    y : array_like of shape (n_samples,) or (n_channels, n_samples)
        The recording.
    sr : int
        Its sample rate in Hz; where the dictionary has another, the recording is resampled to it. Bins that a recording
        of a lower rate cannot hold have no weight.
    dictionary : Dictionary
        The sounds to look for.
    beta_loss, tol, max_iter
        As in :func:`knownmf.activations`.
    progress : callable, optional
        Called as ``progress(done, total)``, in frames.

    Returns
    -------
    Decomposition
        Activations with their proof, the spectrogram, times, and the share explained.

    Raises
    ------
    ValueError
        If the recording is empty or has samples that are not finite.

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
    channels = resampled(as_channels(y), sr, dictionary.sr)
    return decompose_spectrogram(
        spectrogram(channels, dictionary),
        sr,
        dictionary,
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
    beta_loss: str | float,
    tol: float,
    max_iter: int,
    progress: Progress | None,
) -> Decomposition:
    """The same, of a spectrogram that was made with the dictionary's settings from a recording of sample rate `sr`."""
    if progress is not None:
        progress(0, V.shape[1])
    held = _held(sr, dictionary)
    found = activations(
        V, dictionary.W, beta_loss=beta_loss, weights=held, tol=tol, max_iter=max_iter, progress=progress
    )
    times = frame_times(V.shape[1], dictionary)
    return Decomposition(found, V, dictionary, times, _explained(V, found.H, dictionary, held))


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
