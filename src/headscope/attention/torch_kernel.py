"""Which of torch's own kernels runs a call of `scaled_dot_product_attention` on a GPU: for plans, never a choice.

Torch chooses among cuDNN's kernel, FlashAttention and the memory-efficient one by its own order, by what
`torch.nn.attention.sdpa_kernel` allows, and by `activate_flash_attention_impl`. It is asked what it would take.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from headscope.attention.known import known
from headscope.attention.request import Request
from headscope.compat.torch import SDP_CHOICE

# By the numbers of `torch.nn.attention.SDPBackend`.
NAMES = {0: "the unfused formula", 1: "FlashAttention 2", 2: "the memory-efficient kernel", 3: "cuDNN's kernel"}
FLASH = 1
# The names of `activate_flash_attention_impl`.
VERSIONS = {"FA3": "FlashAttention 3", "FA4": "FlashAttention 4"}


def torch_kernel(request: Request) -> str | None:
    """The name of the kernel that torch takes for a call as the fused path makes it; None where torch does not tell."""
    choose = SDP_CHOICE.find()
    if choose is None or not known(request.q):
        return None
    q, k, v = request.q, request.k, request.v
    added = None
    if not request.is_plain:
        # A number that stands for all pairs: of a mask its presence and dtype decide, and nothing is written out.
        added = torch.zeros((), dtype=q.dtype, device=q.device).expand(*q.shape[:3], k.shape[2])
    try:
        number = choose(
            q, k, v, added, request.dropout, added is None and request.is_causal and q.shape[2] > 1,
            scale=request.scale, enable_gqa=q.shape[1] != k.shape[1],
        )  # fmt: skip
    except RuntimeError:
        # No kernel is allowed: the call itself will say so.
        return None
    if int(number) == FLASH:
        current: Any = getattr(nn.attention, "current_flash_attention_impl", lambda: None)()
        return VERSIONS.get(current, current or NAMES[FLASH])
    return NAMES.get(int(number))
