"""The command demo: run the other commands on a mixture of drums whose true stems and events are known."""

import csv
import time
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from knownmf.cli import options
from knownmf.cli.commands import decompose, learn, separate, transcribe
from knownmf.cli.console import UserError, print_line, print_table, progress_bar
from knownmf.cli.outputs import check_folder
from knownmf.files import write_rows, written_aside

__all__ = ["demo"]


def demo(
    *,
    out: options.DemoFolder = Path("knownmf-demo"),
    quiet: options.Quiet = False,
    force: options.Force = False,
) -> None:
    """Learn four drums, separate a mixture of them, and compare the result with the original tracks.

    The sounds come with knownmf. All files are written into one folder: the drum hits to learn from, the mixture, its
    true stems, the dictionary, the separated stems, the events, the activations and a picture. Before each step, the
    command that does the same is printed.
    """
    check_folder(out)
    if out.exists() and any(out.iterdir()) and not force:
        raise UserError(
            f'The folder "{out}" is not empty: choose another one, or replace the files in it with --force.'
        )
    for name in ("hits", "truth", "stems"):
        if (out / name).is_symlink():
            raise UserError(
                f'"{out / name}" is a symbolic link, which the demo does not write through: remove the link, or choose '
                "another folder."
            )
    start = time.perf_counter()
    hits, truth = _write_sounds(out, quiet)
    mix, drums = out / "mix.wav", out / "drums.npz"
    stems, events = out / "stems", out / "events.csv"
    activations, picture = out / "activations.npz", out / "picture.png"
    common: dict[str, Any] = {"quiet": quiet, "force": True}

    _print_command(f"learn {out / 'hits'}/*.flac --out {drums}", quiet)
    learn([str(path) for path in hits], out=drums, **common)
    _print_command(f"separate {mix} --dictionary {drums} --out {stems}", quiet)
    separate([mix], out=stems, dictionary=drums, **common)
    _print_command(f"transcribe {mix} --dictionary {drums} --out {events} --picture {picture}", quiet)
    transcribe([mix], out=events, picture=picture, dictionary=drums, **common)
    _print_command(f"decompose {mix} --dictionary {drums} --out {activations}", quiet)
    decompose([mix], out=activations, dictionary=drums, **common)

    _print_comparison(truth, stems, events, quiet)
    print_line(
        f"The demo took {time.perf_counter() - start:.0f} s. Look at {picture} and listen to the files in {stems}.",
        quiet=quiet,
    )


def _write_sounds(out: Path, quiet: bool) -> tuple[list[Path], Any]:
    """Write the drum hits, the mixture and its truth. Return the files of the hits, and the mixture."""
    with progress_bar("Mixing", quiet=quiet):
        from knownmf import audio
        from knownmf import demo as sounds

        truth = sounds.mixture()
        for folder in (out / "hits", out / "truth"):
            folder.mkdir(parents=True, exist_ok=True)
        copies = []
        for path in sounds.hits().values():
            copies.append(out / "hits" / path.name)
            with written_aside(copies[-1]) as copy:  # replaces a symbolic link; shutil.copyfile would write through it
                copy.write(path.read_bytes())
        audio.write(out / "mix.wav", truth.y, truth.sr)
        for label, samples in truth.stems.items():
            audio.write(out / "truth" / f"{label}.wav", samples, truth.sr)
        rows = sorted((onset, label) for label, onsets in truth.onsets.items() for onset in onsets)
        write_rows(
            out / "truth" / "events.csv", ["onset_s", "label"], ([f"{onset:.4f}", label] for onset, label in rows)
        )
    print_line(
        f"Wrote {out / 'mix.wav'}: four bars of drums, with soft hits that the dictionary is not learned from.",
        quiet=quiet,
    )
    return copies, truth


def _print_command(command: str, quiet: bool) -> None:
    """Print the command of a step."""
    print_line("", quiet=quiet)
    print_line(f"$ knownmf {command}", quiet=quiet)


def _print_comparison(truth: Any, stems: Path, events: Path, quiet: bool) -> None:
    """Compare the written stems and events with the truth, and print a table."""
    from knownmf import demo as sounds
    from knownmf.audio import Event, read

    with events.open(encoding="utf-8", newline="") as file:
        found = [
            Event(float(row["onset_s"]), float(row["offset_s"]), row["label"], float(row["strength"]))
            for row in csv.DictReader(file)
        ]
    table = Table(
        "sound",
        "SI-SDR of the mix",
        "of the stem",
        "hits",
        "found",
        "correct",
        "F score",
        title="Comparison with the truth",
        box=box.SIMPLE_HEAD,
    )
    before, after = [], []
    for label, samples in truth.stems.items():
        before.append(sounds.si_sdr(truth.y, samples))
        after.append(sounds.si_sdr(read(stems / f"{label}.wav")[0], samples))
        own = [event for event in found if event.label == label]
        score = sounds.onset_score(own, {label: truth.onsets[label]})
        table.add_row(label, *_scores(before[-1], after[-1], score))
    total = sounds.onset_score(found, truth.onsets)
    table.add_section()
    table.add_row("all", *_scores(sum(before) / len(before), sum(after) / len(after), total))
    print_table(table, quiet=quiet)


def _scores(before: float, after: float, onsets: Any) -> tuple[str, ...]:
    """Return the cells of a row of the table, after the name of the sound."""
    counts = (onsets.true, onsets.found, onsets.hits)
    return (f"{before:.1f} dB", f"{after:.1f} dB", *map(str, counts), f"{onsets.f:.3f}")
