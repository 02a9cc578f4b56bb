"""For the tests and for the examples in docstrings alike: the checks of shapes and types."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--shape-checks`, which `addopts` in pyproject.toml gives."""
    parser.addoption("--shape-checks", metavar="PACKAGE", help="check the annotations of a package while tests run")


def pytest_configure(config: pytest.Config) -> None:
    """Switch the checks on before the package is imported."""
    package = config.getoption("--shape-checks")
    if package:
        from tests.shape_checks import install

        install(package)
