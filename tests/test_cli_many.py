"""Commands with many recordings: a folder for each, errors that stop nothing, and work that is continued."""

import contextlib
import csv
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from commands import DECOMPOSE, SR, files, rows, run, tone, write_songs
from knownmf.audio import recordings
from knownmf.cli import jobs
from knownmf.cli.jobs import Job, run_job
from knownmf.cli.manifest import Manifest
from knownmf.files import sole_user

SEPARATE = ("separate", "--dictionary", "tones.npz", "--out", "results")
VERBS = {
    "separate": ["high.wav", "low.wav"],
    "decompose": ["activations.npz"],
    "transcribe": ["events.csv"],
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return the working folder, with three recordings in it."""
    monkeypatch.chdir(tmp_path)
    write_songs(tmp_path)
    return tmp_path


def results(command, *arguments):
    return run(command, "--dictionary", "tones.npz", "--out", "results", *arguments)


def manifest(folder="results"):
    """Return the last row of each recording, by its name."""
    return {Path(row["recording"]).name: row for row in rows(Path(folder) / "manifest.csv")}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("given", [["songs/a.wav", "songs/b.flac", "songs/c.wav"], ["songs"], ["songs/*"]], ids=str)
def test_each_recording_gets_a_folder(here, verb, given):
    done = results(verb, *given)
    assert done.exit_code == 0, done.stderr
    assert files("results") == sorted(["manifest.csv", *(f"{name}/{file}" for name in "abc" for file in VERBS[verb])])
    assert done.stdout.splitlines()[-1].startswith("3 recordings finished, 0 failed. ")
    for row in manifest().values():
        assert row["status"] == "finished"
        assert float(row["seconds"]) in (1.0, 1.5)
        assert row["frames"] == row["converged"]
        assert float(row["worst"]) <= float(row["tol"]) == 1e-4
        assert float(row["explained"]) > 0.85


@pytest.mark.parametrize("verb", VERBS)
def test_a_silent_recording_is_called_silent(here, verb):
    soundfile.write("songs/c.wav", np.zeros(SR), SR)
    done = results(verb, "songs")
    assert done.exit_code == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if "c.wav" in line]
    assert line.startswith("songs/c.wav: silent; 100 % of ")
    row = manifest()["c.wav"]
    assert (row["status"], row["explained"], row["explained_by_dictionary"]) == ("finished", "", "")
    assert row["message"].startswith("Up to 4000 Hz, the recording is silent: ")
    assert "3 skipped" in results(verb, "songs", "--resume").stdout


def test_stems_are_those_of_the_recording_alone(here):
    assert results("separate", "songs").exit_code == 0
    assert run("separate", "songs/a.wav", "--dictionary", "tones.npz", "--out", "alone").exit_code == 0
    assert files("alone") == VERBS["separate"]
    for name in VERBS["separate"]:
        one, other = soundfile.read(f"alone/{name}")[0], soundfile.read(f"results/a/{name}")[0]
        np.testing.assert_array_equal(one, other)


def test_the_file_in_the_folders_can_be_chosen(here):
    done = run("decompose", "songs", "--dictionary", "tones.npz", "--out", "new/table.csv", "--picture", "./all.png")
    assert done.exit_code == 0, done.stderr
    assert files("new") == sorted(
        ["manifest.csv", *(f"{name}/{file}" for name in "abc" for file in ("all.png", "table.csv"))]
    )


def test_a_bad_recording_is_reported_at_the_end_and_does_not_stop_the_others(here):
    Path("songs/b.flac").write_bytes(b"no sound")
    done = results("separate", "songs/a.wav", "songs/b.flac", "songs/none.wav", "songs/c.wav")
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith('knownmf: "songs/b.flac" is not a recording that can be read (')
    assert lines[1] == 'knownmf: "songs/none.wav": No such file or directory.'
    for name in ("songs/b.flac", "songs/none.wav"):  # a failure is said once, and names the recording once
        assert (done.stdout + done.stderr).count(name) == 1
    assert done.stdout.splitlines()[-1].startswith("2 recordings finished, 2 failed. ")
    assert files("results") == ["a/high.wav", "a/low.wav", "c/high.wav", "c/low.wav", "manifest.csv"]
    assert not Path("results/b").exists()
    status = {name: row["status"] for name, row in manifest().items()}
    assert status == {"a.wav": "finished", "b.flac": "failed", "none.wav": "failed", "c.wav": "finished"}
    assert "is not a recording" in manifest()["b.flac"]["message"]


def test_a_full_disk_during_one_recording_is_reported(here, monkeypatch):
    write = recordings.RecordingWriter.write
    n_calls = []

    def full_once(writer, y):
        n_calls.append(1)
        if len(n_calls) == 1:
            raise OSError(28, "No space left on device")
        write(writer, y)

    monkeypatch.setattr(recordings.RecordingWriter, "write", full_once)
    done = results("separate", "songs")
    assert done.exit_code == 1
    assert done.stderr == 'knownmf: songs/a.wav: "results/a": No space left on device.\n'
    assert "songs/a.wav" not in done.stdout
    assert files("results") == ["b/high.wav", "b/low.wav", "c/high.wav", "c/low.wav", "manifest.csv"]


def test_finished_recordings_are_skipped_and_all_others_done(here):
    good = Path("songs/b.flac").read_bytes()
    Path("songs/b.flac").write_bytes(b"no sound")
    assert results("separate", "songs").exit_code == 1
    before = Path("results/a/low.wav").stat().st_mtime_ns
    assert results("separate", "songs").exit_code == 2  # the files exist
    Path("songs/b.flac").write_bytes(good)
    done = results("separate", "songs", "--resume")
    assert done.exit_code == 0, done.stderr
    assert "1 recording finished, 2 skipped, which were finished before, 0 failed." in done.stdout
    assert Path("results/a/low.wav").stat().st_mtime_ns == before
    assert {row["status"] for row in manifest().values()} == {"finished"}
    assert "0 recordings finished, 3 skipped" in results("separate", "songs", "--resume").stdout


@pytest.mark.parametrize("existing", ["manifest.csv", "a/activations.npz", "b/p.png"])
def test_results_that_exist_can_be_continued_or_replaced(here, existing):
    command = ("decompose", "songs", "--picture", "p.png")
    assert results(*command).exit_code == 0
    for name in files("results"):
        if name != existing:
            (Path("results") / name).unlink()
    done = results(*command)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == (
        f'knownmf: "results/{existing}" exists already: continue with --resume, which skips what is finished, choose '
        "another folder, or replace all with --force.\n"
    )
    resumed = results(*command, "--resume")
    if existing == "manifest.csv":  # else it is not known whose results these are
        assert resumed.exit_code == 0
    else:
        assert resumed.exit_code == 2
        assert "exists already: choose another folder, or replace all with --force." in resumed.stderr
    assert results(*command, "--force").exit_code == 0


@pytest.mark.parametrize("change", ["recording", "dictionary", "options", "output", "picture"])
def test_what_has_changed_is_done_again(here, change):
    options = ["--picture", "p.png"] if change == "picture" else []
    assert results("transcribe", "songs", *options).exit_code == 0
    if change == "recording":
        soundfile.write("songs/c.wav", tone("low"), SR)
    elif change == "dictionary":
        results_of = np.load("tones.npz")
        arrays = {name: results_of[name] for name in results_of.files}
        arrays["W"] = 2 * arrays["W"]
        np.savez("tones.npz", **arrays)
    elif change == "options":
        options = ["--tol", "1e-3"]
    elif change == "output":
        Path("results/c/events.csv").unlink()
    else:
        Path("results/c/p.png").unlink()
    again = 1 if change in ("recording", "output", "picture") else 3
    if again == 3:
        done = results("transcribe", "songs", "--resume", *options)
        assert done.exit_code == 2
        assert done.stderr == (
            'knownmf: "results" has results of another command, of other options or of another dictionary (a, b, c): '
            "choose another folder, or replace all with --force.\n"
        )
        options.append("--force")
    done = results("transcribe", "songs", "--resume", *options)
    assert done.exit_code == 0, done.stderr
    skipped = f", {3 - again} skipped, which were finished before" if again < 3 else ""
    assert done.stdout.splitlines()[-1].startswith(f"{again} recording{'s' * (again > 1)} finished{skipped}, 0 failed.")


def test_what_a_killed_process_has_left_behind_is_removed(here):
    code = (
        "import os, signal; from knownmf.audio.recordings import RecordingWriter as Writer\n"
        "write, n = Writer.write, []\n"
        "def killed(writer, y):\n"
        "    write(writer, y)\n"
        "    n.append(1)\n"
        "    if len(n) > 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Writer.write = killed\n"
        "from knownmf_command import main; main()"
    )
    command = [sys.executable, "-c", code, *SEPARATE, "songs"]
    if sys.platform == "win32":
        pytest.skip("Windows has no SIGKILL")
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert {name: row["status"] for name, row in manifest().items()} == {"a.wav": "finished", "b.flac": "begun"}
    assert any(name.startswith("b/.knownmf") for name in files("results"))
    done = run(*SEPARATE, "songs", "--resume")
    assert done.exit_code == 0, done.stderr
    assert "2 recordings finished, 1 skipped" in done.stdout
    assert files("results") == sorted(
        ["manifest.csv", *(f"{name}/{file}" for name in "abc" for file in VERBS["separate"])]
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_leaves_finished_recordings_and_no_partial_file(here, name):
    number = getattr(signal, name)
    code = (
        f"import os, time; number = {number:d}\n"
        "from knownmf.solver import Solver\n"
        "solve, n = Solver.solve_observations, []\n"
        "def stopped(*arguments, **options):\n"
        "    n.append(1)\n"
        "    if len(n) == 2: os.kill(os.getpid(), number); time.sleep(60)\n"
        "    return solve(*arguments, **options)\n"
        "Solver.solve_observations = stopped\n"
        "from knownmf_command import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code, *SEPARATE, "songs"], capture_output=True, text=True)
    assert done.returncode == 128 + number
    assert done.stderr == "knownmf: stopped; incomplete files have been removed.\n"
    assert files("results") == ["a/high.wav", "a/low.wav", "manifest.csv"]
    assert "2 recordings finished, 1 skipped" in run(*SEPARATE, "songs", "--resume").stdout


def test_recordings_with_the_same_name_get_different_folders(here):
    Path("more").mkdir()
    soundfile.write("more/A.wav", tone("low"), SR)
    assert results("transcribe", "songs/a.wav", "more/A.wav").exit_code == 0
    assert files("results") == ["A-2/events.csv", "a/events.csv", "manifest.csv"]
    # They keep them, in whatever order they come.
    done = results("transcribe", "more/A.wav", "songs/a.wav", "songs/c.wav", "--resume")
    assert "1 recording finished, 2 skipped" in done.stdout
    assert {name: row["folder"] for name, row in manifest().items()} == {"a.wav": "a", "A.wav": "A-2", "c.wav": "c"}


def test_stems_are_no_recordings(here):
    command = ("separate", "songs", "--dictionary", "tones.npz", "--out")
    assert run(*command, "songs/stems").exit_code == 0
    assert "0 recordings finished, 3 skipped" in run(*command, "songs/stems", "--resume").stdout
    done = run(*command, "./songs/../songs")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == 'knownmf: The folder "songs" has the recordings: choose another one for the stems.\n'


def test_the_same_recording_twice_is_done_once(here):
    done = results("transcribe", "songs/a.wav", "songs", "./songs/../songs/a.wav")
    assert "3 recordings finished" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("transcribe", "*.ogg"), 'No file matches "*.ogg"'),
        (("transcribe", "songs", "--picture", "a.gif"), ".png or .pdf or .svg"),
        (("decompose", "songs/a.wav", "songs/b.flac", "--tol", "-1"), "--tol"),
        (
            ("transcribe", "songs", "--picture", "p/all.png"),
            '--picture "p/all.png" names a folder: for several recordings, pass a file name only, such as all.png.',
        ),
        (("decompose", "songs/a.wav", "--resume", "--picture", "results/all.png"), '"results/all.png" names a folder'),
        (("decompose", "songs", "--picture", Path("a.png").absolute()), "pass a file name only, such as a.png."),
        (("decompose", "songs", "--out", "new/table.txt"), '"new/table.txt" looks like the name of a file, which must'),
        (("transcribe", "songs", "--out", "events.mid"), "which must end in .csv. For several recordings, pass a"),
        (("transcribe", "songs", "--out", "new/a.npz"), "pass a folder or FOLDER/NAME.csv: each recording gets a file"),
    ],
)
def test_wrong_usage_is_refused_before_the_work(here, arguments, message):
    before = files()
    done = results(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert files() == before


def test_folders_may_have_dots_in_their_names(here):
    Path("old.results").mkdir()
    for folder in ("version 1.2", "old.results", "v.2"):
        done = results("transcribe", "songs", "--out", folder)
        assert done.exit_code == 0, done.stderr
        assert files(folder) == ["a/events.csv", "b/events.csv", "c/events.csv", "manifest.csv"]
    assert results("separate", "songs", "--out", "stems.wav").exit_code == 0


def test_a_manifest_of_somebody_else_is_not_replaced(here):
    Path("results").mkdir()
    Path("results/manifest.csv").write_text("name,size\n")
    for options in ((), ("--resume",), ("--force",)):
        done = results("transcribe", "songs", *options)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "manifest.csv" in done.stderr
    assert Path("results/manifest.csv").read_text() == "name,size\n"


@pytest.mark.parametrize(
    ("column", "value"),
    [("folder", ".."), ("folder", "../songs"), ("folder", ""), ("outputs", '{"..": 1}'), ("outputs", '{"a/b": 1}'),
     ("outputs", '{"high.wav": 1'), ("outputs", "[1]")],
)  # fmt: skip
def test_a_manifest_that_names_other_files_is_refused(here, column, value):
    """Results that a manifest names are removed before a recording is done again: all of them are in its folder."""
    assert results("separate", "songs").exit_code == 0
    path = Path("results/manifest.csv")
    with path.open(newline="", encoding="utf8") as file:
        table = list(csv.DictReader(file))
    table[0][column] = value
    with path.open("w", newline="", encoding="utf8") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    before = files()
    done = results("separate", "songs", "--resume", "--mask-power", 2)
    assert done.exit_code == 2
    assert done.stderr.strip() == (
        'knownmf: "results/manifest.csv" is not a manifest that knownmf has written: choose another folder.'
    )
    assert files() == before


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such names")
def test_names_that_are_not_unicode(here):
    odd = os.fsdecode(b"songs/l\xe9.wav")
    Path("songs/a.wav").rename(odd)
    done = results("separate", "songs")
    assert done.exit_code == 0, done.stderr
    assert manifest()[r"l\udce9.wav"]["folder"] == "l_"
    assert "3 skipped" in results("separate", "songs", "--resume").stdout
    Path(odd).write_bytes(b"no recording")
    failed = results("separate", "songs", "--resume")
    assert failed.exit_code == 1
    assert "2 skipped, which were finished before, 1 failed" in failed.stdout
    assert r"l\udce9.wav" in manifest()[r"l\udce9.wav"]["message"]


@pytest.mark.skipif(sys.platform == "win32", reason="the lock is one of POSIX")
def test_two_commands_do_not_write_into_one_folder(here):
    """They would give the same folder to different recordings, and replace the rows of each other."""
    Path("results").mkdir()
    with sole_user(Path("results")):
        done = results("separate", "songs")
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.strip() == (
            'knownmf: "results": another knownmf command is writing into this folder: wait until it has ended.'
        )
        assert files("results") == []
    assert results("separate", "songs").exit_code == 0


def test_results_of_other_options_are_removed_after_a_kill_at_the_begin(here):
    """A process may be killed after the note that a recording was begun, before its earlier results were removed."""
    song = Path("songs/a.wav")
    assert results("separate", song, "--free", 1, "--resume").exit_code == 0
    assert "a/rest.wav" in files("results")
    manifest = Manifest(Path("results"))
    manifest.begin(manifest.new_row(song, "a", "other settings"))
    assert results("separate", song, "--resume").exit_code == 2
    assert results("separate", song, "--resume", "--force").exit_code == 0
    assert files("results") == ["a/high.wav", "a/low.wav", "manifest.csv"]


def test_the_progress_of_all_recordings_is_one(here):
    before = Path("tones.npz")
    job = Job("transcribe", Path("songs/a.wav"), before, Path("x/events.csv"), None, {})
    names = sorted(Path("songs").iterdir())
    calls = []
    list_of_jobs = jobs.jobs_in_folder(job, names, Path("x"), "events.csv")
    jobs.run_jobs(
        list_of_jobs,
        Path("x"),
        resume=False,
        workers=contextlib.nullcontext(),
        progress=lambda *call: calls.append(call),
        announce=str,
    )
    total = sum(path.stat().st_size for path in names)
    assert calls == sorted(calls)
    assert calls[0] == (0, total)
    assert calls[-1] == (total, total)
    assert len(set(calls)) > 4


def test_a_job_and_its_report_can_be_pickled(here):
    job = Job("decompose", Path("songs/a.wav"), Path("tones.npz"), Path("a.npz"), Path("a.png"), {"tol": 1e-3})
    report = pickle.loads(pickle.dumps(run_job))(pickle.loads(pickle.dumps(job)))
    assert Path("a.npz").exists()
    assert Path("a.png").exists()
    assert report == pickle.loads(pickle.dumps(report))
    assert report.values["frames"] == "94"


def test_zarr_folders_are_replaced_with_force_only(here):
    command = ("decompose", "songs/a.wav", *DECOMPOSE[2:-1], "a.zarr")
    assert run(*command).exit_code == 0
    assert "zarr.json" in files("a.zarr")
    assert run(*command).exit_code == 2
    assert run(*command, "--force").exit_code == 0
    assert not [name for name in files() if ".part" in name]
    Path("b.zarr").mkdir()
    done = run(*command[:-1], "b.zarr", "--force")
    assert (done.exit_code, done.stderr) == (2, 'knownmf: "b.zarr" is a folder: choose the name of a file.\n')


def test_lost_and_changed_results_are_made_again(here):
    assert results("separate", "songs").exit_code == 0
    before = files("results")
    assert len(rows(Path("results/manifest.csv"))) == 3
    Path("results/a/low.wav").unlink()
    Path("results/b/low.wav").write_bytes(b"cut")
    done = results("separate", "songs", "--resume")
    assert "2 recordings finished, 1 skipped" in done.stdout
    assert files("results") == before
    assert len(rows(Path("results/manifest.csv"))) == 3


def test_results_of_an_earlier_recording_do_not_stay_beside_a_failure(here):
    assert results("separate", "songs").exit_code == 0
    Path("songs/a.wav").write_bytes(b"no sound")
    assert results("separate", "songs", "--resume").exit_code == 1
    assert manifest()["a.wav"]["status"] == "failed"
    assert files("results") == ["b/high.wav", "b/low.wav", "c/high.wav", "c/low.wav", "manifest.csv"]


def test_notes_on_a_recording_are_in_the_manifest(here):
    sound = Path("songs/a.wav").read_bytes()
    Path("songs/a.wav").write_bytes(sound[: len(sound) // 2])
    done = results("separate", "songs")
    assert done.exit_code == 0
    message = manifest()["a.wav"]["message"]
    assert "songs/a.wav" in message
    assert message.split(":")[0] in done.stderr.replace("\n", " ")
    assert manifest()["c.wav"]["message"] == ""


def test_an_error_in_knownmf_does_not_stop_the_others_and_has_its_traceback(here, monkeypatch):
    write = recordings.RecordingWriter.write
    n_calls = []

    def wrong_once(writer, y):
        n_calls.append(1)
        if len(n_calls) == 1:
            raise AssertionError("a wrong assumption")
        write(writer, y)

    monkeypatch.setattr(recordings.RecordingWriter, "write", wrong_once)
    done = results("separate", "songs")
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    assert lines[0].startswith(
        "knownmf: songs/a.wav: an error in knownmf, please report it (AssertionError: a wrong ass"
    )
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == "AssertionError: a wrong assumption"
    assert files("results") == ["b/high.wav", "b/low.wav", "c/high.wav", "c/low.wav", "manifest.csv"]
    assert [row["status"] for row in manifest().values()] == ["failed", "finished", "finished"]


def test_recordings_and_results_can_be_moved_together(here):
    assert results("transcribe", "songs").exit_code == 0
    assert next(iter(manifest().values()))["recording"] == "../songs/a.wav"
    Path("moved").mkdir()
    for name in ("songs", "results", "tones.npz"):
        Path(name).rename(Path("moved") / name)
    done = run("transcribe", "moved/songs", "--dictionary", "moved/tones.npz", "--out", "moved/results", "--resume")
    assert "0 recordings finished, 3 skipped" in done.stdout


def test_results_of_another_command_are_kept(here):
    assert results("separate", "songs").exit_code == 0
    before = files("results")
    done = results("transcribe", "songs", "--resume")
    assert done.exit_code == 2
    assert '"results" has results of another command' in done.stderr
    assert files("results") == before


def test_results_in_a_folder_of_recordings_are_no_recordings(here):
    assert run("separate", "songs", "--dictionary", "tones.npz", "--out", "songs/stems").exit_code == 0
    done = results("transcribe", "songs")
    assert done.exit_code == 0
    assert done.stderr == (
        'Note: Skipped 6 sound files in "songs/stems", which has results of knownmf: pass the folder itself to process '
        "them.\n"
    )
    assert files("results") == ["a/events.csv", "b/events.csv", "c/events.csv", "manifest.csv"]
    assert "6 recordings finished" in run("transcribe", "songs/stems", "-d", "tones.npz", "--out", "more").stdout
    Path("outer").mkdir()
    Path("songs/stems").rename("outer/stems")
    done = results("transcribe", "outer", "--force")
    assert done.exit_code == 2
    assert "All sound files that were found are results of knownmf" in done.stderr


def test_a_package_that_is_missing_is_said_once(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    done = run("decompose", "songs", "--dictionary", "tones.npz", "--out", "new/x.zarr")
    assert done.exit_code == 1
    [line] = done.stderr.splitlines()
    assert 'pip install "knownmf[zarr]"' in line


def test_an_empty_manifest_and_a_recording_of_its_name(here):
    Path("songs/a.wav").rename("songs/manifest.csv.wav")
    Path("results").mkdir()
    Path("results/manifest.csv").touch()
    assert results("transcribe", "songs", "--resume").exit_code == 0
    assert manifest()["manifest.csv.wav"]["folder"] == "manifest.csv-2"
