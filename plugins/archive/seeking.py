"""Messages of an archive from the newest on, and one of them by what its sender called it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final, NamedTuple

from xmppd import ns
from xmppd.plugin import Element, Stanza

from .reading import TURN, Archived, Reader, weight_of

FIRST: Final = 50
AT_ONCE: Final = 200
"""How many messages are read at once, at first and at most, where they are not long."""
PAGE: Final = 100
DAYS: Final = 50
"""How many of those with one peer at most, and how many of the days on which there are any."""
PAGE_COUNTS: Final = 50
"""For how many messages a request counts at least."""
MOST: Final = 5000
"""How many messages are gone through for one that may not be there; long ones count as several."""

_RETRACTION: Final = ns.RETRACTION.encode()
_CORRECTION: Final = ns.CORRECTION.encode()


class Sought(NamedTuple):
    """A message, None when it is not there, and through how many that took, long ones as several; and the
    ids of its corrections.
    """

    message: Archived | None
    rows: int
    corrections: list[bytes]


class Seeker(Reader):
    """Looks for messages in the archive of one owner, from the newest on."""

    async def find(self, peer: str, author: str, about: str, before: bytes) -> Sought:
        """The newest message with a peer, of before an id, that the account `author` wrote and whose
        attribute `id` is `about`; and all corrections of it that come first.
        """
        word = about.encode()
        rows, corrections = 0, list[bytes]()
        async for page in self.newest(peer, b"", before):
            weight = sum([weight_of(message.stanza) for message in page])
            for piece in in_turns(page):
                for message in piece:
                    stanza = message.stanza
                    if word not in stanza and b"&" not in stanza:
                        continue
                    if corrects(stanza, author, about):
                        corrections.append(message.id)
                    elif is_by(stanza, author, about):
                        return Sought(message, rows + weight, corrections)
                await asyncio.sleep(0)
            rows += max(weight, PAGE_COUNTS)
            if rows >= MOST:
                break
        return Sought(None, rows, corrections)

    async def newest(self, peer: str, after: bytes, before: bytes) -> AsyncIterator[list[Archived]]:
        """The messages with a peer ("": with anybody) between two bounds, from the newest on, in pieces of
        which some may be empty.
        """
        if not peer:
            async for page in self._by_months(after, before, FIRST, reverse=True, most=AT_ONCE):
                yield page
                await asyncio.sleep(0)  # an engine may have had them at hand
            return
        until = before
        while until:
            spans, until = await self._spans(peer, after, until, reverse=True, limit=DAYS)
            for span in spans:
                async for page in self._all_in(span, peer, FIRST, reverse=True, most=PAGE):
                    yield page
                    await asyncio.sleep(0)


def in_turns(page: Sequence[Archived]) -> Iterator[Sequence[Archived]]:
    """The messages in pieces, each for one turn of the loop."""
    start = size = 0
    for end, message in enumerate(page, 1):
        size += len(message.stanza)
        if size >= TURN or end == len(page):
            yield page[start:end]
            start, size = end, 0


def is_by(stanza: bytes, author: str, about: str) -> bool:
    """Whether a message was written by an account and called so, and is no retraction, which stays."""
    head = head_of(stanza)
    if head.get("id") != about or head.get("from", "").partition("/")[0] != author:
        return False
    if _RETRACTION not in stanza and b"&#" not in stanza:
        return True
    return all(child.tag != f"{{{ns.RETRACTION}}}retract" for child in Stanza("message", {}, stanza).xml)


def corrects(stanza: bytes, author: str, about: str) -> bool:
    """Whether a message was written by an account and replaces what is called so (XEP-0308)."""
    if _CORRECTION not in stanza and b"&#" not in stanza:
        return False
    message = Stanza("message", {}, stanza).xml
    if message.get("from", "").partition("/")[0] != author:
        return False
    return any(child.tag == f"{{{ns.CORRECTION}}}replace" and child.get("id") == about for child in message)


def head_of(stanza: bytes) -> Element:
    """The start tag of a message by itself."""
    return Stanza("message", {}, stanza[: Stanza("message", {}, stanza).tail] + b"/>").xml
