"""Return the file names of the compiled library and the hash of its sources.

The build loads this file by its path, before the package is installed. It may only import the standard library.
"""

import hashlib
import sys
from pathlib import Path

# The folder of the C++ sources, and of the libraries that are compiled in place.
FOLDER = Path(__file__).with_name("native")

# There is one library for each of these levels of the x86-64 psABI, lowest first, and one for any other processor.
X86_LEVELS = ("x86-64-v2", "x86-64-v3", "x86-64-v4")
BASELINE = "baseline"

_SUFFIXES = {"win32": ".dll", "darwin": ".dylib"}
_HASH_DIGITS = 16  # 64 bits, so that different sources have different hashes for all practical purposes


def library_name(level: str, system: str = sys.platform) -> str:
    """Return the file name of the library for a CPU level.

    Parameters
    ----------
    level : str
        One of `X86_LEVELS`, or `BASELINE`.
    system : str
        The operating system, as `sys.platform` names it.
    """
    return f"knownmf-{level}{_SUFFIXES.get(system, '.so')}"


def source_hash(folder: Path = FOLDER) -> str:
    """Return the hexadecimal hash of the names and the contents of all C++ files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in (".cpp", ".hpp")):
        content = path.read_bytes()
        # The length marks where the content of a file ends and the name of the next file begins.
        digest.update(f"{path.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:_HASH_DIGITS]
