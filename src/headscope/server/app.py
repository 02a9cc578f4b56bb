"""The server's addresses, as docs/tiles.md lists them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from headscope.errors import HeadscopeError
from headscope.look.axis import Axis
from headscope.server import answers, higlass, pages
from headscope.server.access import Access
from headscope.server.bounds import (
    LARGEST,
    LARGEST_ZOOM,
    LONGEST_SEARCH,
    MOST_ENTRIES,
    MOST_TEXT,
    asked,
    head_name,
    integer,
    place,
    profile,
    refused,
    stretch,
)
from headscope.server.library import Library
from headscope.server.passages import passage
from headscope.server.responses import on_error, on_hang_up, on_refusal, sentence_of, tagged
from headscope.server.work import Between, Desk, HungUp
from headscope.tiles.head_map import EMPTY, EXACT, HeadMap
from headscope.tiles.places import places

FOREVER = "private, max-age=31536000, immutable"
MOST_TILES = 64


class Server:
    """The answers to all requests, from one library."""

    def __init__(self, library: Library) -> None:
        self.library, self.desk = library, Desk(library.idle)

    def close(self) -> None:
        """Drop all work."""
        self.desk.close()
        self.library.close()

    def routes(self) -> list[Route]:
        """All addresses."""
        api = {
            "colours": self.colours, "recordings": self.recordings, "head/{head}": self.head,
            "status/{head}": self.status,
            "tile/{head}/{z}/{x}/{y}": self.tile, "cell/{head}/{z}/{x}/{y}": self.cell, "row/{head}/{index}": self.row,
            "column/{head}/{index}": self.column, "track/{head}/{name}/{z}/{x}": self.track,
            "text/{head}/{axis}": self.text, "outline/{head}/{axis}": self.outline,
            "search/{head}/{axis}": self.search, "places/{head}": self.places, "tileset_info/": self.tileset_info,
            "tiles/": self.tiles, "tilesets/": self.tilesets,
        }  # fmt: skip
        pages_ = {"/": self.page, "/assets/{name}": self.page}
        return [Route(path, answer) for path, answer in (pages_ | {f"/api/v1/{p}": a for p, a in api.items()}).items()]

    async def page(self, request: Request) -> Response:
        """The page and its files."""
        found = pages.file(request.path_params.get("name", pages.INDEX))
        if found is None:
            raise refused("there is no such file.", 404)
        return tagged(request, found[0], found[1])

    async def colours(self, request: Request) -> Response:
        """The colours of weights, 256 of three bytes in base64, for light and for dark surroundings."""
        return await self.json(request, lambda between: pages.colours())

    async def recordings(self, request: Request) -> Response:
        """The recordings and their heads."""
        return await self.json(request, lambda between: answers.listed(self.library.refresh()))

    async def head(self, request: Request) -> Response:
        """What a map of a head needs; opening it begins its pass."""

        def work(between: Between) -> dict[str, Any]:
            name = head_name(request.path_params["head"])
            entry, one = self.library.find(name)
            self.library.filler.want(one)
            return answers.described(entry, name, one, self.library.filler.status(one))

        return await self.json(request, work)

    async def status(self, request: Request) -> Response:
        """How far the levels of a head are."""
        return await self.json(
            request, lambda between: answers.status_of(self.library.filler.status(self.one(request)))
        )

    async def tile(self, request: Request) -> Response:
        """One tile in bytes."""
        z, x, y = place(request)
        bits = asked(request, "bits", 16, 8, 16)
        if bits not in (8, 16):
            raise refused(f"bits: {bits}; give 8 or 16.")

        def work(between: Between) -> tuple[bytes, bool]:
            tile = self.one(request).tile(z, x, y, bits, between)
            return answers.tile_bytes(tile, bits), tile.status in (EMPTY, EXACT)

        content, final = await self.desk.run(request, work)
        return tagged(request, content, "application/octet-stream", FOREVER if final else "no-cache")

    async def cell(self, request: Request) -> Response:
        """One cell, and the pair that holds its max."""
        z, x, y = place(request)
        return await self.json(request, lambda between: answers.cell_of(self.one(request).cell(z, x, y, between), z))

    async def row(self, request: Request) -> Response:
        """The profile of a query."""

        def work(between: Between) -> dict[str, Any]:
            one = self.one(request)
            index = integer("query", request.path_params["index"], 0, one.shape.queries - 1)
            return answers.row_of(one, index, *stretch(request, one.shape.keys), *profile(request))

        return await self.json(request, work)

    async def column(self, request: Request) -> Response:
        """The profile of a key."""

        def work(between: Between) -> dict[str, Any]:
            one = self.one(request)
            index = integer("key", request.path_params["index"], 0, one.shape.keys - 1)
            bounds = *stretch(request, one.shape.queries), *profile(request)
            return answers.column_of(one, index, *bounds, between=between)

        return await self.json(request, work)

    async def track(self, request: Request) -> Response:
        """A part of a statistic along an axis."""
        bounds = (("z", LARGEST_ZOOM), ("x", LARGEST))
        z, x = (integer(name, request.path_params[name], 0, most) for name, most in bounds)

        def work(between: Between) -> dict[str, Any]:
            one, name = self.one(request), request.path_params["name"]
            if name not in answers.tracks_of(one):
                raise refused(f"there is no such track; there are {', '.join(answers.tracks_of(one))}.", 404)
            return answers.track_of(one, name, z, x, between)

        return await self.json(request, work)

    async def text(self, request: Request) -> Response:
        """The labels of some positions."""

        def work(between: Between) -> dict[str, Any]:
            axis = self.axis(request)
            start, stop = stretch(request, axis.length, MOST_TEXT)
            special = [start + i for i, mark in enumerate(axis.special[start:stop]) if mark]
            return {"start": start, "stop": stop, "labels": axis.labels[start:stop], "special": special}

        return await self.json(request, work, about="axis")

    async def outline(self, request: Request) -> Response:
        """Where the parts of a text begin."""

        def work(between: Between) -> dict[str, Any]:
            axis = self.axis(request)
            limit = asked(request, "limit", 64, 1, MOST_ENTRIES)
            return passage(axis).outline(*stretch(request, axis.length), limit)

        return await self.json(request, work, about="axis")

    async def search(self, request: Request) -> Response:
        """Where a text stands."""
        wanted = request.query_params.get("q", "")
        if not 0 < len(wanted) <= LONGEST_SEARCH:
            raise refused(f"q: {len(wanted)} characters; give 1 to {LONGEST_SEARCH}.")

        def work(between: Between) -> dict[str, Any]:
            axis = self.axis(request)
            start = asked(request, "start", 0, 0, axis.length)
            return passage(axis).search(wanted, start, asked(request, "limit", 50, 1, MOST_ENTRIES))

        return await self.json(request, work, about="axis")

    async def places(self, request: Request) -> Response:
        """Where to look."""
        return await self.json(request, lambda between: places(self.one(request), between))

    async def tileset_info(self, request: Request) -> Response:
        """What a client of HiGlass must know of tilesets."""

        def work(between: Between) -> dict[str, Any]:
            found: dict[str, Any] = {}
            for text in request.query_params.getlist("d")[:MOST_TILES]:
                try:
                    one, kind = self.tileset(text)
                    self.library.filler.want(one)
                    found[text] = higlass.tileset_of(one, kind, text)
                except (HeadscopeError, HTTPException) as error:
                    found[text[:100]] = {"error": sentence_of(error)}
            return found

        return await self.json(request, work)

    async def tiles(self, request: Request) -> Response:
        """Tiles for a client of HiGlass."""
        wanted = request.query_params.getlist("d")
        if len(wanted) > MOST_TILES:
            raise refused(f"d: {len(wanted)} tiles; ask for at most {MOST_TILES} at once.")

        def work(between: Between) -> dict[str, Any]:
            return {text[:120]: self.higlass_tile(text, between) for text in dict.fromkeys(wanted)}

        return await self.json(request, work)

    async def tilesets(self, request: Request) -> Response:
        """The list of tilesets."""
        return await self.json(request, lambda between: higlass.tilesets(self.library.refresh(), 10_000))

    def higlass_tile(self, text: str, between: Between) -> dict[str, Any]:
        """One tile for a client of HiGlass, or its error."""
        try:
            found = higlass.PLACE.fullmatch(text)
            if found is None:
                raise refused("a tile is TILESET.ZOOM.X.Y, or TILESET.ZOOM.X of a vector.")
            one, kind = self.tileset(found[1])
            y = None if found[4] is None else int(found[4])
            return higlass.tile_of(one, kind, int(found[2]), int(found[3]), y, between)
        except (HeadscopeError, HTTPException) as error:
            return {"error": sentence_of(error)}

    def tileset(self, text: str) -> tuple[HeadMap, str]:
        """The map and the kind that the identifier of a tileset names."""
        found = higlass.TILESET.fullmatch(text)
        if found is None:
            raise refused("a tileset is HEAD-mean, HEAD-max or HEAD-TRACK; /api/v1/tilesets/ lists them.", 404)
        return self.library.find(head_name(found[1]))[1], found[2]

    def one(self, request: Request) -> HeadMap:
        """The map that an address names."""
        return self.library.find(head_name(request.path_params["head"]))[1]

    def axis(self, request: Request) -> Axis:
        """The axis that an address names."""
        name, head = request.path_params["axis"], self.one(request).head
        if name not in ("queries", "keys"):
            raise refused("the axis is queries or keys.", 404)
        return head.queries if name == "queries" else head.keys

    async def json(
        self, request: Request, work: Callable[[Between], dict[str, Any]], about: str | None = None
    ) -> Response:
        """What work gives, as JSON."""

        def encoded(between: Between) -> bytes:
            found = work(between)
            return msgspec.json.encode(found if about is None else {about: request.path_params[about]} | found)

        return tagged(request, await self.desk.run(request, encoded), "application/json")


def application(
    server: Server, hosts: Iterable[str] | None, token: str | None = None, origins: Iterable[str] = ()
) -> ASGIApp:
    """The server as an ASGI application."""
    handlers: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
        HTTPException: on_refusal, HeadscopeError: on_error, HungUp: on_hang_up,
    }  # fmt: skip
    return Access(Starlette(routes=server.routes(), exception_handlers=handlers), hosts, token, origins)
