"""Tensors as a safetensors file, written in one pass: each goes from its memory to the disk and into the digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import chain

import torch
from torch import Tensor

from headscope.files.digests import bytes_of
from headscope.files.replace_file import Output

# In the order in which the library of that name writes them: the widest first, so that each starts where it may.
NAMES = {
    torch.uint64: "U64", torch.int64: "I64", torch.float64: "F64", torch.complex64: "C64", torch.float32: "F32",
    torch.uint32: "U32", torch.int32: "I32", torch.bfloat16: "BF16", torch.float16: "F16", torch.uint16: "U16",
    torch.int16: "I16", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
ALIGNMENT = 8  # bytes, of the numbers in the file


def write_tensors(file: Output, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors to an open file, in the format of safetensors, and give the SHA-256 of all that was written.

    Source: https://huggingface.co/docs/safetensors: the length of a header, the header in JSON, the numbers.
    """
    rank = {dtype: place for place, dtype in enumerate(NAMES)}
    order = sorted(tensors, key=lambda name: (rank[tensors[name].dtype], name))
    header: dict[str, object] = {}
    offset = 0
    for name in order:
        x = tensors[name]
        stop = offset + x.numel() * x.element_size()
        header[name] = {"dtype": NAMES[x.dtype], "shape": list(x.shape), "data_offsets": [offset, stop]}
        offset = stop
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    digest = hashlib.sha256()
    parts = chain((len(text).to_bytes(8, "little"), text), (bytes_of(tensors[name]) for name in order))
    for part in parts:
        digest.update(part)  # type: ignore[arg-type, unused-ignore]
        file.write(part)
    return digest.hexdigest()
