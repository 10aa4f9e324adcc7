"""The solver: a block of frames in, their activations and certificates out; and the steps of a learning pass."""

from knownmf.solver.frames import GROUP, Answer, Group, Problem, new_group
from knownmf.solver.loop import solve_frames
from knownmf.solver.passes import carry_on, descend_rows, measure, measure_entries, multiply_rows

__all__ = [
    "GROUP",
    "Answer",
    "Group",
    "Problem",
    "carry_on",
    "descend_rows",
    "measure",
    "measure_entries",
    "multiply_rows",
    "new_group",
    "solve_frames",
]
