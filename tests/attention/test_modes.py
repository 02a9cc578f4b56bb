"""Attention in the modes that real code lives in: the cells of docs/modes.md."""

import subprocess
import sys
from pathlib import Path

import pytest

CELLS = Path(__file__).parent / "unchecked_modes.py"


def run(*options: str, seconds: int) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-o", "addopts=", "-o", "markers=every: all cells"]
    command += ["--import-mode=importlib", "-W", "ignore", *options, str(CELLS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stdout[-5000:]


def test_a_sample_of_the_cells():
    run("-m", "not every", seconds=280)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_cell():
    run("-m", "every", seconds=3500)
