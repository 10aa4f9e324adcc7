"""Learning: what is known stays, what is free gets better at every pass, and what is returned is what is reported."""

import itertools
import threading
import warnings

import numpy as np
import pytest
import scipy.sparse
from sklearn.decomposition import NMF as TheirNMF
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks
from threadpoolctl import threadpool_info, threadpool_limits

import naive
from knownmf import NMF, activations, basis, get_num_threads, set_num_threads
from knownmf.learning import descent, fitting, passes
from problems import BETAS, start

KNOWN = ("all known", "partly", "by entry", "seeded", "soft", "unknown")
K, N_KNOWN, N_FRAMES, N_BINS = 4, 2, 20, 11


def problem(seed=0, scale=1.0):
    """X that four components explain but for some noise, and those components."""
    rng = np.random.default_rng(seed)
    W = rng.gamma(0.7, 1.0, (K, N_BINS)) + 0.02
    H = rng.gamma(0.7, 2.0, (N_FRAMES, K))
    return scale * (H @ W) * rng.gamma(8.0, 1 / 8, (N_FRAMES, N_BINS)), W


def knowledge(kind, W):
    """The parameters with which an estimator knows so much of W."""
    by_entry = np.random.default_rng(1).random((N_KNOWN, N_BINS)) < 0.5
    return {
        "all known": {"components": W},
        "partly": {"n_components": K, "components": W[:N_KNOWN]},
        "by entry": {"n_components": K, "components": W[:N_KNOWN], "frozen": by_entry},
        "seeded": {"n_components": K, "components": W[:N_KNOWN] + 0.1, "frozen": False},
        "soft": {"n_components": K, "components": W[:N_KNOWN] + 0.1, "frozen": False, "template_strength": [3.0, 0.3]},
        "unknown": {"n_components": K},
    }[kind]


def hindrances(kind, X, seed=2):
    """X and the arguments of ``fit`` for weights or missing entries."""
    rng = np.random.default_rng(seed)
    if kind == "weights":
        return X, {"weights": rng.gamma(2.0, 0.5, X.shape) * (rng.random(X.shape) < 0.9)}
    if kind == "missing":
        return np.where(rng.random(X.shape) < 0.1, np.nan, X), {}
    if kind == "the rest":
        support = rng.random((len(X), K)) < 0.8
        support[:, 0] = True
        return X, {
            "background": rng.gamma(1.0, 0.1, X.shape),
            "support": support,
            "weights": rng.gamma(2.0, 0.5, N_BINS),
        }
    return X, {}


def fitted(X, fit=None, **parameters):
    """An estimator fitted to X, however long that might take, and what it returned."""
    model = NMF(**{"random_state": 0, "tol": 0.0, "max_iter": 15, **parameters})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model, model.fit_transform(X, **(fit or {}))


def objective(model, X, H, weights=1.0, background=0.0, support=None):
    """The documented objective, in numpy, from what was returned."""
    beta, W = model.beta_loss, model.components_
    v, m = background + H @ W, np.where(np.isnan(X), 0.0, 1.0) * weights
    total = sum(
        m[t, f] * naive.divergence(X[t, f], v[t, f], beta)
        for t, f in itertools.product(*map(range, X.shape))
        if m[t, f]
    )
    share, alpha_H = model.l1_ratio, model.alpha_W if model.alpha_H == "same" else model.alpha_H
    total += X.shape[1] * model.alpha_W * (share * H.sum() + 0.5 * (1 - share) * (H**2).sum())
    free = np.ones(W.shape, bool)
    if model.components is not None:
        n_known = len(model.components)
        frozen = np.asarray(model.frozen)
        free[:n_known] = ~(frozen[:, np.newaxis] if frozen.ndim == 1 else frozen)
        for k, strength in enumerate(np.broadcast_to(model.template_strength, n_known)):
            pairs = zip(model.components[k][free[k]], W[k][free[k]], strict=True)
            total += strength * sum(naive.divergence(t, w, beta) for t, w in pairs) if strength else 0.0
    w = W[free]
    return total + len(X) * alpha_H * (share * w.sum() + 0.5 * (1 - share) * (w**2).sum())


@pytest.mark.parametrize("penalty", [{}, {"alpha_W": 0.01, "l1_ratio": 1.0}, {"alpha_W": 0.01, "alpha_H": 0.02}])
@pytest.mark.parametrize("hindrance", ["none", "weights", "missing", "the rest"])
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("kind", KNOWN)
def test_the_objective_never_rises_and_is_that_of_what_is_returned(kind, beta, hindrance, penalty):
    X, W = problem()
    X, fit = hindrances(hindrance, X)
    model, H = fitted(X, fit, beta_loss=beta, **knowledge(kind, W), **penalty)
    history = model.objective_history_
    falls = np.diff(history) <= 0.0
    # Outside 1 <= beta <= 2 the activations that are returned may be at another stationary point.
    assert falls.all() if 1.0 <= beta <= 2.0 else falls[:-1].all()
    assert len(history) == model.n_iter_
    assert history[-1] == pytest.approx(objective(model, X, H, **fit), rel=1e-9)
    assert model.n_iter_ == (1 if kind == "all known" else 16)
    if kind != "all known":
        assert history[-1] < 0.999 * history[0]
    known = knowledge(kind, W).get("components", np.empty((0, N_BINS)))
    frozen = np.asarray(knowledge(kind, W).get("frozen", True))
    frozen = np.broadcast_to(frozen, known.shape)
    assert np.array_equal(model.components_[: len(known)][frozen], known[frozen])
    assert (model.components_ >= 0.0).all()
    if "support" in fit:
        assert not H[~fit["support"]].any()
    assert np.array_equal(model.transform(X, **fit), H)


@pytest.mark.parametrize("noise", [0.3, 1e-3])
@pytest.mark.parametrize("kind", ["by entry", "soft", "unknown"])
@pytest.mark.parametrize("hindrance", ["none", "weights", "missing", "the rest"])
@pytest.mark.parametrize("beta", BETAS)
def test_what_each_pass_reports_never_rises(beta, hindrance, kind, noise):
    """Also where the data are explained so well that single precision cannot tell a pass from its own rounding."""
    rng = np.random.default_rng(3)
    W = rng.gamma(0.7, 1.0, (K, N_BINS)) + 0.02
    X, fit = hindrances(
        hindrance, (rng.gamma(0.7, 2.0, (N_FRAMES, K)) @ W) * rng.normal(1, noise, (N_FRAMES, N_BINS)).clip(0.2)
    )
    values = []
    model, _ = fitted(
        X,
        fit,
        beta_loss=beta,
        max_iter=150,
        tol=0.0,
        callback=lambda _, value: values.append(value),
        **knowledge(kind, W),
    )
    assert len(values) == model.n_iter_ - 1 == len(model.objective_history_) - 1
    assert (np.diff(values) <= 0.0).all()
    np.testing.assert_allclose(values, model.objective_history_[:-1], rtol=1e-4, atol=1e-5 * values[0])


def test_a_pass_that_is_taken_back_leaves_nothing_behind(monkeypatch):
    """The second pass, the first with momentum, is made to fail: the third starts from where the first ended."""
    X, _ = problem(3)
    take_pass, points = descent.take_pass, []
    monkeypatch.setattr(fitting, "PLAIN_PASSES", 0)

    def visited(task, W, H, pace):
        found = take_pass(task, W, H, pace)
        points.append((W.copy(), H.copy()))
        return (np.inf, *found[1:]) if len(points) == 3 else found

    monkeypatch.setattr(descent, "take_pass", visited)
    updates = []
    monkeypatch.setattr(
        descent, "update", lambda *args, update=descent.update: updates.append(args[1].copy()) or update(*args)
    )
    fitted(X, n_components=K, max_iter=3, tol=0.0, init="random")
    assert len(points) == 5
    assert not np.array_equal(points[2][1], points[3][1])
    np.testing.assert_array_equal(updates[1], points[1][0])
    np.testing.assert_array_equal(updates[2], points[1][0])


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("penalized", [False, True])
@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_a_safe_update_always_lowers_the_objective(monkeypatch, beta, penalized, precision):
    """Without the guard: each plain pass from a start far away falls by itself."""
    X, W = problem(3)
    parameters = {"alpha_W": 0.05, "alpha_H": 0.5, "l1_ratio": 0.2} if penalized else {}
    values = []
    take_pass = descent.take_pass

    def plain(task, W, H, pace):
        found = take_pass(task, W, H, passes.Pace(precision, False))
        values.append(found[0] + passes.cost_of_basis(task.terms, W))
        return found

    monkeypatch.setattr(descent, "take_pass", plain)
    monkeypatch.setattr(descent, "extrapolate", lambda ended, *_: ended)
    monkeypatch.setattr(descent, "update", lambda *args, update=descent.update: update(*args[:3], False))
    fitted(X, beta_loss=beta, max_iter=40, init="random", **knowledge("soft", W), **parameters)
    assert len(values) >= 41
    assert (np.diff(values) <= 3e-7 * values[0]).all()
    assert values[-1] < values[0]


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 2.0])
def test_blocks_and_threads_change_nothing_but_rounding(monkeypatch, beta):
    X, W = problem(4)
    expected, _ = fitted(X, beta_loss=beta, max_iter=8, gap_tol=1e-8, **knowledge("partly", W))
    monkeypatch.setattr(passes, "SMALLEST_BLOCK", N_BINS)
    monkeypatch.setattr(passes, "BLOCKS", 7)
    before = get_num_threads()
    models = []
    for n_threads in (1, before):
        set_num_threads(n_threads)
        try:
            models.append(fitted(X, beta_loss=beta, max_iter=8, gap_tol=1e-8, **knowledge("partly", W)))
        finally:
            set_num_threads(before)
    (one, H_one), (many, H_many) = models
    assert np.array_equal(one.components_, many.components_)
    assert np.array_equal(H_one, H_many)
    np.testing.assert_allclose(one.components_, expected.components_, rtol=2e-3, atol=1e-5)
    np.testing.assert_allclose(one.objective_history_, expected.objective_history_, rtol=1e-4)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("scale", [4.0**-50, 4.0**50])
def test_the_scale_of_the_data_is_only_a_scale(beta, scale):
    X, W = problem(5)
    plain, H = fitted(X, beta_loss=beta, **knowledge("partly", W))
    scaled, H_scaled = fitted(X * scale, beta_loss=beta, **knowledge("partly", W))
    np.testing.assert_allclose(scaled.objective_history_, plain.objective_history_ * scale**beta, rtol=1e-5)
    np.testing.assert_allclose(scaled.components_, plain.components_, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(H_scaled / scale, H, rtol=2e-2, atol=1e-3)


class TestBesideScikitLearn:
    @pytest.mark.parametrize("init", ["random", "nndsvda", "nndsvdar"])
    @pytest.mark.parametrize(("beta", "solver"), [(0.0, "mu"), (1.0, "mu"), (1.5, "mu"), (2.0, "mu"), (2.0, "cd")])
    def test_no_worse_from_the_same_start_after_as_many_passes(self, init, beta, solver):
        X, _ = problem(6)
        X *= 2 / X.mean()
        theirs = TheirNMF(K, init=init, random_state=0, solver=solver, beta_loss=beta, tol=0.0, max_iter=30)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            theirs.fit(X)
        model, _ = fitted(X, n_components=K, init=init, beta_loss=beta, max_iter=30)
        assert model.reconstruction_err_ <= theirs.reconstruction_err_ * (1 + 1e-6)
        custom = {"W": np.abs(np.random.default_rng(0).normal(size=(N_FRAMES, K))), "H": np.ones((K, N_BINS)) + X[:K]}
        theirs.set_params(init="custom")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            theirs.fit_transform(X, **{name: values.copy() for name, values in custom.items()})
        model, _ = fitted(X, custom, n_components=K, init="custom", beta_loss=beta, max_iter=30)
        assert model.reconstruction_err_ <= theirs.reconstruction_err_ * (1 + 1e-6)

    @pytest.mark.parametrize("init", ["random", "nndsvd", "nndsvda", "nndsvdar"])
    def test_starts_are_theirs(self, init):
        from sklearn.decomposition._nmf import _initialize_nmf

        X, _ = problem(7)
        X *= 2 / X.mean()
        H, W = _initialize_nmf(X, K, init=init, random_state=0)
        ours = start(X, K, init, 0)
        np.testing.assert_allclose(ours[0], W, rtol=1e-9)
        np.testing.assert_allclose(ours[1], H, rtol=1e-9)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks([NMF(2), NMF(2, beta_loss="frobenius", init="random")])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


class TestLearning:
    def test_a_planted_component_is_found_beside_known_ones(self):
        rng = np.random.default_rng(8)
        W = rng.random((3, 40)) * (rng.random((3, 40)) < 0.4)
        H = rng.gamma(0.5, 1.0, (200, 3)) * (rng.random((200, 3)) < 0.7)
        for beta in (1.0, 2.0):
            model, _ = fitted(H @ W, n_components=3, components=W[:2], beta_loss=beta, max_iter=400)
            assert np.array_equal(model.components_[:2], W[:2])
            np.testing.assert_allclose(model.components_[2], W[2] / W[2].sum(), atol=2e-3)

    def test_a_tie_holds_as_strongly_as_it_says(self):
        X, W = problem(9)
        template = W[:N_KNOWN] * np.random.default_rng(9).gamma(4.0, 0.25, (N_KNOWN, N_BINS))
        for beta in (0.0, 1.0, 2.0):
            moved = []
            for strength in (1e-3, 1e3, 1e9):
                model, _ = fitted(
                    X, n_components=K, components=template, frozen=False, template_strength=strength, beta_loss=beta,
                    max_iter=100,
                )  # fmt: skip
                moved.append(np.abs(model.components_[:N_KNOWN] / template - 1).max())
            assert moved[0] > 3 * moved[1] > 0
            assert moved[2] < 1e-4

    def test_zeros_of_a_seed_may_grow_and_frozen_zeros_stay(self):
        X, W = problem(10)
        seed = W.copy()
        seed[:, 0] = 0.0
        frozen = np.zeros(W.shape, bool)
        frozen[0, 0] = True
        model, _ = fitted(X, components=seed, frozen=frozen, max_iter=50)
        assert model.components_[0, 0] == 0.0
        assert model.components_[1:, 0].max() > 0.05 * W[1:, 0].max()

    def test_zeros_of_a_custom_start_may_grow_too(self):
        X, _ = problem(10)
        custom = {"W": np.ones((N_FRAMES, K)), "H": np.eye(K, N_BINS)}
        model, H = fitted(X, custom, n_components=K, init="custom", max_iter=50)
        assert np.isfinite(model.objective_history_).all()
        assert (H @ model.components_ > 0.0).all()

    def test_a_start_of_activations_with_known_components(self):
        X, W = problem(20)
        for kind in KNOWN:
            model, H = fitted(X, {"H_init": np.ones((N_FRAMES, K))}, **knowledge(kind, W))
            assert (np.diff(model.objective_history_) <= 0.0).all()
            np.testing.assert_allclose(model.transform(X), H, atol=0.1)

    def test_unknown_entries_of_a_component_are_filled(self):
        W = problem(11)[1]
        X = np.random.default_rng(11).gamma(0.7, 2.0, (N_FRAMES, K)) @ W
        hole = W.copy()
        hole[0, :3] = np.nan
        model, _ = fitted(X, components=hole, frozen=~np.isnan(hole), max_iter=100)
        assert np.array_equal(model.components_[~np.isnan(hole)], W[~np.isnan(hole)])
        np.testing.assert_allclose(model.components_[0, :3], W[0, :3], rtol=0.1)

    def test_silence_and_empty_bins(self):
        X, W = problem(12)
        X[:3], X[:, 5] = 0.0, 0.0
        W[:, 5] = 0.0
        for beta in (0.0, 0.5, 1.0, 2.0):
            model, H = fitted(X, beta_loss=beta, max_iter=30, **knowledge("partly", W))
            assert (np.diff(model.objective_history_) <= 0.0).all()
            assert not H[:3].any()
            assert np.isfinite(model.components_).all()

    def test_bins_that_nothing_reaches_cost_a_constant(self):
        X, W = problem(13)
        frozen = np.zeros(W.shape, bool)
        frozen[:, 4] = True
        W[:, 4] = 0.0
        model, H = fitted(X, components=W, frozen=frozen, beta_loss=1.0)
        reached = np.delete(np.arange(N_BINS), 4)
        v = H @ model.components_
        floors = 1e-15 * X.max(axis=1)
        expected = sum(naive.divergence(X[t, f], v[t, f], 1) for t in range(N_FRAMES) for f in reached)
        expected += sum(naive.divergence(X[t, 4], floors[t], 1) for t in range(N_FRAMES))
        assert model.objective_history_[-1] == pytest.approx(expected, rel=1e-9)
        assert (np.diff(model.objective_history_) <= 0.0).all()

    def test_single_precision_data_give_single_precision(self):
        X, W = problem(14)
        model, H = fitted(X.astype(np.float32), n_components=K)
        assert H.dtype == model.components_.dtype == np.float32
        model, H = fitted(X.astype(np.float32), **knowledge("partly", W))
        assert H.dtype == np.float32
        assert np.array_equal(model.components_[:N_KNOWN], W[:N_KNOWN])

    def test_callback_and_tolerance(self):
        X, _ = problem(15)
        seen = []
        model = NMF(2, random_state=0, tol=1e-3, callback=lambda n, value: seen.append((n, value))).fit(X)
        assert [n for n, _ in seen] == list(range(1, model.n_iter_))
        np.testing.assert_allclose([value for _, value in seen], model.objective_history_[:-1])
        values = np.array([value for _, value in seen])
        within_tol = -np.diff(values) <= 1e-3 * values[:-1]
        assert within_tol[-1]
        assert within_tol[:-1].sum() <= 1  # one pass may have ended the plain passes instead of learning
        with pytest.warns(ConvergenceWarning, match="max_iter=3 passes"):
            NMF(2, random_state=0, max_iter=3).fit(X)

    @pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
    def test_a_stream_of_blocks_learns(self, beta):
        rng = np.random.default_rng(16)
        W = rng.gamma(0.5, 1.0, (3, 30)) + 0.01
        X = rng.gamma(0.5, 1.0, (600, 3)) @ W * rng.gamma(20, 1 / 20, (600, 30))
        model = NMF(3, components=W[:1], random_state=0, beta_loss=beta, tol=1e-2)
        errors = []
        for _ in range(3):
            for first in range(0, 600, 50):
                model.partial_fit(X[first : first + 50])
                errors.append(-model.score(X))
        assert np.array_equal(model.components_[0], W[0])
        assert model.n_iter_ == 36
        assert model.n_samples_seen_ == pytest.approx(50 * sum(0.7**n for n in range(36)))
        model.fit(X)
        assert not hasattr(model, "n_samples_seen_")
        batch, _ = fitted(X, n_components=3, components=W[:1], beta_loss=beta, max_iter=100)
        assert -batch.score(X) < errors[-1] < errors[0]
        assert errors[-1] + batch.score(X) < 0.5 * (errors[0] + batch.score(X))


def counts(seed=0):
    """Counts of which most are zero, and the components that they came from."""
    rng = np.random.default_rng(seed)
    W = rng.gamma(0.3, 1.0, (K, 40)) + 1e-3
    return rng.poisson(0.3 * rng.gamma(0.3, 1.0, (60, K)) @ W).astype(float), W


class TestSparse:
    @pytest.mark.parametrize("penalty", [{}, {"l1": 0.3, "l2": 0.1}])
    @pytest.mark.parametrize("beta", [1.0, 2.0])
    @pytest.mark.parametrize("form", [scipy.sparse.csc_array, scipy.sparse.csr_matrix, scipy.sparse.coo_array])
    def test_activations_are_those_of_the_dense_matrix(self, form, beta, penalty):
        X, W = counts()
        X[:3] = 0.0
        support = np.random.default_rng(1).random((K, len(X))) < 0.7
        weights = np.random.default_rng(2).gamma(2.0, 0.5, 40)
        weights[[3, 7]] = 0.0
        for option in ({}, {"support": support}, {"H_init": np.ones((K, len(X)))}, {"weights": weights}):
            options = {**penalty, **option}
            dense = activations(X.T, W.T, beta, tol=1e-9, **options)
            found = activations(form(X.T), W.T, beta, tol=1e-9, **options)
            assert found.converged.all()
            np.testing.assert_allclose(found.objective, dense.objective, rtol=1e-8)
            np.testing.assert_allclose(found.H, dense.H, atol=1e-4)
            assert not found.H[:, :3].any()
            rough = activations(form(X.T), W.T, beta, tol=1e-1, **options)
            assert (rough.objective - dense.objective <= rough.gap + 1e-9).all()

    @pytest.mark.parametrize("kind", [np.float64, np.float32])
    @pytest.mark.parametrize("beta", [1.0, 2.0])
    def test_neighbors_change_no_bit(self, beta, kind):
        X, W = counts(5)
        X[7], X[11, 3] = 0.0, 1e5
        weights = np.random.default_rng(5).gamma(2.0, 0.5, 40)
        support = np.random.default_rng(6).random((K, len(X))) < 0.8
        V = scipy.sparse.csc_array(X.T.astype(kind))
        together = activations(V, W.T, beta, weights=weights, support=support, tol=1e-3)
        assert together.H.dtype == kind
        for some in ([11], [7], [59, 7, 0], np.arange(20, 60)):
            alone = activations(V[:, some], W.T, beta, weights=weights, support=support[:, some], tol=1e-3)
            for name in ("H", "gap", "kkt", "objective", "n_iter", "converged"):
                assert np.array_equal(getattr(alone, name), getattr(together, name)[..., some])

    @pytest.mark.parametrize("penalty", [{}, {"alpha_W": 0.01, "alpha_H": 0.002, "l1_ratio": 0.5}])
    @pytest.mark.parametrize("beta", [1.0, 2.0])
    @pytest.mark.parametrize("kind", KNOWN)
    def test_learning_is_that_of_the_dense_matrix(self, kind, beta, penalty):
        X, W = counts(1)
        parameters = {"beta_loss": beta, "gap_tol": 1e-8, "init": "random", **penalty}
        known = knowledge(kind, np.resize(W[:, :N_BINS], (K, N_BINS)))
        for name, values in {"components": W, "frozen": np.random.default_rng(1).random((N_KNOWN, 40)) < 0.5}.items():
            if np.ndim(known.get(name)) == 2:
                known[name] = values[: len(known[name])]
        dense, _ = fitted(X, **known, **parameters)
        model, H = fitted(scipy.sparse.csr_array(X), **known, **parameters)
        np.testing.assert_allclose(model.objective_history_[-1], dense.objective_history_[-1], rtol=2e-3)
        assert (np.diff(model.objective_history_) <= 0.0).all()
        assert model.objective_history_[-1] == pytest.approx(objective(model, X, H), rel=1e-9)
        assert np.array_equal(model.transform(scipy.sparse.csr_array(X)), H)
        if kind in ("all known", "unknown"):
            np.testing.assert_allclose(model.components_, dense.components_, atol=1e-4)

    def test_nothing_is_made_dense(self, monkeypatch):
        X, _ = counts(2)
        made = []
        dense = scipy.sparse.csr_array.toarray

        def count(matrix, *args, **kwargs):
            made.append(matrix.shape[0])
            return dense(matrix, *args, **kwargs)

        monkeypatch.setattr(scipy.sparse.csr_array, "toarray", count)
        fitted(scipy.sparse.csr_array(X), n_components=3)
        assert not made

    def test_bins_without_a_model_cost_what_they_cost_in_a_dense_matrix(self):
        X, W = counts(3)
        X[:, 4] += 1.0
        W[:, 4] = 0.0
        frozen = np.zeros(W.shape, bool)
        frozen[:, 4] = True
        dense, _ = fitted(X, components=W, frozen=frozen)
        model, _ = fitted(scipy.sparse.csr_array(X), components=W, frozen=frozen)
        assert model.objective_history_[-1] == pytest.approx(dense.objective_history_[-1], rel=1e-4)
        assert (np.diff(model.objective_history_) <= 0.0).all()

    def test_what_needs_a_dense_matrix_says_so(self):
        X, W = counts(4)
        sparse = scipy.sparse.csr_array(X)
        with pytest.raises(TypeError, match=r"sparse matrix, but beta_loss is 0: sparse data are for"):
            NMF(3, beta_loss=0).fit(sparse)
        with pytest.raises(TypeError, match="weights is given with a sparse matrix"):
            NMF(3).fit(sparse, weights=np.ones(40))
        with pytest.raises(TypeError, match="background is given with a sparse matrix"):
            activations(sparse.T, W.T, background=np.ones(40))
        with pytest.raises(TypeError, match="one value for each entry of a sparse matrix: give one for each of the 40"):
            activations(sparse.T, W.T, weights=np.ones(X.T.shape))
        sparse.data[0] = np.nan
        with pytest.raises(ValueError, match=r"X is a sparse matrix with NaN in it.*X.toarray\(\)"):
            NMF(3).fit(sparse)


def test_basis_is_the_mirror_of_activations():
    X, W = problem(17)
    V, H = X.T, np.random.default_rng(17).gamma(0.7, 2.0, (K, N_FRAMES))
    weights = np.random.default_rng(18).random(V.shape)
    found = basis(V, H, "frobenius", l1=0.1, weights=weights, tol=1e-9)
    mirrored = activations(V.T, H.T, "frobenius", l1=0.1, weights=weights.T, tol=1e-9)
    assert found.H.shape == (K, N_BINS)
    assert np.array_equal(found.H, mirrored.H)
    per_bin = basis(V, H, weights=weights[:, 0], background=weights[:, 1], tol=1e-9)
    spread = [np.repeat(weights[:, [column]], N_FRAMES, axis=1).T for column in (0, 1)]
    expected = activations(V.T, H.T, weights=spread[0], background=spread[1], tol=1e-9)
    np.testing.assert_allclose(per_bin.H, expected.H)
    support = np.random.default_rng(19).random((N_BINS, K)) < 0.7
    assert not basis(V, H, support=support).H.T[~support].any()
    np.testing.assert_allclose(basis(V, H, W_init=W.T, tol=1e-9).H, basis(V, H, tol=1e-9).H, atol=1e-4)


@pytest.mark.parametrize(
    ("parameters", "fit", "message"),
    [
        ({"n_components": "auto"}, {}, "n_components is 'auto' but 0 components are known: pass how many to learn"),
        ({"n_components": 0}, {}, "n_components is 0"),
        ({"init": "best"}, {}, "init is 'best', expected one of"),
        ({"n_components": 12, "init": "nndsvd"}, {}, r"starts at most min\(n_samples, n_features\) = 11"),
        ({"init": "custom"}, {}, "init is 'custom', W is missing and H is missing"),
        ({}, {"W": np.ones((N_FRAMES, 3))}, 'init is None, W is given.*init="custom" takes both'),
        ({"init": "custom"}, {"W": np.ones((2, 3)), "H": np.ones((3, N_BINS))}, r"W has shape \(2, 3\)"),
        ({"init": "custom"}, {"W": np.ones((N_FRAMES, 3)), "H": np.ones((2, N_BINS))}, r"H has shape \(2, 11\)"),
        ({}, {"support": np.zeros(3)}, "support is False everywhere"),
        ({}, {"support": np.full(3, 2)}, "support holds values other than True and False"),
        ({}, {"support": np.ones((3, N_FRAMES))}, r"support has shape \(3, 20\), expected .* \(20, 3\)"),
        ({}, {"weights": np.zeros(N_BINS)}, "weights is 0 everywhere"),
        ({}, {"weights": -np.ones(N_BINS)}, r"weights\[0\] is -1.0"),
        (
            {},
            {"background": np.ones(3)},
            r"background has shape \(3,\), expected .* \(20, 11\), or \(11,\) for all samples",
        ),
        ({"tol": -1}, {}, "tol is -1"),
        ({"gap_tol": -1}, {}, "gap_tol is -1"),
        ({"max_iter": 0}, {}, "max_iter is 0"),
        ({"template_strength": 1.0}, {}, "template_strength is 1.0 but no components are known"),
        ({"components": np.ones((2, N_BINS)), "template_strength": 1.0}, {}, "which is frozen"),
        (
            {"components": np.ones((2, N_BINS)), "template_strength": [1, 2, 3]},
            {},
            r"template_strength has shape \(3,\)",
        ),
        ({"components": np.full((2, N_BINS), np.nan)}, {}, r"components\[0, 0\] is nan"),
        (
            {"components": np.full((2, N_BINS), np.nan), "frozen": False, "template_strength": 1.0},
            {},
            r"components\[0, 0\] is nan",
        ),
    ],
)
def test_contradictions_are_named(parameters, fit, message):
    X, _ = problem()
    with pytest.raises(ValueError, match=message):
        NMF(**{"n_components": 3, **parameters}).fit_transform(X, **fit)


@pytest.mark.parametrize("beta", BETAS)
def test_components_of_a_stream_sum_to_one_and_that_changes_nothing_else(beta):
    """A penalty of next to nothing leaves the scale as it is: the same stream, but for the scale."""
    X, _ = problem(8)
    models = [
        NMF(K, random_state=0, beta_loss=beta, gap_tol=1e-8, alpha_W=alpha, l1_ratio=1.0) for alpha in (0.0, 1e-290)
    ]
    for block in np.array_split(X, 5):
        for model in models:
            model.partial_fit(block)
    plain, unscaled = (model.components_ for model in models)
    np.testing.assert_allclose(plain.sum(axis=1), 1.0, rtol=1e-12)
    assert not np.allclose(unscaled.sum(axis=1), 1.0, rtol=1e-3)
    np.testing.assert_allclose(plain, unscaled / unscaled.sum(axis=1, keepdims=True), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("beta", [-0.5, 0.0, 0.5])
def test_zeros_that_nothing_reaches_cost_nothing_below_beta_1(beta):
    """Frozen zeros of a template, or a sample without any allowed component: the model counts as the data's floor."""
    X, W = problem(9)
    W[:, -2:], X[:, -2:] = 0.0, 0.0
    options = {"components": W, "frozen": W == 0.0, "beta_loss": beta, "max_iter": 30}
    whole, _ = fitted(X, **options)
    part, _ = fitted(X[:, :-2], **{**options, "components": W[:, :-2], "frozen": W[:, :-2] == 0.0})
    assert np.isfinite(whole.objective_history_).all()
    if beta >= 0.0:  # below, the objective of frames is relative to a sum that has the floors in it
        np.testing.assert_allclose(whole.objective_history_, part.objective_history_, rtol=1e-4)
    support = np.ones((N_FRAMES, K), bool)
    support[0] = False
    Y = X[:, :-2].copy()
    Y[0, 0] = 0.0
    silent, _ = fitted(Y, {"support": support}, components=W[:, :-2], frozen=False, beta_loss=beta)
    assert np.isfinite(silent.objective_history_).all()


def blas_threads():
    """Return the number of threads of each BLAS that is loaded."""
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.mark.parametrize("first_to_end", [0, 1])
def test_fits_that_overlap_leave_blas_as_it_was(first_to_end):
    X, _ = problem()
    started, may_end, seen = [threading.Event(), threading.Event()], threading.Event(), []

    def fit(number):
        def callback(n_passes, objective):
            started[number].set()
            assert started[1].wait(10)  # the first fit goes on when the second has started
            if number != first_to_end:
                assert may_end.wait(10)
            seen.append(blas_threads())

        NMF(2, random_state=0, tol=0, max_iter=1, callback=callback).fit(X)

    # In a thread that ends, because only one thread at a time may choose a number.
    setting = threading.Thread(target=threadpool_limits, args=(2, "blas"))
    setting.start()
    setting.join()
    before = blas_threads()
    assert 2 in before  # a BLAS that was built for one thread stays at 1
    fits = [threading.Thread(target=fit, args=(number,)) for number in (0, 1)]
    fits[0].start()
    assert started[0].wait(10)
    fits[1].start()
    fits[first_to_end].join()
    may_end.set()
    fits[1 - first_to_end].join()
    assert seen == [[1] * len(before)] * 2
    assert blas_threads() == before
    fit(0)  # in the main thread, after others
    assert seen[-1] == [1] * len(before)
    assert blas_threads() == before


@pytest.mark.parametrize("beta", [0.0, 1e-9, 0.5])
@pytest.mark.parametrize("kind", ["unknown", "partly", "soft"])
def test_samples_of_all_sizes_are_learned_from_together(kind, beta):
    """Below beta = 1 the size of a sample is little or nothing to the loss, but single precision ends at 1e-38."""
    X, W = problem(3)
    ends = []
    for decades in (0, 30, 60, 200) if beta < 0.5 else (0, 30, 60):
        sizes = 10.0 ** np.linspace(-0.5 * decades, 0.5 * decades, N_FRAMES)[:, np.newaxis]
        seen = []
        model = NMF(
            beta_loss=beta,
            init="random",
            random_state=0,
            max_iter=3000,
            callback=lambda n, value, seen=seen: seen.append(value),
            **knowledge(kind, W),
        ).fit(X * sizes)
        assert seen[-1] <= 1.01 * model.objective_history_[-1]
        ends.append(model.objective_history_[-1])
    if beta < 1e-6:
        assert max(ends) <= 1.2 * ends[0]


@pytest.mark.parametrize("strength", [1.0, 1e-3])
def test_ties_hold_where_samples_are_small(strength):
    """A tie that is far below the largest sample is all that a component of small samples has."""
    template = np.array([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]])
    X = np.array([[1e40, 1e40, 0.0, 0.0], [0.0, 0.0, 1e-5, 1e-5]])
    model = NMF(components=template, frozen=template == 0.0, template_strength=strength, tol=1e-9).fit(X)
    assert np.isfinite(model.components_).all()
    np.testing.assert_allclose(model.components_[1], template[1], atol=1e-6)


class TestSilenceInAStream:
    @pytest.mark.parametrize("beta", [0.5, 1.0, 1.5, 2.0])
    @pytest.mark.parametrize("penalty", [{"l1_ratio": 0.5}, {"l1_ratio": 1.0}])
    @pytest.mark.parametrize("before", [0, 100])
    def test_components_stay(self, beta, penalty, before):
        rng = np.random.default_rng(0)
        X = (rng.gamma(1, 1, (200, 2)) @ rng.random((2, 20))) * rng.gamma(20, 0.05, (200, 20))
        model = NMF(2, beta_loss=beta, random_state=0, alpha_W=1e-3, **penalty)
        for block in np.array_split(X[:before], 10) if before else ():
            model.partial_fit(block)
        model.partial_fit(np.zeros((1, 20)))
        components = model.components_.copy()
        for _ in range(100):
            model.partial_fit(np.zeros((1, 20)))
        assert np.array_equal(model.components_, components)
        for block in np.array_split(X[100:], 10):
            model.partial_fit(block)
        H = model.transform(X)
        assert np.isfinite(H).all()
        assert np.abs(X - H @ model.components_).sum() < 0.5 * X.sum()

    def test_a_component_that_rests_stays_while_others_are_learned(self):
        rng = np.random.default_rng(0)
        templates = np.kron(np.eye(2), np.ones((1, 10)))
        model = NMF(components=templates, frozen=templates == 0.0, alpha_W=1e-3)
        for _ in range(300):
            model.partial_fit(rng.random((5, 1)) * np.r_[np.linspace(1, 2, 10), np.zeros(10)])
        assert np.array_equal(model.components_[1], templates[1])
        assert not np.array_equal(model.components_[0], templates[0])


@pytest.mark.parametrize("beta", [0.0, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("limits", [{"total": 1.0}, {"max_total": 0.9}, {"upper": 0.5}, {"upper": 0.8, "total": 1.0}])
def test_learning_within_limits(beta, limits):
    rng = np.random.default_rng(3)
    spectra, abundances = rng.gamma(1.0, 1.0, (3, 20)), rng.dirichlet(np.ones(3), 40)
    X = abundances @ spectra * rng.gamma(50.0, 1 / 50, (40, 20))
    options = {"components": spectra[:1], "beta_loss": beta, "tol": 1e-4, "max_iter": 300, "random_state": 0}
    model = NMF(3, **options, **limits)
    H = model.fit_transform(X)
    assert (np.diff(model.objective_history_) <= 1e-6 * model.objective_history_[-1]).all()
    assert model.objective_history_[-1] < 0.5 * model.objective_history_[0]
    np.testing.assert_array_equal(model.components_[0], spectra[0])
    for found in (H, model.transform(X)):
        assert (found <= limits.get("upper", np.inf)).all()
        sums = found.sum(axis=1)
        if "total" in limits:
            np.testing.assert_allclose(sums, limits["total"], rtol=1e-12)
        assert (sums <= limits.get("max_total", np.inf) * (1 + 1e-12)).all()
    # One more update of the basis with the best activations gains next to nothing.
    again = NMF(3, **options | {"init": "custom", "tol": 0.0, "max_iter": 3}, **limits)
    again.fit_transform(X, W=H, H=model.components_)
    assert again.objective_history_[-1] > 0.99 * model.objective_history_[-1]


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_learning_within_limits_from_sparse_data_equals_that_from_dense_data(beta):
    rng = np.random.default_rng(4)
    X = rng.gamma(1.0, 1.0, (30, 12)) * (rng.random((30, 12)) < 0.5)
    start = {"W": rng.random((30, 3)) + 0.1, "H": rng.random((3, 12)) + 0.1}
    options = {"beta_loss": beta, "init": "custom", "max_total": 2.0, "tol": 0.0, "max_iter": 10}
    dense = NMF(3, **options).fit(X, **start)
    sparse = NMF(3, **options).fit(scipy.sparse.csr_matrix(X), **start)
    # The activations of every pass are within 1e-7 of the optimum, so that their components differ by its square root.
    np.testing.assert_allclose(sparse.components_, dense.components_, atol=1e-3)
    np.testing.assert_allclose(sparse.objective_history_, dense.objective_history_, rtol=1e-5)


def test_a_stream_of_blocks_is_learned_within_limits():
    rng = np.random.default_rng(5)
    spectra, abundances = rng.gamma(1.0, 1.0, (3, 20)), rng.dirichlet(np.ones(3), 200)
    X = abundances @ spectra
    model = NMF(3, components=spectra[:2], total=1.0, random_state=0)
    first = model.partial_fit(X[:20]).score(X)
    for block in np.split(X, 10) * 10:
        model.partial_fit(block)
    np.testing.assert_allclose(model.transform(X).sum(axis=1), 1.0, rtol=1e-12)
    assert model.score(X) > 0.1 * first  # scores are negative
