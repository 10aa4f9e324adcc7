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
    """A signal has arrived. Where nothing catches it, Python ends with its exit code and without a traceback.

    If it is raised inside code that suppresses all exceptions, such as the lookup of an attribute in C, it is deleted
    before :func:`main` has seen it. Then the process ends at once.
    """

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.number, self.is_seen = number, False

    def __del__(self) -> None:
        if not self.is_seen:
            _end_at_once(self.number, None)


def main() -> None:
    """Run ``knownmf`` with the arguments of the process, and end the process with its exit code.

    The exit code after a signal is 128 plus its number, as in a shell.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Characters that the encoding of the terminal lacks are replaced by "?" instead of raising an exception.
            stream.reconfigure(errors="replace")
    _handle_signals(_end_at_once)  # there is nothing to clean up yet
    sys.unraisablehook = _end_or_report
    # While Python itself ends, it would let a signal change the exit code of a command that has done its work.
    atexit.register(_handle_signals, signal.SIG_IGN)
    try:
        with command_extra():
            from knownmf.cli.application import app
        _handle_signals(_stop)
        app(prog_name="knownmf")
    except MissingPackageError as error:
        sys.exit(f"knownmf: {error}")  # on standard error, with exit code 1
    except BaseException as error:
        stopped = _signal_behind(error)
        if stopped is None:
            raise
        stopped.is_seen = True
        _report_end()
        sys.exit(stopped.code)


def _end_or_report(unraisable: "sys.UnraisableHookArgs") -> None:
    """End the process if an exception of a signal cannot be raised, as in `__del__`; report other exceptions."""
    if isinstance(unraisable.exc_value, _Stopped):
        _end_at_once(unraisable.exc_value.number, None)
    sys.__unraisablehook__(unraisable)


def _signal_behind(error: BaseException | None) -> _Stopped | None:
    """Return the signal that an exception comes from, if any: Python replaces exceptions in `__set_name__`, for one."""
    while error is not None and not isinstance(error, _Stopped):
        error = error.__cause__ or error.__context__
    return error


def _handle_signals(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    """Set the handler of all signals that the process does not ignore (as nohup, for example, has it ignore SIGHUP)."""
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    """End the command: whatever it is doing cleans up after itself. The next signal ends the process at once."""
    _handle_signals(_end_at_once)
    if _is_importing(frame):  # extensions in C++ would abort the process because of an exception
        _end_at_once(number, frame)
    raise _Stopped(number)


def _is_importing(frame: FrameType | None) -> bool:
    """Return whether a frame belongs to the import of a module."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


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
