"""A sample of the cells of docs/modes.md; all of them in the slow tests.

Run by test_modes.py in a process of its own, without the shape checks, as users run it.
"""

import importlib.util
import itertools
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def program():
    """docs/write_modes.py as a module."""
    spec = importlib.util.spec_from_file_location("write_modes", ROOT / "docs" / "write_modes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


modes = program()
# The slow ones have fewer samples.
SLOW = {"compile(fullgraph)", "export, free lengths", "ONNX, free lengths"}
EVERY = list(itertools.product(modes.MODES, modes.MASKS, modes.OPTIONS))
SAMPLE = [cell for n, cell in enumerate(EVERY) if n % (397 if cell[0] in SLOW else 61) == 3]


@pytest.mark.parametrize(("mode", "mask", "option"), SAMPLE)
def test_a_cell_works_or_is_refused_in_words(mode, mask, option):
    modes.cell(mask, option, mode)


@pytest.mark.every
@pytest.mark.parametrize("mode", modes.MODES)
def test_every_cell_works_or_is_refused_in_words(mode):
    for mask, option in itertools.product(modes.MASKS, modes.OPTIONS):
        modes.cell(mask, option, mode)
