"""Start the command ``knownmf``.

This module is not in the package because importing the package imports NumPy. A signal in the meantime, such as Ctrl-C,
ends the process with one line too.
"""

import os
import signal
from types import FrameType

__all__ = ["main"]


def main() -> None:
    """Run ``knownmf`` with the arguments of the process, and end the process with its exit code."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # nohup, for example, ignores SIGHUP
            signal.signal(number, _end_at_once)
    from knownmf.cli import main as run

    run()


def _end_at_once(number: int, frame: FrameType | None) -> None:
    """End the process. Nothing has been written yet, so that there is nothing to remove."""
    os.write(2, b"knownmf: stopped.\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()
