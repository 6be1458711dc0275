"""All commands of one server by name: called, followed, checked; and who writes down what is done."""

from __future__ import annotations

import difflib
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol

from xmppd.admin.commands import (
    NOBODY,
    UNAVAILABLE,
    USAGE,
    Caller,
    Command,
    Description,
    Json,
    as_command_error,
    clashes,
)
from xmppd.errors import CommandError, StoreTimeout, XmppdError

MOST_FOLLOWED: Final = 8
"""Callers that may follow something at once."""
BEAT_SECONDS: Final = 5.0
"""After how long without a record a caller is shown that this goes on."""
MOST_SECONDS: Final = 3600.0
"""How long one may follow something."""


class Records(Protocol):
    """What a command that follows returns: a Feed."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes."""

    async def next(self, seconds: float) -> Mapping[str, Any] | None:
        """The next one; None when there was none for so many seconds, or nothing more comes."""

    def close(self) -> None:
        """The reader leaves."""


class Entry(Protocol):
    """What a witness writes of one command."""

    async def end(self, outcome: str, detail: str = "") -> None:
        """What became of it: `done`, `refused`, `failed`, or `unknown`. Never raises."""


class Witness(Protocol):
    """Writes down what is done."""

    async def begin(self, about: Description, arguments: Mapping[str, Json], by: Caller) -> Entry:
        """A command is about to be done. Never raises."""


class Followed:
    """What one caller follows, until he leaves or it has gone on for MOST_SECONDS. Who made it closes it."""

    def __init__(self, records: Records, left: Callable[[Followed], Awaitable[None]]) -> None:
        self._records = records
        self._left = left
        self._end = time.monotonic() + MOST_SECONDS

    async def next(self) -> Mapping[str, Any] | None:
        """The next record; None when there was none for BEAT_SECONDS. StopAsyncIteration at the end."""
        record = await self._records.next(BEAT_SECONDS)
        if record is None and self._records.is_over:
            raise StopAsyncIteration
        if time.monotonic() > self._end and not self._records.is_over:
            self._records.close()
            return {"what": "note", "note": f"nobody follows for more than {MOST_SECONDS:g} s: begin anew"}
        return record

    async def close(self) -> None:
        """He leaves; harmless if repeated."""
        self._records.close()
        await self._left(self)


class Commands:
    """Every command that one server offers, by name. `on_changed` is called when there are others. What
    changes something, or is guarded, is shown to the `witness`.
    """

    def __init__(self, commands: Iterable[Command] = ()) -> None:
        self.witness: Witness | None = None
        self._by_name: dict[str, Command] = {}
        self._followed: dict[Followed, Entry | None] = {}
        self._beginning = 0
        self.spare: Callable[[], Awaitable[bool]] = _nothing
        """Ends what is followed by somebody who is away, if there is such; whether there was."""
        self.on_changed: Callable[[], None] = lambda: None
        self.add(
            Command(
                "commands", "List every command of the running server", reads=True, function=self.describe
            )
        )
        self.add(*commands)

    def add(self, *commands: Command) -> None:
        """Offer more commands; ValueError when a name is taken, and then none of them is added."""
        added = dict(self._by_name)
        for new in commands:
            if clashes(new.name, added):
                raise ValueError(
                    f"there is already a command {new.name}, or one that begins or goes on like it"
                )
            added[new.name] = new
        self._by_name = added
        self.on_changed()

    def remove(self, *names: str) -> None:
        """Take commands back (their plugin is unloaded); unknown names are ignored."""
        for name in names:
            self._by_name.pop(name, None)
        self.on_changed()

    def __iter__(self) -> Iterator[Command]:
        """All of them, by name."""
        return iter([self._by_name[name] for name in sorted(self._by_name)])

    @property
    def names(self) -> frozenset[str]:
        """What all are called."""
        return frozenset(self._by_name)

    def describe(self) -> list[dict[str, Any]]:
        """All descriptions as plain data, for doors in other processes."""
        return [found.as_json() for found in self]

    async def call(self, name: str, arguments: Mapping[str, Json], by: Caller = NOBODY) -> Any:
        """Run one command with arguments as they come from JSON; CommandError when it cannot be done."""
        found = self._found(name)
        if found.follows:
            message = f"{name} goes on until you leave: follow it on the command line or by HTTP"
            raise CommandError(message, USAGE, rule="follows")
        entry = await self._begun(found, arguments, by)
        if entry is None:
            return await self._do(lambda given: found.call(given, by), arguments)
        try:
            result = await self._do(lambda given: found.call(given, by), arguments)
        except BaseException as error:
            await entry.end(*_outcome(error))
            raise
        await entry.end("done")
        return result

    async def follow(self, name: str, arguments: Mapping[str, Json], by: Caller = NOBODY) -> Followed:
        """Begin to follow one; CommandError when that cannot be done. What is returned must be closed."""
        found = self._found(name)
        if not found.follows:
            raise CommandError(f"{name} has one result: there is nothing to follow", USAGE, rule="follows")
        while len(self._followed) + self._beginning >= MOST_FOLLOWED:
            if await self.spare():
                continue
            message = f"{MOST_FOLLOWED} callers follow something already"
            raise CommandError(message, UNAVAILABLE, rule="too-many-follow")
        self._beginning += 1
        try:
            entry = await self._begun(found, arguments, by)
            try:
                records = await self._do(lambda given: found.call(given, by), arguments)
            except BaseException as error:
                if entry is not None:
                    await entry.end(*_outcome(error))
                raise
        finally:
            self._beginning -= 1
        followed = Followed(records, self._left)
        self._followed[followed] = entry
        return followed

    async def _left(self, followed: Followed) -> None:
        entry = self._followed.pop(followed, None)
        if entry is not None:
            await entry.end("done")

    async def _begun(self, found: Command, arguments: Mapping[str, Json], by: Caller) -> Entry | None:
        """It is about to be done; None where nobody writes that down."""
        if (found.reads and not found.guarded) or self.witness is None or by is NOBODY:
            return None
        return await self.witness.begin(found, arguments, by)

    async def version(self, name: str, arguments: Mapping[str, Json]) -> str:
        """The version of a command's result, or of what was there a moment before; "" where there are none.
        CommandError.
        """
        return str(await self._do(self._found(name).version, arguments))

    async def check(self, name: str, arguments: Mapping[str, Json]) -> None:
        """Find out, without doing it, whether it cannot be done with these arguments, secrets left out."""
        await self._do(self._found(name).check, arguments)

    def _found(self, name: str) -> Command:
        found = self._by_name.get(name)
        if found is None:
            close = difflib.get_close_matches(name, self._by_name, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise CommandError(f"there is no command {name!r}{hint}", USAGE)
        return found

    @staticmethod
    async def _do(work: Callable[[Mapping[str, Json]], Awaitable[Any]], arguments: Mapping[str, Json]) -> Any:
        try:
            return await work(arguments)
        except XmppdError as error:
            raise as_command_error(error) from error


async def _nothing() -> bool:
    return False


def _outcome(error: BaseException) -> tuple[str, str]:
    """What became of a command that raised this, and why."""
    if isinstance(error, CommandError):
        is_unknown = isinstance(error.__cause__, StoreTimeout)
        return "unknown" if is_unknown else "refused", f"{error.rule}: {error}"
    return "failed" if isinstance(error, Exception) else "unknown", type(error).__name__
