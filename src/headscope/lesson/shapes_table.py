"""A worked example as the table of `hs.explain`: every step's formula, shape, parameters, FLOPs and bytes."""

from __future__ import annotations

from headscope.characters import counted
from headscope.lesson.linear_maps import LinearCall
from headscope.lesson.worked_example import WorkedExample
from headscope.nn.explain_parts import affine, made, nbytes, score_formula
from headscope.nn.explanation import Explanation, Step


def shapes_table(example: WorkedExample) -> Explanation:
    """The shapes of the whole layer, all heads and tokens, in the order in which they are made."""
    layer, lens = example.recorded, example.lens
    heads, n, d = layer.q.shape[1:]
    keys = layer.k.shape[2]
    steps = [] if example.x is None else [made("x", "", example.x)]
    letters: dict[str, list[str]] = {}
    calls: dict[str, LinearCall] = {}
    for letter, source in example.source.items():
        letters.setdefault(source.call.path, []).append(letter)
        calls[source.call.path] = source.call
    for path, made_of_it in letters.items():
        call, name = calls[path], ", ".join(made_of_it)
        operand = "x" if example.x is not None and call.x.shape == example.x.shape else "memory"
        steps.append(made(name, affine(operand, "".join(made_of_it), call.module), call.y, parameters=call.module))
    for letter, x in (("q", layer.q), ("k", layer.k), ("v", layer.v)):
        assert x is not None
        steps.append(Step(f"{letter} per head", f"split into {counted(x.shape[1], 'head')}", tuple(x.shape[1:])))
    parts = [] if lens.bias is None else ["bias"]
    parts += [] if layer.runs is None else ["mask"]
    size = heads * n * keys * 4
    formula = score_formula(d, lens.scale, lens.softcap, parts)
    values = tuple(layer.head(0).values().shape)
    steps += [
        Step("scores", formula, (heads, n, keys), 0, 2 * heads * n * keys * d, size),
        Step("weights", "softmax(scores)", (heads, n, keys), 0, 4 * heads * n * keys, size),
        Step("values", "weights · v", (heads, *values), 0, 2 * heads * n * keys * values[1], nbytes(example.merged)),
        Step("merged", "heads side by side", tuple(example.merged.shape)),
    ]
    if example.output is not None:
        output = example.output
        steps.append(made("output", affine("merged", "out", output.module), output.y, parameters=output.module))
    title = f"Layer {example.layer} of {example.model}: {counted(heads, 'head')} of size {d}"
    return Explanation(
        title, tuple(steps), ("All tokens and all heads; the model computes them with torch's kernels.",)
    )
