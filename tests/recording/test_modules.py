"""Which modules of a model are listened in."""

from torch import nn

from headscope.recording.modules import carriers
from tests.recording import tiny


class Leaf(nn.Module):
    """A leaf of somebody's own, in whose forward anything may happen."""


def named(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The same by torch's own walk."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if list(module.children()) or not type(module).__module__.startswith("torch.nn.modules")
    ]


def test_they_are_torch_s_named_modules_without_its_leaves():
    shared = nn.Sequential(Leaf(), nn.Linear(2, 2))
    model = nn.ModuleDict({"a": shared, "b": shared, "c": nn.TransformerEncoderLayer(4, 2), "d": nn.ReLU()})
    model.register_module("nothing", None)
    assert carriers(model) == named(model)
    assert [name for name, _ in carriers(model)] == ["", "a", "a.0", "c", "c.self_attn"]


def test_a_model_that_holds_itself_is_walked_once():
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].owner = model
    assert [name for name, _ in carriers(model)] == ["", "0"]


def test_models_of_transformers():
    model = tiny.build("t5")[0]
    assert carriers(model) == named(model)
    assert nn.Linear not in {type(module) for _, module in carriers(model)}
