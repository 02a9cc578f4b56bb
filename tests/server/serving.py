"""A server in this process, and a client that reads it as a browser would."""

import http.client
import json
import time
from typing import Any, NamedTuple

import torch

import headscope as hs


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Requests to one server; each on a connection of its own."""

    def __init__(self, url: str) -> None:
        self.host = url.removeprefix("http://").partition("/")[0]

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        connection = http.client.HTTPConnection(self.host, timeout=60)
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        got = connection.getresponse()
        answer = Answer(got.status, {name.lower(): value for name, value in got.getheaders()}, got.read())
        connection.close()
        return answer

    def api(self, path: str) -> Any:
        answer = self.get(f"/api/v1/{path}")
        assert answer.status == 200, answer.body
        return answer.json

    def heads(self) -> list[str]:
        layers = [layer for one in self.api("recordings")["recordings"] for layer in one["layers"]]
        return [name for layer in layers for head in layer["heads"] for name in head["ids"]]

    def filled(self, head: str, seconds: int = 60) -> None:
        """Open a head and wait until its levels are exact."""
        self.api(f"head/{head}")
        for _ in range(20 * seconds):
            if self.api(f"status/{head}")["phase"] == "exact":
                return
            time.sleep(0.05)
        raise AssertionError(self.api(f"status/{head}"))


def text_head(n: int = 1301) -> hs.Head:
    """A causal head over a text with paragraphs and sentences."""
    made = torch.Generator().manual_seed(2)
    q, k = (1.5 * torch.randn(n, 7, generator=made) for _ in range(2))
    labels = [f" w{i % 97}" + ("." if i % 13 == 12 else "") + ("\n\n" if i % 130 == 129 else "") for i in range(n)]
    axis = hs.Axis.tokens(labels, special=[i in (0, 700) for i in range(n)])
    return hs.Head(q, k, mask=hs.causal(), queries=axis)
