"""Decompose a spectrogram, or any nonnegative matrix, with basis vectors that you already have.

>>> import numpy as np
>>> import knownmf
>>> W = np.array([[0.4, 0.4], [0.2, 0.1]])
>>> knownmf.activations([[3.0], [1.2]], W, tol=1e-9)
Activations(2 components x 1 frames, beta=1: 1 of 1 frames within tol=1e-09, worst relative gap 0.0e+00)

Importing the package imports NumPy and SciPy's sparse matrices only. ``knownmf.NMF`` imports scikit-learn when it is
first used. The modules ``knownmf.audio`` and ``knownmf.plots`` have to be imported by name.
"""

from typing import TYPE_CHECKING

from knownmf.activations import activations, basis
from knownmf.dictionary import Dictionary
from knownmf.inference import bootstrap, goodness_of_fit, select, standard_errors
from knownmf.results import Activations
from knownmf.solver import Solver
from knownmf.threads import get_num_threads, set_num_threads
from knownmf.versions import show_versions

if TYPE_CHECKING:
    from knownmf.estimators import NMF

__version__ = "0.1.0"

__all__ = [
    "NMF",
    "Activations",
    "Dictionary",
    "Solver",
    "__version__",
    "activations",
    "basis",
    "bootstrap",
    "get_num_threads",
    "goodness_of_fit",
    "select",
    "set_num_threads",
    "show_versions",
    "standard_errors",
]


def __getattr__(name: str) -> object:
    """Import `NMF` when it is first used, because scikit-learn is slow to import."""
    if name == "NMF":
        from knownmf.estimators import NMF

        return NMF
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names, including those that are not imported yet."""
    return sorted(__all__)
