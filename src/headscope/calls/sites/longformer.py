"""Longformer and LED: a window of keys around every query, computed in chunks, and a few global positions.

The scores are a band of diagonals, the values a product with that band: no product of queries and keys as such is there
to follow. The three methods that compute them get q, k and v as they are, and return the values of every head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from headscope.attention.masks.mask import Dense, Mask
from headscope.attention.masks.runs import Runs
from headscope.attention.masks.window import window
from headscope.calls import blocks
from headscope.calls.call import Call
from headscope.calls.mask_rows import Reader
from headscope.calls.replaced import Replacement
from headscope.calls.sites.site import Arguments, Site
from headscope.compat.transformers import BANDED_METHODS, banded_attention

# Where the queries and keys of a running module wait for its values.
NOTE = "queries and keys of a band"


class SlidingChunks(Site):
    """The window, and the global keys that every query sees.

    Queries at global positions have projections of their own: they see nothing here, and what they see is a second call
    of the same module, written out by hand.
    """

    name = "the sliding chunks of Longformer"

    def replacements(self) -> Iterable[Replacement]:
        """The methods of each class; nothing while its module is not loaded."""
        wrappers = (self._scores, self._values, self._values)
        return [
            Replacement(kind, method, wrapper)
            for kind in banded_attention()
            for method, wrapper in zip(BANDED_METHODS, wrappers, strict=True)
        ]

    def _scores(self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The first product: of queries and keys, then (with one number for each) of what is masked."""
        running = blocks.innermost()
        if running is not None and NOTE not in running.notes:
            arguments = dict(zip(("self", "query", "key", "window_overlap"), args, strict=False)) | kwargs
            running.notes[NOTE] = arguments
        with blocks.suppressed():
            return original(*args, **kwargs)

    def _values(self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The second product: with the window alone, or with the window and the global keys."""
        running = blocks.innermost()
        inside = blocks.local.suppressed or running is None or NOTE not in running.notes
        return original(*args, **kwargs) if inside else self.around(original, args, kwargs)

    def arguments(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """The values, the queries and keys before them, and the marks of the module's positions."""
        running = blocks.innermost()
        assert running is not None
        marks = {name: running.argument(name) for name in ("is_index_masked", "is_index_global_attn")}
        names = ("self", "attn_probs", "value") if "value_vectors" not in kwargs else ("self",)
        arguments = dict(zip(names, args, strict=False)) | kwargs
        before: Arguments = running.notes[NOTE]
        return before | marks | {"value": arguments.get("value", arguments.get("value_vectors"))}

    def read(self, reader: Reader, heads: int | None, arguments: Arguments) -> Call:
        """The queries are scaled already."""
        q, k, v = (arguments[name].transpose(1, 2) for name in ("query", "key", "value"))
        runs = band(
            arguments["window_overlap"], q.shape[2], arguments["is_index_masked"], arguments["is_index_global_attn"]
        )
        return Call(q, k, v, runs, None, 1.0, cross=False)

    def values(self, output: Any, arguments: Arguments, heads: int | None) -> Tensor:
        """`(b, q, h, e)`."""
        values: Tensor = output.transpose(1, 2)
        return values

    def replace(self, output: Any, values: Tensor, arguments: Arguments) -> Any:
        """With the axes of the output."""
        return values.transpose(1, 2)

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Nothing that it calls is captured."""
        with blocks.suppressed():
            return func(*args, **kwargs)


def band(side: int, n: int, padding: Tensor, everywhere: Tensor) -> Runs:
    """Who sees whom: `side` keys to either side and the global keys; padding and global queries see nothing.

    Shapes:
        padding, everywhere `(b, n)`, True at padding and at global positions.
    """
    unseen = padding | everywhere
    mask: Mask = window(side, side) & Dense(~unseen[:, None, None, :])
    if bool(everywhere.any()):
        mask = mask | Dense(everywhere[:, None, None, :])
    runs = mask.runs(n, n, padding.device)
    return Runs(*(x.masked_fill(unseen[:, None, :, None], 0) for x in runs))
