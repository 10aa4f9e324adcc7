"""The commands learn, separate, decompose and transcribe.

Each command is a plain function, so that the command demo can call it too.
"""

import warnings
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from knownmf.cli import options
from knownmf.cli.console import (
    UserError,
    input_errors,
    print_failure,
    print_line,
    print_table,
    print_traceback,
    progress_bar,
)
from knownmf.cli.inputs import find_recordings, find_sounds, load_dictionary, load_sound
from knownmf.cli.jobs import Job, jobs_in_folder, run_job, run_jobs
from knownmf.cli.manifest import MANIFEST, Manifest
from knownmf.cli.outputs import (
    REPLACE_MANY,
    RESUME,
    check_bare_name,
    check_folder,
    check_outputs,
    check_picture,
    folder_and_name,
)
from knownmf.cli.summaries import describe_dictionary
from knownmf.files import created_folder, sole_user
from knownmf.wording import counted, listed, printable
from knownmf.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

    import numpy as np

    from knownmf.dictionary import Dictionary

__all__ = ["decompose", "learn", "separate", "transcribe"]


# How many file names a row of the table of labels shows.
NAMES_SHOWN = 3


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
    with created_folder(out.parent):
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
    recordings: options.Recordings,
    *,
    dictionary: options.DictionaryFile,
    out: options.StemsFolder,
    mask_power: options.MaskPower = 1.5,
    free: options.Free = 0,
    adapt: options.Adapt = 0.0,
    beta_loss: options.Loss = options.LOSS,
    tol: options.Tol = options.TOL,
    max_iter: options.MaxIter = options.MAX_ITER,
    resume: options.Resume = False,
    workers: options.Workers = None,
    scheduler: options.Scheduler = None,
    quiet: options.Quiet = False,
    force: options.Force = False,
) -> None:
    """Separate recordings into one file (stem) per sound.

    The stems have the length, the sample rate and the channels of the recording. Their sum is the recording. Everything
    in the recording goes into some stem. If it contains sounds that are not in the dictionary, use --free: they are
    learned from the recording and written to `rest.wav`. Stems of more than 4 GB are written in the format RF64.

    At the end, the command prints how much of the recording is explained: the share of its energy that the sounds
    reproduce. If it is low, the recording contains other sounds than the dictionary.
    """
    basis = load_dictionary(dictionary)
    from knownmf.audio.separation import allow_stems, stem_names

    names = list(stem_names(basis, free).values())
    allow_stems(names)
    settings = {
        "mask_power": mask_power, "free": free, "adapt": adapt, "beta_loss": beta_loss, "tol": tol, "max_iter": max_iter
    }  # fmt: skip
    how = _How(resume, workers, scheduler, quiet, force)
    job = Job("separate", recordings[0], dictionary, out, None, settings)
    _do("Separating", job, recordings, lambda one: [one.out / name for name in names], (), how)


def decompose(
    recordings: options.Recordings,
    *,
    dictionary: options.DictionaryFile,
    out: options.ActivationsFile,
    picture: options.Picture = None,
    free: options.Free = 0,
    adapt: options.Adapt = 0.0,
    beta_loss: options.Loss = options.LOSS,
    tol: options.Tol = options.TOL,
    max_iter: options.MaxIter = options.MAX_ITER,
    resume: options.Resume = False,
    workers: options.Workers = None,
    scheduler: options.Scheduler = None,
    quiet: options.Quiet = False,
    force: options.Force = False,
) -> None:
    """Show how strongly each sound is present over time.

    A sound consists of components, which are spectra. An activation says how much of a component there is in a frame, a
    short piece of the recording. The .csv file has one row per frame, with the column `time_s` and one column per
    component. The .npz file, for Python, contains the activations `H`, the basis `W`, `times`, `labels`, `frequencies`
    and, for each frame, how close it is to the best possible result (`gap`, `relative_gap`, `kkt`, `converged`). It may
    have up to 2 GiB of activations. A .zarr folder has the same contents, and may be of any length.

    At the end, the command prints how much of the recording is explained: the share of its energy that the sounds
    reproduce. If it is low, the recording contains other sounds than the dictionary.
    """
    load_dictionary(dictionary)
    settings = {"free": free, "adapt": adapt, "beta_loss": beta_loss, "tol": tol, "max_iter": max_iter}
    how = _How(resume, workers, scheduler, quiet, force)
    job = Job("decompose", recordings[0], dictionary, out, picture, settings)
    endings = (".npz", ".zarr", ".csv")
    _do("Decomposing", job, recordings, lambda one: [one.out], endings, how)


def transcribe(
    recordings: options.Recordings,
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
    resume: options.Resume = False,
    workers: options.Workers = None,
    scheduler: options.Scheduler = None,
    quiet: options.Quiet = False,
    force: options.Force = False,
) -> None:
    """List the hits or notes of recordings.

    The file has one row per event, with four columns: `onset_s` and `offset_s`, the begin and the end in seconds;
    `label`, the sound; and `strength`, how much louder the sound becomes at the onset, relative to the strongest event
    of the recording, which has 1. If soft events are missing, use smaller thresholds; if there are too many events, use
    larger ones.

    At the end, the command prints how much of the recording is explained: the share of its energy that the sounds
    reproduce. If it is low, the recording contains other sounds than the dictionary.
    """
    load_dictionary(dictionary)
    settings = {
        "beta_loss": beta_loss, "tol": tol, "max_iter": max_iter, "threshold": threshold,
        "threshold_own": threshold_own, "threshold_share": threshold_share, "min_gap_s": min_gap_s,
    }  # fmt: skip
    how = _How(resume, workers, scheduler, quiet, force)
    job = Job("transcribe", recordings[0], dictionary, out, picture, settings)
    _do("Transcribing", job, recordings, lambda one: [one.out], (".csv",), how)


# The name of the file in the folder of each of many recordings, by the verb.
_FILES = {"separate": "", "decompose": "activations.npz", "transcribe": "events.csv"}


class _How(NamedTuple):
    """The options of the same names that all verbs have."""

    resume: bool
    workers: int | None
    scheduler: str | None
    quiet: bool
    force: bool

    @property
    def is_for_many(self) -> bool:
        """Whether there is a folder for each recording, and a manifest, also if there is one recording."""
        return self.resume or self.workers is not None or self.scheduler is not None


def _do(
    title: str,
    job: Job,
    recordings: "Sequence[Path]",
    outputs: "Callable[[Job], list[Path]]",
    endings: tuple[str, ...],
    how: _How,
) -> None:
    """Do a job with one recording, or the same job with each of several ones.

    Parameters
    ----------
    title : str
        The text in front of the progress bar.
    job : Job
        What to do. Its recording is replaced.
    recordings : sequence of Path
        The recordings, folders and patterns that the user passed.
    outputs : callable
        Returns the files that a job writes, besides a picture.
    endings : tuple of str
        The possible endings of the file to write; empty if a folder is written.
    how : _How
        How to do it.
    """
    recordings, are_many = find_recordings(recordings, None if endings else job.out)
    if are_many or how.is_for_many:
        folder, name = folder_and_name(job.out, endings, _FILES[job.verb])
        check_folder(folder)
        check_bare_name(job.picture)
        with created_folder(folder), sole_user(folder):
            _do_many(title, job, recordings, outputs, folder, name, how)
        return
    job = replace(job, recording=recordings[0])
    if not endings:
        check_folder(job.out)
    check_outputs(outputs(job), force=how.force, inputs=[job.recording, job.dictionary], endings=endings)
    check_picture(job.picture, how.force, [job.recording, job.dictionary])
    with progress_bar(title, quiet=how.quiet) as progress:
        report = run_job(job, progress)
    for line in report.lines:
        print_line(line, quiet=how.quiet)
    if report.doubt is not None:
        warnings.warn(report.doubt, UserWarning, stacklevel=2)  # printed on standard error, also with --quiet


def _do_many(
    title: str,
    job: Job,
    recordings: "Sequence[Path]",
    outputs: "Callable[[Job], list[Path]]",
    folder: Path,
    name: str,
    how: _How,
) -> None:
    """Do a job with each of several recordings; see :func:`_do` and :func:`jobs_in_folder`."""
    jobs = jobs_in_folder(job, recordings, folder, name)
    if how.scheduler is not None:  # the workers may have another working folder
        jobs = [each.absolute() for each in jobs]
    _check_results(jobs, Manifest(folder), [*recordings, job.dictionary], outputs, how)
    workers = _workers(how)
    with progress_bar(title, quiet=how.quiet) as progress:
        n_skipped, failed = run_jobs(
            jobs,
            folder,
            resume=how.resume,
            workers=workers,
            progress=progress,
            announce=partial(print_line, quiet=how.quiet),
        )
    for recording, outcome in failed.items():
        is_named = f'"{recording}"' in outcome.error
        print_failure(outcome.error if is_named else f"{recording}: {outcome.error}")
        if outcome.traceback:
            print_traceback(outcome.traceback)
    n_done = len(jobs) - n_skipped - len(failed)
    skipped = f", {n_skipped} skipped, which were finished before" if n_skipped else ""
    print_line(
        f"{counted(n_done, 'recording')} finished{skipped}, {len(failed)} failed. {folder / MANIFEST} lists them.",
        quiet=how.quiet,
    )
    if failed:
        raise typer.Exit(1)


def _check_results(
    jobs: "Sequence[Job]",
    manifest: Manifest,
    inputs: "Sequence[Path]",
    outputs: "Callable[[Job], list[Path]]",
    how: _How,
) -> None:
    """Raise if results of many recordings must not be written; --resume replaces those of the same job only."""
    check_outputs([manifest.path], force=how.force or how.resume, inputs=inputs, remedy=RESUME)
    remedy = REPLACE_MANY if how.resume else RESUME
    others = []
    for job in jobs:
        is_same = how.resume and manifest.settings(job.recording) == job.settings()
        if how.resume and not (is_same or how.force) and manifest.outputs(job.recording):
            others.append(job.folder.name)
            continue
        check_outputs(outputs(job), force=how.force or is_same, inputs=inputs, remedy=remedy)
        check_picture(job.picture, how.force or is_same, inputs, remedy)
    if others:
        raise UserError(
            f'"{manifest.path.parent}" has results of another command, of other options or of another dictionary '
            f"({listed(others, NAMES_SHOWN)}): {REPLACE_MANY}."
        )


def _workers(how: _How) -> "AbstractContextManager[Workers | None]":
    """Return the processes that the user asked for."""
    if how.workers is not None and how.scheduler is not None:
        raise UserError("--workers and --scheduler exclude each other: a cluster has its own workers.")
    if how.scheduler is not None:
        return _connected(how.scheduler)
    return nullcontext() if how.workers is None else Workers(how.workers)


def _connected(address: str) -> Workers:
    """Return the workers of a Dask cluster."""
    try:
        return Workers(scheduler=address)
    except (OSError, ValueError) as error:
        raise UserError(
            f"--scheduler {address}: {error}. Pass the address that `dask scheduler` prints when it starts, such as "
            "tcp://192.168.0.1:8786."
        ) from error


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
