"""Read the tables of the command solve, and find out what their rows and columns are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse

from knownmf.cli.console import UserError, input_errors
from knownmf.cli.inputs import load_dictionary
from knownmf.files import column_names
from knownmf.table_files import Table, counts_up, read_table, table_ending
from knownmf.wording import counted, listed

__all__ = ["Axis", "Problem", "check_numbers", "read_problem", "read_values"]

SHOWN = 3  # labels that a message names

# How two axes fit: not at all, in size only because one of them has no labels, or by their labels.
NOT, BY_SIZE, BY_LABELS = 0, 1, 2


class Axis(NamedTuple):
    """The rows or the columns of a table.

    Attributes
    ----------
    what : str
        What they are, in the singular: "feature", "sample" or "component".
    size : int
        How many they are.
    labels : tuple of str, or None
        Their labels, if they have any but numbers that only count.
    """

    what: str
    size: int
    labels: tuple[str, ...] | None

    def names(self) -> list[str] | None:
        """Return labels that are all different, for the files to write."""
        return None if self.labels is None else column_names(self.labels)

    def name(self, position: int) -> str:
        """Return one of them for a message."""
        return f'{self.what} "{self.labels[position]}"' if self.labels else f"{self.what} {position + 1}"


@dataclass(frozen=True, eq=False)
class Reading:
    """A table as a part of the problem, turned so that the axis that it shares with the other table is in its rows."""

    table: Table
    turned: bool  # whether this axis is in the columns of the file
    is_part: bool = False  # whether rows were left out; then the names of the others say what they are, if they count

    def rows(self, what: str) -> Axis:
        """Return the axis that is shared with the other table."""
        size, labels = self.table.values.shape[0], self.table.rows
        return Axis(what, size, labels) if self.is_part else _axis(what, size, labels)

    def columns(self, what: str) -> Axis:
        """Return the other axis."""
        return _axis(what, self.table.values.shape[1], self.table.columns)

    def with_rows(self, wanted: Set[str | float]) -> Reading:
        """Return the part of the table with these names, or numbers that are names, in its rows."""
        labels = self.table.rows or ()
        places = [place for place, label in enumerate(labels) if _key(label) in wanted]
        values = self.table.values.tocsr()[places].tocsc() if issparse(self.table.values) else self.table.values[places]
        table = replace(self.table, values=values, rows=tuple(labels[place] for place in places))
        return replace(self, table=table, is_part=True)


@dataclass(frozen=True, eq=False)
class Problem:
    """The data and the basis, with the features of the basis in the same order.

    Attributes
    ----------
    V : (n_features, n_samples) array or sparse matrix
        The data.
    W : (n_features, n_components) array
        The basis.
    features, samples, components : Axis
        What the rows and the columns are.
    samples_in_rows : bool
        Whether the file of the data has a sample in each row.
    corner : str
        The name of the column of labels in the file of the data.
    units : str
        The unit of the activations, if the basis is a dictionary that says it.
    lines : list of str
        How the files were read, for the summary.
    is_shared : bool
        Whether the features are only those that both files have. Other files may have more.
    """

    V: Any
    W: np.ndarray
    features: Axis
    samples: Axis
    components: Axis
    samples_in_rows: bool
    corner: str
    units: str
    lines: list[str]
    is_shared: bool = False


def read_problem(
    data: Path,
    basis: Path,
    samples: str | None = None,
    components: str | None = None,
    labels: str | None = None,
    basis_labels: str | None = None,
    *,
    only_shared: bool = False,
) -> Problem:
    """Read the data and the basis.

    Parameters
    ----------
    data, basis : Path
        The files.
    samples, components : {"rows", "columns"}, optional
        Where the samples and the components are. By default, what the labels or the sizes say.
    labels, basis_labels : str, optional
        Which labels the tables have, one of `LAYOUTS`. By default, what the files say.
    only_shared : bool
        Whether features that only one of the files has are left out. By default, they are an error.

    Raises
    ------
    UserError
        If a file cannot be read, the tables do not fit together, or it is not clear how they do.
    """
    of_basis, units = _basis_readings(basis, components, basis_labels)
    with input_errors():
        of_data = _readings(data, read_table(data), samples, labels, "--labels")
    choose = _choose_shared if only_shared else _choose
    (of_data_read, of_basis_read), matched_by_name = choose(data, basis, of_data, of_basis)
    lines = [
        _describe_reading(data, of_data_read, "feature", "sample"),
        _describe_reading(basis, of_basis_read, "feature", "component"),
    ]
    if only_shared:
        lines.append(_describe_left_out((data, of_data_read.rows("feature")), (basis, of_basis_read.rows("feature"))))
        shared = _keys(of_data_read.table.rows or ()) & _keys(of_basis_read.table.rows or ())
        of_data_read, of_basis_read = of_data_read.with_rows(shared), of_basis_read.with_rows(shared)
    features, own = of_basis_read.rows("feature"), of_data_read.rows("feature")
    for axis, path in ((own, data), (features, basis)):
        _check_distinct(axis, path)
    order = _order(features.labels, own.labels) if matched_by_name else None
    V, W = of_data_read.table.values, of_basis_read.table.values
    if order is not None and not np.array_equal(order, np.arange(len(order))):
        V = V.tocsr()[order].tocsc() if issparse(V) else V[order]
    unnamed = [f'"{path}"' for axis, path in ((own, data), (features, basis)) if axis.labels is None]
    lines.append(f"The features are matched {_describe_match(order, unnamed)}.")
    if issparse(W):
        W = W.toarray()
    problem = Problem(
        V,
        W,
        features if features.labels else own,
        of_data_read.columns("sample"),
        of_basis_read.columns("component"),
        of_data_read.turned,
        of_data_read.table.corner if of_data_read.turned else "",
        units,
        lines,
        only_shared,
    )
    check_numbers(problem.W, basis, problem.features, problem.components)
    for axis, path in ((problem.samples, data), (problem.components, basis)):
        repeated = _repeated(axis.labels or (), str)
        if repeated and table_ending(path) != ".npz":
            warnings.warn(
                f'"{path}" {_has_repeated(axis.what, repeated)}: others get a number.',
                UserWarning,
                stacklevel=2,
            )
    return problem


def _choose(
    data: Path, basis: Path, of_data: Sequence[Reading], of_basis: Sequence[Reading]
) -> tuple[tuple[Reading, Reading], bool]:
    """Return the readings of the data and of the basis that fit together, and whether their features have names.

    Raises
    ------
    UserError
        If there are none, or several.
    """
    fits = [(_fit(d.rows("feature"), b.rows("feature")), d, b) for d in of_data for b in of_basis]
    by_name = [(d, b) for fit, d, b in fits if fit == BY_LABELS]
    if len(by_name) == 1:
        return by_name[0], True
    if by_name:
        raise UserError(_describe_choice(data, basis, by_name))
    likely = [(fit, d, b) for fit, d, b in fits if d.table.is_likely and b.table.is_likely]
    by_size = [(d, b) for fit, d, b in likely if fit == BY_SIZE]
    # A single feature fits by chance.
    by_size = [(d, b) for d, b in by_size if b.rows("feature").size > 1 or not (d.turned or b.turned)]
    # Names that differ are an error. They are not taken for data in order that the sizes fit.
    others = [(d, b) for _, d, b in likely if _have_other_names(d.rows("feature"), b.rows("feature"))]
    turned, turned_others = ({(d.turned, b.turned) for d, b in pairs} for pairs in (by_size, others))
    if turned <= turned_others or _share_names(of_data, of_basis):
        raise UserError(_describe_misfit(data, basis, of_data, of_basis))
    if len(by_size) > 1 or others:
        raise UserError(_describe_choice(data, basis, [*by_size, *others]))
    return by_size[0], False


def _choose_shared(
    data: Path, basis: Path, of_data: Sequence[Reading], of_basis: Sequence[Reading]
) -> tuple[tuple[Reading, Reading], bool]:
    """Return the readings of the data and of the basis that have the most names of features in common, and True.

    Raises
    ------
    UserError
        If there are none, or several.
    """
    numbers: dict[tuple[int, bool], list[tuple[Reading, Reading]]] = {}
    for d in of_data:
        for b in of_basis:
            n_shared = len(_keys(d.rows("feature").labels or ()) & _keys(b.rows("feature").labels or ()))
            numbers.setdefault((n_shared, d.table.is_likely and b.table.is_likely), []).append((d, b))
    (n_shared, _), chosen = max(numbers.items(), key=lambda item: item[0])
    if n_shared == 0:
        raise UserError(
            f'--shared-features: "{data}" and "{basis}" have no names of features in common. '
            "The features must be the rows or the columns of both, with names that are written in the same way."
        )
    if len(chosen) > 1:
        raise UserError(_describe_choice(data, basis, chosen))
    return chosen[0], True


def read_values(
    path: Path,
    option: str,
    inner: Axis,
    outer: Axis | None,
    outer_in_rows: bool,
    missing: float | None = None,
    *,
    may_have_more: bool = False,
) -> np.ndarray:
    """Read the values of an option from a table: one for each feature, component or sample, or also one for each pair.

    Parameters
    ----------
    path : Path
        The file.
    option : str
        The name of the option, for messages.
    inner : Axis
        What there is a value for.
    outer : Axis, optional
        The samples, if each sample may have values of its own.
    outer_in_rows : bool
        Whether the data have a sample in each row: tables that could be read in both ways are read like the data.
    missing : float, optional
        What an empty cell stands for. By default, no cell may be empty.
    may_have_more : bool
        Whether values for others than `inner` are left out. By default, they are an error.

    Returns
    -------
    (n_inner,) or (n_inner, n_outer) ndarray
        The values, in the order of the axes.
    """
    with input_errors():
        readings = _readings(path, read_table(path), None, None, option)
    if may_have_more and inner.labels:
        wanted = _keys(inner.labels)
        covers = [wanted < _keys(reading.rows(inner.what).labels or ()) for reading in readings]
        readings = [
            reading.with_rows(wanted) if has_more else reading
            for reading, has_more in zip(readings, covers, strict=True)
        ]
    fits = []
    other_names: set[bool] = set()
    for reading in readings:
        rows, columns = reading.rows(inner.what), reading.columns("column")
        if not reading.table.is_likely and _fit(rows, inner) != BY_LABELS:
            continue
        of_rows, of_columns = _fit(rows, inner), NOT
        if columns.size == 1:
            of_columns = BY_SIZE
        elif outer is not None:
            of_columns = _fit(columns, outer)
        if _have_other_names(rows, inner):
            other_names.add(reading.turned)
        elif of_rows and of_columns:
            fits.append((of_rows + of_columns, reading.turned == outer_in_rows, reading))
    expected = f"one value for each of {counted(inner.size, inner.what)}"
    if outer is not None:
        expected += f", or a table of them with {counted(outer.size, outer.what)}"
    fits = [fit for fit in fits if fit[2].turned not in other_names]
    if not fits:
        values, misfit = _likely(readings)[0].table.values, ""
        named = [axis for axis in (reading.rows(inner.what) for reading in readings) if axis.labels and inner.labels]
        if named:
            lacking, unknown = _missing_labels(named[0], inner), _missing_labels(inner, named[0])
            misfit += f" It lacks {_quoted(lacking)}." if lacking else ""
            misfit += f" There is no {inner.what} {_quoted(unknown)}." if unknown else ""
        raise UserError(
            f'{option}: "{path}" has {counted(values.shape[0], "row")} and {counted(values.shape[1], "column")} of '
            f"numbers, expected {expected}.{misfit}"
        )
    best = max(fit[:2] for fit in fits)
    chosen = [fit[2] for fit in fits if fit[:2] == best]
    if len(chosen) > 1:
        raise UserError(
            f'{option}: "{path}" can be read in more than one way. Write {expected}, with labels in the first row and '
            "in the first column."
        )
    reading = chosen[0]
    rows, columns = reading.rows(inner.what), reading.columns("column")
    _check_distinct(rows, path)
    values = reading.table.values
    values = values.toarray() if issparse(values) else values
    if _fit(rows, inner) == BY_LABELS:
        values = values[_order(inner.labels, rows.labels)]
    if missing is not None:
        values = np.where(np.isnan(values), missing, values)
    if columns.size == 1:
        check_numbers(values, path, inner, None)
        return np.asarray(values[:, 0])
    if outer is not None and _fit(columns, outer) == BY_LABELS:
        _check_distinct(columns, path)
        values = values[:, _order(outer.labels, columns.labels)]
    check_numbers(values, path, inner, outer)
    return np.asarray(values)


def _basis_readings(path: Path, components: str | None, layout: str | None) -> tuple[list[Reading], str]:
    """Return the readings of a basis, and the unit of its activations."""
    if table_ending(path) != ".npz":
        with input_errors():
            return _readings(path, read_table(path), components, layout, "--basis-labels"), ""
    dictionary = load_dictionary(path, of_sounds=False)
    for value, option in ((components, "--components"), (layout, "--basis-labels")):
        if value is not None:
            raise UserError(f'{option} {value} is for tables, but "{path}" is a dictionary: leave it out.')
    table = Table(dictionary.W, dictionary.features, dictionary.labels)
    return [Reading(table, False)], dictionary.units


def _readings(
    path: Path, tables: Iterable[Table], columns_in: str | None, layout: str | None, option: str
) -> list[Reading]:
    """Return the readings of a file that the options allow, those with the shared axis in the rows first."""
    tables = list(tables)
    allowed = [replace(table, is_likely=True) for table in tables if table.layout == layout] if layout else tables
    if not allowed:
        found = " or ".join(sorted({table.layout for table in tables}))
        raise UserError(f'{option} {layout} does not suit "{path}", which was read as {option} {found}.')
    return [
        Reading(table.transposed if turned else table, turned)
        for turned in (False, True)
        if columns_in in (None, "rows" if turned else "columns")
        for table in allowed
    ]


def _axis(what: str, size: int, labels: tuple[str, ...] | None) -> Axis:
    return Axis(what, size, None if labels is None or counts_up(labels) else labels)


def _fit(first: Axis, second: Axis) -> int:
    """Return how two axes fit: NOT, BY_SIZE or BY_LABELS."""
    if first.size != second.size:
        return NOT
    if first.labels is None or second.labels is None:
        return BY_SIZE
    return BY_LABELS if _order(first.labels, second.labels) is not None else NOT


def _have_other_names(first: Axis, second: Axis) -> bool:
    """Return whether two axes have the same size, and both have names, but not the same ones."""
    return first.size == second.size and bool(first.labels and second.labels) and _fit(first, second) == NOT


def _share_names(of_data: Sequence[Reading], of_basis: Sequence[Reading]) -> bool:
    """Return whether the features have a name in common, however the tables are turned."""
    pairs = _named_features(of_data, of_basis)
    return any(_keys(own.labels or ()) & _keys(other.labels or ()) for own, other in pairs)


def _named_features(of_data: Sequence[Reading], of_basis: Sequence[Reading]) -> list[tuple[Axis, Axis]]:
    """Return the features of both tables where both have names, with as many labels as the files may have."""
    of_both = []
    for readings in (of_data, of_basis):
        likely = _likely(readings)
        of_both.append([reading.rows("feature") for reading in likely if _layout(reading) == _layout(likely[0])])
    return [(own, other) for own in of_both[0] for other in of_both[1] if own.labels and other.labels]


def _keys(labels: Iterable[str]) -> set[str | float]:
    """Return labels, and numbers instead of those that are numbers."""
    return set(map(_key, labels))


def _key(label: str) -> str | float:
    """Return a label, or a number instead if it is one."""
    try:
        number = float(label)
    except ValueError:
        return label
    return label if np.isnan(number) else number


def _order(first: Sequence[str] | None, second: Sequence[str] | None) -> np.ndarray | None:
    """Return the positions of the first labels among the second, None if these are not the same ones.

    Labels that are numbers are compared as numbers, also if they differ by rounding.
    """
    if first is None or second is None:
        return None
    of_first, of_second = np.argsort(np.array(first)), np.argsort(np.array(second))
    same = np.array_equal(np.array(first)[of_first], np.array(second)[of_second])
    if not same:
        try:
            numbers, others = np.array(first, np.float64), np.array(second, np.float64)
        except ValueError:
            return None
        of_first, of_second = np.argsort(numbers), np.argsort(others)
        if not np.allclose(numbers[of_first], others[of_second], rtol=1e-9, atol=0.0):
            return None
    order = np.empty(len(of_first), np.intp)
    order[of_first] = of_second
    return order


def _check_distinct(axis: Axis, path: Path) -> None:
    """Raise if a label occurs more than once."""
    repeated = _repeated(axis.labels or ())
    if repeated:
        raise UserError(f'"{path}" {_has_repeated(axis.what, repeated)}: give them different names.')


def _repeated(labels: Iterable[str], key: Callable[[str], str | float] | None = None) -> list[str]:
    """Return the labels that occur more than once, each of them once. By default, numbers are compared as numbers."""
    of_key: dict[str | float, list[str]] = {}
    for label in labels:
        of_key.setdefault((key or _key)(label), []).append(label)
    return [same[0] for same in of_key.values() if len(same) > 1]


def _has_repeated(what: str, repeated: Sequence[str]) -> str:
    """Return the sentence about labels that occur more than once, without its subject."""
    return f"has more than one {what} with the {'name' if len(repeated) == 1 else 'names'} {_quoted(repeated)}"


def check_numbers(
    values: Any,
    path: Path,
    rows: Axis,
    columns: Axis | None,
    remedy: str = "It must be 0 or more.",
    *,
    missing: bool = False,
) -> None:
    """Raise if a value of a file is negative or, unless this is allowed, missing.

    Parameters
    ----------
    values : (n_rows,), (n_rows, n_columns) array or sparse matrix
        The values.
    path : Path
        The file.
    rows, columns : Axis
        What there are values for; no columns if there is one value for each row.
    remedy : str
        What to do, for the message.
    missing : bool
        Whether values may be missing.
    """
    cells = values.data if issparse(values) else values
    for wrong, words in ((np.isnan(cells) & (not missing), "is missing"), (cells < 0, "is negative")):
        if not wrong.any():
            continue
        if issparse(values):
            entries = values.tocoo()
            row, column = (int(places[wrong.argmax()]) for places in (entries.row, entries.col))
        else:
            row, column = (*map(int, np.argwhere(wrong)[0]), 0)[:2]
        place = rows.name(row) + (f", {columns.name(column)}" if columns else "")
        others = f" ({wrong.sum() - 1} more)" if wrong.sum() > 1 else ""
        raise UserError(f'"{path}": the value of {place} {words}{others}. {remedy}')


def _describe_reading(path: Path, reading: Reading, what_rows: str, what_columns: str) -> str:
    """Return what the rows and the columns of a file are."""
    shared, other = reading.rows(what_rows), reading.columns(what_columns)
    parts = []
    for axis, place in (
        (shared, "columns" if reading.turned else "rows"),
        (other, "rows" if reading.turned else "columns"),
    ):
        labels = axis.labels
        named = f" ({listed(list(labels), 2)})" if labels else " without names"
        parts.append(f"{counted(axis.size, axis.what)} in {place}{named}")
    values = reading.table.values
    missing = 0 if issparse(values) else int(np.isnan(values).sum())
    if missing:
        parts.append(f"{counted(missing, 'value')} missing")
    if reading.table.note:
        parts.append(reading.table.note)
    return f"{path}: {', '.join(parts)}."


def _describe_match(order: np.ndarray | None, unnamed: Sequence[str]) -> str:
    """Return how features are matched: by name, in this order, or by position, because some tables have no names."""
    if order is None:
        have = "have" if len(unnamed) > 1 else "has"
        return f"by position, because {' and '.join(unnamed)} {have} no names for them"
    kind = "the same" if np.array_equal(order, np.arange(len(order))) else "another"
    return f"by name; they are in {kind} order in the two files"


def _describe_left_out(*tables: tuple[Path, Axis]) -> str:
    """Return which features of two tables are left out, because the other table does not have them."""
    (_, own), (_, other) = tables
    lacking = [_missing_labels(other, own), _missing_labels(own, other)]
    left_out = [
        f"{counted(len(labels), 'feature')} of {path} ({listed(labels, SHOWN)})"
        for labels, (path, _) in zip(lacking, tables, strict=True)
        if labels
    ]
    if not left_out:
        return "Both have the same features: none is left out."
    n_shared = own.size - len(lacking[0])
    number = sum(map(len, lacking))
    are = "is" if number == 1 else "are"
    return f"Left out {are} {' and '.join(left_out)}; both have {counted(n_shared, 'feature')}."


def _describe_choice(data: Path, basis: Path, chosen: Sequence[tuple[Reading, Reading]]) -> str:
    """Return the message about tables that fit together in more than one way."""

    def values(part: int, of: Callable[[Reading], Any]) -> set[Any]:
        return {of(pair[part]) for pair in chosen}

    for part, path, option in ((0, data, "--labels"), (1, basis, "--basis-labels")):
        layouts = sorted(values(part, _layout))
        if len(layouts) > 1:
            return (
                f'"{path}" does not say whether its first row or its first column has labels or data, because they are '
                f"numbers. Pass {' or '.join(f'{option} {layout}' for layout in layouts)}."
            )
    if len(values(0, lambda reading: reading.turned)) > 1:
        return (
            f'"{data}" may have a sample in each column or in each row; both fit "{basis}". Pass --samples columns or '
            "--samples rows."
        )
    return (
        f'"{basis}" may have a component in each column or in each row; both fit "{data}". Pass --components columns '
        "or --components rows."
    )


def _likely(readings: Sequence[Reading]) -> list[Reading]:
    """Return the readings that the contents of the files suggest."""
    return [reading for reading in readings if reading.table.is_likely]


def _layout(reading: Reading) -> str:
    """Return which labels the file of a reading has."""
    return (reading.table.transposed if reading.turned else reading.table).layout


def _describe_misfit(data: Path, basis: Path, of_data: Sequence[Reading], of_basis: Sequence[Reading]) -> str:
    """Return the message about tables that do not fit together."""
    named = _named_features(of_data, of_basis)
    doubtful = [
        f'If the first column of "{path}" has data, pass {option} first-row.'
        for path, readings, option in ((data, of_data, "--labels"), (basis, of_basis, "--basis-labels"))
        if {"both", "first-row"} <= {_layout(reading) for reading in readings}
    ]
    if named:
        own, other = max(named, key=lambda pair: len(_keys(pair[0].labels or ()) & _keys(pair[1].labels or ())))
        if _keys(own.labels or ()) & _keys(other.labels or ()):
            lacks = [(data, _missing_labels(own, other)), (basis, _missing_labels(other, own))]
            sentences = [f'"{path}" lacks {_quoted(missing)}.' for path, missing in lacks if missing]
            any_lacks = bool(sentences)
            if not sentences:
                twice = [(path, _repeated(axis.labels or ())) for path, axis in ((data, own), (basis, other))]
                sentences = [f'"{path}" {_has_repeated("feature", labels)}.' for path, labels in twice if labels]
            return (
                f'"{data}" and "{basis}" do not have the same features: {" ".join(sentences)} Both need the same ones, '
                f"in any order{', or pass --shared-features to leave out all others' if any_lacks else ''}."
            )
    sizes = [
        f'"{path}" has {counted(_likely(readings)[0].table.values.shape[0], "row")} and '
        f"{counted(_likely(readings)[0].table.values.shape[1], 'column')} of numbers"
        for path, readings in ((data, [r for r in of_data if not r.turned] or of_data), (basis, of_basis))
    ]
    message = f"{sizes[0]}, {sizes[1]}: "
    if named and any(own.size == other.size for own, other in named):
        own, other = next(pair for pair in named if pair[0].size == pair[1].size)
        sentences = [
            f"they have no names of features in common. The first has {_quoted(own.labels)}, the second "
            f"{_quoted(other.labels)}. Write the names in the same way.",
            *doubtful,
        ]
        return message + " ".join(sentences)
    return message + "the features must be the rows or the columns of both, and there must be as many of them."


def _missing_labels(axis: Axis, other: Axis) -> list[str]:
    """Return the labels of another axis that an axis does not have."""
    own = _keys(axis.labels or ())
    return [label for label in other.labels or () if _key(label) not in own]


def _quoted(labels: Sequence[str] | None) -> str:
    return listed([f'"{label}"' for label in labels or ()], SHOWN)
