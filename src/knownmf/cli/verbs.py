"""The verbs: learn, separate, decompose, transcribe, info. Each is a plain function, which the demo calls too."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

import knownmf
from knownmf.cli.console import Mistake, Verbs, say, show, working, wrong_input
from knownmf.cli.inputs import found_sounds, heard, known_dictionary, loss
from knownmf.cli.outputs import (
    checked_folder,
    checked_outputs,
    file_names,
    write_activations,
    write_events,
    write_folder,
    write_picture,
)
from knownmf.cli.summaries import said_of_decomposition, said_of_dictionary, said_of_recording
from knownmf.extras import audio_extra

if TYPE_CHECKING:
    import numpy as np

    from knownmf.audio import Decomposition, Event
    from knownmf.dictionary import Dictionary

    Sounds = dict[str, list[tuple[np.ndarray, int]]]

__all__ = ["Force", "Quiet", "app", "decompose", "info", "learn", "separate", "transcribe"]

# The defaults of the audio room, which is slow to import; a test holds them equal.
LOSS = "kullback-leibler"
TOL = 1e-4
MAX_ITER = 200
MASK_POWER = 1.5
REST = "rest"
PICTURES = (".png", ".pdf", ".svg")

app = typer.Typer(
    cls=Verbs,
    help="Take a recording apart with sounds that you already have.",
    epilog="First: knownmf learn kick.wav snare.wav hat.wav --out drums.npz",
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Recording = Annotated[Path, typer.Argument(metavar="RECORDING", help="The recording: WAV, FLAC, OGG, MP3, ...")]
Basis = Annotated[Path, typer.Option("--dictionary", "-d", help="The sounds to look for, from `knownmf learn`.")]
Loss = Annotated[
    str,
    typer.Option(
        "--beta-loss",
        help="How misfit is measured: kullback-leibler, frobenius, itakura-saito, or a number from -1 to 3.",
    ),
]
Tol = Annotated[float, typer.Option("--tol", help="How far from the optimum a frame may end: 1e-4 is 0.01 %.")]
MaxIter = Annotated[int, typer.Option("--max-iter", min=1, help="How many steps a frame may take to get there.")]
Free = Annotated[
    int,
    typer.Option("--free", min=0, help='Components to learn from the recording for what the dictionary lacks: "rest".'),
]
Adapt = Annotated[
    float,
    typer.Option("--adapt", help="How far the sounds may follow the recording: 0 not at all, 0.5 half, below 1."),
]
Picture = Annotated[Path | None, typer.Option("--picture", help="Also draw what was found: .png, .pdf or .svg.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but mistakes and warnings.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace files that exist already.")]


@app.callback(invoke_without_command=True)
def _about(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Say which version this is.")] = False,
) -> None:
    if version:
        say(f"knownmf {knownmf.__version__}")
        raise typer.Exit()
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)
        raise typer.Exit(2)


@app.command()
def learn(
    sounds: Annotated[list[Path], typer.Argument(metavar="SOUND", help="Sound files, and folders of them.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="The dictionary to write: .npz.")],
    components: Annotated[
        int | None, typer.Option("--components", "-n", min=1, help="Components per sound; per file with --apart.")
    ] = None,
    apart: Annotated[bool, typer.Option("--apart", help="Learn from each file apart, not from a sound's together.")] = (
        False
    ),
    sr: Annotated[int | None, typer.Option("--sr", min=1, help="Sample rate in Hz; by default the lowest.")] = None,
    n_fft: Annotated[int | None, typer.Option("--n-fft", min=2, help="Analysis window in samples.")] = None,
    hop_length: Annotated[int | None, typer.Option("--hop-length", min=1, help="Samples from frame to frame.")] = None,
    quiet: Quiet = False,
    force: Force = False,
) -> None:
    """Learn a dictionary from isolated sounds.

    A file named kick__3.wav is a take of "kick": what stands before "__" is the sound. Another file's sound is its own
    name, or its folder's name where a folder was given. Files of the same sound are learnt together.
    """
    with wrong_input():
        found = found_sounds(sounds)
    paths = [path for takes in found.values() for path in takes]
    checked_outputs([out], force=force, inputs=paths, endings=(".npz",))
    with working("Learning", quiet=quiet) as progress:
        from knownmf import audio

        with wrong_input():
            takes = {label: [heard(path) for path in files] for label, files in found.items()}
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
    show(_learnt(takes, dictionary), quiet=quiet)
    say(f"Wrote {out}: {said_of_dictionary(dictionary)}", quiet=quiet)
    highest = max(rate for of_label in takes.values() for _, rate in of_label)
    if highest > dictionary.sr:
        why = "" if sr else ", the lowest of all; --sr sets another"
        say(f"Sounds of up to {highest} Hz were brought down to {dictionary.sr} Hz{why}.", quiet=quiet)


@app.command()
def separate(
    recording: Recording,
    *,
    dictionary: Basis,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the stems, one .wav per sound.")],
    mask_power: Annotated[
        float, typer.Option("--mask-power", help="How hard to decide between sounds: 1 soft, 2 harder.")
    ] = MASK_POWER,
    free: Free = 0,
    adapt: Adapt = 0.0,
    beta_loss: Loss = LOSS,
    tol: Tol = TOL,
    max_iter: MaxIter = MAX_ITER,
    quiet: Quiet = False,
    force: Force = False,
) -> None:
    """Take a recording apart into one stem per sound.

    The stems have the length, sample rate and channels of the recording, and add up to it. With --free, what the
    dictionary lacks is learned and becomes rest.wav.
    """
    basis = known_dictionary(dictionary)
    names = file_names([*basis.names, *[REST] * (free > 0)], ".wav")
    checked_folder(out)
    checked_outputs([out / name for name in names.values()], force=force, inputs=[recording, dictionary])
    with working("Separating", quiet=quiet) as progress:
        from knownmf import audio

        with wrong_input():
            y, sr = audio.read(recording)
            found = audio.separate(
                y,
                sr,
                basis,
                mask_power=mask_power,
                free=free,
                adapt=adapt,
                beta_loss=loss(beta_loss),
                tol=tol,
                max_iter=max_iter,
                progress=progress,
            )
    write_folder(out, {names[label]: partial(audio.write, y=stem, sr=sr) for label, stem in found.stems.items()})
    listed = ", ".join(names[label] for label in found.stems)
    say(f"Wrote into {out}: {listed} ({said_of_recording(y.shape[1] / sr, sr, y.shape[0])} each)", quiet=quiet)
    _conclude(found.decomposition, quiet)


@app.command()
def decompose(
    recording: Recording,
    *,
    dictionary: Basis,
    out: Annotated[Path, typer.Option("--out", "-o", help="The activations: .npz with all, .csv for a table.")],
    picture: Picture = None,
    free: Free = 0,
    adapt: Adapt = 0.0,
    beta_loss: Loss = LOSS,
    tol: Tol = TOL,
    max_iter: MaxIter = MAX_ITER,
    quiet: Quiet = False,
    force: Force = False,
) -> None:
    """Find how strongly each component sounds at each moment.

    The .npz file holds the activations H, the basis W, times, labels, frequencies, and the proof of each frame (gap,
    relative_gap, kkt, converged). The .csv file has one row per frame: time_s, then one column per component.
    """
    basis = known_dictionary(dictionary)
    checked_outputs([out], force=force, inputs=[recording, dictionary], endings=(".npz", ".csv"))
    _check_picture(picture, force, [recording, dictionary])
    with working("Decomposing", quiet=quiet) as progress:
        from knownmf import audio

        with wrong_input():
            y, sr = audio.read(recording)
            found = audio.decompose(
                y,
                sr,
                basis,
                free=free,
                adapt=adapt,
                beta_loss=loss(beta_loss),
                tol=tol,
                max_iter=max_iter,
                progress=progress,
            )
    settings = {
        "knownmf": knownmf.__version__,
        "beta_loss": loss(beta_loss),
        "tol": tol,
        "explained": found.explained,
        "free": free,
        "adapt": adapt,
        **{name: getattr(basis, name) for name in ("sr", "n_fft", "hop_length", "window", "power")},
    }
    write_activations(out, found, settings)
    n_components, n_frames = found.found.H.shape
    say(f"Wrote {out}: {n_components} components over {n_frames} frames", quiet=quiet)
    _draw(picture, found, None, quiet)
    _conclude(found, quiet)


@app.command()
def transcribe(
    recording: Recording,
    *,
    dictionary: Basis,
    out: Annotated[Path, typer.Option("--out", "-o", help="The events: .csv.")],
    picture: Picture = None,
    beta_loss: Loss = LOSS,
    tol: Tol = TOL,
    max_iter: MaxIter = MAX_ITER,
    threshold: Annotated[float, typer.Option(help="Smallest event, 0..1 of the recording's strongest.")] = 0.03,
    threshold_own: Annotated[float, typer.Option(help="Smallest event, 0..1 of the same sound's strongest.")] = 0.12,
    threshold_share: Annotated[float, typer.Option(help="Smallest share, 0..1 of what begins with it.")] = 0.2,
    min_gap_s: Annotated[float, typer.Option("--min-gap", help="Seconds between events of the same sound.")] = 0.08,
    quiet: Quiet = False,
    force: Force = False,
) -> None:
    """List the hits or notes of a recording.

    One row per event: onset_s, offset_s, label, strength (1 for the strongest).
    """
    basis = known_dictionary(dictionary)
    checked_outputs([out], force=force, inputs=[recording, dictionary], endings=(".csv",))
    _check_picture(picture, force, [recording, dictionary])
    with working("Transcribing", quiet=quiet) as progress:
        from knownmf import audio

        with wrong_input():
            y, sr = audio.read(recording)
            found = audio.transcribe(
                y,
                sr,
                basis,
                threshold=threshold,
                threshold_own=threshold_own,
                threshold_share=threshold_share,
                min_gap_s=min_gap_s,
                beta_loss=loss(beta_loss),
                tol=tol,
                max_iter=max_iter,
                progress=progress,
            )
    write_events(out, found.events)
    counts = [f"{sum(event.label == name for event in found.events)} {name}" for name in basis.names]
    say(f"Wrote {out}: {len(found.events)} events ({', '.join(counts)})", quiet=quiet)
    _draw(picture, found.decomposition, found.events, quiet)
    _conclude(found.decomposition, quiet)


@app.command()
def info(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A dictionary (.npz) or a recording.")],
) -> None:
    """Say what a dictionary or a recording holds."""
    if file.suffix.lower() != ".npz":
        with wrong_input():
            _about_recording(file)
        return
    basis = known_dictionary(file)
    say(f"{file}: {said_of_dictionary(basis)}")
    table = Table("sound", "components", "strongest at", box=box.SIMPLE_HEAD)
    for label in basis.names:
        columns = basis.W[:, basis.components_of(label)]
        peak = basis.frequencies[columns.sum(axis=1).argmax()]
        table.add_row(Text(label), str(columns.shape[1]), f"{peak:.0f} Hz")
    show(table)


def _learnt(takes: "Sounds", dictionary: "Dictionary") -> Table:
    table = Table("sound", "files", "seconds", "components", box=box.SIMPLE_HEAD)
    for label, of_label in takes.items():
        seconds = sum(y.shape[1] / rate for y, rate in of_label)
        count = str(dictionary.labels.count(label))
        table.add_row(Text(label), str(len(of_label)), f"{seconds:.1f}", count)
    return table


def _about_recording(file: Path) -> None:
    with audio_extra():
        import soundfile

    with file.open("rb"):  # an ordinary OSError for what is missing, a folder, or not ours to read
        try:
            about = soundfile.info(file)
        except (RuntimeError, TypeError) as error:
            raise Mistake(f'"{file}" is neither a dictionary (.npz) nor a recording that can be read.') from error
    length = said_of_recording(about.frames / about.samplerate, about.samplerate, about.channels)
    say(f"{file}: {length}, {about.format} {about.subtype}")


def _check_picture(picture: Path | None, force: bool, inputs: list[Path]) -> None:
    if picture is not None:
        with audio_extra():
            import matplotlib  # noqa: F401 - report that it is missing now, before any work

        checked_outputs([picture], force=force, inputs=inputs, endings=PICTURES)


def _draw(picture: Path | None, found: "Decomposition", events: "list[Event] | None", quiet: bool) -> None:
    if picture is not None:
        from knownmf.plots import decomposition_picture

        with working("Drawing", quiet=quiet):
            write_picture(picture, decomposition_picture(found, events=events))
        say(f"Wrote {picture}: spectrogram, basis, activations and gap", quiet=quiet)


def _conclude(found: "Decomposition", quiet: bool) -> None:
    for line in said_of_decomposition(found):
        say(line, quiet=quiet)
