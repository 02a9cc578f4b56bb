"""Write docs/modes.md by running every mask, with every option, in every mode: python docs/write_modes.py

Each cell is a call of `hs.attend` (or `hs.attend_lse`) in one mode, compared with the definition in float64, gradients
too where the mode has them. It works, or it is refused by an error of headscope's own; anything else ends the program.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import logging
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import grad, jvp, vmap

import headscope as hs
from headscope.errors import HeadscopeError

PAGE = Path(__file__).parent / "modes.md"
BATCH, HEADS, GROUPS, QUERIES, KEYS, SIZE = 3, 4, 2, 11, 13, 8

INTRODUCTION = """# Modes

This page is written by `python docs/write_modes.py`, which runs every cell of the tables: a call of `hs.attend`
with that mask and that option, in that mode, in float32, compared with the definition in float64; gradients too,
where the mode has them. A dot is a cell that works; a letter is a refusal, quoted below. Lengths and mask tensors
are inputs of the traced programs, so one program serves them all.

Whether the numbers of a tensor are known is asked in one place. They are not in a traced program, under
`torch.func`, and in tensors without storage. There the path is chosen by sizes alone, and nothing is kept for a
later call:

- a mask that is small for certain (at most 2^20 pairs of query and key, at every length of the program) is written
  out from comparisons, and torch's own function runs it; so is one that exists as booleans already (`hs.dense`, the
  masks of transformers while a graph is traced);
- anything else is one operator in the graph, `headscope::tiled`, which cuts its tiles when it runs and has its own
  gradient;
- a graph that must run without headscope (ONNX, `torch.jit.trace`), forward-mode and second derivatives under
  `torch.func` take the formula, which writes the whole (queries x keys) matrix out.

A second derivative in eager mode (`create_graph=True`) comes from the formula as well, and only when it is asked
for. Inside of `sdpa_kernel(SDPBackend.MATH)` only torch's unfused kernel and the formula run.
"""


class Inputs(NamedTuple):
    """What a mask is made of: lengths for each item, and booleans."""

    lengths: Tensor
    split: Tensor
    allowed: Tensor


MASKS: dict[str, Callable[[Inputs], hs.Mask | None]] = {
    "no mask": lambda given: None,
    "causal": lambda given: hs.causal(),
    "window": lambda given: hs.window(3, 1),
    "padding": lambda given: hs.padding(given.lengths),
    "documents": lambda given: hs.documents(given.split[..., 0], given.split[..., 1]) & hs.causal(),
    "prefix": lambda given: hs.prefix(given.lengths),
    "first or window": lambda given: hs.first(2) | hs.window(2),
    "dense": lambda given: hs.dense(given.allowed),
    "from torch's": lambda given: hs.from_torch_mha_mask(key_padding_mask=~given.allowed[:, 0, 0]),
}


class Option(NamedTuple):
    """How a call differs: its keywords from learned tensors, the sizes of those, its heads of keys, and its lse."""

    keywords: Callable[..., dict[str, Any]] = dict
    sizes: tuple[tuple[int | str, ...], ...] = ()
    groups: int = HEADS
    lse: bool = False


OPTIONS: dict[str, Option] = {
    "plain": Option(),
    "grouped heads": Option(groups=GROUPS),
    "softcap": Option(lambda: {"softcap": 2.0}),
    "alibi": Option(lambda slopes: {"bias": hs.alibi(slopes)}, ((HEADS,),)),
    "relative": Option(lambda table: {"bias": hs.relative(table, max_distance=9)}, ((8, HEADS),)),
    "dense bias": Option(lambda added: {"bias": hs.dense_bias(added)}, ((1, HEADS, "q", "k"),)),
    "sinks": Option(lambda sinks: {"sinks": sinks}, ((HEADS,),)),
    "lse": Option(lse=True),
    "dropout": Option(lambda: {"dropout": 0.25}),
}


class Call(nn.Module):
    """One cell's call, as a function of tensors and as a module."""

    def __init__(self, mask: str, option: str) -> None:
        super().__init__()
        self.mask, self.option, self.random = MASKS[mask], OPTIONS[option], option == "dropout"

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, split: Tensor, allowed: Tensor, *learned: Tensor
    ) -> tuple[Tensor, ...]:
        """Values, and the lse where the option is about it."""
        mask, keywords = self.mask(Inputs(lengths, split, allowed)), self.option.keywords(*learned)
        if self.option.lse:
            return hs.attend_lse(q, k, v, mask=mask, **keywords)
        return (hs.attend(q, k, v, mask=mask, **keywords),)

    def scalar(self, *tensors: Tensor) -> Tensor:
        """A number that depends on every result differently."""
        return sum((weights_like(x) * finite(x)).sum() for x in self(*tensors))

    def inputs(
        self, queries: int = QUERIES, keys: int = KEYS, dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, ...]:
        """Tensors of a call: q, k, v, what masks are made of, and what is learned."""
        made = torch.Generator().manual_seed(queries)
        sizes = {"q": queries, "k": keys}
        shapes = [(BATCH, HEADS, queries, SIZE), *[(BATCH, self.option.groups, keys, SIZE)] * 2]
        shapes += [tuple(sizes[n] if isinstance(n, str) else n for n in size) for size in self.option.sizes]
        numbers = [torch.randn(shape, generator=made) for shape in shapes]
        lengths = torch.tensor([keys, keys // 2, 0])
        split = torch.tensor(
            [[[queries - 3, keys - 4], [3, 4]], [[2, 5], [queries - 2, keys - 5]], [[0, 0], [queries, keys]]]
        )
        allowed = torch.rand(BATCH, 1, queries, keys, generator=made) > 0.4
        return (*numbers[:3], lengths, split, allowed, *numbers[3:])


def finite(x: Tensor) -> Tensor:
    """Results with the lse of rows that see nothing as 0."""
    return x.masked_fill(x == -torch.inf, 0.0)


def weights_like(x: Tensor) -> Tensor:
    """Different numbers of that shape, the same in every mode."""
    flat = torch.arange(x[0].numel(), device=x.device) % 17
    return (flat.view_as(x[0]).to(x.dtype) - 8) / 8


def oracle(call: Call, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The definition, in float64, without a line of the package but its masks and biases written out."""
    q, k, v, lengths, split, allowed, *learned = (x.double() if x.is_floating_point() else x for x in tensors)
    mask, keywords = call.mask(Inputs(lengths, split, allowed)), call.option.keywords(*learned)
    share = q.shape[1] // k.shape[1]
    scores = q @ k.repeat_interleave(share, 1).transpose(-2, -1) / q.shape[3] ** 0.5
    if "softcap" in keywords:
        scores = keywords["softcap"] * torch.tanh(scores / keywords["softcap"])
    if "bias" in keywords:
        scores = scores + keywords["bias"].block(slice(0, q.shape[2]), 0, k.shape[2], q.shape[2], k.shape[2])
    if mask is not None:
        scores = scores.masked_fill(~mask.to_dense(q.shape[2], k.shape[2]), -torch.inf)
    blind = (scores == -torch.inf).all(-1, keepdim=True)
    scores = scores.masked_fill(blind, 0.0)
    if "sinks" in keywords:
        sink = keywords["sinks"][None, :, None, None].expand(*scores.shape[:3], 1)
        scores = torch.cat([scores.masked_fill(blind, -torch.inf), sink], -1)
        return ((scores.softmax(-1)[..., :-1] @ v.repeat_interleave(share, 1)),)
    values = (scores.softmax(-1) @ v.repeat_interleave(share, 1)).masked_fill(blind, 0.0)
    lse = scores.logsumexp(-1).masked_fill(blind[..., 0], -torch.inf)
    return (values, lse) if call.option.lse else (values,)


def oracle_scalar(call: Call, tensors: tuple[Tensor, ...]) -> Tensor:
    """The number of `Call.scalar`, from the definition."""
    return sum((weights_like(x) * finite(x)).sum() for x in oracle(call, tensors))


def numbers_of(tensors: tuple[Tensor, ...]) -> list[int]:
    """Which of the tensors have gradients."""
    return [n for n, x in enumerate(tensors) if x.is_floating_point()]


def leaves(tensors: tuple[Tensor, ...], double: bool = False) -> tuple[Tensor, ...]:
    """Copies that want gradients."""
    copies = (x.detach().double() if double and x.is_floating_point() else x.detach() for x in tensors)
    return tuple(x.requires_grad_() if x.is_floating_point() else x for x in copies)


def gradients(scalar: Tensor, tensors: tuple[Tensor, ...], **how: Any) -> list[Tensor]:
    """Gradients of all that has them."""
    wanted = [tensors[n] for n in numbers_of(tensors)]
    found = torch.autograd.grad(scalar, wanted, allow_unused=True, **how)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, wanted, strict=True)]


def compare(call: Call, found: Any, expected: Any, tolerance: float = 2e-5) -> None:
    """Raise unless all numbers agree; of random calls, unless they are finite."""
    for mine, theirs in zip(found, expected, strict=True):
        if call.random:
            assert mine.shape == theirs.shape
            assert finite(mine.detach()).isfinite().all()
        else:
            torch.testing.assert_close(mine.detach().double(), theirs.detach().double(), rtol=tolerance, atol=tolerance)


# The modes. Each runs the call in its own way and compares.


def eager(call: Call) -> None:
    """Values and gradients."""
    tensors = leaves(call.inputs())
    exact = leaves(tensors, double=True)
    compare(call, call(*tensors), oracle(call, exact))
    compare(call, gradients(call.scalar(*tensors), tensors), gradients(oracle_scalar(call, exact), exact))


def inference(call: Call) -> None:
    """Values in inference mode, then training with the same masks."""
    with torch.inference_mode():
        tensors = call.inputs()
        compare(call, call(*tensors), oracle(call, tensors))
    eager(call)


def autocast(call: Call) -> None:
    """bfloat16 on CPU, the backward inside of the block."""
    tensors = leaves(call.inputs())
    exact = leaves(tuple(x.bfloat16() if x.is_floating_point() else x for x in tensors), double=True)
    with torch.autocast("cpu", torch.bfloat16):
        results = call(*tensors)
        assert results[0].dtype == torch.bfloat16
        assert all(x.dtype == torch.float32 for x in results[1:])
        compare(call, results, oracle(call, exact), 0.04)
        found = gradients(call.scalar(*tensors), tensors)
    compare(call, found, gradients(oracle_scalar(call, exact), exact), 0.2)


def checkpoint(call: Call) -> None:
    """Without and with reentrance."""
    tensors = leaves(call.inputs())
    exact = leaves(tensors, double=True)
    expected = gradients(oracle_scalar(call, exact), exact)
    scalar = torch.utils.checkpoint.checkpoint(call.scalar, *tensors, use_reentrant=False)
    compare(call, gradients(scalar, tensors), expected)
    torch.utils.checkpoint.checkpoint(call.scalar, *tensors, use_reentrant=True).backward()
    found = [torch.zeros_like(x) if x.grad is None else x.grad for x in (tensors[n] for n in numbers_of(tensors))]
    compare(call, found, expected)


def double_backward(call: Call) -> None:
    """Gradients of gradients, in eager mode."""

    def twice(scalar: Tensor, tensors: tuple[Tensor, ...]) -> list[Tensor]:
        first = gradients(scalar, tensors, create_graph=True)
        return gradients(sum((weights_like(g) * g).sum() + g.pow(2).sum() for g in first), tensors)

    tensors = leaves(call.inputs())
    exact = leaves(tensors, double=True)
    compare(call, twice(call.scalar(*tensors), tensors), twice(oracle_scalar(call, exact), exact), 2e-3)


def func_grad(call: Call) -> None:
    """torch.func.grad of everything."""
    tensors = call.inputs()
    exact = leaves(tensors, double=True)
    found = grad(call.scalar, argnums=tuple(numbers_of(tensors)))(*tensors)
    compare(call, found, gradients(oracle_scalar(call, exact), exact))


def func_vmap(call: Call) -> None:
    """Gradients of each sample, as in differential privacy: the mask of each is made inside."""
    tensors = call.inputs()
    shared = (None,) * (len(tensors) - 6)

    def one(*sample: Tensor) -> Tensor:
        return call.scalar(*(x[None] for x in sample[:6]), *sample[6:])

    wanted = tuple(numbers_of(tensors))
    found = vmap(grad(one, argnums=wanted), in_dims=(*(0,) * 6, *shared), randomness="different")(*tensors)
    for n in range(BATCH):
        sample = leaves((*(x[n : n + 1] for x in tensors[:6]), *tensors[6:]), double=True)
        expected = gradients(oracle_scalar(call, sample), sample)
        compare(call, [x[n] for x in found], [x[0] if i < 3 else x for i, x in enumerate(expected)])


def func_jvp(call: Call) -> None:
    """A forward-mode derivative along everything."""
    tensors = call.inputs()
    tangents = [weights_like(tensors[n]).expand_as(tensors[n]) for n in numbers_of(tensors)]

    def along(function: Callable[..., Tensor], given: tuple[Tensor, ...], tangents: list[Tensor]) -> Tensor:
        places = numbers_of(given)

        def of(*moved: Tensor) -> Tensor:
            every = list(given)
            for place, x in zip(places, moved, strict=True):
                every[place] = x
            return function(*every)

        return jvp(of, tuple(given[n] for n in places), tuple(tangents))[1]

    exact = tuple(x.double() if x.is_floating_point() else x for x in tensors)
    wide = [x.double() for x in tangents]
    expected = along(lambda *x: oracle_scalar(call, x), exact, wide)
    compare(call, [along(call.scalar, tensors, tangents)], [expected], 1e-4)


def func_hessian(call: Call) -> None:
    """A Hessian times a vector, forward over reverse, with respect to q."""
    tensors = call.inputs()

    def product(function: Callable[..., Tensor], given: tuple[Tensor, ...]) -> Tensor:
        first = grad(lambda q: function(q, *given[1:]))
        return jvp(first, (given[0],), (weights_like(given[0]).expand_as(given[0]),))[1]

    exact = tuple(x.double() if x.is_floating_point() else x for x in tensors)
    expected = product(lambda *x: oracle_scalar(call, x), exact)
    compare(call, [product(call.scalar, tensors)], [expected], 1e-4)


def fake(call: Call) -> None:
    """Shapes of tensors without storage."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    tensors = call.inputs()
    with FakeTensorMode() as mode:
        results = call(*(mode.from_tensor(x) for x in tensors))
    expected = oracle(call, tensors)
    assert [x.shape for x in results] == [x.shape for x in expected]
    results = call(*(x.to("meta") for x in tensors))
    assert [x.shape for x in results] == [x.shape for x in expected]


def make_fx(call: Call) -> None:
    """A program recorded three ways, run on other numbers."""
    from torch.fx.experimental.proxy_tensor import make_fx

    tensors = call.inputs()
    other = tuple(x + 0.25 if x.is_floating_point() else x for x in tensors)
    for how in ("real", "fake", "symbolic"):
        program = make_fx(lambda *x: tuple(call(*x)), tracing_mode=how)(*tensors)
        compare(call, program(*other), oracle(call, other))


def compiled(call: Call) -> None:
    """One graph, forward and backward."""
    torch._dynamo.reset()
    tensors = leaves(call.inputs())
    exact = leaves(tensors, double=True)
    program = torch.compile(call, backend="aot_eager", fullgraph=True)
    results = program(*tensors)
    compare(call, results, oracle(call, exact))
    scalar = sum((weights_like(x) * finite(x)).sum() for x in results)
    compare(call, gradients(scalar, tensors), gradients(oracle_scalar(call, exact), exact))


def dynamic(call: Call) -> tuple[Any, ...]:
    """Both lengths of a program, free."""
    q, k = torch.export.Dim("q", min=2, max=4096), torch.export.Dim("k", min=2, max=4096)
    learned = tuple(
        {n: {"q": q, "k": k}[s] for n, s in enumerate(size) if isinstance(s, str)} for size in call.option.sizes
    )
    shapes = ({2: q}, {2: k}, {2: k}, {}, {}, {2: q, 3: k})
    return (*shapes, learned) if learned else shapes


def export(call: Call) -> None:
    """One program for lengths on both sides of the traced one."""
    program = torch.export.export(call, call.inputs(), dynamic_shapes=dynamic(call)).module()
    for sizes in ((QUERIES, KEYS), (17, 19)):
        tensors = call.inputs(*sizes)
        compare(call, program(*tensors), oracle(call, tensors))


def onnx(call: Call) -> None:
    """One graph for all lengths, run by onnxruntime."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        file = Path(folder) / "call.onnx"
        torch.onnx.export(call.eval(), call.inputs(), file, dynamo=True, dynamic_shapes=dynamic(call), verbose=False)
        session = onnxruntime.InferenceSession(file)
        for sizes in ((QUERIES, KEYS), (17, 19)):
            tensors = call.inputs(*sizes)
            names = {x.name: n for x, n in zip(session.get_inputs(), used(session, len(tensors)), strict=True)}
            found = session.run(None, {name: tensors[n].numpy() for name, n in names.items()})
            compare(call, map(torch.from_numpy, found), oracle(call, tensors))


def used(session: Any, count: int) -> list[int]:
    """Which tensors a graph takes; one that no result depends on is no input."""
    order = ["q", "k", "v", "lengths", "split", "allowed", *(f"learned_{n}" for n in range(count - 6))]
    return [order.index(x.name) for x in session.get_inputs()]


def jit_trace(call: Call) -> None:
    """One trace, run at two lengths."""
    tensors = call.inputs()
    program = torch.jit.trace(lambda *x: tuple(call(*x)), tensors, check_trace=False)
    for sizes in ((QUERIES, KEYS), (17, 19)):
        tensors = call.inputs(*sizes)
        compare(call, program(*tensors), oracle(call, tensors))


MODES: dict[str, Callable[[Call], None]] = {
    "eager": eager,
    "inference mode, then training": inference,
    "autocast, backward inside": autocast,
    "checkpoint": checkpoint,
    "double backward": double_backward,
    "func.grad": func_grad,
    "vmap(grad)": func_vmap,
    "jvp": func_jvp,
    "Hessian": func_hessian,
    "fake and meta": fake,
    "make_fx": make_fx,
    "compile(fullgraph)": compiled,
    "export, free lengths": export,
    "ONNX, free lengths": onnx,
    "jit.trace": jit_trace,
}


def cell(mask: str, option: str, mode: str) -> str | None:
    """Run one cell: None where it works, else the refusal."""
    torch.manual_seed(0)
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        try:
            MODES[mode](Call(mask, option))
        except Exception as error:
            refusal = refused(error)
            if refusal is None:
                raise
            return refusal
    return None


def refused(error: BaseException | None) -> str | None:
    """The sentence of headscope's own error in a chain of them; None where there is none."""
    while error is not None:
        if isinstance(error, HeadscopeError):
            return str(error)
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters talk."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def page(results: dict[tuple[str, str, str], str | None]) -> str:
    """The tables, one for each mask, and the refusals that they name."""
    letters: dict[str, str] = {}
    parts = [INTRODUCTION]
    for mask in MASKS:
        parts.append(f"## {mask}\n")
        parts.append("| | " + " | ".join(MODES) + " |\n|---|" + "---|" * len(MODES))
        for option in OPTIONS:
            shown = []
            for mode in MODES:
                refusal = results[mask, option, mode]
                shown.append("·" if refusal is None else letters.setdefault(refusal, f"[{len(letters) + 1}]"))
            parts.append(f"| {option} | " + " | ".join(shown) + " |")
        parts.append("")
    if letters:
        parts.append("## Refusals\n")
        parts += [f"- {letter} {refusal}" for refusal, letter in letters.items()]
    return "\n".join(parts) + "\n"


def read_results(file: Path | None) -> dict[tuple[str, str, str], str | None]:
    """Cells that were run before, as `--results` keeps them."""
    lines = file.read_text(encoding="utf-8").splitlines() if file is not None and file.exists() else []
    return {(mask, option, mode): refusal for mask, option, mode, refusal in map(json.loads, lines)}


def main() -> None:
    """Run all cells, or those of some modes, and write the page when all were run."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--modes", nargs="*", default=list(MODES))
    options.add_argument("--masks", nargs="*", default=list(MASKS))
    options.add_argument("--options", nargs="*", default=list(OPTIONS))
    options.add_argument("--keep-going", action="store_true", help="print what fails, and go on")
    options.add_argument("--traceback", action="store_true")
    options.add_argument("--results", type=Path, help="a file of JSON lines: cells in it are not run again")
    asked = options.parse_args()
    results = read_results(asked.results)
    for mode, mask, option in itertools.product(asked.modes, asked.masks, asked.options):
        if (mask, option, mode) in results:
            continue
        try:
            refusal = results[mask, option, mode] = cell(mask, option, mode)
        except Exception as error:
            if not asked.keep_going:
                raise
            if asked.traceback:
                traceback.print_exception(error)
            sys.stderr.write(f"{mode} | {mask} | {option}: {type(error).__name__} {str(error)[:300]!r}" + "\n")
        else:
            if asked.results is not None:
                with asked.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([mask, option, mode, refusal]) + "\n")
    if len(results) == len(MODES) * len(MASKS) * len(OPTIONS):
        PAGE.write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
