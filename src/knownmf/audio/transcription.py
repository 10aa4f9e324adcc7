"""Transcribe a recording into a list of events, each with a label, an onset, an offset and a strength."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter1d

from knownmf.audio.decomposition import Decomposition, Progress, decompose
from knownmf.audio.samples import as_channels
from knownmf.dictionary import Dictionary
from knownmf.validation import number

__all__ = ["Event", "Transcription", "loudness_of_sounds", "transcribe"]

# docs/sounds.md describes the measurements behind these values.
ONSET_LEVEL = 0.3  # the onset is where the loudness crosses this share of the rise ...
ONSET_LEAD = 0.2  # ... plus this many windows, because a window contains a sound before its center reaches the onset
OFFSET_LEVEL = 0.1  # the offset is where the loudness falls below this share of the peak (20 dB)


@dataclass(frozen=True)
class Event:
    """A hit or a note.

    Attributes
    ----------
    onset_s, offset_s : float
        Time of its begin and end, in seconds from the start of the recording. An event ends when its loudness is 20 dB
        below its peak, when the same sound begins again, or at the end of the recording.
    label : str
        The sound.
    strength : float
        Above 0, at most 1: the rise of the loudness, relative to the largest rise of all events.
    """

    onset_s: float
    offset_s: float
    label: str
    strength: float


@dataclass(frozen=True, eq=False, repr=False)
class Transcription:
    """The result of :func:`transcribe`. Two results are equal only if they are the same object.

    Attributes
    ----------
    events : list of Event
        In the order of their onsets.
    decomposition : Decomposition
        The activations from which the events were derived, with their certificates.
    """

    events: list[Event]
    decomposition: Decomposition

    def __repr__(self) -> str:
        n_sounds = len(self.decomposition.dictionary.names)
        n_found = len({event.label for event in self.events})
        return f"Transcription({len(self.events)} events of {n_found} of {n_sounds} sounds)"


@dataclass(frozen=True, eq=False)
class _Attacks:
    """The attacks in a recording: arrays with one entry per attack."""

    sound: np.ndarray  # index of the sound
    frame: np.ndarray  # frame of the steepest slope
    base: np.ndarray  # frame of the lowest loudness, at most a window before
    peak: np.ndarray  # frame of the highest loudness, at most a window after
    rise: np.ndarray  # loudness at the peak minus loudness at the base
    share: np.ndarray  # share of the rise in the rises of similar sounds at the same time


def transcribe(
    y: npt.ArrayLike,
    sr: int,
    dictionary: Dictionary,
    *,
    threshold: float = 0.03,
    threshold_own: float = 0.12,
    threshold_share: float = 0.2,
    min_gap_s: float = 0.08,
    beta_loss: str | float = "kullback-leibler",
    tol: float = 1e-4,
    max_iter: int = 200,
    progress: Progress | None = None,
) -> Transcription:
    """List the hits or notes of a recording.

    The loudness of a sound is the total magnitude that its components add to a frame. An attack is a local maximum of
    its slope. The rise of an attack is the highest loudness within a window after it minus the lowest loudness within a
    window before it. An attack is an event if three numbers reach their thresholds:

    - `threshold`: its rise, relative to the largest rise in the recording;
    - `threshold_share`: its share, which is its rise relative to the rises of all similar sounds at the same time. Each
      is weighted by its similarity, the largest cosine between components of the two sounds;
    - `threshold_own`: its rise relative to the largest rise of the same sound, times the square root of its share. A
      soft hit therefore counts more easily if no similar sound begins at the same time.

    The onset is the time at which the loudness crosses 30 % of the rise, plus a fifth of a window, because a window
    contains a sound before its center reaches the onset.

    Parameters
    ----------
    y : array_like of shape (n_samples,) or (n_channels, n_samples)
        The recording.
    sr : int
        Sample rate of the recording in Hz.
    dictionary : Dictionary
        The sounds to search for.
    threshold : float, default=0.03
        Smallest rise, relative to the largest rise in the recording. From 0 to 1.
    threshold_own : float, default=0.12
        Smallest rise relative to the largest rise of the same sound, times the square root of the share. From 0 to 1.
    threshold_share : float, default=0.2
        Smallest share in the rises of all similar sounds at the same time, including its own. From 0 to 1.
    min_gap_s : float, default=0.08
        Smallest time in seconds between attacks of the same sound. If attacks are closer, only the strongest counts.
    beta_loss, tol, max_iter
        As in :func:`knownmf.activations`.
    progress : callable, optional
        Called as ``progress(done, total)`` in frames.

    Returns
    -------
    Transcription
        The events, and the decomposition from which they were derived.

    Raises
    ------
    ValueError
        If the recording is empty or has samples that are not finite, if a threshold is not between 0 and 1, or if
        `min_gap_s` is negative.
    TypeError
        If `dictionary` is not a :class:`knownmf.Dictionary`.

    Examples
    --------
    >>> import numpy as np
    >>> from knownmf.audio import learn, transcribe
    >>> rng = np.random.default_rng(0)
    >>> click = rng.normal(size=2000) * np.exp(-np.arange(2000) / 300)
    >>> recording = np.zeros(16000)
    >>> recording[4000:6000] += click
    >>> recording[12000:14000] += click / 2
    >>> result = transcribe(recording, 8000, learn({"click": [(click, 8000)]}))
    >>> [(event.label, round(event.onset_s, 1), round(event.strength, 1)) for event in result.events]
    [('click', 0.5, 1.0), ('click', 1.5, 0.5)]
    """
    for name, value in (
        ("threshold", threshold),
        ("threshold_own", threshold_own),
        ("threshold_share", threshold_share),
    ):
        number(value, name, 0, 1, "both")
    number(min_gap_s, "min_gap_s", meaning="a time in seconds")
    y = as_channels(y)
    decomposition = decompose(y, sr, dictionary, beta_loss=beta_loss, tol=tol, max_iter=max_iter, progress=progress)
    E = loudness_of_sounds(decomposition)
    attacks = _attacks(E, _similarity(dictionary), -(-dictionary.n_fft // dictionary.hop_length))
    kept = _above_thresholds(attacks, threshold, threshold_own, threshold_share)
    kept = _separated(kept, attacks, min_gap_s * dictionary.sr / dictionary.hop_length)
    return Transcription(_events(E, attacks, kept, dictionary, y.shape[1] / sr), decomposition)


def loudness_of_sounds(decomposition: Decomposition) -> np.ndarray:
    """Return the total magnitude that each sound adds to each frame, shape (n_sounds, n_frames)."""
    dictionary, H = decomposition.dictionary, decomposition.found.H
    E = np.empty((len(dictionary.names), H.shape[1]))
    for row, name in zip(E, dictionary.names, strict=True):
        own = dictionary.components_of(name)
        row[:] = ((dictionary.W[:, own] @ H[own]) ** (1 / dictionary.power)).sum(axis=0)
    return E


def _similarity(dictionary: Dictionary) -> np.ndarray:
    """Return the largest cosine between components of each pair of sounds, shape (n_sounds, n_sounds).

    The diagonal is 1.
    """
    norms = np.linalg.norm(dictionary.W, axis=0)
    directions = dictionary.W / np.where(norms > 0, norms, 1)
    cosines = directions.T @ directions
    own = [dictionary.components_of(name) for name in dictionary.names]
    similarity = np.array([[cosines[np.ix_(one, other)].max() for other in own] for one in own])
    np.fill_diagonal(similarity, 1)
    return similarity


def _attacks(E: np.ndarray, similarity: np.ndarray, width: int) -> _Attacks:
    """Find all attacks in the loudness E of the sounds, shape (n_sounds, n_frames).

    `width` is the length of the window in frames. The loudness before and after the recording counts as 0.
    """
    padded = np.pad(E, ((0, 0), (width, width)))
    frames = np.arange(E.shape[1])
    before = np.lib.stride_tricks.sliding_window_view(padded, width + 1, axis=1)[:, : len(frames)]
    after = np.lib.stride_tricks.sliding_window_view(padded[:, width:], width, axis=1)[:, : len(frames)]
    lowest, highest = before.min(axis=2), after.max(axis=2)
    rise = np.maximum(highest - lowest, 0)
    slope = padded[:, width + 1 : width + 1 + len(frames)] - padded[:, width - 1 : width - 1 + len(frames)]
    steepest = (slope > 0) & (slope >= maximum_filter1d(slope, width + 1, axis=1)) & (rise > 0)
    # Ignore the frames that overlap the end: if the recording is cut off there, they contain a click, and too little of
    # a sound that begins there to recognize it.
    steepest[:, max(1, len(frames) - width // 2) :] = False
    sound, frame = np.nonzero(steepest)
    base = frame - width + before[sound, frame].argmin(axis=1)
    peak = frame + after[sound, frame].argmax(axis=1)
    share = rise[sound, frame] / (similarity @ rise)[sound, frame]
    return _Attacks(sound, frame, base, peak, rise[sound, frame], share)


def _above_thresholds(attacks: _Attacks, threshold: float, threshold_own: float, threshold_share: float) -> np.ndarray:
    """Return the indices of the attacks that reach all three thresholds."""
    if not len(attacks.rise):
        return np.arange(0)
    largest_own = np.zeros(attacks.sound.max() + 1)
    np.maximum.at(largest_own, attacks.sound, attacks.rise)
    return np.flatnonzero(
        (attacks.rise >= threshold * attacks.rise.max())
        & (attacks.rise * np.sqrt(attacks.share) >= threshold_own * largest_own[attacks.sound])
        & (attacks.share >= threshold_share)
    )


def _separated(candidates: np.ndarray, attacks: _Attacks, min_gap: float) -> np.ndarray:
    """Remove candidates that are closer than `min_gap` frames to a stronger one of the same sound."""
    kept: dict[int, list[int]] = {}
    for candidate in candidates[np.argsort(-attacks.rise[candidates], kind="stable")]:
        of_sound = kept.setdefault(int(attacks.sound[candidate]), [])
        if all(abs(attacks.frame[candidate] - attacks.frame[other]) >= min_gap for other in of_sound):
            of_sound.append(int(candidate))
    return np.array(sorted(candidate for of_sound in kept.values() for candidate in of_sound), dtype=int)


def _events(
    E: np.ndarray, attacks: _Attacks, kept: np.ndarray, dictionary: Dictionary, duration_s: float
) -> list[Event]:
    """Return the events of the attacks with the indices `kept`, in the order of their onsets."""
    if not len(kept):
        return []
    hop_s, window_s = dictionary.hop_length / dictionary.sr, dictionary.n_fft / dictionary.sr
    strongest = attacks.rise[kept].max()
    events = []
    for here, following in zip(kept, [*kept[1:], None], strict=True):
        sound = attacks.sound[here]
        loudness = E[sound]
        attack_s = _crossing(loudness, attacks.base[here], attacks.peak[here]) * hop_s + ONSET_LEAD * window_s
        onset_s = min(max(0.0, attack_s), duration_s)
        # Attacks are sorted by sound, then by frame: if the next one is of the same sound, this event ends there.
        again = following is not None and attacks.sound[following] == sound
        limit_s = min(attacks.frame[following] * hop_s, duration_s) if again else duration_s
        offset_s = _end_of_decay(loudness, attacks.peak[here]) * hop_s
        events.append(
            Event(
                onset_s=float(onset_s),
                offset_s=float(max(onset_s, min(offset_s, limit_s))),
                label=dictionary.names[sound],
                strength=float(attacks.rise[here] / strongest),
            )
        )
    return sorted(events, key=lambda event: (event.onset_s, event.label))


def _crossing(loudness: np.ndarray, base: int, peak: int) -> float:
    """Return the time in frames, interpolated, at which an attack first crosses `ONSET_LEVEL` of its rise."""
    ascent = np.concatenate([[0.0] if base < 0 else [], loudness[max(base, 0) : peak + 1]])
    level = ascent[0] + ONSET_LEVEL * (ascent[-1] - ascent[0])
    above = int(np.argmax(ascent >= level))
    if above == 0:
        return float(base)
    return max(base, -1) + above - (ascent[above] - level) / (ascent[above] - ascent[above - 1])


def _end_of_decay(loudness: np.ndarray, peak: int) -> int:
    """Return the first frame after the peak below `OFFSET_LEVEL` of the peak, or the number of frames."""
    below = loudness[peak:] < OFFSET_LEVEL * loudness[peak]
    return peak + int(np.argmax(below)) if below.any() else len(loudness)
