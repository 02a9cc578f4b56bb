"""Who may ask: the Host header, the token, the methods; and the headers that every answer has."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headscope.server.bounds import LONGEST_ADDRESS

COOKIE = "headscope_token"
# Nothing but the server's own scripts and styles; pages of this machine (a notebook) may frame it.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "worker-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self' http://localhost:* http://127.0.0.1:*"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# What a page of another server, where it may read the answers, may send with a request.
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD",
    "Access-Control-Allow-Headers": "Authorization, Content-Type",
    "Access-Control-Max-Age": "600",
}


class Access:
    """The outermost layer of the server.

    Args:
        hosts: the names under which the server may be asked for; a page of another name that was led here by its own
            name server (DNS rebinding) is refused. None accepts all: the token is the proof then.
        token: what a request must bring; None where none is needed.
        origins: pages of other servers that may read the answers, such as a genome browser.
    """

    def __init__(
        self, app: ASGIApp, hosts: Iterable[str] | None, token: str | None, origins: Iterable[str] = ()
    ) -> None:
        self.app, self.token, self.origins = app, token, set(origins)
        self.hosts = None if hosts is None else set(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        allowed = origin if origin in self.origins else None
        brought = self._brought(scope, headers)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    out[name] = value
                out.setdefault("Cache-Control", "no-store")
                out.add_vary_header("Origin, Cookie, Authorization")
                if allowed is not None:
                    out["Access-Control-Allow-Origin"] = allowed
                    out["Cross-Origin-Resource-Policy"] = "cross-origin"
                if brought == "query":
                    out.append("Set-Cookie", f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/")
            await send(message)

        refusal = self._refusal(scope, headers, brought)
        app: Any = self.app if refusal is None else JSONResponse({"error": refusal[1]}, refusal[0])
        if allowed is not None and self._asks_first(scope, headers):
            app = Response(status_code=204, headers=PREFLIGHT)
        await app(scope, receive, answer)

    def _asks_first(self, scope: Scope, headers: Headers) -> bool:
        """Whether a browser asks if it may read with headers of its own; it brings no token then."""
        wanted = headers.get("access-control-request-method")
        return scope["method"] == "OPTIONS" and wanted in ("GET", "HEAD") and self._is_host(headers)

    def _is_host(self, headers: Headers) -> bool:
        return self.hosts is None or host_of(headers.get("host", "")) in self.hosts

    def _refusal(self, scope: Scope, headers: Headers, brought: str | None) -> tuple[int, str] | None:
        """Why a request is not answered: a status and a sentence."""
        if not self._is_host(headers):
            return 421, "the Host header names another server than this one."
        if len(scope["path"]) + len(scope["query_string"]) > LONGEST_ADDRESS:
            return 414, f"the address is longer than {LONGEST_ADDRESS} characters."
        if self.token is not None and brought is None:
            return 401, "this server needs its token: open the address that it printed, or send Authorization: Bearer."
        if scope["method"] not in ("GET", "HEAD"):
            return 405, "everything here is read with GET."
        return None

    def _brought(self, scope: Scope, headers: Headers) -> str | None:
        """Where a request has the token: in its parameters, a header or a cookie."""
        if self.token is None:
            return None
        found = {"header": headers.get("authorization", "").removeprefix("Bearer ")}
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
            found["cookie"] = "" if cookie is None else cookie.value
            found["query"] = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=1000)["token"][0]
        except (KeyError, CookieError, ValueError):
            pass
        expected = self.token.encode()
        return next((where for where, text in found.items() if hmac.compare_digest(text.encode(), expected)), None)


def host_of(header: str) -> str:
    """The name in a Host header, without its port.

    Example:
        >>> host_of("localhost:80"), host_of("[::1]:80"), host_of("127.0.0.1")
        ('localhost', '::1', '127.0.0.1')
    """
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.rpartition(":")[0].lower() if header.count(":") == 1 else header.lower()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def hosts_of(host: str) -> set[str] | None:
    """The names under which a server at an address may be asked for; None where it listens at all of its addresses."""
    names = {host.lower().strip("[]")}
    if names & {"0.0.0.0", "::"}:
        return None
    return names | {"localhost", "127.0.0.1", "::1"} if is_loopback(host) else names
