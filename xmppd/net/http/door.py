"""The socket of the server's own HTTP: bounds of connections, and aiohttp behind them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest

from xmppd.net.http.routes import Routes, problem
from xmppd.net.listener import Listener
from xmppd.parts.http import HttpError, HttpResponse

HEADER_BYTES: Final = 8190
"""Of the request line, and of one header."""
MOST_HEADERS: Final = 64
HEADER_SECONDS: Final = 10.0
"""How long a new connection may take to say what it wants."""
IDLE_SECONDS: Final = 30.0
"""How long one may be silent between two requests."""
WRITE_SECONDS: Final = 30.0
"""How long a client may take to read a response."""
ONCE: Final = ("authorization", "host", "idempotency-key", "if-none-match")
"""Headers that must not come twice: who stands between might have looked at the other one."""
CLOSE_SECONDS: Final = 2.0
"""How long requests under way may take when the server stops."""


class Visitor(RequestHandler):
    """One connection. Who says nothing is sent away."""

    __slots__ = ("_impatience",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._impatience = asyncio.get_running_loop().call_later(HEADER_SECONDS, self.force_close)

    def connection_lost(self, exc: BaseException | None) -> None:
        """It is over."""
        self._impatience.cancel()
        super().connection_lost(exc)

    def came(self) -> None:
        """A request is there."""
        self._impatience.cancel()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no HTTP is refused like everything else, and is nothing for the log."""
        answer = outgoing(problem(HttpError(status)))
        answer.force_close()
        return answer


class Visitors(web.Server):
    """Makes the protocol of each connection."""

    def __call__(self) -> RequestHandler:
        """One more."""
        return Visitor(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # as its documentation has it
            keepalive_timeout=IDLE_SECONDS,
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
            max_headers=MOST_HEADERS,
            lingering_time=CLOSE_SECONDS,
            auto_decompress=False,
        )


class Door:
    """The listener for HTTP. It stays open while routes and rules are replaced. There may be `most`
    connections; further ones wait in the kernel.
    """

    def __init__(
        self, routes: Routes, most: int, spawn: Callable[[Coroutine[Any, Any, None]], object]
    ) -> None:
        self.most = most
        self._routes = routes
        self._visitors = Visitors(self._serve)
        self._spawn = spawn
        self._listeners: list[Listener] = []

    @property
    def port(self) -> int:
        """The port in use, the first one."""
        return self._listeners[0].port

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._visitors.connections)

    async def open(self, address: str, port: int, backlog: int, *, reuse_port: bool = False) -> None:
        """Listen, with `reuse_port` beside other processes; at one more address each time. OSError."""
        listener = Listener(self._visitors, self._spawn, self._has_room)
        await listener.open(address, port, backlog, reuse_port=reuse_port)
        self._listeners.append(listener)

    async def shut(self) -> None:
        """Take nobody in any more; who is there, or waits to come in, is served on."""
        await asyncio.gather(*(listener.drain() for listener in self._listeners))

    async def close(self) -> None:
        """Take nobody in any more, and let requests under way end; who only keeps a connection is not waited
        for.
        """
        await self.shut()
        self._visitors.pre_shutdown()
        await self._visitors.shutdown(CLOSE_SECONDS)

    def _has_room(self, coming: int) -> bool:
        return self.connections + coming < self.most

    async def _serve(self, request: BaseRequest) -> web.StreamResponse:
        assert isinstance(request.protocol, Visitor)
        request.protocol.came()
        headers = {name.lower(): value for name, value in request.headers.items()}
        twice = [name for name in ONCE if len(request.headers.getall(name, ())) > 1]
        if twice:
            answer = problem(HttpError(400, f"The header {twice[0]} came twice.", rule="header"))
        elif "content-encoding" in headers:
            answer = problem(HttpError(415, "The body must not be compressed.", rule="body"))
        else:
            answer = await self._routes.serve(
                request.method,
                request.raw_path,
                headers,
                lambda most: body_of(request, most),
                request.remote or "",
            )
        response = outgoing(answer)
        if answer.status == 413:
            response.force_close()
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                await response.prepare(request)
            if answer.pieces is not None and request.method != "HEAD":
                await self._pass_on(response, answer.pieces)
            async with asyncio.timeout(WRITE_SECONDS):
                await response.write_eof()
        except TimeoutError:
            request.protocol.force_close()
        finally:
            if (close := getattr(answer.pieces, "aclose", None)) is not None:
                await close()
        return response

    async def _pass_on(self, response: web.StreamResponse, pieces: AsyncIterator[bytes]) -> None:
        """Write a body as it is made; who reads too slowly, or what fails, is cut off, as a client sees."""
        async for piece in pieces:
            async with asyncio.timeout(WRITE_SECONDS):
                await response.write(piece)


def outgoing(answer: HttpResponse) -> web.StreamResponse:
    """A response as aiohttp wants it."""
    headers = {"Server": "xmppd", "X-Content-Type-Options": "nosniff", **answer.headers}
    if answer.content_type:
        headers["Content-Type"] = answer.content_type
    if answer.pieces is not None:
        return web.StreamResponse(status=answer.status, headers=headers)
    return web.Response(status=answer.status, body=answer.body, headers=headers)


async def body_of(request: BaseRequest, most: int) -> bytes:
    """The whole body; HttpError 413 as soon as it is known to be too long."""
    if (request.content_length or 0) > most:
        raise HttpError(413, f"The body may have at most {most} bytes.", rule="body")
    body = bytearray()
    async for piece in request.content.iter_any():
        body += piece
        if len(body) > most:
            raise HttpError(413, f"The body may have at most {most} bytes.", rule="body")
    return bytes(body)
