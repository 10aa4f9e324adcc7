"""Dictionaries learned from isolated sounds."""

import numpy as np
import pytest

from knownmf import activations
from knownmf.audio import learn, read, spectrogram
from knownmf.audio.learning import window_length

SR = 22050


@pytest.fixture(scope="module")
def kit(sounds):
    """Two takes of each drum."""
    takes = {}
    for path in sorted(sounds.glob("*__*.flac")):
        takes.setdefault(path.name.split("__")[0], []).append(read(path))
    return takes


def tone(hertz, seconds=0.5, sr=SR):
    return np.sin(2 * np.pi * hertz * np.arange(int(seconds * sr)) / sr)


def test_defaults(kit):
    dictionary = learn(kit)
    assert dictionary.names == ("hihat", "kick", "snare", "tom")
    assert (dictionary.sr, dictionary.n_fft, dictionary.hop_length) == (SR, 2048, 512)
    assert (dictionary.window, dictionary.power) == ("hann", 1.0)
    assert all(dictionary.labels.count(name) == 8 for name in dictionary.names)
    np.testing.assert_allclose(dictionary.W.sum(axis=0), 1)


def test_the_same_sounds_give_the_same_dictionary(kit):
    np.testing.assert_array_equal(learn(kit).W, learn(kit).W)


def test_takes_are_not_modified(kit):
    before = {label: [y.copy() for y, _ in takes] for label, takes in kit.items()}
    learn(kit, n_components=2)
    for label, takes in kit.items():
        for (y, _), was in zip(takes, before[label], strict=True):
            np.testing.assert_array_equal(y, was)


def test_a_sound_is_explained_by_its_own_components(kit):
    from knownmf.audio import decompose

    dictionary = learn(kit)
    for label, takes in kit.items():
        decomposition = decompose(*takes[0], dictionary)
        magnitudes = decomposition.found.H.sum(axis=1)
        own = magnitudes[dictionary.components_of(label)].sum()
        assert own > 0.8 * magnitudes.sum()
        assert decomposition.explained > 0.9


def test_pooled_and_apart(kit):
    pooled = learn(kit, n_components=3)
    apart = learn(kit, n_components=3, pooled=False)
    assert pooled.labels == tuple(np.repeat(list(pooled.names), 3))
    assert apart.labels == tuple(np.repeat(list(pooled.names), 6))
    first_only = learn({label: takes[:1] for label, takes in kit.items()}, n_components=3)
    np.testing.assert_allclose(apart.W[:, :3], first_only.W[:, :3])


def test_one_component_is_the_average_spectrum():
    y = np.random.default_rng(0).normal(size=SR)
    dictionary = learn({"noise": [(y, SR)]}, n_components=1)
    # The last frames overlap the cut at the end and are left out.
    V = spectrogram(y, dictionary)[:, : 1 + (SR - 1024) // 512]
    np.testing.assert_allclose(dictionary.W[:, 0], V.sum(axis=1) / V.sum())


def test_levels_of_takes_do_not_matter():
    takes = [tone(300), tone(3000)]
    level = learn({"both": [(take, SR) for take in takes]}, n_components=2)
    uneven = learn({"both": [(takes[0], SR), (1e-3 * takes[1], SR)]}, n_components=2)
    np.testing.assert_allclose(uneven.W, level.W, atol=1e-6)
    assert sorted(level.frequencies[level.W.argmax(axis=0)].round(-2)) == [300, 3000]


def test_silence_around_a_sound_does_not_matter():
    y = np.concatenate([np.zeros(4096), tone(1000, 1.0), np.zeros(40960)])
    short, long = learn({"a": [(y[: -2 * 4096], SR)]}), learn({"a": [(y, SR)]})
    np.testing.assert_array_equal(short.W, long.W)


def test_no_more_components_than_different_frames():
    assert learn({"click": [(np.ones(1), SR)]}, n_components=5).n_components <= 3
    assert learn({"steady": [(np.ones(100), SR)]}).n_components <= 4


def unexplained(dictionary, y):
    """The share of a take that a dictionary leaves, without the frames at its cut end."""
    V = spectrogram(y, dictionary)[:, : 1 + (len(y) - dictionary.n_fft // 2) // dictionary.hop_length]
    return activations(V, dictionary.W).objective.sum() / V.sum()


@pytest.mark.parametrize(("n_states", "expected"), [(7, 8), (14, 16), (30, 32)])
def test_a_sound_of_more_states_gets_more_components(n_states, expected):
    y = np.concatenate([np.hanning(6615) * tone(150 + 100 * state, 0.3) for state in range(n_states)])
    dictionary = learn({"a": [(y, SR)]})
    assert dictionary.n_components == expected
    assert unexplained(dictionary, y) < 0.05
    if expected > 8:
        assert unexplained(learn({"a": [(y, SR)]}, n_components=expected // 2), y) > 0.05


def test_noise_gets_the_largest_number_of_components():
    y = np.random.default_rng(0).normal(size=4 * 8000)
    dictionary = learn({"a": [(y, 8000)]})
    assert dictionary.n_components == 32
    assert unexplained(dictionary, y) > 0.05


def test_mixed_sample_rates_meet_at_the_lowest():
    mixed = {"low": [(tone(500, sr=44100), 44100)], "high": [(tone(2000, sr=16000), 16000)]}
    dictionary = learn(mixed, n_components=1)
    assert (dictionary.sr, dictionary.n_fft, dictionary.hop_length) == (16000, 1500, 375)
    peaks = dictionary.frequencies[dictionary.W.argmax(axis=0)]
    np.testing.assert_allclose(peaks, [500, 2000], atol=11)
    assert learn(mixed, sr=32000).sr == 32000


@pytest.mark.parametrize("sr", [8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000])
def test_the_window_lasts_about_as_long_at_every_rate(sr):
    n_fft = window_length(sr)
    assert n_fft % 2 == 0
    assert n_fft / sr == pytest.approx(0.0928, rel=0.02)


def test_settings_are_kept():
    dictionary = learn(
        {"a": [(tone(400), SR)]}, n_components=1, n_fft=1024, hop_length=100, window="hamming", power=2.0, sr=11025
    )
    assert (dictionary.n_fft, dictionary.hop_length, dictionary.window) == (1024, 100, "hamming")
    assert (dictionary.power, dictionary.sr) == (2.0, 11025)


def test_progress():
    calls = []
    learn({"a": [(tone(400), SR)] * 2, "b": [(tone(800), SR)]}, progress=lambda *call: calls.append(call))
    assert calls == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("sounds", "options", "complaint"),
    [
        ({}, {}, "no sounds to learn from"),
        ({"a": []}, {}, "'a' has no takes"),
        ({"a": (np.ones(9), SR)}, {}, r"take 1 of 'a': expected a pair \(y, sr\), got ndarray"),
        ({"a": (np.ones(2), SR)}, {}, "take 1 of 'a': expected a pair"),
        ({"a": ["kick.wav"]}, {}, "got str"),
        ({"a": [(np.zeros(100), SR)]}, {}, "take 1 of 'a' is silent"),
        ({"a": [(np.ones(9), SR), (np.zeros(0), SR)]}, {}, "take 2 of 'a': y is empty"),
        ({"a": [(np.array([np.nan]), SR)]}, {}, "take 1 of 'a': .* not a number"),
        ({" ": [(np.ones(9), SR)]}, {}, "labels are strings"),
        ({"a": [(np.ones(9), SR)]}, {"n_components": 0}, "n_components is 0"),
        ({"a": [(np.ones(9), SR)]}, {"n_components": 1.5}, "n_components is 1.5"),
        ({"a": [(np.ones(9), SR)]}, {"sr": 0}, "sr is 0"),
        ({"a": [(np.ones(9), 0)]}, {}, "sr is 0"),
        ({"a": [(np.ones(9), "high")]}, {}, "take 1 of 'a': sr is 'high'"),
        ({"a": [(np.ones(9), SR)]}, {"sr": 44100.0}, r"^sr is 44100.0, expected a whole number"),
        ({"a": [(np.ones(9), SR)]}, {"n_fft": 0}, "n_fft is 0"),
        ({"a": [(np.ones(9), SR)]}, {"n_fft": -4}, r"^n_fft is -4, expected a whole number"),
        ({"a": [(np.ones(9), SR)]}, {"n_fft": 2048.0}, r"^n_fft is 2048.0, expected a whole number"),
        ({"a": [(np.ones(9), SR)]}, {"hop_length": 2.5}, r"^hop_length is 2.5, expected a whole number"),
        ({"a": [(np.ones(9), SR)]}, {"n_fft": 64, "hop_length": 65}, "hop_length=65 exceeds"),
        ({"a": [(np.ones(9), SR)]}, {"window": "hat"}, "window='hat'"),
        ({"a": [(np.ones(9), SR)]}, {"power": -1}, "power is -1"),
        ({"a": [(np.ones(9), 2**31 - 1)]}, {}, "sample rate is 2147483647 Hz, expected at most 10000000 Hz"),
    ],
)
def test_mistakes_are_named(sounds, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        learn(sounds, **options)


def test_a_window_that_does_not_fit_into_memory_is_refused():
    with pytest.raises(MemoryError, match="a window of 35184372088832 samples needs about"):
        learn({"a": [(np.ones(9), SR)]}, n_fft=2**45)


def test_a_list_of_files_is_not_a_mapping_of_sounds():
    with pytest.raises(TypeError, match=r"sounds is of type list, expected a dict .* knownmf\.audio\.read"):
        learn(["kick.wav"])
