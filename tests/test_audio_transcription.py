"""Events: which sound, when, how strong."""

import numpy as np
import pytest

from knownmf import demo
from knownmf.audio import Event, learn, read, transcribe

SR = 22050


@pytest.fixture(scope="module")
def hits():
    """One hit of each drum, cut from its first sample on."""
    return {label: read(path)[0][0] for label, path in demo.hits().items()}


@pytest.fixture(scope="module")
def drums(hits):
    return learn({label: [(y, SR)] for label, y in hits.items()})


def played(hits, score, seconds=4.0, sr=SR):
    """A recording of hits at (seconds, label, gain)."""
    y = np.zeros(int(seconds * sr))
    for onset_s, label, gain in score:
        start = round(onset_s * sr)
        part = gain * hits[label][: len(y) - start]
        y[start : start + len(part)] += part
    return y


def assert_found(events, score, within=0.03):
    found = sorted((event.label, event.onset_s) for event in events)
    true = sorted((label, onset_s) for onset_s, label, _ in score)
    assert [label for label, _ in found] == [label for label, _ in true]
    np.testing.assert_allclose([onset for _, onset in found], [onset for _, onset in true], atol=within)


def test_a_simple_beat_is_found_to_the_last_hit(hits, drums):
    score = [(0.1 + 0.5 * i, ("kick", "snare")[i % 2], 1.0) for i in range(7)]
    score += [(0.35 + 0.5 * i, "hihat", 0.5) for i in range(6)]
    assert_found(transcribe(played(hits, score), SR, drums).events, score)


def test_hits_at_the_very_beginning_and_end(hits, drums):
    score = [(0.0, "kick", 1.0), (1.0, "snare", 1.0), (1.85, "kick", 1.0)]
    assert_found(transcribe(played(hits, score, 2.0), SR, drums).events, score)


def test_the_demo_reaches_its_mark(drums):
    mixture = demo.mixture()
    events = transcribe(mixture.y, mixture.sr, drums).events
    assert demo.onset_score(events, mixture.onsets).f > 0.9


@pytest.mark.parametrize("rate", [16000, 44100])
def test_other_sample_rates(hits, drums, rate):
    from knownmf.audio.samples import resampled

    score = [(0.2, "kick", 1.0), (0.7, "snare", 0.9), (1.2, "hihat", 0.6), (1.5, "kick", 0.7)]
    y = resampled(played(hits, score, 2.0)[np.newaxis], SR, rate)
    assert_found(transcribe(y, rate, drums).events, score)


def test_repeated_notes_are_found_and_a_decaying_one_is_found_once():
    seconds = np.arange(3 * SR) / SR

    def note(hertz):
        partials = [np.sin(2 * np.pi * hertz * k * seconds) / k for k in range(1, 6)]
        return np.sum(partials, axis=0) * np.exp(-1.5 * seconds)

    notes = {"a": note(220), "e": note(330), "a2": note(440)}
    dictionary = learn({label: [(y[:SR], SR)] for label, y in notes.items()})
    score = [(0.1, "a", 1.0), (0.5, "e", 0.8), (0.7, "e", 0.8), (0.9, "e", 0.8), (1.3, "a2", 0.7)]
    assert_found(transcribe(played(notes, score), SR, dictionary).events, score)


def test_sounds_that_are_not_played_give_nothing(hits, drums):
    score = [(0.1 + 0.25 * i, "kick", 1.0) for i in range(12)]
    assert {event.label for event in transcribe(played(hits, score), SR, drums).events} == {"kick"}


def test_strength_and_offset(hits, drums):
    score = [(0.5, "kick", 1.0), (1.5, "kick", 0.5), (2.5, "kick", 0.25)]
    events = transcribe(played(hits, score), SR, drums).events
    np.testing.assert_allclose([event.strength for event in events], [1, 0.5, 0.25], rtol=0.1)
    for event in events:
        assert event.onset_s + 0.05 < event.offset_s < event.onset_s + 0.9


def test_no_event_ends_after_the_recording():
    y = np.sin(2 * np.pi * 500 * np.arange(SR - 1000) / SR)
    dictionary = learn({"tone": [(y, SR)]}, n_components=1, hop_length=2048)
    (event,) = transcribe(y, SR, dictionary).events
    assert event.offset_s == len(y) / SR


def test_a_sound_ends_where_it_begins_again():
    y = np.sin(2 * np.pi * 500 * np.arange(SR) / SR)
    dictionary = learn({"tone": [(y, SR)]}, n_components=1)
    fresh = np.concatenate([0.3 * y[: SR // 2], y])
    first, second = transcribe(fresh, SR, dictionary).events
    assert first.offset_s == pytest.approx(second.onset_s, abs=0.05)
    assert second.offset_s == pytest.approx(1.5, abs=0.1)


def test_events_come_in_the_order_of_their_onsets_and_belong_to_the_recording(drums):
    mixture = demo.mixture()
    transcription = transcribe(mixture.y, mixture.sr, drums)
    onsets = [event.onset_s for event in transcription.events]
    assert onsets == sorted(onsets)
    end_s = mixture.y.shape[1] / mixture.sr
    for event in transcription.events:
        assert isinstance(event, Event)
        assert 0 <= event.onset_s <= event.offset_s <= end_s + 1e-9
        assert 0 < event.strength <= 1
        assert event.label in drums.names
        assert all(type(value) is float for value in (event.onset_s, event.offset_s, event.strength))
    assert max(event.strength for event in transcription.events) == 1


def test_loudness_of_the_recording_does_not_matter(hits, drums):
    y = played(hits, [(0.2, "kick", 1.0), (0.7, "snare", 0.4), (0.9, "hihat", 0.3)], 2.0)
    loud, faint = transcribe(y, SR, drums).events, transcribe(1e-3 * y, SR, drums).events
    assert [event.label for event in loud] == [event.label for event in faint]
    np.testing.assert_allclose([e.onset_s for e in loud], [e.onset_s for e in faint], atol=2e-3)


def test_thresholds_choose(hits, drums):
    y = played(hits, [(0.5, "kick", 1.0), (1.5, "kick", 0.3)])
    assert len(transcribe(y, SR, drums).events) == 2
    assert len(transcribe(y, SR, drums, threshold_own=0.5).events) == 1
    assert len(transcribe(y, SR, drums, threshold=0.5).events) == 1
    assert len(transcribe(y, SR, drums, min_gap_s=2.0).events) == 1
    assert transcribe(y, SR, drums, threshold_share=1.0, threshold=1.0).events == []


@pytest.mark.parametrize("y", [np.zeros(SR), np.zeros(1), np.zeros((2, 100))])
def test_silence_has_no_events(drums, y):
    assert transcribe(y, SR, drums).events == []


def test_mistakes_are_named(drums):
    for name in ("threshold", "threshold_own", "threshold_share"):
        for value in (-0.1, 1.1, np.nan, "0.1", True):
            with pytest.raises(ValueError, match=f"^{name} is {value!r}, expected a number from 0 to 1"):
                transcribe(np.ones(SR), SR, drums, **{name: value})
    for value in (-1, np.nan, np.inf, "1", 10**400, True):
        with pytest.raises(ValueError, match=f"^min_gap_s is {value!r}, expected a time in seconds"):
            transcribe(np.ones(SR), SR, drums, min_gap_s=value)
