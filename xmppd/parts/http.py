"""What plugins serve by HTTP: routes, requests, responses and refusals."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from xmppd.errors import XmppdError
from xmppd.marks import mark, marked

Method = TypeVar("Method", bound=Callable[..., Any])

PUBLIC: Final = ""
"""The scope of a route that asks for no token."""
METHODS: Final = frozenset(("GET", "POST", "PUT", "PATCH", "DELETE"))
JSON: Final = "application/json"
OWN: Final = frozenset(("api", "readyz", "healthz", "metrics"))
"""What paths begin with that are the server's own."""


@dataclass(frozen=True, slots=True)
class Route:
    """One method and path. `{name}` stands for one segment of the path, of which the request has the text.

    `max_bytes` and `seconds` bound its requests more tightly than the configuration; 0: as that does. A token
    that has one of the `wider` scopes will do, too.
    """

    method: str
    path: str
    scope: str
    max_bytes: int = 0
    seconds: float = 0.0
    wider: frozenset[str] = frozenset()

    @property
    def segments(self) -> tuple[str, ...]:
        """The path in pieces; ValueError for one that cannot be served."""
        if self.method not in METHODS:
            raise ValueError(f"{self.method!r} is none of {', '.join(sorted(METHODS))}")
        if not self.path.startswith("/") or "//" in self.path or self.path.endswith("/"):
            raise ValueError(f"the path {self.path!r} must be like /rooms/{{room}}")
        segments = tuple(self.path[1:].split("/"))
        for segment in segments:
            inner = segment.removeprefix("{").removesuffix("}")
            if ("{" in segment or "}" in segment) and not (
                segment == f"{{{inner}}}" and inner.isidentifier()
            ):
                raise ValueError(f"the path {self.path!r} has a piece that is neither text nor {{name}}")
        return segments

    @property
    def shape(self) -> tuple[str, ...]:
        """What two routes that cannot be told apart have in common."""
        return (self.method, *("{}" if segment.startswith("{") else segment for segment in self.segments))


def route(
    method: str, path: str, *, scope: str, max_bytes: int = 0, seconds: float = 0.0
) -> Callable[[Method], Method]:
    """Marks the method, plain or async, that serves requests of callers whose token has the scope, or of all
    with `scope=PUBLIC`.

    It takes an HttpRequest and returns data that JSON can hold, an HttpResponse, or None (204); it refuses by
    raising HttpError.
    """
    return lambda function: mark(function, Route(method, path, scope, max_bytes, seconds))


class HttpError(XmppdError):
    """Refuses a request with a status and, as RFC 9457 has it, a title, a sentence of detail, and `more`."""

    def __init__(
        self,
        status: int,
        detail: str = "",
        *,
        title: str = "",
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail or title or str(status))
        self.headers: Mapping[str, str] = headers or {}
        self.status = status
        self.title = title
        self.detail = detail
        self.more = more


async def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request for a handler.

    `params` are the pieces of the path by name, `fields` those of the query in their order, `headers` have
    names in lower case, `caller` is the name of the token ("" on a public route) and `scopes` what it may do,
    `peer` the address.
    """

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    fields: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    caller: str = ""
    peer: str = ""
    scopes: frozenset[str] = frozenset()
    is_still_allowed: Callable[[], Awaitable[bool]] = _always
    """Whether the caller may still ask for this, for who answers for long; StoreError."""

    @property
    def query(self) -> Mapping[str, str]:
        """The last value of each field."""
        return dict(self.fields)

    def json(self) -> Any:
        """The body as JSON; HttpError 400 when it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise HttpError(400, "The body must be JSON.", rule="body") from None


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What goes out; with `content_type` "" nothing is said about the body. `pieces`, where there are any,
    are the body as it is made, and closed by `aclose` if they have that.
    """

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: AsyncIterator[bytes] | None = None


class HttpFailed(XmppdError):
    """A request had no answer: the sentence says why. `is_refused`: it was not sent, for who was to be asked
    may not be.
    """

    def __init__(self, why: str, *, is_refused: bool = False) -> None:
        super().__init__(why)
        self.is_refused = is_refused


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What another server answered; names of headers are in lower case, the body may be cut."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


class HttpClient(Protocol):
    """Asks others by HTTP: see `Server.http_client`."""

    async def get(self, url: str, headers: Mapping[str, str]) -> HttpAnswer:
        """Ask for what is there; HttpFailed."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        """Send a body; HttpFailed."""

    def check(self, url: str) -> None:
        """ValueError for a URL that it never asks, as far as that can be said without the net."""

    async def close(self) -> None:
        """Cut what is under way."""


HttpHandler = Callable[[HttpRequest], Any | Awaitable[Any]]


def response_of(result: Any) -> HttpResponse:
    """What a handler's result makes go out; TypeError for what is neither a response nor data."""
    if isinstance(result, HttpResponse):
        return result
    if result is None:
        return HttpResponse(204, content_type="")
    return HttpResponse(200, json.dumps(result, ensure_ascii=False).encode(), JSON)


def routes_of(plugin: object) -> list[tuple[Route, HttpHandler]]:
    """The plugin's routes, with the bound methods that serve them."""
    return [(found, method) for method, found in marked(plugin, Route)]
