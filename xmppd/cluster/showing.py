"""What sessions here are still to be shown of those elsewhere that they may see: as fast as each client
reads, and as things stand by then. What a client that reads can be sent at once does not wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from xmppd.core.output import LARGE
from xmppd.core.sessions import Session
from xmppd.core.visibility import Visibility

BYTES: Final = 33_554_432
"""How much waits for all who read slowly. What comes beyond that is left out, and asked for again."""

AGAIN: Final = 64
"""How many of these are asked for at once."""


class LeftOut:
    """Full JIDs of what a viewer is to be shown besides: those that are still to be asked for, `names`, and
    those that were and are not answered.
    """

    __slots__ = ("asked", "names")

    def __init__(self) -> None:
        self.names: dict[str, None] = {}
        self.asked: set[str] = set()


class Showing:
    """`due`: by viewer and full JID, the presence that is to be shown. A later one takes the place of it, and
    what is sent to the viewer of that full JID makes it out of date (`drop`): so there are never more than
    sessions of the viewer's contacts. `size` are the bytes of all.

    If that is more than `BYTES` and something waits for a viewer already, what comes for him is left out.
    When he has read the rest it is asked for anew, `AGAIN` at a time: `ask` does so, and says whether there
    will be an answer, which is put, or dropped.
    """

    def __init__(self, visibility: Visibility, ask: Callable[[Session, str], bool]) -> None:
        self._visibility = visibility
        self._ask = ask
        self._left_out: dict[Session, LeftOut] = {}
        self.size = 0
        self.due: dict[Session, dict[str, bytes]] = {}

    def __len__(self) -> int:
        """How many wait."""
        return sum(map(len, self.due.values()))

    def at_once(self, viewer: Session, stanzas: Sequence[bytes]) -> bool:
        """Send presences of others to a session. False: they, or some before them, have to wait (`put`)."""
        if self._left_out or viewer in self.due or not viewer.takes_all or self._is_filtered(viewer):
            return False
        if sum(map(len, stanzas)) > LARGE:
            return False
        viewer.send_all(stanzas)
        return True

    def put(self, viewer: Session, presences: dict[str, bytes]) -> None:
        """Show some presences to a session, by the full JIDs that they are of. They are this object's now."""
        due = self.due.get(viewer)
        if due is not None and self.size > BYTES:
            self._leave_out(viewer, presences)
        if self._left_out and (out := self._left_out.get(viewer)) is not None:
            out.asked.difference_update(presences)
        self.size += sum(map(len, presences.values()))
        if due is not None:
            for full in due.keys() & presences.keys():
                self._forget(due.pop(full))
            due.update(presences)
        elif presences:
            self.due[viewer] = presences
            viewer.give(self._drawn(viewer, presences))

    def _is_filtered(self, viewer: Session) -> bool:
        return bool(viewer.live.blocks) or self._visibility.has_filters

    def _forget(self, presence: bytes) -> None:
        """It does not wait any more."""
        self.size -= len(presence)

    def _leave_out(self, viewer: Session, presences: dict[str, bytes]) -> None:
        """Note the names of what was not asked for, and take it out."""
        out = self._left_out.setdefault(viewer, LeftOut())
        for full in presences.keys() - out.asked:
            del presences[full]
            out.names[full] = None

    def _go_on(self, viewer: Session) -> None:
        """Ask for more of what was left out, if all that was asked for is there."""
        out = self._left_out.get(viewer)
        if out is None or out.asked:
            return
        while out.names and len(out.asked) < AGAIN:
            full = next(iter(out.names))
            del out.names[full]
            if self._ask(viewer, full):
                out.asked.add(full)
        if not out.asked:
            del self._left_out[viewer]

    def _drawn(self, viewer: Session, due: dict[str, bytes]) -> Iterator[bytes]:
        try:
            while due:
                is_filtered = self._is_filtered(viewer)
                for full in [*due]:
                    presence = due.pop(full, None)
                    if presence is None:
                        continue
                    self._forget(presence)
                    if is_filtered:
                        yield from self._visibility.filtered(viewer.account, presence)
                    else:
                        yield presence
        finally:
            if self.due.get(viewer) is due:
                del self.due[viewer]
                self._go_on(viewer)

    def drop(self, viewer: Session, full: str) -> None:
        """The viewer is sent something newer of this full JID."""
        if self.due and (presence := self.due.get(viewer, {}).pop(full, None)) is not None:
            self._forget(presence)
        if self._left_out and (out := self._left_out.get(viewer)) is not None:
            out.names.pop(full, None)
            if full in out.asked:
                out.asked.remove(full)
                self._go_on(viewer)

    def left(self, viewer: Session) -> None:
        """It is not available any more: nothing is shown to it."""
        self._left_out.pop(viewer, None)
        due = self.due.pop(viewer, None)
        if due is not None:
            for presence in due.values():
                self._forget(presence)
            due.clear()
