"""Tables that are computed: right after every way in which a module can be made, moved and loaded."""

import copy

import pytest
import torch
from torch import nn

from headscope.errors import ShapeError
from headscope.nn import KeyValueCache, MultiheadAttention, Rotary, SinusoidalPositions, Transformer
from headscope.nn.recipes import llama, paper

IDS = torch.tensor([[1, 2, 3, 4]])


def make(kind: str) -> Transformer:
    if kind == "sines":
        return paper(11, embed_dim=8, num_heads=2, layers=1, hidden_dim=20, max_positions=64).eval()
    rotary = Rotary(4, max_positions=64, interleaved=True)
    return llama(11, embed_dim=8, num_heads=2, num_kv_heads=1, layers=2, hidden_dim=12, rotary=rotary).eval()


def run(model: Transformer) -> torch.Tensor:
    return model(target=IDS, source=None if model.encoder is None else IDS)


def dirty() -> None:
    """Memory that was used before, so that `to_empty` finds numbers in it."""
    junk = [torch.full((64 * 8,), 1e9) for _ in range(50)]
    del junk


@pytest.mark.parametrize("kind", ["sines", "rotary"])
@pytest.mark.parametrize("how", ["to_empty", "assign", "assign then move", "reset"])
def test_made_on_the_meta_device(kind: str, how: str) -> None:
    good = make(kind)
    dirty()
    with torch.device("meta"):
        model = make(kind)
    if how.startswith("assign"):
        model.load_state_dict(good.state_dict(), assign=True)
        model = model.to("cpu", torch.float32) if "move" in how else model
    else:
        model.to_empty(device="cpu")
        if how == "reset":  # as FSDP does for every module that has parameters or buffers of its own
            for module in model.modules():
                if [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
                    module.reset_parameters()
        model.load_state_dict(good.state_dict())
    torch.testing.assert_close(run(model), run(good), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["sines", "rotary"])
@pytest.mark.parametrize("how", ["made", "cast", "copied"])
def test_in_inference_mode(kind: str, how: str) -> None:
    good = make(kind)
    with torch.inference_mode():
        model = copy.deepcopy(good) if how == "copied" else good.to(torch.float64).to(torch.float32)
        layer = MultiheadAttention(8, 2, rotary=Rotary(4, max_positions=8)) if how == "made" else None
    if how == "cast":
        run(model).sum().backward()
        assert all(p.grad is not None for p in model.parameters())
    for module in (model, layer):
        for table in () if module is None else module.buffers():
            assert not table.is_inference() or how == "copied"
    if how == "copied":
        model = model.requires_grad_(False)
        x = torch.randn(1, 2, 3, 4, requires_grad=True)
        rotary = next((m for m in model.modules() if isinstance(m, Rotary)), None)
        if rotary is not None:
            rotary(x).sum().backward()
            assert x.grad is not None


@pytest.mark.parametrize("kind", ["sines", "rotary"])
def test_a_cast_and_back_loses_nothing(kind: str) -> None:
    model, tables = make(kind), [b.clone() for b in make(kind).buffers()]
    model.to(torch.bfloat16).to(torch.float32)
    for back, table in zip(model.buffers(), tables, strict=True):
        assert torch.equal(back, table)
    assert all(b.dtype == torch.float64 for b in model.double().buffers())


def test_on_the_meta_device_alone() -> None:
    with torch.device("meta"):
        assert run_meta(make("rotary")).shape == (1, 4, 11)
        with pytest.raises(ShapeError, match="Rotary: frequencies are on the meta device and have no numbers"):
            Rotary(8, frequencies=torch.ones(4))


def run_meta(model: Transformer) -> torch.Tensor:
    return model(target=torch.ones(1, 4, dtype=torch.long))


def test_sines_in_the_models_dtype() -> None:
    model = nn.Sequential(SinusoidalPositions(7, 4)).to(torch.bfloat16)
    exact = SinusoidalPositions(7, 4, dtype=torch.float64)
    torch.testing.assert_close(model[0].table, exact.table.to(torch.bfloat16), rtol=0, atol=0)


def test_a_cache_of_a_model_that_was_loaded_late() -> None:
    good = make("rotary")
    with torch.device("meta"):
        model = make("rotary")
    model.load_state_dict(good.state_dict(), assign=True)
    cache = KeyValueCache(model, 1)
    with torch.no_grad():
        steps = torch.cat([model(target=IDS[:, i : i + 1], cache=cache) for i in range(4)], 1)
    torch.testing.assert_close(steps, run(good))
