"""What the estimator was told, checked: what is known of the components, and what came with the data."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse

from knownmf.validation import check_range, check_sparse, penalty, per_feature, real_array


class Plan(NamedTuple):
    """What is known of the components, checked: a component a row."""

    components: NDArray  # (n_components, n_features), NaN where nothing is known
    n_known: int
    free: NDArray[np.bool_]
    strength: NDArray[np.float64]  # (n_components,)


class Given(NamedTuple):
    """What came with X, checked, a sample a row; one dimension, or a single row, stands for all."""

    weights: NDArray | None
    background: NDArray | None
    support: NDArray | None
    H_init: NDArray | None = None

    def columns(self) -> dict[str, Any]:
        """Return it as ``activations`` takes it: a sample a column."""
        return {name: None if rows is None else rows.T for name, rows in self._asdict().items()}


def check_components(
    known: ArrayLike | None,
    n_components: Any,
    frozen: ArrayLike,
    template_strength: ArrayLike,
    n_features: int | None,
    n_started: int | None,
) -> Plan:
    """Return what is known of the components, with rows for those that are not.

    ``n_features`` is that of X, if there is one; ``n_started`` the number of components of a custom start.
    """
    components = np.empty((0, n_features or 0)) if known is None else real_array(known, "components", 2)
    if known is not None and not components.size:
        raise ValueError(
            f"components has shape {components.shape}: give at least one component and one feature, or None."
        )
    n_known, width = components.shape
    if n_features is not None and width != n_features:
        raise ValueError(f"X has {n_features} features, but components has {width}: both need the same columns.")
    n_components = check_number(n_components, n_known, n_started)
    frozen = np.asarray(frozen)
    if frozen.dtype != bool or frozen.shape not in ((), (n_known,), (n_known, width)):
        raise ValueError(
            f"frozen has shape {frozen.shape} and type {frozen.dtype}, expected one bool, one for each of "
            f"{n_known} components, or one for each of their entries, {(n_known, width)}."
        )
    frozen = np.broadcast_to(frozen[:, np.newaxis] if frozen.ndim == 1 else frozen, (n_known, width))
    check_range(components, "components", missing=True)
    check_range(np.where(frozen, components, 0), "components")
    strength = check_strength(template_strength, frozen)
    check_range(np.where((strength == 0.0)[:, np.newaxis], 0, components), "components")
    free = np.ones((n_components, width), np.bool_)
    free[:n_known] = ~frozen
    if n_components > n_known:
        unknown = np.full((n_components - n_known, width), np.nan)
        components = np.vstack([components, unknown.astype(floating(components.dtype))])
    return Plan(components, n_known, free, np.append(strength, np.zeros(n_components - n_known)))


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


def check_given(
    X: Any,
    beta: float,
    n_components: int,
    weights: ArrayLike | None = None,
    background: ArrayLike | None = None,
    support: ArrayLike | None = None,
    H_init: ArrayLike | None = None,
) -> Given:
    """Return what came with X."""
    if issparse(X):
        check_sparse(beta, weights=weights, background=background)
    shape = X.shape
    activation_shape = (shape[0], n_components)
    given = Given(
        None if weights is None else per_feature(weights, "weights", shape),
        None if background is None else per_feature(background, "background", shape),
        None if support is None else per_feature(support, "support", activation_shape),
        None if H_init is None else per_feature(H_init, "H_init", activation_shape),
    )
    if given.weights is not None and not given.weights.any():
        raise ValueError("weights is 0 everywhere: nothing would count. Pass None to count everything.")
    if given.support is not None:
        if not ((given.support == 0) | (given.support == 1)).all():
            raise ValueError("support holds values other than True and False: pass, for example, H > 0.")
        if not given.support.any():
            raise ValueError("support is False everywhere: no component may be active. Pass None to allow all.")
    return given


def check_penalties(alpha_W: float, alpha_H: float | str, l1_ratio: float) -> None:
    """Raise unless the strengths of the penalties and the share of L1 are what they may be."""
    if not 0.0 <= l1_ratio <= 1.0:
        raise ValueError(f"l1_ratio is {l1_ratio!r}, expected a number from 0 to 1.")
    if alpha_H != "same":
        check_range(real_array(alpha_H, "alpha_H", 0), "alpha_H")
    check_range(real_array(alpha_W, "alpha_W", 0), "alpha_W")


def floating(kind: np.dtype) -> np.dtype:
    """Return the floating type that components of a type are kept in."""
    return kind if kind in (np.float32, np.float64) else np.dtype(np.float64)
