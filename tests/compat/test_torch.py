"""The private names of torch one at a time: what works without each."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils import _pytree

import headscope as hs
from headscope.compat import names
from headscope.compat import torch as compat
from headscope.errors import UnsupportedVersion


@pytest.fixture(autouse=True)
def _warn_again(monkeypatch):
    monkeypatch.setattr(names, "_warned", set())


def test_kernels_are_taken_only_with_the_arguments_that_are_given_by_position(monkeypatch):
    assert compat.cpu_flash() == compat.FLASH
    assert compat.FLASH is not None
    swapped = (
        "query", "key", "value", "is_causal", "dropout_p", "attn_mask", "scale",
    )  # fmt: skip
    monkeypatch.setattr(compat, "operator_names", lambda operator: swapped)
    assert compat.cpu_flash() is None


def test_operators_are_recognised_without_the_names_of_their_types(monkeypatch):
    theirs = {torch._ops.OperatorBase, torch._ops.OpOverloadPacket}
    assert {*compat.operator_types()} == theirs
    for kind in ("OperatorBase", "OpOverloadPacket"):
        monkeypatch.delattr(torch._ops, kind)
        assert {*compat.operator_types()} == theirs
    monkeypatch.setattr(torch._ops, "OperatorBase", int, raising=False)
    kinds = compat.operator_types()
    assert isinstance(torch.ops.aten.add, kinds)
    assert isinstance(torch.ops.aten.add.Tensor, kinds)
    assert not isinstance(torch.add, kinds)


def test_a_backward_pass_is_known():
    found = []

    class Look(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            found.append(compat.in_backward())
            return x * 1

        @staticmethod
        def backward(ctx, grad):
            found.append(compat.in_backward())
            return grad

    Look.apply(torch.ones(2, requires_grad=True)).sum().backward()
    assert found == [False, True]


def test_without_its_name_no_backward_is_known_and_that_is_said(monkeypatch):
    monkeypatch.delattr(torch._C, "_current_graph_task_id")
    with pytest.warns(UserWarning, match=r"torch \S+ has no torch._C._current_graph_task_id.*recorded twice"):
        assert compat.in_backward() is False


def test_own_computation_is_seen_by_no_mode(monkeypatch):
    seen = []

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(compat.other_modes())
            return func(*args, **(kwargs or {}))

    with Mode():
        torch.add(torch.ones(1), 1)
        before = len(seen)
        with compat.own_computation():
            torch.add(torch.ones(1), 1)
    assert len(seen) == before > 0
    assert set(seen) == {0}
    monkeypatch.delattr(torch._C, "DisableTorchFunction")
    with pytest.raises(UnsupportedVersion, match=r"has no torch._C.DisableTorchFunction.*hs.record, hs.ablate"):
        compat.own_computation()


def test_without_a_count_of_modes_there_might_be_another(monkeypatch):
    monkeypatch.delattr(torch._C, "_len_torch_function_stack")
    assert compat.other_modes() == 1


def test_projections_are_those_that_are_there(monkeypatch):
    assert compat.mha_projections() == ("_in_projection_packed", "_in_projection")
    monkeypatch.delattr(F, "_in_projection")
    assert compat.mha_projections() == ("_in_projection_packed",)
    monkeypatch.delattr(F, "_in_projection_packed")
    with pytest.raises(UnsupportedVersion, match=r"no torch.nn.functional._in_projection_packed, with which"):
        compat.mha_projections()


def test_fast_paths_are_those_that_are_there(monkeypatch):
    assert compat.encoder_fast_paths() == ("_transformer_encoder_layer_fwd", "_native_multi_head_attention")
    monkeypatch.delattr(torch, "_native_multi_head_attention")
    assert compat.encoder_fast_paths() == ("_transformer_encoder_layer_fwd",)


def test_writes_are_counted_where_torch_counts_them():
    x = torch.zeros(2)
    before = compat.version_of(x)
    x.add_(1)
    assert compat.version_of(x) == before + 1
    with torch.inference_mode():
        assert compat.version_of(torch.zeros(2)) is None


def test_trees_are_mapped_without_torch(monkeypatch):
    tree = {"a": [1, (2, 3)]}
    wanted = compat.tree_map(lambda x: x + 1, tree)
    monkeypatch.delattr(_pytree, "tree_map")
    assert compat.tree_map(lambda x: x + 1, tree) == wanted == {"a": [2, (3, 4)]}
    assert compat.tree_map(lambda x: x + 1, [compat.CpuFlash(1, 2)]) == [compat.CpuFlash(2, 3)]


def test_a_wrapper_is_an_error_where_torch_makes_none(monkeypatch):
    # The name is found on Tensor's own base, so that it can only be hidden, not removed.
    monkeypatch.setattr(torch.Tensor, "_make_wrapper_subclass", None, raising=False)
    with pytest.raises(UnsupportedVersion, match=r"has no torch.Tensor._make_wrapper_subclass.*attn_implementation"):
        compat.wrapper_subclass(torch.Tensor, (2, 3), torch.bool, torch.device("cpu"))


def test_weak_keys_keep_nothing_alive(monkeypatch):
    known = compat.weak_keys()
    known[torch.zeros(2)] = 1
    assert len(known) == 0
    monkeypatch.delattr(torch.utils.weak, "WeakIdKeyDictionary")
    with pytest.warns(UserWarning, match=r"has no torch.utils.weak.WeakIdKeyDictionary.*cannot be recorded"):
        assert compat.weak_keys() is None
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    with hs.record(layer) as recording:
        layer(torch.ones(1, 3, 8))
    assert len(recording.layers) == 1


def test_a_view_of_a_parameter_is_known(monkeypatch):
    parameter = torch.nn.Parameter(torch.ones(2, 3))
    assert compat.base_of(parameter.T) is parameter
    assert compat.base_of(torch.ones(2)) is None
    monkeypatch.setattr(torch.Tensor, "_base", None)
    assert compat.base_of(parameter.T) is None


def test_the_parts_of_a_module():
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(2))
    assert list(compat.children_of(module)) == ["0"]
    assert list(compat.buffers_of(module[0])) == ["running_mean", "running_var", "num_batches_tracked"]
