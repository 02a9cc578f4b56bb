"""The Triton path: one kernel for every mask that is a set of runs, on a GPU."""

from headscope.attention.paths.triton.path import NAME, refusals, run

__all__ = ["NAME", "refusals", "run"]
