"""Limits of the activations besides H >= 0: upper bounds, and totals that the activations of a frame sum to."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from knownmf.validation import check_range, real_array

# How far activations, in double and in single precision, may lie beyond a limit and still count as within it, as a
# share of the limit.
TOLERANCE, TOLERANCE_SINGLE = 1e-9, 1e-5
# The same share for limits that are compared with each other, whose sums are rounded.
ROUNDING = 1e-12


class LimitArguments(NamedTuple):
    """Limits as the caller passes them, before they are checked."""

    upper: ArrayLike | None = None
    total: ArrayLike | None = None
    max_total: ArrayLike | None = None


NO_LIMITS = LimitArguments()


@dataclass(frozen=True, eq=False)
class Limits:
    """Limits of activations, checked.

    Attributes
    ----------
    upper : (n_components,) or (n_components, n_frames) array, or None
        Upper bounds; infinite where there is none.
    total : () or (n_frames,) array, or None
        What the activations of a frame sum to.
    max_total : () or (n_frames,) array, or None
        What the activations of a frame sum to at most; infinite where there is no such limit. Only without ``total``.
    """

    upper: NDArray[np.float64] | None = None
    total: NDArray[np.float64] | None = None
    max_total: NDArray[np.float64] | None = None

    @classmethod
    def check(
        cls,
        given: LimitArguments,
        n_components: int,
        n_frames: int | None,
        frame: str = "frame",
        frames_in_rows: bool = False,
        first: int = 0,
    ) -> Self:
        """Check limits, and return them.

        Parameters
        ----------
        given : LimitArguments
            The limits as the caller passed them.
        n_components : int
            The number of components.
        n_frames : int or None
            The number of frames; None where limits are for frames that are not known yet, which share them.
        frame : str
            What the caller calls a frame.
        frames_in_rows : bool
            Whether a table of bounds has a frame in each row.
        first : int
            The number of the first frame, for messages.

        Raises
        ------
        ValueError
            If a shape does not fit, a value is negative or NaN, a total is infinite, or both totals are given.
        """
        if given.total is not None and given.max_total is not None:
            raise ValueError("total and max_total are both given: pass the one that the activations have to satisfy.")
        return cls(
            _check_upper(given.upper, n_components, n_frames, frame, frames_in_rows, first),
            _check_total(given.total, "total", n_frames, frame, first),
            _check_total(given.max_total, "max_total", n_frames, frame, first, may_be_infinite=True),
        )

    def __bool__(self) -> bool:
        return self.upper is not None or self.total is not None or self.max_total is not None

    def or_else(self, others: Self) -> Self:
        """Return these limits; where there is none, the corresponding one of ``others``."""
        has_total = self.total is not None or self.max_total is not None
        return replace(
            self,
            upper=self.upper if self.upper is not None else others.upper,
            total=self.total if has_total else others.total,
            max_total=self.max_total if has_total else others.max_total,
        )

    def check_feasible(
        self, support: NDArray | None, n_components: int, frame: str = "frame", first_frame: int = 0
    ) -> None:
        """Raise if no activations inside the support satisfy the limits of a frame.

        Parameters
        ----------
        support : (n_components,) or (n_components, n_frames) array, or None
            Zeros and ones: which components a frame may use.
        n_components : int
            The number of components.
        frame : str
            What the caller calls a frame.
        first_frame : int
            The number of the first frame, for messages.

        Raises
        ------
        ValueError
            Names the first such frame, its total, and the largest sum that it may have.
        """
        if self.total is None:
            return
        allowed = np.ones(n_components) if support is None else np.asarray(support, np.float64)
        bounds = np.full(n_components, np.inf) if self.upper is None else self.upper
        allowed, bounds = (values.reshape(n_components, -1) for values in (allowed, bounds))
        n_allowed = allowed.sum(axis=0)
        most = np.where(allowed > 0, bounds, 0.0).sum(axis=0)
        total, most, n_allowed = np.broadcast_arrays(np.atleast_1d(self.total), most, n_allowed)
        impossible = np.flatnonzero(total > most + ROUNDING * most)
        if not len(impossible):
            return
        first = impossible[0]
        named = len(total) > 1 or first_frame > 0
        of_frame = f" of {frame} {first_frame + first}" if named else ""
        reason = "support allows no component"
        if named:
            reason = f"support allows {frame} {first_frame + first} no component"
        if n_allowed[first]:
            reason = f"the upper bounds of the components that it may use sum to {most[first]:g}"
        others = f" (so it is for {len(impossible)} {frame}s)" if len(impossible) > 1 else ""
        raise ValueError(
            f"The total{of_frame} is {total[first]:g}, but {reason}{others}: lower total, or "
            f"{'raise upper' if n_allowed[first] else 'allow more components in support'}."
        )

    def check_satisfied(self, H: NDArray, frame: str = "frame") -> None:
        """Raise if activations, (n_components, n_frames), are beyond these limits by more than rounding."""
        tolerance = TOLERANCE if H.dtype == np.float64 else TOLERANCE_SINGLE
        H = H.astype(np.float64)
        sums = H.sum(axis=0)
        if self.upper is not None:
            bounds = self.upper.reshape(len(H), -1)
            beyond: NDArray[np.bool_] = H - bounds > tolerance * bounds
            _raise_for(np.logical_or.reduce(beyond), "upper", frame)
        for name, limit in (("total", self.total), ("max_total", self.max_total)):
            if limit is not None:
                excess = sums - limit
                wrong = np.abs(excess) if name == "total" else excess
                _raise_for(wrong > tolerance * np.maximum(limit, sums), name, frame)

    def rows(self, chunk: slice, n: int) -> Mapping[str, Any]:
        """Return the limits of some frames for the native code, by the names of its block."""
        rows: dict[str, Any] = {}
        if self.upper is not None:
            upper = self.upper[:, np.newaxis] if self.upper.ndim == 1 else self.upper[:, chunk]
            rows["upper"] = np.ascontiguousarray(np.broadcast_to(upper, (len(upper), n)).T)
        total = self.total if self.total is not None else self.max_total
        if total is not None:
            rows["total"] = np.ascontiguousarray(np.broadcast_to(total if total.ndim == 0 else total[chunk], (n,)))
            rows["total_is_most"] = self.total is None
        return rows


def _raise_for(wrong: NDArray[np.bool_], name: str, frame: str) -> None:
    """Raise if activations of a frame are beyond a limit."""
    if wrong.any():
        raise ValueError(
            f"The activations of {wrong.sum()} of {len(wrong)} {frame}s, the first of them {frame} "
            f"{np.argmax(wrong)}, do not satisfy {name}: pass activations that do, or leave out {name}."
        )


def _check_upper(
    values: ArrayLike | None, n_components: int, n_frames: int | None, frame: str, frames_in_rows: bool, first: int
) -> NDArray[np.float64] | None:
    """Return upper bounds as (n_components,) or (n_components, n_frames)."""
    if values is None:
        return None
    array = real_array(values, "upper", 0, 1, 2).astype(np.float64)
    _check_bounds(array, "upper", (first, 0) if frames_in_rows else (0, first))
    if array.ndim == 0 or array.shape == (n_components,):
        return np.full(n_components, array)
    if n_frames is not None:
        whole = (n_frames, n_components) if frames_in_rows else (n_components, n_frames)
        shared = (1, n_components) if frames_in_rows else (n_components, 1)
        if array.shape in (whole, shared):
            bounds = array.T if frames_in_rows else array
            return bounds[:, 0] if array.shape == shared else bounds
        names = f"(n_{frame}s, n_components)" if frames_in_rows else f"(n_components, n_{frame}s)"
        expected = f"one number, ({n_components},) for the components, or {names} = {whole}"
    else:
        expected = f"one number, or ({n_components},) for the components"
    raise ValueError(f"upper has shape {array.shape}, expected {expected}.")


def _check_total(
    values: ArrayLike | None,
    name: str,
    n_frames: int | None,
    frame: str,
    first: int,
    may_be_infinite: bool = False,
) -> NDArray[np.float64] | None:
    """Return a total as () or (n_frames,)."""
    if values is None:
        return None
    array = real_array(values, name, 0, 1).astype(np.float64)
    if may_be_infinite:
        _check_bounds(array, name, (first,))
    else:
        check_range(array, name, origin=(first,) if array.ndim else ())
    if array.ndim == 0 or array.shape == (n_frames,):
        return array
    expected = "one number" if n_frames is None else f"one number, or ({n_frames},) for the {frame}s"
    raise ValueError(f"{name} has shape {array.shape}, expected {expected}.")


def _check_bounds(array: NDArray, name: str, origin: tuple[int, ...]) -> None:
    """Raise if a bound is NaN or negative; infinite means that there is none.

    ``origin`` is the place of the first bound in the whole array, if the array has a value for each frame.
    """
    check_range(np.where(array == np.inf, 0.0, array), name, origin=origin if array.ndim == len(origin) else ())
