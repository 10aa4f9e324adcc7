"""The data of the demo: drum sounds, a mixture of them with known stems and onsets, and scores.

The mixture is not stored. It is computed from the drum sounds at every call, and is always the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from knownmf.audio import Event, read

__all__ = ["Mixture", "Onsets", "hits", "mixture", "onset_score", "si_sdr"]

# One character per sixteenth note: x is a hard hit, o is a soft hit. Each string is one bar.
_SONG = {
    "kick": ("x.....x.x.x.....", "x.....x.x.....o.", "x.....x.x.x.....", "x..x..x.x......."),
    "snare": ("....x..o....x..o", "....x..o.o..x...", "....x..o....x..o", "....x..o....x.xx"),
    "hihat": ("x.xox.xox.xox.xo", "x.xox.xox.xox.xo", "x.xox.xox.xox.xo", "x.xox.xox......."),
    "tom": ("................", "..............xo", "................", "..........xox.x."),
}
_LEVEL = {"kick": 1.0, "snare": 0.8, "hihat": 0.45, "tom": 0.8}
_HARD = {"kick": "hard", "snare": "hard", "hihat": "closed", "tom": "hard"}
_SOFT = {"kick": "soft", "snare": "soft", "hihat": "pedal", "tom": "soft"}
_SOFT_GAIN = 0.5
_BEATS_PER_MINUTE = 104
_PEAK = 0.9


@dataclass(frozen=True, eq=False)
class Mixture:
    """A mixture with known stems and onsets.

    Attributes
    ----------
    y : ndarray of shape (1, n_samples)
        The sum of the stems.
    sr : int
        Sample rate in Hz.
    stems : dict of str to ndarray of shape (1, n_samples)
        The part of each sound.
    onsets : dict of str to ndarray
        The onsets of each sound in seconds, in ascending order.
    """

    y: np.ndarray
    sr: int
    stems: dict[str, np.ndarray]
    onsets: dict[str, np.ndarray]


@dataclass(frozen=True)
class Onsets:
    """The numbers of onsets that were found correctly, found, and true.

    Attributes
    ----------
    hits : int
        The number of true onsets that were found.
    found : int
        The number of onsets that were found, true or not.
    true : int
        The number of true onsets.
    """

    hits: int
    found: int
    true: int

    @property
    def f(self) -> float:
        """Return the F score, the harmonic mean of precision and recall; 1 if no onset is true and none was found."""
        return 2 * self.hits / (self.found + self.true) if self.found + self.true else 1.0


def hits() -> dict[str, Path]:
    """Return the file of one hard hit of each drum, by label. The demo learns its dictionary from these.

    Examples
    --------
    >>> from knownmf import demo
    >>> list(demo.hits())
    ['kick', 'snare', 'hihat', 'tom']
    """
    return {label: _sound(label, how) for label, how in _HARD.items()}


def mixture() -> Mixture:
    """Return four bars of drums, made of the sounds of :func:`hits` and of soft hits that are not among them.

    The gain varies from hit to hit, and the onsets deviate from the exact rhythm by a few milliseconds.

    Returns
    -------
    Mixture
        A mixture of about ten seconds, its stems and its onsets.

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
            hit = gain * (hard if mark == "x" else _SOFT_GAIN * soft)
            end = min(start + hit.shape[1], samples.shape[1])
            samples[:, start:end] += hit[:, : end - start]
        stems[label], onsets[label] = samples, np.array(starts) / sr
    scale = _PEAK / np.abs(sum(stems.values())).max()
    stems = {label: scale * samples for label, samples in stems.items()}
    return Mixture(np.sum(list(stems.values()), axis=0), sr, stems, onsets)


def si_sdr(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Return the scale-invariant signal-to-distortion ratio in dB (Le Roux et al., ICASSP 2019).

    The ratio is 10 log10(sum (a s)**2 / sum (e - a s)**2), where e is the estimate, s is the reference and
    a = <e, s> / <s, s>.

    Parameters
    ----------
    estimate, reference : ndarray of the same shape
        Samples. The reference must not be silent.

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
    """Count the events that match a true onset of their label. Each true onset is matched at most once.

    Parameters
    ----------
    events : iterable of Event
        The events that were found.
    onsets : mapping of str to sequence of float
        The true onsets of each label in seconds.
    tolerance : float, default=0.05
        The largest difference between matched onsets, in seconds.

    Returns
    -------
    Onsets
        The numbers over all labels.
    """
    events = list(events)
    n_hits = 0
    for label, true in onsets.items():
        unmatched = sorted(event.onset_s for event in events if event.label == label)
        # Matching each onset, in order, with the earliest event within the tolerance gives the largest number of pairs.
        for onset in sorted(true):
            while unmatched and unmatched[0] < onset - tolerance:
                unmatched.pop(0)
            if unmatched and unmatched[0] <= onset + tolerance:
                unmatched.pop(0)
                n_hits += 1
    return Onsets(n_hits, len(events), sum(len(true) for true in onsets.values()))


def _sound(label: str, how: str) -> Path:
    """Return the file of a drum sound that comes with the package."""
    return Path(__file__).parent / "sounds" / f"{label}__{how}.flac"
