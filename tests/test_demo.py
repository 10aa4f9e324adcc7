"""Test the mixture of the demo, the scores, and the command demo."""

import re
from pathlib import Path

import mir_eval
import numpy as np
import pytest
from typer.testing import CliRunner

from knownmf import demo
from knownmf.audio import Event, read
from knownmf.cli import app


def events(label, onsets):
    """Return events with the given onsets."""
    return [Event(onset, onset + 0.1, label, 1.0) for onset in onsets]


def test_the_mixture_is_the_same_every_time_and_the_sum_of_its_stems():
    first, second = demo.mixture(), demo.mixture()
    np.testing.assert_array_equal(first.y, second.y)
    np.testing.assert_allclose(sum(first.stems.values()), first.y, atol=1e-12)
    assert np.abs(first.y).max() == pytest.approx(0.9)


def test_stems_are_silent_until_their_first_onset():
    song = demo.mixture()
    for label, stem in song.stems.items():
        first = round(song.onsets[label][0] * song.sr)
        assert not stem[:, :first].any()
        assert stem[:, first : first + 200].any()
        assert np.all(np.diff(song.onsets[label]) > 0)


def test_the_dictionary_is_learned_from_hard_hits_only():
    assert all(path.stem.endswith(("__hard", "__closed")) for path in demo.hits().values())
    assert all(read(path)[1] == demo.mixture().sr for path in demo.hits().values())


def test_si_sdr_agrees_with_its_definition():
    rng = np.random.default_rng(0)
    reference, noise = rng.standard_normal((2, 1000))
    noise -= (noise @ reference) / (reference @ reference) * reference
    noise *= np.linalg.norm(reference) / np.linalg.norm(noise)
    assert demo.si_sdr(3 * (reference + 0.1 * noise), reference) == pytest.approx(20)
    assert demo.si_sdr(reference, reference) > 200
    assert demo.si_sdr(noise, reference) < -200


def test_onsets_are_matched_one_to_one():
    true = {"kick": [1.0, 1.04], "snare": [2.0]}
    score = demo.onset_score(
        [*events("kick", [1.02, 1.03, 3.0]), *events("snare", [2.06]), *events("tom", [2.0])], true
    )
    assert (score.hits, score.found, score.true) == (2, 5, 3)
    assert score.f == pytest.approx(2 * 2 / 8)


def test_without_true_onsets_the_f_score_is_1_if_none_was_found():
    assert demo.onset_score([], {"kick": []}).f == 1.0
    assert demo.onset_score(events("kick", [1.0]), {"kick": []}).f == 0.0


@pytest.mark.parametrize("seed", range(20))
def test_onsets_are_counted_as_mir_eval_counts_them(seed):
    rng = np.random.default_rng(seed)
    true, found = np.sort(rng.uniform(0, 2, 30)), np.sort(rng.uniform(0, 2, 25))
    matched = len(mir_eval.util.match_events(true, found, 0.05))
    assert demo.onset_score(events("kick", found), {"kick": true}).hits == matched


def test_the_demo_runs_all_commands_and_reports_good_scores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["demo"])
    assert done.exit_code == 0, done.stderr
    out = Path("knownmf-demo")
    labels = ["hihat", "kick", "snare", "tom"]
    assert sorted(path.name for path in (out / "stems").iterdir()) == [f"{label}.wav" for label in labels]
    assert sorted(path.name for path in (out / "truth").iterdir()) == [
        "events.csv",
        *(f"{label}.wav" for label in labels),
    ]
    for name in ("drums.npz", "mix.wav", "events.csv", "activations.npz", "picture.png"):
        assert (out / name).stat().st_size > 500
    for command in ("learn", "separate", "transcribe", "decompose"):
        assert f"$ knownmf {command} " in done.stdout
    before, after, f = re.search(
        r"all +(-?[\d.]+) dB +(-?[\d.]+) dB .* ([\d.]+)\s*$", done.stdout, re.MULTILINE
    ).groups()
    assert float(after) > float(before) + 10
    assert float(f) > 0.85

    again = CliRunner().invoke(app, ["demo"])
    assert again.exit_code == 2
    assert "--force" in again.stderr
