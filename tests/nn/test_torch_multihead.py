import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headscope.errors import MaskError, ShapeError
from headscope.nn import TorchMultiheadAttention
from tests.nn.torch_calls import Case, D, call_of, cases, layer_of

pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched:UserWarning")
EVERY = cases()


def ours_of(theirs: nn.MultiheadAttention, **options: object) -> TorchMultiheadAttention:
    ours = TorchMultiheadAttention(
        12, 3, theirs.dropout, batch_first=theirs.batch_first, dtype=theirs.out_proj.weight.dtype, **options
    )
    ours.load_state_dict(theirs.state_dict())
    return ours.train(theirs.training)


def both_results(case: Case) -> None:
    theirs = layer_of(case)
    ours = ours_of(theirs, **case.layer)
    inputs, options = call_of(case)
    # Torch's layer is asked with gradients, so that it takes the path that has them.
    (expected, expected_weights), (given, weights) = theirs(*inputs, **options), ours(*inputs, **options)
    torch.testing.assert_close(given, expected)
    direction = torch.randn_like(expected)
    losses = [(x * direction).sum() for x in (expected, given)]
    assert (weights is None) == (not case.need_weights)
    if weights is not None:
        torch.testing.assert_close(weights, expected_weights)
        along = torch.randn_like(weights)
        losses = [loss + (w * along).sum() for loss, w in zip(losses, (expected_weights, weights), strict=True)]
    different = list({id(x): x for x in inputs}.values())
    wanted, got = (
        torch.autograd.grad(loss, [*different, *layer.parameters()], allow_unused=True, materialize_grads=True)
        for loss, layer in zip(losses, (theirs, ours), strict=True)
    )
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("case", EVERY[::131], ids=str)
def test_a_call_gives_torchs_values_weights_and_gradients(case: Case) -> None:
    both_results(case)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(16))
def test_every_call_gives_torchs_values_weights_and_gradients(part: int) -> None:
    for case in EVERY[part::16]:
        both_results(case)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("masks", ["bool", "float", "both"])
def test_a_query_that_sees_nothing_gets_zeros_and_no_gradient(masks: str, need_weights: bool) -> None:
    layer = TorchMultiheadAttention(12, 3, batch_first=True, dtype=D)
    x = torch.randn(2, 5, 12, dtype=D, requires_grad=True)
    hidden = torch.tensor([[False] * 5, [True] * 5])
    pair = torch.zeros(5, 5, dtype=torch.bool)
    pair[3] = True
    options = {
        "bool": {"key_padding_mask": hidden},
        "float": {"key_padding_mask": torch.zeros(2, 5, dtype=D).masked_fill(hidden, -torch.inf)},
        "both": {"key_padding_mask": hidden, "attn_mask": torch.zeros(5, 5, dtype=D).masked_fill(pair, -torch.inf)},
    }[masks]
    output, weights = layer(x, x, x, need_weights=need_weights, **options)
    torch.testing.assert_close(output[1], layer.out_proj.bias.expand(5, -1))
    if masks == "both":
        torch.testing.assert_close(output[0, 3], layer.out_proj.bias)
    assert weights is None or not weights[1].any()
    (grad,) = torch.autograd.grad(output.square().sum(), x)
    assert grad.isfinite().all()
    assert not grad[1].any()


def test_a_learned_mask_has_torchs_gradient() -> None:
    theirs = nn.MultiheadAttention(12, 3, batch_first=True, dtype=D)
    x = torch.randn(2, 5, 12, dtype=D)
    hidden = torch.ones(5, 5, dtype=torch.bool).triu(1)
    for learned in (torch.randn(5, 5, dtype=D), torch.zeros(6, 5, 5, dtype=D)):
        mask = learned.masked_fill(hidden, -torch.inf).requires_grad_()
        for need_weights in (True, False):
            grads = [
                torch.autograd.grad(layer(x, x, x, attn_mask=mask, need_weights=need_weights)[0].square().sum(), mask)[
                    0
                ]
                for layer in (theirs, ours_of(theirs))
            ]
            torch.testing.assert_close(grads[1], grads[0])


@pytest.mark.parametrize("need_weights", [True, False])
def test_dropout_drops_weights_at_torchs_rate_and_returns_what_was_used(need_weights: bool) -> None:
    layer = TorchMultiheadAttention(12, 3, dropout=0.25, batch_first=True, dtype=D)
    nn.init.eye_(layer.out_proj.weight)
    x = torch.randn(1, 307, 12, dtype=D)
    output, weights = layer(x, x, x, need_weights=need_weights, average_attn_weights=False)
    still = layer.eval()(x, x, x, average_attn_weights=False)[1]
    if weights is None:
        assert not torch.allclose(output, layer(x, x, x)[0])
        return
    dropped = weights == 0
    assert dropped.double().mean().item() == pytest.approx(0.25, abs=0.01)
    torch.testing.assert_close(weights[~dropped], (still / 0.75)[~dropped])
    v = F.linear(x, layer.in_proj_weight[24:], layer.in_proj_bias[24:]).view(1, 307, 3, 4).transpose(1, 2)
    torch.testing.assert_close(output, (weights @ v).transpose(1, 2).flatten(2) + layer.out_proj.bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("need_weights", [True, False])
def test_the_error_is_within_the_budget_of_torchs(dtype: torch.dtype, need_weights: bool) -> None:
    exact = nn.MultiheadAttention(48, 3, batch_first=True, dtype=D)
    x = torch.randn(2, 37, 48, dtype=D).to(dtype)
    theirs = copy.deepcopy(exact).to(dtype)
    exact.load_state_dict({name: p.double() for name, p in theirs.state_dict().items()})
    ours = TorchMultiheadAttention(48, 3, batch_first=True, dtype=dtype)
    ours.load_state_dict(theirs.state_dict())
    wanted = exact(*3 * [x.double()])
    for truth, mine, reference in zip(wanted, ours(x, x, x, need_weights=need_weights), theirs(x, x, x), strict=True):
        if mine is not None:
            assert mine.dtype == reference.dtype == dtype
            rounding = torch.finfo(dtype).eps * truth.abs().max()
            assert (mine - truth).abs().max() <= 2 * (reference - truth).abs().max() + rounding


@pytest.mark.parametrize("need_weights", [True, False])
def test_dtypes_under_autocast_are_torchs(need_weights: bool) -> None:
    theirs = nn.MultiheadAttention(12, 3, batch_first=True)
    x = torch.randn(2, 5, 12)
    with torch.autocast("cpu", torch.bfloat16):
        expected = theirs(x, x, x, need_weights=need_weights)
        given = ours_of(theirs)(x, x, x, need_weights=need_weights)
    for a, b in zip(given, expected, strict=True):
        torch.testing.assert_close(a, b, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_a_nested_batch_is_attended_without_its_padding(layout: torch.layout) -> None:
    layer = TorchMultiheadAttention(12, 3, batch_first=True, dtype=D).eval()
    items = [torch.randn(n, 12, dtype=D) for n in (5, 3, 7)]
    with torch.no_grad():
        nested = torch.nested.nested_tensor(items, layout=layout)
        output, weights = layer(nested, nested, nested, need_weights=False)
        assert weights is None
        assert output.is_nested
        for one, item in zip(output.unbind(), items, strict=True):
            torch.testing.assert_close(one, layer(item, item, item)[0])


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("sizes", [(0, 5, 7), (2, 0, 7), (2, 5, 0)])
def test_nothing_at_all_is_something(sizes: tuple[int, int, int], need_weights: bool) -> None:
    b, queries, keys = sizes
    layer = TorchMultiheadAttention(12, 3, batch_first=True)
    x, memory = torch.randn(b, queries, 12, requires_grad=True), torch.randn(b, keys, 12)
    output, weights = layer(x, memory, memory, need_weights=need_weights)
    assert output.shape == (b, queries, 12)
    assert weights is None or weights.shape == (b, queries, keys)
    output.sum().backward()


def test_copies_and_pickles_compute_the_same() -> None:
    layer, x = TorchMultiheadAttention(12, 3), torch.randn(5, 2, 12)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert type(other) is TorchMultiheadAttention
        torch.testing.assert_close(other(x, x, x), layer(x, x, x))


def x_of(*sizes: int) -> Tensor:
    return torch.randn(*sizes)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((x_of(2, 2, 5, 12),) * 3, "give all three with three axes, or with two where there is no batch"),
        ((x_of(2, 5, 12), x_of(5, 12), x_of(5, 12)), "give all three with three axes"),
        (
            (x_of(2, 5, 11), x_of(2, 7, 12), x_of(2, 7, 12)),
            "the widths of this layer are embed_dim=12, kdim=12, vdim=12",
        ),
        ((x_of(2, 5, 12), x_of(2, 7, 12), x_of(2, 6, 12)), "batch_first=True; give one value for each key"),
        ((x_of(2, 5, 12), x_of(3, 7, 12), x_of(3, 7, 12)), "and all with the same batch"),
    ],
)
def test_inputs_that_do_not_fit_are_named(inputs: tuple[Tensor, Tensor, Tensor], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        TorchMultiheadAttention(12, 3, batch_first=True)(*inputs)


def test_a_hint_without_its_mask_is_an_error() -> None:
    x = torch.randn(5, 2, 12)
    with pytest.raises(MaskError, match="is_causal=True without attn_mask; torch takes it as a hint"):
        TorchMultiheadAttention(12, 3)(x, x, x, is_causal=True)


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
@pytest.mark.parametrize(
    ("items", "message"),
    [
        (
            [torch.randn(3, 11), torch.randn(2, 11)],
            r"the nested tensor holds \(3, 11\); give \(positions, 12\) for each",
        ),
        (
            [torch.randn(3, 2, 12), torch.randn(1, 2, 12)],
            r"the nested tensor holds \(3, 2, 12\); give \(positions, 12\)",
        ),
    ],
)
def test_nested_tensors_of_other_sizes(layout: torch.layout, items: list[Tensor], message: str) -> None:
    layer, nested = TorchMultiheadAttention(12, 3), torch.nested.nested_tensor(items, layout=layout)
    with pytest.raises(ShapeError, match=message):
        layer(nested, nested, nested, need_weights=False)


def test_nested_tensors_in_other_calls_are_refused() -> None:
    layer = TorchMultiheadAttention(12, 3, batch_first=True)
    one, other = (torch.nested.nested_tensor([torch.randn(5, 12), torch.randn(3, 12)]) for _ in range(2))
    with pytest.raises(ShapeError, match="a nested tensor is taken as query, key and value at once"):
        layer(one, other, other, need_weights=False)
    with pytest.raises(MaskError, match="taken with need_weights=False and without masks"):
        layer(one, one, one)
