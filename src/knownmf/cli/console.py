"""Print results, errors, warnings and progress."""

import contextlib
import errno
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text
from typer.core import TyperGroup

from knownmf.extras import MissingPackageError
from knownmf.memory import TooLittleMemoryError

__all__ = ["CommandGroup", "UserError", "input_errors", "print_line", "print_table", "progress_bar"]

RESULTS = Console(highlight=False)
ERRORS = Console(stderr=True, highlight=False)

# The class UsageError. Some versions of Typer take it from Click, others define it; none exports it.
_UsageError: Any = typer.BadParameter.__base__


class UserError(Exception):
    """Wrong usage or wrong input: the command ends with this message and exit code 2."""


class CommandGroup(TyperGroup):
    """The group of all commands. It turns exceptions into one line of text and an exit code.

    The exit code is 2 for wrong usage or wrong input, 130 after an interrupt, and 1 for errors of the operating system,
    such as a full disk, and for packages that are not installed. Other exceptions are errors in knownmf. They keep
    their traceback, for a bug report.
    """

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


@contextlib.contextmanager
def input_errors(files: Mapping[str, Path] = {}) -> Iterator[None]:
    """Turn an OSError or a ValueError that the input causes into a :class:`UserError`.

    Parameters
    ----------
    files : mapping of str to Path
        The file that should be named where a message of the library has this text, such as "the dictionary".
    """

    def named(message: object) -> str:
        text = str(message)
        for words, path in files.items():
            text = text.replace(words, f'"{path}"')
        return text

    try:
        yield
    except OSError as error:
        raise UserError(_describe_os_error(error)) from error
    except ValueError as error:
        raise UserError(named(error)) from error
    except TooLittleMemoryError as error:
        raise TooLittleMemoryError(named(error)) from error


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
    """Print a line of the result without any markup, and without line breaks inside paths."""
    if not quiet:
        RESULTS.print(Text(line), soft_wrap=True)


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
        _print_error(f"{error.format_message().rstrip('.')}: see {command} --help.")
        raise typer.Exit(2) from error
    except UserError as error:
        _print_error(str(error))
        raise typer.Exit(2) from error
    except MissingPackageError as error:
        _print_error(str(error))
        raise typer.Exit(1) from error
    except KeyboardInterrupt as interrupt:
        _print_error("stopped; incomplete files have been removed.")
        raise typer.Exit(130) from interrupt
    except TooLittleMemoryError as error:
        _print_error(str(error))
        raise typer.Exit(1) from error
    except MemoryError as error:
        _print_error("not enough memory: take a shorter recording, or fewer components.")
        raise typer.Exit(1) from error
    except OSError as error:
        if error.errno == errno.EPIPE:  # Typer handles this: the program that reads the output has ended
            raise
        _print_error(_describe_os_error(error))
        raise typer.Exit(1) from error


def _print_error(message: str) -> None:
    """Print an error message on one line of standard error."""
    _print_on_stderr(f"knownmf: {message}", "red")


def _print_on_stderr(message: str, style: str) -> None:
    """Print a message on one line of standard error."""
    # Where this fails, there is no place to report it. The files and the exit code of the command stay the same.
    with contextlib.suppress(OSError):
        ERRORS.print(Text(" ".join(message.splitlines()), style=style), soft_wrap=True)


def _print_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning on one line of standard error, without the line of code that `warnings.showwarning` adds."""
    _print_on_stderr(f"Note: {message}", "yellow")


def _describe_os_error(error: OSError) -> str:
    """Return the reason of an OSError, with the name of the file if there is one."""
    if error.strerror is None:
        return str(error)
    return f"{error.strerror}." if error.filename is None else f'"{error.filename}": {error.strerror}.'
