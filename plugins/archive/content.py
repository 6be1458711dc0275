"""What is worth archiving: what somebody would look for, and what changes that (XEP-0313 5.1.1, XEP-0334)."""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

from xmppd import ns
from xmppd.plugin import Element, Stanza

BODY: Final = f"{{{ns.CLIENT}}}body"
STORE: Final = f"{{{ns.HINTS}}}store"
NO_STORE: Final = (f"{{{ns.HINTS}}}no-store", f"{{{ns.HINTS}}}no-permanent-store")
CONTENT: Final = frozenset(
    {
        BODY,
        f"{{{ns.CLIENT}}}subject",
        f"{{{ns.RECEIPTS}}}received",
        f"{{{ns.CHAT_MARKERS}}}displayed",
        f"{{{ns.RETRACTION}}}retract",
        f"{{{ns.REACTIONS}}}reactions",
        f"{{{ns.CORRECTION}}}replace",
        f"{{{ns.CONFERENCE}}}x",
    }
)
"""Children that make a message worth keeping (XEP-0184, 0333, 0424, 0444, 0308, 0249)."""
SPACES: Final = frozenset((ns.OMEMO, ns.OMEMO_2, ns.OPENPGP, ns.OLD_OPENPGP, ns.JINGLE_MESSAGE))
"""The same by namespace alone: payloads that are encrypted (XEP-0384, 0373, 0027), calls (XEP-0353)."""
MUC_USER: Final = f"{{{ns.MUC_USER}}}x"
INVITE: Final = f"{{{ns.MUC_USER}}}invite"

_HINT: Final = ns.HINTS.encode()
_MAYBE: Final = re.compile(
    b"|".join(
        re.escape(word.encode())
        for word in sorted(
            {"body", "subject", ns.HINTS, ns.MUC_USER, "&#", *SPACES}
            | {name[1:].partition("}")[0] for name in CONTENT} - {ns.CLIENT}
        )
    )
)
"""In a message that has none of these there is nothing to keep. Character references may hide a namespace."""


def is_content(message: Stanza) -> bool:
    """Whether a message belongs into an archive by what it is. Most are decided by their bytes."""
    if message.type in ("error", "headline", "groupchat"):
        return False
    raw = message.raw
    if message.is_plain and raw.find(b"<body>") >= 0:
        return True
    # The first child is the message's own, wherever else there may be a body; no attribute has a `<`.
    is_first = raw.startswith(b"><body>", raw.find(b">"))
    if (
        (is_first or (raw.find(b"<body>") >= 0 and raw.find(b"xmlns") < 0))
        and raw.find(_HINT) < 0
        and raw.find(b"&#") < 0
    ):
        return True
    return _MAYBE.search(raw) is not None and _has_content(message.xml)


def _has_content(message: Element) -> bool:
    tags = {child.tag for child in message}
    if not tags.isdisjoint(NO_STORE):
        return False
    if STORE in tags or not tags.isdisjoint(CONTENT):
        return True
    if any(tag.partition("}")[0][1:] in SPACES for tag in tags):
        return True
    return MUC_USER in tags and _invites(message)


class Said(Enum):
    """What there is to read in a message."""

    NOTHING = "a receipt, a marker, a reaction, a retraction or what it left, a key, a call"
    CHANGE = "a correction of what was said before (XEP-0308)"
    NEW = "something new"


NOT_SAID: Final = frozenset(
    {
        f"{{{ns.RETRACTION}}}retract",
        f"{{{ns.RETRACTION}}}retracted",
        f"{{{ns.REACTIONS}}}reactions",
    }
)
"""Children that make a message one about another, whatever its body says to older clients."""
SAID: Final = frozenset({BODY, f"{{{ns.CLIENT}}}subject", f"{{{ns.CONFERENCE}}}x"})
SEALED: Final = frozenset((ns.OPENPGP, ns.OLD_OPENPGP))
SEALED_WITH_KEYS: Final = (f"{{{ns.OMEMO}}}payload", f"{{{ns.OMEMO_2}}}payload")
"""Without a payload it only brings keys (XEP-0384)."""

_PERHAPS_NOT: Final = tuple(
    word.encode() for word in (ns.RETRACTION, ns.REACTIONS, ns.CORRECTION, ns.FORWARD, ns.PUBSUB, "&#")
)
"""In a message that has none of these a body is its own, and new."""


def said_in(raw: bytes) -> Said:
    """What there is to read in an archived message. Most are decided by their bytes."""
    if raw.find(b"<body>") >= 0 and (raw.find(b"xmlns") < 0 or not any(word in raw for word in _PERHAPS_NOT)):
        return Said.NEW
    message = Stanza("message", {}, raw).xml
    tags = {child.tag for child in message}
    if not tags.isdisjoint(NOT_SAID) or not (_is_readable(tags) or _is_sealed(message) or _invites(message)):
        return Said.NOTHING
    return Said.CHANGE if f"{{{ns.CORRECTION}}}replace" in tags else Said.NEW


def _is_readable(tags: set[str]) -> bool:
    return not tags.isdisjoint(SAID) or any(tag.partition("}")[0][1:] in SEALED for tag in tags)


def _is_sealed(message: Element) -> bool:
    return any(child.find(name) is not None for child in message for name in SEALED_WITH_KEYS)


def _invites(message: Element) -> bool:
    return any(child.find(INVITE) is not None for child in message.iterfind(MUC_USER))
