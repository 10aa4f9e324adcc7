"""Decompose the spectrogram of a recording into the components of a dictionary, block by block."""

from __future__ import annotations

import contextlib
import math
import os
import reprlib
from collections.abc import Callable, Generator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

import knownmf
from knownmf.activations import Activations
from knownmf.audio.activation_files import activation_writer, check_activations_file
from knownmf.audio.overviews import Overview, OverviewBuilder
from knownmf.audio.recordings import opened
from knownmf.audio.samples import Recording, joined
from knownmf.audio.spectrograms import FrameBlock, expected_frames, frame_blocks, frame_times
from knownmf.dictionary import Dictionary
from knownmf.divergences import beta_of
from knownmf.learning import KnownBasis, Loss, Statistics, fit_basis, known_basis, update_basis
from knownmf.memory import check_memory
from knownmf.observations import Observations
from knownmf.results import Remarks
from knownmf.solver import Progress, Solver
from knownmf.threads import single_threaded_blas
from knownmf.validation import number, whole_number

__all__ = [
    "REST",
    "BlockwiseDecomposition",
    "Decomposition",
    "Progress",
    "Summary",
    "check_learning",
    "decompose",
]

# What to do if there is too little memory, for messages.
SHORTER = "take a shorter recording, or fewer channels, or write the result to files (out=...)"

# The label of components that are learned from the recording.
REST = "rest"

# Number of passes over the recording when components are learned; docs/learning.md shows what more passes would gain.
PASSES = 100

# Components are learned from a spectrogram of at most this number of bytes. Of longer recordings, it has every n-th
# frame; then all frames, so many at a time, update the components once.
LEARNING_BYTES = 2**26
FRAMES_OF_UPDATE = 1024

# A resampling filter does not attenuate frequencies below this share of the Nyquist frequency.
USABLE_BAND = 0.95

# The accuracy of the activations from which only the share of the dictionary is computed.
TOL_OF_SHARE = 1e-3

# A dictionary fits if it explains at least this share of the recording, beside free components at least the second one.
# docs/sounds.md has the measurements.
ENOUGH, ENOUGH_BESIDE_FREE = 0.5, 0.15


@dataclass(frozen=True, eq=False)
class Summary:
    """What is known of a whole decomposition, without its arrays. Two summaries are equal only if they are the same.

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
    is_silent : bool
        Whether the spectrogram is 0.
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
    is_silent: bool
    overview: Overview

    @property
    def fits(self) -> bool:
        """As in :class:`Decomposition`."""
        return fits(self.explained_by_dictionary, self.n_free)


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
        error is as large as the recording, or larger, and 1 for a silent recording. Frequencies that the recording or
        the dictionary does not have, because of its sample rate, do not count. Loud sounds count most: if a soft sound
        is missing, this share is still close to 1.
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
        explain much of each other, and noise much of everything.
        """
        return fits(self.explained_by_dictionary, self.n_free)

    def __repr__(self) -> str:
        n_components, n_frames = self.found.H.shape
        # Rounded down: only 1 is printed as 1.
        explained, own = (math.floor(share * 1e4) / 1e4 for share in (self.explained, self.explained_by_dictionary))
        notes = [f"{own:g} by the dictionary"] if self.n_free or self.adapted else []
        notes += [] if self.fits else ["fits=False"]
        return (
            f"Decomposition(explained={explained:g}{' (' + ', '.join(notes) + ')' if notes else ''}: "
            f"{n_components} components of {len(self.dictionary.names)} sounds x {n_frames} frames, "
            f"{self.found.converged.sum()} of {n_frames} frames within tol={self.found.tol:g})"
        )


def fits(explained_by_dictionary: float, n_free: int) -> bool:
    """Return whether a dictionary explains enough, with this number of free components beside it."""
    return explained_by_dictionary >= (ENOUGH_BESIDE_FREE if n_free else ENOUGH)


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
        `out`, a :class:`Summary` without arrays.

    Raises
    ------
    ValueError
        If the recording is empty or has samples that are not finite, if `free` or `adapt` is out of its range, or if
        `free` is not 0 and the dictionary already has a sound named "rest".
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
    with single_threaded_blas(), opened(y, sr) as recording:
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
                    "explained": summary.explained,
                    "explained_by_dictionary": summary.explained_by_dictionary,
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
        number(tol, "tol")
        whole_number(max_iter, "max_iter")  # before learning, which takes long
        self._recording, self._n_given = recording, dictionary.n_components
        self._progress: Progress = progress or (lambda done, total: None)
        self._n_free, self._is_adapted = free, bool(adapt)
        self._observed = _observed_bins(recording.sr, dictionary)
        self.dictionary = dictionary
        if free or adapt:
            self.dictionary = self._learned(free, adapt, beta_loss)
        self._solver = Solver(self.dictionary.W, beta_loss, weights=self._observed, tol=tol, max_iter=max_iter)
        # With the dictionary as it was given, for its share.
        self._given: Solver | None = None
        if adapt:
            W = np.concatenate([dictionary.W, self.dictionary.W[:, self._n_given :]], axis=1)
            self._given = Solver(W, beta_loss, weights=self._observed, tol=TOL_OF_SHARE, max_iter=max_iter)
            self._given_shares = _Shares(W, self._n_given, dictionary.power, self._observed)
        self._shares = _Shares(self.dictionary.W, self._n_given, dictionary.power, self._observed)
        self._overview = OverviewBuilder(self.dictionary)
        self._remarks = Remarks()
        self._n_frames = self._n_samples = 0
        self._worst, self._is_silent = 0.0, True

    def blocks(self, n_stems: int = 0) -> Generator[tuple[FrameBlock, Activations], None, None]:
        """Yield all frames of the recording in blocks, with their activations."""
        for block in self._frame_blocks(n_stems, self._solve):
            self._n_samples += block.samples.shape[1]
            yield block, self._found

    def collect(self, use: Callable[[FrameBlock, Activations], None] = lambda block, found: None) -> Decomposition:
        """Return the decomposition with all its arrays. `use` is called with each block before."""
        spectrograms, parts = [], []
        for block, found in self.blocks():
            use(block, found)
            spectrograms.append(block.V)
            parts.append(found)
        first = parts[0]
        of_frames: dict[str, Any] = {}
        for item in fields(Activations):
            if item.name != "H" and isinstance(getattr(first, item.name), np.ndarray):
                of_frames[item.name] = np.concatenate([getattr(part, item.name) for part in parts])
        activations = [part.H for part in parts]
        del parts
        H, V = joined(activations, 1), joined(spectrograms, 1)
        summary = self.summary()
        return Decomposition(
            replace(first, H=H, **of_frames),
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
        solver = self._solver
        explained, by_dictionary = self._shares.shares()
        return Summary(
            dictionary=self.dictionary,
            sr=self._recording.sr,
            n_channels=self._recording.n_channels,
            n_samples=self._n_samples,
            n_frames=self._n_frames,
            n_converged=self._n_frames - self._remarks.missed.n_missed,
            beta=solver.beta,
            tol=solver.tol,
            worst=self._worst,
            explained=explained,
            explained_by_dictionary=self._given_shares.shares()[1] if self._given else by_dictionary,
            n_free=self._n_free,
            adapted=self._is_adapted,
            is_silent=self._is_silent,
            overview=self._overview.overview(),
        )

    def _frame_blocks(
        self, n_stems: int, use: Callable[[np.ndarray, Progress], None]
    ) -> Generator[FrameBlock, None, None]:
        """Yield all frames in blocks, each after `use` was called with its spectrogram, and report the progress."""
        n_expected, n_done = _frames_of(self._recording, self.dictionary), 0
        if n_expected:
            self._progress(0, n_expected)
        with contextlib.closing(frame_blocks(self._recording, self.dictionary, n_stems)) as blocks:
            for block in blocks:
                n_frames = block.V.shape[1]
                n_total = n_done + n_frames if block.is_last else max(n_expected, n_done + 2 * n_frames)
                use(block.V, self._progress_from(n_done, n_total))
                n_done += n_frames
                yield block
                self._progress(n_done, n_total)

    def _progress_from(self, n_before: int, n_total: int) -> Progress:
        """Return a function that reports the progress in a block, after this number of frames."""
        return lambda done, _: self._progress(n_before + done, n_total)

    def _solve(self, V: np.ndarray, progress: Progress) -> None:
        """Find the activations of a block, and add what the summary needs."""
        frames = Observations(V, first=self._n_frames)
        found = self._found = self._solver.solve_observations(frames, progress)
        self._remarks.add(frames, found, self._observed)
        self._shares.add(V, found.H)
        if self._given:
            self._given_shares.add(V, self._given.solve_observations(Observations(V)).H)
        self._overview.add(V, found)
        self._is_silent &= not V.any()
        self._worst = max(self._worst, float(found.criterion.max(initial=0.0)))
        self._n_frames += V.shape[1]

    def _learned(self, free: int, adapt: float, beta_loss: str | float) -> Dictionary:
        """Return the dictionary with `free` components learned and, if `adapt` is above 0, its own ones adapted."""
        dictionary, beta, observed = self.dictionary, beta_of(beta_loss), self._observed
        bins = slice(None) if observed is None else observed > 0
        some, sizes = _EvenlySpaced(max(1, LEARNING_BYTES // (8 * dictionary.n_bins))), [0.0]

        def add(V: np.ndarray, progress: Progress) -> None:
            some.add(V)
            sizes[0] += _size(V[bins], beta)

        for _ in self._frame_blocks(0, add):
            pass
        V = some.frames()
        templates = dictionary.W.T

        def known(size: float) -> KnownBasis:
            strength = (1 - adapt) / adapt * size / _size(dictionary.W[bins], beta) if adapt else 0.0
            return known_basis(templates, dictionary.n_components + free, adapt == 0, strength)

        W = fit_basis(
            Observations(V, weights=observed),
            known(_size(V[bins], beta)),
            Loss(beta),
            random_state=0,
            tol=0.0,
            max_iter=PASSES,
            callback=lambda done, _: self._progress(done, PASSES),
        ).W
        del V
        if some.step > 1:
            W = self._updated(W, known(sizes[0]), beta, some.n_seen)
        return Dictionary(W.T, [*dictionary.labels, *[REST] * free], **dictionary.settings)

    def _updated(self, W: NDArray[np.float64], known: KnownBasis, beta: float, n_frames: int) -> NDArray[np.float64]:
        """Return components, one in each row, after an update by each block of the frames of the recording."""
        memory: Statistics | None = None
        pending: list[np.ndarray] = []
        n_seen = 0

        def update(V: np.ndarray) -> None:
            nonlocal W, memory, n_seen
            n_seen += V.shape[1]
            # What is remembered is that of the frames so far: the ties to the templates grow with it.
            tied = known._replace(strength=known.strength * (n_seen / n_frames))
            solver = Solver(W.T, beta, weights=self._observed, tol=TOL_OF_SHARE)
            H = solver.solve_observations(Observations(V)).H.T.astype(np.float64)
            W, memory = update_basis(Observations(V, weights=self._observed), tied, Loss(beta), W, H, memory, 1.0)

        def add(V: np.ndarray, progress: Progress) -> None:
            pending.append(V)
            # Blocks of the same frames, whatever the size of those that are read.
            while sum(part.shape[1] for part in pending) >= FRAMES_OF_UPDATE:
                whole = np.concatenate(pending, axis=1)
                update(whole[:, :FRAMES_OF_UPDATE])
                pending[:] = [whole[:, FRAMES_OF_UPDATE:]]

        for _ in self._frame_blocks(0, add):
            pass
        if any(part.shape[1] for part in pending):
            update(np.concatenate(pending, axis=1))
        return W


class _EvenlySpaced:
    """Every n-th frame of frames that come in blocks, where n is the smallest power of two that leaves few enough.

    Parameters
    ----------
    most : int
        The largest number of frames to keep.
    """

    def __init__(self, most: int):
        self._most, self.n_seen, self._kept = most, 0, [np.zeros((0, 0))]
        self._n_kept, self.step = 0, 1

    def add(self, V: np.ndarray) -> None:
        """Add a block of frames, of shape (n_bins, n_frames)."""
        new = V[:, -self.n_seen % self.step :: self.step]
        self.n_seen += V.shape[1]
        self._kept.append(new if self.step == 1 else new.copy())
        self._n_kept += new.shape[1]
        while self._n_kept > self._most:
            self._kept = [self.frames()[:, ::2].copy()]
            self._n_kept, self.step = self._kept[0].shape[1], 2 * self.step

    def frames(self) -> np.ndarray:
        """Return the frames, of shape (n_bins, n_frames)."""
        return np.concatenate([part for part in self._kept if part.shape[1]] or self._kept[-1:], axis=1)


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
        """Return the share that is explained, and the part of it that belongs to the given components."""
        if self._energy == 0:
            return 1.0, 1.0
        explained = max(0.0, 1 - self._remaining / self._energy)
        is_given = self._n_given == self._W.shape[1]
        return explained, explained if is_given else max(0.0, self._own / self._energy)


def _size(values: np.ndarray, beta: float) -> float:
    """Return the sum of the values to the power of beta, where they are not 0."""
    return float(np.sum(values[values > 0] ** beta))


def check_learning(dictionary: Dictionary | None, free: object, adapt: object) -> Dictionary:
    """Return the dictionary. Raise if `free` or `adapt` is out of its range, or `free` needs the label "rest" twice.

    Also raise if the dictionary is not one, such as the name of a file, or a sample rate in its place.
    """
    if not isinstance(dictionary, Dictionary):
        raise TypeError(
            f"dictionary is {reprlib.repr(dictionary)}, expected a knownmf.Dictionary: the arguments are y, sr and "
            "dictionary, and Dictionary.load reads a file."
        )
    if not dictionary.settings:
        raise ValueError(
            "the dictionary has no settings of spectrograms (sr, n_fft, hop_length, window, power), which recordings "
            "need: make it with knownmf.audio.learn, or pass its sr to Dictionary."
        )
    whole_number(free, "free", 0, "how many components to learn")
    if free and REST in dictionary.names:
        raise ValueError(
            f'the dictionary already has a sound named "{REST}", the label of free components: pass free=0, or a '
            "dictionary with another label."
        )
    number(adapt, "adapt", 0, 1)
    return dictionary


def _observed_bins(sr: int, dictionary: Dictionary) -> np.ndarray | None:
    """Return the weights of the bins: 0 above the highest frequency of the recording, else 1. None if all are 1.

    A recording with a lower sample rate than the dictionary has no information about these bins. With a weight of 1,
    they would count as silence, against sounds that have such frequencies.
    """
    if sr >= dictionary.sr:
        return None
    return (dictionary.frequencies < USABLE_BAND * sr / 2).astype(float)
