from pathlib import Path

import pytest

from tests import warm

CASES = str(Path(__file__).parent / "compiled_cases.py")


def run_cases(*options: str) -> None:
    run = warm.run_module("pytest", "-q", "-o", "addopts=", "--import-mode=importlib", *options, CASES)
    assert run.returncode == 0, run.stdout[-5000:]


def test_compile_export_and_onnx() -> None:
    run_cases("-m", "not slow")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_other_cases_and_inductor() -> None:
    run_cases("-m", "slow")
