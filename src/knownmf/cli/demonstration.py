"""The verb `demo`: the other verbs, one after the other, on drums whose truth is known."""

import csv
import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from knownmf.cli.console import Mistake, say, show, working
from knownmf.cli.outputs import checked_folder, write_rows
from knownmf.cli.verbs import Force, Quiet, decompose, learn, separate, transcribe

__all__ = ["demo"]


def demo(
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for everything that is written.")] = (
        Path("knownmf-demo")
    ),
    quiet: Quiet = False,
    force: Force = False,
) -> None:
    """Learn four drums, take a groove apart, and compare with the truth.

    Everything is written into one folder: the hits learnt from, the mixture, its true stems, the dictionary, stems,
    events, activations and a picture. Each step is printed as the command that does the same.
    """
    checked_folder(out)
    if out.exists() and any(out.iterdir()) and not force:
        raise Mistake(f'The folder "{out}" is not empty: choose another one, or replace files in it with --force.')
    start = time.perf_counter()
    hits, truth = _lay_out(out, quiet)
    mix, drums = out / "mix.wav", out / "drums.npz"
    stems, events = out / "stems", out / "events.csv"
    activations, picture = out / "activations.npz", out / "picture.png"
    again: dict[str, Any] = {"quiet": quiet, "force": True}
    same: dict[str, Any] = {"dictionary": drums, **again}

    _step(f"learn {out / 'hits'}/*.flac --out {drums}", quiet)
    learn(hits, out=drums, **again)
    _step(f"separate {mix} --dictionary {drums} --out {stems}", quiet)
    say("(If the solver has never run here, it is compiled now: less than a minute, once.)", quiet=quiet)
    separate(mix, out=stems, **same)
    _step(f"transcribe {mix} --dictionary {drums} --out {events} --picture {picture}", quiet)
    transcribe(mix, out=events, picture=picture, **same)
    _step(f"decompose {mix} --dictionary {drums} --out {activations}", quiet)
    decompose(mix, out=activations, **same)

    _compare(truth, stems, events, quiet)
    say(f"That took {time.perf_counter() - start:.0f} s. Now look at {picture} and listen to {stems}.", quiet=quiet)


def _lay_out(out: Path, quiet: bool) -> tuple[list[Path], Any]:
    """Write the hits, the mixture and its truth; return the hits' files and the truth."""
    with working("Mixing", quiet=quiet):
        from knownmf import audio
        from knownmf import demo as sounds

        truth = sounds.mixture()
        for folder in (out / "hits", out / "truth"):
            folder.mkdir(parents=True, exist_ok=True)
        copies = []
        for path in sounds.hits().values():
            copies.append(out / "hits" / path.name)
            shutil.copyfile(path, copies[-1])
        audio.write(out / "mix.wav", truth.y, truth.sr)
        for label, samples in truth.stems.items():
            audio.write(out / "truth" / f"{label}.wav", samples, truth.sr)
        rows = sorted((onset, label) for label, onsets in truth.onsets.items() for onset in onsets)
        write_rows(
            out / "truth" / "events.csv", ["onset_s", "label"], ([f"{onset:.4f}", label] for onset, label in rows)
        )
    say(
        f"Wrote {out / 'mix.wav'}, four bars of drums: hard hits, and soft ones that will not be learnt from.",
        quiet=quiet,
    )
    return copies, truth


def _step(command: str, quiet: bool) -> None:
    say(f"\n$ knownmf {command}", quiet=quiet)


def _compare(truth: Any, stems: Path, events: Path, quiet: bool) -> None:
    """Print how near stems and events, as they were written, come to the truth."""
    from knownmf import demo as sounds
    from knownmf.audio import Event, read

    with events.open(encoding="utf-8", newline="") as file:
        found = [
            Event(float(row["onset_s"]), float(row["offset_s"]), row["label"], float(row["strength"]))
            for row in csv.DictReader(file)
        ]
    table = Table(
        "sound",
        "SI-SDR in the mix",
        "of the stem",
        "hits",
        "found",
        "right",
        "F",
        title="Against the truth",
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
    show(table, quiet=quiet)


def _scores(before: float, after: float, onsets: Any) -> tuple[str, ...]:
    counts = (onsets.true, onsets.found, onsets.hits)
    return (f"{before:.1f} dB", f"{after:.1f} dB", *map(str, counts), f"{onsets.f:.3f}")
