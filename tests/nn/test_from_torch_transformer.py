import itertools
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import headscope as hs
from headscope.errors import ModelError
from headscope.nn import Decoder, DecoderLayer, Encoder, EncoderLayer, Transformer

D = torch.float64
# Every option of torch's layers, each with others than its default at least once.
OPTIONS = [
    {},
    {"norm_first": True, "activation": "gelu"},
    {"bias": False, "batch_first": False, "layer_norm_eps": 0.1},
    {"activation": nn.PReLU(dtype=D), "norm_first": True, "bias": False},
    {"activation": F.silu, "batch_first": False, "dropout": 0.0},
]
SHARED = {"dropout": 0.3, "batch_first": True, "dtype": D}


def randomised(module: nn.Module) -> nn.Module:
    for p in module.parameters():
        nn.init.normal_(p, std=0.3)
    return module


def laid_out(x: Tensor, batch_first: bool) -> Tensor:
    return x if batch_first else x.transpose(0, 1)


def check(theirs: nn.Module, ours: nn.Module, expected: Tensor, given: Tensor, inputs: tuple[Tensor, ...]) -> None:
    torch.testing.assert_close(given, expected)
    direction = torch.randn_like(expected)
    # A copy of torch's decoder layer forgets an activation that is a module: its weight is then of no use.
    wanted = torch.autograd.grad(
        (expected * direction).sum(), (*inputs, *theirs.parameters()), allow_unused=True, materialize_grads=True
    )
    got = torch.autograd.grad((given * direction).sum(), (*inputs, *ours.parameters()))
    torch.testing.assert_close(got[: len(inputs)], wanted[: len(inputs)])
    # The parameters' gradients have the same norms, whatever the layout.
    torch.testing.assert_close(sum(g.square().sum() for g in got), sum(g.square().sum() for g in wanted))


@pytest.mark.parametrize(("options", "deep"), itertools.product(OPTIONS, [False, True]))
def test_an_encoder_equals_torch(options: dict[str, object], deep: bool) -> None:
    options = SHARED | options
    layer = nn.TransformerEncoderLayer(21, 3, 13, **options)
    theirs = layer
    if deep:
        theirs = nn.TransformerEncoder(layer, 2, nn.LayerNorm(21, dtype=D), enable_nested_tensor=False)
    randomised(theirs).eval()
    ours = (Encoder if deep else EncoderLayer).from_torch(theirs)
    x = torch.randn(2, 11, 21, dtype=D, requires_grad=True)
    hidden = torch.arange(11) >= torch.tensor([[11], [5]])
    first = options["batch_first"]
    expected = laid_out(theirs(laid_out(x, first), src_key_padding_mask=hidden), first)
    check(theirs, ours, expected, ours(x, mask=hs.padding([11, 5])), (x,))


@pytest.mark.parametrize(("options", "deep"), itertools.product(OPTIONS, [False, True]))
def test_a_decoder_equals_torch(options: dict[str, object], deep: bool) -> None:
    options = SHARED | options
    layer = nn.TransformerDecoderLayer(21, 3, 13, **options)
    theirs = nn.TransformerDecoder(layer, 2, nn.LayerNorm(21, dtype=D)) if deep else layer
    randomised(theirs).eval()
    ours = (Decoder if deep else DecoderLayer).from_torch(theirs)
    x, memory = (torch.randn(2, n, 21, dtype=D, requires_grad=True) for n in (7, 11))
    first = options["batch_first"]
    mask = nn.Transformer.generate_square_subsequent_mask(7, dtype=D)
    hidden = torch.arange(11) >= torch.tensor([[11], [5]])
    theirs_out = theirs(
        laid_out(x, first), laid_out(memory, first), tgt_mask=mask, memory_key_padding_mask=hidden, tgt_is_causal=True
    )
    given = ours(x, memory, mask=hs.causal(), memory_mask=hs.padding([11, 5]))
    check(theirs, ours, laid_out(theirs_out, first), given, (x, memory))


def test_the_fast_path_of_torch_and_its_nested_tensors_have_the_same_values() -> None:
    theirs = randomised(nn.TransformerEncoder(nn.TransformerEncoderLayer(12, 2, 13, **SHARED), 2)).eval()
    x, hidden = torch.randn(2, 7, 12, dtype=D), torch.arange(7) >= torch.tensor([[7], [3]])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        expected = theirs(x, src_key_padding_mask=hidden)
        given = Encoder.from_torch(theirs)(x, mask=hs.padding([7, 3]))
    torch.testing.assert_close(given[~hidden], expected[~hidden])


def test_dropout_training_and_dtype_come_along() -> None:
    options = SHARED | {"dtype": torch.bfloat16}
    layer = EncoderLayer.from_torch(nn.TransformerEncoderLayer(12, 3, 7, **options))
    assert layer.attention.part.dropout == layer.attention.dropout == layer.feed_forward.part.dropout == 0.3
    assert layer.training
    assert layer.feed_forward.part.up.weight.dtype == torch.bfloat16
    decoder = Decoder.from_torch(nn.TransformerDecoder(nn.TransformerDecoderLayer(12, 3, 7, **options), 2).eval())
    assert not any(module.training for module in decoder.modules())


def test_nothing_is_shared_with_torchs_layer_and_what_it_shares_stays_shared() -> None:
    theirs = nn.TransformerEncoder(nn.TransformerEncoderLayer(12, 3, 7, activation=nn.PReLU()), 3)
    theirs.layers[2] = theirs.layers[0]
    ours = Encoder.from_torch(theirs)
    assert ours.layers[2] is ours.layers[0]
    assert ours.layers[1] is not ours.layers[0]
    assert not {p.data_ptr() for p in theirs.parameters()} & {p.data_ptr() for p in ours.parameters()}


class Own(nn.Module):
    layers, norm = (), None


class Louder(nn.TransformerEncoderLayer):
    def forward(self, src: Tensor, *args: object, **options: object) -> Tensor:
        return 2 * super().forward(src, *args, **options)


@pytest.mark.parametrize(
    ("convert", "part", "kind"),
    [
        (Encoder, "the encoder", "TransformerEncoder"),
        (Decoder, "the decoder", "TransformerDecoder"),
        (EncoderLayer, "the layer", "TransformerEncoderLayer"),
        (DecoderLayer, "the layer", "TransformerDecoderLayer"),
    ],
)
def test_another_kind_is_refused(convert: type[nn.Module], part: str, kind: str) -> None:
    with pytest.raises(ModelError, match=f"{part} is a Own; this converts nn.{kind}\\."):
        convert.from_torch(Own())


def test_another_kind_inside_is_refused() -> None:
    with pytest.raises(ModelError, match="the encoder is a Own"):
        Transformer.from_torch(nn.Transformer(20, 2, 1, 1, 7, custom_encoder=Own()))
    other = nn.Transformer(20, 2, 1, 1, 7)
    other.decoder.layers[0] = Own()
    with pytest.raises(ModelError, match="the layer is a Own"):
        Transformer.from_torch(other)


def test_a_forward_of_its_own_is_refused() -> None:
    with pytest.raises(ModelError, match="the layer is a Louder, an nn.TransformerEncoderLayer with a forward of its"):
        EncoderLayer.from_torch(Louder(12, 3, 7))
