"""Where time goes in what is slow and not asked for often: logins, commands, requests by HTTP, `migrate`.

A span is a part of such work with a beginning and an end. Without `tracing.endpoint` nothing of this is
called: `xmppd.seeing.traced` has the parts of a server tell of their spans only where somebody wants them,
and `xmppd.seeing.otel` records them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from xmppd.errors import ConfigError

if TYPE_CHECKING:
    from xmppd.config import Config

CLOSE_SECONDS: Final = 0.9
"""How long the end of a process waits until spans are sent."""

Attributes = Mapping[str, str | int | bool]
NO_ATTRIBUTES: Final[Attributes] = MappingProxyType({})


class Span(Protocol):
    """One that has begun. A problem is a word of the code, never a text that might name somebody."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""

    @property
    def is_recorded(self) -> bool:
        """Whether anybody will see it: it was sampled, and is not over."""

    def child(
        self,
        name: str,
        attributes: Attributes = NO_ATTRIBUTES,
        *,
        began: int | None = None,
        asks: bool = False,
    ) -> Span:
        """Begin a part of it, or one that `began` at a moment in nanoseconds since the epoch; it `asks`
        another program for something.
        """

    def name(self, name: str) -> None:
        """Call it otherwise."""

    def set(self, name: str, value: str | int | bool) -> None:
        """Say something of it."""

    def end(self, problem: str = "") -> None:
        """It is over; harmless if repeated."""


class Spans(Protocol):
    """Records spans. `counts`: how many were `exported`, could not be (`failed`), or were `dropped` because
    too many waited.
    """

    @property
    def counts(self) -> Mapping[str, int]: ...

    def begin(
        self,
        name: str,
        attributes: Attributes = NO_ATTRIBUTES,
        *,
        began: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Span:
        """Begin one that is a part of no other here; with `headers` (names in lower case) somebody else asked
        for it, and may say of what it is a part (W3C Trace Context).
        """

    def close(self, seconds: float) -> None:
        """Send what has ended, for so many seconds at most."""


CURRENT: Final[ContextVar[Span | None]] = ContextVar("span", default=None)


def current() -> Span | None:
    """The span that the caller is a part of. A job that outlives it is a part of none."""
    span = CURRENT.get()
    return None if span is None or span.is_over else span


@contextmanager
def inside(span: Span) -> Iterator[None]:
    """What is done meanwhile is a part of a span, with all that it begins, until that is over."""
    before = CURRENT.get()
    CURRENT.set(span)
    try:
        yield
    finally:
        CURRENT.set(before)  # no token: a coroutine may go on elsewhere than it began


@contextmanager
def whole(span: Span) -> Iterator[Span]:
    """The same, and it is over with that."""
    try:
        with inside(span):
            yield span
    except BaseException as error:
        span.end(problem_of(error))
        raise
    span.end()


@contextmanager
def step(name: str, attributes: Attributes = NO_ATTRIBUTES) -> Iterator[None]:
    """A part of the current span; nothing where there is none."""
    span = current()
    if span is None:
        yield
        return
    with whole(span.child(name, attributes)):
        yield


def problem_of(error: BaseException) -> str:
    """An error in a word: the condition or rule by which it is known, or its class."""
    return str(getattr(error, "condition", "") or getattr(error, "rule", "") or type(error).__name__)


def spans_of(config: Config) -> Spans | None:
    """What records the spans of this process, at work; None where nobody wants any. ConfigError without the
    library.
    """
    tracing = config.tracing
    if tracing.endpoint is None:
        return None
    spans: Spans = recorder(config).exported(tracing.endpoint, tracing.service_name, tracing.ratio)
    return spans


def recorder(config: Config) -> Any:
    """The module that records spans, which a configuration asks for; ConfigError without its library."""
    try:
        return importlib.import_module("xmppd.seeing.otel")  # it takes a third of a second
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "opentelemetry":
            raise
        message = "needs OpenTelemetry, which is not installed: pip install 'xmppd[otel]'"
        raise ConfigError([config.problem(("tracing", "endpoint"), message)]) from None


class Door(Protocol):
    """See `xmppd.migrating.importing.Door`."""

    def call(self, name: str, arguments: Mapping[str, Any]) -> Any: ...


Reach = Callable[[], AbstractContextManager[Door]]


class SteppedDoor:
    """Each command behind it is a part of the span of the run."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Run a command."""
        with step(f"ask {name}"):
            return self._door.call(name, arguments)


@contextmanager
def traced_run(name: str, config: Config, reach: Reach) -> Iterator[Reach]:
    """A run of the command line that takes long, in a span of its own: how it reaches the server then."""
    spans = spans_of(config)
    if spans is None:
        yield reach
        return

    @contextmanager
    def stepped() -> Iterator[Door]:
        with reach() as door:
            yield SteppedDoor(door)

    try:
        with whole(spans.begin(name)):
            yield stepped
    finally:
        spans.close(CLOSE_SECONDS)
