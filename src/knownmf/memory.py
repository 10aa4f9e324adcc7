"""Determine how much memory this process may still take, and refuse work that needs more."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

from knownmf.wording import size_of_memory

__all__ = ["TooLittleMemoryError", "available_memory", "check_memory"]

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")

# Where Linux stores the limit of a control group (a container, a batch job), what the group uses, and the name of the
# part of it that files occupy and that the system can take back; for version 2 and version 1 of control groups.
_GROUP_FILES = (
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


class TooLittleMemoryError(MemoryError):
    """Some work was refused because it needs more memory than there is."""


def check_memory(n_bytes: float, what: str, remedy: str) -> None:
    """Raise a TooLittleMemoryError if some work needs more memory than there is.

    Parameters
    ----------
    n_bytes : float
        How much the work needs.
    what, remedy : str
        The work, and what to do instead, for the message.
    """
    available = available_memory()
    if n_bytes > available:
        raise TooLittleMemoryError(
            f"{what} needs about {size_of_memory(n_bytes)} of memory, but only {size_of_memory(available)} are "
            f"available: {remedy}."
        )


def available_memory(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> float:
    """Return the number of bytes that this process may still take; infinity where the system does not say it.

    Parameters
    ----------
    proc, cgroups : Path
        The folders in which Linux describes processes and control groups.
    """
    return min(_of_machine(proc), _of_process(proc), *_of_groups(proc, cgroups))


def _of_machine(proc: Path) -> float:
    """Return what the machine has left, including memory on disks; the size of its memory where only that is known."""
    try:
        lines = (line.split(":") for line in (proc / "meminfo").read_text().splitlines())
        sizes = {name: 1024 * int(size.split()[0]) for name, size in lines}
        return sizes["MemAvailable"] + sizes.get("SwapFree", 0)
    except (OSError, ValueError, LookupError):
        pass
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # Windows, and systems without these names
        return math.inf


def _of_process(proc: Path) -> float:
    """Return what the limit on the address space of the process (`ulimit -v`) leaves."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit == resource.RLIM_INFINITY:
            return math.inf
        return float(limit - int((proc / "self/statm").read_text().split()[0]) * resource.getpagesize())
    except (ImportError, OSError, ValueError, LookupError):
        return math.inf


def _of_groups(proc: Path, cgroups: Path) -> Iterator[float]:
    """Yield what the limits of the control groups of this process leave."""
    for controller, limit, usage, inactive in _GROUP_FILES:
        for folder in _group_folders(proc, cgroups / controller, controller):
            try:
                most, used = (int((folder / name).read_text()) for name in (limit, usage))
                statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                yield float(most - used + int(statistics.get(inactive, 0)))
            except (OSError, ValueError):  # there is no such file, or it says "max"
                continue


def _group_folders(proc: Path, root: Path, controller: str) -> list[Path]:
    """Return the folder of the control group of this process, and those of all groups that it belongs to."""
    group = Path("/")  # inside a container, its own group is the root
    try:
        for line in (proc / "self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                group = Path(path)
    except (OSError, ValueError):
        pass
    return [root / folder.relative_to("/") for folder in (group, *group.parents) if folder.is_absolute()]
