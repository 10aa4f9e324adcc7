"""The solver: a block of frames in, their activations and certificates out."""

from knownmf.solver.frames import GROUP, Answer, Group, Problem, new_group
from knownmf.solver.loop import solve_frames

__all__ = ["GROUP", "Answer", "Group", "Problem", "new_group", "solve_frames"]
