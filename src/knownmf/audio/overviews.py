"""Reduce a decomposition of any length to what a picture of it shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from knownmf.activations import Activations
from knownmf.dictionary import Dictionary

__all__ = ["Overview", "OverviewBuilder"]

# A decomposition with more frames than this is reduced until it has no more columns. Pictures have fewer.
MOST_COLUMNS = 4096


@dataclass(frozen=True, eq=False)
class Overview:
    """A decomposition with at most `MOST_COLUMNS` columns, each of which has the maximum of consecutive frames.

    Attributes
    ----------
    V : ndarray of shape (n_bins, n_columns)
        The spectrogram.
    strength : ndarray of shape (n_sounds, n_columns)
        What each sound contributes to the spectrogram: the sum over its components of h_k times the sum of w_k.
    criterion : ndarray of shape (n_columns,)
        The criterion that the tolerance bounds.
    frames_per_column : int
        The number of frames of each column but the last one.
    """

    V: np.ndarray
    strength: np.ndarray
    criterion: np.ndarray
    frames_per_column: int


class OverviewBuilder:
    """Make an :class:`Overview` of frames that come in blocks.

    Parameters
    ----------
    dictionary : Dictionary
        The dictionary of the decomposition.
    """

    def __init__(self, dictionary: Dictionary):
        self._sums = dictionary.W.sum(axis=0)[:, np.newaxis]
        self._own = [dictionary.components_of(name) for name in dictionary.names]
        self._n_bins = dictionary.n_bins
        self._columns: list[np.ndarray] = []  # blocks of complete columns
        self._n_columns = 0
        self._begun, self._n_begun = np.zeros((0, 1)), 0  # the next column, and of how many frames it is the maximum
        self._group = 1

    def add(self, V: np.ndarray, found: Activations) -> None:
        """Add a block of frames."""
        weight = self._sums * found.H
        strength = [weight[own].sum(axis=0) for own in self._own]
        block = np.concatenate([V, np.array(strength), found.criterion[np.newaxis]])
        if self._n_begun:
            n_first = min(self._group - self._n_begun, block.shape[1])
            self._begin(np.concatenate([self._begun, block[:, :n_first]], axis=1), self._n_begun + n_first)
            block = block[:, n_first:]
        n_whole = block.shape[1] // self._group
        whole, rest = np.split(block, [n_whole * self._group], axis=1)
        if n_whole:
            self._append(whole.reshape(len(block), n_whole, self._group).max(axis=2))
        if rest.shape[1]:
            self._begin(rest, rest.shape[1])
        while self._n_columns > MOST_COLUMNS:
            self._halve()

    def overview(self) -> Overview:
        """Return the overview of all frames so far."""
        columns = np.concatenate(self._columns + [self._begun] * (self._n_begun > 0), axis=1)
        V, strength, criterion = np.split(columns, [self._n_bins, self._n_bins + len(self._own)])
        return Overview(V, strength, criterion[0], self._group)

    def _begin(self, frames: np.ndarray, n_frames: int) -> None:
        """Begin the next column with the maximum of some columns, which stand for `n_frames` frames."""
        self._begun, self._n_begun = frames.max(axis=1, keepdims=True), n_frames
        if n_frames == self._group:
            self._append(self._begun)
            self._n_begun = 0

    def _append(self, columns: np.ndarray) -> None:
        """Append complete columns."""
        self._columns.append(columns)
        self._n_columns += columns.shape[1]

    def _halve(self) -> None:
        """Make one column of each pair of columns."""
        columns = np.concatenate(self._columns, axis=1)
        n_pairs, is_odd = divmod(columns.shape[1], 2)
        paired = columns[:, : 2 * n_pairs].reshape(len(columns), n_pairs, 2).max(axis=2)
        self._columns, self._n_columns, self._group = [paired], n_pairs, 2 * self._group
        if is_odd:
            begun = [columns[:, -1:]] + [self._begun] * (self._n_begun > 0)
            self._begin(np.concatenate(begun, axis=1), self._group // 2 + self._n_begun)
