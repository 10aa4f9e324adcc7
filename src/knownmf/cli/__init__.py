"""The command line interface: one command for each function of :mod:`knownmf.audio`, `info` and `demo`.

Packages that are slow to import are imported inside the commands that need them.
"""

import io
import sys

from knownmf.cli.commands import app
from knownmf.cli.demonstration import demo

__all__ = ["app", "main"]

app.command()(demo)


def main() -> None:
    """Run ``knownmf`` with the arguments of the process, and end the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Characters that the encoding of the terminal lacks are replaced by "?" instead of raising an exception.
            stream.reconfigure(errors="replace")
    app(prog_name="knownmf")
