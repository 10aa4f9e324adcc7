"""Test the structure of the package: the layers of its modules, their public names, and the files of a release."""

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

# The layers from bottom to top: a module imports only from modules before it in this list.
LAYERS = [
    "wording",
    "validation",
    "divergences",
    "limits",
    "table_labels",
    "files",
    "memory",
    "extras",
    "threads",
    "workers",
    "native_files",
    "native_library",
    "native",
    "versions",
    "observations",
    "results",
    "solver",
    "blocks",
    "activations",
    "inference",
    "learning",
    "prepared",
    "nmf_base",
    "estimators",
    "archives",
    "table_files",
    "dictionary_files",
    "dictionary",
    "audio",
    "demo",
    "plots",
    "cli",
]
# The same inside the packages. Their own `__init__` may import all of their modules.
INSIDE = {
    "blocks": [
        "slices",
        "questions",
        "sources",
        "result_arrays",
        "solving",
        "state_files",
        "passes",
        "dask_arrays",
        "dask_passes",
        "places",
    ],
    "inference": ["frames", "information", "poisson", "errors", "fit", "resampling", "selection"],
    "learning": ["known", "passes", "starts", "descent", "alternating", "fitting"],
    "audio": [
        "containers",
        "samples",
        "recordings",
        "spectrograms",
        "overviews",
        "activation_files",
        "adaptation",
        "decomposition",
        "learning",
        "separation",
        "transcription",
    ],
    "cli": [
        "console",
        "options",
        "labels",
        "manifest",
        "inputs",
        "outputs",
        "tables",
        "summaries",
        "information",
        "jobs",
        "commands",
        "solving",
        "demonstration",
        "application",
    ],
}
PUBLIC = PACKAGE / "__init__.py"
FILES = sorted({*PACKAGE.rglob("*.py")} - {PUBLIC})
MODULES = sorted(["knownmf", *(module.name for module in pkgutil.walk_packages(knownmf.__path__, prefix="knownmf."))])


def module_name(path):
    """Return the dotted name of the module in a file."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {module_name(path): path for path in (PUBLIC, *FILES)}


def imported(path):
    """Yield the dotted names of the modules of the package that a file imports, including imports inside functions."""
    here = path.relative_to(PACKAGE.parent).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else ()
            full = ".".join((*base, *(node.module.split(".") if node.module else ())))
            for alias in node.names:
                name = f"{full}.{alias.name}"
                yield name if name in NAMES else full
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def layer(name):
    """Return the layer of a module by its dotted name, None for the package itself and for other packages."""
    parts = name.split(".")
    return parts[1] if parts[0] == "knownmf" and len(parts) > 1 else None


def test_every_module_has_a_layer():
    assert {layer(module_name(path)) for path in FILES} == set(LAYERS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    here = layer(module_name(path))
    above = LAYERS[LAYERS.index(here) + 1 :]
    assert not [name for name in imported(path) if layer(name) in above]


@pytest.mark.parametrize("package", INSIDE)
def test_imports_inside_a_package_point_down(package):
    layers = INSIDE[package]
    paths = {path.stem: path for path in (PACKAGE / package).glob("*.py") if path.stem != "__init__"}
    assert sorted(paths) == sorted(layers)
    for name, path in paths.items():
        siblings = {
            parts[2]
            for parts in (other.split(".") for other in imported(path))
            if parts[1:2] == [package] and parts[2:]
        }
        assert siblings <= set(layers[: layers.index(name)]), name
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(INSIDE)


def test_no_modules_import_each_other():
    """Test single modules, not layers. A package counts as a module too, because it imports its modules."""
    left = {name: {other for other in imported(path) if other in NAMES} - {name} for name, path in NAMES.items()}
    while leaves := [name for name, others in left.items() if not others & left.keys()]:
        for name in leaves:
            del left[name]
    assert not left, f"these modules import each other, or import some that do: {sorted(left)}"


def names_in(path):
    """Return all top-level packages that a file imports."""
    return {name.split(".")[0] for name in imported(path)}


def test_two_modules_use_ctypes_and_none_compiles_at_run_time():
    assert [module_name(path) for path in FILES if "ctypes" in names_in(path)] == [
        "knownmf.native",
        "knownmf.native_library",
    ]
    assert not [module_name(path) for path in FILES if names_in(path) & {"numba", "llvmlite", "cffi", "pybind11"}]


def test_three_modules_import_dask():
    """Test which modules know of Dask: those for its arrays, and `workers`, which distributes whole recordings."""
    assert [module_name(path) for path in FILES if names_in(path) & {"dask", "distributed"}] == [
        "knownmf.blocks.dask_arrays",
        "knownmf.blocks.dask_passes",
        "knownmf.workers",
    ]


def public_names(module):
    """Return the public names of a module: its `__all__`, or the public names that it defines."""
    own = [name for name, thing in vars(module).items() if getattr(thing, "__module__", None) == module.__name__]
    return getattr(module, "__all__", [name for name in own if not name.startswith("_")])


@pytest.mark.parametrize("name", ["knownmf", *(f"knownmf.{package}" for package in INSIDE)])
def test_packages_list_their_public_names(name):
    listed = importlib.import_module(name).__all__
    assert listed
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize("name", MODULES)
def test_public_names_exist_and_are_documented(name):
    module = importlib.import_module(name)
    assert module.__doc__
    for offered in public_names(module):
        thing = getattr(module, offered)
        if callable(thing) and not isinstance(thing, types.GenericAlias) and hasattr(thing, "__name__"):
            assert inspect.getdoc(thing), f"{name}.{offered} has no docstring"


@pytest.mark.parametrize("name", MODULES)
def test_public_methods_are_documented(name):
    module = importlib.import_module(name)
    for offered in public_names(module):
        thing = getattr(module, offered)
        if inspect.isclass(thing) and thing.__module__.startswith("knownmf"):
            members = {member: value for member, value in vars(thing).items() if not member.startswith("_")}
            routines = [value for value in members.values() if inspect.isroutine(value) or isinstance(value, property)]
            assert not [value for value in routines if not inspect.getdoc(value)]


def loaded_after(code):
    """Return the names of all top-level packages that a fresh interpreter has loaded after running some code."""
    script = f"{code}\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


def loaded_in_addition(code, expected):
    """Return the packages that some code loads in addition to the standard library and the expected imports."""
    return loaded_after(code) - loaded_after(expected) - set(sys.stdlib_module_names)


def test_importing_the_package_loads_numpy_and_sparse_matrices_only():
    assert loaded_in_addition("import knownmf", "import numpy, scipy.sparse") == {"knownmf"}


def test_solving_loads_no_other_packages():
    """Test a first call that uses threads, in a fresh interpreter."""
    solve = "import knownmf, numpy as np; V = np.random.rand(20, 100); knownmf.activations(V, V[:, :3] + 0.1, tol=1e-2)"
    assert loaded_in_addition(solve, "import numpy.random, scipy.sparse") == {"knownmf"}


def test_the_estimator_loads_neither_audio_nor_plotting():
    foreign = {"librosa", "soundfile", "soxr", "audioread", "matplotlib", "typer", "rich", "dask", "numba"}
    assert not loaded_after("import knownmf; knownmf.NMF") & foreign


def test_the_command_line_starts_without_slow_imports():
    slow = {"librosa", "soundfile", "soxr", "matplotlib", "sklearn", "numba"}
    assert not loaded_after("from knownmf.cli import app") & slow


def test_there_is_one_version():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))
    assert settings["project"]["dynamic"] == ["version"]
    assert settings["tool"]["hatch"]["version"]["path"] == "src/knownmf/__init__.py"
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf8")
    assert f"\nversion: {knownmf.__version__}\n" in citation
    assert f"## {knownmf.__version__} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf8")


def test_all_extras_for_users_are_in_all():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]["optional-dependencies"]
    inside = re.fullmatch(r"knownmf\[(.*)\]", extras.pop("all")[0])
    assert set(inside[1].split(",")) == set(extras) - {"dev"}


def test_the_readme_shows_every_command():
    readme = (ROOT / "README.md").read_text(encoding="utf8")
    from knownmf.cli import app

    names = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert len(names) == 7
    assert not [name for name in names if f"knownmf {name}" not in readme]


def test_the_sounds_of_the_package_are_small_and_licensed(sounds):
    files = sorted(sounds.glob("*.flac"))
    assert sum(path.stat().st_size for path in files) < 1.5e6
    licenses = (sounds / "LICENCES.md").read_text(encoding="utf8")
    assert not [path.name for path in files if path.name not in licenses]


def test_the_package_contains_the_sounds_and_the_type_marker(sounds):
    assert (PACKAGE / "py.typed").exists()
    assert len(list(sounds.glob("*.flac"))) == 8
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))
    assert settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == [
        "src/knownmf",
        "src/knownmf_command.py",
    ]


@pytest.mark.parametrize("name", ["activations", "basis", "Dictionary", "NMF", "NMF.fit", "NMF.transform"])
def test_help_shows_short_types(name):
    """NumPy's ArrayLike is a union of a dozen types, which would make the first line of help() unreadable."""
    function = knownmf
    for part in name.split("."):
        function = getattr(function, part)
    assert "_NestedSequence" not in str(inspect.signature(function))
