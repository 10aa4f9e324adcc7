"""Test the messages about files, and groups of arrays, that are passed where an array is expected."""

import io
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

import knownmf
from knownmf.audio import decompose, write

W, V, H = np.ones((4, 2)), np.ones((4, 5)), np.ones((2, 5))
NMF = knownmf.NMF
SOLVER = knownmf.Solver(W)

# What takes an array, by the name of its argument.
CALLS = [
    ("V", lambda given: knownmf.activations(given, W)),
    ("W", lambda given: knownmf.activations(V, given)),
    *(
        (name, lambda given, name=name: knownmf.activations(V, W, **{name: given}))
        for name in ("weights", "background", "support", "H_init", "l1", "l2", "upper", "total", "max_total")
    ),
    ("V", lambda given: knownmf.basis(given, H)),
    ("H", lambda given: knownmf.basis(V, given)),
    ("W", knownmf.Solver),
    ("V", SOLVER.solve),
    ("H", lambda given: SOLVER.certify(V, given)),
    ("V", lambda given: knownmf.select(given, W)),
    ("W", lambda given: knownmf.Dictionary(given, ["a", "b"])),
    ("W", NMF.from_basis),
    ("X", lambda given: NMF(2).fit(given)),
    ("X", lambda given: NMF(2, components=W.T).partial_fit(given)),
    ("X", lambda given: NMF.from_basis(W).transform(given)),
    ("X", lambda given: NMF.from_basis(W).score(given)),
    ("X", lambda given: NMF.from_basis(W).inverse_transform(given)),
    ("components", lambda given: NMF(2, components=given).fit(V.T)),
    ("frozen", lambda given: NMF(2, components=W.T, frozen=given).fit(V.T)),
    ("weights", lambda given: NMF(2, components=W.T).fit(V.T, weights=given)),
]


@pytest.mark.parametrize(("name", "call"), CALLS)
@pytest.mark.parametrize("file", ["a.npy", Path("data") / "a.npy", b"a.npy"], ids=repr)
def test_the_name_of_a_file_is_no_array(name, call, file):
    with pytest.raises(TypeError, match=rf"^{name} is b?'.*a.npy', expected an array: .* by numpy.load\(b?'.*a.npy'\)"):
        call(file)


@pytest.mark.parametrize(("name", "call"), CALLS)
def test_an_open_file_is_no_array(name, call):
    with pytest.raises(TypeError, match=f"^{name} is an open file, expected an array: read it first"):
        call(io.BytesIO())


@pytest.fixture(params=["zarr", "h5py", "numpy", "builtins"])
def group(request, tmp_path):
    """Yield the name of a package and a group of two arrays as it has them."""
    arrays = {"first": V, "second": V}
    if request.param == "zarr":
        group = zarr.open_group(tmp_path / "a.zarr", mode="w")
        for name, values in arrays.items():
            group.create_array(name, data=values)
        yield "Group of zarr", group
    elif request.param == "h5py":
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.update(arrays)
            yield "File of h5py", file
    elif request.param == "numpy":
        np.savez(tmp_path / "a.npz", **arrays)
        with np.load(tmp_path / "a.npz") as archive:
            yield "NpzFile of numpy", archive
    else:
        yield "dict", arrays


@pytest.mark.parametrize(("name", "call"), [*CALLS, ("y", lambda given: write("a.wav", given, 8000))])
def test_a_group_of_arrays_is_no_array(name, call, group):
    kind, arrays = group
    message = (
        f"{name} is an object of type {kind} with 'first', 'second', expected an array: pass one of its arrays, such "
        f"as {name}['first']."
    )
    with pytest.raises(TypeError) as caught:
        call(arrays)
    assert str(caught.value) == message
    with pytest.raises(TypeError, match=r"expected an array: it is empty\."):
        call({})


def test_a_group_with_many_arrays_is_not_listed_as_a_whole():
    with pytest.raises(TypeError, match=r"^V is an object of type dict with 'a', 'b', 'c', 'd', \.\.\., expected"):
        knownmf.activations(dict.fromkeys("abcdef", V), W)
    with pytest.raises(TypeError, match=r"^V is an object of type dict with 'a', 'b', 'c', 'd', expected"):
        knownmf.activations(dict.fromkeys("abcd", V), W)


@pytest.mark.parametrize(
    ("file", "call"),
    [
        ("a.zarr", r"zarr.open_array\('a.zarr'\)"),
        ("a.H5", r"h5py.File\('a.H5'\)\[NAME\]"),
        ("a.csv", r"pandas.read_csv\('a.csv', index_col=0\)"),
        ("a.tsv", r"""pandas.read_csv\('a.tsv', sep="\\t", index_col=0\)"""),
        ("a", r"numpy.load\('a'\) or zarr.open_array\('a'\)"),
    ],
)
def test_the_message_says_how_to_open_the_file(file, call):
    with pytest.raises(TypeError, match=rf"for example by {call}\.$"):
        knownmf.activations(file, W)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("a.zarr", "out is 'a.zarr', expected an array: if this"),
        ({"H": "a.zarr"}, r"""out\["H"\] is 'a.zarr', expected an array"""),
        ({"H": {"H": H}}, r"""out\["H"\] is an object of type dict with 'H', expected"""),
        ({"H": H.tolist()}, r"""out\["H"\] is an object of type list, which cannot be written to"""),
    ],
)
def test_results_cannot_go_to_the_name_of_a_file_or_into_a_group_inside(out, message):
    with pytest.raises(TypeError, match=f"^{message}"):
        knownmf.activations(V, W, out=out)


def test_recordings_may_still_be_names_of_files(tmp_path):
    dictionary = knownmf.Dictionary(np.ones((257, 1)), ["noise"], sr=8000, n_fft=512, hop_length=128)
    write(tmp_path / "a.wav", np.random.default_rng(0).normal(size=8000) / 9, 8000)
    assert decompose(tmp_path / "a.wav", dictionary=dictionary).explained > 0
