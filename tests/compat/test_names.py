"""Every private name of torch and transformers: found here, and one error or one named fallback where it is not."""

import importlib
import re
from pathlib import Path

import pytest
import torch

import headscope.compat as package
from headscope.compat import names
from headscope.compat.names import Private
from headscope.errors import UnsupportedVersion

MODULES = ("arguments", "compiler", "flex_attention", "torch", "tracing", "transformers")


def declared() -> list[Private]:
    """Every private name that the package declares."""
    found = {}
    for name in MODULES:
        for value in vars(importlib.import_module(f"{package.__name__}.{name}")).values():
            for one in value.values() if isinstance(value, dict) else [value]:
                if isinstance(one, Private):
                    found[one.path] = one
    return list(found.values())


@pytest.mark.parametrize("name", declared(), ids=lambda name: name.path)
def test_a_tested_version_has_the_name(name):
    assert name.find() is not None


@pytest.mark.parametrize("name", declared(), ids=lambda name: name.path)
def test_its_error_names_the_version_what_is_lost_and_what_to_install(name, monkeypatch):
    monkeypatch.setattr(names, "look_up", lambda path, load=True: None)
    version = names.version(name.library)
    with pytest.raises(UnsupportedVersion, match=re.escape(f"{name.library} {version} has no {name.name}")) as error:
        name.get()
    assert name.without in str(error.value)
    assert f"pip install '{name.library}=={names.TESTED[name.library][1]}'" in str(error.value)


def test_a_fallback_is_said_once(monkeypatch):
    name = Private("torch:not_there", "does nothing", "Nothing happens.")
    with pytest.warns(UserWarning, match=r"torch \S+ has no torch.not_there, with which headscope does nothing. Noth"):
        name.fall_back()
    name.fall_back()


def test_a_name_is_only_looked_for_where_its_module_is_loaded_already():
    assert names.look_up("this_is:no.module") is None
    assert names.look_up("xml.dom.pulldom:PullDOM", load=False) is None
    assert names.look_up("xml.dom.pulldom:PullDOM") is not None
    assert names.look_up("torch:Tensor.no_such_name") is None


def test_versions_of_what_is_not_installed():
    assert names.version("torch") == torch.__version__
    assert names.version("no-such-library") == "(not installed)"


def test_the_page_of_versions_lists_every_name_and_what_was_tested():
    page = (Path(__file__).parents[2] / "docs" / "versions.md").read_text(encoding="utf-8")
    assert [name.name for name in declared() if f"| `{name.name}` | {name.use} | {name.without} |" not in page] == []
    assert all(f" {version} |" in page for versions in names.TESTED.values() for version in versions)


def test_no_version_is_asked_for_that_was_not_tested():
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    for library, (oldest, _) in names.TESTED.items():
        assert re.findall(rf'"{library}>=([0-9.]+)"', project) == [oldest.removesuffix(".0")]
