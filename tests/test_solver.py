"""The solver object: what the function does, with the basis prepared once."""

import warnings

import numpy as np
import pytest
import scipy.sparse
from sklearn.exceptions import ConvergenceWarning

import naive
from knownmf import Solver, activations
from problems import BETAS, OPTIONS, random_problem

OF_FRAMES = ("background", "H_init")
FIELDS = ("H", "gap", "relative_gap", "kkt", "converged", "objective", "n_iter")


def assert_same(found, expected):
    for field in FIELDS:
        values, wanted = getattr(found, field), getattr(expected, field)
        assert values.dtype == wanted.dtype
        assert np.array_equal(values, wanted, equal_nan=True), field
    assert (found.beta, found.tol, repr(found)) == (expected.beta, expected.tol, repr(expected))


def solver_and_rest(W, beta, keywords, **settings):
    """Return a solver with all that belongs to it, and what belongs to the frames."""
    of_frames = {name: v for name, v in keywords.items() if name in OF_FRAMES or v.ndim == 2}
    of_solver = {name: v for name, v in keywords.items() if name not in of_frames}
    return Solver(W, beta, **of_solver, **settings), of_frames


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("beta", BETAS)
def test_a_solver_returns_the_same_as_activations(beta, options, dtype):
    V, W, keywords = random_problem(20, options, n_bins=20, n_components=9, n_frames=25, positive=beta < 1)
    V = V.astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        expected = activations(V, W, beta, tol=1e-6, max_iter=9, **keywords)
        solver, rest = solver_and_rest(W, beta, keywords, tol=1e-6, max_iter=9)
        assert_same(solver.solve(V, **rest), expected)
        assert_same(solver.solve(V, **rest), expected)


@pytest.mark.parametrize("name", ["weights", "support"])
@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_what_frames_have_of_their_own_replaces_what_the_solver_has(beta, name):
    V, W, keywords = random_problem(21, (name,), n_bins=20, n_components=9, n_frames=25, positive=True)
    shared = {"weights": np.arange(20.0), "support": np.arange(9) % 2 == 0}[name]
    solver = Solver(W, beta, **{name: shared})
    assert_same(solver.solve(V, **keywords), activations(V, W, beta, **keywords))
    assert_same(solver.solve(V), activations(V, W, beta, **{name: shared}))


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_sparse_and_dense_frames_take_turns(beta):
    rng = np.random.default_rng(0)
    W, V = rng.random((30, 6)) + 0.01, rng.poisson(0.5, (30, 20)).astype(float)
    V[:, 3] = 0.0
    solver, sparse = Solver(W, beta, tol=1e-8), scipy.sparse.csr_array(V)
    dense_answer, sparse_answer = activations(V, W, beta, tol=1e-8), activations(sparse, W, beta, tol=1e-8)
    for _ in range(2):
        assert_same(solver.solve(V), dense_answer)
        assert_same(solver.solve(sparse), sparse_answer)
    np.testing.assert_allclose(sparse_answer.objective, dense_answer.objective, rtol=1e-7)


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_arrays_changed_afterwards_change_nothing(beta):
    """Neither before the basis is prepared, with the first frames, nor after that."""
    V, W, keywords = random_problem(22, ("weights_per_bin", "l1", "l2"), n_bins=20, n_components=9, positive=True)
    support = np.arange(9) % 3 > 0
    expected = activations(V, W, beta, support=support, **keywords)
    passed = {"W": W.copy(), "support": support.copy(), **{name: v.copy() for name, v in keywords.items()}}
    solver = Solver(beta_loss=beta, **passed)
    for values in passed.values():
        values[:] = 1
    assert_same(solver.solve(V), expected)
    assert_same(solver.solve(V), expected)


def test_calls_do_not_change_it():
    V, W, keywords = random_problem(23, ("weights", "background", "support", "H_init"), n_frames=12, positive=True)
    solver = Solver(W)
    expected, text = solver.solve(V), repr(solver)
    solver.solve(V * 1e9, **keywords)
    solver.certify(V, np.full((W.shape[1], 12), 1e6))
    with pytest.raises(ValueError, match="V has 3 bins"):
        solver.solve(V[:3])
    assert repr(solver) == text
    assert_same(solver.solve(V), expected)


def test_an_answer_stays_when_others_are_found():
    V, W, _ = random_problem(24, (), n_frames=12, positive=True)
    solver = Solver(W)
    one = solver.solve(V)
    before = one.H.copy(), one.gap.copy()
    solver.solve(2.0 * V)
    assert np.array_equal(one.H, before[0])
    assert np.array_equal(one.gap, before[1])


def test_a_stream_is_solved_a_frame_at_a_time():
    """Every frame is started from the one before it, as in the documentation."""
    rng = np.random.default_rng(0)
    W = rng.gamma(0.5, 1.0, (60, 8)) + 0.01
    H = np.abs(np.cumsum(rng.standard_normal((8, 50)), axis=1))
    V = W @ H * rng.gamma(100.0, 0.01, (60, 50))
    solver, h, stream = Solver(W, tol=1e-8), None, []
    for frame in V.T:
        h = solver.solve(frame[:, np.newaxis], H_init=h).H
        stream.append(h)
    whole = solver.solve(V)
    for t in range(50):
        assert naive.objective(V[:, t], stream[t][:, 0], W, 1.0) == pytest.approx(whole.objective[t], rel=1e-6)
    np.testing.assert_allclose(np.hstack(stream), whole.H, rtol=1e-3, atol=1e-3)


def test_the_repr_of_a_solver():
    solver = Solver(np.ones((5, 3)), "itakura-saito", tol=1e-3)
    assert repr(solver) == "Solver(5 bins x 3 components, beta=0, tol=0.001)"
    assert (solver.n_bins, solver.n_components, solver.beta, solver.tol, solver.max_iter) == (5, 3, 0.0, 1e-3, 200)


def test_no_frames_and_frames_without_data():
    solver = Solver(np.ones((5, 3)))
    assert solver.solve(np.empty((5, 0))).H.shape == (3, 0)
    assert solver.certify(np.empty((5, 0)), np.empty((3, 0))).H.shape == (3, 0)
    silent = solver.solve(np.zeros((5, 2)))
    assert not silent.H.any()
    assert silent.converged.all()


def test_one_warning_tells_of_all_frames_that_missed():
    V, W, _ = random_problem(25, (), n_frames=30, positive=True)
    with pytest.warns(
        ConvergenceWarning, match=r"^\d+ of 30 frames missed tol=1e-14; the worst is frame \d+"
    ) as caught:
        Solver(W, 1.5, tol=1e-14, max_iter=1).solve(V)
    assert [warning.filename for warning in caught] == [__file__]


def test_certifying_never_warns():
    V, W, _ = random_problem(25, (), n_frames=30, positive=True)
    found = Solver(W).certify(V, np.ones((W.shape[1], 30)))
    assert not found.converged.all()


def test_progress_is_told():
    told = []
    Solver(np.ones((30, 2))).solve(np.ones((30, 500)), progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1] == (500, 500)


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"W": np.ones(3)}, ValueError, "W has 1 dimension, expected 2"),
            ({"W": np.ones((3, 0))}, ValueError, "W has no columns"),
            ({"W": -np.ones((3, 2))}, ValueError, r"W\[0, 0\] is -1.0"),
            ({"W": np.full((3, 2), np.nan)}, ValueError, r"W\[0, 0\] is nan"),
            ({"W": np.ones((3, 2)) * 1j}, TypeError, "W is complex"),
            ({"W": scipy.sparse.csr_array(np.ones((3, 2)))}, TypeError, r"pass W.toarray\(\)"),
            ({"W": [[1.0], [1.0, 2.0]]}, ValueError, "W is not a rectangular array"),
            ({"beta_loss": "kl"}, ValueError, "beta_loss is 'kl'"),
            ({"beta_loss": 4}, ValueError, "beta_loss is 4"),
            ({"l1": [1.0, 2.0, 3.0]}, ValueError, "l1 has shape"),
            ({"l2": -1.0}, ValueError, "l2 is -1.0"),
            ({"weights": np.ones(4)}, ValueError, r"weights has shape \(4,\)"),
            ({"weights": -np.ones(3)}, ValueError, r"weights\[0\] is -1.0"),
            ({"weights": [1.0, np.inf, 1.0]}, ValueError, r"weights\[1\] is inf"),
            ({"support": [1, 0, 1]}, ValueError, r"support has shape \(3,\)"),
            ({"support": [0.5, 1]}, ValueError, "support holds values other than"),
            ({"tol": -1}, ValueError, "tol is -1"),
            ({"max_iter": 0}, ValueError, "max_iter is 0"),
        ],
    )
    def test_bad_settings_are_named(self, change, error, message):
        with pytest.raises(error, match=message):
            Solver(**{"W": np.ones((3, 2)), **change})

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"V": np.ones(3)}, ValueError, "V has 1 dimension"),
            ({"V": np.ones((4, 5))}, ValueError, "V has 4 bins but W has 3"),
            ({"V": -np.ones((3, 5))}, ValueError, r"V\[0, 0\] is -1.0"),
            ({"V": [[1.0], [1.0, 2.0], [0.0]]}, ValueError, "V is not a rectangular array"),
            ({"weights": np.ones((3, 4))}, ValueError, r"weights has shape \(3, 4\)"),
            ({"background": np.ones((4, 5))}, ValueError, r"background has shape \(4, 5\)"),
            ({"background": -np.ones(3)}, ValueError, "background"),
            ({"support": np.ones((2, 4))}, ValueError, r"support has shape \(2, 4\)"),
            ({"H_init": np.ones((2, 4))}, ValueError, r"H_init has shape \(2, 4\)"),
            ({"H_init": np.full((2, 5), np.nan)}, ValueError, r"H_init\[0, 0\] is nan"),
            (
                {"V": scipy.sparse.csr_array(np.ones((3, 5))), "weights": np.ones((3, 5))},
                TypeError,
                "weights has one value",
            ),
            (
                {"V": scipy.sparse.csr_array(np.ones((3, 5))), "background": np.ones(3)},
                TypeError,
                "background is given",
            ),
        ],
    )
    def test_bad_frames_are_named(self, change, error, message):
        with pytest.raises(error, match=message):
            Solver(np.ones((3, 2))).solve(**{"V": np.ones((3, 5)), **change})

    def test_activations_to_certify_are_named_as_the_caller_knows_them(self):
        with pytest.raises(ValueError, match=r"^H has shape \(2, 4\), expected .*\(2, 5\)"):
            Solver(np.ones((3, 2))).certify(np.ones((3, 5)), np.ones((2, 4)))
        with pytest.raises(ValueError, match=r"^H\[0, 0\] is -1.0"):
            Solver(np.ones((3, 2))).certify(np.ones((3, 5)), -np.ones((2, 5)))
        with pytest.raises(TypeError, match=r"V is a sparse matrix: certify takes a dense one"):
            Solver(np.ones((3, 2))).certify(scipy.sparse.csr_array(np.ones((3, 5))), np.ones((2, 5)))

    def test_a_lone_sparse_frame_takes_the_weights_that_many_take(self):
        W, weights = np.random.default_rng(0).random((6, 2)) + 0.1, np.arange(1.0, 7.0)[:, np.newaxis]
        V = scipy.sparse.csc_array(np.arange(12.0).reshape(6, 2))
        whole = activations(V, W, weights=weights)
        assert np.array_equal(activations(V[:, [0]], W, weights=weights).H, whole.H[:, [0]])
