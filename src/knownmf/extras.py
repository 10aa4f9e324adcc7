"""Report a missing optional package together with the command that installs it."""

import contextlib
from collections.abc import Collection, Iterator

__all__ = ["MissingPackageError", "audio_extra", "command_extra", "tables_extra"]

# What the extras "audio" and "tables" in pyproject.toml install, by the names that are imported.
AUDIO_PACKAGES = ("matplotlib", "rich", "soundfile", "soxr", "typer")
TABLES_PACKAGES = ("matplotlib", "pandas", "pyarrow", "rich", "typer")

_INSTALL_AUDIO = 'pip install "knownmf[audio]"'
_INSTALL_TABLES = 'pip install "knownmf[tables]"'


class MissingPackageError(ModuleNotFoundError):
    """An optional package is not installed; the message has the command that installs it."""


def audio_extra() -> contextlib.AbstractContextManager[None]:
    """Wrap imports of packages of the extra "audio".

    Raises
    ------
    MissingPackageError
        If one of them is not installed. Other import errors pass unchanged.
    """
    return _reported(AUDIO_PACKAGES, f"run {_INSTALL_AUDIO}")


def tables_extra() -> contextlib.AbstractContextManager[None]:
    """Wrap imports of packages of the extra "tables", in the same way."""
    return _reported(TABLES_PACKAGES, f"run {_INSTALL_TABLES}")


def command_extra() -> contextlib.AbstractContextManager[None]:
    """Wrap imports of packages that both extras have: those of the command and of pictures."""
    both = [package for package in AUDIO_PACKAGES if package in TABLES_PACKAGES]
    return _reported(both, f"run {_INSTALL_AUDIO} for recordings, or {_INSTALL_TABLES} for tables")


@contextlib.contextmanager
def _reported(packages: Collection[str], remedy: str) -> Iterator[None]:
    """Raise a MissingPackageError with a remedy if one of some packages is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in packages or isinstance(error, MissingPackageError):
            raise
        raise MissingPackageError(f"the package {package} is not installed: {remedy}.", name=error.name) from error
