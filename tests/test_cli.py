"""The command line: what it writes, what it says, and how it ends."""

import contextlib
import csv
import errno
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
from typer.testing import CliRunner

from knownmf import audio
from knownmf.cli import app, verbs
from knownmf.cli.console import percent
from knownmf.dictionary import Dictionary

SR, N_FFT, HOP = 8000, 512, 128
TONES = {"low": 500.0, "high": 2000.0}


def run(*arguments):
    """Run the command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def tone(label, seconds=0.5, sr=SR):
    time = np.arange(round(seconds * sr)) / sr
    return np.sin(2 * np.pi * TONES[label] * time) * np.minimum(1, 8 * (seconds - time))


def spectrum(label):
    window = np.hanning(N_FFT)
    return np.abs(np.fft.rfft(window * np.sin(2 * np.pi * TONES[label] * np.arange(N_FFT) / SR)))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to work in, with a recording of two tones, stereo, and the dictionary of both."""
    monkeypatch.chdir(tmp_path)
    silence = np.zeros(SR // 4)
    low = np.concatenate([silence, tone("low"), silence, tone("low")])
    high = np.concatenate([silence, silence, tone("high"), tone("high")])
    soundfile.write("song.wav", np.column_stack([0.4 * low, 0.4 * low + 0.3 * high]), SR, subtype="FLOAT")
    W = np.column_stack([spectrum("low"), spectrum("high"), 0.1 + spectrum("high")])
    Dictionary(W, ["low", "high", "high"], sr=SR, n_fft=N_FFT, hop_length=HOP).save("tones.npz")
    return tmp_path


def files(folder="."):
    """Everything in a folder, hidden files too."""
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def rows(path):
    with open(path, newline="", encoding="utf8") as file:
        return list(csv.DictReader(file))


SEPARATE = ("separate", "song.wav", "--dictionary", "tones.npz", "--out", "stems")
DECOMPOSE = ("decompose", "song.wav", "--dictionary", "tones.npz", "--out", "activations.npz")
TRANSCRIBE = ("transcribe", "song.wav", "--dictionary", "tones.npz", "--out", "events.csv")


# What it writes


def test_learn_writes_a_dictionary_of_the_sounds(here):
    for label in TONES:
        for take in range(2):
            soundfile.write(f"{label}__{take}.wav", (0.5 + 0.2 * take) * tone(label), SR)
    done = run(
        "learn", *sorted(here.glob("*__*.wav")), "--out", "learnt.npz", "--n-fft", 256, "--hop-length", 64, "-n", 1
    )
    assert done.exit_code == 0, done.stderr
    learnt = Dictionary.load("learnt.npz")
    assert sorted(learnt.labels) == ["high", "low"]
    assert (learnt.sr, learnt.n_fft, learnt.hop_length) == (SR, 256, 64)
    peak = learnt.frequencies[learnt.W[:, learnt.components_of("low")].argmax()]
    assert peak == pytest.approx(500, abs=40)
    assert "2 components of 2 sounds" in done.stdout
    assert re.search(r"low +2 +1\.0 +1", done.stdout)


def test_learn_apart_gives_each_file_its_own_components(here):
    for take in range(3):
        soundfile.write(f"low__{take}.wav", (0.5 + 0.2 * take) * tone("low"), SR)
    done = run("learn", *here.glob("low__*.wav"), "--out", "learnt.npz", "--apart", "--components", 1)
    assert done.exit_code == 0, done.stderr
    assert Dictionary.load("learnt.npz").labels == ("low",) * 3


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


def test_separate_leaves_other_files_of_the_folder_alone(here):
    Path("stems").mkdir()
    Path("stems/notes.txt").write_text("mine")
    assert run(*SEPARATE).exit_code == 0
    assert files("stems") == ["high.wav", "low.wav", "notes.txt"]


def test_decompose_writes_activations_with_their_proof(here):
    done = run(*DECOMPOSE)
    assert done.exit_code == 0, done.stderr
    with np.load("activations.npz", allow_pickle=False) as stored:
        assert set(stored.files) == {
            "H", "times", "labels", "frequencies", "gap", "relative_gap", "kkt", "converged", "settings",
        }  # fmt: skip
        n_frames = len(stored["times"])
        assert stored["H"].shape == (3, n_frames)
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
    assert "2 low" in done.stdout


def test_other_losses_have_their_own_promise(here):
    done = run(*DECOMPOSE, "--beta-loss", "0.5", "--tol", "1e-3")
    assert done.exit_code == 0, done.stderr
    assert "conditions of an optimum within 0.1 %" in done.stdout
    assert run(*DECOMPOSE, "--beta-loss", "frobenius", "--force").exit_code == 0


# What it says


def test_the_summary_is_for_musicians(here):
    said = run(*SEPARATE).stdout
    assert "low.wav" in said
    assert "2 min" not in said
    assert "1.50 s at 8000 Hz, stereo" in said
    assert re.search(r"Explained: the dictionary accounts for [\d.]+ % of the recording\.", said)
    assert re.search(r"Proven: 100 % of \d+ frames within 0\.01 % of the optimum; the worst within \S+ %\.", said)


@pytest.mark.parametrize("command", [SEPARATE, DECOMPOSE, TRANSCRIBE], ids=lambda command: command[0])
def test_quiet_says_nothing(here, command):
    done = run(*command, "--quiet")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_progress_goes_to_a_terminal_on_standard_error(here):
    master, slave = os.openpty()
    command = [Path(sys.executable).with_name("knownmf"), *SEPARATE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=slave, text=True) as process:
        os.close(slave)
        shown = b""
        with contextlib.suppress(OSError):  # how Linux says that the other end was closed
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


def test_info_of_a_recording(here):
    done = run("info", "song.wav")
    assert done.exit_code == 0, done.stderr
    assert "1.50 s at 8000 Hz, stereo, WAV FLOAT" in done.stdout


def test_a_warning_is_one_line_without_code(here, monkeypatch):
    solved = audio.decompose

    def unsure(*arguments, **settings):
        warnings.warn("3 frames missed tol", UserWarning, stacklevel=1)
        return solved(*arguments, **settings)

    monkeypatch.setattr(audio, "decompose", unsure)
    done = run(*DECOMPOSE)
    assert done.exit_code == 0
    assert done.stderr == "Note: 3 frames missed tol\n"


def test_frames_that_miss_the_tolerance_are_reported(here):
    done = run(*DECOMPOSE, "--tol", "1e-300")
    assert done.exit_code == 0
    assert done.stderr.startswith("Note: ")
    assert done.stderr.count("\n") == 1
    assert "Proven: 100 %" not in done.stdout


@pytest.mark.parametrize("verb", ["learn", "separate", "decompose", "transcribe", "info", "demo"])
def test_every_verb_has_help(verb):
    done = run(verb, "--help")
    assert done.exit_code == 0
    assert "Usage: knownmf" in done.stdout or f" {verb} " in done.stdout


def test_version():
    import knownmf

    assert run("--version").stdout == f"knownmf {knownmf.__version__}\n"


def test_percentages_are_never_rounded_up():
    assert [percent(share) for share in (0.0, 0.9996, 0.29, 1.0)] == ["0 %", "99.9 %", "29 %", "100 %"]


@pytest.mark.parametrize("verb", [verbs.separate, verbs.decompose, verbs.transcribe])
def test_defaults_are_those_of_the_library(verb):
    own, library = (inspect.signature(function).parameters for function in (verb, getattr(audio, verb.__name__)))
    shared = [name for name in own if name in library and library[name].default is not inspect.Parameter.empty]
    assert {"beta_loss", "tol"} <= set(shared)
    assert [own[name].default for name in shared] == [library[name].default for name in shared]


# How it ends when something is wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*SEPARATE[:1], "nowhere.wav", *SEPARATE[2:]), 'nowhere.wav": No such file'),
        ((*SEPARATE[:1], "tones.npz", *SEPARATE[2:]), "not a recording"),
        ((*SEPARATE[:1], "empty.wav", *SEPARATE[2:]), "empty.wav"),
        ((*SEPARATE[:3], "nowhere.npz", *SEPARATE[4:]), 'nowhere.npz": No such file'),
        ((*SEPARATE[:3], "song.wav", *SEPARATE[4:]), "not a knownmf dictionary"),
        ((*SEPARATE[:-1], "song.wav"), "is a file"),
        ((*SEPARATE[:-1], "song.wav/stems"), "is not a folder"),
        ((*SEPARATE, "--mask-power", "-1"), "mask_power"),
        ((*DECOMPOSE[:-1], "activations.txt"), ".npz or .csv"),
        ((*DECOMPOSE[:-1], "folder.npz"), "is a folder"),
        ((*DECOMPOSE[:-1], "tones.npz", "--force"), "would be lost"),
        ((*DECOMPOSE, "--picture", "picture.gif"), ".png or .pdf or .svg"),
        ((*DECOMPOSE, "--beta-loss", "fröbenius"), "fröbenius"),
        ((*DECOMPOSE, "--tol", "-1"), "tol"),
        ((*TRANSCRIBE[:-1], "events.mid"), ".csv"),
        (("learn", "nowhere", "--out", "a.npz"), "no file or folder"),
        (("learn", "folder.npz", "--out", "a.npz"), "holds no sound"),
        (("learn", "song.wav", "--out", "a.wav"), ".npz"),
        (("learn", "song.wav", "--out", "a.npz", "--n-fft", "64", "--hop-length", "128"), "hop_length"),
        (("info", "nowhere.wav"), "No such file"),
        (("info", "empty.wav"), "empty.wav"),
    ],
)
def test_bad_input_is_one_paragraph_and_exit_code_2(here, arguments, message):
    Path("folder.npz").mkdir()
    Path("empty.wav").write_bytes(b"")
    before = files()
    done = run(*arguments)
    assert done.exit_code == 2, done.stdout + done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("knownmf: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert files() == before


@pytest.mark.parametrize(
    "arguments",
    [("unheard-of",), ("learn",), ("separate", "song.wav"), (*DECOMPOSE, "--tol", "small"), (*DECOMPOSE, "--loud")],
)
def test_bad_usage_is_exit_code_2(here, arguments):
    done = run(*arguments)
    assert done.exit_code == 2
    assert "Usage" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("command", "job", "existing"),
    [
        (SEPARATE, "separate", "stems/low.wav"),
        (DECOMPOSE, "decompose", "activations.npz"),
        ((*DECOMPOSE, "--picture", "picture.png"), "decompose", "picture.png"),
        (TRANSCRIBE, "transcribe", "events.csv"),
        (("learn", "song.wav", "--out", "learnt.npz"), "learn", "learnt.npz"),
    ],
)
def test_nothing_is_overwritten_without_force_and_nothing_is_computed_before(here, monkeypatch, command, job, existing):
    Path("stems").mkdir()
    Path(existing).write_text("mine")

    def never(*arguments, **settings):
        raise AssertionError("the work began")

    with monkeypatch.context() as patch:
        patch.setattr(audio, job, never)
        done = run(*command)
    assert done.exit_code == 2, done.stderr
    assert "--force" in done.stderr
    assert Path(existing).read_text() == "mine"
    assert run(*command, "--force").exit_code == 0
    assert Path(existing).read_bytes() != b"mine"


@pytest.mark.parametrize(
    "command", [SEPARATE, DECOMPOSE, (*DECOMPOSE[:-1], "activations.csv"), TRANSCRIBE], ids=lambda c: c[-1]
)
def test_a_full_disk_is_exit_code_1_and_leaves_nothing(here, monkeypatch, command):
    before = files()

    def full(*arguments, **settings):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "target")

    monkeypatch.setattr(os, "replace", full)
    done = run(*command)
    assert done.exit_code == 1
    assert done.stderr == f'knownmf: "target": {os.strerror(errno.ENOSPC)}.\n'
    assert files() == before


def test_stems_appear_together_or_not_at_all(here, monkeypatch):
    wrote = audio.write

    def fails_at_the_second(path, **samples):
        if Path(path).name == "high.wav":
            raise OSError(errno.EIO, "Input/output error", str(path))
        wrote(path, **samples)

    monkeypatch.setattr(audio, "write", fails_at_the_second)
    assert run(*SEPARATE).exit_code == 1
    assert files() == ["song.wav", "tones.npz"]
    assert not Path("stems").exists()


def test_an_interrupt_is_exit_code_130_and_leaves_nothing(here, monkeypatch):
    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(audio, "separate", interrupted)
    done = run(*SEPARATE)
    assert done.exit_code == 130
    assert done.stderr.startswith("knownmf: stopped")
    assert files() == ["song.wav", "tones.npz"]


def test_too_little_memory_is_exit_code_1(here, monkeypatch):
    def too_long(*arguments, **settings):
        raise MemoryError

    monkeypatch.setattr(audio, "decompose", too_long)
    done = run(*DECOMPOSE)
    assert done.exit_code == 1
    assert "not enough memory" in done.stderr


def test_a_fault_of_our_own_keeps_its_traceback(here, monkeypatch):
    def broken(*arguments, **settings):
        raise TypeError("ours")

    monkeypatch.setattr(audio, "decompose", broken)
    done = run(*DECOMPOSE)
    assert done.exit_code == 1
    assert isinstance(done.exception, TypeError)


def test_the_process_ends_with_the_exit_code(here):
    knownmf = Path(sys.executable).with_name("knownmf")
    done = subprocess.run([knownmf, "info", "nowhere.npz"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == 'knownmf: "nowhere.npz": No such file or directory.\n'
    done = subprocess.run([knownmf, "info", "song.wav"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "stereo" in done.stdout
