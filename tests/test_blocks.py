"""Arrays that are larger than memory are read in blocks, and give the same results as arrays in memory."""

import subprocess
import sys

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import zarr

import knownmf
from knownmf import NMF, activations, basis, blocks

FIELDS = ("H", *blocks.CERTIFICATES)
N_BINS, N_FRAMES, K = 30, 700, 4


class OnRead:
    """An array that is only there where it is read: it fails if it is read as a whole."""

    def __init__(self, values, chunks=None):
        self.values, self.shape, self.dtype, self.largest, self.reads = values, values.shape, values.dtype, 0, []
        if chunks:
            self.chunks = chunks

    def __getitem__(self, index):
        part = self.values[index]
        self.largest = max(self.largest, part.size)
        self.reads.append(index)
        return part.copy()

    def __array__(self, *_, **__):
        raise AssertionError("the array was read as a whole")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks.slices, "BLOCK_BYTES", (8 * N_BINS + 8 * K + 64) * 100)


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    W = rng.random((N_BINS, K)) + 0.01
    V = (W @ rng.gamma(1.0, 1.0, (K, N_FRAMES))) * rng.gamma(10.0, 0.1, (N_BINS, N_FRAMES))
    options = {
        "weights": rng.random(V.shape),
        "background": 0.1 * rng.random(V.shape),
        "support": rng.random((K, N_FRAMES)) < 0.9,
        "H_init": rng.random((K, N_FRAMES)),
        "l1": 0.01 * rng.random((K, N_FRAMES)),
        "l2": 0.01 * rng.random((K, N_FRAMES)),
        "upper": 1.0 + rng.random((K, N_FRAMES)),
        "max_total": np.full(N_FRAMES, 3.0),
    }
    return V, W, options


def stored(values, kind, folder):
    """Return values as an array of a kind, on disk or made on read."""
    if kind == "memmap":
        array = np.memmap(folder / "V.bin", values.dtype, "w+", shape=values.shape)
    elif kind == "zarr":
        array = zarr.create_array(folder / "V.zarr", shape=values.shape, dtype=values.dtype, chunks=(N_BINS, 64))
    elif kind == "hdf5":
        file = h5py.File(folder / "V.h5", "w")
        array = file.create_dataset("V", values.shape, values.dtype, chunks=(2, 90))
    else:
        return OnRead(values)
    array[:] = values
    return array


def assert_same_bits(found, expected):
    for name in FIELDS:
        ours, theirs = np.asarray(getattr(found, name)), getattr(expected, name)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("kind", ["memmap", "zarr", "hdf5", "on read"])
@pytest.mark.parametrize(("dtype", "beta"), [(np.float64, 1.0), (np.float32, 2.0), (np.float32, 0.5), (np.int16, 1.5)])
def test_the_same_bits_as_in_memory(problem, kind, dtype, beta, tmp_path):
    V, W, _ = problem
    V = (100 * V).astype(dtype)
    assert_same_bits(activations(stored(V, kind, tmp_path), W, beta, tol=1e-2), activations(V, W, beta, tol=1e-2))


@pytest.mark.parametrize("beta", ["kullback-leibler", "frobenius"])
def test_all_arrays_with_a_value_for_each_frame_are_read_along(problem, beta):
    V, W, options = problem
    expected = activations(V, W, beta, **options, tol=1e-2)
    assert_same_bits(activations(OnRead(V), W, beta, **options, tol=1e-2), expected)
    on_read = {name: OnRead(values) for name, values in options.items()}
    assert_same_bits(activations(OnRead(V), W, beta, **on_read, tol=1e-2), expected)
    assert_same_bits(activations(V, W, beta, **on_read, tol=1e-2), expected)
    assert max(array.largest for array in on_read.values()) <= N_BINS * 100


def test_weights_and_a_support_that_frames_share(problem):
    V, W, _ = problem
    options = {"weights": np.arange(N_BINS), "support": np.array([1, 0, 1, 1]), "upper": 2.0, "max_total": 3.0}
    assert_same_bits(activations(OnRead(V), W, **options), activations(V, W, **options))


def test_one_column_for_all_frames_is_not_that_of_a_block_of_one_frame(problem):
    V, W, options = problem
    shared = {"weights": options["weights"][:, :1], "upper": options["upper"][:, :1]}
    for n_frames in range(90, 99):  # the last block of some has one frame
        on_read = OnRead(V[:, :n_frames])
        assert_same_bits(activations(on_read, W, **shared), activations(V[:, :n_frames], W, **shared))
    assert len(on_read.reads) == 2


def test_basis_is_read_in_blocks_of_bins(problem):
    V, _, options = problem
    options = {"weights": options["weights"], "background": options["background"][:, 0]}
    H = np.random.default_rng(1).random((K, N_FRAMES))
    expected = basis(V, H, **options)
    V, options["weights"] = OnRead(V), OnRead(options["weights"])
    assert_same_bits(basis(V, H, **options), expected)
    assert V.largest < V.values.size


def test_chunks_are_read_once(problem):
    V, W, _ = problem
    V = OnRead(V, chunks=(N_BINS, 32))
    activations(V, W, tol=1e-2)
    starts = [columns.start for _, columns in V.reads]
    assert starts == sorted(set(starts))
    assert not [start for start in starts if start % 32]


def test_large_chunks_are_read_as_a_whole_or_a_warning_says_how_often(problem, monkeypatch):
    V, W, _ = problem
    V = OnRead(V, chunks=(1, N_FRAMES))
    activations(V, W, tol=1e-2)
    assert len(V.reads) == 1
    monkeypatch.setattr(blocks.slices, "LARGEST_BLOCK_BYTES", blocks.slices.BLOCK_BYTES)
    with pytest.warns(
        UserWarning, match=r"chunks of 700 frames, of which 100 fit into a block: each chunk is read 7 times"
    ):
        activations(V, W, tol=1e-2)


class TestResults:
    @pytest.mark.parametrize("kind", ["memory", "zarr", "hdf5", "memmap"])
    def test_activations_go_to_an_array_of_the_caller(self, problem, kind, tmp_path):
        V, W, _ = problem
        out = np.zeros((K, N_FRAMES)) if kind == "memory" else stored(np.zeros((K, N_FRAMES)), kind, tmp_path)
        found = activations(OnRead(V), W, out=out, tol=1e-2)
        assert found.H is out
        assert_same_bits(found, activations(V, W, tol=1e-2))
        assert "Activations(4 components x 700 frames" in repr(found)

    def test_certificates_too(self, problem, tmp_path):
        V, W, _ = problem
        group = zarr.create_group(tmp_path / "found.zarr")
        for name, shape, dtype in (
            ("H", (K, N_FRAMES), "f8"),
            ("gap", (N_FRAMES,), "f8"),
            ("n_iter", (N_FRAMES,), "i8"),
        ):
            group.create_array(name, shape=shape, dtype=dtype)
        found = activations(OnRead(V), W, out=group, tol=1e-2)
        assert isinstance(found.gap, zarr.Array)
        assert isinstance(found.kkt, np.ndarray)
        assert_same_bits(found, activations(V, W, tol=1e-2))

    def test_of_an_array_in_memory(self, problem):
        V, W, _ = problem
        out = np.zeros((K, N_FRAMES))
        assert_same_bits(activations(V, W, out=out), activations(V, W))
        np.testing.assert_array_equal(out, activations(V, W).H)

    @pytest.mark.parametrize(
        ("out", "message"),
        [
            (np.zeros((K, 3)), r"out has shape \(4, 3\) and type float64, expected \(4, 700\) and float64"),
            (np.zeros((K, N_FRAMES), np.float32), r"type float32, expected \(4, 700\) and float64"),
            ({"h": np.zeros((K, N_FRAMES))}, r"out has the name 'h': pass an array for H, or arrays with some of the"),
            ({}, "no array for a result"),
            ({"gap": np.zeros(3)}, r'out\["gap"\] has shape \(3,\)'),
            (np.broadcast_to(0.0, (K, N_FRAMES)), "out is read-only"),
            ([1, 2], "expected an array or a mapping of arrays"),
        ],
    )
    def test_an_array_that_does_not_fit_is_refused_before_anything_is_read(self, problem, out, message):
        V = OnRead(problem[0])
        with pytest.raises((ValueError, TypeError), match=message):
            activations(V, problem[1], out=out)
        assert len(V.reads) == 0


class TestErrors:
    @pytest.mark.parametrize("value", [-1.0, np.inf])
    def test_the_frame_is_that_in_the_whole_array(self, problem, value):
        V = problem[0].copy()
        V[3, 555] = value
        with pytest.raises(ValueError, match=r"V\[3, 555\] is "):
            activations(OnRead(V), problem[1])

    @pytest.mark.parametrize("name", ["weights", "background", "H_init", "l1", "upper", "max_total"])
    def test_also_in_what_belongs_to_the_data(self, problem, name):
        V, W, options = problem
        values = options[name].copy()
        values[..., 444] = -1.0
        with pytest.raises(ValueError, match=rf"{name}\[(0, )?444\] is -1.0"):
            activations(OnRead(V), W, **{name: OnRead(values)})

    def test_samples_are_rows(self, problem):
        X = problem[0].T.copy()
        X[333, 7] = -1.0
        with pytest.raises(ValueError, match=r"X\[333, 7\] is -1.0"):
            NMF.from_basis(problem[1]).transform(OnRead(X))

    def test_an_infeasible_frame_is_named(self, problem):
        V, W, _ = problem
        totals = np.ones(N_FRAMES)
        totals[600] = 9.0
        with pytest.raises(ValueError, match="The total of frame 600 is 9"):
            activations(OnRead(V), W, total=totals, upper=1.0)

    @pytest.mark.parametrize(
        ("V", "message"),
        [
            (np.ones((5, N_FRAMES)), "V has 5 bins but W has 30"),
            (np.ones((N_FRAMES, N_BINS)), r"pass V\.T"),
            (np.ones(N_BINS), "V has 1 dimension"),
            (np.ones((N_BINS, N_FRAMES), complex), "V is complex"),
            (np.full((N_BINS, N_FRAMES), "a"), "V holds <U1, not real numbers"),
        ],
    )
    def test_data_of_the_wrong_kind_are_refused_before_they_are_read(self, problem, V, message):
        V = OnRead(V)
        with pytest.raises((ValueError, TypeError), match=message):
            activations(V, problem[1])
        assert not V.reads

    @pytest.mark.parametrize("name", ["weights", "support", "H_init", "upper", "max_total"])
    def test_a_wrong_shape_is_described_for_all_frames(self, problem, name):
        V, W, options = problem
        with pytest.raises(ValueError, match=rf"{name} has shape .*700"):
            activations(OnRead(V), W, **{name: options[name][..., :-1]})

    def test_an_array_whose_slices_have_another_shape(self, problem):
        class Shrinking(OnRead):
            def __getitem__(self, index):
                return super().__getitem__(index)[:, :-1]

        with pytest.raises(ValueError, match="its shape and its slices disagree"):
            activations(Shrinking(problem[0]), problem[1])


def test_warnings_are_about_the_whole(problem):
    V, W, _ = problem
    with pytest.warns(UserWarning, match="missed tol") as caught:
        found = activations(OnRead(V), W, max_iter=1, tol=1e-12)
    [warning] = caught
    assert str(warning.message).startswith(f"{(~found.converged).sum()} of 700 frames missed tol=1e-12; the worst is")
    assert f"frame {found.criterion.argmax()} " in str(warning.message)


def test_progress_counts_all_frames(problem):
    calls = []
    activations(OnRead(problem[0]), problem[1], progress=lambda *numbers: calls.append(numbers), tol=1e-2)
    assert len(calls) >= 7
    assert calls == sorted(calls)
    assert {n for _, n in calls} == {N_FRAMES}
    assert calls[-1] == (N_FRAMES, N_FRAMES)


def test_results_of_the_blocks_before_a_refused_value_are_kept():
    rng = np.random.default_rng(0)
    V, W = rng.random((N_BINS, N_FRAMES)), rng.random((N_BINS, K))
    expected = activations(V, W).H
    V[3, 650] = -1
    out = np.full((K, N_FRAMES), np.nan)
    with pytest.raises(ValueError, match=r"^V\[3, 650\] is -1\.0: negative values"):
        activations(OnRead(V), W, out=out)
    n_done = int(np.isfinite(out).all(axis=0).sum())
    assert 500 < n_done <= 650
    np.testing.assert_array_equal(out[:, :n_done], expected[:, :n_done])
    assert np.isnan(out[:, n_done:]).all()


def test_no_frames(problem):
    found = activations(OnRead(problem[0][:, :0]), problem[1])
    assert found.H.shape == (K, 0)


class TestEstimator:
    def test_transform(self, problem, tmp_path):
        V, W, options = problem
        X, weights = OnRead(V.T), options["weights"].T
        model = NMF.from_basis(W, beta_loss=1.5)
        calls, out = [], stored(np.zeros((N_FRAMES, K)), "zarr", tmp_path)
        expected = model.transform(V.T, weights=weights)
        np.testing.assert_array_equal(model.transform(X, weights=OnRead(weights)), expected)
        assert model.transform(X, weights=weights, out=out, progress=lambda *n: calls.append(n)) is out
        np.testing.assert_array_equal(out[:], expected)
        assert calls[-1] == (N_FRAMES, N_FRAMES)
        assert model.score(X) == pytest.approx(model.score(V.T), rel=1e-12)
        with pytest.raises(ValueError, match="X has 29 features, but NMF is expecting 30"):
            model.transform(OnRead(V.T[:, 1:]))

    @pytest.mark.parametrize(
        ("beta", "kind"),
        [
            (0.0, "unknown"),
            (1.0, "unknown"),
            (1.0, "partly"),
            (2.0, "partly"),
            (0.5, "softly"),
            (1.5, "random"),
            (2.0, "nndsvdar"),
            (1.0, "options"),
            (1.0, "limits"),
            (0.0, "options"),
            (2.0, "missing"),
        ],
    )
    def test_fit_is_that_in_memory_to_rounding(self, problem, beta, kind, monkeypatch):
        V, W, options = problem
        monkeypatch.setattr(blocks.passes, "MOST_STATE_BYTES", 1000)  # activations go to files
        X, given, parameters = V.T, {}, {"n_components": K, "random_state": 0, "max_iter": 12, "tol": 0.0}
        if kind in ("partly", "options", "missing"):
            parameters["components"] = W.T[:2]
        if kind == "softly":
            parameters |= {"components": W.T, "frozen": False, "template_strength": 10.0}
        if kind in ("random", "nndsvdar"):
            parameters["init"] = kind
        if kind == "limits":
            parameters |= {"components": W.T[:3], "max_total": 5.0, "max_iter": 3}
        if kind == "options":
            parameters |= {"alpha_W": 1e-3, "l1_ratio": 0.5}
            given = {name: options[name].T for name in ("weights", "background", "support", "H_init")}
        if kind == "missing":
            X = np.where(np.random.default_rng(2).random(X.shape) < 0.1, np.nan, X)
        expected = NMF(beta_loss=beta, **parameters).fit(X, **given)
        calls = []
        found = NMF(beta_loss=beta, **parameters)
        found.fit(
            OnRead(X), **{name: OnRead(values) for name, values in given.items()}, progress=lambda *n: calls.append(n)
        )
        np.testing.assert_allclose(found.components_, expected.components_, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.objective_history_, expected.objective_history_, rtol=1e-4)
        assert found.reconstruction_err_ == pytest.approx(expected.reconstruction_err_, rel=1e-4)
        assert calls[-1] == (N_FRAMES, N_FRAMES)
        H = NMF(beta_loss=beta, **parameters).fit_transform(OnRead(X), **given)
        np.testing.assert_array_equal(H, found.transform(X, **{n: v for n, v in given.items() if n != "H_init"}))

    def test_nothing_is_left_in_temporary_folders(self, problem, monkeypatch, tmp_path):
        monkeypatch.setattr(blocks.passes, "MOST_STATE_BYTES", 1000)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        NMF(2, max_iter=3, tol=0.0, random_state=0).fit(OnRead(problem[0].T))
        assert not list(tmp_path.iterdir())

    def test_partial_fit_reads_its_block(self, problem):
        X = problem[0].T.copy()
        expected = NMF(3, random_state=0).partial_fit(X)
        found = NMF(3, random_state=0).partial_fit(zarr.array(X))
        np.testing.assert_array_equal(found.components_, expected.components_)


def test_sparse_data_with_a_start_on_disk(problem):
    _, W, options = problem
    V = scipy.sparse.random(N_BINS, N_FRAMES, 0.2, format="csr", random_state=0)
    start = options["H_init"]
    assert_same_bits(activations(V, W, H_init=OnRead(start)), activations(V, W, H_init=start))


@pytest.mark.plain_library
def test_memory_is_that_of_a_block():
    """Over half a gigabyte of frames, which are made when they are read, in far less memory."""
    code = """
import resource, numpy as np, knownmf

class Made:
    shape, dtype = (500, 300_000), np.dtype(np.float32)
    def __getitem__(self, index):
        columns = range(self.shape[1])[index[1]]
        return np.ones((500, len(columns)), np.float32)

knownmf.activations(np.ones((500, 100)), np.eye(500, 2) + 0.1, tol=0.5)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
knownmf.activations(Made(), np.eye(500, 2) + 0.1, tol=0.5)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    n_bytes_of_results = 300_000 * (2 * 4 + 7 * 8 + 1)
    assert float(done.stdout) < 200 + n_bytes_of_results / 2**20


def test_the_file_of_a_memmap_is_not_changed(problem, tmp_path):
    V = stored(problem[0], "memmap", tmp_path)
    V[0, 0] = 7.0  # not written yet
    activations(V, problem[1], tol=1e-2)
    assert V[0, 0] == 7.0
    copy_on_write = np.memmap(tmp_path / "V.bin", V.dtype, "c", shape=V.shape)
    copy_on_write[0, 0] = 9.0
    activations(copy_on_write, problem[1], tol=1e-2)
    assert copy_on_write[0, 0] == 9.0


def test_results_on_disk_are_labeled_and_judged_like_those_in_memory(tmp_path):
    rng = np.random.default_rng(0)
    W, H = rng.random((12, 3)), rng.random((3, 40)) * 100
    V = rng.poisson(W @ H).astype(float)
    out = zarr.create_array(tmp_path / "H.zarr", shape=(3, 40), dtype=float, chunks=(3, 10))
    on_disk, in_memory = activations(V, W, out=out), activations(V, W)
    pd.testing.assert_frame_equal(on_disk.to_frame(), in_memory.to_frame())
    np.testing.assert_array_equal(knownmf.standard_errors(V, W, on_disk), knownmf.standard_errors(V, W, in_memory))
    np.testing.assert_array_equal(
        knownmf.goodness_of_fit(V, W, on_disk).p_value, knownmf.goodness_of_fit(V, W, in_memory).p_value
    )


def test_results_must_not_overwrite_the_data():
    V, W = np.ones((5, 6)), np.ones((5, 5))
    with pytest.raises(ValueError, match=r"^out shares memory with V, .* pass another array\.$"):
        activations(V, W, out=V)
    np.testing.assert_array_equal(V, 1.0)


class Damaged(OnRead):
    """An array of which some frames cannot be read."""

    def __getitem__(self, index):
        first, stop, _ = index[1].indices(N_FRAMES)
        if any(first <= frame < stop for frame in (150, 420)):
            raise RuntimeError("invalid checksum")
        return super().__getitem__(index)


class TestFramesThatCannotBeRead:
    def test_with_out_all_others_are_solved(self, problem):
        V, W, _ = problem
        out = {"H": np.zeros((K, N_FRAMES)), "gap": np.zeros(N_FRAMES), "converged": np.ones(N_FRAMES, bool)}
        with pytest.raises(
            OSError, match=r"V cannot be read in frames 96 to 191 \(RuntimeError: invalid.*frames 384 to"
        ):
            activations(Damaged(V), W, out=out)
        unread = np.isnan(out["H"]).all(axis=0)
        assert set(np.flatnonzero(unread)) == {*range(96, 192), *range(384, 480)}
        np.testing.assert_array_equal(out["H"][:, ~unread], activations(V, W).H[:, ~unread])
        assert np.isinf(out["gap"][unread]).all()
        np.testing.assert_array_equal(out["converged"], ~unread)

    def test_without_out_nothing_more_is_read(self, problem):
        V, W, options = problem
        array = Damaged(V)
        with pytest.raises(OSError, match="V cannot be read in frames 96 to 191"):
            activations(array, W)
        assert len(array.reads) == 1
        with pytest.raises(OSError, match="weights cannot be read in frames 112 to 167"):
            activations(V, W, weights=Damaged(options["weights"]))

    def test_learning_names_them(self, problem):
        class Rows(Damaged):
            def __getitem__(self, index):
                return super().__getitem__((slice(None), index)).T

        X = Rows(problem[0])
        X.shape = (N_FRAMES, N_BINS)
        with pytest.raises(OSError, match="X cannot be read in samples 104 to 207"):
            NMF(2, random_state=0).fit(X)

    def test_a_damaged_chunk_of_zarr(self, problem, tmp_path):
        V, W, _ = problem
        array = stored(V, "zarr", tmp_path)
        (tmp_path / "V.zarr" / "c" / "0" / "3").write_bytes(b"damaged")
        out = np.zeros((K, N_FRAMES))
        with pytest.raises(OSError, match="V cannot be read in frames 192 to 255"):
            activations(array, W, out=out)
        assert np.isfinite(out[:, 256:]).all()

    @pytest.mark.parametrize("block_bytes", [2**26, 8 * N_BINS * 50], ids=["one block", "blocks of some chunks"])
    def test_only_the_damaged_chunk_of_a_block_is_lost(self, problem, tmp_path, monkeypatch, block_bytes):
        monkeypatch.setattr(blocks.slices, "BLOCK_BYTES", block_bytes)
        V, W, _ = problem
        array = zarr.create_array(tmp_path / "V.zarr", shape=V.shape, dtype=V.dtype, chunks=(N_BINS, 10))
        array[:] = V
        (tmp_path / "V.zarr" / "c" / "0" / "3").write_bytes(b"damaged")
        out = np.zeros((K, N_FRAMES))
        with pytest.raises(OSError, match="V cannot be read in frames 30 to 39 "):
            activations(array, W, out=out)
        read = np.isfinite(out).all(axis=0)
        assert set(np.flatnonzero(~read)) == {*range(30, 40)}
        np.testing.assert_array_equal(out[:, read], activations(V, W).H[:, read])


def test_arrays_that_can_only_be_sliced_may_be_shared_by_all_frames(problem):
    V, W, options = problem
    shared = {"weights": options["weights"][:, 0], "support": options["support"][:, 0], "l1": options["l1"][:, 0]}
    found = activations(OnRead(V), W, **{name: OnRead(values) for name, values in shared.items()})
    np.testing.assert_array_equal(found.H, activations(V, W, **shared).H)


def test_results_in_files_do_not_stay_in_memory(tmp_path):
    code = f"""
import resource, numpy as np, knownmf
n, W = 3_000_000, np.ones((2, 8)) + np.arange(16).reshape(2, 8)
class Made:
    shape, dtype = (2, n), np.dtype(np.float32)
    def __getitem__(self, index):
        return np.ones((2, len(range(n)[index[1]])), np.float32)
out = {{"H": np.memmap("{tmp_path}/H", np.float32, "w+", shape=(8, n))}}
for name, kind in knownmf.blocks.CERTIFICATES.items():
    out[name] = np.memmap("{tmp_path}/" + name, kind, "w+", shape=(n,))
knownmf.activations(Made(), W, "frobenius", out=out, tol=1e-2)
assert out["converged"].all() and np.isfinite(out["H"][:, -1]).all()
"""
    measured = "\nbefore = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
    before, call = code.split("knownmf.activations(Made", 1)
    report = "\nprint(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    done = subprocess.run(
        [sys.executable, "-c", before + measured + "knownmf.activations(Made" + call + report],
        capture_output=True,
        text=True,
        check=True,
    )
    kilobytes = [int(word) for word in done.stdout.split()]
    assert kilobytes[1] - kilobytes[0] < 150_000  # the results have 267 MB


def test_a_file_of_hdf5_that_is_read_only_is_refused_before_the_work(problem, tmp_path):
    with h5py.File(tmp_path / "out.h5", "w") as file:
        file["H"] = np.zeros((K, N_FRAMES))
    with h5py.File(tmp_path / "out.h5") as file:
        array = OnRead(problem[0])
        with pytest.raises(ValueError, match="out is read-only"):
            activations(array, problem[1], out=file["H"])
        assert not array.reads
