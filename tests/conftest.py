"""What several test modules share."""

import os
from pathlib import Path

import pytest

import knownmf

PACKAGE = Path(knownmf.__file__).parent


@pytest.fixture(scope="session")
def sounds() -> Path:
    """The folder of the recordings that come with the package."""
    return PACKAGE / "sounds"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, under sanitizers, what measures memory or looks at the library of the package."""
    if "KNOWNMF_LIBRARY_FOLDER" in os.environ:
        for item in items:
            if item.get_closest_marker("plain_library"):
                item.add_marker(pytest.mark.skip(reason="the library is another one than the package's"))
