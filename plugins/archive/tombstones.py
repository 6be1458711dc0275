"""Messages that were taken back (XEP-0424): what stays of them in an archive."""

from __future__ import annotations

from typing import Final

from xmppd import ns
from xmppd.plugin import Stanza, element, serialize

from .seeking import head_of

RETRACTED: Final = f"{{{ns.RETRACTION}}}retracted"
STAYS: Final = ("type", "from", "to", "id")
"""Attributes of a message that say nothing of what was in it."""

_RETRACTED: Final = b"<retracted xmlns='%b'" % ns.RETRACTION.encode()


def tombstone(stanza: bytes, by: str, stamp: str) -> bytes:
    """What is kept of a message: that it was there, and by which message (its attribute `id`) and when it was
    taken back (XEP-0424 5).
    """
    head = head_of(stanza)
    attrs = {name: value for name in STAYS if (value := head.get(name)) is not None}
    mark = element(RETRACTED, {"id": by, "stamp": stamp})
    return serialize(element(f"{{{ns.CLIENT}}}message", attrs, mark))


def is_tombstone(stanza: bytes) -> bool:
    """Whether nothing else is left of a message."""
    if _RETRACTED not in stanza:
        return False
    return [child.tag for child in Stanza("message", {}, stanza).xml] == [RETRACTED]
