"""Who serves which request, whether he may be asked, and what an error becomes (RFC 9457)."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl, unquote

from xmppd.access.callers import ALL, Callers, Known
from xmppd.core.accounts import AccountExists, AccountUnknown
from xmppd.core.network import network_of
from xmppd.errors import StanzaError, StoreError, XmppdError
from xmppd.net.http.pace import Pace
from xmppd.parts.http import OWN, HttpError, HttpHandler, HttpRequest, HttpResponse, Route, response_of

log = logging.getLogger(__name__)

SAFE: Final = frozenset(("GET", "HEAD"))
"""What changes nothing."""
UNPACED: Final = frozenset(("/healthz", "/readyz", "/metrics"))
"""What those ask for who watch this server: others must not have it refused to them."""
MOST_FIELDS: Final = 100
"""Fields of a query."""

PHRASES: Final[Mapping[int, str]] = {status.value: status.phrase for status in HTTPStatus}
CONDITIONS: Final[Mapping[str, int]] = {
    "item-not-found": 404, "recipient-unavailable": 404, "conflict": 409, "forbidden": 403,
    "not-allowed": 403, "not-authorized": 403, "bad-request": 400, "jid-malformed": 400,
    "not-acceptable": 422, "policy-violation": 422, "resource-constraint": 503, "remote-server-timeout": 504,
    "remote-server-not-found": 404, "service-unavailable": 404, "feature-not-implemented": 501,
    "internal-server-error": 500,
}  # fmt: skip
"""The status for a stanza error that nobody caught; 400 for all others."""


NOBODY: Final = Known("", frozenset(), "")
"""Who calls a public route."""


@dataclass(frozen=True, slots=True)
class HttpRules:
    """How much a request may cost: bytes of its body, seconds in all. How many there may be in a second, and
    at once, of one token, and of one address without a good token; rates of 0: no limit.
    """

    body_bytes: int = 1_048_576
    seconds: float = 30.0
    rate: float = 0.0
    burst: int = 1
    strangers_rate: float = 0.0
    strangers_burst: int = 1


class Replays(Protocol):
    """What was asked with a key is done once."""

    async def once(
        self,
        caller: str,
        key: str,
        asked: bytes,
        work: Callable[[], Awaitable[HttpResponse]],
        seconds: float,
    ) -> HttpResponse:
        """The answer of `work`, which takes so many seconds at most, or what it was when this caller asked
        the same with this key; HttpError, StoreError.
        """


class Entry(Protocol):
    """What is written of one request."""

    async def end(self, outcome: str, detail: str = "") -> None:
        """What became of it: `done`, `refused`, `failed`, or `unknown`. Never raises."""


Witness = Callable[[Route, HttpRequest], Awaitable[Entry]]
"""Writes down that a request is about to be done. Never raises."""


class Node:
    """One place in the tree of paths: what may come next, and what is served here by method."""

    __slots__ = ("named", "routes", "texts")

    def __init__(self) -> None:
        self.texts: dict[str, Node] = {}
        self.named: Node | None = None
        self.routes: dict[str, tuple[Route, HttpHandler]] = {}

    def below(self, segment: str) -> Node:
        """The place behind a segment of a route, made if it is new."""
        if segment.startswith("{"):
            if self.named is None:
                self.named = Node()
            return self.named
        return self.texts.setdefault(segment, Node())

    def find(self, segments: tuple[str, ...]) -> Node | None:
        """Where routes for this path are; text is preferred to a name."""
        if not segments:
            return self if self.routes else None
        first, rest = segments[0], segments[1:]
        for node in (self.texts.get(first), self.named if first else None):
            if node is not None and (found := node.find(rest)) is not None:
                return found
        return None


class Routes:
    """All routes of one server. `failed` is told what a handler raised that it should not have."""

    def __init__(
        self,
        rules: HttpRules,
        callers: Callers,
        replays: Replays,
        failed: Callable[[Callable[..., Any], Exception], None],
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._on_news: Callable[[], None] | None = None
        self.rules = rules
        self._replays = replays
        self.callers = callers
        self.served = 0
        self.refused = 0
        self._failed = failed
        self.witness: Witness | None = None
        """Shown what changes something by routes of plugins; commands have a witness of their own."""
        self._root = Node()

    @property
    def rules(self) -> HttpRules:
        """What a request may cost. Who is given others may begin anew."""
        return self._rules

    @rules.setter
    def rules(self, rules: HttpRules) -> None:
        self._rules = rules
        self._tokens = Pace(rules.rate, rules.burst, self._clock, self._on_news)
        self._strangers = Pace(rules.strangers_rate, rules.strangers_burst, self._clock, self._on_news)

    def share(self, on_news: Callable[[], None]) -> None:
        """There are other nodes: `on_news` is called when there is something to tell them."""
        self._on_news = self._tokens.on_news = self._strangers.on_news = on_news

    def news(self) -> list[dict[str, int]]:
        """What tokens and strangers took here since this was asked last, for `heard` of other nodes."""
        news = [self._tokens.news, self._strangers.news]
        self._tokens.news, self._strangers.news = {}, {}
        return news

    def heard(self, tokens: Mapping[str, int], strangers: Mapping[str, int]) -> None:
        """What was taken on another node."""
        self._tokens.heard(tokens)
        self._strangers.heard(strangers)

    def compile(self, routes: Iterable[tuple[Route, HttpHandler]]) -> None:
        """Replace all routes; requests under way are finished by those they found."""
        root = Node()
        for route, handler in routes:
            node = root
            for segment in route.segments:
                node = node.below(segment)
            node.routes[route.method] = (route, handler)
        self._root = root

    async def serve(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        read: Callable[[int], Awaitable[bytes]],
        peer: str,
    ) -> HttpResponse:
        """Answer a request for a path with its query; never raises. `headers` have names in lower case,
        `read` gives the body of at most so many bytes or raises HttpError.
        """
        self.served += 1
        try:
            return await self._serve(method, target, headers, read, peer)
        except HttpError as error:
            self.refused += 1
            return problem(error)
        except StoreError as error:  # nobody can tell who calls, or whether it was done
            self.refused += 1
            return problem(refusal_of(error))

    async def _serve(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        read: Callable[[int], Awaitable[bytes]],
        peer: str,
    ) -> HttpResponse:
        path, _, query = target.partition("?")
        segments = tuple(unquote(segment) for segment in path[1:].split("/"))
        route, handler = self._find(method, segments, peer)
        names = route.segments
        params = {name[1:-1]: text for name, text in zip(names, segments, strict=True) if name[0] == "{"}
        bytes_ = min(route.max_bytes or self.rules.body_bytes, self.rules.body_bytes)
        seconds = min(route.seconds or self.rules.seconds, self.rules.seconds)
        try:
            async with asyncio.timeout(seconds):
                caller = await self._caller(route, headers, peer)
                fields, body = fields_of(query), await read(bytes_)
                request = HttpRequest(
                    method,
                    path,
                    params,
                    fields,
                    headers,
                    body,
                    caller.name,
                    peer,
                    caller.scopes,
                    functools.partial(self._is_allowed, route, headers),
                )
                key = headers.get("idempotency-key")
                if key is None or method in SAFE or not caller.key:
                    return await self._call(route, handler, request)
                asked = b"\0".join((method.encode(), target.encode("utf-8", "surrogateescape"), body))
                answered = functools.partial(self._answer, route, handler, request)
                return await self._replays.once(caller.key, key, asked, answered, seconds)
        except TimeoutError:
            raise HttpError(503, "This took too long.", rule="seconds") from None

    def _find(self, method: str, segments: tuple[str, ...], peer: str) -> tuple[Route, HttpHandler]:
        node = self._root.find(segments)
        if node is None:
            self._strangers.take(network_of(peer))
            raise HttpError(404, rule="path")
        found = node.routes.get("GET" if method == "HEAD" else method)
        if found is None:
            self._strangers.take(network_of(peer))
            allowed = ", ".join(sorted({*node.routes, *(("HEAD",) if "GET" in node.routes else ())}))
            raise HttpError(405, headers={"Allow": allowed}, rule="method")
        return found

    async def _caller(self, route: Route, headers: Mapping[str, str], peer: str) -> Known:
        """Who calls; HttpError 401 or 403 (RFC 6750 3), or 429; StoreError."""
        if not route.scope:
            if route.path not in UNPACED:
                self._strangers.take(network_of(peer))
            return NOBODY
        kind, _, secret = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not secret:
            self._strangers.take(network_of(peer))
            asked = {"WWW-Authenticate": "Bearer"}
            raise HttpError(401, "A bearer token is needed.", headers=asked, rule="token")
        known = await self.callers.who(secret.strip())
        if known is None:
            self._strangers.take(network_of(peer))
            asked = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
            raise HttpError(401, "The token is not known.", headers=asked, rule="token")
        self._tokens.take(known.key)
        if not _may(known, route):
            challenge = f'Bearer error="insufficient_scope", scope="{route.scope}"'
            detail = f"The token has no scope {route.scope}."
            raise HttpError(403, detail, headers={"WWW-Authenticate": challenge}, rule="scope")
        return known

    async def _is_allowed(self, route: Route, headers: Mapping[str, str]) -> bool:
        """Whether who was let in would be again; StoreError."""
        if not route.scope:
            return True
        known = await self.callers.who(headers["authorization"].partition(" ")[2].strip())
        return known is not None and _may(known, route)

    async def _answer(self, route: Route, handler: HttpHandler, request: HttpRequest) -> HttpResponse:
        """The response, be it a refusal."""
        try:
            return await self._call(route, handler, request)
        except HttpError as error:
            self.refused += 1
            return problem(error)

    async def _call(self, route: Route, handler: HttpHandler, request: HttpRequest) -> HttpResponse:
        if self.witness is None or route.method in SAFE or route.segments[0] in OWN:
            return await self._handled(handler, request)
        entry = await self.witness(route, request)
        try:
            response = await self._handled(handler, request)
        except HttpError as error:
            await entry.end("failed" if error.status >= 500 else "refused", f"{error.status}: {error}")
            raise
        except BaseException as error:
            await entry.end("unknown", type(error).__name__)
            raise
        is_done = response.status < 400
        await entry.end("done" if is_done else "refused", "" if is_done else str(response.status))
        return response

    async def _handled(self, handler: HttpHandler, request: HttpRequest) -> HttpResponse:
        try:
            result = handler(request)
            if inspect.isawaitable(result):
                result = await result
            return response_of(result)
        except (HttpError, TimeoutError):
            raise
        except XmppdError as error:
            raise refusal_of(error) from error
        except Exception as error:
            self._failed(handler, error)
            raise HttpError(500) from error


def _may(known: Known, route: Route) -> bool:
    return not known.scopes.isdisjoint({route.scope, ALL, *route.wider})


def fields_of(query: str) -> list[tuple[str, str]]:
    """The fields of a query; HttpError 400 for too many."""
    try:
        return parse_qsl(query, keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise HttpError(400, f"A query has at most {MOST_FIELDS} fields.", rule="query") from None


def refusal_of(error: XmppdError) -> HttpError:
    """What an error of ours that a handler let through is to its caller."""
    if isinstance(error, StanzaError):
        return HttpError(CONDITIONS.get(error.condition, 400), error.text, condition=error.condition)
    if isinstance(error, StoreError):
        log.warning("store-failed", extra={"kind": "http", "error": str(error)})
        later, text = {"Retry-After": "5"}, "The store cannot be used now."
        return HttpError(503, text, headers=later, rule="store-unavailable")
    known = {AccountExists: (409, "account-exists"), AccountUnknown: (404, "account-unknown")}
    status, rule = known.get(type(error), (400, ""))
    return HttpError(status, str(error), rule=rule)


def problem(error: HttpError) -> HttpResponse:
    """A refusal as application/problem+json."""
    title = error.title or PHRASES.get(error.status, "Refused")
    about = {
        "type": "about:blank",
        "title": title,
        "status": error.status,
        "detail": error.detail,
        **error.more,
    }
    body = json.dumps({key: value for key, value in about.items() if value != ""}, ensure_ascii=False)
    return HttpResponse(error.status, body.encode(), "application/problem+json", error.headers)
