"""What is known of a basis: its components, which entries are frozen, and how strongly others are tied to templates."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from knownmf.table_labels import TableLabels
from knownmf.validation import check_is_array, check_range, penalty, real_array


class KnownBasis(NamedTuple):
    """What is known of a basis, a component a row; the known components come first.

    Attributes
    ----------
    components : (n_components, n_bins) array
        What is known; NaN where nothing is.
    n_known : int
        The number of components of which anything is known.
    free : (n_components, n_bins) array of bool
        The entries that may be learned; the others are frozen.
    strength : (n_components,) float64
        How strongly the free entries of a component are tied to their known values.
    """

    components: NDArray
    n_known: int
    free: NDArray[np.bool_]
    strength: NDArray[np.float64]

    @property
    def template(self) -> NDArray[np.float64]:
        """The known values, 0 where nothing is known."""
        return np.nan_to_num(self.components.astype(np.float64))

    def equals(self, other: "KnownBasis") -> bool:
        """Return whether the same is known of another basis."""
        return (
            np.array_equal(self.components, other.components, equal_nan=True)
            and np.array_equal(self.free, other.free)
            and np.array_equal(self.strength, other.strength)
        )


def known_basis(
    known: ArrayLike | None,
    n_components: Any = "auto",
    frozen: ArrayLike = True,
    template_strength: ArrayLike = 0.0,
    n_features: int | None = None,
    n_started: int | None = None,
) -> KnownBasis:
    """Check what is known of a basis, in the parameters of :class:`knownmf.NMF`, and add rows for unknown components.

    Parameters
    ----------
    known : array_like, (n_known, n_features), or None
        The known components.
    n_components, frozen, template_strength
        As in :class:`knownmf.NMF`.
    n_features : int, optional
        The number of features of the data, if there are data.
    n_started : int, optional
        The number of components of a custom start.

    Raises
    ------
    ValueError
        If shapes do not fit, a value is negative or infinite, or a frozen or tied entry is NaN.
    """
    labels = TableLabels()
    labels.add(known, "components", "components", "features")
    labels.add(frozen, "frozen", "components", "features")
    labels.add(template_strength, "template_strength", "components")
    components = np.empty((0, n_features or 0)) if known is None else real_array(known, "components", 2)
    if known is not None and not components.size:
        raise ValueError(
            f"components has shape {components.shape}: give at least one component and one feature, or None."
        )
    n_known, width = components.shape
    if n_features is not None and width != n_features:
        raise ValueError(f"X has {n_features} features, but components has {width}: both need the same columns.")
    n_components = check_number(n_components, n_known, n_started)
    check_is_array(frozen, "frozen")
    frozen = np.asarray(frozen)
    if frozen.dtype != bool or frozen.shape not in ((), (n_known,), (n_known, width)):
        raise ValueError(
            f"frozen has shape {frozen.shape} and type {frozen.dtype}, expected one bool, one for each of "
            f"{n_known} components, or one for each of their entries, {(n_known, width)}."
        )
    frozen = np.broadcast_to(frozen[:, np.newaxis] if frozen.ndim == 1 else frozen, (n_known, width))
    check_range(components, "components", missing=True, kind="factor")
    check_range(np.where(frozen, components, 0), "components")
    strength = check_strength(template_strength, frozen)
    check_range(np.where((strength == 0.0)[:, np.newaxis], 0, components), "components")
    free = np.ones((n_components, width), np.bool_)
    free[:n_known] = ~frozen
    if n_components > n_known:
        unknown = np.full((n_components - n_known, width), np.nan)
        components = np.vstack([components, unknown.astype(np.result_type(components.dtype, np.float32))])
    return KnownBasis(components, n_known, free, np.append(strength, np.zeros(n_components - n_known)))


def check_number(n_components: Any, n_known: int, n_started: int | None) -> int:
    """Return the number of components, known or not."""
    auto = n_known if n_started is None else n_started
    wanted = auto if n_components in ("auto", None) else n_components
    if isinstance(wanted, bool) or not isinstance(wanted, (int, np.integer)) or wanted < max(n_known, 1):
        raise ValueError(
            f"n_components is {n_components!r} but {n_known} components are known: "
            + ('pass a whole number that is not smaller, or "auto".' if n_known else "pass how many to learn.")
        )
    return int(wanted)


def check_strength(template_strength: ArrayLike, frozen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the strength of each known component's tie to its template, 0 where nothing of it may move."""
    strength = penalty(template_strength, "template_strength", len(frozen))
    movable = ~frozen.all(axis=1)
    useless = (strength > 0.0) & ~movable
    if useless.any() and (np.ndim(template_strength) or not movable.any()):
        raise ValueError(
            f"template_strength is {strength[useless][0]} for component {np.flatnonzero(useless)[0]}, which is "
            "frozen: pass frozen=False for what may move, or template_strength=0."
        )
    if not len(frozen) and np.any(template_strength):
        raise ValueError(
            f"template_strength is {template_strength!r} but no components are known: pass the templates as "
            "components, with frozen=False."
        )
    return np.where(movable, strength, 0.0)
