"""All that is below `/api/v1`: the commands, their document, and a page to browse it."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from collections.abc import Iterator
from importlib import resources
from typing import Final

from xmppd.admin.registry import Commands
from xmppd.api.calls import BASE, calls
from xmppd.api.document import document
from xmppd.api.events import Tracks
from xmppd.parts.http import PUBLIC, HttpHandler, HttpRequest, HttpResponse, Route

INLINE: Final = re.compile(r"<(style|script)>(.*?)</", re.DOTALL)


def routes(commands: Commands, tracks: Tracks) -> Iterator[tuple[Route, HttpHandler]]:
    """What serves the commands that there are now."""
    yield from calls(commands, tracks)
    yield Route("GET", f"{BASE}/openapi.json", PUBLIC), Document(commands)
    yield Route("GET", BASE, PUBLIC), browse


class Document:
    """Serves the OpenAPI document, made when it is first asked for."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """The same for everybody, as long as there are the same commands."""
        return HttpResponse(body=self._body, content_type="application/json")

    @functools.cached_property
    def _body(self) -> bytes:
        return json.dumps(document(self._commands), ensure_ascii=False).encode()


def browse(request: HttpRequest) -> HttpResponse:
    """The page, which asks nobody but this server for anything."""
    return page()


@functools.cache
def page() -> HttpResponse:
    """The page with its rules: a browser runs and shows what stands in it, and no more."""
    text = resources.files("xmppd.api").joinpath("page.html").read_text("utf-8")
    sums = {
        kind: base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        for kind, inner in INLINE.findall(text)
    }
    rules = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        f"connect-src 'self'; style-src 'sha256-{sums['style']}'; script-src 'sha256-{sums['script']}'"
    )
    headers = {"Content-Security-Policy": rules, "Referrer-Policy": "no-referrer"}
    return HttpResponse(body=text.encode(), content_type="text/html; charset=utf-8", headers=headers)
