"""What clients are sent: `urn:xmppd:game-events:0`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from xmppd.plugin import element as element_of
from xmppd.plugin import escape_attribute, serialize

NS: Final = "urn:xmppd:game-events:0"
ENABLE, DISABLE, HAVE, EVENT = (f"{{{NS}}}{name}" for name in ("enable", "disable", "have", "event"))
RESOURCE: Final = re.compile(r"[^\s\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]{1,255}")
NOT_XML: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
MOST_VERSION: Final = 2**63 - 1
TOGETHER_BYTES: Final = 8_192
"""Of the events that stand in one message."""


class Event(NamedTuple):
    """A resource is at this version now."""

    resource: str
    version: int
    payload: str = ""

    def xml(self) -> bytes:
        """`<event/>`."""
        attrs = {"resource": self.resource, "version": str(self.version)}
        return serialize(element_of(EVENT, attrs, self.payload or None))


class Message(NamedTuple):
    """A message but for whom it is to, which stands between its two parts."""

    head: bytes
    tail: bytes


def message(domain: str, events: Sequence[bytes]) -> Message:
    """What a domain tells its own: a headline, which is kept for nobody and copied to nobody."""
    head = f"<message from='{escape_attribute(domain)}' type='headline'".encode()
    return Message(head, b">" + b"".join(events) + b"</message>")


def together(events: Sequence[Event]) -> Iterator[Sequence[bytes]]:
    """Events in pieces that fit one message."""
    piece: list[bytes] = []
    size = 0
    for raw in (event.xml() for event in events):
        if piece and size + len(raw) > TOGETHER_BYTES:
            yield piece
            piece, size = [], 0
        piece.append(raw)
        size += len(raw)
    if piece:
        yield piece


def version_of(text: str) -> int | None:
    """A version as a client writes it; None for what is none."""
    if not text.isascii() or not text.isdecimal() or len(text) > 19:
        return None
    version = int(text)
    return version if version <= MOST_VERSION else None
