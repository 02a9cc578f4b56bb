import subprocess
import sys
from pathlib import Path

import pytest


def run_cases(*options: str, seconds: int = 280) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "--import-mode=importlib", *options]
    cases = Path(__file__).parent / "compiled_cases.py"
    run = subprocess.run([*command, str(cases)], capture_output=True, text=True, timeout=seconds, check=False)
    assert run.returncode == 0, run.stdout[-5000:]


def test_compile_export_and_onnx() -> None:
    run_cases("-m", "not slow")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_other_cases_and_inductor() -> None:
    run_cases("-m", "slow", seconds=880)
