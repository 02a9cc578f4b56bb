"""The checks of shapes and types that the tests run with: each kind of function is checked, and can fail."""

import importlib
import sys

import pytest
import torch

from tests import shape_checks

MODULE = """
from __future__ import annotations
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard
from jaxtyping import Float
from torch import Tensor
if TYPE_CHECKING:
    from nowhere import Unknown

def product(q: Float[Tensor, "q d"], k: Float[Tensor, "k d"], *, turned: bool = False) -> Float[Tensor, "q k"]:
    return (k @ q.mT) if turned else q @ k.mT

def lists(found: list[Float[Tensor, " n"]], most: int = 3) -> list[str]:
    return [str(len(one)) for one in found][:most]

def strange(value: Unknown, number: int) -> Unknown:
    return value

def is_text(value: Any) -> TypeGuard[str]:
    return value == "yes" or (value and 3)

def numbers(count: int) -> Iterator[int]:
    yield from range(count)

def outer(size: int):
    def inner(x: Float[Tensor, "n"], y: Float[Tensor, "n"]) -> int:
        return size
    return inner

@dataclass
class Pair:
    a: Float[Tensor, "n"]
    b: Float[Tensor, "n"]

class Part(Pair):
    @property
    def name(self) -> str:
        return 3

    @classmethod
    def make(cls, size: int) -> Part:
        return size

def free(a, b=1):
    return a
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    """A module that is imported with checks."""
    folder = tmp_path_factory.mktemp("checked")
    (folder / "checked_for_a_test.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    finder = shape_checks.install("checked_for_a_test")
    yield importlib.import_module("checked_for_a_test")
    sys.meta_path.remove(finder)
    sys.path.remove(str(folder))
    del sys.modules["checked_for_a_test"]


def x(*sizes):
    return torch.zeros(sizes)


def test_what_fits_passes(module):
    assert module.product(x(2, 3), k=x(5, 3)).shape == (2, 5)
    assert module.lists([x(2), x(2)]) == ["2", "2"]
    assert module.strange("anything", 1) == "anything"
    assert module.is_text("yes")
    assert list(module.numbers(3)) == [0, 1, 2]
    assert module.outer(7)(x(2), x(2)) == 7
    assert module.outer(5)(x(2), x(2)) == 5
    assert module.Pair(x(2), x(2)).a.shape == (2,)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda m: m.product(x(2, 3), x(5, 7)), "parameters of checked_for_a_test.product.*parameter .k.*d=3"),
        (lambda m: m.product(x(2, 3), k=x(5)), "parameters of checked_for_a_test.product"),
        (lambda m: m.product(x(2, 3).double().long(), x(5, 3)), "typechecking parameter 'q'"),
        (lambda m: m.product(x(2, 3), x(5, 3), turned=True), "return value of checked_for_a_test.product.*q=2.*k=5"),
        (lambda m: m.product(x(2, 3), x(5, 3), turned=2), "typechecking parameter 'turned'"),
        (lambda m: m.lists([x(2, 3)]), "parameters of checked_for_a_test.lists"),
        (lambda m: m.lists([x(2)], most="3"), "typechecking parameter 'most'"),
        (lambda m: m.strange("anything", "1"), "typechecking parameter 'number'"),
        (lambda m: m.numbers("3"), "parameters of checked_for_a_test.numbers"),
        (lambda m: m.outer(5)(x(2), x(3)), "parameters of checked_for_a_test.outer.<locals>.inner"),
        (lambda m: m.is_text("no"), "return value of checked_for_a_test.is_text"),
        (lambda m: m.outer("5"), "typechecking parameter 'size'"),
        (lambda m: m.Pair(x(2), x(3)), "parameters of checked_for_a_test.Pair.__init__"),
        (lambda m: m.Part(x(2), x(2)).name, "return value of checked_for_a_test.Part.name"),
        (lambda m: m.Part.make("2"), "typechecking parameter 'size'"),
        (lambda m: m.Part.make(2), "return value of checked_for_a_test.Part.make"),
    ],
)
def test_what_does_not_fit_fails(module, call, match):
    with pytest.raises(TypeError, match=f"(?s){match}"):
        call(module)


def test_a_call_with_other_arguments_is_python_s_own_error(module):
    with pytest.raises(TypeError, match="numbers.. missing 1 required positional argument: 'count'"):
        module.numbers()
    with pytest.raises(TypeError, match="product.. got an unexpected keyword argument 'scale'"):
        module.product(x(2, 3), x(5, 3), scale=1)


def test_what_has_no_annotations_is_left_as_it_is(module):
    assert not hasattr(module.free, "__wrapped__")
    assert module.product.__wrapped__.__name__ == "product"


def test_headscope_is_imported_with_checks():
    import headscope
    from headscope.attention.api import attend

    assert isinstance(headscope.__spec__.loader, shape_checks.Loader)
    assert attend.__wrapped__
    with pytest.raises(RuntimeError, match="headscope was imported before its checks were switched on"):
        shape_checks.install("headscope")
