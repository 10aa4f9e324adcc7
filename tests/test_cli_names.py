"""Test labels that are made from file names, and file names that are made from labels."""

import csv
from pathlib import Path

import pytest

from knownmf.cli.console import UserError
from knownmf.cli.inputs import find_sounds
from knownmf.cli.outputs import column_names, file_names, write_folder, write_rows


@pytest.mark.parametrize(
    ("existing", "given", "expected"),
    [
        (["kick__1.wav", "kick__2.wav", "snare__1.flac"], ["."], {"kick": 2, "snare": 1}),
        (["kick.wav", "snare.wav"], ["kick.wav", "snare.wav"], {"kick": 1, "snare": 1}),
        (["drums/kick/1.wav", "drums/kick/2.WAV", "drums/snare/1.ogg"], ["drums"], {"kick": 2, "snare": 1}),
        (["kick/1.wav", "kick/snare__2.wav"], ["kick"], {"kick": 1, "snare": 1}),
        (["kick/1.wav", "kick/readme.txt", "kick/.hidden.wav", "kick/.git/a.wav"], ["kick"], {"kick": 1}),
        (["a__b__c.wav", "__d.wav"], ["a__b__c.wav", "__d.wav"], {"a": 1, "__d": 1}),
        (["kick/1.wav"], ["kick", "kick/1.wav"], {"kick": 1}),
    ],
)
def test_labels_come_from_names_and_folders(tmp_path, monkeypatch, existing, given, expected):
    monkeypatch.chdir(tmp_path)
    for name in existing:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    found = find_sounds([Path(place) for place in given])
    assert {label: len(paths) for label, paths in found.items()} == expected


def test_the_working_folder_is_a_label(tmp_path, monkeypatch):
    (tmp_path / "kick").mkdir()
    (tmp_path / "kick" / "1.wav").touch()
    monkeypatch.chdir(tmp_path / "kick")
    assert list(find_sounds([Path(".")])) == ["kick"]


def test_a_folder_without_sounds_is_refused(tmp_path):
    with pytest.raises(UserError, match="contains no sound file"):
        find_sounds([tmp_path])


@pytest.mark.parametrize("label", ["kick", "060", "C#4", "häßlich", "two words", "a.b"])
def test_ordinary_labels_are_not_changed(label):
    assert file_names([label], ".wav") == {label: f"{label}.wav"}


@pytest.mark.parametrize(
    "label",
    ["../up", "/etc/passwd", "..", ".", "...", "a/b\\c", "con", "NUL.x", "tab\t", "x" * 500, "é" * 300, " ", "a. "],
)
def test_other_labels_become_valid_names(tmp_path, label):
    name = file_names([label], ".wav")[label]
    assert Path(name).name == name
    assert not name.startswith(".")
    assert name.split(".")[0].lower() not in {"con", "nul"}
    (tmp_path / name).touch()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_each_label_has_a_file_of_its_own():
    names = file_names(["kick", "Kick", "KICK", "kick-2", "a/b", "a_b"], ".wav")
    assert len({name.lower() for name in names.values()}) == 6
    assert names["kick"] == "kick.wav"


def test_the_names_of_columns_differ():
    names = column_names(["a", "a", "a.2", "a", "time_s"])
    assert names[:2] == ["a", "a.2"]
    assert len(set(names)) == 5


def test_tables_can_contain_commas_quotes_and_newlines(tmp_path):
    write_rows(tmp_path / "new" / "table.csv", ["label"], [["a,b"], ['"ü"'], ["two\nlines"]])
    with open(tmp_path / "new" / "table.csv", newline="", encoding="utf8") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["a,b", '"ü"', "two\nlines"]


def test_a_new_folder_has_the_default_permissions(tmp_path):
    write_folder(tmp_path / "new" / "stems", {"a.txt": lambda path: path.write_text("a")})
    assert [path.name for path in (tmp_path / "new").rglob("*")] == ["stems", "a.txt"]
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "new" / "stems").stat().st_mode == (tmp_path / "plain").stat().st_mode
