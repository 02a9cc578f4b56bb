"""W_O of a recorded head: the rows of its layer's output projection, found beside the attention call in its model."""

from __future__ import annotations

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor, nn

from headscope.errors import LookError, ModelError
from headscope.recording.layer import Layer

# What output projections are called: torch, Llama, Whisper, GPT-2, T5, DistilBERT, Falcon and ours, BERT and ViT inside
# a module named "output", and the rest. An earlier name wins.
NAMES = ("out_proj", "o_proj", "c_proj", "o", "out_lin", "output", "output.dense", "wo", "to_out.0", "dense", "proj")


def output_projection(model: nn.Module, layer: Layer, head: int) -> Float[Tensor, "e m"]:
    """The rows of W_O that one head's values are multiplied with.

    It is the linear map that takes the merged heads, h · e numbers, and lies in the module that called attention or in
    the one around it.

    Args:
        head: the model's number of the head.

    Raises:
        LookError: the layer was recorded without values.
        ModelError: the model has no such module, or no output projection is found in it.
    """
    if layer.v is None:
        raise LookError(
            f"output_projection: {layer.name!r} was recorded without its values, so that their size is not known; "
            "record with values=True."
        )
    size = layer.v.shape[3]
    weight = found(model, layer.name, size, least=max(*layer.head_numbers, head) + 1)
    return weight[head * size : (head + 1) * size]


def found(model: nn.Module, name: str, size: int, least: int) -> Tensor:
    """The output projection of at least so many heads as `(h · e, m)`: the merged heads times this are the output."""
    modules = dict(model.named_modules())
    if name not in modules:
        raise ModelError(
            f"output_projection: {type(model).__name__} has no module {name!r}; give the model that was recorded."
        )
    for place in (name, name.rpartition(".")[0]):
        for linear in named(modules[place]):
            # transformers' Conv1D holds its weight as (in, out), nn.Linear as (out, in).
            weight = linear.get_parameter("weight").detach()
            weight = weight if type(linear).__name__ == "Conv1D" else weight.T
            if weight.shape[0] % size == 0 and weight.shape[0] >= least * size:
                return weight
    raise ModelError(
        f"output_projection: no linear map from {least} or more heads of {size} numbers, named one of "
        f"{', '.join(NAMES)}, lies in or around {name!r}; give W_O to value_weighted yourself."
    )


def named(module: nn.Module) -> Iterator[nn.Module]:
    """The submodules that bear one of the names and have a matrix, in the order of the names."""
    for name in NAMES:
        try:
            part = module.get_submodule(name)
        except AttributeError:
            continue
        if getattr(getattr(part, "weight", None), "ndim", 0) == 2:
            yield part
