"""What happens if the packages of the extras "audio" and "tables" are not installed."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from commands import write_inputs
from knownmf.extras import AUDIO_PACKAGES, DASK_PACKAGES, TABLES_PACKAGES, MissingPackageError, audio_extra

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf8"))["project"]
MAIN = "import sys; from knownmf.cli import main; sys.argv[0] = 'knownmf'; main()"


def run_without(blocked, code, *arguments):
    """Run code in a new interpreter in which some packages cannot be imported."""
    block = f"""
import importlib.abc, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {set(blocked)!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Block())
"""
    return subprocess.run([sys.executable, "-c", block + code, *arguments], capture_output=True, text=True)


def message(package):
    """Return the message about a missing package, with the extras that have it."""
    audio, tables = 'pip install "knownmf[audio]"', 'pip install "knownmf[tables]"'
    remedy = audio if package not in TABLES_PACKAGES else tables
    if package in {*AUDIO_PACKAGES} & {*TABLES_PACKAGES}:
        remedy = f"{audio} for recordings, or {tables} for tables"
    return f"the package {package} is not installed: run {remedy}."


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("knownmf.audio", "soundfile"),
        ("knownmf.audio.spectrograms", "soxr"),
        ("knownmf.demo", "soundfile"),
        ("knownmf.plots", "matplotlib"),
    ],
)
def test_an_import_names_the_missing_package_and_the_command(module, package):
    code = f"try:\n    import {module}\nexcept ImportError as error:\n    print(error.name, error, sep=': ')"
    done = run_without([package], code)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{package}: {message(package)}\n"


def test_importing_the_application_names_the_missing_package():
    done = run_without(["typer"], "from knownmf.cli import app")
    assert done.stderr.splitlines()[-1].endswith(message("typer"))


@pytest.mark.parametrize("arguments", [(), ("--help",), ("--version",), ("info", "tones.npz"), ("demo",)])
@pytest.mark.parametrize(("blocked", "named"), [(AUDIO_PACKAGES, ("typer", "rich")), (["rich"], ("rich",))])
def test_the_command_ends_with_one_line(tmp_path, monkeypatch, arguments, blocked, named):
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    done = run_without(blocked, MAIN, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr in {f"knownmf: {message(package)}\n" for package in named}


@pytest.mark.parametrize(
    ("blocked", "arguments"),
    [
        ("soundfile", ("info", "song.wav")),
        ("soundfile", ("learn", "song.wav", "--out", "new.npz")),
        ("soxr", ("separate", "song.wav", "--dictionary", "tones.npz", "--out", "stems")),
        ("soundfile", ("decompose", "song.wav", "--dictionary", "tones.npz", "--out", "new.npz")),
        ("matplotlib", ("transcribe", "song.wav", "-d", "tones.npz", "--out", "new.csv", "--picture", "new.png")),
        ("soundfile", ("demo", "--out", "new")),
    ],
)
def test_a_verb_ends_with_one_line_and_writes_nothing(tmp_path, monkeypatch, blocked, arguments):
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    done = run_without([blocked], MAIN, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"knownmf: {message(blocked)}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["song.wav", "tones.npz"]


def test_the_core_needs_no_extra():
    code = """
import numpy as np
import knownmf
V = np.random.default_rng(0).random((20, 30))
knownmf.activations(V, V[:, :3])
knownmf.NMF(n_components=2, random_state=0).fit(V)
knownmf.Dictionary(V[:5, :2], ["a", "b"], sr=8000, n_fft=8, hop_length=4)
knownmf.show_versions()
"""
    done = run_without([*AUDIO_PACKAGES, *DASK_PACKAGES, *TABLES_PACKAGES, "librosa", "numba"], code)
    assert done.returncode == 0, done.stderr


def test_a_table_of_the_result_names_the_missing_package_and_the_command():
    code = """
import knownmf
try:
    knownmf.activations([[1.0]], [[1.0]]).to_frame()
except ImportError as error:
    print(error)
"""
    done = run_without(["pandas"], code)
    assert (done.returncode, done.stdout, done.stderr) == (0, message("pandas") + "\n", "")


def test_recordings_plots_and_the_command_do_not_need_librosa(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    arguments = ("decompose", "song.wav", "-d", "tones.npz", "--out", "new.npz", "--picture", "new.png")
    done = run_without(["librosa", "numba"], MAIN, *arguments)
    assert (done.returncode, done.stderr) == (0, "")


def test_other_import_errors_pass():
    with pytest.raises(ModuleNotFoundError, match="No module named 'unknown_package'") as caught, audio_extra():
        import unknown_package  # noqa: F401
    assert not isinstance(caught.value, MissingPackageError)


def names(requirements):
    return {requirement.split(">")[0] for requirement in requirements}


def test_the_extras_are_what_the_messages_are_for():
    assert names(PROJECT["dependencies"]) == {"numpy", "scipy", "scikit-learn", "threadpoolctl"}
    assert names(PROJECT["optional-dependencies"]["audio"]) == set(AUDIO_PACKAGES)
    assert {name.split("[")[0] for name in names(PROJECT["optional-dependencies"]["dask"])} == set(DASK_PACKAGES)
    assert names(PROJECT["optional-dependencies"]["tables"]) == set(TABLES_PACKAGES)
    assert "knownmf[audio,dask,tables,zarr]" in PROJECT["optional-dependencies"]["dev"]


def test_a_dask_array_without_dask_names_the_command():
    """A Dask array may come from a process that had Dask, or from a library that only looks like it."""
    code = """
import numpy as np
import knownmf

class Array:
    shape, dtype, chunks = (3, 4), np.dtype(float), ((3,), (4,))
    def __dask_graph__(self): pass
    def __getitem__(self, index): pass

for call in (knownmf.activations, lambda V, _: knownmf.NMF.from_basis(np.ones((4, 2))).fit(V)):
    try:
        call(Array(), np.ones((3, 2)))
    except ImportError as error:
        print(error)
"""
    done = run_without(DASK_PACKAGES, code)
    assert done.stdout == 2 * 'the package dask is not installed: run pip install "knownmf[dask]".\n', done.stderr
