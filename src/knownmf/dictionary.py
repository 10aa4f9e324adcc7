"""The class Dictionary: basis vectors with labels, and the settings of their spectrograms."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from knownmf.dictionary_files import FORMAT, FORMAT_VERSION, LONGEST_LABEL, SETTINGS, stored_dictionary
from knownmf.files import written_aside
from knownmf.table_labels import describe_difference, labels_of
from knownmf.validation import check_range, number, real_array, whole_number
from knownmf.wording import counted, listed

__all__ = ["Dictionary"]


class Dictionary:
    """A basis W with a label per component and the settings of the spectrograms that it fits.

    A dictionary does not change: setting an attribute raises an AttributeError. To change something, make a new one:
    ``Dictionary(old.W, labels, **old.settings)``.

    Parameters
    ----------
    W : array_like of shape (n_bins, n_components)
        Nonnegative spectra, one per column, as ``magnitude ** power``. The dictionary keeps a read-only copy.
    labels : sequence of str
        The name of the sound that each component belongs to. A sound may have several components.
    sr : int
        Sample rate in Hz of the recordings that the spectra were taken from.
    n_fft : int, default=2048
        Length of the analysis window in samples; ``n_bins`` must be ``n_fft // 2 + 1``.
    hop_length : int, default=512
        Number of samples from one frame to the next, at most `n_fft`.
    window : str, default="hann"
        Name of the analysis window, as in :func:`scipy.signal.get_window`.
    power : float, default=1.0
        Exponent of the magnitudes: 1 for magnitude, 2 for power spectra.

    Attributes
    ----------
    settings : dict
        `sr`, `n_fft`, `hop_length`, `window` and `power`.
    n_bins, n_components : int
        The shape of `W`.
    names : tuple of str
        The distinct labels, in the order in which they first appear.
    frequencies : ndarray of shape (n_bins,)
        Center of each bin in Hz.

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
    """

    _W: np.ndarray
    labels: tuple[str, ...]
    sr: int
    n_fft: int
    hop_length: int
    window: str
    power: float

    def __init__(
        self,
        W: npt.ArrayLike,
        labels: Sequence[str],
        *,
        sr: int,
        n_fft: int = 2048,
        hop_length: int = 512,
        window: str = "hann",
        power: float = 1.0,
    ) -> None:
        basis = _checked_basis(W)
        names = _checked_labels(labels, basis.shape[1])
        _check_order(W, names)
        vars(self).update(  # not by assignment, which __setattr__ refuses
            _W=basis,
            labels=names,
            sr=whole_number(sr, "sr", meaning="the sample rate in Hz"),
            n_fft=whole_number(n_fft, "n_fft", meaning="the window's length in samples"),
            hop_length=whole_number(hop_length, "hop_length", meaning="the samples from frame to frame"),
            window=_checked_window(window),
            power=number(power, "power", closed="neither", meaning="the exponent of the magnitudes (1 or 2)"),
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
        return functools.partial(type(self), **self.settings), (self._W, self.labels)

    @property
    def W(self) -> np.ndarray:
        """Return the basis, shape (n_bins, n_components), read-only."""
        # A new view each time: NumPy lets the shape of a read-only array be set.
        return self._W.view()

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings of the spectrograms, as keyword arguments for a dictionary with the same settings.

        Examples
        --------
        >>> import numpy as np
        >>> from knownmf import Dictionary
        >>> one = Dictionary(np.ones((3, 1)), ["a"], sr=8000, n_fft=4, hop_length=2)
        >>> one.settings
        {'sr': 8000, 'n_fft': 4, 'hop_length': 2, 'window': 'hann', 'power': 1.0}
        >>> two = Dictionary(np.ones((3, 2)), ["a", "b"], **one.settings)
        """
        return {name: getattr(self, name) for name in SETTINGS}

    @property
    def n_bins(self) -> int:
        """Return the number of frequency bins, ``n_fft // 2 + 1``."""
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
        """Return the center of each bin in Hz, shape (n_bins,)."""
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
        return (
            f"Dictionary({components} of {sounds}: {listed(self.names, 6)}; sr={self.sr}, n_fft={self.n_fft}, "
            f"hop_length={self.hop_length}, window={self.window!r}, power={self.power})"
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the dictionary to one ``.npz`` file, without pickles.

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
        with written_aside(Path(path)) as file:
            np.savez_compressed(
                file,
                allow_pickle=False,
                format=np.array(FORMAT),
                format_version=np.array(FORMAT_VERSION),
                W=self._W,
                labels=np.array(self.labels),
                **{name: np.array(value) for name, value in self.settings.items()},
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a dictionary that :meth:`save` wrote.

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
        W, labels, settings = stored_dictionary(path)
        try:
            return cls(W, labels, **settings)
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


def _checked_labels(labels: Sequence[str], n_components: int) -> tuple[str, ...]:
    """Return the labels as a tuple. Raise unless there is one for each component."""
    if isinstance(labels, str):
        raise ValueError(f"labels is the string {labels!r}; a list with one string per component is needed.")
    checked: tuple[object, ...] = tuple(labels)
    for position, label in enumerate(checked):
        # NumPy pads stored strings with NUL, so a NUL at the end would be lost. File names cannot contain it either.
        if not isinstance(label, str) or not label.strip() or "\0" in label:
            raise ValueError(f"Label {position} is {label!r}; labels are strings that are not empty.")
        if len(label) > LONGEST_LABEL:
            raise ValueError(f"Label {position} has {len(label)} characters, expected at most {LONGEST_LABEL}.")
    if len(checked) != n_components:
        raise ValueError(
            f"W has {n_components} components but there are {len(checked)} labels: pass one per component "
            "(several components may share one)."
        )
    return tuple(str(label) for label in checked)


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
