"""`patch`: heads from another run in the place of a model's own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from headscope.attention.api import attend
from headscope.change.editor import Editor, Output
from headscope.change.head_numbers import Heads, by_layer, check_size, chosen
from headscope.errors import LookError
from headscope.look.head import Head
from headscope.recording.recording import Recording


def patch(model: nn.Module | object, recording: Recording, heads: Heads, what: str = "output") -> Editor:
    """Put heads of a recording into a model for the time of a `with` block.

    Args:
        recording: of the same model on another input, with as many positions.
        heads: pairs (layer, head).
        what: "output" takes the head's output there; "weights" its attention weights, which are then applied to
            the model's own values: where it looked, but at what is here now.

    A recording of one item is used for every item of a batch; else there must be as many of both.

    Raises:
        LookError: a head, layer or item that does not exist; other sizes; no values recorded; `what` means nothing.
        ModelError: `model` is not a torch.nn.Module.

    Source: activation patching, Vig et al. 2020; Meng et al. 2022.

    Example:
        >>> import torch, headscope as hs
        >>> layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
        >>> x, y = torch.randn(2, 1, 3, 8)
        >>> with hs.record(layer) as there:
        ...     _ = layer(y)
        >>> with hs.patch(layer, there, [(0, 0), (0, 1)]):
        ...     patched = layer(x)
        >>> torch.equal(patched, layer(x))
        False
    """
    if what not in ("output", "weights"):
        raise LookError(f'patch: what={what!r}; give "output" or "weights".')
    if not isinstance(recording, Recording):
        raise LookError(f"patch: expected a Recording, got {type(recording).__name__}; give what hs.record gave.")
    numbers = by_layer("patch", heads)

    def edit(output: Output) -> Tensor:
        which = chosen("patch", output, numbers[output.layer])
        items = range(len(output.values))
        rows = [torch.stack([new(output, head, item) for head in numbers[output.layer]]) for item in items]
        return output.values.index_copy(1, which, torch.stack(rows).to(output.values))

    def new(output: Output, number: int, item: int) -> Tensor:
        head = source(recording, output, number, item)
        if what == "output":
            values = head.values()
            check_size("patch", values, output)
            return values
        group = number // (output.values.shape[1] // output.v.shape[1])
        return weighted(head, output.v[item, group])

    return Editor("patch", model, edit, numbers)


def source(recording: Recording, output: Output, number: int, item: int) -> Head:
    """The head of the recording that stands in for one item's.

    Raises:
        LookError: the recording has other sizes.
    """
    layer = next((one for one in recording.layers if one.number == output.layer), None)
    if layer is None:
        raise LookError(f"patch: layer {output.layer} is not in the recording; record it too.")
    if layer.items not in (1, len(output.values)):
        raise LookError(
            f"patch: the recording has {layer.items} items and the batch {len(output.values)}; give 1 or as many."
        )
    head = recording[output.layer, number, item if layer.items > 1 else 0]
    if len(head.q) != output.values.shape[2]:
        raise LookError(
            f"patch: head {output.layer}.{number} has {len(head.q)} queries in the recording and "
            f"{output.values.shape[2]} here; record an input of as many positions."
        )
    return head


def weighted(head: Head, v: Tensor) -> Tensor:
    """The weights of a recorded head, applied to other values.

    Raises:
        LookError: there are not as many values as keys.
    """
    if len(v) != len(head.k):
        raise LookError(
            f"patch: the head has {len(head.k)} keys in the recording and {len(v)} here; record an input of as many."
        )
    q, k = head._wide
    options = {"mask": head.mask, "bias": head.bias, "scale": head.scale, "softcap": head.softcap, "sinks": head.sinks}
    return attend(q, k, v.to(q)[None, None], **options)[0, 0]  # type: ignore[arg-type]
