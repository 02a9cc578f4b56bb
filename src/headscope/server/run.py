"""Running the server: in a thread beside a notebook, or until Ctrl-C."""

from __future__ import annotations

import html
import importlib.util
import os
import secrets
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headscope.errors import HeadscopeError, MissingExtra
from headscope.files.replace_file import reason
from headscope.look.head import Head
from headscope.recording.recording import Recording
from headscope.view.subject import alone

if TYPE_CHECKING:
    from headscope.server.app import Server

Source = Recording | Head | str | os.PathLike[str]
# Seconds that open requests get to end when the server is closed.
GRACE = 0.3


class Served:
    """A server that runs until it is closed; shows the map in a notebook.

    Attributes:
        url: the address to open, with the token where one is needed.
    """

    def __init__(self, server: Server, listener: socket.socket, host: str, token: str | None, origins: Iterable[str]):
        import uvicorn

        from headscope.server.access import hosts_of
        from headscope.server.app import application

        self._server, self._listener = server, listener
        port = listener.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{port}/" + ("" if token is None else f"?token={token}")
        config = uvicorn.Config(
            application(server, hosts_of(host), token, origins),
            log_level="warning", access_log=False, lifespan="off", ws="none", http="h11", server_header=False,
            timeout_keep_alive=30, timeout_graceful_shutdown=1, limit_concurrency=512,
        )  # fmt: skip
        self._uvicorn = uvicorn.Server(config)
        # A thread that a join was interrupted for, by Ctrl-C, counts as ended (CPython 3.11); an event does not.
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headscope-serve", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"Served({self.url!r})"

    def _repr_html_(self) -> str:
        return f'<iframe src="{html.escape(self.url)}" width="100%" height="720" style="border: 0"></iframe>'

    def _run(self) -> None:
        try:
            self._uvicorn.run(sockets=[self._listener])
        finally:
            self._ended.set()

    def wait(self) -> None:
        """Wait until the server ends, or for Ctrl-C."""
        while not self._ended.wait(0.2):
            pass

    def close(self) -> None:
        """End the server: open requests are dropped, and a pass that runs goes on where it was next time."""
        self._server.close()
        self._uvicorn.should_exit = True
        if not self._ended.wait(GRACE):
            self._uvicorn.force_exit = True
            self._ended.wait(GRACE)

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def serve(
    x: Source | Sequence[Source],
    *,
    port: int = 0,
    host: str = "127.0.0.1",
    token: str | None = None,
    origins: Iterable[str] = (),
    open_page: bool = False,
) -> Served:
    """Serve the map of every head of recordings of any length to a browser; returns the running server.

    The map pans and zooms over all weights: fine tiles are computed from q and k on request, the coarse ones by one
    pass per head in the background, kept beside a recording that lies on the disk. docs/tiles.md is the protocol.

    Args:
        x: recordings, folders of recordings, or heads; one or several.
        port: where to listen; a free one unless given.
        host: at which address to listen; only this machine can reach the default.
        token: what every request must bring; made up where others can reach the address.
        origins: pages of other servers that may read the answers, such as "http://localhost:8080".
        open_page: whether to open the map in a browser.

    Raises:
        MissingExtra: starlette or uvicorn is not installed.
        RecordingError: a folder that is not a recording.
        HeadscopeError: nothing to serve, or an address where this process cannot listen.

    Example:
        >>> import torch, headscope as hs
        >>> head = hs.Head(torch.eye(3), torch.eye(3))
        >>> with serve(head) as served:
        ...     served.url.startswith("http://127.0.0.1:")
        True
    """
    check_installed()
    from headscope.server.access import is_loopback
    from headscope.server.app import Server
    from headscope.server.library import Library

    items = [x] if isinstance(x, Recording | Head | str | os.PathLike) else list(x)
    if not items:
        raise HeadscopeError("serve: there is nothing to serve; give a recording, its folder, or a head.")
    sources = [
        alone(one) if isinstance(one, Head) else one if isinstance(one, Recording) else Path(one) for one in items
    ]
    if token is None and not is_loopback(host):
        token = secrets.token_urlsafe(24)
    listener = listening(host, port)
    try:
        scratch = scratch_folder()
        library = Library(sources, scratch)
    except BaseException:
        listener.close()
        raise
    served = Served(Server(library), listener, host, token, origins)
    if open_page:
        webbrowser.open(served.url)
    return served


def check_installed() -> None:
    """Raise `MissingExtra` unless the server's libraries are there."""
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtra(f"serve: needs {' and '.join(missing)}; install with: pip install 'headscope[serve]'")


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens at an address.

    Raises:
        HeadscopeError: the address is taken, or is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        raise HeadscopeError(
            f"serve: cannot listen at {host} port {port} ({reason(error)}); give another port, or 0 for a free one."
        ) from None
    return listener


def scratch_folder() -> Path:
    """A folder of this process for maps that have no place beside a recording; removed when the process ends."""
    import atexit

    folder = tempfile.TemporaryDirectory(prefix="headscope-", ignore_cleanup_errors=True)
    atexit.register(folder.cleanup)
    return Path(folder.name)
