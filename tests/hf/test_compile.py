"""Models on headscope in graphs: the outputs and gradients that they have without, and recorded."""

import subprocess
import sys

import pytest

from tests.hf.nine import KINDS


def run(module: str, *options: str) -> list[str]:
    command = [sys.executable, "-W", "ignore", "-m", module, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "padding", "layers"), [("llama", "padded", 2), ("bert", "padded", 3), ("bert", "whole", 3)]
)
def test_outputs_gradients_and_a_recording(kind, padding, layers):
    assert run("tests.hf.compile_one", kind, padding)[-1] == f"{layers} layers"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_one_graph_and_an_exported_program_give_what_eager_gives(kind):
    assert len(run("tests.hf.graphs_of_one", kind)) >= (2 if kind in ("vit", "whisper") else 6)
