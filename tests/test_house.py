"""The rules of the house that a machine can hold."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest

import knownmf

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "knownmf"

# From the ground up: a room imports only from rooms before it in this list.
FLOORS = [
    "validation",
    "divergences",
    "kernels",
    "certificates",
    "threads",
    "solver",
    "activations",
    "blocks",
    "learning",
    "starts",
    "parameters",
    "estimators",
    "files",
    "dictionary",
    "audio",
    "demo",
    "plots",
    "cli",
    "web",
]
MODULES = sorted(["knownmf", *(module.name for module in pkgutil.walk_packages(knownmf.__path__, prefix="knownmf."))])
FILES = sorted({*PACKAGE.rglob("*.py")} - {PACKAGE / "__init__.py"})  # the front door opens to every room


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path):
    """Rooms that a file imports from, wherever in the file it does."""
    here = ("knownmf", *path.relative_to(PACKAGE).with_suffix("").parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else ()
            full = (*base, *(node.module.split(".") if node.module else ()))
            if full[:1] == ("knownmf",):
                yield from [full[1]] if len(full) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("knownmf."))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    assert room(path) in FLOORS, f"{path.name} is in no room of the list"
    above = FLOORS[FLOORS.index(room(path)) + 1 :]
    assert not [other for other in imported_rooms(path) if other in above]


def offered_by(module):
    """What a module offers: its `__all__`, or what it defines under a public name."""
    own = [name for name, thing in vars(module).items() if getattr(thing, "__module__", None) == module.__name__]
    return getattr(module, "__all__", [name for name in own if not name.startswith("_")])


@pytest.mark.parametrize("name", ["knownmf", "knownmf.audio", "knownmf.cli"])
def test_front_doors_list_what_they_offer(name):
    listed = importlib.import_module(name).__all__
    assert listed
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize("name", MODULES)
def test_what_a_module_offers_exists_and_is_documented(name):
    module = importlib.import_module(name)
    assert module.__doc__
    for offered in offered_by(module):
        thing = getattr(module, offered)
        if callable(thing) and not isinstance(thing, types.GenericAlias) and hasattr(thing, "__name__"):
            assert inspect.getdoc(thing), f"{name}.{offered} has no docstring"


@pytest.mark.parametrize("name", MODULES)
def test_public_methods_are_documented(name):
    module = importlib.import_module(name)
    for offered in offered_by(module):
        thing = getattr(module, offered)
        if inspect.isclass(thing) and thing.__module__.startswith("knownmf"):
            members = {member: value for member, value in vars(thing).items() if not member.startswith("_")}
            said = [value for value in members.values() if inspect.isroutine(value) or isinstance(value, property)]
            assert not [value for value in said if not inspect.getdoc(value)]


def loaded_after(code):
    """Names of all modules that a fresh interpreter has loaded after running some code."""
    script = f"{code}\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_importing_the_package_loads_no_audio_plotting_or_web_package():
    foreign = {"librosa", "soundfile", "soxr", "audioread", "matplotlib", "typer", "rich", "pandas", "dask"}
    assert not loaded_after("import knownmf") & foreign


def test_the_command_line_starts_without_what_its_verbs_need():
    slow = {"librosa", "soundfile", "soxr", "matplotlib", "sklearn"}
    assert not loaded_after("import knownmf.cli") & slow


def test_there_is_one_version():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))
    assert settings["project"]["dynamic"] == ["version"]
    assert settings["tool"]["hatch"]["version"]["path"] == "src/knownmf/__init__.py"
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf8")
    assert f"\nversion: {knownmf.__version__}\n" in citation
    assert f"## {knownmf.__version__} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf8")


def test_all_extras_are_in_all():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]["optional-dependencies"]
    inside = re.fullmatch(r"knownmf\[(.*)\]", extras.pop("all")[0])
    assert set(inside[1].split(",")) == set(extras)


def test_the_readme_shows_every_command():
    readme = (ROOT / "README.md").read_text(encoding="utf8")
    from knownmf.cli import app

    verbs = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert len(verbs) == 6
    assert not [verb for verb in verbs if f"knownmf {verb}" not in readme]


def test_the_sounds_of_the_package_are_small_and_licensed(sounds):
    files = sorted(sounds.glob("*.flac"))
    assert sum(path.stat().st_size for path in files) < 1.5e6
    licences = (sounds / "LICENCES.md").read_text(encoding="utf8")
    assert not [path.name for path in files if path.name not in licences]


def test_a_wheel_would_hold_the_sounds_and_the_type_marker(sounds):
    assert (PACKAGE / "py.typed").exists()
    assert len(list(sounds.glob("*.flac"))) == 8
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))
    assert settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["src/knownmf"]
