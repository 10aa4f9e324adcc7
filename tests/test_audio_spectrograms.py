"""The short-time Fourier transform and its inverse."""

import librosa
import numpy as np
import pytest
from scipy.signal import get_window

from knownmf.audio import spectrograms
from knownmf.audio.spectrograms import istft, stft
from knownmf.dictionary import Dictionary

# n_fft and hop_length: usual; one that does not divide the other; odd; gaps between windows; every sample.
SETTINGS = [(2048, 512), (512, 150), (513, 500), (64, 64), (7, 7), (64, 1), (2, 1)]


def settings(n_fft, hop_length, window="hann"):
    W = np.ones((n_fft // 2 + 1, 1))
    return Dictionary(W, ["any"], sr=8000, n_fft=n_fft, hop_length=hop_length, window=window)


def noise(n_channels, n_samples):
    return np.random.default_rng(0).normal(size=(n_channels, n_samples))


@pytest.mark.parametrize(("n_fft", "hop_length"), [(16, 4), (9, 4), (8, 8)])
def test_the_transform_is_the_sum_of_its_definition(n_fft, hop_length):
    y = noise(2, 50)
    spectra = stft(y, settings(n_fft, hop_length))
    n = np.arange(n_fft)
    for frame in range(spectra.shape[2]):
        at = frame * hop_length - n_fft // 2 + n
        inside = (at >= 0) & (at < 50)
        samples = np.where(inside, y[:, np.clip(at, 0, 49)], 0) * get_window("hann", n_fft)
        for f in range(n_fft // 2 + 1):
            expected = samples @ np.exp(-2j * np.pi * f * n / n_fft)
            np.testing.assert_allclose(spectra[:, f, frame], expected, atol=1e-13)


@pytest.mark.parametrize("window", ["hann", "hamming", "boxcar"])
@pytest.mark.parametrize(("n_fft", "hop_length"), SETTINGS)
@pytest.mark.parametrize("n_samples", [1, 2, 100, 511, 2048, 5001])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_both_agree_with_librosa(n_channels, n_samples, n_fft, hop_length, window):
    y, common = noise(n_channels, n_samples), {"n_fft": n_fft, "hop_length": hop_length, "window": window}
    half = n_fft // 2
    spectra = stft(y, settings(**common))
    expected = librosa.stft(np.pad(y, ((0, 0), (half, half))), center=False, **common)
    assert spectra.shape == expected.shape
    np.testing.assert_allclose(spectra, expected, rtol=0, atol=1e-13 * np.abs(expected).max())
    for length in (n_samples, n_samples + 1):
        back = istft(spectra, settings(**common), length)
        expected = librosa.istft(spectra, length=length, **common)
        np.testing.assert_allclose(back, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("n_fft", "hop_length"), [(2048, 512), (2048, 300), (750, 187), (513, 100), (64, 1)])
@pytest.mark.parametrize("n_channels", [1, 2])
@pytest.mark.parametrize("n_samples", [1, 2, 100, 5001])
def test_the_inverse_restores_the_signal(n_channels, n_samples, n_fft, hop_length):
    y, analysis = noise(n_channels, n_samples), settings(n_fft, hop_length)
    np.testing.assert_allclose(istft(stft(y, analysis), analysis, n_samples), y, rtol=0, atol=4e-15 * np.abs(y).max())


def test_samples_that_no_window_reaches_are_zero():
    analysis = settings(64, 64)
    back = istft(stft(noise(1, 100), analysis), analysis, 200)
    assert back.shape == (1, 200)
    assert back[0, 32] == 0  # a Hann window begins with 0
    assert not back[0, 96:].any()
    assert np.isfinite(back).all()


@pytest.mark.parametrize("n_bytes", [1, 5000, 10**9])
def test_the_size_of_the_blocks_changes_nothing(monkeypatch, n_bytes):
    y, analysis = noise(2, 3000), settings(128, 50)
    spectra = stft(y, analysis)
    back = istft(spectra, analysis, 3000)
    monkeypatch.setattr(spectrograms, "BLOCK_BYTES", n_bytes)
    np.testing.assert_array_equal(stft(y, analysis), spectra)
    np.testing.assert_array_equal(istft(spectra, analysis, 3000), back)
