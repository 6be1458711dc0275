"""A receiver of web hooks on loopback, which answers as a test says and remembers what it took."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any, Self

from aiohttp import web
from patience import PATIENCE

Answer = int | web.Response


class Receiver:
    """`answer` is asked for each request; `events` are those that were taken, each as often as it came."""

    def __init__(self, answer: Callable[[dict[str, Any]], Answer] = lambda body: 200) -> None:
        self.answer = answer
        self.events: list[dict[str, Any]] = []
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self._changed = asyncio.Event()
        self.port = 0

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/{path:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}/hook"

    async def _take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append(({name.lower(): value for name, value in request.headers.items()}, body))
        said = json.loads(body)
        answer = self.answer(said)
        status = answer if isinstance(answer, int) else answer.status
        if 200 <= status < 300:
            self.events += said["events"]
        self._changed.set()
        return web.Response(status=answer) if isinstance(answer, int) else answer

    async def until(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Wait for what came to be so."""
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def kinds(self) -> list[str]:
        """Of what was taken."""
        return [event["kind"] for event in self.events]


def is_signed(headers: dict[str, str], body: bytes, secret: str) -> bool:
    """Whether one of the signatures is by this key."""
    signed = f"{headers['xmppd-timestamp']}.{headers['xmppd-delivery']}.".encode() + body
    wanted = "v1=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    return any(hmac.compare_digest(wanted, one) for one in headers["xmppd-signature"].split(","))
