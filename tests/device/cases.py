"""What is computed on a second device and on the CPU: each function gets a device and returns what is compared."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import headscope as hs

B, H, G, Q, K, D, E, V = 2, 6, 3, 7, 11, 8, 5, 13
HEADS, SIZE, WIDTH = 4, 8, 32
Case = Callable[[str], Any]
LOOKS: dict[str, Case] = {}


def normal(*sizes: int, seed: int = 0) -> torch.Tensor:
    """The same numbers on every device."""
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed + sum(sizes)))


def qkv(device: str, *, grad: bool = False) -> list[torch.Tensor]:
    """q, k and v of grouped heads."""
    sizes = (B, H, Q, D), (B, G, K, D), (B, G, K, E)
    return [normal(*size, seed=i).to(device).requires_grad_(grad) for i, size in enumerate(sizes)]


def masks(device: str) -> dict[str, Any]:
    """One mask of each kind; lengths and tensors of both devices."""
    allowed = (normal(B, 1, Q, K) > -0.5).to(device)
    lengths = torch.tensor([3, 11])
    hidden = torch.zeros(Q, K, dtype=torch.bool, device=device).index_fill(1, torch.tensor([0, 4], device=device), True)
    return {
        "causal": hs.causal(),
        "window": hs.window(3, 2),
        "padding": hs.padding(lengths.to(device)),
        "padding of lists": hs.padding([3, 11], [7, 5]) & hs.causal(),
        "documents": hs.documents([[3, 4], [2, 5]], [[5, 6], [1, 10]]),
        "prefix": hs.prefix(lengths),
        "first": hs.first(2) | hs.window(1),
        "dense": hs.dense(allowed),
        "dense of the CPU": hs.dense(allowed.cpu()) & hs.padding(lengths.to(device)),
        "of torch": hs.from_torch_mha_mask(hidden),
        "additive": hs.from_additive(torch.zeros(Q, K, device=device).masked_fill(hidden, -torch.inf))[0],
    }


def biases(device: str) -> dict[str, Any]:
    """One bias of each kind."""
    return {
        "alibi": hs.alibi(H),
        "slopes": hs.alibi(normal(H).abs().to(device)),
        "relative": hs.relative(normal(12, H).to(device)),
        "dense": hs.dense_bias(normal(1, H, Q, K).to(device)),
    }


def encoder(device: str, *, training: bool = False) -> nn.Module:
    """A small encoder of torch's layers, with the same numbers everywhere."""
    torch.manual_seed(5)
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).train(training).to(device)


def states(device: str) -> torch.Tensor:
    """Its input."""
    return normal(B, Q, WIDTH).to(device)


def recorded(device: str, **options: Any) -> hs.Recording:
    """The encoder recorded with a padded batch."""
    model = encoder(device)
    hidden = torch.zeros(B, Q, dtype=torch.bool)
    hidden[1, 5:] = True
    with torch.no_grad(), hs.record(model, **options) as recording:
        model(states(device), src_key_padding_mask=hidden.to(device))
    return recording


def labelled(device: str) -> hs.Recording:
    """The same with words, some of which come twice."""
    words = ["[CLS]", "the", "cat", "##s", "the", "cat", "[SEP]"]
    recording = recorded(device)
    for item in range(B):
        recording.tokens(words, special=[True, *[False] * 5, True], item=item)
    return recording


def head(device: str) -> hs.Head:
    """A head with everything that changes scores."""
    q, k, v = qkv(device)
    mask = hs.causal() & hs.padding([10])
    bias = hs.dense_bias(normal(1, 1, Q, K).to(device))
    sinks = normal(1).to(device)
    return hs.Head(q[0, 0], k[0, 0], v[0, 0], mask=mask, bias=bias, softcap=3.0, sinks=sinks)


def look(case: Case) -> Case:
    """Note a case of what is asked of recordings, heads and tensors."""
    LOOKS[case.__name__] = case
    return case


def arguments(device: str, *, grad: bool) -> tuple[list[torch.Tensor], dict[str, Any]]:
    """q, k and scoring for `hs.look`."""
    q, k, _ = qkv(device, grad=grad)
    return [q, k], {
        "mask": hs.causal() & hs.padding(torch.tensor([4, 11])),
        "bias": hs.alibi(H),
        "sinks": normal(H).to(device),
    }


@look
def of_tensors(device: str) -> list[Any]:
    (q, k), scoring = arguments(device, grad=False)
    both = [getattr(hs.look, name)(q, k, **scoring) for name in ("entropy", "concentration", "received", "weights")]
    both += [hs.look.received_by_group(q, k, **scoring), hs.look.project(q, k, normal(K, 3).to(device), **scoring)]
    both += [hs.look.offsets(q, k, 3, **scoring), *hs.look.top(q, k, 3, **scoring)]
    return [*both, *(hs.look.heatmap(q, k, 4, how, **scoring) for how in ("mean", "max"))]


@look
def gradients_of_looks(device: str) -> list[Any]:
    found = []
    for name in ("entropy", "concentration", "received", "weights", "offsets", "project"):
        more = {"offsets": [2], "project": [normal(K, 3).to(device)]}.get(name, [])
        for plain in (False, True):
            (q, k), scoring = arguments(device, grad=True)
            output = getattr(hs.look, name)(q, k, *more, **({} if plain else scoring))
            found += torch.autograd.grad(output.square().sum(), (q, k))
    return found


@look
def of_a_head(device: str) -> list[Any]:
    one = head(device)
    found = [
        one.lse,
        one.weights(),
        one.weights([1, 3], slice(2, 5)),
        one.scores(),
        one.row(3),
        one.column(2),
        one.values(),
    ]
    found += [one.entropy(), one.concentration(), one.received(), one.offsets(3), *one.top(2), one.heatmap(4)]
    found += [one.heatmap(3, "max"), one.project(normal(K, 2).to(device)), one.value_weighted(normal(E, 6).to(device))]
    return [*found, repr(one)]


@look
def of_labelled_heads(device: str) -> list[Any]:
    recording = labelled(device)
    one = recording[1, 2, 1]
    found = [one.special(), one.confidence(), one.duplicates(), one.induction(), one.words().weights()]
    return [*found, one.entropy(), one.received(), str(recording.heads()), str(recording.patterns())]


@look
def through_layers(device: str) -> list[Any]:
    recording = labelled(device)
    return [recording.rollout(), recording.rollout([2], item=1), recording.mean(items=[0, 1]).weights()]


@look
def gradients_of_a_recording(device: str) -> list[Any]:
    model = encoder(device, training=True)
    with hs.record(model, grad=True) as recording:
        output = model(states(device))
    target = output[0, 3, 0]
    found = [recording.relevance(target), recording.gradient_times_weights(target, 1, 2)]
    layer, weight = recording.layers[0], model.layers[0].self_attn.in_proj_weight
    (gradient,) = torch.autograd.grad(hs.look.entropy(layer.q, layer.k).sum(), [weight])
    return [*found, gradient]


@look
def own_weights(device: str) -> list[Any]:
    one = hs.Head.from_weights(normal(Q, K).softmax(-1).to(device))
    return [one.weights(), one.entropy(), one.received(), one.lse]


@look
def selections(device: str) -> list[Any]:
    recording = recorded(device, layers=[-1], heads=[1, 3], queries=slice(2, None))
    return [recording[1, 3, 1].weights(), recording[1, 1].values(), str(recording.heads())]


@look
def kept_elsewhere(device: str) -> list[Any]:
    recording = recorded(device, to="cpu", dtype=torch.float64)
    assert recording.layers[0].q.device == torch.device("cpu")
    return [recording[0, 1, 1].weights(), str(recording.heads())]


@look
def taken_away(device: str) -> list[Any]:
    model, x, found = encoder(device), states(device), []
    with hs.record(model) as recording:
        model(x.flip(1))
    for how in ("zero", "mean", recording):
        with torch.no_grad(), hs.ablate(model, [(0, 1), (1, 3)], how):
            found.append(model(x))
    for what in ("output", "weights"):
        with torch.no_grad(), hs.patch(model, recording, [(0, 2)], what):
            found.append(model(x))
    return [*found, importance(device)]


def importance(device: str) -> torch.Tensor:
    """The importance of every head of the encoder."""
    model, x = encoder(device, training=True), states(device)
    return hs.importance(model, lambda: model(x).square().mean())


@look
def by_hand(device: str) -> list[Any]:
    class Model(nn.Module):
        num_heads = H

        def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            k, v = (x.repeat_interleave(H // G, 1) for x in (k, v))
            ahead = torch.ones(Q, K, device=q.device).tril(K - Q) == 0
            return (q @ k.mT * 0.3).masked_fill(ahead, -torch.inf).softmax(-1) @ v

    model, inputs = Model(), qkv(device)
    with hs.record(model) as recording:
        model(*inputs)
    with hs.ablate(model, [(0, 1)]):
        without = model(*inputs)
    layer = recording.layers[0]
    assert layer.source == "call"
    return [layer.q, layer.k, recording[0, 2, 1].weights(), without]


@look
def own_layers(device: str) -> list[Any]:
    torch.manual_seed(3)
    rotary = hs.nn.Rotary(SIZE)
    layer = hs.nn.MultiheadAttention(WIDTH, HEADS, num_kv_heads=2, rotary=rotary, qk_norm=nn.RMSNorm).to(device)
    x, cache = states(device), hs.nn.KeyValueCache(layer, B, 16)
    with torch.no_grad(), hs.record(layer) as recording:
        steps = [layer(part, mask=hs.causal(), cache=cache) for part in x.split([4, 1, 2], 1)]
        whole = layer(x, mask=hs.causal() & hs.padding([7, 4]), bias=hs.alibi(HEADS))
    return [*steps, whole, recording.layers[0].head(1).weights()]


def saved(recording: hs.Recording, folder: Path) -> list[Any]:
    """What is written of a recording, and read again."""
    loaded = hs.load(recording.save(folder / "one"))
    page = hs.page(recording, folder / "page.html").read_text(encoding="utf-8")
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        hs.show(recording)
    return [loaded[1, 2, 1].weights(), str(loaded.heads()), page, shown.getvalue()]
