"""A recording as a list of events: which sound, from when to when, how strong."""

from dataclasses import dataclass
from numbers import Real

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter1d

from knownmf.audio.decomposition import Decomposition, Progress, decompose
from knownmf.audio.recordings import as_channels
from knownmf.dictionary import Dictionary

__all__ = ["Event", "Transcription", "loudness_of_sounds", "transcribe"]

# docs/sounds.md holds the measurements behind these.
ONSET_LEVEL = 0.3  # of the way up an attack, where the onset is read off ...
ONSET_LEAD = 0.2  # ... that many windows too early, as the window hears a sound before its centre reaches it
OFFSET_LEVEL = 0.1  # 20 dB below the peak


@dataclass(frozen=True)
class Event:
    """One hit or note.

    Attributes
    ----------
    onset_s, offset_s : float
        Where it begins and ends, in seconds from the recording's start. It ends where it has fallen 20 dB below its
        peak, where the same sound begins again, or with the recording.
    label : str
        The sound.
    strength : float
        Above 0, at most 1: how far the sound's magnitude rises, relative to the strongest event of the recording.
    """

    onset_s: float
    offset_s: float
    label: str
    strength: float


@dataclass(frozen=True)
class Transcription:
    """What :func:`transcribe` found.

    Attributes
    ----------
    events : list of Event
        In the order of their onsets.
    decomposition : Decomposition
        The activations that they were read from, with their proof.
    """

    events: list[Event]
    decomposition: Decomposition


@dataclass(frozen=True)
class _Attacks:
    """Where sounds rise; arrays with one entry per attack."""

    sound: np.ndarray  # row of the loudness
    frame: np.ndarray  # where it rises most steeply
    base: np.ndarray  # frame of the lowest loudness within a window before
    peak: np.ndarray  # frame of the highest within a window after
    rise: np.ndarray  # difference of their loudnesses
    share: np.ndarray  # of all rises of like sounds at the time


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

    The loudness of a sound is the total magnitude that its components contribute to a frame. An attack is where it
    grows most steeply; its rise is the difference between the highest loudness within a window after and the lowest
    within a window before. Three shares decide whether an attack is an event: its rise relative to the largest rise of
    the recording; relative to the largest rise of the same sound; and relative to the rises of all like sounds at the
    same time, each weighted by its likeness, the largest cosine between components of the two. The first and the third
    have thresholds of their own, and the second times the square root of the third has one: a soft hit is believed
    when it is alone, less so when sounds like it begin with it. The onset is where the loudness has come 30 % of the
    way up, moved by the fifth of a window that this comes early.

    Parameters
    ----------
    y : array_like of shape (n_samples,) or (n_channels, n_samples)
        The recording.
    sr : int
        Its sample rate in Hz.
    dictionary : Dictionary
        The sounds to look for.
    threshold : float, default=0.03
        Smallest rise relative to the largest of the recording, 0..1.
    threshold_own : float, default=0.12
        Smallest rise relative to the largest of the same sound, times the square root of the share below, 0..1.
    threshold_share : float, default=0.2
        Smallest rise relative to the rises of all like sounds at the same time, its own included, 0..1.
    min_gap_s : float, default=0.08
        Of attacks of the same sound that are closer than this many seconds, the strongest counts.
    beta_loss, tol, max_iter
        As in :func:`knownmf.activations`.
    progress : callable, optional
        Called as ``progress(done, total)``, in frames.

    Returns
    -------
    Transcription
        The events, and the decomposition that they were read from.

    Raises
    ------
    ValueError
        If the recording is empty or has samples that are not finite, or a threshold is not between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> from knownmf.audio import learn, transcribe
    >>> rng = np.random.default_rng(0)
    >>> click = rng.normal(size=2000) * np.exp(-np.arange(2000) / 300)
    >>> recording = np.zeros(16000)
    >>> recording[4000:6000] += click
    >>> recording[12000:14000] += click / 2
    >>> heard = transcribe(recording, 8000, learn({"click": [(click, 8000)]}))
    >>> [(event.label, round(event.onset_s, 1), round(event.strength, 1)) for event in heard.events]
    [('click', 0.5, 1.0), ('click', 1.5, 0.5)]
    """
    for name, value in (
        ("threshold", threshold),
        ("threshold_own", threshold_own),
        ("threshold_share", threshold_share),
    ):
        _check_number(name, value, 1, "a share between 0 and 1 is")
    _check_number("min_gap_s", min_gap_s, np.finfo(float).max, "seconds, at least 0, are")
    y = as_channels(y)
    decomposition = decompose(y, sr, dictionary, beta_loss=beta_loss, tol=tol, max_iter=max_iter, progress=progress)
    E = loudness_of_sounds(decomposition)
    attacks = _attacks(E, _likeness(dictionary), -(-dictionary.n_fft // dictionary.hop_length))
    kept = _loud_enough(attacks, threshold, threshold_own, threshold_share)
    kept = _apart(kept, attacks, min_gap_s * dictionary.sr / dictionary.hop_length)
    return Transcription(_events(E, attacks, kept, dictionary, y.shape[1] / sr), decomposition)


def loudness_of_sounds(decomposition: Decomposition) -> np.ndarray:
    """Total magnitude that each sound contributes to each frame, shape (n_sounds, n_frames)."""
    dictionary, H = decomposition.dictionary, decomposition.found.H
    E = np.empty((len(dictionary.names), H.shape[1]))
    for row, name in zip(E, dictionary.names, strict=True):
        own = dictionary.components_of(name)
        row[:] = ((dictionary.W[:, own] @ H[own]) ** (1 / dictionary.power)).sum(axis=0)
    return E


def _check_number(name: str, value: object, most: float, meaning: str) -> None:
    if not isinstance(value, Real) or not 0 <= float(value) <= most:
        raise ValueError(f"{name}={value!r}; {meaning} needed.")


def _likeness(dictionary: Dictionary) -> np.ndarray:
    """For each pair of sounds the largest cosine between their components, 1 on the diagonal."""
    norms = np.linalg.norm(dictionary.W, axis=0)
    directions = dictionary.W / np.where(norms > 0, norms, 1)
    cosines = directions.T @ directions
    own = [dictionary.components_of(name) for name in dictionary.names]
    likeness = np.array([[cosines[np.ix_(one, other)].max() for other in own] for one in own])
    np.fill_diagonal(likeness, 1)
    return likeness


def _attacks(E: np.ndarray, likeness: np.ndarray, width: int) -> _Attacks:
    """All attacks in the loudness E of the sounds; `width` is the window's length in frames."""
    # Before and after the recording there is silence.
    padded = np.pad(E, ((0, 0), (width, width)))
    frames = np.arange(E.shape[1])
    before = np.lib.stride_tricks.sliding_window_view(padded, width + 1, axis=1)[:, : len(frames)]
    after = np.lib.stride_tricks.sliding_window_view(padded[:, width:], width, axis=1)[:, : len(frames)]
    lowest, highest = before.min(axis=2), after.max(axis=2)
    rise = np.maximum(highest - lowest, 0)
    slope = padded[:, width + 1 : width + 1 + len(frames)] - padded[:, width - 1 : width - 1 + len(frames)]
    steepest = (slope > 0) & (slope >= maximum_filter1d(slope, width + 1, axis=1)) & (rise > 0)
    # Where a recording is cut off, the cut clicks; of a sound that begins there, too little is left to tell.
    steepest[:, max(1, len(frames) - width // 2) :] = False
    sound, frame = np.nonzero(steepest)
    base = frame - width + before[sound, frame].argmin(axis=1)
    peak = frame + after[sound, frame].argmax(axis=1)
    share = rise[sound, frame] / (likeness @ rise)[sound, frame]
    return _Attacks(sound, frame, base, peak, rise[sound, frame], share)


def _loud_enough(attacks: _Attacks, threshold: float, threshold_own: float, threshold_share: float) -> np.ndarray:
    """Indices of the attacks that reach all three thresholds."""
    if not len(attacks.rise):
        return np.arange(0)
    largest_own = np.zeros(attacks.sound.max() + 1)
    np.maximum.at(largest_own, attacks.sound, attacks.rise)
    return np.flatnonzero(
        (attacks.rise >= threshold * attacks.rise.max())
        & (attacks.rise * np.sqrt(attacks.share) >= threshold_own * largest_own[attacks.sound])
        & (attacks.share >= threshold_share)
    )


def _apart(candidates: np.ndarray, attacks: _Attacks, min_gap: float) -> np.ndarray:
    """Of candidates of one sound that are closer than `min_gap` frames, the strongest."""
    kept: dict[int, list[int]] = {}
    for candidate in candidates[np.argsort(-attacks.rise[candidates], kind="stable")]:
        of_sound = kept.setdefault(int(attacks.sound[candidate]), [])
        if all(abs(attacks.frame[candidate] - attacks.frame[other]) >= min_gap for other in of_sound):
            of_sound.append(int(candidate))
    return np.array(sorted(candidate for of_sound in kept.values() for candidate in of_sound), dtype=int)


def _events(
    E: np.ndarray, attacks: _Attacks, kept: np.ndarray, dictionary: Dictionary, duration_s: float
) -> list[Event]:
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
        # Attacks are in the order of sounds and frames, so the following one ends this one where it is the same sound.
        again = following is not None and attacks.sound[following] == sound
        limit_s = min(attacks.frame[following] * hop_s, duration_s) if again else duration_s
        offset_s = _fallen(loudness, attacks.peak[here]) * hop_s
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
    """Frame, with fraction, where an attack first comes ONSET_LEVEL of the way from its base to its peak."""
    ascent = np.concatenate([[0.0] if base < 0 else [], loudness[max(base, 0) : peak + 1]])
    level = ascent[0] + ONSET_LEVEL * (ascent[-1] - ascent[0])
    above = int(np.argmax(ascent >= level))
    if above == 0:
        return float(base)
    return max(base, -1) + above - (ascent[above] - level) / (ascent[above] - ascent[above - 1])


def _fallen(loudness: np.ndarray, peak: int) -> int:
    """Frame where a sound has fallen to OFFSET_LEVEL of its peak, or the end."""
    below = loudness[peak:] < OFFSET_LEVEL * loudness[peak]
    return peak + int(np.argmax(below)) if below.any() else len(loudness)
