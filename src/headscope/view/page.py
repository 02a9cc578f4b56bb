"""One HTML file that holds a recording and everything needed to look into it; it asks no network for anything."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from headscope.files.replace_file import write
from headscope.look.head import Head
from headscope.recording.recording import Recording
from headscope.view.bundle import asset, bundle
from headscope.view.payload import Payload, payload
from headscope.view.subject import Subject

ICON = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'><path fill='#a8e0e6' d='M0 0h8v8H0z'/>"
    "<path fill='#1b103f' d='M0 0h2v2H0zM2 2h2v2H2zM4 4h2v2H4zM6 6h2v2H6z'/>"
    "<path fill='#2272b9' d='M0 4h2v2H0zM4 0h2v2H4z'/></svg>"
)
PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")


def page(
    x: Recording | Head,
    path: str | os.PathLike[str],
    *,
    layer: int | None = None,
    head: int | None = None,
    title: str | None = None,
    thumbnails: bool = True,
    generated: Sequence[str] = (),
) -> Path:
    """Write one self-contained HTML file in which every head can be looked into, and return its path.

    q and k travel in the file, in sixteen bits; the browser computes the softmax itself. The file is there whole or not
    at all, and makes no network request of any kind.

    Args:
        x: a recording, or one head.
        path: where the file goes; one that is there is replaced.
        layer, head: the head that is shown first; the one with the most informative pair of tokens unless given.
        title: stands at the top; the name of the model unless given.
        thumbnails: whether the pictures and the spectrograms that the model was given travel in the file, small.
        generated: the tokens that the model made, one at each of the last queries: the page has a slider over these.

    Raises:
        LookError: a head that does not exist, or more weights in one head than a browser can hold.
        HeadscopeError: the path cannot be written.

    Example:
        >>> import tempfile, torch, headscope as hs
        >>> head = hs.Head(torch.eye(3), torch.eye(3), queries=hs.Axis.tokens(["the", "cat", "sat"]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page(head, folder + "/cat.html").stat().st_size < 250_000
        True
    """
    subject = Subject("page", x)
    text = document(subject, layer=layer, head=head, title=title, thumbnails=thumbnails, generated=generated)
    return write("page", path, text.encode())


def document(
    subject: Subject,
    *,
    layer: int | None = None,
    head: int | None = None,
    title: str | None = None,
    thumbnails: bool = True,
    generated: Sequence[str] = (),
) -> str:
    """The page as text."""
    start, model = subject.start(layer, head), subject.recording.model
    return assemble(payload(subject, start, title=title or "", model=model, thumbnails=thumbnails, generated=generated))


def assemble(
    content: Payload, script: str | None = None, *, style: str | None = None, body: str = "page.html", above: str = ""
) -> str:
    """A template with style, script and data in it, and the policy that allows exactly these and no network.

    Args:
        script, style: those of the page of one recording unless given.
        body: the name of the template.
        above: HTML for the template's place of that name.
    """
    script, style = script or bundle("main.js"), style or asset("page.css")
    title = content.data["title"] or content.data["model"] or "One attention head"
    parts = {
        "policy": policy(script, style),
        "version": html.escape(installed()),
        "title": html.escape(f"{title} · headscope"),
        "icon": "data:image/svg+xml;base64," + base64.b64encode(ICON.encode()).decode(),
        "style": style,
        "above": above,
        "script": script,
        "data": as_json(content.data),
        "chunks": "\n".join(map(chunk_element, range(len(content.chunks)), content.chunks)),
    }
    return PLACEHOLDER.sub(lambda found: parts[found[1]], asset(body))


def chunk_element(number: int, chunk: str) -> str:
    """Numbers in base64, in an element of their own that the browser reads when somebody looks."""
    return f'<script type="application/octet-stream" id="chunk-{number}">{chunk}</script>'


def as_json(data: dict[str, object]) -> str:
    """JSON that can stand inside an HTML script element: no text in it can end the element."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def policy(script: str, style: str) -> str:
    """A content security policy: nothing but this very script and this very style, and no network at all."""
    own = f"script-src {digest(script)}; style-src {digest(style)}; img-src data:"
    return f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'"


def digest(text: str) -> str:
    """The hash by which a policy knows an inline script or style."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def installed() -> str:
    """The version of headscope."""
    try:
        return version("headscope")
    except PackageNotFoundError:
        return "from source"
