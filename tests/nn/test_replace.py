import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import headscope as hs
from headscope.errors import ModelError
from headscope.nn import TorchMultiheadAttention
from headscope.nn.replace import replace

ENCODER = {"d_model": 12, "nhead": 2, "dim_feedforward": 13, "batch_first": True}


class Named(nn.MultiheadAttention):
    """A subclass that computes as torch's layer does."""

    def __init__(self, width: int, heads: int, label: str) -> None:
        super().__init__(width, heads, batch_first=True)
        self.label = label


class Scaled(nn.MultiheadAttention):
    """A subclass that does not."""

    def forward(self, query: Tensor, *args: Tensor, **options: object) -> tuple[Tensor, Tensor | None]:
        return super().forward(2 * query, *args, **options)


class Patches(nn.Module):
    """A vision transformer as torchvision writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_proj = nn.Conv2d(3, 12, 4, 4)
        self.class_token = nn.Parameter(torch.zeros(1, 1, 12))
        self.ln_1, self.ln_2 = nn.LayerNorm(12), nn.LayerNorm(12)
        self.self_attention = nn.MultiheadAttention(12, 3, dropout=0.0, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))

    def forward(self, picture: Tensor) -> Tensor:
        x = self.conv_proj(picture).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], 1)
        y = self.ln_1(x)
        x = x + self.self_attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


def test_a_vision_transformer_gives_the_same_values_and_gradients() -> None:
    theirs = Patches()
    ours = replace(copy.deepcopy(theirs))
    assert type(ours.self_attention) is TorchMultiheadAttention
    picture = torch.randn(2, 3, 12, 20, requires_grad=True)
    expected, given = theirs(picture), ours(picture)
    torch.testing.assert_close(given, expected)
    wanted, got = (
        torch.autograd.grad(y.square().sum(), [picture, *m.parameters()])
        for y, m in ((expected, theirs), (given, ours))
    )
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("options", [{}, {"norm_first": True, "activation": "gelu"}, {"bias": False}])
@pytest.mark.parametrize("grad", [True, False])
def test_torchs_transformer_in_training_and_evaluation(options: dict[str, object], grad: bool) -> None:
    theirs = nn.Transformer(12, 2, 2, 2, 13, dropout=0.0, batch_first=True, **options)
    ours = replace(copy.deepcopy(theirs))
    source, target = torch.randn(3, 7, 12), torch.randn(3, 5, 12)
    hidden = torch.arange(7) >= torch.tensor([[7], [3], [5]])
    mask = nn.Transformer.generate_square_subsequent_mask(5).isneginf()
    masks = {"src_key_padding_mask": hidden, "memory_key_padding_mask": hidden, "tgt_mask": mask}
    for training in (True, False):
        with torch.set_grad_enabled(grad):
            expected, given = (model.train(training)(source, target, **masks) for model in (theirs, ours))
        torch.testing.assert_close(given, expected, atol=1e-5, rtol=1e-5)


def test_the_operator_of_torch_is_left_off_and_nested_batches_go_on() -> None:
    theirs = nn.TransformerEncoder(nn.TransformerEncoderLayer(**ENCODER), 2).eval()
    ours = replace(copy.deepcopy(theirs))
    calls = []
    ours.layers[1].self_attn.register_forward_hook(lambda _, given, __: calls.append(given[0]))
    x, hidden = torch.randn(3, 7, 12), torch.arange(7) >= torch.tensor([[7], [0], [5]])
    with torch.no_grad():
        torch.testing.assert_close(ours(x, src_key_padding_mask=hidden), theirs(x, src_key_padding_mask=hidden))
        assert calls.pop().is_nested
        # Torch's own gives NaN where padding stands in front, of a query that sees nothing.
        left = ours(x, src_key_padding_mask=hidden.flip(1), mask=nn.Transformer.generate_square_subsequent_mask(7))
    assert not calls.pop().is_nested
    assert left.isfinite().all()


def test_parameters_hooks_and_the_state_dict_stay() -> None:
    model = nn.TransformerDecoder(nn.TransformerDecoderLayer(**ENCODER), 2)
    before, state = list(model.parameters()), copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    calls = []
    model.layers[0].multihead_attn.register_forward_hook(lambda *_: calls.append(1))
    assert replace(model) is model
    assert all(a is b for a, b in zip(before, model.parameters(), strict=True))
    assert list(model.state_dict()) == list(state)
    weight = model.layers[1].self_attn.in_proj_weight.clone()
    model(torch.randn(2, 5, 12), torch.randn(2, 7, 12)).square().sum().backward()
    optimizer.step()
    assert calls == [1]
    assert not torch.equal(model.layers[1].self_attn.in_proj_weight, weight)
    nn.TransformerDecoder(nn.TransformerDecoderLayer(**ENCODER), 2).load_state_dict(model.state_dict())
    model.load_state_dict(state)


def test_a_layer_in_several_places_stays_one() -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(**ENCODER), 3)
    model.layers[2].self_attn = model.layers[0].self_attn
    replace(model)
    assert model.layers[2].self_attn is model.layers[0].self_attn
    assert isinstance(model.layers[2].self_attn, TorchMultiheadAttention)


def test_again_changes_nothing_and_the_model_may_be_a_layer_itself() -> None:
    layer = nn.MultiheadAttention(12, 3)
    assert replace(replace(layer)) is layer
    assert type(layer) is TorchMultiheadAttention


def test_a_subclass_stays_what_it_is() -> None:
    layer, x = Named(12, 3, "first"), torch.randn(2, 5, 12)
    expected = layer(x, x, x)
    replace(layer)
    assert isinstance(layer, Named)
    assert isinstance(layer, TorchMultiheadAttention)
    for other in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert type(other) is type(layer)
        assert other.label == "first"
        torch.testing.assert_close(other(x, x, x), expected)


def test_copies_and_pickles_of_a_model() -> None:
    model = replace(nn.TransformerEncoder(nn.TransformerEncoderLayer(**ENCODER), 2)).eval()
    x = torch.randn(2, 5, 12)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert isinstance(other.layers[1].self_attn, TorchMultiheadAttention)
        torch.testing.assert_close(other(x), model(x))


def test_a_recording_and_an_ablation_see_the_replaced_layers() -> None:
    theirs = nn.Transformer(12, 2, 1, 1, 13, batch_first=True).eval()
    ours = replace(copy.deepcopy(theirs))
    source, target = torch.randn(3, 7, 12), torch.randn(3, 5, 12)
    hidden = torch.arange(7) >= torch.tensor([[7], [3], [5]])
    found = []
    with torch.no_grad():
        for model in (theirs, ours):
            with hs.record(model) as recording:
                model(source, target, src_key_padding_mask=hidden)
            with hs.ablate(model, [(0, 1), (2, 0)]):
                found.append((recording, model(source, target)))
    (wanted, expected), (recording, given) = found
    assert [(layer.name, layer.kind) for layer in recording.layers] == [
        (layer.name, layer.kind) for layer in wanted.layers
    ]
    assert [layer.kind for layer in recording.layers] == ["self", "self", "cross"]
    assert recording.missed == ()
    torch.testing.assert_close(recording[0, 1, 1].weights(), wanted[0, 1, 1].weights())
    torch.testing.assert_close(given, expected)


def test_weights_that_are_asked_for_are_recorded_and_ablated() -> None:
    layer = replace(nn.MultiheadAttention(12, 3, batch_first=True)).eval()
    x, memory = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    with hs.record(layer) as recording:
        _, weights = layer(x, memory, memory, average_attn_weights=False)
    assert recording.layers[0].kind == "cross"
    torch.testing.assert_close(recording[0, 2, 1].weights(), weights[1, 2])
    with hs.ablate(layer, [(0, 2)]):
        torch.testing.assert_close(layer(x, x, x)[0], layer(x, x, x, need_weights=False)[0])


def scripted() -> nn.Module:
    return torch.jit.script(nn.MultiheadAttention(12, 3))


def offloaded() -> nn.Module:
    layer = nn.MultiheadAttention(12, 3)
    layer.forward = layer.forward
    return layer


def parametrized() -> nn.Module:
    layer = nn.MultiheadAttention(12, 3)
    parametrize.register_parametrization(layer, "in_proj_weight", nn.Identity())
    return layer


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Scaled(12, 3), "its class Scaled has a forward of its own, which would not run"),
        (scripted, "it is compiled by TorchScript"),
        (offloaded, "its forward was replaced on the object"),
        (parametrized, "it is parametrized"),
    ],
)
def test_what_cannot_be_replaced_is_named_with_its_path(make: object, reason: str) -> None:
    model = nn.ModuleDict({"good": nn.MultiheadAttention(12, 3), "bad": nn.ModuleList([make()])})
    with pytest.raises(ModelError, match=f"1 of 2 layers cannot be replaced: bad.0: {reason}.*Nothing was changed"):
        replace(model)
    assert type(model["good"]) is nn.MultiheadAttention
    with pytest.warns(UserWarning, match=f"left as they are: bad.0: {reason}"):
        replace(model, strict=False)
    assert type(model["good"]) is TorchMultiheadAttention


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_torchscript_traces_replaced_layers_and_does_not_compile_them() -> None:
    model, x = nn.MultiheadAttention(12, 3, batch_first=True).eval(), torch.randn(2, 5, 12)
    replace(model)
    torch.testing.assert_close(torch.jit.trace(model, (x, x, x))(x, x, x)[0], model(x, x, x)[0])
    with pytest.raises(RuntimeError):
        torch.jit.script(model)


def test_parametrized_afterwards_it_computes_with_what_is_made() -> None:
    layer, x = replace(nn.MultiheadAttention(12, 3, batch_first=True)), torch.randn(2, 5, 12)
    expected = layer(x, x, x)[0]
    parametrize.register_parametrization(layer, "in_proj_weight", nn.Identity())
    torch.testing.assert_close(layer(x, x, x)[0], expected)
    parametrize.remove_parametrizations(layer, "in_proj_weight")
    assert type(layer) is TorchMultiheadAttention


def test_a_model_without_such_a_layer_is_an_error() -> None:
    with pytest.raises(ModelError, match="Linear holds no nn.MultiheadAttention; attention that a model computes by"):
        replace(nn.Linear(2, 3))
