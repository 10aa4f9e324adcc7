"""Describe dictionaries, recordings and results in sentences that need no knowledge of optimization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from knownmf.wording import counted, listed, percent

if TYPE_CHECKING:
    from knownmf.audio import Event, Summary
    from knownmf.dictionary import Dictionary

__all__ = [
    "describe_basis",
    "describe_convergence",
    "describe_decomposition",
    "describe_dictionary",
    "describe_doubt",
    "describe_events",
    "describe_recording",
    "describe_settings",
]


def describe_dictionary(dictionary: Dictionary) -> str:
    """Return the size of a dictionary and its analysis settings, in one line."""
    return (
        f"{counted(dictionary.n_components, 'component')} of {counted(len(dictionary.names), 'sound')}, "
        f"{describe_settings(dictionary.settings)}"
    )


def describe_basis(dictionary: Dictionary) -> str:
    """Return the size of a dictionary without settings and the unit of its activations, in one line."""
    named = f" ({listed(dictionary.features, 3)})" if dictionary.features else ""
    units = f", activations in {dictionary.units}" if dictionary.units else ""
    return f"{counted(dictionary.n_components, 'component')} with {counted(dictionary.n_bins, 'feature')}{named}{units}"


def describe_settings(settings: Mapping[str, Any]) -> str:
    """Return the settings of a dictionary as a part of a line."""
    return f"for {settings['sr']} Hz, windows of {settings['n_fft']} samples every {settings['hop_length']}"


def describe_recording(seconds: float, sr: int, n_channels: int) -> str:
    """Return the length, the sample rate and the number of channels of a recording, in one line.

    Examples
    --------
    >>> describe_recording(83.25, 44100, 2)
    '1 min 23.2 s at 44100 Hz, stereo'
    """
    minutes, tenths = divmod(round(10 * seconds), 600)  # rounded first, so that 119.97 s is not "1 min 60.0 s"
    length = f"{minutes} min {tenths / 10:.1f} s" if minutes else f"{seconds:.2f} s"
    channels = {1: "mono", 2: "stereo"}.get(n_channels, counted(n_channels, "channel"))
    return f"{length} at {sr} Hz, {channels}"


def describe_events(events: Sequence[Event], n_sounds: int) -> str:
    """Return the number of events, in all and of the strongest sounds, in one line.

    Parameters
    ----------
    events : sequence of Event
        The events.
    n_sounds : int
        The number of sounds in the dictionary.

    Examples
    --------
    >>> from knownmf.audio import Event
    >>> describe_events([Event(0.1, 0.2, "hat", 0.2), Event(0.5, 0.9, "kick", 1.0), Event(0.6, 0.7, "hat", 0.3)], 88)
    '3 events of 2 sounds, the strongest first: kick (1), hat (2). The other 86 sounds have no events.'
    """
    if not events:
        return "0 events"
    counts: dict[str, int] = {}
    strengths: dict[str, float] = {}
    for event in events:
        counts[event.label] = counts.get(event.label, 0) + 1
        strengths[event.label] = strengths.get(event.label, 0) + event.strength
    labels = sorted(counts, key=lambda label: -strengths[label])
    strongest = listed([f"{label} ({counts[label]})" for label in labels])
    silent = n_sounds - len(labels)
    others = f" The other {counted(silent, 'sound')} {'has' if silent == 1 else 'have'} no events." if silent else ""
    order = ", the strongest first" if len(labels) > 1 else ""
    return f"{counted(len(events), 'event')} of {counted(len(labels), 'sound')}{order}: {strongest}.{others}"


def describe_decomposition(summary: Summary) -> list[str]:
    """Return two lines: how much of the recording is explained, and how many frames have reached their optimum."""
    counts = summary.n_frames, summary.n_converged, summary.worst, summary.beta, summary.tol
    return [_describe_share(summary), describe_convergence(*counts, "frame")]


def describe_convergence(n_frames: int, n_converged: int, worst: float, beta: float, tol: float, noun: str) -> str:
    """Return how many frames have reached their optimum, in one line that calls them by a noun."""
    frames, bound = counted(n_frames, noun), percent(tol, digits=3)
    have = "has" if n_frames == 1 else "have"
    share, largest = percent(n_converged / n_frames), percent(worst, digits=2)
    if 1 <= beta <= 2:
        converged = (
            f"{share} of {frames} {have} converged to within {bound} of the best fit that these components can reach; "
            f"the worst to within {largest}."
        )
    else:
        converged = (
            f"{share} of {frames} {have} converged: they meet the conditions of a best fit with these components "
            f"within {bound}; the worst within {largest}. (With this beta_loss there may be other optima.)"
        )
    return converged


def describe_doubt(summary: Summary) -> str | None:
    """Return what may be wrong if the recording is silent, or the dictionary explains too little of it, else None."""
    if summary.is_silent:
        limit = summary.dictionary.sr / 2
        return f"Up to {limit:g} Hz, the recording is silent: it may be another file, or a muted track."
    if summary.fits:
        return None
    explains = "Before it was adapted, the dictionary explained" if summary.adapted else "The dictionary explains"
    doubt = (
        f"{explains} only {percent(summary.explained_by_dictionary)} of the recording: its sounds may not be "
        "those in the recording. Learn a dictionary from all sounds and notes that are in it, with enough components "
        "(the default of learn)."
    )
    if not summary.adapted:
        doubt += " If they are the same sounds, but in another room or tuning, separate or decompose with --adapt 0.3."
    if not summary.n_free:
        doubt += " If there are other sounds or noise too, separate or decompose with --free 8."
    return doubt


def _describe_share(summary: Summary) -> str:
    """Return how much of the recording is explained and, if components were learned from it, by which of them."""
    limit = f"(up to {summary.dictionary.sr / 2:g} Hz)"
    if summary.is_silent:
        return f"There is nothing to explain: the recording is silent {limit}."
    explained = f"{percent(summary.explained)} of the energy of the recording {limit}"
    own = percent(summary.explained_by_dictionary)
    learned = f"{counted(summary.n_free, 'component')} learned from the recording"
    if summary.adapted and summary.n_free:
        return (
            f"The adapted dictionary and {learned} explain {explained}; the part of the dictionary before it was "
            f"adapted is {own}."
        )
    if summary.adapted:
        return f"The adapted dictionary explains {explained}; before it was adapted, it explained {own}."
    if summary.n_free:
        remaining = percent(max(0.0, summary.explained - summary.explained_by_dictionary))
        return f"The dictionary and {learned} explain {explained}: the dictionary {own}, the others {remaining}."
    return f"The dictionary explains {explained}."
