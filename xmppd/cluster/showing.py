"""What sessions here are still to be shown of those elsewhere that they may see: as fast as each client
reads, and as things stand by then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from xmppd.core.sessions import Broadcast, Session
from xmppd.core.visibility import Visibility


class Showing:
    """By viewer and full JID, the presence that is to be shown. A later one takes the place of it, and what
    is sent to the viewer of that full JID makes it out of date (`drop`): so there are never more than
    sessions of the viewer's contacts.
    """

    def __init__(self, visibility: Visibility) -> None:
        self._visibility = visibility
        self._due: dict[Session, dict[str, Broadcast]] = {}

    def __len__(self) -> int:
        """How many wait."""
        return sum(map(len, self._due.values()))

    def put(self, viewer: Session, presences: Iterable[tuple[str, Broadcast]]) -> None:
        """Show some presences to a session, each with the full JID that it is of."""
        due = self._due.get(viewer)
        if due is not None:
            due.update(presences)
        elif due := dict(presences):
            self._due[viewer] = due
            viewer.give(self._drawn(viewer, due))

    def _drawn(self, viewer: Session, due: dict[str, Broadcast]) -> Iterator[bytes]:
        try:
            while due:
                for full in [*due]:
                    presence = due.pop(full, None)
                    if presence is not None:
                        copy = presence.head + viewer.live.to_stamp + presence.tail
                        yield from self._visibility.filtered(viewer.account, copy)
        finally:
            if self._due.get(viewer) is due:
                del self._due[viewer]

    def drop(self, viewer: Session, full: str) -> None:
        """The viewer is sent something newer of this full JID."""
        if self._due and (due := self._due.get(viewer)) is not None:
            due.pop(full, None)

    def left(self, viewer: Session) -> None:
        """It is not available any more: nothing is shown to it."""
        due = self._due.pop(viewer, None)
        if due is not None:
            due.clear()
