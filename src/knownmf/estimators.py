"""scikit-learn's face of the package, and the only place where axes are swapped."""

import warnings
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted, check_non_negative, validate_data

from knownmf.activations import Activations, activations
from knownmf.divergences import beta_of
from knownmf.learning import Basis, Callback, Frames, Learned, Statistics, learn, learn_block, recorded
from knownmf.parameters import Given, Plan, check_components, check_given, check_penalties, floating
from knownmf.solver import Solver
from knownmf.starts import INITS, lifted, residual, start
from knownmf.validation import check_max_iter, check_range, check_sparse, check_tol, real_array, sparse_array

GAP_TOL = 1e-4  # of activations, where something is learned
TIGHTEST, TIGHTEST_SINGLE = 1e-8, 1e-6  # how far fit lowers gap_tol where it learned something better


class Prepared(NamedTuple):
    """A solver, and what it was prepared from."""

    solver: Solver
    components: NDArray[np.floating]
    parameters: tuple[float, float, float, float]  # beta, l1, l2, tol


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
        plan = model._plan(None)
        if plan.free.any():
            raise ValueError("from_basis takes a basis that is known: leave frozen=True, or call fit.")
        model._set_components(plan)
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
        plan = self._plan(data.shape[1], H)
        given = self._given(data, len(plan.free), weights, background, support, H_init if W is None else W)
        self._gap_tol(plan)
        check_max_iter(self.max_iter)
        if hasattr(self, "n_samples_seen_"):
            del self.n_samples_seen_  # a stream that partial_fit had begun ends here
        if not plan.free.any():
            if H is not None:
                raise ValueError("H is given but all components are frozen: pass H_init for the activations alone.")
            self._set_components(plan)
            return self._finish(data, given)
        frames, basis = self._frames(data, given, plan), self._basis(plan, data.shape[0])
        components, H0 = self._start(frames, plan, given.H_init, H)
        learned = learn(
            frames, basis, components, H0, tol=self.tol, max_iter=self.max_iter, callback=self.callback
        )  # fmt: skip
        self._set_components(plan, self._normalised(learned.W, plan), data.dtype)
        if not learned.converged and self.tol > 0.0:
            warnings.warn(
                f"Learning was still going on after max_iter={self.max_iter} passes. Raise max_iter, or tol, or pass "
                "tol=0 if that is what you want.",
                ConvergenceWarning,
                stacklevel=3,
            )
        return self._finish(data, given._replace(H_init=None), learned)

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
        plan = self._plan(data.shape[1])
        if not 0.0 < self.forgetting <= 1.0:
            raise ValueError(f"forgetting is {self.forgetting!r}, expected a number above 0 and at most 1.")
        given = self._given(data, len(plan.free), weights, background, support, None)
        frames = self._frames(data, given, plan)
        if first:
            components = plan.components
            if plan.free.any():
                components, _ = self._start(frames, plan, None, None)
            self._set_components(plan, components, data.dtype)
            self._memory: Statistics | None = None
            self.n_samples_seen_, self.n_iter_ = 0.0, 0
        self.n_samples_seen_ = self.forgetting * self.n_samples_seen_ + data.shape[0]
        self.n_iter_ += 1
        if plan.free.any():
            H = self._activations(data, given).H.T.astype(np.float64)
            components, self._memory = learn_block(
                frames,
                self._basis(plan, self.n_samples_seen_),
                self.components_.astype(np.float64),
                H,
                self._memory,
                self.forgetting,
            )
            self._set_components(plan, components, data.dtype)
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
        check_is_fitted(self)
        data = self._validate(X, reset=False)
        return self._activations(data, self._given(data, self.n_components_, weights, background, support)).H.T

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
            The data, not negative; NaN means missing. Or a sparse matrix, for Kullback-Leibler and Frobenius.
        y : ignored

        Returns
        -------
        float
        """
        check_is_fitted(self)
        data = self._validate(X, reset=False)
        return -float(self._divergence(self._activations(data, Given(None, None, None))).mean())

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
            data = sparse_array(data, "X").tocsr()
        check_non_negative(data, f"{type(self).__name__} (X)")
        return data

    def _plan(self, n_features: int | None, H: ArrayLike | None = None) -> Plan:
        n_started = None if H is None else len(real_array(H, "H", 2))
        return check_components(
            self.components, self.n_components, self.frozen, self.template_strength, n_features, n_started
        )

    def _given(self, X: Any, n_components: int, *options: ArrayLike | None) -> Given:
        return check_given(X, beta_of(self.beta_loss), n_components, *options)

    def _frames(self, X: NDArray[np.floating], given: Given, plan: Plan) -> Frames:
        l1, l2 = self._penalties(X.shape[1])
        n_components, ones = len(plan.free), np.ones((1, X.shape[1]))
        return Frames(
            X=X,
            weights=ones if given.weights is None else np.atleast_2d(given.weights).astype(np.float64, copy=False),
            background=0.0 * ones if given.background is None else np.atleast_2d(given.background).astype(np.float64),
            support=np.ones((1, n_components), np.bool_) if given.support is None else np.atleast_2d(given.support) > 0,
            l1=np.full(n_components, l1),
            l2=np.full(n_components, l2),
            beta=beta_of(self.beta_loss),
        )

    def _basis(self, plan: Plan, n_samples: float) -> Basis:
        alpha = n_samples * float(self.alpha_W if self.alpha_H == "same" else self.alpha_H)
        return Basis(
            free=plan.free,
            template=np.nan_to_num(plan.components.astype(np.float64)),
            strength=plan.strength,
            l1=np.full(len(plan.free), alpha * self.l1_ratio),
            l2=np.full(len(plan.free), alpha * (1.0 - self.l1_ratio)),
        )

    def _start(
        self, frames: Frames, plan: Plan, H_init: NDArray | None, H: ArrayLike | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return components and activations to start from: of the known on their own, of the others on what is left."""
        n_known, n_components = plan.n_known, len(plan.free)
        components = plan.components.astype(np.float64)
        if H is not None and H_init is not None:
            custom = real_array(H, "H", 2)
            if custom.shape != components.shape:
                raise ValueError(f"H has shape {custom.shape}, expected {components.shape}: a component a row.")
            check_range(custom, "H")
            components, n_known = np.where(plan.free, custom, components), n_components
        components[:n_known] = lifted(components[:n_known], plan.free[:n_known])
        acts, left = np.empty((frames.X.shape[0], n_components)), frames.X
        if n_known and (H_init is None or n_components > n_known):
            acts[:, :n_known], left = self._explained(frames, components[:n_known])
        if n_components > n_known:
            init = self._init(frames, n_components - n_known)
            components[n_known:], acts[:, n_known:] = start(left, n_components - n_known, init, self.random_state)
            components[n_known:] = lifted(components[n_known:], plan.free[n_known:])
        acts = acts if H_init is None else H_init.astype(np.float64)
        everywhere = np.ones(acts.T.shape, np.bool_)
        return components, np.where(frames.support, lifted(acts.T, everywhere).T, 0.0)

    def _explained(self, frames: Frames, known: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
        """Return the activations of the known components alone, and what they leave of the data."""
        support = frames.support[:, : len(known)].astype(np.float64)
        dense = not issparse(frames.X)
        given = Given(frames.weights if dense else None, frames.background if dense else None, support).columns()
        with warnings.catch_warnings():
            # A start needs no proof.
            warnings.simplefilter("ignore", ConvergenceWarning)
            H = activations(frames.X.T, known.T, frames.beta, tol=1e-2, **given).H.T.astype(np.float64)
        return H, residual(frames.X, frames.background, H, known)

    def _init(self, frames: Frames, n_components: int) -> str:
        """Return how unknown components start, deciding where the user left it open."""
        if self.init is None:
            plain = np.ptp(frames.weights) == 0.0 and not np.isnan(frames.X.sum())
            return "nndsvda" if plain and n_components <= min(frames.X.shape) else "random"
        if self.init not in INITS:
            raise ValueError(f'init is {self.init!r}, expected one of {INITS}, "custom" or None.')
        if self.init != "random" and n_components > min(frames.X.shape):
            raise ValueError(
                f"init is {self.init!r}, which starts at most min(n_samples, n_features) = {min(frames.X.shape)} "
                f'components, not {n_components}: pass init="random".'
            )
        return self.init

    def _normalised(self, components: NDArray[np.float64], plan: Plan) -> NDArray[np.float64]:
        """Return the components with a sum of one each, where learned from scratch and unpenalised."""
        if self.alpha_W or (self.alpha_H != "same" and self.alpha_H):
            return components
        sums = components.sum(axis=1, keepdims=True)
        scratch = (np.arange(len(components)) >= plan.n_known)[:, np.newaxis] & (sums > 0.0)
        return np.where(scratch, components / np.where(sums > 0.0, sums, 1.0), components)

    def _set_components(self, plan: Plan, components: NDArray | None = None, kind: DTypeLike = np.float32) -> None:
        """Keep components, in a type that holds what is known of them to the last bit."""
        known = floating(plan.components.dtype)
        if plan.free.any():
            known = np.result_type(kind, known) if plan.n_known else np.dtype(kind)
        self.components_ = (plan.components if components is None else components).astype(known)
        self.n_components_, self.n_features_in_ = self.components_.shape
        self.gap_tol_ = self._gap_tol(plan)
        self._prepare_solver()

    def _finish(self, X: NDArray[np.floating], given: Given, learned: Learned | None = None) -> NDArray[np.floating]:
        """Solve the activations as ``transform`` does, and report on them."""
        history, constant = (learned.history[1:], learned.constant) if learned else ([], 0.0)
        tightest = TIGHTEST if X.dtype == np.float64 else TIGHTEST_SINGLE
        found = self._activations(X, given)
        while history and found.objective.sum() + constant > history[-1] and self.gap_tol_ > tightest:
            held, self.gap_tol_ = self.gap_tol_, max(1e-2 * self.gap_tol_, tightest)
            with warnings.catch_warnings():
                # Nobody asked for more than was held: where rounding forbids it, that stays.
                warnings.simplefilter("ignore", ConvergenceWarning)
                better = self._activations(X, given)
            if not better.converged.all():
                self.gap_tol_ = held
                break
            found = better
        if self.gap_tol_ != self._prepared.parameters[-1]:
            self._prepare_solver()
        history = recorded(history, float(found.objective.sum()) + constant)
        self.objective_history_ = np.array(history)
        self.n_iter_ = (learned.n_passes if learned else 0) + 1
        self.reconstruction_err_ = float(np.sqrt(2.0 * self._divergence(found).sum()))
        return found.H.T

    def _gap_tol(self, plan: Plan) -> float:
        """Return the tolerance of the activations, both tolerances checked."""
        tol = check_tol(self.tol)
        if self.gap_tol is not None:
            return check_tol(self.gap_tol, "gap_tol")
        return GAP_TOL if plan.free.any() or tol == 0.0 else tol

    def _penalties(self, n_features: int) -> tuple[float, float]:
        """Return the strengths of L1 and L2 on activations, all penalties checked."""
        check_penalties(self.alpha_W, self.alpha_H, self.l1_ratio)
        alpha = self.alpha_W * n_features
        return alpha * self.l1_ratio, alpha * (1.0 - self.l1_ratio)

    def _activations(self, X: NDArray[np.floating], given: Given) -> Activations:
        if given.weights is None and given.support is None:
            rows = given.columns()
            return self._solver().solve(X.T, background=rows["background"], H_init=rows["H_init"])
        l1, l2 = self._penalties(X.shape[1])
        return activations(
            X.T, self.components_.T, self.beta_loss, l1=l1, l2=l2, tol=self.gap_tol_, **given.columns()
        )  # fmt: skip

    def _prepare_solver(self) -> None:
        """Prepare a solver for the components as they are now."""
        l1, l2 = self._penalties(self.n_features_in_)
        tol = self.gap_tol_
        solver = Solver(self.components_.T, self.beta_loss, l1=l1, l2=l2, tol=tol)
        self._prepared = Prepared(solver, self.components_.copy(), (beta_of(self.beta_loss), l1, l2, tol))

    def _solver(self) -> Solver:
        """Return the solver that was prepared, or a new one where components or parameters have been changed since."""
        l1, l2 = self._penalties(self.n_features_in_)
        parameters = beta_of(self.beta_loss), l1, l2, self.gap_tol_
        prepared = self._prepared
        if prepared.parameters == parameters and np.array_equal(prepared.components, self.components_):
            return prepared.solver
        return Solver(self.components_.T, self.beta_loss, l1=l1, l2=l2, tol=self.gap_tol_)

    def _divergence(self, found: Activations) -> NDArray[np.float64]:
        """Return the divergence of each sample: its objective without the penalties."""
        l1, l2 = self._penalties(self.n_features_in_)
        H = found.H.astype(np.float64, copy=False)
        return np.maximum(found.objective - l1 * H.sum(axis=0) - 0.5 * l2 * (H * H).sum(axis=0), 0.0)
