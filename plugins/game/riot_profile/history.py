"""What was said, as the dialect asks for it: conversations, the last messages of one, and what was read. All
of it is in the archive.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol, cast

from xmppd import ns
from xmppd.plugin import Element, Jid, JidError, Session, StanzaError, element, read_stanza

from .roster import local, moment

if TYPE_CHECKING:
    from . import RiotProfile

MESSAGE: Final = f"{{{ns.CLIENT}}}message"
BODY: Final = f"{{{ns.CLIENT}}}body"
LATE_SECONDS: Final = 5.0
"""So long after its stamp was made a message is in the archive, at most."""
LOOKED_AT: Final = 50
BYTES: Final = 128 * 1024
"""A result has no more messages than are so many bytes, but one."""
LAST: Final = 253_402_300_799.0
"""The last second of the year 9999: none is later, whatever a fraction is rounded to."""
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,6})?")


class Talk(Protocol):
    """A conversation, of the plugin `archive`."""

    @property
    def peer(self) -> str: ...

    @property
    def at(self) -> float: ...

    @property
    def stanza(self) -> bytes: ...

    @property
    def read(self) -> float: ...


class Archive(Protocol):
    """What is asked of the plugin `archive`."""

    def __bool__(self) -> bool: ...

    async def talks_of(self, account: str, size: int = 0, since: float = 0.0) -> Sequence[Talk]: ...

    async def last_with(
        self, account: str, peer: str, count: int, until: float = 0.0
    ) -> Sequence[tuple[float, str, bytes]]: ...

    async def read_by(self, account: str, peer: str) -> float: ...

    async def read_to(self, session: Session, peer: str, text: str) -> None: ...


class Histories:
    """Answers from the archive; service-unavailable where there is none."""

    @property
    def _archive(self) -> Archive:
        archive = cast("RiotProfile", self).archive
        if not archive:
            raise StanzaError("service-unavailable", "There is no archive.")
        return archive

    async def show_talks(self, session: Session, query: Element) -> list[Element]:
        """The conversations, the newest first, each with its last message: `count` of them, with something
        said `since` a moment.
        """
        asked = {local(child): (child.text or "").strip() for child in query}
        count, since = asked.get("count", ""), asked.get("since", "")
        if count and not (count.isascii() and count.isdigit() and int(count[:9]) > 0):
            raise StanzaError("bad-request", "A count is a number above 0.")
        talks = await self._archive.talks_of(
            session.account, int(count[:9] or 0), seconds_of(since) if since else 0.0
        )
        space, found = str(query.tag).rpartition("}")[0] + "}", []
        for talk in talks:
            message = shown(talk.at, talk.stanza)
            parts = [message]
            if talk.read:
                parts.append(reader(space, session.account, talk.read))
            attrs = {"with": talk.peer, "last": message.get("stamp", "")}
            found.append(element(f"{space}conversation", attrs, *parts))
        return [element(query.tag, None, *found)]

    async def show_talk(self, session: Session, query: Element) -> list[Element]:
        """The last messages with somebody, oldest first, and up to when one has read them; all of it stands
        in the result itself.
        """
        peers = [child.text or "" for child in query if local(child) == "with"]
        if len(peers) != 1:
            raise StanzaError("bad-request", "Say with whom.")
        archive, peer = self._archive, peer_of(peers[0])
        read = await archive.read_by(session.account, peer)
        count = cast("RiotProfile", self).config.archive_messages
        found: list[Element] = []
        size = 0
        for at, _, raw in reversed(await archive.last_with(session.account, peer, count)):
            size += len(raw)
            if found and size > BYTES:
                break
            found.append(shown(at, raw))
            await asyncio.sleep(0)
        found.reverse()
        if read:
            found.append(reader(str(query.tag).rpartition("}")[0] + "}", session.account, read))
        return found

    async def mark_read(self, session: Session, query: Element) -> list[Element]:
        """All messages with somebody were read up to a stamp."""
        marks = [child for child in query if local(child) == "acknowledge"]
        if len(marks) != 1:
            raise StanzaError("bad-request", "Acknowledge one conversation.")
        archive, peer = self._archive, peer_of(marks[0].get("with", ""))
        read = seconds_of(marks[0].get("read", ""))
        until, stamp = read + LATE_SECONDS, moment(read)
        for at, id, raw in reversed(await archive.last_with(session.account, peer, LOOKED_AT, until)):
            if (shown(at, raw).get("stamp") or "") <= stamp:
                await archive.read_to(session, peer, id)
                break
            await asyncio.sleep(0)
        return []


def shown(at: float, raw: bytes) -> Element:
    """A message of the archive as the dialect has it. What was not stamped when it was sent is it now."""
    tree = read_stanza(raw).xml
    kept = {
        name: value for name, value in tree.attrib.items() if name in ("from", "to", "id", "type", "stamp")
    }
    return element(MESSAGE, {"stamp": moment(at), **kept}, *tree.findall(BODY))


def reader(space: str, account: str, read: float) -> Element:
    """Up to when an account has read a conversation."""
    return element(f"{space}reader", {"jid": account, "read": moment(read)})


def peer_of(text: str) -> str:
    """The account that somebody speaks of; StanzaError jid-malformed."""
    try:
        return Jid.parse(text.strip()).bare
    except JidError as error:
        raise StanzaError("jid-malformed", str(error)) from None


def seconds_of(text: str) -> float:
    """A moment as stamps have it, or in milliseconds since the epoch; StanzaError bad-request."""
    if text.isascii() and text.isdigit() and len(text) <= 14:
        return int(text) / 1000
    try:
        if _MOMENT.fullmatch(text):
            return min(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp(), LAST)
    except ValueError:
        pass
    raise StanzaError("bad-request", "A moment is like 2010-07-07 13:23:54.123.")
