"""The command solve: activations of a table of data for a table of basis vectors."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.sparse import issparse

import knownmf
from knownmf.cli import options
from knownmf.cli.console import UserError, input_errors, print_line, progress_bar
from knownmf.cli.outputs import check_outputs, check_picture, write_picture
from knownmf.cli.summaries import describe_convergence
from knownmf.cli.tables import Axis, Problem, check_numbers, read_problem, read_values
from knownmf.divergences import beta_of
from knownmf.extras import tables_extra
from knownmf.files import created_folder, files_written_aside
from knownmf.memory import check_memory
from knownmf.table_files import LABELED_ENDINGS, TABLE_ENDINGS, table_ending, write_table
from knownmf.wording import counted, listed, percent

if TYPE_CHECKING:
    from knownmf.results import Activations

__all__ = ["solve"]

# How resamples are made, in words.
_MODELS = {"poisson": "Poisson counts around the model", "residual": "residuals around the model"}

TOL_OF_INFERENCE = 1e-8  # the default of knownmf.select and bootstrap: the gap must be small beside the noise


def solve(
    data: options.DataTable,
    *,
    basis: options.BasisTable,
    out: options.ActivationsTable,
    report: options.ReportTable = None,
    picture: options.HeatMap = None,
    beta_loss: options.LossOfTables = options.LOSS,
    l1: options.L1 = 0.0,
    l2: options.L2 = 0.0,
    upper: options.Upper = None,
    total: options.Total = None,
    max_total: options.MaxTotal = None,
    weights: options.Weights = None,
    background: options.Background = None,
    select: options.Select = None,
    standard_errors: options.StandardErrors = False,
    bootstrap: options.Bootstrap = None,
    samples: options.SamplesIn = None,
    components: options.ComponentsIn = None,
    labels: options.Layout = None,
    basis_labels: options.BasisLayout = None,
    shared_features: options.SharedFeatures = False,
    tol: options.TolOfTables = None,
    max_iter: options.MaxIterOfTables = options.MAX_ITER,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    force: options.Force = False,
) -> None:
    """Find the activations of a table of data, such as counts or spectra, for basis vectors that are known.

    Other words for activations are exposures, abundances, concentrations, usages and loadings. Each sample is
    approximated by a sum of basis vectors, each multiplied by its activation.

    Both tables have the same features, unless --shared-features leaves out those that only one of them has. If they
    have names, these are matched, in any order. The activations are written
    like the data: if the samples of the data are in columns, those of the activations are, too. Missing values in the
    data (empty cells, NA or NaN) are left out. The summary says how the tables were read.
    """
    if total is not None and max_total is not None:
        raise UserError("--total and --max-total were both passed: pass the one that the activations have to satisfy.")
    how_sure = [
        option
        for option, given in (
            ("--select", select is not None),
            ("--standard-errors", standard_errors),
            ("--bootstrap", bootstrap is not None),
        )
        if given
    ]
    for option, penalty in (("--l1", l1), ("--l2", l2)):
        if how_sure and penalty != 0:
            raise UserError(f"{how_sure[0]} cannot be combined with {option}: leave one of them out.")
    beta = beta_of(beta_loss)
    for option, has_range in (("--select", 1 <= beta <= 2), ("--bootstrap", beta >= 1)):
        if option in how_sure and not has_range:
            allowed = "from 1 to 2" if option == "--select" else "of at least 1"
            raise UserError(
                f"{option} needs a --beta-loss {allowed} (kullback-leibler is 1, frobenius is 2), not {beta:g}."
            )
    kinds = ["standard_errors"] * standard_errors + ["lower", "upper"] * (bootstrap is not None)
    files = {kind: _beside(out, kind) for kind in kinds}
    everything: tuple[object, ...] = (data, basis, l1, l2, upper, total, max_total, weights, background)
    inputs = [path for path in everything if isinstance(path, Path)]
    _check_outputs([out, *files.values()], report, picture, inputs, force)
    if tol is None:
        tol = TOL_OF_INFERENCE if how_sure else options.TOL
    tables: dict[Path, tuple[np.ndarray, str]] = {}
    with progress_bar("Solving", quiet=quiet) as progress:
        problem = read_problem(data, basis, samples, components, labels, basis_labels, only_shared=shared_features)
        read = partial(_values, problem)
        penalties = {
            "l1": read(l1, "--l1", problem.components, problem.samples),
            "l2": read(l2, "--l2", problem.components, problem.samples),
        }
        arrays = {
            "weights": read(weights, "--weights", problem.features, problem.samples),
            "background": read(background, "--background", problem.features, problem.samples),
            "upper": read(upper, "--upper", problem.components, problem.samples, missing=np.inf),
            "total": read(total, "--total", problem.samples),
            "max_total": read(max_total, "--max-total", problem.samples, missing=np.inf),
        }
        V, W = _checked_data(problem, data, beta, arrays), problem.W
        settings: dict[str, Any] = {"beta_loss": beta_loss, "tol": tol, "max_iter": max_iter, "progress": progress}
        with _in_words_of_tables(data, basis, problem):
            if select is None:
                found = knownmf.activations(V, W, **arrays, **penalties, **settings)
            else:
                found = knownmf.select(V, W, select, **arrays, **settings).found
            tables[out] = found.H, "activations"
            if standard_errors:
                errors = knownmf.standard_errors(V, W, found, **arrays)
                tables[files["standard_errors"]] = errors, "standard errors"
            if bootstrap is not None:
                model: Literal["poisson", "residual"] = "poisson" if beta == 1.0 and _are_counts(V) else "residual"
                support = None if select is None else found.H > 0
                resampled = knownmf.bootstrap(
                    V, W, bootstrap, model, random_state=seed, support=support, **arrays, **settings
                )
                for kind, bound, share in zip(("lower", "upper"), resampled.quantiles, ("2.5", "97.5"), strict=True):
                    described = f"{share} % quantiles of {bootstrap} resamples ({_MODELS[model]})"
                    tables[files[kind]] = bound, described
    _write_tables(tables, problem)
    for line in (*problem.lines, *_describe_fit(found, problem, select)):
        print_line(line, quiet=quiet)
    _warn_of_doubts(
        found, V, problem, limited=any(arrays[name] is not None for name in ("upper", "total", "max_total"))
    )
    for path, (_, what) in tables.items():
        print_line(f"Wrote {path}: {_describe_table(path, what, problem)}", quiet=quiet)
    if report is not None:
        _write_report(report, found, problem)
        print_line(f"Wrote {report}: {counted(problem.samples.size, 'sample')} in rows", quiet=quiet)
    if picture is not None:
        from knownmf.plots import activations_picture

        with progress_bar("Drawing", quiet=quiet):
            names = problem.components.names(), problem.samples.names()
            write_picture(picture, activations_picture(found.H, *names, units=problem.units))
        print_line(f"Wrote {picture}: activations", quiet=quiet)


def _beside(out: Path, kind: str) -> Path:
    """Return the name of a file of another kind next to a file, such as H.lower.csv.gz next to H.csv.gz."""
    ending = out.name[len(out.name) - len(table_ending(out)) :]
    return out.with_name(f"{out.name.removesuffix(ending)}.{kind}{ending}")


def _check_outputs(
    tables: list[Path], report: Path | None, picture: Path | None, inputs: list[Path], force: bool
) -> None:
    """Raise if an output cannot or must not be written, or if two have the same name."""
    check_outputs(tables, force=force, inputs=inputs, endings=TABLE_ENDINGS)
    reports = [path for path in (report,) if path is not None]
    check_outputs(reports, force=force, inputs=inputs, endings=LABELED_ENDINGS)
    check_picture(picture, force, inputs)
    paths = [*tables, *reports, *([picture] if picture is not None else [])]
    for n, path in enumerate(paths):
        if path in paths[:n]:
            raise UserError(f'"{path}" is the name of two outputs: choose different names.')
    if ".parquet" in map(table_ending, paths):
        with tables_extra():  # report now that a package is missing, before any work
            import pandas  # noqa: F401
            import pyarrow  # noqa: F401


def _are_counts(V: Any) -> bool:
    """Return whether all data that are not missing are whole numbers."""
    values = V.data if issparse(V) else V[~np.isnan(V)]
    return bool((values == np.floor(values)).all())


def _describe_fit(found: Activations, problem: Problem, select: str | None) -> list[str]:
    """Return how well the data are explained, by how many components, and how close the samples are to the optimum."""
    lines = []
    explained = found.explained[np.isfinite(found.explained)]
    if len(explained):
        median, lowest = (
            percent(share) if share >= 0 else "less than 0 %"
            for share in (float(np.median(explained)), explained.min())
        )
        lines.append(
            f"The components explain {median} of the deviance of a sample (the median; the lowest is {lowest})."
        )
    if select is not None:
        n_active = (found.H > 0).sum(axis=0)
        lines.append(
            f"{n_active.mean():.1f} of {counted(problem.components.size, 'component')} are active in a sample on "
            f"average, from {n_active.min()} to {n_active.max()}."
        )
    counts = len(found.converged), int(found.converged.sum()), float(found.criterion.max()), found.beta, found.tol
    return [*lines, describe_convergence(*counts, "sample")]


def _warn_of_doubts(found: Activations, V: Any, problem: Problem, limited: bool) -> None:
    """Warn if most samples are fitted worse than by a constant, and if samples have no values at all."""
    explained = found.explained[np.isfinite(found.explained)]
    if len(explained) and np.median(explained) < 0.0:
        reason = "--upper, --total or --max-total does not fit the scale of the data, or " if limited else ""
        warnings.warn(
            f"Most samples are fitted worse than by one number for all features: {reason}these are not the components "
            "of the data.",
            UserWarning,
            stacklevel=2,
        )
    if issparse(V):
        return
    empty = np.flatnonzero(np.isnan(V).all(axis=0)).tolist()
    if empty:
        names = listed([problem.samples.name(position).removeprefix("sample ") for position in empty])
        warnings.warn(
            f"{counted(len(empty), 'sample')} without any value ({names}): nothing is known of the activations that "
            "are written for them.",
            UserWarning,
            stacklevel=2,
        )


def _values(
    problem: Problem, value: Any, option: str, inner: Axis, outer: Axis | None = None, missing: float | None = None
) -> Any:
    """Return a number or None as it is, and the values in a file in the order of the axes."""
    if not isinstance(value, Path):
        return value
    may_have_more = problem.is_shared and inner is problem.features
    return read_values(value, option, inner, outer, problem.samples_in_rows, missing, may_have_more=may_have_more)


def _checked_data(problem: Problem, path: Path, beta: float, arrays: dict[str, Any]) -> Any:
    """Return the data, as a dense array if the loss or an option needs one. Raise if a value is negative."""
    V, weights = problem.V, arrays["weights"]
    if issparse(V) and (
        beta not in (1.0, 2.0) or arrays["background"] is not None or (weights is not None and weights.ndim == 2)
    ):
        check_memory(8 * V.shape[0] * V.shape[1], f'"{path}"', "leave out options that need all of its zeros")
        V = V.toarray()
    if beta != 2.0:
        remedy = "Negative values need --beta-loss frobenius (least squares)."
        check_numbers(V, path, problem.features, problem.samples, remedy, missing=True)
    return V


# Advice of the library that is for Python, and what to do on the command line.
_ADVICE = {
    r"leave the weights out, or pass dispersion=.*": "leave out --weights or --select.",
    r"look at their goodness of fit, or pass a dispersion or a smaller criterion": (
        "look at their deviance (--report), or pass a smaller number as --select"
    ),
    r"Remedy: (convert V|pass -V).*": (
        "Change the sign if only that is wrong, or undo a logarithm (such as decibels) or the subtraction of a mean."
    ),
}


@contextlib.contextmanager
def _in_words_of_tables(data: Path, basis: Path, problem: Problem) -> Iterator[None]:
    """Turn messages of the library about spectrograms into messages about tables."""

    def place(match: re.Match[str]) -> str:
        sample = f", {problem.samples.name(int(match[2]))}" if match[2] else ""
        return f"The weight of {problem.features.name(int(match[1]))}{sample}"

    def reworded(message: str) -> str:
        for pattern, advice in _ADVICE.items():
            message = re.sub(pattern, advice, message)
        message = re.sub(r"\bweights\[(\d+)(?:, (\d+))?\]", place, message)
        message = re.sub(r"\bframe (\d+)\b", lambda match: problem.samples.name(int(match[1])), message)
        message = re.sub(r"\bframe(s?)\b", r"sample\1", message)
        message = re.sub(r"\bbin(s?)\b", r"feature\1", message)
        message = re.sub(r"\b(lower|raise) (total|upper)\b", r"\1 --\2", message)
        message = re.sub(r"\bV\b", f'"{data}"', message)
        return re.sub(r"\bW\b", f'"{basis}"', message)

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    except (TypeError, ValueError) as error:
        with input_errors():
            raise ValueError(reworded(str(error))) from error
    for warning in caught:
        warnings.warn(reworded(str(warning.message)), warning.category, stacklevel=2)


def _write_tables(tables: dict[Path, tuple[np.ndarray, str]], problem: Problem) -> None:
    """Write tables of the size of the activations into one folder: all of them, or none."""
    components, samples = problem.components.names(), problem.samples.names()
    with files_written_aside(next(iter(tables)).parent) as folder:
        for path, (values, _) in tables.items():
            if problem.samples_in_rows:
                write_table(folder / path.name, values.T, samples, components, problem.corner or "sample")
            else:
                write_table(folder / path.name, values, components, samples, "component")


def _describe_table(path: Path, what: str, problem: Problem) -> str:
    """Return what is in the rows and in the columns of a table of the size of the activations."""
    places = ("columns", "rows") if problem.samples_in_rows else ("rows", "columns")
    axes = f"{counted(problem.components.size, 'component')} in {places[0]}, "
    axes += f"{counted(problem.samples.size, 'sample')} in {places[1]}"
    named = problem.components.labels or problem.samples.labels
    lost = " (this format has no names; both are in the order of the inputs)"
    return f"{what}, {axes}{lost if named and table_ending(path) not in LABELED_ENDINGS else ''}"


def _write_report(path: Path, found: Activations, problem: Problem) -> None:
    """Write a table with a row for each sample."""
    columns = {
        "total": found.H.sum(axis=0, dtype=np.float64),
        "active_components": (found.H > 0).sum(axis=0),
        "deviance": found.deviance,
        "explained": found.explained,
        "objective": found.objective,
        "gap": found.gap,
        "relative_gap": found.relative_gap,
        "kkt": found.kkt,
        "steps": found.n_iter,
        "converged": found.converged.astype(int),
    }
    values = np.column_stack([column.astype(object) for column in columns.values()])
    with created_folder(path.parent):
        write_table(path, values, problem.samples.names(), list(columns), "sample")
