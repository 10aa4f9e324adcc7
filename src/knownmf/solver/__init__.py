"""The solver: chunks of frames in, their activations and certificates out; and the steps of a learning pass."""

from knownmf.solver.chunks import buffers_of, new_answer, prepared, solve, solve_entries
from knownmf.solver.frames import GROUP, Answer, Group, Problem
from knownmf.solver.passes import carry_on, descend_rows, measure, measure_entries, multiply_rows

__all__ = [
    "GROUP",
    "Answer",
    "Group",
    "Problem",
    "buffers_of",
    "carry_on",
    "descend_rows",
    "measure",
    "measure_entries",
    "multiply_rows",
    "new_answer",
    "prepared",
    "solve",
    "solve_entries",
]
