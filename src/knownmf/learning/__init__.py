"""Learning what is not known of a basis.

``fitting`` has the entry points: :func:`fit_basis` for all data at once, :func:`update_basis` for a stream. They start
from ``starts``, and take the passes of ``passes`` in the order of ``descent``. ``known`` checks what is known.
"""

from knownmf.learning.descent import Callback, Learned
from knownmf.learning.fitting import first_basis, fit_basis, update_basis
from knownmf.learning.known import KnownBasis, known_basis
from knownmf.learning.passes import Loss, Statistics

__all__ = [
    "Callback",
    "KnownBasis",
    "Learned",
    "Loss",
    "Statistics",
    "first_basis",
    "fit_basis",
    "known_basis",
    "update_basis",
]
