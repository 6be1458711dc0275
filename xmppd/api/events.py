"""Records as Server-Sent Events (the EventSource of HTML): an id, a line of JSON, and comments in between.
Who loses his connection goes on where he was, if he comes again soon.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

from xmppd.admin.commands import Caller
from xmppd.admin.registry import Commands, Followed
from xmppd.errors import StoreError
from xmppd.parts.http import HttpError, HttpRequest

CONTENT_TYPE: Final = "text/event-stream"
CHECK_SECONDS: Final = 5.0
"""How often it is looked whether the caller may still."""
KEPT_SECONDS: Final = 30.0
"""How long somebody may be away whose connection broke."""
KEPT_EVENTS: Final = 512
KEPT_BYTES: Final = 524_288
"""What was sent last and may not have come."""
BEAT: Final = b":\n\n"
"""Says that this goes on."""
RETRY: Final = b"retry: 3000\n\n"
"""When a client whose connection broke comes again, in milliseconds."""

Key = tuple[str, frozenset[str] | None, str, str]
"""Who follows what: his name and scopes, the command and its arguments."""


class Track:
    """What one caller follows, whichever of his connections he has now. Its events have numbers from 1 on,
    and ids `TRACK.NUMBER`; those sent last are kept.
    """

    def __init__(self, key: Key, followed: Followed) -> None:
        self.id = secrets.token_hex(6)
        self.key = key
        self.number = 0
        self.owner: Events | None = None
        self.is_over = False
        self.timer: asyncio.TimerHandle | None = None
        self._followed = followed
        self._sent: deque[bytes] = deque()
        self._bytes = 0
        self._turn = asyncio.Lock()

    def event(self, number: int, record: Mapping[str, Any], kind: str = "") -> bytes:
        """As it is written."""
        data = json.dumps(record, ensure_ascii=False)
        name = f"event: {kind}\n" if kind else ""
        return f"id: {self.id}.{number}\n{name}data: {data}\n\n".encode()

    def add(self, record: Mapping[str, Any], kind: str = "") -> bytes:
        """One more."""
        self.number += 1
        event = self.event(self.number, record, kind)
        self._sent.append(event)
        self._bytes += len(event)
        while len(self._sent) > KEPT_EVENTS or (self._bytes > KEPT_BYTES and len(self._sent) > 1):
            self._bytes -= len(self._sent.popleft())
        return event

    @property
    def first(self) -> int:
        """The number of the first event that is kept, or of the next one."""
        return self.number - len(self._sent) + 1

    async def after(self, number: int) -> bytes | None:
        """The event with the next number; None where there was none for a while. StopAsyncIteration at the
        end.
        """
        async with self._turn:
            if number < self.number:
                return self._sent[number + 1 - self.first]
            record = await self._followed.next()
            return None if record is None else self.add(record)

    async def close(self) -> None:
        """Nobody wants it any more; harmless if repeated."""
        self.is_over = True
        if self.timer is not None:
            self.timer.cancel()
        await self._followed.close()


class Tracks:
    """All that is followed by HTTP. Who has left is waited for, unless there is no room for another one."""

    def __init__(self, commands: Commands, spawn: Callable[[Any], object] = asyncio.ensure_future) -> None:
        self._commands = commands
        self._spawn = spawn
        self._by_id: dict[str, Track] = {}
        self._is_closed = False
        commands.spare = self._spare

    async def open(self, name: str, arguments: Mapping[str, Any], by: Caller, request: HttpRequest) -> Events:
        """Begin to follow, or go on; CommandError."""
        key = (by.name, by.scopes, name, json.dumps(arguments, sort_keys=True))
        last = request.headers.get("last-event-id", "").strip()
        id, _, digits = last.partition(".")
        track = self._by_id.get(id)
        number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 16 else -1
        if track is not None and track.key == key and not track.is_over and 0 <= number <= track.number:
            return Events(self, track, request, number)
        track = Track(key, await self._commands.follow(name, arguments, by))
        self._by_id[track.id] = track
        if last:
            track.add({"what": "note", "note": f"what came since event {last[:40]} is lost"})
        return Events(self, track, request, 0)

    async def left(self, track: Track, *, is_kept: bool) -> None:
        """Nobody reads it now."""
        track.owner = None
        if not is_kept or track.is_over or self._is_closed:
            await self._end(track)
            return
        loop = asyncio.get_running_loop()
        track.timer = loop.call_later(KEPT_SECONDS, lambda: self._spawn(self._end_unless_back(track)))

    async def close(self) -> None:
        """The server stops: nobody is waited for."""
        self._is_closed = True
        for track in [it for it in self._by_id.values() if it.owner is None]:
            await self._end(track)

    async def _spare(self) -> bool:
        """Whether there was one that nobody reads now: the one left first is ended."""
        waiting = [it for it in self._by_id.values() if it.owner is None and it.timer is not None]
        if not waiting:
            return False
        await self._end(min(waiting, key=_when))
        return True

    async def _end_unless_back(self, track: Track) -> None:
        if track.owner is None:
            await self._end(track)

    async def _end(self, track: Track) -> None:
        self._by_id.pop(track.id, None)
        await track.close()


class Events(AsyncIterator[bytes]):
    """The body of a response: the events of a track behind a number. What is kept of it no more is said to be
    lost. There is one for a track at a time, the last one that was made.
    """

    def __init__(self, tracks: Tracks, track: Track, request: HttpRequest, number: int) -> None:
        self._tracks = tracks
        self._track = track
        self._request = request
        self._number = number
        self._is_begun = False
        if track.timer is not None:
            track.timer.cancel()
            track.timer = None
        track.owner = self
        self._pieces = self._all()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces

    def __anext__(self) -> Awaitable[bytes]:
        return self._pieces.__anext__()

    async def _all(self) -> AsyncIterator[bytes]:
        self._is_begun = True
        track = self._track
        yield RETRY
        checked = time.monotonic()
        while track.owner is self:
            if self._number + 1 < track.first:
                note = f"events {self._number + 1} to {track.first - 1} are lost"
                self._number = track.first - 1
                yield track.event(self._number, {"what": "note", "note": note})
            try:
                event = await track.after(self._number)
            except StopAsyncIteration:
                yield self._end("there is nothing more")
                return
            if event is None:
                yield BEAT
            else:
                self._number += 1
                yield event
            if time.monotonic() - checked >= CHECK_SECONDS:
                checked = time.monotonic()
                if not await self._may_go_on():
                    yield self._end("the token does not allow this any more")
                    return

    async def aclose(self) -> None:
        """He has left."""
        if self._track.owner is self:
            await self._tracks.left(self._track, is_kept=self._is_begun)

    def _end(self, note: str) -> bytes:
        """Nothing comes behind it."""
        self._track.is_over = True
        return self._track.event(self._track.number + 1, {"what": "end", "note": note}, "end")

    async def _may_go_on(self) -> bool:
        try:
            return await self._request.is_still_allowed()
        except (StoreError, HttpError):
            return False


def _when(track: Track) -> float:
    return 0.0 if track.timer is None else track.timer.when()
