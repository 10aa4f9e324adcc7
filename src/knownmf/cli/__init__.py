"""The command line: one verb per job, over the functions of :mod:`knownmf.audio`.

It parses, calls and prints. What is slow to import is imported by the verb that needs it.
"""

import io
import sys

from knownmf.cli.demonstration import demo
from knownmf.cli.verbs import app

__all__ = ["app", "main"]

app.command()(demo)


def main() -> None:
    """Run ``knownmf`` with the arguments of the process, and end the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a letter shows another in its place
            stream.reconfigure(errors="replace")
    app(prog_name="knownmf")
