"""Labels of tables are compared wherever two arguments have them, and missing values count as missing everywhere."""

import datetime
import decimal
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest

from knownmf import NMF, Solver, activations, basis

BINS, COMPONENTS, FRAMES = list("abcdef"), ["low", "high"], ["s1", "s2", "s3", "s4"]
OTHER = ["b", "a", "c", "d", "e", "f"]  # the same bins in another order


@pytest.fixture
def tables():
    rng = np.random.default_rng(0)
    W = rng.random((6, 2))
    return pd.DataFrame(W @ rng.random((2, 4)), BINS, FRAMES), pd.DataFrame(W, BINS, COMPONENTS)


# For each: the axis that the message names, and a call with a label out of order.
MISMATCHES = {
    "activations": ("bins", lambda V, W: activations(V.loc[OTHER], W)),
    "weights": ("bins", lambda V, W: activations(V, W, weights=pd.Series(1.0, OTHER))),
    "weights of frames": ("frames", lambda V, W: activations(V, W, weights=V[FRAMES[::-1]])),
    "background": ("bins", lambda V, W: activations(V.values, W, background=pd.Series(1.0, OTHER))),
    "support": ("components", lambda V, W: activations(V, W, support=pd.Series([1, 0], COMPONENTS[::-1]))),
    "H_init": ("components", lambda V, W: activations(V, W, H_init=pd.DataFrame(1.0, COMPONENTS[::-1], FRAMES))),
    "l1": ("components", lambda V, W: activations(V, W, l1=pd.Series(1.0, COMPONENTS[::-1]))),
    "Solver": ("components", lambda V, W: Solver(W, l2=pd.Series(1.0, COMPONENTS[::-1]))),
    "solve": ("bins", lambda V, W: Solver(W).solve(V.loc[OTHER])),
    "support of frames": ("frames", lambda V, W: Solver(W).solve(V, support=pd.DataFrame(1, COMPONENTS, FRAMES[::-1]))),
    "certify": ("components", lambda V, W: Solver(W).certify(V, pd.DataFrame(1.0, COMPONENTS[::-1], FRAMES))),
    "basis": ("frames", lambda V, W: basis(V, pd.DataFrame(1.0, COMPONENTS, FRAMES[::-1]))),
    "weights of a basis": ("bins", lambda V, W: basis(V, np.ones((2, 4)), weights=pd.Series(1.0, OTHER))),
    "W_init": ("bins", lambda V, W: basis(V, np.ones((2, 4)), W_init=W.loc[OTHER])),
    "fit": ("features", lambda V, W: NMF(components=W.T).fit(V.loc[OTHER].T)),
    "components of a free fit": ("features", lambda V, W: NMF(3, components=W.T).fit(V.loc[OTHER].T)),
    "partial_fit": ("features", lambda V, W: NMF(3, components=W.T).partial_fit(V.loc[OTHER].T)),
    "weights of transform": ("samples", lambda V, W: NMF.from_basis(W).transform(V.T, weights=V.T[::-1])),
    "frozen": ("features", lambda V, W: NMF(components=W.T, frozen=W.loc[OTHER].T > 0).fit(V.T)),
    "template_strength": (
        "components",
        lambda V, W: NMF(components=W.T, frozen=False, template_strength=pd.Series(1.0, COMPONENTS[::-1])).fit(V.T),
    ),
    "custom start": (
        "features",
        lambda V, W: NMF(init="custom").fit_transform(V.T, W=np.ones((4, 2)), H=W.loc[OTHER].T),
    ),
}


class TestLabels:
    @pytest.mark.parametrize("name", MISMATCHES)
    def test_another_order_is_refused(self, tables, name):
        axis, call = MISMATCHES[name]
        with pytest.raises(ValueError, match=rf"do not have the same labels for their {axis}: their order differs"):
            call(*tables)

    def test_another_order_is_refused_by_an_estimator_from_a_table(self, tables):
        V, W = tables
        with pytest.raises(ValueError, match="Feature names must be in the same order"):
            NMF.from_basis(W).transform(V.loc[OTHER].T)

    def test_the_same_order_gives_the_same_answer_as_arrays(self, tables):
        V, W = tables
        expected = activations(V.values, W.values, tol=1e-9).H
        assert np.array_equal(activations(V, W, weights=pd.Series(1.0, BINS), tol=1e-9).H, expected)
        assert np.array_equal(Solver(W, tol=1e-9).solve(V).H, expected)
        assert np.array_equal(NMF.from_basis(W, tol=1e-9).transform(V.T).T, expected)
        assert np.array_equal(activations(V.reset_index(drop=True), W, tol=1e-9).H, expected)

    def test_different_labels_are_named(self, tables):
        V, W = tables
        longer = pd.DataFrame(1.0, [*"abcd", *"uvwxyz"], COMPONENTS)
        with pytest.raises(ValueError, match=r"V has no 'u', 'v', 'w' and 3 more and W has no 'e', 'f'\."):
            activations(V, longer)
        with pytest.raises(ValueError, match=r"W has 6, V has 7"):
            activations(pd.concat([V, V[:1]]), W)

    def test_labels_that_count_are_compared_with_labels_that_count(self, tables):
        V, W = (table.reset_index(drop=True) for table in tables)
        with pytest.raises(ValueError, match="at position 0 W has 0 and V 5"):
            activations(V[::-1], W)

    def test_numbers_may_differ_by_rounding(self, tables):
        V, W = tables
        V.index, W.index = np.arange(6) * 0.1, np.arange(6) / 10
        assert activations(V, W).converged.all()
        V.index = V.index + 1e-6
        with pytest.raises(ValueError, match="the same labels for their bins"):
            activations(V, W)

    def test_columns_of_polars_are_compared(self, tables):
        V, W = tables
        samples = pl.DataFrame(V.values.T, schema=BINS)
        expected = activations(V.values, W.values).H.T
        for components in (W.T, pl.DataFrame(W.values.T, schema=BINS)):
            assert np.array_equal(NMF(components=components).fit_transform(samples), expected)
            with pytest.raises(ValueError, match="the same labels for their features: their order differs"):
                NMF(components=components).fit(samples[OTHER])
        unnamed = pl.DataFrame(V.values)
        assert unnamed.columns[0] == "column_0"
        found = activations(unnamed, W, weights=pl.DataFrame(np.ones((6, 4)), schema=FRAMES))
        np.testing.assert_allclose(found.H, expected.T, rtol=1e-9)

    def test_names_of_components_come_back(self, tables):
        V, W = tables
        named = NMF.from_basis(W).set_output(transform="pandas").transform(V.T)
        assert list(named.columns) == COMPONENTS
        assert list(named.index) == FRAMES
        assert NMF.from_basis(W).set_output(transform="polars").transform(V.T).columns == COMPONENTS
        partly = NMF(3, components=W.T, max_iter=2, tol=0.0).fit(V.T)
        assert list(partly.get_feature_names_out()) == [*COMPONENTS, "nmf2"]
        assert list(NMF(components=W.values.T).fit(V.T).get_feature_names_out()) == ["nmf0", "nmf1"]


class TestLabeledResults:
    @pytest.mark.parametrize(
        "call",
        {
            "activations": activations,
            "columns of polars": lambda V, W: activations(pl.from_pandas(V), pl.from_pandas(W)),
            "solver": lambda V, W: Solver(W).solve(V),
            "copy of a solver": lambda V, W: pickle.loads(pickle.dumps(Solver(W))).solve(V),
            "certify": lambda V, W: Solver(W).certify(V, activations(V, W).H),
            "labels of options": lambda V, W: activations(
                V.values, W.values, support=pd.DataFrame(1, COMPONENTS, FRAMES), weights=pd.Series(1.0, BINS)
            ),
            "labels beside default ones": lambda V, W: activations(
                pd.DataFrame(V.values), W, support=pd.DataFrame(1, COMPONENTS, FRAMES)
            ),
        }.items(),
        ids=lambda pair: pair[0],
    )
    def test_activations_come_back_with_their_labels(self, tables, call):
        V, W = tables
        expected = pd.DataFrame(activations(V.values, W.values).H, COMPONENTS, FRAMES)
        found = call[1](V, W)
        pd.testing.assert_frame_equal(found.to_frame(), expected, check_index_type=False)
        errors = found.to_frame(2 * found.H)
        pd.testing.assert_frame_equal(errors, 2 * expected)
        with pytest.raises(ValueError, match=r"values has shape \(4, 2\), expected .* = \(2, 4\)"):
            found.to_frame(found.H.T)

    def test_a_basis_comes_back_with_its_labels(self, tables):
        V, W = tables
        H = activations(V, W).to_frame()
        found = basis(V, H).to_frame()
        pd.testing.assert_frame_equal(found, pd.DataFrame(basis(V.values, H.values).H, COMPONENTS, BINS))

    def test_axes_without_labels_are_numbered_as_pandas_does(self, tables):
        V, W = tables
        found = activations(V.values, W)
        assert (list(found.to_frame().index), list(found.to_frame().columns)) == (COMPONENTS, [0, 1, 2, 3])
        assert found.frame_labels is None

    def test_the_table_is_a_copy(self, tables):
        found = activations(*tables)
        before = found.H.copy()
        table = found.to_frame()
        table.iloc[0, 0] = -1.0
        assert np.array_equal(found.H, before)

    def test_polars_reads_the_table(self, tables):
        table = activations(*tables).to_frame().rename_axis("component")
        assert pl.from_pandas(table, include_index=True).columns == ["component", *FRAMES]

    def test_labels_are_compared_with_those_that_say_more_than_default_ones(self, tables):
        V, W = tables
        options = {"weights": pd.Series(1.0, BINS), "background": pd.Series(1.0, OTHER)}
        with pytest.raises(ValueError, match="weights and background do not have the same labels for their bins"):
            activations(pd.DataFrame(V.values), W.values, **options)


def as_missing(V, kind):
    """Return V as a table or an array in which the entry [1, 2] is missing."""
    if kind == "mask":
        return np.ma.MaskedArray(np.where(np.isnan(V), 1e9, V), np.isnan(V))
    if kind == "Float64":
        table = pd.DataFrame(V).astype("Float64")
        table.iloc[1, 2] = pd.NA
        return table
    if kind == "polars":
        return pl.DataFrame(np.nan_to_num(V)).with_columns(
            pl.when(pl.int_range(pl.len()) == 1).then(None).otherwise(pl.col("column_2")).alias("column_2")
        )
    objects = V.astype(object)
    objects[1, 2] = {"None": None, "pd.NA": pd.NA, "pd.NaT": pd.NaT, "Decimal": decimal.Decimal("nan")}[kind]
    return objects


@pytest.mark.filterwarnings("ignore:X has feature names")  # those that polars gives to columns
@pytest.mark.parametrize("kind", ["mask", "Float64", "polars", "None", "pd.NA", "pd.NaT", "Decimal"])
def test_missing_values_of_any_kind_count_as_nan(tables, kind):
    V, W = (table.to_numpy(copy=True) for table in tables)
    V[1, 2] = np.nan
    expected = activations(V, W).H
    missing = as_missing(V, kind)
    assert np.array_equal(activations(missing, W).H, expected)
    assert np.array_equal(Solver(W).solve(missing).H, expected)
    assert np.array_equal(basis(missing, expected).H, basis(V, expected).H)
    samples = as_missing(V, kind)
    samples = samples.transpose() if kind == "polars" else samples.T
    model = NMF.from_basis(W)
    assert np.array_equal(model.transform(samples), expected.T)
    assert model.score(samples) == model.score(V.T)
    learn = NMF(2, random_state=0, max_iter=5, tol=0.0)
    assert np.array_equal(learn.fit_transform(samples), learn.fit_transform(V.T))


NOT_NUMBERS = {
    "text": (np.array([["1", "2"], ["3", "4"]]), "holds text"),
    "dates": (np.array([["2020-01-01"] * 2] * 2, "M8[ns]"), "holds dates"),
    "time differences": (np.ones((2, 2), "m8[s]"), "holds time differences"),
    "records": (np.ones((2, 2), [("a", float)]), "holds records"),
    "text among numbers": (np.array([[1.0, 2.0], [3.0, "4"]], object), r"\[1, 1\] is '4'"),
    "a date among numbers": (np.array([[1.0, datetime.date(2020, 1, 1)]] * 2, object), r"\[0, 1\] is datetime"),
}


@pytest.mark.parametrize("kind", NOT_NUMBERS)
def test_what_is_not_a_number_is_refused(kind):
    values, message = NOT_NUMBERS[kind]
    W = np.ones((2, 1))
    for name, call in (
        ("V", lambda: activations(values, W)),
        ("W", lambda: activations(np.ones((2, 2)), values)),
        ("weights", lambda: activations(np.ones((2, 2)), W, weights=values)),
        ("X", lambda: NMF.from_basis(W).transform(values)),
    ):
        with pytest.raises(TypeError, match=f"^{name}.*{message}|^{name}{message}"):
            call()


def test_a_bool_is_no_number():
    V, W = np.ones((2, 2)), np.ones((2, 1))
    for name in ("l1", "l2"):
        with pytest.raises(TypeError, match=f"^{name} holds a bool"):
            activations(V, W, **{name: True})
    with pytest.raises(TypeError, match=r"^alpha_W holds a bool"):
        NMF.from_basis(W, alpha_W=True)
    assert np.array_equal(activations(V > 0, W, weights=[True, False]).H, activations(V, W, weights=[1, 0]).H)


def test_a_transposed_table_is_called_transposed():
    genes, samples = ["TP53", "MYC", "KRAS"], ["a", "b"]
    W = pd.DataFrame(np.ones((3, 1)), genes, ["signature"])
    with pytest.raises(ValueError, match=r"V has no 'TP53'.* V may be transposed: pass V\.T\.$"):
        activations(pd.DataFrame(np.ones((2, 3)), samples, genes), W)
    with pytest.raises(ValueError, match=r"Select the same labels"):
        activations(pd.DataFrame(np.ones((3, 2)), genes[::-1], samples), W)
