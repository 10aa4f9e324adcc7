"""What scikit-learn's own tests expect of an NMF, and what is otherwise here: docs/scikit-learn.md has the list."""

import warnings

import numpy as np
import pytest
import scipy.sparse
from sklearn.decomposition import NMF as TheirNMF
from sklearn.exceptions import ConvergenceWarning

import naive
from knownmf import NMF
from knownmf.learning.starts import INITS
from problems import BETAS, start

STARTS = (None, *INITS)
PENALTIES = [{}, {"alpha_W": 1.0}, {"alpha_W": 1.0, "alpha_H": 0.0}, {"alpha_H": 1.0, "l1_ratio": 0.5}]

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def data(n_samples=6, n_features=5, seed=0, zeros=False):
    X = np.random.default_rng(seed).standard_normal((n_samples, n_features))
    return np.maximum(X, 0.0) if zeros else np.abs(X)


def custom(X, n_components, seed=1):
    rng = np.random.default_rng(seed)
    return {"W": rng.random((len(X), n_components)), "H": rng.random((n_components, X.shape[1]))}


class TestStarts:
    @pytest.mark.parametrize("init", INITS)
    def test_nothing_is_negative(self, init):
        W, H = start(data(10, 10), 10, init, 0)
        assert (W >= 0.0).all()
        assert (H >= 0.0).all()

    def test_nndsvd_is_near_the_data(self):
        X = data(10, 10)
        W, H = start(X, 10, "nndsvd", 0)
        assert np.linalg.norm(X - H @ W) < np.linalg.norm(X - X.mean())

    def test_variants_differ_from_nndsvd_only_where_it_is_zero(self):
        X = data(10, 10)
        plain = start(X, 10, "nndsvd", 0)
        for init in ("nndsvda", "nndsvdar"):
            for filled, whole in zip(start(X, 10, init, 0), plain, strict=True):
                np.testing.assert_array_equal(filled[whole > 0.0], whole[whole > 0.0])
                assert (filled > 0.0).all()
                assert (whole == 0.0).any()

    @pytest.mark.parametrize("init", INITS[1:])
    def test_the_units_of_the_data_do_not_matter(self, init):
        X = data(10, 8)
        for small, plain in zip(start(4.0**-40 * X, 4, init, 0), start(X, 4, init, 0), strict=True):
            np.testing.assert_allclose(2.0**40 * small, plain, rtol=1e-9)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("init", STARTS)
@pytest.mark.parametrize("beta", BETAS)
def test_factors_have_the_right_shape_and_are_nonnegative_for_every_init(beta, init, penalty):
    for shape in ((30, 10), (10, 30)):
        X = data(*shape)
        model = NMF(5, beta_loss=beta, init=init, random_state=0, max_iter=10, **penalty)
        H = model.fit_transform(X)
        assert H.shape == (shape[0], 5)
        assert model.components_.shape == (5, shape[1])
        assert np.isfinite(H).all()
        assert np.isfinite(model.components_).all()
        assert (H >= 0.0).all()
        assert (model.components_ >= 0.0).all()


@pytest.mark.parametrize("beta", BETAS)
def test_as_many_components_as_features_fit_closely(beta):
    model = NMF(5, beta_loss=beta, init="nndsvdar", random_state=0, max_iter=3000, tol=1e-9).fit(data())
    assert model.reconstruction_err_ < 0.1


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.5, 2.0])
def test_an_exact_factorization_is_found(beta):
    rng = np.random.default_rng(0)
    W, H = np.zeros((5, 10)), np.zeros((15, 5))
    H[np.arange(15), np.arange(15) % 5] = 0.1 + rng.random(15)
    W[np.arange(10) % 5, np.arange(10)] = 0.1 + rng.random(10)
    model = NMF(5, beta_loss=beta, init="nndsvd", random_state=0, max_iter=1000, tol=1e-9, gap_tol=1e-9)
    np.testing.assert_allclose(model.fit_transform(H @ W) @ model.components_, H @ W, atol=1e-5)


@pytest.mark.parametrize("beta", BETAS)
def test_more_components_than_features(beta):
    X = data(30, 10)
    model = NMF(15, beta_loss=beta, random_state=0, max_iter=200).fit(X)
    assert model.components_.shape == (15, 10)
    assert model.score(X) > NMF(5, beta_loss=beta, random_state=0, max_iter=200).fit(X).score(X)


class TestTransform:
    @pytest.mark.parametrize("init", [*STARTS, "custom"])
    @pytest.mark.parametrize("beta", BETAS)
    def test_it_returns_what_fit_transform_returned(self, beta, init):
        X = data(12, 7)
        model = NMF(3, beta_loss=beta, init=init, random_state=0, max_iter=10)
        H = model.fit_transform(X, **(custom(X, 3) if init == "custom" else {}))
        np.testing.assert_array_equal(model.transform(X), H)

    @pytest.mark.parametrize("beta", BETAS)
    def test_a_sample_does_not_depend_on_the_others(self, beta):
        X = data(20, 10)
        model = NMF(4, beta_loss=beta, random_state=0, max_iter=10).fit(X)
        whole = model.transform(X)
        for first in range(0, 20, 3):
            np.testing.assert_array_equal(model.transform(X[first : first + 3]), whole[first : first + 3])

    @pytest.mark.parametrize("beta", [1.0, 2.0])
    def test_theirs_is_farther_from_what_was_fitted(self, beta):
        """Their activations of the training data are others in ``transform``; how far off is not told."""
        X = data(20, 10)
        theirs = TheirNMF(4, solver="mu", beta_loss=beta, random_state=0)
        H = theirs.fit_transform(X)
        assert np.abs(theirs.transform(X) - H).max() > 1e-3 * H.max()

    @pytest.mark.parametrize("beta", BETAS)
    def test_back_to_the_data(self, beta):
        X = data(6, 4)
        model = NMF(4, beta_loss=beta, init="random", random_state=0, max_iter=3000, tol=1e-9, gap_tol=1e-9)
        H = model.fit_transform(X)
        back = model.inverse_transform(H)
        np.testing.assert_array_equal(back, H @ model.components_)
        np.testing.assert_allclose(back, X, atol=0.15)


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.5, 2.0, 3.0])
def test_the_error_is_that_of_the_definition_where_data_are_zero(beta):
    X = data(20, 10, zeros=True)
    model = NMF(4, beta_loss=beta, random_state=0, max_iter=20)
    v = model.fit_transform(X) @ model.components_
    floors = 1e-15 * X.max(axis=1, keepdims=True) * np.ones_like(X)
    x = np.maximum(X, floors) if beta < 1.0 else X
    expected = sum(naive.divergence(a, b, beta) for a, b in zip(x.flat, v.flat, strict=True) if a or b)
    assert model.reconstruction_err_ == pytest.approx(np.sqrt(2.0 * expected), rel=1e-6)


def test_their_error_leaves_out_small_data():
    """Below beta = 1 scikit-learn passes over data under 1.2e-7, but not over what these cost: 0 for a poor fit."""
    X = data(20, 10)
    X[::2] = 1e-9
    errors = []
    for model in (NMF(1, beta_loss=0.0, max_iter=5), TheirNMF(1, solver="mu", beta_loss=0.0, max_iter=5)):
        v = model.fit_transform(X) @ model.components_
        expected = sum(naive.divergence(x, model, 0) for x, model in zip(X.flat, v.flat, strict=True))
        errors.append(model.reconstruction_err_ / np.sqrt(2.0 * expected))
    assert errors[0] == pytest.approx(1.0, rel=1e-6)
    assert errors[1] < 0.5


class TestZeros:
    @pytest.mark.parametrize("beta", BETAS)
    def test_they_give_finite_answers_below_beta_one_too(self, beta):
        """scikit-learn refuses zeros for beta <= 0; here they are raised to 1e-15 of the sample's largest value."""
        X = data(zeros=True)
        assert (X == 0.0).any()
        model = NMF(3, beta_loss=beta, init="random", random_state=0, max_iter=300)
        H = model.fit_transform(X)
        assert np.isfinite(H).all()
        assert np.isfinite(model.components_).all()
        assert np.isfinite(model.objective_history_).all()
        if beta <= 0:
            with pytest.raises(ValueError, match="X contains zeros"):
                TheirNMF(3, solver="mu", beta_loss=beta, init="random").fit(X)

    @pytest.mark.parametrize(
        ("form", "beta"),
        [*((np.asarray, beta) for beta in BETAS), *((scipy.sparse.csr_array, beta) for beta in (1.0, 2.0))],
    )
    def test_a_value_next_to_none_is_as_good_as_none(self, form, beta):
        X, errors = data(10, 4), []
        for tiny in (0.0, 1e-323, 1e-310):
            X[0, 0] = tiny
            model = NMF(2, beta_loss=beta, random_state=0, init="random", tol=1e-9, max_iter=50).fit(form(X))
            assert np.isfinite(model.objective_history_).all()
            errors.append(model.reconstruction_err_)
        np.testing.assert_allclose(errors, errors[0], rtol=1e-6)


@pytest.mark.parametrize("container", [scipy.sparse.csr_array, scipy.sparse.csc_array, scipy.sparse.csr_matrix])
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_sparse_data_give_what_dense_data_give(container, penalty, beta):
    X = data(10, 10)
    X[:, ::2] *= np.random.default_rng(3).random((10, 5)) < 0.5
    dense = NMF(5, beta_loss=beta, init="random", random_state=0, tol=0, max_iter=30, gap_tol=1e-9, **penalty)
    sparse = NMF(**dense.get_params())
    H = dense.fit_transform(X)
    np.testing.assert_allclose(sparse.fit_transform(container(X)), H, atol=1e-3 * max(H.max(), 1e-3))
    np.testing.assert_allclose(sparse.components_, dense.components_, atol=1e-3)
    np.testing.assert_allclose(sparse.transform(container(X)), sparse.transform(X), atol=1e-4 * max(H.max(), 1e-3))


@pytest.mark.parametrize("beta", [-0.9, 0.0, 0.2, 1.0, 2.5])
def test_a_little_other_beta_gives_a_little_other_answer(beta):
    """Not at 2: there learning takes coordinate sweeps, which go farther in a pass than multiplicative updates do."""
    X = data(20, 10)
    found = [
        NMF(
            5, beta_loss=b, init="random", random_state=0, max_iter=20, tol=0, alpha_W=0.1, l1_ratio=0.5, gap_tol=1e-10
        ).fit(X)
        for b in (beta, beta - 1e-6)
    ]
    np.testing.assert_allclose(found[0].components_, found[1].components_, atol=1e-4)
    np.testing.assert_allclose(found[0].transform(X), found[1].transform(X), atol=1e-3)


@pytest.mark.parametrize("beta", BETAS)
class TestPenalties:
    def test_l1_makes_zeros(self, beta):
        X = data()
        plain, sparse = (NMF(3, beta_loss=beta, alpha_W=alpha, l1_ratio=1.0, random_state=0) for alpha in (0.0, 1.0))
        zeros = [(model.fit_transform(X) < 1e-16).sum() for model in (plain, sparse)]
        assert zeros[1] > zeros[0]
        assert (sparse.components_ < 1e-16).sum() > (plain.components_ < 1e-16).sum()

    def test_l2_makes_both_factors_small(self, beta):
        X = data()
        plain, small = (NMF(3, beta_loss=beta, alpha_W=alpha, random_state=0) for alpha in (0.0, 0.1))
        sizes = [(model.fit_transform(X) ** 2).sum() + (model.components_**2).sum() for model in (plain, small)]
        assert sizes[1] < sizes[0]


@pytest.mark.parametrize("beta", [1.5, 2.0, 3.0])
def test_a_penalty_that_nothing_is_worth_makes_everything_zero(beta):
    model = NMF(3, beta_loss=beta, alpha_W=100.0, l1_ratio=1.0, random_state=0)
    # Next to everything: below beta = 2 a model of zero would cost more than any penalty saves.
    assert model.fit_transform(data()).max() < 1e-10
    assert model.components_.max() < 1e-10


class TestTypes:
    @pytest.mark.parametrize("kind", [np.float32, np.float64, np.int32, np.int64])
    def test_single_stays_single_and_everything_else_is_double(self, kind):
        X = (10 * data(20, 15)).astype(kind)
        expected = np.float32 if kind is np.float32 else np.float64
        model = NMF(4, alpha_W=1.0, alpha_H=1.0, tol=1e-2, random_state=0)
        assert model.fit_transform(X).dtype == model.transform(X).dtype == expected
        assert model.components_.dtype == expected

    @pytest.mark.parametrize("beta", BETAS)
    def test_single_and_double_agree(self, beta):
        X = data(50, 7)
        models = [
            NMF(3, beta_loss=beta, random_state=0, tol=0, max_iter=10, gap_tol=1e-7).fit(X.astype(kind))
            for kind in (np.float32, np.float64)
        ]
        np.testing.assert_allclose(*(model.components_ for model in models), atol=1e-4)
        if 1.0 <= beta <= 2.0:  # elsewhere a sample may end in another optimum
            np.testing.assert_allclose(*(model.reconstruction_err_ for model in models), rtol=1e-4)

    def test_a_custom_start_may_be_of_any_real_type(self):
        X = data()
        plain = NMF(2, init="custom", max_iter=10).fit(X, W=np.ones((6, 2)), H=np.ones((2, 5)))
        for kind in (np.float32, np.int64):
            W, H = np.ones((6, 2), kind), np.ones((2, 5), kind)
            np.testing.assert_array_equal(
                NMF(2, init="custom", max_iter=10).fit(X, W=W, H=H).components_, plain.components_
            )
        with pytest.raises(TypeError, match="should have the same dtype as X"):
            TheirNMF(2, init="custom").fit(X, W=W, H=H)


class TestCustomStarts:
    def test_the_number_of_components_is_that_of_the_start(self):
        X = data()
        for n_components in ("auto", None, 2):
            model = NMF(n_components, init="custom", max_iter=10)
            H = model.fit_transform(X, **custom(X, 2))
            assert H.shape == (6, model.n_components_) == (6, 2)
        known = NMF(components=np.ones((1, 5)), init="custom", max_iter=10).fit(X, **custom(X, 3))
        assert known.n_components_ == 3
        np.testing.assert_array_equal(known.components_[0], np.ones(5))

    def test_fit_takes_them_as_fit_transform_does(self):
        X = data()
        whole, parts = (NMF(2, init="custom", max_iter=10) for _ in range(2))
        np.testing.assert_array_equal(whole.fit_transform(X, **custom(X, 2)), parts.fit(X, **custom(X, 2)).transform(X))

    def test_nothing_that_was_passed_is_ignored(self):
        """scikit-learn warns and goes on without them."""
        X = data()
        with pytest.raises(ValueError, match='init is None, W is given and H is given: init="custom" takes both'):
            NMF(2).fit(X, **custom(X, 2))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"W": np.ones((5, 2))}, r"^W has shape \(5, 2\), expected .* \(6, 2\)"),
            ({"W": np.ones((6, 3))}, r"^W has shape \(6, 3\), expected .* \(6, 2\)"),
            ({"H": np.ones((2, 4))}, r"H has shape \(2, 4\), expected \(2, 5\)"),
            ({"H": -np.ones((2, 5))}, r"H\[0, 0\] is -1.0"),
            ({"W": -np.ones((6, 2))}, r"^W\[0, 0\] is -1.0"),
            ({"H": np.ones(5)}, "H has 1 dimension, expected 2"),
        ],
    )
    def test_what_does_not_fit_is_named(self, change, message):
        X = data()
        with pytest.raises(ValueError, match=message):
            NMF(2, init="custom").fit(X, **{**custom(X, 2), **change})

    def test_zeros_are_a_start_like_any_other(self):
        """scikit-learn refuses them: its multiplicative updates would be stuck."""
        X = data()
        start = custom(X, 2)
        for name in start:
            model = NMF(2, init="custom").fit(X, **{**start, name: np.zeros_like(start[name])})
            assert model.reconstruction_err_ < 0.9 * NMF(1, random_state=0).fit(X).reconstruction_err_


class TestRefusals:
    def test_negative_data(self):
        X = data()
        with pytest.raises(ValueError, match="Negative values in data passed to NMF"):
            NMF(2).fit(-X)
        with pytest.raises(ValueError, match="Negative values in data passed to NMF"):
            NMF(2).fit(X).transform(-X)

    @pytest.mark.parametrize("init", INITS[1:])
    def test_more_components_than_singular_vectors(self, init):
        with pytest.raises(ValueError, match='not 6: pass init="random"'):
            NMF(6, init=init).fit(data())

    def test_how_many_to_learn_must_be_said(self):
        """scikit-learn takes as many as there are features."""
        with pytest.raises(ValueError, match="0 components are known: pass how many to learn"):
            NMF().fit(data())

    def test_learning_that_did_not_end_warns_unless_tol_is_zero(self):
        X = data(20, 10)
        with pytest.warns(ConvergenceWarning, match="still going on after max_iter=1 passes"):
            NMF(2, max_iter=1).fit(X)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            NMF(2, max_iter=1, tol=0).fit(X)

    @pytest.mark.parametrize("name", ["solver", "verbose", "shuffle"])
    def test_parameters_that_are_gone_are_refused(self, name):
        assert name in TheirNMF().get_params()
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            NMF(2, **{name: 0})


def test_components_learned_from_nothing_sum_to_one():
    X = data(20, 10)
    np.testing.assert_allclose(NMF(3, random_state=0).fit(X).components_.sum(axis=1), 1.0)
    penalized = NMF(3, random_state=0, alpha_W=0.01).fit(X)
    assert (np.abs(penalized.components_.sum(axis=1) - 1.0) > 0.01).all()


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_one_block_again_and_again_comes_to_what_fit_comes_to(beta):
    X = data(48, 5)
    stream = NMF(3, beta_loss=beta, init="random", random_state=0, forgetting=1e-6)
    for _ in range(200):
        stream.partial_fit(X)
    whole = NMF(3, beta_loss=beta, init="random", random_state=0, tol=0, max_iter=200).fit(X)
    assert stream.score(X) == pytest.approx(whole.score(X), rel=0.05)
