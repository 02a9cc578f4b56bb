"""What users meet and the shape checks of the tests would hide: wrong types, and modules under torch.compile.

Run by test_api.py in a process of its own, without the checks.
"""

import numpy as np
import pytest
import torch

import headscope as hs
from headscope.attention.request import Request
from headscope.errors import BackendRefused, LookError, MaskError, ModelError, ShapeError

X = torch.randn(2, 4, 5, 8)
PADS = torch.zeros(1, 2, 5, dtype=torch.bool)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hs.dense(torch.zeros(2, 2)), "True where a query may see a key"),
        (lambda: hs.causal() & torch.ones(2, 2), "wrap a boolean tensor in hs.dense"),
        (lambda: hs.relative(torch.zeros(8)), r"give \(buckets, heads\)"),
        (lambda: hs.dense_bias(torch.ones(2, 2, dtype=torch.bool)), "For who may see whom use hs.dense"),
        (lambda: hs.from_additive(PADS[0]), "from_additive: the mask is torch.bool"),
        (lambda: hs.from_torch_mha_mask(key_padding_mask=PADS), r"key_padding_mask is .* give \(batch, keys\)"),
        (lambda: Request(X, X, X, torch.ones(5, 5)), r"expected a Mask, got Tensor; give hs\.causal"),
        (lambda: Request(X, X, X, None, torch.ones(5, 5)), r"expected a Bias, got Tensor; give hs\.dense_bias"),
    ],
)
def test_masks_and_biases_of_the_wrong_type(make, message):
    with pytest.raises(MaskError, match=message):
        make()


def test_sinks_for_other_heads():
    with pytest.raises(ShapeError, match=r"sinks are \(3,\) and q has 4 heads"):
        hs.attend(X, X, X, sinks=torch.zeros(3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hs.Head(X[0], X[0]), r"Head: q is \(4, 5, 8\) and k is \(4, 5, 8\); give one head's"),
        (lambda: hs.Head(X[0, 0], X[0, 0, :, :3]), r"Head: q is \(5, 8\) and k is \(5, 3\); give one head's"),
        (lambda: hs.Head(X[0, 0], X[0, 0], X[0, 0, :4]), r"Head: v is \(4, 8\) and k is \(5, 8\); give one value"),
    ],
)
def test_heads_of_other_shapes(make, message):
    with pytest.raises(ShapeError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda cache: cache.reorder(torch.tensor([1.0, 0.0])), r"reorder: the index is \[1\.0, 0\.0\]; give items"),
        (
            lambda cache: cache.reorder(torch.tensor([True, False])),
            r"reorder: the index is \[True, False\]; give items",
        ),
        (
            lambda cache: hs.nn.KeyValueCache(CACHED, 2, lengths=[1.5, 2.0]),
            "lengths are .*; give one length for each of 2",
        ),
    ],
)
def test_caches_take_whole_numbers(make, message):
    with pytest.raises(ShapeError, match=message):
        make(hs.nn.KeyValueCache(CACHED, 2))


CACHED = hs.nn.MultiheadAttention(8, 2)


def test_what_is_replaced_is_a_module():
    with pytest.raises(ModelError, match=r"replace: expected a torch\.nn\.Module, got NoneType; give the model"):
        hs.nn.replace(None)


LEARNED = torch.tensor(0.5, requires_grad=True)


@pytest.mark.parametrize("queries", [1, 5])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": LEARNED}, r"scale is a tensor \(\), .* A learned one is a factor of the queries"),
        ({"scale": torch.ones(2)}, r"scale is a tensor \(2,\), and kernels take a number"),
        (
            {"softcap": LEARNED},
            r"softcap is a tensor \(\), and kernels take a number, which has no gradient; give a float\.$",
        ),
        ({"dropout": LEARNED}, r"dropout is a tensor \(\), and kernels take a number"),
        ({"scale": "1"}, "scale='1'; give a finite number"),
        ({"scale": float("nan")}, "scale=nan; give a finite number"),
        ({"scale": float("inf")}, "scale=inf; give a finite number"),
        ({"softcap": float("inf")}, "softcap=inf; give a finite number"),
        ({"dropout": None}, "dropout=None; give a finite number"),
        ({"sinks": [0.0] * 4}, "sinks are a list; give a torch.Tensor with one logit for each head"),
        ({"sinks": torch.zeros(4, device="meta")}, "sinks are on meta and q is on cpu; move them"),
        ({"q": None}, r"expected q as a torch\.Tensor, got NoneType"),
        ({"k": X.numpy()}, r"expected k as a torch\.Tensor, got ndarray"),
        ({"v": X.to_sparse()}, "v is a sparse_coo tensor, and attention reads dense ones; give padded tensors"),
        ({"k": torch.nested.nested_tensor([X[0], X[1]])}, "k is a nested tensor, and attention reads dense ones"),
        (dict.fromkeys("qkv", X.to(torch.float8_e4m3fn)), "are torch.float8_e4m3fn; attention needs float64, float32"),
    ],
)
def test_arguments_of_another_type_are_named(change, message, queries):
    arguments = {"q": X, "k": X, "v": X} | change
    if isinstance(arguments["q"], torch.Tensor):
        arguments["q"] = arguments["q"][:, :, :queries]
    with pytest.raises(ShapeError, match=message):
        hs.attend(arguments.pop("q"), arguments.pop("k"), arguments.pop("v"), **arguments)


def test_numbers_of_other_libraries_are_numbers():
    values = hs.attend(X, X, X, scale=0.5, softcap=3.0, dropout=0.0, mask=hs.window(2, 1) & hs.first(3))
    mask = hs.window(np.int64(2), torch.tensor(1)) & hs.first(np.int64(3))
    found = hs.attend(X, X, X, scale=torch.tensor(0.5), softcap=np.float32(3), dropout=np.int32(0), mask=mask)
    assert torch.equal(found, values)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hs.window(2.0), r"left=2\.0 is a float; give a whole number"),
        (lambda: hs.window(2, True), "right=True is a bool; give a whole number"),
        (lambda: hs.dense([[True]]), r"dense: expected a torch\.Tensor, got list"),
        (lambda: hs.dense_bias([[0.0]]), r"dense_bias: expected a torch\.Tensor, got list"),
    ],
)
def test_masks_of_something_else(make, message):
    with pytest.raises(MaskError, match=message):
        make()


def test_a_backend_that_is_no_name():
    with pytest.raises(BackendRefused, match="there is no backend 1"):
        hs.attend(X, X, X, backend=1)


LAYER = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
WIDER = torch.nn.TransformerEncoderLayer(12, 2, 16, batch_first=True).eval()


@pytest.mark.parametrize("heads", [(0, 1), "0.1", [(0, 0.5)], [(0, 1, 2)], None, {0: [1]}])
def test_heads_that_are_no_pairs(heads):
    with pytest.raises(LookError, match=r"ablate: heads=.*; give pairs \(layer, head\) of whole numbers"):
        hs.ablate(LAYER, heads)


def test_heads_in_numbers_of_other_libraries():
    x = torch.randn(1, 3, 8)
    with hs.ablate(LAYER, [(0, 1)]):
        without = LAYER(x)
    for heads in (torch.tensor([[0, 1]]), np.array([[0, 1]])):
        with hs.ablate(LAYER, heads):
            assert torch.equal(LAYER(x), without)


def test_a_recording_of_another_model():
    with hs.record(WIDER) as wider:
        WIDER(torch.randn(1, 3, 12))
    for block in (hs.ablate(LAYER, [(0, 1)], how=wider), hs.patch(LAYER, wider, [(0, 1)])):
        with pytest.raises(LookError, match="the heads of layer 0 have 6 features in the recording and 4 here"), block:
            LAYER(torch.randn(1, 3, 8))
    with pytest.raises(LookError, match="patch: expected a Recording, got NoneType; give what hs.record gave"):
        hs.patch(LAYER, None, [(0, 1)])


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (3, "no loss was given; give a function that runs the model"),
        ([3], "no loss was given; give a function that runs the model"),
        (lambda: 3.0, "the loss is float, not a single number; return a tensor with one element"),
        (lambda: None, "the loss is NoneType, not a single number; return a tensor with one element"),
    ],
)
def test_losses_that_are_none(loss, message):
    with pytest.raises(LookError, match=message):
        hs.importance(LAYER, loss)


class Calls(torch.nn.Module):
    """A module that calls attend."""

    def __init__(self, **options):
        super().__init__()
        self.options = options

    def forward(self, q, k, v):
        return hs.attend(q, k, v, **self.options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mask": hs.causal()},
        {"mask": hs.padding([30, 61])},
        {"mask": hs.first(3) | hs.window(7)},
        {"mask": hs.causal() & hs.documents([30, 31])},
        {"softcap": 3.0},
        {"bias": hs.alibi(4), "mask": hs.causal()},
        {"sinks": torch.linspace(-1, 1, 4)},
    ],
    ids=lambda options: " ".join(map(repr, options.values())) or "plain",
)
def test_compiled_modules_keep_one_graph_and_the_same_numbers(options):
    torch._dynamo.reset()
    q, k, v = (torch.randn(2, 4, 61, 16, requires_grad=True) for _ in range(3))
    module = Calls(**options)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    values, expected = compiled(q, k, v), module(q, k, v)
    torch.testing.assert_close(values, expected)
    for mine, theirs in zip(*(torch.autograd.grad(x.sin().sum(), (q, k, v)) for x in (values, expected)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_one_graph_serves_every_length_in_a_dynamic_range():
    torch._dynamo.reset()
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    compiled = torch.compile(Calls(mask=hs.causal()), backend=counter, fullgraph=True)
    for n in (17, 31, 61):
        tensors = [torch.randn(2, 4, n, 16) for _ in range(3)]
        for x in tensors:
            torch._dynamo.mark_dynamic(x, 2, min=8, max=4096)
        torch.testing.assert_close(compiled(*tensors), Calls(mask=hs.causal())(*tensors))
    assert counter.frame_count == 1


@pytest.mark.parametrize("options", [{"mask": hs.causal()}, {"softcap": 3.0, "mask": hs.window(5)}])
def test_modules_can_be_exported(options):
    tensors = tuple(torch.randn(2, 4, 17, 16) for _ in range(3))
    exported = torch.export.export(Calls(**options), tensors)
    torch.testing.assert_close(exported.module()(*tensors), Calls(**options)(*tensors))


@pytest.mark.slow
def test_flexattention_agrees_where_it_runs():
    q, k, v = torch.randn(1, 4, 131, 32), torch.randn(1, 2, 257, 32), torch.randn(1, 2, 257, 32)
    asked = {"mask": hs.window(30, 5) & hs.padding([200]), "softcap": 3.0, "bias": hs.alibi(4)}
    plan = hs.plan(q, k, v, **asked)
    if plan.refusals["flex"]:
        with pytest.raises(BackendRefused, match="backend 'flex' cannot run this"):
            hs.attend(q, k, v, backend="flex", **asked)
    else:
        with torch.no_grad():
            found = hs.attend(q, k, v, backend="flex", **asked)
        torch.testing.assert_close(found, hs.attend(q, k, v, backend="formula", **asked), rtol=1e-4, atol=1e-5)


class Lengths(torch.nn.Module):
    """A layer of ours with a mask whose lengths are inputs."""

    def __init__(self, mask):
        super().__init__()
        self.layer, self.mask = hs.nn.MultiheadAttention(16, 4), mask

    def forward(self, x, lengths):
        return self.layer(x, mask=self.mask(lengths))


@pytest.mark.parametrize(
    ("mask", "numbers", "others"),
    [
        (hs.padding, [4, 9], [9, 0]),
        (lambda n: hs.padding(n, n), [4, 9], [9, 0]),
        (lambda n: hs.causal() & hs.documents(n), [[4, 5], [2, 7]], [[9, 0], [1, 8]]),
        (hs.prefix, [4, 9], [0, 1]),
        (lambda n: hs.first(n) | hs.window(1), [4, 9], [0, 1]),
    ],
    ids=["padding", "padding of both", "documents", "prefix", "first"],
)
def test_lengths_are_inputs_of_one_graph(mask, numbers, others):
    torch._dynamo.reset()
    from torch._dynamo.testing import CompileCounter

    counter, module, x = CompileCounter(), Lengths(mask), torch.randn(2, 9, 16)
    compiled = torch.compile(module, backend=counter, fullgraph=True)
    exported = torch.export.export(module, (x, torch.tensor(numbers))).module()
    for lengths in (torch.tensor(numbers), torch.tensor(others)):
        for program in (compiled, exported):
            torch.testing.assert_close(program(x, lengths), module(x, lengths), atol=1e-6, rtol=1e-5)
    assert counter.frame_count == 1
