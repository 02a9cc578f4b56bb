"""The server's answers: every number agrees with Python, and every request that is wrong is refused in a sentence."""

import base64
import json
import re
import signal
import socket
import struct
import threading
import time

import pytest
import torch
from starlette.exceptions import HTTPException
from starlette.requests import Request

import headscope as hs
from headscope.cli.app import run as command
from headscope.errors import HeadscopeError, MissingExtra, RecordingError
from headscope.recording.folder import deferred
from headscope.recording.folder.stored_layer import StoredLayer
from headscope.recording.layer import Layer
from headscope.server import run
from headscope.server.bounds import stretch
from tests.raises import RAISED
from tests.server.serving import Client, text_head

LAYOUT = struct.Struct("<4sBBHHHfffII")


@pytest.fixture(scope="module")
def head():
    return text_head()


@pytest.fixture(scope="module")
def served(head):
    with hs.serve(head) as served:
        yield served


@pytest.fixture(scope="module")
def client(served):
    return Client(served.url)


@pytest.fixture(scope="module")
def name(client):
    (name,) = client.heads()
    client.filled(name)
    return name


def tile(body):
    """The numbers of a tile, by the layout that docs/tiles.md gives."""
    magic, status, bits, rows, columns, exact, mean, largest, error, generation, _ = LAYOUT.unpack(body[:32])
    assert magic == b"HST1"
    if len(body) == 32:
        return status, None, None
    size = rows * columns * bits // 8
    assert len(body) == 32 + 2 * size
    assert (exact, error, generation) == (rows, 0.0, 0)
    planes = []
    for top, raw in ((mean, body[32 : 32 + size]), (largest, body[32 + size :])):
        codes = torch.frombuffer(bytearray(raw), dtype=torch.uint8 if bits == 8 else torch.uint16).to(torch.int32)
        last = 2**bits - 1
        values = top * (codes / (last - 2)) ** 2
        values[codes == last - 1] = -1.0
        planes.append(values.view(rows, columns))
    return status, *planes


def test_a_head_is_described(client, name, head):
    found = client.api(f"head/{name}")
    assert (found["queries"], found["keys"], found["size"], found["tile"], found["top"]) == (1301, 1301, 7, 256, 3)
    assert (found["same"], found["shift"], found["base"], found["fine"]) == (True, 0, 3, 2)
    assert found["visible"] == {"first": [0] * 6, "last": list(range(6))}
    assert found["tracks"] == ["received", "entropy", "peak", "special"]
    assert found["status"]["phase"] == "exact"
    assert found["axes"]["keys"]["kind"] == "tokens"


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("z", "x", "y"), [(0, 0, 0), (0, 1, 4), (0, 5, 5), (1, 0, 1), (2, 1, 1), (3, 0, 0)])
def test_tiles_are_those_of_python(client, name, head, z, x, y, bits):
    answer = client.get(f"/api/v1/tile/{name}/{z}/{x}/{y}?bits={bits}")
    status, mean, largest = tile(answer.body)
    exact = head.tile(z, x, y)
    assert status == 1
    for ours, theirs in ((mean, exact.mean), (largest, exact.max)):
        budget = 2 * float(theirs.max()) / (2**bits - 3)
        assert float((ours - theirs.masked_fill(~exact.seen, -1.0)).abs().max()) <= budget


def test_a_tile_that_the_mask_hides_is_empty(client, name):
    answer = client.get(f"/api/v1/tile/{name}/0/3/1")
    assert tile(answer.body) == (0, None, None)


def test_an_answer_that_the_client_has_is_not_sent_again(client, name):
    first = client.get(f"/api/v1/tile/{name}/0/1/2")
    assert first.headers["cache-control"] == "private, max-age=31536000, immutable"
    again = client.get(f"/api/v1/tile/{name}/0/1/2", If_None_Match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    status = client.get(f"/api/v1/status/{name}")
    assert status.headers["cache-control"] == "no-cache"


def test_cells_rows_and_columns_are_those_of_python(client, name, head):
    cell = client.api(f"cell/{name}/3/20/90")
    W = head.weights(slice(*cell["queries"]), slice(*cell["keys"]))
    assert (cell["queries"], cell["keys"]) == ([720, 728], [160, 168])
    assert cell["mean"] == pytest.approx(float(W.mean()), rel=1e-4)
    assert float(head.weights(cell["query"], cell["key"])) == pytest.approx(cell["max"], rel=1e-4)
    row = client.api(f"row/{name}/1000?start=100&stop=900&cells=10&top=3")
    weights = head.row(1000)
    assert row["step"] == 80
    assert row["mean"] == pytest.approx(weights[100:900].view(10, 80).mean(1).tolist(), rel=1e-4)
    assert row["max"] == pytest.approx(weights[100:900].view(10, 80).amax(1).tolist(), rel=1e-4)
    assert row["sum"] == pytest.approx(float(weights[100:900].sum()), rel=1e-4)
    assert row["entropy"] == pytest.approx(float(head.entropy()[1000]), rel=1e-4)
    assert row["lse"] == pytest.approx(float(head.lse[1000]), rel=1e-5)
    assert row["visible"] == [0, 1001]
    best = weights[100:900].topk(3)
    assert [one["position"] - 100 for one in row["top"]] == best.indices.tolist()
    assert row["top"][0]["label"] == head.keys.labels[100 + int(best.indices[0])]
    column = client.api(f"column/{name}/30?cells=1301&top=1")
    assert column["mean"] == pytest.approx(head.column(30).tolist(), rel=1e-4, abs=1e-9)
    assert (column["status"], column["entropy"]) == ("exact", None)


@pytest.mark.parametrize("z", [0, 1, 3])
@pytest.mark.parametrize("track", ["received", "entropy", "peak", "special"])
def test_tracks_are_those_of_python(client, name, head, track, z):
    exact = {
        "received": head.received, "entropy": head.entropy, "peak": lambda: head.weights().amax(1),
        "special": head.special,
    }[track]().double()  # fmt: skip
    found = client.api(f"track/{name}/{track}/{z}/0")
    cells = exact[: 256 << z].split(1 << z)
    assert found["status"] == "exact"
    assert found["mean"] == pytest.approx([float(cell.mean()) for cell in cells], rel=1e-3, abs=1e-4)
    if track != "received":
        assert found["max"] == pytest.approx([float(cell.max()) for cell in cells], rel=1e-3, abs=1e-4)


def test_text_outline_and_search(client, name, head):
    text = client.api(f"text/{name}/keys?start=698&stop=703")
    assert text["labels"] == list(head.keys.labels[698:703])
    assert text["special"] == [700]
    outline = client.api(f"outline/{name}/queries?limit=30")["entries"]
    assert [one["position"] for one in outline if one["level"] == "document"] == [0, 1, 701]
    assert [one["position"] for one in outline if one["level"] == "paragraph"] == list(range(130, 1301, 130))
    assert len([one for one in outline if one["level"] == "sentence"]) == 30 - 3 - 10
    assert outline[1]["text"].startswith("w1 w2 w3")
    found = client.api(f"search/{name}/keys?q=W13&start=20&limit=2")
    assert [(one["start"], one["stop"]) for one in found["matches"]] == [(110, 111), (207, 208)]
    assert found["more"]
    assert client.api(f"search/{name}/keys?q=w5%20w6&limit=200")["matches"][0]["stop"] == 7


def test_a_client_of_higlass_is_answered(client, name, head):
    listed = client.api("tilesets/?limit=100")
    assert {one["uuid"] for one in listed["results"]} >= {f"{name}-mean", f"{name}-received"}
    info = client.api(f"tileset_info/?d={name}-max&d={name}-entropy&d=nobody&s=session")
    assert info[f"{name}-max"]["max_width"] == 256 << info[f"{name}-max"]["max_zoom"]
    assert info[f"{name}-entropy"]["max_pos"] == [1301]
    assert "error" in info["nobody"]
    tiles = client.api(
        f"tiles/?d={name}-max.3.1.2&d={name}-entropy.0.0&d={name}-max.0.0&d=x&d={name}-nothing.0.0&d={name}-entropy.0.0.0"
    )
    dense = tiles[f"{name}-max.3.1.2"]
    values = torch.frombuffer(bytearray(base64.b64decode(dense["dense"])), dtype=torch.float32).view(256, 256)
    exact = head.tile(0, 1, 2)
    assert torch.equal(values.isnan(), ~exact.seen)
    assert dense["max_value"] == pytest.approx(float(exact.max.max()), rel=1e-4)
    torch.testing.assert_close(values.nan_to_num(), exact.max, rtol=1e-4, atol=1e-5)
    assert "error" not in tiles[f"{name}-entropy.0.0"]
    assert all(
        "error" in tiles[key] for key in (f"{name}-max.0.0", "x", f"{name}-nothing.0.0", f"{name}-entropy.0.0.0")
    )
    for answer in [info["nobody"], *(one for one in tiles.values() if "error" in one)]:
        RAISED.printed(re.escape(answer["error"]))


WRONG = [
    ("tile/{head}/9/0/0", 404, "zoom 9 does not exist"),
    ("tile/{head}/0/99/0", 404, "no tile x=99"),
    ("tile/{head}/-1/0/0", 400, "z: '-1'; give a whole number from 0 to 40"),
    ("tile/{head}/0/0/x", 400, "y: 'x'"),
    ("tile/{head}/0/0/0?bits=9", 400, "bits: 9; give 8 or 16"),
    ("tile/{head}/0/0/0?bits=99", 400, "bits: '99'"),
    ("tile/nobody/0/0/0", 404, "RECORDING-LAYER-HEAD-ITEM"),
    ("tile/000000000000-0-0-0/0/0/0", 404, "no recording 000000000000"),
    ("head/{recording}-7-0-0", 404, "layer 7"),
    ("head/{recording}-0-0-3", 404, "item 3 does not exist"),
    ("cell/{head}/0/1301/0", 404, "no cell x=1301"),
    ("row/{head}/1301", 400, "query: '1301'; give a whole number from 0 to 1300"),
    ("row/{head}/1?start=5&stop=4", 400, "stop: '4'; give a whole number from 5 to 1301"),
    ("row/{head}/1?cells=0", 400, "cells: '0'"),
    ("column/{head}/1?top=101", 400, "top: '101'"),
    ("track/{head}/colour/0/0", 404, "no such track; there are received"),
    ("track/{head}/entropy/0/9", 404, "no part 9 at zoom 0"),
    ("text/{head}/rows", 404, "the axis is queries or keys"),
    ("text/{head}/keys?start=1302", 400, "start: '1302'"),
    ("outline/{head}/keys?limit=0", 400, "limit: '0'"),
    ("search/{head}/keys?q=", 400, "q: 0 characters; give 1 to 200"),
    ("search/{head}/keys?q=" + "a" * 201, 400, "q: 201 characters"),
    ("tiles/?" + "d=x&" * 65, 400, "65 tiles; ask for at most 64"),
    ("nothing", 404, "Not Found"),
    ("tile/{head}/0/0/0?x=" + "y" * 17_000, 414, "longer than 16384"),
]


@pytest.mark.parametrize(("path", "status", "message"), WRONG)
def test_what_is_wrong_is_refused_in_a_sentence(client, name, path, status, message):
    answer = client.get("/api/v1/" + path.format(head=name, recording=name.split("-")[0]))
    assert answer.status == status
    assert message in answer.json["error"]
    RAISED.printed(re.escape(message))


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../run.py",
        "/assets/%2e%2e/run.py",
        "/assets/..%2frun.py",
        "/assets/map.py",
        "/assets/%00.js",
        "/../../etc/passwd",
    ],
)
def test_no_path_leads_out(client, path):
    assert client.get(path).status == 404
    RAISED.printed("there is no such file")


def test_the_page_is_served_under_a_strict_policy(client):
    answer = client.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'; script-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get("/assets/scale.js").headers["content-type"] == "text/javascript; charset=utf-8"


def test_another_host_or_method_is_refused(client):
    assert client.get("/", Host="evil.example").status == 421
    assert client.get("/", Host="localhost:1").status == 200
    assert client.get("/api/v1/recordings", "POST").status == 405
    assert "access-control-allow-origin" not in client.get("/", Origin="http://evil.example").headers


def test_a_token_is_asked_for_where_others_can_reach_the_server(head):
    with hs.serve(head, token="secret", origins=["http://localhost:9"]) as served:
        asks = {"Access_Control_Request_Method": "GET", "Access_Control_Request_Headers": "content-type"}
        preflight = Client(served.url).get("/api/v1/tiles/", "OPTIONS", Origin="http://localhost:9", **asks)
        assert preflight.status == 204
        assert preflight.headers["access-control-allow-origin"] == "http://localhost:9"
        assert "Content-Type" in preflight.headers["access-control-allow-headers"]
        assert Client(served.url).get("/api/v1/tiles/", "OPTIONS", Origin="http://evil.example", **asks).status == 401
        strange = {**asks, "Access_Control_Request_Method": "DELETE"}
        assert Client(served.url).get("/api/v1/tiles/", "OPTIONS", Origin="http://localhost:9", **strange).status == 401
        client = Client(served.url)
        assert served.url.endswith("/?token=secret")
        assert client.get("/api/v1/recordings").status == 401
        assert client.get("/api/v1/recordings", Authorization="Bearer wrong").status == 401
        assert client.get("/api/v1/recordings", Authorization="Bearer secret").status == 200
        first = client.get("/?token=secret", Origin="http://localhost:9")
        assert first.headers["access-control-allow-origin"] == "http://localhost:9"
        assert "HttpOnly; SameSite=Strict" in first.headers["set-cookie"]
        assert client.get("/", Cookie=first.headers["set-cookie"].split(";")[0]).status == 200
    with hs.serve(head, host="0.0.0.0") as served:
        assert "?token=" in served.url


def test_a_recording_that_is_replaced_gets_another_name(tmp_path):
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()

    def record(text: list[str]) -> None:
        with hs.record(layer) as recording:
            layer(torch.randn(2, len(text), 8))
        recording.tokens(text).save(tmp_path / "one", overwrite=True)

    record(["a", "cat"])
    with hs.serve([tmp_path / "one.headscope"]) as served:
        client = Client(served.url)
        before = client.heads()
        assert len(before) == 4
        client.filled(before[3])
        assert (tmp_path / "one.headscope.tiles" / before[0][:12] / "0-1-1" / "strip-00000.safetensors").is_file()
        record(["another", "text", "here"])
        assert client.get(f"/api/v1/tile/{before[0]}/0/0/0").status == 410
        RAISED.printed("the recording was replaced by another one; ask for /api/v1/recordings again")
        after = client.heads()
        assert before[0][:12] != after[0][:12]
        assert client.api(f"text/{after[0]}/keys")["labels"] == ["another", "text", "here"]
        assert client.get(f"/api/v1/head/{before[0]}").status == 410


def test_what_cannot_be_served_is_said(head, tmp_path, monkeypatch):
    with pytest.raises(HeadscopeError, match="serve: there is nothing to serve"):
        hs.serve([])
    with pytest.raises(RecordingError, match="there is no such folder"):
        hs.serve(tmp_path / "nobody")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(
            HeadscopeError, match=r"serve: cannot listen at 127.0.0.1 port \d+ \(Address already in use\)"
        ):
            hs.serve(head, port=taken.getsockname()[1])
    monkeypatch.setattr(run.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        MissingExtra, match=r"serve: needs starlette and uvicorn; install with: pip install 'headscope\[serve\]'"
    ):
        hs.serve(head)


def test_a_server_ends_within_a_second(head):
    served = hs.serve(head)
    client = Client(served.url)
    client.api(f"head/{client.heads()[0]}")
    begun = time.monotonic()
    served.close()
    assert time.monotonic() - begun < 1
    assert json.dumps(served._repr_html_()).count("iframe") == 2


def test_the_command_ends_within_a_second_of_ctrl_c(tmp_path, monkeypatch, capsys):
    q, k = torch.randn(2, 1, 1, 300, 5)
    path = hs.Recording([Layer("layer", "self", q, k, None, None, 1.0)], "model").save(tmp_path / "one")
    wait, pressed = run.Served.wait, []

    def press(served):
        client = Client(served.url)
        client.api(f"head/{client.heads()[0]}")
        pressed.append(time.monotonic())
        signal.raise_signal(signal.SIGINT)
        wait(served)

    monkeypatch.setattr(run.Served, "wait", press)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # processes in the background do not have it
    try:
        assert command(["serve", str(path)]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - pressed[0] < 1
    assert "Ctrl-C ends it." in capsys.readouterr().out


def test_more_text_than_an_answer_holds_is_refused():
    asked = Request({"type": "http", "query_string": b"start=3&stop=5003", "headers": []})
    with pytest.raises(HTTPException, match="stop: 5000 positions; ask for at most 4096 at once"):
        stretch(asked, 10_000, 4096)
    assert stretch(asked, 10_000) == (3, 5003)


def test_a_head_of_nothing_and_a_damaged_layer_are_refused(tmp_path):
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    with hs.record(layer) as recording:
        layer(torch.randn(1, 3, 8))
    recording.save(tmp_path / "one")
    empty = hs.Head(torch.zeros(0, 3), torch.zeros(2, 3))
    with hs.serve([empty, tmp_path / "one.headscope"]) as served:
        client = Client(served.url)
        nothing, *there = client.heads()
        answer = client.get(f"/api/v1/head/{nothing}")
        assert (answer.status, answer.json["error"]) == (404, "the head has no queries or no keys.")
        RAISED.printed("the head has no queries or no keys")
        (file,) = (tmp_path / "one.headscope").glob("layer-*.safetensors")
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        answer = client.get(f"/api/v1/head/{there[0]}")
        assert answer.status == 410
        RAISED.printed(re.escape(answer.json["error"]))


def test_a_large_layer_is_shown_before_it_is_verified_and_nothing_of_it_is_kept_until_then(tmp_path, monkeypatch):
    q, k = torch.randn(2, 1, 1, 600, 5)
    hs.Recording([Layer("layer", "self", q, k, None, None, 1.0)], "model").save(tmp_path / "one")
    monkeypatch.setattr(deferred, "SMALL", 0)
    goes_on = threading.Event()
    verify = StoredLayer.verify
    monkeypatch.setattr(StoredLayer, "verify", lambda layer, stopped: goes_on.wait(30) and verify(layer, stopped))
    (file,) = (tmp_path / "one.headscope").glob("layer-*.safetensors")
    with hs.serve(tmp_path / "one.headscope") as served:
        client = Client(served.url)
        (name,) = client.heads()
        assert client.api(f"head/{name}")["status"]["verified"] is False
        assert client.get(f"/api/v1/tile/{name}/0/0/0").status == 200
        time.sleep(0.3)
        assert client.api(f"status/{name}")["rows"] == 0
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        goes_on.set()
        for _ in range(200):
            answer = client.get(f"/api/v1/status/{name}")
            if answer.status == 410:
                break
            time.sleep(0.02)
        assert "altered or damaged" in answer.json["error"]
        RAISED.printed("altered or damaged")
        assert client.get(f"/api/v1/tile/{name}/0/0/0").status == 410
    assert not list(tmp_path.glob("*.tiles/*/*/strip-*.safetensors"))
