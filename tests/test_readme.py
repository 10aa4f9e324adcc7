"""Test the examples, the figures and the names of tests in the README and in docs."""

import inspect
import re
import runpy
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import zarr

import knownmf
from commands import write_inputs
from knownmf.audio import decompose

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf8")
TABLES = (ROOT / "docs" / "tables.md").read_text(encoding="utf8")
LEARNING = (ROOT / "docs" / "learning.md").read_text(encoding="utf8")
INFERENCE = (ROOT / "docs" / "inference.md").read_text(encoding="utf8")
FIELDS = (ROOT / "docs" / "fields.md").read_text(encoding="utf8")
LARGE = (ROOT / "docs" / "large.md").read_text(encoding="utf8")
RECORDINGS = (ROOT / "docs" / "recordings.md").read_text(encoding="utf8")
SCIKIT_LEARN = (ROOT / "docs" / "scikit-learn.md").read_text(encoding="utf8")


def examples(page):
    """Return the Python examples of a page."""
    return re.findall(r"```python\n(.*?)```", page, re.S)


# librosa.load imports audioread, which imports modules that Python 3.13 has removed.
@pytest.mark.filterwarnings("ignore:.*slated for removal in Python 3.13:DeprecationWarning")
def test_the_examples_of_the_readme_run_and_print_what_it_says(capsys):
    assert len(examples(README)) >= 2
    names = {}
    for block in examples(README):
        exec(block, names)
    printed = capsys.readouterr().out
    assert "[[ 3.   5.   4.5  0. ]\n [ 0.   0.   3.  10. ]]" in printed
    assert "\nActivations(2 components x 4 frames, beta=2: 4 of 4 frames within tol=1e-12, " in printed
    assert np.allclose(names["H"], names["found"].H, atol=1e-3)
    assert np.array_equal(names["comps"], names["W"])
    assert "\nkick is strongest at 4.69 s\n" in printed
    strongest = dict(re.findall(r"(\w+) is strongest at (\d+\.\d+) s", printed))
    onsets = names["song"].onsets
    assert list(strongest) == list(onsets)
    assert all(np.abs(onsets[label] - float(strongest[label])).min() < 0.06 for label in onsets)
    assert "\nEvent(onset_s=0.04" in printed
    assert re.search(r"\n9\d% of the recording is explained\n", printed)
    assert names["figure"].axes


def test_the_examples_of_the_fields_print_what_stands_below_them(capsys):
    names, expected = {}, re.findall(r"```text\n(.*?)```", FIELDS, re.S)
    assert len(examples(FIELDS)) == len(expected) >= 7
    for block, text in zip(examples(FIELDS), expected, strict=True):
        exec(block, names)
        assert capsys.readouterr().out == text
        assert "False" not in text
        assert block.count("\n") <= 20


def test_the_example_of_inference_finds_the_three_components(capsys):
    (block,) = examples(INFERENCE)
    names = {}
    exec(block, names)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["component 2", "component 5", "component 11", "p-values"]
    assert (names["lower"] <= names["chosen"].found.H).all()
    assert (names["upper"] >= names["chosen"].found.H).all()


def test_the_examples_of_tables_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in examples(TABLES):
        exec(block, names)
    assert list(names["found"].to_frame().index) == ["SBS1", "SBS5"]
    assert list(names["found"].to_frame().columns) == ["P1", "P2"]
    assert names["knownmf"].Dictionary.load("signatures.npz").units == "mutations"


def test_the_page_on_tables_names_all_options_of_the_command():
    from knownmf.cli import app

    command = next(command for command in app.registered_commands if command.callback.__name__ == "solve")
    options = [option.replace("_", "-") for option in inspect.signature(command.callback).parameters]
    assert not [option for option in options if f"--{option}" not in TABLES and option != "data"]


@pytest.mark.parametrize("ending", ["npz", "zarr", "csv"])
def test_the_examples_of_recordings_read_activations_back(tmp_path, monkeypatch, ending):
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    dictionary = knownmf.Dictionary.load("tones.npz")
    expected = decompose("song.wav", dictionary=dictionary)
    decompose("song.wav", dictionary=dictionary, out=f"activations.{ending}")
    (block,) = (block for block in examples(RECORDINGS) if f"activations.{ending}" in block)
    names = {}
    exec(block, names)
    np.testing.assert_allclose(names["H"], expected.found.H, rtol=1e-6, atol=1e-300)
    np.testing.assert_allclose(names["times"], expected.times, atol=1e-6)
    assert list(names["labels"]) == (["low", "high", "high.2"] if ending == "csv" else ["low", "high", "high"])
    if ending != "csv":
        assert names["settings"]["sr"] == dictionary.sr


def test_the_table_of_recordings_says_what_is_in_the_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    for ending in ("npz", "zarr"):
        decompose("song.wav", dictionary=knownmf.Dictionary.load("tones.npz"), out=f"activations.{ending}")
    table = RECORDINGS.partition("| | `.npz` | `.zarr` | `.csv` |\n")[2].partition("\n\n")[0].splitlines()[1:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    in_zarr = {name: cells[2] for cells in rows for name in re.findall(r"`(\w+)`", cells[0])}
    with np.load("activations.npz") as archive:
        assert set(archive) == set(in_zarr)
    group = zarr.open_group("activations.zarr", mode="r")
    assert set(group.array_keys()) == {name for name, cell in in_zarr.items() if cell.startswith("array")}
    assert set(group.attrs) == {name for name, cell in in_zarr.items() if cell.startswith("attribute")}


def test_the_example_of_progress_prints_each_percent_once(capsys):
    (block,) = (block for block in examples(LARGE) if "def progress" in block)
    V, W = np.random.default_rng(0).random((20, 30000)), np.random.default_rng(1).random((20, 2))
    names, calls = {"knownmf": knownmf, "V": V, "W": W}, []
    exec(block, names)
    printed = capsys.readouterr().out.splitlines()
    knownmf.activations(V, W, progress=lambda *counts: calls.append(counts))
    assert printed[-1] == "100 %"
    assert len(set(printed)) == len(printed) <= min(100, len(calls))
    assert calls[-1] == (30000, 30000)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
def test_arrays_for_results_are_those_of_the_table(dtype):
    sizes = {"n_components": 2, "n_frames": 5}
    rows = re.findall(r"\| `(\w+)` \| `\((.*?),?\)` \| (.*?) \|\n", LARGE)
    out = {}
    for name, shape, kind in rows:
        known = dtype if dtype in re.findall(r"`(\w+)`", kind) else re.findall(r"`(\w+)`", kind)[-1]
        out[name] = np.zeros([sizes[size] for size in shape.split(", ")], known)
    V, W = np.arange(20).reshape(4, 5).astype(dtype), np.array([[1.0, 0], [2, 1], [1, 1], [0, 2]])
    found = knownmf.activations(V, W, out=out)
    assert list(out) == [item.name for item in fields(found) if isinstance(getattr(found, item.name), np.ndarray)]
    assert all(getattr(found, name) is values for name, values in out.items())
    for name, values in out.items():
        for wrong in {"float32", "float64", "int64", "bool"} - {str(values.dtype)}:
            with pytest.raises(ValueError, match=rf'^out\["{name}"\] has shape .* and type {wrong}, expected'):
                knownmf.activations(V, W, out=out | {name: values.astype(wrong)})


def test_the_example_of_a_callback_prints_every_pass(capsys):
    (block,) = examples(LEARNING)
    names = {}
    exec(block, names)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == names["model"].n_iter_ - 1
    assert all(re.fullmatch(rf"pass {n}: \d+\.\d\d", line) for n, line in enumerate(lines, 1))


def test_the_pictures_of_learning_can_be_drawn_and_are_small():
    shown = set(re.findall(r"\]\((learning_\w+\.png)\)", LEARNING))
    drawn = runpy.run_path(str(ROOT / "docs" / "learning_pictures.py"))["pictures"]()
    assert shown == {f"learning_{name}.png" for name in drawn}
    assert all((ROOT / "docs" / name).stat().st_size < 80_000 for name in shown)
    titles = " ".join(axes.get_title(loc="left") for axes in drawn["known"].subfigs[2].axes)
    assert "missed: 17 %" in titles
    assert "miss 17 %" in LEARNING


def test_the_tests_that_the_documents_name_exist():
    tests = "".join(path.read_text(encoding="utf8") for path in (ROOT / "tests").glob("test_*.py"))
    named = re.findall(r"`((?:test_|Test)\w+)`", SCIKIT_LEARN), re.findall(r"`((?:test_|Test)\w+)\.\.\.`", SCIKIT_LEARN)
    assert len(named[0]) > 15
    assert len(named[1]) > 15
    assert not [name for name in named[0] if not re.search(rf"(def|class) {name}\b", tests)]
    assert not [name for name in named[1] if f"def {name}" not in tests]
    files = re.findall(r"`(test_\w+\.py)`", SCIKIT_LEARN)
    assert not [name for name in files if not (ROOT / "tests" / name).exists()]
