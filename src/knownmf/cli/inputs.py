"""Read the inputs of the commands: sounds and their labels, dictionaries, options."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from knownmf.cli.console import UserError, input_errors

if TYPE_CHECKING:
    import numpy as np

    from knownmf.dictionary import Dictionary

__all__ = ["SOUND_ENDINGS", "find_sounds", "load_dictionary", "load_sound", "parse_loss"]

SOUND_ENDINGS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64")


def find_sounds(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """Find sound files and their labels.

    The label of a file is the part of its name before ``__``: ``kick__3.wav`` has the label "kick". If there is no
    ``__`` in the name, the label of a file from `paths` is its name without the ending, and the label of a file in a
    folder from `paths` is the name of the folder that contains it: ``samples/kick/3.wav`` has the label "kick" if
    `paths` has ``samples``. Folders are searched with all their subfolders. Hidden files and files with other endings
    are skipped.

    Parameters
    ----------
    paths : iterable of Path
        Sound files, and folders of sound files.

    Returns
    -------
    dict of str to list of Path
        The files for each label, in the order of `paths`; the files of a folder are sorted. A file that is found twice
        is listed once.

    Raises
    ------
    UserError
        If a path does not exist, or a folder contains no sound file.
    """
    sounds: dict[str, list[Path]] = {}
    seen = set()
    for given in paths:
        for path, default_label in _sounds_at(given):
            if path.resolve() not in seen:
                seen.add(path.resolve())
                before, separator, _ = path.stem.partition("__")
                label = before.strip() if separator else ""
                sounds.setdefault(label or default_label, []).append(path)
    return sounds


def load_sound(path: Path) -> tuple[np.ndarray, int]:
    """Return the samples (n_channels, n_samples) of a sound to learn from, and its sample rate.

    Raises
    ------
    OSError, ValueError
        As :func:`knownmf.audio.read`. Also a ValueError if the sound is silent: :func:`knownmf.audio.learn` raises that
        too, but it cannot name the file.
    """
    from knownmf.audio import read

    y, sr = read(path)
    if not y.any():
        raise ValueError(f'"{path}" is silent: there is nothing to learn from it.')
    return y, sr


def load_dictionary(path: Path) -> Dictionary:
    """Return the dictionary in a file."""
    from knownmf.dictionary import Dictionary

    with input_errors():
        return Dictionary.load(path)


def parse_loss(text: str) -> str | float:
    """Return the value of the option ``--beta-loss``: a number, or else a name, which the solver checks."""
    try:
        return float(text)
    except ValueError:
        return text


def _sounds_at(given: Path) -> Iterator[tuple[Path, str]]:
    """Yield each sound file at a path, with the label for a name without ``__``."""
    if not given.exists():
        raise UserError(f'There is no file or folder "{given}": pass sound files, or folders of sound files.')
    if not given.is_dir():
        yield given, given.stem
        return
    inside = [path for path in sorted(given.rglob("*")) if _is_sound(path, given)]
    if not inside:
        raise UserError(
            f'The folder "{given}" contains no sound file: the name of a sound file ends in '
            f"{', '.join(SOUND_ENDINGS[:-1])} or {SOUND_ENDINGS[-1]}."
        )
    for path in inside:
        yield path, path.resolve().parent.name or path.stem


def _is_sound(path: Path, folder: Path) -> bool:
    """Return whether a path in a folder is a sound file that is not hidden."""
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.suffix.lower() in SOUND_ENDINGS and path.is_file()
