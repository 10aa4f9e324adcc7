"""Separate a recording into one stem per sound, block by block."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from knownmf.activations import Activations
from knownmf.audio.adaptation import REST, check_learning
from knownmf.audio.decomposition import (
    SHORTER,
    BlockwiseDecomposition,
    Decomposition,
    Progress,
    Summary,
    result_memory,
)
from knownmf.audio.recordings import RecordingWriter, opened, wav_format
from knownmf.audio.samples import Recording, Resampler, joined, resampled_length
from knownmf.audio.spectrograms import FrameBlock, Synthesis, frame_times
from knownmf.dictionary import Dictionary
from knownmf.files import allow_open_files, errors_with_name, file_names, files_written_aside
from knownmf.memory import check_memory
from knownmf.threads import get_num_threads, other_threads, single_threaded_blas
from knownmf.validation import number
from knownmf.wording import listed

__all__ = ["Separation", "allow_stems", "separate", "stem_names"]

# What takes the samples of each stem: a file, or a list of blocks.
_Writers = Mapping[str, RecordingWriter | list[np.ndarray]]

# How many names of stems the repr lists.
_NAMES_SHOWN = 6


@dataclass(frozen=True, eq=False, repr=False)
class Separation:
    """The result of :func:`separate`. Two results are equal only if they are the same object.

    Attributes
    ----------
    stems : dict of str to ndarray of shape (n_channels, n_samples), or to Path
        One recording per sound, in the order of ``decomposition.dictionary.names``. The stems add up to the recording.
        If they were written to files, the names of the files.
    decomposition : Decomposition or Summary
        The activations from which the stems were computed, with their certificates; a summary if the stems were written
        to files.
    format : str or None
        The format of the files: "WAV", or "RF64" if they may have more than 4 GiB.
    """

    stems: dict[str, np.ndarray] | dict[str, Path]
    decomposition: Decomposition | Summary
    format: str | None = None

    def __repr__(self) -> str:
        names = [repr(name) for name in self.stems]
        first = next(iter(self.stems.values()))
        if isinstance(first, np.ndarray):
            what = f"stems of {first.shape[0]} channels x {first.shape[1]} samples"
        else:
            what = f"{self.format} files"
        return f"Separation({len(names)} {what}: {listed(names, _NAMES_SHOWN)})"


def separate(
    y: npt.ArrayLike | str | os.PathLike[str],
    sr: int | None = None,
    dictionary: Dictionary | None = None,
    *,
    mask_power: float = 1.5,
    free: int = 0,
    adapt: float = 0.0,
    beta_loss: str | float = "kullback-leibler",
    tol: float = 1e-4,
    max_iter: int = 200,
    out: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Separation:
    """Separate a recording into one stem per sound of a dictionary.

    The spectra of the recording are multiplied by one mask per sound,

        mask_l = M_l ** mask_power / sum_j M_j ** mask_power,   M_l = (W_l H_l) ** (1 / power),

    where M_l are the magnitudes of sound l in the model. All channels have the same masks, and the phase is that of the
    recording. Bins where the model is zero are shared equally.

    A part of the recording may be missing in the spectrogram: the frequencies above the highest one of the dictionary,
    if the recording has a higher sample rate, and rounding errors. This part is distributed among the sounds in
    proportion to their magnitudes in the highest octave of the spectrogram at the same moment. Therefore the stems add
    up to the recording.

    Parameters
    ----------
    y : array_like of shape (n_samples,) or (n_channels, n_samples), or path
        The recording: samples, or the name of a file, which is read in blocks.
    sr : int, optional
        Sample rate of the recording in Hz; not for a file.
    dictionary : Dictionary
        The sounds to search for.
    mask_power : float, default=1.5
        Above 0. With 1, a bin is shared in proportion to magnitudes, with 2 in proportion to powers. With larger
        values, more of it goes to the strongest sound.
    free, adapt
        As in :func:`decompose`. The `free` components together are one more stem, "rest".
    beta_loss, tol, max_iter
        As in :func:`knownmf.activations`.
    out : path, optional
        A folder for the stems, which are then written block by block and not kept in memory: one ``.wav`` file with
        32-bit floats for each sound. Files with these names are replaced. They are RF64 files, which are WAV files for
        more than 4 GiB, if the recording is so long, or if its length is not known at the beginning.
    progress : callable, optional
        Called as ``progress(done, total)``, as in :func:`decompose`.

    Returns
    -------
    Separation
        The stems, which have the channels, length and sample rate of the recording, and the decomposition. With `out`,
        the names of the files, and a :class:`Summary`.

    Raises
    ------
    ValueError
        If the recording is empty or has samples that are not finite, if `mask_power`, `free` or `adapt` is out of its
        range, if `free` is not 0 and the dictionary already has a sound named "rest", or if a stem would replace the
        recording.
    TypeError
        If `dictionary` is not a :class:`knownmf.Dictionary`.
    MemoryError
        If the result needs more memory than there is.
    OSError
        If a file cannot be read or written, or if the system does not allow as many open files as there are stems. The
        limit of the process (`ulimit -n`) is raised if that is possible.

    Notes
    -----
    The recording is processed in blocks of some seconds. The stems do not depend on their size, and `out` makes the
    memory independent of the length of the recording.

    The masks follow C. Févotte, N. Bertin and J.-L. Durrieu, "Nonnegative matrix factorization with the Itakura-Saito
    divergence", Neural Computation 21 (2009), and A. Liutkus and R. Badeau, "Generalized Wiener filtering with
    fractional power spectrograms", ICASSP 2015.
    """
    number(mask_power, "mask_power", closed="neither")
    dictionary = check_learning(dictionary, free, adapt)
    names = stem_names(dictionary, free)
    stems = {} if out is None else {name: Path(out) / file for name, file in names.items()}
    with single_threaded_blas(), opened(y, sr, stems.values()) as recording:
        if out is None:
            memory = result_memory(recording, dictionary, free, len(names))
            check_memory(memory, "separating the recording", SHORTER)
        else:
            allow_stems(names)
        run = BlockwiseDecomposition(
            recording, dictionary, free=free, adapt=adapt, beta_loss=beta_loss, tol=tol, max_iter=max_iter,
            progress=progress,
        )  # fmt: skip
        with other_threads(get_num_threads()) as pool:
            splitter = _Splitter(recording, run.dictionary, mask_power, pool)
            if out is None:
                parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
                decomposition = run.collect(lambda block, found: splitter.split(block, found, parts))
                return Separation({name: joined(part, 1) for name, part in parts.items()}, decomposition)
            wav = wav_format(recording)
            with files_written_aside(Path(out)) as aside:
                with _stem_writers(aside, stems, recording, wav, pool) as writers:
                    for block, found in run.blocks(len(names)):
                        splitter.split(block, found, writers)
                summary = run.summary()
            return Separation(stems, summary, wav)


def stem_names(dictionary: Dictionary, free: int) -> dict[str, str]:
    """Return the name of the file for each stem."""
    return file_names([*dictionary.names, *[REST] * (free > 0)], ".wav")


def allow_stems(names: Collection[str]) -> None:
    """Make sure that the files of all stems can be open at the same time, or raise an OSError."""
    allow_open_files(len(names), f"writing {len(names)} stems", "use a dictionary with fewer sounds")


class _Stem:
    """A stem, in blocks: from spectra at the sample rate of the dictionary to samples at that of the recording."""

    def __init__(self, dictionary: Dictionary, recording: Recording):
        self._synthesis = Synthesis(dictionary)
        self._resampler = Resampler(dictionary.sr, recording.sr, recording.n_channels)
        self.pending = np.zeros((recording.n_channels, 0))  # samples that are not yet written

    def push(self, spectra: np.ndarray, n_samples: int | None) -> None:
        """Append the samples of the next frames to `pending`. `n_samples` is the length of all, after the last ones."""
        new = self._resampler.push(self._synthesis.push(spectra, n_samples), n_samples is not None)
        self.pending = np.concatenate([self.pending, new], axis=1)

    def take(self, n_samples: int) -> np.ndarray:
        """Return pending samples, with zeros at the end if there are too few, and remove them."""
        taken, self.pending = self.pending[:, :n_samples], self.pending[:, n_samples:].copy()
        return np.pad(taken, ((0, 0), (0, n_samples - taken.shape[1])))


class _Splitter:
    """Split blocks of a recording into stems.

    Parameters
    ----------
    recording : Recording
        The recording that the blocks come from.
    dictionary : Dictionary
        The dictionary, with the components that were learned.
    mask_power : float
        As in :func:`separate`.
    pool : ThreadPoolExecutor
        Where the stems are computed.
    """

    def __init__(self, recording: Recording, dictionary: Dictionary, mask_power: float, pool: ThreadPoolExecutor):
        self._sr, self._dictionary, self._mask_power, self._pool = recording.sr, dictionary, mask_power, pool
        self._own = {name: dictionary.components_of(name) for name in dictionary.names}
        self._stems = {name: _Stem(dictionary, recording) for name in dictionary.names}
        self._top = _top_octave(dictionary, recording.sr)
        # What has been read of the recording, but not yet been written; and the number of samples before that.
        self._pending, self._n_written = np.zeros((recording.n_channels, 0)), 0
        # The shares of the stems in the top octave, of shape (n_sounds, n_frames), from the frame `first` on.
        self._shares, self._first = np.zeros((len(self._own), 0)), 0

    def split(self, block: FrameBlock, found: Activations, writers: _Writers) -> None:
        """Split a block; pass the samples that are complete to the writers, or append them to lists."""
        self._pending = np.concatenate([self._pending, block.samples], axis=1)
        n_read = self._n_written + self._pending.shape[1]
        n_resampled = resampled_length(n_read, self._sr, self._dictionary.sr) if block.is_last else None

        def push(name: str, mask: np.ndarray) -> np.ndarray:
            self._stems[name].push(block.spectra * mask, n_resampled)
            return self._share_of_top_octave(mask, block.V)

        shares = self._map(push, self._masks(found.H))
        self._shares = np.concatenate([self._shares, np.array(shares)], axis=1)
        n_samples = self._pending.shape[1] if block.is_last else self._n_complete()
        if n_samples:
            self._write(n_samples, writers)

    def _map(self, work: Callable, *arguments: dict[str, np.ndarray]) -> list:
        """Return what `work` returns for each name and its arguments, computed in threads."""
        names = list(self._own)
        return list(self._pool.map(work, names, *([each[name] for name in names] for each in arguments)))

    def _masks(self, H: np.ndarray) -> dict[str, np.ndarray]:
        """Return the mask of each sound. In each bin, the masks of all sounds sum to 1."""
        W, exponent = self._dictionary.W, self._mask_power / self._dictionary.power

        def model(name: str) -> np.ndarray:
            own = self._own[name]
            return (H[own].T @ W[:, own].T).T  # frame by frame in memory, as the spectra are

        models = dict(zip(self._own, self._map(model), strict=True))
        loudest = functools.reduce(np.maximum, models.values())
        unknown = loudest == 0
        loudest[unknown] = 1

        def weigh(name: str, model: np.ndarray) -> np.ndarray:
            # Division by the largest model of the bin prevents overflow, and keeps the sum of the weights at 1 or
            # above.
            return np.where(unknown, 1, (model / loudest) ** exponent)

        weights = self._map(weigh, models)
        total = functools.reduce(np.add, weights)
        return {name: weight / total for name, weight in zip(models, weights, strict=True)}

    def _share_of_top_octave(self, mask: np.ndarray, V: np.ndarray) -> np.ndarray:
        """Return the share of the magnitude in the highest octave that a mask passes, for each frame.

        If the octave is silent in a frame, it is the mean of the mask there.
        """
        loudness = V[self._top] ** (1 / self._dictionary.power)
        total = loudness.sum(axis=0)
        passed = (mask[self._top] * loudness).sum(axis=0)
        return np.where(total > 0, passed / np.where(total > 0, total, 1), mask[self._top].mean(axis=0))

    def _n_complete(self) -> int:
        """Return how many samples of all stems are known, and lie before the center of the last frame."""
        n_known = min(stem.pending.shape[1] for stem in self._stems.values())
        n_frames = self._first + self._shares.shape[1]
        last_s = (n_frames - 1) * self._dictionary.hop_length / self._dictionary.sr
        return max(0, min(n_known, self._pending.shape[1], int(last_s * self._sr) - self._n_written))

    def _write(self, n_samples: int, writers: _Writers) -> None:
        """Distribute the part of the recording that is missing in the stems, and write the next samples.

        The shares of the frames are interpolated between their centers.
        """
        stems = dict(zip(self._own, self._map(lambda name: self._stems[name].take(n_samples)), strict=True))
        rest = self._pending[:, :n_samples] - sum(stems.values())
        seconds = np.arange(self._n_written, self._n_written + n_samples) / self._sr
        times = frame_times(self._shares.shape[1], self._dictionary, self._first)

        def write(name: str, stem: np.ndarray, share: np.ndarray) -> None:
            stem += rest * np.interp(seconds, times, share)
            writer = writers[name]
            writer.append(stem) if isinstance(writer, list) else writer.write(stem)

        self._map(write, stems, dict(zip(self._own, self._shares, strict=True)))
        self._pending = self._pending[:, n_samples:].copy()
        self._n_written += n_samples
        n_past = max(0, int(np.searchsorted(times, self._n_written / self._sr)) - 1)  # frames that are not needed again
        self._shares, self._first = self._shares[:, n_past:].copy(), self._first + n_past


def _top_octave(dictionary: Dictionary, sr: int) -> np.ndarray:
    """Return which bins belong to the highest octave that the recording and the dictionary have."""
    highest = min(sr, dictionary.sr) / 2
    recorded = dictionary.frequencies[dictionary.frequencies <= highest]
    # The last bin of the recording, where the octave is so narrow that it contains no bin.
    return (dictionary.frequencies >= min(highest / 2, recorded[-1])) & (dictionary.frequencies <= highest)


@contextlib.contextmanager
def _new_file(temporary: Path, path: Path) -> Iterator[BinaryIO]:
    """Open a new file with a temporary name. An error of its last write, at the end, names `path`."""
    file = temporary.open("xb")
    try:
        yield file
    finally:
        with errors_with_name(path):
            file.close()


@contextlib.contextmanager
def _stem_writers(
    aside: Path, stems: dict[str, Path], recording: Recording, wav: str, pool: ThreadPoolExecutor
) -> Iterator[dict[str, RecordingWriter]]:
    """Yield a writer for each stem, into the folder `aside`. libsndfile is called in the threads of the pool only."""
    with contextlib.ExitStack() as stack:

        def begin(path: Path) -> RecordingWriter:
            new = stack.enter_context(_new_file(aside / path.name, path))
            writer = RecordingWriter(new, path, recording.sr, recording.n_channels, wav, "FLOAT")
            stack.callback(writer.discard)
            return writer

        try:
            writers = dict(zip(stems, pool.map(begin, stems.values()), strict=True))
            yield writers
            for _ in pool.map(RecordingWriter.close, writers.values()):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)  # nothing may write when the files are closed
            raise
