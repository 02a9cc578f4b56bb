"""The tiled path: blocks of queries and keys that the mask leaves, on a CPU and with gradients."""

from headscope.attention.paths.tiled.path import NAME, of, refusals, run

__all__ = ["NAME", "of", "refusals", "run"]
