import itertools
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

import headscope as hs
from headscope.errors import ModelError
from headscope.nn import Decoder, DecoderLayer, Encoder, EncoderLayer, MultiheadAttention, Transformer

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


class LouderAttention(nn.MultiheadAttention):
    def forward(self, query: Tensor, *args: object, **options: object) -> tuple[Tensor, Tensor | None]:
        return super().forward(2 * query, *args, **options)


class LouderBlock(nn.TransformerDecoderLayer):
    def _ff_block(self, x: Tensor) -> Tensor:
        return 2 * super()._ff_block(x)


class LouderModel(nn.Transformer):
    def forward(self, *args: object, **options: object) -> Tensor:
        return 2 * super().forward(*args, **options)


class LouderLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def louder_inside() -> nn.Module:
    made = nn.TransformerEncoderLayer(12, 3, 7)
    made.self_attn = LouderAttention(12, 3)
    return made


def louder_on_the_object() -> nn.Module:
    made = nn.TransformerEncoderLayer(12, 3, 7)
    made.forward = lambda x: 2 * x
    return made


@pytest.mark.parametrize(
    ("convert", "make", "message"),
    [
        (
            EncoderLayer,
            lambda: Louder(12, 3, 7),
            "the layer is a Louder, an .* with a forward of its own, which",
        ),
        (
            EncoderLayer,
            louder_inside,
            "the attention is a LouderAttention, an nn.MultiheadAtt",
        ),
        (
            EncoderLayer,
            louder_on_the_object,
            "the layer is a TransformerEncoderLayer, an .* with a forward",
        ),
        (DecoderLayer, lambda: LouderBlock(12, 3, 7), "the layer is a LouderBlock, an .* with a _ff_block of its own"),
        (
            Transformer,
            lambda: LouderModel(12, 3, 1, 1, 7),
            "the model is a LouderModel, an nn.Transformer with a",
        ),
        (MultiheadAttention, lambda: LouderAttention(12, 3), "the attention is a LouderAttention, an nn.Multi"),
        (
            MultiheadAttention,
            lambda: nn.Linear(12, 3),
            "the attention is a Linear; this converts nn.Multi",
        ),
        (Transformer, lambda: nn.Linear(12, 3), "the model is a Linear; this converts nn.Transformer"),
    ],
)
def test_methods_of_its_own_are_refused(convert: type[nn.Module], make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        convert.from_torch(make())


def test_hooks_and_parametrizations_are_refused() -> None:
    hooked = nn.TransformerEncoderLayer(12, 3, 7)
    hooked.register_forward_hook(lambda module, args, output: 2 * output)
    with pytest.raises(ModelError, match="the layer has hooks, which would get lost; take them off, convert"):
        EncoderLayer.from_torch(hooked)
    made = nn.MultiheadAttention(12, 3)
    nn.utils.parametrizations.orthogonal(made, "in_proj_weight")
    with pytest.raises(ModelError, match="the attention has parametrizations, which would get lost; take them off"):
        MultiheadAttention.from_torch(made)


def test_parts_that_are_only_called_may_be_anything() -> None:
    theirs = randomised(nn.TransformerEncoderLayer(12, 3, 7, batch_first=True, dtype=D))
    theirs.linear1 = nn.Sequential(LouderLinear(12, 7, dtype=D))
    theirs.norm1, theirs.dropout1 = nn.RMSNorm(12, dtype=D), nn.Identity()
    nn.utils.parametrizations.weight_norm(theirs.linear2)
    theirs.activation_relu_or_gelu = 0
    x = torch.randn(2, 5, 12, dtype=D)
    torch.testing.assert_close(EncoderLayer.from_torch(theirs.eval())(x), theirs(x))
    torch.testing.assert_close(EncoderLayer.from_torch(hs.nn.replace(theirs))(x), theirs(x))
    theirs.dropout = nn.AlphaDropout(0.5)
    with pytest.raises(ModelError, match="the dropout is a AlphaDropout; this converts nn.Dropout"):
        EncoderLayer.from_torch(theirs)
    theirs.dropout = nn.Dropout(0.5)
    prune.l1_unstructured(theirs.linear1[0], "weight", 0.5)
    with pytest.raises(ModelError, match="linear1 cannot be copied: .* Convert the model before it is pruned"):
        EncoderLayer.from_torch(theirs)


def test_what_is_frozen_stays_frozen() -> None:
    theirs = nn.Transformer(12, 3, 1, 1, 7)
    theirs.requires_grad_(False)
    assert not any(p.requires_grad for p in Transformer.from_torch(theirs).parameters())
    cross = theirs.decoder.layers[0].multihead_attn
    cross.in_proj_bias.requires_grad_()
    theirs.encoder.layers[0].linear1.weight.requires_grad_()
    names = [name for name, p in Transformer.from_torch(theirs).named_parameters() if p.requires_grad]
    assert names == [
        "encoder.layers.0.feed_forward.part.up.weight",
        "decoder.layers.0.cross.part.project.q.bias",
        "decoder.layers.0.cross.part.project.kv.bias",
    ]


def test_a_shared_part_is_refused() -> None:
    theirs = nn.TransformerEncoder(nn.TransformerEncoderLayer(12, 3, 7), 2)
    theirs.layers[1].self_attn = theirs.layers[0].self_attn
    with pytest.raises(ModelError, match="self_attn.in_proj_weight is in two places, and would become two parameters"):
        Encoder.from_torch(theirs)
    both = nn.Transformer(12, 3, 1, 1, 7)
    both.decoder.layers[0].linear1.weight = both.encoder.layers[0].linear1.weight
    with pytest.raises(ModelError, match="layers.0.linear1.weight is in two places"):
        Transformer.from_torch(both)
