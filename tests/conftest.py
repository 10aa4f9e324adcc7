"""What several test modules share."""

from pathlib import Path

import pytest

import knownmf

PACKAGE = Path(knownmf.__file__).parent


@pytest.fixture(scope="session")
def sounds() -> Path:
    """The folder of the recordings that come with the package."""
    return PACKAGE / "sounds"
