"""The commands learn, separate, decompose and transcribe.

Each command is a plain function, so that the command demo can call it too.
"""

import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

import knownmf
from knownmf.cli import options
from knownmf.cli.console import UserError, input_errors, print_line, print_table, progress_bar
from knownmf.cli.inputs import find_sounds, load_dictionary, load_sound
from knownmf.cli.outputs import (
    check_folder,
    check_outputs,
    check_picture,
    file_names,
    write_activations,
    write_events,
    write_folder,
    write_picture,
)
from knownmf.cli.summaries import (
    describe_decomposition,
    describe_dictionary,
    describe_doubt,
    describe_events,
    describe_recording,
)
from knownmf.wording import counted, listed, printable, size_of_memory

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np

    from knownmf.audio import Decomposition, Event
    from knownmf.dictionary import Dictionary

__all__ = ["decompose", "learn", "separate", "transcribe"]

REST = "rest"

# How many file names a row of the table of labels shows.
NAMES_SHOWN = 3

# If a command needs more memory than this, in bytes, it prints how much.
MUCH_MEMORY = 2**30


def learn(
    sounds: options.Sounds,
    *,
    out: options.NewDictionary = None,
    dry_run: options.DryRun = False,
    components: options.Components = None,
    apart: options.Apart = False,
    sr: options.SampleRate = None,
    n_fft: options.WindowLength = None,
    hop_length: options.HopLength = None,
    quiet: options.Quiet = False,
    force: options.Force = False,
) -> None:
    """Learn a dictionary from isolated sounds: recordings of one sound each, such as the samples of a drum kit.

    Files with the same label are takes of one sound and are learned together. The label of a file is its name without
    the numbers and marks of its take: `Kick 01`, `Kick-2` and `Kick_v7_rr2` are takes of "Kick". Notes stay apart: `C4`
    and `C5` are two sounds. If there is `__` in the name, the label is the text before it: `snare__soft` is "snare".
    Files in a subfolder get the name of the subfolder. `NAME=SOUND` overrules all this: `kick='BD*.wav'`.

    Look at the labels first: `knownmf learn samples --dry-run`.
    """
    with input_errors():
        found = find_sounds(sounds)
    paths = [path for takes in found.values() for path in takes]
    if dry_run:
        with progress_bar("Reading", quiet=quiet), input_errors():
            lengths = {label: _seconds(load_sound(path) for path in takes) for label, takes in found.items()}
        print_table(_table_of_labels(found, lengths), quiet=quiet)
        print_line(
            f"{counted(len(found), 'sound')} in {counted(len(paths), 'file')}. Nothing was learned.", quiet=quiet
        )
        return
    if out is None:
        raise UserError("--out is missing: pass the name of the dictionary to write, such as --out drums.npz.")
    check_outputs([out], force=force, inputs=paths, endings=(".npz",))
    with progress_bar("Learning", quiet=quiet) as progress:
        from knownmf import audio

        # The library numbers the takes of a label.
        numbered = {f"take {i} of {label!r}": path for label, files in found.items() for i, path in enumerate(files, 1)}
        with input_errors(numbered):
            takes = {label: [load_sound(path) for path in files] for label, files in found.items()}
            dictionary = audio.learn(
                takes,
                n_components=components,
                pooled=not apart,
                sr=sr,
                n_fft=n_fft,
                hop_length=hop_length,
                progress=progress,
            )
    out.parent.mkdir(parents=True, exist_ok=True)
    dictionary.save(out)
    print_table(
        _table_of_labels(found, {label: _seconds(of_label) for label, of_label in takes.items()}, dictionary),
        quiet=quiet,
    )
    print_line(f"Wrote {out}: {describe_dictionary(dictionary)}", quiet=quiet)
    highest = max(rate for of_label in takes.values() for _, rate in of_label)
    if highest > dictionary.sr:
        reason = "" if sr else ", the lowest sample rate of all files (--sr sets another one)"
        print_line(
            f"Sounds with sample rates of up to {highest} Hz were resampled to {dictionary.sr} Hz{reason}.", quiet=quiet
        )


def separate(
    recording: options.Recording,
    *,
    dictionary: options.DictionaryFile,
    out: options.StemsFolder,
    mask_power: options.MaskPower = 1.5,
    free: options.Free = 0,
    adapt: options.Adapt = 0.0,
    beta_loss: options.Loss = options.LOSS,
    tol: options.Tol = options.TOL,
    max_iter: options.MaxIter = options.MAX_ITER,
    quiet: options.Quiet = False,
    force: options.Force = False,
) -> None:
    """Separate a recording into one file (stem) per sound.

    The stems have the length, the sample rate and the channels of the recording. Their sum is the recording. Everything
    in the recording goes into some stem. If it contains sounds that are not in the dictionary, use --free: they are
    learned from the recording and written to `rest.wav`.

    At the end, the command prints how much of the recording is explained: the share of its energy that the sounds
    reproduce. If it is low, the recording contains other sounds than the dictionary.
    """
    basis = load_dictionary(dictionary)
    names = file_names([*basis.names, *[REST] * (free > 0)], ".wav")
    check_folder(out)
    check_outputs([out / name for name in names.values()], force=force, inputs=[recording, dictionary])
    with progress_bar("Separating", quiet=quiet) as progress:
        from knownmf import audio

        with input_errors({"the dictionary": dictionary, "the recording": recording}):
            y, sr = audio.read(recording)
            _announce_memory(
                audio.separation.separation_memory(y.shape, sr, basis, free), "Separating", recording, quiet
            )
            found = audio.separate(
                y,
                sr,
                basis,
                mask_power=mask_power,
                free=free,
                adapt=adapt,
                beta_loss=beta_loss,
                tol=tol,
                max_iter=max_iter,
                progress=progress,
            )
    write_folder(out, {names[label]: partial(audio.write, y=stem, sr=sr) for label, stem in found.stems.items()})
    _print_summary(found.decomposition, quiet)
    stems = f"{counted(len(names), 'stem')} ({listed(list(names.values()))})"
    length = describe_recording(y.shape[1] / sr, sr, y.shape[0])
    print_line(f"Wrote {stems} into {out}, each with {length}", quiet=quiet)
    written = {*names.values(), recording.name}
    others = sorted(path.name for path in out.glob("*.wav") if path.name not in written)
    if others:
        warnings.warn(
            f'The folder "{out}" also contains {counted(len(others), "other .wav file")} ({listed(others)}), which '
            "this command did not write: only the stems that it wrote add up to the recording.",
            UserWarning,
            stacklevel=2,
        )


def decompose(
    recording: options.Recording,
    *,
    dictionary: options.DictionaryFile,
    out: options.ActivationsFile,
    picture: options.Picture = None,
    free: options.Free = 0,
    adapt: options.Adapt = 0.0,
    beta_loss: options.Loss = options.LOSS,
    tol: options.Tol = options.TOL,
    max_iter: options.MaxIter = options.MAX_ITER,
    quiet: options.Quiet = False,
    force: options.Force = False,
) -> None:
    """Show how strongly each sound is present over time.

    A sound consists of components, which are spectra. An activation says how much of a component there is in a frame, a
    short piece of the recording. The .csv file has one row per frame, with the column `time_s` and one column per
    component. The .npz file, for Python, contains the activations `H`, the basis `W`, `times`, `labels`, `frequencies`
    and, for each frame, how close it is to the best possible result (`gap`, `relative_gap`, `kkt`, `converged`).

    At the end, the command prints how much of the recording is explained: the share of its energy that the sounds
    reproduce. If it is low, the recording contains other sounds than the dictionary.
    """
    basis = load_dictionary(dictionary)
    check_outputs([out], force=force, inputs=[recording, dictionary], endings=(".npz", ".csv"))
    check_picture(picture, force, [recording, dictionary])
    with progress_bar("Decomposing", quiet=quiet) as progress:
        from knownmf import audio

        with input_errors({"the dictionary": dictionary, "the recording": recording}):
            y, sr = audio.read(recording)
            _announce_memory(
                audio.decomposition.decomposition_memory(y.shape, sr, basis), "Decomposing", recording, quiet
            )
            found = audio.decompose(
                y,
                sr,
                basis,
                free=free,
                adapt=adapt,
                beta_loss=beta_loss,
                tol=tol,
                max_iter=max_iter,
                progress=progress,
            )
    settings = {
        "knownmf": knownmf.__version__,
        "beta_loss": beta_loss,
        "tol": tol,
        "explained": found.explained,
        "explained_by_dictionary": found.explained_by_dictionary,
        "free": free,
        "adapt": adapt,
        **basis.settings,
    }
    write_activations(out, found, settings)
    _print_summary(found, quiet)
    n_components, n_frames = found.found.H.shape
    print_line(f"Wrote {out}: {counted(n_components, 'component')} in {counted(n_frames, 'frame')}", quiet=quiet)
    _write_picture(picture, found, None, quiet)


def transcribe(
    recording: options.Recording,
    *,
    dictionary: options.DictionaryFile,
    out: options.EventsFile,
    picture: options.Picture = None,
    beta_loss: options.Loss = options.LOSS,
    tol: options.Tol = options.TOL,
    max_iter: options.MaxIter = options.MAX_ITER,
    threshold: options.Threshold = 0.03,
    threshold_own: options.ThresholdOwn = 0.12,
    threshold_share: options.ThresholdShare = 0.2,
    min_gap_s: options.MinGap = 0.08,
    quiet: options.Quiet = False,
    force: options.Force = False,
) -> None:
    """List the hits or notes of a recording.

    The file has one row per event, with four columns: `onset_s` and `offset_s`, the begin and the end in seconds;
    `label`, the sound; and `strength`, how much louder the sound becomes at the onset, relative to the strongest event
    of the recording, which has 1. If soft events are missing, use smaller thresholds; if there are too many events, use
    larger ones.

    At the end, the command prints how much of the recording is explained: the share of its energy that the sounds
    reproduce. If it is low, the recording contains other sounds than the dictionary.
    """
    basis = load_dictionary(dictionary)
    check_outputs([out], force=force, inputs=[recording, dictionary], endings=(".csv",))
    check_picture(picture, force, [recording, dictionary])
    with progress_bar("Transcribing", quiet=quiet) as progress:
        from knownmf import audio

        with input_errors({"the dictionary": dictionary, "the recording": recording}):
            y, sr = audio.read(recording)
            _announce_memory(
                audio.decomposition.decomposition_memory(y.shape, sr, basis), "Transcribing", recording, quiet
            )
            found = audio.transcribe(
                y,
                sr,
                basis,
                threshold=threshold,
                threshold_own=threshold_own,
                threshold_share=threshold_share,
                min_gap_s=min_gap_s,
                beta_loss=beta_loss,
                tol=tol,
                max_iter=max_iter,
                progress=progress,
            )
    write_events(out, found.events)
    _print_summary(found.decomposition, quiet)
    print_line(f"Wrote {out}: {describe_events(found.events, len(basis.names))}", quiet=quiet)
    _write_picture(picture, found.decomposition, found.events, quiet)


def _seconds(recordings: "Iterable[tuple[np.ndarray, int]]") -> float:
    """Return the total length of recordings in seconds."""
    return sum(y.shape[1] / rate for y, rate in recordings)


def _table_of_labels(
    sounds: dict[str, list[Path]], seconds: dict[str, float], dictionary: "Dictionary | None" = None
) -> Table:
    """Return a table with a row for each sound, with its components or, before learning, the names of its files."""
    table = Table("sound", "files", "seconds", "names of the files" if dictionary is None else "components")
    table.box = box.SIMPLE_HEAD
    for label, paths in sounds.items():
        if dictionary is None:
            last = listed([path.name for path in paths], NAMES_SHOWN)
        else:
            last = str(dictionary.labels.count(label))
        table.add_row(Text(printable(label)), str(len(paths)), f"{seconds[label]:.1f}", Text(printable(last)))
    return table


def _announce_memory(n_bytes: float, what: str, recording: Path, quiet: bool) -> None:
    """Print how much memory a computation takes, if that is much."""
    if n_bytes >= MUCH_MEMORY:
        print_line(f'{what} "{recording}" takes about {size_of_memory(n_bytes)} of memory.', quiet=quiet)


def _write_picture(picture: Path | None, found: "Decomposition", events: "list[Event] | None", quiet: bool) -> None:
    """Draw and write a picture, if one is wanted."""
    if picture is not None:
        from knownmf.plots import decomposition_picture

        with progress_bar("Drawing", quiet=quiet):
            write_picture(picture, decomposition_picture(found, events=events))
        print_line(f"Wrote {picture}: spectrogram, basis, activations and gap", quiet=quiet)


def _print_summary(found: "Decomposition", quiet: bool) -> None:
    """Print how much is explained and how many frames have converged. Warn if the dictionary explains too little."""
    for line in describe_decomposition(found):
        print_line(line, quiet=quiet)
    doubt = describe_doubt(found)
    if doubt is not None:
        warnings.warn(doubt, UserWarning, stacklevel=2)  # printed on standard error, also with --quiet
