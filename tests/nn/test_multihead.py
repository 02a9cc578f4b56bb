import pytest
import torch
from torch import nn

import headscope as hs
from headscope.errors import ShapeError
from headscope.nn import MultiheadAttention

D = torch.float64


def gradients(module: nn.Module, *inputs: torch.Tensor) -> list[torch.Tensor]:
    return [p.grad for p in (*inputs, *module.parameters())]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kdim", [None, 11])
@pytest.mark.parametrize("causal", [True, False])
def test_equals_torch_in_values_and_gradients(bias: bool, kdim: int | None, causal: bool) -> None:
    theirs = nn.MultiheadAttention(21, 3, bias=bias, kdim=kdim, vdim=kdim, batch_first=True, dtype=D)
    if bias:
        nn.init.normal_(theirs.in_proj_bias)
    ours = MultiheadAttention.from_torch(theirs)
    x = torch.randn(2, 13, 21, dtype=D, requires_grad=True)
    memory = x if kdim is None else torch.randn(2, 13, 11, dtype=D, requires_grad=True)
    mask = torch.ones(13, 13, dtype=torch.bool).triu(1) if causal else None
    expected, _ = theirs(x, memory, memory, attn_mask=mask)
    given = ours(x, None if kdim is None else memory, mask=hs.causal() if causal else None)
    torch.testing.assert_close(given, expected)
    direction = torch.randn_like(expected)
    inputs = (x,) if kdim is None else (x, memory)
    wanted = torch.autograd.grad(expected, (*inputs, theirs.out_proj.weight), direction)
    got = torch.autograd.grad(given, (*inputs, ours.output.weight), direction, retain_graph=True)
    torch.testing.assert_close(got, wanted)
    # The gradients of the projections: pulled back through the layout, they are torch's.
    (theirs(x, memory, memory, attn_mask=mask)[0] * direction).sum().backward()
    (given * direction).sum().backward()
    back = MultiheadAttention.from_torch(theirs)
    grads = {name: p.grad for name, p in theirs.named_parameters()}
    back.load_torch_state_dict(grads)
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, back.get_parameter(name).detach())


def test_the_weights_are_torchs_too() -> None:
    theirs = nn.MultiheadAttention(21, 3, batch_first=True, dtype=D)
    ours = MultiheadAttention.from_torch(theirs)
    x = torch.randn(2, 13, 21, dtype=D)
    q, k, v = ours.project(x)
    _, weights = hs.scaled_dot_product(q, k, v)
    torch.testing.assert_close(weights, theirs(x, x, x, average_attn_weights=False)[1])


def test_a_self_attention_layer_takes_a_memory() -> None:
    theirs = nn.MultiheadAttention(21, 3, batch_first=True, dtype=D)
    x, memory = torch.randn(2, 5, 21, dtype=D), torch.randn(2, 13, 21, dtype=D)
    torch.testing.assert_close(MultiheadAttention.from_torch(theirs)(x, memory), theirs(x, memory, memory)[0])


@pytest.mark.parametrize("heads", [1, 2, 6])
def test_grouped_queries_are_repeated_keys(heads: int) -> None:
    grouped = MultiheadAttention(18, 6, num_kv_heads=heads, head_dim=5, input_dim=7, dtype=D)
    full = MultiheadAttention(18, 6, head_dim=5, input_dim=7, dtype=D)
    state = grouped.state_dict()
    if heads < 6:
        rows = state.pop("project.kv.weight").view(heads, 2, 5, 7).repeat_interleave(6 // heads, 0)
        added = state.pop("project.kv.bias").view(heads, 2, 5).repeat_interleave(6 // heads, 0)
        state |= {"project.kv.weight": rows.flatten(0, 2), "project.kv.bias": added.flatten()}
    full.load_state_dict(state)
    x = torch.randn(2, 13, 7, dtype=D)
    torch.testing.assert_close(grouped(x), full(x))


def test_a_padded_batch_gives_each_sequence_its_own_output() -> None:
    layer = MultiheadAttention(21, 3, dtype=D)
    x = torch.randn(3, 13, 21, dtype=D)
    padded = layer(x, mask=hs.padding([5, 13, 7]))
    for item, length in enumerate([5, 13, 7]):
        torch.testing.assert_close(padded[item, :length], layer(x[item : item + 1, :length])[0])


def test_training_without_dropout_is_evaluation() -> None:
    layer = MultiheadAttention(21, 3, sinks=True, softcap=3.0, dtype=D)
    x = torch.randn(2, 13, 21, dtype=D)
    with torch.no_grad():
        evaluated = layer.eval()(x)
    torch.testing.assert_close(layer.train()(x), evaluated)


def test_dropout_is_for_training_only() -> None:
    layer = MultiheadAttention(20, 2, dropout=0.5)
    x = torch.randn(2, 13, 20)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_gradients_against_finite_differences() -> None:
    layer = MultiheadAttention(6, 2, num_kv_heads=1, head_dim=3, softcap=2.0, sinks=True, dtype=D)
    x = torch.randn(2, 5, 6, dtype=D, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: layer(x, mask=hs.causal()), (x, *layer.parameters()))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            {"embed_dim": 10, "num_heads": 3},
            r"embed_dim=10 is not a multiple of num_heads=3; give an embed_dim of 9 or 12",
        ),
        ({"embed_dim": 2, "num_heads": 3}, r"give an embed_dim of 3 or 6"),
        ({"embed_dim": 10, "num_heads": 0}, r"num_heads=0; give at least 1"),
        ({"embed_dim": 12, "num_heads": 6, "num_kv_heads": 4}, r"6 heads cannot share 4 key/value heads evenly"),
        ({"embed_dim": 12, "num_heads": 6, "head_dim": -1}, r"head_dim=-1; give at least 1"),
    ],
)
def test_sizes_that_do_not_fit(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        MultiheadAttention(**sizes)


def test_wrong_inputs_are_named() -> None:
    with pytest.raises(ShapeError, match=r"MultiheadAttention: x is \(2, 5, 7\); this layer takes"):
        MultiheadAttention(12, 3)(torch.zeros(2, 5, 7))
    with pytest.raises(ShapeError, match=r"MultiheadAttention: memory is \(2, 5, 7\); this layer takes"):
        MultiheadAttention(12, 3)(torch.zeros(2, 5, 12), torch.zeros(2, 5, 7))
