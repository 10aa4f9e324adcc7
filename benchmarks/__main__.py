"""Run the benchmarks.

python -m benchmarks                    all, at full size; writes docs/benchmarks.md and its picture
python -m benchmarks CASE ...           some, at full size; prints only
python -m benchmarks --quick [CASE ...] small sizes; prints only
"""

import argparse
from pathlib import Path

from . import comparisons, limits, resources, scaling
from .timing import machine

DOCS = Path(__file__).parents[1] / "docs"

CASES = {
    "piano": comparisons.piano,
    "drums": comparisons.drums,
    "exemplars": comparisons.exemplars,
    "counts": comparisons.counts,
    "frobenius": comparisons.frobenius,
    "mel": comparisons.mel,
    "decay": comparisons.decay,
    "sparse": comparisons.sparse,
    "small": comparisons.small,
    "loose": comparisons.loose,
    "limits": limits.limits,
    "first": resources.first,
    "stream": resources.stream,
    "threads": resources.two_threads,
    "memory": resources.memory,
    "precision": resources.precision,
}

INTRODUCTION = """\
# Benchmarks

Written by `make bench`. `python -m benchmarks --quick` runs small sizes, and `python -m benchmarks CASE` runs one case.

Each peer runs as its documentation says. The relative duality gap of the worst frame is computed apart from all
packages that are timed. Then knownmf is asked for the gap that the peer reached, or, where a row says "to", both are
asked for the same gap. Both sides use as many threads as they do by default, unless a row says one thread. Both are
warmed up by a call with a few frames, then run in turns, the same number of times: 20 times, 3 times if the slower side
takes more than 0.1 s, once if it takes more than 10 s. The best time counts.

Multiplicative updates and the accelerated projected gradient compute their own gap at every tenth iteration, and stop
when it is reached. Coordinate Newton gets, for each frame, exactly the number of sweeps that it needs; finding that
number is not timed.
"""


def write(measured_on, sections):
    """Write the report and its picture."""
    scaling.picture().savefig(DOCS / "benchmarks.png", dpi=100)
    lines = "\n".join(f"- {line}" for line in measured_on)
    parts = [INTRODUCTION, f"Measured on:\n\n{lines}\n", *(section.markdown() for section in sections)]
    parts.append("## scaling\n\n![Time against components, bins and frames](benchmarks.png)\n")
    (DOCS / "benchmarks.md").write_text("\n".join(parts), encoding="utf8")


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--quick", action="store_true", help="small sizes")
    options = parser.parse_args()
    unknown = [name for name in options.cases if name not in CASES]
    if unknown:
        parser.error(f"unknown case {', '.join(unknown)}: choose from {', '.join(CASES)}")
    measured_on = list(machine())
    print(*measured_on, sep="\n")
    sections = []
    for name in options.cases or CASES:
        sections.append(CASES[name](options.quick))
        sections[-1].print()
    if not options.cases and not options.quick:
        write(measured_on, sections)


if __name__ == "__main__":
    main()
