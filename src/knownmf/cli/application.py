"""The Typer application with all commands."""

from knownmf.cli.commands import app
from knownmf.cli.console import Command
from knownmf.cli.demonstration import demo

__all__ = ["app"]

app.command(cls=Command)(demo)
