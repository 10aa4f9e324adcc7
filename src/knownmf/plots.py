"""Pictures of activations. The module needs the extra "audio" or "tables": importing it loads Matplotlib."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from knownmf.extras import command_extra
from knownmf.wording import counted, percent, printable

with command_extra():
    from matplotlib import colormaps
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import PowerNorm, to_rgb
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import FuncFormatter, MultipleLocator


if TYPE_CHECKING:
    from knownmf.audio import Decomposition, Event, Summary
    from knownmf.audio.overviews import Overview
    from knownmf.dictionary import Dictionary

__all__ = ["activations_picture", "decomposition_picture"]

# The palette of Okabe and Ito, whose colors color-blind people can distinguish, without black and without yellow
# (which is hard to see on white).
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_RANGE_DB = 80.0  # the range of the spectrogram, below its maximum
_BASIS_RANGE_DB = 50.0  # the range of each component of the basis, below its maximum
_LOWEST_HZ = 30.0
_ROWS = 420  # of the images with a logarithmic frequency axis
_COLUMNS = 1400  # the largest number of columns of the images over time; they have fewer pixels than that
_CURVES = 14  # up to this number of sounds, each is drawn as a curve; more are drawn as the rows of an image
_EVENTS_PER_LANE = 80  # more events are marked with short ticks, as marks of full height would hide the curves
_TICKS_PER_LANE = 400  # more events are not marked, as the ticks would overlap
_GAP_MIN = 1e-10  # the lower end of the axis of the gap; smaller gaps, and 0, are drawn here
_GAP_MAX = 10.0  # infinite gaps are drawn here
_BASIS_CHARACTERS = 30  # so many fit below the basis
_LONG_S = 600.0  # longer recordings have a time axis with hours and minutes, in steps of these seconds
_STEPS_S = (60, 120, 300, 600, 1200, 1800, 3600, 7200)
_MOST_TIMES = 12  # on this axis
_GRAY = "#444444"
_ORANGE = "#D55E00"  # what needs attention
_DOUBT = ":\nare these the right sounds?"


@dataclass(frozen=True, eq=False)
class _Shown:
    """What a picture shows besides the dictionary and the share that is explained.

    Attributes
    ----------
    decomposition : Decomposition or Summary
        The decomposition.
    overview : Overview
        Its arrays, reduced.
    edges : tuple of float
        The times of the left edge of the first column and of the right edge of the last one.
    n_frames, n_converged, beta, tol
        As in :class:`knownmf.audio.Summary`.
    """

    decomposition: Decomposition | Summary
    overview: Overview
    edges: tuple[float, float]
    n_frames: int
    n_converged: int
    beta: float
    tol: float


def activations_picture(
    H: np.ndarray,
    components: Sequence[str] | None = None,
    samples: Sequence[str] | None = None,
    *,
    units: str = "",
) -> Figure:
    """Draw activations as an image, with a component in each row and a sample in each column.

    Parameters
    ----------
    H : ndarray of shape (n_components, n_samples)
        The activations.
    components, samples : sequence of str, optional
        Their names. If there are many, some of them are shown.
    units : str, optional
        The unit of the activations.

    Returns
    -------
    matplotlib.figure.Figure
        A figure of 1600 x 900 pixels. It has no window and is not known to pyplot. Save it with ``savefig``. Colors
        follow the square root of the activations. Of many samples, the maximum of neighboring ones is drawn, and of
        many components, too.

    Examples
    --------
    >>> import numpy as np
    >>> from knownmf.plots import activations_picture
    >>> figure = activations_picture(np.eye(2, 3), ["SBS1", "SBS5"], units="mutations")
    >>> figure.axes[0].get_yticklabels()[0].get_text()
    'SBS1'
    """
    figure = Figure(figsize=(16, 9), dpi=100, layout=ConstrainedLayoutEngine())
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    n_components, n_samples = H.shape
    drawn = _fewer(_fewer(H, _COLUMNS).T, _ROWS).T
    extent = (-0.5, n_samples - 0.5, n_components - 0.5, -0.5)
    # By the square root, so that one large activation does not hide all others.
    norm = PowerNorm(0.5, vmin=0.0, vmax=max(float(np.nanmax(drawn, initial=0.0)), np.finfo(float).tiny))
    image = axes.imshow(drawn, aspect="auto", cmap="magma", norm=norm, interpolation="nearest", extent=extent)
    figure.colorbar(image, label=f"activation ({units})" if units else "activation", pad=0.01)
    for axis, names, number, most, noun in (
        (axes.yaxis, components, n_components, 45, "component"),
        (axes.xaxis, samples, n_samples, 60, "sample"),
    ):
        axis.set_label_text(counted(number, noun))
        if names is not None:
            shown = _spread(number, most)
            axis.set_ticks(shown, [_short(names[place]) for place in shown])
    if samples is not None:
        axes.tick_params(axis="x", rotation=90)
    return figure


def decomposition_picture(decomposition: Decomposition | Summary, *, events: Iterable[Event] | None = None) -> Figure:
    """Draw the spectrogram, the basis to the left of it, and the activations and the gap of each frame below it.

    Parameters
    ----------
    decomposition : Decomposition or Summary
        The result of :func:`knownmf.audio.decompose`, or the `decomposition` of a separation or a transcription.
    events : iterable of Event, optional
        Events to mark, each in the row of its label.

    Returns
    -------
    matplotlib.figure.Figure
        A figure of 1600 x 1120 pixels. It has no window and is not known to pyplot. Save it with ``savefig``.

    Notes
    -----
    The strength of a sound in a frame is the sum over its components of h_k times the sum of w_k. This is what the
    sound contributes to the spectrogram. It does not depend on the scale of the basis vectors. For long recordings, the
    maximum of neighboring frames is drawn, so that every hit and every frame with a large gap stays visible.

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
    _check(decomposition, events)
    spacing = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06, wspace=0.02, hspace=0.02)
    figure = Figure(figsize=(16, 11.2), dpi=100, layout=spacing)
    FigureCanvasAgg(figure)
    dictionary = decomposition.dictionary
    n_names = len(dictionary.names)
    lanes_height = float(np.clip(0.32 * n_names, 1.6, 4.2))
    grid = figure.add_gridspec(3, 2, width_ratios=(1, 4.6), height_ratios=(4.2, lanes_height, 1.1))
    spectrogram = figure.add_subplot(grid[0, 1])
    basis = figure.add_subplot(grid[0, 0], sharey=spectrogram)
    lanes = figure.add_subplot(grid[1, 1], sharex=spectrogram)
    gap = figure.add_subplot(grid[2, 1], sharex=spectrogram)
    summary = figure.add_subplot(grid[1:, 0])

    colors = _colors(n_names)
    shown = _shown(decomposition)
    _draw_spectrogram(spectrogram, shown)
    _draw_basis(basis, decomposition, colors)
    _draw_lanes(lanes, shown, colors)
    if events is not None:
        _mark_events(lanes, events, dictionary.names)
    _draw_gap(gap, shown)
    _draw_summary(summary, shown)
    for axes in (spectrogram, lanes):
        axes.tick_params(labelbottom=False)
    spectrogram.set_xlim(_time_edges(shown.n_frames, dictionary))
    return figure


def _shown(decomposition: Decomposition | Summary) -> _Shown:
    """Return what a picture shows of a decomposition or of the summary of one."""
    from knownmf.audio import Summary  # here: the extra "tables" has pictures, but no audio
    from knownmf.audio.overviews import OverviewBuilder

    dictionary = decomposition.dictionary
    if isinstance(decomposition, Summary):
        overview, n_frames, n_converged = decomposition.overview, decomposition.n_frames, decomposition.n_converged
        beta, tol = decomposition.beta, decomposition.tol
    else:
        found = decomposition.found
        builder = OverviewBuilder(dictionary)
        builder.add(decomposition.V, found)
        overview, beta, tol = builder.overview(), found.beta, found.tol
        n_frames, n_converged = len(found.converged), int(found.converged.sum())
    edges = _time_edges(overview.V.shape[1] * overview.frames_per_column, dictionary)
    return _Shown(decomposition, overview, edges, n_frames, n_converged, beta, tol)


def _check(decomposition: object, events: object) -> None:
    """Raise a TypeError that says what to pass if the arguments are something else, such as a whole transcription."""
    if not (hasattr(decomposition, "found") or hasattr(decomposition, "overview")):
        remedy = "pass its attribute decomposition" if hasattr(decomposition, "decomposition") else "pass one"
        raise TypeError(
            f"decomposition is of type {type(decomposition).__name__}, expected a knownmf.audio.Decomposition, which "
            f"knownmf.audio.decompose returns: {remedy}."
        )
    if hasattr(events, "events"):
        raise TypeError(
            f"events is of type {type(events).__name__}, expected a list of Event: pass its attribute events."
        )


def _draw_spectrogram(axes: Axes, what: _Shown) -> None:
    dictionary = what.decomposition.dictionary
    image = _log_rows(_fewer(what.overview.V, _COLUMNS), dictionary.frequencies)
    level = _decibels(image, float(image.max()), dictionary.power, _RANGE_DB)
    bottom, top = np.log2(_span(dictionary.frequencies))
    shown = axes.imshow(
        level,
        origin="lower",
        aspect="auto",
        extent=(*what.edges, bottom, top),
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
    bar.set_label("dB relative to the loudest")
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "\u2212")))


def _draw_basis(axes: Axes, decomposition: Decomposition | Summary, colors: Sequence[str]) -> None:
    """Draw each component as a column in the color of its sound, ordered by sounds."""
    dictionary = decomposition.dictionary
    columns = [dictionary.components_of(name) for name in dictionary.names]
    order = np.concatenate(columns)
    rows = _log_rows(dictionary.W[:, order], dictionary.frequencies)
    peaks = np.maximum(rows.max(axis=0, keepdims=True), np.finfo(float).tiny)
    intensity = 1 + _decibels(rows / peaks, 1.0, dictionary.power, _BASIS_RANGE_DB) / _BASIS_RANGE_DB
    owners = np.repeat(np.arange(len(columns)), [len(own) for own in columns])
    tint = np.array([to_rgb(color) for color in colors])[owners]
    picture = 1 - intensity[:, :, None] * (1 - tint[None, :, :])
    bottom, top = np.log2(_span(dictionary.frequencies))
    axes.imshow(picture, origin="lower", aspect="auto", extent=(0, len(order), bottom, top), interpolation="nearest")
    bounds = np.concatenate([[0], np.cumsum([len(own) for own in columns])])
    if len(columns) <= 4 * _CURVES:
        for bound in bounds[1:-1]:
            axes.axvline(bound, color="white", linewidth=4)
            axes.axvline(bound, color="#bbbbbb", linewidth=0.8)
    shown = _spread(len(columns), 15)
    axes.set_xticks((bounds[:-1] + bounds[1:])[shown] / 2)
    names = [_short(dictionary.names[index]) for index in shown]
    centers = (bounds[:-1] + bounds[1:])[shown] / 2 * (_BASIS_CHARACTERS / len(order))
    lengths = np.array([len(name) for name in names])
    crowded = bool(np.any(np.diff(centers) < (lengths[:-1] + lengths[1:]) / 2 + 1))
    axes.set_xticklabels(names, rotation=90 if crowded else 0, fontsize=9 if crowded else 10)
    axes.tick_params(axis="x", length=0)
    axes.tick_params(axis="y", labelleft=True, labelright=False, left=True, right=False)
    title = f"Basis: {counted(dictionary.n_components, 'spectrum', 'spectra')}"
    title += ", adapted" if decomposition.adapted else ""
    title += f", {decomposition.n_free} learned" if decomposition.n_free else ""
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_ylabel("frequency (Hz)")


def _draw_lanes(axes: Axes, what: _Shown, colors: Sequence[str]) -> None:
    """Draw one row per sound, the first on top: as curves for few sounds, as an image for many."""
    dictionary, strength, edges = what.decomposition.dictionary, what.overview.strength, what.edges
    # Relative to the maximum, on a square-root scale, so that soft hits stay visible next to loud ones.
    height = np.sqrt(_fewer(strength, _COLUMNS) / max(float(strength.max()), np.finfo(float).tiny))
    n_names, n_columns = height.shape
    times = edges[0] + (np.arange(n_columns) + 0.5) * (edges[1] - edges[0]) / n_columns
    if n_names <= _CURVES:
        for lane, (curve, color) in enumerate(zip(height, colors, strict=True)):
            bottom = n_names - lane - 1
            axes.axhline(bottom, color="#dddddd", linewidth=0.8, zorder=1)
            axes.fill_between(times, bottom, bottom + 0.92 * curve, color=color, linewidth=0, alpha=0.9, zorder=2)
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
    names = [_short(name) for name in dictionary.names]
    if what.decomposition.n_free:
        names[-1] += " (learned)"
        shown[-1] = n_names - 1
    axes.set_yticks([n_names - lane - 0.5 for lane in shown])
    axes.set_yticklabels([names[lane] for lane in shown], fontsize=10 if n_names <= _CURVES else 8)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(0, n_names)
    axes.set_title("Activations: strength of each sound", loc="left", fontweight="bold")
    axes.set_title("square-root scale", loc="right", fontsize=9, color=_GRAY)


def _mark_events(axes: Axes, events: Iterable[Event], names: Sequence[str]) -> None:
    """Mark each event by a line at its onset and a line to its offset; by a short tick if there are many events."""
    marked = "marked at their onsets"
    lanes = {name: len(names) - lane - 1 for lane, name in enumerate(names)}
    known = [event for event in events if event.label in lanes]
    bottoms = np.array([lanes[event.label] for event in known], dtype=float)
    onsets = np.array([event.onset_s for event in known])
    offsets = np.array([event.offset_s for event in known])
    color = "black" if len(names) <= _CURVES else "#D55E00"
    busiest = int(np.max(np.unique(bottoms, return_counts=True)[1], initial=0))
    if busiest > _TICKS_PER_LANE:
        marked = "too many to mark"
    elif busiest > _EVENTS_PER_LANE:
        axes.vlines(onsets, bottoms + 0.9, bottoms + 0.98, color=color, linewidth=0.5, zorder=4)
    else:
        axes.vlines(onsets, bottoms + 0.04, bottoms + 0.96, color=color, linewidth=1.1, zorder=4)
        axes.hlines(bottoms + 0.04, onsets, offsets, color=color, linewidth=1.4, zorder=4)
    axes.set_title(f"{counted(len(known), 'event')} {marked}; square-root scale", loc="right", fontsize=9, color=_GRAY)


def _draw_gap(axes: Axes, what: _Shown) -> None:
    """Draw the criterion of each frame on a logarithmic axis, and the tolerance as a line."""
    tol, certified, edges = what.tol, 1 <= what.beta <= 2, what.edges
    worst = _fewer(what.overview.criterion[None, :], _COLUMNS)[0]
    times = edges[0] + (np.arange(len(worst)) + 0.5) * (edges[1] - edges[0]) / max(len(worst), 1)
    within = worst <= tol
    shown = np.clip(worst, _GAP_MIN, _GAP_MAX)
    axes.axhspan(_GAP_MIN / 10, tol, color="#009E73", alpha=0.08, linewidth=0)
    axes.axhline(tol, color="#009E73", linewidth=1.2, linestyle="--")
    axes.plot(times[within], shown[within], ".", color="#0072B2", markersize=3)
    axes.plot(times[~within], shown[~within], "^", color="#D55E00", markersize=6)
    axes.set_yscale("log")
    top = max(10 * tol, 3 * float(shown.max(initial=0.0)))
    axes.set_ylim(_GAP_MIN / 2, top)
    axes.text(edges[1], tol, f"tol {percent(tol, digits=3)} ", ha="right", va="bottom", fontsize=9, color="#00704f")
    name = (
        "Gap: upper bound on the distance from the optimum"
        if certified
        else "KKT residual: how far the conditions of an optimum are violated"
    )
    axes.set_title(name, loc="left", fontweight="bold")
    each = "per frame" if len(worst) == what.n_frames else "the largest of each pixel"
    axes.set_title(f"{each}; 0 is drawn at the bottom", loc="right", fontsize=9, color=_GRAY)
    axes.set_yticks([1e-10, 1e-8, 1e-6, 1e-4, 1e-2] if top < 0.1 else [1e-10, 1e-7, 1e-4, 1e-1])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value, digits=3)))
    axes.minorticks_off()
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    if edges[1] < _LONG_S:
        axes.set_xlabel("time (s)")
        return
    axes.set_xlabel("time (h:min:s)")
    steps = [step for step in _STEPS_S if edges[1] / step <= _MOST_TIMES]
    axes.xaxis.set_major_locator(
        MultipleLocator(steps[0] if steps else 3600 * math.ceil(edges[1] / 3600 / _MOST_TIMES))
    )
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda second, _: f"{int(second) // 3600}:{int(second) // 60 % 60:02d}:{int(second) % 60:02d}")
    )


def _draw_summary(axes: Axes, what: _Shown) -> None:
    """Write the most important numbers into the corner that has no plot."""
    decomposition = what.decomposition
    dictionary = decomposition.dictionary
    axes.set_axis_off()
    share = what.n_converged / what.n_frames
    n_components, n_frames = dictionary.n_components, what.n_frames
    learned = decomposition.n_free > 0 or decomposition.adapted
    spectra = "spectrum" if n_components == 1 else "spectra"
    sounds = f"{spectra} of {counted(len(dictionary.names), 'sound')}"
    if decomposition.n_free:
        sounds = f"{spectra}, {decomposition.n_free} of them learned"
    if decomposition.is_silent:
        lines = [("silent", "there is nothing to explain", _ORANGE)]
    else:
        lines = [(percent(decomposition.explained), "of the recording explained", "black")]
    if learned and not decomposition.is_silent:
        by = "by the dictionary before adaptation" if decomposition.adapted else "by the dictionary"
        lines.append((percent(decomposition.explained_by_dictionary), by, "black"))
    if not decomposition.fits:
        lines[-1] = (lines[-1][0], lines[-1][1] + _DOUBT, _ORANGE)
    lines.append(
        (percent(share), f"of {counted(n_frames, 'frame')} converged to {percent(what.tol, digits=3)}", "black")
    )
    lines.append((str(n_components), sounds, "black"))
    top = -6
    for number, meaning, color in lines:
        place: dict[str, Any] = {"xy": (0, 1), "xycoords": "axes fraction", "textcoords": "offset points", "va": "top"}
        axes.annotate(number, xytext=(0, top), fontsize=26, fontweight="bold", color=color, **place)
        axes.annotate(meaning, xytext=(0, top - 33), fontsize=11, color=_GRAY, **place)
        top -= (60 if learned else 78) + 14 * meaning.count("\n")
    settings = f"{dictionary.sr} Hz, window {dictionary.n_fft}, hop {dictionary.hop_length}"
    axes.text(0.0, 0.03, settings, fontsize=9, color=_GRAY, va="bottom", transform=axes.transAxes)


def _time_edges(n_frames: int, dictionary: Dictionary) -> tuple[float, float]:
    """Return the times of the left edge of the first frame and of the right edge of the last frame."""
    hop_s = dictionary.hop_length / dictionary.sr
    return -0.5 * hop_s, (n_frames - 0.5) * hop_s


def _span(frequencies: np.ndarray) -> tuple[float, float]:
    """Return the lowest and the highest frequency that are drawn.

    The lowest lies between the first two bins, as a logarithmic axis has no 0, but not below the audible range.
    """
    top = float(frequencies[-1])
    return min(max(float(frequencies[1]) / 2, _LOWEST_HZ), top / 4), top


def _log_rows(matrix: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """Resample the rows of a matrix, one for each bin, to rows that are evenly spaced in logarithmic frequency.

    A row with several bins gets their maximum; other rows are interpolated between two bins.
    """
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
    """Return at most `most` columns, each the maximum of neighboring columns."""
    n_columns = matrix.shape[1]
    if n_columns <= most:
        return np.asarray(matrix, dtype=float)
    starts = np.arange(most) * n_columns // most
    return np.maximum.reduceat(np.asarray(matrix, dtype=float), starts, axis=1)


def _decibels(values: np.ndarray, reference: float, power: float, depth: float) -> np.ndarray:
    """Return the level relative to a reference in decibels, at least `-depth`.

    If the reference is 0, all levels are `-depth`.
    """
    if reference <= 0:
        return np.full(values.shape, -depth)
    smallest = 10 ** (-depth * power / 20)
    return 20 / power * np.log10(np.maximum(values / reference, smallest))


def _label_frequencies(axes: Axes, dictionary: Dictionary) -> None:
    """Label the logarithmic frequency axis at 1, 2 and 5 times each power of ten."""
    bottom, top = _span(dictionary.frequencies)
    marks = [m * 10.0**decade for decade in range(0, 6) for m in (1, 2, 5) if bottom <= m * 10.0**decade <= top]
    axes.set_yticks(np.log2(marks))
    axes.set_yticklabels([f"{mark / 1000:g}k" if mark >= 1000 else f"{mark:g}" for mark in marks])
    axes.set_ylim(np.log2(bottom), np.log2(top))


def _colors(number: int) -> list[str]:
    """Return a color for each sound: from the palette for few sounds, else from a color map."""
    if number <= len(_PALETTE):
        return list(_PALETTE[:number])
    picked = colormaps["viridis"](np.linspace(0, 0.85, number))
    return ["#{:02x}{:02x}{:02x}".format(*(int(255 * part) for part in color[:3])) for color in picked]


def _spread(number: int, most: int) -> list[int]:
    """Return at most `most` of the indices of `number` items, evenly spaced, starting with 0."""
    step = -(-number // most)
    return list(range(0, number, max(step, 1)))


def _short(label: str) -> str:
    """Return a label in at most 14 characters. A dollar sign is escaped, as Matplotlib uses it to mark formulas."""
    label = printable(label)
    shown = label if len(label) <= 14 else label[:13] + "\u2026"
    return shown.replace("$", r"\$")
