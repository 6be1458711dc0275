"""Events that are about to happen. Who keeps events has them on disk before what they tell of is done, with
what shows afterwards whether it was: so a kill between the deed and the event leaves nothing untold.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from xmppd.core.events import Event, EventKind, Events

Data = Mapping[str, Any]
Happened = Callable[["EventKind", str, Data, Data], Awaitable[Data | None]]
"""(kind, account, data, about): the data of an event that was about to happen, None where it did not. Where
nobody can say it did. Asked when whoever was to do it does not do it any more; StoreError.
"""


class Note(Protocol):
    """What is written of one event before it happens. It goes when the event is safe."""

    def written(self) -> asyncio.Future[None]:
        """It is on disk when this is done; StoreError: nothing is to be done."""

    def drop(self) -> None:
        """It did not happen."""

    def doubt(self) -> None:
        """Nobody here knows whether it did: find out, later."""


class Keeper(Protocol):
    """Writes such notes. Those of a process that was killed it goes through with `Events.happened`."""

    def keeps(self, kind: str, account: str) -> bool:
        """Whether anybody is to be told of such an event of this account. Asked often."""

    def begin(self, event: Event, about: Data) -> Note:
        """Begin to write; an event with this id is told afterwards, or the note is dropped or in doubt."""

    async def begin_behind(self) -> None:
        """Go through those of a process before this one: all plugins are at work, and nobody is here yet."""


class Intent:
    """One event that is about to happen. `Events.tell` takes it up by what its kind says of that (`key`), and
    tells under the id that it has here: so what is told again after a kill has the same one.
    """

    __slots__ = ("_data", "_events", "_keeper", "_note", "account", "event", "kind", "place")

    def __init__(self, events: Events, keeper: Keeper, kind: EventKind, account: str, data: Data) -> None:
        self._events = events
        self._keeper = keeper
        self._data = data
        self._note: Note | None = None
        self.kind = kind
        self.account = account
        self.place = place_of(kind, account, data)
        self.event: Event | None = None

    def foresee(self, about: Data) -> asyncio.Future[None]:
        """Give it its id, which is as old as this moment, and write it down with what shows whether it
        happened. Only when that is done it may; StoreError. For another attempt call this again.
        """
        self.drop()
        self.event = self._events.event(self.kind, self.account, self._data)
        self._note = self._keeper.begin(self.event, about)
        self._events.foreseen(self)
        return self._note.written()

    async def begin(self, about: Data) -> None:
        """The same, awaited."""
        try:
            await self.foresee(about)
        except BaseException:
            self.drop()
            raise

    @property
    def is_open(self) -> bool:
        """Whether it is written down, and was neither told nor given up."""
        return self._note is not None and self._events.is_foreseen(self)

    def drop(self) -> None:
        """It does not happen. Harmless when it was told."""
        if self._note is not None and self._events.unforeseen(self):
            self._note.drop()

    def doubt(self) -> None:
        """It is not known whether it did. Harmless when it was told."""
        if self._note is not None and self._events.unforeseen(self):
            self._note.doubt()


@asynccontextmanager
async def around(intent: Intent | None, about: Data | None = None) -> AsyncIterator[Intent | None]:
    """Around a deed and the telling of it: what was not told by then did not happen, unless it failed. With
    `about` it is begun here; StoreError.
    """
    if intent is not None and about is not None:
        await intent.begin(about)
    try:
        yield intent
    except BaseException:
        if intent is not None:
            intent.doubt()
        raise
    else:
        if intent is not None:
            intent.drop()


def place_of(kind: EventKind, account: str, data: Data) -> tuple[Any, ...]:
    """What an event is found by that was foreseen."""
    return kind.name, account, *(data[name] for name in kind.key)
