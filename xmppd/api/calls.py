"""Each command as a route: arguments from a query or a body, its result as JSON, its refusals as RFC 9457 has
it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import quote

from xmppd.admin.commands import (
    NO_PERMISSION,
    UNAVAILABLE,
    USAGE,
    Caller,
    Description,
    Download,
    Json,
)
from xmppd.admin.registry import Commands
from xmppd.api.events import CONTENT_TYPE, Tracks
from xmppd.errors import CommandError
from xmppd.parts.http import HttpError, HttpHandler, HttpRequest, HttpResponse, Route

BASE: Final = "/api/v1"
"""What all paths begin with."""
STATUSES: Final = {USAGE: 400, NO_PERMISSION: 403, UNAVAILABLE: 503}
"""Statuses by exit code; 409, the state of things does not allow it, for all others."""
RULES: Final = {"account-unknown": 404, "account-exists": 409, "api-token-unknown": 404}
"""Those of some rules."""


def path_of(about: Description) -> str:
    """Where a command is: `/api/v1/roster/show`."""
    return "/".join((BASE, about.noun, about.verb) if about.verb else (BASE, about.noun))


def calls(commands: Commands, tracks: Tracks) -> Iterator[tuple[Route, HttpHandler]]:
    """A route for each command that there is now."""
    for about in commands:
        narrowest, *wider = about.scopes
        method = "GET" if about.reads else "POST"
        yield Route(method, path_of(about), narrowest, wider=frozenset(wider)), Call(commands, about, tracks)


class Call:
    """Serves one command."""

    def __init__(self, commands: Commands, about: Description, tracks: Tracks) -> None:
        self._commands = commands
        self._tracks = tracks
        self._about = about

    async def __call__(self, request: HttpRequest) -> HttpResponse:
        """Run it; HttpError."""
        about = self._about
        try:
            arguments = from_query(about, request.fields) if about.reads else from_body(request)
            caller = Caller("http", request.caller, request.peer, request.scopes)
            if about.follows:
                events = await self._tracks.open(about.name, arguments, caller, request)
                return HttpResponse(200, b"", CONTENT_TYPE, {"Cache-Control": "no-store"}, events)
            version = await self._commands.version(about.name, arguments) if about.reads else ""
            if version and is_known(version, request.headers.get("if-none-match", "")):
                return HttpResponse(304, content_type="", headers=_cached(version))
            # What is read is not older than its version: who has it by that asks for what came since.
            result = await self._commands.call(about.name, arguments, caller)
        except CommandError as error:
            raise refusal(error) from error
        if isinstance(result, Download):
            return given_away(result)
        headers = {"Cache-Control": "no-store"} if about.once else _cached(version)
        body = json.dumps(result, ensure_ascii=False).encode()
        return HttpResponse(200, body, "application/json", headers)


def given_away(file: Download) -> HttpResponse:
    """A file, which nobody on the way keeps (RFC 6266)."""
    name = quote(file.name, safe="")
    headers = {"Cache-Control": "no-store", "Content-Disposition": f"attachment; filename*=UTF-8''{name}"}
    return HttpResponse(200, b"", file.content_type, headers, file.pieces)


def _cached(version: str) -> dict[str, str]:
    return {"ETag": f'"{version}"', "Cache-Control": "private, no-cache"} if version else {}


def is_known(version: str, header: str) -> bool:
    """Whether an If-None-Match (RFC 9110 13.1.2) names this version."""
    tags = (tag.strip().removeprefix("W/") for tag in header.split(","))
    return any(tag in ("*", f'"{version}"') for tag in tags)


def from_query(about: Description, fields: Iterable[tuple[str, str]]) -> dict[str, Json]:
    """Arguments from the fields of a query; CommandError."""
    texts: dict[str, list[str]] = {}
    for name, text in fields:
        texts.setdefault(name, []).append(text)
    known = {parameter.name: parameter for parameter in about.parameters}
    found: dict[str, Json] = {}
    for name, given in texts.items():
        # An unknown name is refused where it is called.
        found[name] = known[name].read_text(given) if name in known else None
    return found


def from_body(request: HttpRequest) -> dict[str, Any]:
    """Arguments from a body: a JSON object, or nothing; HttpError."""
    if request.fields:
        raise HttpError(400, "The parameters of this command go into the body.", rule="body")
    if not request.body:
        return {}
    arguments = request.json()
    if not isinstance(arguments, dict):
        raise HttpError(400, "The body must be a JSON object.", rule="body")
    return arguments


def refusal(error: CommandError) -> HttpError:
    """A refusal of a command as one by HTTP: with the rule that refused, and the field that is wrong."""
    status = RULES.get(error.rule) or STATUSES.get(error.exit_code, 409)
    more = {"rule": error.rule, **({"field": error.field} if error.field else {})}
    headers = {"Retry-After": "5"} if status == 503 else {}
    return HttpError(status, str(error), headers=headers, **more)
