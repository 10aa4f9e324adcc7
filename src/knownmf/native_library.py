"""Load the compiled library that fits this processor.

There are three builds of the library for x86-64, and one elsewhere; the best that the processor can run is loaded. Two
environment variables change that, for tests:

KNOWNMF_CPU_LEVEL
    The build to load: ``x86-64-v2``, ``x86-64-v3`` or ``x86-64-v4`` (``baseline`` on other processors).
KNOWNMF_LIBRARY_FOLDER
    The folder with the libraries, instead of the package's own (for example a build with sanitizers).
"""

import ctypes
import os
from pathlib import Path

from knownmf.native_files import BASELINE, FOLDER, X86_LEVELS, library_name, source_hash

_LEVEL_VARIABLE = "KNOWNMF_CPU_LEVEL"
_FOLDER_VARIABLE = "KNOWNMF_LIBRARY_FOLDER"
_REMEDY = "In a checkout, run `make library`; otherwise reinstall: pip install --force-reinstall --no-deps knownmf"


def _open(path: Path) -> ctypes.CDLL:
    """Return the library in a file, if it was compiled from the sources that are installed."""
    if not path.exists():
        raise ImportError(f"The compiled library is missing, expected {path}. {_REMEDY}")
    try:
        library = ctypes.CDLL(str(path))
        library.knownmf_source_hash.restype = ctypes.c_char_p
        library.knownmf_compiler.restype = ctypes.c_char_p
    except (OSError, AttributeError) as error:
        raise ImportError(f"The compiled library {path} cannot be loaded: {error}. {_REMEDY}") from error
    found, expected = library.knownmf_source_hash().decode(), source_hash()
    if found != expected:
        raise ImportError(
            f"The compiled library {path} was built from other sources: its hash is {found}, that of the sources in "
            f"{FOLDER} is {expected}. {_REMEDY}"
        )
    return library


def choose_level(levels: tuple[str, ...], supported: tuple[str, ...]) -> str:
    """Return the level that the user asks for, else the best that the processor supports.

    Parameters
    ----------
    levels, supported : tuple of str
        The levels that there are libraries for, and those of them that the processor can run; lowest first.
    """
    level = os.environ.get(_LEVEL_VARIABLE) or supported[-1]
    if level not in levels:
        raise ImportError(f"{_LEVEL_VARIABLE} is {level!r}, expected one of: {', '.join(levels)}.")
    if level not in supported:
        raise ImportError(
            f"{_LEVEL_VARIABLE} is {level!r}, but this processor runs at most {supported[-1]}: unset the variable, or "
            f"set it to one of: {', '.join(supported)}."
        )
    return level


def _load() -> tuple[ctypes.CDLL, str]:
    """Return the library to use, and the CPU level that it was compiled for."""
    folder = Path(os.environ.get(_FOLDER_VARIABLE) or FOLDER)
    levels = (BASELINE,) if (folder / library_name(BASELINE)).exists() else X86_LEVELS
    lowest = _open(folder / library_name(levels[0]))
    # The library says 2 for the first of these levels, and 1 for processors older than that.
    supported = levels if levels == (BASELINE,) else X86_LEVELS[: max(lowest.knownmf_cpu_level() - 1, 0)]
    if not supported:
        raise ImportError(f"knownmf needs a processor that runs {levels[0]} (SSE4.2 and POPCNT): this one does not.")
    level = choose_level(levels, supported)
    return (lowest if level == levels[0] else _open(folder / library_name(level))), level


library, _level = _load()


def cpu_level() -> str:
    """Return the CPU level of the library in use: ``"x86-64-v2"`` to ``"x86-64-v4"``, or ``"baseline"``."""
    return _level


def compiler() -> str:
    """Return the name and version of the compiler that made the library in use."""
    return library.knownmf_compiler().decode()
