"""Run by test_compile.py in a process of its own: the compiler would trace the shape checks of the tests as well."""

import argparse
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

import headscope as hs
from tests.hf.nine import DECODERS, batch, model_of, packed, real


class Logits(nn.Module):
    """A model as a function of tensors, without a cache."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names
        self.options = {"use_cache": False} if hasattr(model.config, "use_cache") else {}

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.model(**dict(zip(self.names, tensors, strict=True)), **self.options).logits


def masks_of(kind: str) -> tuple[str, ...]:
    """Every kind of mask that a model takes, and one step on a cache of fixed size."""
    if kind in ("vit", "whisper"):
        return ("ones",)
    return ("ones", "left", "right", *(("packed", "static cache") if kind in DECODERS else ()))


def inputs_of(kind: str, masks: Sequence[str]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The inputs with these masks."""
    for mask in masks:
        if mask != "static cache":
            yield mask, packed() if mask == "packed" else batch(kind, mask)


def compiled(module: Logits, tensors: list[Tensor]) -> Tensor:
    """One graph."""
    torch._dynamo.reset()
    return torch.compile(module, backend="aot_eager", fullgraph=True)(*tensors)


def exported(module: Logits, tensors: list[Tensor]) -> Tensor:
    """A program that was traced with other numbers in the mask: all ones."""
    names = zip(module.names, tensors, strict=True)
    others = tuple(torch.ones_like(x) if name == "attention_mask" else x for name, x in names)
    return torch.export.export(module, others).module()(*tensors)


def static_cache(kind: str, model: nn.Module, *, graph: bool) -> Tensor:
    """The logits of one more token after a prompt with padding, on a cache of fixed size."""
    from transformers import StaticCache

    inputs = batch(kind, "left")
    cache = StaticCache(config=model.config, max_cache_len=16)
    one_step = torch.compile(model, backend="aot_eager", fullgraph=True) if graph else model
    model(**inputs, past_key_values=cache)
    seen = nn.functional.pad(inputs["attention_mask"], (0, 1), value=1)
    places = (seen.cumsum(-1) - 1)[:, -1:]
    more = {"input_ids": inputs["input_ids"][:, :1], "attention_mask": seen, "position_ids": places}
    return one_step(**more, past_key_values=cache).logits


def check(kind: str, masks: Sequence[str]) -> None:
    """The compiled and the exported model on headscope give what the model on eager gives."""
    hs.hf.register()
    ours, eager = (model_of(kind, how) for how in ("headscope", "eager"))
    with torch.no_grad():
        for name, inputs in inputs_of(kind, masks):
            tensors = list(inputs.values())
            module, want = (Logits(model, list(inputs)) for model in (ours, eager))
            expected = real(inputs, want(*tensors))
            for run in (compiled, exported):
                found = real(inputs, run(module, tensors))
                torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
                print(f"{kind}, {name}, {run.__name__}: {float((found - expected).abs().max()):.1e}")
        if "static cache" in masks:
            torch._dynamo.reset()
            expected = static_cache(kind, eager, graph=False)
            found = static_cache(kind, ours, graph=True)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
            print(f"{kind}, static cache, compiled: {float((found - expected).abs().max()):.1e}")


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("kind")
    options.add_argument("--masks", nargs="+")
    asked = options.parse_args()
    check(asked.kind, asked.masks or masks_of(asked.kind))
