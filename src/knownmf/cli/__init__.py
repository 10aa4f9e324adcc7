"""The command line interface: a command for each function of :mod:`knownmf.audio`, `solve`, `info` and `demo`.

Importing this package imports nothing else, so that :func:`main` can report a missing package in one line. Packages
that are slow to import are imported inside the commands that need them.
"""

import atexit
import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

from knownmf.extras import MissingPackageError, command_extra
from knownmf.files import remove_unfinished

if TYPE_CHECKING:
    from knownmf.cli.application import app

__all__ = ["app", "main"]

# Ctrl-C, a request to end, and a closed terminal. Windows does not have the last one.
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class _Stopped(SystemExit):
    """A signal has arrived. Where nothing catches it, Python ends with its exit code and without a traceback."""


def main() -> None:
    """Run ``knownmf`` with the arguments of the process, and end the process with its exit code.

    The exit code after a signal is 128 plus its number, as in a shell.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Characters that the encoding of the terminal lacks are replaced by "?" instead of raising an exception.
            stream.reconfigure(errors="replace")
    _handle_signals(_stop)
    # While Python itself ends, it would let a signal change the exit code of a command that has done its work.
    atexit.register(_handle_signals, signal.SIG_IGN)
    try:
        with command_extra():
            from knownmf.cli.application import app
        app(prog_name="knownmf")
    except MissingPackageError as error:
        sys.exit(f"knownmf: {error}")  # on standard error, with exit code 1
    except _Stopped:
        _report_end()
        raise


def _handle_signals(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    """Set the handler of all signals that the process does not ignore (as nohup, for example, has it ignore SIGHUP)."""
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    """End the command: whatever it is doing cleans up after itself. The next signal ends the process at once."""
    _handle_signals(_end_at_once)
    raise _Stopped(128 + number)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    """End the process without waiting for anything."""
    _report_end()
    os._exit(128 + number)


def _report_end() -> None:
    """Remove temporary files that are still there, because a signal came just before or after they were created."""
    remove_unfinished()
    with contextlib.suppress(OSError, ValueError):  # the terminal may be closed
        print("knownmf: stopped; incomplete files have been removed.", file=sys.stderr, flush=True)  # noqa: T201


def __getattr__(name: str) -> object:
    """Import `app` when it is first used."""
    if name == "app":
        with command_extra():
            from knownmf.cli.application import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
