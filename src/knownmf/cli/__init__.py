"""The command line interface: one command for each function of :mod:`knownmf.audio`, `info` and `demo`.

Importing this package imports nothing else, so that :func:`main` can report a missing package in one line. Packages
that are slow to import are imported inside the commands that need them.
"""

import io
import sys
from typing import TYPE_CHECKING

from knownmf.extras import MissingPackageError, audio_extra

if TYPE_CHECKING:
    from knownmf.cli.application import app

__all__ = ["app", "main"]


def main() -> None:
    """Run ``knownmf`` with the arguments of the process, and end the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Characters that the encoding of the terminal lacks are replaced by "?" instead of raising an exception.
            stream.reconfigure(errors="replace")
    try:
        with audio_extra():
            from knownmf.cli.application import app
    except MissingPackageError as error:
        sys.exit(f"knownmf: {error}")  # on standard error, with exit code 1
    app(prog_name="knownmf")


def __getattr__(name: str) -> object:
    """Import `app` when it is first used."""
    if name == "app":
        with audio_extra():
            from knownmf.cli.application import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
