"""The commands learn, separate, decompose, transcribe and info.

Each command is a plain function, so that the command demo can call it too.
"""

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

import knownmf
from knownmf.cli.console import CommandGroup, UserError, input_errors, print_line, print_table, progress_bar
from knownmf.cli.inputs import find_sounds, load_dictionary, load_sound, parse_loss
from knownmf.cli.outputs import (
    check_folder,
    check_outputs,
    file_names,
    write_activations,
    write_events,
    write_folder,
    write_picture,
)
from knownmf.cli.summaries import describe_decomposition, describe_dictionary, describe_recording
from knownmf.extras import audio_extra
from knownmf.memory import check_memory, in_bytes
from knownmf.wording import counted

if TYPE_CHECKING:
    import numpy as np

    from knownmf.audio import Decomposition, Event
    from knownmf.dictionary import Dictionary

    Sounds = dict[str, list[tuple[np.ndarray, int]]]

__all__ = ["Force", "Quiet", "app", "decompose", "info", "learn", "separate", "transcribe"]

# The defaults of knownmf.audio, which is too slow to import here. tests/test_cli.py tests that they are equal.
LOSS = "kullback-leibler"
TOL = 1e-4
MAX_ITER = 200
MASK_POWER = 1.5
REST = "rest"
PICTURES = (".png", ".pdf", ".svg")
MUCH_MEMORY = 2**30  # bytes: the commands say it before they take more

app = typer.Typer(
    cls=CommandGroup,
    help="Separate a recording into sounds of which you have examples.",
    epilog="Start with: knownmf learn kick.wav snare.wav hat.wav --out drums.npz",
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Recording = Annotated[
    Path, typer.Argument(metavar="RECORDING", help="The recording: a WAV, FLAC, OGG or MP3 file, ...")
]
Basis = Annotated[
    Path, typer.Option("--dictionary", "-d", help="The dictionary of the sounds, written by `knownmf learn`.")
]
Loss = Annotated[
    str,
    typer.Option(
        "--beta-loss",
        help="The divergence to minimize: kullback-leibler, frobenius, itakura-saito, or beta from -1 to 3.",
    ),
]
Tol = Annotated[float, typer.Option("--tol", help="How far a frame may be from its optimum: 1e-4 is 0.01 %.")]
MaxIter = Annotated[int, typer.Option("--max-iter", min=1, help="The largest number of steps for each frame.")]
Free = Annotated[
    int,
    typer.Option(
        "--free", min=0, help='Number of components to learn for sounds that are not in the dictionary (label "rest").'
    ),
]
Adapt = Annotated[
    float,
    typer.Option("--adapt", help="How much the dictionary adapts to the recording: from 0 (not at all) to below 1."),
]
Picture = Annotated[
    Path | None, typer.Option("--picture", help="Also write a picture of the result: .png, .pdf or .svg.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and warnings only.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace files that already exist.")]


@app.callback(invoke_without_command=True)
def _print_version_or_help(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Print the version or, if there is no command, the help."""
    if version:
        print_line(f"knownmf {knownmf.__version__}")
        raise typer.Exit()
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)
        raise typer.Exit(2)


@app.command()
def learn(
    sounds: Annotated[list[Path], typer.Argument(metavar="SOUND", help="Sound files, and folders of sound files.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="The dictionary to write: .npz.")],
    components: Annotated[
        int | None,
        typer.Option(
            "--components",
            "-n",
            min=1,
            help="Number of components of each sound (of each file with --apart); by default 8, 16 or 32, as needed.",
        ),
    ] = None,
    apart: Annotated[
        bool, typer.Option("--apart", help="Learn from each file separately, not from all files of a sound together.")
    ] = False,
    sr: Annotated[
        int | None,
        typer.Option("--sr", min=1, help="Sample rate of the dictionary in Hz; by default the lowest of all files."),
    ] = None,
    n_fft: Annotated[
        int | None,
        typer.Option("--n-fft", min=2, help="Length of the analysis window in samples; by default about 93 ms."),
    ] = None,
    hop_length: Annotated[
        int | None,
        typer.Option(
            "--hop-length",
            min=1,
            help="Number of samples from one frame to the next; by default a quarter of the window.",
        ),
    ] = None,
    quiet: Quiet = False,
    force: Force = False,
) -> None:
    """Learn a dictionary from isolated sounds.

    The label of a sound is the part of the file name before `__`: `kick__1.wav` and `kick__2.wav` are two recordings of
    "kick". Without `__`, the label is the file name without its ending or, if you pass a folder, the name of the folder
    that contains the file. All files with the same label are learned together.
    """
    with input_errors():
        found = find_sounds(sounds)
    paths = [path for takes in found.values() for path in takes]
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
    print_table(_table_of_learned_sounds(takes, dictionary), quiet=quiet)
    print_line(f"Wrote {out}: {describe_dictionary(dictionary)}", quiet=quiet)
    highest = max(rate for of_label in takes.values() for _, rate in of_label)
    if highest > dictionary.sr:
        reason = "" if sr else ", the lowest sample rate of all files (--sr sets another one)"
        print_line(
            f"Sounds with sample rates of up to {highest} Hz were resampled to {dictionary.sr} Hz{reason}.", quiet=quiet
        )


@app.command()
def separate(
    recording: Recording,
    *,
    dictionary: Basis,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the stems, one .wav file per sound.")],
    mask_power: Annotated[
        float,
        typer.Option(
            "--mask-power",
            help="The exponent of the masks: with larger values, the loudest sound of a bin gets more of it.",
        ),
    ] = MASK_POWER,
    free: Free = 0,
    adapt: Adapt = 0.0,
    beta_loss: Loss = LOSS,
    tol: Tol = TOL,
    max_iter: MaxIter = MAX_ITER,
    quiet: Quiet = False,
    force: Force = False,
) -> None:
    """Separate a recording into one stem per sound.

    The stems have the length, the sample rate and the channels of the recording. Their sum is the recording. With
    --free, sounds that are not in the dictionary are learned and written to rest.wav.
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
                beta_loss=parse_loss(beta_loss),
                tol=tol,
                max_iter=max_iter,
                progress=progress,
            )
    write_folder(out, {names[label]: partial(audio.write, y=stem, sr=sr) for label, stem in found.stems.items()})
    written = ", ".join(names[label] for label in found.stems)
    print_line(f"Wrote into {out}: {written} ({describe_recording(y.shape[1] / sr, sr, y.shape[0])} each)", quiet=quiet)
    _print_summary(found.decomposition, quiet)


@app.command()
def decompose(
    recording: Recording,
    *,
    dictionary: Basis,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The file for the activations: .npz for all results, .csv for a table.")
    ],
    picture: Picture = None,
    free: Free = 0,
    adapt: Adapt = 0.0,
    beta_loss: Loss = LOSS,
    tol: Tol = TOL,
    max_iter: MaxIter = MAX_ITER,
    quiet: Quiet = False,
    force: Force = False,
) -> None:
    """Find the activation of each component in each frame.

    The .npz file contains the activations H, the basis W, times, labels, frequencies, and for each frame how close it
    is to the optimum (gap, relative_gap, kkt, converged). The .csv file has one row per frame, with the column time_s
    and one column per component.
    """
    basis = load_dictionary(dictionary)
    check_outputs([out], force=force, inputs=[recording, dictionary], endings=(".npz", ".csv"))
    _check_picture(picture, force, [recording, dictionary])
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
                beta_loss=parse_loss(beta_loss),
                tol=tol,
                max_iter=max_iter,
                progress=progress,
            )
    settings = {
        "knownmf": knownmf.__version__,
        "beta_loss": parse_loss(beta_loss),
        "tol": tol,
        "explained": found.explained,
        "free": free,
        "adapt": adapt,
        **basis.settings,
    }
    write_activations(out, found, settings)
    n_components, n_frames = found.found.H.shape
    print_line(f"Wrote {out}: {counted(n_components, 'component')} in {counted(n_frames, 'frame')}", quiet=quiet)
    _write_picture(picture, found, None, quiet)
    _print_summary(found, quiet)


@app.command()
def transcribe(
    recording: Recording,
    *,
    dictionary: Basis,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file for the events: .csv.")],
    picture: Picture = None,
    beta_loss: Loss = LOSS,
    tol: Tol = TOL,
    max_iter: MaxIter = MAX_ITER,
    threshold: Annotated[
        float, typer.Option(help="Smallest rise of an event, relative to the largest of the recording (0 to 1).")
    ] = 0.03,
    threshold_own: Annotated[
        float,
        typer.Option(
            help="Smallest rise of an event, relative to the largest of the same sound (0 to 1). The rise counts less "
            "if similar sounds rise at the same time."
        ),
    ] = 0.12,
    threshold_share: Annotated[
        float,
        typer.Option(
            help="Smallest rise of an event, relative to all similar sounds that rise at the same time (0 to 1)."
        ),
    ] = 0.2,
    min_gap_s: Annotated[
        float, typer.Option("--min-gap", help="Shortest time between two events of the same sound, in seconds.")
    ] = 0.08,
    quiet: Quiet = False,
    force: Force = False,
) -> None:
    """List the hits or notes of a recording.

    The file has one row per event, with the columns onset_s, offset_s, label and strength (1 for the strongest event).
    """
    basis = load_dictionary(dictionary)
    check_outputs([out], force=force, inputs=[recording, dictionary], endings=(".csv",))
    _check_picture(picture, force, [recording, dictionary])
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
                beta_loss=parse_loss(beta_loss),
                tol=tol,
                max_iter=max_iter,
                progress=progress,
            )
    write_events(out, found.events)
    counts = [f"{sum(event.label == name for event in found.events)} {name}" for name in basis.names]
    print_line(f"Wrote {out}: {counted(len(found.events), 'event')} ({', '.join(counts)})", quiet=quiet)
    _write_picture(picture, found.decomposition, found.events, quiet)
    _print_summary(found.decomposition, quiet)


@app.command()
def info(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A dictionary (.npz) or a recording.")],
) -> None:
    """Describe a dictionary or a recording."""
    if file.suffix.lower() != ".npz":
        _print_recording(file)
        return
    basis = load_dictionary(file)
    print_line(f"{file}: {describe_dictionary(basis)}")
    table = Table("sound", "components", "strongest frequency", box=box.SIMPLE_HEAD)
    for label in basis.names:
        columns = basis.W[:, basis.components_of(label)]
        peak = basis.frequencies[columns.sum(axis=1).argmax()]
        table.add_row(Text(label), str(columns.shape[1]), f"{peak:.0f} Hz")
    print_table(table)


def _table_of_learned_sounds(takes: "Sounds", dictionary: "Dictionary") -> Table:
    """Return a table with a row for each sound."""
    table = Table("sound", "files", "seconds", "components", box=box.SIMPLE_HEAD)
    for label, of_label in takes.items():
        seconds = sum(y.shape[1] / rate for y, rate in of_label)
        count = str(dictionary.labels.count(label))
        table.add_row(Text(label), str(len(of_label)), f"{seconds:.1f}", count)
    return table


def _print_recording(file: Path) -> None:
    """Print the length and the format of a recording."""
    from knownmf.audio.recordings import NotARecordingError, describe

    with input_errors():
        try:
            found = describe(file)
        except NotARecordingError as error:
            raise UserError(
                f'"{file}" is neither a dictionary (.npz) nor a recording in a format that can be read.'
            ) from error
    length = describe_recording(found.n_samples / found.sr, found.sr, found.n_channels)
    print_line(f"{file}: {length}, {found.format} {found.subtype}")


def _announce_memory(n_bytes: float, what: str, recording: Path, quiet: bool) -> None:
    """Print how much memory a computation takes, if that is much. Raise if there is too little."""
    check_memory(n_bytes, f'{what.lower()} "{recording}"', "take a shorter recording, or fewer channels")
    if n_bytes >= MUCH_MEMORY:
        print_line(f'{what} "{recording}" takes about {in_bytes(n_bytes)} of memory.', quiet=quiet)


def _check_picture(picture: Path | None, force: bool, inputs: list[Path]) -> None:
    """Raise if a picture is wanted but cannot or must not be written."""
    if picture is not None:
        # Where it cannot write to the home folder, Matplotlib uses a temporary folder, which is not worth a message.
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        with audio_extra():
            import matplotlib  # noqa: F401 - report that it is missing now, before any work

        check_outputs([picture], force=force, inputs=inputs, endings=PICTURES)


def _write_picture(picture: Path | None, found: "Decomposition", events: "list[Event] | None", quiet: bool) -> None:
    """Draw and write a picture, if one is wanted."""
    if picture is not None:
        from knownmf.plots import decomposition_picture

        with progress_bar("Drawing", quiet=quiet):
            write_picture(picture, decomposition_picture(found, events=events))
        print_line(f"Wrote {picture}: spectrogram, basis, activations and gap", quiet=quiet)


def _print_summary(found: "Decomposition", quiet: bool) -> None:
    """Print how much is explained and how much is proven."""
    for line in describe_decomposition(found):
        print_line(line, quiet=quiet)
