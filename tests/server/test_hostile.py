"""Requests that no client of ours sends: malformed ones by the thousand, hang-ups, two servers on one cache."""

import os
import random
import socket
import threading
import time

import pytest

import headscope as hs
from headscope.files.digests import digest_of_file
from headscope.server import bounds
from tests.raises import RAISED
from tests.server.serving import Client, text_head
from tests.server.test_server import WRONG

PIECES = [
    "-1", "0", "99999999999", "1e9", "%00", "..", "%2e%2e", "%2f", "/", "//", "?", "&d=", "é", "\x7f", "a" * 300, "NaN",
    "mean", "queries", "keys", "start=-1", "stop=x", "cells=1e3", "top=%F0", "q=" + "%E2%82" * 9, "d=..", "bits=08",
    ".", "' OR 1=1", "<script>", "${x}", "\\", "%", "%zz", "token=", "=", ";",
]  # fmt: skip


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def raw(host: str, data: bytes, wait: float = 20) -> bytes:
    """What the server says to some bytes, up to its first line."""
    name, port = host.split(":")
    with socket.create_connection((name, int(port)), timeout=wait) as connection:
        connection.sendall(data)
        return connection.recv(200)


def malformed(seed: int, head: str) -> bytes:
    """One request with something wrong in it."""
    draw = random.Random(seed)
    path = draw.choice([path for path, _, _ in WRONG]).format(head=head, recording=head[:12])[:400]
    parts = path.split("/")
    parts[draw.randrange(len(parts))] = draw.choice(PIECES)
    path = "/api/v1/" + "/".join(parts) + draw.choice(["", "?" + draw.choice(PIECES) + draw.choice(PIECES)])
    method = draw.choice(["GET", "GET", "GET", "PUT", "TRACE", "G\x00T", ""])
    version = draw.choice(["HTTP/1.1", "HTTP/1.1", "HTTP/9", ""])
    lines = [
        "Host: 127.0.0.1",
        draw.choice(["X: y", "X" * 3000 + ": 1", ": x", "Content-Length: -1", "If-None-Match: \xff"]),
    ]
    return f"{method} {path} {version}\r\n{chr(13) + chr(10) if draw.random() < 0.05 else ''}".encode(
        "latin-1", "replace"
    ) + ("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1"))


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_malformed_requests_neither_fail_nor_grow(count, caplog):
    with hs.serve(text_head(700)) as served:
        client = Client(served.url)
        (head,) = client.heads()
        client.filled(head)
        for seed in range(count // 3):
            raw(client.host, malformed(seed, head))
        memory, files = resident(), open_files()
        for seed in range(count // 3, count):
            answer = raw(client.host, malformed(seed, head))
            assert not answer.startswith(b"HTTP/1.1 5"), (seed, answer)
        assert client.api(f"status/{head}")["phase"] == "exact"
        assert open_files() <= files + 4
        assert resident() <= memory + 32 * 2**20
    assert not [record for record in caplog.records if record.exc_info]


def test_clients_that_hang_up_leave_nothing_behind():
    with hs.serve(text_head(700)) as served:
        client = Client(served.url)
        (head,) = client.heads()
        client.filled(head)
        files = open_files()
        for number in range(60):
            name, port = client.host.split(":")
            with socket.create_connection((name, int(port))) as connection:
                request = f"GET /api/v1/tile/{head}/0/{number % 3}/2 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
                connection.sendall(request[: len(request) if number % 2 else 30])
        assert client.get(f"/api/v1/tile/{head}/0/0/0").status == 200
        for _ in range(100):
            if served._server.desk.waiting == 0 and open_files() <= files + 4:
                break
            time.sleep(0.05)
        assert served._server.desk.waiting == 0
        assert open_files() <= files + 4


def test_no_more_work_than_the_bound_waits(monkeypatch):
    monkeypatch.setattr("headscope.server.work.MOST_WAITING", 3)
    entered, go = threading.Semaphore(0), threading.Event()
    with hs.serve(text_head(700)) as served:
        client = Client(served.url)
        (head,) = client.heads()
        client.filled(head)
        one = next(iter(served._server.library.maps.values()))
        tile = one.tile
        monkeypatch.setattr(one, "tile", lambda *args: (entered.release(), go.wait(30), tile(*args))[2])
        answers = []
        threads = [
            threading.Thread(target=lambda: answers.append(client.get(f"/api/v1/tile/{head}/0/0/0").status))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for _ in range(2):
            assert entered.acquire(timeout=20)
        until = time.monotonic() + 20
        while served._server.desk.waiting < 3 and time.monotonic() < until:
            time.sleep(0.01)
        refused = client.get(f"/api/v1/status/{head}")
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        RAISED.printed("the server is busy; ask again in a second")
        go.set()
        for thread in threads:
            thread.join(20)
        assert answers == [200] * 3


def test_two_servers_share_one_cache(tmp_path):
    import torch

    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    with hs.record(layer) as recording:
        layer(torch.randn(1, 1500, 8))
    path = recording.save(tmp_path / "one")
    with hs.serve(path) as one, hs.serve(path) as other:
        clients = [Client(served.url) for served in (one, other)]
        heads = clients[0].heads()
        assert heads == clients[1].heads()
        for head in heads:
            for client in clients:
                client.api(f"head/{head}")
        for client in clients:
            for head in heads:
                client.filled(head)
        first, second = (client.get(f"/api/v1/tile/{heads[1]}/3/0/0").body for client in clients)
        assert first == second
    strips = sorted((tmp_path / "one.headscope.tiles").rglob("*"))
    assert {file.suffix for file in strips if file.is_file()} == {".safetensors"}
    assert len({digest_of_file(file) for file in strips if file.is_file()}) == len(heads)


def test_the_bounds_are_those_of_the_protocol():
    assert (bounds.MOST_TEXT, bounds.MOST_TOP, bounds.MOST_ENTRIES, bounds.MOST_WAITING) == (4096, 100, 200, 64)
