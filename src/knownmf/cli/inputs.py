"""Read the inputs of the commands: sounds and their labels, and dictionaries."""

from __future__ import annotations

import glob
import os
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from knownmf.cli.console import UserError, input_errors
from knownmf.cli.labels import Take, describe_doubts, labels_of_names, spelling_key
from knownmf.cli.manifest import holds_results
from knownmf.wording import counted

if TYPE_CHECKING:
    import numpy as np

    from knownmf.dictionary import Dictionary

__all__ = ["SOUND_ENDINGS", "find_recordings", "find_sounds", "load_dictionary", "load_sound"]

SOUND_ENDINGS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64")


def find_sounds(given: Iterable[str | Path]) -> dict[str, list[Path]]:
    """Find sound files and their labels.

    A file that the user passes, or that lies directly in a folder that the user passes, gets its label from its name,
    as in :func:`knownmf.cli.labels.labels_of_names`. If there are only numbers in the name, it gets the name of the
    folder or, if the user passed the file itself, the whole name. A file in a subfolder gets the name of the subfolder.
    Labels that differ only in upper case, or in the characters between words, are the same. Hidden files and files with
    other endings are skipped.

    Parameters
    ----------
    given : iterable of str or Path
        Sound files, folders of sound files, and patterns such as ``*.wav``. With ``NAME=`` in front, the label of all
        these files is NAME, also if they are found a second time without it.

    Returns
    -------
    dict of str to list of Path
        The files for each label, in the order of `given`; the files of a folder are sorted. A file that is found twice
        is listed once.

    Raises
    ------
    UserError
        If a path does not exist, a pattern matches nothing, a folder contains no sound file, a file has two names, or
        the name of a file or folder that is needed for a label is not valid UTF-8.

    Warns
    -----
    UserWarning
        If a subfolder cannot be read, or the labels may not be what the user wants.
    """
    files: list[tuple[Path, Path | None, str]] = []
    names: dict[Path, str] = {}
    for text in given:
        name, place = _split_name(os.fspath(text))
        for path, folder in _sounds_at(place):
            files.append((path, folder, name))
            if name and names.setdefault(path.resolve(), name) != name:
                raise UserError(f'"{path}" has two names, "{names[path.resolve()]}" and "{name}": pass it once.')
    takes = _labeled(files, names)
    for doubt in describe_doubts(takes):
        warnings.warn(doubt, UserWarning, stacklevel=2)
    sounds: dict[str, list[Path]] = {}
    for take in takes:
        sounds.setdefault(take.label, []).append(take.path)
    return sounds


def find_recordings(given: Iterable[Path], stems: Path | None = None) -> tuple[list[Path], bool]:
    """Find recordings.

    Parameters
    ----------
    given : iterable of Path
        Recordings, folders of recordings, and patterns such as ``*.wav``.
    stems : Path, optional
        The folder for stems. If it lies in a folder of recordings, the stems in it are no recordings.

    Returns
    -------
    recordings : list of Path
        Each recording once. A file that does not exist is among them.
    are_many : bool
        Whether there may be several: whether a folder or a pattern was passed, or more than one file.

    Raises
    ------
    UserError
        If a pattern matches nothing, a folder contains no recording, or a folder is also that of the stems.

    Warns
    -----
    UserWarning
        If recordings in a subfolder are skipped because they are results of many recordings.
    """
    found: dict[str, Path] = {}
    are_many = False
    place = None if stems is None else os.path.realpath(stems)
    for path in given:
        with input_errors():
            is_folder, exists = path.is_dir(), path.exists()
        if is_folder or (not exists and glob.has_magic(str(path))):
            if is_folder and os.path.realpath(path) == place:
                raise UserError(f'The folder "{path}" has the recordings: choose another one for the stems.')
            are_many = True
            sounds = _sounds_at(str(path))
            others = (one for one in sounds if place is None or place not in map(str, one[0].resolve().parents))
            paths = _without_results(others)
        else:
            paths = [path]
        for each in paths:
            found.setdefault(os.path.realpath(each), each)
    if not found:
        raise UserError("All sound files that were found are results of knownmf: pass the folder that has them.")
    return list(found.values()), are_many or len(found) > 1


def _without_results(sounds: Iterable[tuple[Path, Path | None]]) -> list[Path]:
    """Return sound files, without those in subfolders that hold results of many recordings. Say which those are."""
    kept, skipped = [], dict[Path, int]()
    known: dict[Path, bool] = {}
    for sound, folder in sounds:
        inside = [] if folder is None else [parent for parent in sound.parents if folder in parent.parents]
        for parent in inside:
            if parent not in known:
                known[parent] = holds_results(parent)
        results = next((parent for parent in inside if known[parent]), None)
        if results is None:
            kept.append(sound)
        else:
            skipped[results] = skipped.get(results, 0) + 1
    for folder, number in skipped.items():
        warnings.warn(
            f'Skipped {counted(number, "sound file")} in "{folder}", which has results of knownmf: pass the folder '
            "itself to process them.",
            UserWarning,
            stacklevel=2,
        )
    return kept


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


def load_dictionary(path: Path, *, of_sounds: bool = True) -> Dictionary:
    """Return the dictionary in a file.

    Raises
    ------
    UserError
        If it cannot be read, if a label is not valid Unicode, or if it must be a dictionary of sounds and has no
        settings of spectrograms.
    """
    from knownmf.dictionary import Dictionary

    with input_errors():
        dictionary = Dictionary.load(path)
    if of_sounds and not dictionary.settings:
        raise UserError(
            f'"{path}" has no settings of spectrograms (sample rate, length of the window, ...), so that it cannot be '
            "used for recordings: learn a dictionary with `knownmf learn`, or use `knownmf solve` for tables."
        )
    for label in dictionary.names:
        try:
            label.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f'"{path}" has the label "{label}", which is not valid Unicode and could not be written to a file: '
                "learn the dictionary again with another label."
            ) from error
    return dictionary


def _split_name(text: str) -> tuple[str, str]:
    """Split NAME=FILE into the name and the file. The name is empty if there is none."""
    name, separator, place = text.partition("=")
    if not separator or "/" in name or os.sep in name or os.path.lexists(text):
        return "", text
    if not name.strip() or not place:
        raise UserError(f'"{text}" has no {"file" if name.strip() else "name"}: pass NAME=FILE, such as kick=BD01.wav.')
    return _as_label(name, text), os.path.expanduser(place)


def _sounds_at(place: str) -> Iterator[tuple[Path, Path | None]]:
    """Yield each sound file at a path or pattern, and the folder that it was found in, if the user passed a folder."""
    given = Path(place)
    with input_errors():
        exists = given.exists()
    if exists:
        found = [given]
    elif glob.has_magic(place):
        matches = sorted(map(Path, glob.glob(place, recursive=True)))
        found = [path for path in matches if path.is_dir() or path.suffix.lower() in SOUND_ENDINGS]
        if not found:
            what = "sound file" if matches else "file"
            raise UserError(
                f'No {what} matches "{place}": pass sound files, folders of sound files or another pattern.'
            )
    else:
        raise UserError(f'There is no file or folder "{given}": pass sound files, or folders of sound files.')
    for path in found:
        if path.is_dir():
            yield from ((inside, path) for inside in _sounds_in(path))
        else:
            yield path, None


def _sounds_in(folder: Path) -> list[Path]:
    """Return the sound files in a folder and its subfolders, sorted. Links to folders are followed."""
    unreadable: list[OSError] = []
    visited: set[str] = set()
    found: list[Path] = []
    for place, subfolders, files in os.walk(folder, onerror=unreadable.append, followlinks=True):
        visited.add(os.path.realpath(place))
        subfolders[:] = [
            name
            for name in sorted(subfolders)
            if not name.startswith(".") and os.path.realpath(os.path.join(place, name)) not in visited
        ]
        paths = (Path(place, name) for name in files if not name.startswith("."))
        # A broken link is kept, so that it is reported when it is read.
        found += [
            path for path in paths if path.suffix.lower() in SOUND_ENDINGS and (path.is_file() or not path.exists())
        ]
    failed = ", ".join(f'"{error.filename}" ({error.strerror})' for error in unreadable)
    if not found:
        if failed:
            raise UserError(f'No sound file was found in the folder "{folder}". These could not be read: {failed}.')
        raise UserError(
            f'The folder "{folder}" contains no sound file: the name of a sound file ends in '
            f"{', '.join(SOUND_ENDINGS[:-1])} or {SOUND_ENDINGS[-1]}."
        )
    if failed:
        warnings.warn(f"These folders could not be read, and are left out: {failed}.", UserWarning, stacklevel=2)
    return sorted(found)


def _labeled(files: Iterable[tuple[Path, Path | None, str]], names: dict[Path, str]) -> list[Take]:
    """Return files with their labels, each file once.

    Parameters
    ----------
    files : iterable of (path, folder, name)
        The files, the folder that each was found in, if any, and the name that the user passed, if any.
    names : dict of Path to str
        The names that the user passed, by the resolved paths.
    """
    chosen: dict[Path, tuple[Path, Path | None]] = {}
    for path, folder, _ in files:
        chosen.setdefault(path.resolve(), (path, folder))
    by_name = [key for key, (path, folder) in chosen.items() if key not in names and folder in (None, path.parent)]
    stems = [_as_label(chosen[key][0].stem, chosen[key][0]) for key in by_name]
    from_names = dict(zip(by_name, labels_of_names(stems), strict=True))
    spelling = {spelling_key(name): name for name in reversed(names.values())}
    takes = []
    for key, (path, folder) in chosen.items():
        if key in names:
            takes.append(Take(path, names[key], "given"))
            continue
        label, source = from_names.get(key, ""), "name"
        if not label and folder is not None:
            label, source = _as_label(key.parent.name, path), "folder"
        label = label or _as_label(path.stem, path) or "sound"
        takes.append(Take(path, spelling.setdefault(spelling_key(label), label), source))
    return takes


def _as_label(name: str, path: Path | str) -> str:
    """Return a name as a label, without spaces at its ends. Raise if it is not valid Unicode."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f'"{path}": the name is not valid UTF-8, so it cannot be a label. Rename the file or folder, or pass '
            "NAME=FILE, where FILE may be a pattern."
        ) from error
    return unicodedata.normalize("NFC", name).strip()
