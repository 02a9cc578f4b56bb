import pytest
import torch

from headscope.errors import ShapeError
from headscope.nn import MultiheadAttention, Rotary

D = torch.float64


def as_complex(x: torch.Tensor, frequencies: torch.Tensor, first: int) -> torch.Tensor:
    """The paper's definition: neighbours are a complex number, multiplied by exp(i · position · frequency)."""
    angles = torch.outer(torch.arange(first, first + x.shape[2], dtype=D), frequencies)
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


@pytest.mark.parametrize("first", [0, 11])
def test_it_is_a_multiplication_of_complex_numbers(first: int) -> None:
    x = torch.randn(2, 3, 7, 10, dtype=D)
    frequencies = 100.0 ** -(torch.arange(0, 10, 2, dtype=D) / 10)
    rotary = Rotary(10, base=100.0, interleaved=True).double()
    torch.testing.assert_close(rotary(x, first), as_complex(x, frequencies, first))
    halves = Rotary(10, base=100.0).double()
    order = torch.arange(10).view(5, 2).T.flatten()  # neighbours to halves
    torch.testing.assert_close(halves(x[..., order], first), as_complex(x, frequencies, first)[..., order])


def test_a_fraction_leaves_the_rest_alone() -> None:
    x = torch.randn(2, 3, 7, 20, dtype=D)
    rotary = Rotary(20, fraction=0.4).double()
    torch.testing.assert_close(rotary(x)[..., 8:], x[..., 8:], rtol=0, atol=0)
    torch.testing.assert_close(rotary(x)[..., :8], Rotary(8).double()(x[..., :8]))


def test_frequencies_and_amplitude_are_taken() -> None:
    x = torch.randn(1, 1, 7, 6, dtype=D)
    own = torch.tensor([1.0, 0.5, 0.1], dtype=D)
    rotary = Rotary(6, frequencies=own, amplitude=1.5, interleaved=True).double()
    torch.testing.assert_close(rotary(x, 3), 1.5 * as_complex(x, own, 3))


def test_a_position_for_each_sequence() -> None:
    x = torch.randn(2, 3, 7, 10, dtype=D)
    rotary = Rotary(10).double()
    each = rotary(x, torch.tensor([5, 11]))
    torch.testing.assert_close(each[:1], rotary(x[:1], 5))
    torch.testing.assert_close(each[1:], rotary(x[1:], 11))


def test_angles_stay_exact_whatever_becomes_of_the_model() -> None:
    exact = Rotary(10).double().cosine
    assert torch.equal(Rotary(10).bfloat16().cosine, exact.float())
    assert torch.equal(Rotary(10).bfloat16().double().cosine.float(), exact.float())
    empty = Rotary(10, device="meta").to_empty(device="cpu")
    assert torch.equal(empty.cosine, exact.float())
    assert Rotary(10).bfloat16()(torch.randn(1, 1, 3, 10, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_a_layer_takes_the_table_to_its_dtype() -> None:
    layer = MultiheadAttention(20, 2, rotary=Rotary(10), dtype=D)
    assert layer.rotary.cosine.dtype == D
    assert not [name for name in layer.state_dict() if "rotary" in name]


@pytest.mark.parametrize(("size", "fraction"), [(7, 1.0), (10, 0.3), (10, 0.05), (10, 1.4)])
def test_features_that_make_no_pairs(size: int, fraction: float) -> None:
    with pytest.raises(ShapeError, match=rf"Rotary: \d+ of {size} features would be turned, in pairs; give a fraction"):
        Rotary(size, fraction=fraction)


def test_positions_past_the_table() -> None:
    rotary = Rotary(4, max_positions=5)
    rotary(torch.zeros(1, 1, 2, 4), 3)
    with pytest.raises(ShapeError, match="Rotary: position 5 is past the rotary table of 5 positions"):
        rotary(torch.zeros(1, 1, 2, 4), 4)
    with pytest.raises(ShapeError, match="MultiheadAttention: position 6 is past the rotary table"):
        MultiheadAttention(8, 2, rotary=rotary)(torch.zeros(1, 7, 8))


def test_heads_of_another_size() -> None:
    with pytest.raises(ShapeError, match=r"Rotary: x is \(1, 1, 2, 6\) and this table is for heads of size 4"):
        Rotary(4)(torch.zeros(1, 1, 2, 6))


def test_rotary_between_x_and_a_memory_means_nothing() -> None:
    with pytest.raises(ShapeError, match="x and memory have no positions in common"):
        MultiheadAttention(8, 2, rotary=Rotary(4))(torch.zeros(1, 3, 8), torch.zeros(1, 5, 8))
