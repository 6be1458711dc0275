"""What a message says in its elements, and the same with other texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Final

from xmppd import ns
from xmppd.plugin import Stanza, stanza_of

XHTML: Final = f"{{{ns.XHTML_IM}}}html"
BODY: Final = f"{{{ns.CLIENT}}}body"
SEALED: Final = frozenset((ns.OMEMO, ns.OMEMO_2, ns.OPENPGP, ns.OLD_OPENPGP, ns.JINGLE_MESSAGE))
"""Namespaces of what nobody reads on the way."""
PICTURES: Final = (f"{{{ns.VCARD}}}BINVAL", f"{{{ns.VCARD}}}TYPE")
_OPEN: Final = b"><body>"
_CLOSE: Final = b"</body>"


def body_of(message: Stanza) -> str | None:
    """The text of a message that has a body as its first child and no other text, as nearly all have; None:
    it has to be looked at as a whole.
    """
    raw = message.raw
    head = raw.find(b">")
    if not raw.startswith(_OPEN, head):
        return None
    start = head + len(_OPEN)
    end = raw.find(b"<", start)
    if not raw.startswith(_CLOSE, end):
        return None
    text, rest = raw[start:end], raw[end + len(_CLOSE) :]
    if text.find(b"&") >= 0 or text.find(b"\r") >= 0:
        return None
    if rest != b"</message>" and _has_text(rest):
        return None
    return text.decode()


def _has_text(rest: bytes) -> bool:
    """Whether there is anything between the tags of this."""
    if rest.find(b"<!") >= 0:
        return True  # a text in other brackets
    at = rest.find(b">")
    while at >= 0:
        following = rest.find(b"<", at)
        if following < 0:
            return False
        if following != at + 1:
            return True
        at = rest.find(b">", following)
    return False


def texts_of(message: Stanza) -> list[str]:
    """All texts that it has in its elements; what is marked up is one. Only what can be read."""
    found: list[str] = []
    for child in message.xml:
        if child.tag.partition("}")[0][1:] in SEALED:
            continue
        if child.tag == XHTML:
            found.append("".join(child.itertext()))
            continue
        for part in child.iter():
            found.append(part.text or "")
            if part is not child:
                found.append(part.tail or "")
    return [text for text in found if text and not text.isspace()]


def spoken_in(iq: Stanza) -> list[str]:
    """All texts of a request, but for pictures; of JSON its own."""
    found: list[str] = []
    for part in iq.xml.iter():
        for text in (part.text or "", part.tail or ""):
            if text and not text.isspace() and part.tag not in PICTURES:
                found += json_texts(text) if text.lstrip()[:1] in ("{", "[") else [text]
    return found


def json_texts(text: str) -> list[str]:
    """The texts in JSON, names of fields as well; what is none is one text."""
    try:
        left, found = [json.loads(text)], list[str]()
    except (ValueError, RecursionError):
        return [text]
    while left:
        value = left.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, list):
            left += value
    return found


def changed(message: Stanza, change: Callable[[str], str]) -> Stanza:
    """The message with other texts: markup with any other one goes."""
    tree = deepcopy(message.xml)
    for child in list(tree):
        if child.tag.partition("}")[0][1:] in SEALED:
            continue
        if child.tag == XHTML:
            text = "".join(child.itertext())
            if change(text) != text:
                tree.remove(child)
            continue
        for part in child.iter():
            if part.text:
                part.text = change(part.text)
            if part is not child and part.tail:
                part.tail = change(part.tail)
    return stanza_of(tree)
