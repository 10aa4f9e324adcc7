"""Report a missing optional package together with the command that installs it."""

import contextlib
from collections.abc import Iterator, Sequence

__all__ = ["MissingPackageError", "audio_extra", "dask_extra"]

# What the extras "audio" and "dask" in pyproject.toml install, by the names that are imported.
AUDIO_PACKAGES = ("matplotlib", "rich", "soundfile", "soxr", "typer")
DASK_PACKAGES = ("dask", "distributed", "zarr")


class MissingPackageError(ModuleNotFoundError):
    """An optional package is not installed; the message has the command that installs it."""


def audio_extra() -> contextlib.AbstractContextManager[None]:
    """Wrap imports of packages of the extra "audio".

    Raises
    ------
    MissingPackageError
        If one of them is not installed. Other import errors pass unchanged.
    """
    return _extra("audio", AUDIO_PACKAGES)


def dask_extra() -> contextlib.AbstractContextManager[None]:
    """Wrap imports of packages of the extra "dask".

    Raises
    ------
    MissingPackageError
        If one of them is not installed. Other import errors pass unchanged.
    """
    return _extra("dask", DASK_PACKAGES)


@contextlib.contextmanager
def _extra(name: str, packages: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in packages or isinstance(error, MissingPackageError):
            raise
        raise MissingPackageError(
            f'the package {package} is not installed: run pip install "knownmf[{name}]".', name=error.name
        ) from error
