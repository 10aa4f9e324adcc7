"""Work on whole items in other processes, and the commands that use it: --workers and --scheduler."""

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile

from commands import SR, files, rows, run, tone, write_songs
from knownmf import get_num_threads, workers
from knownmf.workers import Lost, Share, Workers

pytestmark = pytest.mark.filterwarnings("ignore:Port .* is already in use", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def two():
    """Two processes, which all tests share."""
    pytest.importorskip("distributed")
    with Workers(2) as opened:
        yield opened


def results(events):
    """Return the results among events, by the numbers of their items."""
    return {index: event for index, event in events if not isinstance(event, Share)}


def note(folder, item, what):
    """Leave a file that says what was done with an item, and count how often."""
    number = len(list(folder.glob(f"{item}.{what}.*")))
    (folder / f"{item}.{what}.{number}").touch()
    return number


def squared(item, progress):
    progress(1, 2)
    return item**2, os.getpid(), get_num_threads()


def killed_once(folder, item, progress):
    """End the process of the worker at once, the first time that it gets the item 1."""
    if note(folder, item, "begun") == 0 and item == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def always_killed(folder, item, progress):
    if item == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def endless(folder, item, progress):
    """Work without an end, until it is no longer wanted."""
    note(folder, item, "begun")
    try:
        while True:
            progress(1, 2)
            time.sleep(0.05)
    finally:
        note(folder, item, "ended")


def test_items_are_done_in_other_processes(two):
    found = results(two.run(squared, range(8)))
    assert {index: result[0] for index, result in found.items()} == {index: index**2 for index in range(8)}
    processes = {result[1] for result in found.values()}
    assert len(processes) == len(two) == 2
    assert os.getpid() not in processes


def test_processes_share_the_processors(two, monkeypatch):
    monkeypatch.setattr(two, "_n_threads", 3)
    assert {result[2] for result in results(two.run(squared, range(4))).values()} == {3}
    monkeypatch.setattr(workers, "n_processors", lambda: 7)
    with Workers(3) as three:
        assert three._n_threads == 2


def test_shares_come_before_results(two):
    events = list(two.run(squared, [5]))
    assert isinstance(events[0][1], Share)
    assert events[0][1].value == 0.0
    assert events[-1][1][0] == 25


def test_a_worker_that_is_killed_loses_its_own_item_only(two, tmp_path):
    assert results(two.run(partial(killed_once, tmp_path), range(6))) == {index: index for index in range(6)}
    times = [len(list(tmp_path.glob(f"{index}.begun.*"))) for index in range(6)]
    assert times == [1, 2, 1, 1, 1, 1]


def test_an_item_that_kills_every_worker_is_lost(two):
    found = results(two.run(partial(always_killed, None), range(4)))
    assert found == {0: 0, 1: Lost(4), 2: 2, 3: 3}


def slow(seconds, progress):
    """Take so many seconds; end the process of the worker after 0 s."""
    progress(0, 1)
    time.sleep(seconds or 0.2)
    if not seconds:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


@pytest.fixture
def cluster():
    """A cluster of one worker with several threads."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(1, threads_per_worker=4, dashboard_address="127.0.0.1:0", silence_logs=50) as opened:
        yield opened


@pytest.mark.filterwarnings("ignore:The cluster at .* has no workers")
def test_an_item_that_kills_a_worker_with_many_threads_is_lost_alone(cluster):
    with Workers(scheduler=cluster.scheduler_address) as opened:
        found = results(opened.run(slow, [0, 0.2, 0.2, 0.2]))
    assert [index for index, result in found.items() if isinstance(result, Lost)] == [0]
    assert len(found) == 4


def test_a_worker_that_joins_late_gets_items(cluster):
    processes, n_workers = set(), 1
    with Workers(scheduler=cluster.scheduler_address) as opened:
        for _, event in opened.run(slow, [2.0] * 4):  # as many as threads
            if n_workers == 1:
                n_workers = 2
                cluster.scale(2)
            elif not isinstance(event, Share):
                processes.add(event)
    assert len(processes) == 2


def test_a_scheduler_that_is_gone_is_an_error(cluster, monkeypatch):
    monkeypatch.setattr(workers, "CONNECTING_TIME", 1.0)
    with Workers(scheduler=cluster.scheduler_address) as opened:
        events = opened.run(slow, [1.0] * 4)
        next(events)
        cluster.close()
        with pytest.raises(ConnectionError, match=r"the connection to the scheduler at tcp://.* was lost"):
            list(events)


def test_an_interrupt_ends_the_work(two, tmp_path):
    events = two.run(partial(endless, tmp_path), range(3))
    begun = set()
    while len(begun) < 2:
        begun.add(str(next(events)[0]))
    events.close()
    assert {path.name.split(".")[0] for path in tmp_path.glob("*.begun.*")} == begun
    assert {path.name.split(".")[0] for path in tmp_path.glob("*.ended.*")} == begun
    assert results(two.run(squared, [3]))[0][0] == 9


def test_another_version_on_a_worker_is_an_error(two, monkeypatch):
    monkeypatch.setattr(workers, "version", lambda package: "0.0.1")
    with pytest.raises(ConnectionError, match=r"the worker at tcp://.* has knownmf .*, which is not .* here, 0.0.1"):
        results(two.run(squared, range(2)))


@pytest.mark.filterwarnings("always:The cluster at")
def test_a_cluster_without_workers_is_said():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=0, processes=False, protocol="tcp", dashboard_address=":0") as cluster,
        Workers(scheduler=cluster.scheduler_address) as none,
    ):
        threading.Timer(1.0, cluster.scale, [1]).start()
        with pytest.warns(UserWarning, match=r"The cluster at .* has no workers: the work goes on when there are some"):
            found = results(none.run(squared, [3]))
    assert found[0][0] == 9


# ---- The commands


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return the working folder, with three recordings in it."""
    monkeypatch.chdir(tmp_path)
    write_songs(tmp_path)
    return tmp_path


def command(verb, *arguments, out="results"):
    return run(verb, *arguments, "--dictionary", "tones.npz", "--out", out)


def test_the_stems_are_those_of_one_process(here, two):
    assert command("separate", "songs", out="here").exit_code == 0
    done = command("separate", "songs", "--scheduler", two.address)
    assert done.exit_code == 0, done.stderr
    assert files("results") == files("here")
    for name in files("here"):
        if name.endswith(".wav"):
            np.testing.assert_array_equal(soundfile.read(f"here/{name}")[0], soundfile.read(f"results/{name}")[0])
    assert {row["status"] for row in rows(Path("results/manifest.csv"))} == {"finished"}
    assert "0 recordings finished, 3 skipped" in command("separate", "songs", "--resume", "--workers", "1").stdout


def test_a_bad_recording_does_not_stop_the_others(here, two):
    Path("songs/b.flac").write_bytes(b"no sound")
    done = command("transcribe", "songs", "songs/none.wav", "--scheduler", two.address)
    assert done.exit_code == 1
    assert "b.flac" in done.stderr
    assert "none.wav" in done.stderr
    assert done.stdout.splitlines()[-1].startswith("2 recordings finished, 2 failed. ")
    assert files("results") == ["a/events.csv", "c/events.csv", "manifest.csv"]
    messages = {Path(row["recording"]).name: row["message"] for row in rows(Path("results/manifest.csv"))}
    assert "is not a recording" in messages["b.flac"]


def test_one_recording_gets_a_folder_too(here, two):
    done = command("decompose", "songs/a.wav", "--scheduler", two.address)
    assert done.exit_code == 0, done.stderr
    assert files("results") == ["a/activations.npz", "manifest.csv"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "2", "--scheduler", "tcp://127.0.0.1:1"], "--workers and --scheduler exclude each other"),
        (["--scheduler", "tcp://127.0.0.1:1"], "--scheduler tcp://127.0.0.1:1: Timed out"),
        (["--scheduler", "nonsense"], "--scheduler nonsense: missing port number"),
        (["--scheduler", "http://127.0.0.1:1"], "--scheduler http://127.0.0.1:1: unknown address scheme"),
        (["--workers", "0"], "--workers"),
    ],
)
def test_what_cannot_be_opened_is_said_before_anything_is_written(here, monkeypatch, arguments, message):
    monkeypatch.setattr(workers, "CONNECTING_TIME", 0.5)
    done = command("separate", "songs", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not Path("results").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="the process is ended with POSIX signals")
@pytest.mark.parametrize(("what", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, 0)])
def test_signals(here, what, code):
    """Ctrl-C for all processes and SIGTERM for the first end the command; a worker that is killed does not."""
    for name in ("a.wav", "c.wav"):
        soundfile.write(f"songs/{name}", np.tile(tone("low"), 200), SR)
    program = "from knownmf.cli import main; main()"
    arguments = ["separate", "songs", "-d", "tones.npz", "--out", "results", "--workers", "2"]
    started = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not list(Path("results").glob("?/.*.part")):
        assert started.poll() is None
        time.sleep(0.02)
    if what == signal.SIGINT:
        os.killpg(started.pid, what)
    elif what == signal.SIGTERM:
        os.kill(started.pid, what)
    else:
        children = psutil.Process(started.pid).children()
        os.kill(next(child.pid for child in children if "spawn_main" in " ".join(child.cmdline())), what)
    _, errors = started.communicate(timeout=60)
    assert started.returncode == code
    assert errors == ("" if code == 0 else "knownmf: stopped; incomplete files have been removed.\n")
    assert not list(Path("results").glob("**/.*"))
    if code == 0:
        assert {row["status"] for row in rows(Path("results/manifest.csv"))} == {"finished"}
