"""Sentences about what was found, for musicians."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knownmf.cli.console import percent

if TYPE_CHECKING:
    from knownmf.audio import Decomposition
    from knownmf.dictionary import Dictionary

__all__ = ["said_of_decomposition", "said_of_dictionary", "said_of_recording"]


def said_of_dictionary(dictionary: Dictionary) -> str:
    """Its size and the settings it was made with, in one line."""
    return (
        f"{_counted(dictionary.n_components, 'component')} of {_counted(len(dictionary.names), 'sound')}, "
        f"for {dictionary.sr} Hz, windows of {dictionary.n_fft} samples every {dictionary.hop_length}"
    )


def said_of_recording(seconds: float, sr: int, n_channels: int) -> str:
    """Its length, sample rate and channels.

    Examples
    --------
    >>> said_of_recording(83.25, 44100, 2)
    '1 min 23.2 s at 44100 Hz, stereo'
    """
    minutes, tenths = divmod(round(10 * seconds), 600)  # rounded first: 119.97 s are 2 min, not 1 min 60 s
    length = f"{minutes} min {tenths / 10:.1f} s" if minutes else f"{seconds:.2f} s"
    return f"{length} at {sr} Hz, {({1: 'mono', 2: 'stereo'}).get(n_channels, f'{n_channels} channels')}"


def said_of_decomposition(decomposition: Decomposition) -> list[str]:
    """How much was explained and what was proven, a line each."""
    found = decomposition.found
    share = percent(float(found.converged.mean()))
    worst = f"{100 * float(found.criterion.max()):.2g} %"
    frames, bound = _counted(len(found.converged), "frame"), f"{100 * found.tol:.3g} %"
    explained = f"Explained: the dictionary accounts for {percent(decomposition.explained)} of the recording."
    if 1 <= found.beta <= 2:
        proven = f"Proven: {share} of {frames} within {bound} of the optimum; the worst within {worst}."
    else:
        proven = (
            f"Proven: {share} of {frames} meet the conditions of an optimum within {bound}; the worst within {worst}. "
            "(With this beta_loss there may be other optima.)"
        )
    return [explained, proven]


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
