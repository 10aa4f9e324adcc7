"""Blocks of frames: where they come from, where work on them runs, and where its results go.

An array in memory is one block. An array that is larger than memory (``numpy.memmap``, ``zarr.Array``,
``h5py.Dataset``, or anything else that has a shape and a type and can be sliced) is read block by block. The blocks of
a Dask array are its chunks, those of a recording are in :mod:`knownmf.audio.spectrograms`. Each block is checked, and
solved by the same :class:`knownmf.Solver`, in the same way. Only ``dask_arrays`` and ``dask_passes`` know of Dask.
"""

from knownmf.blocks.dask_arrays import is_dask
from knownmf.blocks.passes import Part, Parts, collected
from knownmf.blocks.places import parts_of, solve
from knownmf.blocks.questions import Question
from knownmf.blocks.result_arrays import CERTIFICATES
from knownmf.blocks.slices import is_sliced, n_dims_of, read_whole
from knownmf.blocks.solving import BlockSolver, SolverFor, solved

__all__ = [
    "CERTIFICATES",
    "BlockSolver",
    "Part",
    "Parts",
    "Question",
    "SolverFor",
    "collected",
    "is_dask",
    "is_sliced",
    "n_dims_of",
    "parts_of",
    "read_whole",
    "solve",
    "solved",
]
