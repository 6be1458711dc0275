"""The XML of rosters (RFC 6121 2.1): items are packed to text that is ready to be sent.

Packed items stand where `jabber:iq:roster` is the default namespace. Each begins with its `jid`, so that one
can be found and replaced in the packed bytes of a roster without a parse: an escaped value holds no `<`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from xmppd import ns
from xmppd.xml.build import escape_attribute, escape_text

_ITEM = b"<item "

ASKING = " ask='subscribe'"

_PACKED = re.compile(
    f"<item jid='[^']*' subscription='([^']*)'({ASKING})?( approved='true')?(?: name='([^']*)')?"
    "(?:/>|><group>(.*)</group></item>)",
    re.DOTALL,
)

_ENTITIES: Mapping[str, str] = MappingProxyType(
    {"&lt;": "<", "&gt;": ">", "&apos;": "'", "&#9;": "\t", "&#10;": "\n", "&#13;": "\r", "&amp;": "&"}
)
"""What `escape_attribute` writes, in an order in which it can be undone."""


def roster_item(
    jid: str,
    subscription: str,
    name: str = "",
    groups: Sequence[str] = (),
    *,
    ask: bool = False,
    approved: bool = False,
) -> str:
    """One `<item/>` (RFC 6121 2.1.2), packed; `subscription` may be `remove` for a push."""
    flags = (ASKING if ask else "") + (" approved='true'" if approved else "")
    if name:
        flags += f" name='{escape_attribute(name)}'"
    head = f"{_start(jid)} subscription='{subscription}'{flags}"
    if not groups:
        return head + "/>"
    inner = "</group><group>".join(map(escape_text, groups))
    return f"{head}><group>{inner}</group></item>"


def roster_query(items: bytes, version: str) -> bytes:
    """The `<query/>` around packed items, with the version they belong to (RFC 6121 2.1.1)."""
    return f"<query xmlns='{ns.ROSTER}' ver='{escape_attribute(version)}'>".encode() + items + b"</query>"


def replace_item(items: bytes, jid: str, item: str) -> bytes:
    """The packed items with that of `jid` replaced by `item` ("": taken out), or `item` added at the end."""
    start = items.find(_start(jid).encode())
    if start < 0:
        return items + item.encode()
    end = items.find(b"<item ", start + 1)
    return items[:start] + item.encode() + (items[end:] if end >= 0 else b"")


def find_item(items: bytes, jid: str) -> bytes:
    """The packed item of `jid`, b"" for none."""
    start = items.find(_start(jid).encode())
    if start < 0:
        return b""
    end = items.find(_ITEM, start + 1)
    return items[start : end if end >= 0 else len(items)]


def parsed_item(item: bytes) -> tuple[Any, bool, bool, str, tuple[str, ...]] | None:
    """The subscription, `ask`, `approved`, name and groups of an item that `roster_item` packed; None where
    it does not tell them: a character that cannot be sent was replaced.
    """
    text = item.decode()
    found = _PACKED.fullmatch(text)
    if found is None or "\ufffd" in text:
        return None
    subscription, ask, approved, name, groups = found.groups()
    inner = () if groups is None else tuple(map(_unescaped, groups.split("</group><group>")))
    return subscription, bool(ask), bool(approved), _unescaped(name or ""), inner


def count_items(items: bytes) -> int:
    """How many items are packed there."""
    return items.count(b"<item ")


def count_asking(items: bytes) -> int:
    """How many of them ask for a subscription; a group of such a name counts as well."""
    return items.count(ASKING.encode())


def split_items(items: bytes) -> list[bytes]:
    """The packed items one by one."""
    return [_ITEM + item for item in items.split(_ITEM)[1:]]


def contact_of(item: bytes) -> str:
    """The `jid` of a packed item."""
    start = len(_ITEM) + len(b"jid='")
    return _unescaped(item[start : item.index(b"'", start)].decode())


def _unescaped(text: str) -> str:
    """What `escape_attribute` or `escape_text` made this of."""
    if "&" in text:
        for entity, character in _ENTITIES.items():
            text = text.replace(entity, character)
    return text


def changed_items(before: bytes, after: bytes) -> list[bytes]:
    """The packed items that are new or different, and for each that is gone one that removes it: as pushes
    need them (RFC 6121 2.1.6).
    """
    old, new = (packed.split(_ITEM)[1:] for packed in (before, after))
    had, has = set(old), {_address(item) for item in new}
    items = [_ITEM + item for item in new if item not in had]
    gone = (_address(item) for item in old if _address(item) not in has)
    return [*items, *(_ITEM + address + b" subscription='remove'/>" for address in gone)]


def _address(item: bytes) -> bytes:
    """The attribute `jid` of a packed item without its beginning."""
    return item[: item.index(b"'", 5) + 1]


def _start(jid: str) -> str:
    return f"<item jid='{escape_attribute(jid)}'"
