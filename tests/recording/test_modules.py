"""Which modules of a model are listened in."""

import torch
from torch import nn

import headscope as hs
from headscope.calls.modules import carriers
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


def test_what_another_thread_runs_is_not_where_a_call_comes_from():
    """A worker is in one part of the model while this thread calls attention in another."""
    import threading

    class Part(nn.Module):
        def __init__(self, inside) -> None:
            super().__init__()
            self.inside = inside

        def forward(self, q):
            return self.inside(q)

    begun, done = threading.Event(), threading.Event()

    def wait(q):
        begun.set()
        assert done.wait(60)
        return q

    def attend(q):
        worker = threading.Thread(target=model["worker"], args=(q,))
        worker.start()
        assert begun.wait(60)
        values = torch.nn.functional.scaled_dot_product_attention(q, q, q)
        done.set()
        worker.join()
        return values

    model = nn.ModuleDict({"worker": Part(wait), "here": Part(attend)})
    with hs.record(model) as recording:
        model["here"](torch.randn(2, 3, 5, 7))
    assert [layer.name for layer in recording.layers] == ["here"]
