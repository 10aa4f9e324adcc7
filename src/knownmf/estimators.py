"""NMF, an estimator with the API and the axes of scikit-learn."""

import warnings
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted, check_non_negative, validate_data

from knownmf.activations import Activations
from knownmf.divergences import beta_of
from knownmf.learning import Callback, KnownBasis, Learned, Loss, Statistics, fit_basis, known_basis, update_basis
from knownmf.learning.starts import start_of
from knownmf.observations import SAMPLES, Observations
from knownmf.prepared import PreparedComponents, not_above
from knownmf.solver import warn_of_missed
from knownmf.validation import check_range, check_sparse, check_tol, level_of_caller, real_array, whole_number

GAP_TOL = 1e-4  # of activations, where something is learned


class NMF(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    r"""Nonnegative matrix factorization with components that are known, in part, softly or not at all.

    The axes are scikit-learn's: X is (n_samples, n_features), that is the transpose ``V.T`` of a spectrogram;
    ``components_`` is (n_components, n_features), the transpose of the basis; ``transform`` returns (n_samples,
    n_components), the transpose of the activations H. ``X ~ transform(X) @ components_``.

    A component is *known* and stays as it is (``frozen``, all of it or some of its entries); or it is a *seed*, known
    but free to move; or it is *softly known*, tied to its template by ``template_strength``; or it is unknown and
    learned from scratch. Without ``components`` this is plain NMF.

    **For those who come from scikit-learn's NMF**: names and the penalised objective are the same, but

    - the loss is Kullback-Leibler unless you say ``beta_loss="frobenius"``;
    - ``tol`` is the relative decrease of the objective per pass at which learning stops; the activations are then
      solved on their own, to within ``gap_tol`` of their optimum, so that ``transform(X)`` is what ``fit_transform(X)``
      returned;
    - the answer for a sample does not depend on the other samples, and penalties do not grow with ``max_iter``;
    - NaN in X means missing; zeros of a start are not stuck at zero.

    Learning lowers, over the activations h of all samples and what is free in the components w,

    .. math:: \sum_{t, f} m_{tf} d_\beta(x_{tf} | v_{tf})
              + \alpha_W n_{features} \sum_{t, k} \left(l1\_ratio\, h_{tk} + \tfrac12 (1 - l1\_ratio)\, h_{tk}^2\right)
              + \sum_{(k, f)\,free} \left(\alpha_H n_{samples} (l1\_ratio\, w_{kf}
              + \tfrac12 (1 - l1\_ratio)\, w_{kf}^2) + s_k d_\beta(w^0_{kf} | w_{kf})\right)

    with the model v = background + h components_, the templates w0 and their strengths s.

    Parameters
    ----------
    n_components : int, "auto" or None, default "auto"
        Number of components in all; "auto" and None mean as many as are known, or as ``H`` of a custom start has. Those
        that are not known are learned.
    components : array_like, (n_known, n_features), optional
        The known components, not negative, a component a row. NaN where an entry that is not frozen is unknown.
    frozen : bool or array_like of bool, (n_known,) or (n_known, n_features), default True
        What stays as it is, to the last bit: everything, some components, or some entries. The rest of the known
        components is where learning starts.
    template_strength : float or array_like (n_known,), default 0.0
        How strongly what is known but not frozen is tied to its values in ``components``: the weight of a sample that
        consists of the template, with activation 1, beside the samples of X. 0 lets it move freely.
    init : {"random", "nndsvd", "nndsvda", "nndsvdar", "custom"} or None, default None
        How unknown components and their activations start, as in scikit-learn; where others are known, on what those
        leave of X. None is "nndsvda", or "random" where there are more components than samples or features, or
        entries of X are missing or weighted. "custom" starts from ``W`` and ``H`` of ``fit_transform``.
    random_state : int, RandomState instance or None, default None
        The source of random numbers for ``init``.
    beta_loss : {"kullback-leibler", "frobenius", "itakura-saito"} or float in [-1, 3], default "kullback-leibler"
        The beta-divergence to minimise.
    tol : float, default 1e-4
        Learning stops when a pass lowers the objective by no more than this share of it. Where everything is known, the
        bound that ``gap_tol`` is otherwise.
    max_iter : int, default 200
        Most passes over the data.
    gap_tol : float or None, default None
        Bound on the relative duality gap of every sample's activations (on the KKT residual for beta outside [1, 2]).
        None is ``tol`` where everything is known, which leaves that nothing else to say; it is 1e-4 where something is
        learned, or ``tol`` is 0.
    alpha_W : float, default 0.0
        Strength of the penalty on the activations (scikit-learn's W), multiplied by the number of features.
    alpha_H : float or "same", default "same"
        Strength of the penalty on what is free in the components (scikit-learn's H), multiplied by the number of
        samples; "same" is ``alpha_W``. Frozen entries are not penalised: that would be a constant.
    l1_ratio : float in [0, 1], default 0.0
        Share of the L1 penalty; the rest is L2.
    forgetting : float in (0, 1], default 0.7
        What ``partial_fit`` multiplies the statistics of the past with at every block; 1 forgets nothing. Those of poor
        components hold back the better ones for long; but blocks of few samples want more than 0.7.
    callback : callable, optional
        Called as ``callback(n_passes, objective)`` after every pass of ``fit``.

    Attributes
    ----------
    components_ : (n_components, n_features) ndarray
        The components, the known ones first; what is frozen is bit for bit what was given.
    n_components_ : int
        Their number.
    n_features_in_ : int
        Number of features of the components.
    feature_names_in_ : (n_features_in_,) ndarray of str
        Names of the features, where X had any in ``fit``.
    objective_history_ : (n_passes,) ndarray
        The objective after every pass, never rising; the last is that of the activations that ``fit_transform``
        returns. After ``fit``.
    reconstruction_err_ : float
        Square root of twice the divergence between the training data and the model, as in scikit-learn (for
        "frobenius" the norm of the difference). After ``fit``.
    n_iter_ : int
        Passes over the data, the last of which solved the activations: 1 where nothing was learned.
    gap_tol_ : float
        The tolerance that ``transform`` holds: that of ``gap_tol``, or less where ``fit`` had learned activations that
        are better than it makes sure.

    Notes
    -----
    A factorization leaves the scale of a component open. Components learned from scratch sum to one, unless a penalty
    on either factor decides their scale; whatever was known, frozen or not, stays in the scale of the user.

    Outside 1 <= beta <= 2 the activations have several stationary points, and those that ``transform`` finds may be
    worse than those that the components were learned with. ``objective_history_`` then ends with what is returned, and
    leaves out the passes that went below it.

    Examples
    --------
    >>> import numpy as np
    >>> basis = np.array([[0.4, 0.4], [0.2, 0.1]])
    >>> model = NMF.from_basis(basis, beta_loss="frobenius", tol=1e-12)
    >>> model.transform([[3.0, 1.2]]).round(6)
    array([[4.5, 3. ]])

    One component is known, another is learned beside it:

    >>> X = np.array([[1.0, 0.0], [2.0, 2.0], [1.0, 2.0]]) @ [[0.5, 0.5, 0.0], [0.0, 0.2, 0.8]]
    >>> model = NMF(2, components=[[0.5, 0.5, 0.0]], random_state=0, tol=1e-8, max_iter=2000).fit(X)
    >>> model.components_.round(2)
    array([[0.5, 0.5, 0. ],
           [0. , 0.2, 0.8]])
    """

    _prepared: PreparedComponents | None = None
    _follows_parameters = False  # whether the parameters say what the components are, as after from_basis

    def __init__(
        self,
        n_components: int | str | None = "auto",
        *,
        components: ArrayLike | None = None,
        frozen: ArrayLike = True,
        template_strength: ArrayLike = 0.0,
        init: str | None = None,
        random_state: Any = None,
        beta_loss: str | float = "kullback-leibler",
        tol: float = 1e-4,
        max_iter: int = 200,
        gap_tol: float | None = None,
        alpha_W: float = 0.0,
        alpha_H: float | str = "same",
        l1_ratio: float = 0.0,
        forgetting: float = 0.7,
        callback: Callback | None = None,
    ):
        self.n_components = n_components
        self.components = components
        self.frozen = frozen
        self.template_strength = template_strength
        self.init = init
        self.random_state = random_state
        self.beta_loss = beta_loss
        self.tol = tol
        self.max_iter = max_iter
        self.gap_tol = gap_tol
        self.alpha_W = alpha_W
        self.alpha_H = alpha_H
        self.l1_ratio = l1_ratio
        self.forgetting = forgetting
        self.callback = callback

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
        known = model._known(None)
        if known.free.any():
            raise ValueError("from_basis takes a basis that is known: leave frozen=True, or call fit.")
        model._set_components(known)
        model._follows_parameters = True
        return model

    def fit(
        self,
        X: ArrayLike,
        y: None = None,
        W: ArrayLike | None = None,
        H: ArrayLike | None = None,
        *,
        weights: ArrayLike | None = None,
        background: ArrayLike | None = None,
        support: ArrayLike | None = None,
        H_init: ArrayLike | None = None,
    ) -> Self:
        """Learn what is free in the components, and find how well they explain X.

        Parameters
        ----------
        X : array_like, (n_samples, n_features)
            The data, not negative; NaN means missing. Or a sparse matrix, for Kullback-Leibler and Frobenius.
        y : ignored
        W, H : array_like, (n_samples, n_components) and (n_components, n_features), optional
            With ``init="custom"``: activations and components to start from, under scikit-learn's names.
        weights : array_like, (n_features,) or (n_samples, n_features), optional
            How much an entry counts, not negative; 0 is as good as missing.
        background : array_like, (n_features,) or (n_samples, n_features), optional
            A known part of the model, not negative.
        support : array_like of bool, (n_components,) or (n_samples, n_components), optional
            Where an activation may differ from zero.
        H_init : array_like, (n_samples, n_components), optional
            Activations to start from, not negative.

        Returns
        -------
        self
        """
        self.fit_transform(X, None, W, H, weights=weights, background=background, support=support, H_init=H_init)
        return self

    def fit_transform(
        self,
        X: ArrayLike,
        y: None = None,
        W: ArrayLike | None = None,
        H: ArrayLike | None = None,
        *,
        weights: ArrayLike | None = None,
        background: ArrayLike | None = None,
        support: ArrayLike | None = None,
        H_init: ArrayLike | None = None,
    ) -> NDArray[np.floating]:
        """Fit and return the activations of X.

        Parameters
        ----------
        X : array_like, (n_samples, n_features)
            The data, not negative; NaN means missing. Or a sparse matrix, for Kullback-Leibler and Frobenius.
        y : ignored
        W, H, weights, background, support, H_init : array_like, optional
            As in ``fit``.

        Returns
        -------
        (n_samples, n_components) ndarray of X's floating type

        Warns
        -----
        ConvergenceWarning
            If learning was still going on after ``max_iter`` passes (not with ``tol=0``, which asks for that).
        """
        data = self._validate(X, reset=True)
        if (W is None) == (self.init == "custom") or (H is None) == (self.init == "custom"):
            raise ValueError(
                f"init is {self.init!r}, W is {'missing' if W is None else 'given'} and H is "
                f'{"missing" if H is None else "given"}: init="custom" takes both, any other init neither.'
            )
        if W is not None and H_init is not None:
            raise ValueError("W and H_init are both given: they are two names of the activations to start from.")
        known = self._known(data.shape[1], H)
        start, name = (H_init, "H_init") if W is None else (W, "W")
        observations = self._observe(data, len(known.free), weights, background, support, start, name)
        self._gap_tol(known)
        whole_number(self.max_iter, "max_iter")
        if hasattr(self, "n_samples_seen_"):
            del self.n_samples_seen_  # a stream that partial_fit had begun ends here
        if not known.free.any():
            if H is not None:
                raise ValueError("H is given but all components are frozen: pass H_init for the activations alone.")
            self._set_components(known)
            return self._finish(observations)
        if H is not None:
            H = self._custom_components(H, known)
        learned = fit_basis(
            observations,
            known,
            self._loss(*data.shape[::-1]),
            init=self.init,
            random_state=self.random_state,
            W_init=H,
            tol=self.tol,
            max_iter=self.max_iter,
            callback=self.callback,
        )
        self._set_components(known, learned.W, data.dtype)
        if not learned.converged and self.tol > 0.0:
            warnings.warn(
                f"Learning was still going on after max_iter={self.max_iter} passes. Raise max_iter, or tol, or pass "
                "tol=0 if that is what you want.",
                ConvergenceWarning,
                stacklevel=level_of_caller(),
            )
        return self._finish(replace(observations, H_init=None), learned)

    def partial_fit(
        self,
        X: ArrayLike,
        y: None = None,
        *,
        weights: ArrayLike | None = None,
        background: ArrayLike | None = None,
        support: ArrayLike | None = None,
    ) -> Self:
        """Learn from one more block of samples, as of a stream, and forget the former by and by (``forgetting``).

        The first block, of all or after a ``fit``, begins anew and decides where unknown components start. Each block
        has its activations solved, adds its statistics to those of the past, and updates what is free in the components
        once.

        Parameters
        ----------
        X : array_like, (n_samples, n_features)
            The block, not negative; NaN means missing.
        y : ignored
        weights, background, support : array_like, optional
            As in ``fit``.

        Returns
        -------
        self
        """
        first = not hasattr(self, "n_samples_seen_")
        data = self._validate(X, reset=first)
        known = self._known(data.shape[1])
        if not 0.0 < self.forgetting <= 1.0:
            raise ValueError(f"forgetting is {self.forgetting!r}, expected a number above 0 and at most 1.")
        observations = self._observe(data, len(known.free), weights, background, support)
        if first:
            components = known.components
            if known.free.any():
                loss = self._loss(*data.shape[::-1])
                components, _ = start_of(observations, known, loss, self.init, self.random_state, None)
            self._set_components(known, components, data.dtype)
            self._memory: Statistics | None = None
            self.n_samples_seen_, self.n_iter_ = 0.0, 0
        self.n_samples_seen_ = self.forgetting * self.n_samples_seen_ + data.shape[0]
        self.n_iter_ += 1
        if known.free.any():
            H = self._activations(observations).H.T.astype(np.float64)
            loss = self._loss(data.shape[1], self.n_samples_seen_)
            components, self._memory = update_basis(
                observations, known, loss, self.components_.astype(np.float64), H, self._memory, self.forgetting
            )
            self._set_components(known, components, data.dtype)
        return self

    def transform(
        self,
        X: ArrayLike,
        *,
        weights: ArrayLike | None = None,
        background: ArrayLike | None = None,
        support: ArrayLike | None = None,
    ) -> NDArray[np.floating]:
        """Return the activations of X, each sample on its own.

        Parameters
        ----------
        X : array_like, (n_samples, n_features)
            The data, not negative; NaN means missing. Or a sparse matrix, for Kullback-Leibler and Frobenius.
        weights, background, support : array_like, optional
            As in ``fit``; what was passed there is not remembered.

        Returns
        -------
        (n_samples, n_components) ndarray of X's floating type
        """
        self._check_fitted()
        data = self._validate(X, reset=False)
        return self._activations(self._observe(data, self.n_components_, weights, background, support)).H.T

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
        self._check_fitted()
        H: NDArray[np.floating] = check_array(X, dtype=(np.float64, np.float32))
        if H.shape[1] != self.n_components_:
            raise ValueError(f"X has {H.shape[1]} columns, expected one for each of {self.n_components_} components.")
        return H @ self.components_.astype(H.dtype, copy=False)

    def score(self, X: ArrayLike, y: None = None) -> float:
        """Return minus the mean divergence between a sample and its model: higher is better, 0 is perfect.

        Parameters
        ----------
        X : array_like, (n_samples, n_features)
            The data, not negative; NaN means missing. Or a sparse matrix, for Kullback-Leibler and Frobenius.
        y : ignored

        Returns
        -------
        float
        """
        self._check_fitted()
        data = self._validate(X, reset=False)
        found = self._activations(self._observe(data, self.n_components_))
        return -float(self._prepare().divergence(found).mean())

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _validate(self, X: ArrayLike, reset: bool) -> NDArray[np.floating]:
        data: NDArray[np.floating] = validate_data(
            self,
            X,
            reset=reset,
            accept_sparse="csr",
            dtype=(np.float64, np.float32),
            ensure_all_finite="allow-nan",
        )
        if issparse(data):
            check_sparse(beta_of(self.beta_loss))
        check_non_negative(data, f"{type(self).__name__} (X)")
        return data

    def _check_fitted(self) -> None:
        """Raise unless there are components. Those of ``from_basis`` are what the parameters say now."""
        check_is_fitted(self, "components_")
        if self._follows_parameters:
            known = self._known(None)
            if known.free.any():
                raise ValueError("The parameters leave something to learn: call fit.")
            self._set_components(known)
            self._follows_parameters = True

    def _known(self, n_features: int | None, H: ArrayLike | None = None) -> KnownBasis:
        n_started = None if H is None else len(real_array(H, "H", 2))
        return known_basis(
            self.components, self.n_components, self.frozen, self.template_strength, n_features, n_started
        )

    def _observe(
        self,
        X: Any,
        n_components: int,
        weights: ArrayLike | None = None,
        background: ArrayLike | None = None,
        support: ArrayLike | None = None,
        start: ArrayLike | None = None,
        start_name: str = "H_init",
    ) -> Observations:
        """Return X and what came with it, checked."""
        axes = SAMPLES._replace(start=start_name)
        given = weights, background, support, start
        checked = Observations.check(X, X.shape[1], n_components, beta_of(self.beta_loss), *given, axes)
        checked.check_something_counts()
        return checked

    def _custom_components(self, H: ArrayLike, known: KnownBasis) -> NDArray[np.float64]:
        """Return the components of a custom start, checked."""
        custom = real_array(H, "H", 2)
        if custom.shape != known.free.shape:
            raise ValueError(f"H has shape {custom.shape}, expected {known.free.shape}: a component a row.")
        check_range(custom, "H")
        return custom.astype(np.float64)

    def _loss(self, n_features: int, n_samples: float) -> Loss:
        """Return what is minimized, all penalties checked."""
        if not 0.0 <= self.l1_ratio <= 1.0:
            raise ValueError(f"l1_ratio is {self.l1_ratio!r}, expected a number from 0 to 1.")
        check_range(real_array(self.alpha_W, "alpha_W", 0), "alpha_W")
        alpha_H = self.alpha_W if self.alpha_H == "same" else self.alpha_H
        check_range(real_array(alpha_H, "alpha_H", 0), "alpha_H")
        of_activations, of_basis = self.alpha_W * n_features, float(alpha_H) * n_samples
        l1, l2 = self.l1_ratio, 1.0 - self.l1_ratio
        return Loss(beta_of(self.beta_loss), of_activations * l1, of_activations * l2, of_basis * l1, of_basis * l2)

    def _set_components(
        self, known: KnownBasis, components: NDArray | None = None, dtype: DTypeLike = np.float32
    ) -> None:
        """Keep components, in a type that holds what is known of them to the last bit."""
        of_known = known.components.dtype
        kept = of_known if of_known in (np.float32, np.float64) else np.dtype(np.float64)
        if known.free.any():
            kept = np.result_type(dtype, kept) if known.n_known else np.dtype(dtype)
        self.components_ = (known.components if components is None else components).astype(kept)
        self.n_components_, self.n_features_in_ = self.components_.shape
        self.gap_tol_ = self._gap_tol(known)
        self._prepare()
        self._follows_parameters = False

    def _finish(self, observations: Observations, learned: Learned | None = None) -> NDArray[np.floating]:
        """Solve the activations as ``transform`` does, and report on them."""
        prepared = self._prepare()
        if learned is None:
            found, history, constant, n_passes = prepared.solve(observations), [], 0.0, 0
        else:
            prepared, found = not_above(learned, prepared, observations)
            history, constant, n_passes = learned.history[1:], learned.constant, learned.n_passes
            self._prepared, self.gap_tol_ = prepared, prepared.tol
        self._warn_of_missed(found)
        self.objective_history_ = np.array([*history, float(found.objective.sum()) + constant])
        self.n_iter_ = n_passes + 1
        self.reconstruction_err_ = float(np.sqrt(2.0 * prepared.divergence(found).sum()))
        return found.H.T

    def _gap_tol(self, known: KnownBasis) -> float:
        """Return the tolerance of the activations, both tolerances checked."""
        tol = check_tol(self.tol)
        if self.gap_tol is not None:
            return check_tol(self.gap_tol, "gap_tol")
        return GAP_TOL if known.free.any() or tol == 0.0 else tol

    def _activations(self, observations: Observations) -> Activations:
        """Return the activations of observations, by components and parameters as they are now."""
        found = self._prepare().solve(observations)
        self._warn_of_missed(found)
        return found

    def _prepare(self) -> PreparedComponents:
        """Return the prepared components; prepare them if anything has changed since they were."""
        now = self.components_, self._loss(self.n_features_in_, 0.0), self.gap_tol_
        if self._prepared is None or not self._prepared.are(*now):
            self._prepared = PreparedComponents(*now)
        return self._prepared

    @staticmethod
    def _warn_of_missed(found: Activations) -> None:
        warn_of_missed(found, "sample", "gap_tol", "Raise gap_tol (its default is tol where all components are known)")
