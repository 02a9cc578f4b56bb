"""Models on headscope under torch.compile: the outputs and gradients that they have without it, and recorded."""

import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "padding", "layers"), [("llama", "padded", 2), ("bert", "padded", 3), ("bert", "whole", 3)]
)
def test_outputs_gradients_and_a_recording(kind, padding, layers):
    command = [sys.executable, "-W", "ignore", "-m", "tests.hf.compile_one", kind, padding]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == f"{layers} layers"
