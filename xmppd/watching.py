"""Events of one node, for who follows them: what web hooks tell back ends, as it happens and unkept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from xmppd.core.events import Event, Events
from xmppd.errors import CommandError
from xmppd.feed import Feed
from xmppd.following import size_of
from xmppd.moments import utc_stamp

MOST: Final = 16
"""Callers, of all nodes."""


class Watching:
    """Who follows events here."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def open(self, arguments: Mapping[str, Any]) -> Feed:
        """Follow kinds of events (names, or beginnings with a star), of one account or "" for all;
        CommandError.
        """
        patterns, account = tuple(arguments["kinds"]), arguments["account"]
        found = {
            pattern: [name for name, kind in self._events.kinds.items() if kind.is_meant(pattern)]
            for pattern in patterns
        }
        for pattern, names in found.items():
            if not names:
                known = ", ".join(sorted(self._events.kinds))
                message = f"there is no event {pattern}: there are {known}"
                raise CommandError(message, 2, field="kind", rule="parameter")
        if len(self._events.own) >= MOST:
            raise CommandError(f"{MOST} callers follow events already", rule="too-many-follow")

        def tell(event: Event) -> None:
            if account in ("", event.account):
                record = record_of(event)
                feed.put(record, size_of(record))

        def left() -> None:
            del self._events.own[tell]
            self._events.changed()

        feed = Feed(left)
        self._events.own[tell] = patterns
        self._events.changed()
        feed.put({"what": "begun", "kinds": sorted({name for names in found.values() for name in names})})
        return feed


def record_of(event: Event) -> dict[str, Any]:
    """An event as a record."""
    about = {
        "at": utc_stamp(event.time, to="milliseconds"),
        "what": event.kind,
        "id": event.id,
        "version": event.version,
    }
    return {**about, "account": event.account, "data": dict(event.data)}
