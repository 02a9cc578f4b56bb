"""Arguments by their names: from schemas and signatures, never from an order that somebody remembers."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from headscope.compat import arguments
from headscope.errors import UnsupportedVersion

x = torch.zeros(2, 3, 5)


def test_an_operator_says_its_own_order():
    named = arguments.named_arguments(torch.ops.aten._native_multi_head_attention.default, (1, 2, 3, 4), {"mask": 5})
    assert named == {"query": 1, "key": 2, "value": 3, "embed_dim": 4, "mask": 5}


def test_so_do_a_built_in_function_and_one_of_python():
    assert arguments.argument_names(torch._transformer_encoder_layer_fwd)[:3] == ("src", "embed_dim", "num_heads")
    assert arguments.named_arguments(F.multi_head_attention_forward, (x, x), {}).keys() == {"query", "key"}


def test_more_positions_than_a_function_declares_are_an_error():
    with pytest.raises(UnsupportedVersion, match="called with 2 positional arguments and declares 1: a; headscope"):
        arguments.named_arguments(lambda a: a, (1, 2), {})


@pytest.mark.parametrize("name", ["_varlen_attn", "_varlen_attn_out"])
def test_varlen_arguments_are_those_that_were_given(name):
    import torch.nn.attention.varlen

    operator = getattr(torch.ops.torch_attn, name)
    tensors = (x,) * (4 + name.endswith("_out"))
    named = arguments.varlen_arguments(operator, (*tensors, None, 3, 5), {"num_splits": 2, "is_causal": True})
    assert named.keys() == {"query", "key", "value", "cu_seq_q", "max_q", "max_k", "is_causal"}
    assert arguments.is_varlen(operator)
    assert arguments.is_varlen(operator.default)
    assert not arguments.is_varlen(torch.ops.aten.add)


def test_varlen_arguments_that_nobody_knows_are_an_error():
    def _varlen_attn(query, key, value, cu_seq_q, softcap=None): ...

    assert "softcap" not in arguments.varlen_arguments(_varlen_attn, (x, x, x, x, None), {})
    with pytest.raises(UnsupportedVersion, match=r"has another torch.nn.attention.varlen._varlen_attn \(with s"):
        arguments.varlen_arguments(_varlen_attn, (x, x, x, x, 1.5), {})


def test_varlen_without_its_lengths_is_an_error():
    def _varlen_attn(query, key, value, lengths): ...

    with pytest.raises(UnsupportedVersion, match=r"has another torch.nn.attention.varlen._varlen_attn \(without cu_"):
        arguments.varlen_arguments(_varlen_attn, (x, x, x, x), {})


def test_a_method_that_is_replaced_must_be_there():
    arguments.require_overrides(nn.Module, ["_apply"], "Rotary")
    with pytest.raises(UnsupportedVersion, match=r"Rotary: Module of torch \S+ has no _cast, which headscope replaces"):
        arguments.require_overrides(nn.Module, ["_apply", "_cast"], "Rotary")
