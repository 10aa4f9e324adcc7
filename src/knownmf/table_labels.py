"""Compare the labels of tables (pandas, polars), so that rows or columns in different orders are not combined."""

from collections.abc import Sequence
from numbers import Real
from typing import Any, Self

import numpy as np

from knownmf.wording import listed

SHOWN = 3  # labels that a message names


class TableLabels:
    """The labels of axes such as "bins" or "components": those of the first table that has labels for the axis.

    A table whose labels differ is refused, also if only their order differs. Arrays have no labels, and agree with
    everything. Labels that only count from 0, as pandas makes them by default, agree with labels of any other kind.
    """

    def __init__(self) -> None:
        self._first: dict[str, tuple[str, Any]] = {}

    def copy(self) -> Self:
        """Return a copy, to which labels of other axes can be added."""
        labels = type(self)()
        labels._first = dict(self._first)
        return labels

    def add(self, values: Any, name: str, *axes: str | None) -> None:
        """Add the labels of an argument.

        Parameters
        ----------
        values : object
            The argument: a table, or anything without labels.
        name : str
            The name of the argument, for messages.
        *axes : str
            What its rows are, and what its columns are; None for an axis whose labels do not matter.

        Raises
        ------
        ValueError
            If an axis has other labels in another argument, or the same ones in another order.
        """
        given = labels_of(values)
        for place, (axis, labels) in enumerate(zip(axes, given, strict=False)):
            if labels is None or axis is None:
                continue
            if axis not in self._first:
                self._first[axis] = name, labels
                continue
            first_name, first = self._first[axis]
            difference = describe_difference(first_name, first, name, labels)
            if difference:
                remedy = (
                    "Select the same labels in the same order in both tables, for example by the method reindex of "
                    "pandas."
                )
                if len(given) == 2 and given[1 - place] is not None and list(given[1 - place]) == list(first):
                    remedy = f"{name} may be transposed: pass {name}.T."
                raise ValueError(
                    f"{first_name} and {name} do not have the same labels for their {axis}: {difference}. {remedy}"
                )
            if labels is not first and _counts_from_zero(list(first)):
                self._first[axis] = name, labels  # labels that only count say less than any others

    def of(self, axis: str) -> Sequence[Any] | None:
        """Return the labels of an axis, None if no table had any."""
        return self._first[axis][1] if axis in self._first else None


def labels_of(values: Any) -> Sequence[Any]:
    """Return the labels of each axis of a table, None for an axis without labels; nothing if it is no table."""
    if isinstance(values, np.ndarray) or not hasattr(values, "to_numpy"):
        return ()
    if hasattr(values, "iloc"):  # pandas, which has labels for every axis
        return values.axes
    columns = getattr(values, "columns", None)
    if columns is None or columns == [f"column_{i}" for i in range(len(columns))]:  # polars makes these names itself
        return ()
    return None, columns


def row_names(table: Any) -> list[str]:
    """Return the labels of the rows of a table as text; nothing if they only count from 0, or if it is no table."""
    rows = next(iter(labels_of(table)), None)
    return [] if rows is None or _counts_from_zero(list(rows)) else [str(label) for label in rows]


def describe_difference(first_name: str, first: Any, second_name: str, second: Any) -> str:
    """Return in what way two sequences of labels differ; an empty text if they agree."""
    if first is second:
        return ""
    first, second = list(first), list(second)
    if first == second or _is_close(first, second):
        return ""
    first_only, second_only = _without(first, second), _without(second, first)
    if not first_only and not second_only:
        if len(first) != len(second):
            return f"some occur more than once, and {first_name} has {len(first)}, {second_name} has {len(second)}"
        at = next(i for i, (one, other) in enumerate(zip(first, second, strict=True)) if one != other)
        return f"their order differs, at position {at} {first_name} has {first[at]!r} and {second_name} {second[at]!r}"
    if _counts_from_zero(first) or _counts_from_zero(second):
        return ""
    lacks = ((second_name, first_only), (first_name, second_only))
    return " and ".join(
        f"{name} has no {listed([repr(label) for label in labels], SHOWN)}" for name, labels in lacks if labels
    )


def _is_close(first: list[Any], second: list[Any]) -> bool:
    """Return whether labels are numbers that differ by rounding only."""
    if len(first) != len(second) or not all(isinstance(label, Real) for label in (*first, *second)):
        return False
    return np.allclose(np.array(first, np.float64), np.array(second, np.float64), rtol=1e-9, atol=0.0)


def _without(labels: list[Any], others: list[Any]) -> list[Any]:
    """Return the labels that are not among the others."""
    present = set(others)
    return [label for label in labels if label not in present]


def _counts_from_zero(labels: list[Any]) -> bool:
    """Return whether labels are those that pandas makes by default: 0, 1, 2, ..."""
    return labels == list(range(len(labels)))
