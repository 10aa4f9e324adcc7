"""Test the pictures. The decompositions of these tests are simple objects with the same fields as a Decomposition."""

import io
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import image as mpimage

from knownmf.dictionary import Dictionary
from knownmf.plots import decomposition_picture

SR, N_FFT, HOP = 8000, 256, 64
N_BINS = N_FFT // 2 + 1


def decomposition(names=("kick", "snare"), per_name=2, n_frames=120, *, power=1.0, beta=1.0):
    """Return a random decomposition with a few components for each name."""
    rng = np.random.default_rng(len(names))
    W = rng.random((N_BINS, per_name * len(names))) ** 4
    H = rng.random((W.shape[1], n_frames)) ** 6
    criterion = rng.random(n_frames) * 1e-4
    found = SimpleNamespace(H=H, beta=beta, tol=1e-4, criterion=criterion, converged=criterion <= 1e-4)
    labels = [name for name in names for _ in range(per_name)]
    dictionary = Dictionary(W, labels, sr=SR, n_fft=N_FFT, hop_length=HOP, power=power)
    times = np.arange(n_frames) * HOP / SR
    return SimpleNamespace(
        found=found,
        V=W @ H,
        dictionary=dictionary,
        times=times,
        explained=0.875,
        explained_by_dictionary=0.875,
        n_free=0,
        adapted=False,
        fits=True,
        is_silent=False,
    )


def event(onset_s, offset_s, label):
    """Return an event."""
    return SimpleNamespace(onset_s=onset_s, offset_s=offset_s, label=label, strength=1.0)


def drawn(figure):
    """Return the pixels of a figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    buffer.seek(0)
    return mpimage.imread(buffer)


def panel(figure, title):
    """Return the axes whose title begins with some text."""
    return next(axes for axes in figure.axes if axes.get_title(loc="left").startswith(title))


def tick_labels(axes):
    """Return the labels of the vertical axis."""
    return [text.get_text() for text in axes.get_yticklabels()]


def test_the_figure_has_1600_pixels_and_is_not_known_to_pyplot():
    import sys

    assert drawn(decomposition_picture(decomposition())).shape == (1120, 1600, 4)
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_all_plots_share_a_time_axis_in_seconds():
    figure = decomposition_picture(decomposition(n_frames=126))
    shown = [panel(figure, title) for title in ("Spectrogram", "Activations", "Gap")]
    half = HOP / SR / 2
    assert all(axes.get_xlim() == pytest.approx((-half, 125 * HOP / SR + half)) for axes in shown)
    assert shown[-1].get_xlabel() == "time (s)"


def test_frequency_is_in_hertz_and_logarithmic():
    spectrogram = panel(decomposition_picture(decomposition()), "Spectrogram")
    assert tick_labels(spectrogram) == ["50", "100", "200", "500", "1k", "2k"]
    assert spectrogram.get_ylabel() == "frequency (Hz)"
    assert np.diff(spectrogram.get_yticks()[:3]) == pytest.approx([1, 1])  # octaves


def test_a_tone_is_drawn_at_its_frequency():
    found = decomposition()
    found.V = np.zeros_like(found.V)
    found.V[32] = 1.0  # 1000 Hz
    spectrogram = panel(decomposition_picture(found), "Spectrogram")
    level, (_, _, bottom, top) = spectrogram.images[0].get_array(), spectrogram.images[0].get_extent()
    row = int(np.argmax(level[:, 10]))
    assert level.max() == pytest.approx(0, abs=0.5)
    assert bottom + (row + 0.5) * (top - bottom) / len(level) == pytest.approx(np.log2(1000), abs=0.02)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_levels_are_decibels_of_magnitudes(power):
    found = decomposition(power=power)
    found.V = np.full_like(found.V, 0.1**power)
    found.V[:, 60:] = 1.0
    level = panel(decomposition_picture(found), "Spectrogram").images[0].get_array()
    assert level[200, 10] == pytest.approx(-20)
    assert level[200, -10] == pytest.approx(0)


def test_each_sound_has_a_row_with_the_first_on_top():
    lanes = panel(decomposition_picture(decomposition(("kick", "snare", "hat"))), "Activations")
    assert tick_labels(lanes) == ["kick", "snare", "hat"]
    assert list(lanes.get_yticks()) == [2.5, 1.5, 0.5]


def texts(figure):
    """Return the texts of the summary, with their colors."""
    axes = next(axes for axes in figure.axes if not axes.axison)
    return {text.get_text(): text.get_color() for text in axes.texts}


@pytest.mark.parametrize("n_names", [3, 60])
def test_learned_components_are_called_learned(n_names):
    found = decomposition((*(f"s{i}" for i in range(n_names - 1)), "rest"))
    assert "learned" not in str(tick_labels(panel(decomposition_picture(found), "Activations")))
    found.n_free, found.explained_by_dictionary = 2, 0.25
    figure = decomposition_picture(found)
    assert tick_labels(panel(figure, "Activations"))[-1] == "rest (learned)"
    assert panel(figure, "Activations").get_yticks()[-1] == 0.5
    assert panel(figure, f"Basis: {2 * n_names} spectra, 2 learned")
    shown = list(texts(figure))
    assert shown[:4] == ["87.5 %", "of the recording explained", "25 %", "by the dictionary"]
    assert "spectra, 2 of them learned" in shown


def test_an_adapted_dictionary_is_called_adapted():
    found = decomposition()
    found.adapted, found.explained_by_dictionary = True, 0.25
    figure = decomposition_picture(found)
    assert panel(figure, "Basis: 4 spectra, adapted")
    assert list(texts(figure))[2:4] == ["25 %", "by the dictionary before adaptation"]


@pytest.mark.parametrize("n_free", [0, 2])
def test_a_silent_recording_is_called_silent(n_free):
    found = decomposition()
    found.is_silent, found.n_free, found.explained, found.explained_by_dictionary = True, n_free, np.nan, np.nan
    shown = list(texts(decomposition_picture(found)))
    assert shown[:2] == ["silent", "there is nothing to explain"]
    assert not [text for text in shown if "explained" in text or "by the dictionary" in text]


@pytest.mark.parametrize("n_free", [0, 2])
def test_a_dictionary_that_does_not_fit_is_doubted(n_free):
    found = decomposition()
    assert "#D55E00" not in texts(decomposition_picture(found)).values()
    found.fits, found.n_free, found.explained_by_dictionary = False, n_free, 0.875 if n_free == 0 else 0.01
    shown = texts(decomposition_picture(found))
    assert [text for text, color in shown.items() if color == "#D55E00"] == ["1 %" if n_free else "87.5 %"]
    assert any("are these the right sounds?" in text for text in shown)


def test_names_below_the_basis_do_not_overlap():
    found = decomposition(("kick", "snare"), 20)
    labels = ["crash"] * 28 + ["hihat"] * 3 + ["kick"] * 3 + ["snare"] * 3 + ["tom"] * 3
    found.dictionary = Dictionary(found.dictionary.W, labels, sr=SR, n_fft=N_FFT, hop_length=HOP)
    figure = decomposition_picture(found)
    drawn(figure)
    boxes = [text.get_window_extent() for text in panel(figure, "Basis").get_xticklabels()]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_events_are_marked_in_the_rows_of_their_labels():
    found = decomposition()
    figure = decomposition_picture(found, events=[event(0.2, 0.3, "snare"), event(0.5, 0.6, "kick")])
    lanes = panel(figure, "Activations")
    onsets = next(marks for marks in lanes.collections if len(marks.get_paths()) == 2)
    starts = [path.vertices[0] for path in onsets.get_paths()]
    assert [start[0] for start in starts] == pytest.approx([0.2, 0.5])
    assert [int(start[1]) for start in starts] == [0, 1]
    assert lanes.get_title(loc="right").startswith("2 events")


@pytest.mark.parametrize(("number", "height"), [(80, 0.92), (81, 0.08), (400, 0.08), (401, None)])
def test_many_events_have_small_marks_or_none(number, height):
    found = decomposition(n_frames=1000)
    figure = decomposition_picture(found, events=[event(i / 60, i / 60 + 0.01, "snare") for i in range(number)])
    lanes = panel(figure, "Activations")
    heights = [
        np.ptp(mark.get_paths()[0].vertices[:, 1]) for mark in lanes.collections if len(mark.get_paths()) == number
    ]
    assert heights[:1] == ([] if height is None else [pytest.approx(height)])
    assert lanes.get_title(loc="right").startswith(f"{number} events ")
    assert ("too many" in lanes.get_title(loc="right")) == (height is None)


def test_frames_above_the_tolerance_are_marked():
    found = decomposition()
    found.found.criterion[7] = 1e-2
    gap = panel(decomposition_picture(found), "Gap")
    within, above = gap.lines[1], gap.lines[2]
    assert len(within.get_xdata()) == 119
    assert above.get_xdata() == pytest.approx([7 * HOP / SR], abs=1e-9)
    assert above.get_ydata() == pytest.approx([1e-2])
    assert gap.get_yscale() == "log"


def test_without_a_certificate_the_kkt_residual_is_shown():
    found = decomposition(beta=0.5)
    figure = decomposition_picture(found)
    assert panel(figure, "KKT").lines[1].get_ydata() == pytest.approx(found.found.criterion)
    assert drawn(figure).shape == (1120, 1600, 4)


def test_single_frames_stay_visible_in_a_long_recording():
    found = decomposition(n_frames=20011)
    found.found.criterion[:] = 0
    found.found.criterion[12345] = 0.5
    found.V *= 1e-3
    found.V[:, 12345] = 1.0
    figure = decomposition_picture(found)
    shown = panel(figure, "Spectrogram").images[0].get_array()
    assert shown.shape[1] < 2000
    assert shown.max() == pytest.approx(0)
    assert panel(figure, "Gap").lines[2].get_xdata() == pytest.approx([12345 * HOP / SR], abs=0.1)


def test_a_long_recording_has_a_time_axis_in_hours_and_minutes():
    short, long = (decomposition(n_frames=n) for n in (2000, 150_000))  # 16 s and 20 min
    assert panel(decomposition_picture(short), "Gap").get_xlabel() == "time (s)"
    figure = decomposition_picture(long)
    figure.canvas.draw()
    axes = panel(figure, "Gap")
    assert axes.get_xlabel() == "time (h:min:s)"
    shown = [label.get_text() for label in axes.get_xticklabels() if 0 <= label.get_position()[0] <= 1200]
    assert shown == [f"0:{minute:02d}:00" for minute in range(0, 21, 2)]
    assert axes.get_title(loc="right").startswith("the largest of each pixel")


@pytest.mark.parametrize(
    ("names", "per_name", "n_frames"),
    [
        (("one",), 1, 1),
        (("one",), 3, 2),
        (tuple(f"{note:03d}" for note in range(60)), 1, 300),
        (("a$b", "x" * 80, "50 %_{", "häßlich"), 2, 50),
    ],
    ids=["one frame", "two frames", "sixty labels", "odd labels"],
)
@pytest.mark.parametrize("with_events", [False, True])
def test_unusual_sizes_and_labels_can_be_drawn(names, per_name, n_frames, with_events):
    events = [event(0.0, 0.5, name) for name in names] * 90 if with_events else None
    figure = decomposition_picture(decomposition(names, per_name, n_frames), events=events)
    assert drawn(figure).shape == (1120, 1600, 4)
    assert len(tick_labels(panel(figure, "Activations"))) == min(len(names), 20)


def test_silence_can_be_drawn():
    found = decomposition()
    found.found.criterion[:] = 0
    found.V, found.found.H = np.zeros_like(found.V), np.zeros_like(found.found.H)
    figure = decomposition_picture(found, events=[])
    assert np.all(panel(figure, "Spectrogram").images[0].get_array() == -80)
    assert drawn(figure).shape == (1120, 1600, 4)


def test_an_infinite_gap_can_be_drawn():
    found = decomposition()
    found.found.criterion[3] = np.inf
    figure = decomposition_picture(found)
    assert panel(figure, "Gap").lines[2].get_ydata() == pytest.approx([10])
    assert drawn(figure).shape == (1120, 1600, 4)


def test_what_is_not_a_decomposition_is_named():
    with pytest.raises(TypeError, match=r"decomposition is of type ndarray, expected a knownmf\.audio\.Decomposition"):
        decomposition_picture(np.zeros(9))
    with pytest.raises(TypeError, match=r"pass its attribute decomposition\."):
        decomposition_picture(SimpleNamespace(decomposition=None, events=[]))
