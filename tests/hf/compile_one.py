"""Run by test_compile.py in a process of its own: the compiler would trace the shape checks of the tests as well."""

import sys

import torch

import headscope as hs
from tests.recording.tiny import build


def check(kind: str, padded: bool) -> None:
    """The compiled model gives what the model gives, gradients too, and both are recorded."""
    hs.hf.register()
    model, inputs = build(kind, "headscope")
    inputs = {"input_ids": inputs["input_ids"]} | ({"attention_mask": inputs["attention_mask"]} if padded else {})
    if kind == "llama":
        inputs["use_cache"] = False
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    results = []
    for one in (model, compiled):
        model.zero_grad()
        output = one(**inputs)[0]
        output.square().sum().backward()
        results.append((output.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    (want, steep), (found, mine) = results
    torch.testing.assert_close(found, want, atol=1e-6, rtol=1e-5)
    for name, grad in steep.items():
        torch.testing.assert_close(mine[name], grad, atol=1e-5, rtol=1e-4)
    with torch.no_grad(), hs.record(compiled) as recording:
        during = compiled(**inputs)[0]
    torch.testing.assert_close(during, want, atol=1e-6, rtol=1e-5)
    print(len(recording.layers), "layers")


if __name__ == "__main__":
    check(sys.argv[1], sys.argv[2] == "padded")
