"""The Typer application with all commands."""

from typing import Annotated

import typer

import knownmf
from knownmf.cli.commands import decompose, learn, separate, transcribe
from knownmf.cli.console import Command, CommandGroup, print_line
from knownmf.cli.demonstration import demo
from knownmf.cli.information import info
from knownmf.cli.solving import solve

__all__ = ["app"]

app = typer.Typer(
    cls=CommandGroup,
    help="Separate a recording into sounds of which you have examples, or find the activations of a table for known "
    "basis vectors.\n\n`knownmf learn` makes a dictionary, a file that describes your sounds. `separate`, `decompose` "
    "and `transcribe` use it to separate a recording into one file per sound, to show how strongly each sound is "
    "present over time, and to list the hits or notes. `solve` is for tables of anything else.",
    epilog="Start with `knownmf demo`, or with your own sounds:\n\n"
    "`knownmf learn kick.wav snare.wav hat.wav --out drums.npz`\n\n"
    "`knownmf separate song.wav --dictionary drums.npz --out stems`",
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _print_version_or_help(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Print the version or, if there is no command, the help."""
    if version:
        print_line(f"knownmf {knownmf.__version__}")
        raise typer.Exit()
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)
        raise typer.Exit(2)


for command in (learn, separate, decompose, transcribe, solve, info, demo):
    app.command(cls=Command)(command)
