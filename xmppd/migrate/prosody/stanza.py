"""Prosody's stanzas as tables: `name`, `attr`, and children and text by position."""

from __future__ import annotations

import re
from typing import Final
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.migrate.fragments import DEEPEST, BadXml, element_of
from xmppd.migrate.prosody.lua import Table, Value

ADDED: Final = frozenset(("stamp", "stamp_legacy"))
"""Attributes in which archives of internal storage say when something was stored."""

_START = (
    "A-Z_a-z\xc0-\xd6\xd8-\xf6\xf8-\u02ff\u0370-\u037d\u037f-\u1fff\u200c\u200d\u2070-\u218f\u2c00-\u2fef"
    "\u3001-\ud7ff\uf900-\ufdcf\ufdf0-\ufffd\U00010000-\U000effff"
)
_NAME = re.compile(f"[{_START}][{_START}.0-9\xb7\u0300-\u036f\u203f\u2040-]*+")
_LEGAL = re.compile("[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*+")


class Xml(str):
    """An element that a source keeps as XML text."""

    __slots__ = ()


def stanza_of(value: Value, default: str = ns.CLIENT) -> Element:
    """The element that a table (or XML text) is, where `default` is the namespace if it says none. BadXml."""
    if isinstance(value, Xml):
        return element_of(value, default)
    return _element(value, default, 1)


def _element(value: Value, namespace: str, depth: int) -> Element:
    if not isinstance(value, dict):
        raise BadXml("not a stanza")
    if depth > DEEPEST:
        raise BadXml(f"more than {DEEPEST} levels of elements")
    attrs = value.get("attr", {})
    if not isinstance(attrs, dict):
        raise BadXml("attributes that are no table")
    own = attrs.get("xmlns")
    if own is not None:  # "" takes an element out of every namespace
        namespace = _legal(own)
    name = _name(value.get("name"))
    tree = Element(f"{{{namespace}}}{name}" if namespace else name, _attributes(attrs))
    _fill(tree, value, namespace, depth)
    return tree


def _fill(tree: Element, value: Table, namespace: str, depth: int) -> None:
    last: Element | None = None
    position = 1
    while (child := value.get(position)) is not None:
        position += 1
        if isinstance(child, dict):
            last = _element(child, namespace, depth + 1)
            tree.append(last)
        elif last is None:
            tree.text = (tree.text or "") + _legal(child)
        else:
            last.tail = (last.tail or "") + _legal(child)


def _attributes(attrs: Table) -> dict[str, str]:
    """By Clark name: a prefixed one is kept as "namespace\\1name", by old versions as "namespace|name"."""
    out: dict[str, str] = {}
    for key, value in attrs.items():
        if not isinstance(key, str) or key == "xmlns" or key.startswith("xmlns:"):
            continue
        uri, mark, name = key.rpartition("\x01" if "\x01" in key else "|")
        if not mark and key.startswith("xml:"):
            uri, name = ns.XML, key[4:]
        out[f"{{{_legal(uri)}}}{_name(name)}" if uri else _name(name)] = _legal(value)
    return out


def _name(name: Value | None) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadXml("not a name")
    return name


def _legal(text: Value) -> str:
    if isinstance(text, int | float) and not isinstance(text, bool):
        return str(text)
    if not isinstance(text, str):
        raise BadXml("not a text")
    if not _LEGAL.fullmatch(text):
        raise BadXml("a byte that is not UTF-8, or a character that XML does not have")
    return text
