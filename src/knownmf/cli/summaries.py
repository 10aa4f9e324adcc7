"""Describe dictionaries, recordings and results in sentences that need no knowledge of optimization."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knownmf.wording import counted, percent

if TYPE_CHECKING:
    from knownmf.audio import Decomposition
    from knownmf.dictionary import Dictionary

__all__ = ["describe_decomposition", "describe_dictionary", "describe_recording"]


def describe_dictionary(dictionary: Dictionary) -> str:
    """Return the size of a dictionary and its analysis settings, in one line."""
    return (
        f"{counted(dictionary.n_components, 'component')} of {counted(len(dictionary.names), 'sound')}, "
        f"for {dictionary.sr} Hz, windows of {dictionary.n_fft} samples every {dictionary.hop_length}"
    )


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


def describe_decomposition(decomposition: Decomposition) -> list[str]:
    """Return two lines: how much of the recording is explained, and how many frames are proven to be optimal."""
    found = decomposition.found
    share = percent(float(found.converged.mean()))
    worst = percent(float(found.criterion.max()), digits=2)
    frames, bound = counted(len(found.converged), "frame"), percent(found.tol, digits=3)
    explained = f"Explained: the dictionary accounts for {percent(decomposition.explained)} of the recording."
    if 1 <= found.beta <= 2:
        proven = f"Proven: {share} of {frames} within {bound} of the optimum; the worst within {worst}."
    else:
        proven = (
            f"Proven: {share} of {frames} meet the conditions of an optimum within {bound}; the worst within {worst}. "
            "(With this beta_loss there may be other optima.)"
        )
    return [explained, proven]
