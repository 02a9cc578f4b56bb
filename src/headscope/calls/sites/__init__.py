"""One file for each place where attention is called. To add a place: a file, and its entry in this tuple."""

from headscope.calls.sites.by_hand import ByHand
from headscope.calls.sites.flash_attn import FlashAttn, Varlen
from headscope.calls.sites.flex_attention import FlexAttention
from headscope.calls.sites.hs_attend import Attend
from headscope.calls.sites.longformer import SlidingChunks
from headscope.calls.sites.sdpa import ScaledDotProductAttention
from headscope.calls.sites.site import Site
from headscope.calls.sites.torch_fast_path import FastPath
from headscope.calls.sites.torch_mha import MultiHeadAttentionForward
from headscope.calls.sites.transformers_interface import AttentionInterface
from headscope.calls.sites.xformers import MemoryEfficientAttention

__all__ = ["SITES", "Site"]

SITES: tuple[Site, ...] = (
    ScaledDotProductAttention(),
    MultiHeadAttentionForward(),
    FastPath(),
    Attend(),
    FlexAttention(),
    Varlen(),
    FlashAttn(),
    MemoryEfficientAttention(),
    AttentionInterface(),
    SlidingChunks(),
    ByHand(),
)
