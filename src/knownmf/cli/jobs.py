"""What the commands separate, decompose and transcribe do with one recording, and with many of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import operator
import os
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from knownmf.cli.console import UserError, error_message, input_errors
from knownmf.cli.inputs import load_dictionary
from knownmf.cli.manifest import MANIFEST, Manifest
from knownmf.cli.outputs import write_picture
from knownmf.cli.summaries import describe_decomposition, describe_doubt, describe_events, describe_recording
from knownmf.extras import MissingPackageError
from knownmf.files import remove_files, remove_unfinished_in, unique_names
from knownmf.wording import counted, listed, percent
from knownmf.workers import Lost, Share, Workers

if TYPE_CHECKING:
    from knownmf.audio import Summary

__all__ = ["Job", "Outcome", "Report", "attempt", "jobs_in_folder", "run_job", "run_jobs"]

# An error in one recording, or in its results, that does not stop the others.
_ERRORS = (UserError, OSError, MemoryError, FloatingPointError)

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Job:
    """What to do with one recording. It can be pickled.

    Attributes
    ----------
    verb : str
        The name of the function of :mod:`knownmf.audio`: "separate", "decompose" or "transcribe".
    recording, dictionary : Path
        The files to read.
    out : Path
        The file to write, or the folder of the stems.
    picture : Path or None
        The picture to draw.
    options : dict
        The keyword arguments of the function.
    outdated : tuple of str
        The names of earlier results in the folder of the results, which are removed first.
    """

    verb: str
    recording: Path
    dictionary: Path
    out: Path
    picture: Path | None
    options: dict[str, Any]
    outdated: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder that the results are written into."""
        return self.out if self.verb == "separate" else self.out.parent

    def settings(self) -> str:
        """Return a hash of the verb, the options, the names of the results and the dictionary."""
        picture = None if self.picture is None else self.picture.name
        values = [self.verb, self.out.name if self.out.suffix else "", picture, self.options]
        text = json.dumps(values, sort_keys=True).encode()
        return hashlib.sha256(text + self.dictionary.read_bytes()).hexdigest()[:16]

    def absolute(self) -> Self:
        """Return the same job with absolute paths, for a process with another working folder."""
        picture = None if self.picture is None else self.picture.absolute()
        return replace(
            self,
            recording=self.recording.absolute(),
            dictionary=self.dictionary.absolute(),
            out=self.out.absolute(),
            picture=picture,
        )


@dataclass(frozen=True)
class Report:
    """What came out of a job. It can be pickled.

    Attributes
    ----------
    lines : list of str
        What was found and written, in sentences.
    doubt : str or None
        What may be wrong.
    values : dict of str to str
        The cells of the manifest.
    """

    lines: list[str]
    doubt: str | None
    values: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How one of many jobs has ended. It can be pickled.

    Attributes
    ----------
    report : Report or None
        What came out of it; None after an error.
    notes : list of str
        The warnings.
    error : str
        Why it failed.
    traceback : str
        Where it failed, if that is an error in knownmf.
    """

    report: Report | None
    notes: list[str] = field(default_factory=list)
    error: str = ""
    traceback: str = ""


def run_job(job: Job, progress: Progress | None = None) -> Report:
    """Do a job: read the recording in blocks, and write the results.

    Raises
    ------
    UserError
        If the recording or the dictionary cannot be read or used.
    OSError
        If the results cannot be written.
    """
    from knownmf import audio

    start = time.perf_counter()
    dictionary = load_dictionary(job.dictionary)
    with input_errors({"the dictionary": job.dictionary, "the recording": job.recording}, outputs=True):
        result: Any = getattr(audio, job.verb)(
            job.recording, dictionary=dictionary, out=job.out, progress=progress, **job.options
        )
    summary: Summary = result if job.verb == "decompose" else result.decomposition
    lines = describe_decomposition(summary)
    events = result.events if job.verb == "transcribe" else None
    if job.verb == "separate":
        lines.append(_describe_stems(result, job.out))
        _warn_of_other_stems(job, result.stems.values())
    elif job.verb == "decompose":
        frames = counted(summary.n_frames, "frame")
        lines.append(f"Wrote {job.out}: {counted(summary.dictionary.n_components, 'component')} in {frames}")
    else:
        lines.append(f"Wrote {job.out}: {describe_events(result.events, len(dictionary.names))}")
    if job.picture is not None:
        from knownmf.plots import decomposition_picture

        write_picture(job.picture, decomposition_picture(summary, events=events))
        lines.append(f"Wrote {job.picture}: spectrogram, basis, activations and gap")
    values = {
        "seconds": f"{summary.n_samples / summary.sr:.2f}",
        "took_s": f"{time.perf_counter() - start:.2f}",
        "frames": str(summary.n_frames),
        "converged": str(summary.n_converged),
        "tol": f"{summary.tol:g}",
        "worst": f"{summary.worst:.3g}",
        "explained": "" if summary.is_silent else f"{summary.explained:.4f}",
        "explained_by_dictionary": "" if summary.is_silent else f"{summary.explained_by_dictionary:.4f}",
        "outputs": json.dumps(_sizes_of([*(result.stems.values() if job.verb == "separate" else [job.out])], job)),
    }
    return Report(lines, describe_doubt(summary), values)


def jobs_in_folder(job: Job, recordings: Sequence[Path], folder: Path, name: str) -> list[Job]:
    """Return a job for each recording, each of which writes into a folder of its own inside `folder`.

    A recording that the manifest in `folder` names keeps its folder.

    Parameters
    ----------
    job : Job
        What to do. Its recording is replaced.
    recordings : sequence of Path
        The recordings.
    folder : Path
        The folder for all results.
    name : str
        The name of the file to write; empty for the verb "separate", which writes several.
    """
    manifest = Manifest(folder)
    names = manifest.folders()
    new = [path for path in recordings if manifest.name_of(path) not in names]
    names |= zip(
        map(manifest.name_of, new), unique_names([path.stem for path in new], [MANIFEST, *names.values()]), strict=True
    )
    jobs = []
    for path in recordings:
        own = folder / names[manifest.name_of(path)]
        picture = None if job.picture is None else own / job.picture.name
        jobs.append(replace(job, recording=path, out=own / name if name else own, picture=picture))
    return jobs


def run_jobs(
    jobs: Sequence[Job],
    folder: Path,
    *,
    resume: bool,
    workers: contextlib.AbstractContextManager[Workers | None],
    progress: Progress,
    announce: Callable[[str], None],
) -> tuple[int, dict[Path, Outcome]]:
    """Do jobs, one after another or in several processes. An error in one of them does not stop the others.

    The manifest gets a row when a job begins and one when it ends; at the end of all jobs, it has one row for each
    recording.

    Parameters
    ----------
    jobs : sequence of Job
        The jobs.
    folder : Path
        The folder of the manifest.
    resume : bool
        Whether to skip jobs that are finished: those with the same recording, dictionary and options.
    workers : context manager
        Opens the processes for the jobs, or None to do them in this process.
    progress : callable
        Called as ``progress(done, total)`` in bytes of all recordings.
    announce : callable
        Called with a line of text when a job is finished.

    Returns
    -------
    n_skipped : int
        The number of jobs that were skipped.
    failed : dict of Path to Outcome
        The recordings that failed, and why.
    """
    manifest = Manifest(folder)
    folder.mkdir(parents=True, exist_ok=True)
    manifest.save()
    rows = [manifest.new_row(job.recording, os.path.relpath(job.folder, folder), job.settings()) for job in jobs]
    sizes = [int(row["bytes"] or 0) for row in rows]
    # Results of another recording or of other options must not stay beside a failure.
    to_do = {
        index: replace(job, outdated=tuple(manifest.outputs(job.recording)))
        for index, job in enumerate(jobs)
        if not (resume and manifest.is_finished(rows[index]))
    }
    done = [float(index not in to_do) for index in range(len(jobs))]  # how much of each job, from 0 to 1
    begun, left = set[int](), set(to_do)

    def move(index: int, share: float) -> None:
        if index not in begun:
            begun.add(index)
            manifest.begin(rows[index])
        done[index] = share
        progress(int(sum(map(operator.mul, sizes, done))), sum(sizes))

    def clean() -> None:
        for index in left:  # processes that were killed could not do it
            _remove_unfinished(jobs[index])

    failed = {}
    with contextlib.ExitStack() as opened:
        opened.callback(clean)  # after the processes have ended
        processes = opened.enter_context(workers)
        outcomes = _done_here(to_do, move) if processes is None else _done_by(processes, to_do, move, sizes)
        for index, outcome in opened.enter_context(contextlib.closing(outcomes)):
            move(index, 1.0)
            left.remove(index)
            job, report = jobs[index], outcome.report
            if report is None:
                failed[job.recording] = outcome
                manifest.end(rows[index], "failed", message=outcome.error)
                continue
            message = " ".join([*([report.doubt] if report.doubt else []), *outcome.notes])
            manifest.end(rows[index], "finished", message=message, **report.values)
            announce(_describe_report(job, report))
            for note in outcome.notes:
                named = note if str(job.recording) in note else f"{job.recording}: {note}"
                warnings.warn(named, UserWarning, stacklevel=2)
    manifest.save()
    progress(sum(sizes), sum(sizes))
    return len(jobs) - len(to_do), failed


def attempt(job: Job, progress: Progress) -> Outcome:
    """Do one of many jobs: an error becomes an outcome, and warnings are collected.

    Raises
    ------
    MissingPackageError
        If a package is not installed.
    """
    try:
        remove_files(job.folder / Path(name).name for name in job.outdated)
        remove_unfinished_in(job.folder)
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always", UserWarning)
            report = run_job(job, progress)
    except MissingPackageError:  # it would be missing for all others, too
        raise
    except _ERRORS as error:
        return Outcome(None, error=error_message(error))
    except Exception as error:  # noqa: BLE001, it must not stop the others, and is reported with its traceback
        message = f"an error in knownmf, please report it ({type(error).__name__}: {error})."
        return Outcome(None, error=message, traceback="".join(traceback.format_exception(error)))
    return Outcome(report, [str(note.message) for note in notes])


def _done_here(
    to_do: Mapping[int, Job], move: Callable[[int, float], None]
) -> Generator[tuple[int, Outcome], None, None]:
    """Do jobs one after another. Yield their numbers and how they have ended."""
    for index, job in to_do.items():
        move(index, 0.0)

        def progress(n_done: int, n: int, index: int = index) -> None:
            move(index, n_done / max(n, 1))

        yield index, attempt(job, progress)


def _done_by(
    workers: Workers, to_do: Mapping[int, Job], move: Callable[[int, float], None], sizes: Sequence[int]
) -> Generator[tuple[int, Outcome], None, None]:
    """Do jobs in several processes. Yield their numbers and how they have ended."""
    # The largest recordings come first, so that no worker is left with one of them at the end.
    ordered = sorted(to_do.items(), key=lambda one: sizes[one[0]], reverse=True)
    with contextlib.closing(workers.run(attempt, [job for _, job in ordered])) as events:
        try:
            for place, event in events:
                index, job = ordered[place]
                if isinstance(event, Share):
                    move(index, event.value)
                elif isinstance(event, Lost):
                    _remove_unfinished(job)
                    yield index, Outcome(None, error=_LOST.format(event.n_workers))
                else:
                    yield index, event
        except ConnectionError as error:
            raise ConnectionError(f"{error}: continue with --resume when that is mended.") from error


_LOST = "{} processes have ended while they worked on it, one after another: see whether there was too little memory."


def _remove_unfinished(job: Job) -> None:
    """Remove what a process that was killed has left behind."""
    remove_unfinished_in(job.folder)
    with contextlib.suppress(OSError):  # there are other files in it, or it does not exist
        job.folder.rmdir()


def _sizes_of(paths: Sequence[Path], job: Job) -> dict[str, int]:
    """Return the names of the files that a job has written, and their sizes in bytes; -1 for folders."""
    written = [*paths, *([job.picture] if job.picture is not None else [])]
    return {path.name: -1 if path.is_dir() else path.stat().st_size for path in written}


def _describe_report(job: Job, report: Report) -> str:
    """Return a line about a job that is finished."""
    values = report.values
    converged = percent(int(values["converged"]) / int(values["frames"]))
    explained = f"{percent(float(values['explained']))} explained" if values["explained"] else "silent"
    if report.doubt and values["explained"]:
        explained += "; these may be other sounds than those of the dictionary"
    return (
        f"{job.recording}: {explained}; {converged} of {values['frames']} frames converged; "
        f"{float(values['seconds']):.1f} s in {float(values['took_s']):.1f} s"
    )


def _describe_stems(result: Any, out: Path) -> str:
    """Return a line about the stems that were written."""
    summary = result.decomposition
    files = [path.name for path in result.stems.values()]
    stems = f"{counted(len(files), 'stem')} ({listed(files)})"
    length = describe_recording(summary.n_samples / summary.sr, summary.sr, summary.n_channels)
    large = ", in the format RF64, which is WAV for files of any size" if result.format == "RF64" else ""
    return f"Wrote {stems} into {out}, each with {length}{large}"


def _warn_of_other_stems(job: Job, stems: Iterable[Path]) -> None:
    """Warn if there are other stems in the folder."""
    written = {*(path.name for path in stems), job.recording.name}
    others = sorted(path.name for path in job.out.glob("*.wav") if path.name not in written)
    if others:
        warnings.warn(
            f'The folder "{job.out}" also contains {counted(len(others), "other .wav file")} ({listed(others)}), which '
            "this command did not write: only the stems that it wrote add up to the recording.",
            UserWarning,
            stacklevel=2,
        )
