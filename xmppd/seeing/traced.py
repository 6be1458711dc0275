"""The parts of a server that tell of their spans: logins, requests by HTTP, commands, and what these ask the
store for.

Objects of a server without spans know nothing of this; where there are any they are given other classes. A
stream has its own back when it is bound: stanzas have no spans.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from xmppd.access.callers import Known
from xmppd.admin.commands import NOBODY, Caller, Json
from xmppd.admin.registry import Commands, Followed
from xmppd.core.later import Later
from xmppd.errors import StreamError
from xmppd.net.c2s.service import Service
from xmppd.net.c2s.stream import Stream
from xmppd.net.http.routes import UNPACED, Routes
from xmppd.parts.http import HttpHandler, HttpResponse, Route
from xmppd.seeing.spans import Span, Spans, current, inside, problem_of, whole
from xmppd.stream.rows import Waiting
from xmppd.stream.sasl import Attempt
from xmppd.xml.stanza import Stanza

if TYPE_CHECKING:
    from xmppd.app import App

STEPS: Final = frozenset(
    ("starttls", "auth", "authenticate", "response", "next", "abort", "iq", "enable", "resume")
)
"""Elements of a login that give a step its name; all others are `other`, since clients choose them."""
STORE_CALLS: Final = (
    "get", "get_many", "get_static", "get_rows", "scan", "scan_many", "scan_columns", "scan_all",
    "put", "put_many", "put_newest", "put_if", "delete", "delete_if", "batch",
)  # fmt: skip
"""Methods of a store that have a table first."""


def trace(app: App, spans: Spans) -> None:
    """Have a server tell of its spans from now on."""
    app.service.__class__ = _traced_service(Comers(spans, with_account=app.config.tracing.accounts))
    app.logins.attempted = attempted
    app.routes.__class__ = _traced_routes(spans)
    app.commands.__class__ = _traced_commands(spans)
    app.store.__class__ = _traced_store(type(app.store), app.config.store.engine)


def attempted(attempt: Attempt, outcome: str) -> None:
    """See `Logins.attempted`."""
    span = current()
    if span is not None:
        span.set("xmppd.mechanism", attempt.mechanism)
        span.set("xmppd.outcome", outcome)


class Coming:
    """A client that has connected and not bound a resource. Its span begins with its first byte, as of when
    it connected: whoever says nothing has none.
    """

    __slots__ = ("_began", "_is_over", "_problem", "_span", "_steps", "_tls")

    def __init__(self) -> None:
        self._began = time.time_ns()
        self._span: Span | None = None
        self._tls: Span | None = None
        self._steps = 0
        self._problem = ""
        self._is_over = False

    def heard(self, spans: Spans, stream: Stream) -> None:
        """It has said something: a handshake that was begun is done."""
        if self._span is None:
            attributes = {"xmppd.transport": stream.link.kind}
            self._span = spans.begin("login", attributes, began=self._began)
            if stream.link.security == "direct":
                self._tls = self._span.child("login tls", began=self._began)
        if self._tls is not None:
            self._tls.end()
            self._tls = None

    def encrypting(self) -> None:
        """TLS begins with what comes next."""
        if self._span is not None:
            self._tls = self._span.child("login tls")

    def step(self, stanza: Stanza, work: Callable[[Stanza], Waiting]) -> Waiting:
        """What it says next is dealt with."""
        if self._span is None:
            return work(stanza)
        local = stanza.kind.rpartition("}")[2]
        span = self._span.child(f"login {local if local in STEPS else 'other'}")
        self._steps += 1
        try:
            with inside(span):
                waiting = work(stanza)
        except BaseException as error:
            self._done(span, problem_of(error))
            raise
        if waiting is None or isinstance(waiting, Later):
            self._done(span)
            return waiting
        return self._rest(span, waiting)

    async def _rest(self, span: Span, waiting: Awaitable[None]) -> None:
        problem = ""
        try:
            with inside(span):
                await waiting
        except BaseException as error:
            problem = problem_of(error)
            raise
        finally:
            self._done(span, problem)

    def _done(self, span: Span, problem: str = "") -> None:
        span.end(problem)
        self._steps -= 1
        if self._is_over and self._span is not None and not self._steps:
            self._span.end(self._problem)

    def over(self, stream: Stream, problem: str, *, with_account: bool) -> None:
        """It has bound a resource, or with a `problem` has not."""
        self._problem = problem
        self._is_over = True
        if self._tls is not None:
            self._tls.end("gone")
        span = self._span
        if span is None:
            return
        span.set("xmppd.security", stream.link.security)
        if stream.domain:
            span.set("xmppd.domain", stream.domain)
        if (login := stream.login) is not None:
            span.set("xmppd.mechanism", login.mechanism)
            if with_account:
                span.set("xmppd.account", login.account)
        if problem or not self._steps:
            span.end(problem)


class Comers:
    """All of them."""

    def __init__(self, spans: Spans, *, with_account: bool) -> None:
        self.spans = spans
        self.by_stream: dict[Stream, Coming] = {}
        self._with_account = with_account
        self._traced = _traced_stream(self)

    def came(self, stream: Stream) -> None:
        """One more."""
        self.by_stream[stream] = Coming()
        stream.__class__ = self._traced

    def over(self, stream: Stream, problem: str = "") -> None:
        """It is none of them any more, if it was."""
        one = self.by_stream.pop(stream, None)
        if one is not None:
            stream.__class__ = Stream
            one.over(stream, problem, with_account=self._with_account)


def _traced_stream(comers: Comers) -> type[Stream]:
    class TracedStream(Stream):
        """A stream that is not bound."""

        __slots__ = ()

        def received(self, data: bytes) -> None:
            """The first byte, or that behind a handshake, tells."""
            if (one := comers.by_stream.get(self)) is not None:
                one.heard(comers.spans, self)
            super().received(data)

        def encrypt(self) -> None:
            """The handshake is a part."""
            super().encrypt()
            if (one := comers.by_stream.get(self)) is not None:
                one.encrypting()

        def close(self, error: StreamError | None) -> None:
            """It came to nothing."""
            super().close(error)
            comers.over(self, "gone" if error is None else error.condition)

        def _element(self, stanza: Stanza) -> Waiting:
            one = comers.by_stream.get(self)
            return super()._element(stanza) if one is None else one.step(stanza, super()._element)

    return TracedStream


def _traced_service(comers: Comers) -> type[Service]:
    class TracedService(Service):
        def admit(self, connection: Stream) -> StreamError | None:
            """A login may begin."""
            refusal = super().admit(connection)
            if refusal is None:
                comers.came(connection)
            return refusal

        def has_bound(self, connection: Stream) -> None:
            """It is done."""
            super().has_bound(connection)
            comers.over(connection)

        def forget(self, connection: Stream) -> None:
            """It came to nothing, or was done before."""
            comers.over(connection, "gone")
            super().forget(connection)

    return TracedService


def _traced_routes(spans: Spans) -> type[Routes]:
    class TracedRoutes(Routes):
        async def serve(
            self,
            method: str,
            target: str,
            headers: Mapping[str, str],
            read: Callable[[int], Awaitable[bytes]],
            peer: str,
        ) -> HttpResponse:
            """Each request is a span, but for those of who watches this server."""
            if target.partition("?")[0] in UNPACED:
                return await super().serve(method, target, headers, read, peer)
            span = spans.begin("HTTP", headers=headers)
            try:
                with inside(span):
                    response = await super().serve(method, target, headers, read, peer)
                span.set("http.response.status_code", response.status)
                span.end(str(response.status) if response.status >= 500 else "")
            finally:
                span.end("cancelled")
            return response

        def _find(self, method: str, segments: tuple[str, ...], peer: str) -> tuple[Route, HttpHandler]:
            route, handler = super()._find(method, segments, peer)
            if (span := current()) is not None:
                span.name(f"{route.method} {route.path}")
                span.set("http.request.method", method)
                span.set("http.route", route.path)
            return route, handler

        async def _caller(self, route: Route, headers: Mapping[str, str], peer: str) -> Known:
            known = await super()._caller(route, headers, peer)
            if known.name and (span := current()) is not None:
                span.set("xmppd.token", known.name)
            return known

    return TracedRoutes


def _traced_commands(spans: Spans) -> type[Commands]:
    def begun(name: str, by: Caller) -> Span:
        attributes = {"xmppd.command": name, "xmppd.door": by.door or "server"}
        parent = current()
        title = f"command {name}"
        return spans.begin(title, attributes) if parent is None else parent.child(title, attributes)

    class TracedCommands(Commands):
        async def call(self, name: str, arguments: Mapping[str, Json], by: Caller = NOBODY) -> Any:
            """Each command that there is is a span."""
            if name not in self._by_name:
                return await super().call(name, arguments, by)
            with whole(begun(name, by)):
                return await super().call(name, arguments, by)

        async def follow(self, name: str, arguments: Mapping[str, Json], by: Caller = NOBODY) -> Followed:
            """Its beginning is."""
            if name not in self._by_name:
                return await super().follow(name, arguments, by)
            with whole(begun(name, by)):
                return await super().follow(name, arguments, by)

    return TracedCommands


def _traced_store(own: type[Any], engine: str) -> type[Any]:
    """A store whose calls are parts of the current span, where there is one."""

    def traced(name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        def call(self: Any, table: Any, *arguments: Any, **options: Any) -> Awaitable[Any]:
            waiting = method(self, table, *arguments, **options)
            span = current()
            if span is None or not span.is_recorded:
                return waiting
            about = {
                "db.system.name": engine,
                "db.operation.name": name,
                "db.collection.name": table.name,
            }
            return _asked(span.child(f"store {name}", about, asks=True), waiting)

        return call

    methods = {name: traced(name, getattr(own, name)) for name in STORE_CALLS if hasattr(own, name)}
    return type(own.__name__, (own,), {"__slots__": (), **methods})


async def _asked(span: Span, waiting: Awaitable[Any]) -> Any:
    try:
        found = await waiting
    except BaseException as error:
        span.end(problem_of(error))
        raise
    span.end()
    return found
