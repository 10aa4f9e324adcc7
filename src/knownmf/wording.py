"""Format numbers and names for messages: counted nouns, percentages, sizes, text without control codes."""

import math
import unicodedata
from collections.abc import Sequence

__all__ = ["counted", "listed", "percent", "printable", "size_of_memory"]

# The joiners of emoji and of Arabic and Indic scripts: format characters that do not change how other text is shown.
_JOINERS = "\u200c\u200d"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, in the singular or in the plural.

    Parameters
    ----------
    number : int
        How many there are.
    noun : str
        The noun in the singular.
    plural : str, optional
        The noun in the plural; by default the singular with an "s".

    Examples
    --------
    >>> counted(1, "frame"), counted(2, "frame"), counted(0, "entry", "entries")
    ('1 frame', '2 frames', '0 entries')
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def listed(names: Sequence[str], most: int = 8) -> str:
    """Return the first names, at most `most`, and how many more there are.

    Examples
    --------
    >>> listed(["kick", "snare"]), listed(["C4", "D4", "E4"], 2)
    ('kick, snare', 'C4, D4 and 1 more')
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def percent(share: float, digits: int | None = None) -> str:
    """Return a share as a percentage.

    Parameters
    ----------
    share : float
        The share, where 1 is 100 %.
    digits : int, optional
        The number of significant digits, for tolerances and gaps. By default the percentage is rounded down to one
        decimal place, so that only a share of 1 is shown as 100 %.

    Examples
    --------
    >>> percent(0.99999), percent(1.0), percent(0.5)
    ('99.9 %', '100 %', '50 %')
    >>> percent(1e-4, digits=3), percent(2.345e-9, digits=2)
    ('0.01 %', '2.3e-07 %')
    """
    if digits is not None:
        return f"{100 * share:.{digits}g} %"
    # The small number keeps 0.29, which is stored as slightly less, from being shown as 28.9 %.
    return f"{math.floor(share * 1000 + 1e-9) / 10:g} %"


def size_of_memory(n_bytes: float) -> str:
    """Return a number of bytes in a readable unit.

    Examples
    --------
    >>> size_of_memory(3.2 * 2**30), size_of_memory(2**20 * 12.3)
    ('3.2 GiB', '12 MiB')
    """
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.0f} MiB"


def printable(text: str) -> str:
    r"""Return a text in which control codes are replaced by escape sequences.

    Labels and file names may contain any character. A terminal would execute control codes, and characters that change
    the direction of writing would hide other characters.

    Parameters
    ----------
    text : str
        Any text, also with surrogates, which stand for bytes of a file name that are not valid UTF-8.

    Examples
    --------
    >>> printable("kick\x1b[31m\n")
    'kick\\x1b[31m\\n'
    >>> printable("caf\udce9 \u202e")
    'caf\\xe9 \\u202e'
    """
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    """Return an escape sequence for a control code, a format character, a surrogate or a line separator."""
    if "\udc80" <= character <= "\udcff":  # a byte of a file name that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    control = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _JOINERS
    return character.encode("unicode_escape").decode() if control else character
