"""The class Dictionary: basis vectors with labels and, for sounds, the settings of their spectrograms."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from knownmf.dictionary_files import (
    FORMAT,
    FORMAT_VERSION,
    FORMAT_VERSION_WITHOUT_SETTINGS,
    LONGEST_LABEL,
    SETTINGS,
    stored_dictionary,
)
from knownmf.extras import tables_extra
from knownmf.files import written_aside
from knownmf.table_files import LABELED_ENDINGS, counts_up, read_table, table_ending, write_table
from knownmf.table_labels import describe_difference, labels_of, row_names
from knownmf.validation import check_range, number, real_array, whole_number
from knownmf.wording import counted, listed

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Dictionary"]


class Dictionary:
    """A basis W with a label per component and, for sounds, the settings of the spectrograms that it fits.

    Without `sr`, it is a basis of anything else: of mutational signatures, of spectra of substances, of topics. Its
    bins may have labels, too.

    A dictionary does not change: setting an attribute raises an AttributeError. To change something, make a new one:
    ``Dictionary(old.W, labels, **old.settings)``.

    Parameters
    ----------
    W : array_like of shape (n_bins, n_components)
        Nonnegative basis vectors, one per column; of sounds, the spectra as ``magnitude ** power``. The dictionary
        keeps a read-only copy.
    labels : sequence of str, optional
        The name of the sound, substance, ... that each component belongs to, which may have several components. Not
        needed if W is a table whose columns have names.
    sr : int, optional
        Sample rate in Hz of the recordings that the spectra were taken from. Without it, `n_fft`, `hop_length`,
        `window` and `power` must not be passed either.
    n_fft : int, default=2048
        Length of the analysis window in samples; ``n_bins`` must be ``n_fft // 2 + 1``.
    hop_length : int, default=512
        Number of samples from one frame to the next, at most `n_fft`.
    window : str, default="hann"
        Name of the analysis window, as in :func:`scipy.signal.get_window`.
    power : float, default=1.0
        Exponent of the magnitudes: 1 for magnitude, 2 for power spectra.
    features : sequence of str, optional
        The name of each bin (gene, mutation type, wavelength, ...), all different. By default, the labels of the rows
        if W is a table (pandas). Not for sounds: their bins are `frequencies`.
    units : str, optional
        The unit of the activations, such as "mutations" or "mg/l". Not for sounds.

    Attributes
    ----------
    settings : dict
        `sr`, `n_fft`, `hop_length`, `window` and `power`; empty without `sr`, when each of them is None.
    features : tuple of str, or None
        The names of the bins, if they have any.
    units : str
        The unit of the activations; empty if it is not known.
    n_bins, n_components : int
        The shape of `W`.
    names : tuple of str
        The distinct labels, in the order in which they first appear.
    frequencies : ndarray of shape (n_bins,)
        Center of each bin in Hz. Without `sr`, there is no such attribute.

    Raises
    ------
    ValueError
        If an argument is invalid, or the arguments do not fit together. The message names the argument.
    TypeError
        If W is not an array of real numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from knownmf import Dictionary
    >>> tones = Dictionary(np.eye(5, 2), ["low", "high"], sr=8000, n_fft=8, hop_length=4)
    >>> tones
    Dictionary(2 components of 2 sounds: low, high; sr=8000, n_fft=8, hop_length=4, window='hann', power=1.0)
    >>> tones.frequencies
    array([   0., 1000., 2000., 3000., 4000.])

    Of anything else:

    >>> Dictionary([[0.9, 0.2], [0.1, 0.8]], ["SBS1", "SBS5"], features=["C>T", "T>C"], units="mutations")
    Dictionary(2 components: SBS1, SBS5; features: C>T, T>C; units: mutations)
    """

    _W: np.ndarray
    _has_settings: bool
    labels: tuple[str, ...]
    features: tuple[str, ...] | None
    units: str
    # Without settings, these are None. Functions that need them check that first (`check_learning` in knownmf.audio).
    sr: int
    n_fft: int
    hop_length: int
    window: str
    power: float

    def __init__(
        self,
        W: npt.ArrayLike,
        labels: Sequence[str] | None = None,
        *,
        sr: int | None = None,
        n_fft: int | None = None,
        hop_length: int | None = None,
        window: str | None = None,
        power: float | None = None,
        features: Sequence[str] | None = None,
        units: str = "",
    ) -> None:
        basis = _checked_basis(W)
        names = _checked_labels(_column_labels(W) if labels is None else labels, basis.shape[1])
        _check_order(W, names)
        # Not by assignment, which is refused.
        vars(self).update(_W=basis, labels=names, features=None, units="", _has_settings=sr is not None)
        settings = {"n_fft": n_fft, "hop_length": hop_length, "window": window, "power": power}
        if sr is None:
            _check_absent(settings, "without sr", "pass sr, the sample rate in Hz, if W has spectra of sounds")
            vars(self).update(
                dict.fromkeys(SETTINGS),
                features=_checked_features(row_names(W) or None if features is None else features, basis.shape[0]),
                units=_checked_units(units),
            )
            return
        _check_absent({"features": features, "units": units or None}, "with sr", "leave it out for sounds")
        vars(self).update(
            sr=whole_number(sr, "sr", meaning="the sample rate in Hz"),
            n_fft=whole_number(2048 if n_fft is None else n_fft, "n_fft", meaning="the window's length in samples"),
            hop_length=whole_number(
                512 if hop_length is None else hop_length, "hop_length", meaning="the samples from frame to frame"
            ),
            window=_checked_window("hann" if window is None else window),
            power=number(
                1.0 if power is None else power,
                "power",
                closed="neither",
                meaning="the exponent of the magnitudes (1 or 2)",
            ),
        )
        if self.n_bins != self.n_fft // 2 + 1:
            raise ValueError(
                f"W has {self.n_bins} bins, but n_fft={self.n_fft} makes spectra of {self.n_fft // 2 + 1}: "
                f"pass the n_fft that W was computed with ({2 * (self.n_bins - 1)}, or one more)."
            )
        if self.hop_length > self.n_fft:
            raise ValueError(
                f"hop_length={self.hop_length} exceeds n_fft={self.n_fft}: frames would skip samples; "
                "choose a hop_length of at most n_fft (a quarter of it is usual)."
            )

    def __setattr__(self, name: str, value: object) -> None:
        """Raise an AttributeError, because the values were checked together."""
        raise AttributeError(self._unchangeable(name))

    def __delattr__(self, name: str) -> None:
        """Raise an AttributeError."""
        raise AttributeError(self._unchangeable(name))

    @staticmethod
    def _unchangeable(name: str) -> str:
        """Return the message about an attribute that was set or deleted."""
        return (
            f"{name} cannot be set: a Dictionary does not change. Make a new one, for example "
            "Dictionary(old.W, labels, **old.settings)."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Let pickle and copy call the constructor, so that W is read-only in the new dictionary too."""
        options = self.settings or {"features": self.features, "units": self.units}
        return functools.partial(type(self), **options), (self._W, self.labels)

    @property
    def W(self) -> np.ndarray:
        """Return the basis, shape (n_bins, n_components), read-only."""
        # A new view each time: NumPy lets the shape of a read-only array be set.
        return self._W.view()

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings of the spectrograms, as keyword arguments for a dictionary with the same settings.

        Without `sr`, there are none.

        Examples
        --------
        >>> import numpy as np
        >>> from knownmf import Dictionary
        >>> one = Dictionary(np.ones((3, 1)), ["a"], sr=8000, n_fft=4, hop_length=2)
        >>> one.settings
        {'sr': 8000, 'n_fft': 4, 'hop_length': 2, 'window': 'hann', 'power': 1.0}
        >>> two = Dictionary(np.ones((3, 2)), ["a", "b"], **one.settings)
        """
        return {name: getattr(self, name) for name in SETTINGS} if self._has_settings else {}

    @property
    def n_bins(self) -> int:
        """Return the number of bins; of sounds, ``n_fft // 2 + 1``."""
        return int(self._W.shape[0])

    @property
    def n_components(self) -> int:
        """Return the number of basis vectors."""
        return int(self._W.shape[1])

    @property
    def names(self) -> tuple[str, ...]:
        """Return the distinct labels, in the order in which they first appear."""
        return tuple(dict.fromkeys(self.labels))

    @property
    def frequencies(self) -> np.ndarray:
        """Return the center of each bin in Hz, shape (n_bins,). Without `sr`, raise an AttributeError."""
        if not self.settings:
            raise AttributeError("The dictionary has no sr, so that its bins have no frequencies: see features.")
        return np.arange(self.n_bins) * (self.sr / self.n_fft)

    def components_of(self, label: str) -> np.ndarray:
        """Return the indices of the components with a label.

        Parameters
        ----------
        label : str
            One of `names`.

        Returns
        -------
        ndarray of int
            Columns of `W`, in ascending order.

        Raises
        ------
        ValueError
            If no component has this label.

        Examples
        --------
        >>> import numpy as np
        >>> from knownmf import Dictionary
        >>> kit = Dictionary(np.ones((3, 3)), ["kick", "snare", "kick"], sr=8000, n_fft=4, hop_length=2)
        >>> kit.components_of("kick")
        array([0, 2])
        """
        found = np.flatnonzero([own == label for own in self.labels])
        if not found.size:
            raise ValueError(f"The dictionary has no sound {label!r}; it has {', '.join(self.names)}.")
        return found

    def __repr__(self) -> str:
        components, sounds = counted(self.n_components, "component"), counted(len(self.names), "sound")
        if not self._has_settings:
            features = f"; features: {listed(self.features, 6)}" if self.features else f"; {self.n_bins} features"
            units = f"; units: {self.units}" if self.units else ""
            return f"Dictionary({components}: {listed(self.names, 6)}{features}{units})"
        return (
            f"Dictionary({components} of {sounds}: {listed(self.names, 6)}; sr={self.sr}, n_fft={self.n_fft}, "
            f"hop_length={self.hop_length}, window={self.window!r}, power={self.power})"
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the dictionary to one file.

        That is an ``.npz`` file without pickles or, if the name ends in ``.csv``, ``.tsv``, ``.txt`` (each of them also
        with ``.gz``) or ``.parquet``, a table with a feature in each row and a component in each column. Tables are for
        dictionaries without `sr` only, and do not contain the units.

        The data are written to a temporary file, which is then renamed. A program that reads `path` at the same time
        finds either the old file or the complete new one.

        Parameters
        ----------
        path : str or path-like
            The name of the file. No extension is added.

        Raises
        ------
        OSError
            If the file cannot be written.
        ValueError
            If a table cannot hold the dictionary, because it has settings.

        Examples
        --------
        >>> import numpy as np, tempfile, pathlib
        >>> from knownmf import Dictionary
        >>> kit = Dictionary(np.ones((3, 2)), ["kick", "snare"], sr=8000, n_fft=4, hop_length=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     kit.save(pathlib.Path(folder) / "kit.npz")
        ...     Dictionary.load(pathlib.Path(folder) / "kit.npz").labels
        ('kick', 'snare')
        """
        path = Path(path)
        if table_ending(path) in LABELED_ENDINGS:
            if self.settings:
                raise ValueError(
                    f'"{path}" would be a table, which cannot hold the settings (sr, n_fft, ...): save the dictionary '
                    "in an .npz file."
                )
            write_table(path, self._W, self.features, self.labels, "feature")
            return
        entries: dict[str, Any] = dict(self.settings)
        if not self.settings:
            entries = {"units": self.units} | ({"features": self.features} if self.features else {})
        with written_aside(path) as file:
            np.savez_compressed(
                file,
                allow_pickle=False,
                format=np.array(FORMAT),
                format_version=np.array(FORMAT_VERSION if self.settings else FORMAT_VERSION_WITHOUT_SETTINGS),
                W=self._W,
                labels=np.array(self.labels),
                **{name: np.array(value) for name, value in entries.items()},
            )

    def to_frame(self) -> DataFrame:
        """Return W as a pandas DataFrame, with the features as its index and the labels as its columns.

        Pass it in the place of W to have its labels compared with those of the data: ``activations(V, d.to_frame())``.

        Returns
        -------
        pandas.DataFrame, (n_bins, n_components)
            A copy. Bins without names are numbered; those of sounds have their frequencies.

        Raises
        ------
        MissingPackageError
            If pandas is not installed.

        Examples
        --------
        >>> from knownmf import Dictionary
        >>> Dictionary([[0.9, 0.2], [0.1, 0.8]], ["SBS1", "SBS5"], features=["C>T", "T>C"]).to_frame()
             SBS1  SBS5
        C>T   0.9   0.2
        T>C   0.1   0.8
        """
        with tables_extra():
            import pandas as pd
        rows = self.frequencies if self.settings else self.features
        return pd.DataFrame(self._W, rows, list(self.labels), copy=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a dictionary that :meth:`save` wrote, or a table of basis vectors.

        A table is a file that ends in ``.csv``, ``.tsv``, ``.txt`` (each of them also with ``.gz``) or ``.parquet``. It
        has a basis vector in each column. The first row has the labels, and the first column has the names of the
        features.

        Parameters
        ----------
        path : str or path-like
            The file.

        Returns
        -------
        Dictionary
            The saved dictionary, with exactly the same values.

        Raises
        ------
        OSError
            If the file cannot be opened.
        ValueError
            If the file is not a dictionary, is damaged, or has a later version of the format. The message names the
            file.
        MemoryError
            If the dictionary needs more memory than there is.
        """
        path = Path(path)
        options: dict[str, Any]
        if table_ending(path) in LABELED_ENDINGS:
            readings = {table.layout: table for table in read_table(path)}
            if "both" not in readings:
                raise ValueError(
                    f'"{path}" is not a table of basis vectors with their labels in the first row and the names of the '
                    "features in the first column: add them, or pass an array to Dictionary."
                )
            table = readings["both"]
            features = None if counts_up(table.rows or ()) else table.rows
            W, labels, options = table.values, list(table.columns or ()), {"features": features}
        else:
            W, labels, options = stored_dictionary(path)
        try:
            return cls(W, labels, **options)
        except ValueError as error:
            raise ValueError(f'"{path}" contains an invalid dictionary: {error}') from error


def _checked_basis(W: npt.ArrayLike) -> np.ndarray:
    """Return a read-only copy of a basis in single or double precision. Raise if it is invalid."""
    values = real_array(W, "W", 2)
    if not values.size:
        raise ValueError(f"W has shape {values.shape}; (n_bins, n_components) with at least one of each is needed.")
    check_range(values, "W", kind="factor")
    basis = np.array(values, np.float32 if values.dtype == np.float32 else np.float64, order="C")
    basis.flags.writeable = False
    return basis


def _check_order(W: object, labels: Sequence[str]) -> None:
    """Raise if W is a table whose columns have the given labels in another order."""
    table = labels_of(W)
    columns = list(table[1]) if len(table) == 2 else []
    if columns != list(labels) and sorted(map(str, columns)) == sorted(labels):
        difference = describe_difference("W", columns, "labels", labels)
        raise ValueError(f"labels has the names of the columns of W: {difference}. Pass labels=list(W.columns).")


def _column_labels(W: object) -> list[str]:
    """Return the names of the columns of a table as labels. Raise if W has none."""
    table = labels_of(W)
    columns = table[1] if len(table) == 2 else None
    if columns is None:
        raise ValueError("labels is missing: pass the name of each component, or a table W whose columns have names.")
    return [str(name) for name in columns]


def _check_absent(options: Mapping[str, object], when: str, remedy: str) -> None:
    """Raise if one of some options was passed."""
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"{name}={value!r} was passed {when}: {remedy}.")


def _checked_features(features: Sequence[str] | None, n_bins: int) -> tuple[str, ...] | None:
    """Return the names of the bins. Raise unless there is one for each bin, and all are different."""
    if features is None:
        return None
    names = _checked_texts(features, "features", "Feature")
    if len(names) != n_bins:
        raise ValueError(f"W has {n_bins} bins but there are {len(names)} features: pass one per bin.")
    if len(set(names)) < n_bins:
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise ValueError(f"The feature {twice!r} occurs more than once: the names of features must be different.")
    return names


def _checked_units(units: object) -> str:
    """Return a unit. Raise if it is not a short text."""
    if not isinstance(units, str) or "\0" in units or len(units) > LONGEST_LABEL:
        raise ValueError(f"units is {units!r}, expected a text such as 'mg/l'.")
    return units


def _checked_labels(labels: Sequence[str], n_components: int) -> tuple[str, ...]:
    """Return the labels as a tuple. Raise unless there is one for each component."""
    checked = _checked_texts(labels, "labels", "Label")
    if len(checked) != n_components:
        raise ValueError(
            f"W has {n_components} components but there are {len(checked)} labels: pass one per component "
            "(several components may share one)."
        )
    return checked


def _checked_texts(texts: Sequence[str], name: str, single: str) -> tuple[str, ...]:
    """Return strings as a tuple. Raise if one is empty or too long; the messages call them `name` and `single`."""
    if isinstance(texts, str):
        which = "component" if name == "labels" else "bin"
        raise ValueError(f"{name} is the string {texts!r}; a list with one string per {which} is needed.")
    checked: tuple[object, ...] = tuple(texts)
    for position, text in enumerate(checked):
        # NumPy pads stored strings with NUL, so a NUL at the end would be lost. File names cannot contain it either.
        if not isinstance(text, str) or not text.strip() or "\0" in text:
            raise ValueError(f"{single} {position} is {text!r}; {name} are strings that are not empty.")
        if len(text) > LONGEST_LABEL:
            raise ValueError(f"{single} {position} has {len(text)} characters, expected at most {LONGEST_LABEL}.")
    return tuple(str(text) for text in checked)


def _checked_window(window: object) -> str:
    """Return the name of a window. Raise if SciPy does not have it."""
    if not isinstance(window, str):
        raise ValueError(f"window={window!r}; the name of a window, such as 'hann', is needed.")
    from scipy.signal import get_window  # imported here, because it is slow to import

    try:
        get_window(window, 4)
    except ValueError as error:
        raise ValueError(f"window={window!r} is not a window that scipy.signal.get_window can make: {error}") from error
    return window
