"""The estimator as scikit-learn, pandas and librosa see it."""

import contextlib
import pickle

import librosa
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array, issparse
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.decomposition import non_negative_factorization
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from knownmf import NMF, Solver, activations, basis


class KnowsSomething(NMF):
    """NMF with components for data of any width: the checks bring their own data and know no basis for it."""

    def fit_transform(self, X, y=None, W=None, H=None, **given):
        with self.knowing(X):
            return super().fit_transform(X, y, W, H, **given)

    def partial_fit(self, X, y=None, **given):
        with self.knowing(X):
            return super().partial_fit(X, y, **given)

    @contextlib.contextmanager
    def knowing(self, X):
        before, shape = self.components, (X if issparse(X) else np.asarray(X)).shape
        n_components = 3 if self.n_components == "auto" else self.n_components
        self.components = np.random.default_rng(0).random((n_components, shape[-1] if shape else 1)) + 0.01
        try:
            yield
        finally:
            self.components = before


#: Checks that cannot hold, each with its reason. None so far.
EXCUSED: dict[str, str] = {}


@parametrize_with_checks([KnowsSomething()], expected_failed_checks=lambda estimator: EXCUSED)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.random((25, 10)), rng.random((10, 4))


class TestKnownBasis:
    def test_transform_is_activations_with_the_axes_swapped(self, data):
        X, W = data
        for options in ({}, {"beta_loss": "frobenius"}, {"beta_loss": 0.5, "gap_tol": 1e-6}):
            model = NMF.from_basis(W, **options)
            options["tol"] = options.pop("gap_tol", 1e-4)
            assert np.array_equal(model.transform(X), activations(X.T, W, **options).H.T)

    def test_the_basis_is_untouched_bit_for_bit(self, data):
        X, W = data
        for known in (W, W.astype(np.float32), (9 * W).astype(int)):
            model = NMF.from_basis(known)
            model.fit(X)
            assert np.array_equal(model.components_, known.T)
            assert model.n_components_ == 4
            assert model.n_features_in_ == 10
        assert not np.shares_memory(model.components_, W)

    def test_constructor_and_from_basis_agree(self, data):
        X, W = data
        for frozen in (True, np.ones(4, bool), np.ones((4, 10), bool)):
            model = NMF(n_components=4, components=W.T, frozen=frozen)
            with pytest.raises(NotFittedError):
                model.transform(X)
            assert np.array_equal(model.fit_transform(X), NMF.from_basis(W).transform(X))
            assert np.array_equal(model.fit(X).transform(X), model.fit_transform(X))

    def test_reconstruction(self, data):
        X, W = data
        model = NMF.from_basis(W, beta_loss="frobenius").fit(X)
        back = model.inverse_transform(model.transform(X))
        assert model.reconstruction_err_ == pytest.approx(np.linalg.norm(X - back), rel=1e-9)
        assert model.score(X) == pytest.approx(-0.5 * np.linalg.norm(X - back) ** 2 / len(X), rel=1e-9)
        assert model.n_iter_ >= 1

    def test_missing_values_pass(self, data):
        X, W = data
        X[3, 4] = np.nan
        expected = activations(X.T, W).H.T
        assert np.array_equal(NMF.from_basis(W).transform(X), expected)
        assert np.isfinite(expected).all()

    def test_penalties_are_those_of_scikit_learn(self, data):
        X, W = data
        ours = NMF.from_basis(W, beta_loss="frobenius", alpha_W=0.02, l1_ratio=0.3, gap_tol=1e-10)
        theirs, _, _ = non_negative_factorization(
            X, H=W.T, n_components=4, update_H=False, alpha_W=0.02, alpha_H=0.0, l1_ratio=0.3, tol=1e-12, max_iter=5000
        )
        np.testing.assert_allclose(ours.transform(X), theirs, atol=1e-6)
        fitted = ours.fit(X)
        back = fitted.inverse_transform(fitted.transform(X))
        assert fitted.reconstruction_err_ == pytest.approx(np.linalg.norm(X - back), rel=1e-9)


class TestHosts:
    def test_librosa_decompose(self, data):
        X, W = data
        components, acts = librosa.decompose.decompose(X.T, transformer=NMF.from_basis(W), fit=False)
        assert np.array_equal(components, W)
        assert np.array_equal(acts, activations(X.T, W).H)

    def test_clone_and_pickle(self, data):
        X, W = data
        model = NMF.from_basis(W, gap_tol=1e-6)
        again = pickle.loads(pickle.dumps(model))
        assert np.array_equal(again.transform(X), model.transform(X))
        copy = clone(model)
        assert copy.gap_tol == 1e-6
        with pytest.raises(NotFittedError):
            copy.transform(X)
        assert np.array_equal(copy.fit_transform(X), model.transform(X))

    def test_pipeline_and_grid_search(self, data):
        X, W = data
        y = X[:, 0] > 0.5
        pipeline = make_pipeline(NMF.from_basis(W), LogisticRegression())
        search = GridSearchCV(pipeline, {"nmf__beta_loss": ["frobenius", "kullback-leibler"]}, cv=3).fit(X, y)
        assert search.best_params_["nmf__beta_loss"] in ("frobenius", "kullback-leibler")
        assert search.predict(X).shape == y.shape
        alone = GridSearchCV(NMF(components=W.T), {"alpha_W": [0.0, 10.0]}, cv=3).fit(X)
        assert alone.best_params_ == {"alpha_W": 0.0}
        assert make_pipeline(NMF.from_basis(W), KMeans(2, n_init=1, random_state=0)).fit_predict(X).shape == (25,)

    def test_frames_of_pandas_keep_their_names(self, data):
        X, W = data
        frame = pd.DataFrame(X, columns=[f"bin{f}" for f in range(10)])
        model = NMF(components=W.T).set_output(transform="pandas").fit(frame)
        assert list(model.feature_names_in_) == list(frame.columns)
        assert list(model.transform(frame).columns) == ["nmf0", "nmf1", "nmf2", "nmf3"]
        assert list(model.get_feature_names_out()) == ["nmf0", "nmf1", "nmf2", "nmf3"]
        assert list(NMF.from_basis(W).get_feature_names_out()) == ["nmf0", "nmf1", "nmf2", "nmf3"]


class TestRefusals:
    @pytest.mark.parametrize(
        ("parameters", "error", "message"),
        [
            ({"components": None}, ValueError, "n_components is 'auto' but 0 components are known: pass how many"),
            ({"n_components": 3}, ValueError, "n_components is 3 but 4 components are known"),
            ({"n_components": "all"}, ValueError, "n_components is 'all' but 4"),
            ({"frozen": np.ones(3, bool)}, ValueError, r"frozen has shape \(3,\)"),
            ({"frozen": 1.0}, ValueError, "type float64, expected one bool"),
            ({"components": np.ones((4, 9))}, ValueError, "X has 10 features, but components has 9"),
            ({"components": -np.ones((4, 10))}, ValueError, r"components\[0, 0\] is -1.0"),
            ({"components": np.ones((0, 10))}, ValueError, r"components has shape \(0, 10\)"),
            ({"alpha_W": -1.0}, ValueError, "alpha_W is -1.0: negative"),
            ({"alpha_H": -1.0}, ValueError, "alpha_H is -1.0: negative"),
            ({"l1_ratio": 1.5}, ValueError, "l1_ratio is 1.5, expected a number from 0 to 1"),
            ({"l1_ratio": True}, ValueError, "l1_ratio is True, expected a number from 0 to 1"),
            ({"beta_loss": "kl"}, ValueError, "beta_loss is 'kl'"),
            ({"tol": "small"}, ValueError, "tol is 'small'"),
            ({"tol": True}, ValueError, "tol is True, expected a finite number of at least 0"),
            ({"gap_tol": np.nan}, ValueError, "gap_tol is nan, expected a finite number of at least 0"),
        ],
    )
    def test_bad_parameters_are_named(self, data, parameters, error, message):
        X, W = data
        with pytest.raises(error, match=message):
            NMF(**{"components": W.T, **parameters}).fit(X)

    @pytest.mark.parametrize("kind", [np.array, csr_array, pd.DataFrame])
    def test_complex_data_are_named_with_a_remedy(self, data, kind):
        X, W = data
        model = NMF.from_basis(W)
        for method in (model.fit, model.transform, model.score, NMF(2).fit, NMF(2).partial_fit):
            with pytest.raises(ValueError, match=r"X is complex: pass its magnitude, np\.abs\(X\)"):
                method(kind(X * 1j))
        with pytest.raises(ValueError, match=r"X is complex"):
            model.inverse_transform(X[:, :4] * 1j)

    def test_bad_data_are_named(self, data):
        X, W = data
        model = NMF.from_basis(W)
        with pytest.raises(ValueError, match="Negative values in data passed to NMF"):
            model.transform(-X)
        with pytest.raises(ValueError, match="X has 9 features, but NMF is expecting 10 features"):
            model.transform(X[:, :9])
        with pytest.raises(ValueError, match="X has 3 columns, expected one for each of 4 components"):
            model.inverse_transform(X[:, :3])
        with pytest.raises(ValueError, match="W has 1 dimension, expected 2"):
            NMF.from_basis(W[:, 0])


class TestWarnings:
    """They point at the line that called the package, and name what the caller can change."""

    def test_samples_that_missed_the_tolerance(self, data):
        X, W = data
        model = NMF.from_basis(W, gap_tol=0.0)
        fresh = NMF(components=W.T, gap_tol=0.0)
        framed = NMF.from_basis(W, gap_tol=0.0).set_output(transform="pandas")
        for call in (model.transform, model.score, fresh.fit, fresh.fit_transform, framed.transform):
            with pytest.warns(
                ConvergenceWarning, match=r"^\d+ of 25 samples missed gap_tol=0; .* Raise gap_tol"
            ) as told:
                call(X)
            assert [warning.filename for warning in told] == [__file__]

    def test_learning_that_was_still_going_on(self, data):
        X, _ = data
        for call in (NMF(3, max_iter=2, init="random").fit, NMF(3, max_iter=2, init="random").fit_transform):
            with pytest.warns(ConvergenceWarning, match="^Learning was still going on after max_iter=2") as told:
                call(X)
            assert [warning.filename for warning in told] == [__file__]

    def test_bins_of_a_basis_and_frames_of_activations(self, data):
        X, W = data
        for call, unit in ((lambda: basis(X, W.T, tol=0.0), "bins"), (lambda: activations(X.T, W, tol=0.0), "frames")):
            with pytest.warns(
                ConvergenceWarning, match=rf"^\d+ of 25 {unit} missed tol=0; .* Raise tol or max_iter"
            ) as told:
                call()
            assert [warning.filename for warning in told] == [__file__]


def test_masked_entries_are_missing(data):
    X, W = data
    mask = np.random.default_rng(1).random(X.shape) < 0.2
    masked, missing = np.ma.MaskedArray(np.where(mask, 1e9, X), mask), np.where(mask, np.nan, X)
    for model in (NMF.from_basis(W), NMF(3, random_state=0, max_iter=20, tol=0.0)):
        assert np.array_equal(model.fit_transform(masked), model.fit_transform(missing))
        assert np.array_equal(model.transform(masked), model.transform(missing))
        assert model.score(masked) == model.score(missing)
    first, second = (NMF(3, random_state=0).partial_fit(data).components_ for data in (masked, missing))
    assert np.array_equal(first, second)


def test_parameters_set_after_from_basis_count(data):
    X, W = data
    model = NMF.from_basis(W)
    before = model.transform(X)
    assert np.array_equal(model.set_params(tol=1e-10).transform(X), activations(X.T, W, tol=1e-10).H.T)
    assert np.array_equal(model.set_params(gap_tol=1e-2).transform(X), activations(X.T, W, tol=1e-2).H.T)
    model.set_params(gap_tol=None, tol=1e-4, beta_loss="frobenius")
    assert np.array_equal(model.transform(X), activations(X.T, W, "frobenius").H.T)
    model.set_params(beta_loss="kullback-leibler", components=W.T[:3])
    assert np.array_equal(model.transform(X), activations(X.T, W[:, :3]).H.T)
    with pytest.raises(ValueError, match="leave something to learn: call fit"):
        model.set_params(frozen=False).transform(X)
    model.set_params(frozen=True, components=W.T)
    assert np.array_equal(model.transform(X), before)


class TestStateOfTheEstimator:
    def test_a_stream_refuses_another_problem(self, data):
        X, W = data
        for change in (
            {"beta_loss": "frobenius"},
            {"components": W.T[:1] + 1.0},
            {"n_components": 5},
            {"frozen": False},
        ):
            model = NMF(4, components=W.T[:1], random_state=0).partial_fit(X)
            with pytest.raises(ValueError, match="changed within a stream"):
                model.set_params(**change).partial_fit(X)

    def test_a_stream_forgets_the_report_of_an_earlier_fit(self, data):
        X, _ = data
        model = NMF(2, random_state=0, max_iter=3, tol=0.0).fit(X).partial_fit(X)
        assert model.n_iter_ == 1
        assert not hasattr(model, "objective_history_")
        assert not hasattr(model, "reconstruction_err_")

    def test_a_block_that_fails_is_not_counted(self, data):
        X, _ = data
        model = NMF(2, random_state=0, alpha_H=0.1).partial_fit(X)
        before = model.n_iter_, model.n_samples_seen_, model.components_.copy()
        with pytest.raises(ValueError, match="Negative values"):
            model.partial_fit(-X)
        assert (model.n_iter_, model.n_samples_seen_) == before[:2]
        assert np.array_equal(model.components_, before[2])

    def test_a_fit_that_fails_leaves_the_model_as_it_was(self, data):
        X, W = data
        model = NMF(components=W.T).fit(X)
        expected = model.transform(X)
        with pytest.raises(ValueError, match="features"):
            model.fit(X[:, :8])
        assert np.array_equal(model.transform(X), expected)
        with pytest.raises(ValueError, match="X has 8 features"):
            model.transform(X[:, :8])

    @pytest.mark.parametrize("method", ["fit", "partial_fit"])
    def test_an_interrupted_fit_leaves_the_model_as_it_was(self, data, method):
        X, _ = data

        def stop(n_passes, objective):
            if n_passes == 3:
                raise KeyboardInterrupt

        model = NMF(2, random_state=0).fit(X)
        before = dict(vars(model))
        model.set_params(n_components=3, callback=stop)
        broken = X.copy()
        broken[0, 0] = np.inf
        with pytest.raises((KeyboardInterrupt, ValueError)):
            getattr(model, method)(X if method == "fit" else broken)
        after = vars(model.set_params(n_components=2, callback=None))
        assert after.keys() == before.keys()
        assert all(after[name] is before[name] or after[name] == before[name] for name in before)

    def test_a_tolerance_set_after_a_fit_counts(self, data):
        X, _ = data
        model = NMF(2, random_state=0).fit(X)
        loose = model.set_params(gap_tol=0.5).transform(X)
        assert model.gap_tol_ == 0.5
        tight = model.set_params(gap_tol=1e-12).transform(X)
        assert model.gap_tol_ == 1e-12
        assert np.array_equal(tight, activations(X.T, model.components_.T, tol=1e-12).H.T)
        assert not np.array_equal(loose, tight)

    def test_a_score_counts_what_it_is_told_to_count(self, data):
        X, W = data
        model = NMF.from_basis(W, beta_loss="frobenius", tol=1e-12)
        noisy, weights = X.copy(), np.ones(X.shape)
        noisy[2, 3], weights[2, 3] = 1e3, 0.0
        missing = np.where(weights == 0.0, np.nan, X)
        assert model.score(noisy) < -1e3
        assert model.score(noisy, weights=weights) == pytest.approx(model.score(missing), rel=1e-9)
        support = np.array([True, False, True, True])
        found = activations(X.T, W, "frobenius", background=W[:, 0], support=support, tol=1e-12)
        expected = -found.objective.mean()
        assert model.score(X, background=W[:, 0], support=support) == pytest.approx(expected, rel=1e-9)

    def test_from_basis_names_its_argument(self, data):
        _, W = data
        W[3, 0] = -1.0
        with pytest.raises(ValueError, match=r"^W\[3, 0\] is -1.0"):
            NMF.from_basis(W)
        with pytest.raises(ValueError, match=r"^W has shape \(0, 4\)"):
            NMF.from_basis(W[:0])

    @pytest.mark.parametrize("loss", ["kullback-leibler", "frobenius"])
    def test_weights_of_sparse_data_are_refused_where_something_is_learned(self, data, loss):
        X, _ = data
        sparse = csr_array(X)
        for learn in (NMF(2, beta_loss=loss).fit, NMF(2, beta_loss=loss, init="random").partial_fit):
            with pytest.raises(TypeError, match="weights is given with a sparse matrix"):
                learn(sparse, weights=np.ones(10))

    def test_weights_of_sparse_frames_belong_to_the_solver(self, data):
        X, W = data
        sparse, weights = csr_array(X.T), np.arange(1.0, 11.0)
        with pytest.raises(TypeError, match=r"pass it to Solver\(W, weights="):
            Solver(W).solve(sparse, weights=weights)
        dense = activations(X.T, W, weights=weights, tol=1e-9).H
        np.testing.assert_allclose(Solver(W, weights=weights, tol=1e-9).solve(sparse).H, dense, atol=1e-4)
