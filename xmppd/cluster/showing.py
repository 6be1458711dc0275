"""What sessions here are still to be shown of those elsewhere that they may see: as fast as each client
reads, and as things stand by then.
"""

from __future__ import annotations

from collections.abc import Iterator

from xmppd.core.sessions import Session
from xmppd.core.visibility import Visibility

Pieces = tuple[bytes, bytes]
"""A presence before and behind its `to`."""


class Showing:
    """`due`: by viewer and full JID, the presence that is to be shown. A later one takes the place of it, and
    what is sent to the viewer of that full JID makes it out of date (`drop`): so there are never more than
    sessions of the viewer's contacts.
    """

    def __init__(self, visibility: Visibility) -> None:
        self._visibility = visibility
        self.due: dict[Session, dict[str, Pieces]] = {}

    def __len__(self) -> int:
        """How many wait."""
        return sum(map(len, self.due.values()))

    def put(self, viewer: Session, presences: dict[str, Pieces]) -> None:
        """Show some presences to a session, by the full JIDs that they are of. They are this object's now."""
        due = self.due.get(viewer)
        if due is not None:
            due.update(presences)
        elif presences:
            self.due[viewer] = presences
            viewer.give(self._drawn(viewer, presences))

    def _drawn(self, viewer: Session, due: dict[str, Pieces]) -> Iterator[bytes]:
        to, visibility = viewer.live.to_stamp, self._visibility
        try:
            while due:
                is_filtered = visibility.has_filters
                for full in [*due]:
                    presence = due.pop(full, None)
                    if presence is None:
                        continue
                    head, tail = presence
                    if is_filtered:
                        yield from visibility.filtered(viewer.account, head + to + tail)
                    else:
                        yield head + to + tail
        finally:
            if self.due.get(viewer) is due:
                del self.due[viewer]

    def drop(self, viewer: Session, full: str) -> None:
        """The viewer is sent something newer of this full JID."""
        if self.due and (due := self.due.get(viewer)) is not None:
            due.pop(full, None)

    def left(self, viewer: Session) -> None:
        """It is not available any more: nothing is shown to it."""
        due = self.due.pop(viewer, None)
        if due is not None:
            due.clear()
