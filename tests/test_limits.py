"""Upper bounds and totals of activations, beside an interior-point solver, a general optimizer and what they mean."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.exceptions import ConvergenceWarning

import naive
from interior_point import LimitedFrame, minimizers
from knownmf import Solver, activations, basis
from problems import LIMITS, OPTIONS, frame_of, random_limits, random_problem

#: What a limited problem may have besides limits.
VARIANTS = {
    **OPTIONS,
    "l1 and l2": ("l1", "l2"),
    "column of zeros": (),
    "column of zeros, weights": ("weights",),
    "float32": (),
    "sparse": (),
    "sparse, weights per bin": ("weights_per_bin",),
    "sparse, penalties of each frame": ("l1_per_frame", "l2_per_frame"),
}
CONVEX = (1.0, 1.25, 1.5, 2.0)
FIELDS = ("H", "gap", "relative_gap", "kkt", "objective", "n_iter", "converged")


def limited_problem(seed, variant, beta, positive=False, n_frames=2):
    """Return V, W, the keyword arguments of everything but limits, and usual activations; the last frame is silent."""
    V, W, keywords = random_problem(seed, VARIANTS[variant], n_frames=n_frames, positive=positive)
    if variant.startswith("column of zeros"):
        W[:, 1] = 0.0
    usual = np.maximum(activations(np.nan_to_num(V, nan=1.0), W, beta).H, 1e-2)
    if not positive:
        V[:, -1] = 0.0
    return V.astype(np.float32 if variant == "float32" else np.float64), W, keywords, usual


def limits_of(t, limits, n_components, support=None):
    """Return the upper bounds, the total and whether it is the most, of frame t; 0 outside the support."""
    upper = np.asarray(limits.get("upper", np.inf))
    upper = np.broadcast_to(upper[:, t] if upper.ndim == 2 else upper, n_components)
    total = np.asarray(limits.get("total", limits.get("max_total", np.inf)))
    upper = upper if support is None else np.where(support, upper, 0.0)
    return upper, float(total[t] if total.ndim else total), "max_total" in limits


def judged_frame(t, V, W, beta, keywords, limits):
    """Return frame t as the interior-point solver takes it."""
    x, shape, support = frame_of(t, V, keywords)
    n_bins, n_components = W.shape
    return LimitedFrame(
        np.nan_to_num(x.astype(float)),
        W,
        beta,
        np.broadcast_to(shape.get("weights", 1.0), n_bins) * ~np.isnan(x),
        np.broadcast_to(shape.get("background", 0.0), n_bins),
        np.broadcast_to(shape.get("l1", 0.0), n_components),
        np.broadcast_to(shape.get("l2", 0.0), n_components),
        *limits_of(t, limits, n_components, support),
    )


def assert_within(H, frames):
    """Check bounds to the bit, and totals to 1e-12 of them; in float32, to the rounding of that type."""
    rounding = 1e-12 if H.dtype == np.float64 else 1e-6
    for h, frame in zip(H.T, frames, strict=True):
        assert (h >= 0).all()
        assert (h <= frame.upper).all()
        excess = h.astype(float).sum() - frame.total
        assert excess <= rounding * frame.total
        assert frame.total_is_most or np.isinf(frame.total) or excess >= -rounding * frame.total


@pytest.mark.parametrize(
    ("beta", "variant"), [(b, v) for b in CONVEX for v in VARIANTS if b in (1.0, 2.0) or not v.startswith("sparse")]
)
def test_no_objective_is_above_that_of_an_interior_point_solver_by_more_than_the_gap(beta, variant):
    V, W, keywords, usual = limited_problem(int(100 * beta), variant, beta)
    data, tol = scipy.sparse.csc_array(V) if variant.startswith("sparse") else V, 1e-9
    frames, answers, warm_answers = [], [], []
    if variant == "float32":
        tol = 1e-5  # what that type can hold
    for kind in LIMITS:
        limits = random_limits(1, kind, usual, keywords.get("support"))
        own = [judged_frame(t, V, W, beta, keywords, limits) for t in range(V.shape[1])]
        frames += own
        found = activations(data, W, beta, tol=tol, **keywords, **limits)
        again = activations(data, W, beta, tol=tol, **keywords | {"H_init": found.H}, **limits)
        for answer, rows in ((found, answers), (again, warm_answers)):
            assert answer.converged.all()
            assert_within(answer.H, own)
            rows += list(zip(answer.H.T.astype(float), answer.gap, strict=True))
    for frame, *both, point in zip(frames, answers, warm_answers, minimizers(frames), strict=True):
        least, _ = frame.objective(point)
        for h, gap in both:
            value, size = frame.objective(h)
            assert value - least <= gap + 1e-15 * size
            # The judge has solved the same problem.
            of_even_shares = frame.objective(frame.feasible(np.ones(len(h))))[1]
            assert least - value <= 10 * max(tol, 1e-7) * max(size, of_even_shares, 1.0)


@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("variant", ["plain", "everything", "column of zeros"])
@pytest.mark.parametrize("beta", [-1.0, 0.0, 0.5, 1.5, 3.0])
def test_activations_are_stationary_for_every_loss(beta, variant, kind):
    V, W, keywords, usual = limited_problem(int(1000 + 100 * beta), variant, beta, positive=True)
    limits = random_limits(2, kind, usual, keywords.get("support"))
    tol, most = (1e-9, 1e-3) if beta in CONVEX else (1e-7, 1e-5)
    found = activations(V, W, beta, tol=tol, max_iter=1000, **keywords, **limits)
    assert found.converged.all()
    assert_within(found.H, [judged_frame(t, V, W, beta, keywords, limits) for t in range(V.shape[1])])
    for t in range(V.shape[1]):
        x, shape, support = frame_of(t, V, keywords)
        if beta < 1:
            x = np.maximum(x, 1e-15 * np.nanmax(x))
        within, h = limits_of(t, limits, W.shape[1], support), found.H[:, t]
        if not h.any() or kind == "upper and the sum of it":  # there is one point only
            continue
        assert naive.kkt_within(x, h, W, beta, *within, **shape) <= most
        if beta in CONVEX:  # for other losses SciPy may find its way to another stationary point
            _, least = naive.minimum_within(x, W, beta, h, *within, **shape)
            assert found.objective[t] - least <= 1e-7 * max(abs(least), 1.0)


@pytest.mark.parametrize("beta", CONVEX)
def test_components_of_zeros_take_what_the_others_should_not_have(beta):
    """With a total, a component of zeros stands for what is dark, as the shade among abundances does."""
    W, V = np.array([[1.0, 0.0, 0.5], [0.2, 0.0, 1.0]]), np.array([[0.5, 0.0], [0.5, 0.0]])
    found = activations(V, W, beta, total=1.0, tol=1e-12)
    lit = activations(V, W[:, [0, 2]], beta, tol=1e-12)
    np.testing.assert_allclose(found.H[[0, 2], 0], lit.H[:, 0], rtol=1e-5)
    np.testing.assert_array_equal(found.H[:, 1], [0.0, 1.0, 0.0])
    assert found.converged.all()
    twice = activations(V, W[:, [0, 1, 1, 2]], beta, total=1.0, tol=1e-12)
    np.testing.assert_allclose(twice.H[[0, 3]], found.H[[0, 2]], atol=1e-6)
    np.testing.assert_allclose(twice.H.sum(axis=0), 1.0, rtol=1e-12)


@pytest.mark.parametrize("beta", [1.0, 2.0])
@pytest.mark.parametrize("total", [1e-3, 0.1, 0.7, 1.0, 3.0, 3.3, 1e3])
def test_the_total_of_a_sparse_frame_without_entries(beta, total):
    W = np.random.default_rng(0).random((9, 5))
    found = activations(scipy.sparse.csc_array((9, 1)), W, beta, total=total, tol=1e-9)
    dense = activations(np.zeros((9, 1)), W, beta, total=total, tol=1e-9)
    assert found.H.sum() == pytest.approx(total, rel=1e-12)
    np.testing.assert_allclose(found.H, dense.H, atol=1e-6 * total)
    assert found.converged.all()


@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0])
def test_activations_in_single_precision_have_a_finite_gap_though_their_sum_is_rounded(beta):
    V, W, _, usual = limited_problem(5, "float32", beta, n_frames=40)
    upper = 0.3 * usual
    found = activations(V, W, beta, upper=upper, total=upper.sum(axis=0))
    assert found.converged.all()
    assert (found.gap >= 0).all()
    assert (upper >= found.H).all()


@pytest.mark.parametrize("beta", [0.0, *CONVEX])
def test_limits_that_limit_nothing_change_nothing(beta):
    V, W, keywords, usual = limited_problem(6, "everything", beta, positive=True)
    plain = activations(V, W, beta, tol=1e-10, **keywords)
    for loose in ({"upper": np.inf}, {"max_total": np.inf}, {"upper": np.full(usual.shape, 1e9), "max_total": 1e9}):
        np.testing.assert_allclose(activations(V, W, beta, tol=1e-10, **keywords, **loose).H, plain.H, atol=1e-3)


@pytest.mark.parametrize("beta", [0.0, *CONVEX])
def test_a_bound_of_zero_is_a_support(beta):
    V, W, _, _ = limited_problem(7, "plain", beta, positive=True)
    support = np.array([[1, 0], [1, 1], [0, 1], [1, 1], [0, 0]], bool)
    bounded = activations(V, W, beta, tol=1e-9, upper=np.where(support, np.inf, 0.0))
    expected = activations(V, W, beta, tol=1e-9, support=support)
    assert not bounded.H[~support].any()
    np.testing.assert_allclose(bounded.H, expected.H, atol=1e-3)
    np.testing.assert_allclose(bounded.objective, expected.objective, rtol=1e-7)


@pytest.mark.parametrize("scale", [2.0**-300, 2.0**-40, 2.0**40, 2.0**300])
@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0])
def test_activations_scale_with_data_and_limits(beta, kind, scale):
    V, W, _, usual = limited_problem(8, "plain", beta)
    limits = random_limits(3, kind, usual)
    plain = activations(V, W, beta, **limits)
    scaled = activations(scale * V, W, beta, **{name: scale * values for name, values in limits.items()})
    np.testing.assert_array_equal(scaled.H, scale * plain.H)
    np.testing.assert_array_equal(scaled.relative_gap, plain.relative_gap)


@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("beta", CONVEX)
def test_more_components_than_move_at_once(beta, kind):
    V, W, _ = random_problem(9, (), n_bins=60, n_components=300, n_frames=3)
    usual = activations(V, W, beta).H
    limits = random_limits(4, kind, usual)
    frames = [judged_frame(t, V, W, beta, {}, limits) for t in range(3)]
    found = activations(V, W, beta, tol=1e-6, **limits)
    assert found.converged.all()
    assert_within(found.H, frames)


@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_atoms_that_are_much_alike(beta, kind):
    rng = np.random.default_rng(10)
    W = np.exp(-0.5 * ((np.arange(40)[:, np.newaxis] - np.linspace(3, 37, 80)) / 4.0) ** 2)
    V = rng.poisson(W @ (rng.gamma(1.0, 20.0, (80, 2)) * (rng.random((80, 2)) < 0.05)) + 0.5).astype(float)
    limits = random_limits(5, kind, np.maximum(activations(V, W, beta).H, 1e-2))
    frames = [judged_frame(t, V, W, beta, {}, limits) for t in range(2)]
    found = activations(V, W, beta, tol=1e-8, **limits)
    assert found.converged.all()
    assert_within(found.H, frames)
    for frame, h, gap, point in zip(frames, found.H.T, found.gap, minimizers(frames), strict=True):
        value, size = frame.objective(h)
        assert value - frame.objective(point)[0] <= gap + 1e-15 * size


@pytest.mark.parametrize("beta", [1.0, 1.5])
def test_bounds_with_a_total_over_atoms_that_overlap(beta):
    """Block pivoting often fails here; a lone variable at its bound must not keep the active-set method from moving."""
    rng = np.random.default_rng(0)
    bands, centers, widths = np.linspace(0, 1, 200)[:, np.newaxis], rng.random((1, 12)), rng.uniform(0.05, 0.4, (1, 12))
    W = 0.1 + 0.8 * np.exp(-0.5 * ((bands - centers) / widths) ** 2) * rng.uniform(0.3, 1.0, 12)
    V = np.maximum(W @ rng.dirichlet(np.full(12, 0.3), 3500).T + 0.01 * rng.standard_normal((200, 3500)), 0.0)
    found = activations(V, W, beta, tol=1e-6, upper=0.5, total=1.0)
    assert found.converged.all()
    assert (found.H <= 0.5).all()
    np.testing.assert_allclose(found.H.sum(axis=0), 1.0, rtol=1e-12)


def test_bounds_of_a_basis_and_totals_of_its_bins():
    V, W, _, _ = limited_problem(11, "plain", 1.0, n_frames=12)
    H = np.random.default_rng(11).gamma(1.0, 1.0, (5, 12)) + 0.1
    bounds = np.random.default_rng(12).uniform(0.1, 2.0, W.shape)
    total = 0.5 * bounds.sum(axis=1)
    found = basis(V, H, upper=bounds, total=total, tol=1e-9)
    mirrored = activations(V.T, H.T, upper=bounds.T, total=total, tol=1e-9)
    np.testing.assert_array_equal(found.H, mirrored.H)
    assert (found.H <= bounds.T).all()
    np.testing.assert_allclose(found.H.sum(axis=0), total, rtol=1e-12)
    np.testing.assert_array_equal(basis(V, H, max_total=0.1).H, activations(V.T, H.T, max_total=0.1).H)


class TestMessages:
    """What cannot be satisfied, or is no limit, is named in the caller's words before any work."""

    V, W = np.ones((4, 3)), np.ones((4, 2))

    @pytest.mark.parametrize(
        ("limits", "message"),
        [
            (
                {"upper": [0.2, 0.3], "total": 1.0},
                r"^The total is 1, but the upper bounds of the components that it may use sum to 0\.5: lower total, or "
                r"raise upper\.$",
            ),
            (
                {"upper": [0.2, 0.3], "total": [0.1, 0.6, 0.7]},
                r"^The total of frame 1 is 0\.6, but the upper bounds .* sum to 0\.5 \(so it is for 2 frames\): ",
            ),
            ({"total": -1.0}, "total.*-1"),
            ({"total": [1.0, -2.0, 1.0]}, "total.*-2"),
            ({"max_total": -1.0}, "max_total.*-1"),
            ({"upper": -0.5}, r"upper.*-0\.5"),
            ({"total": np.nan}, "total.*NaN"),
            ({"max_total": np.nan}, "max_total.*NaN"),
            ({"upper": [1.0, np.nan]}, "upper.*NaN"),
            ({"total": np.inf}, "total.*infinite"),
            ({"total": 1.0, "max_total": 2.0}, "total and max_total are both given"),
            ({"upper": np.ones((3, 2))}, r"^upper has shape \(3, 2\), expected one number, \(2,\) .* = \(2, 3\)\.$"),
            ({"upper": np.ones(3)}, r"^upper has shape \(3,\), expected one number, \(2,\) for the components"),
            ({"total": np.ones(2)}, r"^total has shape \(2,\), expected one number, or \(3,\) for the frames\.$"),
            ({"max_total": np.ones((1, 3))}, "max_total has 2 dimensions"),
        ],
    )
    def test_of_activations(self, limits, message):
        with pytest.raises(ValueError, match=message):
            activations(self.V, self.W, **limits)

    def test_of_a_support(self):
        support = np.array([[1, 1, 0], [0, 0, 0]], bool)
        with pytest.raises(
            ValueError, match=r"total of frame 2 is 1, but support allows frame 2 no component: .*support"
        ):
            activations(self.V, self.W, support=support, total=1.0)
        with pytest.raises(ValueError, match=r"support allows no component"):
            Solver(self.W, support=[False, False], total=1.0)
        with pytest.raises(ValueError, match=r"that it may use sum to 0\.4"):
            Solver(self.W, support=[False, True], upper=0.4, total=0.5)
        assert not activations(self.V, self.W, support=support, max_total=1.0).H[:, 2].any()

    def test_of_a_basis(self):
        with pytest.raises(ValueError, match=r"^The total of bin 1 is 3, but .* sum to 2: "):
            basis(self.V, np.ones((2, 3)), upper=1.0, total=[1.0, 3.0, 2.0, 0.0])
        with pytest.raises(ValueError, match=r"expected one number, or \(4,\) for the bins"):
            basis(self.V, np.ones((2, 3)), total=[1.0, 3.0])

    def test_of_a_solver_and_its_frames_together(self):
        solver = Solver(self.W, total=1.0)
        with pytest.raises(ValueError, match=r"The total of frame 1 is 1, but .* sum to 0\.2"):
            solver.solve(self.V, upper=np.array([[1.0, 0.1, 1.0], [1.0, 0.1, 1.0]]))
        with pytest.raises(ValueError, match="upper has shape"):
            Solver(self.W, upper=np.ones((2, 3)))

    def test_of_other_types(self):
        with pytest.raises(TypeError, match="total"):
            activations(self.V, self.W, total="1")
        with pytest.raises(TypeError, match="upper"):
            activations(self.V, self.W, upper=[1.0, 1j])


def assert_same(found, expected):
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field), err_msg=field)


@pytest.mark.parametrize(
    "limits", [{"upper": 0.5}, {"upper": [np.inf, 1.0, 0.5, 0.0, 2.0]}, {"total": 2.0}, {"max_total": 1.0}]
)
@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_a_solver_keeps_its_limits_when_it_is_pickled(beta, limits):
    V, W, _, _ = limited_problem(12, "plain", beta, positive=True)
    solver = Solver(W, beta, **limits)
    expected = activations(V, W, beta, **limits)
    assert_same(solver.solve(V), expected)
    assert_same(pickle.loads(pickle.dumps(solver)).solve(V), expected)


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_limits_of_frames_replace_those_of_the_solver(beta):
    V, W, _, usual = limited_problem(13, "plain", beta, positive=True)
    upper, total = 0.5 * usual, 0.3 * usual.sum(axis=0)
    solver = Solver(W, beta, upper=1e-3, total=1e-3)
    expected = activations(V, W, beta, upper=upper, total=total)
    assert_same(solver.solve(V, upper=upper, total=total), expected)
    # Either total replaces the other.
    assert_same(solver.solve(V, upper=upper, max_total=total), activations(V, W, beta, upper=upper, max_total=total))
    bounded = Solver(W, beta, max_total=0.1).solve(V, upper=upper, total=total)
    assert_same(bounded, expected)
    # What frames do not have stays that of the solver.
    assert_same(
        Solver(W, beta, upper=upper[:, 0]).solve(V, total=total),
        activations(V, W, beta, upper=upper[:, 0], total=total),
    )


class TestCertify:
    @pytest.mark.parametrize("kind", LIMITS)
    @pytest.mark.parametrize("beta", CONVEX)
    def test_gap_covers_the_excess_of_any_point_within_limits(self, beta, kind):
        V, W, _, usual = limited_problem(14, "plain", beta, positive=True)
        rng, solver = np.random.default_rng(14), Solver(W, beta)
        limits = random_limits(6, kind, usual)
        frames = [judged_frame(t, V, W, beta, {}, limits) for t in range(V.shape[1])]
        best = solver.solve(V, **limits)
        points = minimizers(frames)
        for H in (rng.gamma(1.0, 2.0, usual.shape), best.H * rng.uniform(0.9, 1.1, usual.shape), 1e-6 * usual):
            H = np.stack([frame.feasible(h) for frame, h in zip(frames, H.T, strict=True)], axis=1)
            found = solver.certify(V, H, **limits)
            np.testing.assert_array_equal(found.H, H)
            for frame, h, gap, point in zip(frames, H.T, found.gap, points, strict=True):
                value, size = frame.objective(h)
                assert value - frame.objective(point)[0] <= gap + 1e-14 * size

    @pytest.mark.parametrize(
        ("limits", "name"),
        [
            ({"upper": 0.9}, "upper"),
            ({"total": 2.1}, "total"),
            ({"total": 1.9}, "total"),
            ({"max_total": 1.9}, "max_total"),
        ],
    )
    def test_what_does_not_satisfy_limits_is_refused(self, limits, name):
        V, W, H = np.ones((4, 3)), np.ones((4, 2)), np.array([[0.5, 1.0, 0.8], [0.4, 1.0, 0.1]])
        with pytest.raises(ValueError, match=rf"frame \d, do not satisfy {name}: pass activations that do"):
            Solver(W).certify(V, H, **limits)
        with pytest.raises(ValueError, match=rf"do not satisfy {name}"):
            Solver(W, **limits).certify(V, H)

    def test_what_the_support_forbids_does_not_count(self):
        H = np.array([[1.0], [5.0]])
        found = Solver(np.ones((4, 2)), support=[True, False], upper=2.0, total=1.0).certify(np.ones((4, 1)), H)
        np.testing.assert_array_equal(found.H, [[1.0], [0.0]])

    @pytest.mark.parametrize("dtype", [np.float64, np.float32])
    @pytest.mark.parametrize("beta", CONVEX)
    def test_what_was_solved_can_be_certified(self, beta, dtype):
        V, W, _, usual = limited_problem(15, "plain", beta, n_frames=30)
        limits = random_limits(7, "upper and total", usual)
        found = Solver(W, beta).solve(V.astype(dtype), **limits)
        again = Solver(W, beta).certify(V.astype(dtype), found.H, **limits)
        assert again.converged.all()


class TestLabels:
    W = pd.DataFrame([[1.0, 0.2], [0.5, 0.5], [0.1, 1.0]], index=["a", "b", "c"], columns=["kick", "hat"])
    V = pd.DataFrame([[3.0, 1.0], [2.0, 1.0], [1.0, 3.0]], index=["a", "b", "c"], columns=["t0", "t1"])

    def test_of_bounds_are_compared(self):
        upper = pd.Series([1.0, 2.0], index=["kick", "hat"])
        plain = activations(self.V.to_numpy(), self.W.to_numpy(), upper=[1.0, 2.0])
        assert_same(activations(self.V, self.W, upper=upper), plain)
        for wrong in (upper[::-1], upper.rename({"hat": "snare"})):
            with pytest.raises(ValueError, match="upper"):
                activations(self.V, self.W, upper=wrong)
            with pytest.raises(ValueError, match="upper"):
                Solver(self.W, upper=wrong)

    def test_of_bounds_of_frames_are_compared(self):
        upper = pd.DataFrame(1.0, index=["kick", "hat"], columns=["t0", "t1"])
        assert_same(
            activations(self.V, self.W, upper=upper), activations(self.V.to_numpy(), self.W.to_numpy(), upper=1.0)
        )
        for wrong in (upper.iloc[::-1], upper[["t1", "t0"]]):
            with pytest.raises(ValueError, match="upper"):
                activations(self.V, self.W, upper=wrong)

    @pytest.mark.parametrize("name", ["total", "max_total"])
    def test_of_totals_are_compared(self, name):
        total = pd.Series([1.0, 2.0], index=["t0", "t1"])
        plain = activations(self.V.to_numpy(), self.W.to_numpy(), **{name: [1.0, 2.0]})
        assert_same(activations(self.V, self.W, **{name: total}), plain)
        with pytest.raises(ValueError, match=name):
            activations(self.V, self.W, **{name: total[::-1]})


def test_frames_that_miss_the_tolerance_are_within_their_limits_all_the_same():
    V, W, _, usual = limited_problem(16, "plain", 1.0, n_frames=20)
    for kind in LIMITS:
        limits = random_limits(8, kind, usual)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = activations(V, W, tol=1e-15, max_iter=1, **limits)
        assert_within(found.H, [judged_frame(t, V, W, 1.0, {}, limits) for t in range(20)])


@pytest.mark.parametrize("beta", CONVEX)
def test_totals_that_numbers_cannot_hold_beside_the_data_are_not_called_proven(beta):
    W = np.array([[1.0, 0.2], [0.5, 0.5], [0.1, 1.0]])
    V = np.array([[3.0], [1.0], [2.0]])
    for scale, limits in ((1.0, {"max_total": 5e-324}), (1e100, {"total": 1e-300}), (1e-200, {"total": 1e200})):
        with pytest.warns(ConvergenceWarning):
            found = activations(V * scale, W, beta, **limits)
        assert not found.converged.any()
        assert np.isinf(found.gap).all()
        assert (found.H.sum(axis=0) <= limits.get("max_total", np.inf)).all()
    assert activations(V, W, beta, max_total=1e298).converged.all()


@pytest.mark.parametrize("beta", CONVEX)
def test_any_activations_with_the_total_are_optimal_where_no_component_reaches_a_bin(beta):
    found = activations(np.zeros((3, 1)), np.zeros((3, 2)), beta, total=1.0)
    assert found.converged.all()
    np.testing.assert_allclose(found.H.sum(axis=0), 1.0, rtol=1e-15)


def test_sums_are_exact_where_least_squares_are_refined():
    W = np.array([[4.830721333812848e-06, 33.227846908976545]])
    found = activations([[0.118288]], W, "frobenius", l1=[2.5e-4, 7.3e-5], background=[[0.081333]], total=6.783068)
    np.testing.assert_allclose(found.H.sum(axis=0), 6.783068, rtol=1e-13)
