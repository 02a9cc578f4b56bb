"""Switches the shape checks on before pytest imports anything of headscope, for its tests and for its docstrings."""

from tests.shape_checks import install

install("headscope")
