"""Does `attn_implementation="headscope"` agree with eager: outputs, gradients and generated tokens, however padded?"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from tests.families import tiny

NEW = 20
HOW = ("eager", "headscope")


class Refused(RuntimeError):
    """A model that is not built, or does not run, with attention computed in some way."""

    def __init__(self, how: str, error: Exception) -> None:
        text = f"{type(error).__name__}: {tiny.reason(error)}".splitlines()[0][:100].replace("|", "/")
        # Some models choose the class of a layer from a table that ends with sdpa, and take no function of others.
        table = isinstance(error, KeyError) and error.args == ("headscope",)
        super().__init__("chooses its classes from a table of eager and sdpa" if table else f"on {how}: {text}")


class Agreement(NamedTuple):
    """How far a model on "headscope" is from the same model on "eager", at worst over both sides of padding.

    Attributes:
        outputs: the largest difference of the logits (of the last hidden states without a head), relative to the
            largest of them; queries that are padding are left out. None where the model has no eager attention.
        gradients: the largest difference of a gradient, relative to the largest gradient of all parameters.
        tokens: whether the greedily generated tokens are the same ones; None where the model does not generate.
        note: what could not be compared, and why.
    """

    outputs: float | None = None
    gradients: float | None = None
    tokens: bool | None = None
    note: str = ""


def agree(kind: str) -> Agreement:
    """Compare the two implementations on one architecture: with its language head where it has one."""
    pair, inputs, note = None, {}, ""
    for base in (False, True):
        try:
            pair, inputs = built(kind, base=base)
            break
        except Refused as error:
            note = str(error)
    if pair is None:
        return Agreement(note=note)
    outputs, gradients = [], []
    for given in padded(inputs):
        (eager, steep), (ours, mine) = (passed(model, given) for model in pair)
        if not eager.isfinite().all():
            return Agreement(note="eager itself gives nan")
        outputs.append(relative(eager, ours))
        gradients += [relative(a, b, steep) for a, b in zip(steep, mine, strict=True)]
    return Agreement(largest(outputs), largest(gradients), *generated(pair, inputs))


def built(kind: str, *, base: bool) -> tuple[list[Any], dict[str, Tensor]]:
    """The model on eager and on headscope with the same numbers in it, and an input that both run on."""
    pair = []
    for how in HOW:
        try:
            model, inputs = tiny.build(kind, how) if base else tiny.build_head(kind, how)
        except Exception as error:
            raise Refused(how, error) from error
        pair.append(model)
    with torch.no_grad():
        torch.manual_seed(5)
        for p in pair[0].parameters():
            # Position 0 of a fresh model is often all zeros; there a layer norm has a gradient of nothing but rounding.
            if p.is_floating_point():
                p.add_(0.02 * torch.randn_like(p))
    pair[1].load_state_dict(pair[0].state_dict())
    if kind in BOOLEANS:
        pair[0].text_backbone.register_forward_pre_hook(with_numbers)
    return pair, inputs


# Their text model gets a boolean mask of four axes, which "eager" adds to its scores as ones and zeros; "sdpa" and
# "headscope" take it at its word.
BOOLEANS = {"grounding-dino", "mm-grounding-dino"}


def with_numbers(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The inputs of a text model with its mask as numbers to add."""
    ids, allowed, *others = args
    return ids, torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min), *others


def padded(inputs: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The batch padded on the right, and the same padded on the left; as it is where there is no padding."""
    if "attention_mask" not in inputs or "input_ids" not in inputs:
        return [inputs]
    shape = inputs["input_ids"].shape
    flipped = {
        name: x.flip(1)
        for name, x in inputs.items()
        if getattr(x, "shape", None) == shape and not name.startswith("decoder")
    }
    return [inputs, inputs | flipped]


def passed(model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The output at every position that is no padding, and the gradients of all parameters."""
    model.zero_grad()
    torch.manual_seed(0)
    output = model(**inputs | ({"use_cache": False} if "use_cache" in tiny.arguments(model) else {}))
    leaves = [x for x in tree_leaves(tuple(output.values())) if isinstance(x, Tensor) and x.is_floating_point()]
    real = inputs.get("attention_mask")
    # A pooled output may come from a position that is padding: what is there for every position says more.
    each = next((x for x in leaves if real is not None and x.shape[:2] == real.shape), None)
    found = leaves[0] if each is None or real is None else each[real.bool()]
    if found.requires_grad:
        torch.manual_seed(1)
        (found * torch.randn(found.shape)).mean().backward()
    grads = [p.grad if p.grad is not None else torch.zeros(()) for p in model.parameters()]
    return found.detach(), grads


def relative(a: Tensor, b: Tensor, against: list[Tensor] | None = None) -> float:
    """The largest difference, relative to the largest number there is."""
    if a.shape != b.shape:
        return float("inf")
    size = max((float(x.abs().max()) for x in against or [a] if x.numel()), default=0.0)
    return float((a - b).abs().max()) / (size + 1e-12) if a.numel() else 0.0


def largest(differences: list[float]) -> float:
    """The largest difference; one that is no number is larger than any."""
    return max((float("inf") if math.isnan(x) else x for x in differences), default=0.0)


def generated(pair: list[Any], inputs: dict[str, Tensor]) -> tuple[bool | None, str]:
    """Whether both continue in the same words, with padding on either side."""
    if not all(model.can_generate() for model in pair):
        return None, ""
    given = {name: x for name, x in inputs.items() if not name.startswith("decoder")}
    note = ""
    for one in padded(given):
        texts = []
        for how, model in zip(HOW, pair, strict=True):
            try:
                texts.append(continued(model, one))
            except Exception as error:  # noqa: BLE001
                return None if how == "eager" else False, f"generates not {Refused(how, error)}"
        eager, ours = (getattr(text, "sequences", text) for text in texts)
        if torch.equal(eager, ours):
            continue
        # What a position of padding sees is no one's promise: eager and sdpa may differ there, and so what follows it.
        ends = one.get("attention_mask", torch.ones(2, 1))[:, -1].bool()
        if eager.shape != ours.shape or not torch.equal(eager[ends], ours[ends]):
            return False, ""
        note = "tokens after padding differ"
    return True, note


def continued(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """What a model says after its input."""
    settings = model.generation_config
    settings.pad_token_id, settings.eos_token_id = 0, None
    if model.config.is_encoder_decoder and settings.decoder_start_token_id is None:
        settings.decoder_start_token_id = 1
    torch.manual_seed(0)
    with torch.no_grad():
        return model.generate(**inputs, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)
