"""Our safetensors files are those of the library, byte for byte, and the digest is that of the file."""

import hashlib
import io

import torch
from safetensors.torch import load, save

from headscope.files.digests import bytes_of, digest_of_tensors
from headscope.files.tensors_file import write_tensors


def test_the_same_bytes_as_the_library():
    torch.manual_seed(0)
    tensors = {
        "q": torch.randn(2, 3), "k": torch.randn(2, 3).bfloat16(), "a": torch.arange(3, dtype=torch.int32),
        "empty": torch.zeros(0, 5), "scalar": torch.tensor(3.0), "wide": torch.ones(2, dtype=torch.float64),
        "mask": torch.tensor([True, False, True]), "half": torch.randn(7).half(), "long": torch.arange(5),
        "byte": torch.arange(3, dtype=torch.uint8), "ü": torch.ones(1),
    }  # fmt: skip
    file = io.BytesIO()
    digest = write_tensors(file, tensors)
    assert file.getvalue() == save(tensors)
    assert digest == hashlib.sha256(file.getvalue()).hexdigest()


def test_views_and_shared_memory_are_written_as_they_are_read():
    x = torch.randn(3, 5, 7)
    tensors = {"cut": x[1:, ::2].mT, "same": x, "expanded": torch.ones(1, 3).expand(5, 3)}
    file = io.BytesIO()
    write_tensors(file, tensors)
    assert all(torch.equal(value, tensors[name]) for name, value in load(file.getvalue()).items())


def test_a_digest_knows_names_shapes_dtypes_and_numbers():
    x = torch.arange(6.0)
    others = [{"y": x}, {"x": x.view(2, 3)}, {"x": x.double()}, {"x": x + 1}, {"x": x.int()}, {}]
    digests = {digest_of_tensors(one) for one in ({"x": x}, *others)}
    assert len(digests) == 1 + len(others)
    assert digest_of_tensors({"x": x, "y": x.view(2, 3).mT}) == digest_of_tensors(
        [("y", x.view(2, 3).mT.contiguous()), ("x", x.clone())]
    )
    assert bytes(bytes_of(torch.tensor([1 + 2j]).conj())) == bytes(bytes_of(torch.tensor([1 - 2j])))
