"""Decompose the spectrogram of a recording into the components of a dictionary."""

from __future__ import annotations

import math
import reprlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from knownmf.activations import Activations, activations, solve_with
from knownmf.audio.samples import as_channels, check_rate, resampled, resampled_length
from knownmf.audio.spectrograms import count_frames, frame_times, magnitudes, stft
from knownmf.dictionary import Dictionary
from knownmf.divergences import beta_of
from knownmf.learning import Loss, fit_basis, known_basis
from knownmf.memory import check_memory
from knownmf.observations import Observations
from knownmf.solver import Progress
from knownmf.validation import number, whole_number

__all__ = ["REST", "SHORTER", "Decomposition", "Progress", "decompose", "decompose_spectrogram", "decomposition_memory"]

# What to do if there is too little memory, for messages.
SHORTER = "take a shorter recording, or fewer channels"

# The label of components that are learned from the recording.
REST = "rest"

# Number of passes over the recording when components are learned; docs/learning.md shows what more passes would gain.
PASSES = 100

# Energies are added up over this number of frames at a time, so that temporary arrays stay small.
FRAMES_AT_A_TIME = 128

# A resampling filter does not attenuate frequencies below this share of the Nyquist frequency.
USABLE_BAND = 0.95

# The accuracy of the activations from which only the share of the dictionary is computed.
TOL_OF_SHARE = 1e-3

# A dictionary fits if it explains at least this share of the recording, beside free components at least the second one.
# docs/sounds.md has the measurements.
ENOUGH, ENOUGH_BESIDE_FREE = 0.5, 0.15


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
        The share of the energy of the recording that the model explains, 1 - sum((A - Â)**2) / sum(A**2), where A are
        the magnitudes of the recording and Â those of the model, each ``spectrogram ** (1 / power)``. It is 0 if the
        error is as large as the recording, or larger, and 1 for a silent recording. Frequencies that the recording or
        the dictionary does not have, because of its sample rate, do not count. Loud sounds count most: if a soft sound
        is missing, this share is still close to 1.
    explained_by_dictionary : float
        The part of `explained` that belongs to the dictionary as it was given, from 0 to 1. Without `free` and `adapt`
        it is equal to `explained`. With `free`, the explained energy of each bin is divided in proportion to the model,
        sum(s * (A**2 - (A - Â)**2)) / sum(A**2), where s is the share of the components of the dictionary in the model.
        With `adapt`, this is computed from other activations: those for the dictionary before it was adapted.
    n_free : int
        The number of components that were learned from the recording. They are the last ones of `dictionary`.
    adapted : bool
        Whether the other components of `dictionary` were adapted to the recording.
    """

    found: Activations
    V: np.ndarray
    dictionary: Dictionary
    times: np.ndarray
    explained: float
    explained_by_dictionary: float
    n_free: int
    adapted: bool

    @property
    def fits(self) -> bool:
        """Whether the dictionary explains enough of the recording to assume that its sounds are in the recording.

        Enough is an `explained_by_dictionary` of at least 0.5, or 0.15 if there are free components. Below, the sounds
        of the recording may be others, or they are too different. That a dictionary fits is no proof: similar sounds
        explain much of each other, and noise much of everything.
        """
        return self.explained_by_dictionary >= (ENOUGH_BESIDE_FREE if self.n_free else ENOUGH)

    def __repr__(self) -> str:
        n_components, n_frames = self.found.H.shape
        # Rounded down: only 1 is printed as 1.
        explained, own = (math.floor(share * 1e4) / 1e4 for share in (self.explained, self.explained_by_dictionary))
        notes = [f"{own:g} by the dictionary"] if self.n_free or self.adapted else []
        notes += [] if self.fits else ["fits=False"]
        return (
            f"Decomposition(explained={explained:g}{' (' + ', '.join(notes) + ')' if notes else ''}: "
            f"{n_components} components of {len(self.dictionary.names)} sounds x {n_frames} frames, "
            f"{self.found.converged.sum()} of {n_frames} frames within tol={self.found.tol:g})"
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
        Activations with their certificates, the spectrogram, the times, and the share that is explained. The
        certificates do not show whether the dictionary is the right one; `fits` of the result does, in most cases.

    Raises
    ------
    ValueError
        If the recording is empty or has samples that are not finite, if `free` or `adapt` is out of its range, or if
        `free` is not 0 and the dictionary already has a sound named "rest".
    TypeError
        If `dictionary` is not a :class:`knownmf.Dictionary`.
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
        magnitudes(stft(channels, dictionary)) ** dictionary.power,
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
    n_given, given_W = dictionary.n_components, dictionary.W
    if free or adapt:
        dictionary = _adapted_dictionary(V, dictionary, observed, free, adapt, beta_loss, progress)
    found = activations(
        V, dictionary.W, beta_loss=beta_loss, weights=observed, tol=tol, max_iter=max_iter, progress=progress
    )
    explained, by_dictionary = _explained(V, dictionary.W, found.H, n_given, dictionary.power, observed)
    if adapt:
        W = np.concatenate([given_W, dictionary.W[:, n_given:]], axis=1)
        H = solve_with(Observations(V, weights=observed), W, beta_loss, tol=TOL_OF_SHARE, max_iter=max_iter).H
        by_dictionary = _explained(V, W, H, n_given, dictionary.power, observed)[1]
    times = frame_times(V.shape[1], dictionary)
    return Decomposition(found, V, dictionary, times, explained, by_dictionary, free, bool(adapt))


def check_learning(dictionary: Dictionary, free: object, adapt: object) -> None:
    """Raise if `free` or `adapt` is out of its range, or if `free` needs the label "rest" but it is taken.

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


def _explained(
    V: np.ndarray, W: np.ndarray, H: np.ndarray, n_given: int, power: float, observed: np.ndarray | None
) -> tuple[float, float]:
    """Return the share of the energy in the observed bins that the model explains.

    The second value is the part of this share that belongs to the first `n_given` components.
    """
    bins = slice(None) if observed is None else observed > 0
    energy = remaining = own = 0.0
    for start in range(0, V.shape[1], FRAMES_AT_A_TIME):
        frames = slice(start, start + FRAMES_AT_A_TIME)
        squares = V[bins, frames] ** (2 / power)
        model = W[bins] @ H[:, frames]
        errors = (V[bins, frames] ** (1 / power) - model ** (1 / power)) ** 2
        energy += float(squares.sum())
        remaining += float(errors.sum())
        if n_given < W.shape[1]:
            given = W[bins, :n_given] @ H[:n_given, frames]
            share = np.divide(given, model, out=np.zeros_like(model), where=model > 0)
            own += float(np.sum(share * (squares - errors)))
    if energy == 0:
        return 1.0, 1.0
    explained = max(0.0, 1 - remaining / energy)
    return explained, explained if n_given == W.shape[1] else max(0.0, own / energy)
