"""The command line: one verb per job, over the functions of :mod:`knownmf.audio`.

Importing this package loads nothing else, so that :func:`main` can report a missing package in one line. What is slow
to import is imported by the verb that needs it.
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
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a letter shows another in its place
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
