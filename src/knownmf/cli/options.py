"""The options that several commands share, and the types of all options: what they accept, and what they say if not.

The types raise errors in the words of the command line before any work begins. The library would raise them later, and
in the words of Python.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from knownmf.divergences import BETA_OF, BETA_RANGE

__all__ = [
    "LOSS",
    "MAX_ITER",
    "RARE",
    "TOL",
    "Adapt",
    "Basis",
    "Force",
    "Free",
    "Loss",
    "MaxIter",
    "Picture",
    "Quiet",
    "Recording",
    "Tol",
    "number",
    "to_path",
    "whole_number",
]

# The defaults of knownmf.audio, which is too slow to import here. tests/test_cli.py tests that they are equal.
LOSS = "kullback-leibler"
TOL = 1e-4
MAX_ITER = 200

# The heading in the help of options whose default is right for nearly all recordings.
RARE = "Options that you rarely need"


def number(expected: str, accepts: Callable[[float], bool]) -> Callable[[str | float], float]:
    """Return a function that converts the text of an option to a number, or raises an error that says what is expected.

    Parameters
    ----------
    expected : str
        What the option accepts, such as "a number from 0 to 1".
    accepts : callable
        Returns whether a number is in the range of the option. It must be false for NaN.
    """

    def convert(text: str | float) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not accepts(value):
            raise typer.BadParameter(f'"{text}", expected {expected}.')
        return value

    return convert


def whole_number(least: int, most: int = 2**31 - 1) -> Callable[[str | int], int]:
    """Return a function that converts the text of an option to a whole number from `least` to `most`, or raises."""

    def convert(text: str | int) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise typer.BadParameter(f'"{text}", expected a whole number from {least} to {most}.')
        return value

    return convert


def to_path(text: str | Path) -> Path:
    """Return the path that an option names. Raise if the text is empty: pathlib would read it as the working folder."""
    if not str(text):
        raise typer.BadParameter("the name is empty, expected the name of a file or folder.")
    return Path(text)


def _loss(text: str) -> str | float:
    """Return the name of a divergence, or beta as a number."""
    if text in BETA_OF:
        return text
    low, high = BETA_RANGE
    names = ", ".join(sorted(BETA_OF, key=lambda name: name != LOSS))
    return number(f"{names}, or a number from {low:g} to {high:g}", lambda beta: low <= beta <= high)(text)


Recording = Annotated[
    Path,
    typer.Argument(metavar="RECORDING", parser=to_path, help="The recording: a WAV, FLAC, OGG, MP3 or AIFF file."),
]
Basis = Annotated[
    Path,
    typer.Option(
        "--dictionary",
        "-d",
        metavar="FILE",
        parser=to_path,
        help="The dictionary of the sounds: a .npz file written by `knownmf learn`.",
    ),
]
Loss = Annotated[
    str,
    typer.Option(
        "--beta-loss",
        metavar="LOSS",
        rich_help_panel=RARE,
        parser=_loss,
        help="How the difference between the recording and the model is measured: kullback-leibler, frobenius (least "
        "squares), itakura-saito, or a number from -1 to 3 (these three are 1, 2 and 0). The larger the number, the "
        "more the loud parts of the recording count.",
    ),
]
Tol = Annotated[
    float,
    typer.Option(
        "--tol",
        metavar="SHARE",
        rich_help_panel=RARE,
        parser=number("a number of at least 0, such as 1e-4", lambda tol: 0 <= tol < float("inf")),
        help="How far the result of a frame (a short piece of the recording) may be from the best possible one, 0 or "
        "more: 0.0001 is 0.01 %. Larger values take less time and are less exact.",
    ),
]
MaxIter = Annotated[
    int,
    typer.Option(
        "--max-iter",
        metavar="STEPS",
        rich_help_panel=RARE,
        parser=whole_number(1, 2**63 - 1),
        help="The largest number of steps for a frame, 1 or more. Larger values help only if frames missed --tol.",
    ),
]
Free = Annotated[
    int,
    typer.Option(
        "--free",
        metavar="NUMBER",
        parser=whole_number(0),
        help="How many components (spectra) to learn from the recording for sounds that are not in the dictionary, 0 "
        'or more, for example 4. Together they are the sound "rest". With larger values, more of the recording goes '
        "there, possibly also parts of your sounds.",
    ),
]
Adapt = Annotated[
    float,
    typer.Option(
        "--adapt",
        metavar="AMOUNT",
        parser=number("a number from 0 to below 1", lambda adapt: 0 <= adapt < 1),
        help="How much the sounds of the dictionary may change to fit the recording, because they were recorded in "
        "another room or with another microphone: from 0 (not at all) to below 1, for example 0.3. With larger values, "
        "they follow the recording more and your examples less.",
    ),
]
Picture = Annotated[
    Path | None,
    typer.Option(
        "--picture", metavar="FILE", parser=to_path, help="Also write a picture of the result: .png, .pdf or .svg."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and warnings only.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace files that already exist.")]
