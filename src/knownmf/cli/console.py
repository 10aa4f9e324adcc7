"""Print results, errors, warnings and progress."""

import contextlib
import errno
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from knownmf.extras import MissingPackageError
from knownmf.memory import TooLittleMemoryError
from knownmf.wording import printable

__all__ = [
    "Command",
    "CommandGroup",
    "UserError",
    "error_message",
    "input_errors",
    "print_failure",
    "print_line",
    "print_table",
    "print_traceback",
    "progress_bar",
    "reworded",
]

RESULTS = Console(highlight=False)
ERRORS = Console(stderr=True, highlight=False)

# The class UsageError. Some versions of Typer take it from Click, others define it; none exports it.
_UsageError: Any = typer.BadParameter.__base__


# Names of Python parameters in messages of the library, and the options for them. Those that are no ordinary words are
# replaced everywhere, the others only before a value: "free=0", "adapt is -1".
_OPTIONS = {"min_gap_s": "--min-gap", "n_components": "--components"}
_ALIKE = (
    "beta_loss",
    "hop_length",
    "mask_power",
    "max_iter",
    "max_total",
    "n_fft",
    "threshold_own",
    "threshold_share",
    "tol",
)
_ORDINARY_WORDS = ("adapt", "free", "sr", "threshold")
_PYTHON_NAME = rf"\b({'|'.join((*_OPTIONS, *_ALIKE))}|(?:{'|'.join(_ORDINARY_WORDS)})(?==| is ))\b(=(?=\S))?"
_QUOTED = r"""("[^"]*"|'[^'\s]*')"""  # names of files and labels, which are left as they are


_NO_MEMORY = "not enough memory: take a shorter recording, a smaller table, or fewer components."


class UserError(Exception):
    """Wrong usage or wrong input: the command ends with this message and exit code 2."""


class CommandGroup(TyperGroup):
    """The group of all commands. It turns exceptions into one line of text and an exit code.

    The exit code is 2 for wrong usage or wrong input, 130 after an interrupt, and 1 for errors of the operating system,
    such as a full disk, and for packages that are not installed. Other exceptions are errors in knownmf. They keep
    their traceback, for a bug report.
    """

    def get_params(self, ctx: Any) -> Any:
        """Return the options before the name of the command."""
        return _without_types(super().get_params(ctx))

    def make_context(self, *arguments: Any, **settings: Any) -> Any:
        """Read the options before the name of the command."""
        with _reported_errors():
            return super().make_context(*arguments, **settings)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the user chose."""
        with _reported_errors(), warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = _print_warning
            return super().invoke(ctx)


class Command(TyperCommand):
    """A command whose help has no names of Python types, and whose errors name the command."""

    def get_params(self, ctx: Any) -> Any:
        """Return the arguments and the options of the command."""
        return _without_types(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: Any) -> Any:
        """Read the arguments and the options."""
        try:
            return super().parse_args(ctx, args)
        except _UsageError as error:
            error.ctx = error.ctx or ctx
            raise


@contextlib.contextmanager
def input_errors(files: Mapping[str, Path] = {}, *, outputs: bool = False) -> Iterator[None]:
    """Turn an OSError or a ValueError that the input causes into a :class:`UserError`.

    A TooLittleMemoryError keeps its type. The messages of the library are reworded.

    Parameters
    ----------
    files : mapping of str to Path
        The file that is named where a message of the library has this text, such as "the dictionary".
    outputs : bool
        Whether files are written too. Then an OSError is left as it is, unless it names one of `files`.
    """
    try:
        yield
    except OSError as error:
        if outputs and error.filename not in map(str, files.values()):
            raise
        raise UserError(_describe_os_error(error)) from error
    except ValueError as error:
        raise UserError(reworded(str(error), files)) from error
    except TooLittleMemoryError as error:
        raise TooLittleMemoryError(reworded(str(error), files)) from error


def error_message(error: BaseException) -> str:
    """Return the message of an error that the user can do something about."""
    if isinstance(error, OSError):
        return _describe_os_error(error)
    if isinstance(error, MemoryError) and not isinstance(error, TooLittleMemoryError):
        return _NO_MEMORY
    return str(error)


def reworded(message: str, files: Mapping[str, Path] = {}) -> str:
    """Return a message of the library with the names of files and options, which the library does not know.

    Parameters
    ----------
    message : str
        The message.
    files : mapping of str to Path
        As for :func:`input_errors`.

    Examples
    --------
    >>> reworded("hop_length=128 exceeds n_fft=64: rename it, or pass free=0.")
    '--hop-length 128 exceeds --n-fft 64: rename it, or pass --free 0.'
    >>> reworded("the recording is empty: it has no samples.", {"the recording": Path("free.wav")})
    '"free.wav" is empty: it has no samples.'
    """

    def replaced(match: re.Match[str]) -> str:
        quoted, words, name, equals = match.groups()
        if words:
            return f'"{files[words]}"'
        option = _OPTIONS.get(name, f"--{name}".replace("_", "-"))
        return quoted or option + (" " if equals else "")

    words = "|".join(map(re.escape, files)) or "(?!)"  # the second one matches nothing
    return re.sub(f"{_QUOTED}|({words})|{_PYTHON_NAME}", replaced, message)


@contextlib.contextmanager
def progress_bar(description: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on standard error while the body of the ``with`` statement runs.

    There is no bar if standard error is not a terminal.

    Parameters
    ----------
    description : str
        The text in front of the bar, such as "Separating".
    quiet : bool
        Whether to show nothing.

    Yields
    ------
    callable
        The function that moves the bar, to be called as ``progress(done, total)``.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    hidden = quiet or not ERRORS.is_terminal
    with Progress(*columns, console=ERRORS, transient=True, disable=hidden) as bar:
        task = bar.add_task(description, total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield progress


def print_line(line: str, *, quiet: bool = False) -> None:
    """Print a line of the result without any markup, without control codes, and without line breaks inside paths."""
    if not quiet:
        RESULTS.print(Text(printable(line)), soft_wrap=True)


def print_failure(message: str) -> None:
    """Print why a part of the work failed, on one line of standard error."""
    _print_error(message)


def print_traceback(text: str) -> None:
    """Print where an error in knownmf has occurred, on standard error, for a bug report."""
    with contextlib.suppress(OSError):
        ERRORS.print(Text(text), soft_wrap=True, end="")


def print_table(table: RenderableType, *, quiet: bool = False) -> None:
    """Print a table of the result."""
    if not quiet:
        RESULTS.print(table)


@contextlib.contextmanager
def _reported_errors() -> Iterator[None]:
    """Print the message of an exception, and exit with the code for it."""
    try:
        yield
    except _UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "knownmf"
        message = error.format_message()
        end = "" if message.endswith((".", "?")) else "."
        _print_error(f"{message}{end} See {command} --help.")
        raise typer.Exit(2) from error
    except UserError as error:
        _print_error(error_message(error))
        raise typer.Exit(2) from error
    except MissingPackageError as error:
        _print_error(error_message(error))
        raise typer.Exit(1) from error
    except KeyboardInterrupt as interrupt:
        _print_error("stopped; incomplete files have been removed.")
        raise typer.Exit(130) from interrupt
    except MemoryError as error:
        _print_error(error_message(error))
        raise typer.Exit(1) from error
    except OSError as error:
        if error.errno == errno.EPIPE:  # Typer handles this: the program that reads the output has ended
            raise
        _print_error(error_message(error))
        raise typer.Exit(1) from error


def _print_error(message: str) -> None:
    """Print an error message on one line of standard error."""
    _print_on_stderr(f"knownmf: {message}", "red")


def _print_on_stderr(message: str, style: str) -> None:
    """Print a message on one line of standard error."""
    # Where this fails, there is no place to report it. The files and the exit code of the command stay the same.
    with contextlib.suppress(OSError):
        ERRORS.print(Text(_on_one_line(message), style=style), soft_wrap=True)


def _print_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning on one line of standard error, without the line of code that `warnings.showwarning` adds."""
    _print_on_stderr(f"Note: {reworded(str(message))}", "yellow")


def _on_one_line(message: str) -> str:
    """Return a message on one line, without control codes."""
    return printable(" ".join(message.splitlines()))


def _without_types(parameters: Any) -> Any:
    """Return the parameters of a command, without the names of Python types that Typer shows in the help.

    Options have a metavar that says what to pass, such as FILE. For flags and arguments, nothing is to be said. Some
    versions of Typer show a missing default as "None".
    """
    for parameter in parameters:
        if parameter.default is None:
            parameter.show_default = False
        if getattr(parameter, "is_flag", False) and parameter.metavar is None:
            parameter.metavar = ""
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = lambda ctx: ""
    return parameters


def _describe_os_error(error: OSError) -> str:
    """Return the reason of an OSError, with the name of the file if there is one."""
    if error.strerror is None:
        return str(error)
    if error.errno == errno.EISDIR and error.filename is not None:
        return f'"{error.filename}" is a folder: pass a file.'
    return f"{error.strerror}." if error.filename is None else f'"{error.filename}": {error.strerror}.'
