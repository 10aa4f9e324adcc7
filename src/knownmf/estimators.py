"""scikit-learn's face of the package, and the only place where axes are swapped."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted, check_non_negative, validate_data

from knownmf.activations import Activations, activations
from knownmf.validation import check_range, real_array


class NMF(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    r"""Nonnegative matrix factorization with components that are known, as a scikit-learn transformer.

    The axes are scikit-learn's: X is (n_samples, n_features), that is the transpose ``V.T`` of a spectrogram;
    ``components_`` is (n_components, n_features), the transpose of the basis; ``transform`` returns (n_samples,
    n_components), the transpose of the activations H. ``X ~ transform(X) @ components_``.

    **For those who come from scikit-learn's NMF**: names and the penalised objective are the same, but

    - the loss is Kullback-Leibler unless you say ``beta_loss="frobenius"``;
    - ``tol`` bounds the distance of every sample to its optimum (the relative duality gap), not the last step;
    - the answer for a sample does not depend on the other samples, and penalties do not grow with ``max_iter``;
    - NaN in X means missing.

    The activations minimise, for each sample,

    .. math:: \sum_f d_\beta(x_f | v_f) + \alpha_W\,n_{features}
              \left(l1\_ratio\,\|h\|_1 + \tfrac12 (1 - l1\_ratio)\,\|h\|_2^2\right).

    Parameters
    ----------
    n_components : int, "auto" or None, default "auto"
        Number of components in all; "auto" and None mean as many as are known. More than are known would have to
        be learned, which this version does not do.
    components : array_like, (n_known, n_features)
        The known components, not negative, a component a row.
    frozen : bool or array_like of bool, (n_known,) or (n_known, n_features), default True
        What stays as it is. This version keeps everything: True is the only choice.
    beta_loss : {"kullback-leibler", "frobenius", "itakura-saito"} or float in [-1, 3], default "kullback-leibler"
        The beta-divergence to minimise.
    tol : float, default 1e-4
        Bound on the relative duality gap of every sample (on its KKT residual for beta outside [1, 2]).
    max_iter : int, default 200
        Most Newton steps for a sample.
    alpha_W : float, default 0.0
        Strength of the penalty on the activations (scikit-learn's W), multiplied by the number of features.
    alpha_H : float or "same", default "same"
        Strength of the penalty on free components (scikit-learn's H). Known components are not changed by it.
    l1_ratio : float in [0, 1], default 0.0
        Share of the L1 penalty; the rest is L2.

    Attributes
    ----------
    components_ : (n_components, n_features) ndarray
        The components, bit for bit those given.
    n_components_ : int
        Their number.
    n_features_in_ : int
        Number of features of the components.
    feature_names_in_ : (n_features_in_,) ndarray of str
        Names of the features, where X had any in ``fit``.
    reconstruction_err_ : float
        Square root of twice the divergence between the training data and the model, as in scikit-learn (for
        "frobenius" the norm of the difference). After ``fit``.
    n_iter_ : int
        Newton steps of the sample that needed most. After ``fit``.

    Examples
    --------
    >>> import numpy as np
    >>> basis = np.array([[0.4, 0.4], [0.2, 0.1]])
    >>> model = NMF.from_basis(basis, beta_loss="frobenius", tol=1e-12)
    >>> model.transform([[3.0, 1.2]]).round(6)
    array([[4.5, 3. ]])
    """

    def __init__(
        self,
        n_components: int | str | None = "auto",
        *,
        components: ArrayLike | None = None,
        frozen: ArrayLike = True,
        beta_loss: str | float = "kullback-leibler",
        tol: float = 1e-4,
        max_iter: int = 200,
        alpha_W: float = 0.0,
        alpha_H: float | str = "same",
        l1_ratio: float = 0.0,
    ):
        self.n_components = n_components
        self.components = components
        self.frozen = frozen
        self.beta_loss = beta_loss
        self.tol = tol
        self.max_iter = max_iter
        self.alpha_W = alpha_W
        self.alpha_H = alpha_H
        self.l1_ratio = l1_ratio

    @classmethod
    def from_basis(cls, W: ArrayLike, **parameters: Any) -> Self:
        """Return an estimator that knows its basis: ``transform`` works at once, without ``fit``.

        Parameters
        ----------
        W : array_like, (n_bins, n_components)
            The basis vectors in the orientation of a spectrogram, a vector a column.
        **parameters
            Any other parameter of the estimator.

        Returns
        -------
        NMF

        Raises
        ------
        ValueError
            If W is not two-dimensional, is empty, or holds values that are negative, infinite or NaN.
        """
        model = cls(components=real_array(W, "W", 2).T, **parameters)
        model._set_components()
        return model

    def fit(self, X: ArrayLike, y: None = None) -> Self:
        """Check the components against X, and find how well they explain it.

        Parameters
        ----------
        X : array_like, (n_samples, n_features)
            The data, not negative; NaN means missing.
        y : ignored

        Returns
        -------
        self
        """
        self.fit_transform(X)
        return self

    def fit_transform(self, X: ArrayLike, y: None = None) -> NDArray[np.floating]:
        """Fit and return the activations of X.

        Parameters
        ----------
        X : array_like, (n_samples, n_features)
            The data, not negative; NaN means missing.
        y : ignored

        Returns
        -------
        (n_samples, n_components) ndarray of X's floating type
        """
        data = self._validate(X, reset=True)
        self._set_components(data.shape[1])
        found = self._activations(data)
        self.n_iter_ = int(found.n_iter.max())
        self.reconstruction_err_ = float(np.sqrt(2.0 * self._divergence(found).sum()))
        return found.H.T

    def transform(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return the activations of X, each sample on its own.

        Parameters
        ----------
        X : array_like, (n_samples, n_features)
            The data, not negative; NaN means missing.

        Returns
        -------
        (n_samples, n_components) ndarray of X's floating type
        """
        check_is_fitted(self)
        return self._activations(self._validate(X, reset=False)).H.T

    def inverse_transform(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return the data that activations stand for, ``X @ components_``.

        Parameters
        ----------
        X : array_like, (n_samples, n_components)
            Activations, as ``transform`` returns them.

        Returns
        -------
        (n_samples, n_features) ndarray
        """
        check_is_fitted(self)
        H: NDArray[np.floating] = check_array(X, dtype=(np.float64, np.float32))
        if H.shape[1] != self.n_components_:
            raise ValueError(f"X has {H.shape[1]} columns, expected one for each of {self.n_components_} components.")
        return H @ self.components_.astype(H.dtype, copy=False)

    def score(self, X: ArrayLike, y: None = None) -> float:
        """Return minus the mean divergence between a sample and its model: higher is better, 0 is perfect.

        Parameters
        ----------
        X : array_like, (n_samples, n_features)
            The data, not negative; NaN means missing.
        y : ignored

        Returns
        -------
        float
        """
        check_is_fitted(self)
        return -float(self._divergence(self._activations(self._validate(X, reset=False))).mean())

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _validate(self, X: ArrayLike, reset: bool) -> NDArray[np.floating]:
        data: NDArray[np.floating] = validate_data(
            self, X, reset=reset, dtype=(np.float64, np.float32), ensure_all_finite="allow-nan"
        )
        check_non_negative(data, f"{type(self).__name__} (X)")
        return data

    def _known(self, n_features: int | None) -> ArrayLike:
        """Return the components that are known; ``n_features`` is the number of features of X, where there is an X."""
        if self.components is None:
            raise NotImplementedError(
                "components is None: this version finds the activations of known components and learns none. "
                "Pass components=C of shape (n_known, n_features), or use NMF.from_basis(W)."
            )
        return self.components

    def _set_components(self, n_features: int | None = None) -> None:
        components = real_array(self._known(n_features), "components", 2)
        check_range(components, "components")
        n_known, width = components.shape
        if not components.size:
            raise ValueError(f"components has shape {components.shape}: give at least one component and one feature.")
        if n_features is not None and width != n_features:
            raise ValueError(f"X has {n_features} features, but components has {width}: both need the same columns.")
        self._check_all_known(n_known, width)
        kind = components.dtype if components.dtype in (np.float32, np.float64) else np.float64
        self.components_ = components.astype(kind)
        self.n_components_ = n_known
        self.n_features_in_ = width

    def _check_all_known(self, n_known: int, n_features: int) -> None:
        wanted = n_known if self.n_components in ("auto", None) else self.n_components
        if isinstance(wanted, bool) or not isinstance(wanted, (int, np.integer)) or wanted < n_known:
            raise ValueError(
                f"n_components is {wanted!r} but {n_known} components are known: "
                'pass a whole number that is not smaller, or "auto".'
            )
        if wanted > n_known:
            raise NotImplementedError(
                f"n_components is {wanted} but only {n_known} components are known: learning the other "
                f"{wanted - n_known} is not part of this version. Pass n_components={n_known}, or all components."
            )
        frozen = np.asarray(self.frozen)
        if frozen.dtype != bool or frozen.shape not in ((), (n_known,), (n_known, n_features)):
            raise ValueError(
                f"frozen has shape {frozen.shape} and type {frozen.dtype}, expected one bool, one for each of "
                f"{n_known} components, or one for each of their entries, {(n_known, n_features)}."
            )
        if not frozen.all():
            raise NotImplementedError(
                "frozen is False somewhere: changing known components is not part of this version. Pass frozen=True."
            )

    def _penalties(self) -> tuple[float, float]:
        if not 0.0 <= self.l1_ratio <= 1.0:
            raise ValueError(f"l1_ratio is {self.l1_ratio!r}, expected a number from 0 to 1.")
        if self.alpha_H != "same":
            check_range(real_array(self.alpha_H, "alpha_H", 0), "alpha_H")
        check_range(real_array(self.alpha_W, "alpha_W", 0), "alpha_W")
        alpha = self.alpha_W * self.n_features_in_
        return alpha * self.l1_ratio, alpha * (1.0 - self.l1_ratio)

    def _activations(self, X: NDArray[np.floating]) -> Activations:
        l1, l2 = self._penalties()
        return activations(
            X.T, self.components_.T, self.beta_loss, l1=l1, l2=l2, tol=self.tol, max_iter=self.max_iter
        )  # fmt: skip

    def _divergence(self, found: Activations) -> NDArray[np.float64]:
        """Return the divergence of each sample: its objective without the penalties."""
        l1, l2 = self._penalties()
        H = found.H.astype(np.float64, copy=False)
        return np.maximum(found.objective - l1 * H.sum(axis=0) - 0.5 * l2 * (H * H).sum(axis=0), 0.0)
