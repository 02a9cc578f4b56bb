"""The second device has a process of its own: torch keeps a registered device, and its autograd must not have begun."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
ALONE = "test_alone.py"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Beside other tests those of this folder are left to the process that `test_alone.py` starts."""
    here = [item for item in items if FOLDER in item.path.parents]
    alone = len(here) == len(items) or config.getoption("--device") != "second"
    away = [item for item in here if (item.path.name == ALONE) == alone]
    if away:
        items[:] = [item for item in items if item not in away]
        config.hook.pytest_deselected(items=away)
