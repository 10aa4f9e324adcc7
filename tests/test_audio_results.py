"""The results of the audio functions: how they are compared and printed."""

import copy
import re

import numpy as np
import pytest

from knownmf import activations
from knownmf.audio import Event, decompose, separate, spectrograms, transcribe
from knownmf.blocks import CERTIFICATES
from knownmf.dictionary import Dictionary

SR = 8000


@pytest.fixture(scope="module")
def dictionary():
    W = np.random.default_rng(0).random((257, 9))
    return Dictionary(W, [f"sound\n{i // 2}" for i in range(8)] + ["other"], sr=SR, n_fft=512, hop_length=128)


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(1).normal(size=(2, SR))


@pytest.mark.parametrize("function", [decompose, separate, transcribe])
def test_results_are_compared_by_identity(dictionary, noise, function):
    result = function(noise, SR, dictionary)
    assert result == result
    assert result != copy.copy(result)
    assert result in [None, result]
    assert {result: 1}[result] == 1


@pytest.mark.parametrize("sr", [SR, SR // 2])
@pytest.mark.parametrize("beta_loss", ["kullback-leibler", "frobenius"])
def test_a_recording_is_solved_as_its_spectrogram_is(dictionary, noise, sr, beta_loss, monkeypatch):
    monkeypatch.setattr(spectrograms, "STREAM_BYTES", 2**17)  # many blocks
    result = decompose(noise, sr, dictionary, beta_loss=beta_loss)
    weights = spectrograms.observed_bins(sr, dictionary)
    assert (weights is None) == (sr == SR)
    expected = activations(result.V, dictionary.W, beta_loss, weights=weights)
    for name in ("H", *CERTIFICATES):
        np.testing.assert_array_equal(getattr(result.found, name), getattr(expected, name))


def test_events_are_compared_by_value():
    assert Event(0.1, 0.2, "kick", 1.0) == Event(0.1, 0.2, "kick", 1.0)
    assert Event(0.1, 0.2, "kick", 1.0) != Event(0.1, 0.2, "kick", 0.5)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (
            decompose,
            r"Decomposition\(explained=0\.\d+: 9 components of 5 sounds x 63 frames, 63 of 63 frames within "
            r"tol=0\.0001\)",
        ),
        (
            separate,
            r"Separation\(5 stems of 2 channels x 8000 samples: "
            r"'sound\\n0', 'sound\\n1', 'sound\\n2', 'sound\\n3', 'other'\)",
        ),
        (transcribe, r"Transcription\(\d+ events of \d of 5 sounds\)"),
    ],
)
def test_the_repr_is_one_line_without_arrays(dictionary, noise, function, expected):
    assert re.fullmatch(expected, repr(function(noise, SR, dictionary)))


@pytest.mark.parametrize("silent", [False, True])
def test_a_summary_is_printed_as_its_decomposition_is(dictionary, noise, tmp_path, silent):
    y = 0 * noise if silent else noise
    summary = decompose(y, SR, dictionary, free=1, tol=1e-3, out=tmp_path / "a.npz")
    expected = repr(decompose(y, SR, dictionary, free=1, tol=1e-3))
    assert repr(summary) == expected.replace("Decomposition(", "Summary(", 1)
    assert "\n" not in repr(summary)
    assert ("of silence" in expected) == silent


def test_the_repr_of_many_stems_is_short(noise):
    W = np.random.default_rng(0).random((257, 88))
    notes = Dictionary(W, [f"note {i}" for i in range(88)], sr=SR, n_fft=512, hop_length=128)
    assert repr(separate(noise[:, :1000], SR, notes, max_iter=500)).endswith("'note 4', 'note 5' and 82 more)")


def test_the_share_that_is_explained_is_not_rounded_up_to_all(dictionary, noise):
    from dataclasses import replace

    found = decompose(noise, SR, dictionary)
    assert "explained=0.9999:" in repr(replace(found, explained=0.99999))
    assert "explained=1:" in repr(replace(found, explained=1.0))
    assert "explained=0.5:" in repr(replace(found, explained=0.5))


def test_the_repr_names_the_part_of_the_dictionary_and_what_does_not_fit(dictionary, noise):
    from dataclasses import replace

    found = decompose(noise, SR, dictionary)
    wrong = replace(found, explained=0.01, explained_by_dictionary=0.01)
    assert repr(wrong).startswith("Decomposition(explained=0.01 (fits=False): 9 components")
    learned = replace(found, explained=0.9, explained_by_dictionary=0.16, n_free=2)
    assert repr(learned).startswith("Decomposition(explained=0.9 (0.16 by the dictionary): 9 components")
    assert not replace(learned, explained_by_dictionary=0.14).fits
    assert not replace(learned, n_free=0).fits
    assert not replace(learned, n_free=0, adapted=True).fits
    assert replace(learned, n_free=0, explained_by_dictionary=0.51).fits
