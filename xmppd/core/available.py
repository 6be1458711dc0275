"""Available presence: its priority, and what becomes of it while the roster of its session cannot be read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from xmppd import ns
from xmppd.core.output import patiently
from xmppd.core.sessions import Session
from xmppd.errors import StanzaError
from xmppd.xml.stanza import Stanza

PAUSES: Final = (0.25, 4.0)
"""Seconds until it is tried again, at first and at most."""


class Unshown:
    """The newest of each session: clients send their first presence once, and would be offline to all for as
    long as they are there if it came back to them as an error. `show` says whether it could be shown.
    """

    def __init__(
        self,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        show: Callable[[Session, Stanza], Awaitable[bool]],
    ) -> None:
        self._spawn = spawn
        self._show = show
        self._newest: dict[Session, Stanza] = {}

    def __bool__(self) -> bool:
        return bool(self._newest)

    def drop(self, session: Session) -> None:
        """The session has said something newer, or has ended; harmless where nothing is to be shown."""
        self._newest.pop(session, None)

    def is_newest(self, session: Session, stanza: Stanza) -> bool:
        """Whether it is still to be shown."""
        return self._newest.get(session) is stanza and not session.is_over

    async def put(self, session: Session, stanza: Stanza) -> None:
        """Try again until it is shown. What the client says behind it waits for that, but not for long."""
        self._newest[session] = stanza
        shown: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._spawn(self._insist(session, stanza, shown))
        await patiently(shown)

    async def _insist(self, session: Session, stanza: Stanza, shown: asyncio.Future[None]) -> None:
        seconds, longest = PAUSES
        try:
            while self.is_newest(session, stanza):
                await asyncio.sleep(seconds)
                seconds = min(2 * seconds, longest)
                if not self.is_newest(session, stanza) or await self._show(session, stanza):
                    return
        finally:
            if self._newest.get(session) is stanza:
                del self._newest[session]
            if not shown.done():
                shown.set_result(None)


def priority_of(stanza: Stanza) -> int:
    """The presence's priority (RFC 6121 4.7.2.3); StanzaError bad-request unless -128..127."""
    if stanza.raw.find(b"priority") < 0:
        return 0
    found = stanza.xml.findall(f"{{{ns.CLIENT}}}priority")
    if not found:
        return 0
    text = (found[0].text or "").strip()
    digits = text[1:] if text[:1] in ("-", "+") else text
    if (
        len(found) > 1
        or not (digits.isascii() and digits.isdigit())
        or not -128 <= int(text[:5]) <= 127
        or len(digits) > 3
    ):
        raise StanzaError("bad-request", "A priority is one number from -128 to 127.")
    return int(text)
