"""What happens at the server, told to others than its own parts: kinds of events, each with a declared shape,
and those who listen. An event is plain data, and the same for all of them.
"""

from __future__ import annotations

import re
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Final, Literal

from xmppd.core.ids import HybridClock
from xmppd.core.intents import Happened, Intent, Keeper, place_of

FieldType = Literal["text", "number", "flag", "texts", "object"]

_NAME: Final = re.compile(r"[a-z][a-z0-9-]*(\.[a-z][a-z0-9-]*)+")
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "text": (str,),
    "number": (int, float),
    "flag": (bool,),
    "texts": (list, tuple),
    "object": (dict,),
}


@dataclass(frozen=True, slots=True)
class EventField:
    """One field of the data of an event; null where it has no value if it is `optional`."""

    type: FieldType
    help: str
    optional: bool = False

    def fits(self, value: Any) -> bool:
        """Whether it may have this value."""
        if value is None:
            return self.optional
        if isinstance(value, bool) and self.type != "flag":
            return False
        if not isinstance(value, _TYPES[self.type]):
            return False
        return not isinstance(value, list | tuple) or all(isinstance(one, str) for one in value)


@dataclass(frozen=True, slots=True)
class EventKind:
    """One kind of event: `noun.verb`. Its `fields` are those of the data, all of which are always there; a
    change that a reader could stumble over makes another `version`. `example` has data of that shape. With
    `is_asked` it is told only to who names it: no pattern with a star does. `key` are the fields that tell
    one from another that is about to happen to the same account at the same time (`Intent`).
    """

    name: str
    help: str
    fields: Mapping[str, EventField] = field(default_factory=dict)
    example: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1
    is_asked: bool = False
    key: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is not the name of an event: that is like friend.added")
        self.check(self.example)

    def check(self, data: Mapping[str, Any]) -> None:
        """ValueError for data of another shape."""
        for name, about in self.fields.items():
            if name not in data:
                raise ValueError(f"{self.name}: {name} is missing")
            if not about.fits(data[name]):
                raise ValueError(f"{self.name}: {name} must be a {about.type}, not {data[name]!r}")
        if len(data) > len(self.fields):
            unknown = ", ".join(sorted(data.keys() - self.fields.keys()))
            raise ValueError(f"{self.name}: there is no field {unknown}")

    def is_meant(self, pattern: str) -> bool:
        """Whether somebody who listens to `pattern` is told: a name, or the beginning of some with a star."""
        return pattern == self.name if self.is_asked else fnmatchcase(self.name, pattern)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, at `time` (seconds since the epoch) on a `node` ("" where there is one only)
    and to an `account` ("" for none). Ids are unique, and rise with time as far as one node tells.
    """

    id: str
    kind: str
    version: int
    time: float
    node: str
    account: str
    data: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The same as JSON has it."""
        return {
            "id": self.id,
            "kind": self.kind,
            "version": self.version,
            "time": self.time,
            "node": self.node,
            "account": self.account,
            "data": dict(self.data),
        }


Listener = Callable[[Event], Awaitable[None] | None]
Told = Awaitable[None] | None


class Events:
    """All kinds of events of one server, and who listens. `sources` tell the server's own; one takes part
    only while somebody listens to any of its `kinds`, so what nobody wants costs nothing.
    """

    def __init__(
        self,
        time: HybridClock,
        failed: Callable[[Callable[..., Any], Exception], None],
        node: Callable[[], str],
    ) -> None:
        self._time = time
        self._failed = failed
        self._node = node
        self._tag = secrets.token_hex(4)
        self._listeners: Mapping[str, tuple[Listener, ...]] = {}
        self.sources: Sequence[Any] = ()
        self.kinds: Mapping[str, EventKind] = {}
        self.own: dict[Listener, tuple[str, ...]] = {}
        """Who listens besides plugins, and by which patterns; then `changed` is to be called."""
        self.changed: Callable[[], None] = lambda: None
        """To be called when somebody listens to other kinds than before."""
        self.keeper: Keeper | None = None
        """Who writes events down before they happen."""
        self._foreseen: dict[tuple[Any, ...], deque[Intent]] = {}
        self._checks: Mapping[str, Happened] = {}

    def compile(
        self,
        kinds: Iterable[EventKind],
        listeners: Iterable[tuple[Listener, Iterable[str]]],
        checks: Mapping[str, Happened] | None = None,
    ) -> None:
        """Plugins tell these kinds now, and listen by these patterns; `checks` say of some whether they
        happened. ValueError for a kind that is there twice.
        """
        known: dict[str, EventKind] = {}
        for kind in (*(kind for source in self.sources for kind in source.kinds), *kinds):
            if kind.name in known:
                raise ValueError(f"there are two kinds of events {kind.name}")
            known[kind.name] = kind
        found: dict[str, list[Listener]] = {}
        for listener, patterns in (*listeners, *self.own.items()):
            wanted = [*patterns]
            for kind in known.values():
                if any(kind.is_meant(pattern) for pattern in wanted):
                    found.setdefault(kind.name, []).append(listener)
        self.kinds = known
        own = {kind.name: source.happened for source in self.sources for kind in source.kinds}
        self._checks = {**own, **(checks or {})}
        self._listeners = {name: tuple(some) for name, some in found.items()}
        if self.keeper is not None:
            for source in self.wanted:
                source.kept()

    def now(self) -> float:
        """Seconds since the epoch, never before what was told."""
        return self._time.read() / 1e6

    @property
    def wanted(self) -> list[Any]:
        """The sources of what anybody listens to."""
        return [it for it in self.sources if any(self.wants(kind) for kind in it.kinds)]

    def wants(self, kind: EventKind) -> bool:
        """Whether anybody listens to it."""
        return kind.name in self._listeners

    def tell(self, kind: EventKind, account: str, data: Mapping[str, Any]) -> Told:
        """Tell that it happened now. What is returned, if anything, is done when all who keep it have it
        safe; who acknowledges what happened waits for that. ValueError for data of another shape.
        """
        listeners = self._listeners.get(kind.name)
        if listeners is None:
            return None
        kind.check(data)
        event = self._foretold(kind, account, data) if self._foreseen else self.event(kind, account, data)
        waiting: list[tuple[Listener, Awaitable[None]]] = []
        for listener in listeners:
            try:
                told = listener(event)
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything
                self._failed(listener, error)
            else:
                if told is not None:
                    waiting.append((listener, told))
        if not waiting:
            return None
        return waiting[0][1] if len(waiting) == 1 else self._all(waiting)

    async def _all(self, waiting: Sequence[tuple[Listener, Awaitable[None]]]) -> None:
        for listener, told in waiting:
            try:
                await told
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything
                self._failed(listener, error)

    # before it happens

    def intent(self, kind: EventKind, account: str, data: Mapping[str, Any]) -> Intent | None:
        """An event that is about to happen, with its data as far as they are known; None where nobody keeps
        such. ValueError for data of another shape.
        """
        if not self.keeps(kind, account):
            return None
        assert self.keeper is not None, "it keeps such"
        kind.check(data)
        return Intent(self, self.keeper, kind, account, data)

    def keeps(self, kind: EventKind, account: str) -> bool:
        """Whether somebody keeps such an event of this account, and what is about to become one."""
        keeper = self.keeper
        return keeper is not None and kind.name in self._listeners and keeper.keeps(kind.name, account)

    def event(self, kind: EventKind, account: str, data: Mapping[str, Any]) -> Event:
        """One of this moment."""
        at = self._time.next()
        number = f"{at:015x}-{self._tag}"
        return Event(number, kind.name, kind.version, at / 1e6, self._node(), account, data)

    async def begin_behind(self) -> None:
        """Have told what a process did that was killed, before anything newer happens."""
        if self.keeper is not None:
            await self.keeper.begin_behind()

    async def happened(
        self, kind: EventKind, account: str, data: Mapping[str, Any], about: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """See `Happened`."""
        check = self._checks.get(kind.name)
        return data if check is None else await check(kind, account, data, about)

    def foreseen(self, intent: Intent) -> None:
        """It may be told from now on."""
        self._foreseen.setdefault(intent.place, deque()).append(intent)

    def is_foreseen(self, intent: Intent) -> bool:
        """Whether it was neither told nor given up."""
        return intent in self._foreseen.get(intent.place, ())

    def unforeseen(self, intent: Intent) -> bool:
        """It will not be told; whether it would have been."""
        queue = self._foreseen.get(intent.place)
        if queue is None or intent not in queue:
            return False
        queue.remove(intent)
        if not queue:
            del self._foreseen[intent.place]
        return True

    def _foretold(self, kind: EventKind, account: str, data: Mapping[str, Any]) -> Event:
        """An event under the id that it has if it was foreseen."""
        queue = self._foreseen.get(place_of(kind, account, data))
        if queue is None:
            return self.event(kind, account, data)
        intent = queue[0]
        self.unforeseen(intent)
        assert intent.event is not None, "it is foreseen"
        return replace(intent.event, data=data)
