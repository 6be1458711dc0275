"""XML that other servers keep as text inside of something else: stanzas, vCards, private elements."""

from __future__ import annotations

from typing import Final
from xml.etree.ElementTree import Element
from xml.parsers.expat import ExpatError

from xmppd import ns
from xmppd.xml.build import escape_attribute
from xmppd.xml.stanza import parse_around

DEEPEST: Final = 64
"""Levels of elements: no client means more, and deeper ones cost the stack."""


class BadXml(ValueError):
    """The text is not one element."""


def element_of(text: str | bytes, default: str = ns.CLIENT) -> Element:
    """The element that a text is, where `default` is the namespace of names without a prefix. BadXml.

    It stands within an element of ours, so a DTD, and with it every entity, is an error and is never read.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    opening = f"<é xmlns='{escape_attribute(default)}'>".encode()
    try:
        around = parse_around(opening, data, "</é>".encode())
    except (ExpatError, ValueError) as error:
        raise BadXml(f"not well-formed: {error}") from None
    if len(around) != 1 or (around.text or "").strip() or (around[0].tail or "").strip():
        raise BadXml("not one element")
    tree = around[0]
    tree.tail = None
    if depth_of(tree) > DEEPEST:
        raise BadXml(f"more than {DEEPEST} levels of elements")
    return tree


def depth_of(tree: Element) -> int:
    """How many levels of elements there are, the root's included; it stops to count soon after DEEPEST."""
    depth, level = 0, [tree]
    while level and depth <= DEEPEST:
        depth += 1
        level = [child for parent in level for child in parent]
    return depth


def renamed(tree: Element, old: str, new: str) -> Element:
    """The element with the namespace `old` ("": none) replaced by `new` in the names of its elements,
    down to where another one begins: what a source wrote without `xmlns` is in the stream's.
    """
    prefix = f"{{{old}}}" if old else ""
    tag = tree.tag
    if not (tag.startswith(prefix) if prefix else tag[:1] != "{"):
        return tree
    fresh = Element(f"{{{new}}}{tag[len(prefix) :]}", tree.attrib)
    fresh.text, fresh.tail = tree.text, tree.tail
    for child in tree:
        fresh.append(renamed(child, old, new))
    return fresh
