"""The XML Schema of XEP-0227 as a checker: what a document breaks of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

PIE = "urn:xmpp:pie:0"
INCLUDE = "{http://www.w3.org/2001/XInclude}include"

SCHEMA = {
    "server-data": (("host", 1, None), frozenset[str](), frozenset[str]()),
    "host": (("user", 1, None), frozenset({"jid"}), frozenset[str]()),
    "user": (("offline-messages", 0, 1), frozenset({"name"}), frozenset({"password"})),
    "offline-messages": (None, frozenset[str](), frozenset[str]()),
}
"""Element -> its own children (how many at least, at most), which come before all others; attributes that it
must have, and that it may have.
"""


def whole(path: Path) -> Element:
    """A document with what it includes."""
    tree = fromstring(path.read_bytes())
    return _resolved(tree, path.parent) if tree.tag == f"{{{PIE}}}server-data" else tree


def _resolved(tree: Element, folder: Path) -> Element:
    for index, child in enumerate(tree):
        if child.tag == INCLUDE:
            tree[index] = whole(folder / child.attrib["href"])
        elif child.tag == f"{{{PIE}}}host":  # users have no includes here, and what they own is opaque
            _resolved(child, folder)
    return tree


def breaches(tree: Element, wanted: str = "server-data") -> Iterator[str]:
    """What is against the schema, where `wanted` is the element that has to stand there."""
    if tree.tag != f"{{{PIE}}}{wanted}":
        yield f"{tree.tag} instead of {wanted}"
        return
    own, needed, allowed = SCHEMA[wanted]
    yield from (f"{wanted}: no attribute {name}" for name in sorted(needed - set(tree.keys())))
    yield from (f"{wanted}: attribute {name}" for name in sorted(set(tree.keys()) - needed - allowed))
    if any(text and text.strip() for text in (tree.text, *(child.tail for child in tree))):
        yield f"{wanted}: text"
    spaces = [child.tag.rpartition("}")[0][1:] for child in tree]
    count = next((index for index, space in enumerate(spaces) if space != PIE), len(tree))
    for space in spaces[count:]:  # xs:any, namespace='##other'
        if space in (PIE, ""):
            yield f"{wanted}: an element of {space or 'no namespace'} behind others"
    if own is None:
        yield from (f"{wanted}: {child.tag}" for child in tree[:count])
        return
    name, least, most = own
    if count < least or (most is not None and count > most):
        yield f"{wanted}: {count} times {name}"
    for child in tree[:count]:
        yield from breaches(child, name)
