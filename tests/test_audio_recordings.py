"""Files to samples and back, spectrograms, and a recording as a sum of components."""

import contextlib
import signal
import struct
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import scipy.io.wavfile
import soundfile

from knownmf import demo
from knownmf.audio import decompose, learn, read, separate, spectrogram, transcribe, write
from knownmf.audio.recordings import describe
from knownmf.audio.samples import as_channels, resampled
from knownmf.dictionary import Dictionary

SR = 22050


@pytest.fixture
def noise():
    return np.random.default_rng(0).uniform(-0.5, 0.5, size=(2, 9000))


def flat(n_components=1, **settings):
    settings = {"sr": SR, "n_fft": 2048, "hop_length": 512} | settings
    labels = [f"sound {i}" for i in range(n_components)]
    W = np.random.default_rng(1).random((settings["n_fft"] // 2 + 1, n_components))
    return Dictionary(W, labels, **settings)


@pytest.mark.parametrize(
    ("suffix", "subtype", "error"),
    [("wav", None, 1e-7), ("wav", "PCM_16", 4e-5), ("flac", None, 2e-7), ("aif", "PCM_24", 2e-7), ("WAV", "DOUBLE", 0)],
)
def test_what_is_written_is_read(tmp_path, noise, suffix, subtype, error):
    path = tmp_path / f"noise.{suffix}"
    write(path, noise, SR, subtype)
    y, sr = read(path)
    assert (y.shape, y.dtype, sr) == (noise.shape, np.float64, SR)
    np.testing.assert_allclose(y, noise, atol=error)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", ["ogg", "mp3"])
def test_lossy_formats_are_read(tmp_path, suffix):
    tone = np.sin(2 * np.pi * 440 * np.arange(SR) / SR) / 2
    soundfile.write(tmp_path / f"tone.{suffix}", tone, SR)
    y, sr = read(str(tmp_path / f"tone.{suffix}"))
    assert sr == SR
    assert len(y) == 1
    assert y.shape[1] >= SR
    spectrum = np.abs(np.fft.rfft(y[0, :SR]))
    assert spectrum.argmax() == 440


def test_one_channel_is_still_two_dimensional(tmp_path):
    write(tmp_path / "a.wav", np.zeros(5), 8000)
    assert read(tmp_path / "a.wav")[0].shape == (1, 5)


def test_wav_holds_more_than_full_scale_and_whole_numbers_refuse(tmp_path):
    loud = np.array([[0.5, -1.5]])
    write(tmp_path / "a.wav", loud, 8000)
    np.testing.assert_array_equal(read(tmp_path / "a.wav")[0], loud)
    with pytest.raises(ValueError, match=r"a\.flac.*1\.5 times full scale and PCM_24 would clip"):
        write(tmp_path / "a.flac", loud, 8000)
    assert not (tmp_path / "a.flac").exists()


def test_unknown_formats_and_subtypes(tmp_path):
    with pytest.raises(ValueError, match=r"a\.txt.*does not name a known format"):
        write(tmp_path / "a.txt", np.zeros(5), 8000)
    with pytest.raises(ValueError, match=r"FLAC files cannot store FLOAT: choose one of .*PCM_24"):
        write(tmp_path / "a.flac", np.zeros(5), 8000, "FLOAT")


@pytest.mark.parametrize(("n_channels", "sr"), [(10, 8000), (1, 2_000_000), (1, 2**40)])
def test_what_a_format_cannot_hold(tmp_path, n_channels, sr):
    with pytest.raises(ValueError, match=rf"a\.flac.*cannot store {n_channels} channels? at {sr} Hz"):
        write(tmp_path / "a.flac", np.zeros((n_channels, 50)), sr)
    assert not list(tmp_path.iterdir())


@contextlib.contextmanager
def ctrl_c_at(callback):
    """Send an interrupt when libsndfile first calls back into Python by this name."""
    sent = []

    def watch(frame, event, argument):
        if event == "call" and frame.f_code.co_name == callback and not sent:
            sent.append(callback)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        signal.signal(signal.SIGINT, before)
        assert sent


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals for threads")
def test_an_interrupt_is_not_lost_in_libsndfile(tmp_path, noise):
    soundfile.write(tmp_path / "noise.mp3", noise.T, SR)
    with pytest.raises(KeyboardInterrupt), ctrl_c_at("vio_read"):
        read(tmp_path / "noise.mp3")
    with pytest.raises(KeyboardInterrupt), ctrl_c_at("vio_write"):
        write(tmp_path / "noise.flac", noise, SR)
    assert [path.name for path in tmp_path.iterdir()] == ["noise.mp3"]


def test_a_full_disk_is_an_ordinary_error_and_leaves_nothing(tmp_path, noise):
    resource = pytest.importorskip("resource")  # POSIX; a limit on the size of files stands in for the disk
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write(tmp_path / "noise.wav", noise, SR)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that opens but cannot be read")
def test_a_broken_disk_is_not_a_broken_recording():
    with pytest.raises(OSError, match="Input/output error"):
        read("/proc/self/mem")


def test_a_recording_that_breaks_off_is_used_and_said(tmp_path, noise):
    whole, cut = tmp_path / "whole.mp3", tmp_path / "cut.mp3"
    soundfile.write(whole, np.tile(noise, 10).T, SR)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert read(whole)[0].shape[1] == 90000
    with pytest.warns(UserWarning, match=r"cut\.mp3.*ends after [12]\.\d\d s, but its header states 4\.08 s"):
        y, _ = read(cut)
    assert 30000 < y.shape[1] < 60000


# File endings, with the arguments of soundfile.write that they need. All formats but the last three are lossless.
FORMATS = {
    "wav": {"subtype": "PCM_16"},
    "wavex": {"format": "WAVEX", "subtype": "PCM_24"},
    "rf64": {"format": "RF64", "subtype": "FLOAT"},
    "w64": {"format": "W64", "subtype": "FLOAT"},
    "aiff": {"subtype": "PCM_16"},
    "au": {"subtype": "PCM_16"},
    "caf": {"format": "CAF", "subtype": "PCM_16"},
    "flac": {"subtype": "PCM_16"},
    "ogg": {"subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {},
}


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_file_that_is_cut_off_is_read_up_to_there_with_one_warning(tmp_path, noise, ending, share):
    whole, cut = tmp_path / f"whole.{ending}", tmp_path / f"cut.{ending}"
    sr = 48000 if ending == "opus" else SR
    soundfile.write(whole, np.tile(noise, 20).T, sr, **FORMATS[ending])
    content = whole.read_bytes()
    cut.write_bytes(content[: int(share * len(content))])
    y, _ = read(whole)  # without a warning
    with pytest.warns(UserWarning, match=rf'^"[^"]*cut\.{ending}" ends after .* truncated or damaged') as caught:
        start, _ = read(cut)
    assert len(caught) == 1
    n_start = start.shape[1]
    # The pages of Opus are about a second long. A page that is cut is lost.
    assert share - (0.3 if ending == "opus" else 0.15) < n_start / y.shape[1] < share + 0.02
    np.testing.assert_allclose(start[:, :-2000], y[:, : n_start - 2000], atol=0 if ending != "mp3" else 0.01)
    if ending not in ("ogg", "opus"):  # there, no header states the length
        assert f"but its header states {y.shape[1] / sr:.2f} s" in str(caught[0].message)
    with pytest.warns(UserWarning, match="truncated or damaged"):
        assert describe(cut).n_samples == n_start
    found = describe(whole)
    assert (found.n_samples, found.n_channels, found.sr) == (y.shape[1], 2, sr)


def change_size(content, after, skipped, size_format, value):
    """Change the size that follows `after` and `skipped` bytes in a file."""
    content = bytearray(content)
    struct.pack_into(size_format, content, content.index(after) + len(after) + skipped, value)
    return bytes(content)


@pytest.mark.parametrize(
    ("ending", "after", "skipped", "size_format", "values"),
    [
        # Other programs than ffmpeg, which writes 0xFFFFFFFF, write other sizes when they write to a pipe.
        ("wav", b"data", 0, "<I", (0, 0xFFFFFFFF, 0xFFFFFFDB, 0x7FFFFFFF, 0x7FFFF000, 0x80000000)),
        ("rf64", b"ds64", 12, "<Q", (0, 2**64 - 1)),
        ("w64", b"data\xf3\xac\xd3\x11", 8, "<Q", (0, 24, 2**63 - 1, 2**64 - 1)),
        ("aiff", b"SSND", 0, ">I", (0, 8, 0xFFFFFFFF, 0x7F000008)),
        ("au", b".snd", 4, ">I", (0, 0xFFFFFFFF)),
        ("caf", b"data", 0, ">Q", (2**64 - 1,)),
    ],
)
@pytest.mark.parametrize("riff_size", [None, 0, 0xFFFFFFFF])
def test_a_header_need_not_state_the_length(tmp_path, noise, ending, after, skipped, size_format, values, riff_size):
    path = tmp_path / f"streamed.{ending}"
    soundfile.write(path, noise.T, SR, **FORMATS[ending])
    content, (y, _) = path.read_bytes(), read(path)
    for value in values:
        streamed = change_size(content, after, skipped, size_format, value)
        if ending == "wav" and riff_size is not None:
            streamed = change_size(streamed, b"RIFF", 0, "<I", riff_size)
        path.write_bytes(streamed)
        np.testing.assert_array_equal(read(path)[0], y)  # a warning would be an error
        assert describe(path).n_samples == 9000


def without_length(content):
    """Set the number of samples in the header of a FLAC file to 0, which means that it is unknown (RFC 9639)."""
    content = bytearray(content)
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    return bytes(content)


def test_a_flac_file_need_not_state_its_length(tmp_path, noise):
    path = tmp_path / "streamed.flac"
    soundfile.write(path, np.tile(noise, 20).T, SR)
    y, _ = read(path)
    streamed = without_length(path.read_bytes())
    path.write_bytes(streamed)
    np.testing.assert_array_equal(read(path)[0], y)
    assert describe(path).n_samples == 180000
    path.write_bytes(streamed[: len(streamed) // 2])
    with pytest.warns(UserWarning, match=r"streamed\.flac.* ends after \d\.\d\d s: the file is truncated"):
        start, _ = read(path)
    assert 80000 < start.shape[1] < 100000
    np.testing.assert_array_equal(start, y[:, : start.shape[1]])


def test_a_flac_file_that_is_damaged_in_the_middle_is_read_up_to_there(tmp_path, noise):
    path = tmp_path / "damaged.flac"
    soundfile.write(path, np.tile(noise, 20).T, SR)
    y, _ = read(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"ends after [34]\.\d\d s, but its header states 8\.16 s"):
        start, _ = read(path)
    np.testing.assert_array_equal(start, y[:, : start.shape[1]])


def test_chunks_after_the_samples_are_no_samples(tmp_path, noise):
    path = tmp_path / "a.wav"
    text = b"LIST" + struct.pack("<I", 6) + b"adtl\0\0"
    soundfile.write(path, noise.T, SR)
    path.write_bytes(path.read_bytes() + text)
    assert read(path)[0].shape[1] == 9000
    soundfile.write(path, noise[:, :0].T, SR)
    path.write_bytes(path.read_bytes() + text)
    with pytest.raises(ValueError, match=r"a\.wav.*empty"):
        read(path)


@pytest.mark.parametrize("ending", FORMATS)
def test_a_file_that_ends_within_its_header_is_refused_and_named(tmp_path, noise, ending, capfd):
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, noise.T, 48000, **FORMATS[ending])
    content = path.read_bytes()
    for cut in range(0, {"au": 24, "wav": 44}.get(ending, 60), 3):
        path.write_bytes(content[:cut])
        with pytest.raises(ValueError, match=rf"a\.{ending}"):
            read(path)
    if ending != "mp3":  # libmpg123 writes notes
        assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("sr", [1, 99, 10_000_001, 2**31 - 1])
def test_a_file_with_an_absurd_sample_rate_is_refused_and_named(tmp_path, sr):
    soundfile.write(tmp_path / "a.wav", np.ones(20), sr)
    for look in (read, describe):
        with pytest.raises(ValueError, match=rf"a\.wav.* has a sample rate of {sr} Hz, expected 100 to 10000000 Hz"):
            look(tmp_path / "a.wav")


def test_a_recording_that_does_not_fit_into_memory_is_refused_and_named(tmp_path, noise, monkeypatch):
    soundfile.write(tmp_path / "a.flac", noise.T, SR)
    monkeypatch.setattr("knownmf.memory.available_memory", lambda: 2**26)
    with pytest.raises(MemoryError, match=r'the next part of ".*a\.flac" needs about 128 MiB'):
        read(tmp_path / "a.flac")


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.wav"):
        read(tmp_path / "none.wav")
    with pytest.raises(IsADirectoryError, match="this is a folder, expected a recording: pass one file at a time"):
        read(tmp_path)
    for name, content in (("text.wav", b"not a sound"), ("text.mp3", b"no sound either")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}.*not a recording that can be read") as caught:
            read(tmp_path / name)
        assert "<" not in str(caught.value)
    (tmp_path / "empty.wav").touch()
    with pytest.raises(ValueError, match=r'empty\.wav" is empty: it has no bytes'):
        read(tmp_path / "empty.wav")
    soundfile.write(tmp_path / "short.wav", np.zeros((0, 1)), 8000)
    with pytest.raises(ValueError, match=r"short\.wav.*empty"):
        read(tmp_path / "short.wav")
    soundfile.write(tmp_path / "nan.wav", np.array([0, np.nan, np.inf]), 8000, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"nan\.wav.*2 samples that are infinite or not a number") as caught:
        read(tmp_path / "nan.wav")
    assert str(caught.value).count("nan.wav") == 1
    assert "the recording" not in str(caught.value)
    with pytest.raises(OSError, match="nowhere") as failed:
        write(tmp_path / "nowhere" / "new.wav", np.zeros(9), 8000)
    assert failed.value.filename == str(tmp_path / "nowhere" / "new.wav")


@pytest.mark.parametrize(
    ("samples", "complaint"),
    [
        (np.zeros(4, int), "type int64, expected floats"),
        (np.zeros((1, 1, 4)), r"shape \(1, 1, 4\)"),
        (np.zeros((2, 0)), "empty"),
        (np.array([0, -1e170]), r"a peak of 1e\+170 times full scale: scale it to a peak of 1"),
        (np.array([np.nan]), "1 sample that is infinite or not a number"),
        (np.array([np.nan, np.inf]), "2 samples that are infinite or not a number"),
    ],
)
def test_samples_are_checked(samples, complaint):
    with pytest.raises(ValueError, match=complaint):
        as_channels(samples)


STEREO = np.random.default_rng(0).normal(size=(2, 3000)) / 10
SPECTROGRAM = np.abs(np.random.default_rng(1).normal(size=(129, 200)))


@pytest.mark.parametrize(
    ("y", "complaint"),
    [
        (STEREO.T, r"y has shape \(3000, 2\), which would be 2 samples of 3000 channels: pass y\.T if .* soundfile"),
        (np.ones((8, 3)), r"y has shape \(8, 3\), which would be 3 samples of 8 channels: pass y\.T if"),
        (SPECTROGRAM, r"y has shape \(129, 200\).* at most 64 are possible\. If y is a spectrogram, use knownmf\.act"),
        (SPECTROGRAM.T, r"y has shape \(200, 129\).* If y is a spectrogram"),
        (20 * np.log10(SPECTROGRAM), r"y has shape \(129, 200\).* If y is a spectrogram"),
        (SPECTROGRAM[:40], r"y has shape \(40, 200\).* no sample is negative\. If y is a spectrogram"),
        (SPECTROGRAM[:, :40], r"y has shape \(129, 40\).* no sample is negative\. If y is a spectrogram"),
        (SPECTROGRAM + 0j, r"y has complex values \(complex128\).* use knownmf\.activations\(np\.abs\(y\), "),
        ((32767 * STEREO).astype(np.int16), r"type int16, expected floats .*: pass y / 32768\."),
        ((32767 * STEREO).astype(">i2"), r"type >i2, expected floats .*: pass y / 32768\."),
        ((2.0**31 * STEREO).astype(np.int32), r"type int32, expected floats .*: pass y / 2147483648\."),
        ((128 + 127 * STEREO).astype(np.uint8), r"type uint8, expected floats .*: pass \(y - 128\.0\) / 128\."),
        (STEREO > 0, "type bool, expected floats"),
        ([STEREO[0], STEREO[1, :-1]], r"y is a list of arrays of different lengths.* channels need the same length"),
        ((STEREO[0], SR), r"If y is a pair \(y, sr\), pass its parts one by one"),
        (SR, "y is 22050, expected an array of samples: the samples come before the sample rate"),
        (np.ma.masked_greater(STEREO, 0.1), r"y has masked samples: .* y\.filled\(0\)"),
    ],
    ids=lambda value: value.split(":")[0][:30] if isinstance(value, str) else "",
)
def test_what_is_not_samples_is_refused_by_all_functions(tmp_path, y, complaint):
    dictionary = flat()
    for function in (
        lambda: learn({"tone": [(y, SR)]}),
        lambda: decompose(y, SR, dictionary),
        lambda: separate(y, SR, dictionary),
        lambda: transcribe(y, SR, dictionary),
        lambda: spectrogram(y, dictionary),
        lambda: write(tmp_path / "a.wav", y, SR),
    ):
        with pytest.raises(ValueError, match=complaint):
            function()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("y", [list(STEREO), STEREO.astype(np.float32), STEREO[:, :2], np.zeros((20, 30))])
def test_samples_of_several_channels_are_accepted(y):
    np.testing.assert_array_equal(as_channels(y), np.asarray(y))


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32"])
def test_the_advice_for_integers_makes_the_samples_of_the_file(tmp_path, subtype):
    soundfile.write(tmp_path / "a.wav", STEREO.T, SR, subtype=subtype)
    y = scipy.io.wavfile.read(tmp_path / "a.wav")[1].T
    with pytest.raises(ValueError, match="pass ") as caught:
        as_channels(y)
    advice = str(caught.value).partition("pass ")[2].rstrip(".")
    np.testing.assert_allclose(eval(advice, {"y": y}), read(tmp_path / "a.wav")[0], atol=1e-9)


def test_samples_and_sample_rate_in_the_wrong_order_are_refused(tmp_path):
    order = "the samples come before the sample rate"
    with pytest.raises(ValueError, match=f"take 1 of 'kick': y is 22050, .*{order}"):
        learn({"kick": [(SR, STEREO)]})  # as scipy.io.wavfile.read returns them
    for function in (decompose, separate, transcribe):
        with pytest.raises(ValueError, match=order):
            function(SR, STEREO, flat())
    with pytest.raises(ValueError, match=order):
        write(tmp_path / "a.wav", SR, STEREO)
    with pytest.raises(ValueError, match=r"sr has shape \(2, 3000\), expected the sample rate in Hz"):
        decompose(STEREO, STEREO, flat())


def test_the_name_of_a_file_is_refused_where_only_samples_are_possible(tmp_path):
    advice = r"y is 'song\.wav', .* files are read with knownmf\.audio\.read"
    for function in (
        lambda: learn({"tone": [("song.wav", SR)]}),
        lambda: spectrogram("song.wav", flat()),
        lambda: write(tmp_path / "a.wav", "song.wav", SR),
    ):
        with pytest.raises(ValueError, match=advice):
            function()
    for job in (decompose, separate, transcribe):
        with pytest.raises(ValueError, match=r'sr is 22050, but "song\.wav" is a file, .*: pass sr=None'):
            job("song.wav", SR, flat())
        with pytest.raises(FileNotFoundError):
            job("song.wav", dictionary=flat())
        with pytest.raises(ValueError, match="sr is None, expected a sample rate in Hz"):
            job(STEREO, dictionary=flat())


@pytest.mark.parametrize("dictionary", ["drums.npz", SR, flat().W], ids=["path", "rate", "basis"])
def test_a_dictionary_that_is_none_is_refused(dictionary):
    for function in (decompose, separate, transcribe):
        with pytest.raises(TypeError, match=r"dictionary is .*, expected a knownmf\.Dictionary: .* Dictionary\.load"):
            function(STEREO, SR, dictionary)


def test_a_file_with_fewer_samples_than_channels_is_read(tmp_path):
    soundfile.write(tmp_path / "short.wav", np.ones((1, 2)) / 2, SR)
    np.testing.assert_array_equal(read(tmp_path / "short.wav")[0], [[0.5], [0.5]])


def test_many_channels_of_few_samples_are_resampled():
    y = np.random.default_rng(0).normal(size=(8, 20))
    assert decompose(y, SR, flat(sr=SR // 5)).V.shape == (1025, 1)


def test_the_level_does_not_matter_except_for_players(tmp_path):
    quiet = decompose(STEREO, SR, flat())
    for scale in (1e-100, 32768, 1e29):
        loud = decompose(scale * STEREO, SR, flat())
        np.testing.assert_allclose(loud.found.H, scale * quiet.found.H, rtol=1e-6)
        assert loud.explained == pytest.approx(quiet.explained)
    with pytest.warns(UserWarning, match=r"a\.wav.*the peak is 200 times full scale.* players will clip it"):
        write(tmp_path / "a.wav", np.array([0.0, -200.0]), SR)
    np.testing.assert_array_equal(read(tmp_path / "a.wav")[0], [[0.0, -200.0]])


def test_resampling_keeps_what_both_rates_hold():
    n, new = 30000, 48000
    seconds, later = np.arange(n) / SR, np.arange(int(n * new / SR)) / new
    tone = np.sin(2 * np.pi * 1000 * seconds)[np.newaxis]
    there = resampled(tone, SR, new)
    inside = slice(2000, -2000)
    np.testing.assert_allclose(there[0, : len(later)][inside], np.sin(2 * np.pi * 1000 * later)[inside], atol=1e-4)
    assert resampled(tone, SR, new, 10).shape == (1, 10)
    assert resampled(tone, SR, SR) is tone


def test_the_spectrogram_shows_where_and_how_high():
    y = np.zeros(SR)
    y[SR // 2 :] = np.sin(2 * np.pi * 2000 * np.arange(SR - SR // 2) / SR)
    dictionary = flat()
    V = spectrogram(y, dictionary)
    assert V.shape == (1025, 1 + SR // 512)
    assert abs(dictionary.frequencies[V[:, -8].argmax()] - 2000) < SR / 2048
    np.testing.assert_array_equal(V[:, : (SR // 2 - 1024) // 512], 0)
    # A sine's magnitude is half the sum of the window.
    assert V[:, -8].max() == pytest.approx(512, rel=0.15)


def test_channels_of_opposite_phase_do_not_cancel(noise):
    one, dictionary = noise[0], flat()
    np.testing.assert_allclose(spectrogram(np.stack([one, -one]), dictionary), spectrogram(one, dictionary))
    np.testing.assert_allclose(
        spectrogram(np.stack([one, 0 * one]), dictionary), spectrogram(one, dictionary) / np.sqrt(2)
    )


def test_power(noise):
    np.testing.assert_allclose(spectrogram(noise, flat(power=2.0)), spectrogram(noise, flat()) ** 2)


@pytest.mark.parametrize("n_samples", [1, 100, 2047])
def test_recordings_shorter_than_a_window(n_samples):
    V = spectrogram(np.ones(n_samples), flat())
    assert V.shape == (1025, 1 + n_samples // 512)
    assert V.any()


def test_decompose_finds_what_was_put_in():
    dictionary = flat(3)
    y = np.random.default_rng(2).normal(size=SR)
    found = decompose(y, SR, dictionary)
    assert found.found.H.shape == (3, found.V.shape[1])
    np.testing.assert_allclose(found.times, np.arange(found.V.shape[1]) * 512 / SR)
    assert 0 < found.explained < 1
    V = dictionary.W @ found.found.H
    expected = 1 - np.sum((found.V - V) ** 2) / np.sum(found.V**2)
    assert found.explained == pytest.approx(expected)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_with_free_components_the_explained_energy_is_divided_in_proportion_to_the_model(power):
    dictionary = flat(3, power=power)
    found = decompose(np.random.default_rng(2).normal(size=SR), SR, dictionary, free=2)
    W, H = found.dictionary.W, found.found.H
    A, model = found.V ** (1 / power), (W @ H) ** (1 / power)
    by_bin = A**2 - (A - model) ** 2
    own = (W[:, :3] @ H[:3]) / (W @ H)
    assert (found.n_free, found.adapted) == (2, False)
    assert 0 < found.explained_by_dictionary < found.explained
    assert found.explained == pytest.approx(by_bin.sum() / np.sum(A**2))
    assert found.explained_by_dictionary == pytest.approx(np.sum(own * by_bin) / np.sum(A**2))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_part_of_the_dictionary_is_its_share_of_the_energy(share):
    seconds = np.arange(2 * SR) / SR
    known, other = (np.sin(2 * np.pi * pitch * seconds) * (seconds % 0.5 < 0.3) for pitch in (300, 3000))
    known, other = np.sqrt(share) * known, np.sqrt(1 - share) * np.roll(other, SR // 7)
    found = decompose(known + other, SR, learn({"known": [(known, SR)]}), free=4)
    assert found.explained > 0.95
    assert found.explained_by_dictionary == pytest.approx(share, abs=0.03)
    assert found.fits == (share > 0.15)


def test_with_adaptation_the_part_of_the_dictionary_is_that_of_the_dictionary_as_it_was_given():
    y, dictionary = np.random.default_rng(2).normal(size=SR).cumsum(), flat(3)
    as_given, adapted = decompose(y, SR, dictionary), decompose(y, SR, dictionary, adapt=0.5)
    assert as_given.explained_by_dictionary == as_given.explained
    assert (as_given.adapted, adapted.adapted) == (False, True)
    assert adapted.explained > as_given.explained + 0.1
    assert adapted.explained_by_dictionary == pytest.approx(as_given.explained, abs=1e-3)
    both = decompose(y, SR, dictionary, free=2, adapt=0.5)
    assert (both.n_free, both.adapted) == (2, True)
    assert both.explained_by_dictionary < both.explained


def test_what_is_worse_than_silence_explains_nothing():
    seconds = np.arange(SR) / SR
    low, high = (learn({"tone": [(np.sin(2 * np.pi * pitch * seconds), SR)]}) for pitch in (300, 3000))
    tone = np.sin(2 * np.pi * 300 * seconds)
    wrong = decompose(tone, SR, high)
    assert (wrong.explained, wrong.explained_by_dictionary, wrong.fits) == (0, 0, False)
    assert wrong.found.converged.all()
    assert decompose(tone, SR, low).fits


def test_the_drums_of_the_demo_fit_and_other_sounds_do_not():
    song = demo.mixture()
    drums = learn({label: [read(path)] for label, path in demo.hits().items()})
    found = decompose(song.y, song.sr, drums)
    assert found.fits
    assert found.explained > 0.9
    seconds = np.arange(4 * SR) / SR
    chord = sum(np.sin(2 * np.pi * pitch * n * seconds) / n for pitch in (262, 330, 392) for n in range(1, 9))
    chord *= np.exp(-3 * (seconds % 1))
    notes = learn({"chord": [(chord[:SR], SR)]})
    assert decompose(chord, SR, notes).fits
    assert not decompose(chord, SR, drums).fits
    assert not decompose(song.y, song.sr, notes).fits


def test_a_perfect_basis_explains_everything():
    y = np.random.default_rng(3).normal(size=4 * 512)
    V = spectrogram(y, flat())
    exact = Dictionary(V, [f"frame {i}" for i in range(V.shape[1])], sr=SR)
    assert decompose(y, SR, exact, tol=1e-8).explained > 0.999


@pytest.mark.parametrize("learned", [{}, {"free": 2}, {"adapt": 0.5}, {"free": 1, "adapt": 0.5}], ids=str)
@pytest.mark.parametrize("peak", [0.0, 1e-200])  # the energy of the second one is 0 in double precision
def test_silence_leaves_nothing_to_explain(peak, learned):
    silent = decompose(peak * np.random.default_rng(3).normal(size=SR), SR, flat(), **learned)
    assert np.isnan([silent.explained, silent.explained_by_dictionary]).all()
    assert silent.is_silent
    assert silent.fits
    assert repr(silent).startswith("Decomposition(of silence: ")
    assert peak or not silent.found.H.any()


def test_bins_that_a_lower_sample_rate_cannot_hold_do_not_count():
    rng = np.random.default_rng(4)
    wide = Dictionary(rng.random((1025, 1)) + 1, ["noise"], sr=2 * SR, n_fft=2048, hop_length=512)
    y = rng.normal(size=SR)
    decomposition = decompose(y, SR, wide)
    held = wide.frequencies < 0.95 * SR / 2
    # With one component, the Kullback-Leibler optimum matches the sums over the bins that count.
    expected = decomposition.V[held].sum(axis=0) / wide.W[held].sum()
    np.testing.assert_allclose(decomposition.found.H[0], expected, rtol=1e-3)


def test_progress_is_told_from_nothing_to_all():
    calls = []
    decompose(np.ones(SR), SR, flat(), progress=lambda done, total: calls.append((done, total)))
    assert calls[0][0] == 0
    assert calls[-1] == (44, 44)
    assert calls == sorted(calls)
