"""Report a missing optional package together with the command that installs it."""

import contextlib
from collections.abc import Iterator

__all__ = ["MissingPackageError", "audio_extra"]

# What the extra "audio" in pyproject.toml installs, by the names that are imported.
AUDIO_PACKAGES = ("matplotlib", "rich", "soundfile", "soxr", "typer")


class MissingPackageError(ModuleNotFoundError):
    """An optional package is not installed; the message has the command that installs it."""


@contextlib.contextmanager
def audio_extra() -> Iterator[None]:
    """Wrap imports of packages of the extra "audio".

    Raises
    ------
    MissingPackageError
        If one of them is not installed. Other import errors pass unchanged.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in AUDIO_PACKAGES or isinstance(error, MissingPackageError):
            raise
        raise MissingPackageError(
            f'the package {package} is not installed: run pip install "knownmf[audio]".', name=error.name
        ) from error
