"""Random calls of attention for test_fuzz.py, and what they mean, written without a line of the package.

A mask or a bias is drawn as a description. From one description come the object that `hs.attend` gets, and the booleans
or numbers that the reference uses: by loops over pairs, from the words of the documentation alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

import headscope as hs

Pair = Callable[[int, int, int, int], bool]  # item, head, query, key


@dataclass(frozen=True)
class Who:
    """A mask: its words, the object, and the same rule for one pair of query and key."""

    words: str
    mask: Any
    rule: Pair

    def written_out(self, b: int, h: int, q: int, k: int) -> Tensor:
        """`(b, h, q, k)`, True where the query may see the key."""
        pairs = [self.rule(n, m, i, j) for n in range(b) for m in range(h) for i in range(q) for j in range(k)]
        return torch.tensor(pairs, dtype=torch.bool).view(b, h, q, k)


@dataclass(repr=False)
class Call:
    """One call: its tensors and options, and what they mean."""

    q: Tensor
    k: Tensor
    v: Tensor
    who: Who | None = None
    bias_words: str = "none"
    bias: Any = None
    added: Callable[[], Tensor] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    learned: list[Tensor] = field(default_factory=list)

    def __repr__(self) -> str:
        tensors = ", ".join(f"{tuple(x.shape)} strides {x.stride()}" for x in (self.q, self.k, self.v))
        words = "none" if self.who is None else self.who.words
        shown = {n: tuple(x.shape) if isinstance(x, Tensor) else x for n, x in self.options.items()}
        return f"Call({self.q.dtype}, q k v {tensors}, mask {words}, bias {self.bias_words}, {shown})"

    @property
    def keywords(self) -> dict[str, Any]:
        """The keywords of `hs.attend`."""
        return {"mask": None if self.who is None else self.who.mask, "bias": self.bias, **self.options}

    @property
    def scale(self) -> float:
        """The factor of the scores."""
        given = self.options.get("scale")
        return given if given is not None else 1 / math.sqrt(self.q.shape[3]) if self.q.shape[3] else 1.0

    def scores(self) -> Tensor:
        """Products of queries and keys, scaled: what rounding is relative to."""
        q, k = (x.detach().double() for x in (self.q, self.k))
        return self.scale * q @ k.repeat_interleave(q.shape[1] // k.shape[1], 1).transpose(2, 3)

    def allowed(self) -> Tensor:
        """Who may see whom, `(b, h, q, k)`."""
        sizes = (*self.q.shape[:3], self.k.shape[2])
        return torch.ones(sizes, dtype=torch.bool) if self.who is None else self.who.written_out(*sizes)


def reference(call: Call, q: Tensor, k: Tensor, v: Tensor, added: Tensor | None, sinks: Tensor | None) -> list[Tensor]:
    """Values and lse in float64, by torch's own softmax; an lse of a query that sees nothing is minus infinity."""
    allowed, softcap = call.allowed(), call.options.get("softcap")
    share = q.shape[1] // k.shape[1]
    scores = call.scale * torch.einsum("bhqd,bhkd->bhqk", q, k.repeat_interleave(share, 1))
    if softcap is not None:
        scores = softcap * (scores / softcap).tanh()
    if added is not None:
        scores = scores + added
    # One more key, whose value is 0, with the logit of the sink.
    logits = torch.full((scores.shape[1],), -math.inf, dtype=torch.float64) if sinks is None else sinks
    scores = scores.masked_fill(~allowed, -math.inf)
    scores = torch.cat([scores, logits[None, :, None, None].expand(*scores.shape[:3], 1)], -1)
    empty = (scores == -math.inf).all(-1, keepdim=True)
    scores = scores.masked_fill(empty, 0.0)
    weights = scores.softmax(-1).masked_fill(empty, 0.0)[..., :-1]
    values = torch.einsum("bhqk,bhke->bhqe", weights, v.repeat_interleave(share, 1))
    return [values, scores.logsumexp(-1).masked_fill(empty[..., 0], -math.inf)]


# Drawing.

LENGTHS = (0, 1, 2, 5, 17, 33)


def laid_out(draw: Any, b: int, h: int, n: int, d: int, dtype: torch.dtype, made: torch.Generator) -> Tensor:
    """Random numbers of that shape, in one of the ways that tensors lie in memory."""
    how = draw(st.sampled_from(["plain", "heads last", "sliced", "stepped", "shared heads", "turned"]))
    size = draw(st.sampled_from([1.0, 1.0, 4.0]))
    if how == "heads last":
        x = torch.randn(b, n, h, d, generator=made).transpose(1, 2)
    elif how == "sliced":
        x = torch.randn(b, h, n + 3, d + 1, generator=made)[:, :, 2 : n + 2, 1:]
    elif how == "stepped":
        x = torch.randn(b, h, n, 2 * d, generator=made)[..., ::2]
    elif how == "shared heads":
        x = torch.randn(b, 1, n, d, generator=made).expand(b, h, n, d)
    elif how == "turned":
        x = torch.randn(b, h, d, n, generator=made).transpose(2, 3)
    else:
        x = torch.randn(b, h, n, d, generator=made)
    # Multiplied in place of a copy: the strides stay.
    return x.to(dtype) * size if how != "shared heads" else (x[:, :1].to(dtype) * size).expand(b, h, n, d)


def lengths_that_add_up(draw: Any, total: int, count: int) -> list[int]:
    """Some lengths, zeros among them, that add up."""
    cuts = sorted(draw(st.lists(st.integers(0, total), min_size=count - 1, max_size=count - 1)))
    return [stop - start for start, stop in zip([0, *cuts], [*cuts, total], strict=True)]


def leaf(draw: Any, b: int, h: int, q: int, k: int) -> Who:
    """A mask of one family."""
    kind = draw(st.sampled_from(["causal", "window", "padding", "documents", "prefix", "first", "dense"]))
    own = k - q  # the last query is at the last key
    if kind == "causal":
        return Who("causal", hs.causal(), lambda n, m, i, j: j <= i + own)
    if kind == "window":
        left, right = (draw(st.none() | st.integers(0, 7)) for _ in range(2))
        return Who(
            f"window({left}, {right})",
            hs.window(left, right),
            lambda n, m, i, j: (left is None or j >= i + own - left) and (right is None or j <= i + own + right),
        )
    if kind == "padding":
        keys = draw(st.lists(st.integers(0, k), min_size=b, max_size=b))
        queries = draw(st.none() | st.lists(st.integers(0, q), min_size=b, max_size=b))
        return Who(
            f"padding({keys}, {queries})",
            hs.padding(
                torch.tensor(keys, dtype=torch.int64),
                None if queries is None else torch.tensor(queries, dtype=torch.int64),
            ),
            lambda n, m, i, j: j < keys[n] and (queries is None or i < queries[n]),
        )
    if kind == "documents":
        count = draw(st.integers(1, 3))
        each = [(lengths_that_add_up(draw, q, count), lengths_that_add_up(draw, k, count)) for _ in range(b)]
        of = [[[n for n, size in enumerate(side) for _ in range(size)] for side in pair] for pair in each]
        queries, keys = (torch.tensor([pair[n] for pair in each], dtype=torch.int64).view(b, count) for n in range(2))
        return Who(f"documents({each})", hs.documents(queries, keys), lambda n, m, i, j: of[n][0][i] == of[n][1][j])
    if kind == "prefix":
        count = draw(st.integers(0, k))
        return Who(f"prefix({count})", hs.prefix(count), lambda n, m, i, j: j < count or j <= i + own)
    if kind == "first":
        count = draw(st.integers(0, k + 2))
        return Who(f"first({count})", hs.first(count), lambda n, m, i, j: j < count)
    sizes = (draw(st.sampled_from([1, b])), draw(st.sampled_from([1, h])), draw(st.sampled_from([1, q])), k)
    chosen = torch.rand(sizes, generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))) < draw(
        st.sampled_from([0.1, 0.6, 0.95])
    )
    one = [size == 1 for size in sizes]
    return Who(
        f"dense{sizes}",
        hs.dense(chosen),
        lambda n, m, i, j: bool(chosen[0 if one[0] else n, 0 if one[1] else m, 0 if one[2] else i, j]),
    )


def tree(draw: Any, b: int, h: int, q: int, k: int, depth: int = 2) -> Who:
    """A mask, or two that are joined."""
    how = draw(st.sampled_from(["leaf", "leaf", "&", "|"])) if depth else "leaf"
    if how == "leaf":
        return leaf(draw, b, h, q, k)
    x, y = tree(draw, b, h, q, k, depth - 1), tree(draw, b, h, q, k, depth - 1)
    if how == "&":
        return Who(f"({x.words} & {y.words})", x.mask & y.mask, lambda *pair: x.rule(*pair) and y.rule(*pair))
    return Who(f"({x.words} | {y.words})", x.mask | y.mask, lambda *pair: x.rule(*pair) or y.rule(*pair))


def with_bias(draw: Any, call: Call, made: torch.Generator) -> None:
    """A bias, as an object and as numbers `(b, h, q, k)` that are made when they are asked for."""
    b, h, q, _ = call.q.shape
    k = call.k.shape[2]
    kind = draw(st.sampled_from(["none", "none", "alibi", "relative", "dense"]))
    if kind == "none":
        return
    distance = torch.arange(k)[None, :] - (torch.arange(q)[:, None] + k - q)
    call.bias_words = kind
    if kind == "alibi":
        slopes = torch.rand(h, generator=made).requires_grad_()
        call.bias, call.learned = hs.alibi(slopes), [slopes]
        call.added = lambda: (-slopes.double()[:, None, None] * distance.abs())[None].expand(b, h, q, k)
    elif kind == "relative":
        both = draw(st.booleans())
        table = torch.randn(8, h, generator=made).requires_grad_()
        call.bias, call.learned = hs.relative(table, bidirectional=both, max_distance=16), [table]
        buckets = torch.tensor([[t5_bucket(int(x), 8, 16, both) for x in row] for row in distance]).view(q, k).long()
        call.added = lambda: table.double()[buckets].permute(2, 0, 1)[None].expand(b, h, q, k)
    else:
        sizes = [draw(st.sampled_from([1, size])) for size in (b, h, q, k)]
        values = torch.randn(sizes, generator=made).to(call.q.dtype).requires_grad_()
        call.bias_words += str(tuple(sizes))
        call.bias, call.learned = hs.dense_bias(values), [values]
        call.added = lambda: values.double().expand(b, h, q, k)


def t5_bucket(distance: int, buckets: int, furthest: int, both: bool) -> int:
    """T5's bucket of one distance (key minus query), from the paper's description."""
    first = 0
    if both:
        buckets //= 2
        first = buckets if distance > 0 else 0
        away = abs(distance)
    else:
        away = max(-distance, 0)
    exact = buckets // 2
    if away < exact:
        return first + away
    step = math.log(torch.tensor(away / exact).item()) / math.log(furthest / exact) * (buckets - exact)
    return first + min(exact + int(step + 1e-6), buckets - 1)


@st.composite
def calls(draw: Any) -> Call:
    """Any call of `hs.attend`."""
    b, g, share = draw(st.sampled_from([0, 1, 1, 2, 3])), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    q, k = draw(st.sampled_from(LENGTHS)), draw(st.sampled_from(LENGTHS))
    d, e = draw(st.sampled_from([0, 1, 4, 7, 16])), draw(st.sampled_from([0, 1, 3, 8, 16]))
    dtype = draw(st.sampled_from([torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16]))
    made = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    h = g * share
    call = Call(
        *(laid_out(draw, b, heads, n, size, dtype, made) for heads, n, size in ((h, q, d), (g, k, d), (g, k, e)))
    )
    call.who = draw(st.none()) if draw(st.integers(0, 4)) == 0 else tree(draw, b, h, q, k)
    with_bias(draw, call, made)
    call.options["scale"] = draw(st.sampled_from([None, None, None, 0.37, 0.0, -1.0]))
    call.options["softcap"] = draw(st.sampled_from([None, None, 1.3, 30.0]))
    if draw(st.integers(0, 3)) == 0:
        call.options["sinks"] = torch.randn(h, generator=made).to(dtype).requires_grad_()
        call.learned.append(call.options["sinks"])
    return call
