"""Stems: apart from each other, and together the recording."""

import re

import numpy as np
import pytest

from knownmf import demo
from knownmf.audio import decompose, learn, read, separate, spectrogram, transcribe
from knownmf.audio.samples import resampled
from knownmf.dictionary import Dictionary

SR = 22050


@pytest.fixture(scope="module")
def drums():
    return learn({label: [read(path)] for label, path in demo.hits().items()})


@pytest.fixture(scope="module")
def beat():
    """The first seconds of the demo's mixture, whose parts are known."""
    whole = demo.mixture()
    n = 4 * whole.sr
    return whole.y[:, :n], whole.sr, {label: stem[:, :n] for label, stem in whole.stems.items()}


def missing(stems, y):
    """What the stems lack of the recording, in dB of it."""
    return 10 * np.log10(np.sum((sum(stems.values()) - y) ** 2) / np.sum(y**2) + 1e-40)


def test_drums_come_apart(drums, beat):
    y, sr, truth = beat
    stems = separate(y, sr, drums).stems
    assert list(stems) == list(drums.names)
    for label in ("kick", "snare", "hihat"):
        assert demo.si_sdr(stems[label], truth[label]) > demo.si_sdr(y, truth[label]) + 8
        assert demo.si_sdr(stems[label], truth[label]) > 5
    assert np.sum(stems["tom"] ** 2) < 0.05 * np.sum(y**2)


@pytest.mark.parametrize("free", [1, 4])
def test_free_components_keep_an_unknown_sound_out_of_the_known_stems(beat, free):
    y, sr, truth = beat
    known = learn({label: [read(path)] for label, path in demo.hits().items() if label != "snare"})
    before = separate(y, sr, known).stems
    separation = separate(y, sr, known, free=free)
    assert list(separation.stems) == [*known.names, "rest"]
    assert missing(separation.stems, y) < -120
    audible = [label for label in known.names if truth.get(label) is not None and truth[label].any()]
    for label in audible:
        assert demo.si_sdr(separation.stems[label], truth[label]) > demo.si_sdr(before[label], truth[label])
    assert demo.si_sdr(separation.stems["rest"], truth["snare"]) > demo.si_sdr(y, truth["snare"]) + 3
    learned = separation.decomposition.dictionary
    assert learned.labels == (*known.labels, *["rest"] * free)
    np.testing.assert_array_equal(learned.W[:, : known.n_components], known.W)


def test_templates_follow_the_recording_as_far_as_they_may(drums, beat):
    y, sr, _ = beat
    moved, fit = [], []
    for adapt in (0.0, 0.1, 0.9):
        found = separate(y, sr, drums, adapt=adapt).decomposition
        moved.append(np.abs(found.dictionary.W - drums.W).sum())
        fit.append(found.found.objective.sum())
    assert moved[0] == 0.0 < moved[1] < moved[2]
    assert fit[0] > fit[1] > fit[2]


def test_free_components_of_silence_are_silent(drums):
    stems = separate(np.zeros(SR), SR, drums, free=2, adapt=0.5).stems
    assert list(stems) == [*drums.names, "rest"]
    assert not any(stem.any() for stem in stems.values())


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("n_channels", [1, 2])
def test_stems_add_up_at_every_rate_and_keep_the_shape(drums, beat, rate, n_channels):
    y = resampled(beat[0], SR, rate)[:, : 2 * rate + 1]
    # Noise fills the band above the dictionary's, which the stems must share as well.
    y = y + 0.01 * np.random.default_rng(0).normal(size=(n_channels, y.shape[1]))
    before = y.copy()
    separation = separate(y, rate, drums)
    np.testing.assert_array_equal(y, before)
    assert all(stem.shape == y.shape for stem in separation.stems.values())
    assert missing(separation.stems, y) < -120


def test_frequencies_above_the_dictionary_go_to_the_sound_with_the_highest_ones():
    rng = np.random.default_rng(0)
    hiss, hum = rng.normal(size=44100), np.sin(2 * np.pi * 200 * np.arange(44100) / 44100)
    dictionary = learn({"hiss": [(hiss, 44100)], "hum": [(hum, 44100)]}, sr=16000)
    stems = separate(0.1 * hiss + hum, 44100, dictionary).stems
    above = {label: np.sum(np.abs(np.fft.rfft(stem[0])[10000:]) ** 2) for label, stem in stems.items()}
    assert above["hiss"] > 100 * above["hum"]


def test_the_ratio_of_the_channels_is_kept_in_the_stems(drums, beat):
    y, sr, _ = beat
    stems = separate(np.concatenate([y, 0.5 * y]), sr, drums).stems
    alone = separate(y, sr, drums).stems
    for label, stem in stems.items():
        np.testing.assert_allclose(stem[1], 0.5 * stem[0], atol=1e-9)
        np.testing.assert_allclose(stem[0], alone[label][0], atol=2e-3)


def test_opposite_phase_does_not_cancel(drums, beat):
    y, sr, truth = beat
    stems = separate(np.concatenate([y, -y]), sr, drums).stems
    assert demo.si_sdr(stems["kick"][0], truth["kick"][0]) > 8
    assert missing(stems, np.concatenate([y, -y])) < -120


def test_loudness_changes_nothing_but_loudness(drums, beat):
    y, sr, _ = beat
    normal, faint = separate(y, sr, drums).stems, separate(1e-4 * y, sr, drums).stems
    for label, stem in normal.items():
        np.testing.assert_allclose(1e4 * faint[label], stem, atol=5e-3)


def test_mask_power(drums, beat):
    y, sr, truth = beat
    powers = {power: separate(y, sr, drums, mask_power=power).stems for power in (0.5, 1.5, 400)}
    scores = {power: demo.si_sdr(stems["kick"], truth["kick"]) for power, stems in powers.items()}
    assert scores[1.5] > scores[0.5]
    assert all(missing(stems, y) < -120 for stems in powers.values())


@pytest.mark.parametrize("n_samples", [1, 2, 700, 2047])
@pytest.mark.parametrize("rate", [8000, 22050, 48000])
def test_very_short_recordings(drums, n_samples, rate):
    y = np.random.default_rng(0).normal(size=(1, n_samples))
    stems = separate(y, rate, drums).stems
    assert all(stem.shape == y.shape for stem in stems.values())
    assert missing(stems, y) < -120


def test_silence(drums):
    stems = separate(np.zeros(SR), SR, drums).stems
    assert all(not stem.any() and stem.shape == (1, SR) for stem in stems.values())


def test_what_no_sound_explains_is_shared_equally():
    low = np.zeros((1025, 2))
    low[:20] = np.random.default_rng(0).random((20, 2))
    y = np.sin(2 * np.pi * 5000 * np.arange(SR) / SR)[np.newaxis]
    stems = separate(y, SR, Dictionary(low, ["a", "b"], sr=SR)).stems
    np.testing.assert_allclose(stems["a"][0, 5000:-5000], y[0, 5000:-5000] / 2, atol=1e-3)


@pytest.mark.parametrize(("window", "hop_length"), [("hann", 2048), ("boxcar", 2048), ("hamming", 300), ("hann", 2000)])
def test_unusual_settings_still_add_up(window, hop_length):
    W = np.random.default_rng(0).random((1025, 2))
    dictionary = Dictionary(W, ["a", "b"], sr=SR, hop_length=hop_length, window=window)
    y = np.random.default_rng(1).normal(size=(1, SR))
    assert missing(separate(y, SR, dictionary).stems, y) < -120


@pytest.mark.parametrize(
    ("dictionary_sr", "n_fft", "sr"),
    [(22050, 2048, 7), (22050, 32, 900), (44100, 64, 1000), (1000, 63, 1), (8, 63, 799_999)],
)
def test_recordings_with_hardly_any_frequencies_of_the_dictionary_still_add_up(dictionary_sr, n_fft, sr):
    W = np.random.default_rng(0).random((n_fft // 2 + 1, 2))
    dictionary = Dictionary(W, ["a", "b"], sr=dictionary_sr, n_fft=n_fft, hop_length=n_fft // 4)
    y = np.random.default_rng(1).normal(size=(1, 300))
    stems = separate(y, sr, dictionary).stems
    assert all(np.isfinite(stem).all() for stem in stems.values())
    assert missing(stems, y) < -120


def test_what_does_not_fit_into_memory_is_refused_before(drums, monkeypatch):
    monkeypatch.setattr("knownmf.memory.available_memory", lambda: 2**20)
    y = np.ones(60 * SR)
    with pytest.raises(MemoryError, match=r"^separating the recording needs about \d+ MiB of memory, but only 1 MiB"):
        separate(y, SR, drums)
    with pytest.raises(MemoryError, match=r"^decomposing the recording needs about"):
        decompose(y, SR, drums)
    with pytest.raises(MemoryError, match=r"^transcribing the recording needs about"):
        transcribe(y, SR, drums)
    with pytest.raises(MemoryError, match=r"^learning from take 1 of 'a' needs about"):
        learn({"a": [(y, SR)]})
    with pytest.raises(MemoryError, match=r"^the spectrogram needs about"):
        spectrogram(y, drums)
    with pytest.raises(MemoryError, match=r"^resampling from 1 Hz to 22050 Hz needs about 13\.1 GiB"):
        resampled(np.ones((1, 40000)), 1, SR)


def test_mistakes_are_named(drums):
    for mask_power in (0, -1, np.nan, np.inf, "2", True, np.timedelta64(2)):
        message = f"mask_power is {mask_power!r}, expected a finite number above 0"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            separate(np.ones(SR), SR, drums, mask_power=mask_power)
    for free in (-1, 1.5, True, None, np.timedelta64(1)):
        with pytest.raises(ValueError, match="free is"):
            separate(np.ones(SR), SR, drums, free=free)
    for adapt in (-0.1, 1.0, np.nan, "half", False):
        with pytest.raises(ValueError, match=f"^adapt is {adapt!r}, expected a number from 0 to below 1"):
            separate(np.ones(SR), SR, drums, adapt=adapt)
    for sr in (2**32, 10**30):
        with pytest.raises(
            ValueError, match=rf"cannot be resampled from {sr} Hz to {SR} Hz: a ratio of at most 100000"
        ):
            separate(np.ones(SR), sr, drums)
    with pytest.raises(ValueError, match="not a number"):
        separate(np.full(SR, np.nan), SR, drums)
    with pytest.raises(ValueError, match="empty"):
        separate(np.zeros((2, 0)), SR, drums)
    with pytest.raises(ValueError, match="sr is 0"):
        separate(np.ones(SR), 0, drums)
