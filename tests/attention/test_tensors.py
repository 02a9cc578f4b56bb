"""What mask tensors mean, as torch and models write them: runs, a bias, and each tensor read once."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

import headscope as hs
from headscope.attention.masks import snapshot, tensors
from headscope.attention.masks.runs import from_dense

B, H, Q, K = 2, 3, 7, 11
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def written(dtype: torch.dtype, low: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A boolean mask in which every query sees something, and the same as added numbers."""
    allowed = torch.rand(B, 1, Q, K, generator=torch.Generator().manual_seed(5)) > 0.4
    allowed[..., 0] = True
    return allowed, torch.zeros(B, 1, Q, K, dtype=dtype).masked_fill(~allowed, low)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("low", ["-inf", "lowest", -1e4, -3e4])
def test_every_way_to_write_a_hidden_key(dtype, low):
    allowed, mask = written(dtype, torch.finfo(dtype).min if low == "lowest" else float(low))
    runs, bias = tensors.read(mask)
    assert bias is None
    assert (runs.block(slice(0, Q), 0, K) == allowed).all()
    found, nothing = hs.from_additive(mask)
    assert nothing is None
    assert (found.to_dense(Q, K) == allowed).all()


def test_from_additive_and_the_reader_mean_the_same():
    """Hidden keys, a bias, and a row of nothing but the lowest number, in one mask."""
    allowed, mask = written(torch.float32, -1e9)
    mask += torch.randn(B, 1, Q, K)
    mask[1, 0, 3] = torch.finfo(torch.float32).min
    allowed[1, 0, 3] = False
    runs, bias = tensors.read(mask)
    found, added = hs.from_additive(mask)
    assert (runs.block(slice(0, Q), 0, K) == allowed).all()
    assert (found.to_dense(Q, K) == allowed).all()
    assert (added.block(slice(0, Q), 0, K, Q, K) == bias).all()
    assert (bias == mask.masked_fill(~allowed, 0.0)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("low", [-math.inf, None])
def test_a_row_that_is_hidden_whole_sees_nothing(dtype, low):
    mask = torch.zeros(1, 1, 2, K, dtype=dtype)
    mask[0, 0, 1] = torch.finfo(dtype).min if low is None else low
    assert tensors.read(mask).runs.counts().tolist() == [[[K, 0]]]


def test_numbers_relative_to_their_row_are_a_bias():
    """A row that is low as a whole is only shifted: the softmax does not see it."""
    mask = torch.tensor([[-20000.0, -20001.0, -40000.0]])[None, None]
    runs, bias = tensors.read(mask)
    assert runs.stop.flatten().tolist() == [2]
    assert bias.flatten().tolist() == [-20000.0, -20001.0, 0.0]


@pytest.mark.parametrize("spoilt", [math.nan, math.inf])
def test_nan_and_infinity_are_not_hidden(spoilt):
    q, k, v = (torch.randn(1, 1, n, 5) for n in (Q, K, K))
    mask = torch.zeros(Q, K)
    mask[2, 4] = spoilt
    allowed, bias = hs.from_additive(mask)
    expected = sdpa(q, k, v, attn_mask=mask)
    found = hs.attend(q, k, v, mask=allowed, bias=bias, backend="formula")
    assert expected[0, 0, 2].isnan().all()
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_what_an_additive_mask_means_is_what_torch_computes():
    q, k, v = (torch.randn(B, H, n, 5, dtype=torch.float64) for n in (Q, K, K))
    _, mask = written(torch.float64, -1e9)
    mask += torch.randn(B, 1, Q, K, dtype=torch.float64)
    allowed, bias = hs.from_additive(mask)
    torch.testing.assert_close(hs.attend(q, k, v, mask=allowed, bias=bias), sdpa(q, k, v, attn_mask=mask))


def test_gradients_flow_into_the_bias_of_an_additive_mask():
    mask = torch.randn(Q, K, requires_grad=True)
    _, bias = hs.from_additive(mask)
    (grad,) = torch.autograd.grad(bias.block(slice(0, Q), 0, K, Q, K).sum(), mask)
    assert (grad == 1).all()


@pytest.mark.parametrize("shape", [(1, 1, Q, 0), (1, 1, 0, K), (B, H, 0, 0)])
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_masks_of_nothing(shape, dtype):
    runs, bias = tensors.read(torch.zeros(shape, dtype=dtype))
    assert runs is None
    assert bias is None


def test_booleans_and_masks_that_hide_nothing():
    allowed, _ = written(torch.float32, -math.inf)
    runs, bias = tensors.read(allowed)
    assert bias is None
    assert (runs.block(slice(0, Q), 0, K) == allowed).all()
    for mask in (torch.ones(1, 1, Q, K, dtype=torch.bool), torch.zeros(1, 1, 1, K)):
        assert tensors.read(mask) == (None, None)


@pytest.mark.parametrize("mask", [hs.causal(), hs.padding([5, 0]), hs.first(2) | hs.window(1)], ids=repr)
def test_the_fast_way_to_runs_is_the_slow_one(mask):
    allowed = mask.to_dense(Q, K)
    for found, expected in zip(tensors.runs_of(allowed), from_dense(allowed), strict=True):
        assert (found == expected).all()


@pytest.mark.parametrize(("q", "k"), [(Q, K), (K, Q), (Q, Q)])
def test_torch_s_causal_counts_from_the_start(q, k):
    runs = tensors.causal_from_the_start(q, k, torch.device("cpu"))
    assert (runs.block(slice(0, q), 0, k)[0, 0] == torch.ones(q, k).tril().bool()).all()


def test_a_reader_reads_a_tensor_once_and_again_when_it_changes():
    reader, mask = tensors.Reader(), torch.zeros(Q, K)
    mask[0, 3] = -math.inf
    first = reader(mask)
    assert first.runs.start.ndim == 4
    assert reader(mask) is first
    mask[1, 3] = -math.inf
    assert reader(mask).runs.counts().flatten().tolist()[:3] == [K - 1, K - 1, K]
    with torch.inference_mode():
        made = torch.zeros(Q, K)
        made[0, 3] = -math.inf
        reader(made)
        made[0, 3] = 0.0
        assert reader(made).runs is None


def of_numpy(monkeypatch):
    """A mask in memory that numpy writes to."""
    array = np.zeros((Q, K), dtype=np.float32)
    return torch.from_numpy(array), lambda: array.__setitem__((0, 3), -math.inf)


def given_to_numpy(monkeypatch):
    """A mask whose memory numpy writes to after it was read."""
    mask = torch.zeros(Q, K)
    return mask, lambda: mask.numpy().__setitem__((0, 3), -math.inf)


def replaced(monkeypatch):
    """A mask that gets other memory."""
    mask = torch.zeros(Q, K)
    other = mask.clone()
    other[0, 3] = -math.inf
    return mask, lambda: setattr(mask, "data", other)


def of_inference_mode(monkeypatch):
    """A mask that is written to where torch counts nothing."""
    with torch.inference_mode():
        mask = torch.zeros(Q, K)

    def write():
        with torch.inference_mode():
            mask[0, 3] = -math.inf

    return mask, write


def large(monkeypatch):
    """A mask of numpy that is too large to be compared."""
    monkeypatch.setattr(snapshot, "COPIED", Q * K - 1)
    return of_numpy(monkeypatch)


@pytest.mark.parametrize("make", [of_numpy, given_to_numpy, replaced, of_inference_mode, large])
def test_what_torch_does_not_count_is_read_again(make, monkeypatch):
    mask, write = make(monkeypatch)
    reader = tensors.Reader()
    first = reader(mask)
    assert first.runs is None
    assert (reader(mask) is first) == (make is not large)
    write()
    assert reader(mask).runs.counts().flatten().tolist() == [K - 1] + [K] * (Q - 1)
