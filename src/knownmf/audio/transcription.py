"""Transcribe a recording into a list of events, each with a label, an onset, an offset and a strength."""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter1d

from knownmf.activations import Activations
from knownmf.audio.adaptation import check_learning
from knownmf.audio.decomposition import (
    SHORTER,
    BlockwiseDecomposition,
    Decomposition,
    Progress,
    Summary,
    result_memory,
)
from knownmf.audio.recordings import opened
from knownmf.audio.spectrograms import FrameBlock
from knownmf.dictionary import Dictionary
from knownmf.files import write_rows
from knownmf.memory import check_memory
from knownmf.threads import single_threaded_blas
from knownmf.validation import number

__all__ = ["Event", "Transcription", "transcribe", "write_events"]

# docs/sounds.md describes the measurements behind these values.
ONSET_LEVEL = 0.3  # the onset is where the loudness crosses this share of the rise ...
ONSET_LEAD = 0.2  # ... plus this many windows, because a window contains a sound before its center reaches the onset
OFFSET_LEVEL = 0.1  # the offset is where the loudness falls below this share of the peak (20 dB)


@dataclass(frozen=True, slots=True)
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
    decomposition : Decomposition or Summary
        The activations from which the events were derived, with their certificates; a summary if the events were
        written to a file.
    """

    events: list[Event]
    decomposition: Decomposition | Summary

    def __repr__(self) -> str:
        n_sounds = len(self.decomposition.dictionary.names)
        n_found = len({event.label for event in self.events})
        return f"Transcription({len(self.events)} events of {n_found} of {n_sounds} sounds)"


class _Thresholds(NamedTuple):
    """When an attack is an event; see :func:`transcribe`."""

    rise: float
    own: float
    share: float


class _Attacks(NamedTuple):
    """Attacks in a recording: arrays with one entry per attack."""

    sound: np.ndarray  # index of the sound
    frame: np.ndarray  # frame of the steepest slope
    rise: np.ndarray  # loudness at the peak, at most a window after, minus the lowest one at most a window before
    share: np.ndarray  # share of the rise in the rises of similar sounds at the same time
    onset: np.ndarray  # time in frames at which the loudness crosses the level of the onset
    decay: np.ndarray  # loudness below which the sound has ended
    end: np.ndarray  # first frame after the peak with such a loudness; -1 as long as there is none

    def select(self, index: np.ndarray) -> _Attacks:
        """Return some attacks."""
        return _Attacks(*(values[index] for values in self))


def transcribe(
    y: npt.ArrayLike | str | os.PathLike[str],
    sr: int | None = None,
    dictionary: Dictionary | None = None,
    *,
    threshold: float = 0.03,
    threshold_own: float = 0.12,
    threshold_share: float = 0.2,
    min_gap_s: float = 0.08,
    beta_loss: str | float = "kullback-leibler",
    tol: float = 1e-4,
    max_iter: int = 200,
    out: str | os.PathLike[str] | None = None,
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
    y : array_like of shape (n_samples,) or (n_channels, n_samples), or path
        The recording: samples, or the name of a file, which is read in blocks.
    sr : int, optional
        Sample rate of the recording in Hz; not for a file.
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
    out : path, optional
        A ``.csv`` file for the events. The activations are then not kept in memory. An existing file is replaced.
    progress : callable, optional
        Called as ``progress(done, total)`` in frames.

    Returns
    -------
    Transcription
        The events, and the decomposition from which they were derived; with `out`, a :class:`Summary` of it.

    Raises
    ------
    ValueError
        If the recording is empty or has samples that are not finite, if a threshold is not between 0 and 1, if
        `min_gap_s` is negative, or if `out` would replace the recording.
    TypeError
        If `dictionary` is not a :class:`knownmf.Dictionary`.
    MemoryError
        If the result needs more memory than there is.

    Notes
    -----
    The recording is processed in blocks of some seconds, and read once. Two thresholds are relative to the largest
    rise of the whole recording, which is known at the end only: until then, attacks that reach the thresholds for the
    largest rises so far are kept, and all others dropped, as the largest rises can only become larger. Therefore the
    events are the same for all sizes of the blocks, and they are written at the end.

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
    dictionary = check_learning(dictionary, 0, 0.0)
    # Threads of BLAS would wait in loops, and take the processors from the threads here: twice the time, or more.
    with single_threaded_blas(), opened(y, sr, [] if out is None else [Path(out)]) as recording:
        if out is None:
            check_memory(result_memory(recording, dictionary, 0), "transcribing the recording", SHORTER)
        run = BlockwiseDecomposition(
            recording, dictionary, beta_loss=beta_loss, tol=tol, max_iter=max_iter, progress=progress
        )
        finder = _AttackFinder(dictionary, _Thresholds(threshold, threshold_own, threshold_share))
        decomposition: Decomposition | Summary
        if out is None:
            decomposition = run.collect(finder.add)
            n_samples = recording.n_samples or 0
        else:
            for block, found in run.blocks():
                finder.add(block, found)
            decomposition = run.summary()
            n_samples = decomposition.n_samples
        attacks = _separated(finder.attacks(), min_gap_s * dictionary.sr / dictionary.hop_length)
        events = _events(attacks, dictionary, n_samples / recording.sr)
        if out is not None:
            write_events(Path(out), events)
        return Transcription(events, decomposition)


def write_events(path: Path, events: Iterable[Event]) -> None:
    """Write events as a CSV file with the columns onset_s, offset_s, label and strength."""
    rows = ([f"{e.onset_s:.4f}", f"{e.offset_s:.4f}", e.label, f"{e.strength:.4g}"] for e in events)
    write_rows(path, ["onset_s", "offset_s", "label", "strength"], rows)


def _loudness(dictionary: Dictionary, H: np.ndarray) -> np.ndarray:
    """Return the total magnitude that each sound adds to each frame, shape (n_sounds, n_frames)."""
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


class _AttackFinder:
    """Find the attacks of a recording that comes in blocks. Keep those that may be events.

    Parameters
    ----------
    dictionary : Dictionary
        The sounds.
    thresholds : _Thresholds
        What an attack must reach.
    """

    def __init__(self, dictionary: Dictionary, thresholds: _Thresholds):
        self._dictionary, self._thresholds = dictionary, thresholds
        self._similarity = _similarity(dictionary)
        n_sounds = len(dictionary.names)
        self._width = -(-dictionary.n_fft // dictionary.hop_length)  # a window, in frames
        # An attack depends on the loudness of so many frames before and after it. Before the recording, it is 0.
        self._reach = 2 * self._width + 1
        self._E, self._first = np.zeros((n_sounds, self._reach)), -self._reach  # loudness from the frame `first` on
        self._n_frames = 0
        self._n_checked = 0  # frames in which attacks have been looked for
        self._largest, self._largest_own = 0.0, np.zeros(n_sounds)
        nothing, none = np.zeros(0), np.zeros(0, int)
        self._kept = _Attacks(none, none, nothing, nothing, nothing, nothing, none)

    def add(self, block: FrameBlock, found: Activations) -> None:
        """Add a block of frames."""
        n_before, self._n_frames = self._n_frames, self._n_frames + block.V.shape[1]
        self._E = np.concatenate([self._E, _loudness(self._dictionary, found.H)], axis=1)
        end = self._n_frames - self._reach
        if block.is_last:
            self._E = np.pad(self._E, ((0, 0), (0, self._reach)))  # after the recording, the loudness is 0
            # Ignore the frames that overlap the end: if the recording is cut off there, they contain a click, and too
            # little of a sound that begins there to recognize it.
            end = max(1, self._n_frames - self._width // 2)
        self._continue_decays(n_before)
        if self._n_checked < end:
            self._append(self._n_checked, end)
            self._n_checked = end
            self._kept = self._kept.select(self._may_be_events(self._kept.sound, self._kept.rise, self._kept.share))
        if block.is_last:
            self._kept.end[self._kept.end < 0] = self._n_frames
        n_past = self._n_checked - self._reach - self._first
        self._E, self._first = self._E[:, n_past:].copy(), self._first + n_past

    def attacks(self) -> _Attacks:
        """Return the attacks that reach all thresholds, sorted by the sound, then by the frame."""
        return self._kept.select(np.lexsort((self._kept.frame, self._kept.sound)))

    def _may_be_events(self, sound: np.ndarray, rise: np.ndarray, share: np.ndarray) -> np.ndarray:
        """Return which attacks reach the thresholds for the largest rises so far."""
        return (
            (rise >= self._thresholds.rise * self._largest)
            & (rise * np.sqrt(share) >= self._thresholds.own * self._largest_own[sound])
            & (share >= self._thresholds.share)
        )

    def _append(self, begin: int, end: int) -> None:
        """Find the attacks in some frames, and keep those that may be events."""
        width = self._width
        # The slopes in so many frames before and after decide where the steepest one is.
        margin = width // 2 + 1
        frames = np.arange(begin - margin, end + margin)
        E = self._loudness_in(frames[0] - width, frames[-1] + width + 1)
        before = np.lib.stride_tricks.sliding_window_view(E, width + 1, axis=1)[:, : len(frames)]
        after = np.lib.stride_tricks.sliding_window_view(E[:, width:], width, axis=1)[:, : len(frames)]
        rise = np.maximum(after.max(axis=2) - before.min(axis=2), 0)
        slope = E[:, width + 1 : width + 1 + len(frames)] - E[:, width - 1 : width - 1 + len(frames)]
        slope[:, (frames < 0) | (frames >= self._n_frames)] = -np.inf
        steepest = (slope > 0) & (slope >= maximum_filter1d(slope, width + 1, axis=1)) & (rise > 0)
        steepest[:, (frames < begin) | (frames >= end)] = False
        sound, column = np.nonzero(steepest)
        rises = rise[sound, column]
        np.maximum.at(self._largest_own, sound, rises)
        self._largest = float(self._largest_own.max())
        share = rises / (self._similarity @ rise)[sound, column]
        kept = self._may_be_events(sound, rises, share)
        sound, column, rises, share = sound[kept], column[kept], rises[kept], share[kept]
        base = frames[column] - width + before[sound, column].argmin(axis=1)
        peak = frames[column] + after[sound, column].argmax(axis=1)
        onset, decay, ends = np.empty(len(sound)), np.empty(len(sound)), np.empty(len(sound), int)
        for i in range(len(sound)):
            loudness = self._loudness_in(min(base[i], peak[i]), self._n_frames)[sound[i]]
            ascent, descent = np.split(loudness, [peak[i] - min(base[i], peak[i])])
            onset[i] = _crossing(np.append(ascent[max(0, -1 - base[i]) :], descent[0]), base[i])
            decay[i] = OFFSET_LEVEL * descent[0]
            below = descent < decay[i]
            ends[i] = peak[i] + int(np.argmax(below)) if below.any() else -1
        new = _Attacks(sound, frames[column], rises, share, onset, decay, ends)
        self._kept = _Attacks(*(np.concatenate(both) for both in zip(self._kept, new, strict=True)))

    def _loudness_in(self, begin: int, end: int) -> np.ndarray:
        """Return the loudness of all sounds in some frames."""
        return self._E[:, begin - self._first : end - self._first]

    def _continue_decays(self, begin: int) -> None:
        """Find the ends of attacks in the frames from `begin` on, if they were not found before."""
        open_ends = np.flatnonzero(self._kept.end < 0)
        if not len(open_ends):
            return
        loudness = self._loudness_in(begin, self._n_frames)
        for sound in np.unique(self._kept.sound[open_ends]):
            own = open_ends[self._kept.sound[open_ends] == sound]
            lowest = np.minimum.accumulate(loudness[sound])
            first_below = np.searchsorted(-lowest, -self._kept.decay[own], side="right")
            has_ended = first_below < len(lowest)
            self._kept.end[own[has_ended]] = begin + first_below[has_ended]


def _separated(attacks: _Attacks, min_gap: float) -> _Attacks:
    """Remove attacks that are closer than `min_gap` frames to a stronger one of the same sound."""
    kept: dict[int, list[int]] = {}  # the frames of each sound, sorted
    chosen = np.zeros(len(attacks.rise), bool)
    for index in np.argsort(-attacks.rise, kind="stable"):
        frames, frame = kept.setdefault(int(attacks.sound[index]), []), int(attacks.frame[index])
        place = bisect.bisect(frames, frame)
        if all(abs(frame - other) >= min_gap for other in frames[max(0, place - 1) : place + 1]):
            frames.insert(place, frame)
            chosen[index] = True
    return attacks.select(chosen)


def _events(attacks: _Attacks, dictionary: Dictionary, duration_s: float) -> list[Event]:
    """Return the events of attacks, which are sorted by the sound, then by the frame, in the order of their onsets."""
    hop_s, window_s = dictionary.hop_length / dictionary.sr, dictionary.n_fft / dictionary.sr
    events, strongest = [], attacks.rise.max(initial=0.0)
    for i, sound in enumerate(attacks.sound):
        onset_s = min(max(0.0, attacks.onset[i] * hop_s + ONSET_LEAD * window_s), duration_s)
        # If the next attack is of the same sound, this event ends there.
        again = i + 1 < len(attacks.sound) and attacks.sound[i + 1] == sound
        limit_s = min(attacks.frame[i + 1] * hop_s, duration_s) if again else duration_s
        events.append(
            Event(
                onset_s=float(onset_s),
                offset_s=float(max(onset_s, min(attacks.end[i] * hop_s, limit_s))),
                label=dictionary.names[sound],
                strength=float(attacks.rise[i] / strongest),
            )
        )
    return sorted(events, key=lambda event: (event.onset_s, event.label))


def _crossing(ascent: np.ndarray, base: int) -> float:
    """Return the time in frames, interpolated, at which an attack first crosses `ONSET_LEVEL` of its rise.

    `ascent` is the loudness from frame `base` to the peak, or from the frame before the recording if that is later.
    """
    level = ascent[0] + ONSET_LEVEL * (ascent[-1] - ascent[0])
    above = int(np.argmax(ascent >= level))
    if above == 0:
        return float(base)
    return max(base, -1) + above - (ascent[above] - level) / (ascent[above] - ascent[above - 1])
