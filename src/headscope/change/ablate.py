"""`ablate`: a model without some of its heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from headscope.change.editor import Editor, Output
from headscope.change.head_numbers import Heads, by_layer, check_size, chosen
from headscope.errors import LookError
from headscope.recording.recording import Recording


def ablate(model: nn.Module | object, heads: Heads, how: str | Recording = "zero") -> Editor:
    """Switch heads off for the time of a `with` block; the model itself stays as it is.

    Works on every model that `hs.record` sees, with the same numbers of layers and heads. Gradients flow around the
    heads. Leaving the block, also by an exception, leaves nothing behind.

    Args:
        heads: pairs (layer, head).
        how: "zero" puts zeros in the place of a head's output; "mean" its mean over the positions of each sequence,
            which takes away what it says about positions but not what it always says; a `Recording` the mean of the
            head's output over all positions and items recorded there. Padding counts in neither mean.

    Raises:
        LookError: a head or a layer that does not exist; no heads; `how` means nothing, or was recorded of a model with
            heads of another size.
        ModelError: `model` is not a torch.nn.Module.

    Source: Michel et al. 2019; Voita et al. 2019; mean ablation as in Wang et al. 2022.

    Example:
        >>> import torch, headscope as hs
        >>> layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
        >>> x = torch.randn(1, 3, 8)
        >>> with hs.ablate(layer, [(0, 1)]):
        ...     without = layer(x)
        >>> torch.equal(without, layer(x))
        False
    """
    if not isinstance(how, Recording) and how not in ("zero", "mean"):
        raise LookError(f'ablate: how={how!r}; give "zero", "mean", or a Recording to take the mean output from.')
    numbers = by_layer("ablate", heads)
    reference: dict[tuple[int, int], Tensor] = {}
    if isinstance(how, Recording):
        for layer, head in ((layer, head) for layer, some in numbers.items() for head in some):
            # The first look also says when the recording does not have the head.
            there = [how[layer, head]]
            items = next(one.items for one in how.layers if one.number == layer)
            there += [how[layer, head, item] for item in range(1, items)]
            reference[layer, head] = torch.cat([one.values()[one.sequences.rows] for one in there]).mean(0)

    def edit(output: Output) -> Tensor:
        which = chosen("ablate", output, numbers[output.layer])
        if how == "zero":
            return output.values.index_fill(1, which, 0.0)
        if how == "mean":
            new = means(output, which)
        else:
            new = torch.stack([reference[output.layer, head] for head in numbers[output.layer]]).to(output.values)
            check_size("ablate", new, output)
            new = new[None, :, None].expand(len(output.values), -1, output.values.shape[2], -1)
        return output.values.index_copy(1, which, new)

    return Editor("ablate", model, edit, numbers)


def means(output: Output, which: Tensor) -> Tensor:
    """The mean of chosen heads over each sequence of each item, at all of its positions; what is padding stays.

    Shapes:
        which `(n,)` → `(b, n, q, e)`.
    """
    values, sequences = output.values[:, which], output.sequences()
    if sequences is None:
        return values.mean(2, keepdim=True).expand_as(values)
    found = []
    for item, one in zip(values, sequences, strict=True):
        rows, numbers = one.rows.to(values.device), one.row_numbers.to(values.device)
        if not len(rows):
            found.append(item)
            continue
        sums = item.new_zeros(len(item), int(numbers.max()) + 1, item.shape[2]).index_add(1, numbers, item[:, rows])
        each = sums / torch.bincount(numbers).clamp(min=1)[:, None]
        found.append(item.index_copy(1, rows, each[:, numbers]))
    return torch.stack(found) if found else values
