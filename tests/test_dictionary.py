"""Test dictionaries: their arguments, and the files that they are saved to."""

import copy
import io
import os
import pickle
import stat
import threading
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from knownmf import activations, audio
from knownmf.dictionary import Dictionary

KIT = {"sr": 22050, "n_fft": 8, "hop_length": 2}


@pytest.fixture
def kit():
    """Return a dictionary of two sounds."""
    W = np.random.default_rng(0).random((5, 3))
    return Dictionary(W, ["kick", "snare", "kick"], window="hamming", power=2, **KIT)


def change_file(path, **changes):
    """Change entries of a file; remove those whose new value is None."""
    with np.load(path) as archive:
        entries = dict(archive)
    entries.update(changes)
    np.savez(path, **{name: value for name, value in entries.items() if value is not None})


def test_properties(kit):
    assert (kit.n_bins, kit.n_components, kit.names) == (5, 3, ("kick", "snare"))
    assert kit.labels == ("kick", "snare", "kick")
    np.testing.assert_array_equal(kit.components_of("kick"), [0, 2])
    np.testing.assert_allclose(kit.frequencies, np.fft.rfftfreq(8, 1 / 22050))
    assert "3 components of 2 sounds: kick, snare" in repr(kit)
    assert "sr=22050" in repr(kit)
    with pytest.raises(ValueError, match="no sound 'hat'; it has kick, snare"):
        kit.components_of("hat")


def test_the_basis_is_a_read_only_copy():
    W = np.ones((5, 2))
    kit = Dictionary(W, ["a", "b"], **KIT)
    W[0, 0] = 7
    assert kit.W[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        kit.W[0, 0] = 2


@pytest.mark.parametrize("name", ["W", "labels", "sr", "n_fft", "hop_length", "window", "power", "n_bins", "tempo"])
def test_attributes_cannot_be_set_or_deleted(kit, name):
    before = repr(kit)
    with pytest.raises(AttributeError, match=f"{name} cannot be set.*Make a new one"):
        setattr(kit, name, 1)
    with pytest.raises(AttributeError, match=f"{name} cannot be set.*Make a new one"):
        delattr(kit, name)
    assert repr(kit) == before


def test_the_shape_and_the_flags_of_the_basis_cannot_be_changed(kit):
    kit.W.shape = (3, 5)
    assert kit.W.shape == (5, 3)
    with pytest.raises(ValueError, match="WRITEABLE"):
        kit.W.flags.writeable = True


def test_a_new_dictionary_can_have_the_same_settings(kit):
    other = Dictionary(kit.W[:, :1], ["hat"], **kit.settings)
    assert other.settings == kit.settings == {**KIT, "window": "hamming", "power": 2.0}
    kit.settings["sr"] = 8000
    assert kit.sr == 22050


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda kit: pickle.loads(pickle.dumps(kit))])
def test_copies_are_equal_and_do_not_change_either(kit, copied):
    other = copied(kit)
    np.testing.assert_array_equal(other.W, kit.W)
    assert (other.labels, other.settings) == (kit.labels, kit.settings)
    assert not other.W.flags.writeable
    with pytest.raises(AttributeError):
        other.labels = ("a", "b", "c")


@pytest.mark.parametrize(("given", "kept"), [(np.float32, np.float32), (np.float64, np.float64), (int, np.float64)])
def test_types(given, kept):
    assert Dictionary(np.ones((5, 1), given), ["a"], **KIT).W.dtype == kept


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"W": np.ones(5)}, r"W has 1 dimension, expected 2: its shape is \(5,\)"),
        ({"W": np.ones((5, 0)), "labels": []}, r"shape \(5, 0\)"),
        ({"W": [[1, 2], [3]]}, "W is not a rectangular array"),
        ({"W": np.full((5, 2), np.nan)}, r"W\[0, 0\] is nan \(and 9 more\): NaN \(missing or masked\) values"),
        ({"W": np.full((5, 2), np.inf)}, r"W\[0, 0\] is inf \(and 9 more\): infinite values"),
        ({"W": -np.eye(5, 2)}, r"W\[0, 0\] is -1\.0 \(and 1 more\): negative values"),
        (
            {"W": np.ma.masked_equal(np.eye(5, 2), 1)},
            r"is nan \(and 1 more\): NaN \(missing or masked\) values",
        ),
        ({"W": np.ones((4, 2))}, "W has 4 bins, but n_fft=8 makes spectra of 5"),
        ({"labels": ["a"]}, "2 components but there are 1 labels"),
        ({"labels": "ab"}, "a list with one string per component"),
        ({"labels": ["a", " "]}, "Label 1 is ' '"),
        ({"labels": ["a", 3]}, "Label 1 is 3"),
        ({"labels": ["a", "b" * 1001]}, "Label 1 has 1001 characters, expected at most 1000"),
        ({"labels": ["a", "b\0"]}, "Label 1 is"),
        ({"sr": 0}, r"^sr is 0, expected the sample rate"),
        ({"sr": 44100.0}, r"^sr is 44100.0, expected the sample rate"),
        ({"n_fft": True}, "n_fft is True"),
        ({"hop_length": -1}, "hop_length is -1"),
        ({"hop_length": 9}, "hop_length=9 exceeds n_fft=8"),
        ({"window": "hat"}, "window='hat' is not a window"),
        ({"window": 3}, "window=3; the name of a window"),
        ({"power": 0}, r"^power is 0, expected the exponent .* a finite number above 0\.$"),
        ({"power": np.inf}, "power is inf, expected the exponent"),
        ({"power": np.nan}, "power is nan, expected the exponent"),
        ({"power": True}, "power is True, expected the exponent"),
        ({"power": "1"}, "power is '1', expected the exponent"),
    ],
)
def test_invalid_arguments_are_named(changes, complaint):
    arguments = {"W": np.ones((5, 2)), "labels": ["a", "b"]} | KIT | changes
    with pytest.raises(ValueError, match=complaint):
        Dictionary(**arguments)


@pytest.mark.parametrize(
    ("W", "complaint"),
    [
        ([["x", "y"]] * 5, "W holds text, not real numbers"),
        (np.ones((5, 2), complex), r"W is complex: pass its magnitude, np\.abs\(W\)"),
        (scipy.sparse.csr_array(np.ones((5, 2))), r"W is a sparse matrix: pass W\.toarray\(\)"),
    ],
)
def test_what_is_no_array_of_real_numbers_is_refused(W, complaint):
    with pytest.raises(TypeError, match=complaint):
        Dictionary(W, ["a", "b"], **KIT)


def test_saved_and_loaded_are_equal(kit, tmp_path):
    path = tmp_path / "a name without extension"
    kit.save(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    loaded = Dictionary.load(path)
    assert loaded.W.dtype == kit.W.dtype
    np.testing.assert_array_equal(loaded.W, kit.W)
    for name in ("labels", "sr", "n_fft", "hop_length", "window", "power"):
        assert getattr(loaded, name) == getattr(kit, name)
    assert all(type(label) is str for label in loaded.labels)


def test_unusual_labels_can_be_saved(tmp_path):
    labels = ["Große Trommel", "太鼓", " a/b "]
    Dictionary(np.ones((5, 3)), labels, **KIT).save(tmp_path / "d.npz")
    assert Dictionary.load(str(tmp_path / "d.npz")).labels == tuple(labels)


def test_a_new_file_gets_the_permissions_of_any_new_file(kit, tmp_path):
    path = tmp_path / "d.npz"
    before = os.umask(0o027)
    try:
        kit.save(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert Dictionary.load(path).names == kit.names


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o640])
def test_a_replaced_file_keeps_its_permissions(kit, tmp_path, mode):
    path = tmp_path / "d.npz"
    path.write_text("old")
    path.chmod(mode)
    kit.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert Dictionary.load(path).names == kit.names


def test_the_umask_of_the_process_is_not_touched(kit, tmp_path, monkeypatch):
    def touched(mask):
        raise AssertionError("the umask belongs to all threads")

    monkeypatch.setattr(os, "umask", touched)
    kit.save(tmp_path / "d.npz")


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs the device that is always full")
def test_a_device_is_written_to_and_not_replaced(kit):
    with pytest.raises(OSError, match="No space left"):
        kit.save("/dev/full")
    assert Path("/dev/full").is_char_device()


def test_a_symbolic_link_is_replaced(kit, tmp_path):
    (tmp_path / "other").write_text("mine")
    (tmp_path / "d.npz").symlink_to("other")
    kit.save(tmp_path / "d.npz")
    assert (tmp_path / "other").read_text() == "mine"
    assert Dictionary.load(tmp_path / "d.npz").names == kit.names


def test_a_failed_save_keeps_the_old_file_and_leaves_no_other(kit, tmp_path, monkeypatch):
    path = tmp_path / "d.npz"
    kit.save(path)
    before = path.read_bytes()

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="No space"):
        kit.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_or_file_raises(kit, tmp_path):
    with pytest.raises(FileNotFoundError):
        kit.save(tmp_path / "none" / "d.npz")
    with pytest.raises(FileNotFoundError):
        Dictionary.load(tmp_path / "none.npz")


@pytest.mark.parametrize("content", [b"", b"RIFF....WAVE", b"PK\x03\x04 not really", bytes(500)])
def test_other_files_are_refused_and_named(content, tmp_path):
    path = tmp_path / "thing.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"thing\.npz.*(not a knownmf dictionary|damaged or not an \.npz)"):
        Dictionary.load(path)


def test_damaged_files_are_refused(kit, tmp_path):
    path = tmp_path / "d.npz"
    kit.save(path)
    whole = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("W.npy")
    whole[member.header_offset + 60] ^= 0xFF
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"d\.npz"):
        Dictionary.load(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"d\.npz.*damaged"):
        Dictionary.load(path)


def with_member(path, name, content, **changes):
    """Replace a member of a file; `changes` are for its entry in the directory of the archive."""
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: archive.read(member) for member in archive.infolist()}
    members[name] = content
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, value in members.items():
            method = changes.get("method", zipfile.ZIP_DEFLATED) if key == name else zipfile.ZIP_DEFLATED
            archive.writestr(zipfile.ZipInfo(key), value, compress_type=method)


def npy(array, version=(1, 0)):
    """Return the content of an .npy file."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), version)
    return file.getvalue()


ONE_MIB_OF_ZEROS = np.zeros(2**17)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("junk.npy", npy(ONE_MIB_OF_ZEROS), None),
        ("junk.txt", bytes(2**20), None),
        ("W.npy", npy(np.zeros((5, 2**15))), "W has 32768 components but there are 3 labels"),
        ("W.npy", npy(np.zeros((2**16, 3))), "W has 65536 bins, but n_fft=8 makes spectra of 5"),
        ("W.npy", npy(np.zeros((5, 3))) + bytes(2**20), r"W does not have the size that its shape \(5, 3\) needs"),
        ("W.npy", npy(np.zeros((5, 3)), (2, 0)), "W has a format that np.save does not use"),
        ("W.npy", b"\x93NUMPY\x02\x00\xf0\xff\x0f\x00" + b" " * 2**20, "W has a format that np.save does not use"),
        ("labels.npy", npy(np.zeros(3, "U100000")), "labels have up to 100000 characters, expected at most 1000"),
        ("labels.npy", npy(np.zeros(2**18, "U1")), "W has 3 components but there are 262144 labels"),
        ("sr.npy", npy(ONE_MIB_OF_ZEROS), r"sr has shape \(131072,\) instead of being one value"),
        ("window.npy", npy("h" * 2**18), "window takes 1048576 bytes"),
        ("format.npy", npy("k" * 2**18), "not a knownmf dictionary"),
        ("format_version.npy", npy(ONE_MIB_OF_ZEROS), "no readable format version"),
    ],
)
def test_a_file_takes_no_more_memory_than_its_dictionary(kit, tmp_path, name, content, complaint):
    path = tmp_path / "d.npz"
    kit.save(path)
    with_member(path, name, content)
    assert path.stat().st_size < 10000
    tracemalloc.start()
    try:
        if complaint is None:
            Dictionary.load(path)
        else:
            with pytest.raises(ValueError, match=f"d.npz.*{complaint}"):
                Dictionary.load(path)
        assert tracemalloc.get_traced_memory()[1] < 0.3 * 2**20
    finally:
        tracemalloc.stop()


def test_other_compression_methods_are_refused(kit, tmp_path):
    path = tmp_path / "d.npz"
    kit.save(path)
    with_member(path, "W.npy", npy(kit.W), method=zipfile.ZIP_LZMA)
    with pytest.raises(ValueError, match=r"d\.npz.*W is compressed by a method"):
        Dictionary.load(path)


def test_a_dictionary_that_does_not_fit_into_memory_is_refused(kit, tmp_path, monkeypatch):
    path = tmp_path / "d.npz"
    kit.save(path)
    monkeypatch.setattr("knownmf.memory.available_memory", lambda: 100)
    with pytest.raises(MemoryError, match=r'loading ".*d\.npz" needs about 0 MiB'):
        Dictionary.load(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_dictionary_can_come_through_a_pipe(kit, tmp_path):
    kit.save(tmp_path / "d.npz")
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes((tmp_path / "d.npz").read_bytes()))
    writer.start()
    assert Dictionary.load(tmp_path / "pipe").labels == kit.labels
    writer.join()


def test_a_changed_byte_is_harmless_or_raises_a_value_error(kit, tmp_path):
    path = tmp_path / "d.npz"
    kit.save(path)
    whole = path.read_bytes()
    positions, refused = range(0, len(whole), 3), 0
    for position in positions:
        broken = bytearray(whole)
        broken[position] ^= 0x55
        path.write_bytes(broken)
        try:
            Dictionary.load(path)
        except ValueError:
            refused += 1
    # Bytes without meaning for the dictionary, such as those of a date, may change. Most bytes have a meaning.
    assert 0.5 * len(positions) < refused < len(positions)


def test_pickles_and_single_arrays_are_refused(kit, tmp_path):
    path = tmp_path / "d.npz"
    kit.save(path)
    change_file(path, labels=np.array(["kick", "snare", None], dtype=object))
    with pytest.raises(ValueError, match=r"d\.npz.*pickled"):
        Dictionary.load(path)
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(ValueError, match=r"d\.npz.*single array"):
        Dictionary.load(path)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"format": None}, "not a knownmf dictionary"),
        ({"format_version": 3}, "has format version 3, but this knownmf reads versions up to 2: upgrade"),
        ({"format_version": "x"}, "no readable format version"),
        ({"format_version": 0}, "no readable format version"),
        ({"W": None, "sr": None}, "lacks W, sr"),
        ({"W": -np.ones((5, 3))}, r"invalid dictionary: W\[0, 0\] is -1\.0 \(and 14 more\): negative"),
        ({"labels": np.array(["a"])}, "invalid dictionary: W has 3 components but there are 1 labels"),
        ({"labels": np.arange(3)}, "the labels are not strings"),
        ({"n_fft": 16}, "invalid dictionary: W has 5 bins"),
        ({"sr": np.array([1, 2])}, "sr has shape"),
        ({"sr": 44100.5}, "sr is 44100.5"),
        ({"window": 3}, "window=3"),
    ],
)
def test_invalid_entries_of_a_file_are_named(kit, tmp_path, changes, complaint):
    path = tmp_path / "d.npz"
    kit.save(path)
    change_file(path, **changes)
    with pytest.raises(ValueError, match=complaint) as caught:
        Dictionary.load(path)
    assert "d.npz" in str(caught.value)


def test_a_table_whose_columns_are_the_labels_in_another_order_is_refused():
    table = pd.DataFrame(np.eye(5, 2), columns=["kick", "snare"])
    settings = {"sr": 8000, "n_fft": 8, "hop_length": 4}
    assert Dictionary(table, ["kick", "snare"], **settings).labels == ("kick", "snare")
    assert Dictionary(table, ["tom", "snare"], **settings).labels == ("tom", "snare")
    with pytest.raises(ValueError, match=r"order differs, at position 0 W has 'kick' and labels 'snare'"):
        Dictionary(table, ["snare", "kick"], **settings)


SIGNATURES = {"labels": ["SBS1", "SBS5"], "features": ["C>A", "C>G", "C>T"], "units": "mutations"}


@pytest.fixture
def signatures():
    """Return a dictionary without settings."""
    return Dictionary(np.random.default_rng(0).random((3, 2)), **SIGNATURES)


def assert_same(first, second):
    np.testing.assert_array_equal(first.W, second.W)
    assert first.W.dtype == second.W.dtype
    for name in ("labels", "features", "units", "settings", "sr"):
        assert getattr(first, name) == getattr(second, name), name


class TestWithoutSettings:
    def test_properties(self, signatures):
        assert signatures.features == ("C>A", "C>G", "C>T")
        assert (signatures.units, signatures.settings, signatures.sr, signatures.window) == (
            "mutations",
            {},
            None,
            None,
        )
        assert repr(signatures) == "Dictionary(2 components: SBS1, SBS5; features: C>A, C>G, C>T; units: mutations)"
        assert repr(Dictionary(np.ones((3, 1)), ["a"])) == "Dictionary(1 component: a; 3 features)"
        with pytest.raises(AttributeError, match="no sr, so that its bins have no frequencies: see features"):
            signatures.frequencies  # noqa: B018 - reading it raises
        assert not hasattr(signatures, "frequencies")

    def test_labels_and_features_come_from_a_table(self, signatures):
        table = signatures.to_frame()
        assert (list(table.columns), list(table.index)) == (SIGNATURES["labels"], SIGNATURES["features"])
        assert_same(Dictionary(table, units="mutations"), signatures)
        assert Dictionary(pd.DataFrame(signatures.W), ["a", "b"]).features is None
        assert Dictionary(table, features=["x", "y", "z"]).features == ("x", "y", "z")

    def test_the_table_is_a_copy(self, signatures):
        before = signatures.W.copy()
        table = signatures.to_frame()
        table.iloc[0, 0] = 7.0
        np.testing.assert_array_equal(signatures.W, before)

    def test_the_table_of_sounds_has_their_frequencies(self, kit):
        table = kit.to_frame()
        assert list(table.columns) == list(kit.labels)
        np.testing.assert_array_equal(table.index, kit.frequencies)

    @pytest.mark.parametrize("name", ["d.npz", "d.csv", "d.tsv", "d.txt.gz", "d.parquet"])
    def test_files_give_back_what_was_saved(self, signatures, tmp_path, name):
        signatures.save(tmp_path / name)
        loaded = Dictionary.load(tmp_path / name)
        if name != "d.npz":
            assert loaded.units == ""
            loaded = Dictionary(loaded.W, loaded.labels, features=loaded.features, units="mutations")
        assert_same(loaded, signatures)

    @pytest.mark.parametrize("name", ["d.npz", "d.csv"])
    def test_files_without_features(self, tmp_path, name):
        one = Dictionary(np.ones((3, 2), np.float64), ["a", "a"])
        one.save(tmp_path / name)
        assert_same(Dictionary.load(tmp_path / name), one)

    def test_copies_are_the_same(self, signatures):
        assert_same(copy.deepcopy(signatures), signatures)
        assert_same(pickle.loads(pickle.dumps(signatures)), signatures)

    def test_a_table_of_signatures_is_read(self, tmp_path):
        path = tmp_path / "COSMIC_v3.4_SBS_GRCh38.txt"
        path.write_text("Type\tSBS1\tSBS5\nA[C>A]A\t0.25\t0.5\nA[C>A]C\t0.75\t0.5\n")
        loaded = Dictionary.load(path)
        assert (loaded.labels, loaded.features) == (("SBS1", "SBS5"), ("A[C>A]A", "A[C>A]C"))
        assert loaded.W.tolist() == [[0.25, 0.5], [0.75, 0.5]]

    def test_a_first_column_of_numbers_has_the_features(self, tmp_path):
        (tmp_path / "d.csv").write_text("nm,Hb,HbO2\n400,1,2\n500,3,4\n")
        loaded = Dictionary.load(tmp_path / "d.csv")
        assert (loaded.labels, loaded.features) == (("Hb", "HbO2"), ("400", "500"))

    @pytest.mark.parametrize(
        ("content", "complaint"),
        [
            ("1,2\n3,3\n", "not a table of basis vectors with their labels in the first row"),
            ("Type,a\nx,-1\n", r"invalid dictionary: W\[0, 0\] is -1.0"),
            ("Type,a\nx,1\nx,2\n", "invalid dictionary: The feature 'x' occurs more than once"),
            ("Type,a\nx,b\n", "d.csv.*not a number"),
        ],
    )
    def test_other_tables_are_refused(self, tmp_path, content, complaint):
        (tmp_path / "d.csv").write_text(content)
        with pytest.raises(ValueError, match=complaint):
            Dictionary.load(tmp_path / "d.csv")

    def test_a_table_cannot_hold_settings(self, kit, tmp_path):
        with pytest.raises(ValueError, match=r"cannot hold the settings \(sr, n_fft, ...\): save .* in an .npz file"):
            kit.save(tmp_path / "d.csv")
        assert not any(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"n_fft": 4}, "n_fft=4 was passed without sr: pass sr"),
            ({"window": "hann"}, "window='hann' was passed without sr"),
            ({"sr": 8000, "n_fft": 4, "features": ["a", "b", "c"]}, "features=.* was passed with sr: leave it out"),
            ({"sr": 8000, "n_fft": 4, "units": "mg"}, "units='mg' was passed with sr"),
            ({"features": ["a", "b"]}, "W has 3 bins but there are 2 features"),
            ({"features": ["a", "b", "a"]}, "The feature 'a' occurs more than once"),
            ({"features": ["a", "b", ""]}, "Feature 2 is ''; features are strings that are not empty"),
            ({"features": "abc"}, "features is the string 'abc'; a list with one string per bin is needed"),
            ({"units": 3}, "units is 3, expected a text such as 'mg/l'"),
            ({"labels": None}, "labels is missing: pass the name of each component"),
        ],
    )
    def test_options_that_do_not_fit_are_named(self, options, complaint):
        with pytest.raises(ValueError, match=complaint):
            Dictionary(np.ones((3, 2)), **{"labels": ["a", "b"], **options})

    @pytest.mark.parametrize(
        ("changes", "complaint"),
        [
            ({"units": None}, "lacks units"),
            ({"features": np.array(["a"])}, "W has 3 bins but there are 1 features"),
            ({"features": np.arange(3)}, "the features are not strings"),
            ({"features": np.array(["a", "b", "c" * 2000])}, "features have up to 2000 characters"),
            ({"units": np.array(["a", "b"])}, "units has shape"),
            ({"format_version": 1}, "lacks sr, n_fft"),
        ],
    )
    def test_invalid_entries_of_a_file_are_named(self, signatures, tmp_path, changes, complaint):
        path = tmp_path / "d.npz"
        signatures.save(path)
        change_file(path, **changes)
        with pytest.raises(ValueError, match=complaint):
            Dictionary.load(path)

    def test_labels_are_compared_with_those_of_the_data(self, signatures):
        V = pd.DataFrame(signatures.W @ np.ones((2, 4)), SIGNATURES["features"])
        assert list(activations(V, signatures.to_frame()).to_frame().index) == SIGNATURES["labels"]
        with pytest.raises(ValueError, match="do not have the same labels for their bins: their order differs"):
            activations(V[::-1], signatures.to_frame())

    def test_functions_for_recordings_say_what_it_lacks(self, signatures):
        y = np.zeros(100)
        for function in (audio.separate, audio.decompose, audio.transcribe):
            with pytest.raises(ValueError, match=r"the dictionary has no settings of spectrograms \(sr, n_fft"):
                function(y, 8000, signatures)
