"""Derive the labels of sounds from the names of their files, as sample packs name them.

A label is a sound, and the files with the same label are its takes. `docs/sounds.md` describes the rule for users.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from knownmf.wording import counted, listed

__all__ = ["Take", "describe_doubts", "labels_of_names", "spelling_key"]

# The characters between the parts of a name.
_GAP = r"[\s_\-.,;+&~@=!()\[\]{}]"

# A note with its octave: C4, A#3, Bb2, As3 and Ais3 (A sharp), F#-1. A hyphen without an accidental, as in C-1, needs a
# capital letter and no hyphen before it: the last part of "kick-a-1" is a number.
_NOTE = r"(?:[A-Ga-g](?:(?:[#♯♭bs]|is|sharp|flat)-?)?\d|(?<!-)[A-G]-\d)"

# Marks of a take that are followed by a number: velocity, round robin, take, layer, variation.
_MARK = r"(?:v|vl|vel|velo|velocity|rr|take|tk|alt|layer|lyr|var|variation|version|no)"
_MARKS = rf"(?:{_MARK}\d+)+"

_PART = re.compile(
    rf"(?:^|(?<={_GAP}))(?P<note>{_NOTE})(?P<of_note>(?i:{_MARKS}))?(?=$|{_GAP})|(?P<other>(?:(?!{_GAP}).)+)"
)
_GLUED_NOTE = re.compile(r".*[a-z](?:[A-G][#♯♭b]?\d)")  # PianoC4
_NUMBERED = re.compile(r"([^\W\d]+)(\d+)")  # BD0010, but not "C4B4"
_INDEX = re.compile(r"0\d{1,3}|\d{1,2}")  # "01 Kick", or the number of the key: "36 Kick"
_FREESOUND = re.compile(r"\d+__.+?__(.*[^\W\d_].*)")  # number__user__name

# Words for how hard a sound was played. Some count only at the end of a name ("Soft Pad" is a sound), some only with a
# note ("p" may be a pedal, "f" a key, "medium" a size), some only after a note ("piano" is an instrument).
_DYNAMICS = {"ppp", "pp", "mp", "mf", "ff", "fff", "fortissimo", "pianissimo", "forte", "mezzoforte", "mezzopiano"}
_DYNAMICS_AT_END = {"softest", "soft", "hard", "hardest", "loud", "quiet"}
_WORDS_WITH_NOTE = {"p", "f", "med", "medium"}
_WORDS_AFTER_NOTE = {"piano", "mezzo", "normal"}

# Words for drums, in the names of files. Two of them in a folder are a sign that the folder is a kit, not a sound.
_DRUMS = re.compile(
    r"(?<![^\W\d_])(kick|bd|bass ?drum|snare|sd|clap|hi-?hat|hat|hh|tom|crash|ride|cymbal|rim|cowbell|shaker|conga)"
    r"(?=$|[\W\d_s])",
    re.IGNORECASE,
)

# Drum machines: these numbers are names, not takes.
_MACHINES = {"505", "606", "626", "707", "727", "808", "909"}

# From how many files or labels on a result is reported as doubtful. Ad hoc, chosen on the packs in
# tests/test_cli_names.py: fewer are ordinary, for example the three toms of a kit.
_SAME_BUT_NUMBER = 3
_ONE_SOUND = 8
_SINGLE_FILES = 24
_SAME_FIRST_WORD = 4
_LOWEST_KEY = 20  # takes are counted from 0 or 1; keys of a piano have the MIDI numbers 21 to 108

_SHOWN = 3  # how many names a message lists


@dataclass(frozen=True)
class Take:
    """A sound file and its label.

    Attributes
    ----------
    path : Path
        The file.
    label : str
        The sound that it is a take of.
    source : {"given", "name", "folder"}
        Where the label comes from: the user passed NAME=FILE, the name of the file, or the name of its folder.
    """

    path: Path
    label: str
    source: str


def labels_of_names(names: Iterable[str]) -> list[str]:
    """Return the label of each file name.

    Numbers at the end, marks of velocity, round robin and takes, and words for dynamics are left out; names of notes
    are kept. A number with one or two digits in front of a name, or one that begins with 0, is left out, too.

    Parameters
    ----------
    names : iterable of str
        The names of files that belong together, without their endings.

    Returns
    -------
    list of str
        The labels. A label is empty if nothing but numbers and marks is in the name.

    Examples
    --------
    >>> labels_of_names(["Kick-1", "BD_03_v7", "snare__a", "Piano.ff.C4", "A#3 rr2", "36 Kick", "007"])
    ['Kick', 'BD', 'snare', 'Piano.C4', 'A#3', 'Kick', '']
    """
    read = [_label_and_dynamics(name) for name in names]
    with_dynamics = {label.casefold() for label, dynamics in read if dynamics}
    labels = []
    for label, _ in read:
        base = re.sub(rf"{_GAP}+(p|f|med|medium)$", "", label, flags=re.IGNORECASE)
        labels.append(base if base.casefold() in with_dynamics else label)
    return labels


def spelling_key(label: str) -> str:
    """Return a text that is the same for labels that differ in upper case and in the characters between words only."""
    return re.sub(rf"{_GAP}+", " ", label.casefold())


def describe_doubts(takes: Sequence[Take]) -> list[str]:
    """Return a sentence for each sign that the labels of files are not what the user wants.

    Parameters
    ----------
    takes : sequence of Take
        The files with their labels. Labels that the user passed are not doubted.

    Returns
    -------
    list of str
        Complete sentences, each with advice. Empty if nothing looks wrong.

    Examples
    --------
    >>> packs = [Take(Path(f"kit/{name}.wav"), name, "name") for name in ("Kick 1 dry", "Kick 2 dry", "Kick 3 dry")]
    >>> describe_doubts(packs)
    ['3 sounds differ from another one only in a number or letter ("Kick 1 dry", "Kick 2 dry", "Kick 3 dry"). If ...
    """
    sounds: dict[str, list[Take]] = {}
    for take in takes:
        if take.source != "given":
            sounds.setdefault(take.label, []).append(take)
    only_one = len({take.label for take in takes}) == 1
    folders = _doubts_about_folders(sounds, only_one)
    return [*folders, *([] if folders else _doubts_about_merged(sounds, only_one)), *_doubts_about_split(sounds)]


def _label_and_dynamics(name: str) -> tuple[str, bool]:
    """Return the label of a file name, and whether a word for dynamics was left out."""
    name = re.sub(r"round[\s_-]*robin", "rr", name, flags=re.IGNORECASE)
    freesound = _FREESOUND.fullmatch(name)
    if freesound:
        name = freesound[1]
    else:
        before, separator, _ = name.partition("__")
        if separator and before.strip():
            return before.strip(), False
    parts = list(_PART.finditer(name))
    if len(parts) > 1 and _INDEX.fullmatch(parts[0][0]) and re.search(r"[^\W\d]", name[parts[0].end() :]):
        del parts[0]
    kept, dynamics = _kept_parts(parts)
    if not kept or (len(kept) == 1 and kept[0][1].casefold() in _DYNAMICS | _DYNAMICS_AT_END):
        return "", False
    if [text for _, text in kept] == [part[0] for part in _PART.finditer(name)]:
        return name.strip(), False
    label = ""
    for part, text in kept:
        gap = re.search(rf"{_GAP}*$", name[: part.start()])
        between = re.sub(r"[()\[\]{}]", "", gap[0] if gap else "") or " "
        label += (between if label else "") + text
    return label, dynamics


def _kept_parts(parts: Sequence[re.Match[str]]) -> tuple[list[tuple[re.Match[str], str]], bool]:
    """Return the parts of a name that belong to the label, with their text, and whether dynamics were left out."""
    notes = [n for n, part in enumerate(parts) if part["note"] or _GLUED_NOTE.fullmatch(part[0])]
    last_note = max(notes, default=len(parts))
    kept: list[tuple[re.Match[str], str]] = []
    dynamics, before_number = False, False
    for n in reversed(range(len(parts))):
        part, word = parts[n], parts[n][0].casefold()
        at_end = not kept or n > last_note
        numbered = _NUMBERED.fullmatch(part[0])
        if n in notes:
            kept.append((part, part["note"] or part[0]))
        elif re.fullmatch(_MARKS, word) or (at_end and _is_number(word)):
            before_number = True
        elif at_end and ((n and word in ("rr", "copy")) or (before_number and re.fullmatch(_MARK, word))):
            before_number = False
        elif n and _is_dynamics(word, at_end=at_end, with_note=bool(notes), after_note=n > last_note):
            dynamics, before_number = True, False
        elif not kept and numbered and numbered[2] not in _MACHINES:
            kept.append((part, numbered[1]))
        else:
            kept.append((part, part[0]))
    kept.reverse()
    return kept, dynamics


def _is_number(word: str) -> bool:
    """Return whether a part of a name is a number that does not name a drum machine."""
    return word.removeprefix("#").isdecimal() and word not in _MACHINES


def _is_dynamics(word: str, *, at_end: bool, with_note: bool, after_note: bool) -> bool:
    """Return whether a part of a name says how hard the sound was played."""
    if word in _WORDS_AFTER_NOTE:
        return after_note
    if word in _WORDS_WITH_NOTE:
        return with_note
    return word in _DYNAMICS or (at_end and word in _DYNAMICS_AT_END)


def _doubts_about_folders(sounds: dict[str, list[Take]], only_one: bool) -> list[str]:
    """Report folders that are one sound, but whose files are named like different notes or different drums."""
    folders: dict[Path, set[str]] = {}
    for takes in sounds.values():
        by_folder = [take for take in takes if take.source == "folder"]
        for take, label in zip(by_folder, labels_of_names(take.path.stem for take in by_folder), strict=True):
            if label:
                folders.setdefault(take.path.parent, set()).add(label)
    doubted = {
        folder: labels
        for folder, labels in folders.items()
        if len(labels) > 1
        and (
            only_one
            or sum(map(_has_note, labels)) > 1
            or len({drum.casefold() for label in labels for drum in _DRUMS.findall(label)}) > 1
        )
    }
    if not doubted:
        return []
    first = next(iter(doubted))
    others = f" (and likewise in {counted(len(doubted) - 1, 'other folder')})" if len(doubted) > 1 else ""
    return [
        f'All files in the folder "{first}" count as one sound, although their names are '
        f"{_listed(sorted(doubted[first]))}{others}. If these are different sounds, pass this folder instead of the "
        "one that contains it."
    ]


def _doubts_about_merged(sounds: dict[str, list[Take]], only_one: bool) -> list[str]:
    """Report sounds whose takes may be different sounds: all files are one sound, or are numbered like keys."""
    doubts = []
    for label, takes in sounds.items():
        names = [take.path.stem for take in takes if "__" not in take.path.stem]
        numbers = {int(found[-1]) for name in names if (found := re.findall(r"\d+", name))}
        keys = len(numbers) == len(names) and _LOWEST_KEY < min(numbers, default=0) <= max(numbers, default=0) < 128
        if (only_one or keys) and len(names) >= _ONE_SOUND:
            doubts.append(
                f'{len(takes)} files count as one sound, "{label}" ({_listed(names)}). If they are different sounds, '
                'such as notes, name them by their notes ("C4"), or pass each as NAME=FILE.'
            )
    return doubts


def _doubts_about_split(sounds: dict[str, list[Take]]) -> list[str]:
    """Report sounds that may be takes of one sound: their labels differ in a number only, or each has one file."""
    folders = {
        label: takes[0].path.parent
        for label, takes in sounds.items()
        if all(take.source == "name" for take in takes) and not _has_note(label)
    }
    groups = [labels for labels in _alike(list(folders)) if len(labels) >= _SAME_BUT_NUMBER]
    if groups:
        labels = [label for group in groups for label in group]
        start, end = _shared_start(groups[0]), _shared_start([label[::-1] for label in groups[0]])[::-1]
        example = _example(start, f"{start}*{end}*" if end else f"{start}*", folders[labels[0]])
        return [
            f"{len(labels)} sounds differ from another one only in a number or letter ({_listed(labels)}). If they are "
            f"takes of one sound, pass them as NAME=FILE: {example}."
        ]
    single = [label for label in folders if len(sounds[label]) == 1]
    if len(single) <= len(sounds) / 2:
        return []
    shared = re.match(rf".*{_GAP}|", _shared_start(single))
    skipped = len(shared[0]) if shared else 0
    first_words = Counter(re.split(_GAP, label[skipped:])[0] for label in single)
    word, count = first_words.most_common(1)[0]
    if len(single) < _SINGLE_FILES and not (count >= _SAME_FIRST_WORD and len(single) >= 3 * len(first_words)):
        return []
    folder = next(folders[label] for label in single if label[skipped:].startswith(word))
    example = f": {_example(word, f'{single[0][:skipped]}{word}*', folder)}" if count > 1 else ""
    return [
        f"{len(single)} of {len(sounds)} sounds have one file each ({_listed(single)}). If several files are takes of "
        f"one sound, pass them as NAME=FILE{example}."
    ]


def _alike(labels: Sequence[str]) -> list[list[str]]:
    """Return labels in groups that differ only in numbers, or in a single letter at the end."""
    # L, M, H and R at the end are low, middle and high, or left and right. Beside A#, the letter A is a key.
    keys = any(re.search(rf"(?:^|{_GAP})[A-G][#♯♭b]$", label) for label in labels)
    varying = r"\d+" if keys else rf"\d+|(?<={_GAP})[a-gi-kn-qs-z]$"
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(re.sub(varying, "#", spelling_key(label)), []).append(label)
    return list(groups.values())


def _example(name: str, pattern: str, folder: Path) -> str:
    """Return an example of NAME=FILE."""
    return f'"{name.strip(" _-.0123456789") or "NAME"}={folder / pattern}"'


def _has_note(label: str) -> bool:
    """Return whether a label contains the name of a note."""
    return any(part["note"] or _GLUED_NOTE.fullmatch(part[0]) for part in _PART.finditer(label))


def _shared_start(names: Sequence[str]) -> str:
    """Return the longest text that all names begin with."""
    first, last = min(names), max(names)
    n = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:n]


def _listed(names: Sequence[str]) -> str:
    """Return the first names in quotation marks, and how many more there are."""
    return listed([f'"{name}"' for name in names], _SHOWN)
