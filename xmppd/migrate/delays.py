"""The delay that a server adds to a message that waits (XEP-0203, XEP-0091), taken off again."""

from __future__ import annotations

from typing import Final
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.migrate.stamps import moment

_DELAY: Final = f"{{{ns.DELAY}}}delay"
_OLD: Final = f"{{{ns.LEGACY_DELAY}}}x"
_REMARKS: Final = ("offline storage", "storage")


def without_delay(message: Element, domain: str) -> float | None:
    """Take off what the server `domain` added, and say when that was; None where there is none. A delay of
    somebody else stays.
    """
    at = None
    for child in list(message):
        if child.tag in (_DELAY, _OLD) and _is_added(child, domain):
            found = moment(child.get("stamp", ""))
            at = at if found is None else found
            message.remove(child)
    return at


def _is_added(delay: Element, domain: str) -> bool:
    sender = delay.get("from", "")
    return sender == domain or (not sender and (delay.text or "").strip().lower() in _REMARKS)
