"""`explain`: run a layer step by step, by the textbook, and show what every step makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from headscope.attention.api import plan
from headscope.attention.bias import Bias
from headscope.attention.masks.mask import Mask
from headscope.attention.paths.formula import apply, normalise, scores
from headscope.errors import ModelError
from headscope.nn.explain_parts import Calls, affine, made, part_step, score_formula
from headscope.nn.explanation import Explanation, Step
from headscope.nn.multihead import MultiheadAttention, merge_heads
from headscope.nn.projection import split_heads
from headscope.shapes import shape

# How far the steps may be from the layer's own output, relative to its largest number: both round in the layer's dtype.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


def explain(layer: nn.Module, *inputs: Tensor | None, **options: Any) -> Explanation:
    """What a layer does with an input: every step's name, formula, shape, parameters, FLOPs and bytes.

    The steps are really run, attention by the textbook formula, and the result is compared with the layer's own output.

    Args:
        layer: a `MultiheadAttention`, or any model with layers of `headscope.nn` inside, such as a `Transformer`.
        inputs, options: what the layer's `forward` takes; a cache is left out.

    Raises:
        ModelError: a layer computes something else than these steps (a subclass, or a hook), or there is none.
        ShapeError, MaskError: as the layer's `forward`.

    Example:
        >>> layer = MultiheadAttention(512, 8, input_dim=1024)
        >>> [step.shape for step in explain(layer, torch.randn(30, 5, 1024)).steps][:3]
        [(30, 5, 1024), (30, 5, 1536), (30, 8, 5, 192)]
    """
    seen = Calls(layer)
    with seen, torch.no_grad():
        own = layer(*inputs, **options)
    if isinstance(layer, MultiheadAttention):
        heads = f"{layer.num_heads} heads of size {layer.head_dim}"
        steps, notes = attention_call(layer, inputs, options, own)
        title = f"{type(layer).__name__}: {heads}, {steps[0].shape} → {shape(own)}"
        return Explanation(title, tuple(steps), notes)
    steps, ran = [], set[str]()
    for path, part, call, result in seen.calls:
        # "decoder 3 attention" for decoder.layers.3.attention.part
        name = path.replace(".layers.", " ").replace(".part", "").replace(".", " ")
        if isinstance(part, MultiheadAttention):
            inner, notes = attention_call(part, call.args, call.kwargs, result)
            steps += [replace(step, name=f"{name}: {step.name}") for step in inner]
            ran.update(notes)
        else:
            steps.append(part_step(name, part, result, seen.counted))
    if not ran:
        raise ModelError(
            f"explain: in {type(layer).__name__} no headscope.nn.MultiheadAttention ran; give a model with some."
        )
    shapes = [str(shape(t)) for t in (*inputs, *options.values()) if isinstance(t, Tensor)]
    title = f"{type(layer).__name__}: {', '.join(shapes)} → {shape(own)}"
    return Explanation(title, tuple(steps), tuple(sorted(ran)))


def attention_call(
    layer: MultiheadAttention, inputs: Sequence[Any], options: Mapping[str, Any], own: Tensor
) -> tuple[list[Step], tuple[str, ...]]:
    """The steps of a call of a multi-head layer, compared with the output that it gave."""
    call = dict(zip(("x", "memory"), inputs, strict=False)) | dict(options)
    chosen = (call.get(name) for name in ("memory", "mask", "bias", "positions"))
    with torch.no_grad():
        steps, result, notes = attention_steps(layer, call["x"], *chosen)
    agree(layer, own, result)
    return steps, notes


def attention_steps(
    layer: MultiheadAttention,
    x: Tensor,
    memory: Tensor | None,
    mask: Mask | None,
    bias: Bias | None,
    positions: Tensor | None,
) -> tuple[list[Step], Tensor, tuple[str, ...]]:
    """The steps of a multi-head layer, its output, and which path runs the layer itself."""
    steps = [made("input x", "", x)]
    if memory is not None:
        steps.append(made("memory", "", memory))
    q, k, v = projection_steps(layer, x, memory, steps)
    if layer.q_norm is not None and layer.k_norm is not None:
        q, k = layer.q_norm(q), layer.k_norm(k)
        steps += [
            made("q normed", "norm(q)", q, parameters=layer.q_norm),
            made("k normed", "norm(k)", k, parameters=layer.k_norm),
        ]
    if layer.rotary is not None:
        q, k = layer.turn(q, k, None, None, positions)
        # Per number: two products and a sum.
        steps += [
            made(f"{name} turned", f"{name} · cos + partner · sin", t, flops=3 * t.numel())
            for name, t in (("q", q), ("k", k))
        ]
    queries, keys, d = q.shape[2], k.shape[2], q.shape[3]
    allowed = None if mask is None else mask.to_dense(queries, keys, q.device)
    added = None if bias is None else bias.block(slice(0, queries), 0, keys, queries, keys)
    s = scores(
        q, k, scale=d**-0.5 if layer.scale is None else layer.scale, softcap=layer.softcap, bias=added, allowed=allowed
    )
    parts = [word for word, part in (("bias", bias), ("mask", mask)) if part is not None]
    formula = score_formula(d, layer.scale, layer.softcap, parts)
    steps.append(made("scores", formula, s, flops=2 * s.numel() * d))
    weights, _ = normalise(s, layer.sinks)
    formula = "softmax(scores)" if layer.sinks is None else "softmax(scores, sink)"
    # Per weight: subtract the maximum, exponentiate, add up, divide.
    steps.append(made("weights", formula, weights, parameters=layer.sinks, flops=4 * weights.numel()))
    values = apply(weights, v)
    steps.append(made("values", "weights · v", values, flops=2 * weights.numel() * v.shape[3]))
    merged = merge_heads(values)
    steps.append(made("merged", "heads side by side", merged, values))
    output = layer.output(merged)
    steps.append(made("output", affine("merged", "out", layer.output), output, parameters=layer.output))
    ran = plan(q, k, v, mask=mask, bias=bias, scale=layer.scale, softcap=layer.softcap, sinks=layer.sinks)
    how = {"formula": "which builds scores and weights as they stand here"}.get(
        ran.backend, "which gives the same values without ever building scores and weights"
    )
    return steps, output, (f"The layer itself runs the path {ran.backend!r}, {how}.",)


def projection_steps(
    layer: MultiheadAttention, x: Tensor, memory: Tensor | None, steps: list[Step]
) -> tuple[Tensor, Tensor, Tensor]:
    """The steps from the inputs to q, k and v, appended to the others."""
    found = dict(zip("qkv", layer.project(x, memory), strict=True))
    for name in layer.project.packing:
        linear, letters = layer.project.part(name), ", ".join(name)
        if memory is not None and name == "qkv":
            # One packed map, two inputs: each letter takes its own rows.
            for letter in name:
                source = "x" if letter == "q" else "memory"
                learned = sum(p.numel() for p in linear.parameters() if p.ndim > 1) // len(name)
                steps.append(Step(letter, f"{source} W_{letter}ᵀ", shape(found[letter]), learned))
            continue
        source = "x" if memory is None or name == "q" else "memory"
        together = linear(x if source == "x" else memory)
        each = f"{letters} together" if len(name) > 1 else f"{letters}, all heads"
        steps.append(made(each, affine(source, name, linear), together, parameters=linear))
        heads = split_heads(together, len(name) * layer.head_dim)
        steps.append(made(f"{letters} per head", f"split into {heads.shape[1]} heads", heads, together))
        if len(name) > 1:
            first = heads[..., : layer.head_dim]
            steps.append(made(f"{letters} each", f"split each head into {letters}", first, heads))
    return found["q"], found["k"], found["v"]


def agree(layer: nn.Module, own: Tensor, steps: Tensor) -> None:
    """Raise `ModelError` unless the steps give what the layer gave."""
    scale = own.abs().max().item() if own.numel() else 0.0
    far = (own - steps).abs().max().item() if own.numel() and own.shape == steps.shape else 0.0
    if own.shape != steps.shape or not far <= TOLERANCE[own.dtype] * max(scale, 1e-30):
        raise ModelError(
            f"explain: the steps give another output than {type(layer).__name__} itself "
            f"(off by {far:.2g} of {scale:.2g}). Its forward is changed, "
            "by a subclass or a hook; explain the layer without that."
        )
