"""Test labels that are made from file names, and file names that are made from labels."""

import csv
import os
from pathlib import Path

import pytest

from knownmf.cli.console import UserError
from knownmf.cli.inputs import find_sounds
from knownmf.cli.labels import labels_of_names
from knownmf.files import column_names, file_names, files_written_aside, write_rows


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


def found_in(folder, names, *given):
    """Create files in a folder, and return the number of files of each label."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return {label: len(paths) for label, paths in find_sounds(given or [folder]).items()}


@pytest.mark.parametrize(
    ("label", "names"),
    [
        (
            "Kick",
            ["Kick", "Kick-1", "Kick 01", "Kick_003", "Kick (2)", "Kick #4", "Kick.5", "Kick6", "Kick - Copy (2)"],
        ),
        ("BD", ["BD_03_v7", "BD0010", "BD v127", "BD_vel_100", "BD-velocity3", "BD_vl2_rr1", "BD 3 v2"]),
        (
            "snare",
            ["snare__a", "snare__soft hit", "snare_rr1", "snare RR 2", "snare_v1_rr2", "snare_take2", "snare take 3"],
        ),
        ("hat", ["hat_soft", "hat_hard_2", "hat ff 01", "hat_mp", "hat med", "hat_layer2", "hat alt 1", "hat_pp_rr3"]),
        ("tom", ["tom (Round Robin 1)", "tom_roundrobin_2", "tom-softest", "tom~3", "tom_hard_v3"]),
        ("Tom Medium", ["Tom Medium", "Tom Medium 2"]),
        ("kick", ["12345__user__kick-01", "54321__some_user__kick-02", "kick"]),
        ("Closed Hat", ["42 Closed Hat", "01 - Closed Hat", "007_Closed Hat 2", "Closed Hat"]),
        ("Kick 808", ["Kick 808", "Kick 808 1"]),
        ("808 Kick", ["808 Kick 01", "808 Kick 2"]),
        ("TR-808 Clap", ["TR-808 Clap 1"]),
        ("Orchestra Hit", ["Orchestra Hit 1", "Orchestra Hit"]),
        ("Kick Long", ["Kick (Long) 1", "Kick Long"]),
        ("Tom L", ["Tom L", "Tom L 2"]),
        ("\u30ad\u30c3\u30af", ["\u30ad\u30c3\u30af 01", "\u30ad\u30c3\u30af"]),
        ("C4", ["C4", "C4 2", "C4-1", "C4_v3", "C4v16", "C4_p_rr2", "C4.mf", "C4 piano", "C4 (3)"]),
        ("A#3", ["A#3", "A#3v2", "A#3_ff"]),
        ("F#-1", ["F#-1", "F#-1 2", "F#-1_v7"]),
        ("C-1", ["C-1", "C-1 v3"]),
        ("C-5", ["C-5", "C-5_2"]),
        ("Fis3", ["Fis3", "Fis3_ff"]),
        ("Csharp4", ["Csharp4", "Csharp4 2"]),
        ("Bb2", ["Bb2", "Bb2_1"]),
        ("piano_C4", ["piano_C4", "piano_C4_2", "piano_ff_C4"]),
        ("PianoC4", ["PianoC4", "PianoC4 2"]),
        ("Piano.C4", ["Piano.pp.C4", "Piano.mf.C4", "Piano.ff.C4", "Piano.f.C4"]),
        ("Grand Piano", ["Grand Piano", "Grand Piano 2"]),
        ("violin_A3", ["violin_A3_1_forte_normal", "violin_A3_025_piano_normal", "violin_A3_15_mezzo-piano_normal"]),
        ("violin_As3_arco", ["violin_As3_1_forte_arco-normal"]),
        ("kick-a", ["kick-a-1", "kick-a-2"]),
        ("kick_OH", ["kick_OH_P_1", "kick_OH_F_2", "kick_OH_FF_1", "kick_OH_MP_3"]),
        ("808_F", ["808_F"]),
        ("", ["1", "007", "v1", "rr2", "take 3", "(4)", "soft", "hard_2"]),
        ("__d", ["__d"]),
        ("kick.wav", ["kick.wav"]),
    ],
)
def test_numbers_and_marks_of_takes_do_not_count(label, names):
    assert dict(zip(names, labels_of_names(names), strict=True)) == dict.fromkeys(names, label)


def test_notes_stay_apart():
    notes = [
        f"{letter}{accidental}{octave}"
        for letter in "ABCDEFG"
        for accidental in ("", "#", "b", "#-", "s")
        for octave in range(9)
    ]
    assert labels_of_names(notes) == notes
    assert labels_of_names(f"Piano_{note}_v1" for note in notes) == [f"Piano_{note}" for note in notes]


def test_files_in_one_folder_are_named_by_their_names_and_in_subfolders_by_the_subfolder(tmp_path):
    flat = {"Kick-1.wav", "Kick 02.wav", "snare__a.wav", "C4.wav", "C5.wav", "003.wav"}
    assert found_in(tmp_path / "pack", flat) == {"Kick": 2, "snare": 1, "C4": 1, "C5": 1, "pack": 1}
    deep = {"Kicks/a 1.wav", "Kicks/b.wav", "Hats/open/C4.wav", "Hats/open/12__user__x.wav", "Snare 1.wav"}
    assert found_in(tmp_path / "deep", deep) == {"open": 2, "Kicks": 2, "Snare": 1}


def test_labels_with_another_spelling_are_the_same(tmp_path):
    names = ["KICK 1.wav", "kick-2.wav", "Snare Drum.wav", "snare_drum_2.wav", "ha\u0308t 1.wav", "h\u00e4t 2.wav"]
    assert sorted(found_in(tmp_path, names).values()) == [2, 2, 2]


def test_a_name_overrules_all_rules(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["pack/BD 1.wav", "pack/BD 2.wav", "pack/C4.wav", "pack/sub/x.wav", "a=b.wav"]
    given = ["pack", "low=pack/BD*.wav", "my note=pack/C4.wav", "pack/C4.wav", "other=pack/sub", "a=b.wav"]
    assert found_in(tmp_path, names, *given) == {"low": 2, "my note": 1, "other": 1, "a=b": 1}
    for wrong, message in [
        (["x=pack/C4.wav", "y=pack/C4.wav"], 'has two names, "x" and "y"'),
        (["=pack/C4.wav"], "has no name"),
        (["x="], "has no file"),
        (["x=pack/nothing.wav"], 'There is no file or folder "pack/nothing.wav"'),
        (["x=pack/n*.wav"], 'No file matches "pack/n[*].wav"'),
    ]:
        with pytest.raises(UserError, match=message):
            find_sounds(wrong)


def test_patterns_are_expanded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["Kick 1.wav", "Kick 2.flac", "Kick.txt", "deep/deeper/Hat.wav", "[Kick] 1.wav"]
    assert found_in(tmp_path, names, "Kick*") == {"Kick": 2}
    assert found_in(tmp_path, names, "**/H*.wav", "[Kick] 1.wav", "?ick 1.wav") == {"Hat": 1, "Kick": 2}
    assert found_in(tmp_path, names, "d*") == {"deeper": 1}
    with pytest.raises(UserError, match=r'No file matches "Snare[*]"'):
        find_sounds(["Kick*", "Snare*"])
    with pytest.raises(UserError, match=r'No sound file matches "[*].txt"'):
        find_sounds(["*.txt"])


def test_folders_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    scandir = os.scandir

    def locked(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    (tmp_path / "pack" / "locked").mkdir(parents=True)
    with pytest.raises(UserError, match=r'No sound file.*could not be read: ".*pack/locked" \(Permission denied\)'):
        find_sounds([tmp_path / "pack"])
    with pytest.warns(UserWarning, match=r'could not be read, and are left out: ".*pack/locked" \(Permission denied\)'):
        assert found_in(tmp_path / "pack", ["kick/a.wav"]) == {"kick": 1}


def test_links_to_folders_are_followed_once(tmp_path):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "kicks").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "a.wav").touch()
    assert [path.name for path in find_sounds([tmp_path / "pack"])["elsewhere"]] == ["a.wav"]


@pytest.mark.skipif(os.name == "nt" or os.uname().sysname == "Darwin", reason="file names are always valid Unicode")
def test_a_name_that_is_not_utf8_is_refused_as_a_label_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"caf\xe9 1.wav")
    Path(name).touch()
    Path("x.wav").touch()
    for given in (["."], [name], [f"{name}=x.wav"]):
        with pytest.raises(UserError, match="not valid UTF-8, so it cannot be a label"):
            find_sounds(given)
    assert list(find_sounds(["coffee=caf*"])) == ["coffee"]
    Path("cups").mkdir()
    Path(name).rename(Path("cups", name))
    Path("cups").rename("x")
    assert list(find_sounds(["."])) == ["x"]


DRUMS = ["Kick", "Snare", "Clap", "Closed Hat", "Open Hat", "Tom", "Crash", "Ride"]
NOTES = [f"{letter}{octave}" for letter in ("C", "C#", "D", "Eb", "E", "F", "F#", "G") for octave in (3, 4)]


@pytest.mark.parametrize(
    ("names", "n_labels"),
    [
        ([f"{drum} {take:02d}" for drum in DRUMS for take in range(12)], 8),
        ([f"VEC1_{drum}_{take:03d}" for drum in DRUMS for take in range(12)], 8),
        ([f"{drum}_v{v}_rr{r}" for drum in DRUMS for v in range(4) for r in range(3)], 8),
        ([f"BD{tone:04d}" for tone in range(0, 600, 25)] + ["CB", "CH", "CL", "CP", "MA", "OH00", "OH10"], 7),
        ([f"{key} {drum}" for key, drum in enumerate(DRUMS, 35)], 8),
        ([f"Piano.{loud}.{note}" for loud in ("pp", "mf", "ff") for note in NOTES], 16),
        ([f"{note}v{v}" for note in NOTES for v in range(1, 17)], 16),
        ([f"violin_{n}_{s}_{d}_normal" for n in ("A3", "As3", "C4") for s in (1, 15) for d in ("forte", "piano")], 3),
        ([f"{17000 + n}__user__{drum}-{n % 3}" for n, drum in enumerate(DRUMS * 3)], 8),
        ([f"{drum}_OH_{loud}_{take}" for drum in DRUMS for loud in ("P", "F", "FF", "MP") for take in range(3)], 8),
        (["kick", "snare", "hat_open", "hat_closed", "tom_low", "tom_mid", "tom_high"], 7),
        (["Tom L", "Tom M", "Tom H", "Kick", "Snare"], 5),
        (
            ["Tom low", "Tom mid", "Tom high", "Hat open", "Hat closed", "Hat pedal", "Ride bell", "Ride edge", "Ride"],
            9,
        ),
        ([f"808_{key}" for key in ("A", "A#", "B", "C", "C#", "D", "F", "G")], 8),
        ([f"{drum}/{take}" for drum in DRUMS for take in ("Deep", "Punchy", "Dry")], 8),
        ([f"{drum}/{drum} {take}" for drum in DRUMS for take in range(9)], 8),
    ],
)
def test_names_of_sample_packs_give_the_right_labels_without_a_warning(tmp_path, names, n_labels):
    assert len(found_in(tmp_path, [f"{name}.wav" for name in names])) == n_labels


@pytest.mark.parametrize(
    ("names", "warning"),
    [
        ([f"piano_{key:03d}" for key in range(21, 109)], '88 files count as one sound, "piano"'),
        ([f"piano_{key:03d}" for key in range(21, 109)] + ["bass"], '88 files count as one sound, "piano"'),
        ([f"{key:03d}" for key in range(60, 72)], '12 files count as one sound, "pack"'),
        ([f"Pack/{drum} {take}" for drum in DRUMS for take in (1, 2)], 'folder ".*Pack" count as one sound, .*"Clap"'),
        ([f"Kit {kit}/{drum}" for kit in "AB" for drum in DRUMS], 'folder ".*Kit A" .* in 1 other folder'),
        ([f"{loud}/{note}" for loud in ("soft", "hard") for note in NOTES], 'names are "C#3", "C#4", "C3"'),
        (
            [f"Kick {take:02d} dry" for take in range(3)],
            '3 sounds differ .* number or letter.*"Kick=.*Kick 0[*] dry[*]"',
        ),
        ([f"{drum} {take}" for drum in DRUMS for take in "ABCD"], '32 sounds differ .*"Clap=.*Clap [*]"'),
        (
            [f"{drum} {word}" for drum in DRUMS[:3] for word in ("Deep", "Dry", "Tight", "Long")],
            '12 of 12 sounds have one file each.*"Clap=.*Clap[*]"',
        ),
        (
            [f"KSHMR_{drum}_{word}" for drum in DRUMS for word in ("Deep", "Dry", "Tight")],
            '24 of 24 sounds have one file each.*"Clap=.*KSHMR_Clap[*]"',
        ),
    ],
)
def test_doubtful_labels_are_reported_once(tmp_path, names, warning):
    with pytest.warns(UserWarning, match=warning) as caught:
        found_in(tmp_path / "pack", [f"{name}.wav" for name in names])
    assert len(caught) == 1


def test_the_advice_of_a_warning_works_as_it_stands(tmp_path):
    names = [f"Kick {take:02d} dry.wav" for take in range(3)]
    with pytest.warns(UserWarning, match="differ") as caught:
        assert len(found_in(tmp_path, names)) == 3
    advice = str(caught[0].message).split('NAME=FILE: "')[1].removesuffix('".')
    assert found_in(tmp_path, names, advice, tmp_path) == {"Kick": 3}


def test_labels_that_the_user_passes_are_not_doubted(tmp_path):
    names = [f"{key:03d}.wav" for key in range(60, 72)]
    assert found_in(tmp_path, names, f"piano={tmp_path}") == {"piano": 12}


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
    with files_written_aside(tmp_path / "new" / "stems") as folder:
        (folder / "a.txt").write_text("a")
    assert [path.name for path in (tmp_path / "new").rglob("*")] == ["stems", "a.txt"]
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "new" / "stems").stat().st_mode == (tmp_path / "plain").stat().st_mode
