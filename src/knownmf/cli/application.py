"""The Typer application with all verbs."""

from knownmf.cli.demonstration import demo
from knownmf.cli.verbs import app

__all__ = ["app"]

app.command()(demo)
