"""Runs every case, prints the table, and with ``--write`` renews docs/benchmarks.md and its picture.

python -m benchmarks [--quick] [--write]
"""

import argparse
import os
import platform
import time
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import knownmf

from . import cases, peers, resources, scaling

DOCS = Path(__file__).parents[1] / "docs"


def timed(call, repeat=1):
    """The shortest time of ``repeat`` calls in seconds, and what the last returned."""
    shortest = np.inf
    for _ in range(repeat):
        start = time.perf_counter()
        out = call()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest, out


def compare(case, long):
    """Rows of a case: peer, its time, its worst gap, our time to the same gap, the ratio."""
    V, W, beta_loss = case.V, case.W, case.beta_loss
    unit, _ = timed(lambda: W.T @ V, 5)
    ours = partial(knownmf.activations, V, W, beta_loss=beta_loss)
    ours(tol=1.0)
    for name, peer in peers.peers_of(beta_loss, long).items():
        theirs, H = timed(lambda peer=peer: peer(V, W))
        gap = peers.worst_gap(V, W, H, beta_loss)
        same, _ = timed(lambda gap=gap: ours(tol=gap), 3)
        yield case.name, name, theirs, gap, same, theirs / same
    exact, found = timed(lambda: ours(tol=1e-6), 3)
    gap = peers.worst_gap(V, W, found.H, beta_loss)
    yield case.name, f"(knownmf to 1e-6: {exact / unit:.0f} times W.T @ V)", exact, gap, exact, 1.0


def stream(n_frames):
    """Milliseconds of each call with one frame, started from the frame before."""
    case = cases.harmonic(1025, 88, n_frames + 20)
    H, took = None, []
    for t in range(n_frames + 20):
        start = time.perf_counter()
        H = knownmf.activations(case.V[:, [t]], case.W, tol=1e-3, H_init=H).H
        took.append(1e3 * (time.perf_counter() - start))
    return np.array(took[20:])


def machine():
    """What the figures were measured on."""
    names = ["numpy", "scipy", "numba", "scikit-learn", "librosa"]
    names += ["torch", "torchnmf"] if find_spec("torchnmf") else []
    return f"{os.cpu_count()} cores, {platform.machine()}; " + ", ".join(f"{name} {version(name)}" for name in names)


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="an eighth of the frames")
    parser.add_argument("--write", action="store_true", help="renew docs/benchmarks.md and docs/benchmarks.png")
    options = parser.parse_args()
    console = Console(width=130)
    heads = ("case", "peer", "its time, s", "its worst gap", "knownmf to the same, s", "times faster")
    table, lines = Table(*heads), ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    share = 1 / 8 if options.quick else 1.0
    for case in cases.all_cases(share):
        console.print(f"{case.name}: V {case.V.shape}, W {case.W.shape}, {case.beta_loss}")
        for name, peer, theirs, gap, ours, ratio in compare(case, 2000 if not options.quick else 1000):
            row = (name, peer, f"{theirs:.3f}", f"{gap:.1e}", f"{ours:.3f}", f"{ratio:.1f}")
            table.add_row(*row)
            lines.append("| " + " | ".join(row) + " |")
    console.print(table)
    ms = stream(50 if options.quick else 400)
    live = f"median {np.median(ms):.2f} ms, 99 % within {np.percentile(ms, 99):.2f} ms"
    live = f"One frame a call, 88 components, started from the frame before, to 1e-3: {live}."
    notes = [live, resources.two_threads(share), resources.memory(share)]
    console.print(*notes, sep="\n")
    if options.write:
        figure = scaling.picture(quick=options.quick)
        figure.savefig(DOCS / "benchmarks.png", dpi=100)
        head = ["# Benchmarks", "", "Written by `make bench`. Measured on " + machine() + ".", ""]
        text = [
            "Each peer runs as it would be run; the relative duality gap of its worst frame is computed apart from all",
            "of them; then knownmf is asked for the same gap, and the ratio is of the two times.",
        ]
        picture = ["![Time against components, bins and frames](benchmarks.png)"]
        body = "\n".join([*head, *text, "", *lines, "", *(line for note in notes for line in (note, "")), *picture, ""])
        (DOCS / "benchmarks.md").write_text(body, encoding="utf8")


if __name__ == "__main__":
    main()
