"""What the command line reads: sounds and their labels, recordings, dictionaries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from knownmf.cli.console import Mistake, wrong_input

if TYPE_CHECKING:
    import numpy as np

    from knownmf.dictionary import Dictionary

__all__ = ["SOUND_ENDINGS", "found_sounds", "heard", "known_dictionary", "loss"]

SOUND_ENDINGS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64")


def found_sounds(places: Iterable[Path]) -> dict[str, list[Path]]:
    """Sound files by label.

    A file's label is what its name has before ``__`` (``kick__3.wav`` is a kick). Without ``__`` it is the file's name
    when the file was given itself (``kick.wav``), and the name of the folder that holds it when a folder was given
    (``samples/kick/3.wav`` by ``samples``). Folders are searched to the bottom; what is hidden, or is no sound, is
    passed over there.

    Parameters
    ----------
    places : iterable of Path
        Sound files, and folders of them.

    Returns
    -------
    dict of str to list of Path
        In the order of the arguments; within a folder, sorted. A file that is met twice counts once.

    Raises
    ------
    Mistake
        If a place does not exist, or a folder holds no sound.
    """
    sounds: dict[str, list[Path]] = {}
    met = set()
    for place in places:
        for path, otherwise in _sounds_at(place):
            if path.resolve() not in met:
                met.add(path.resolve())
                before, mark, _ = path.stem.partition("__")
                label = before.strip() if mark else ""
                sounds.setdefault(label or otherwise, []).append(path)
    return sounds


def heard(path: Path) -> tuple[np.ndarray, int]:
    """The samples of a sound to learn from, of shape (n_channels, n_samples), and their sample rate.

    Raises
    ------
    OSError, ValueError
        As :func:`knownmf.audio.read`; also if it is silent, since the library does not know the files of its takes.
    """
    from knownmf.audio import read

    y, sr = read(path)
    if not y.any():
        raise ValueError(f'"{path}" is silent: there is nothing to learn from it.')
    return y, sr


def known_dictionary(path: Path) -> Dictionary:
    """The dictionary in a file."""
    from knownmf.dictionary import Dictionary

    with wrong_input():
        return Dictionary.load(path)


def loss(text: str) -> str | float:
    """A beta divergence by its name or its number."""
    try:
        return float(text)
    except ValueError:
        return text  # a name: the solver knows which there are


def _sounds_at(place: Path) -> Iterator[tuple[Path, str]]:
    """Each sound of a place, with the label that it has unless its name says another."""
    if not place.exists():
        raise Mistake(f'There is no file or folder "{place}": give sound files, or folders of them.')
    if not place.is_dir():
        yield place, place.stem
        return
    inside = [path for path in sorted(place.rglob("*")) if _is_sound(path.relative_to(place), path)]
    if not inside:
        raise Mistake(
            f'The folder "{place}" holds no sound: files that end in {", ".join(SOUND_ENDINGS)} are looked for.'
        )
    for path in inside:
        yield path, path.resolve().parent.name or path.stem


def _is_sound(inside: Path, path: Path) -> bool:
    hidden = any(part.startswith(".") for part in inside.parts)
    return not hidden and path.suffix.lower() in SOUND_ENDINGS and path.is_file()
