"""`/healthz`, `/readyz` and `/metrics`."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from xmppd.parts.http import PUBLIC, HttpHandler, HttpRequest, HttpResponse, Route
from xmppd.seeing.health import OK, Health
from xmppd.seeing.spans import CLOSE_SECONDS, Spans, spans_of
from xmppd.seeing.watch import Watch

if TYPE_CHECKING:
    from xmppd.app import App
    from xmppd.config import Config

SCOPE: Final = "metrics"


class Seeing:
    """What is served to those who watch this server. `watch` is there while the server listens for HTTP."""

    def __init__(self, app: App) -> None:
        self.health = Health(app.store, app.clock)
        self.watch: Watch | None = None
        self.spans: Spans | None = None
        self._app = app

    def begin_spans(self) -> None:
        """Tell of spans, if the configuration wants that; ConfigError where that cannot be."""
        self.spans = spans_of(self._app.config)
        if self.spans is not None:
            importlib.import_module("xmppd.seeing.traced").trace(self._app, self.spans)

    async def end_spans(self) -> None:
        """Send those that are there, for less than a second."""
        if self.spans is not None:
            await asyncio.to_thread(self.spans.close, CLOSE_SECONDS)

    def begin(self) -> None:
        """The server listens for HTTP."""
        importlib.import_module("xmppd.seeing.exposition")  # not when it is asked for: it takes 40 ms
        self.watch = Watch(self._watch_one)

    def _watch_one(self) -> None:
        self._app.router.watch_next()

    def end(self) -> None:
        """It does so no more; harmless if it never did."""
        if self.watch is not None:
            self.watch.close()
            self.watch = None

    def routes(self) -> Iterator[tuple[Route, HttpHandler]]:
        """All that is served; the numbers to who may see them."""
        yield Route("GET", "/healthz", PUBLIC), self._healthz
        yield Route("GET", "/readyz", PUBLIC), self._readyz
        yield Route("GET", "/metrics", PUBLIC if is_open(self._app.config) else SCOPE), self._metrics

    def _healthz(self, request: HttpRequest) -> HttpResponse:
        """The process is there and its loop turns, or nobody would answer."""
        return HttpResponse(body=b'{"status": "ok"}\n', content_type="application/json")

    async def _readyz(self, request: HttpRequest) -> HttpResponse:
        """Whether clients should be sent here."""
        checks: Mapping[str, str] = await self.health.look()
        is_ready = all(said == OK for said in checks.values())
        body = json.dumps({"status": "ready" if is_ready else "not-ready", "checks": checks})
        return HttpResponse(200 if is_ready else 503, f"{body}\n".encode(), "application/json")

    async def _metrics(self, request: HttpRequest) -> HttpResponse:
        # Its library is loaded where somebody may ask.
        module = importlib.import_module("xmppd.seeing.exposition")
        body: bytes = module.text(self._app, await self.health.look())
        return HttpResponse(body=body, content_type=module.CONTENT_TYPE)


def is_open(config: Config) -> bool:
    """Whether numbers are shown without a token."""
    if config.http.metrics != "auto":
        return config.http.metrics == "open"
    listen = config.listen.http
    return listen is None or ip_address(listen.address).is_loopback
