"""Sections of a report, printed as tables and written as Markdown."""

from dataclasses import dataclass, field

from rich import box
from rich.console import Console
from rich.table import Table

WIDTH = 140


@dataclass
class Section:
    """What was measured for one case: a table, and sentences above it."""

    name: str
    text: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def print(self):
        """Print the section for a terminal."""
        table = Table(*self.columns, box=box.SIMPLE_HEAD)
        for row in self.rows:
            table.add_row(*row)
        console = Console(width=WIDTH, highlight=False)
        console.print(f"\n[bold]{self.name}[/bold]")
        console.print(self.text, table, markup=False, soft_wrap=True, sep="\n")

    def markdown(self):
        """Return the section in Markdown."""
        lines = [self.columns, (" --- ",) * len(self.columns), *self.rows]
        table = "\n".join("| " + " | ".join(cell.strip() for cell in line) + " |" for line in lines)
        return f"## {self.name}\n\n{self.text}\n\n{table}\n"


def seconds(value):
    """Return a time in seconds with three digits."""
    return f"{value:#.3g}" if value < 100 else f"{value:.0f}"


def ratio(theirs, ours):
    """Return how many times faster ours is."""
    value = theirs / ours
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def gap(value):
    """Return a gap with two digits."""
    return f"{value:.1e}"
