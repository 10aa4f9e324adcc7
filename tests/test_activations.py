"""The public call: what goes in, what comes out, what is refused, and how it stands beside other solvers."""

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import nnls
from scipy.sparse import csc_array
from sklearn.decomposition import non_negative_factorization
from sklearn.exceptions import ConvergenceWarning

import naive
from knownmf import Dictionary, Solver, activations, basis, get_num_threads, set_num_threads
from problems import BETAS, random_problem


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    return rng.random((30, 12)) + 0.01, rng.random((30, 6))


def harmonic(n_bins=120, n_components=12, n_frames=40, seed=0):
    """Overlapping peaks and noise: what an audio spectrogram is like, and correlated enough to be hard."""
    rng = np.random.default_rng(seed)
    f = np.arange(n_bins)[:, np.newaxis]
    pitch = np.linspace(5, 20, n_components)
    W = sum(np.exp(-0.5 * ((f - k * pitch) / 1.5) ** 2) / k for k in range(1, 12)) + 1e-4
    H = rng.gamma(0.5, 2.0, (n_components, n_frames)) * (rng.random((n_components, n_frames)) < 0.4)
    return (W @ H) * rng.gamma(10, 0.1, (n_bins, n_frames)) + 0.01 * rng.random((n_bins, n_frames)), W


class TestArrays:
    @pytest.mark.parametrize("beta", BETAS)
    def test_any_layout_and_type_give_the_same_answer(self, problem, beta):
        V, W = problem
        found = activations(V, W, beta)
        for v, w in (
            (np.asfortranarray(V), np.asfortranarray(W)),
            (np.repeat(V, 2, axis=1)[:, ::2], W[:, ::-1][:, ::-1]),
            (V.tolist(), W.tolist()),
        ):
            assert np.array_equal(activations(v, w, beta).H, found.H)

    def test_result_has_the_floating_type_of_the_data(self, problem):
        V, W = problem
        for v, w, expected in (
            (V, W, np.float64),
            (V.astype(np.float32), W, np.float32),
            (V.astype(np.float32), W.astype(np.float32), np.float32),
            (V, W.astype(np.float32), np.float64),
            (V, (W * 9).astype(int), np.float64),
            ((V * 9).astype(np.int16), W, np.float64),
            (V > 0.5, W, np.float64),
            (np.ma.masked_less(V.astype(np.float32), 0.1), W, np.float32),
            (np.ma.masked_less((V * 9).astype(int), 1), W, np.float64),
        ):
            assert activations(v, w).H.dtype == expected

    def test_nothing_passed_in_is_changed(self):
        V, W, keywords = random_problem(0, ("weights", "missing", "background", "l1", "l2", "support", "H_init"))
        copies = {name: value.copy() for name, value in keywords.items()}
        for array in (V, W, *keywords.values()):
            array.setflags(write=False)
        before = V.copy(), W.copy()
        activations(V, W, **keywords)
        assert np.array_equal(V, before[0], equal_nan=True)
        assert np.array_equal(W, before[1])
        assert all(np.array_equal(copies[name], keywords[name]) for name in keywords)

    def test_no_frames_give_no_activations(self, problem):
        found = activations(problem[0][:, :0], problem[1])
        assert found.H.shape == (6, 0)
        assert found.gap.shape == found.converged.shape == (0,)
        assert repr(found) == "Activations(6 components x 0 frames, beta=1)"

    @pytest.mark.parametrize("beta", BETAS)
    def test_silence_is_exactly_silent(self, problem, beta):
        V, W = problem[0].copy(), problem[1]
        V[:, 3] = 0.0
        V[:, 5] = np.nan
        found = activations(V, W, beta)
        assert not found.H[:, [3, 5]].any()
        assert found.converged[[3, 5]].all()
        assert not found.kkt[[3, 5]].any()
        assert not found.objective[[3, 5]].any()

    @pytest.mark.parametrize("beta", BETAS)
    def test_zero_and_duplicate_atoms(self, problem, beta):
        V, W = problem
        W = np.column_stack([W, np.zeros(len(W)), W[:, 0], W[:, 1]])
        found = activations(V, W, beta, tol=1e-6)
        assert found.converged.all()
        assert not found.H[6].any()
        plain = activations(V, problem[1], beta, tol=1e-6)
        np.testing.assert_allclose(found.objective, plain.objective, rtol=1e-5)

    @pytest.mark.parametrize("beta", BETAS)
    @pytest.mark.parametrize(("n_bins", "n_components"), [(1, 1), (1, 5), (5, 40), (30, 1), (7, 300)])
    def test_any_shape_converges(self, beta, n_bins, n_components):
        rng = np.random.default_rng(n_components)
        V, W = rng.random((n_bins, 20)) + 0.01, rng.random((n_bins, n_components)) + 0.01
        assert activations(V, W, beta, tol=1e-6).converged.all()

    @pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 1.5, 2.0])
    def test_frames_from_the_smallest_to_the_largest(self, problem, beta):
        V, W = problem
        scales = 10.0 ** np.linspace(-30, 30, V.shape[1])
        found = activations(V * scales, W, beta, tol=1e-6)
        assert found.converged.all()
        np.testing.assert_allclose(found.H / scales, activations(V, W, beta, tol=1e-6).H, rtol=0.05, atol=1e-2)

    @pytest.mark.parametrize("beta", [-1.0, 0.0, 0.5])
    def test_zero_bins_below_beta_one_are_floored(self, problem, beta):
        V, W = problem[0].copy(), problem[1] + 0.01
        V[::3, ::2] = 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = activations(V, W, beta)
            floored = activations(np.maximum(V, 1e-15 * V.max(axis=0)), W, beta)
        assert np.isfinite(found.H).all()
        assert np.isfinite(found.objective).all()
        assert np.isfinite(found.kkt).all()
        np.testing.assert_allclose(found.objective, floored.objective, rtol=1e-6)


class TestCertificate:
    def test_a_missed_tolerance_is_reported_once(self):
        V, W = harmonic()
        with pytest.warns(
            ConvergenceWarning, match=r"^40 of 40 frames missed tol=1e-12; the worst is frame \d+"
        ) as caught:
            found = activations(V, W, tol=1e-12, max_iter=1)
        assert len(caught) == 1
        assert caught[0].filename == __file__
        assert not found.converged.any()
        assert (found.n_iter == 1).all()
        assert "0 of 40 frames within tol=1e-12, worst relative gap" in repr(found)

    def test_exact_data_give_exact_zeros_and_tiny_gaps(self):
        rng = np.random.default_rng(0)
        W = rng.random((40, 8))
        H = rng.random((8, 30)) * (rng.random((8, 30)) < 0.5)
        for beta in (1.0, 1.5, 2.0):
            found = activations(W @ H, W, beta, tol=1e-10)
            np.testing.assert_allclose(found.H, H, atol=1e-4)
            assert found.relative_gap.max() <= 1e-10

    def test_closed_forms_of_one_component(self):
        w, x = np.array([[1.0], [2.0], [0.5]]), np.array([[3.0], [1.0], [4.0]])
        assert activations(x, w, 1, l1=0.7, tol=1e-12).H[0, 0] == pytest.approx(8 / (3.5 + 0.7), rel=1e-9)
        assert activations(x, w, 2, l1=0.7, l2=1.3, tol=1e-12).H[0, 0] == pytest.approx(
            (7 - 0.7) / (5.25 + 1.3), rel=1e-9
        )
        assert activations(x, w, 0, tol=1e-12).H[0, 0] == pytest.approx(np.mean(x / w), rel=1e-9)

    def test_an_overwhelming_penalty_silences_least_squares(self, problem):
        found = activations(*problem, beta_loss="frobenius", l1=1e6)
        assert not found.H.any()
        assert not found.relative_gap.any()

    @pytest.mark.parametrize("beta", [1.0, 1.3, 1.5])
    def test_a_warm_start_of_other_frames_takes_few_steps(self, beta):
        rng = np.random.default_rng(4)
        W = rng.gamma(0.3, size=(200, 20)) + 1e-3
        H = rng.gamma(1.0, size=(20, 40)) * (rng.random((20, 40)) < 0.2)
        V = (W @ H + 1e-3) * rng.gamma(10.0, 0.1, (200, 40))
        cold = activations(V, W, beta, tol=1e-6)
        warm = activations(V, W, beta, tol=1e-6, H_init=np.roll(cold.H, 1, axis=1))
        assert cold.converged.all()
        assert warm.converged.all()
        assert warm.n_iter.max() <= cold.n_iter.max() + 2
        np.testing.assert_allclose(warm.objective, cold.objective, rtol=1e-5)

    @pytest.mark.parametrize("beta", [-1.0, 0.0])
    def test_where_optima_are_many_one_step_does_not_end_above_its_warm_start(self, beta):
        rng = np.random.default_rng(1)
        W = rng.gamma(0.3, size=(30, 20)) + 1e-3
        V = (W @ (rng.gamma(1.0, size=(20, 60)) * (rng.random((20, 60)) < 0.25)) + 1e-3) * rng.gamma(2.0, 0.5, (30, 60))
        best = activations(V, W, beta, tol=1e-8).H
        start = best * (1.0 + 0.02 * rng.standard_normal(best.shape)).clip(0.0)
        with pytest.warns(ConvergenceWarning):
            found = activations(V, W, beta, max_iter=1, H_init=start)
        for t in range(V.shape[1]):
            assert found.objective[t] <= naive.objective(V[:, t], start[:, t], W, beta) * (1.0 + 1e-9)

    @pytest.mark.parametrize("beta", [1.1, 1.9, 1.98, 1.999])
    def test_where_a_penalty_leaves_next_to_nothing_the_gap_holds(self, beta):
        for seed in range(40):
            rng = np.random.default_rng(seed)
            n_bins, n_components = int(rng.choice([3, 10, 40])), int(rng.choice([1, 2, 5, 12]))
            W = rng.gamma(0.3, size=(n_bins, n_components)) + 1e-6
            V = (W @ rng.gamma(0.3, size=(n_components, 4)) + 1e-9) * rng.gamma(2.0, 0.5, (n_bins, 4))
            l1 = 10 ** rng.uniform(-3.0, 1.0)
            best = activations(V, W, beta, l1=l1, tol=1e-10)
            for start in (None, 1e-200 * best.H):
                found = activations(V, W, beta, l1=l1, tol=1e-2, H_init=start)
                excess = found.objective - best.objective
                assert (excess <= found.gap + 1e-9 * (V**beta).sum(axis=0)).all()

    @pytest.mark.parametrize("beta", [0.0, 1.0, 1.5, 3.0])
    @pytest.mark.parametrize("size", [1e-200, 1e-30, 1e39, 1e150, 1e300])
    @pytest.mark.parametrize("background", [None, np.full(60, 0.01)])
    @pytest.mark.parametrize("l1", [0.0, 0.1])
    def test_a_warm_start_of_any_size(self, beta, size, background, l1):
        rng = np.random.default_rng(0)
        W = rng.gamma(0.3, size=(60, 8)) + 1e-3
        V = W @ rng.gamma(1.0, size=(8, 3))
        options = {"background": background, "l1": l1, "tol": 1e-6}
        warm = activations(V, W, beta, H_init=np.full((8, 3), size), **options)
        assert warm.converged.all()
        assert np.isfinite(warm.objective).all()
        if 1.0 <= beta <= 2.0:
            cold = activations(V, W, beta, **options)
            excess = warm.objective - cold.objective
            assert (excess <= warm.gap + 1e-12 * np.abs(cold.objective)).all()

    def test_a_warm_start_changes_the_time_and_not_the_optimum(self):
        V, W = harmonic()
        cold = activations(V, W, tol=1e-8)
        warm = activations(V * 1.01, W, tol=1e-8, H_init=cold.H)
        assert warm.n_iter.mean() < cold.n_iter.mean()
        np.testing.assert_allclose(warm.objective, 1.01 * cold.objective, rtol=1e-6)


class TestTraps:
    """Points where an earlier version stood still or proved too much."""

    def test_a_prohibitive_penalty_on_one_atom_does_not_hide_the_others(self):
        for seed in range(300):
            rng = np.random.default_rng(seed)
            W, x, start = rng.random((2, 2)) + 0.01, rng.random((2, 1)), 10.0 ** rng.integers(0, 8) * rng.random((2, 1))
            both = activations(x, W, 1.95, l1=[0, 1e6], H_init=start, tol=1e-6)
            alone = activations(x, W[:, :1], 1.95, tol=1e-6)
            assert both.objective[0] - alone.objective[0] <= both.gap[0] + 1e-12
            assert both.converged.all()

    @pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
    def test_bins_that_the_support_leaves_alone_cost_a_constant_in_any_shape(self, beta):
        one = activations(np.ones((2, 1)), np.eye(2), beta, support=[1, 0])
        two = activations(np.ones((2, 2)), np.eye(2), beta, support=[[1, 1], [0, 0]])
        assert np.isfinite(one.objective).all()
        assert np.array_equal(np.repeat(one.objective, 2), two.objective)
        assert one.converged.all()

    def test_least_squares_with_missing_bins_gets_off_an_empty_model(self):
        V, W = [[0.01], [0.64], [np.nan]], [[0.42, 0], [0, 0.79], [1, 1]]
        warm = activations(V, W, "frobenius", H_init=[[7e6], [8e6]], tol=1e-6)
        cold = activations(V, W, "frobenius", tol=1e-6)
        assert warm.converged.all()
        np.testing.assert_allclose(warm.H, cold.H, rtol=1e-4)

    @pytest.mark.parametrize("beta", [1.9, 1.95, 1.99, 1.999])
    def test_a_loss_just_short_of_least_squares_over_sparse_atoms(self, beta):
        rng = np.random.default_rng(0)
        W = rng.random((8, 5)) * (rng.random((8, 5)) < 0.6)
        found = activations(rng.random((8, 3000)), W, beta, tol=1e-6)
        assert found.converged.mean() > 0.999

    def test_a_penalty_next_to_nothing_costs_no_proof(self):
        rng = np.random.default_rng(0)
        W = rng.random((8, 4))
        V = 1e-30 * (W @ rng.random((4, 200)) * (0.5 + rng.random((8, 200))))
        assert activations(V, W, l2=1.0, tol=1e-6).converged.all()
        assert activations(V * 1e30, W, 2, weights=np.full(8, 1e30), l2=1.0, tol=1e-6).converged.all()

    @pytest.mark.parametrize("beta", [-1.0, 0.0, 0.5, 0.9])
    def test_large_penalties_below_beta_one(self, beta):
        rng = np.random.default_rng(0)
        W, V = rng.random((6, 3)), rng.random((6, 20))
        for l1 in (1e3, 1e6):
            assert activations(V, W, beta, l1=l1).converged.all()

    def test_single_precision_cannot_hold_everything_and_says_so(self):
        with pytest.warns(ConvergenceWarning, match="1 of 1 frames missed"):
            over = activations(np.full((1, 1), 1e30, np.float32), [[1e-20]])
        assert np.isfinite(over.H).all()
        with pytest.warns(ConvergenceWarning, match="1 of 1 frames missed"):
            under = activations(np.array([[1e-30], [2e-30]], np.float32), [[1e20], [1e20]])
        assert not under.converged[0]
        rng = np.random.default_rng(0)
        V, W = rng.random((20, 50)).astype(np.float32), rng.random((20, 6))
        with pytest.warns(ConvergenceWarning):
            rough = activations(V, W, max_iter=1, tol=1e-6)
        H = rough.H.astype(float)
        np.testing.assert_allclose(rough.objective, objective(V.astype(float), W, H, 1), rtol=1e-12)


class TestThreads:
    def test_the_number_of_threads_changes_no_bit(self):
        V, W = harmonic(n_frames=200)
        many = activations(V, W)
        before = get_num_threads()
        set_num_threads(1)
        try:
            one = activations(V, W)
        finally:
            set_num_threads(before)
        assert np.array_equal(many.H, one.H)

    def test_calls_from_several_threads_do_not_meet(self):
        V, W = harmonic(n_frames=100)
        expected = activations(V, W).H
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(activations(V, W).H)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == 4
        assert all(np.array_equal(answer, expected) for answer in answers)

    def test_progress_is_told_and_can_stop_the_work(self):
        V, W = np.random.default_rng(0).random((2000, 1200)), np.ones((2000, 1))
        told = []
        activations(V, W, progress=lambda done, total: told.append((done, total)))
        assert len(told) > 1
        assert told[-1] == (1200, 1200)
        assert [done for done, _ in told] == sorted(done for done, _ in told)

        def stop(done, total):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            activations(V, W, progress=stop)


class TestPeers:
    def test_agrees_with_scipy_nnls(self):
        V, W = harmonic()
        found = activations(V, W, "frobenius", tol=1e-12)
        np.testing.assert_allclose(found.H, np.stack([nnls(W, v)[0] for v in V.T], axis=1), rtol=1e-6, atol=1e-8)

    def test_is_never_above_scikit_learn(self):
        V, W = harmonic()
        for beta in (0.0, 0.5, 1.0, 1.5, 2.0):
            H = scikit_learn(V, W, beta, max_iter=3000)
            theirs = objective(V, W, H, beta)
            ours = activations(V, W, beta, tol=1e-8)
            assert np.all(ours.objective <= theirs * (1 + 1e-9))
            np.testing.assert_allclose(ours.objective, objective(V, W, ours.H, beta), rtol=1e-9)

    def test_scikit_learn_leaves_the_first_example_short_and_we_do_not(self):
        W = np.array([[0.4, 0.4], [0.2, 0.1]])
        theirs = scikit_learn(np.array([[3.0], [1.2]]), W, 2.0, max_iter=200, solver="cd")
        ours = activations([[3.0], [1.2]], W, "frobenius", tol=1e-12).H
        assert abs(theirs[:, 0] - [4.5, 3.0]).max() > 1e-3
        np.testing.assert_allclose(ours[:, 0], [4.5, 3.0], atol=1e-9)


def scikit_learn(V, W, beta, max_iter, solver="mu"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return non_negative_factorization(
            V.T, H=W.T, n_components=W.shape[1], init="custom", update_H=False, solver=solver, beta_loss=beta,
            max_iter=max_iter, tol=1e-4 if solver == "cd" else 0.0,
        )[0].T  # fmt: skip


def objective(V, W, H, beta):
    v = W @ H
    if beta == 1:
        return (V * np.log(V / v) - V + v).sum(axis=0)
    if beta == 0:
        return (V / v - np.log(V / v) - 1).sum(axis=0)
    return ((V**beta + (beta - 1) * v**beta - beta * V * v ** (beta - 1)) / (beta * (beta - 1))).sum(axis=0)


@pytest.mark.parametrize(("level", "warns"), [(-30.0, True), (0.0, False)])
def test_least_squares_warns_of_data_that_are_nearly_all_negative(level, warns):
    """Decibels are accepted there, and their activations are zero."""
    V = level + np.random.default_rng(0).normal(size=(30, 12))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = activations(V, np.ones((30, 1)), beta_loss="frobenius")
    assert found.H.any() != warns
    assert [str(one.message).partition(":")[0] for one in caught] == warns * [
        "360 of 360 values of V are negative, but the model is not"
    ]
    assert all("librosa.db_to_amplitude" in str(one.message) and one.filename == __file__ for one in caught)
    activations(-np.ones((30, 1)), np.ones((30, 1)), beta_loss="frobenius")  # one frame: no warning


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"V": -np.ones((30, 12))}, ValueError, r"V\[0, 0\] is -1.0 \(and 359 more\): negative values"),
            ({"V": np.full((30, 12), np.inf)}, ValueError, r"V\[0, 0\] is inf .*use NaN for what is missing"),
            ({"V": np.ones(30)}, ValueError, "V has 1 dimension, expected 2"),
            ({"V": np.ones((29, 12))}, ValueError, r"V has 29 bins but W has 30: both need the same bins\.$"),
            ({"V": np.ones((12, 30))}, ValueError, r"V has 12 bins but W has 30: .* pass V\.T\."),
            ({"W": np.ones((6, 30))}, ValueError, r"V has 30 bins but W has 6: .* pass W\.T\."),
            ({"V": pd.DataFrame({"gene": ["a"] * 30, "s": [1.0] * 30})}, TypeError, r"V\[0, 0\] is 'a'.*column 'gene'"),
            ({"W": Dictionary(np.eye(5), list("abcde"), sr=9, n_fft=8, hop_length=4)}, TypeError, "its attribute W"),
            ({"H_init": activations(np.eye(3), np.eye(3))}, TypeError, "H_init is an .* Activations.* its attribute H"),
            ({"beta_loss": True}, ValueError, "beta_loss is True"),
            ({"V": np.ones((0, 12)), "W": np.ones((0, 6))}, ValueError, r"V has no bins\."),
            ({"V": np.ones((30, 12)) * 1j}, TypeError, r"V is complex: pass its magnitude, np.abs\(V\)"),
            ({"V": csc_array(np.ones((30, 12)) * 1j)}, TypeError, r"V is complex: pass its magnitude, np.abs\(V\)"),
            ({"V": [["a"] * 12] * 30}, TypeError, "V holds text, not real numbers"),
            ({"V": [[1.0], [1.0, 2.0]]}, ValueError, "V is not a rectangular array"),
            ({"W": np.ones((30, 0))}, ValueError, "W has no columns"),
            ({"W": np.full((30, 6), np.nan)}, ValueError, r"W\[0, 0\] is nan .*: NaN \(missing or masked\)"),
            ({"W": -np.ones((30, 6))}, ValueError, r"W\[0, 0\] is -1.0 .*negative"),
            ({"beta_loss": "kl"}, ValueError, "beta_loss is 'kl'"),
            ({"l1": -1.0}, ValueError, "l1 is -1.0: negative"),
            ({"l1": np.ones(5)}, ValueError, r"l1 has shape \(5,\), expected one number or one for each of 6"),
            ({"l2": np.inf}, ValueError, "l2 is inf: infinite"),
            ({"weights": np.ones(29)}, ValueError, r"weights has shape \(29,\), .* \(30, 12\), or \(30,\) for all"),
            ({"weights": -np.ones(30)}, ValueError, r"weights\[0\] is -1.0"),
            ({"background": np.ones((30, 11))}, ValueError, r"background has shape \(30, 11\)"),
            ({"support": np.ones((5, 12))}, ValueError, r"support has shape \(5, 12\), .* \(6, 12\), or \(6,\)"),
            ({"support": np.full((6, 12), 0.5)}, ValueError, "support holds values other than True and False"),
            ({"H_init": np.ones((6, 11))}, ValueError, r"H_init has shape \(6, 11\)"),
            ({"H_init": -np.ones((6, 12))}, ValueError, r"H_init\[0, 0\] is -1.0"),
            ({"tol": -1e-3}, ValueError, "tol is -0.001"),
            ({"tol": np.nan}, ValueError, "tol is nan"),
            ({"max_iter": 0}, ValueError, "max_iter is 0"),
            ({"max_iter": 2.5}, ValueError, "max_iter is 2.5"),
        ],
    )  # fmt: skip
    def test_bad_input_is_named(self, problem, change, error, message):
        V, W = problem
        with pytest.raises(error, match=message):
            activations(**{"V": V, "W": W, **change})

    def test_sparse_input_is_named(self, problem):
        from scipy.sparse import csr_array

        with pytest.raises(TypeError, match=r"W is a sparse matrix: pass W.toarray\(\)"):
            activations(problem[0], csr_array(problem[1]))
        with pytest.raises(TypeError, match=r"The data are a sparse matrix, but beta_loss is 0\.5"):
            activations(csr_array(problem[0]), problem[1], 0.5)


def test_a_basis_changed_in_place_between_calls_counts_as_it_is():
    rng = np.random.default_rng(0)
    W, x = rng.gamma(1, 1, (20, 3)), rng.gamma(1, 1, (20, 1))
    first = activations(x, W)
    W[:, 0] = rng.gamma(1, 1, 20)
    again = activations(x, W)
    assert not np.array_equal(first.H, again.H)
    np.testing.assert_array_equal(again.H, activations(x, W.copy()).H)
    W[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"W\[0, 0\] is nan"):
        activations(x, W)
    penalized = activations(x, W[:, 1:], l1=1.0)
    assert penalized.H.sum() < activations(x, W[:, 1:]).H.sum()


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 1.5, 2.0])
def test_silence_between_sounds_costs_what_it_costs_alone(beta):
    rng = np.random.default_rng(0)
    W, V = rng.gamma(1, 1, (12, 3)), rng.gamma(1, 1, (12, 60))
    V[:, rng.random(60) < 0.4] = 0.0
    background = rng.gamma(1, 1, (12, 1))
    for options in ({}, {"background": background}):
        found = activations(V, W, beta, **options)
        alone = [activations(V[:, [t]], W, beta, **options).objective[0] for t in range(60)]
        np.testing.assert_array_equal(found.objective, alone)


def test_threads_with_different_bases_do_not_affect_each_other():
    rng = np.random.default_rng(0)
    bases = [rng.gamma(1, 1, (2000, 10)) for _ in range(2)]
    x = rng.gamma(1, 1, (2000, 1))
    expected = [activations(x, W, tol=1e-2).H for W in bases]

    def calls(which):
        return all(np.array_equal(activations(x, bases[which], tol=1e-2).H, expected[which]) for _ in range(300))

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(calls, (0, 1)))


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 1.5, 2.0])
def test_a_support_of_its_own_counts_for_the_last_frame_of_a_group_too(beta):
    """Seventeen frames are a group and one frame over; the only atom of its first bin is forbidden to it."""
    rng = np.random.default_rng(0)
    W, V = rng.gamma(1, 1, (10, 3)), rng.gamma(1, 1, (10, 17))
    W[0] = [1.0, 0.0, 0.0]
    support = np.ones((3, 17), bool)
    support[0, 16] = False
    for options in ({}, {"H_init": np.ones((3, 17))}):
        found = activations(V, W, beta, support=support, **options)
        options = {name: values[:, 16:] for name, values in options.items()}
        alone = activations(V[:, 16:], W, beta, support=support[:, 16:], **options)
        np.testing.assert_array_equal(found.H[:, 16:], alone.H)
        np.testing.assert_array_equal(found.objective[16:], alone.objective)
        np.testing.assert_array_equal(found.gap[16:], alone.gap)
        assert np.isfinite(found.objective).all()


class TestPenaltiesOfEachFrame:
    @pytest.mark.parametrize("kind", [np.asarray, csc_array])
    @pytest.mark.parametrize("beta", [1, 2])
    def test_every_frame_has_its_own(self, beta, kind):
        rng = np.random.default_rng(0)
        W, V = rng.random((20, 5)), rng.gamma(1, 1, (20, 6)) * (rng.random((20, 6)) < 0.4)
        l1, l2 = (rng.gamma(1, 1, (5, 6)) * (rng.random((5, 6)) < 0.7) for _ in range(2))
        for a, b in ((l1, 0.3), (0.3, l2), (l1, l2)):
            found = activations(kind(V), W, beta, a, b, tol=1e-10)
            assert found.converged.all()
            for t in range(6):
                own = [values if np.ndim(values) == 0 else values[:, t] for values in (a, b)]
                alone = activations(V[:, [t]], W, beta, *own, tol=1e-10)
                np.testing.assert_allclose(found.H[:, t], alone.H[:, 0], atol=1e-4)
                assert found.objective[t] == pytest.approx(alone.objective[0], rel=1e-7)
        solver = Solver(W, beta, tol=1e-10)
        assert np.array_equal(solver.solve(kind(V), l1=l1, l2=l2).H, found.H)
        again = solver.certify(V, found.H, l1=l1, l2=l2)
        np.testing.assert_allclose(again.objective, found.objective, rtol=1e-9)
        assert again.relative_gap.max() < 1e-9
        turned = basis(V.T, W.T, beta, l1.T, l2.T, tol=1e-10)
        np.testing.assert_allclose(turned.H, found.H, atol=1e-4)

    def test_their_shape_is_named(self):
        with pytest.raises(ValueError, match=r"l1 has shape \(3, 6\), expected \(n_components, n_frames\) = \(5, 6\)"):
            activations(np.ones((20, 6)), np.ones((20, 5)), l1=np.ones((3, 6)))
        with pytest.raises(TypeError, match=r"l2 is given with a sparse V and in Solver\(W, l2=\.\.\.\)"):
            Solver(np.ones((4, 2)), 2, l2=1.0).solve(csc_array(np.eye(4)), l2=np.ones((2, 4)))


class TestDominantBins:
    @staticmethod
    def mixtures(weight):
        """Mixtures of spectra whose shares sum to one, which a row of ones with a weight says."""
        rng = np.random.default_rng(0)
        W = rng.random((50, 5)) * 0.5 + 0.1
        V = (W @ rng.dirichlet(np.ones(5), 40).T) * rng.gamma(1e4, 1e-4, (50, 40))
        weights = np.repeat(np.r_[np.ones(50), weight][:, np.newaxis], 40, axis=1)
        return np.vstack([V, np.ones((1, 40))]), np.vstack([W, np.ones((1, 5))]), weights

    @pytest.mark.parametrize("beta", [1.0, 1.5, 2.0])
    def test_a_tolerance_that_says_little_is_told(self, beta):
        V, W, weights = self.mixtures(1e4)
        with pytest.warns(UserWarning, match="In most frames one value has nearly all of the sum that tol=0.0001 is"):
            found = activations(V, W, beta, weights=weights)
        assert found.converged.all()
        exact = activations(V, W, beta, weights=weights, tol=1e-9)  # no warning: warnings are errors here
        assert np.abs(found.H - exact.H).max() > 0.1
        solver = Solver(W, beta)
        with pytest.warns(UserWarning, match="In most frames"):
            solver.solve(V, weights=weights)

    def test_nothing_is_said_where_it_does_not_matter(self):
        V, W, weights = self.mixtures(10.0)
        activations(V, W, weights=weights)
        V, W, weights = self.mixtures(1e4)
        activations(V, W, 2, weights=weights[:, 0])  # exact whatever the tolerance is
        activations(np.eye(5), np.eye(5))  # nothing beside the largest bin
        V[:, :15] = V[:, [20]] * 0.0 + 1.0
        activations(V[:, :19], W, weights=np.r_[np.ones((51, 15)).T, weights[:, 15:19].T].T)  # a few frames
