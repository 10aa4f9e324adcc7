"""Test the command solve: which rows and columns are what, what is written, and what is refused."""

import errno
import gzip
import inspect
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.io import mmread, mmwrite
from scipy.sparse import coo_array

import knownmf
from commands import files, run
from knownmf import Dictionary
from knownmf.cli import solving
from test_extras import MAIN, message, run_without

FEATURES = ["C>A", "C>G", "C>T", "T>A", "T>C", "T>G"]
COMPONENTS, SAMPLES = ["SBS1", "SBS5"], ["P1", "P2", "P3", "P4"]
OPTIONS = ("--basis", "W.csv", "--out", "H.csv")


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """Return the data and the basis, which are in V.csv and W.csv of the working folder."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    W = pd.DataFrame(rng.dirichlet(np.ones(6), 2).T, pd.Index(FEATURES, name="Type"), COMPONENTS)
    V = pd.DataFrame(rng.poisson(W.values @ rng.uniform(10, 500, (2, 4))), FEATURES, SAMPLES)
    V.to_csv("V.csv")
    W.to_csv("W.csv")
    return V, W


def expected(tables, **options):
    V, W = tables
    return pd.DataFrame(knownmf.activations(V.values, W.values, **options).H, COMPONENTS, SAMPLES)


def written(path="H.csv"):
    return pd.read_csv(path, index_col=0)


def solve(*arguments):
    done = run("solve", *arguments)
    assert done.exit_code == 0, done.stderr
    return done


def save(table, path):
    """Write a table as other programs do."""
    if path.endswith(".npy"):
        np.save(path, table.values)
    elif ".mtx" in path:
        with gzip.open(path, "wb") if path.endswith(".gz") else open(path, "wb") as file:
            mmwrite(file, coo_array(table.values))
    elif path.endswith(".parquet"):
        table.to_parquet(path)
    else:
        table.to_csv(path, sep="," if ".csv" in path else "\t")


def load(path):
    """Read a table as other programs do."""
    if path.endswith(".npy"):
        return pd.DataFrame(np.load(path), COMPONENTS, SAMPLES)
    if ".mtx" in path:
        return pd.DataFrame(mmread(path).toarray(), COMPONENTS, SAMPLES)
    if path.endswith(".parquet"):
        return pd.read_parquet(path)
    return pd.read_csv(path, index_col=0, sep="," if ".csv" in path else "\t")


def agree(table, other, rtol=1e-12):
    pd.testing.assert_frame_equal(table, other, check_names=False, rtol=rtol)


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".txt", ".csv.gz", ".parquet", ".npy", ".mtx", ".mtx.gz"])
class TestFormats:
    def test_data_and_basis_can_have_every_format(self, tables, ending):
        V, W = tables
        save(V, f"V{ending}")
        save(W, f"W{ending}")
        solve(f"V{ending}", "-b", f"W{ending}", "-o", "H.npy", "--tol", "1e-10")
        np.testing.assert_allclose(np.load("H.npy"), expected(tables, tol=1e-10), rtol=1e-4)

    def test_activations_can_have_every_format(self, tables, ending):
        done = solve("V.csv", "-b", "W.csv", "-o", f"H{ending}")
        agree(load(f"H{ending}"), expected(tables))
        assert f"Wrote H{ending}: activations, 2 components in rows, 4 samples in columns" in done.stdout
        assert ("this format has no names" in done.stdout) == (ending in (".npy", ".mtx", ".mtx.gz"))


class TestOrientation:
    def test_samples_stay_where_they_are_in_the_data(self, tables):
        V, _ = tables
        V.T.rename_axis("Patient").to_csv("turned.csv")
        done = solve("turned.csv", *OPTIONS)
        agree(written().T, expected(tables))
        assert Path("H.csv").read_text().startswith("Patient,SBS1,SBS5\nP1,")
        assert "turned.csv: 6 features in columns (C>A, C>G and 4 more), 4 samples in rows (P1, P2" in done.stdout
        assert "2 components in columns, 4 samples in rows" in done.stdout

    @pytest.mark.parametrize("turned", [False, True])
    def test_components_may_be_in_rows(self, tables, turned):
        V, W = tables
        (V.T if turned else V).to_csv("V2.csv")
        W.T.to_csv("W2.csv")
        done = solve("V2.csv", "-b", "W2.csv", "-o", "H.csv")
        agree(written().T if turned else written(), expected(tables))
        assert "W2.csv: 6 features in columns (C>A, C>G and 4 more), 2 components in rows (SBS1, SBS5)." in done.stdout

    def test_features_are_matched_by_name(self, tables):
        V, _ = tables
        V.sample(frac=1, random_state=1).to_csv("shuffled.csv")
        done = solve("shuffled.csv", *OPTIONS)
        agree(written(), expected(tables))
        assert "matched by name; they are in another order in the two files." in done.stdout

    def test_features_of_sparse_data_are_matched_by_position(self, tables):
        V, _ = tables
        save(V, "V.mtx")
        done = solve("V.mtx", *OPTIONS)
        assert 'matched by position, because "V.mtx" has no names for them.' in done.stdout
        assert list(written().columns) == ["0", "1", "2", "3"]

    def test_numbers_as_names_are_compared_as_numbers(self, tables):
        V, W = tables
        V.index = ["400", "401.5", "403", "405", "406", "407.0"]
        W.index = pd.Index([400.0, 401.5, 403.0, 405.0, 406.0, 407.0], name="nm")
        V[::-1].to_csv("V.csv")
        W.to_csv("W.csv")
        solve("V.csv", *OPTIONS)
        agree(written(), expected(tables))

    def test_samples_may_have_numbers_as_names(self, tables):
        V, _ = tables
        V.columns = [1, 2, 3, 4]
        V.rename_axis("Type").to_csv("V.csv")
        solve("V.csv", *OPTIONS)
        np.testing.assert_allclose(written(), expected(tables), rtol=1e-12)
        assert list(written().index) == COMPONENTS

    def test_tables_without_any_labels(self, tables):
        V, W = tables
        np.savetxt("V.csv", V, delimiter=",")
        np.savetxt("W.txt", W)
        solve("V.csv", "-b", "W.txt", "-o", "H.csv")
        np.testing.assert_allclose(written(), expected(tables), rtol=1e-12)
        Path("V.csv").write_text("1,2,3,4\n1,1,1.2,1\n")  # the first row could also be labels
        Path("W.csv").write_text("0.4,0.4\n0.2,0.1\n")
        solve("V.csv", *OPTIONS, "--force", "--beta-loss", "frobenius", "--components", "columns")
        np.testing.assert_allclose(written(), [[3, 5, 4.5, 0], [0, 0, 3, 10]], atol=1e-9)

    def test_data_that_fit_both_ways_are_refused_until_the_user_decides(self, tables):
        square = np.arange(1.0, 37.0).reshape(6, 6) ** 2 % 17
        np.save("square.npy", square)
        done = run("solve", "square.npy", *OPTIONS)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "a sample in each column or in each row" in done.stderr
        assert "Pass --samples columns or --samples rows." in done.stderr
        solve("square.npy", *OPTIONS, "--samples", "columns")
        by_columns = written()
        solve("square.npy", *OPTIONS, "--samples", "rows", "--force")
        np.save("square.npy", square.T)
        solve("square.npy", "-b", "W.csv", "-o", "H2.csv", "--samples", "columns")
        np.testing.assert_allclose(written("H2.csv").T, written(), rtol=1e-12)
        assert not np.allclose(by_columns, written().T)

    def test_a_basis_that_fits_both_ways_is_refused_until_the_user_decides(self, tables):
        V, _ = tables
        square = np.random.default_rng(1).random((6, 6))
        np.save("square.npy", square)
        done = run("solve", "V.csv", "-b", "square.npy", "-o", "H.csv")
        assert done.exit_code == 2
        assert "Pass --components columns or --components rows." in done.stderr
        for place, W in (("columns", square), ("rows", square.T)):
            solve("V.csv", "-b", "square.npy", "-o", "H.csv", "--force", "--components", place)
            np.testing.assert_allclose(written(), knownmf.activations(V.values, W).H, rtol=1e-12)

    def test_tables_that_fit_when_both_are_turned_too_are_refused_until_the_user_decides(self, tables):
        V, W = tables
        np.save("V.npy", V.values[:, :2])  # two samples and two components
        np.save("W.npy", W.values)
        done = run("solve", "V.npy", "-b", "W.npy", "-o", "H.csv")
        assert done.exit_code == 2
        assert "Pass --samples columns or --samples rows." in done.stderr
        solve("V.npy", "-b", "W.npy", "-o", "H.csv", "--samples", "columns")
        np.testing.assert_allclose(written(), expected(tables).iloc[:, :2], rtol=1e-12)

    def test_features_in_no_order_are_matched_by_name_if_they_are_names(self, tables):
        V, W = tables
        V.index = W.index = pd.Index([441.7, 400.1, 480.3, 420.5, 470.9, 460.2], name="mz")
        V[::-1].to_csv("V.csv")
        W.to_csv("W.csv")
        solve("V.csv", *OPTIONS)
        agree(written(), expected(tables))

    def test_a_first_column_that_may_be_labels_is_refused_until_the_user_decides(self, tables):
        _, W = tables
        pd.DataFrame({"nm": [1, 2, 4, 5, 7, 9], "S1": [3, 1, 4, 1, 5, 9], "S2": 1, "S3": 2}).to_csv(
            "V.csv", index=False
        )
        np.save("W.npy", W.values)
        arguments = ("V.csv", "--basis", "W.npy", "--out", "H.csv")
        done = run("solve", *arguments)
        assert done.exit_code == 2
        assert "Pass --labels both or --labels first-row." in done.stderr
        solve(*arguments, "--labels", "both")
        assert list(written().columns) == ["S1", "S2", "S3"]
        solve(*arguments, "--labels", "first-row", "--force")
        assert list(written().columns) == ["nm", "S1", "S2", "S3"]


class TestMisfits:
    def refused(self, *arguments):
        before = files()
        done = run("solve", *arguments)
        assert (done.exit_code, done.stdout) == (2, ""), done.stderr
        assert done.stderr.count("\n") == 1
        assert files() == before
        return done.stderr

    def test_features_that_are_missing_or_unknown_are_named(self, tables):
        V, _ = tables
        V.rename(index={"C>A": "c>a"}).to_csv("V.csv")
        complaint = self.refused("V.csv", *OPTIONS)
        assert (
            '"V.csv" lacks "C>A". "W.csv" lacks "c>a". Both need the same ones, in any order, or pass --' in complaint
        )
        V.drop(index=["C>A", "T>G"]).to_csv("V.csv")
        assert '"V.csv" lacks "C>A", "T>G". Both need' in self.refused("V.csv", *OPTIONS)

    def test_other_names_for_all_features_are_shown(self, tables):
        V, _ = tables
        V.index = [f"feature {n}" for n in range(6)]
        V.to_csv("V.csv")
        complaint = self.refused("V.csv", *OPTIONS)
        assert 'The first has "feature 0", "feature 1", "feature 2" and 3 more, the second "C>A"' in complaint

    @pytest.mark.parametrize("name_of_data", ["nm", ""])
    @pytest.mark.parametrize("shared", [False, True])
    def test_other_numbers_as_names_are_not_taken_for_data(self, tables, name_of_data, shared):
        V, W = tables
        V.index = pd.Index([400.0, 420.5, 441.0, 460.0, 470.0, 480.0], name=name_of_data)
        W.index = pd.Index(V.index[:-1].append(pd.Index([490.0])) if shared else V.index + 0.5, name="nm")
        V.to_csv("V.csv")
        W.to_csv("W.csv")
        complaint = self.refused("V.csv", *OPTIONS)
        if shared:
            assert '"V.csv" lacks "490.0". "W.csv" lacks "480.0".' in complaint
        else:
            assert 'no names of features in common. The first has "400.0", "420.5", "441.0" and 3 more' in complaint
            assert 'If the first column of "W.csv" has data, pass --basis-labels first-row.' in complaint

    def test_other_numbers_as_names_of_options_are_not_taken_for_data(self, tables):
        V, W = tables
        for table in (V, W):
            table.index = pd.Index([400.0, 420.5, 441.0, 460.0, 470.0, 480.0], name="nm")
        V[["P1", "P2"]].to_csv("V.csv")
        W.to_csv("W.csv")
        pd.Series(1.0, V.index + 1, name="weight").to_csv("weights.csv")  # two columns of numbers, like the data
        complaint = self.refused("V.csv", *OPTIONS, "--weights", "weights.csv")
        assert 'It lacks "400.0", "420.5", "441.0" and 3 more.' in complaint

    def test_other_sizes_are_shown(self, tables):
        np.save("V.npy", np.ones((5, 3)))
        assert '"V.npy" has 5 rows and 3 columns of numbers, "W.csv" has 6 rows and 2 columns' in self.refused(
            "V.npy", *OPTIONS
        )

    def test_features_with_the_same_name_are_refused(self, tables):
        V, W = tables
        twice = {"C>G": "C>A"}
        V.rename(index=twice).to_csv("V.csv")
        W.rename(index=twice).to_csv("W.csv")
        assert 'has more than one feature with the name "C>A": give them' in self.refused("V.csv", *OPTIONS)
        V.index = W.index = [*"aabbcc"]
        V.to_csv("V.csv")
        W.to_csv("W.csv")
        complaint = self.refused("V.csv", *OPTIONS)
        assert '"V.csv" has more than one feature with the names "a", "b", "c": give them different names.' in complaint

    def test_features_with_the_same_name_in_one_table_are_named(self, tables):
        names = [f"{name}{n}" for n in range(8) for name in FEATURES]
        pd.DataFrame(1, [*names, *names[:5]], SAMPLES).to_csv("V.csv")
        pd.DataFrame(np.random.default_rng(0).random((48, 2)), names, COMPONENTS).to_csv("W.csv")
        assert (
            'the same features: "V.csv" has more than one feature with the names "C>A0", "C>G0", "C>T0" and 2 more. '
            "Both need the same ones, in any order."
        ) in self.refused("V.csv", *OPTIONS)
        pd.DataFrame(1, ["400", "400.0", "500"], SAMPLES).to_csv("V.csv")
        pd.DataFrame(1.0, ["400", "500"], COMPONENTS).to_csv("W.csv")
        assert '"V.csv" has more than one feature with the name "400". Both' in self.refused("V.csv", *OPTIONS)

    @pytest.mark.parametrize(
        ("value", "complaint"),
        [(-1.0, "is negative. Negative values need --beta-loss"), (np.inf, "infinite")],
    )
    def test_data_out_of_range_are_named(self, tables, value, complaint):
        V, _ = tables
        V = V.astype(float)
        V.loc["T>A", "P3"] = value
        V.to_csv("V.csv")
        message = self.refused("V.csv", *OPTIONS)
        assert "T>A" in message
        assert "P3" in message
        assert complaint in message

    def test_negative_entries_of_sparse_data_are_named(self, tables):
        V, _ = tables
        V.iloc[2, 1] = -3
        save(V, "V.mtx")
        assert 'the value of feature "C>T", sample 2 is negative' in self.refused("V.mtx", *OPTIONS)

    def test_values_that_a_basis_lacks_are_named(self, tables):
        _, W = tables
        W.iloc[1, 1] = np.nan
        W.to_csv("W.csv")
        assert '"W.csv": the value of feature "C>G", component "SBS5" is missing' in self.refused("V.csv", *OPTIONS)

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            (("V.csv", "--basis", "W.csv", "--out", "H.xlsx"), '"H.xlsx" must end in .csv or .tsv or'),
            (("V.csv", "--basis", "W.csv", "--out", "V.csv", "--force"), "is an input of this command"),
            (("V.csv", *OPTIONS, "--report", "H.csv"), '"H.csv" is the name of two outputs'),
            (("V.csv", *OPTIONS, "--report", "report.npy"), '"report.npy" must end in'),
            (("V.csv", *OPTIONS, "--picture", "H.gif"), '"H.gif" must end in .png or .pdf or .svg'),
            (("V.xlsx", *OPTIONS), '"V.xlsx" does not end in .csv'),
            (("nowhere.csv", *OPTIONS), '"nowhere.csv": No such file'),
            (("V.csv", "--basis", "nowhere.npz", "--out", "H.csv"), '"nowhere.npz": No such file'),
            (("V.csv", *OPTIONS, "--labels", "none"), '--labels none does not suit "V.csv"'),
            (("V.csv", *OPTIONS, "--basis-labels", "first-row"), '--basis-labels first-row does not suit "W.csv"'),
            (
                ("V.csv", *OPTIONS, "--samples", "rows"),
                '"V.csv" has 4 rows and 6 columns of numbers, "W.csv" has 6 rows',
            ),
            (
                ("V.csv", *OPTIONS, "--samples", "both"),
                "Invalid value for '--samples': \"both\", expected rows or columns",
            ),
            (("V.csv", *OPTIONS, "--l1", "-1"), "expected a number of at least 0, or a table"),
            (
                ("V.csv", *OPTIONS, "--l1", "W.csv"),
                '--l1: "W.csv" has 6 rows and 2 columns of numbers, expected one value',
            ),
            (("V.csv", *OPTIONS, "--weights", "nowhere.csv"), '"nowhere.csv": No such file'),
            (("V.csv", *OPTIONS, "--total", "1", "--max-total", "2"), "--total and --max-total were both passed"),
            (
                ("V.csv", *OPTIONS, "--total", "3", "--upper", "1"),
                "the upper bounds of the components that it may use sum to 2: lower --total, or raise --upper.",
            ),
            (("V.csv", "--basis", "d.npz", "--out", "H.csv", "--components", "rows"), '"d.npz" is a dictionary: leave'),
        ],
    )
    def test_wrong_options_are_named(self, tables, options, complaint):
        Path("V.xlsx").write_bytes(b"PK")
        Dictionary(tables[1]).save("d.npz")
        assert complaint in self.refused(*options)


class TestOptions:
    @pytest.mark.parametrize("turned", [False, True])
    def test_options_are_read_from_tables_and_matched_by_name(self, tables, turned):
        V, _ = tables
        rng = np.random.default_rng(2)
        weights = pd.Series(rng.random(6), FEATURES)
        background = pd.DataFrame(rng.random((6, 4)), FEATURES, SAMPLES)
        l1, l2 = pd.Series([0.1, 0.2], COMPONENTS), pd.DataFrame(rng.random((2, 4)) / 100, COMPONENTS, SAMPLES)
        max_total = pd.Series([100.0, 50.0, np.nan, 70.0], SAMPLES)
        weights[::-1].to_csv("weights.csv")
        l1[::-1].rename("l1").to_frame().T.to_csv("l1.csv")
        max_total[::-1].to_csv("max_total.csv")
        for name, table in (("V", V), ("background", background.iloc[::-1, ::-1]), ("l2", l2.iloc[::-1, ::-1])):
            (table.T if turned else table).to_csv(f"{name}.csv")
        names = ("weights", "background", "l1", "l2", "max-total")
        given = [text for name in names for text in (f"--{name}", f"{name.replace('-', '_')}.csv")]
        solve("V.csv", *OPTIONS, *given)
        options = {
            "weights": weights.values,
            "background": background.values,
            "l1": np.tile(l1.values[:, np.newaxis], 4),
            "l2": l2.values,
            "max_total": max_total.fillna(np.inf).values,
        }
        agree(written().T if turned else written(), expected(tables, **options), rtol=1e-9)

    def test_bounds_and_totals(self, tables):
        Path("upper.csv").write_text("component,upper\nSBS5,0.6\nSBS1,\n")
        solve("V.csv", *OPTIONS, "--total", "1", "--upper", "upper.csv", "--beta-loss", "frobenius")
        np.testing.assert_allclose(written().sum(), 1.0, rtol=1e-12)
        agree(written(), expected(tables, total=1.0, upper=[np.inf, 0.6], beta_loss="frobenius"))

    def test_numbers_of_options(self, tables):
        solve(
            "V.csv", *OPTIONS, "--beta-loss", "1.5", "--l1", "0.1", "--l2", "0.01", "--tol", "1e-8", "--max-iter", "50"
        )
        agree(written(), expected(tables, beta_loss=1.5, l1=0.1, l2=0.01, tol=1e-8, max_iter=50))

    def test_missing_values_of_the_data_are_left_out_and_counted(self, tables):
        V, W = tables
        V = V.astype(float)
        V.iloc[2, 1] = np.nan
        V.to_csv("V.csv", na_rep="NA")
        assert "1 value missing." in solve("V.csv", *OPTIONS).stdout
        agree(written(), expected((V, W)))

    @pytest.mark.parametrize("options", [("--beta-loss", "1.5"), ("--background", "V.npy"), ("--weights", "V.npy")])
    def test_sparse_data_work_with_all_options(self, tables, options):
        V, _ = tables
        save(V, "V.mtx")
        save(V, "V.npy")
        solve("V.mtx", *OPTIONS, *options)
        name = options[0][2:].replace("-", "_")
        agree_with = expected(tables, **{name: 1.5 if name == "beta_loss" else V.values})
        np.testing.assert_allclose(written(), agree_with, rtol=1e-9)

    def test_the_report_has_a_row_for_each_sample(self, tables):
        solve("V.csv", *OPTIONS, "--report", "report.csv")
        report, H = written("report.csv"), expected(tables)
        assert list(report.index) == SAMPLES
        np.testing.assert_allclose(report["total"], H.sum())
        assert report["active_components"].tolist() == (H > 0).sum().tolist()
        assert report["converged"].tolist() == [1, 1, 1, 1]
        assert (report["relative_gap"] <= 1e-4).all()

    @pytest.mark.parametrize(("ending", "magic"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")])
    def test_the_picture_is_drawn(self, tables, ending, magic):
        solve("V.csv", *OPTIONS, "--picture", f"H{ending}")
        assert Path(f"H{ending}").read_bytes().startswith(magic)

    def test_samples_that_miss_the_tolerance_are_named(self, tables):
        done = solve("V.csv", *OPTIONS, "--max-iter", "1", "--tol", "1e-14")
        assert re.search(r'Note: \d of 4 samples missed --tol 1e-14; the worst is sample "P\d" with', done.stderr)
        assert "frame" not in done.stderr + done.stdout

    def test_samples_with_the_same_name_get_a_number_and_a_note(self, tables):
        V, _ = tables
        V.columns = ["P1", "P2", "P1", "P2"]
        V.to_csv("V.csv")
        done = solve("V.csv", *OPTIONS)
        assert '"V.csv" has more than one sample with the names "P1", "P2": others get a number.' in done.stderr
        assert Path("H.csv").read_text().startswith("component,P1,P2,P1.2,P2.2\n")

    def test_quiet_prints_nothing(self, tables):
        done = solve("V.csv", *OPTIONS, "--quiet")
        assert (done.stdout, done.stderr) == ("", "")


class TestHowSure:
    def test_standard_errors_have_the_form_of_the_activations(self, tables):
        V, W = tables
        V.T.to_csv("V.csv")
        done = solve("V.csv", *OPTIONS, "--standard-errors")
        found = knownmf.activations(V, W, tol=1e-8)
        agree(written().T, found.to_frame())
        agree(written("H.standard_errors.csv").T, found.to_frame(knownmf.standard_errors(V, W, found)))
        assert "Wrote H.standard_errors.csv: standard errors, 2 components in columns, 4 samples in rows" in done.stdout

    @pytest.mark.parametrize("ending", [".csv.gz", ".parquet"])
    def test_intervals_are_written_into_two_files(self, tables, ending):
        done = solve("V.csv", "-b", "W.csv", "-o", f"H{ending}", "--bootstrap", "20", "--seed", "3")
        resampled = knownmf.bootstrap(*tables, 20, random_state=3)
        for kind, expected_bound in zip(("lower", "upper"), resampled.quantiles, strict=True):
            agree(load(f"H.{kind}{ending}"), resampled.found.to_frame(expected_bound))
        assert (
            f"Wrote H.lower{ending}: 2.5 % quantiles of 20 resamples (Poisson counts around the model)" in done.stdout
        )

    def test_residuals_are_resampled_where_the_data_are_no_counts(self, tables):
        V, W = tables
        V = V + 0.5
        V.to_csv("V.csv")
        done = solve("V.csv", *OPTIONS, "--bootstrap", "20", "--beta-loss", "frobenius")
        resampled = knownmf.bootstrap(V, W, 20, "residual", random_state=0, beta_loss="frobenius")
        agree(written("H.upper.csv"), resampled.found.to_frame(resampled.quantiles[1]))
        assert "residuals around the model" in done.stdout

    @pytest.mark.parametrize("criterion", ["bic", "aic", "30"])
    def test_components_are_selected(self, tables, criterion):
        V, W = tables
        done = solve("V.csv", *OPTIONS, "--select", criterion, "--standard-errors", "--bootstrap", "10")
        selected = knownmf.select(V, W, criterion if criterion.isalpha() else float(criterion))
        agree(written(), selected.found.to_frame())
        assert written("H.standard_errors.csv").isna().equals(written() == 0)
        assert (written("H.upper.csv").values[written() == 0] == 0).all()
        n_active = selected.support.sum(axis=0)
        assert f"{n_active.mean():.1f} of 2 components are active in a sample on average, from {n_active.min()}" in (
            done.stdout
        )

    def test_bounds_and_totals_hold_for_all_of_them(self, tables):
        V, W = tables
        limits = {"total": V.values.sum(axis=0), "upper": [np.inf, 300.0]}
        pd.Series(limits["total"], SAMPLES).to_csv("total.csv")
        Path("upper.csv").write_text("component,upper\nSBS1,\nSBS5,300\n")
        given = ("--total", "total.csv", "--upper", "upper.csv", "--standard-errors", "--bootstrap", "10")
        solve("V.csv", *OPTIONS, *given)
        found = knownmf.activations(V, W, tol=1e-8, **limits)
        agree(written(), found.to_frame())
        agree(written("H.standard_errors.csv"), found.to_frame(knownmf.standard_errors(V, W, found, **limits)))
        resampled = knownmf.bootstrap(V, W, 10, random_state=0, **limits)
        agree(written("H.lower.csv"), found.to_frame(resampled.quantiles[0]))
        solve("V.csv", *OPTIONS, *given[:4], "--select", "bic", "--force")
        agree(written(), knownmf.select(V, W, **limits).found.to_frame())

    def test_the_summary_says_how_much_is_explained(self, tables):
        explained = knownmf.activations(*tables).explained
        done = solve("V.csv", *OPTIONS, "--report", "report.csv")
        np.testing.assert_allclose(written("report.csv")["explained"], explained)
        shares = re.search(
            r"explain ([\d.]+) % of the deviance of a sample \(the median; the lowest is ([\d.]+) %", done.stdout
        )
        np.testing.assert_allclose(
            [float(share) / 100 for share in shares.groups()], [np.median(explained), explained.min()], atol=1e-3
        )

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            (("--select", "bic", "--l1", "1"), "--select cannot be combined with --l1"),
            (("--standard-errors", "--l2", "1"), "--standard-errors cannot be combined with --l2"),
            (("--bootstrap", "9", "--l1", "W.csv"), "--bootstrap cannot be combined with --l1"),
            (("--bootstrap", "1"), "expected a whole number from 2"),
            (("--select", "bix"), "expected bic, aic, or a number of at least 0"),
            (
                ("--select", "bic", "--beta-loss", "2.5"),
                "--select needs a --beta-loss from 1 to 2 (kullback-leibler is 1,",
            ),
            (("--bootstrap", "9", "--beta-loss", "0"), "--bootstrap needs a --beta-loss of at least 1"),
            (("--standard-errors", "--report", "H.standard_errors.csv"), "is the name of two outputs"),
        ],
    )
    def test_what_cannot_be_combined_is_named(self, tables, options, complaint):
        done = run("solve", "V.csv", *OPTIONS, *options)
        assert (done.exit_code, done.stdout) == (2, "")
        assert complaint in done.stderr
        assert files() == ["V.csv", "W.csv"]

    def test_existing_files_of_all_kinds_are_kept(self, tables):
        for kind in ("standard_errors", "lower", "upper"):
            Path(f"H.{kind}.csv").write_text("mine")
            done = run("solve", "V.csv", *OPTIONS, "--standard-errors", "--bootstrap", "9")
            assert done.exit_code == 2
            assert f'"H.{kind}.csv" exists already' in done.stderr
            Path(f"H.{kind}.csv").unlink()

    def test_all_tables_are_written_or_none(self, tables, monkeypatch):
        write = solving.write_table

        def fails(path, values, *arguments):
            if "upper" in path.name:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "target")
            write(path, values, *arguments)

        monkeypatch.setattr(solving, "write_table", fails)
        assert run("solve", "V.csv", *OPTIONS, "--bootstrap", "9").exit_code == 1
        assert files() == ["V.csv", "W.csv"]


class TestDictionaries:
    def test_a_dictionary_is_a_basis(self, tables):
        V, W = tables
        Dictionary(W, units="mutations").save("d.npz")
        V[::-1].to_csv("V.csv")
        done = solve("V.csv", "--basis", "d.npz", "--out", "H.csv")
        agree(written(), expected(tables))
        assert "matched by name; they are in another order" in done.stdout

    def test_info_describes_it(self, tables):
        Dictionary(tables[1], units="mutations").save("d.npz")
        done = run("info", "d.npz")
        assert done.exit_code == 0
        assert "d.npz: dictionary, 2 components with 6 features (C>A, C>G, C>T and 3 more), activations" in done.stdout
        largest = tables[1]["SBS1"].sort_values(ascending=False).index
        assert re.search(rf"SBS1 +{', '.join(largest[:3])}", done.stdout)

    def test_info_describes_tables(self, tables):
        solve("V.csv", *OPTIONS)
        save(tables[0], "V.mtx")
        assert run("info", "H.csv").stdout == (
            "H.csv: activations, 2 rows (SBS1, SBS5) and 4 columns (P1, P2, P3 and 1 more)\n"
        )
        assert run("info", "V.mtx").stdout == "V.mtx: table, 6 rows and 4 columns\n"

    @pytest.mark.parametrize("verb", ["separate", "decompose", "transcribe"])
    def test_commands_for_recordings_say_what_it_lacks(self, tables, verb):
        Dictionary(tables[1]).save("d.npz")
        done = run(verb, "song.wav", "--dictionary", "d.npz", "--out", "out.csv")
        assert (done.exit_code, done.stdout) == (2, "")
        assert '"d.npz" has no settings of spectrograms (sample rate, length of the window, ...)' in done.stderr
        assert "knownmf solve" in done.stderr


class TestEndings:
    def test_files_are_replaced_only_with_force(self, tables):
        for name in ("H.csv", "report.csv", "H.png"):
            Path(name).write_text("mine")
            done = run("solve", "V.csv", *OPTIONS, "--report", "report.csv", "--picture", "H.png")
            assert done.exit_code == 2
            assert "--force" in done.stderr
            assert Path(name).read_text() == "mine"
            Path(name).unlink()

    def test_a_full_disk_gives_exit_code_1_and_leaves_no_files(self, tables, monkeypatch):
        before = files()

        def full(*arguments, **settings):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "target")

        monkeypatch.setattr(os, "replace", full)
        done = run("solve", "V.csv", *OPTIONS)
        assert (done.exit_code, done.stderr) == (1, 'knownmf: "target": No space left on device.\n')
        assert files() == before

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
    @pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
    def test_signals_end_the_process_with_one_line_and_leave_no_files(self, tables, name):
        number = getattr(signal, name)
        code = f"""
import os, time
import knownmf.table_files
def half(stream, *arguments):
    stream.write(b"half")
    os.kill(os.getpid(), {number:d})
    time.sleep(60)
knownmf.table_files._write_text = half
from knownmf_command import main; main()
"""
        before = files()
        done = subprocess.run([sys.executable, "-c", code, "solve", "V.csv", *OPTIONS], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (128 + number, "")
        assert re.fullmatch(r"knownmf: stopped[^\n]*\.\n", done.stderr)
        assert files() == before

    def test_the_core_with_typer_and_rich_is_enough(self, tables):
        done = run_without(["pandas", "pyarrow", "matplotlib", "soundfile", "soxr"], MAIN, "solve", "V.csv", *OPTIONS)
        assert (done.returncode, done.stderr) == (0, "")
        agree(written(), expected(tables))

    @pytest.mark.parametrize(
        ("package", "arguments"),
        [
            ("pandas", ("V.csv", "--basis", "W.csv", "--out", "H.parquet")),
            ("pyarrow", ("V.csv", "--basis", "W.csv", "--out", "H.csv", "--report", "report.parquet")),
            ("pyarrow", ("V.csv", "--basis", "W.parquet", "--out", "H.csv")),
            ("matplotlib", ("V.csv", *OPTIONS, "--picture", "H.png")),
        ],
    )
    def test_a_missing_package_is_named_before_any_work(self, tables, package, arguments):
        save(tables[1], "W.parquet")
        before = files()
        done = run_without([package], MAIN, "solve", *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"knownmf: {message(package)}\n"
        assert files() == before


def test_defaults_are_those_of_the_library():
    options, library = (inspect.signature(function).parameters for function in (solving.solve, knownmf.activations))
    shared = [name for name in options if name in library and name not in ("out", "tol")]
    assert len(shared) == 9
    assert [options[name].default for name in shared] == [library[name].default for name in shared]


class TestSharedFeatures:
    """The data have the features of the basis, but one, and two others."""

    @pytest.fixture(params=[FEATURES, ["0", "1", "2", "3", "4", "6"], [f"{n}.50" for n in range(6)]], ids=str)
    def parts(self, request, tables):
        """Return the data and the basis of the features that both have."""
        V, W = tables
        V.index = W.index = request.param
        others = pd.DataFrame(7, ["other", "99"], SAMPLES)
        pd.concat([others[:1], V.iloc[[4, 3, 2, 1, 0]], others[1:]]).to_csv("V.csv", index_label="feature")
        W.to_csv("W.csv", index_label="feature")
        return V[:5], W[:5]

    def activations(self, parts, **options):
        V, W = parts
        return pd.DataFrame(knownmf.activations(V.values, W.values, **options).H, COMPONENTS, SAMPLES)

    def test_others_are_left_out_and_named(self, parts):
        done = solve("V.csv", *OPTIONS, "--shared-features")
        np.testing.assert_allclose(written(), self.activations(parts), rtol=1e-6)
        last = pd.read_csv("W.csv", dtype=str)["feature"].iloc[-1]
        lines = done.stdout.splitlines()
        assert lines[0].startswith("V.csv: 7 features in rows")
        assert lines[2:4] == [
            f"Left out are 2 features of V.csv (other, 99) and 1 feature of W.csv ({last}); both have 5 features.",
            "The features are matched by name; they are in another order in the two files.",
        ]

    def test_without_the_option_it_is_mentioned(self, parts):
        done = run("solve", "V.csv", *OPTIONS)
        assert done.exit_code == 2
        assert "in any order, or pass --shared-features to leave out all others.\n" in done.stderr

    @pytest.mark.parametrize("form", ["turned", "sparse weights", "dictionary"])
    def test_in_other_forms(self, parts, form):
        expected, options = self.activations(parts), ()
        if form == "turned":
            pd.read_csv("V.csv", index_col=0, dtype={"feature": str}).T.to_csv("V.csv")
            expected = expected.T
        elif form == "dictionary":
            W = pd.read_csv("W.csv", index_col=0, dtype={"feature": str})
            Dictionary(W).save("W.npz")
            options = ("--basis", "W.npz")
        else:
            pd.read_csv("V.csv", index_col=0)["P1"].rename("weight").to_csv("weights.csv")
            expected, options = self.activations(parts, weights=parts[0]["P1"].values), ("--weights", "weights.csv")
        solve("V.csv", *OPTIONS, "--shared-features", *options)
        np.testing.assert_allclose(written(), expected, rtol=1e-6)

    def test_the_background_may_have_more_features_or_the_same(self, parts):
        everything = pd.read_csv("V.csv", index_col=0, dtype={"feature": str})
        expected = self.activations(parts, background=parts[0].values / 4.0)
        shared = everything.loc[parts[0].index]
        for table in (everything, shared[::-1]):
            (table / 4).to_csv("background.csv")
            solve("V.csv", *OPTIONS, "--shared-features", "--background", "background.csv", "--force")
            np.testing.assert_allclose(written(), expected, rtol=1e-6, atol=1e-9)
        done = run("solve", "V.csv", *OPTIONS, "--background", "background.csv", "--force")
        assert done.exit_code == 2

    def test_nothing_to_leave_out(self, tables):
        done = solve("V.csv", *OPTIONS, "--shared-features")
        assert "Both have the same features: none is left out." in done.stdout
        agree(written(), expected(tables))

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            ([*"abcdef"], '--shared-features: "V.csv" and "W.csv" have no names of features in common. The features'),
            ([*"012345"], '"V.csv" and "W.csv" have no names of features in common.'),
            (
                ["C>A", "C>A", "C>T", *"def"],
                '"V.csv" has more than one feature with the name "C>A": give them different',
            ),
        ],
    )
    def test_tables_that_share_nothing_or_names_that_repeat(self, tables, names, message):
        V, _ = tables
        V.index = names
        V.to_csv("V.csv")
        done = run("solve", "V.csv", *OPTIONS, "--shared-features")
        assert (done.exit_code, done.stdout) == (2, "")
        assert message in done.stderr

    def test_names_that_repeat_do_not_matter_where_they_are_left_out(self, tables):
        V, W = tables
        V.index = ["x", "x", *FEATURES[2:]]
        V.to_csv("V.csv")
        solve("V.csv", *OPTIONS, "--shared-features")
        np.testing.assert_allclose(written(), self.activations((V[2:], W[2:])), rtol=1e-6)


class TestWords:
    """Messages of the library are about spectrograms and arguments in Python, those of the command about tables."""

    def message(self, *arguments):
        done = run("solve", *arguments, "--out", "H.csv")
        message = done.stderr.replace("\n", " ")
        assert not done.exception or isinstance(done.exception, SystemExit)
        unquoted = re.sub('"[^"]*"', "", message)
        assert not re.search(r"(?<!-)\b(V|W|bins?|frames?|tol|dispersion|np|librosa|None)\b", unquoted)
        return message

    def test_a_selection_with_weights_of_counts(self, tables):
        for weights, place in (
            (pd.DataFrame({"weight": 0.5}, FEATURES), 'feature "C>A"'),
            (pd.DataFrame(0.5, FEATURES, SAMPLES), 'feature "C>A", sample "P1"'),
        ):
            weights.to_csv("weights.csv")
            message = self.message("V.csv", "--basis", "W.csv", "--select", "bic", "--weights", "weights.csv")
            assert message == (
                f"knownmf: The weight of {place} is 0.5, but \"V.csv\" are counts under 'kullback-leibler', whose "
                "likelihood ratios have a known scale only with weights of 0 and 1: leave out --weights or --select. "
            )

    def test_a_selection_of_nothing(self, tables):
        message = self.message("V.csv", "--basis", "W.csv", "--select", "1e9")
        assert 'All components of 4 of 4 samples were dropped, first of sample "P1": none of them lowers the' in message
        assert "noise, look at their deviance (--report), or pass a smaller number as --select." in message

    def test_a_tolerance_relative_to_one_value(self, tables):
        _, W = tables
        H = np.random.default_rng(0).uniform(1, 9, (2, 30))
        data = pd.DataFrame(W.values @ H, FEATURES, [f"P{i}" for i in range(30)])
        data.iloc[0] *= 1e7
        data.to_csv("V.csv")
        message = self.message("V.csv", "--basis", "W.csv")
        assert "the samples may be within --tol and yet be wrong in all other values. Choose a much smaller" in message
        assert "smaller --tol, or a smaller weight." in message

    @pytest.mark.parametrize("scale", [-1.0, -9.0])  # of the second, no value may be a level in decibels
    def test_data_that_are_nearly_all_negative(self, tables, scale):
        data = pd.DataFrame(scale - np.random.default_rng(0).random((6, 300)), FEATURES)
        data.columns = [f"P{i}" for i in data.columns]
        data.to_csv("V.csv")
        message = self.message("V.csv", "--basis", "W.csv", "--beta-loss", "frobenius")
        assert (
            '1800 of 1800 values of "V.csv" are negative, but the model is not: nearly all activations are' in message
        )
        assert "Change the sign if only that is wrong, or undo a logarithm (such as decibels)" in message


def test_a_limit_of_another_scale_and_empty_samples_are_noted(tables):
    V, _ = tables
    done = solve("V.csv", *OPTIONS, "--total", "1")
    assert "worse than by one number" in done.stderr
    assert "--total" in done.stderr
    V.assign(P9=np.nan).to_csv("empty.csv")
    done = solve("empty.csv", "--basis", "W.csv", "--out", "H2.csv")
    assert '1 sample without any value ("P9")' in done.stderr.replace("\n", " ")
    assert "worse" not in done.stderr
