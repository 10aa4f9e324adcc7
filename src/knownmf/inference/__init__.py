"""How sure one can be of activations: errors, intervals, goodness of fit and the choice of components.

``errors`` has :func:`standard_errors`, ``resampling`` :func:`bootstrap`, ``fit`` :func:`goodness_of_fit` and
``selection`` :func:`select`. ``frames`` reads the data of some frames as dense rows, ``information`` inverts the Fisher
information of the active components, and ``poisson`` has the moments of the deviance of counts. docs/inference.md has
the formulas and what was measured.
"""

from knownmf.inference.errors import standard_errors
from knownmf.inference.fit import GoodnessOfFit, goodness_of_fit
from knownmf.inference.resampling import Bootstrap, bootstrap
from knownmf.inference.selection import Selection, select

__all__ = ["Bootstrap", "GoodnessOfFit", "Selection", "bootstrap", "goodness_of_fit", "select", "standard_errors"]
