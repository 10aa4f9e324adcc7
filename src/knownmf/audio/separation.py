"""A recording taken apart into one stem per sound."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real

import numpy as np
import numpy.typing as npt

from knownmf.audio.decomposition import Decomposition, Progress, check_learning, decompose_spectrogram
from knownmf.audio.recordings import as_channels, resampled
from knownmf.audio.spectrograms import frame_times, istft, magnitudes, stft
from knownmf.dictionary import Dictionary

__all__ = ["Separation", "separate"]


@dataclass(frozen=True)
class Separation:
    """What :func:`separate` found.

    Attributes
    ----------
    stems : dict of str to ndarray of shape (n_channels, n_samples)
        One recording per sound, in the order of ``dictionary.names``; they add up to the whole.
    decomposition : Decomposition
        The activations that the stems were made from, with their proof.
    """

    stems: dict[str, np.ndarray]
    decomposition: Decomposition


def separate(
    y: npt.ArrayLike,
    sr: int,
    dictionary: Dictionary,
    *,
    mask_power: float = 1.5,
    free: int = 0,
    adapt: float = 0.0,
    beta_loss: str | float = "kullback-leibler",
    tol: float = 1e-4,
    max_iter: int = 200,
    progress: Progress | None = None,
) -> Separation:
    """Take a recording apart into one stem per sound of a dictionary.

    Each time-frequency bin of the recording is shared among the sounds in proportion to what the model says of them,

        mask_l = M_l ** mask_power / sum_j M_j ** mask_power,   M_l = (W_l H_l) ** (1 / power),

    all channels by the same masks, with the phase of the recording; bins of which the model says nothing are shared
    equally. What the spectrogram cannot hold (the band above the dictionary's highest frequency where the recording has
    a higher sample rate, and rounding) goes to the sounds in proportion to their magnitudes in the topmost octave that
    it holds, at that moment, so that the stems add up to the recording.

    Parameters
    ----------
    y : array_like of shape (n_samples,) or (n_channels, n_samples)
        The recording.
    sr : int
        Its sample rate in Hz.
    dictionary : Dictionary
        The sounds to look for.
    mask_power : float, default=1.5
        Above 0. 1 shares a bin in proportion to magnitude, 2 to power; larger values decide harder.
    free, adapt
        As in :func:`decompose`. What `free` components explain is a stem of its own, "rest".
    beta_loss, tol, max_iter
        As in :func:`knownmf.activations`.
    progress : callable, optional
        Called as ``progress(done, total)``, in passes while learning, then in frames.

    Returns
    -------
    Separation
        The stems, each with the channels, length and sample rate of the recording, and the decomposition.

    Raises
    ------
    ValueError
        If the recording is empty or has samples that are not finite, `mask_power` is not above 0, or `free` or `adapt`
        does not fit.

    Notes
    -----
    Soft masks after C. Févotte, N. Bertin and J.-L. Durrieu, "Nonnegative matrix factorization with the Itakura-Saito
    divergence", Neural Computation 21 (2009), and A. Liutkus and R. Badeau, "Generalized Wiener filtering with
    fractional power spectrograms", ICASSP 2015.
    """
    _check_mask_power(mask_power)
    check_learning(dictionary, free, adapt)
    channels = as_channels(y)
    spectra = stft(resampled(channels, sr, dictionary.sr), dictionary)
    decomposition = decompose_spectrogram(
        magnitudes(spectra) ** dictionary.power,
        sr,
        dictionary,
        free=free,
        adapt=adapt,
        beta_loss=beta_loss,
        tol=tol,
        max_iter=max_iter,
        progress=progress,
    )
    n_samples = channels.shape[1]
    n_analysed = -(-n_samples * dictionary.sr // sr)
    stems, shares = {}, {}
    for name, mask in _masks(decomposition, mask_power):
        stem = istft(spectra * mask, dictionary, n_analysed)
        stems[name] = resampled(stem, dictionary.sr, sr, n_samples)
        shares[name] = _share_on_top(mask, decomposition, sr)
    _give_back(channels - sum(stems.values()), stems, shares, sr, dictionary)
    return Separation(stems, decomposition)


def _check_mask_power(value: object) -> None:
    if not isinstance(value, Real) or not 0 < float(value) < np.inf:
        raise ValueError(f"mask_power={value!r}; a number above 0 is needed (1 shares by magnitude, 2 by power).")


def _masks(decomposition: Decomposition, mask_power: float) -> Iterator[tuple[str, np.ndarray]]:
    """The share of each bin that each sound gets, sound by sound; over all sounds, they add up to 1.

    Each sound's model is computed three times, as all of them together may not fit into memory.
    """
    dictionary, H = decomposition.dictionary, decomposition.found.H
    own = {name: dictionary.components_of(name) for name in dictionary.names}

    def model(name: str) -> np.ndarray:
        return dictionary.W[:, own[name]] @ H[own[name]]

    loudest = functools.reduce(np.maximum, map(model, own))
    unknown = loudest == 0
    loudest[unknown] = 1

    def weight(name: str) -> np.ndarray:
        # Relative to the loudest sound of the bin, no power overflows, and at least one does not vanish.
        return np.where(unknown, 1, (model(name) / loudest) ** (mask_power / dictionary.power))

    total = functools.reduce(np.add, map(weight, own))
    for name in own:
        yield name, weight(name) / total


def _share_on_top(mask: np.ndarray, decomposition: Decomposition, sr: int) -> np.ndarray:
    """What a mask lets through of the topmost octave of each frame, by magnitude; of silent frames, its mean there."""
    dictionary = decomposition.dictionary
    top_frequency = min(sr, dictionary.sr) / 2
    top = (dictionary.frequencies >= top_frequency / 2) & (dictionary.frequencies <= top_frequency)
    loudness = decomposition.V[top] ** (1 / dictionary.power)
    total = loudness.sum(axis=0)
    passed = (mask[top] * loudness).sum(axis=0)
    return np.where(total > 0, passed / np.where(total > 0, total, 1), mask[top].mean(axis=0))


def _give_back(
    rest: np.ndarray, stems: dict[str, np.ndarray], shares: dict[str, np.ndarray], sr: int, dictionary: Dictionary
) -> None:
    """Add to the stems what they lack of the recording, by shares that follow time smoothly."""
    seconds = np.arange(rest.shape[1]) / sr
    for name, share in shares.items():
        stems[name] += rest * np.interp(seconds, frame_times(len(share), dictionary), share)
