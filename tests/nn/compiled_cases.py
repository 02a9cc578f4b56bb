"""The layers in torch.compile, torch.export and ONNX.

Run by test_export in a process of its own: the shape checks that the other tests have switched on cannot be compiled.
"""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import headscope as hs
from headscope.attention.masks.mask import Mask
from headscope.nn import KeyValueCache, MultiheadAttention, Rotary, TorchMultiheadAttention
from headscope.nn.recipes import gpt2, llama, paper


@pytest.fixture(autouse=True)
def _forget_compilations() -> None:
    torch._dynamo.reset()


def rotary_layer() -> MultiheadAttention:
    return MultiheadAttention(24, 6, num_kv_heads=2, head_dim=8, rotary=Rotary(8))


class Causal(nn.Module):
    """A layer that makes its own mask: masks are no tensors, so they are not inputs of an exported program."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = rotary_layer()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x, mask=hs.causal())


# Of each kind the default tests compile the case with the most parts; the others are slow.
also = partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "mask", [also(None), also(hs.causal()), also(hs.padding([13, 7])), hs.causal() & hs.padding([13, 7])]
)
def test_compiled_in_one_piece(mask: Mask | None) -> None:
    layer = rotary_layer()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 13, 24, requires_grad=True)
    given, wanted = compiled(x, mask=mask), layer(x, mask=mask)
    torch.testing.assert_close(given, wanted)
    direction = torch.randn_like(wanted)
    inputs = (x, *layer.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(given, inputs, direction), torch.autograd.grad(wanted, inputs, direction)
    )


@pytest.mark.parametrize("name", [also("gpt2"), also("llama"), "paper"])
def test_models_compiled_in_one_piece(name: str) -> None:
    models = {
        "gpt2": lambda: gpt2(11, embed_dim=12, num_heads=2, layers=2, max_positions=32),
        "llama": lambda: llama(11, embed_dim=12, num_heads=2, num_kv_heads=1, layers=2, hidden_dim=7),
        "paper": lambda: paper(11, embed_dim=12, num_heads=2, layers=1, hidden_dim=7),
    }
    model = models[name]().eval()
    inputs = {"target": torch.randint(11, (2, 9))} | ({"source": torch.randint(11, (2, 5))} if name == "paper" else {})
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(**inputs), model(**inputs))
    more = {key: torch.cat((ids, ids), 1) for key, ids in inputs.items()}
    torch.testing.assert_close(compiled(**more), model(**more))


@pytest.mark.parametrize("options", [also("none"), "both masks", also("causal"), also("empty row")])
def test_torchs_call_compiled_in_one_piece(options: str) -> None:
    layer = TorchMultiheadAttention(12, 3, batch_first=True)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x, hidden = torch.randn(2, 5, 12, requires_grad=True), torch.arange(5) >= torch.tensor([[5], [3]])
    causal = nn.Transformer.generate_square_subsequent_mask(5)
    arguments = {
        "none": {},
        "both masks": {"key_padding_mask": hidden, "attn_mask": causal},
        "causal": {"need_weights": False, "attn_mask": causal, "is_causal": True},
        "empty row": {"need_weights": False, "key_padding_mask": hidden | torch.tensor([[False], [True]])},
    }[options]
    given, wanted = compiled(x, x, x, **arguments), layer(x, x, x, **arguments)
    torch.testing.assert_close(given, wanted)
    inputs, direction = (x, *layer.parameters()), torch.randn_like(wanted[0])
    torch.testing.assert_close(
        torch.autograd.grad(given[0], inputs, direction), torch.autograd.grad(wanted[0], inputs, direction)
    )


def test_what_was_compiled_before_runs_the_replaced_layers() -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(12, 2, 13, batch_first=True), 1).eval()
    x, graphs = torch.randn(2, 5, 12), []

    def backend(graph: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    compiled = torch.compile(model, backend=backend)
    expected, count = compiled(x), len(graphs)
    hs.nn.replace(compiled)
    torch.testing.assert_close(compiled(x), expected)
    assert len(graphs) > count


@torch.no_grad()
def test_decoding_with_a_cache_compiled_in_one_piece() -> None:
    layer, x = rotary_layer(), torch.randn(2, 13, 24)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    cache, mask = KeyValueCache(layer, 2), hs.causal()
    steps = [compiled(x[:, i : i + 1], mask=mask, cache=cache) for i in range(13)]
    torch.testing.assert_close(torch.cat(steps, 1), layer(x, mask=mask))


@pytest.mark.slow
def test_compiled_by_inductor() -> None:
    model = llama(11, embed_dim=12, num_heads=2, num_kv_heads=1, layers=2, hidden_dim=7)
    ids = torch.randint(11, (2, 9))
    torch.testing.assert_close(torch.compile(model, fullgraph=True)(ids), model(ids))


def test_exported_with_free_batch_and_length() -> None:
    model, free = Causal().eval(), torch.export.Dim.DYNAMIC
    program = torch.export.export(model, (torch.randn(2, 13, 24),), dynamic_shapes=({0: free, 1: free},))
    x = torch.randn(3, 17, 24)
    torch.testing.assert_close(program.module()(x), model(x))


def test_onnx_runs_the_same(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, free = Causal().eval(), torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        model, (torch.randn(2, 13, 24),), dynamo=True, dynamic_shapes=({0: free, 1: free},), verbose=False
    )
    program.save(tmp_path / "layer.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "layer.onnx")
    x = torch.randn(3, 17, 24)
    (given,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(given), model(x))
