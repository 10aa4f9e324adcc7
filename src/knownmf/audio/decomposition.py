"""Decompose the spectrogram of a recording into the components of a dictionary, block by block."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import knownmf
from knownmf.activations import Activations
from knownmf.audio.activation_files import activation_writer, check_activations_file
from knownmf.audio.adaptation import TOL_OF_SHARE, adapted, check_learning
from knownmf.audio.overviews import Overview, OverviewBuilder
from knownmf.audio.recordings import opened
from knownmf.audio.samples import Recording, joined
from knownmf.audio.spectrograms import FrameBlock, expected_frames, frame_blocks, frame_times, observed_bins
from knownmf.blocks import CERTIFICATES, BlockSolver, SolverFor, solved
from knownmf.dictionary import Dictionary
from knownmf.divergences import beta_of
from knownmf.memory import check_memory
from knownmf.results import Remarks
from knownmf.solver import Progress, Solver
from knownmf.threads import single_threaded_blas
from knownmf.validation import number, whole_number

__all__ = ["BlockwiseDecomposition", "Decomposition", "Progress", "Summary", "decompose"]

# What to do if there is too little memory, for messages.
SHORTER = "take a shorter recording, or fewer channels, or write the result to files (out=...)"

# A dictionary fits if it explains at least this share of the recording, beside free components at least the second one.
# docs/sounds.md has the measurements.
ENOUGH, ENOUGH_BESIDE_FREE = 0.5, 0.15


@dataclass(frozen=True, eq=False, repr=False)
class Summary:
    """What is known of a whole decomposition, without arrays of its length. It is equal to no other summary.

    Attributes
    ----------
    dictionary : Dictionary
        The dictionary that was used: the given one, with the components that were learned from the recording, if any.
    sr, n_channels, n_samples : int
        Sample rate in Hz, number of channels and number of samples of each channel of the recording.
    n_frames, n_converged : int
        The number of frames, and of those within the tolerance.
    beta, tol : float
        The beta-divergence, and the tolerance.
    worst : float
        The largest relative gap of all frames, or KKT residual for a beta outside [1, 2].
    explained, explained_by_dictionary, n_free, adapted
        As in :class:`Decomposition`.
    overview : Overview
        The spectrogram, the strength of the sounds and the criterion, reduced to some thousand columns, for pictures.
    """

    dictionary: Dictionary
    sr: int
    n_channels: int
    n_samples: int
    n_frames: int
    n_converged: int
    beta: float
    tol: float
    worst: float
    explained: float
    explained_by_dictionary: float
    n_free: int
    adapted: bool
    overview: Overview

    @property
    def fits(self) -> bool:
        """As in :class:`Decomposition`."""
        return fits(self.explained_by_dictionary, self.n_free)

    @property
    def is_silent(self) -> bool:
        """As in :class:`Decomposition`."""
        return math.isnan(self.explained)

    def __repr__(self) -> str:
        return _one_line(self, self.n_frames, self.n_converged, self.tol)


@dataclass(frozen=True, eq=False, repr=False)
class Decomposition:
    """The result of :func:`decompose`. Two results are equal only if they are the same object.

    Attributes
    ----------
    found : Activations
        The activations ``found.H``, with a certificate for each frame.
    V : ndarray of shape (n_bins, n_frames)
        The spectrogram of the recording.
    dictionary : Dictionary
        The dictionary that was used: the given one, with the components that were learned from the recording, if any.
    times : ndarray of shape (n_frames,)
        Center of each frame in seconds.
    explained : float
        The share of the energy of the recording that the model explains, 1 - sum((A - Â)**2) / sum(A**2), where A are
        the magnitudes of the recording and Â those of the model, each ``spectrogram ** (1 / power)``. It is 0 if the
        error is as large as the recording, or larger, and NaN for a silent recording, of which there is nothing to
        explain. Frequencies that the recording or the dictionary does not have, because of its sample rate, do not
        count. Loud sounds count most: if a soft sound is missing, this share is still close to 1.
    explained_by_dictionary : float
        The part of `explained` that belongs to the dictionary as it was given, from 0 to 1. Without `free` and `adapt`
        it is equal to `explained`. With `free`, the explained energy of each bin is divided in proportion to the model,
        sum(s * (A**2 - (A - Â)**2)) / sum(A**2), where s is the share of the components of the dictionary in the model.
        With `adapt`, this is computed from other activations: those for the dictionary before it was adapted.
    n_free : int
        The number of components that were learned from the recording. They are the last ones of `dictionary`.
    adapted : bool
        Whether the other components of `dictionary` were adapted to the recording.
    """

    found: Activations
    V: np.ndarray
    dictionary: Dictionary
    times: np.ndarray
    explained: float
    explained_by_dictionary: float
    n_free: int
    adapted: bool

    @property
    def fits(self) -> bool:
        """Whether the dictionary explains enough of the recording to assume that its sounds are in the recording.

        Enough is an `explained_by_dictionary` of at least 0.5, or 0.15 if there are free components. Below, the sounds
        of the recording may be others, or they are too different. That a dictionary fits is no proof: similar sounds
        explain much of each other, and noise much of everything. It is true of a silent recording, which has no other
        sounds.
        """
        return fits(self.explained_by_dictionary, self.n_free)

    @property
    def is_silent(self) -> bool:
        """Whether the recording has no energy at the frequencies that count."""
        return math.isnan(self.explained)

    def __repr__(self) -> str:
        return _one_line(self, self.found.H.shape[1], int(self.found.converged.sum()), self.found.tol)


def _one_line(result: Decomposition | Summary, n_frames: int, n_converged: int, tol: float) -> str:
    """Return a result in one line."""
    if result.is_silent:
        what = "of silence"
    else:
        # Rounded down: only 1 is printed as 1.
        explained, own = (math.floor(share * 1e4) / 1e4 for share in (result.explained, result.explained_by_dictionary))
        notes = [f"{own:g} by the dictionary"] if result.n_free or result.adapted else []
        notes += [] if result.fits else ["fits=False"]
        what = f"explained={explained:g}{' (' + ', '.join(notes) + ')' if notes else ''}"
    dictionary = result.dictionary
    return (
        f"{type(result).__name__}({what}: {dictionary.n_components} components of {len(dictionary.names)} sounds x "
        f"{n_frames} frames, {n_converged} of {n_frames} frames within tol={tol:g})"
    )


def fits(explained_by_dictionary: float, n_free: int) -> bool:
    """Return whether a dictionary explains enough, with this number of free components beside it.

    The share is NaN if there is nothing to explain, which any dictionary does.
    """
    return not explained_by_dictionary < (ENOUGH_BESIDE_FREE if n_free else ENOUGH)


def decompose(
    y: npt.ArrayLike | str | os.PathLike[str],
    sr: int | None = None,
    dictionary: Dictionary | None = None,
    *,
    free: int = 0,
    adapt: float = 0.0,
    beta_loss: str | float = "kullback-leibler",
    tol: float = 1e-4,
    max_iter: int = 200,
    out: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Decomposition | Summary:
    """Find how strongly each component of a dictionary sounds at each moment of a recording.

    If the recording contains sounds that are not in the dictionary, use `free` to learn more components from the
    recording; their label is "rest". If its sounds differ from those in the dictionary (another room, another
    microphone), use `adapt` to let the components of the dictionary change.

    Parameters
    ----------
    y : array_like of shape (n_samples,) or (n_channels, n_samples), or path
        The recording: samples, or the name of a file, which is read in blocks.
    sr : int, optional
        Sample rate of the recording in Hz; not for a file. If it differs from that of the dictionary, the recording is
        resampled. If it is lower, the bins above its highest frequency get a weight of 0.
    dictionary : Dictionary
        The sounds to search for.
    free : int, default=0
        Number of components to learn from the recording, for sounds that are not in the dictionary.
    adapt : float, default=0.0
        How much the components of the dictionary may change, from 0 (not at all) to below 1. At 0.5, a template has the
        same weight as the data of an average component; see Notes.
    beta_loss, tol, max_iter
        As in :func:`knownmf.activations`.
    out : path, optional
        A file for the activations, which are then written block by block and not kept in memory: ``.npz`` (up to 2 GiB
        of activations), ``.zarr`` or ``.csv``. An existing file is replaced.
    progress : callable, optional
        Called as ``progress(done, total)`` in frames. If components are learned, the recording is read several times,
        and ``total`` changes from frames to passes over a part of them, and back.

    Returns
    -------
    Decomposition or Summary
        Activations with their certificates, the spectrogram, the times, and the share that is explained. The
        certificates do not show whether the dictionary is the right one; `fits` of the result does, in most cases. With
        `out`, a :class:`Summary`, without activations and spectrogram.

    Raises
    ------
    ValueError
        If the recording is empty or has samples that are not finite, if `free` or `adapt` is out of its range, if
        `free` is not 0 and the dictionary already has a sound named "rest", or if `out` would replace the recording.
    TypeError
        If `dictionary` is not a :class:`knownmf.Dictionary`.
    MemoryError
        If the result needs more memory than there is.

    Notes
    -----
    Components are learned as by :class:`knownmf.NMF`. The components of the dictionary are frozen if `adapt` is 0.
    Otherwise they are tied to their templates with a strength of
    ``(1 - adapt) / adapt * sum(V ** beta) / sum(W ** beta)``, where the sums are over the entries that are not zero.

    The recording is processed in blocks of some seconds. The result does not depend on their size, and `out` makes the
    memory independent of the length of the recording. To learn components, all frames of the spectrogram are used at
    once as long as they take up to 64 MiB, which are some minutes. Of longer recordings, every n-th frame is used; then
    all frames, block by block, update the components once, as :meth:`knownmf.NMF.partial_fit` does.

    Examples
    --------
    >>> import numpy as np
    >>> from knownmf.audio import decompose, learn
    >>> tone = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
    >>> dictionary = learn({"tone": [(tone, 8000)]})
    >>> found = decompose(0.5 * tone, 8000, dictionary)
    >>> found.explained > 0.9
    True
    """
    dictionary = check_learning(dictionary, free, adapt)
    # Threads of BLAS would wait in loops, and take the processors from the threads here: twice the time, or more.
    with single_threaded_blas(), opened(y, sr, [] if out is None else [Path(out)]) as recording:
        n_components = dictionary.n_components + free
        if out is not None:
            check_activations_file(Path(out), n_components, _frames_of(recording, dictionary))
        else:
            check_memory(result_memory(recording, dictionary, free), "decomposing the recording", SHORTER)
        run = BlockwiseDecomposition(
            recording, dictionary, free=free, adapt=adapt, beta_loss=beta_loss, tol=tol, max_iter=max_iter,
            progress=progress,
        )  # fmt: skip
        if out is None:
            return run.collect()
        with activation_writer(Path(out), run.dictionary) as writer:
            for _, found in run.blocks():
                writer.write(found)
            summary = run.summary()
            writer.finish(
                {
                    "knownmf": knownmf.__version__,
                    "beta_loss": beta_loss,
                    "tol": tol,
                    # JSON has no NaN.
                    "explained": None if summary.is_silent else summary.explained,
                    "explained_by_dictionary": None if summary.is_silent else summary.explained_by_dictionary,
                    "free": free,
                    "adapt": adapt,
                    **dictionary.settings,
                }
            )
        return summary


def result_memory(recording: Recording, dictionary: Dictionary, free: int, n_stems: int = 0) -> float:
    """Return about how many bytes results in memory need: spectrogram, activations, stems. They are joined from blocks.

    It is 0 if the length of the recording is not known.
    """
    n_frames = _frames_of(recording, dictionary)
    of_frames = dictionary.n_bins + dictionary.n_components + free
    return 8 * 1.1 * (of_frames * n_frames + n_stems * recording.n_channels * (recording.n_samples or 0))


def _frames_of(recording: Recording, dictionary: Dictionary) -> int:
    """Return about how many frames a recording has, 0 if its length is not known."""
    return 0 if recording.n_samples is None else expected_frames(recording.n_samples, recording.sr, dictionary)


class BlockwiseDecomposition:
    """A decomposition of a recording, block by block.

    Order of calls: the constructor checks the arguments and learns components, if any are to be learned;
    :meth:`blocks` yields the activations of all frames; then :meth:`summary` returns what is known of all of them.
    :meth:`collect` does both and returns all arrays.

    Parameters
    ----------
    recording : Recording
        The recording.
    dictionary, free, adapt, beta_loss, tol, max_iter, progress
        As in :func:`decompose`.

    Attributes
    ----------
    dictionary : Dictionary
        The dictionary with the components that were learned.
    """

    def __init__(
        self,
        recording: Recording,
        dictionary: Dictionary,
        *,
        free: int = 0,
        adapt: float = 0.0,
        beta_loss: str | float = "kullback-leibler",
        tol: float = 1e-4,
        max_iter: int = 200,
        progress: Progress | None = None,
    ):
        self._tol, max_iter = number(tol, "tol"), whole_number(max_iter, "max_iter")  # before learning takes its time
        self._recording = recording
        self._progress: Progress = progress or (lambda done, total: None)
        self._n_free, self._is_adapted = free, bool(adapt)
        self._beta, observed = beta_of(beta_loss), observed_bins(recording.sr, dictionary)
        self.dictionary = dictionary
        if free or adapt:
            self.dictionary = adapted(self._frames, dictionary, observed, self._beta, free, adapt, self._progress)

        def shares_of(W: np.ndarray) -> _Shares:
            return _Shares(W, dictionary.n_components, dictionary.power, observed)

        self._solver_for = _solver_of(self.dictionary.W, self._beta, self._tol, max_iter)
        self._shares = shares_of(self.dictionary.W)
        # With the dictionary as it was given, for its share.
        self._given: tuple[BlockSolver, _Shares] | None = None
        if adapt:
            W = np.concatenate([dictionary.W, self.dictionary.W[:, dictionary.n_components :]], axis=1)
            self._given = BlockSolver(_solver_of(W, self._beta, TOL_OF_SHARE, max_iter)), shares_of(W)
        self._overview = OverviewBuilder(self.dictionary)
        self._remarks = Remarks()
        self._n_frames = self._n_samples = self._n_total = 0
        self._worst = 0.0

    def blocks(self, n_stems: int = 0) -> Generator[tuple[FrameBlock, Activations], None, None]:
        """Yield all frames of the recording in blocks, with their activations."""
        with contextlib.closing(self._frames(n_stems)) as frames:
            for block, found in solved(frames, self._solver_for, lambda done, _: self._progress(done, self._n_total)):
                self._add(block, found)
                yield block, found

    def collect(self, use: Callable[[FrameBlock, Activations], None] = lambda block, found: None) -> Decomposition:
        """Return the decomposition with all its arrays. `use` is called with each block before."""
        spectrograms, parts = [], []
        for block, found in self.blocks():
            use(block, found)
            spectrograms.append(block.V)
            parts.append(found)
        first = parts[0]
        certificates: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in CERTIFICATES
        }
        activations = [part.H for part in parts]
        del parts
        H, V = joined(activations, 1), joined(spectrograms, 1)
        summary = self.summary()
        return Decomposition(
            replace(first, H=H, **certificates),
            V,
            self.dictionary,
            frame_times(summary.n_frames, self.dictionary),
            summary.explained,
            summary.explained_by_dictionary,
            summary.n_free,
            summary.adapted,
        )

    def summary(self) -> Summary:
        """Return what is known at the end. Warn about frames that missed the tolerance, and if the file is damaged."""
        self._recording.warn()
        self._remarks.warn()
        explained, by_dictionary = self._shares.shares()
        if self._given is not None:
            _, by_dictionary = self._given[1].shares()
        return Summary(
            dictionary=self.dictionary,
            sr=self._recording.sr,
            n_channels=self._recording.n_channels,
            n_samples=self._n_samples,
            n_frames=self._n_frames,
            n_converged=self._n_frames - self._remarks.missed.n_missed,
            beta=self._beta,
            tol=self._tol,
            worst=self._worst,
            explained=explained,
            explained_by_dictionary=by_dictionary,
            n_free=self._n_free,
            adapted=self._is_adapted,
            overview=self._overview.overview(),
        )

    def _frames(self, n_stems: int = 0) -> Generator[FrameBlock, None, None]:
        """Yield all frames in blocks, and report the progress after each of them."""
        n_expected, n_done = _frames_of(self._recording, self.dictionary), 0
        if n_expected:
            self._progress(0, n_expected)
        with contextlib.closing(frame_blocks(self._recording, self.dictionary, n_stems)) as blocks:
            for block in blocks:
                n_done += block.n_frames
                self._n_total = n_done if block.is_last else max(n_expected, n_done + block.n_frames)
                yield block
                self._progress(n_done, self._n_total)

    def _add(self, block: FrameBlock, found: Activations) -> None:
        """Add what the summary needs of a block."""
        self._remarks.add(block, found)
        self._shares.add(block.V, found.H)
        if self._given is not None:
            solver, shares = self._given
            shares.add(block.V, solver.solve(block).H)
        self._overview.add(block.V, found)
        self._worst = max(self._worst, float(found.criterion.max(initial=0.0)))
        self._n_frames += block.n_frames
        self._n_samples += block.samples.shape[1]


class _Shares:
    """The share of the energy that a model explains, of frames that come in blocks.

    Parameters
    ----------
    W : ndarray of shape (n_bins, n_components)
        The components.
    n_given : int
        The number of components of the dictionary, which are the first ones.
    power : float
        The exponent of the spectrogram.
    observed : ndarray of shape (n_bins,) or None
        The weights of the bins: those of weight 0 do not count.
    """

    def __init__(self, W: np.ndarray, n_given: int, power: float, observed: np.ndarray | None):
        self._bins = slice(None) if observed is None else observed > 0
        self._W, self._n_given, self._power = W[self._bins], n_given, power
        self._energy = self._remaining = self._own = 0.0

    def add(self, V: np.ndarray, H: np.ndarray) -> None:
        """Add a block of frames and their activations."""
        heights, power = V[self._bins], self._power
        squares = heights ** (2 / power)
        model = (H.T @ self._W.T).T  # frame by frame in memory, as V is
        errors = (heights ** (1 / power) - model ** (1 / power)) ** 2
        self._energy += float(squares.sum())
        self._remaining += float(errors.sum())
        if self._n_given < self._W.shape[1]:
            given = (H[: self._n_given].T @ self._W[:, : self._n_given].T).T
            share = np.divide(given, model, out=np.zeros_like(model), where=model > 0)
            self._own += float(np.sum(share * (squares - errors)))

    def shares(self) -> tuple[float, float]:
        """Return the share that is explained, and the part of it that belongs to the given components.

        Both are NaN if there is no energy.
        """
        if self._energy == 0:
            return math.nan, math.nan
        explained = max(0.0, 1 - self._remaining / self._energy)
        is_given = self._n_given == self._W.shape[1]
        return explained, explained if is_given else max(0.0, self._own / self._energy)


def _solver_of(W: np.ndarray, beta: float, tol: float, max_iter: int) -> SolverFor:
    """Return what prepares the solver for components, with the weights that all frames share."""
    return lambda weights, support: Solver(W, beta, weights=weights, support=support, tol=tol, max_iter=max_iter)
