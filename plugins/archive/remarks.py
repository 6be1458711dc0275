"""What a message says of an earlier one, which is then looked for: that it was displayed (XEP-0333), or is
taken back (XEP-0424).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, NamedTuple

from xmppd import ns
from xmppd.plugin import Stanza

DISPLAYED: Final = f"{{{ns.CHAT_MARKERS}}}displayed"
RETRACT: Final = f"{{{ns.RETRACTION}}}retract"


MOST: Final = 100
"""How many remarks of one account may wait."""
ROWS_A_SECOND: Final = 5000
"""How many messages are gone through for one account, in the long run; long ones count as several."""
FREE: Final = 250
"""For so many it need not rest: that is where nearly all that is looked for is found."""


class Side(NamedTuple):
    """The archive of one of the two whom a message is between, and the id that it has there."""

    account: str
    owner: int
    peer: str
    id: bytes


class Remark(NamedTuple):
    """A message of the account `sender` to the account `to`, written by the client `by`, says something of
    the one whose attribute `id` is `about`; `id` is its own ("": it has none).
    """

    is_retraction: bool
    sender: str
    by: str
    to: str
    about: str
    id: str

    @property
    def author(self) -> str:
        """Whose message it must be about: one takes back what one wrote, and displays what others did."""
        return self.sender if self.is_retraction else self.to


def remark_of(message: Stanza) -> Remark | None:
    """What a message says of an earlier one; None: nothing."""
    raw = message.raw
    if raw.find(b"displayed") < 0 and raw.find(b"retract") < 0:
        return None  # character references may hide a namespace, but no name
    found = {child.tag: child for child in message.xml}
    for tag in (RETRACT, DISPLAYED):
        if tag in found and (about := found[tag].get("id")):
            by = message.attrs["from"]
            sender, to = by.partition("/")[0], (message.to or "").partition("/")[0]
            return Remark(tag == RETRACT, sender, by, to or sender, about, message.id or "")
    return None


Work = Callable[[], Awaitable[int]]
"""Does what a remark asks for; how many messages were gone through."""


Key = tuple[str, ...]
"""What a remark asks for: of two of the same the later counts."""


class Errands:
    """What is done for each account, one thing after the other, and at a bounded rate: for who knows no id
    that is there can have archives gone through by every message. `spawn` and `later` end with the plugin.
    """

    def __init__(
        self, spawn: Callable[[Coroutine[Any, Any, None]], object], later: Callable[..., object]
    ) -> None:
        self._spawn = spawn
        self._later = later
        self._waiting: dict[str, dict[Key, Work]] = {}

    def __len__(self) -> int:
        """Of how many accounts any are waiting, under way, or rested from."""
        return len(self._waiting)

    def add(self, account: str, key: Key, work: Work, group: Key = ()) -> bool:
        """Do this for an account; in place of what waits under the same key, or, where there is no room, of
        what waits longest under one that begins with `group` (empty: of nothing). Whether there is room.
        """
        waiting = self._waiting.get(account)
        if waiting is None:
            self._waiting[account] = {key: work}
            self._go_on(account)
            return True
        waiting.pop(key, None)
        if len(waiting) >= MOST:
            first = next((old for old in waiting if group and old[: len(group)] == group), None)
            if first is None:
                return False
            del waiting[first]
        waiting[key] = work
        return True

    def _go_on(self, account: str) -> None:
        if self._waiting[account]:
            self._spawn(self._run(account))
        else:
            del self._waiting[account]

    async def _run(self, account: str) -> None:
        waiting = self._waiting[account]
        rows = 0
        try:
            while waiting and rows <= FREE:
                rows += await waiting.pop(next(iter(waiting)))()
        finally:
            if waiting or rows > FREE:
                self._later(rest_after(rows), self._go_on, account)
            else:
                del self._waiting[account]


def rest_after(rows: int) -> float:
    """How many seconds nothing more is looked for when so many messages were gone through."""
    return seconds_of(rows) if rows > FREE else 0.0


def seconds_of(rows: int) -> float:
    """How many seconds of what an account may have it takes to go through so many messages."""
    return rows / ROWS_A_SECOND
