"""Write the outputs of the commands. A file is written completely or not at all; its name is valid on every system."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from knownmf.cli.console import UserError, input_errors
from knownmf.extras import command_extra
from knownmf.files import created_folder, written_aside

if TYPE_CHECKING:
    from matplotlib.figure import Figure


__all__ = [
    "REPLACE_MANY",
    "RESUME",
    "check_bare_name",
    "check_folder",
    "check_outputs",
    "check_picture",
    "folder_and_name",
    "write_picture",
]

PICTURES = (".png", ".pdf", ".svg")

# What looks like the ending of a file, as in "events.mid". Folders have names such as "version 1.2".
_ENDING_OF_FILE = re.compile(r"\.[a-z]{2,7}")

# What to do about a result that exists already, for one recording or table, and for many recordings.
REPLACE = "choose another name, or replace it with --force"
REPLACE_MANY = "choose another folder, or replace all with --force"
RESUME = "continue with --resume, which skips what is finished, choose another folder, or replace all with --force"


def check_outputs(
    outputs: Iterable[Path],
    *,
    force: bool,
    inputs: Iterable[Path] = (),
    endings: Sequence[str] = (),
    remedy: str = REPLACE,
) -> None:
    """Raise if files cannot or must not be written. Called before a long computation, not after it.

    Parameters
    ----------
    outputs : iterable of Path
        The files to be written.
    force : bool
        Whether files may be replaced.
    inputs : iterable of Path
        Files that the command reads. They are never replaced, even with `force`.
    endings : sequence of str
        The endings that are allowed, such as ``(".npz", ".csv")``; empty if every ending is.
    remedy : str
        What to do about a file that exists.

    Raises
    ------
    UserError
        If a file has another ending, exists while `force` is false, is an input, or is in a place where no file can be
        written.
    """
    read = {os.path.realpath(path) for path in inputs}
    for path in outputs:
        if endings and not path.name.lower()[1:].endswith(tuple(endings)):
            raise UserError(f'"{path}" must end in {" or ".join(endings)}: the ending selects the format.')
        with input_errors():
            folder, exists = path.is_dir(), path.exists() or path.is_symlink()
            is_result = path.suffix.lower() == ".zarr" and (path / "zarr.json").exists()
        if folder and not is_result:
            raise UserError(f'"{path}" is a folder: choose the name of a file.')
        if os.path.realpath(path) in read:
            raise UserError(f'"{path}" is an input of this command and would be overwritten: write to another file.')
        if exists and not force:
            raise UserError(f'"{path}" exists already: {remedy}.')
        _check_writable(path.parent)


def check_picture(picture: Path | None, force: bool, inputs: Iterable[Path], remedy: str = REPLACE) -> None:
    """Raise if a picture is wanted but cannot or must not be written."""
    if picture is not None:
        # Where it cannot write to the home folder, Matplotlib uses a temporary folder, which is not worth a message.
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        with command_extra():
            import matplotlib  # noqa: F401 - report that it is missing now, before any work

        check_outputs([picture], force=force, inputs=inputs, endings=PICTURES, remedy=remedy)


def folder_and_name(out: Path, endings: Sequence[str], name: str) -> tuple[Path, str]:
    """Return the folder for the results of many recordings, and the name of the file that each of them gets.

    Parameters
    ----------
    out : Path
        What the user passed: a folder, or the name of a file in it, as in ``FOLDER/NAME.csv``.
    endings : sequence of str
        The possible endings of the file; empty if several files are written for each recording.
    name : str
        The name of the file if the user passed a folder.

    Raises
    ------
    UserError
        If the last part of the path looks like the name of a file, but no file with its ending can be written.
    """
    ending = out.suffix.lower()
    if ending in endings:
        return out.parent, out.name
    if endings and _ENDING_OF_FILE.fullmatch(ending) and not out.is_dir():
        raise UserError(
            f'"{out}" looks like the name of a file, which must end in {" or ".join(endings)}. For several recordings, '
            f"pass a folder or FOLDER/NAME{endings[-1]}: each recording gets a file with this name in its own folder."
        )
    return out, name


def check_bare_name(picture: Path | None) -> None:
    """Raise if the picture that each of many recordings gets in its own folder is passed with a folder."""
    if picture is not None and picture != Path(picture.name):
        raise UserError(
            f'--picture "{picture}" names a folder: for several recordings, pass a file name only, such as '
            f"{picture.name}. Each recording gets a picture with this name in its own folder."
        )


def check_folder(folder: Path) -> None:
    """Raise if no files can be written in a folder. Called before a long computation, not after it.

    Parameters
    ----------
    folder : Path
        The folder; it need not exist yet.

    Raises
    ------
    UserError
        If it is a file, or the user has no permission to create it or to write in it.
    """
    with input_errors():
        if folder.exists() and not folder.is_dir():
            raise UserError(f'"{folder}" is a file, but a folder is needed: choose another name.')
    _check_writable(folder)


def write_picture(path: Path, picture: Figure) -> None:
    """Write a figure in the format that the ending of the file selects."""
    with created_folder(path.parent), written_aside(path) as file, warnings.catch_warnings():
        # Characters that no font has are drawn as empty boxes; a warning for each of them is not needed.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        picture.savefig(file, format=path.suffix[1:].lower())


def _check_writable(folder: Path) -> None:
    """Raise if the user cannot write in a folder, or in its nearest parent that exists."""
    while not os.path.lexists(folder):  # also false where the user has no permission to look
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f'"{folder}" is not a folder: choose another place.')
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f'You have no permission to write in "{folder}": choose another place.')
