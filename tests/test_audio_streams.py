"""Recordings that are processed in blocks: the results of whole arrays, with constant memory, from any kind of file."""

import contextlib
import errno
import io
import json
import os
import re
import tempfile
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import zarr

from commands import HOP, N_FFT, SR, TONES, spectrum, tone
from knownmf.audio import (
    Summary,
    activation_files,
    adaptation,
    decompose,
    decomposition,
    learn,
    overviews,
    read,
    recordings,
    separate,
    separation,
    spectrogram,
    spectrograms,
    transcribe,
)
from knownmf.dictionary import Dictionary
from knownmf.plots import decomposition_picture
from test_audio_recordings import without_length

RATE = 11025  # of the recordings: another one than that of the dictionary


@pytest.fixture(scope="module")
def tones():
    """The dictionary of two tones."""
    W = np.column_stack([spectrum("low"), spectrum("high"), 0.1 + spectrum("high")])
    return Dictionary(W, ["low", "high", "high"], sr=SR, n_fft=N_FFT, hop_length=HOP)


def melody(seconds, sr=RATE, seed=0):
    """A stereo recording of tones at random times, with a little noise."""
    rng = np.random.default_rng(seed)
    y = rng.normal(scale=0.003, size=(2, int(seconds * sr)))
    for onset in rng.uniform(0, seconds - 0.5, size=int(2 * seconds)):
        sound = rng.uniform(0.1, 0.5) * tone(rng.choice(list(TONES)), 0.4, sr)
        begin = int(onset * sr)
        y[:, begin : begin + len(sound)] += sound * rng.uniform(0.3, 1, size=(2, 1))
    return y / 4


@pytest.fixture
def song(tmp_path):
    """A file of some seconds, and its samples."""
    path = tmp_path / "song.wav"
    soundfile.write(path, melody(7).T, RATE, subtype="FLOAT")
    return path, read(path)[0]


@contextlib.contextmanager
def blocks_of(seconds, dictionary, rate, n_channels=2, n_stems=2):
    """Let recordings be processed in blocks of about so many seconds."""
    samples = dictionary.hop_length * rate / dictionary.sr
    n_bytes = (16 * n_channels + 8 * n_stems) * dictionary.n_bins + 8 * n_stems * n_channels * samples
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spectrograms, "STREAM_BYTES", seconds * rate / samples * n_bytes)
        yield


def test_results_do_not_depend_on_the_size_of_the_blocks(tones):
    y = melody(120)
    with blocks_of(1000, tones, RATE):
        whole = separate(y, RATE, tones)
        events = transcribe(y, RATE, tones).events
    assert len(events) > 100
    for seconds in (1, 10, 100):
        with blocks_of(seconds, tones, RATE):
            found = separate(y, RATE, tones)
            for label, stem in whole.stems.items():
                np.testing.assert_allclose(found.stems[label], stem, rtol=0, atol=1e-14)
            np.testing.assert_array_equal(found.decomposition.V, whole.decomposition.V)
            np.testing.assert_array_equal(found.decomposition.found.H, whole.decomposition.found.H)
            assert found.decomposition.explained == pytest.approx(whole.decomposition.explained, rel=1e-12)
            same = transcribe(y, RATE, tones).events
        for one, other in zip(same, events, strict=True):
            assert one.label == other.label
            np.testing.assert_allclose(
                (one.onset_s, one.offset_s, one.strength), (other.onset_s, other.offset_s, other.strength), rtol=1e-9
            )


@pytest.mark.parametrize("settings", [{"n_fft": 512, "hop_length": 512}, {"n_fft": 63, "hop_length": 50}])
@pytest.mark.parametrize("rate", [4000, SR, 48000])
def test_seams_are_nowhere_also_with_unusual_settings(settings, rate):
    W = np.random.default_rng(0).random((settings["n_fft"] // 2 + 1, 3))
    dictionary = Dictionary(W, ["a", "b", "b"], sr=SR, window="hamming", **settings)
    y = np.random.default_rng(1).normal(size=(3, 2 * rate + 7)) / 9
    with blocks_of(1000, dictionary, rate, 3):
        whole = separate(y, rate, dictionary)
    with blocks_of(0.3, dictionary, rate, 3):
        found = separate(y, rate, dictionary)
    for label, stem in whole.stems.items():
        np.testing.assert_allclose(found.stems[label], stem, rtol=0, atol=1e-13)
    np.testing.assert_allclose(sum(found.stems.values()), y, rtol=0, atol=1e-13)


def test_a_file_gives_what_its_samples_give(tones, song, tmp_path):
    path, y = song
    expected = separate(y, RATE, tones)
    written = separate(path, dictionary=tones, out=tmp_path / "new" / "stems")
    assert written.stems == {label: tmp_path / "new" / "stems" / f"{label}.wav" for label in TONES}
    assert (written.format, repr(written)) == ("WAV", "Separation(2 WAV files: 'low', 'high')")
    for label, stem in written.stems.items():
        np.testing.assert_array_equal(read(stem)[0], expected.stems[label].astype(np.float32))
    summary = written.decomposition
    assert isinstance(summary, Summary)
    assert (summary.n_samples, summary.sr, summary.n_channels) == (y.shape[1], RATE, 2)
    assert summary.explained == expected.decomposition.explained
    assert summary.n_frames == summary.n_converged == expected.decomposition.V.shape[1]
    np.testing.assert_array_equal(separate(str(path), dictionary=tones).stems["low"], expected.stems["low"])
    np.testing.assert_array_equal(decompose(path, None, tones).V, expected.decomposition.V)
    events = transcribe(y, RATE, tones).events
    assert transcribe(path, dictionary=tones).events == events
    assert transcribe(path, dictionary=tones, out=tmp_path / "events.csv").events == events
    assert len((tmp_path / "events.csv").read_text().splitlines()) == 1 + len(events)
    assert separate(y, RATE, tones, out=tmp_path / "of array").stems["high"].exists()


def test_activations_are_written_in_three_formats(tones, song, tmp_path):
    path, y = song
    expected = decompose(y, RATE, tones)
    for name in ("a.npz", "a.zarr", "a.csv"):
        with blocks_of(1, tones, RATE, 2, 0):
            summary = decompose(path, dictionary=tones, out=tmp_path / name)
        assert summary.explained == pytest.approx(expected.explained)
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        for stored in (archive, group):
            for name in ("H", "gap", "relative_gap", "kkt", "converged"):
                np.testing.assert_array_equal(stored[name][:], getattr(expected.found, name))
            np.testing.assert_array_equal(stored["times"][:], expected.times)
            np.testing.assert_array_equal(stored["W"][:], tones.W)
        settings = json.loads(str(archive["settings"]))
    assert settings == json.loads(group.attrs["settings"])
    assert (settings["explained"], settings["sr"]) == (summary.explained, SR)
    assert group.attrs["labels"] == list(tones.labels)
    table = np.loadtxt(tmp_path / "a.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(table[:, 1:].T, expected.found.H, rtol=1e-6)
    with pytest.raises(ValueError, match=r"a\.txt\" must end in \.npz, \.csv or \.zarr"):
        decompose(path, dictionary=tones, out=tmp_path / "a.txt")


@pytest.mark.parametrize("through_link", [False, True])
@pytest.mark.parametrize(
    ("job", "recording", "out"),
    [
        (separate, "stems/high.wav", "stems"),
        (transcribe, "song.csv", "song.csv"),
        (decompose, "song.npz", "song.npz"),
        (decompose, "a.zarr/song.wav", "a.zarr"),
    ],
)
def test_a_recording_is_never_replaced_by_its_results(
    tones, song, tmp_path, monkeypatch, job, recording, out, through_link
):
    path = tmp_path / "here" / recording
    path.parent.mkdir(parents=True)
    song[0].rename(path)
    before = path.read_bytes()
    (tmp_path / "there").symlink_to("here")
    monkeypatch.chdir(tmp_path)
    calls = []
    output = Path("there" if through_link else "here") / out
    with pytest.raises(ValueError, match=f'^out would replace the recording "{re.escape(str(path))}": choose another'):
        job(path, dictionary=tones, out=output, progress=lambda *done: calls.append(done))
    assert not calls
    assert path.read_bytes() == before
    assert [each for each in (tmp_path / "here").rglob("*") if each.is_file()] == [path]


@pytest.mark.parametrize("job", [separate, decompose, transcribe])
def test_one_recording_is_expected_at_a_time(tones, song, job):
    path = song[0]
    for several in ([str(path), "b.wav"], (path, path), np.array([str(path)])):
        message = f"y has names of files, the first of which is {str(path)!r}, expected one recording: call the func"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            job(several, dictionary=tones)
    with pytest.raises(IsADirectoryError, match="this is a folder, expected a recording: pass one file") as caught:
        job(path.parent, dictionary=tones)
    assert caught.value.filename == str(path.parent)


def test_results_next_to_the_recording_are_written(tones, song):
    folder = song[0].parent
    before = song[0].read_bytes()
    separate(song[0], dictionary=tones, out=folder)
    transcribe(song[0], dictionary=tones, out=folder / "song.csv")
    assert song[0].read_bytes() == before
    assert {"high.wav", "song.csv"} < {path.name for path in folder.iterdir()}


def test_chunks_of_a_zarr_array_are_appended(tones, song, tmp_path, monkeypatch):
    monkeypatch.setattr(activation_files, "CHUNK_FRAMES", 100)
    with blocks_of(0.3, tones, RATE, 2, 0):
        decompose(song[0], dictionary=tones, out=tmp_path / "a.zarr")
    H = zarr.open_group(tmp_path / "a.zarr", mode="r")["H"]
    assert H.chunks == (3, 100)
    np.testing.assert_array_equal(H[:], decompose(song[1], RATE, tones).found.H)


def test_an_archive_that_would_be_too_long_is_refused_before_the_work(tones, song, tmp_path, monkeypatch):
    n_frames = decompose(song[1], RATE, tones).V.shape[1]
    monkeypatch.setattr(activation_files, "LARGEST_NPZ", 8 * 3 * n_frames - 1)
    monkeypatch.setattr(decomposition, "BlockwiseDecomposition", None)
    with pytest.raises(ValueError, match=r'a\.npz" would have .* choose a name that ends in \.zarr or \.csv'):
        decompose(song[0], dictionary=tones, out=tmp_path / "a.npz")
    assert os.listdir(tmp_path) == ["song.wav"]


@pytest.mark.plain_library
@pytest.mark.parametrize("job", ["separate", "decompose", "transcribe"])
@pytest.mark.parametrize("options", [{}, {"free": 1}], ids=["known", "free"])
def test_the_memory_does_not_depend_on_the_length(tones, tmp_path, monkeypatch, job, options):
    if job == "transcribe" and options:
        pytest.skip("there is no such option")
    function = {"separate": separate, "decompose": decompose, "transcribe": transcribe}[job]
    monkeypatch.setattr(spectrograms, "STREAM_BYTES", 2**19)
    monkeypatch.setattr(overviews, "MOST_COLUMNS", 200)
    monkeypatch.setattr(adaptation, "LEARNING_BYTES", 2**19)
    monkeypatch.setattr(adaptation, "FRAMES_OF_UPDATE", 256)
    monkeypatch.setattr(adaptation, "PASSES", 5)
    peaks = []
    for seconds in (1, 12, 60):
        path = tmp_path / f"{seconds}.flac"
        soundfile.write(path, np.tile(melody(5), seconds // 5 + 1).T[: seconds * RATE], RATE)
        tracemalloc.start()
        try:
            function(path, dictionary=tones, out=tmp_path / (f"{job}.csv" if job != "separate" else job), **options)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    # Five times as long; a longer recording has more events, and fills the overview. Threads move the peaks by a third.
    assert peaks[2] < 2 * peaks[1]


def test_long_recordings_are_written_as_rf64(tones, song, tmp_path, monkeypatch):
    n_bytes = 4 * song[1].size
    monkeypatch.setattr(recordings, "_LARGEST_WAV", n_bytes + 2**20)
    assert separate(song[0], dictionary=tones, out=tmp_path / "a").format == "RF64"
    monkeypatch.setattr(recordings, "_LARGEST_WAV", n_bytes + 2**20 + 1)
    assert separate(song[0], dictionary=tones, out=tmp_path / "b").format == "WAV"
    for folder, format_name in (("a", "RF64"), ("b", "WAV")):
        assert soundfile.info(tmp_path / folder / "low.wav").format == format_name
    np.testing.assert_array_equal(read(tmp_path / "a" / "low.wav")[0], read(tmp_path / "b" / "low.wav")[0])


def test_a_recording_without_a_length_is_read_to_its_end(tones, song, tmp_path):
    path = tmp_path / "streamed.flac"
    soundfile.write(path, song[1].T, RATE)
    expected = separate(path, dictionary=tones).stems["low"]
    path.write_bytes(without_length(path.read_bytes()))
    calls = []
    found = separate(path, dictionary=tones, out=tmp_path / "stems", progress=lambda *call: calls.append(call))
    assert found.format == "RF64"  # how long the stems become was not known
    np.testing.assert_array_equal(read(found.stems["low"])[0], expected.astype(np.float32))
    n_frames = found.decomposition.n_frames
    assert calls[-1] == (n_frames, n_frames)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_read_as_often_as_needed(tones, song, tmp_path):
    import threading

    os.mkfifo(tmp_path / "pipe.wav")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe.wav").write_bytes(song[0].read_bytes()))
    writer.start()
    found = decompose(tmp_path / "pipe.wav", dictionary=tones, free=1)
    writer.join()
    np.testing.assert_array_equal(found.V, decompose(song[1], RATE, tones).V)


@pytest.mark.parametrize("options", [{}, {"free": 1}])
def test_a_file_that_is_cut_off_is_named_once(tones, song, tmp_path, options):
    content = song[0].read_bytes()
    song[0].write_bytes(content[: len(content) // 2])
    with pytest.warns(UserWarning, match=r"song\.wav\" ends after 3\.\d\d s, but its header states 7\.00 s") as caught:
        found = separate(song[0], dictionary=tones, out=tmp_path / "stems", **options)
    assert len([one for one in caught if "truncated" in str(one.message)]) == 1
    n_left = (len(content) // 2 - (len(content) - 8 * song[1].shape[1])) // 8  # all but the header
    assert read(found.stems["low"])[0].shape[1] == found.decomposition.n_samples == n_left


class FailingFile(io.BytesIO):
    """A file on a disk that fails in the middle."""

    def readinto(self, buffer):
        if self.tell() > 100_000:
            raise OSError(5, "Input/output error")
        return super().readinto(buffer)


@pytest.mark.parametrize("limit", [50, 300])
@pytest.mark.parametrize(
    ("job", "out", "named"),
    [
        (separate, "new/stems", r"new/stems/(low|high)\.wav"),
        (decompose, "new/a.npz", r"new/a\.npz"),
        (decompose, "new/a.csv", r"new/a\.csv"),
        (decompose, "new/a.zarr", r"new/a\.zarr"),
        (transcribe, "new/e.csv", r"new/e\.csv"),
    ],
)
def test_a_full_disk_is_named(tones, song, tmp_path, monkeypatch, job, out, named, limit):
    resource = pytest.importorskip("resource")  # POSIX; a limit on the size of files stands in for the disk
    monkeypatch.chdir(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OSError) as caught:
            job(song[0], dictionary=tones, out=out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert re.fullmatch(named, caught.value.filename)
    assert list(tmp_path.iterdir()) == [song[0]]


def test_a_full_folder_for_temporary_files_is_named(tones, song, monkeypatch):
    """What cannot be read twice is copied into it."""

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(recordings.shutil, "copyfileobj", full)
    pipe, end = os.pipe()
    with open(pipe, "rb"), open(end, "wb") as file:
        file.write(song[0].read_bytes()[:1000])
        file.flush()
        with pytest.raises(OSError) as caught:
            decompose(f"/dev/fd/{pipe}", dictionary=tones)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, tempfile.gettempdir())


def test_a_file_that_becomes_too_long_has_its_final_name_in_the_message(tones, song, tmp_path, monkeypatch):
    monkeypatch.setattr(recordings, "_LARGEST_WAV", 2**17)
    monkeypatch.setattr(separation, "wav_format", lambda recording: "WAV")
    with pytest.raises(ValueError, match=f'^"{re.escape(str(tmp_path))}/stems/(low|high)\\.wav": the file would have'):
        separate(song[0], dictionary=tones, out=tmp_path / "stems")


def test_a_disk_error_is_not_the_end_of_the_recording(tones, song, tmp_path, monkeypatch):
    content = song[0].read_bytes()
    monkeypatch.setattr(recordings, "_rereadable", lambda path: contextlib.nullcontext(FailingFile(content)))
    before = sorted(tmp_path.iterdir())
    for job, out in ((separate, "stems"), (decompose, "a.npz"), (decompose, "a.zarr"), (transcribe, "e.csv")):
        with pytest.raises(OSError, match="Input/output error") as caught:
            job(song[0], dictionary=tones, out=tmp_path / "new" / out)
        assert caught.value.filename == str(song[0])
    assert sorted(tmp_path.iterdir()) == before


def test_samples_that_are_not_finite_are_placed(tones, tmp_path):
    y = melody(7)
    y[1, 5 * RATE] = np.nan
    soundfile.write(tmp_path / "nan.wav", y.T, RATE, subtype="FLOAT")
    with (
        blocks_of(1, tones, RATE, 2, 0),
        pytest.raises(
            ValueError, match=r"nan\.wav\", from [45]\.\d s on, has 1 sample that is infinite or not a number"
        ),
    ):
        decompose(tmp_path / "nan.wav", dictionary=tones, out=tmp_path / "a.csv")
    assert os.listdir(tmp_path) == ["nan.wav"]


# Components that are learned


def with_a_whistle(seconds):
    """Tones, and a third one that the dictionary does not have."""
    y = melody(seconds)
    time = np.arange(y.shape[1]) / RATE
    return y + 0.1 * np.sin(2 * np.pi * 1234 * time) * (time % 2 < 1)


@pytest.mark.parametrize("options", [{"free": 2}, {"adapt": 0.4}, {"free": 1, "adapt": 0.2}], ids=str)
@pytest.mark.parametrize("beta_loss", ["kullback-leibler", "frobenius", "itakura-saito"])
def test_components_of_long_recordings_are_learned_from_blocks(tones, monkeypatch, options, beta_loss):
    y = with_a_whistle(30)
    options = {**options, "beta_loss": beta_loss, "tol": 1e-3}
    at_once = decompose(y, RATE, tones, **options)
    monkeypatch.setattr(adaptation, "LEARNING_BYTES", 2**19)
    monkeypatch.setattr(adaptation, "FRAMES_OF_UPDATE", 128)
    in_blocks = decompose(y, RATE, tones, **options)
    # The components that explain the recording nearly as well as those that are learned from all frames at once.
    assert in_blocks.found.objective.sum() < 1.1 * at_once.found.objective.sum()
    assert in_blocks.explained > at_once.explained - 0.01
    if not options.get("adapt"):
        np.testing.assert_array_equal(in_blocks.dictionary.W[:, :3], tones.W)
    with blocks_of(2, tones, RATE, 2, 0):
        other = decompose(y, RATE, tones, **options)
        np.testing.assert_allclose(other.dictionary.W, in_blocks.dictionary.W, rtol=1e-6, atol=1e-9)


def test_a_sound_between_the_frames_of_the_start_is_learned(tones, monkeypatch):
    """Only the passes over all frames can find it."""
    y = melody(60)
    time = np.arange(y.shape[1]) / RATE
    y = y + 0.3 * np.sin(2 * np.pi * 1234 * time) * (np.abs(time - 40.0) < 2.0)
    monkeypatch.setattr(adaptation, "LEARNING_BYTES", 8 * (N_FFT // 2 + 1) * 16)  # 16 frames or fewer
    monkeypatch.setattr(adaptation, "FRAMES_OF_UPDATE", 64)
    found = decompose(y, RATE, tones, free=1, tol=1e-3)
    assert abs(tones.frequencies[found.dictionary.W[:, 3].argmax()] - 1234) < SR / N_FFT


# The overview for pictures


@pytest.mark.parametrize("n_frames", [1, 200, 201, 399, 1000, 12_345])
@pytest.mark.parametrize("block", [1, 7, 64, 100_000])
def test_an_overview_has_the_maximum_of_equally_many_frames(tones, monkeypatch, n_frames, block):
    if n_frames > 1000 and block == 1:
        pytest.skip("slow")
    monkeypatch.setattr(overviews, "MOST_COLUMNS", 200)
    rng = np.random.default_rng(0)
    V, H, criterion = rng.random((tones.n_bins, n_frames)), rng.random((3, n_frames)), rng.random(n_frames)
    builder = overviews.OverviewBuilder(tones)

    class Found:
        pass

    for begin in range(0, n_frames, block):
        part = slice(begin, begin + block)
        found = Found()
        found.H, found.criterion = H[:, part], criterion[part]
        builder.add(V[:, part], found)
    overview = builder.overview()
    group = overview.frames_per_column
    assert group == max(1, 2 ** int(np.ceil(np.log2(n_frames / 200)))) or overview.V.shape[1] <= 201
    starts = np.arange(0, n_frames, group)
    np.testing.assert_array_equal(overview.V, np.maximum.reduceat(V, starts, axis=1))
    np.testing.assert_array_equal(overview.criterion, np.maximum.reduceat(criterion, starts))
    weight = tones.W.sum(axis=0)[:, np.newaxis] * H
    np.testing.assert_allclose(overview.strength[0], np.maximum.reduceat(weight[0], starts))
    np.testing.assert_allclose(overview.strength[1], np.maximum.reduceat(weight[1] + weight[2], starts))


def test_a_summary_is_drawn_as_its_decomposition_is(tones, song, tmp_path):
    whole = decompose(song[1], RATE, tones)
    summary = decompose(song[0], dictionary=tones, out=tmp_path / "a.csv")
    pictures = []
    for decomposed in (whole, summary):
        picture = io.BytesIO()
        decomposition_picture(decomposed).savefig(picture, format="png", metadata={"Software": None})
        pictures.append(picture.getvalue())
    assert pictures[0] == pictures[1]


def test_frames_that_miss_the_tolerance_are_counted_over_all_blocks(tones, song):
    with blocks_of(0.5, tones, RATE, 2, 0), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = decompose(song[1], RATE, tones, tol=1e-300).found
    missed = np.flatnonzero(~found.converged)
    worst = missed[found.relative_gap[missed].argmax()]
    (message,) = (str(one.message) for one in caught)
    assert message.startswith(
        f"{len(missed)} of {len(found.converged)} frames missed tol=1e-300; the worst is frame {worst} with"
    )


def test_one_bin_that_dominates_is_named_once(tones):
    y = np.sin(2 * np.pi * 1000 * np.arange(20 * SR) / SR)
    W = np.full((N_FFT // 2 + 1, 1), 1e-9)
    W[64] = 1.0
    pure = Dictionary(W, ["tone"], sr=SR, n_fft=N_FFT, hop_length=HOP, window="flattop", power=8.0)
    with blocks_of(2, pure, SR, 1, 0), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decompose(y, SR, pure)
    assert ["In most frames one value" in str(one.message) for one in caught] in ([True], [])


def test_spectrograms_are_computed_in_blocks_too(tones):
    y = melody(20)
    whole = spectrogram(y, tones)
    with blocks_of(0.5, tones, SR, 2, 0):
        np.testing.assert_array_equal(spectrogram(y, tones), whole)
    sounds = {label: [(tone(label, 0.5), SR)] for label in TONES}
    dictionary = learn(sounds, n_fft=N_FFT)
    with blocks_of(0.1, tones, SR, 1, 0):
        np.testing.assert_array_equal(learn(sounds, n_fft=N_FFT).W, dictionary.W)
