"""The base class of NMF, with everything but learning."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted, validate_data

from knownmf.blocks import Question, is_dask, is_sliced, parts_of, solve
from knownmf.divergences import beta_of
from knownmf.learning import KnownBasis, Loss, known_basis
from knownmf.limits import LimitArguments
from knownmf.observations import SAMPLES
from knownmf.prepared import PreparedComponents, solve_parts
from knownmf.results import Missed, Remarks
from knownmf.solver import Progress
from knownmf.table_labels import TableLabels, labels_of, row_names
from knownmf.validation import (
    about_complex,
    about_dimensions,
    advice_for_negative,
    check_is_array,
    check_range,
    number,
    real_array,
)

GAP_TOL = 1e-4  # the default tolerance of the activations if some components are learned

Estimator = TypeVar("Estimator", bound="BaseNMF")
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def restored_on_failure(
    method: Callable[Concatenate[Estimator, Arguments], Result],
) -> Callable[Concatenate[Estimator, Arguments], Result]:
    """Decorate a method so that after an error or an interrupt the estimator is as it was before the call."""

    @functools.wraps(method)
    def restoring(self: Estimator, *arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        before = self.__dict__.copy()
        try:
            return method(self, *arguments, **options)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    return restoring


class BaseNMF(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Find activations for the components, and check all parameters and data.

    Subclasses have the parameters of :class:`knownmf.NMF`, and set the components by ``_set_components``.
    """

    # The parameters that are read here; subclasses set them.
    n_components: int | str | None
    components: ArrayLike | None
    frozen: ArrayLike
    template_strength: ArrayLike
    beta_loss: str | float
    tol: float
    gap_tol: float | None
    alpha_W: float
    alpha_H: float | str
    l1_ratio: float
    upper: ArrayLike | None
    total: ArrayLike | None
    max_total: ArrayLike | None

    _prepared: PreparedComponents | None = None
    _follows_parameters = False  # whether the parameters say what the components are, as after from_basis

    def transform(
        self,
        X: ArrayLike,
        *,
        weights: ArrayLike | None = None,
        background: ArrayLike | None = None,
        support: ArrayLike | None = None,
        out: Any = None,
        progress: Progress | None = None,
    ) -> Any:
        """Return the activations of X, each sample on its own.

        Parameters
        ----------
        X : array_like, (n_samples, n_features)
            The data; not negative, except with "frobenius". NaN means missing. Or a sparse matrix, for Kullback-Leibler
            and Frobenius. An array on disk that can be sliced is read in blocks, and the result for a Dask array is a
            Dask array; see :func:`knownmf.activations`.
        weights, background, support : array_like, optional
            As in ``fit``; what was passed there is not remembered.
        out : array, (n_samples, n_components), optional
            Where the activations are written, in memory or on disk.
        progress : callable, optional
            Called as ``progress(samples_done, n_samples)`` as the work proceeds.

        Returns
        -------
        (n_samples, n_components) ndarray of X's floating type, or a Dask array, or ``out``
        """
        self._check_fitted()
        data = self._validate(X, reset=False)
        if out is not None and not hasattr(out, "shape"):
            raise TypeError(f"out is an object of type {type(out).__name__}, expected an array.")
        question = self._ask(X, data, self.n_components_, weights, background, support)
        remarks = Remarks("X", "sample")
        solver_for = self._prepare().solver_for
        found = solve(question, solver_for, remarks, out=out, out_has_frames_in_rows=True, progress=progress)
        self._warn(found, remarks.missed)
        remarks.negative.warn("X")
        return found.H.T if out is None else out

    def inverse_transform(self, X: Any) -> Any:
        """Return the data that activations stand for, ``X @ components_``.

        Parameters
        ----------
        X : array_like, (n_samples, n_components)
            Activations, as ``transform`` returns them.

        Returns
        -------
        (n_samples, n_features) ndarray, or a Dask array if X is one
        """
        self._check_fitted()
        if is_dask(X):
            if X.ndim != 2 or X.shape[1] != self.n_components_:
                raise ValueError(f"X has shape {X.shape}, expected (n_samples, {self.n_components_}).")
            return X @ self.components_.astype(X.dtype, copy=False)
        check_is_array(X, "X")
        with _complex_data_named():
            H: NDArray[np.floating] = check_array(X, dtype=(np.float64, np.float32))
        if H.shape[1] != self.n_components_:
            raise ValueError(f"X has {H.shape[1]} columns, expected one for each of {self.n_components_} components.")
        return H @ self.components_.astype(H.dtype, copy=False)

    def score(
        self,
        X: ArrayLike,
        y: None = None,
        *,
        weights: ArrayLike | None = None,
        background: ArrayLike | None = None,
        support: ArrayLike | None = None,
    ) -> float:
        """Return minus the mean divergence between a sample and its model: higher is better, 0 is perfect.

        Parameters
        ----------
        X : array_like, (n_samples, n_features)
            The data; not negative, except with "frobenius". NaN means missing. Or a sparse matrix, for Kullback-Leibler
            and Frobenius.
        y : ignored
        weights, background, support : array_like, optional
            As in ``fit``; what was passed there is not remembered.

        Returns
        -------
        float
        """
        self._check_fitted()
        data = self._validate(X, reset=False)
        question = self._ask(X, data, self.n_components_, weights, background, support)
        found, _ = solve_parts(parts_of(question), self._prepare(), keeps=False)
        self._warn(found, found.missed)
        return -found.divergence / found.n_frames

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> NDArray[np.object_]:
        """Return the names of the components: the row labels of a table ``components``, else "nmf0", "nmf1", ...

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        (n_components,) ndarray of str
        """
        names: NDArray[np.object_] = super().get_feature_names_out(input_features)
        names[: len(self._known_names)] = self._known_names
        return names

    def __getstate__(self) -> Any:
        # The prepared components take several times the memory of the components, and little time to prepare again.
        return super().__getstate__() | {"_prepared": None}

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = not self._takes_negative
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @property
    def _takes_negative(self) -> bool:
        """Whether the data may be negative: with least squares they may."""
        return self.beta_loss in ("frobenius", 2)

    def _validate(self, X: ArrayLike, reset: bool) -> NDArray[np.floating]:
        """Return X as an array of floating-point numbers or a CSR matrix; missing entries of any kind become NaN."""
        if isinstance(X, np.ma.MaskedArray):
            X = real_array(X, "X", 2)
        if is_sliced(X) or is_dask(X):  # blocks are checked when they are read
            return self._validate_shape(X, reset)
        check_is_array(X, "X")
        with _complex_data_named():
            data = validate_data(self, X, reset=reset, accept_sparse="csr", dtype=None, ensure_all_finite="allow-nan")
        if not issparse(data):
            data = real_array(data, "X", 2)
        if data.dtype not in (np.float64, np.float32):
            data = data.astype(np.float64)
        values = data.data if issparse(data) else data
        if not self._takes_negative and np.fmin.reduce(values, axis=None, initial=0.0) < 0.0:
            raise ValueError(
                f"Negative values in data passed to {type(self).__name__} (X): the smallest is "
                f"{np.fmin.reduce(values, axis=None):.3g}; {advice_for_negative(values, 'X', 'data')}."
            )
        checked: NDArray[np.floating] = data
        return checked

    def _validate_shape(self, X: Any, reset: bool) -> Any:
        """Check what is known of an array that is not in memory."""
        if len(X.shape) != 2:
            raise ValueError(about_dimensions(X.shape, "X", 2))
        if reset and (X.shape[0] == 0 or X.shape[1] == 0):
            raise ValueError(f"X has shape {X.shape}: at least one sample and one feature are needed.")
        return validate_data(self, X, reset=reset, skip_check_array=True)

    def _check_fitted(self) -> None:
        """Raise if there are no components. Apply parameters that have changed since the components were set."""
        check_is_fitted(self, "components_")
        if self._follows_parameters:
            known = self._known(None)
            if known.free.any():
                raise ValueError("The parameters leave something to learn: call fit.")
            self._take_known_components(known)
        elif (self.tol, self.gap_tol) != self._tols:
            self._set_tolerance()

    def _known(self, n_features: int | None, H: ArrayLike | None = None) -> KnownBasis:
        n_started = None if H is None else len(real_array(H, "H", 2))
        return known_basis(
            self.components, self.n_components, self.frozen, self.template_strength, n_features, n_started
        )

    def _ask(
        self,
        X: ArrayLike,
        data: Any,
        n_components: int,
        weights: ArrayLike | None = None,
        background: ArrayLike | None = None,
        support: ArrayLike | None = None,
        start: ArrayLike | None = None,
        start_name: str = "H_init",
    ) -> Question:
        """Return the question that samples are; ``data`` are X as an array."""
        labels = TableLabels()
        is_whole = self.components is not None and len(real_array(self.components, "components", 2)) == n_components
        labels.add(self.components, "components", "components" if is_whole else None, "features")
        labels.add(X, "X", "samples", "features")
        given = weights, background, support, start
        shape = data.shape[1], n_components
        axes = SAMPLES._replace(start=start_name)
        limits = LimitArguments(self.upper, self.total, self.max_total)
        return Question(data, *shape, beta_of(self.beta_loss), *given, axes, labels, limits=limits, must_count=True)

    def _loss(self, n_features: int, n_samples: float) -> Loss:
        """Check the penalties, and return the function that is minimized."""
        l1 = number(self.l1_ratio, "l1_ratio", 0, 1, "both")
        check_range(real_array(self.alpha_W, "alpha_W", 0), "alpha_W")
        alpha_H = self.alpha_W if self.alpha_H == "same" else self.alpha_H
        check_range(real_array(alpha_H, "alpha_H", 0), "alpha_H")
        of_activations, of_basis = self.alpha_W * n_features, float(alpha_H) * n_samples
        l2 = 1.0 - l1
        return Loss(beta_of(self.beta_loss), of_activations * l1, of_activations * l2, of_basis * l1, of_basis * l2)

    def _set_components(
        self, known: KnownBasis, components: NDArray | None = None, dtype: DTypeLike = np.float32
    ) -> None:
        """Set the components, in a type that represents the known ones exactly."""
        of_known = known.components.dtype
        kept = of_known if of_known in (np.float32, np.float64) else np.dtype(np.float64)
        if known.free.any():
            kept = np.result_type(dtype, kept) if known.n_known else np.dtype(dtype)
        self.components_ = (known.components if components is None else components).astype(kept)
        self.n_components_, self.n_features_in_ = self.components_.shape
        self._learns, self._known_names = bool(known.free.any()), row_names(self.components)
        self._set_tolerance()
        self._prepare()
        self._follows_parameters = False

    def _take_known_components(self, known: KnownBasis) -> None:
        """Set components that are known completely, and the names of their features."""
        self._set_components(known)
        self._follows_parameters = True
        self.__dict__.pop("feature_names_in_", None)
        columns = [*labels_of(self.components)][1:]
        if columns and columns[0] is not None and all(isinstance(name, str) for name in columns[0]):
            self.feature_names_in_ = np.array(list(columns[0]), dtype=object)

    def _set_tolerance(self) -> None:
        """Set the tolerance of the activations, and store the parameters that it was computed from."""
        self.gap_tol_, self._tols = self._gap_tol(self._learns), (self.tol, self.gap_tol)

    def _gap_tol(self, learns: bool) -> float:
        """Check both tolerances, and return that of the activations."""
        tol = number(self.tol, "tol")
        if self.gap_tol is not None:
            return number(self.gap_tol, "gap_tol")
        return GAP_TOL if learns or tol == 0.0 else tol

    def _prepare(self) -> PreparedComponents:
        """Return the prepared components; prepare them if anything has changed since they were."""
        now = self.components_, self._loss(self.n_features_in_, 0.0), self.gap_tol_
        if self._prepared is None or not self._prepared.matches(*now):
            self._prepared = PreparedComponents(*now)
        return self._prepared

    def _warn(self, found: Any, missed: Missed) -> None:
        """Warn of samples that missed the tolerance. ``found`` has the name of the criterion."""
        remedy = "Raise gap_tol (its default is tol where all components are known)"
        missed.warn(found.criterion_name, self.gap_tol_, "sample", "gap_tol", remedy)


@contextlib.contextmanager
def _complex_data_named() -> Iterator[None]:
    """Replace the message of scikit-learn about complex data, which prints the data, by one that says what to do."""
    try:
        yield
    except ValueError as error:
        reason = "Complex data not supported"
        if reason not in str(error):
            raise
        raise ValueError(f"{reason}: {about_complex('X')}") from None
