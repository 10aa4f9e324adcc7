"""Read and write tables of numbers with labels: CSV, TSV, Parquet, NPY and Matrix Market files.

A file of text does not say whether its first row and its first column are labels or data. Where the content decides
this, a file has one reading; otherwise it has several, and the caller chooses.
"""

import contextlib
import csv
import gzip
import io
import os
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, issparse

from knownmf.extras import tables_extra
from knownmf.files import written_aside
from knownmf.validation import real_array
from knownmf.wording import counted

__all__ = [
    "LABELED_ENDINGS",
    "LAYOUTS",
    "TABLE_ENDINGS",
    "Table",
    "counts_up",
    "read_table",
    "table_ending",
    "write_table",
]

_TEXT_ENDINGS = (".csv", ".tsv", ".txt")
_COMPRESSED = tuple(f"{ending}.gz" for ending in (*_TEXT_ENDINGS, ".mtx"))
LABELED_ENDINGS = (*_TEXT_ENDINGS, *_COMPRESSED[:-1], ".parquet")
TABLE_ENDINGS = (*LABELED_ENDINGS, ".npy", ".mtx", ".mtx.gz")

# Where a table has labels.
LAYOUTS = ("both", "first-row", "first-column", "none")

# How missing values are written, in lower case.
_MISSING = {"", "na", "n/a", "#n/a", "<na>", "nan", "-nan", "null", "none"}
_DIGITS = b"0123456789+-.eE"  # what numbers consist of; float() would also take underscores and other digits
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:[,.' \u00a0\u202f]\d{3})+(?:[.,]\d+)?")
_SAMPLE_LINES = 20  # that decide which character separates the cells

# R leaves out the cell above the labels where it separates by these.
_SHORT_FIRST_ROWS = "\t "
# Names of a first column that has labels, also if these are numbers: as pandas and the functions here write it.
_LABEL_COLUMNS = ("", "unnamed: 0", "component", "feature", "sample")

# The first bytes of files of other formats, and what they are.
_MAGIC = {
    b"\x93NUMPY": "a .npy file",
    b"PAR1": "a .parquet file",
    b"PK": "a .zip file, as .xlsx and .npz files are",
    b"\x1f\x8b": "compressed by gzip",
    b"%%MatrixMarket": "a .mtx file",
    b"\x89HDF": "an HDF5 file",
    b"%PDF": "a .pdf file",
}


@dataclass(frozen=True, eq=False)
class Table:
    """A reading of a file as a table of numbers.

    Attributes
    ----------
    values : (n_rows, n_columns) array or sparse matrix
        The numbers; NaN where one is missing.
    rows, columns : tuple of str, or None
        The labels of the rows and of the columns; None if the file has none.
    corner : str
        The name of the column of labels; empty if it has none.
    note : str
        What a user may not expect; empty if there is nothing.
    is_likely : bool
        Whether the content suggests this reading. Others are possible, too: if the labels are those of another table.
    """

    values: Any
    rows: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    corner: str = ""
    note: str = ""
    is_likely: bool = True

    @property
    def layout(self) -> str:
        """Which labels the table has, one of `LAYOUTS`."""
        if self.rows is None:
            return "none" if self.columns is None else "first-row"
        return "first-column" if self.columns is None else "both"

    @property
    def transposed(self) -> "Table":
        """The table with rows and columns exchanged."""
        return replace(self, values=self.values.T, rows=self.columns, columns=self.rows)


class _Cells(NamedTuple):
    """The cells of a file of text: those of the first row and of the first column as text, the others as numbers."""

    first_row: list[str]
    first_column: list[str]  # below the first row
    numbers: NDArray[np.float64]
    short: bool  # whether the first row has no cell above the labels, as R writes it


def table_ending(path: Path) -> str:
    """Return the ending of a file in lower case, such as ".csv" or ".csv.gz"."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return "".join(suffixes[-2:] if suffixes[-1:] == [".gz"] else suffixes[-1:])


def counts_up(labels: Sequence[str]) -> bool:
    """Return whether labels only count from 0 or from 1, as programs make them where there are none.

    Examples
    --------
    >>> counts_up(["0", "1", "2"]), counts_up(["1", "2"]), counts_up(["1", "3"]), counts_up(["a"])
    (True, True, False, False)
    """
    return any(list(labels) == [str(n + first) for n in range(len(labels))] for first in (0, 1))


def read_table(path: Path) -> list[Table]:
    """Return all readings of a file as a table of numbers.

    Parameters
    ----------
    path : Path
        A file with one of `TABLE_ENDINGS`. Text is in UTF-8, or in UTF-16 with a byte-order mark.

    Returns
    -------
    list of Table
        At least one that is likely. Those with more labels come first.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it is not a table of numbers. The message names the file, and the row and the column of the first cell that
        is not a number.
    MissingPackageError
        If a package is missing that reads Parquet files.
    """
    ending = table_ending(path)
    if ending not in TABLE_ENDINGS:
        raise ValueError(f'"{path}" does not end in {", ".join(TABLE_ENDINGS[:-1])} or {TABLE_ENDINGS[-1]}.')
    _check_start(path, ending)
    with _damage_named(path):
        if ending == ".npy":
            tables = [_numpy_table(path)]
        elif ending.startswith(".mtx"):
            tables = [_market_table(path)]
        elif ending == ".parquet":
            tables = _parquet_tables(path)
        else:
            tables = _text_tables(path, ending)
        for table in tables:
            _check_table(table)
    return tables


def write_table(
    path: Path,
    values: Any,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    corner: str = "",
) -> None:
    """Write a table in the format that the ending of the file selects.

    Parameters
    ----------
    path : Path
        The file, with one of `TABLE_ENDINGS`.
    values : array, (n_rows, n_columns)
        Numbers; NaN where one is missing. An array of objects may have whole numbers in some columns.
    rows, columns : sequence of str, optional
        The labels; 0, 1, 2, ... if they are not given. NPY and Matrix Market files do not contain them.
    corner : str
        The name of the column of labels.
    """
    ending = table_ending(path)
    values = np.asarray(values)
    rows = [str(n) for n in range(values.shape[0])] if rows is None else list(rows)
    columns = [str(n) for n in range(values.shape[1])] if columns is None else list(columns)
    with written_aside(path) as file:
        if ending == ".npy":
            np.save(file, values, allow_pickle=False)
        elif ending == ".parquet":
            with tables_extra():
                import pandas as pd
                import pyarrow  # noqa: F401 - pandas would not say how to install it
            content = io.BytesIO()  # pandas closes what it writes to
            table = pd.DataFrame(values, pd.Index(rows, name=corner or None), columns)
            table.infer_objects().to_parquet(content)
            file.write(content.getbuffer())
        else:
            with _compressed(file, ending) as stream:
                if ending.startswith(".mtx"):
                    from scipy.io import mmwrite

                    mmwrite(stream, csc_array(values))
                else:
                    _write_text(stream, values, [corner, *columns], rows, "," if ending.startswith(".csv") else "\t")


def _write_text(stream: Any, values: NDArray, header: Sequence[str], rows: Sequence[str], separator: str) -> None:
    """Write a table as text: a row of labels, then the rows, each with its label first."""
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, delimiter=separator, lineterminator="\n")
    writer.writerow(header)
    for label, row in zip(rows, values, strict=True):
        writer.writerow([label, *("NaN" if cell != cell else str(cell) for cell in row.tolist())])
    text.detach()


@contextlib.contextmanager
def _compressed(file: BinaryIO, ending: str) -> Iterator[Any]:
    """Yield a stream that is compressed if the ending says so. The time is left out: equal tables make equal files."""
    if not ending.endswith(".gz"):
        yield file
        return
    with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as stream:
        yield stream


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Raise a ValueError that names the file if its content is not what its ending says."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f'"{path}" is not a text in UTF-8: save it again with this encoding.') from error
    except csv.Error as error:
        raise ValueError(f'"{path}" cannot be read as a table of text ({error}): save it again.') from error
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(f'"{path}" is damaged or not compressed by gzip: {error}.') from error
    except (TypeError, ValueError) as error:
        raise ValueError(f'"{path}": {error}') from error


def _check_start(path: Path, ending: str) -> None:
    """Raise if a file is empty, or begins like one of another format."""
    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        raise ValueError(f'"{path}" is empty: it has no rows.')
    expected = {".npy": b"\x93NUMPY", ".parquet": b"PAR1", ".mtx": b"%%MatrixMarket"}.get(ending)
    if ending.endswith(".gz"):
        expected = b"\x1f\x8b"
    if expected is not None and start.startswith(expected):
        return
    kind = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)
    if kind is not None:
        raise ValueError(f'"{path}" is {kind}, not what its ending {ending} says: rename it, or save it again.')
    if expected is not None:
        raise ValueError(f'"{path}" is not a {ending} file, as its ending says: rename it, or save it again.')


def _check_table(table: Table) -> None:
    """Raise if a table has no cells, or if a number is infinite."""
    values = table.values
    if 0 in values.shape:
        raise ValueError(f"it has {counted(values.shape[0], 'row')} and {counted(values.shape[1], 'column')} of data.")
    cells = values.data if issparse(values) else values
    if np.isinf(cells).any():
        if issparse(values):
            raise ValueError("it contains infinite numbers.")
        row, column = np.argwhere(np.isinf(cells))[0]
        raise ValueError(f"{_place(table, row, column)} is infinite: leave it empty if it is missing.")


def _place(table: Table, row: int, column: int) -> str:
    """Return the place of a cell in words."""
    of_row = f'"{table.rows[row]}"' if table.rows else str(row + 1)
    of_column = f'"{table.columns[column]}"' if table.columns else str(column + 1)
    return f"the number in row {of_row}, column {of_column}"


def _numpy_table(path: Path) -> Table:
    array = real_array(np.load(path, allow_pickle=False), "the array", 1, 2)
    values = array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)
    return Table(values if values.ndim == 2 else values[:, np.newaxis])


def _market_table(path: Path) -> Table:
    from scipy.io import mminfo, mmread

    field, symmetry = mminfo(os.fspath(path))[4:]
    if field == "complex":
        raise ValueError("it has complex numbers, which cannot be used: save their magnitudes.")
    values = mmread(os.fspath(path))
    notes = []
    if field == "pattern":
        notes.append("it says only which entries are not zero, and these count as 1")
    if symmetry != "general":
        notes.append(f"it is stored as a {symmetry} matrix")
    return Table(
        csc_array(values, dtype=np.float64) if issparse(values) else values.astype(np.float64),
        note=", and ".join(notes),
    )


def _parquet_tables(path: Path) -> list[Table]:
    with tables_extra():
        import pandas as pd
        import pyarrow as pa
    try:
        frame = pd.read_parquet(path)
    except pa.ArrowException as error:  # ArrowInvalid is a ValueError, others are OSErrors
        raise ValueError(f"it is damaged ({error}).") from error
    if isinstance(frame.index, pd.MultiIndex) or isinstance(frame.columns, pd.MultiIndex):
        raise ValueError("it has several levels of labels, expected one: write it with one label for each row.")
    is_labeled = not frame.index.equals(pd.RangeIndex(len(frame))) or frame.index.name is not None
    if not is_labeled and frame.shape[1] > 1:
        first = frame.iloc[:, 0]
        text = [str(value) for value in first]
        choices = _label_column_choices(text, np.empty(0), True, not pd.api.types.is_numeric_dtype(first.dtype))
    else:
        choices = {is_labeled: True}
    tables = []
    for has_labels, is_likely in choices.items():
        part, index = frame, frame.index
        if has_labels and not is_labeled:
            part, index = frame.iloc[:, 1:], pd.Index(text, name=str(first.name))
        values = real_array(part, "the table", 2).astype(np.float64)
        columns = _checked_names([str(name) for name in part.columns])
        rows, corner = (tuple(map(str, index)), str(index.name or "")) if has_labels else (None, "")
        tables.append(Table(values, rows, columns, corner, is_likely=is_likely))
    return tables


def _text_tables(path: Path, ending: str) -> list[Table]:
    with _opened_text(path) as file:
        sample = [line for line, _ in zip(file, range(_SAMPLE_LINES), strict=False)]
    with _opened_text(path) as file:
        cells = _cells(file, _separator(sample, ending))
    tables = []
    for has_header, header_is_likely in _header_choices(cells).items():
        first_column = cells.first_column if has_header else [cells.first_row[0], *cells.first_column]
        corner = cells.first_row[0] if has_header else ""
        has_others = bool(cells.numbers.shape[1] and first_column)
        if cells.short or (has_header and corner.lower() in _LABEL_COLUMNS and has_others):
            choices = {True: True}
            _check_row_labels(first_column)
        elif not has_others or (has_header and _number(corner) is not None):  # no column of labels has a number as name
            choices = {False: True}
        else:
            is_text = any(_number(cell) is None for cell in first_column)
            choices = _label_column_choices(first_column, cells.numbers, corner != "", is_text)
        for has_labels, column_is_likely in choices.items():
            table = _reading(cells, first_column, has_header, has_labels)
            tables.append(replace(table, is_likely=header_is_likely and column_is_likely))
    return tables


def _reading(cells: _Cells, first_column: Sequence[str], has_header: bool, has_labels: bool) -> Table:
    """Return a table of cells, of which the first row and the first column are labels or data."""
    values = cells.numbers
    if not has_header:
        values = np.vstack([_row_of_numbers(cells.first_row[1:]), values])
    names = cells.first_row[1:] if has_header else None
    if not has_labels:
        first = [_number(cell, f"row {n + 1}, column 1") for n, cell in enumerate(first_column)]
        values = np.column_stack([np.array(first, np.float64), values])
        names = cells.first_row if has_header else None
    corner = cells.first_row[0] if has_header and has_labels else ""
    return Table(
        values,
        tuple(first_column) if has_labels else None,
        None if names is None else _checked_names(names),
        corner if corner.lower() != "unnamed: 0" else "",
    )


@contextlib.contextmanager
def _opened_text(path: Path) -> Iterator[io.TextIOWrapper]:
    """Open a file of text, which may be compressed and may begin with a byte-order mark."""
    with path.open("rb") as raw:
        binary: Any = gzip.GzipFile(fileobj=raw) if path.name.lower().endswith(".gz") else raw
        stream = io.BufferedReader(binary)
        utf16 = stream.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff")
        with io.TextIOWrapper(stream, encoding="utf-16" if utf16 else "utf-8-sig", newline="") as text:
            yield text


def _rows_of(lines: Iterable[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the line and the cells of each row that is not blank, without spaces around them."""
    if separator == " ":
        lines = (f"{line.strip()}\n" for line in lines)
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    for row in reader:
        cells = [cell.strip() if cell.isascii() else unicodedata.normalize("NFC", cell.strip()) for cell in row]
        if any("\0" in cell for cell in cells):
            raise csv.Error(f"line {reader.line_num} contains a NUL")
        if cells and (len(cells) > 1 or cells[0]):
            yield reader.line_num, cells


def _separator(sample: Sequence[str], ending: str) -> str:
    """Return the character that separates the cells: the one with which most cells of the first lines are numbers."""
    default, candidates = (",", ",;\t") if ending.startswith(".csv") else ("\t", "\t,; ")
    best, best_share = default, 0.0
    for candidate in candidates:
        try:
            rows = [cells for _, cells in _rows_of(sample, candidate)]
        except csv.Error:
            continue
        if len(sample) == _SAMPLE_LINES:
            rows = rows[:-1]  # a cell in quotation marks may go on in the next line
        lengths = [len(cells) + (n == 0 and candidate in _SHORT_FIRST_ROWS) for n, cells in enumerate(rows)]
        if not rows or max(lengths) < 2 or len(set(lengths[1:])) > 1 or min(lengths) < max(lengths[1:], default=2):
            continue
        cells = [cell for row in rows[1:] or rows for cell in row[1:]]
        numeric = [_number(cell) is not None or (candidate != "," and _DECIMAL_COMMA.fullmatch(cell)) for cell in cells]
        share = sum(map(bool, numeric)) / max(len(cells), 1)
        if share > best_share:
            best, best_share = candidate, share
    return best


def _cells(lines: Iterable[str], separator: str) -> _Cells:
    """Return the cells of a file of text. Raise if rows differ in length, or if a cell is not a number."""
    rows = _rows_of(lines, separator)
    _, first_row = next(rows, (0, []))
    if not first_row:
        raise ValueError("it has no rows.")
    n_cells, short = len(first_row), False
    first_column: list[str] = []
    numbers: list[NDArray[np.float64]] = []
    for line, cells in rows:
        if not first_column and len(cells) == n_cells + 1 and separator in _SHORT_FIRST_ROWS:
            n_cells, short, first_row = n_cells + 1, True, ["", *first_row]
        if len(cells) != n_cells:
            if first_row[0].startswith("#"):
                raise ValueError(f'its first row begins with "{first_row[0]}": remove comments, and "#" before names.')
            raise ValueError(
                f"line {line} has {counted(len(cells), 'cell')}, but the lines before it have {n_cells}. The cells are "
                f"separated by {_name_of(separator)}; numbers need a decimal point, and no thousands separators."
            )
        try:
            numbers.append(_row_of_numbers(cells[1:]))
        except _NotANumberError as error:
            column = first_row[error.position + 1]
            raise ValueError(
                f"the cell in line {line}, column {error.position + 2}"
                f'{f" ({column})" if column else ""} is "{error.cell}", not a number: {error.advice}'
            ) from error
        first_column.append(cells[0])
    if short and all(_number(cell) is not None for cell in first_column) and not counts_up(first_column):
        raise ValueError(
            f"its first row has {counted(n_cells - 1, 'cell')}, but the others have {n_cells}. The cells are separated "
            f"by {_name_of(separator)}; numbers need a decimal point, and no thousands separators."
        )
    return _Cells(first_row, first_column, np.array(numbers).reshape(len(numbers), n_cells - 1), short)


class _NotANumberError(ValueError):
    """A cell is neither a number nor missing."""

    def __init__(self, cell: str, position: int) -> None:
        super().__init__(cell)
        self.cell, self.position = cell, position
        self.advice = "only the first row and the first column may be text."
        if _DECIMAL_COMMA.fullmatch(cell) or _THOUSANDS.fullmatch(cell):
            self.advice = "save the table with a decimal point, and without thousands separators."
        elif _number(cell.rstrip("%")) is not None:
            self.advice = "save the table without percent signs."


def _row_of_numbers(cells: Sequence[str]) -> NDArray[np.float64]:
    """Return the cells of a row as numbers, NaN where they are missing."""
    if not "".join(cells).encode().translate(None, _DIGITS):
        with contextlib.suppress(ValueError):  # for example because a cell is empty
            return np.array(cells, np.float64)
    numbers = np.empty(len(cells))
    for position, cell in enumerate(cells):
        number = _number(cell)
        if number is None:
            raise _NotANumberError(cell, position)
        numbers[position] = number
    return numbers


def _number(cell: str, place: str = "") -> float | None:
    """Return a cell as a number, NaN if it is missing. If it is text, return None or, with a place, raise."""
    if cell.lower() in _MISSING:
        return np.nan
    with contextlib.suppress(ValueError):
        plain = cell.lower().lstrip("+-")
        if not cell.encode().translate(None, _DIGITS) or plain in ("inf", "infinity"):
            return float(cell)
    if place:
        error = _NotANumberError(cell, 0)
        raise ValueError(f'the cell in {place} is "{cell}", not a number: {error.advice}')
    return None


def _header_choices(cells: _Cells) -> dict[bool, bool]:
    """Return the choices whether the first row has labels, and for each whether it is a likely one."""
    corner, others = cells.first_row[0], cells.first_row[1:]
    if cells.short:
        return {True: True}
    if not others:  # a single column, which pandas names 0
        return {True: True} if _number(corner) is None else {True: corner in ("0", "1"), False: True}
    numbers = [_number(cell) for cell in others]
    if any(number is None for number in numbers) or all(np.isnan(numbers)):  # type: ignore[arg-type]
        return {True: True}
    if not cells.first_column:  # a single row
        return {False: True}
    if corner == "":
        return {_are_different(others): True}
    if _number(corner) is None:
        if not _are_different(others):
            return {False: True}
        labels_below = any(_number(cell) is None for cell in cells.first_column)
        return {True: True, False: True} if labels_below else {True: True}
    return _choices_of_numbers(cells.first_row, cells.numbers)


def _label_column_choices(column: Sequence[str], others: NDArray, named: bool, is_text: bool) -> dict[bool, bool]:
    """Return the choices whether the first column has labels, and for each whether it is a likely one.

    Parameters
    ----------
    column : sequence of str
        Its cells.
    others : array
        The numbers in the other columns.
    named : bool
        Whether it has a name.
    is_text : bool
        Whether some of the cells are not numbers.
    """
    if is_text:
        numbers = [_number(cell) for cell in column]
        text = [cell for cell, number in zip(column, numbers, strict=True) if number is None]
        decimals = any(number is not None and number % 1 for number in numbers if number == number)
        if decimals and 2 * len(text) < len(column):
            row = numbers.index(None)
            raise ValueError(
                f'row {row + 1} has "{text[0]}" in the first column, where most cells are numbers: correct this cell. '
                "If the column has labels, write them as words."
            )
        _check_row_labels(column)
        return {True: True}
    if named and len(column) > 3 and counts_up(column):
        return {True: True}
    return _choices_of_numbers(column, others, named)


def _choices_of_numbers(cells: Sequence[str], others: NDArray, named: bool = False) -> dict[bool, bool]:
    """Return the choices whether numbers are labels, and for each whether it is a likely one.

    Labels are different. They are likely to be in order (an axis; two numbers always are) or whole (identifiers; then
    they have a name, or other numbers are not whole).
    """
    if not _are_different(cells):
        return {False: True}
    numbers = np.array([_number(cell) for cell in cells], np.float64)
    steps = np.diff(numbers)
    is_axis = bool((steps > 0).all() or (steps < 0).all()) and len(cells) > (1 if named else 2)
    are_whole = bool((numbers % 1 == 0).all())
    return {True: is_axis or (are_whole and (named or bool((others % 1 > 0).any()))), False: True}


def _are_different(cells: Sequence[str]) -> bool:
    """Return whether numbers are all different, and none is missing."""
    numbers = np.array([_number(cell) for cell in cells], np.float64)
    return len(np.unique(numbers)) == len(numbers) and not np.isnan(numbers).any()


def _check_row_labels(labels: Sequence[str]) -> None:
    """Raise if a label in the first column is empty."""
    empty = [n for n, label in enumerate(labels) if not label]
    if empty:
        raise ValueError(f"row {empty[0] + 1} of the data has no label in the first column: name it, or remove it.")


def _checked_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the labels of columns. Raise if one is empty, or stands for the numbers of rows that pandas has added."""
    for n, name in enumerate(names):
        if not name:
            raise ValueError(f"column {n + 1} of the data has no name in the first row: name it, or remove it.")
        if re.fullmatch(r"Unnamed: \d+", name):
            raise ValueError(
                f'it has a column "{name}", which pandas has made where a name was missing: name it, or remove it.'
            )
    return tuple(names)


def _name_of(separator: str) -> str:
    return {",": "commas", ";": "semicolons", "\t": "tabs", " ": "spaces"}[separator]
