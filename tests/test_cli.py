"""Test the files that the commands write, and the text that they print."""

import contextlib
import inspect
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import zarr

from commands import (
    DECOMPOSE,
    HOP,
    N_FFT,
    SEPARATE,
    SR,
    TONES,
    TRANSCRIBE,
    files,
    rows,
    run,
    spectrum,
    tone,
    write_inputs,
)
from knownmf import audio
from knownmf.cli import commands as cli_commands
from knownmf.cli.console import reworded
from knownmf.cli.summaries import describe_events, describe_recording
from knownmf.dictionary import Dictionary
from knownmf.wording import counted, percent


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return the working folder, with song.wav and tones.npz in it."""
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    return tmp_path


# The files


def test_learn_writes_a_dictionary_of_the_sounds(here):
    for label in TONES:
        for take in range(2):
            soundfile.write(f"{label}__{take}.wav", (0.5 + 0.2 * take) * tone(label), SR)
    done = run(
        "learn", *sorted(here.glob("*__*.wav")), "--out", "learned.npz", "--n-fft", 256, "--hop-length", 64, "-n", 1
    )
    assert done.exit_code == 0, done.stderr
    learned = Dictionary.load("learned.npz")
    assert sorted(learned.labels) == ["high", "low"]
    assert (learned.sr, learned.n_fft, learned.hop_length) == (SR, 256, 64)
    peak = learned.frequencies[learned.W[:, learned.components_of("low")].argmax()]
    assert peak == pytest.approx(500, abs=40)
    assert "2 components of 2 sounds" in done.stdout
    assert re.search(r"low +2 +1\.0 +1", done.stdout)


@pytest.mark.parametrize(
    ("options", "sr", "why"),
    [((), SR, r", the lowest sample rate of all files \(--sr sets another one\)\."), (("--sr", 12000), 12000, r"\.")],
)
def test_learn_reports_resampling(here, options, sr, why):
    soundfile.write("low.wav", tone("low"), SR)
    soundfile.write("high.wav", tone("high", sr=16000), 16000)
    done = run("learn", "low.wav", "high.wav", "--out", "learned.npz", *options)
    assert re.search(rf"Sounds with sample rates of up to 16000 Hz were resampled to {sr} Hz{why}", done.stdout)
    assert "resampled" not in run("learn", "low.wav", "--out", "low.npz").stdout
    assert "highest" not in run("learn", "--help").stdout


def test_learn_apart_gives_each_file_its_own_components(here):
    for take in range(3):
        soundfile.write(f"low__{take}.wav", (0.5 + 0.2 * take) * tone("low"), SR)
    done = run("learn", *here.glob("low__*.wav"), "--out", "learned.npz", "--apart", "--components", 1)
    assert done.exit_code == 0, done.stderr
    assert Dictionary.load("learned.npz").labels == ("low",) * 3


def test_a_dry_run_shows_labels_files_and_seconds_and_learns_nothing(here, monkeypatch):
    for name in ("low 1", "low-2", "low_3", "low (4)", "high"):
        soundfile.write(f"{name}.wav", tone("low"), SR)
    monkeypatch.setattr(audio, "learn", None)
    before = files()
    done = run("learn", "*low*.wav", "top=high.wav", "--dry-run")
    assert (done.exit_code, done.stderr) == (0, "")
    assert re.search(r"low +4 +2\.0 +low \(4\)\.wav, low 1\.wav, low-2\.wav and 1 more *\n", done.stdout)
    assert re.search(r"top +1 +0\.5 +high\.wav *\n", done.stdout)
    assert "2 sounds in 5 files. Nothing was learned." in done.stdout
    assert files() == before
    done = run("learn", "high.wav")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "--out is missing" in done.stderr


def test_doubtful_labels_are_printed_as_a_note(here):
    for name in ("low 1 dry", "low 2 dry", "low 3 dry"):
        soundfile.write(f"{name}.wav", tone("low"), SR)
    done = run("learn", "low *.wav", "--dry-run")
    assert done.exit_code == 0
    assert done.stderr.startswith("Note: 3 sounds differ from another one only in a number or letter")
    assert done.stderr.count("\n") == 1


def test_separate_writes_stems_that_add_up(here):
    done = run(*SEPARATE)
    assert done.exit_code == 0, done.stderr
    assert files("stems") == ["high.wav", "low.wav"]
    song, _ = soundfile.read("song.wav")
    stems = {label: soundfile.read(f"stems/{label}.wav") for label in TONES}
    assert all(sr == SR and y.shape == song.shape for y, sr in stems.values())
    total = stems["low"][0] + stems["high"][0]
    assert np.sum((total - song) ** 2) < 1e-8 * np.sum(song**2)
    only_low = slice(SR // 4, SR // 2)
    assert np.sum(stems["high"][0][only_low] ** 2) < 0.01 * np.sum(song[only_low] ** 2)


def test_sounds_that_are_not_in_the_dictionary_go_to_the_rest(here):
    tones = Dictionary.load("tones.npz")
    Dictionary(tones.W[:, :1], ["low"], sr=SR, n_fft=N_FFT, hop_length=HOP).save("low.npz")
    done = run("separate", "song.wav", "--dictionary", "low.npz", "--out", "stems", "--free", 2)
    assert done.exit_code == 0, done.stderr
    assert files("stems") == ["low.wav", "rest.wav"]
    song, stems = soundfile.read("song.wav")[0], [soundfile.read(f"stems/{name}.wav")[0] for name in ("low", "rest")]
    assert np.sum((sum(stems) - song) ** 2) < 1e-8 * np.sum(song**2)
    only_high = slice(3 * SR // 4 + N_FFT, SR - N_FFT)  # a window away from the low tones
    assert np.sum(stems[0][only_high] ** 2) < 0.01 * np.sum(song[only_high] ** 2)


def test_decompose_writes_the_learned_components(here):
    done = run(*DECOMPOSE, "--free", 1, "--adapt", 0.5)
    assert done.exit_code == 0, done.stderr
    with np.load("activations.npz", allow_pickle=False) as stored:
        assert list(stored["labels"]) == ["low", "high", "high", "rest"]
        assert stored["W"].shape == (N_FFT // 2 + 1, 4)
        settings = json.loads(str(stored["settings"]))
    assert (settings["free"], settings["adapt"]) == (1, 0.5)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--adapt", "1"), """Invalid value for '--adapt': "1", expected a number from 0 to below 1."""),
        (("--adapt", "-0.1"), """Invalid value for '--adapt': "-0.1", expected"""),
        (("--free", "-1"), """Invalid value for '--free': "-1", expected a whole number from 0 to"""),
        (("--free", "1.5"), """Invalid value for '--free': "1.5", expected a whole number from 0 to"""),
    ],
)
def test_an_invalid_free_or_adapt_is_named_and_nothing_is_written(here, options, complaint):
    done = run(*SEPARATE, *options)
    assert done.exit_code == 2
    assert complaint in done.stderr
    assert not Path("stems").exists()


def test_a_sound_with_the_label_rest_is_refused_with_free(here):
    tones = Dictionary.load("tones.npz")
    Dictionary(tones.W, ["rest", "high", "high"], sr=SR, n_fft=N_FFT, hop_length=HOP).save("rest.npz")
    done = run("separate", "song.wav", "--dictionary", "rest.npz", "--out", "stems", "--free", 1)
    assert done.exit_code == 2
    assert 'already has a sound named "rest"' in done.stderr
    assert run("separate", "song.wav", "--dictionary", "rest.npz", "--out", "stems").exit_code == 0


def test_separate_does_not_change_other_files_in_the_folder(here):
    Path("stems").mkdir()
    Path("stems/notes.txt").write_text("mine")
    assert "Note" not in run(*SEPARATE).stderr
    assert files("stems") == ["high.wav", "low.wav", "notes.txt"]


def test_separate_names_stems_of_another_dictionary_in_the_folder(here):
    Path("stems").mkdir()
    Path("stems/kick.wav").write_bytes(b"")
    done = run(*SEPARATE)
    assert done.exit_code == 0
    assert done.stderr.startswith('Note: The folder "stems" also contains 1 other .wav file (kick.wav), which')
    assert files("stems") == ["high.wav", "kick.wav", "low.wav"]


@pytest.mark.parametrize("command", ["info", "learn"])
def test_an_empty_file_is_called_empty(command, here):
    Path("empty.wav").touch()
    done = run(command, "empty.wav", *(("--out", "empty.npz") if command == "learn" else ()))
    assert done.exit_code == 2
    assert done.stderr == 'knownmf: "empty.wav" is empty: it has no bytes. Copy or record it again.\n'


def test_a_folder_in_the_place_of_a_file_is_named(here):
    Path("hits").mkdir()
    done = run("info", "hits")
    assert (done.exit_code, done.stderr) == (2, 'knownmf: "hits" is a folder: pass a file.\n')
    done = run("transcribe", "hits", "--dictionary", "tones.npz", "--out", "events.csv")
    assert (done.exit_code, done.stderr[:54]) == (2, 'knownmf: The folder "hits" contains no sound file: the')


def test_decompose_writes_activations_and_their_gaps(here):
    done = run(*DECOMPOSE)
    assert done.exit_code == 0, done.stderr
    with np.load("activations.npz", allow_pickle=False) as stored:
        assert set(stored.files) == {
            "H", "W", "times", "labels", "frequencies", "gap", "relative_gap", "kkt", "converged", "settings",
        }  # fmt: skip
        n_frames = len(stored["times"])
        assert stored["H"].shape == (3, n_frames)
        np.testing.assert_array_equal(stored["W"], Dictionary.load("tones.npz").W)
        assert list(stored["labels"]) == ["low", "high", "high"]
        assert stored["frequencies"][-1] == SR / 2
        assert stored["converged"].all()
        assert np.all(stored["relative_gap"] <= 1e-4)
        settings = json.loads(str(stored["settings"]))
    assert settings["beta_loss"] == "kullback-leibler"
    assert (settings["sr"], settings["n_fft"], settings["hop_length"]) == (SR, N_FFT, HOP)


def test_decompose_writes_a_table(here):
    run(*DECOMPOSE)
    done = run(*DECOMPOSE[:-1], "tables/activations.csv")
    assert done.exit_code == 0, done.stderr
    table = rows("tables/activations.csv")
    assert list(table[0]) == ["time_s", "low", "high", "high.2"]
    with np.load("activations.npz") as stored:
        for column, name in enumerate(["low", "high", "high.2"]):
            written = [float(row[name]) for row in table]
            np.testing.assert_allclose(written, stored["H"][column], rtol=1e-6)
        np.testing.assert_allclose([float(row["time_s"]) for row in table], stored["times"], atol=1e-6)


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_decompose_draws_a_picture(here, ending, magic):
    done = run(*DECOMPOSE, "--picture", f"picture.{ending}")
    assert done.exit_code == 0, done.stderr
    assert Path(f"picture.{ending}").read_bytes().startswith(magic)


def test_transcribe_writes_events_and_a_picture(here):
    done = run(*TRANSCRIBE, "--picture", "picture.png")
    assert done.exit_code == 0, done.stderr
    events = rows("events.csv")
    assert list(events[0]) == ["onset_s", "offset_s", "label", "strength"]
    low = [float(event["onset_s"]) for event in events if event["label"] == "low"]
    assert low == pytest.approx([0.25, 1.0], abs=0.05)
    assert all(float(event["offset_s"]) > float(event["onset_s"]) for event in events)
    assert Path("picture.png").exists()
    assert "low (2)" in done.stdout


def test_transcribe_uses_its_thresholds(here):
    assert "low (1)" in run(*TRANSCRIBE, "--min-gap", "2").stdout
    done = run(*TRANSCRIBE, "--threshold-own", "2", "--force")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert """Invalid value for '--threshold-own': "2", expected a number from 0 to 1. See""" in done.stderr


def test_lines_of_tables_end_with_a_newline_only(here):
    run(*TRANSCRIBE)
    assert b"\r" not in Path("events.csv").read_bytes()


def test_losses_without_a_gap_report_the_conditions_of_an_optimum(here):
    done = run(*DECOMPOSE, "--beta-loss", "0.5", "--tol", "1e-3")
    assert done.exit_code == 0, done.stderr
    assert "100 % of 94 frames have converged: they meet the conditions of a best fit" in done.stdout
    assert "within 0.1 %" in done.stdout
    assert "there may be other optima" in done.stdout
    assert run(*DECOMPOSE, "--beta-loss", "frobenius", "--force").exit_code == 0


# The text


def test_separate_summarizes_the_result(here):
    printed = run(*SEPARATE).stdout
    assert "low.wav" in printed
    assert "2 min" not in printed
    assert "1.50 s at 8000 Hz, stereo" in printed
    lines = printed.splitlines()
    assert re.fullmatch(
        r"The dictionary explains 9[\d.]+ % of the energy of the recording \(up to 4000 Hz\)\.", lines[0]
    )
    assert re.fullmatch(
        r"100 % of \d+ frames have converged to within 0\.01 % of the best fit that these components can reach; "
        r"the worst to within \S+ %\.",
        lines[1],
    )


@pytest.mark.parametrize("command", [SEPARATE, DECOMPOSE, TRANSCRIBE], ids=lambda command: command[0])
@pytest.mark.parametrize("quiet", [False, True])
def test_a_dictionary_of_other_sounds_is_doubted(here, command, quiet):
    hiss = Dictionary(np.linspace(0, 1, N_FFT // 2 + 1)[:, np.newaxis], ["hiss"], sr=SR, n_fft=N_FFT, hop_length=HOP)
    hiss.save("tones.npz")
    done = run(*command, *["--quiet"] * quiet)
    assert done.exit_code == 0
    assert re.fullmatch(
        r"Note: The dictionary explains only \d\.?\d? % of the recording: its sounds may not be those in the recording"
        r"\. Learn .* with --adapt 0\.3\. .* with --free 8\.\n",
        done.stderr,
    )
    if not quiet:
        assert re.match(r"The dictionary explains \d\.?\d? % of the energy", done.stdout)
        assert "Proven" not in done.stdout


def test_the_part_of_the_dictionary_is_told_apart_from_what_was_learned(here):
    tones = Dictionary.load("tones.npz")
    Dictionary(tones.W[:, :1], ["low"], sr=SR, n_fft=N_FFT, hop_length=HOP).save("tones.npz")

    def summary(*options):
        done = run(*DECOMPOSE, "--force", *options)
        assert done.exit_code == 0, done.stderr
        with np.load("activations.npz") as stored:
            settings = json.loads(str(stored["settings"]))
        shares = [percent(settings[name]) for name in ("explained", "explained_by_dictionary")]
        return done.stdout.splitlines()[0], *shares

    line, all_of_it, own = summary("--free", 2)
    assert line.startswith(
        f"The dictionary and 2 components learned from the recording explain {all_of_it} of the energy"
    )
    assert f": the dictionary {own}, the others " in line
    assert 50 < float(own.split()[0]) < 90 < float(all_of_it.split()[0])
    line, all_of_it, own = summary("--adapt", 0.3)
    assert line.startswith(f"The adapted dictionary explains {all_of_it} of the energy")
    assert line.endswith(f"; before it was adapted, it explained {own}.")
    line, all_of_it, own = summary("--adapt", 0.3, "--free", 1)
    assert line.startswith(
        f"The adapted dictionary and 1 component learned from the recording explain {all_of_it} of the energy"
    )
    assert line.endswith(f"; the part of the dictionary before it was adapted is {own}.")


def test_silence_is_not_called_explained(here):
    soundfile.write("song.wav", np.zeros(SR), SR)
    for command in (SEPARATE, TRANSCRIBE, (*DECOMPOSE[:-1], "a.csv"), (*DECOMPOSE[:-1], "a.zarr"), DECOMPOSE):
        picture = () if command is SEPARATE else ("--picture", f"{command[0]}.png", "--force")
        done = run(*command, *picture)
        assert done.exit_code == 0, done.stderr
        assert (
            done.stderr == "Note: Up to 4000 Hz, the recording is silent: it may be another file, or a muted track.\n"
        )
        assert done.stdout.startswith("There is nothing to explain: the recording is silent (up to 4000 Hz).\n")
        assert "explained" not in done.stdout
    for name in ("activations.npz", "a.zarr"):
        assert ", of a silent recording, " in run("info", name).stdout
    with np.load("activations.npz") as archive:
        settings = json.loads(str(archive["settings"]), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert settings["explained"] is settings["explained_by_dictionary"] is None


@pytest.mark.parametrize("command", [SEPARATE, DECOMPOSE, TRANSCRIBE], ids=lambda command: command[0])
def test_quiet_prints_nothing(here, command):
    done = run(*command, "--quiet")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_progress_goes_to_a_terminal_on_standard_error(here):
    master, slave = os.openpty()
    command = [Path(sys.executable).with_name("knownmf"), *SEPARATE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=slave, text=True) as process:
        os.close(slave)
        shown = b""
        with contextlib.suppress(OSError):  # Linux raises this when the other end is closed
            while piece := os.read(master, 65536):
                shown += piece
        assert "Separating" not in process.stdout.read()
    os.close(master)
    assert process.returncode == 0
    assert b"Separating" in shown


def test_info_of_a_dictionary(here):
    done = run("info", "tones.npz")
    assert done.exit_code == 0, done.stderr
    assert "3 components of 2 sounds, for 8000 Hz, windows of 512 samples every 128" in done.stdout
    assert re.search(r"high +2 +2000 Hz", done.stdout)


def test_info_of_activations_and_events(here):
    run(*DECOMPOSE)
    run(*DECOMPOSE[:-1], "activations.csv")
    run(*TRANSCRIBE)
    n_frames = len(rows("activations.csv"))
    n_events, sounds = len(rows("events.csv")), ", ".join(dict.fromkeys(row["label"] for row in rows("events.csv")))
    printed = run("info", "activations.npz").stdout
    assert re.fullmatch(
        rf"activations\.npz: activations, 3 components of 2 sounds \(low, high\) in {n_frames} frames, for 8000 Hz, "
        rf"windows of 512 samples every 128, [\d.]+ % of the recording explained, {n_frames} of {n_frames} frames "
        r"within 0\.01 % of the optimum\n",
        printed,
    )
    assert run("info", "activations.csv").stdout == (
        f"activations.csv: activations, 3 components (low, high, high.2) in {n_frames} frames from 0.00 s to "
        f"{(n_frames - 1) * HOP / SR:.2f} s\n"
    )
    printed = run("info", "events.csv").stdout
    assert re.fullmatch(
        rf"events\.csv: events, {n_events} events of 2 sounds \({sounds}\) from 0\.\d+ s to .* s\n", printed
    )
    Path("none.csv").write_text("onset_s,offset_s,label,strength\n")
    assert run("info", "none.csv").stdout == "none.csv: events, 0 events\n"


def test_info_of_long_activations_and_of_many_recordings(here):
    run(*DECOMPOSE[:-1], "activations.zarr")
    run(*DECOMPOSE)
    of_archive, of_group = (run("info", f"activations.{ending}").stdout for ending in ("npz", "zarr"))
    assert of_group == of_archive.replace(".npz:", ".zarr:")
    zarr.create_group(store="other.zarr")
    done = run("info", "other.zarr")
    assert (done.exit_code, done.stderr.count("not of activations that knownmf has written")) == (2, 1)
    Path("none.wav").write_bytes(b"no sound")
    run("transcribe", "song.wav", "none.wav", "--dictionary", "tones.npz", "--out", "many")
    assert run("info", "many/manifest.csv").stdout == (
        "many/manifest.csv: results of 2 recordings: 1 finished, 1 failed\n"
    )


def test_info_knows_the_files_of_the_commands_by_their_content(here):
    run(*DECOMPOSE, "--picture", "picture.png")
    Path("text.csv").write_text("name,value\nx,y\n")
    Path("broken.csv").write_text("onset_s,offset_s,label\nsoon,1,low\n")
    Path("latin.csv").write_bytes(b"time_s,caf\xe9\n0,1\n")
    Path("empty.csv").write_bytes(b"")
    np.savez("other.npz", x=np.ones(3))
    Path("damaged.npz").write_bytes(Path("activations.npz").read_bytes()[:-60])
    Path("folder").mkdir()
    for name, message in [
        (
            "picture.png",
            '"picture.png" is not a recording in a format that can be read, and not a .npz or .csv file of',
        ),
        (
            "text.csv",
            'neither events nor activations that knownmf has written, nor a table of numbers: "text.csv": the cell in '
            'line 2, column 2 (value) is "y", not a number: only the first row and the first column may be text.',
        ),
        ("broken.csv", "neither events nor activations that knownmf has written: it cannot be read as a table"),
        ("latin.csv", "neither events nor activations that knownmf has written: it cannot be read as a table"),
        ("empty.csv", '"empty.csv" is empty: it has no rows.'),
        ("other.npz", "neither a dictionary nor activations that knownmf has written."),
        ("damaged.npz", "damaged.npz"),
        ("folder", '"folder" is a folder: pass a file.'),
        ("nowhere.csv", '"nowhere.csv": No such file or directory.'),
    ]:
        done = run("info", name)
        assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1), name
        assert message in done.stderr


def test_info_does_not_decompress_more_than_activations_have(here):
    run(*DECOMPOSE)
    with np.load("activations.npz") as stored:
        arrays = dict(stored)
    np.savez_compressed("bomb.npz", **arrays | {"labels": np.zeros(2**23, dtype="U4")})  # 128 MiB
    done = run("info", "bomb.npz")
    assert (done.exit_code, done.stderr) == (
        2,
        'knownmf: "bomb.npz" contains invalid activations (labels is larger than in any real result): write the '
        "activations again with `knownmf decompose`.\n",
    )


def test_info_names_damaged_activations(here):
    run(*DECOMPOSE)
    content = Path("activations.npz").read_bytes()
    n_named = 0
    for position in range(0, len(content), len(content) // 50):
        damaged = bytearray(content)
        damaged[position : position + 2] = b"\xff\xff"
        Path("damaged.npz").write_bytes(damaged)
        done = run("info", "damaged.npz")
        assert done.exit_code == 0 or (done.exit_code == 2 and '"damaged.npz"' in done.stderr), position
        n_named += done.exit_code == 2
    assert n_named > 5


@pytest.mark.parametrize("settings", ['{"hop_length": 64}', '{"tol": "x"}', "3", "{"])
def test_info_names_activations_with_invalid_settings(here, settings):
    run(*DECOMPOSE)
    with np.load("activations.npz") as stored:
        arrays = dict(stored)
    np.savez("odd.npz", **arrays | {"settings": np.array(settings)})
    done = run("info", "odd.npz")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith('knownmf: "odd.npz" ')
    assert done.stderr.endswith("write the activations again with `knownmf decompose`.\n")


def test_the_summary_of_many_sounds_is_short():
    events = [audio.Event(0.0, 0.1, f"note {n}", 1 / (n + 1)) for n in range(41)] + [audio.Event(1.0, 1.1, "note 3", 1)]
    assert describe_events(events, 88) == (
        "42 events of 41 sounds, the strongest first: note 3 (2), note 0 (1), note 1 (1), note 2 (1), note 4 (1), "
        "note 5 (1), note 6 (1), note 7 (1) and 33 more. The other 47 sounds have no events."
    )
    assert describe_events(events[:1], 1) == "1 event of 1 sound: note 0 (1)."
    assert describe_events(events[:1], 2) == "1 event of 1 sound: note 0 (1). The other 1 sound has no events."
    assert describe_events([], 3) == "0 events"


def test_info_of_a_recording(here):
    done = run("info", "song.wav")
    assert done.exit_code == 0, done.stderr
    assert "1.50 s at 8000 Hz, stereo, WAV FLOAT" in done.stdout


@pytest.mark.parametrize(
    ("seconds", "length"),
    [(0.004, "0.00 s"), (59.94, "59.94 s"), (59.97, "1 min 0.0 s"), (119.97, "2 min 0.0 s"), (3601, "60 min 1.0 s")],
)
def test_lengths_are_rounded_before_they_are_split(seconds, length):
    assert describe_recording(seconds, SR, 1) == f"{length} at 8000 Hz, mono"


def test_characters_that_the_encoding_lacks_are_replaced(here):
    Path("song.wav").rename("g\u00f6\u4e2d.wav")
    command = [Path(sys.executable).with_name("knownmf"), "info", "g\u00f6\u4e2d.wav"]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"g\xf6?.wav: 1.50 s")


def test_characters_that_no_font_has_cause_no_warning(here):
    W = np.column_stack([spectrum("low"), spectrum("high")])
    Dictionary(W, ["low", "\U0001f941\u592a\u9f13"], sr=SR, n_fft=N_FFT, hop_length=HOP).save("tones.npz")
    done = run(*DECOMPOSE, "--picture", "picture.png", "--quiet")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")


def test_a_warning_is_one_line_without_code(here, monkeypatch):
    solved = audio.decompose

    def warning_first(*arguments, **settings):
        warnings.warn("3 frames missed tol", UserWarning, stacklevel=1)
        return solved(*arguments, **settings)

    monkeypatch.setattr(audio, "decompose", warning_first)
    done = run(*DECOMPOSE)
    assert done.exit_code == 0
    assert done.stderr == "Note: 3 frames missed --tol\n"


def test_frames_that_miss_the_tolerance_are_reported(here):
    done = run(*DECOMPOSE, "--tol", "1e-300")
    assert done.exit_code == 0
    assert done.stderr.startswith("Note: ")
    assert done.stderr.count("\n") == 1
    assert "frames have converged" in done.stdout
    assert "100 % of 94 frames" not in done.stdout


@pytest.mark.parametrize("command", ["learn", "separate", "decompose", "transcribe", "solve", "info", "demo"])
def test_every_command_has_help(command):
    done = run(command, "--help")
    assert done.exit_code == 0
    assert "Usage: knownmf" in done.stdout or f" {command} " in done.stdout


def test_the_help_of_learn_shows_the_separator_of_labels():
    text = " ".join(run("learn", "--help").stdout.split())
    assert "If there is __ in the name, the label is the text before it: snare__soft" in text
    assert "kick='BD*.wav'" in text


@pytest.mark.parametrize("command", ["", "learn", "separate", "decompose", "transcribe", "solve", "info", "demo"])
def test_help_has_no_names_of_python_types(command):
    text = run(*command.split(), "--help").stdout
    assert not re.search(r"<\w+|\bbool\b|\bint\b|\bfloat\b|\bPath\b|\blist\[|x[<>]=|\bNone\b", text)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--tol", "0 or more larger values default: 0.0001"),
        ("--max-iter", "1 or more larger values default: 200"),
        ("--mask-power", "above 0 larger values default: 1.5"),
        ("--free", "0 or more larger values default: 0"),
        ("--adapt", "from 0 below 1 larger values default: 0.0"),
        ("--beta-loss", "from -1 to 3 larger default: kullback-leibler"),
        ("--threshold", "from 0 to 1 larger values default: 0.03"),
        ("--threshold-own", "from 0 to 1 larger values default: 0.12"),
        ("--threshold-share", "from 0 to 1 larger values default: 0.2"),
        ("--min-gap", "seconds 0 or more larger values default: 0.08"),
        ("--components", "1 or more larger values by default 8, 16 or 32"),
        ("--sr", "hz 1 or more larger values by default"),
        ("--n-fft", "samples 2 or more larger values by default"),
        ("--hop-length", "samples from 1 to --n-fft larger values by default"),
    ],
)
def test_help_says_the_range_the_default_and_what_a_larger_value_does(option, words):
    text = "".join(run(command, "--help").stdout for command in ("learn", "separate", "transcribe"))
    rows_of_option = re.search(rf"{option} .*?(?=\u2502 (?:\*  |   )?--|\u2570)", text, re.S)[0]
    shown = " ".join(re.sub("[\u2502]", " ", rows_of_option).split()).lower()
    assert not [word for word in words.split() if word not in shown]


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            "3 frames missed tol=0.0001. Raise tol or max_iter.",
            "3 frames missed --tol 0.0001. Raise --tol or --max-iter.",
        ),
        ("min_gap_s is -1, n_components=0, mask_power", "--min-gap is -1, --components 0, --mask-power"),
        ("threshold=2, threshold_own=2", "--threshold 2, --threshold-own 2"),
        ("adapt is 2, pass free=0, sr is 0", "--adapt is 2, pass --free 0, --sr is 0"),
        ("within tol, but wrong: pass a smaller tol.", "within --tol, but wrong: pass a smaller --tol."),
        ("you are free to adapt sounds below a threshold", "you are free to adapt sounds below a threshold"),
        ("\"n_fft=3.wav\" of 'max_iter' is silent", "\"n_fft=3.wav\" of 'max_iter' is silent"),
    ],
)
def test_messages_of_the_library_name_options(message, shown):
    assert reworded(message) == shown


def test_version():
    import knownmf

    assert run("--version").stdout == f"knownmf {knownmf.__version__}\n"


def test_percentages_are_never_rounded_up():
    assert [percent(share) for share in (0.0, 0.9996, 0.29, 1.0)] == ["0 %", "99.9 %", "29 %", "100 %"]


def test_small_percentages_have_significant_digits():
    assert [percent(gap, digits=2) for gap in (0.0, 1e-4, 2.345e-9)] == ["0 %", "0.01 %", "2.3e-07 %"]


def test_nouns_agree_with_their_numbers():
    assert [counted(number, "frame") for number in (0, 1, 2)] == ["0 frames", "1 frame", "2 frames"]
    assert [counted(number, "entry", "entries") for number in (1, 2)] == ["1 entry", "2 entries"]


@pytest.mark.parametrize("command", [cli_commands.separate, cli_commands.decompose, cli_commands.transcribe])
def test_defaults_are_those_of_the_library(command):
    parameters, library = (
        inspect.signature(function).parameters for function in (command, getattr(audio, command.__name__))
    )
    shared = [name for name in parameters if name in library and name not in ("dictionary", "out")]
    assert {"beta_loss", "tol"} <= set(shared)
    assert [parameters[name].default for name in shared] == [library[name].default for name in shared]
