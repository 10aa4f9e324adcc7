"""What the command line says: results, mistakes, warnings, and how far the work has got."""

import contextlib
import errno
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text
from typer.core import TyperGroup

from knownmf.extras import MissingPackageError

__all__ = ["Mistake", "Verbs", "percent", "say", "show", "working", "wrong_input"]

RESULTS = Console(highlight=False)
ERRORS = Console(stderr=True, highlight=False)

# UsageError, which some versions of Typer take from Click and others define themselves, but none offers by its name.
_BadUsage: Any = typer.BadParameter.__base__


class Mistake(Exception):
    """Bad usage or bad input: the command ends with its message and exit code 2."""


class Verbs(TyperGroup):
    """The group of all verbs: whatever one of them raises becomes one paragraph and an exit code.

    2 for bad usage or bad input, 130 when interrupted, 1 for what the machine could not do (a full disk, a package that
    is not installed). A fault in knownmf itself keeps its traceback: it belongs in a report.
    """

    def make_context(self, *arguments: Any, **settings: Any) -> Any:
        """Read the options before the verb."""
        with _one_paragraph():
            return super().make_context(*arguments, **settings)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb that was asked for."""
        with _one_paragraph(), warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = _note
            return super().invoke(ctx)


@contextlib.contextmanager
def wrong_input() -> Iterator[None]:
    """Turn what the library raises for files and values that it cannot work with into a :class:`Mistake`."""
    try:
        yield
    except OSError as error:
        raise Mistake(_described(error)) from error
    except ValueError as error:
        raise Mistake(str(error)) from error


@contextlib.contextmanager
def working(doing: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on standard error, if that is a terminal, while the work inside goes on.

    Parameters
    ----------
    doing : str
        What the bar is for, such as "Separating".
    quiet : bool
        Show nothing.

    Yields
    ------
    callable
        To be called as ``progress(done, total)``.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    hidden = quiet or not ERRORS.is_terminal
    with Progress(*columns, console=ERRORS, transient=True, disable=hidden) as bar:
        task = bar.add_task(f"{doing} (the first time, this compiles)", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, description=doing if done else None)

        yield progress


def say(line: str, *, quiet: bool = False) -> None:
    """Print a line of the result, exactly as it is: no markup, no line breaks inside paths."""
    if not quiet:
        RESULTS.print(Text(line), soft_wrap=True)


def show(content: RenderableType, *, quiet: bool = False) -> None:
    """Print a table."""
    if not quiet:
        RESULTS.print(content)


def percent(share: float) -> str:
    """A share from 0 to 1 in words, never rounded up: only the whole is 100 %.

    Examples
    --------
    >>> percent(0.99999), percent(1.0), percent(0.5)
    ('99.9 %', '100 %', '50 %')
    """
    return f"{math.floor(share * 1000 + 1e-9) / 10:g} %"


@contextlib.contextmanager
def _one_paragraph() -> Iterator[None]:
    try:
        yield
    except _BadUsage as error:
        command = error.ctx.command_path if error.ctx is not None else "knownmf"
        _complain(f"{error.format_message().rstrip('.')}: see {command} --help.")
        raise typer.Exit(2) from error
    except Mistake as mistake:
        _complain(str(mistake))
        raise typer.Exit(2) from mistake
    except MissingPackageError as error:
        _complain(str(error))
        raise typer.Exit(1) from error
    except KeyboardInterrupt as interrupt:
        _complain("stopped; what was not complete has been removed.")
        raise typer.Exit(130) from interrupt
    except MemoryError as error:
        _complain("not enough memory: take a shorter recording, or fewer components.")
        raise typer.Exit(1) from error
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        _complain(_described(error))
        raise typer.Exit(1) from error


def _complain(message: str) -> None:
    ERRORS.print(Text(f"knownmf: {' '.join(message.splitlines())}", style="red"), soft_wrap=True)


def _note(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Stand in for `warnings.showwarning`: the message alone, without the line of code that warned."""
    ERRORS.print(Text(f"Note: {' '.join(str(message).splitlines())}", style="yellow"), soft_wrap=True)


def _described(error: OSError) -> str:
    if error.strerror is None:
        return str(error)
    return f"{error.strerror}." if error.filename is None else f'"{error.filename}": {error.strerror}.'
