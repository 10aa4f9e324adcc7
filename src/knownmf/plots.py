"""Pictures of decompositions. The module needs the extra "audio": importing it loads Matplotlib."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from knownmf.extras import audio_extra

with audio_extra():
    from matplotlib import colormaps
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import FuncFormatter

if TYPE_CHECKING:
    from knownmf.activations import Activations
    from knownmf.audio import Decomposition, Event
    from knownmf.dictionary import Dictionary

__all__ = ["decomposition_picture"]

# Okabe and Ito's palette, which colour-blind eyes tell apart, without its black and its yellow (too faint on white).
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_RANGE_DB = 80.0  # below the loudest, what the spectrogram shows
_BASIS_RANGE_DB = 50.0  # below a component's own maximum, what the basis shows
_LOWEST_HZ = 30.0
_ROWS = 420  # of the log-frequency images
_COLUMNS = 1400  # of the images over time: more than pixels are there
_CURVES = 14  # up to so many sounds each has its own curve; beyond, a row of an image
_EVENTS_PER_LANE = 80  # beyond, marks from floor to ceiling would hide the curves
_TICKS_PER_LANE = 400  # beyond, even ticks would flow together into a bar
_GAP_FLOOR = 1e-10  # the gap's axis ends here; a proven zero lies on the floor
_GAP_CEILING = 10.0  # a frame without a bound lies here
_QUIET = "#444444"


def decomposition_picture(decomposition: Decomposition, *, events: Iterable[Event] | None = None) -> Figure:
    """Draw the spectrogram, the basis beside it, the activations and the gap of each frame below it.

    Parameters
    ----------
    decomposition : Decomposition
        What :func:`knownmf.audio.decompose` found, or the `decomposition` of a separation or transcription.
    events : iterable of Event, optional
        Marked in the lanes of their labels.

    Returns
    -------
    matplotlib.figure.Figure
        1600 x 1120 pixels at its own resolution; bound to no window and to no state of pyplot. Save it with
        ``savefig``.

    Notes
    -----
    The strength of a sound at a moment is the sum over its components of h_k times the sum of w_k: what the sound
    contributes to the spectrogram, whatever the scale of its basis vectors. Long recordings are drawn by the maximum of
    neighbouring frames, so that no hit and no bad frame gets lost.

    Examples
    --------
    >>> import numpy as np
    >>> from knownmf.audio import decompose, learn
    >>> from knownmf.plots import decomposition_picture
    >>> tone = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
    >>> found = decompose(0.5 * tone, 8000, learn({"tone": [(tone, 8000)]}))
    >>> decomposition_picture(found).get_size_inches()
    array([16. , 11.2])
    """
    spacing = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06, wspace=0.02, hspace=0.02)
    figure = Figure(figsize=(16, 11.2), dpi=100, layout=spacing)
    FigureCanvasAgg(figure)
    dictionary = decomposition.dictionary
    n_names = len(dictionary.names)
    lanes_height = float(np.clip(0.32 * n_names, 1.6, 4.2))
    grid = figure.add_gridspec(3, 2, width_ratios=(1, 4.6), height_ratios=(4.2, lanes_height, 1.1))
    heard = figure.add_subplot(grid[0, 1])
    basis = figure.add_subplot(grid[0, 0], sharey=heard)
    lanes = figure.add_subplot(grid[1, 1], sharex=heard)
    gap = figure.add_subplot(grid[2, 1], sharex=heard)
    words = figure.add_subplot(grid[1:, 0])

    colours = _colours(n_names)
    edges = _time_edges(decomposition)
    _draw_spectrogram(heard, decomposition, edges)
    _draw_basis(basis, dictionary, colours)
    _draw_lanes(lanes, decomposition, colours, edges)
    if events is not None:
        _mark_events(lanes, events, dictionary.names)
    _draw_gap(gap, decomposition.found, edges)
    _draw_words(words, decomposition)
    for axes in (heard, lanes):
        axes.tick_params(labelbottom=False)
    heard.set_xlim(edges)
    return figure


def _draw_spectrogram(axes: Axes, decomposition: Decomposition, edges: tuple[float, float]) -> None:
    dictionary = decomposition.dictionary
    image = _log_rows(_fewer(decomposition.V, _COLUMNS), dictionary.frequencies)
    level = _decibels(image, float(image.max()), dictionary.power, _RANGE_DB)
    bottom, top = np.log2(_span(dictionary.frequencies))
    shown = axes.imshow(
        level,
        origin="lower",
        aspect="auto",
        extent=(*edges, bottom, top),
        cmap="magma",
        vmin=-_RANGE_DB,
        vmax=0,
        interpolation="nearest",
    )
    axes.set_title("Spectrogram", loc="left", fontweight="bold")
    axes.yaxis.set_label_position("right")
    axes.yaxis.tick_right()
    _label_frequencies(axes, dictionary)
    axes.set_ylabel("frequency (Hz)")
    bar = axes.figure.colorbar(shown, ax=axes, pad=0.01, aspect=30)
    bar.set_label("dB below the loudest")
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "\u2212")))


def _draw_basis(axes: Axes, dictionary: Dictionary, colours: Sequence[str]) -> None:
    """Each component as a column of ink of its sound's colour, sounds side by side."""
    columns = [dictionary.components_of(name) for name in dictionary.names]
    order = np.concatenate(columns)
    rows = _log_rows(dictionary.W[:, order], dictionary.frequencies)
    peaks = np.maximum(rows.max(axis=0, keepdims=True), np.finfo(float).tiny)
    ink = 1 + _decibels(rows / peaks, 1.0, dictionary.power, _BASIS_RANGE_DB) / _BASIS_RANGE_DB
    owners = np.repeat(np.arange(len(columns)), [len(own) for own in columns])
    tint = np.array([to_rgb(colour) for colour in colours])[owners]
    picture = 1 - ink[:, :, None] * (1 - tint[None, :, :])
    bottom, top = np.log2(_span(dictionary.frequencies))
    axes.imshow(picture, origin="lower", aspect="auto", extent=(0, len(order), bottom, top), interpolation="nearest")
    bounds = np.concatenate([[0], np.cumsum([len(own) for own in columns])])
    if len(columns) <= 4 * _CURVES:
        for bound in bounds[1:-1]:
            axes.axvline(bound, color="white", linewidth=4)
            axes.axvline(bound, color="#bbbbbb", linewidth=0.8)
    shown = _spread(len(columns), 15)
    axes.set_xticks((bounds[:-1] + bounds[1:])[shown] / 2)
    crowded = sum(len(dictionary.names[index]) + 2 for index in shown) > 34
    axes.set_xticklabels(
        [_short(dictionary.names[index]) for index in shown],
        rotation=90 if crowded else 0,
        fontsize=9 if crowded else 10,
    )
    axes.tick_params(axis="x", length=0)
    axes.tick_params(axis="y", labelleft=True, labelright=False, left=True, right=False)
    axes.set_title(f"Basis: {dictionary.n_components} known spectra", loc="left", fontweight="bold")
    axes.set_ylabel("frequency (Hz)")


def _draw_lanes(axes: Axes, decomposition: Decomposition, colours: Sequence[str], edges: tuple[float, float]) -> None:
    """One lane per sound, the first on top: curves for a few sounds, an image for many."""
    dictionary = decomposition.dictionary
    weight = dictionary.W.sum(axis=0)[:, None] * decomposition.found.H
    strength = np.stack([weight[dictionary.components_of(name)].sum(axis=0) for name in dictionary.names])
    # Shares of the loudest moment, on a square-root scale, which leaves a soft hit beside a loud one visible.
    height = np.sqrt(_fewer(strength, _COLUMNS) / max(float(strength.max()), np.finfo(float).tiny))
    n_names, n_columns = height.shape
    times = edges[0] + (np.arange(n_columns) + 0.5) * (edges[1] - edges[0]) / n_columns
    if n_names <= _CURVES:
        for lane, (curve, colour) in enumerate(zip(height, colours, strict=True)):
            floor = n_names - lane - 1
            axes.axhline(floor, color="#dddddd", linewidth=0.8, zorder=1)
            axes.fill_between(times, floor, floor + 0.92 * curve, color=colour, linewidth=0, alpha=0.9, zorder=2)
    else:
        axes.imshow(
            height[::-1],
            origin="lower",
            aspect="auto",
            extent=(*edges, 0, n_names),
            cmap="Greys",
            vmin=0,
            vmax=1,
            interpolation="nearest",
        )
    shown = _spread(n_names, 20)
    axes.set_yticks([n_names - lane - 0.5 for lane in shown])
    axes.set_yticklabels([_short(dictionary.names[lane]) for lane in shown], fontsize=10 if n_names <= _CURVES else 8)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(0, n_names)
    axes.set_title("Activations: strength of each sound", loc="left", fontweight="bold")
    axes.set_title("square-root scale", loc="right", fontsize=9, color=_QUIET)


def _mark_events(axes: Axes, events: Iterable[Event], names: Sequence[str]) -> None:
    """A tick at each onset, and a thin line to the offset, as far as there is room for them."""
    marked = "marked at their onsets"
    lanes = {name: len(names) - lane - 1 for lane, name in enumerate(names)}
    known = [event for event in events if event.label in lanes]
    floors = np.array([lanes[event.label] for event in known], dtype=float)
    onsets = np.array([event.onset_s for event in known])
    offsets = np.array([event.offset_s for event in known])
    colour = "black" if len(names) <= _CURVES else "#D55E00"
    busiest = int(np.max(np.unique(floors, return_counts=True)[1], initial=0))
    if busiest > _TICKS_PER_LANE:
        marked = "too many to mark"
    elif busiest > _EVENTS_PER_LANE:
        axes.vlines(onsets, floors + 0.9, floors + 0.98, color=colour, linewidth=0.5, zorder=4)
    else:
        axes.vlines(onsets, floors + 0.04, floors + 0.96, color=colour, linewidth=1.1, zorder=4)
        axes.hlines(floors + 0.04, onsets, offsets, color=colour, linewidth=1.4, zorder=4)
    axes.set_title(f"{len(known)} events {marked}; square-root scale", loc="right", fontsize=9, color=_QUIET)


def _draw_gap(axes: Axes, found: Activations, edges: tuple[float, float]) -> None:
    """The certificate of each frame on a log axis, with the line it should lie under."""
    tol, certified = found.tol, 1 <= found.beta <= 2
    worst = _fewer(found.criterion[None, :], _COLUMNS)[0]
    times = edges[0] + (np.arange(len(worst)) + 0.5) * (edges[1] - edges[0]) / max(len(worst), 1)
    within = worst <= tol
    floored = np.clip(worst, _GAP_FLOOR, _GAP_CEILING)
    axes.axhspan(_GAP_FLOOR / 10, tol, color="#009E73", alpha=0.08, linewidth=0)
    axes.axhline(tol, color="#009E73", linewidth=1.2, linestyle="--")
    axes.plot(times[within], floored[within], ".", color="#0072B2", markersize=3)
    axes.plot(times[~within], floored[~within], "^", color="#D55E00", markersize=6)
    axes.set_yscale("log")
    top = max(10 * tol, 3 * float(floored.max(initial=0.0)))
    axes.set_ylim(_GAP_FLOOR / 2, top)
    axes.text(edges[1], tol, f"tol {_percent(tol)} ", ha="right", va="bottom", fontsize=9, color="#00704f")
    name = (
        "Gap: how far from the optimum, at most" if certified else "KKT residual: conditions of an optimum, missed by"
    )
    axes.set_title(name, loc="left", fontweight="bold")
    axes.set_title("per frame; zero is drawn at the bottom", loc="right", fontsize=9, color=_QUIET)
    axes.set_yticks([1e-10, 1e-8, 1e-6, 1e-4, 1e-2] if top < 0.1 else [1e-10, 1e-7, 1e-4, 1e-1])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _percent(value)))
    axes.minorticks_off()
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_xlabel("time (s)")


def _draw_words(axes: Axes, decomposition: Decomposition) -> None:
    """The figures, in the corner that the axes leave free."""
    dictionary, found = decomposition.dictionary, decomposition.found
    axes.set_axis_off()
    share = float(np.mean(found.converged))
    n_components, n_frames = found.H.shape
    sounds = "sound" if len(dictionary.names) == 1 else "sounds"
    lines = (
        (f"{np.floor(1000 * decomposition.explained) / 10:g} %", "of the recording explained"),
        (f"{np.floor(1000 * share) / 10:g} %", f"of {n_frames} frames within {_percent(found.tol)}"),
        (f"{n_components}", f"spectra of {len(dictionary.names)} {sounds}, all known"),
    )
    for line, (number, meaning) in enumerate(lines):
        place: dict[str, Any] = {"xy": (0, 1), "xycoords": "axes fraction", "textcoords": "offset points", "va": "top"}
        axes.annotate(number, xytext=(0, -6 - 78 * line), fontsize=26, fontweight="bold", **place)
        axes.annotate(meaning, xytext=(0, -39 - 78 * line), fontsize=11, color=_QUIET, **place)
    settings = f"{dictionary.sr} Hz, window {dictionary.n_fft}, hop {dictionary.hop_length}"
    axes.text(0.0, 0.03, settings, fontsize=9, color=_QUIET, va="bottom", transform=axes.transAxes)


def _time_edges(decomposition: Decomposition) -> tuple[float, float]:
    """The left edge of the first frame and the right edge of the last."""
    half = 0.5 * decomposition.dictionary.hop_length / decomposition.dictionary.sr
    times = decomposition.times
    return (float(times[0]) - half, float(times[-1]) + half)


def _span(frequencies: np.ndarray) -> tuple[float, float]:
    """The band that is drawn: from the first bin that a log axis can hold, but not from far below hearing."""
    top = float(frequencies[-1])
    return min(max(float(frequencies[1]) / 2, _LOWEST_HZ), top / 4), top


def _log_rows(matrix: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """Rows evenly spaced in log frequency: between bins where they are sparse, their maximum where dense."""
    bottom, top = _span(frequencies)
    borders = np.geomspace(bottom, top, _ROWS + 1)
    places = np.sqrt(borders[:-1] * borders[1:]) / (frequencies[1] - frequencies[0])
    low = np.minimum(places.astype(int), len(frequencies) - 2)
    part = (places - low)[:, None]
    rows = (1 - part) * matrix[low] + part * matrix[low + 1]
    first = np.searchsorted(frequencies, borders[:-1])
    last = np.searchsorted(frequencies, borders[1:])
    for row in np.flatnonzero(last - first > 1):
        rows[row] = matrix[first[row] : last[row]].max(axis=0)
    return rows


def _fewer(matrix: np.ndarray, most: int) -> np.ndarray:
    """At most so many columns, each the maximum of neighbours."""
    n_columns = matrix.shape[1]
    if n_columns <= most:
        return np.asarray(matrix, dtype=float)
    starts = np.arange(most) * n_columns // most
    return np.maximum.reduceat(np.asarray(matrix, dtype=float), starts, axis=1)


def _decibels(values: np.ndarray, reference: float, power: float, depth: float) -> np.ndarray:
    """20 log10 of magnitudes over a reference, no lower than `-depth`; silence is `-depth` throughout."""
    if reference <= 0:
        return np.full(values.shape, -depth)
    floor = 10 ** (-depth * power / 20)
    return 20 / power * np.log10(np.maximum(values / reference, floor))


def _label_frequencies(axes: Axes, dictionary: Dictionary) -> None:
    bottom, top = _span(dictionary.frequencies)
    marks = [m * 10.0**decade for decade in range(0, 6) for m in (1, 2, 5) if bottom <= m * 10.0**decade <= top]
    axes.set_yticks(np.log2(marks))
    axes.set_yticklabels([f"{mark / 1000:g}k" if mark >= 1000 else f"{mark:g}" for mark in marks])
    axes.set_ylim(np.log2(bottom), np.log2(top))


def _colours(number: int) -> list[str]:
    """Distinct colours for a few sounds; for many, an even walk through a colour map."""
    if number <= len(_PALETTE):
        return list(_PALETTE[:number])
    walk = colormaps["viridis"](np.linspace(0, 0.85, number))
    return ["#{:02x}{:02x}{:02x}".format(*(int(255 * part) for part in colour[:3])) for colour in walk]


def _spread(number: int, most: int) -> list[int]:
    """At most so many indices, evenly spaced, the first among them."""
    step = -(-number // most)
    return list(range(0, number, max(step, 1)))


def _short(label: str) -> str:
    # A dollar sign would start Matplotlib's mathematics.
    shown = label if len(label) <= 14 else label[:13] + "\u2026"
    return shown.replace("$", r"\$")


def _percent(share: float) -> str:
    """A share as per cent; where that is tiny, its power of ten."""
    if share >= 1e-5 or share <= 0:
        return f"{100 * share:.4g} %"
    power = str(int(np.floor(np.log10(share) + 2 + 1e-9)))
    return (
        "10"
        + power.translate(
            str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
        )
        + " %"
    )
