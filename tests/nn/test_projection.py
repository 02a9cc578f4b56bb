import pytest
import torch

from headscope.errors import ShapeError
from headscope.nn.projection import PACKINGS, Projection, split_heads

D = torch.float64


def projection(packing: int, heads: int = 3, d: int = 5, width: int = 7) -> Projection:
    """A projection of the packing wanted; all three make the same of one input when they have the same weights."""
    made = Projection(width, None if packing == 0 else width, heads, heads, d, dtype=D)
    if packing == 2:
        made = Projection(width, width, heads, heads, d, bias="qk", dtype=D)
    assert made.packing == PACKINGS[packing]
    return made


def test_the_learners_shapes() -> None:
    project = Projection(1024, None, 8, 8, 64)
    together = project.qkv(torch.randn(30, 5, 1024))
    heads = split_heads(together, 3 * 64)
    assert together.shape == (30, 5, 1536)
    assert heads.shape == (30, 8, 5, 192)
    letters = project.split("qkv", together)
    assert [t.shape for t in letters] == [(30, 8, 5, 64)] * 3
    assert all(t.untyped_storage().data_ptr() == together.untyped_storage().data_ptr() for t in letters)
    for i, letter in enumerate(letters):
        assert torch.equal(letter, heads[..., 64 * i : 64 * (i + 1)])


@pytest.mark.parametrize("saved", [0, 1])
@pytest.mark.parametrize("loaded", [0, 1])
def test_packings_load_each_other(saved: int, loaded: int) -> None:
    one, two = projection(saved), projection(loaded)
    two.load_state_dict(one.state_dict())
    x = torch.randn(2, 11, 7, dtype=D)
    for a, b in zip(one(x), two(x), strict=True):
        torch.testing.assert_close(a, b)


def test_separate_letters_load_into_one_map() -> None:
    parts = {letter: torch.nn.Linear(7, 15, dtype=D) for letter in "qkv"}
    state = {f"{letter}.{name}": p for letter, part in parts.items() for name, p in part.state_dict().items()}
    packed = projection(0)
    packed.load_state_dict(state)
    x = torch.randn(2, 11, 7, dtype=D)
    for letter, made in zip("qkv", packed(x), strict=True):
        torch.testing.assert_close(made, parts[letter](x).view(2, 11, 3, 5).transpose(1, 2))


def test_packed_into_separate_letters() -> None:
    packed = Projection(7, None, 3, 3, 5, bias=False, dtype=D)
    apart = projection(2)
    apart.load_state_dict(packed.state_dict(), strict=False)
    x = torch.randn(2, 11, 7, dtype=D)
    torch.testing.assert_close(apart(x)[2], packed(x)[2])


def test_a_state_dict_with_a_map_missing_is_reported() -> None:
    with pytest.raises(RuntimeError, match="Missing key"):
        projection(0).load_state_dict({"q.weight": torch.zeros(15, 7)})


def test_bias_by_letter() -> None:
    apart = Projection(7, None, 3, 3, 5, bias="qv")
    assert {name for name, _ in apart.named_parameters()} == {"q.weight", "q.bias", "k.weight", "v.weight", "v.bias"}
    assert {name for name, _ in Projection(7, None, 3, 3, 5, bias="q").named_parameters()} == {
        "q.weight",
        "q.bias",
        "kv.weight",
    }
    with pytest.raises(ShapeError, match=r"bias='qx'; give True, False, or the letters"):
        Projection(7, None, 3, 3, 5, bias="qx")


def test_a_packed_map_serves_a_memory() -> None:
    packed = projection(0)
    x, memory = torch.randn(2, 11, 7, dtype=D), torch.randn(2, 13, 7, dtype=D)
    q, k, v = packed(x, memory)
    torch.testing.assert_close(q, packed(x)[0])
    torch.testing.assert_close(k, packed(memory)[1])
    torch.testing.assert_close(v, packed(memory)[2])


def test_weights_are_drawn_as_torch_draws_them() -> None:
    theirs = torch.nn.MultiheadAttention(21, 3)
    ours = Projection(21, None, 3, 3, 7)
    torch.manual_seed(5)
    theirs._reset_parameters()
    torch.manual_seed(5)
    ours.reset_parameters()
    torch.testing.assert_close(ours.qkv.weight, theirs.in_proj_weight, rtol=0, atol=0)
    apart = Projection(21, 11, 3, 3, 7)
    bound = (6 / (21 + 11)) ** 0.5
    assert 0.9 * bound < apart.kv.weight.abs().max() <= bound
    assert not apart.kv.bias.any()


@pytest.mark.parametrize(
    ("x", "memory", "message"),
    [
        ((2, 5, 6), None, r"layer: x is \(2, 5, 6\); this layer takes \(batch, positions, 7\)"),
        ((5, 7), None, r"layer: x is \(5, 7\); this layer takes"),
        ((2, 5, 7), (2, 3, 7), r"layer: memory is \(2, 3, 7\); this layer takes \(batch, positions, 11\)"),
        ((2, 5, 7), (3, 3, 11), "layer: x has a batch of 2 and memory of 3"),
        ((2, 5, 7), None, "layer: no memory was given; this layer makes its keys of one of width 11"),
    ],
)
def test_wrong_inputs_are_named(x: tuple[int, ...], memory: tuple[int, ...] | None, message: str) -> None:
    made = Projection(7, 11 if memory or "memory" in message else None, 3, 3, 5)
    with pytest.raises(ShapeError, match=message):
        made.check("layer", torch.zeros(x), None if memory is None else torch.zeros(memory))
