"""Attention that a model writes out by hand: a softmax of a product, multiplied with values."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from headscope.calls import blocks
from headscope.calls.by_hand.follower import Follower
from headscope.calls.by_hand.from_scores import axes_of, call_of
from headscope.calls.by_hand.pairs import Pair
from headscope.calls.by_hand.products import arranged
from headscope.calls.call import Call
from headscope.calls.mask_rows import Reader
from headscope.calls.sites.site import Arguments, Site

UNKNOWN = (
    "it computes weights {} by hand, and neither the module nor its inputs tell how many heads they have; give the "
    "module an attribute num_heads"
)


class ByHand(Site):
    """Every function of torch may be a step of it; the output that is edited is that of the second product."""

    name = "attention written out by hand"

    def follow(self, follower: Follower, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A function's own result, after what it completes was captured and edited."""
        if follower.known:
            follower.before(func, args, kwargs)
        output = func(*args, **kwargs)
        pair = follower.after(func, args, kwargs, output)
        running = None if pair is None else blocks.innermost()
        if pair is None or running is None:
            return output
        inputs = (*running.args, *running.kwargs.values())
        axes = axes_of(pair, blocks.head_count(running.module), inputs)
        if axes is None:
            blocks.miss(UNKNOWN.format(tuple(pair.weights.shape)))
            return output
        arguments = {"pair": pair, "axes": axes}

        def read(reader: Reader, heads: int | None) -> Call | None:
            return self.read(reader, heads, arguments)

        blocks.capture(self.name, read)
        return self.edit(output, lambda: arguments, read)

    def arguments(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """What was followed up to the second product, and not the product's own arguments: see `follow`."""
        return {}

    def read(self, reader: Reader, heads: int | None, arguments: Arguments) -> Call | None:
        """See `call_of`."""
        return call_of(arguments["pair"], arguments["axes"])

    def refusal(self, output: Any, arguments: Arguments) -> str | None:
        """Only where the axes of the output are known is it known which of its numbers are whose."""
        pair: Pair = arguments["pair"]
        if pair.part:
            return "it computes one head at a time"
        if not isinstance(output, Tensor) or output.ndim != len(pair.layout.output):
            return f"the axes of its product are not those of {pair.layout.output!r}"
        return None

    def values(self, output: Any, arguments: Arguments, heads: int | None) -> Tensor:
        """The product with its axes in the order of the weights, and those of the values last."""
        axes, layout = arguments["axes"], arguments["pair"].layout
        ordered = arranged(output, layout.output, layout.batch + layout.row + layout.others)
        values = ordered.flatten(len(layout.batch) + 1) if layout.others else ordered[..., None]
        four: Tensor = axes.four(values)
        return four

    def replace(self, output: Any, values: Tensor, arguments: Arguments) -> Any:
        """With the axes of the product."""
        axes, layout = arguments["axes"], arguments["pair"].layout
        size = dict(zip(layout.output, output.shape, strict=True))
        order = layout.batch + layout.row + layout.others
        whole = axes.back(values, tuple(size[letter] for letter in layout.batch))
        whole = whole.reshape([size[letter] for letter in order])
        return whole.permute([order.index(letter) for letter in layout.output])
