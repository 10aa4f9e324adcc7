"""What several test modules share."""

import hashlib
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Numba's cache on disk knows the file of the function that was called, not the files of those that it calls: compiled
# code is kept by what all sources say, so that no test runs a kernel that was edited since.
SOURCES = b"".join(path.read_bytes() for path in sorted((ROOT / "src" / "knownmf").rglob("*.py")))
CACHE = ROOT / ".pytest_cache" / "numba" / hashlib.sha256(SOURCES).hexdigest()[:16]
os.environ.setdefault("NUMBA_CACHE_DIR", str(CACHE))

import knownmf  # noqa: E402

PACKAGE = Path(knownmf.__file__).parent


@pytest.fixture(scope="session")
def sounds() -> Path:
    """The folder of the recordings that come with the package."""
    return PACKAGE / "sounds"
