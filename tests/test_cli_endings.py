"""Test the messages and exit codes of commands that fail."""

import errno
import os
import re
import signal
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile

from commands import DECOMPOSE, SEPARATE, SR, TRANSCRIBE, files, run, write_inputs
from knownmf import audio, demo, memory
from knownmf.audio import recordings
from knownmf.cli import demonstration
from knownmf.dictionary import Dictionary
from knownmf.files import folder_written_aside


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return the working folder, with song.wav and tones.npz in it."""
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    return tmp_path


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
        ((*SEPARATE, "--mask-power", "-1"), "--mask-power"),
        ((*DECOMPOSE[:-1], "activations.txt"), ".npz or .zarr or .csv"),
        ((*DECOMPOSE[:-1], "folder.npz"), "is a folder"),
        ((*DECOMPOSE[:-1], "tones.npz", "--force"), "would be overwritten"),
        ((*DECOMPOSE, "--picture", "picture.gif"), ".png or .pdf or .svg"),
        ((*DECOMPOSE, "--beta-loss", "fröbenius"), "fröbenius"),
        ((*DECOMPOSE, "--tol", "-1"), "tol"),
        ((*TRANSCRIBE[:-1], "events.mid"), ".csv"),
        (("learn", "nowhere", "--out", "a.npz"), "no file or folder"),
        (("learn", "folder.npz", "--out", "a.npz"), "contains no sound file"),
        (("learn", "song.wav", "--out", "a.wav"), ".npz"),
        (
            ("learn", "song.wav", "--out", "a.npz", "--n-fft", "64", "--hop-length", "128"),
            "--hop-length 128 exceeds --n-fft 64",
        ),
        (("learn", "", "--out", "a.npz"), "Invalid value for 'SOUND': the name is empty"),
        (("learn", "song.wav", "--out", ""), "Invalid value for '--out' / '-o': the name is empty"),
        ((*SEPARATE[:-1], ""), "Invalid value for '--out' / '-o': the name is empty"),
        (("separate", "", *SEPARATE[2:]), "Invalid value for 'RECORDING': the name is empty"),
        ((*SEPARATE[:3], "", *SEPARATE[4:]), "Invalid value for '--dictionary' / '-d': the name is empty"),
        ((*TRANSCRIBE, "--picture", ""), "Invalid value for '--picture': the name is empty"),
        (("info", ""), "Invalid value for 'FILE': the name is empty"),
        (("demo", "--out", ""), "Invalid value for '--out' / '-o': the name is empty"),
        ((*SEPARATE, "--max-iter", 10**30), "expected a whole number from 1 to 9223372036854775807."),
        ((*SEPARATE, "--max-iter", -(10**30)), "expected a whole number from 1 to 9223372036854775807."),
        ((*SEPARATE, "--free", 10**30), "expected a whole number from 0 to 2147483647."),
        (("learn", "song.wav", "--out", "a.npz", "--n-fft", 10**30), "expected a whole number from 2 to"),
        (("learn", "song.wav", "--out", "a.npz", "--sr", 10**30), "expected a whole number from 1 to"),
        (
            ("learn", "song.wav", "--out", "a.npz", "-n", "0"),
            "Invalid value for '--components' / '-n': \"0\", expected",
        ),
        (
            (*SEPARATE, "--tol", "nan"),
            "Invalid value for '--tol': \"nan\", expected a number of at least 0, such as 1e-4.",
        ),
        ((*SEPARATE, "--mask-power", "inf"), "Invalid value for '--mask-power': \"inf\", expected a number above 0."),
        (
            (*SEPARATE, "--beta-loss", "4"),
            "expected kullback-leibler, frobenius, itakura-saito, or a number from -1 to 3.",
        ),
        (
            (*TRANSCRIBE, "--min-gap", "-1"),
            "Invalid value for '--min-gap': \"-1\", expected a number of seconds, 0 or more.",
        ),
        (("learn", "*.aiff", "--out", "a.npz"), 'No file matches "*.aiff"'),
        (("info", "nowhere.wav"), "No such file"),
        (("info", "empty.wav"), "empty.wav"),
        (("info", "raw.raw"), "not a recording"),
        (("learn", "silent.wav", "--out", "a.npz"), 'silent.wav" is silent'),
        ((*SEPARATE[:-1], "x" * 300), "name too long"),
        ((*TRANSCRIBE[:-1], "x" * 300 + ".csv"), "name too long"),
        (("learn", "x" * 300, "--out", "a.npz"), "name too long"),
        ((*SEPARATE[:-1], "nowhere/stems"), "is not a folder"),
        (("demo", "--out", "song.wav"), "is a file"),
        (("demo", "--out", "song.wav/demo"), "is not a folder"),
        (("demo", "--out", "x" * 300), "name too long"),
    ],
)
def test_wrong_input_gives_one_line_and_exit_code_2(here, arguments, message):
    Path("folder.npz").mkdir()
    Path("empty.wav").write_bytes(b"")
    Path("raw.raw").write_bytes(b"1234")
    Path("nowhere").symlink_to("gone")
    soundfile.write("silent.wav", np.zeros(SR), SR)
    before = files()
    done = run(*arguments)
    assert done.exit_code == 2, done.stdout + done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("knownmf: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert files() == before


@pytest.mark.parametrize("command", [SEPARATE, DECOMPOSE, TRANSCRIBE, ("demo", "--out", "locked/new")])
def test_missing_permissions_are_reported_before_the_computation(here, monkeypatch, command):
    Path("locked").mkdir()
    monkeypatch.setattr(os, "access", lambda place, mode: mode == os.R_OK)  # simulated, because root may write anywhere
    monkeypatch.setattr(demo, "mixture", None)
    done = run(*command)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "You have no permission to write in" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--loud",),
        ("unknown-command",),
        ("learn",),
        ("separate", "song.wav"),
        (*DECOMPOSE, "--tol", "small"),
        (*DECOMPOSE, "--loud"),
    ],
)
def test_wrong_usage_gives_one_line_and_exit_code_2(here, arguments):
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert re.fullmatch(r"knownmf: .*[^.?][.?] See knownmf( [a-z]+)? --help\.\n", done.stderr)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("seperate", "song.wav"), "No such command 'seperate'. Did you mean 'separate'? See knownmf --help."),
        (("separate", "song.wav", "-d"), "See knownmf separate --help."),
        (("separate", "song.wav", "--quiet=3"), "See knownmf separate --help."),
    ],
)
def test_wrong_usage_names_what_was_meant_and_the_help_of_the_command(here, arguments, message):
    assert run(*arguments).stderr.endswith(f"{message}\n")


@pytest.mark.skipif(os.name == "nt", reason="Windows allows no such file names")
def test_control_codes_are_shown_as_escapes(here):
    label = "kick\x1b]0;owned\x1b\\\x1b[31m\u202e\u2028\x85\r"
    tones = Dictionary.load("tones.npz")
    Dictionary(tones.W, [label, "high", "high"], sr=SR, n_fft=tones.n_fft, hop_length=tones.hop_length).save(
        f"{label}.npz"
    )
    soundfile.write("x.wav", np.random.default_rng(0).normal(size=SR) / 9, SR)
    Path("x.wav").rename(f"{label}.wav")
    basis = ("--dictionary", f"{label}.npz")
    printed = ""
    for arguments in [
        ("info", f"{label}.npz"),
        ("info", f"{label}.wav"),
        ("info", f"{label}.csv"),
        ("learn", f"{label}.wav", "--dry-run"),
        ("learn", f"{label}.wav", f"{label}={label}", "--dry-run"),
        ("learn", f"{label}.wav", "--out", f"{label}2.npz", "-n", "1"),
        ("separate", "song.wav", *basis, "--out", f"{label}"),
        ("separate", "song.wav", *basis, "--out", f"{label}"),
        ("transcribe", "song.wav", *basis, "--out", "e.csv", "--picture", f"{label}.svg"),
        ("decompose", "song.wav", *basis, "--out", "a.npz"),
        ("info", "a.npz"),
        ("info", "e.csv"),
        (label,),
        ("info", "--" + label),
        ("separate", "song.wav", *basis, "--out", "s", "--tol", label),
    ]:
        done = run(*arguments)
        assert done.exception is None or isinstance(done.exception, SystemExit)
        printed += done.stdout + done.stderr
    assert not [c for c in printed if unicodedata.category(c)[0] == "C" and c != "\n"]
    assert not set(printed) & {"\u2028", "\x85", "\u202e"}
    assert printed.count("kick\\x1b]0;owned") > 12


def test_a_dictionary_with_a_label_that_is_not_unicode_is_refused_before_the_computation(here, monkeypatch):
    tones = Dictionary.load("tones.npz")
    Dictionary(tones.W, ["caf\udce9", "high", "high"], sr=SR, n_fft=tones.n_fft, hop_length=tones.hop_length).save(
        "bad.npz"
    )
    monkeypatch.setattr(audio, "read", None)
    for command in (SEPARATE, DECOMPOSE, TRANSCRIBE):
        done = run(*command[:3], "bad.npz", *command[4:])
        assert done.exit_code == 2
        assert '"bad.npz" has the label "caf\\xe9", which is not valid Unicode' in done.stderr


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are always valid Unicode")
def test_file_names_that_are_not_utf8_can_be_read(here):
    name = os.fsdecode(b"caf\xe9.wav")
    Path("song.wav").rename(name)
    assert run("info", name).stdout == "caf\\xe9.wav: 1.50 s at 8000 Hz, stereo, WAV FLOAT\n"
    assert run("learn", name, "--out", "learned.npz").exit_code == 2
    assert run("learn", f"coffee={name}", "--out", "learned.npz").exit_code == 0
    assert run("separate", name, *SEPARATE[2:]).exit_code == 0


def test_outputs_replace_symbolic_links_instead_of_writing_through_them(here):
    Path("mine").write_text("mine")
    Path("stems").mkdir()
    for command, link in [
        (SEPARATE, "stems/low.wav"),
        (DECOMPOSE, "activations.npz"),
        ((*DECOMPOSE, "--picture", "picture.png", "--force"), "picture.png"),
        (TRANSCRIBE, "events.csv"),
        (("learn", "song.wav", "--out", "learned.npz"), "learned.npz"),
    ]:
        for target in ("mine", "gone"):
            Path(link).unlink(missing_ok=True)
            Path(link).symlink_to(Path(target).absolute())
            if "--force" not in command:
                assert "exists already" in run(*command).stderr
            done = run(*command, "--force")
            assert done.exit_code == 0, done.stderr
            assert not Path(link).is_symlink()
            assert Path("mine").read_text() == "mine"
            assert not Path("gone").exists()


def test_the_demo_does_not_write_through_symbolic_links(here, monkeypatch):
    Path("elsewhere").mkdir()
    Path("mine").write_text("mine")
    monkeypatch.setattr(demonstration, "learn", None)
    for name in ("hits", "truth", "stems"):
        out = Path(f"demo with {name}")
        out.mkdir()
        (out / name).symlink_to(Path("elsewhere").absolute())
        done = run("demo", "--out", out, "--force")
        assert done.exit_code == 2
        assert "is a symbolic link" in done.stderr
    links = [Path("demo", *parts) for parts in (("hits", "kick__hard.flac"), ("truth", "events.csv"), ("mix.wav",))]
    for link in links:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path("mine").absolute())
    run("demo", "--out", "demo", "--force")
    assert not [link for link in links if link.is_symlink()]
    assert Path("mine").read_text() == "mine"
    assert not files("elsewhere")


def test_without_arguments_the_help_is_printed():
    done = run()
    assert done.exit_code == 2
    assert "transcribe" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("command", "job", "existing"),
    [
        (SEPARATE, "separate", "stems/low.wav"),
        (DECOMPOSE, "decompose", "activations.npz"),
        ((*DECOMPOSE, "--picture", "picture.png"), "decompose", "picture.png"),
        (TRANSCRIBE, "transcribe", "events.csv"),
        (("learn", "song.wav", "--out", "learned.npz"), "learn", "learned.npz"),
    ],
)
def test_files_are_replaced_only_with_force(here, monkeypatch, command, job, existing):
    Path("stems").mkdir()
    Path(existing).write_text("mine")

    def must_not_run(*arguments, **settings):
        raise AssertionError("the computation has started")

    with monkeypatch.context() as patch:
        patch.setattr(audio, job, must_not_run)
        done = run(*command)
    assert done.exit_code == 2, done.stderr
    assert "--force" in done.stderr
    assert Path(existing).read_text() == "mine"
    assert run(*command, "--force").exit_code == 0
    assert Path(existing).read_bytes() != b"mine"


@pytest.mark.parametrize(
    "command", [SEPARATE, DECOMPOSE, (*DECOMPOSE[:-1], "activations.csv"), TRANSCRIBE], ids=lambda c: c[-1]
)
def test_a_full_disk_gives_exit_code_1_and_leaves_no_files(here, monkeypatch, command):
    before = files()

    def full(*arguments, **settings):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "target")

    monkeypatch.setattr(os, "replace", full)
    done = run(*command)
    assert done.exit_code == 1
    assert done.stderr == f'knownmf: "target": {os.strerror(errno.ENOSPC)}.\n'
    assert files() == before


def test_stems_are_written_all_or_none(here, monkeypatch):
    write, started = recordings.RecordingWriter.write, []

    def fails_in_one(writer, y):
        started.append(writer)
        if len(started) % 2 == 0:
            raise OSError(errno.EIO, "Input/output error", "high.wav")
        write(writer, y)

    monkeypatch.setattr(recordings.RecordingWriter, "write", fails_in_one)
    assert run(*SEPARATE[:-1], "new/stems").exit_code == 1
    assert files() == ["song.wav", "tones.npz"]
    assert not Path("new").exists()
    Path("stems").mkdir()
    assert run(*SEPARATE).exit_code == 1
    assert files() == ["song.wav", "tones.npz"]
    assert Path("stems").exists()


def test_a_file_size_limit_gives_exit_code_1_and_leaves_no_files(here):
    resource = pytest.importorskip("resource")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000))

    before = files()
    command = [Path(sys.executable).with_name("knownmf"), *SEPARATE]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf'knownmf: "stems/(low|high)\.wav": {os.strerror(errno.EFBIG)}\.\n', done.stderr)
    assert files() == before


@pytest.mark.parametrize(("soft", "hard"), [(100, 4096), (100, 150)])
def test_a_file_is_open_for_each_stem_as_far_as_the_system_allows(here, soft, hard):
    resource = pytest.importorskip("resource")
    tones = Dictionary.load("tones.npz")
    W = np.random.default_rng(0).random((tones.n_bins, 120))
    Dictionary(W, [f"s{i}" for i in range(120)], **tones.settings).save("many.npz")

    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    knownmf = Path(sys.executable).with_name("knownmf")
    for out, options in (("one", []), ("many", ["--resume"])):
        before = files()
        command = [knownmf, "separate", "song.wav", "--dictionary", "many.npz", "--out", out, *options]
        done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
        if hard == 4096:
            assert done.returncode == 0, done.stderr
            assert len(files(out)) == 120 + (out == "many")
        else:
            assert (done.returncode, done.stdout) == (1, "")
            assert re.fullmatch(
                r"knownmf: writing 120 stems needs (\d+) open files, but the system allows 150: raise the limit "
                r"\(ulimit -n \1\), or use a dictionary with fewer sounds\.\n",
                done.stderr,
            )
            assert files() == before


def test_the_parent_of_the_folder_need_not_be_writable(here, monkeypatch):
    Path("stems").mkdir()
    parents, mkdir = [], os.mkdir

    def watched(path, mode=0o777):
        mkdir(path, mode)
        parents.append(Path(path).parent)

    monkeypatch.setattr(os, "mkdir", watched)
    assert run(*SEPARATE).exit_code == 0
    assert parents == [Path("stems")]
    assert files("stems") == ["high.wav", "low.wav"]


def test_an_interrupt_gives_exit_code_130_and_leaves_no_files(here, monkeypatch):
    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(audio, "separate", interrupted)
    done = run(*SEPARATE)
    assert done.exit_code == 130
    assert done.stderr.startswith("knownmf: stopped")
    assert files() == ["song.wav", "tones.npz"]


# Code that runs the command, with a signal at a chosen moment.
AT_NUMPY = """
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            os.kill(os.getpid(), number)
sys.meta_path.insert(0, Finder())
"""
# Extensions in C++ abort the process if there is an exception while they are imported.
AT_SOUNDFILE = """
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "soundfile":
            try:
                os.kill(os.getpid(), number)
                time.sleep(60)
            except BaseException:
                os.abort()
sys.meta_path.insert(0, Finder())
"""
IN_A_FILE = """
import numpy.lib.format
def half(file, *arguments, **options):
    file.write(b"half")
    os.kill(os.getpid(), number)
    time.sleep(60)
numpy.lib.format.write_array = half
"""
# Stems are written by other threads, which end what they are doing.
IN_A_FOLDER = """
from knownmf.audio.recordings import RecordingWriter
write, sent = RecordingWriter.write, []
def half(writer, y):
    write(writer, y)
    if not sent:
        sent.append(os.kill(os.getpid(), number))
    time.sleep(0.5)
    write(writer, y)
RecordingWriter.write = half
"""
IN_A_TABLE = """
from knownmf.solver import Solver
solve = Solver.solve_observations
def half(solver, *arguments):
    os.kill(os.getpid(), number)
    time.sleep(60)
Solver.solve_observations = half
"""
# The exception that ends the command is suppressed, replaced by another one, or cannot be raised.
SUPPRESSED = """
from knownmf.solver import Solver
def half(solver, *arguments):
    try:
        os.kill(os.getpid(), number)
        time.sleep(60)
    except BaseException:
        pass
    time.sleep(60)
Solver.solve_observations = half
"""
REPLACED = """
from knownmf.solver import Solver
class Name:
    def __set_name__(self, owner, name):
        os.kill(os.getpid(), number)
        time.sleep(60)
def half(solver, *arguments):
    type("Class", (), {"name": Name()})
Solver.solve_observations = half
"""
IN_DEL = """
from knownmf.solver import Solver
class Deleted:
    def __del__(self):
        os.kill(os.getpid(), number)
        time.sleep(60)
def half(solver, *arguments):
    Deleted()
    time.sleep(60)
Solver.solve_observations = half
"""
# The first signal comes between the creation of a file and the code that would remove it. The second one comes while
# the first one is handled.
TWICE = """
import knownmf.files
def lost(folder):
    path = folder / "lost.part"
    path.write_bytes(b"half")
    knownmf.files._unfinished.add(path)
    try:
        os.kill(os.getpid(), number)
        time.sleep(60)
    finally:
        os.kill(os.getpid(), number)
        time.sleep(60)
knownmf.files.temporary_name = lost
"""


SOLVE = ("solve", "V.csv", "--basis", "W.csv", "--out", "new/H.csv", "--report", "new/report.csv")
MOMENTS = [
    (AT_NUMPY, DECOMPOSE),
    (IN_A_FILE, DECOMPOSE),
    (IN_A_TABLE, (*DECOMPOSE[:-1], "activations.csv")),
    (IN_A_TABLE, (*DECOMPOSE[:-1], "activations.zarr")),
    (IN_A_FOLDER, (*SEPARATE[:-1], "new/stems")),
    (TWICE, DECOMPOSE),
]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize(
    ("name", "moment", "command"),
    [
        *((name, *moment) for name in ("SIGINT", "SIGTERM", "SIGHUP") for moment in MOMENTS),
        ("SIGINT", SUPPRESSED, (*SEPARATE[:-1], "new/stems")),
        ("SIGINT", REPLACED, SEPARATE),
        ("SIGINT", IN_DEL, SEPARATE),
        ("SIGTERM", IN_A_FILE, ("learn", "song.wav", "--out", "new/learned.npz")),
        ("SIGTERM", IN_A_TABLE, (*TRANSCRIBE[:-1], "new/events.csv")),
        ("SIGTERM", IN_A_TABLE, SOLVE),
        ("SIGTERM", AT_SOUNDFILE, ("info", "song.wav")),
        ("SIGTERM", AT_SOUNDFILE, ("demo",)),
    ],
)
def test_signals_end_the_process_with_one_line_and_leave_no_files(here, name, moment, command):
    number = getattr(signal, name)
    code = f"import os, sys, time; number = {number:d}{moment}\nfrom knownmf_command import main; main()"
    Path("V.csv").write_text(",s1,s2\nx,2,3\ny,4,5\n")
    Path("W.csv").write_text(",c1\nx,1\ny,2\n")
    before = sorted(Path().rglob("*"))
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (128 + number, "")
    assert re.fullmatch(r"knownmf: stopped[^\n]*\.\n", done.stderr)
    assert sorted(Path().rglob("*")) == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_signal_that_the_process_ignores_stays_ignored(here):
    code = f"import os, sys, time; number = {signal.SIGHUP:d}{AT_NUMPY}\nfrom knownmf_command import main; main()"
    command = [sys.executable, "-c", code, "info", "song.wav"]
    done = subprocess.run(
        command, capture_output=True, text=True, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "stereo" in done.stdout


def test_importing_sets_no_signal_handlers():
    code = (
        "import signal; numbers = sorted(signal.valid_signals()); before = [*map(signal.getsignal, numbers)]; "
        "import knownmf.audio, knownmf.cli.application, knownmf_command; "
        "assert [*map(signal.getsignal, numbers)] == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_too_little_memory_gives_exit_code_1(here, monkeypatch):
    def too_long(*arguments, **settings):
        raise MemoryError

    monkeypatch.setattr(audio, "decompose", too_long)
    done = run(*DECOMPOSE)
    assert done.exit_code == 1
    assert "not enough memory" in done.stderr


def test_refusals_name_the_file(here):
    """The library says "the dictionary" or "take 2 of 'x'", because it knows no files."""
    basis = Dictionary.load("tones.npz")
    Dictionary(basis.W, ["rest", "high", "high"], **basis.settings).save("rest.npz")
    done = run("separate", "song.wav", "--dictionary", "rest.npz", "--out", "stems", "--free", "2")
    assert (done.exit_code, done.stderr) == (
        2,
        'knownmf: "rest.npz" already has a sound named "rest", the label of free components: pass --free 0, or a '
        "dictionary with another label.\n",
    )
    Dictionary(basis.W, ["low", "high", "high"], **{**basis.settings, "sr": 2**40}).save("fast.npz")
    done = run(*DECOMPOSE[:3], "fast.npz", *DECOMPOSE[4:])
    assert done.exit_code == 2
    assert done.stderr.startswith(f'knownmf: "song.wav" cannot be resampled from {SR} Hz to {2**40} Hz: ')
    # Inaudible after resampling to a much lower rate.
    soundfile.write("x__1.wav", np.random.default_rng(0).normal(size=800), 8000)
    soundfile.write("x__2.wav", np.r_[np.zeros(999), 1e-320], 8000, subtype="DOUBLE")
    done = run("learn", "x__1.wav", "x__2.wav", "--out", "x.npz", "--n-fft", "64")
    assert (done.exit_code, done.stderr[:30]) == (2, 'knownmf: "x__2.wav" is silent:')


def test_refusals_name_the_file_once_whatever_its_name(here):
    basis = Dictionary.load("tones.npz")
    Dictionary(basis.W, ["rest", "high", "high"], **basis.settings).save("the recording.npz")
    done = run("decompose", "song.wav", "--dictionary", "the recording.npz", "--out", "a.npz", "--free", "2")
    assert done.exit_code == 2
    assert done.stderr.startswith('knownmf: "the recording.npz" already has a sound named "rest"')


def test_too_little_memory_is_reported_with_the_names_of_options(here, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 2**20)
    monkeypatch.setattr(audio.recordings, "check_memory", lambda *arguments: None)
    done = run("learn", "song.wav", "--out", "a.npz", "--n-fft", "1000000")
    assert done.exit_code == 1
    assert done.stderr.endswith("are available: choose a smaller --n-fft.\n")


def test_an_error_in_knownmf_keeps_its_traceback(here, monkeypatch):
    def broken(*arguments, **settings):
        raise TypeError("an error in knownmf")

    monkeypatch.setattr(audio, "decompose", broken)
    done = run(*DECOMPOSE)
    assert done.exit_code == 1
    assert isinstance(done.exception, TypeError)


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs the device that is always full")
@pytest.mark.parametrize("stream", ["stdout", "stderr", "both"])
def test_output_that_cannot_be_printed(here, stream):
    knownmf = Path(sys.executable).with_name("knownmf")
    with open("/dev/full", "w") as full:
        streams = {name: full if stream in (name, "both") else subprocess.PIPE for name in ("stdout", "stderr")}
        codes = {}
        for command in (("info", "song.wav"), ("info", "tones.npz"), ("info", "nowhere.npz")):
            done = subprocess.run([knownmf, *command], text=True, **streams)
            codes[command[1]] = done.returncode
            if stream == "stdout" and command[1] != "nowhere.npz":
                assert done.stderr == f"knownmf: {os.strerror(errno.ENOSPC)}.\n"
    printed = 0 if stream == "stderr" else 1
    assert codes == {"song.wav": printed, "tones.npz": printed, "nowhere.npz": 2}


@pytest.mark.parametrize("home", [None, "/dev/null/home"])
def test_nothing_needs_a_home_folder(here, home):
    """With a picture: Matplotlib keeps a cache of fonts."""
    environment = {key: value for key, value in os.environ.items() if key not in ("HOME", "XDG_CACHE_HOME")}
    environment |= {"MPLCONFIGDIR": "/dev/null/matplotlib", "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {} if home is None else {"HOME": home}
    command = [Path(sys.executable).with_name("knownmf"), *DECOMPOSE, "--picture", "picture.png"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert files() == ["activations.npz", "picture.png", "song.wav", "tones.npz"]


def test_the_process_returns_the_exit_code(here):
    knownmf = Path(sys.executable).with_name("knownmf")
    done = subprocess.run([knownmf, "info", "nowhere.npz"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == 'knownmf: "nowhere.npz": No such file or directory.\n'
    done = subprocess.run([knownmf, "info", "song.wav"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "stereo" in done.stdout


@pytest.mark.parametrize("stops_after", [1, 2])
def test_a_folder_that_is_replaced_is_never_missing(tmp_path, monkeypatch, stops_after):
    """A signal before or after the new folder gets the name leaves the old one or the new one."""
    path, replace, calls = tmp_path / "found.zarr", os.replace, []
    path.mkdir()
    (path / "old").touch()

    def stopped(source, target):
        replace(source, target)
        calls.append(target)
        if len(calls) == stops_after:
            raise KeyboardInterrupt

    def write():
        with folder_written_aside(path) as temporary:
            temporary.mkdir()
            (temporary / "new").touch()

    monkeypatch.setattr(os, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        write()
    assert files(tmp_path) == ["found.zarr/old" if stops_after == 1 else "found.zarr/new"]
