"""Print the versions of the installed software, for bug reports."""

import platform
import sys
from collections.abc import Mapping
from importlib import metadata

from knownmf.native_library import compiler, cpu_level
from knownmf.threads import get_num_threads

_PACKAGES = (
    "knownmf",
    "numpy",
    "scipy",
    "scikit-learn",
    "threadpoolctl",
    "soundfile",
    "soxr",
    "pandas",
    "polars",
    "pyarrow",
    "matplotlib",
    "typer",
    "rich",
    "pip",
)


def show_versions() -> None:
    """Print the versions of Python, of knownmf and of the packages it uses, and how it was compiled.

    Include the output in bug reports.
    """
    system = {"python": sys.version.replace("\n", " "), "executable": sys.executable, "machine": platform.platform()}
    library = {"cpu level": cpu_level(), "compiler": compiler(), "threads": get_num_threads()}
    packages = {name: _version(name) for name in _PACKAGES}
    _print_section("System", system)
    _print_section("Compiled library", library)
    _print_section("Packages", packages)


def _print_section(title: str, entries: Mapping[str, object]) -> None:
    """Print a title, then a line for each entry."""
    print(f"\n{title}:")  # noqa: T201
    for name, value in entries.items():
        print(f"{name:>15}: {value}")  # noqa: T201


def _version(package: str) -> str:
    """Return the installed version of a package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
