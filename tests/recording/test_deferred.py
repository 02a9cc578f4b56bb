"""Layers that are looked at before their digest was compared, and verified by a thread meanwhile."""

import re
import threading

import pytest
import torch

import headscope as hs
from headscope.errors import RecordingError
from headscope.recording.folder.deferred import Deferred
from headscope.recording.folder.stored_layer import StoredLayer
from headscope.recording.layer import Layer

ALTERED = "field sha256: the file was altered or damaged after it was written"


@pytest.fixture
def folder(tmp_path):
    made = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 2, 7, 5, generator=made)
    return hs.Recording([Layer("layer", "self", q, k, None, None, 1.0)], "model").save(tmp_path / "one")


def layer_in(folder) -> StoredLayer:
    (layer,) = hs.load(folder).layers
    assert isinstance(layer, StoredLayer)
    return layer


def finished(deferred: Deferred, layer: StoredLayer) -> None:
    for _ in range(200):
        if layer not in deferred.waiting:
            return
        threading.Event().wait(0.02)
    raise AssertionError("it was not verified")


def alter(layer: StoredLayer) -> None:
    content = bytearray(layer.file.read_bytes())
    content[-1] ^= 1
    layer.file.write_bytes(content)


def test_a_large_layer_is_there_at_once_and_proven_later(folder):
    layer, deferred = layer_in(folder), Deferred(small=0)
    deferred.open(layer)
    assert layer.is_open
    assert layer.q.shape == (1, 2, 7, 5)
    finished(deferred, layer)
    assert deferred.proven(layer)
    deferred.open(layer)  # nothing is left to do
    deferred.close()
    assert deferred.thread is not None
    assert not deferred.thread.is_alive()


def test_an_altered_layer_is_found_out(folder):
    layer, deferred = layer_in(folder), Deferred(small=0)
    alter(layer)
    deferred.open(layer)
    finished(deferred, layer)
    assert not deferred.proven(layer)
    for ask in (deferred.check, deferred.open):
        with pytest.raises(RecordingError, match=ALTERED):
            ask(layer)
    assert not layer.is_open
    with pytest.raises(RecordingError, match=ALTERED):
        _ = layer.q
    deferred.close()


def test_a_file_that_changes_between_opening_and_verifying(folder):
    layer = layer_in(folder)
    before = layer.file.read_bytes()
    alter(layer)
    layer.open_unverified()
    layer.file.unlink()
    layer.file.write_bytes(before)  # the right file, but not the one that was opened
    with pytest.raises(RecordingError, match=ALTERED):
        layer.verify(lambda: False)


def test_a_file_that_is_gone(folder):
    layer = layer_in(folder)
    layer.open_unverified()
    layer.file.unlink()
    with pytest.raises(RecordingError, match=re.escape(f"{layer.file}: cannot be read: ")):
        layer.verify(lambda: False)


def test_a_small_layer_is_verified_first_and_a_layer_in_memory_never(folder):
    layer, deferred = layer_in(folder), Deferred()
    alter(layer)
    with pytest.raises(RecordingError, match=ALTERED):
        deferred.open(layer)
    memory = Layer("layer", "self", torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 2, 3), None, None, 1.0)
    deferred.open(memory)
    assert deferred.proven(memory)
    assert deferred.thread is None
    deferred.close()


def test_verifying_stops_between_two_blocks(folder):
    layer = layer_in(folder)
    layer.open_unverified()
    assert layer.verify(lambda: True) is False
    assert layer.verify(lambda: False) is True
