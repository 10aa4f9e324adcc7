"""Separate a recording into one stem per sound."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from knownmf.audio.decomposition import SHORTER, Decomposition, Progress, check_learning, decompose_spectrogram
from knownmf.audio.samples import as_channels, check_rate, resampled, resampled_length
from knownmf.audio.spectrograms import count_frames, frame_times, istft, magnitudes, stft
from knownmf.dictionary import Dictionary
from knownmf.memory import check_memory
from knownmf.validation import number
from knownmf.wording import listed

__all__ = ["Separation", "separate", "separation_memory"]

# How many names of stems the repr lists.
_NAMES_SHOWN = 6


@dataclass(frozen=True, eq=False, repr=False)
class Separation:
    """The result of :func:`separate`. Two results are equal only if they are the same object.

    Attributes
    ----------
    stems : dict of str to ndarray of shape (n_channels, n_samples)
        One recording per sound, in the order of ``decomposition.dictionary.names``. The stems add up to the recording.
    decomposition : Decomposition
        The activations from which the stems were computed, with their certificates.
    """

    stems: dict[str, np.ndarray]
    decomposition: Decomposition

    def __repr__(self) -> str:
        n_channels, n_samples = next(iter(self.stems.values())).shape
        names = [repr(name) for name in self.stems]
        return (
            f"Separation({len(names)} stems of {n_channels} channels x {n_samples} samples: "
            f"{listed(names, _NAMES_SHOWN)})"
        )


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
    """Separate a recording into one stem per sound of a dictionary.

    The spectra of the recording are multiplied by one mask per sound,

        mask_l = M_l ** mask_power / sum_j M_j ** mask_power,   M_l = (W_l H_l) ** (1 / power),

    where M_l are the magnitudes of sound l in the model. All channels have the same masks, and the phase is that of the
    recording. Bins where the model is zero are shared equally.

    A part of the recording may be missing in the spectrogram: the frequencies above the highest one of the dictionary,
    if the recording has a higher sample rate, and rounding errors. This part is distributed among the sounds in
    proportion to their magnitudes in the highest octave of the spectrogram at the same moment. Therefore the stems add
    up to the recording.

    Parameters
    ----------
    y : array_like of shape (n_samples,) or (n_channels, n_samples)
        The recording.
    sr : int
        Sample rate of the recording in Hz.
    dictionary : Dictionary
        The sounds to search for.
    mask_power : float, default=1.5
        Above 0. With 1, a bin is shared in proportion to magnitudes, with 2 in proportion to powers. With larger
        values, more of it goes to the strongest sound.
    free, adapt
        As in :func:`decompose`. The `free` components together are one more stem, "rest".
    beta_loss, tol, max_iter
        As in :func:`knownmf.activations`.
    progress : callable, optional
        Called as ``progress(done, total)``: in passes while components are learned, then in frames.

    Returns
    -------
    Separation
        The stems, which have the channels, length and sample rate of the recording, and the decomposition.

    Raises
    ------
    ValueError
        If the recording is empty or has samples that are not finite, if `mask_power`, `free` or `adapt` is out of its
        range, or if `free` is not 0 and the dictionary already has a sound named "rest".
    TypeError
        If `dictionary` is not a :class:`knownmf.Dictionary`.
    MemoryError
        If the recording needs more memory than there is.

    Notes
    -----
    The masks follow C. Févotte, N. Bertin and J.-L. Durrieu, "Nonnegative matrix factorization with the Itakura-Saito
    divergence", Neural Computation 21 (2009), and A. Liutkus and R. Badeau, "Generalized Wiener filtering with
    fractional power spectrograms", ICASSP 2015.
    """
    number(mask_power, "mask_power", closed="neither")
    check_learning(dictionary, free, adapt)
    channels = as_channels(y)
    check_rate(sr)
    check_memory(separation_memory(channels.shape, sr, dictionary, free), "separating the recording", SHORTER)
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
    n_resampled = resampled_length(n_samples, sr, dictionary.sr)
    stems, shares = {}, {}
    for name, mask in _masks(decomposition, mask_power):
        stem = istft(spectra * mask, dictionary, n_resampled)
        stems[name] = resampled(stem, dictionary.sr, sr, n_samples)
        shares[name] = _shares_of_top_octave(mask, decomposition, sr)
    _distribute(channels - sum(stems.values()), stems, shares, sr, dictionary)
    return Separation(stems, decomposition)


def separation_memory(shape: tuple[int, ...], sr: int, dictionary: Dictionary, free: int) -> float:
    """Return about how many bytes :func:`separate` needs, in addition to the recording.

    `shape` is that of the recording, (n_channels, n_samples). The memory is for the spectra of the recording and of a
    stem (complex, for each channel), six arrays with a number for each bin of each frame, and the stems. Compared with
    measurements for 1 to 4 channels, 3 to 88 sounds, several hop lengths and other sample rates, the estimate is 0 to
    19 % too large.
    """
    n_channels, n_samples = shape
    n_resampled = resampled_length(n_samples, sr, dictionary.sr)
    frames = count_frames(n_resampled, dictionary)
    n_stems = len(dictionary.names) + (free > 0)
    numbers = (4 * n_channels + 6) * dictionary.n_bins * frames + 2 * (dictionary.n_components + free) * frames
    numbers += (n_stems + 1) * n_channels * n_samples + (n_channels * n_resampled if sr != dictionary.sr else 0)
    return 8 * numbers


def _masks(decomposition: Decomposition, mask_power: float) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and the mask of each sound. In each bin, the masks of all sounds sum to 1.

    The model of each sound is computed three times, because the models of all sounds may not fit into memory.
    """
    dictionary, H = decomposition.dictionary, decomposition.found.H
    own = {name: dictionary.components_of(name) for name in dictionary.names}

    def model(name: str) -> np.ndarray:
        return dictionary.W[:, own[name]] @ H[own[name]]

    loudest = functools.reduce(np.maximum, map(model, own))
    unknown = loudest == 0
    loudest[unknown] = 1

    def weight(name: str) -> np.ndarray:
        # Division by the largest model of the bin prevents overflow, and keeps the sum of the weights at 1 or above.
        return np.where(unknown, 1, (model(name) / loudest) ** (mask_power / dictionary.power))

    total = functools.reduce(np.add, map(weight, own))
    for name in own:
        yield name, weight(name) / total


def _shares_of_top_octave(mask: np.ndarray, decomposition: Decomposition, sr: int) -> np.ndarray:
    """Return the share of the magnitude in the highest octave that a mask passes, for each frame.

    If the octave is silent in a frame, it is the mean of the mask there.
    """
    dictionary = decomposition.dictionary
    highest = min(sr, dictionary.sr) / 2
    recorded = dictionary.frequencies[dictionary.frequencies <= highest]
    # The last bin of the recording, where the octave is so narrow that it contains no bin.
    top = (dictionary.frequencies >= min(highest / 2, recorded[-1])) & (dictionary.frequencies <= highest)
    loudness = decomposition.V[top] ** (1 / dictionary.power)
    total = loudness.sum(axis=0)
    passed = (mask[top] * loudness).sum(axis=0)
    return np.where(total > 0, passed / np.where(total > 0, total, 1), mask[top].mean(axis=0))


def _distribute(
    rest: np.ndarray, stems: dict[str, np.ndarray], shares: dict[str, np.ndarray], sr: int, dictionary: Dictionary
) -> None:
    """Distribute the part of the recording that is missing in the stems.

    Writes: the arrays in `stems`. The shares of the frames are interpolated between their centers.
    """
    seconds = np.arange(rest.shape[1]) / sr
    for name, share in shares.items():
        stems[name] += rest * np.interp(seconds, frame_times(len(share), dictionary), share)
