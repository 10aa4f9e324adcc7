"""Test that tables are read as they were written, and that nothing is read as something else in silence."""

import gzip
import io

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.io import mmwrite
from scipy.sparse import coo_array, issparse

from knownmf.table_files import LABELED_ENDINGS, TABLE_ENDINGS, read_table, write_table

VALUES = np.array([[1.5, 0.0, 1e-300], [0.1 + 0.2, 7.0, 123456789.125]])
ROWS, COLUMNS = ("C>T", "a, b"), ("s1", "S 2", "ünï")


def dense(table):
    return table.values.toarray() if issparse(table.values) else table.values


def readings(tmp_path, content, name="table.csv"):
    """Return the likely readings of a file as (layout, corner, rows, columns, values)."""
    path = tmp_path / name
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return [(t.layout, t.corner, t.rows, t.columns, dense(t).tolist()) for t in read_table(path) if t.is_likely]


@pytest.mark.parametrize("ending", TABLE_ENDINGS)
def test_every_format_gives_back_what_was_written(tmp_path, ending):
    path = tmp_path / f"table{ending}"
    write_table(path, VALUES, ROWS, COLUMNS, "Type")
    (table,) = read_table(path)
    assert np.array_equal(dense(table), VALUES)
    if ending in LABELED_ENDINGS:
        assert (table.rows, table.columns, table.corner) == (ROWS, COLUMNS, "Type")
    else:
        assert table.layout == "none"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", TABLE_ENDINGS)
def test_other_programs_read_what_was_written(tmp_path, ending):
    path = tmp_path / f"table{ending}"
    write_table(path, VALUES, ROWS, COLUMNS, "Type")
    if ending in (".npy", ".mtx", ".mtx.gz"):
        return
    if ending == ".parquet":
        table = pd.read_parquet(path)
        assert pl.read_parquet(path)["Type"].to_list() == list(ROWS)
    else:
        table = pd.read_csv(path, sep="," if ".csv" in ending else "\t", index_col=0)
    pd.testing.assert_frame_equal(table, pd.DataFrame(VALUES, pd.Index(ROWS, name="Type"), COLUMNS))


@pytest.mark.parametrize("ending", LABELED_ENDINGS)
def test_labels_that_only_count_are_read_as_labels(tmp_path, ending):
    path = tmp_path / f"table{ending}"
    write_table(path, VALUES, corner="component")
    (table,) = read_table(path)
    assert (table.rows, table.columns) == (("0", "1"), ("0", "1", "2"))
    assert np.array_equal(table.values, VALUES)


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".parquet"])
def test_missing_values_stay_missing(tmp_path, ending):
    path = tmp_path / f"table{ending}"
    write_table(path, [[1.0, np.nan]], ["a"], ["x", "y"])
    assert np.isnan(read_table(path)[0].values[0, 1])


BOTH = ("both", "Type", ("A", "B"), ("S1", "S2"), [[1.0, 2.0], [3.5, 4.0]])


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("Type,S1,S2\nA,1,2\nB,3.5,4\n", "table.csv"),
        ("Type,S1,S2\r\nA,1,2\r\n\r\nB,3.5,4", "table.csv"),
        ("\ufeffType;S1;S2\nA;1;2\nB;3.5;4\n", "table.csv"),
        ("Type\tS1\tS2\nA\t1\t2\nB\t3.5\t4\n", "TABLE.TSV"),
        ("Type\tS1\tS2\nA\t1\t2\nB\t3.5\t4\n", "COSMIC_v3.4_SBS_GRCh38.txt"),
        ("Type\tS1\tS2\nA\t1\t2\nB\t3.5\t4\n", "table.csv"),
        ("Type,S1,S2\nA,1,2\nB,3.5,4\n", "table.tsv"),
        (' "Type", "S1","S2"\n"A",1 , 2\n"B",+3.5e0,4.\n', "table.csv"),
        ("Type,S1,S2\nA,1,2\nB,3.5,4\n", "table.csv.gz"),
        ("Type,S1,S2\nA,1,2\nB,3.5,4\n".encode("utf-16"), "table.csv"),
    ],
)
def test_spellings_of_the_same_table(tmp_path, content, name):
    assert readings(tmp_path, content, name) == [BOTH]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (",0,1\n0,1,2\n1,3.5,4\n", [("both", "", ("0", "1"), ("0", "1"))]),  # pandas
        ("Unnamed: 0,S1\n0,1\n1,3\n", [("both", "", ("0", "1"), ("S1",))]),
        ("S1,S2\n3,2\n3,4\n", [("first-row", "", None, ("S1", "S2"))]),
        ("A,5,2\nB,3,5\n", [("both", "A", ("B",), ("5", "2")), ("first-column", "", ("A", "B"), None)]),
        ("A,5,5\nB,3,5\n", [("first-column", "", ("A", "B"), None)]),  # two columns would have the same name
        ("0.4,0.4\n0.2,0.1\n", [("none", "", None, None)]),
        ("1,2,3\n4,4,3\n", [("first-row", "", None, ("1", "2", "3")), ("none", "", None, None)]),
        (
            "nm,S1\n400.5,1\n500.5,2\n",
            [("both", "nm", ("400.5", "500.5"), ("S1",)), ("first-row", "", None, ("nm", "S1"))],
        ),
        ("nm,S1\n400,1\n300,2\n400,5\n", [("first-row", "", None, ("nm", "S1"))]),
        (
            "id,S1\n77,1\n12,2\n40,5\n",
            [("both", "id", ("77", "12", "40"), ("S1",)), ("first-row", "", None, ("id", "S1"))],
        ),
        ("x,S1\n7.5,1\n1.2,2\n4.1,5\n", [("first-row", "", None, ("x", "S1"))]),
        ("400,1\n500,2\n600,9\n", [("first-column", "", ("400", "500", "600"), None), ("none", "", None, None)]),
        ("id,S1\n1,1\n2,2\n3,2\n4,4\n", [("both", "id", ("1", "2", "3", "4"), ("S1",))]),
        ("chr,S1\n1,3\n2,4\nX,5\n", [("both", "chr", ("1", "2", "X"), ("S1",))]),
        ("3\n4\n2\n", [("none", "", None, None)]),
        ("x\n3\n4\n", [("first-row", "", None, ("x",))]),
        ("Type,S1\nNA,1\nB,2\n", [("both", "Type", ("NA", "B"), ("S1",))]),
        ("k__A;p__B,S1,S2\nk__A;p__C,3,1\n", [("both", "k__A;p__B", ("k__A;p__C",), ("S1", "S2"))]),
    ],
)
def test_which_cells_are_labels(tmp_path, content, expected):
    assert [reading[:4] for reading in readings(tmp_path, content)] == expected


def test_the_first_row_may_have_no_cell_above_the_labels_as_r_writes_it(tmp_path):
    (reading,) = readings(tmp_path, '"S1" "S2"\n"g1" 1 2\n"g2" 3.5 4\n', "table.txt")
    assert reading == ("both", "", ("g1", "g2"), ("S1", "S2"), [[1.0, 2.0], [3.5, 4.0]])


def test_letters_with_accents_are_the_same_in_both_encodings(tmp_path):
    (reading,) = readings(tmp_path, "Type,S1\ncafe\u0301,1\n")
    assert reading[2] == ("caf\u00e9",)


def test_missing_values_have_many_names(tmp_path):
    content = "Type,a,b,c,d,e,f\nA,,NA,NaN,null,N/A,1\n"
    [(*_, values)] = readings(tmp_path, content)
    assert np.array_equal(values, [[np.nan] * 5 + [1.0]], equal_nan=True)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "is empty"),
        ("\n\n", "it has no rows"),
        ("Type,S1\n", "it has 0 rows and"),
        ("Type,S1\nA,1\nB,abc\n", r'the cell in line 3, column 2 \(S1\) is "abc", not a number: only the first row'),
        ("Type\tSub\tS1\nA\tx\t1\n", r'line 2, column 2 \(Sub\) is "x"'),
        ("Type;S1\nA;1,5\n", '"1,5", not a number: save the table with a decimal point, and without thousands'),
        ('Type,S1\nA,"1,234.5"\n', '"1,234.5", not a number: save the table with a decimal point'),
        ("Type,S1\nA,1 234\n", '"1 234", not a number: save the table with a decimal point'),
        ("1,5;2,5\n3,5;4,5\n", '"4,5", not a number: save the table with a decimal point'),
        ("Type,S1\nA,1,5\nB,2,3\n", "line 2 has 3 cells, but the lines before it have 2.*decimal point"),
        ("a\n1,5\n2,5\n", "line 2 has 2 cells, but the lines before it have 1"),
        ("Type,S1,S2\nA,1,2\nB,3\n", "line 3 has 2 cells, but the lines before it have 3.*separated by commas"),
        ("# Constructed from biom file\n#OTU ID,S1,S2\nA,1,2\n", "remove comments"),
        ("Type,S1\nA,12%\n", "without percent signs"),
        ("Type,S1\nA,1_000\n", '"1_000", not a number'),
        ("Type,S1\nA,\u0661\n", "not a number"),
        ("Type,S1\nA,0x10\n", '"0x10", not a number'),
        ("Type,S1\nA,inf\n", 'the number in row "A", column "S1" is infinite'),
        ("Type,S1\nA,1e999\n", 'the number in row "A", column "S1" is infinite'),
        ("Type,S1\nA,1\n,2\n", "row 2 of the data has no label in the first column"),
        ("Type,S1,\nA,1,2\n", "column 2 of the data has no name in the first row"),
        (",Unnamed: 0,S1\n0,0,3\n1,1,4\n", 'a column "Unnamed: 0", which pandas has made'),
        ("S1,S2\n1.5,2\n12o,3\n1.7,3\n", 'row 2 has "12o" in the first column, where most cells are numbers'),
        (b"caf\xe9,S1\nA,1\n", "not a text in UTF-8"),
        (b"PK\x03\x04", "is a .zip file, as .xlsx and .npz files are, not what its ending .csv says"),
        (b"PAR1....", "is a .parquet file"),
        (b"\x1f\x8b\x08", "is compressed by gzip"),
        (b"Type,S1\nA\x00,1\n", "cannot be read as a table of text"),
    ],
)
def test_what_is_no_table_of_numbers_is_refused_and_named(tmp_path, content, complaint):
    with pytest.raises(ValueError, match=f"table.csv.*{complaint}"):
        readings(tmp_path, content)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.xlsx", b"PK", "does not end in .csv, .tsv, .txt, .csv.gz"),
        ("a.csv.bz2", b"BZ", "does not end in .csv"),
        ("a.csv.gz", gzip.compress(b"Type,S1\nA,1\n")[:-9], "is damaged or not compressed by gzip"),
        ("a.npy", b"1,2\n", "is not a .npy file, as its ending says"),
        ("a.parquet", b"1,2\n", "is not a .parquet file"),
        ("a.parquet", b"PAR1PAR1PAR1", "it is damaged"),
        ("a.mtx", b"1 2\n", "is not a .mtx file"),
        ("a.mtx", b"%%MatrixMarket matrix array real general\n2 2\n1\n", "a.mtx"),
        ("a.mtx", b"%%MatrixMarket matrix coordinate complex general\n1 1 1\n1 1 1 2\n", "complex numbers"),
    ],
)
def test_damaged_files_and_other_endings_are_named(tmp_path, name, content, complaint):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        read_table(tmp_path / name)


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.ones((2, 2, 2)), "3 dimensions"),
        (np.array([["a"]]), "holds text"),
        (np.array([[1j]]), "complex"),
        (np.array([[{}]]), "allow_pickle"),
        (np.ones((0, 3)), "0 rows and 3 columns"),
        (np.array([[np.inf]]), "row 1, column 1 is infinite"),
    ],
)
def test_arrays_that_are_no_tables_are_refused(tmp_path, array, complaint):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=complaint):
        read_table(tmp_path / "a.npy")


def test_arrays_of_one_dimension_are_one_column(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(3, dtype=np.int32))
    (table,) = read_table(tmp_path / "a.npy")
    assert table.values.tolist() == [[0.0], [1.0], [2.0]]


@pytest.mark.parametrize("symmetry", ["general", "symmetric"])
@pytest.mark.parametrize("field", ["integer", "real", "pattern"])
@pytest.mark.parametrize("ending", [".mtx", ".mtx.gz"])
def test_matrix_market_files_of_all_kinds_are_read(tmp_path, ending, field, symmetry):
    matrix = np.array([[2, 0, 3], [0, 0, 1], [3, 1, 0]])
    content = io.BytesIO()
    mmwrite(content, coo_array(matrix), field=field, symmetry=symmetry)
    path = tmp_path / f"a{ending}"
    path.write_bytes(gzip.compress(content.getvalue()) if ending.endswith("gz") else content.getvalue())
    (table,) = read_table(path)
    assert np.array_equal(dense(table), matrix > 0 if field == "pattern" else matrix)
    assert ("count as 1" in table.note) == (field == "pattern")
    assert ("symmetric" in table.note) == (symmetry == "symmetric")


def test_parquet_files_of_polars_are_read(tmp_path):
    pl.DataFrame({"Type": ["A", "B"], "S1": [1, None], "S2": [3.5, 4.0]}).write_parquet(tmp_path / "a.parquet")
    (table,) = read_table(tmp_path / "a.parquet")
    assert (table.rows, table.columns, table.corner) == (("A", "B"), ("S1", "S2"), "Type")
    assert np.array_equal(table.values, [[1.0, 3.5], [np.nan, 4.0]], equal_nan=True)


def test_an_index_that_counts_from_another_number_has_labels(tmp_path):
    pd.DataFrame({"S1": [1.0, 2.0]}, index=pd.RangeIndex(400, 402)).to_parquet(tmp_path / "a.parquet")
    (table,) = read_table(tmp_path / "a.parquet")
    assert table.rows == ("400", "401")
    pd.DataFrame({"S1": [1.0, 1.0]}).to_parquet(tmp_path / "a.parquet")
    (table,) = read_table(tmp_path / "a.parquet")
    assert table.layout == "first-row"


def test_text_in_parquet_files_is_named(tmp_path):
    pd.DataFrame({"Type": ["A"], "Sub": ["x"], "S1": [1]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a.parquet.*'x', not a real number.*the column 'Sub'"):
        read_table(tmp_path / "a.parquet")
