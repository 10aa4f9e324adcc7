"""NMF, an estimator with the API and the axes of scikit-learn."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning

from knownmf.learning import Callback, KnownBasis, Learned, Statistics, fit_basis, update_basis
from knownmf.learning.starts import start_of
from knownmf.nmf_base import BaseNMF, restored_on_failure
from knownmf.observations import Observations
from knownmf.prepared import solve_no_worse
from knownmf.table_labels import TableLabels
from knownmf.validation import check_range, level_of_caller, number, real_array, whole_number


class NMF(BaseNMF):
    r"""Nonnegative matrix factorization with components that are known, in part, softly or not at all.

    The axes are scikit-learn's: X is (n_samples, n_features), that is the transpose ``V.T`` of a spectrogram;
    ``components_`` is (n_components, n_features), the transpose of the basis; ``transform`` returns (n_samples,
    n_components), the transpose of the activations H. ``X ~ transform(X) @ components_``.

    A component may be *known*: it stays as it is (``frozen``), all of it or some of its entries. It may be a *seed*,
    from which learning starts. It may be *softly known*: learned, but tied to its template by ``template_strength``. Or
    it is unknown and learned from scratch. Without ``components`` this is plain NMF.

    **If you know scikit-learn's NMF**: names and the penalized objective are the same, but

    - the loss is Kullback-Leibler unless you say ``beta_loss="frobenius"``;
    - ``tol`` is the relative decrease of the objective per pass at which learning stops; the activations are then
      solved on their own, to within ``gap_tol`` of their optimum, so that ``transform(X)`` is what ``fit_transform(X)``
      returned;
    - the activations of a sample do not depend on the other samples;
    - NaN in X means missing; initial values of zero can become positive.

    Learning minimizes, over the activations h of all samples and the entries of the components w that are not frozen,

    .. math:: \sum_{t, f} m_{tf} d_\beta(x_{tf} | v_{tf})
              + \alpha_W n_{features} \sum_{t, k} \left(l1\_ratio\, h_{tk} + \tfrac12 (1 - l1\_ratio)\, h_{tk}^2\right)
              + \sum_{(k, f)\,free} \left(\alpha_H n_{samples} (l1\_ratio\, w_{kf}
              + \tfrac12 (1 - l1\_ratio)\, w_{kf}^2) + s_k d_\beta(w^0_{kf} | w_{kf})\right)

    with the model v = background + h components_, the templates w0 and their strengths s.

    Parameters
    ----------
    n_components : int, "auto" or None, default "auto"
        Number of all components, known and unknown; the unknown ones are learned. "auto" and None mean the number of
        known components, or of those in ``H`` with ``init="custom"``.
    components : array_like, (n_known, n_features), optional
        The known components, not negative, one in each row. Entries that are not frozen may be NaN, which means
        unknown.
    frozen : bool or array_like of bool, (n_known,) or (n_known, n_features), default True
        What does not change, to the last bit: all known components, some of them, or some of their entries. The other
        entries of the known components are the initial values for learning.
    template_strength : float or array_like (n_known,), default 0.0
        How strongly the known entries that are not frozen are tied to their values in ``components`` (the template).
        A strength s has the effect of one more sample with the weight s, which is equal to the template and has the
        activation 1. With 0, the entries are learned without a tie.
    init : {"random", "nndsvd", "nndsvda", "nndsvdar", "custom"} or None, default None
        How the initial values of unknown components and of their activations are computed, as in scikit-learn. If
        other components are known, they are computed from the part of X that these do not explain. None means
        "nndsvda", or "random" if there are more components than samples or features, or if entries of X are missing or
        weighted. With "custom", pass the initial values as ``W`` and ``H`` to ``fit_transform``.
    random_state : int, RandomState instance or None, default None
        The source of random numbers for ``init``.
    beta_loss : {"kullback-leibler", "frobenius", "itakura-saito"} or float in [-1, 3], default "kullback-leibler"
        The beta-divergence to minimize.
    tol : float, default 1e-4
        Learning stops when a pass lowers the objective by at most this share of it. If all components are known and
        ``gap_tol`` is None, this is the bound for the activations, as described for ``gap_tol``.
    max_iter : int, default 200
        The largest number of passes over the data.
    gap_tol : float or None, default None
        Bound on the relative duality gap of every sample's activations (on the KKT residual for beta outside [1, 2]).
        If it is None, it is ``tol`` if everything is known, and 1e-4 if something is learned or ``tol`` is 0.
    alpha_W : float, default 0.0
        Strength of the penalty on the activations (scikit-learn's W), multiplied by the number of features.
    alpha_H : float or "same", default "same"
        Strength of the penalty on what is free in the components (scikit-learn's H), multiplied by the number of
        samples; "same" is ``alpha_W``. Frozen entries are not penalized: that would be a constant.
    l1_ratio : float in [0, 1], default 0.0
        Share of the L1 penalty; the rest is L2.
    upper : float or array_like (n_components,), optional
        Upper bounds of the activations; infinite for none. As in :func:`knownmf.activations`.
    total, max_total : float, optional
        What the activations of a sample sum to, for example 1 for abundances, or sum to at most. Not both. With limits,
        every pass solves the activations exactly, instead of improving them by one update.
    forgetting : float in (0, 1], default 0.7
        At every block, ``partial_fit`` multiplies the statistics of earlier blocks by this; 1 forgets nothing. Early
        statistics belong to poor components and slow learning down, but for blocks of few samples 0.7 is too low.
    callback : callable, optional
        Called as ``callback(n_passes, objective)`` after every pass of ``fit``.

    Attributes
    ----------
    components_ : (n_components, n_features) ndarray
        The components, the known ones first. Frozen entries are equal to those that were given, to the last bit.
    n_components_ : int
        The number of components.
    n_features_in_ : int
        Number of features of the components.
    feature_names_in_ : (n_features_in_,) ndarray of str
        Names of the features, if X had any in ``fit``.
    objective_history_ : (n_iter_,) ndarray
        The objective after every pass, never rising. The last value is that of the activations that ``fit_transform``
        returns; see Notes. After ``fit``.
    reconstruction_err_ : float
        Square root of twice the divergence between the training data and the model, as in scikit-learn (for
        "frobenius" the norm of the difference). After ``fit``.
    n_iter_ : int
        The number of passes plus one, for the solution of the activations: 1 if nothing was learned.
    gap_tol_ : float
        The tolerance that ``transform`` uses: ``gap_tol``, or a smaller one if ``fit`` needed it to return activations
        that are as good as those of the last pass.

    Notes
    -----
    ``transform`` and ``score`` use ``beta_loss``, ``gap_tol``, ``alpha_W``, ``l1_ratio``, ``upper``, ``total`` and
    ``max_total`` (and ``tol``, where everything is known) as they are when they are called. All other parameters count
    at the next ``fit``; after ``from_basis`` all count at once. If ``fit`` or ``partial_fit`` fails or is interrupted,
    the estimator is as it was before.

    A factorization does not determine the scale of a component. Components that are learned from scratch sum to one,
    unless a penalty or a limit of the activations determines their scale. Known components, frozen or not, keep the
    scale of the user.

    Outside 1 <= beta <= 2 the activations have several stationary points, and those that ``transform`` finds may be
    worse than those that the components were learned with. The last value of ``objective_history_`` may then be higher
    than the one before it.

    Examples
    --------
    >>> import numpy as np
    >>> basis = np.array([[0.4, 0.4], [0.2, 0.1]])
    >>> model = NMF.from_basis(basis, beta_loss="frobenius", tol=1e-12)
    >>> model.transform([[3.0, 1.2]]).round(6)
    array([[4.5, 3. ]])

    One component is known, and another one is learned:

    >>> X = np.array([[1.0, 0.0], [2.0, 2.0], [1.0, 2.0]]) @ [[0.5, 0.5, 0.0], [0.0, 0.2, 0.8]]
    >>> model = NMF(2, components=[[0.5, 0.5, 0.0]], random_state=0, tol=1e-8, max_iter=2000).fit(X)
    >>> model.components_.round(2)
    array([[0.5, 0.5, 0. ],
           [0. , 0.2, 0.8]])
    """

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
        upper: ArrayLike | None = None,
        total: float | None = None,
        max_total: float | None = None,
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
        self.upper = upper
        self.total = total
        self.max_total = max_total
        self.forgetting = forgetting
        self.callback = callback

    @classmethod
    def from_basis(cls, W: Any, **parameters: Any) -> Self:
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
        basis = real_array(W, "W", 2)
        if not basis.size:
            raise ValueError(f"W has shape {basis.shape}: give at least one bin and one basis vector.")
        check_range(basis, "W", kind="factor")
        # A table of pandas keeps its labels.
        model = cls(components=W.T if hasattr(W, "iloc") else basis.T, **parameters)
        known = model._known(None)
        if known.free.any():
            raise ValueError("from_basis takes a basis that is known: leave frozen=True, or call fit.")
        model._take_known_components(known)
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
        """Learn what is free in the components.

        Parameters
        ----------
        X : array_like, (n_samples, n_features)
            The data, not negative, except with "frobenius"; NaN means missing. Or a sparse matrix, for Kullback-Leibler
            and Frobenius.
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

    @restored_on_failure
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
            The data, not negative, except with "frobenius"; NaN means missing. Or a sparse matrix, for Kullback-Leibler
            and Frobenius.
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
        observations = self._observe(X, data, len(known.free), weights, background, support, start, name)
        self._gap_tol(bool(known.free.any()))  # raises now, before learning, if a tolerance is wrong
        whole_number(self.max_iter, "max_iter")
        if hasattr(self, "n_samples_seen_"):
            del self.n_samples_seen_  # a stream that partial_fit had begun ends here
        if not known.free.any():
            if H is not None:
                raise ValueError("H is given but all components are frozen: pass H_init for the activations alone.")
            self._set_components(known)
            return self._finish(observations)
        if H is not None:
            H = self._custom_components(X, H, known)
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

    @restored_on_failure
    def partial_fit(
        self,
        X: ArrayLike,
        y: None = None,
        *,
        weights: ArrayLike | None = None,
        background: ArrayLike | None = None,
        support: ArrayLike | None = None,
    ) -> Self:
        """Learn from one more block of samples of a stream; earlier blocks count less and less (``forgetting``).

        The first block, or the first one after a ``fit``, determines where unknown components start. For every block,
        its activations are solved, its statistics are added to those of the earlier blocks, and what is free in the
        components is updated once.

        Parameters
        ----------
        X : array_like, (n_samples, n_features)
            The block, not negative, except with "frobenius"; NaN means missing.
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
        forgetting = number(self.forgetting, "forgetting", 0, 1, "right")
        observations = self._observe(X, data, len(known.free), weights, background, support)
        if first:
            components = known.components
            if known.free.any():
                loss = self._loss(*data.shape[::-1])
                components, _ = start_of(observations, known, loss, self.init, self.random_state, None)
            self._set_components(known, components, data.dtype)
            self._memory: Statistics | None = None
            self.n_samples_seen_, self.n_iter_ = 0.0, 0
            self._stream = known, self.beta_loss
            for name in ("objective_history_", "reconstruction_err_"):  # of an earlier fit
                if hasattr(self, name):
                    delattr(self, name)
        elif not (known.equals(self._stream[0]) and self.beta_loss == self._stream[1]):
            raise ValueError(
                "components, n_components, frozen, template_strength or beta_loss have changed within a stream: call "
                "fit, or use a new estimator."
            )
        n_samples_seen = forgetting * self.n_samples_seen_ + data.shape[0]
        if known.free.any():
            H = self._activations(observations).H.T.astype(np.float64)
            loss = self._loss(data.shape[1], n_samples_seen)
            components, self._memory = update_basis(
                observations, known, loss, self.components_.astype(np.float64), H, self._memory, forgetting
            )
            self._set_components(known, components, data.dtype)
        self.n_samples_seen_, self.n_iter_ = n_samples_seen, self.n_iter_ + 1
        return self

    def _custom_components(self, X: ArrayLike, H: ArrayLike, known: KnownBasis) -> NDArray[np.float64]:
        """Return the components of a custom start, checked."""
        labels = TableLabels()
        labels.add(X, "X", "samples", "features")
        labels.add(H, "H", "components", "features")
        custom = real_array(H, "H", 2)
        if custom.shape != known.free.shape:
            raise ValueError(f"H has shape {custom.shape}, expected {known.free.shape}: a component a row.")
        check_range(custom, "H", kind="factor")
        return custom.astype(np.float64)

    def _finish(self, observations: Observations, learned: Learned | None = None) -> NDArray[np.floating]:
        """Solve the activations as ``transform`` does, and report on them."""
        prepared = self._prepare()
        if learned is None:
            found, history, constant, n_passes = prepared.solve(observations), [], 0.0, 0
        else:
            prepared, found = solve_no_worse(learned, prepared, observations)
            history, constant, n_passes = learned.history[1:], learned.constant, learned.n_passes
            self._prepared, self.gap_tol_ = prepared, prepared.tol
        self._warn_of_missed(found)
        self.objective_history_ = np.array([*history, float(found.objective.sum()) + constant])
        self.n_iter_ = n_passes + 1
        self.reconstruction_err_ = float(np.sqrt(2.0 * found.divergence.sum()))
        return found.H.T
