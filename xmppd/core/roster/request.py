"""What a client may ask of its roster: the payload of a roster set, validated (RFC 6121 2.3.3 and 2.5.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.errors import JidError, StanzaError
from xmppd.jid import Jid

_ITEM = f"{{{ns.ROSTER}}}item"
_GROUP = f"{{{ns.ROSTER}}}group"


MAX_REQUEST_BYTES = 10_000
"""The longest subscription request that is kept: the size of stanza that every server has to take (RFC 6120
13.12).
"""


@dataclass(frozen=True, slots=True)
class SetRequest:
    """Put a contact into the roster, or give it another name and other groups."""

    contact: str
    name: str
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RemoveRequest:
    """Take a contact out of the roster, with all subscriptions."""

    contact: str


def parse_set(
    query: Element, account: str, *, max_groups: int, max_name_bytes: int
) -> SetRequest | RemoveRequest:
    """The wish in a `<query/>` that a client of `account` sent; StanzaError as RFC 6121 2.3.3 has it.

    `max_name_bytes` bounds the name and each group, in bytes of UTF-8. `subscription` (but for `remove`),
    `ask` and `approved` are the server's own and ignored (2.1.2).
    """
    items = query.findall(_ITEM)
    if len(items) != 1:
        raise StanzaError("bad-request", "A roster set has exactly one item.")
    contact = _contact(items[0].get("jid"))
    if items[0].get("subscription") == "remove":
        return RemoveRequest(contact)
    if contact == account:
        raise StanzaError("not-allowed", "Your own account cannot be in your roster.")
    name = items[0].get("name", "")
    groups = tuple(group.text or "" for group in items[0].iterfind(_GROUP))
    check_names(name, groups, max_groups=max_groups, max_name_bytes=max_name_bytes)
    return SetRequest(contact, name, groups)


def check_names(name: str, groups: Sequence[str], *, max_groups: int, max_name_bytes: int) -> None:
    """StanzaError for a name or groups that no item may have (RFC 6121 2.3.3)."""
    if len(set(groups)) != len(groups):
        raise StanzaError("bad-request", "The same group is there twice.")
    if len(groups) > max_groups:
        raise StanzaError("not-acceptable", f"More than {max_groups} groups.")
    if "" in groups:
        raise StanzaError("not-acceptable", "A group has no name.")
    if any(len(text.encode()) > max_name_bytes for text in (name, *groups)):
        raise StanzaError("not-acceptable", f"A name is longer than {max_name_bytes} bytes.")


def _contact(text: str | None) -> str:
    if text is None:
        raise StanzaError("bad-request", "The item has no jid.")
    try:
        jid = Jid.parse(text)
    except JidError as error:
        raise StanzaError("jid-malformed", str(error)) from error
    if jid.resource:
        raise StanzaError("bad-request", "The jid of an item has no resource.")
    return jid.bare


def check_request(request: bytes) -> None:
    """StanzaError policy-violation for a subscription request that is too long to be kept."""
    if len(request) > MAX_REQUEST_BYTES:
        raise StanzaError("policy-violation", f"A request has at most {MAX_REQUEST_BYTES} bytes.")
