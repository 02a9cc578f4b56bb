"""The folder on disk: the same numbers back, or an error that names the file and the field."""

import contextlib
import errno
import gc
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
import torch

import headscope as hs
from headscope.attention.masks.runs import Runs
from headscope.errors import NothingRecorded, RecordingError
from headscope.files import system
from headscope.recording.folder import format as form
from headscope.recording.folder import reader, stored_layer, writer
from headscope.recording.folder.axis_entry import LONGEST_LABEL
from headscope.recording.recording import Layer, Recording
from headscope.recording.unseen import Missed
from tests import warm
from tests.recording.tiny import build

FIELDS = ("q", "k", "v", "bias", "sinks", "lse")


def example(dtype: torch.dtype = torch.float32) -> Recording:
    """A recording with every field in use, and prime sizes."""
    torch.manual_seed(5)
    start = torch.randint(0, 3, (2, 1, 5, 2), dtype=torch.int32).sort(-1).values
    runs = Runs(start, torch.stack([start[..., 1], start[..., 1] + 2], -1).int())
    tokens = hs.Axis.tokens(
        ["[CLS]", "a", "</script>", "ü", "🙂"],
        ids=[1, 2, 3, 4, 5],
        special=[True] + [False] * 4,
        padding=[False] * 4 + [True],
    )
    keys = hs.Axis.patches(2, 3, before=["[CLS]"], source="cat.png")
    joint = hs.Axis.segments(text=hs.Axis.positions(3), sound=hs.Axis.frames(4, 0.02))
    q, k, v = torch.randn(2, 6, 5, 11), torch.randn(2, 3, 7, 11), torch.randn(2, 3, 7, 13)
    full = Layer(
        "encoder.0.attn", "cross", q.to(dtype), k.to(dtype), v.to(dtype), runs, 0.3, 30.0,
        torch.randn(1, 6, 5, 7).to(dtype),
        torch.randn(6).to(dtype), None, [tokens, hs.Axis.positions(5)], [keys, joint], 3,
        rows=(0, 2, 4, 6, 8),
    )  # fmt: skip
    plain = Layer("encoder.1.attn", "self", q[:, :, :5].to(dtype), q[:, :, :5].to(dtype), None, None, 0.25, number=4)
    missed = (
        Missed("encoder.2.attn", "HashedAttention", "its keys are sorted into buckets"),
        Missed("", "Odd", "\x1b"),
    )
    return Recording([full, plain], "Model (somewhere)", missed=missed)


def same(a: Recording, b: Recording) -> bool:
    """Whether two recordings are the same, bit for bit."""
    if a.model != b.model or a.missed != b.missed or len(a.layers) != len(b.layers):
        return False
    for x, y in zip(a.layers, b.layers, strict=True):
        plain = ("name", "kind", "scale", "softcap", "queries", "keys", "number", "head_numbers", "rows", "source")
        if any(getattr(x, name) != getattr(y, name) for name in plain) or (x.runs is None) != (y.runs is None):
            return False
        pairs = [(getattr(x, name), getattr(y, name)) for name in FIELDS]
        if x.runs is not None:
            pairs += list(zip(x.runs, y.runs, strict=True))
        for mine, theirs in pairs:
            if (mine is None) != (theirs is None) or (
                mine is not None and not (mine.dtype == theirs.dtype and torch.equal(mine, theirs))
            ):
                return False
    return True


class TestRoundTrip:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
    def test_the_same_bits(self, tmp_path, dtype):
        recording = example(dtype)
        path = recording.save(tmp_path / "one")
        assert path == tmp_path / "one.headscope"
        assert same(recording, hs.load(path))
        assert same(recording, hs.load(tmp_path / "one"))
        assert sorted(p.name for p in tmp_path.iterdir()) == ["one.headscope"]
        weights = recording[3, 5, 1].weights()
        assert torch.equal(weights, hs.load(path)[3, 5, 1].weights())

    def test_a_loaded_recording_can_be_saved_over_itself(self, tmp_path):
        path = example().save(tmp_path / "one")
        loaded = hs.load(path)
        loaded.save(path, overwrite=True)
        assert same(example(), hs.load(path))
        assert sorted(p.name for p in tmp_path.iterdir()) == ["one.headscope"]

    def test_opening_reads_headers_only(self, tmp_path, monkeypatch):

        path = example().save(tmp_path / "one")
        read = []
        monkeypatch.setattr(stored_layer, "digest_of_file", lambda file: read.append(file) or "")
        recording = hs.load(path)
        assert not read
        with pytest.raises(RecordingError, match="sha256"):
            _ = recording.layers[0].q

    def test_there_is_no_pickle(self, tmp_path):
        path = example().save(tmp_path / "one")
        assert {p.suffix for p in path.iterdir()} == {".safetensors", ".json"}


class TestRefusals:
    def test_a_folder_that_exists(self, tmp_path):
        example().save(tmp_path / "one")
        with pytest.raises(RecordingError, match="exists already; give another name, or overwrite=True"):
            example().save(tmp_path / "one")

    def test_a_folder_that_is_no_recording_is_never_overwritten(self, tmp_path):
        (tmp_path / "photos.headscope").mkdir()
        (tmp_path / "photos.headscope" / "me.png").write_bytes(b"")
        with pytest.raises(RecordingError, match="headscope did not write it, so it is not overwritten"):
            example().save(tmp_path / "photos", overwrite=True)
        assert (tmp_path / "photos.headscope" / "me.png").exists()

    def test_a_place_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(RecordingError, match="cannot be written: Not a directory"):
            example().save(tmp_path / "file" / "one")

    @pytest.mark.parametrize("name", ["/", "/.."])
    def test_a_name_that_no_folder_can_have(self, name):
        with pytest.raises(RecordingError, match="this is no name for a new folder; give one, such as out.headscope"):
            example().save(name)

    def test_a_path_that_cannot_be_looked_for(self):
        with pytest.raises(RecordingError, match=r"File name too long; give the folder of a recording"):
            hs.load(300 * "x")

    def test_the_folder_that_one_is_in(self, tmp_path, monkeypatch):
        """It has no name of its own, and the root has none at all."""
        monkeypatch.chdir(tmp_path)
        for name in (".", "..", "/"):
            with pytest.raises(RecordingError, match="has no recording.json: it is no recording"):
                hs.load(name)
        example().save("one")
        monkeypatch.chdir("one.headscope")
        assert same(hs.load("."), example())

    def test_a_disk_that_takes_no_more(self, tmp_path, tmp_path_factory):
        program = textwrap.dedent(f"""
            import resource
            import torch
            from headscope.errors import RecordingError
            from headscope.recording.recording import Layer, Recording
            q = torch.randn(1, 2, 400, 64)
            recording = Recording([Layer("x", "self", q[:, :, :100], q[:, :, :100], None, None, 0.1),
                                   Layer("x", "self", q, q, None, None, 0.1)])
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
            try:
                recording.save({str(tmp_path / "one")!r})
            except RecordingError as error:
                print(error)
        """)
        saving = tmp_path_factory.mktemp("program") / "saving.py"
        saving.write_text(program)
        run = warm.run(saving)
        assert "File too large" in run.stdout, run.stderr
        assert "nothing was left behind" in run.stdout
        assert not list(tmp_path.iterdir())

    def test_a_full_disk(self, tmp_path, monkeypatch):

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(system, "write", full)
        with pytest.raises(RecordingError, match=r"No space left on device .*nothing was left behind"):
            example().save(tmp_path / "one")
        assert not list(tmp_path.iterdir())

    def test_no_folder_and_no_json(self, tmp_path):
        with pytest.raises(RecordingError, match="there is no such folder"):
            hs.load(tmp_path / "one")
        (tmp_path / "two").mkdir()
        with pytest.raises(RecordingError, match="has no recording.json"):
            hs.load(tmp_path / "two")

    def test_a_newer_format(self, tmp_path):
        path = example().save(tmp_path / "one")
        told = json.loads((path / form.NAME).read_text())
        (path / form.NAME).write_text(json.dumps(told | {"format": 2}))
        with pytest.raises(RecordingError, match=r"recording.json: field format: 2; .*Update headscope"):
            hs.load(path)
        (path / form.NAME).write_text(json.dumps(told | {"format": 0}))
        with pytest.raises(RecordingError, match="was never a format"):
            hs.load(path)

    def test_altered_numbers(self, tmp_path):
        path = example().save(tmp_path / "one")
        file = path / "layer-00001.safetensors"
        data = bytearray(file.read_bytes())
        data[-3] ^= 1
        file.write_bytes(data)
        recording = hs.load(path)
        assert same(Recording([recording.layers[0]]), Recording([example().layers[0]]))
        with pytest.raises(RecordingError, match=r"layer-00001.safetensors: field sha256"):
            recording[4, 0]

    def test_links_are_not_followed(self, tmp_path):
        path = example().save(tmp_path / "one")
        for name in ("layer-00000.safetensors", form.NAME):
            outside = tmp_path / "outside"
            shutil.move(path / name, outside)
            (path / name).symlink_to(outside)
            with pytest.raises(RecordingError, match=f"{name}: is a link"):
                hs.load(path)
            (path / name).unlink()
            shutil.move(outside, path / name)

    def test_a_layer_that_is_missing(self, tmp_path):
        path = example().save(tmp_path / "one")
        (path / "layer-00001.safetensors").unlink()
        with pytest.raises(RecordingError, match=r"layer-00001.safetensors: cannot be read: No such file"):
            hs.load(path)

    def test_a_folder_that_may_not_be_read(self, tmp_path, monkeypatch):
        path = example().save(tmp_path / "one")
        real = os.lstat

        def lstat(file, *given, **options):
            if os.fspath(file).endswith(form.NAME):
                raise PermissionError(errno.EACCES, "Permission denied", file)
            return real(file, *given, **options)

        monkeypatch.setattr(reader.os, "lstat", lstat)
        with pytest.raises(RecordingError, match=r"recording.json: cannot be read: Permission denied"):
            hs.load(path)

    def test_an_oversized_json(self, tmp_path, monkeypatch):
        path = example().save(tmp_path / "one")
        monkeypatch.setattr(form, "LARGEST", 10)
        with pytest.raises(RecordingError, match="bytes long and may have 10"):
            hs.load(path)


def lie(path: Path, change) -> None:
    """Write a `recording.json` that says something else, with a digest that is right: a hostile one."""
    told = json.loads((path / form.NAME).read_text())
    change(told["recording"])
    raw = json.dumps(told["recording"], separators=(",", ":"))
    told["sha256"] = hashlib.sha256(raw.encode()).hexdigest()
    head = f'{{"format":1,"sha256":"{told["sha256"]}","recording":'
    (path / form.NAME).write_text(head + raw + "}")


def put(*where, value):
    """A change of one entry deep inside a recording.json."""

    def change(body):
        for step in where[:-1]:
            body = body[step]
        body[where[-1]] = value

    return change


LIES = {
    r"field axes\[0\].thumbnail: not a PNG": put("axes", 0, "thumbnail", value="bm90IGEgUE5H"),
    r"field k: the file has": put("layers", 0, "tensors", "k", value=["F16", [2, 3, 7, 11]]),
    r"layers\[0\].tensors.k: \(2, 4, 7, 11\) does not fit": put("layers", 0, "tensors", "k", 1, value=[2, 4, 7, 11]),
    r"layers\[0\].tensors.v": put("layers", 0, "tensors", "v", 1, value=[2, 3, 8, 13]),
    r"layers\[0\].tensors.stop": put("layers", 0, "tensors", "stop", 1, value=[2, 1, 5, 3]),
    r"layers\[0\].tensors.bias": put("layers", 0, "tensors", "bias", 1, value=[1, 5, 5, 7]),
    r"layers\[0\].tensors.q: a negative size": put("layers", 0, "tensors", "q", 1, value=[2, 6, -5, 11]),
    r"layers\[0\].tensors.w: unknown": put("layers", 0, "tensors", "w", value=["F32", [1]]),
    r"layers\[1\].tensors.q: missing": put("layers", 1, "tensors", value={}),
    r"layers\[0\].queries": put("layers", 0, "queries", value=[0]),
    r"layers\[0\].keys: 2 axes": put("layers", 0, "keys", value=[0, 99]),
    r"layers\[0\].keys: an axis that is not 7": put("layers", 0, "keys", value=[0, 0]),
    r"layers\[0\].heads": put("layers", 0, "heads", value=[0, 1]),
    r"layers\[0\].rows": put("layers", 0, "rows", value=[0, 1]),
    r"axes\[0\].labels: 1 entries": put("axes", 0, "labels", value=["x"]),
    r"axes\[0\].ids": put("axes", 0, "ids", value=[1]),
    r"layers\[0\].softcap: -1.0 bounds nothing": put("layers", 0, "softcap", value=-1),
    r"layers\[0\].scale: 1e\+308 is beyond what a float32 holds": put("layers", 0, "scale", value=1e308),
    r"layers\[0\].softcap: 1e\+300 is beyond": put("layers", 0, "softcap", value=1e300),
    r"layers\[0\].tensors.q: 17179869184 heads; at most 65536": put(
        "layers", 0, "tensors", "q", 1, value=[2, 2**34, 5, 0]
    ),
    r"axes\[2\].grid: \(3, 3\) does not fit 7": put("axes", 2, "grid", value=[3, 3]),
    r"axes\[2\].cells: 1 entries for 7 positions": put("axes", 2, "cells", value=[0]),
    r"axes\[2\].cells: not in a grid of": put("axes", 2, "cells", value=[0, 0, *5 * [None]]),
    r"axes\[2\].picture: axis 2 shows no picture": put("axes", 2, "picture", value=2),
    r"axes\[2\].picture: axis 0 shows no picture": put("axes", 2, "picture", value=0),
    r"axes\[4\]: belongs to no layer": lambda body: body["axes"].append({"kind": "positions", "length": 2**19}),
    r"layers\[0\].queries: an axis that is not 5": put("axes", 1, "length", value=2**40),
    r"Expected `int` >= 0": put("axes", 1, "length", value=-1),
    r"axes\[3\].parts.sound.seconds: -1.0 is no duration": put("axes", 3, "parts", 1, 1, "seconds", value=-1),
    r"axes\[0\].odd: no label": put("axes", 0, "odd", value={"9": "00d8"}),
    r"axes\[0\].odd: .*no text in UTF-16": put("axes", 0, "odd", value={"1": "zz"}),
    r"layers\[0\].heads: 5 numbers for 6 heads": put("layers", 0, "heads", value=[0, 1, 2, 3, 4, 4]),
    r"tensors.start: 8 runs of 7 keys": lambda body: [
        body["layers"][0]["tensors"].update({name: ["I32", [2, 1, 5, 8]]}) for name in ("start", "stop")
    ],
    r"axes\[0\].labels: tokens without": put("axes", 0, "labels", value=None),
    r"Expected `float`, got `str`": put("layers", 0, "scale", value="1"),
    r"Object missing required field `reason` - at `\$.missed\[0\]`": put("missed", 0, value={"name": "a", "kind": "b"}),
    r"Expected `str` of length <= 4096 - at `\$.missed\[0\].kind`": put("missed", 0, "kind", value="x" * 5000),
    r"unknown field `evil`": put("layers", 0, "evil", value="__import__('os')"),
    r"Invalid enum value 'other'": put("layers", 0, "kind", value="other"),
}


class TestLies:
    @pytest.mark.parametrize("message", LIES)
    def test_each_names_its_field(self, tmp_path, message):
        path = example().save(tmp_path / "one")
        lie(path, LIES[message])
        with pytest.raises(RecordingError, match=message):
            hs.load(path)

    def test_dtypes_that_do_not_belong(self, tmp_path, monkeypatch):

        recording = example()
        recording.layers[1].q = recording.layers[1].k = torch.ones(2, 6, 5, 11, dtype=torch.int32)
        with pytest.raises(RecordingError, match="q of layer 'encoder.1.attn' is torch.int32"):
            recording.save(tmp_path / "one")
        monkeypatch.setattr(writer, "INTEGERS", ("start", "stop", "q", "k"))
        path = Recording([recording.layers[1]]).save(tmp_path / "one")
        monkeypatch.undo()
        with pytest.raises(RecordingError, match="I32 is not a dtype for it"):
            hs.load(path)

    def test_what_could_not_be_read_again_is_not_written(self, tmp_path):
        recording = example()
        recording.layers[0].scale = 1e300
        with pytest.raises(RecordingError, match=r"one.headscope: field layers\[0\].scale: 1e\+300 is beyond"):
            recording.save(tmp_path / "one")
        assert list(tmp_path.iterdir()) == []

    def test_runs_outside_of_the_keys(self, tmp_path):
        recording = example()
        recording.layers[0].runs.stop[0, 0, 0, 0] = 8
        loaded = hs.load(recording.save(tmp_path / "one"))
        with pytest.raises(RecordingError, match="field start, stop: runs that do not lie among the 7 keys"):
            _ = loaded.layers[0].q


def mutate(rng: random.Random, folder: Path) -> None:
    """Damage one file of a folder in some way."""
    file = rng.choice(sorted(folder.iterdir()))
    data = bytearray(file.read_bytes())
    way = rng.randrange(9)
    if way == 0:
        data = data[: rng.randrange(len(data))]
    elif way == 1:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif way == 2:
        data += rng.randbytes(rng.randrange(1, 99))
    elif way == 3:
        at = rng.randrange(len(data))
        data[at : at + rng.randrange(1, 40)] = rng.randbytes(rng.randrange(40))
    elif way == 4:  # the length of the safetensors header, or the beginning of the JSON
        data[:8] = rng.choice([0, 2**63, 2**64 - 1, 10**9, len(data)]).to_bytes(8, "little")
    elif way == 5:
        numbers = [i for i, byte in enumerate(data[:4000]) if 48 <= byte <= 57]
        data[rng.choice(numbers or [0])] = rng.choice(b"0123456789-")
    elif way == 6:
        data = data.replace(b'"F32"', rng.choice([b'"F64"', b'"I32"', b'"BOOL"', b'"X"']), 1)
    elif way == 7:
        data = data.replace(
            rng.choice([b"encoder", b"layers", b"q", b"tokens"]), rng.choice([b"../../etc/passwd", b"NaN", b""])
        )
    elif rng.random() < 0.5:
        file.unlink()
        file.symlink_to(rng.choice(["/etc/passwd", "/dev/zero", "nowhere"]))
        return
    else:
        other = rng.choice(sorted(folder.iterdir()))
        data = bytearray(other.read_bytes())
    file.write_bytes(data)


WORDS = ["", "../../etc/passwd", "q", "NaN", "\x00", "self", "F16", 0, -1, 1, 2**31, 2**63 - 1, 10**30, 1.5, -1e308]
THINGS = [*WORDS, None, True, [], {}, [0], [[0, 1]], [2**31] * 4, [1, 1, 2**31, 0], {"q": ["F32", [1, 1, 1, 1]]}]


def lie_somewhere(rng: random.Random, body) -> None:
    """Change what a recording.json says at one place, whatever it is."""
    while True:
        places = list(body) if isinstance(body, dict) else list(range(len(body)))
        if not places:
            return
        place = rng.choice(places)
        if isinstance(body[place], dict | list) and rng.random() < 0.8:
            body = body[place]
        elif rng.random() < 0.1:
            del body[place]
            return
        else:
            body[place] = rng.choice(THINGS)
            return


def lie_in_a_header(rng: random.Random, path: Path) -> None:
    """Change a header of safetensors, and let the recording.json agree with it as far as it can."""
    number = rng.randrange(2)
    file = path / f"layer-{number:05}.safetensors"
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    lie_somewhere(rng, header)
    raw = json.dumps(header).encode()
    file.write_bytes(len(raw).to_bytes(8, "little") + raw + data[8 + length :])

    def agree(body):
        layer = body["layers"][number]
        layer["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        with contextlib.suppress(TypeError, KeyError, AttributeError):
            layer["tensors"] = {name: [one["dtype"], one["shape"]] for name, one in header.items()}

    lie(path, agree)


def looked_at(path: Path) -> None:
    """Everything that a view reads of a recording."""
    recording = hs.load(path)
    for number, head, one in recording:
        assert one.weights().shape == (one.queries.length, one.keys.length), (number, head)
    recording.heads()


# Of each kind of damage two hundred by default, and two thousand where everything is run.
PARTS = [pytest.param(part, marks=[pytest.mark.slow] if part else []) for part in range(10)]


class TestMutations:
    @pytest.mark.parametrize("part", PARTS)
    def test_damage_gives_an_error_or_the_right_numbers(self, tmp_path, part):
        rng = random.Random(part)
        whole = example()
        path = whole.save(tmp_path / "one")
        kept = {file.name: file.read_bytes() for file in path.iterdir()}
        refused = named = 0
        for _ in range(200):
            mutate(rng, path)
            try:
                assert same(hs.load(path), whole)
            except RecordingError as error:
                refused += 1
                named += str(path) in str(error)
            restore(path, kept)
        assert refused > 150
        assert named == refused

    @pytest.mark.parametrize("part", PARTS)
    def test_lies_give_an_error_or_what_they_say(self, tmp_path, part):
        """A hostile recording: its digests are right, and what it says is not."""
        rng = random.Random(100 + part)
        path = example().save(tmp_path / "one")
        kept = {file.name: file.read_bytes() for file in path.iterdir()}
        refused = named = 0
        for _ in range(200):
            if rng.random() < 0.7:
                lie(path, lambda body: lie_somewhere(rng, body))
            else:
                lie_in_a_header(rng, path)
            try:
                looked_at(path)
            except RecordingError as error:
                refused += 1
                named += str(path) in str(error)
            restore(path, kept)
        assert refused > 100
        assert named == refused


def restore(path: Path, kept: dict[str, bytes]) -> None:
    """Put the files of a recording back."""
    for name, data in kept.items():
        (path / name).unlink(missing_ok=True)
        (path / name).write_bytes(data)


class TestBreakingOff:
    @pytest.mark.parametrize("overwrite", [False, True])
    def test_a_kill_while_saving_leaves_the_old_recording_or_none(self, tmp_path, overwrite):
        path = tmp_path / "one.headscope"
        if overwrite:
            example().save(path)
        program = textwrap.dedent(f"""
            import os, sys
            import torch
            from headscope.recording.recording import Layer, Recording
            torch.set_num_threads(1)
            q = torch.randn(1, 2, 4000, 64)
            big = Recording([Layer("x", "self", q, q, q, None, 0.1, number=i) for i in range(20)])
            for _ in sys.stdin:
                child = os.fork()
                while child == 0:
                    big.save({str(path)!r}, overwrite=True)
                print(child, flush=True)
                os.waitpid(child, 0)
                print("dead", flush=True)
        """)
        rng = random.Random(overwrite)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen([sys.executable, "-c", program], **pipes) as process:
            for _ in range(8):
                print("save", file=process.stdin, flush=True)
                child = int(process.stdout.readline())
                time.sleep(rng.random() / 3)
                os.kill(child, signal.SIGKILL)
                assert process.stdout.readline() == "dead\n"
                if not path.exists():
                    continue
                recording = hs.load(path)
                assert len(recording.layers) in (2, 20)
                assert all(torch.isfinite(layer.q).all() for layer in recording.layers)
            process.stdin.close()
        # Nearly all the time something was half written; the next one to write removes it.
        assert list(tmp_path.glob(".headscope-*.part"))
        example().save(path, overwrite=True)
        assert [found.name for found in tmp_path.iterdir()] == [path.name]

    def test_an_exception_while_saving_leaves_nothing(self, tmp_path):
        recording = example()
        recording.layers[1].queries = None
        with pytest.raises(TypeError):
            recording.save(tmp_path / "one")
        assert not list(tmp_path.iterdir())
        assert not os.path.lexists(tmp_path / "one.headscope")


class TestWhileRecording:
    def test_each_layer_goes_to_disk_when_it_is_complete(self, tmp_path):
        model, inputs = build("bert")
        with torch.no_grad(), hs.record(model) as kept:
            model(**inputs)
        folder = tmp_path / "one.headscope"
        found = []
        handle = model.encoder.layer[1].register_forward_pre_hook(
            lambda *_: found.extend(file.name for part in tmp_path.iterdir() for file in part.iterdir())
        )
        with torch.no_grad(), hs.record(model, to=folder) as written:
            model(**inputs)
        handle.remove()
        assert found == ["layer-00000.safetensors"]
        assert sorted(p.name for p in tmp_path.iterdir()) == ["one.headscope"]
        for recording in (written, hs.load(folder)):
            assert same(recording, kept)
        with pytest.raises(RecordingError, match="exists already"), hs.record(model, to=folder):
            model(**inputs)
        with torch.no_grad(), hs.record(model, to=folder, overwrite=True, layers=1):
            model(**inputs)
        assert [layer.number for layer in hs.load(folder).layers] == [1]

    def test_only_one_layer_is_in_memory(self, tmp_path):
        layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        model, x, alive = torch.nn.TransformerEncoder(layer, 5).eval(), torch.randn(1, 7, 8), []

        def count(*_):
            tensors = [one for one in gc.get_objects() if type(one) is torch.Tensor and not one.is_nested]
            alive.append(sum(one.shape == (1, 2, 7, 4) for one in tensors))

        model.layers[-1].register_forward_pre_hook(count)
        for options in ({"to": tmp_path / "one"}, {}):
            with torch.no_grad(), hs.record(model, **options):
                model(x)
        assert alive[0] <= 3 < 12 <= alive[1]

    def test_a_generation_goes_to_disk_as_one_layer(self, tmp_path):
        model, inputs = build("llama")
        options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
        with torch.no_grad(), hs.record(model) as kept:
            model.generate(**inputs, **options)
        with torch.no_grad(), hs.record(model, to=tmp_path / "one"):
            model.generate(**inputs, **options)
        assert same(hs.load(tmp_path / "one"), kept)

    def test_an_exception_in_the_block_leaves_no_folder(self, tmp_path):
        model, inputs = build("bert")

        def block():
            with hs.record(model, to=tmp_path / "one"):
                model(**inputs)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            block()
        with pytest.raises(NothingRecorded), hs.record(model, to=tmp_path / "one"):
            torch.ones(1)
        assert not list(tmp_path.iterdir())


class TestOthers:
    def test_a_strangers_file_in_a_recording_stays(self, tmp_path):
        path = example().save(tmp_path / "one")
        (path / "notes.txt").write_text("mine")
        example(torch.float64).save(path, overwrite=True)
        assert (path / "notes.txt").read_text() == "mine"
        assert same(hs.load(path), example(torch.float64))

    def test_a_folder_with_a_file_of_that_name_is_no_recording(self, tmp_path):
        path = tmp_path / "one.headscope"
        path.mkdir()
        for content in ("{}", '{"format": 1}', "notes of my voice"):
            (path / form.NAME).write_text(content)
            with pytest.raises(RecordingError, match="headscope did not write it, so it is not overwritten"):
                example().save(path, overwrite=True)
            assert (path / form.NAME).read_text() == content

    def test_layers_that_it_does_not_name_are_not_its_own(self, tmp_path):
        path = example().save(tmp_path / "one")
        (path / "layer-00007.safetensors").write_text("mine")
        example().save(path, overwrite=True)
        assert (path / "layer-00007.safetensors").read_text() == "mine"


class TestRaces:
    def test_a_reader_never_sees_a_half(self, tmp_path):
        """One thread replaces a recording by another of a different number of layers, another one reads."""
        whole, part = example(), Recording([example().layers[1]], "Model (somewhere)")
        path = whole.save(tmp_path / "one")
        ends = time.monotonic() + 1.5

        def write():
            while time.monotonic() < ends:
                part.save(path, overwrite=True)
                whole.save(path, overwrite=True)

        writing = threading.Thread(target=write)
        writing.start()
        seen = set()
        while writing.is_alive():
            recording = hs.load(path)
            seen.add(len(recording.layers))
            with contextlib.suppress(RecordingError):
                assert same(recording, whole if len(recording.layers) == 2 else part)
        assert seen == {1, 2}

    def test_an_opened_recording_says_that_it_was_replaced(self, tmp_path):
        path = example().save(tmp_path / "one")
        opened = hs.load(path)
        example(torch.float64).save(path, overwrite=True)
        with pytest.raises(
            RecordingError, match="was replaced by another recording after it was opened; load it again"
        ):
            _ = opened.layers[0].q

    def test_a_folder_that_changes_all_the_time(self, tmp_path, monkeypatch):
        path = example().save(tmp_path / "one")
        numbers = iter(range(1000))
        monkeypatch.setattr(reader, "identity", lambda folder: (0, next(numbers)))
        monkeypatch.setattr(reader, "PAUSE", 0)
        with pytest.raises(RecordingError, match="is being replaced again and again; load it when that is done"):
            hs.load(path)


class TestOddities:
    def test_half_of_a_surrogate_pair_comes_back(self, tmp_path):
        recording = example()
        labels = ["a", "\ud83d", "b\udce9c", "", "\U0001f642"]
        recording.layers[1].queries = recording.layers[1].keys = [hs.Axis.tokens(labels)] * 2
        recording.model = "Model (/tmp/caf\udce9)"
        loaded = hs.load(recording.save(tmp_path / "one"))
        assert list(loaded.layers[1].queries[0].labels) == labels
        assert loaded.model == "Model (/tmp/caf<U+DCE9>)"
        recording.layers[1].queries = recording.layers[1].keys = [hs.Axis.tokens(["\ud800"] * 5)] * 2
        loaded = hs.load(recording.save(tmp_path / "two"))
        assert list(loaded.layers[1].keys[1].labels) == ["\ud800"] * 5

    def test_a_path_that_is_no_utf_8(self, tmp_path):
        path = example().save(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
        assert os.listdir(os.fsencode(tmp_path)) == [b"caf\xe9.headscope"]
        assert same(hs.load(path), example())

    @pytest.mark.parametrize("shape", [(0, 2, 3, 5), (1, 0, 3, 5), (1, 2, 0, 5), (1, 2, 3, 0)])
    def test_layers_without_numbers_open(self, tmp_path, shape):
        x = torch.zeros(shape)
        recording = Recording([Layer("x", "self", x, x, x, None, 1.0, number=0)])
        loaded = hs.load(recording.save(tmp_path / "one"))
        assert same(loaded, recording)
        assert loaded.layers[0].q.shape == shape

    def test_a_word_of_a_million_letters(self, tmp_path):
        recording = example()
        recording.layers[1].queries = recording.layers[1].keys = [hs.Axis.tokens(["a" * 10**6, *"bcde"])] * 2
        label = hs.load(recording.save(tmp_path / "one")).layers[1].queries[0].labels[0]
        assert set(label[:-1]) == {"a"}
        assert len(label) == LONGEST_LABEL // 4

    def test_more_than_a_recording_says(self, tmp_path, monkeypatch):
        monkeypatch.setattr(form, "LARGEST", 2000)
        with pytest.raises(RecordingError, match="would be .* bytes long and may have 2000; record fewer positions"):
            example().save(tmp_path / "one")
        assert not list(tmp_path.iterdir())


def test_a_listing_that_was_altered(tmp_path):
    path = example().save(tmp_path / "one")
    text = (path / form.NAME).read_text()
    (path / form.NAME).write_text(text.replace('"scale":', '"scale": '))
    with pytest.raises(RecordingError, match=f"{form.NAME}: field sha256: the file was altered or damaged"):
        hs.load(path)


def test_an_axis_longer_than_all_tensors(tmp_path):
    path = example().save(tmp_path / "one")

    lie(path, lambda body: body["axes"].append({"kind": "positions", "length": 10**9}))
    with pytest.raises(RecordingError, match=r"field axes: 10\d+ positions for tensors with \d+ numbers"):
        hs.load(path)


def test_a_layer_file_that_cannot_be_read_any_more(tmp_path, monkeypatch):
    recording = hs.load(example().save(tmp_path / "one"))

    def refuse(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(stored_layer, "safe_open", refuse)
    with pytest.raises(RecordingError, match=r"layer-00000.safetensors: cannot be read: Input/output error"):
        _ = recording.layers[0].q
