"""Draw the pictures of learning.md for three notes whose spectra are known: ``make docs``."""

import sys
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from knownmf import NMF, activations

FREQUENCIES = np.linspace(0, 2500, 101)  # of the bins, in Hz
SECONDS, N_FRAMES = 6, 150
PITCHES = {"A": 220.0, "C#": 277.2, "E": 329.6}
STARTS = {"A": (0, 2, 4), "C#": (1, 2, 4), "E": (2, 4)}  # in seconds: E never occurs alone
PASSES = 300
GIVEN, LEARNED = "#0072B2", "#D55E00"


def spectra(loudness):
    """Return a spectrum for each note, with the sum one. ``loudness`` has a value for each partial."""
    notes = []
    for pitch in PITCHES.values():
        partials = pitch * np.arange(1, len(loudness) + 1)[:, np.newaxis]
        notes.append(loudness @ np.exp(-0.5 * ((FREQUENCIES - partials) / 22) ** 2) + 0.01)
    return np.array(notes) / np.sum(notes, axis=1, keepdims=True)


def scene():
    """Return noisy frames of the notes, one per row, and the true spectra of the notes."""
    rng = np.random.default_rng(0)
    truth = spectra(0.75 ** np.arange(7))
    H = np.zeros((N_FRAMES, len(truth)))
    for note, starts in enumerate(STARTS.values()):
        for start in starts:
            since = np.linspace(0, SECONDS, N_FRAMES) - start
            H[:, note] += np.where(since >= 0, np.exp(-np.abs(since)), 0)
    return (H @ truth) * rng.gamma(20, 1 / 20, (N_FRAMES, len(FREQUENCIES))), truth


def in_order_of(truth, basis):
    """Return the basis vectors, sorted by their similarity to the notes."""
    likeness, order = truth @ basis.T / np.linalg.norm(basis, axis=1), {}
    for _ in truth:
        note, own = np.unravel_index(likeness.argmax(), likeness.shape)
        order[note] = own
        likeness[note], likeness[:, own] = -1, -1
    return basis[[order[note] for note in range(len(truth))]]


def picture(X, truth, given, basis):
    """Draw the data, the basis vectors, and the error of the model. ``given`` is NaN for unknown components."""
    missed = np.abs(X - activations(X.T, basis.T).H.T @ basis)
    figure = Figure(figsize=(9, 3), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subfigures(1, 3, width_ratios=(3, 3.2, 3.4))
    draw_frames(left, X, X.max(), "data")
    shown = draw_frames(right, missed, X.max(), f"missed: {100 * missed.sum() / X.sum():.0f} %")
    bar = right.colorbar(shown, ax=right.axes, pad=0.02)
    bar.set_label("dB below the loudest", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    draw_basis(middle, truth, given, basis / basis.sum(axis=1, keepdims=True))
    return figure


def draw_frames(figure, X, loudest, title):
    """Draw a spectrogram with levels relative to ``loudest``."""
    axes = figure.subplots()
    level = 20 * np.log10(np.maximum(X / loudest, 1e-2))
    extent = (0, SECONDS, 0, FREQUENCIES[-1] / 1000)
    shown = axes.imshow(level.T, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=-40, vmax=0)
    axes.set_xlabel("time (s)", fontsize=8)
    axes.set_ylabel("frequency (kHz)", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.set_title(title, fontsize=10, loc="left")
    return shown


def draw_basis(figure, truth, given, basis):
    """Draw the given, the learned and the true basis vectors, one plot for each note."""
    axes, lines = figure.subplots(len(truth), 1, sharex=True), {}
    for row, name in enumerate(PITCHES):
        frozen = np.allclose(given[row], basis[row], rtol=1e-9)
        curves = {"given": (given[row], {"color": GIVEN, "linewidth": 2.2 if frozen else 1.2})}
        if not frozen:
            curves["learned"] = (basis[row], {"color": LEARNED, "linewidth": 2.2})
        curves["truth"] = (truth[row], {"color": "black", "linewidth": 1, "linestyle": "--"})
        for label, (values, style) in curves.items():
            if not np.isnan(values).any():
                lines[label] = axes[row].plot(FREQUENCIES / 1000, values, **style)[0]
        axes[row].set_ylim(0, 1.15 * max(truth.max(), basis.max(), np.nan_to_num(given).max()))
        axes[row].set_yticks([])
        axes[row].set_ylabel(name, fontsize=9)
        axes[row].tick_params(labelsize=8)
    axes[-1].set_xlabel("frequency (kHz)", fontsize=8)
    axes[0].set_title("basis vectors", fontsize=10, loc="left")
    names = [name for name in ("given", "learned", "truth") if name in lines]
    axes[0].legend([lines[name] for name in names], names, fontsize=8, frameon=False, loc="upper right")


def pictures():
    """Return the pictures by name."""
    X, truth = scene()
    nothing = np.full_like(truth, np.nan)
    other = spectra(np.array([0.5, 1, 0.3, 0.7, 0.2, 0.2, 0.1]))  # of another instrument
    strength = X.sum() / len(truth) / 4  # a quarter of what the data contain of a note

    def learned(**known):
        return NMF(3, random_state=0, tol=0, max_iter=PASSES, **known).fit(X).components_

    return {
        "known": picture(X, truth, truth, truth),
        "partly": picture(X, truth, np.vstack([truth[:2], nothing[:1]]), learned(components=truth[:2])),
        "softly": picture(X, truth, other, learned(components=other, frozen=False, template_strength=strength)),
        "seeds": picture(X, truth, other, learned(components=other, frozen=False)),
        "unknown": picture(X, truth, nothing, in_order_of(truth, learned())),
    }


def main():
    """Write the pictures into the folder of this file, or into the one on the command line."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, figure in pictures().items():
        drawn = BytesIO()
        figure.savefig(drawn, format="png")
        # Fewer colors make a smaller file.
        Image.open(drawn).convert("RGB").quantize(256).save(folder / f"learning_{name}.png", optimize=True)


if __name__ == "__main__":
    main()
