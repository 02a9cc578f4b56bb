"""Messages that name a field of a recording, one by one."""

import pytest
import torch

import headscope as hs
from headscope.errors import ModelError, RecordingError
from headscope.recording.folder import format as form
from headscope.recording.folder import reader
from headscope.recording.folder.axis_entry import AxisEntry


def body(**changes) -> form.Body:
    """A recording.json with one axis and no layers, altered."""
    axis = AxisEntry(**{"kind": "tokens", "length": 2, "labels": ("a", "b"), **changes})
    return form.Body("0", "0", "model", (axis,), ())


def test_axes_that_do_not_fit():
    with pytest.raises(RecordingError, match=r"field axes\[0\].labels: 1 entries for 2 positions"):
        form.check("there", body(labels=("a",)))
    with pytest.raises(RecordingError, match=r"field axes\[0\].labels: tokens without labels"):
        form.check("there", body(labels=None))
    with pytest.raises(RecordingError, match=r"field axes\[0\].labels: patches without labels"):
        form.check("there", body(kind="patches", labels=None))
    text = ("text", AxisEntry("tokens", 1, ("a",)))
    for parts, wrong in (
        (None, "0 segments that do not make 2 positions"),
        ((text,), "1 segments that do not make 2 positions"),
        ((text, ("more", AxisEntry("segments", 1, parts=(text,)))), "a segment with segments of its own"),
        ((text, ("odd", AxisEntry("tokens", 1, ("a", "b")))), "odd.labels: 2 entries for 1 positions"),
    ):
        with pytest.raises(RecordingError, match=rf"field axes\[0\].parts.*{wrong}"):
            form.check("there", body(kind="segments", labels=None, parts=parts))
    with pytest.raises(RecordingError, match=r"field axes\[0\].parts: tokens with segments"):
        form.check("there", body(parts=(text,)))


def test_a_layer_that_does_not_fit():
    layer = form.LayerEntry(name="x", kind="self", tensors={}, sha256="0", scale=1.0, queries=(), keys=())
    with pytest.raises(RecordingError, match=r"field layers\[0\].tensors.q: missing"):
        form.check("there", form.Body("0", "0", "model", (), (layer,)))


def test_a_file_without_a_header(tmp_path):
    layer = form.LayerEntry(name="x", kind="self", tensors={}, sha256="0", scale=1.0, queries=(), keys=())
    (tmp_path / "layer").write_bytes(b"\xff" * 64)
    with pytest.raises(RecordingError, match=r"field header: .* the file is damaged"):
        reader.check_header(tmp_path / "layer", layer)


class WritesBehind(torch.nn.Module):
    """Overwrites its keys where nobody can hear it, and keeps them."""

    def forward(self, x):
        self.kept = x.clone()
        values = torch.nn.functional.scaled_dot_product_attention(self.kept, self.kept, self.kept)
        with torch._C.DisableTorchFunction():
            self.kept.mul_(2)
        return values


def test_keys_that_are_overwritten_behind_our_back():
    """What is recorded are the keys of the call, whatever becomes of them."""
    model, x = WritesBehind(), torch.randn(1, 2, 5, 4)
    with hs.record(model) as recording:
        model(x)
    assert torch.equal(model.kept, 2 * x)
    assert torch.equal(recording.layers[0].k, x)


def test_the_graph_is_kept_in_memory_alone(tmp_path):
    with pytest.raises(ModelError, match="grad=True keeps tensors in the graph of autograd, in memory; leave out to="):
        hs.record(torch.nn.Linear(2, 2), grad=True, to=tmp_path / "x")
