import subprocess
import sys
from pathlib import Path

import pytest


def run_cases(*options: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "--import-mode=importlib", *options]
    cases = Path(__file__).parent / "compiled_cases.py"
    run = subprocess.run([*command, str(cases)], capture_output=True, text=True, timeout=280, check=False)
    assert run.returncode == 0, run.stdout[-5000:]


def test_compile_export_and_onnx() -> None:
    run_cases("-m", "not slow")


@pytest.mark.slow
def test_compiled_by_inductor() -> None:
    run_cases("-m", "slow")
