"""What every test shares. Nothing of headscope is imported up here: pytest has yet to switch its shape checks on."""

import os
import shutil
import sys

import pytest
import torch
from hypothesis import settings

from tests.raises import Guard

# A slow machine must never fail a property: no deadlines. The examples are the same in every run.
settings.register_profile("headscope", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("headscope")

# Nothing in the tests goes to a network: what is not on this machine is an error, not a download.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Tests start a hundred programs that import the same sources: they are compiled once, wherever they may be written.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Processes that run tests side by side (pytest -n) share the processor; so do the programs that they start.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(share, 1)))
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # this process read the variable before it was set

# Programs that tests run in processes of their own; pytest would import them, for the examples in their docstrings.
# Some switch Triton's interpreter on for the rest of their process.
collect_ignore_glob = ["*/two_ranks.py", "*/two_processes.py", "*/compile_one.py"]
collect_ignore_glob += ["interpreter.py", "*/triton_cases.py", "*/triton_operator_cases.py", "*/gpu_pass_cases.py"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--device cuda`: the device that the tests in tests/device compare with the CPU."""
    parser.addoption("--device", default="second", help="cuda, mps, ...; by default one that the tests make")


@pytest.fixture
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The device to compare with the CPU; an error where this machine does not have it."""
    name: str = request.config.getoption("--device")
    if name == "second":
        from tests.device.second_device import register, tensor

        register()
        monkeypatch.setattr(torch, "tensor", tensor(torch.tensor))
    elif not torch.get_device_module(name).is_available():
        pytest.fail(f"--device {name}: torch finds no such device on this machine")
    return name


def pytest_configure(config: pytest.Config) -> None:
    """Note which errors are raised and expected; a full run fails for those that no test expects."""
    config.pluginmanager.register(Guard(), "raises")


CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium for the browser tests; without one they are skipped, or fail where it is required."""
    found = next((path for path in map(shutil.which, CHROMIUM_NAMES) if path), None)
    if found:
        return found
    reason = f"no Chromium on the PATH (looked for {', '.join(CHROMIUM_NAMES)}); on Debian: apt-get install chromium"
    if os.environ.get("HEADSCOPE_REQUIRE_BROWSER", "") not in ("", "0"):
        pytest.fail(f"HEADSCOPE_REQUIRE_BROWSER is set and there is {reason}")
    pytest.skip(reason)


FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser(chromium):
    """One running browser for all tests."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield running
        running.close()
