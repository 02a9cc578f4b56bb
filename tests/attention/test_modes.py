"""Attention in the modes that real code lives in: the cells of docs/modes.md."""

from pathlib import Path

import pytest

from tests import warm

CELLS = Path(__file__).parent / "unchecked_modes.py"


def run(*options: str) -> None:
    always = ["-q", "-x", "-o", "addopts=", "-o", "markers=every: all cells", "--import-mode=importlib", "-W", "ignore"]
    done = warm.run_module("pytest", *always, *options, str(CELLS))
    assert done.returncode == 0, done.stdout[-5000:]


def test_a_sample_of_the_cells():
    run("-m", "not every")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_cell():
    run("-m", "every")
