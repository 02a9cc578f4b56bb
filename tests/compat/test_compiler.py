"""What is known of torch's compiler, compared with the compiler."""

import sys

import pytest
import torch
from torch import nn

from headscope.compat import compiler


def test_a_compiled_call_is_known_whatever_the_name_of_its_frame():
    seen = []

    def inner(x):
        seen.append(compiler.compiled_calls())
        return x

    inner(1)
    with torch.compiler.set_stance("force_eager"):
        torch.compile(inner, backend="eager")(1)
        torch.compile(lambda x: torch.compile(inner, backend="eager")(x), backend="eager")(1)
        torch.compile(Calls(inner), backend="eager")(1)
    assert seen == [0, 1, 2, 1]


class Calls(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_a_compiled_model_is_found_inside_of_what_the_compiler_returned():
    model = nn.Sequential(nn.Linear(2, 2))
    compiled = torch.compile(model, backend="eager")
    assert compiler.uncompiled(compiled) is model
    assert compiler.uncompiled(model) is model
    names = [name for name, _ in compiled.named_modules()]
    assert [compiler.uncompiled_path(name) for name in names] == ["", "", "0"]


def test_eager_mode_runs_what_was_compiled_as_it_was_written():
    compiled = torch.compile(lambda x: x + torch.compiler.is_compiling(), backend="eager")
    assert compiled(torch.zeros(1)) == 1
    switch = compiler.eager_mode()
    assert compiled(torch.zeros(1)) == 0
    switch.__exit__(None, None, None)
    assert compiled(torch.zeros(1)) == 1


def test_without_the_switch_eager_mode_is_off_and_says_so(monkeypatch):
    assert "torch._dynamo" in sys.modules
    monkeypatch.delattr(torch.compiler, "set_stance")
    with pytest.warns(UserWarning, match=r"torch \S+ has no torch.compiler.set_stance.*record the model before"):
        assert compiler.eager_mode() is None


def test_many_compilations_are_allowed_and_then_are_an_error():
    config = torch._dynamo.config
    before = config.recompile_limit
    with compiler.many_compilations(251):
        assert (config.recompile_limit, config.fail_on_recompile_limit_hit) == (251, True)
    assert config.recompile_limit == before


def test_a_version_without_these_settings_compiles_as_it_does(monkeypatch):
    monkeypatch.setattr(compiler, "RECOMPILE", ("recompile_limit", "no_such_setting"))
    with (
        pytest.warns(UserWarning, match=r"has no torch._dynamo.config.patch.*After a few kinds of masks"),
        compiler.many_compilations(251),
    ):
        assert torch._dynamo.config.recompile_limit == 251


def test_what_is_assumed_constant_is_what_torch_assumes_constant():
    marked = torch.compiler.assume_constant_result(lambda: True)
    assert compiler.assumed_constant(lambda: True).__dict__ == marked.__dict__ != {}
