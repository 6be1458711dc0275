"""What is done with a message by its type and its address: RFC 6121 section 8.5 as one table."""

from __future__ import annotations

from enum import Enum

from xmppd.jid import Jid
from xmppd.xml.stanza import Stanza


class Action(Enum):
    """What is done with a message that no connected resource matches exactly."""

    TOP = "deliver to the available resources of the highest priority"
    ALL = "deliver to every available resource of a priority not negative"
    STORE = "keep for later (XEP-0160), or refuse when nobody keeps it"
    REFUSE = "answer service-unavailable"
    IGNORE = "drop silently"


class Place(Enum):
    """What the address stands for at this moment."""

    READY = "an account with an available resource of a priority not negative"
    ABSENT = "an account with none"
    RESOURCE = "a full JID that no session has"


TABLE: dict[tuple[Place, str], Action] = {
    (Place.READY, "normal"): Action.TOP,
    (Place.READY, "chat"): Action.TOP,
    (Place.READY, "groupchat"): Action.REFUSE,
    (Place.READY, "headline"): Action.ALL,
    (Place.READY, "error"): Action.IGNORE,
    (Place.ABSENT, "normal"): Action.STORE,
    (Place.ABSENT, "chat"): Action.STORE,
    (Place.ABSENT, "groupchat"): Action.REFUSE,
    (Place.ABSENT, "headline"): Action.IGNORE,
    (Place.ABSENT, "error"): Action.IGNORE,
    (Place.RESOURCE, "normal"): Action.REFUSE,
    (Place.RESOURCE, "groupchat"): Action.REFUSE,
    (Place.RESOURCE, "headline"): Action.IGNORE,
    (Place.RESOURCE, "error"): Action.IGNORE,
}
"""RFC 6121 8.5.4, table 1. A chat message to a resource that is gone is treated like one to the account
(8.5.3.2.1).
"""

KEEPABLE = frozenset(("normal", "chat"))
"""The types of messages that may be kept, and that come after those that were."""

FELT = KEEPABLE | {"groupchat"}
"""Those whose sender learns whether somebody was there."""

MESSAGE_TYPES = frozenset(("normal", "chat", "groupchat", "headline", "error"))


def action_of(to: Jid, kind: str, *, is_ready: bool) -> Action:
    """What the table says of a message for a session that is not there, or for an account; `is_ready`: it has
    somebody who takes such.
    """
    if to.resource and kind != "chat":
        return TABLE[Place.RESOURCE, kind]
    return TABLE[Place.READY if is_ready else Place.ABSENT, kind]


def kind_of(stanza: Stanza) -> str:
    """The type of a message; "normal" for one that nobody knows (RFC 6121 5.2.2)."""
    return stanza.type if stanza.type in MESSAGE_TYPES else "normal"
