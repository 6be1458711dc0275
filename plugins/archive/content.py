"""What is worth archiving: what somebody would look for, and what changes that (XEP-0313 5.1.1, XEP-0334)."""

from __future__ import annotations

import re
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
    if raw.find(b"<body>") >= 0 and raw.find(_HINT) < 0 and raw.find(b"&#") < 0 and raw.find(b"xmlns") < 0:
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
    return MUC_USER in tags and any(child.find(INVITE) is not None for child in message.iterfind(MUC_USER))
