"""The sounds that come with the package, a mixture of them whose truth is known, and scores against that truth.

The mixture is computed from the hits at hand whenever it is asked for, the same every time: it need not be stored, and
its truth cannot be lost.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from knownmf.audio import Event, read

__all__ = ["Mixture", "Onsets", "hits", "mixture", "onset_score", "si_sdr"]

# One letter per sixteenth: x a hard hit, o a soft one, as bars of a song.
_SONG = {
    "kick": ("x.....x.x.x.....", "x.....x.x.....o.", "x.....x.x.x.....", "x..x..x.x......."),
    "snare": ("....x..o....x..o", "....x..o.o..x...", "....x..o....x..o", "....x..o....x.xx"),
    "hihat": ("x.xox.xox.xox.xo", "x.xox.xox.xox.xo", "x.xox.xox.xox.xo", "x.xox.xox......."),
    "tom": ("................", "..............xo", "................", "..........xox.x."),
}
_LEVEL = {"kick": 1.0, "snare": 0.8, "hihat": 0.45, "tom": 0.8}
_HARD = {"kick": "hard", "snare": "hard", "hihat": "closed", "tom": "hard"}
_SOFT = {"kick": "soft", "snare": "soft", "hihat": "pedal", "tom": "soft"}
_SOFTER = 0.5
_BEATS_PER_MINUTE = 104
_PEAK = 0.9


@dataclass(frozen=True)
class Mixture:
    """A recording whose parts are known.

    Attributes
    ----------
    y : ndarray of shape (1, n_samples)
        The sum of the stems.
    sr : int
        Sample rate in Hz.
    stems : dict of str to ndarray of shape (1, n_samples)
        Each sound alone.
    onsets : dict of str to ndarray
        When each sound is hit, in seconds, ascending.
    """

    y: np.ndarray
    sr: int
    stems: dict[str, np.ndarray]
    onsets: dict[str, np.ndarray]


@dataclass(frozen=True)
class Onsets:
    """How many onsets were found.

    Attributes
    ----------
    hits, found, true : int
        Onsets that were found and are true; that were found; that are true.
    """

    hits: int
    found: int
    true: int

    @property
    def f(self) -> float:
        """The harmonic mean of precision and recall; 1 where there was nothing to find and nothing was found."""
        return 2 * self.hits / (self.found + self.true) if self.found + self.true else 1.0


def hits() -> dict[str, Path]:
    """One hard hit of each drum, to learn from: label to file.

    Examples
    --------
    >>> from knownmf import demo
    >>> list(demo.hits())
    ['kick', 'snare', 'hihat', 'tom']
    """
    return {label: _sound(label, how) for label, how in _HARD.items()}


def mixture() -> Mixture:
    """Four bars of drums, from the same hits as :func:`hits` and from soft ones that are not among them.

    Gains differ from hit to hit, and onsets are some milliseconds off the grid.

    Returns
    -------
    Mixture
        Some ten seconds, and the truth about them.

    Examples
    --------
    >>> from knownmf import demo
    >>> song = demo.mixture()
    >>> song.sr, song.y.shape
    (22050, (1, 225588))
    """
    rng = np.random.default_rng(104)
    sixteenth = 60 / _BEATS_PER_MINUTE / 4
    stems, onsets = {}, {}
    for label, bars in _SONG.items():
        hard, sr = read(_sound(label, _HARD[label]))
        soft, _ = read(_sound(label, _SOFT[label]))
        steps = [(step, mark) for step, mark in enumerate("".join(bars)) if mark != "."]
        samples = np.zeros((1, round((16 * len(bars) * sixteenth + 1) * sr)))
        starts = [round((0.05 + step * sixteenth + rng.normal(0, 0.004)) * sr) for step, _ in steps]
        for start, (_, mark) in zip(starts, steps, strict=True):
            gain = rng.uniform(0.6, 1) * _LEVEL[label]
            hit = gain * (hard if mark == "x" else _SOFTER * soft)
            end = min(start + hit.shape[1], samples.shape[1])
            samples[:, start:end] += hit[:, : end - start]
        stems[label], onsets[label] = samples, np.array(starts) / sr
    scale = _PEAK / np.abs(sum(stems.values())).max()
    stems = {label: scale * samples for label, samples in stems.items()}
    return Mixture(np.sum(list(stems.values()), axis=0), sr, stems, onsets)


def si_sdr(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al., ICASSP 2019).

    10 log10(sum (a s)**2 / sum (e - a s)**2), with e the estimate, s the reference and a = <e, s> / <s, s>.

    Parameters
    ----------
    estimate, reference : ndarray of the same shape
        Samples; the reference is not silent.

    Examples
    --------
    >>> import numpy as np
    >>> si_sdr(np.array([2.0, 2.0, 0.2]), np.array([1.0, 1.0, 0.0]))
    23.0
    """
    estimate, reference = estimate.ravel(), reference.ravel()
    target = (estimate @ reference) / (reference @ reference) * reference
    tiny = np.finfo(float).tiny
    wanted, unwanted = np.sum(target**2) + tiny, np.sum((estimate - target) ** 2) + tiny
    return float(10 * (np.log10(wanted) - np.log10(unwanted)))


def onset_score(events: Iterable[Event], onsets: Mapping[str, Sequence[float]], tolerance: float = 0.05) -> Onsets:
    """Count the events whose label and onset are true, each true onset at most once.

    Parameters
    ----------
    events : iterable of Event
        What was found.
    onsets : mapping of str to sequence of float
        The true onsets of each label in seconds.
    tolerance : float, default=0.05
        How many seconds an onset may be off.

    Returns
    -------
    Onsets
        Over all labels.
    """
    events = list(events)
    n_hits = 0
    for label, true in onsets.items():
        waiting = sorted(event.onset_s for event in events if event.label == label)
        # All windows are equally wide: giving each onset, in order, the earliest event in reach makes the most pairs.
        for onset in sorted(true):
            while waiting and waiting[0] < onset - tolerance:
                waiting.pop(0)
            if waiting and waiting[0] <= onset + tolerance:
                waiting.pop(0)
                n_hits += 1
    return Onsets(n_hits, len(events), sum(len(true) for true in onsets.values()))


def _sound(label: str, how: str) -> Path:
    return Path(__file__).parent / "sounds" / f"{label}__{how}.flac"
